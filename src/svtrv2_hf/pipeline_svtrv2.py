# SPDX-License-Identifier: Apache-2.0
"""Pipeline for images of words and lines: `text-recognition`, and `image-to-text` as remote code."""

import threading
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from PIL import Image
from torch import nn
from transformers import Pipeline

from .image_loading_svtrv2 import UnreadableImageError, load_rgb
from .resizing_svtrv2 import pad_to_batch


WINDOW = 8  # a sample waits for others with images of its size until so many batches have been read
VERTICAL_RATIO = 1.5  # height / width above which a crop may be a rotated line
PREPROCESSING = ("max_ratio", "rotate_vertical", "timeout", "max_pixels", "on_error")  # options of the pipeline
POSTPROCESSING = ("return_characters", "return_words", "allowed_characters", "n_best", "lexicon")

# For each model in use: the number of threads that use it, and its modules that were in training mode before.
_in_use: "WeakKeyDictionary[nn.Module, tuple[int, list[nn.Module]]]" = WeakKeyDictionary()
_lock = threading.Lock()


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Keep a model in evaluation mode until the last thread that uses it is done, then restore its mode."""
    with _lock:
        users, training = _in_use.get(model, (0, []))
        if not users:
            training = [module for module in model.modules() if module.training]
            for module in training:
                module.training = False
        _in_use[model] = users + 1, training
    try:
        yield
    finally:
        with _lock:
            users, training = _in_use.pop(model)
            if users > 1:
                _in_use[model] = users - 1, training
            else:
                for module in training:
                    module.training = True


class OrderedResults:
    """
    Results of a pipeline in the order of its inputs. Samples wait for others with images of the same size, with which they are
    recognized in one batch.

    Args:
        loader (`DataLoader`): yields batches of samples.
        recognize (`Callable`): computes the results of a batch.
        batch_size (`int`): number of samples in a batch.
    """

    def __init__(self, loader: Any, recognize: Callable[[list[Any]], list[Any]], batch_size: int):
        self.loader = loader
        self.recognize = recognize
        self.batch_size = batch_size

    def __len__(self) -> int:
        return len(self.loader.dataset)

    def __iter__(self) -> Iterator[Any]:
        waiting: dict[Any, dict[int, Any]] = {}  # samples by size and number; the oldest one is in the first group
        results: dict[int, Any] = {}
        oldest = 0

        def recognize(size: Any) -> Iterator[Any]:
            nonlocal oldest
            samples = waiting.pop(size)
            results.update(zip(samples, self.recognize(list(samples.values())), strict=True))
            while oldest in results:
                yield results.pop(oldest)
                oldest += 1

        for number, sample in enumerate(sample for batch in self.loader for sample in batch["sample"]):
            size = tuple(image.shape for image in sample["images"])
            group = waiting.setdefault(size, {})
            group[number] = sample
            if len(group) == self.batch_size:
                yield from recognize(size)
            elif number - oldest >= WINDOW * self.batch_size:
                yield from recognize(next(iter(waiting)))
        for size in list(waiting):
            yield from recognize(size)


class SVTRv2TextRecognitionPipeline(Pipeline):
    """
    Pipeline that recognizes the text of images of single words or lines.

    ```python
    >>> import svtrv2_hf
    >>> from transformers import pipeline

    >>> read = pipeline("text-recognition", model="path/to/folder")
    >>> read("word.png")
    [{"text": "Hello", "score": 0.98}]
    ```
    """

    _load_processor = True
    # For flags that are not set, the base class searches the folder, and may ask about remote code on the terminal.
    _load_image_processor = False
    _load_feature_extractor = False
    _load_tokenizer = False
    _load_video_processor = False

    def __call__(self, inputs: Any, **kwargs: Any) -> Any:
        """
        The model predicts in evaluation mode and has its previous mode afterwards. Several threads may use one model, but
        it must not be trained at the same time.

        Args:
            inputs: an image (a PIL image, path, http or data URL, bytes, open file, array or tensor), or a list, dataset or
                generator of images; a four-dimensional array or tensor is a list of images.
            batch_size (`int`, *optional*, defaults to 1): number of images of one size to recognize at once, which does not
                influence the results. With 2 or more, up to 8 batches of resized images are in memory.
            num_workers (`int`, *optional*, defaults to 0): number of processes that load and resize images.
            max_ratio (`int` or `"auto"`, *optional*): overrides the maximum aspect ratio of the processor; "auto" resizes
                lines up to a ratio of 100 without distortion.
            rotate_vertical (`bool`, *optional*, defaults to `False`): recognize a crop taller than 1.5 times its width also
                rotated by 90 degrees in both directions, and return the result with the best score. Results have the key
                "rotation", the applied rotation: 0, 90 or 270 degrees counterclockwise.
            return_characters (`bool`, *optional*, defaults to `False`): add "characters", a list of
                {"text", "score", "start", "end"}. `start` and `end` are x coordinates in pixels of the upright original
                image. If the crop was rotated, they are y coordinates; after 270 degrees, the first character is the lowest.
            return_words (`bool`, *optional*, defaults to `False`): add "words", likewise for the parts between spaces.
            allowed_characters (`str`, *optional*): predict only these characters.
            n_best (`int`, *optional*): add "alternatives", the most likely texts with score and log likelihood.
            lexicon (`list[str]`, *optional*): predict the most likely of these texts.
            on_error (`str`, *optional*, defaults to `"raise"`): with "return", the result of an unreadable image is
                {"text": "", "score": 0.0, "error": message}.
            timeout (`float`, *optional*, defaults to 30): limit of the total time of a download in seconds.
            max_pixels (`int`, *optional*, defaults to 64,000,000): number of pixels of the largest image to decode, at most
                `PIL.Image.MAX_IMAGE_PIXELS`.

        Returns:
            `[{"text": str, "score": float}]` for an image, a list of these for a list, an iterator over them
            for a dataset or generator. See [`SVTRv2Processor.post_process_text_recognition`] for the score. If the aspect
            ratio of an image exceeds `max_ratio`, it is compressed to that ratio, which loses narrow letters, and the
            result has the key "exceeds_max_ratio" with the value `True`. In the task `image-to-text`, the key of the text is
            "generated_text".

        Raises:
            UnreadableImageError: an image is unreadable.
            TypeError: an option is unknown.
        """
        is_sequence = isinstance(inputs, Sequence) and not isinstance(
            inputs, (str, bytes, bytearray, memoryview, list)
        )
        if is_sequence or getattr(inputs, "ndim", 3) == 4:
            inputs = list(inputs)
        if isinstance(inputs, list) and not inputs:
            return []
        is_file = hasattr(inputs, "read")  # an iterator over lines
        if isinstance(inputs, Iterator) and not isinstance(inputs, types.GeneratorType) and not is_file:
            inputs = (item for item in inputs)  # the base class streams only generators
        return super().__call__(inputs, **kwargs)

    def _sanitize_parameters(self, **options: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        if unknown := [name for name in options if name not in PREPROCESSING + POSTPROCESSING]:
            raise TypeError(f"The text recognition pipeline has no option {', '.join(map(repr, unknown))}.")
        options = {name: value for name, value in options.items() if value is not None}
        if options.get("on_error", "raise") not in ("raise", "return"):
            raise ValueError(f'on_error={options["on_error"]!r} must be "raise" or "return".')
        if "lexicon" in options:
            options["lexicon"] = self.processor.encode_lexicon(options["lexicon"])
        preprocessing, postprocessing = (
            {name: options[name] for name in names if name in options} for names in (PREPROCESSING, POSTPROCESSING)
        )
        return preprocessing, {}, postprocessing

    def get_iterator(
        self,
        inputs: Any,
        num_workers: int,
        batch_size: int,
        preprocess_params: dict[str, Any],
        forward_params: dict[str, Any],
        postprocess_params: dict[str, Any],
    ) -> Any:
        iterator = super().get_iterator(
            inputs, num_workers, batch_size, preprocess_params, forward_params, postprocess_params
        )
        if batch_size == 1:
            return iterator

        def recognize(samples: list[Any]) -> list[Any]:
            outputs = self.forward({"sample": samples}, **forward_params)["sample"]
            return [self.postprocess({"sample": output}, **postprocess_params) for output in outputs]

        return OrderedResults(iterator.loader.loader, recognize, batch_size)

    # A sample is one dict under one key, so that the base class neither pads nor splits it. It contains the candidates for
    # recognition: one, several for a vertical crop, or none for an unreadable image.

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
        candidates = {0: image}
        if rotate_vertical and image.height > VERTICAL_RATIO * image.width:
            candidates[90] = image.transpose(Image.Transpose.ROTATE_90)
            candidates[270] = image.transpose(Image.Transpose.ROTATE_270)
        processor = self.processor.image_processor
        return {
            "sample": {
                "images": [
                    processor.resize(candidate, processor.target_size(*candidate.size, max_ratio))
                    for candidate in candidates.values()
                ],
                "exceeds_max_ratio": [
                    processor.exceeds_max_ratio(*one.size, max_ratio) for one in candidates.values()
                ],
                "rotations": list(candidates) if rotate_vertical else [],
                "size": image.size,
            }
        }

    def _forward(self, model_inputs: dict[str, Any]) -> dict[str, Any]:
        samples = model_inputs["sample"]
        batched = isinstance(samples, list)
        if not batched:
            samples = [samples]
        images = [image for sample in samples for image in sample["images"]]
        logits: Iterator[Any] = iter(())
        if images:
            pixels, sizes = pad_to_batch([np.moveaxis(image, -1, 0) for image in images])
            pixels = self.processor.image_processor.scale(np.moveaxis(pixels, 1, -1))
            pixel_values, image_sizes = torch.from_numpy(pixels), torch.from_numpy(sizes)
            pixel_values = pixel_values.to(self.device, self.model.dtype)
            with evaluation_mode(self.model):
                outputs = self.model(pixel_values=pixel_values, image_sizes=image_sizes)
            rows, lengths = outputs.logits.float().cpu().numpy(), outputs.logits_lengths.tolist()
            logits = iter([row[:length] for row, length in zip(rows, lengths, strict=True)])
        samples = [{**sample, "images": [], "logits": [next(logits) for _ in sample["images"]]} for sample in samples]
        return {"sample": samples if batched else samples[0]}

    def postprocess(self, model_outputs: dict[str, Any], **options: Any) -> list[dict[str, Any]]:
        sample = model_outputs["sample"]
        if "error" in sample:
            return [{self._text_key: "", "score": 0.0, "error": sample["error"]}]
        width, height = sample["size"]
        results = []
        for number, logits in enumerate(sample["logits"]):
            rotation = sample["rotations"][number] if sample["rotations"] else 0
            rotated_size = (height, width) if rotation == 0 else (width, height)
            result = self.processor.post_process_text_recognition(
                {"logits": logits[None]}, target_sizes=[rotated_size], **options
            )[0]
            if rotation == 270:  # the line runs upward in the original image
                for part in [*result.get("characters", []), *result.get("words", [])]:
                    part["start"], part["end"] = height - part["end"], height - part["start"]
            if sample["rotations"]:
                result["rotation"] = rotation
            if sample["exceeds_max_ratio"][number]:
                result["exceeds_max_ratio"] = True
            results.append(result)
        best = max(results, key=lambda result: result["score"])
        return [{self._text_key: best.pop("text"), **best}]

    @property
    def _text_key(self) -> str:
        # The name that transformers uses for the task.
        return "generated_text" if self.task == "image-to-text" else "text"

    def save_pretrained(self, save_directory: Any, **kwargs: Any) -> None:
        super().save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory, **kwargs)  # the base class does not save it


__all__ = ["SVTRv2TextRecognitionPipeline"]
