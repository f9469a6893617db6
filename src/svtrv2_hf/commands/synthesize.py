# SPDX-License-Identifier: Apache-2.0
"""`svtrv2 synthesize`."""

from typing import Annotated

import typer

from .options import SyntheticCharset, extra, number, option


OUTPUT = (
    "A .png file for a contact sheet, a .parquet file, a folder ending in .lmdb, or a folder without an extension for "
    "image files and labels.tsv."
)


def synthesize(
    output: Annotated[str, typer.Argument(metavar="OUTPUT", help=OUTPUT)],
    images: Annotated[int, number("Number of images.")] = 150,
    seed: Annotated[int, option("N", "Random seed of texts and images.")] = 0,
    difficulty: Annotated[float, option("X", "Degradation: 0 for clean print, 1 as in photographs.")] = 1.0,
    atlas: Annotated[
        str | None, option("FILE", "Fonts in a file of svtrv2 atlas.", "the fonts of this machine")
    ] = None,
    charset: SyntheticCharset = None,
    words: Annotated[bool, typer.Option("--words", help="Render only words, no phrases and lines.")] = False,
) -> int:
    """Render synthetic text as a contact sheet or a dataset.

    The images resemble photographs of text in many fonts. The same seed gives the same images.
    """
    with extra("synthetic", "Rendering text"):
        from ..charsets import synthetic_charset
        from ..synthetic.source import SyntheticSource
        from ..synthetic.synthesize import synthesize as write
    characters = synthetic_charset(charset)
    source = SyntheticSource(atlas, characters, difficulty=difficulty, num_samples=images, lines=not words)
    write(source, output, seed)
    print(f"{output}: {images} images in {len(source.atlas.fonts)} fonts.")
    return 0
