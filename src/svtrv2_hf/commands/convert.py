# SPDX-License-Identifier: Apache-2.0
"""`svtrv2 convert`."""

from typing import Annotated

import typer

from .options import number, option


def convert(
    checkpoint: Annotated[
        str,
        typer.Argument(metavar="CHECKPOINT", help="A .pth, .safetensors or .onnx file, or hub:OWNER/REPOSITORY/FILE."),
    ],
    output: Annotated[str, option("FOLDER", "Folder to write the model to.")],
    charset: Annotated[
        str | None,
        option(
            "FILE",
            "File with one character per line, in the order of the head, without the blank; or "
            "hub:OWNER/REPOSITORY/FILE.",
            "the 94 characters of the English models",
        ),
    ] = None,
    max_ratio: Annotated[
        int | None,
        number("Maximum aspect ratio (width / height).", "as published: 12 with the guidance branch, 4 without"),
    ] = None,
) -> int:
    """Convert an OpenOCR checkpoint of SVTRv2 to transformers.

    The size, the guidance branch and the number of classes are inferred from the tensors. ONNX exports do not contain
    the guidance branch.
    """
    from ..charsets import read_charset
    from ..conversion import convert as convert_checkpoint
    from ..conversion import local_file

    characters = None if charset is None else read_charset(local_file(charset))
    model, processor = convert_checkpoint(checkpoint, output, characters, max_ratio)
    config = model.config
    print(
        f"{output}: {model.num_parameters() / 1e6:.6f} M parameters, hidden sizes {config.hidden_sizes}, depths "
        f"{config.depths}, {config.vocab_size} classes, {'with' if config.use_guidance else 'without'} guidance "
        f"branch, max ratio {processor.image_processor.max_ratio}."
    )
    return 0
