# SPDX-License-Identifier: Apache-2.0
"""`svtrv2 atlas`."""

from typing import Annotated

import typer

from ..console import printable
from .options import SyntheticCharset, extra, option


FONTS = "Use the fonts in this folder and matplotlib's DejaVu; can be repeated."
UNKNOWN = "Include fonts that are not in the curated list of licenses."


def atlas(
    output: Annotated[str, typer.Argument(metavar="OUTPUT.safetensors", help="File to write.")],
    fonts: Annotated[list[str], option("FOLDER", FONTS, "the fonts of this machine and of fontpkg-* packages")] = [],  # noqa: B006
    charset: SyntheticCharset = None,
    exclude: Annotated[list[str], option("NAME", "Font or font family to exclude; can be repeated.")] = [],  # noqa: B006
    allow_unknown_license: Annotated[bool, typer.Option("--allow-unknown-license", help=UNKNOWN)] = False,
) -> int:
    """Build an atlas of glyphs for rendering on other machines.

    Renders the glyphs of all fonts in the curated list of licenses into a file, for svtrv2 synthesize --atlas and
    --train_data synthetic:FILE of svtrv2 train, and lists the fonts in a .tsv file next to it, with license, package,
    file and checksum.

    Prints a digest, which depends only on the fonts and on the versions of this package, Pillow and FreeType.
    """
    with extra("synthetic", "Rendering fonts"):
        from ..charsets import synthetic_charset
        from ..synthetic.build import build
    built, found = build(output, synthetic_charset(charset), fonts, exclude, allow_unknown_license)
    print(f"{output}: {len(built.fonts)} of {len(found.fonts)} fonts.")
    for name, reason in built.skipped.items():
        print(printable(f"Skipped {name}: {reason}."))
    for reason, count in found.skipped.items():
        print(f"Skipped {count} faces: {reason}.")
    print(f"Digest: {built.digest}")
    return 0
