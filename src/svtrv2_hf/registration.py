# SPDX-License-Identifier: Apache-2.0
"""Registration of SVTRv2 with the Auto classes and pipelines of transformers."""

import functools

from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForCTC,
    AutoModelForTextRecognition,
    AutoProcessor,
)
from transformers.pipelines import PIPELINE_REGISTRY

from .checkpoint import default_checkpoint
from .configuration_svtrv2 import SVTRv2Config
from .image_processing_svtrv2 import SVTRv2ImageProcessor, SVTRv2ServerImageProcessor
from .modeling_svtrv2 import SVTRv2ForCTC, SVTRv2Model
from .pipeline_svtrv2 import SVTRv2TextRecognitionPipeline
from .processing_svtrv2 import SVTRv2Processor


@functools.cache
def register() -> None:
    """Register all classes, once."""
    # `register_for_auto_class` makes `save_pretrained` copy the code. Without it, a model that was loaded from a folder with
    # an auto_map would be saved with the auto_map but without the files that it names.
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
        "text-recognition",
        SVTRv2TextRecognitionPipeline,
        pt_model=(AutoModelForCTC,),
        default={"model": (default_checkpoint(), "main")},
        type="image",
    )
    # The files that `save_pretrained` of a pipeline writes must not contain the path of the bundled checkpoint on this machine.
    [(task, registered)] = SVTRv2TextRecognitionPipeline._registered_impl.items()
    written = {name: value for name, value in registered.items() if name != "default"}
    SVTRv2TextRecognitionPipeline._registered_impl = {task: written}
