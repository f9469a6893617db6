# SPDX-License-Identifier: Apache-2.0
"""The pipeline that reads cropped words and lines: `text-recognition`, and `image-to-text` as remote code."""

import threading
import types
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from PIL import Image
from torch import nn
from transformers import Pipeline

from .image_loading_svtrv2 import UnreadableImageError, load_rgb
from .image_processing_svtrv2 import pad_to_batch


# A crop taller than this many times its width may be a line of text turned on its side.
VERTICAL_RATIO = 1.5

# Of each model that is reading just now: how many threads read with it, and what of it was in training mode before.
_reading: "WeakKeyDictionary[nn.Module, tuple[int, list[nn.Module]]]" = WeakKeyDictionary()
_lock = threading.Lock()


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Keeps a model in evaluation mode until the last of the threads that read with it is done, then restores its mode."""
    with _lock:
        readers, training = _reading.get(model, (0, []))
        if not readers:
            training = [module for module in model.modules() if module.training]
            for module in training:
                module.training = False
        _reading[model] = readers + 1, training
    try:
        yield
    finally:
        with _lock:
            readers, training = _reading.pop(model)
            if readers > 1:
                _reading[model] = readers - 1, training
            else:
                for module in training:
                    module.training = True


class SVTRv2TextRecognitionPipeline(Pipeline):
    """
    Reads images of single words or lines.

    ```python
    >>> import svtrv2_hf
    >>> from transformers import pipeline

    >>> read = pipeline("text-recognition", model="path/to/folder")
    >>> read("word.png")
    [{"generated_text": "Hello", "score": 0.98}]
    ```
    """

    _load_processor = True
    # All flags must be set: what is left open is looked for, and may ask about remote code on the terminal.
    _load_image_processor = False
    _load_feature_extractor = False
    _load_tokenizer = False
    _load_video_processor = False

    def __call__(self, inputs: Any, **kwargs: Any) -> Any:
        """
        Args:
            inputs: one image (a PIL image, path, http or data URL, bytes, open file, array or tensor), or a list, dataset or
                generator of them.
            batch_size (`int`, *optional*, defaults to 1): images computed together; it changes no reading.
            num_workers (`int`, *optional*, defaults to 0): processes that open and resize images.
            max_ratio (`int` or `"auto"`, *optional*): largest width in units of the height, instead of the processor's own. "auto"
                gives every line the width that it needs, up to 100 times the height.
            rotate_vertical (`bool`, *optional*, defaults to `False`): read a crop taller than 1.5 times its width also
                turned by a quarter to either side, and keep the reading with the best score. Results then tell the
                "rotation" that was applied, 0, 90 or 270 degrees counter-clockwise.
            return_characters (`bool`, *optional*, defaults to `False`): add "characters", a list of
                {"text", "score", "start", "end"}: `start` and `end` are x in pixels of the upright original image. Where the
                crop was rotated they are y, and where by 270 degrees, the first character is the lowest.
            return_words (`bool`, *optional*, defaults to `False`): add "words", the same for the parts between spaces.
            allowed_characters (`str`, *optional*): read these characters only.
            n_best (`int`, *optional*): add "alternatives", the likeliest texts with score and log likelihood.
            lexicon (`list[str]`, *optional*): read the likeliest of these texts.
            on_error (`str`, *optional*, defaults to `"raise"`): "return" makes an image that cannot be read the result
                {"generated_text": "", "score": 0.0, "error": message}, and the others are read.
            timeout (`float`, *optional*, defaults to 30): seconds that a download may take in all.
            max_pixels (`int`, *optional*, defaults to 64,000,000): pixels of the largest image to decode, at most
                `PIL.Image.MAX_IMAGE_PIXELS`.

        Returns:
            `[{"generated_text": str, "score": float}]` for one image, a list of these for a list, an iterator over them
            for a dataset or generator. See [`SVTRv2Processor.post_process_text_recognition`] for the score. A line wider than
            `max_ratio` allows is squeezed, which loses narrow letters: its result has the key "squeezed", `True`.

        The model reads in evaluation mode, whatever mode it is in, and is in its former mode afterwards. Several threads may read
        with one model; none may train it in the meantime.

        Raises:
            UnreadableImageError: an image cannot be read.
            TypeError: there is no such option.
        """
        if isinstance(inputs, Sequence) and not isinstance(inputs, (str, bytes, bytearray, memoryview, list)):
            inputs = list(inputs)
        if isinstance(inputs, list) and not inputs:
            return []
        is_file = hasattr(inputs, "read")  # which would iterate over its lines
        if isinstance(inputs, Iterator) and not isinstance(inputs, types.GeneratorType) and not is_file:
            inputs = (item for item in inputs)  # the base class streams nothing but generators
        return super().__call__(inputs, **kwargs)

    def _sanitize_parameters(
        self,
        max_ratio: int | str | None = None,
        rotate_vertical: bool | None = None,
        timeout: float | None = None,
        max_pixels: int | None = None,
        on_error: str | None = None,
        return_characters: bool | None = None,
        return_words: bool | None = None,
        allowed_characters: str | None = None,
        n_best: int | None = None,
        lexicon: Iterable[str] | None = None,
        **kwargs: Any,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        if kwargs:
            raise TypeError(f"The text recognition pipeline has no option {', '.join(map(repr, kwargs))}.")
        if on_error not in (None, "raise", "return"):
            raise ValueError(f'on_error={on_error!r} must be "raise" or "return".')
        preprocess = {
            "max_ratio": max_ratio,
            "rotate_vertical": rotate_vertical,
            "timeout": timeout,
            "max_pixels": max_pixels,
            "on_error": on_error,
        }
        postprocess = {
            "return_characters": return_characters,
            "return_words": return_words,
            "allowed_characters": allowed_characters,
            "n_best": n_best,
            "lexicon": None if lexicon is None else self.processor.encode_lexicon(lexicon),
        }

        def given(options: dict[str, Any]) -> dict[str, Any]:
            return {name: value for name, value in options.items() if value is not None}

        return given(preprocess), {}, given(postprocess)

    # A sample travels as one dict under one key: the base class neither pads it nor takes it apart, whatever the sizes.
    # It holds the candidates to read: one, or several for a vertical crop, or none for an image that cannot be read.

    def preprocess(
        self,
        image: Any,
        max_ratio: int | str | None = None,
        rotate_vertical: bool = False,
        timeout: float | None = 30.0,
        max_pixels: int | None = None,
        on_error: str = "raise",
    ) -> dict[str, Any]:
        try:
            image = load_rgb(image, timeout=timeout, max_pixels=max_pixels)
        except UnreadableImageError as error:
            if on_error == "raise":
                raise
            return {"sample": {"error": str(error), "images": [], "rotations": []}}
        turned = {0: image}
        if rotate_vertical and image.height > VERTICAL_RATIO * image.width:
            turned[90] = image.transpose(Image.Transpose.ROTATE_90)
            turned[270] = image.transpose(Image.Transpose.ROTATE_270)
        image_processor = self.processor.image_processor
        return {
            "sample": {
                "images": [image_processor.prepare(candidate, max_ratio) for candidate in turned.values()],
                "squeezed": [image_processor.squeezes(*candidate.size, max_ratio) for candidate in turned.values()],
                "rotations": list(turned) if rotate_vertical else [],
                "size": image.size,
            }
        }

    def _forward(self, model_inputs: dict[str, Any]) -> dict[str, Any]:
        samples = model_inputs["sample"]
        batched = isinstance(samples, list)
        if not batched:
            samples = [samples]
        images = [image for sample in samples for image in sample["images"]]
        readable: Iterator[Any] = iter(())
        if images:
            pixel_values, image_sizes = (torch.from_numpy(array) for array in pad_to_batch(images))
            pixel_values = pixel_values.to(self.device, self.model.dtype)
            with evaluation_mode(self.model):
                outputs = self.model(pixel_values=pixel_values, image_sizes=image_sizes)
            lengths = outputs.logits_lengths.tolist()
            logits = outputs.logits.float().cpu().numpy()
            readable = iter([row[:length] for row, length in zip(logits, lengths, strict=True)])
        samples = [
            {**sample, "images": [], "logits": [next(readable) for _ in sample["images"]]} for sample in samples
        ]
        return {"sample": samples if batched else samples[0]}

    def postprocess(self, model_outputs: dict[str, Any], **options: Any) -> list[dict[str, Any]]:
        sample = model_outputs["sample"]
        if "error" in sample:
            return [{"generated_text": "", "score": 0.0, "error": sample["error"]}]
        width, height = sample["size"]
        readings = []
        for number, logits in enumerate(sample["logits"]):
            rotation = sample["rotations"][number] if sample["rotations"] else 0
            as_read = (height, width) if rotation == 0 else (width, height)
            reading = self.processor.post_process_text_recognition(
                {"logits": logits[None]}, target_sizes=[as_read], **options
            )[0]
            if rotation == 270:  # the line runs from the bottom of the original upwards
                for part in [*reading.get("characters", []), *reading.get("words", [])]:
                    part["start"], part["end"] = height - part["end"], height - part["start"]
            if sample["rotations"]:
                reading["rotation"] = rotation
            if sample["squeezed"][number]:
                reading["squeezed"] = True
            readings.append(reading)
        best = max(readings, key=lambda reading: reading["score"])
        return [{"generated_text": best.pop("text"), **best}]

    def save_pretrained(self, save_directory: Any, **kwargs: Any) -> None:
        super().save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory, **kwargs)  # which the base class leaves out


__all__ = ["SVTRv2TextRecognitionPipeline"]
