# SPDX-License-Identifier: Apache-2.0
"""`svtrv2 pack`."""

from typing import Annotated

import typer

from .options import extra, number


def pack(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="Folder of images; subfolders are included.")],
    output: Annotated[str, typer.Argument(metavar="OUTPUT", help="New folder of the parquet files.")],
    rows: Annotated[int, number("Number of images in each file.")] = 10_000,
) -> int:
    """Copy many image files to parquet files, for svtrv2 read --input.

    The files have the columns image and file_name, as datasets of the Hub. Images are copied as they are. Files that
    cannot be copied are reported on stderr and are rows without an image; the exit status is then 1.
    """
    with extra("eval", "Writing parquet files"):
        from ..bulk.pack import pack as write
    return write(folder, output, rows)
