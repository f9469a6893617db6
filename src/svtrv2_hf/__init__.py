# SPDX-License-Identifier: Apache-2.0
"""SVTRv2 text recognition for Hugging Face transformers.

Importing this package registers SVTRv2 with the Auto classes, and the task "text-recognition" with `pipeline`.
"""

import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from .charsets import ENGLISH_94, build_tokenizer, read_charset
    from .checkpoint import default_checkpoint
    from .configuration_svtrv2 import SVTRv2Config
    from .data.collator import SVTRv2DataCollator
    from .evaluation.trainer_metrics import make_compute_metrics, predict_ids
    from .image_processing_svtrv2 import (
        SVTRv2ImageProcessor,
        SVTRv2ServerImageProcessor,
        UnreadableImageError,
        load_rgb,
    )
    from .modeling_svtrv2 import SVTRv2CTCOutput, SVTRv2ForCTC, SVTRv2Model, SVTRv2PreTrainedModel
    from .pipeline_svtrv2 import SVTRv2TextRecognitionPipeline
    from .processing_svtrv2 import SVTRv2Processor
    from .sources import open_source
    from .training.arguments import SVTRv2TrainingArguments
    from .training.loader import training_batches
    from .training.trainer import SVTRv2Trainer

__version__ = "0.1.0.dev0"

__all__ = [
    "ENGLISH_94",
    "SVTRv2CTCOutput",
    "SVTRv2Config",
    "SVTRv2DataCollator",
    "SVTRv2ForCTC",
    "SVTRv2ImageProcessor",
    "SVTRv2Model",
    "SVTRv2PreTrainedModel",
    "SVTRv2Processor",
    "SVTRv2ServerImageProcessor",
    "SVTRv2TextRecognitionPipeline",
    "SVTRv2Trainer",
    "SVTRv2TrainingArguments",
    "UnreadableImageError",
    "build_tokenizer",
    "default_checkpoint",
    "load_rgb",
    "make_compute_metrics",
    "open_source",
    "predict_ids",
    "read_charset",
    "training_batches",
]

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
    "sources": ("open_source",),
    "training.arguments": ("SVTRv2TrainingArguments",),
    "training.loader": ("training_batches",),
    "training.trainer": ("SVTRv2Trainer",),
}


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
