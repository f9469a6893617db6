# SPDX-License-Identifier: Apache-2.0
"""Recognition of the images in a column, without knowledge of the engine that provides it."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers.utils import logging

from ..charsets import charset_of
from ..image_processing_svtrv2 import UnreadableImageError, load_rgb
from ..modeling_svtrv2 import SVTRv2ForCTC
from ..pipeline_svtrv2 import evaluation_mode
from ..processing_svtrv2 import SVTRv2Processor
from ..redaction import redact
from ..runtime.model import SVTRv2ForCTCRuntime, load_for_backend


if TYPE_CHECKING:
    import pyarrow as pa


_IRRELEVANT = ("_name_or_path", "architectures", "auto_map", "dtype", "transformers_version")  # in a configuration


class BatchReader:
    """
    Callable that recognizes the text of images in a column of a batch, for `Dataset.map(batched=True)` of datasets, `map_batches`
    of Ray Data, `mapInPandas` of Spark, and similar functions.

    ```python
    >>> from datasets import Image, load_dataset
    >>> from svtrv2_hf.bulk import BatchReader

    >>> crops = load_dataset("imagefolder", data_dir="crops", split="train").cast_column("image", Image(decode=False))
    >>> texts = crops.map(BatchReader(), batched=True, batch_size=512, remove_columns=["image"])
    ```

    Images of one size are recognized together, so batches of several hundred rows are faster than small ones. The results of a
    row do not depend on the other rows. Pickles contain the options, but not the model, which is loaded again from its folder.

    Args:
        model (`str`, *optional*): folder or Hub id of a saved model; the bundled checkpoint by default.
        image (`str`, *optional*, defaults to `"image"`): column of the images. An image is the bytes of a file, a dictionary with
            `bytes` and `path` as in datasets of the Hub, the path of a local file, a PIL image, or an array.
        keep (`Sequence[str]`, *optional*): columns to copy to the result.
        batch_size (`int`, *optional*, defaults to 32): maximum number of images that the model processes together.
        threads (`int`, *optional*): number of threads of torch in this process; unchanged by default.
        device (`str`, *optional*): device of the model, only for torch; a GPU if available by default.
        max_ratio (`int` or `"auto"`, *optional*): overrides the maximum aspect ratio of the processor.
        return_characters (`bool`, *optional*, defaults to `False`): add the column `characters`.
        backend (`str`, *optional*, defaults to `"torch"`): "torch", or "onnx" or "openvino" for a model with exported files.
        file_name (`str`, *optional*): exported file, see [`SVTRv2ForCTCRuntime.from_pretrained`].

    Raises:
        ValueError, OSError: the model cannot be loaded, the backend does not support the device, or a column of the result would
            have the name of a kept one.
    """

    def __init__(
        self,
        model: str = "default",
        image: str = "image",
        keep: Sequence[str] = (),
        batch_size: int = 32,
        threads: int | None = None,
        device: str | None = None,
        max_ratio: int | str | None = None,
        return_characters: bool = False,
        backend: str = "torch",
        file_name: str | None = None,
    ):
        self.model = model
        self.image = image
        self.keep = [keep] if isinstance(keep, str) else list(keep)
        self.batch_size = batch_size
        self.threads = threads
        self.device = device
        self.max_ratio = max_ratio
        self.return_characters = return_characters
        self.backend = backend
        self.file_name = file_name
        self.results = ["text", "score", *(["characters"] if return_characters else []), "exceeds_max_ratio", "error"]
        if clash := [name for name in self.keep if name in self.results]:
            raise ValueError(
                f"The column {clash[0]!r} cannot be kept, since a column of the results has its name: rename it."
            )
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size} must be 1 or more.")
        if backend != "torch" and device not in (None, "cpu"):
            raise ValueError(f"device={device!r} needs the backend torch: {backend} runs on the CPU.")
        self._loaded: tuple[SVTRv2ForCTC | SVTRv2ForCTCRuntime, SVTRv2Processor] | None = None
        self.fingerprint: str | None = None
        self._load()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_loaded": None}

    def _load(self) -> tuple[SVTRv2ForCTC | SVTRv2ForCTCRuntime, SVTRv2Processor]:
        """Return model and processor, which are loaded if needed and must not have changed since the first time."""
        if self._loaded is not None:
            return self._loaded
        logging.disable_progress_bar()
        options = {"use_guidance": False} if self.backend == "torch" else {"threads": self.threads}
        model, processor = load_for_backend(self.model, self.backend, self.file_name, **options)
        fingerprint = _fingerprint(model, processor)
        if self.fingerprint not in (None, fingerprint):
            raise ValueError(f"The model {self.model} has changed since the reader was created: create a new one.")
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        device = self.device or ("cuda" if torch.cuda.is_available() and self.backend == "torch" else "cpu")
        self._loaded, self.fingerprint = (model.to(device).eval(), processor), fingerprint
        return self._loaded

    @property
    def schema(self) -> "pa.Schema":
        """Schema of the results without the kept columns; `Features.from_arrow_schema` converts it for datasets."""
        import pyarrow as pa

        position = [
            pa.field("text", pa.string()),
            *(pa.field(name, pa.float64()) for name in ("score", "start", "end")),
        ]
        types = {
            "text": pa.string(),
            "score": pa.float64(),
            "characters": pa.list_(pa.struct(position)),
            "exceeds_max_ratio": pa.bool_(),
            "error": pa.string(),
        }
        return pa.schema([(name, types[name]) for name in self.results])

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[Any]]:
        """Recognize the images of a batch.

        Args:
            batch: columns by name: lists, arrays, or columns of pandas or pyarrow.

        Returns:
            the kept columns, and for each row `text`, `score` (0 to 1), `characters` if requested (as in the pipeline),
            `exceeds_max_ratio` (whether the image was compressed to the maximum aspect ratio, which loses narrow letters), and
            `error`: `None`, or why the image is unreadable; its text is then empty.

        Raises:
            ValueError: a column does not exist.
        """
        if missing := [name for name in (self.image, *self.keep) if name not in batch]:
            raise ValueError(f"No column {missing[0]!r} among {', '.join(map(str, batch))}.")
        _, processor = self._load()
        images = _values(batch[self.image])
        rows: list[dict[str, Any]] = [dict.fromkeys(self.results) for _ in images]
        groups: dict[tuple[int, ...], list[tuple[dict[str, Any], np.ndarray, tuple[int, int]]]] = {}
        for row, source in zip(rows, images, strict=True):
            row.update({"text": "", "score": 0.0, "exceeds_max_ratio": False})
            if self.return_characters:
                row["characters"] = []
            try:
                image = load_rgb(_image(source))
            except UnreadableImageError as error:
                row["error"] = redact(str(error))
                continue
            row["exceeds_max_ratio"] = processor.image_processor.exceeds_max_ratio(*image.size, self.max_ratio)
            pixels = processor.image_processor.prepare(image, self.max_ratio)
            group = groups.setdefault(pixels.shape, [])
            group.append((row, pixels, (image.height, image.width)))
            if len(group) == self.batch_size:
                self._recognize(groups.pop(pixels.shape))
        for group in groups.values():
            self._recognize(group)
        kept = {name: _values(batch[name]) for name in self.keep}
        return {**kept, **{name: [row[name] for row in rows] for name in self.results}}

    def _recognize(self, group: Sequence[tuple[dict[str, Any], np.ndarray, tuple[int, int]]]) -> None:
        """Add the results of images of one size to their rows."""
        model, processor = self._load()
        rows, pixels, sizes = zip(*group, strict=True)
        pixel_values = torch.from_numpy(np.stack(pixels)).to(model.device, model.dtype)
        with torch.inference_mode(), evaluation_mode(model):
            outputs = model(pixel_values=pixel_values)
        results = processor.post_process_text_recognition(
            outputs, list(sizes), return_characters=self.return_characters
        )
        for row, result in zip(rows, results, strict=True):
            row.update(result)


def _values(column: Any) -> list[Any]:
    """Return the values of a column; those of pyarrow are converted to Python objects."""
    values: list[Any] = column.to_pylist() if hasattr(column, "to_pylist") else list(column)
    return values


def _image(source: Any) -> Any:
    """Return what `load_rgb` accepts. Texts are paths of local files: data must not make this machine open URLs."""
    if isinstance(source, Mapping):
        source = source.get("path") if source.get("bytes") is None else source["bytes"]
    if source is None:
        raise UnreadableImageError("Cannot read the image: it is missing.")
    if not isinstance(source, str):
        return source
    if "://" in source or source[:5].lower() == "data:":
        raise UnreadableImageError(
            f"Cannot read image {source[:200]!r}: URLs are not opened; download the images first."
        )
    return Path(source)


def _fingerprint(model: SVTRv2ForCTC | SVTRv2ForCTCRuntime, processor: SVTRv2Processor) -> str:
    """Compute a digest of everything in a checkpoint that predictions depend on, independent of its location."""
    config = {name: value for name, value in model.config.to_dict().items() if name not in _IRRELEVANT}
    settings = (config, processor.image_processor.to_dict(), charset_of(processor.tokenizer))
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().cpu().flatten().view(torch.uint8).numpy().data)
    if isinstance(model, SVTRv2ForCTCRuntime):
        for file in (model.file, model.file.with_suffix(".bin")):  # weights of OpenVINO
            digest.update(file.read_bytes() if file.is_file() else b"")
    return digest.hexdigest()
