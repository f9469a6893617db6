# SPDX-License-Identifier: Apache-2.0
"""SVTRv2 text recognition for Hugging Face transformers.

Importing this package registers SVTRv2 with the Auto classes, and the task "text-recognition" with `pipeline`.
"""

import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from .charsets import ENGLISH_94 as ENGLISH_94
    from .charsets import build_tokenizer as build_tokenizer
    from .charsets import read_charset as read_charset
    from .checkpoint import default_checkpoint as default_checkpoint
    from .configuration_svtrv2 import SVTRv2Config as SVTRv2Config
    from .data.collator import SVTRv2DataCollator as SVTRv2DataCollator
    from .evaluation.trainer_metrics import make_compute_metrics as make_compute_metrics
    from .evaluation.trainer_metrics import predict_ids as predict_ids
    from .image_processing_svtrv2 import SVTRv2ImageProcessor as SVTRv2ImageProcessor
    from .image_processing_svtrv2 import SVTRv2ServerImageProcessor as SVTRv2ServerImageProcessor
    from .image_processing_svtrv2 import UnreadableImageError as UnreadableImageError
    from .image_processing_svtrv2 import load_rgb as load_rgb
    from .modeling_svtrv2 import SVTRv2CTCOutput as SVTRv2CTCOutput
    from .modeling_svtrv2 import SVTRv2ForCTC as SVTRv2ForCTC
    from .modeling_svtrv2 import SVTRv2Model as SVTRv2Model
    from .modeling_svtrv2 import SVTRv2PreTrainedModel as SVTRv2PreTrainedModel
    from .pipeline_svtrv2 import SVTRv2TextRecognitionPipeline as SVTRv2TextRecognitionPipeline
    from .processing_svtrv2 import SVTRv2Processor as SVTRv2Processor
    from .runtime.model import SVTRv2ForCTCRuntime as SVTRv2ForCTCRuntime
    from .sources import open_source as open_source
    from .training.arguments import SVTRv2TrainingArguments as SVTRv2TrainingArguments
    from .training.loader import training_batches as training_batches
    from .training.trainer import SVTRv2Trainer as SVTRv2Trainer

__version__ = "0.1.0.dev0"

_MODULES = {
    "charsets": ("ENGLISH_94", "build_tokenizer", "read_charset"),
    "checkpoint": ("default_checkpoint",),
    "configuration_svtrv2": ("SVTRv2Config",),
    "image_processing_svtrv2": (
        "SVTRv2ImageProcessor",
        "SVTRv2ServerImageProcessor",
        "UnreadableImageError",
        "load_rgb",
    ),
    "modeling_svtrv2": ("SVTRv2CTCOutput", "SVTRv2ForCTC", "SVTRv2Model", "SVTRv2PreTrainedModel"),
    "pipeline_svtrv2": ("SVTRv2TextRecognitionPipeline",),
    "processing_svtrv2": ("SVTRv2Processor",),
    "data.collator": ("SVTRv2DataCollator",),
    "evaluation.trainer_metrics": ("make_compute_metrics", "predict_ids"),
    "runtime.model": ("SVTRv2ForCTCRuntime",),
    "sources": ("open_source",),
    "training.arguments": ("SVTRv2TrainingArguments",),
    "training.loader": ("training_batches",),
    "training.trainer": ("SVTRv2Trainer",),
}

__all__ = sorted(name for names in _MODULES.values() for name in names)


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f".{module}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _is_program() -> bool:
    """Return whether this process runs the `svtrv2` program, which registers the model only if a command needs it."""
    path = Path(getattr(sys.modules.get("__main__"), "__file__", None) or "")
    return path.name == "svtrv2" or path.parent.name == "svtrv2.exe"


if not _is_program():
    import_module(".registration", __name__).register()
