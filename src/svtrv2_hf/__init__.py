# SPDX-License-Identifier: Apache-2.0
"""SVTRv2 text recognition for Hugging Face transformers.

Importing this package makes the Auto classes know SVTRv2, and `pipeline` the task "text-recognition".
"""

from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForCTC,
    AutoModelForTextRecognition,
    AutoProcessor,
)
from transformers.pipelines import PIPELINE_REGISTRY

from .charsets import ENGLISH_94, build_tokenizer, read_charset
from .checkpoint import default_checkpoint
from .configuration_svtrv2 import SVTRv2Config
from .image_processing_svtrv2 import (
    SVTRv2ImageProcessor,
    SVTRv2ServerImageProcessor,
    UnreadableImageError,
    load_rgb,
)
from .modeling_svtrv2 import SVTRv2CTCOutput, SVTRv2ForCTC, SVTRv2Model, SVTRv2PreTrainedModel
from .pipeline_svtrv2 import SVTRv2TextRecognitionPipeline
from .processing_svtrv2 import SVTRv2Processor


__version__ = "0.1.0.dev0"


def _register() -> None:
    # `register_for_auto_class` makes `save_pretrained` copy the code; without it a folder that was loaded with an
    # auto_map would be saved with the auto_map but without the files it names.
    SVTRv2Config.register_for_auto_class()
    SVTRv2Model.register_for_auto_class("AutoModel")
    SVTRv2ForCTC.register_for_auto_class("AutoModelForCTC")
    SVTRv2ImageProcessor.register_for_auto_class()
    SVTRv2ServerImageProcessor.register_for_auto_class()
    SVTRv2Processor.register_for_auto_class()
    AutoConfig.register("svtrv2", SVTRv2Config, exist_ok=True)
    AutoModel.register(SVTRv2Config, SVTRv2Model, exist_ok=True)
    AutoModelForCTC.register(SVTRv2Config, SVTRv2ForCTC, exist_ok=True)
    AutoModelForTextRecognition.register(SVTRv2Config, SVTRv2ForCTC, exist_ok=True)
    AutoImageProcessor.register(SVTRv2Config, image_processor_classes={"pil": SVTRv2ImageProcessor}, exist_ok=True)
    # AutoImageProcessor finds classes by name, but supports only one PIL class for each key.
    AutoImageProcessor.register(
        SVTRv2ServerImageProcessor, image_processor_classes={"pil": SVTRv2ServerImageProcessor}, exist_ok=True
    )
    AutoProcessor.register(SVTRv2Config, SVTRv2Processor, exist_ok=True)
    PIPELINE_REGISTRY.register_pipeline(
        "text-recognition", SVTRv2TextRecognitionPipeline, pt_model=(AutoModelForCTC,), type="image"
    )


_register()

__all__ = [
    "ENGLISH_94",
    "SVTRv2CTCOutput",
    "SVTRv2Config",
    "SVTRv2ForCTC",
    "SVTRv2ImageProcessor",
    "SVTRv2Model",
    "SVTRv2PreTrainedModel",
    "SVTRv2Processor",
    "SVTRv2ServerImageProcessor",
    "SVTRv2TextRecognitionPipeline",
    "UnreadableImageError",
    "build_tokenizer",
    "default_checkpoint",
    "load_rgb",
    "read_charset",
]
