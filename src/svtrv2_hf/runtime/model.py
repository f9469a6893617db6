# SPDX-License-Identifier: Apache-2.0
"""Exported models with the interface of [`SVTRv2ForCTC`]."""

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import nn
from transformers.utils import cached_file

from ..checkpoint import (
    check_classes,
    checkpoint_folder,
    default_checkpoint,
    load_config,
    load_model_and_processor,
    load_processor,
)
from ..configuration_svtrv2 import SVTRv2Config
from ..modeling_svtrv2 import SVTRv2CTCOutput, SVTRv2ForCTC
from ..processing_svtrv2 import SVTRv2Processor
from ..size_groups_svtrv2 import groups_of_one_size, merge_logits
from .sessions import Provider, Session, onnx_session, openvino_session


Backend = Literal["onnx", "openvino"]
# The first is the usual file, the second the quantized one, as tools of the Hub name them.
FILES: dict[str, tuple[str, str]] = {
    "onnx": ("model.onnx", "model_quantized.onnx"),
    "openvino": ("openvino_model.xml", "openvino_model_qint8_quantized.xml"),
}


class SVTRv2ForCTCRuntime(nn.Module):
    """
    Text recognition model that `svtrv2 export` wrote, for use in place of [`SVTRv2ForCTC`]: in the pipeline, or with inputs
    of the processor.

    ```python
    >>> from svtrv2_hf import SVTRv2ForCTCRuntime
    >>> from transformers import AutoProcessor, pipeline

    >>> model = SVTRv2ForCTCRuntime.from_pretrained("path/to/folder", backend="onnx")
    >>> read = pipeline("text-recognition", model=model, processor=AutoProcessor.from_pretrained("path/to/folder"))
    ```

    It has no parameters, and inputs and outputs are on the CPU. Pickles and copies contain the place of the file, which is loaded
    again.
    """

    main_input_name = "pixel_values"
    input_modalities = ("image",)
    device = torch.device("cpu")
    dtype = torch.float32

    def __init__(
        self,
        config: SVTRv2Config,
        file: str | Path,
        backend: Backend = "onnx",
        providers: Sequence[Provider] | None = None,
        threads: int | None = None,
    ):
        """Load a file; see [`~SVTRv2ForCTCRuntime.from_pretrained`]."""
        super().__init__()
        if providers is not None and backend != "onnx":
            raise ValueError(f"providers={list(providers)} are only for the backend onnx.")
        if threads is not None and threads < 1:
            raise ValueError(f"threads={threads} must be 1 or more.")
        self.config = config
        self.file = Path(file).absolute()
        self.backend = backend
        self._options = (providers, threads)
        self._session: Session = (
            onnx_session(self.file, providers, threads) if backend == "onnx" else openvino_session(self.file, threads)
        )
        self.eval()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.config, self.file, self.backend, *self._options)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        backend: Backend = "onnx",
        file_name: str | None = None,
        providers: Sequence[Provider] | None = None,
        threads: int | None = None,
        **kwargs: Any,
    ) -> "SVTRv2ForCTCRuntime":
        """
        Args:
            pretrained_model_name_or_path: folder or Hub id of a model with exported files.
            backend (`str`, *optional*, defaults to `"onnx"`): "onnx" for ONNX Runtime, "openvino" for OpenVINO.
            file_name (`str`, *optional*): name of a file in the subfolder `onnx` or `openvino`; defaults to `model.onnx` and
                `openvino_model.xml`.
            providers (`list`, *optional*, defaults to `["CPUExecutionProvider"]`): execution providers of ONNX Runtime in
                order of preference, such as "CUDAExecutionProvider", optionally with options, `(name, options)`.
            threads (`int`, *optional*): number of CPU threads; chosen by the runtime by default.
            kwargs (*optional*): options of the Hub, such as `revision`, `token` and `cache_dir`.

        Raises:
            ValueError: a package is not installed, a provider is not available, or the file is damaged.
            FileNotFoundError: the model does not have this file.
        """
        if backend not in FILES:
            raise ValueError(f'backend={backend!r} must be "onnx" or "openvino".')
        config = SVTRv2Config.from_pretrained(pretrained_model_name_or_path, **kwargs)
        file = _find(pretrained_model_name_or_path, backend, file_name or FILES[backend][0], kwargs)
        return cls(config, file, backend, providers, threads)

    def forward(self, pixel_values: torch.Tensor, image_sizes: torch.Tensor | None = None) -> SVTRv2CTCOutput:
        """Compute logits as [`SVTRv2ForCTC.forward`] does, with `logits` and `logits_lengths` as output."""
        groups = groups_of_one_size(pixel_values.detach().to("cpu", torch.float32), image_sizes)
        logits_of_group = [torch.from_numpy(self._session(images.contiguous().numpy())) for _, images in groups]
        logits, lengths = merge_logits(groups, logits_of_group, self.config.blank_token_id)
        return SVTRv2CTCOutput(logits=logits, logits_lengths=lengths)

    def num_parameters(self) -> int:
        """Return the number of parameters of the model that was exported."""
        return SVTRv2ForCTC(self.config).drop_guidance().num_parameters()

    def can_generate(self) -> bool:
        return False


def _find(name: str | os.PathLike[str], backend: str, file_name: str, hub: dict[str, Any]) -> Path:
    """Return the path of an exported file, after a download if the model is on the Hub."""

    def find(file: str) -> str | None:
        return cached_file(name, file, subfolder=backend, _raise_exceptions_for_missing_entries=False, **hub)

    path = find(file_name)
    if path is not None and backend == "openvino" and file_name.endswith(".xml"):
        file_name = f"{file_name.removesuffix('.xml')}.bin"  # weights
        path = path if find(file_name) else None
    if path is None:
        others = [file for file in FILES[backend] if file != file_name and find(file)]
        hint = f", or choose {others[0]}" if others else ""
        wanted = " --format openvino" if backend == "openvino" else ""
        model = "default --output FOLDER" if str(name) == default_checkpoint() else shlex.quote(str(name))
        raise FileNotFoundError(
            f"{name} has no {backend}/{file_name}: export it with svtrv2 export {model}{wanted}{hint}."
        )
    return Path(path)


def load_for_backend(
    name: str, backend: str = "torch", file_name: str | None = None, threads: int | None = None, **options: Any
) -> tuple[SVTRv2ForCTC | SVTRv2ForCTCRuntime, SVTRv2Processor]:
    """Load the model and the processor of a checkpoint for a command.

    Args:
        name: a folder, a Hub id, or "default".
        backend: "torch" or a backend of [`SVTRv2ForCTCRuntime`].
        file_name, threads: see [`SVTRv2ForCTCRuntime.from_pretrained`]; not for torch.
        options: options of `SVTRv2ForCTC.from_pretrained`.

    Raises:
        ValueError, OSError: see [`load_model_and_processor`]; a package is not installed; or the model does not have an
            exported file.
    """
    if backend == "torch":
        if file_name is not None:
            raise ValueError(f"The file {file_name} needs a backend: --backend onnx or --backend openvino.")
        return load_model_and_processor(name, **options)
    processor = load_processor(name)
    check_classes(name, load_config(name), processor)
    model = SVTRv2ForCTCRuntime.from_pretrained(
        checkpoint_folder(name), cast(Backend, backend), file_name, threads=threads
    )
    return model, processor
