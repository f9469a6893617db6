# SPDX-License-Identifier: Apache-2.0
"""Options and checks that several commands share."""

from typing import Annotated, Any, Literal

import typer

from ..extras import extra as extra


# Copies of types and names in modules that import torch; a test compares them.
Normalization = Literal["none", "nfc", "nfkc"]
Size = Literal["nano", "tiny", "small", "base"]
UnknownCharacters = Literal["error", "drop_sample", "drop_character"]


def option(metavar: str | None, help: str, default: str | bool = True, *names: str, **settings: Any) -> Any:
    """Return an option; `default` describes the default value if the value itself would not be clear."""
    return typer.Option(*names, metavar=metavar, help=help, show_default=default, **settings)


def number(help: str, default: str | bool = True, *names: str, minimum: int = 1) -> Any:
    """Return an option that takes an integer."""
    return option("N", help, default, *names, min=minimum)


Model = Annotated[str, option("MODEL", "Folder or Hub id of a model.", "the bundled checkpoint")]
Backend = Annotated[
    Literal["torch", "onnx", "openvino"],
    option(None, "Library that runs the model; onnx and openvino run files of svtrv2 export."),
]
FileName = Annotated[
    str | None,
    option("NAME", "Exported file, such as model_quantized.onnx.", "model.onnx or openvino_model.xml"),
]
Workers = Annotated[int, number("Number of data-loading worker processes.", minimum=0)]
BatchSize = Annotated[int, number("Batch size.")]
SyntheticCharset = Annotated[
    str | None, option("FILE", "File with one character per line.", "the printable ASCII characters with the space")
]


def check_device(name: str, backend: str = "torch") -> None:
    """Raise ValueError if torch cannot compute on a device, or another backend should."""
    if backend != "torch" and name != "cpu":
        raise ValueError(f"--device {name} needs --backend torch: {backend} runs on the CPU.")
    import torch

    try:
        torch.zeros(1, device=name).item()
    except (RuntimeError, AssertionError) as error:  # AssertionError: torch was built without CUDA
        raise ValueError(f"--device {name}: torch cannot compute on such a device here.") from error
