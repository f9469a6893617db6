# SPDX-License-Identifier: Apache-2.0
"""The pipeline that reads cropped words and lines: `text-recognition`, and `image-to-text` as remote code."""

import types
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from PIL import Image
from transformers import Pipeline

from .image_processing_svtrv2 import UnreadableImageError, load_rgb, pad_to_batch


# A crop taller than this many times its width may be a line of text turned on its side.
VERTICAL_RATIO = 1.5


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
            max_ratio (`int`, *optional*): largest width in units of the height, instead of the processor's own.
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
            timeout (`float`, *optional*, defaults to 30): seconds to wait for a URL.

        Returns:
            `[{"generated_text": str, "score": float}]` for one image, a list of these for a list, an iterator over them
            for a dataset or generator. See [`SVTRv2Processor.post_process_text_recognition`] for the score.

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
        max_ratio: int | None = None,
        rotate_vertical: bool | None = None,
        timeout: float | None = None,
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
        max_ratio: int | None = None,
        rotate_vertical: bool = False,
        timeout: float | None = 30.0,
        on_error: str = "raise",
    ) -> dict[str, Any]:
        try:
            image = load_rgb(image, timeout=timeout)
        except UnreadableImageError as error:
            if on_error == "raise":
                raise
            return {"sample": {"error": str(error), "images": [], "rotations": []}}
        turned = {0: image}
        if rotate_vertical and image.height > VERTICAL_RATIO * image.width:
            turned[90] = image.transpose(Image.Transpose.ROTATE_90)
            turned[270] = image.transpose(Image.Transpose.ROTATE_270)
        return {
            "sample": {
                "images": [
                    self.processor.image_processor.prepare(candidate, max_ratio) for candidate in turned.values()
                ],
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
            readings.append({**reading, "rotation": rotation} if sample["rotations"] else reading)
        best = max(readings, key=lambda reading: reading["score"])
        return [{"generated_text": best.pop("text"), **best}]

    def save_pretrained(self, save_directory: Any, **kwargs: Any) -> None:
        super().save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory, **kwargs)  # which the base class leaves out


__all__ = ["SVTRv2TextRecognitionPipeline"]
