# SPDX-License-Identifier: Apache-2.0
"""The glyph atlas that texts are rendered from: signed distance fields of the glyphs of many fonts."""

import hashlib
import json
import logging
import multiprocessing
import os
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, fields
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
from huggingface_hub import constants
from PIL import features
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from tqdm import tqdm

from .fonts import FontFace
from .glyphs import Glyphs, UnusableFontError, has_lowercase, render_font


logger = logging.getLogger(__name__)

FORMAT = 2  # of the saved file; increase it when this file changes the contents, to invalidate caches
FONTS_PER_PROCESS = 32  # with fewer, starting another process costs more than it saves


@dataclass
class Atlas:
    """Glyphs as signed distance fields, with all fonts scaled to the same cap height.

    Attributes:
        charset: characters, in the order of the second dimension.
        fonts: font names, in the order of the first dimension.
        licenses: license of each font.
        fields: uint8 of shape `(fonts, characters, CELL, CELL)`: 128 on the outline, higher inside, lower outside, with a
            slope of 127 per `SPREAD` pixels. The pen is at the left edge of column `ORIGIN`, on the upper edge of row
            `BASELINE`.
        advances: float32 of shape `(fonts, characters)`: pixels that the pen advances.
        kerning: int8 of shape `(fonts, characters, characters)`: quarter pixels to add between a character and the next.
        available: bool of shape `(fonts, characters)`: the font has the character and its glyph fits into the cell. A
            space is available with an empty field.
        has_lowercase: bool of shape `(fonts,)`: lowercase letters differ in shape from capitals.
        skipped: skipped fonts, with the reason.
    """

    charset: str
    fonts: list[str]
    licenses: list[str]
    fields: torch.Tensor
    advances: torch.Tensor
    kerning: torch.Tensor
    available: torch.Tensor
    has_lowercase: torch.Tensor
    skipped: dict[str, str] = field(default_factory=dict)

    @cached_property
    def digest(self) -> str:
        """Identifies the atlas: SHA-256 of the bytes of its tensors, sorted by name."""
        digest = hashlib.sha256()
        for _, tensor in sorted(self._tensors().items()):
            digest.update(tensor.contiguous().numpy().data)
        return digest.hexdigest()

    @property
    def usable(self) -> torch.Tensor:
        """Characters each font can be used for, bool of shape `(fonts, characters)`.

        Equals `available` without the lowercase letters of fonts that have capitals in their place.
        """
        lowercase = torch.tensor([character.islower() for character in self.charset])
        return self.available & (self.has_lowercase[:, None] | ~lowercase)

    def save(self, path: str | Path) -> None:
        """Write one safetensors file atomically; charset, fonts, licenses and digest are in its metadata."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        attributes = {each.name: getattr(self, each.name) for each in fields(self)}
        attributes = {name: value for name, value in attributes.items() if not isinstance(value, torch.Tensor)}
        tensors = {name: tensor.contiguous() for name, tensor in self._tensors().items()}
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            unfinished = Path(folder, path.name)
            metadata = json.dumps({"format": FORMAT, "digest": self.digest, **attributes})
            save_file(tensors, unfinished, {"atlas": metadata})
            unfinished.replace(path)

    @classmethod
    def load(cls, path: str | Path) -> "Atlas":
        """Load an atlas saved by `save`.

        Raises:
            FileNotFoundError: the file does not exist.
            ValueError: the file is not an atlas, or has the format of another version of this package.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"Atlas {path} not found.")
        try:
            with safe_open(path, framework="pt") as file:
                attributes: dict[str, Any] = json.loads((file.metadata() or {}).get("atlas", "{}"))
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise ValueError(f"{path} is not an atlas: {error}.") from error
        if attributes.pop("format", None) != FORMAT:
            raise ValueError(f"{path} is not an atlas of format {FORMAT}: build it again with `svtrv2 atlas`.")
        attributes.pop("digest", None)  # stored for other readers of the file; computed from the tensors here
        return cls(**attributes, **tensors)

    def _tensors(self) -> dict[str, torch.Tensor]:
        return {name: value for name, value in vars(self).items() if isinstance(value, torch.Tensor)}


def load_or_build(
    fonts: Sequence[FontFace], charset: str, cache: str | Path | None = None, progress: bool = True
) -> Atlas:
    """Return the atlas of `fonts` from the cache, or build and cache it.

    The cache key covers the font files, the charset, and the code and libraries that render them.

    Args:
        fonts: fonts, as found by [`find_fonts`].
        charset: characters to render.
        cache: cache folder, 400 kB per font; defaults to `svtrv2_hf` in the Hugging Face home.
        progress: show a progress bar while building.
    """
    path = Path(cache or Path(constants.HF_HOME, "svtrv2_hf")) / f"atlas-{_key(fonts, charset)}.safetensors"
    if path.is_file():
        return Atlas.load(path)
    atlas = build_atlas(fonts, charset, progress)
    atlas.save(path)
    return atlas


def _key(fonts: Sequence[FontFace], charset: str) -> str:
    """Hash everything that an atlas depends on."""
    code = Path(__file__).with_name("glyphs.py")
    digests = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in {code, *(font.path for font in fonts)}}
    faces = [[digests[font.path], font.number, font.axes, font.name, font.license] for font in fonts]
    versions = [FORMAT, digests[code], PIL.__version__, features.version("freetype2")]
    return hashlib.sha256(json.dumps([versions, charset, faces]).encode()).hexdigest()[:24]


def build_atlas(fonts: Sequence[FontFace], charset: str, progress: bool = True) -> Atlas:
    """Render every character of every font; takes 0.2 s per font, on all cores if there are many fonts.

    Fonts that cannot be rendered are skipped and listed in `skipped`. Many fonts are rendered in subprocesses, so a script that
    calls this needs an `if __name__ == "__main__":` guard.

    Raises:
        ValueError: the charset is empty, or all fonts are skipped.
    """
    if not charset:
        raise ValueError("The charset is empty.")
    rendered: dict[FontFace, Glyphs] = {}
    skipped: dict[str, str] = {}
    progress_bar = tqdm(fonts, desc="Rendering fonts", unit="font", disable=not progress)
    for font, glyphs in zip(progress_bar, _render_all(fonts, charset), strict=True):
        if isinstance(glyphs, str):
            skipped[font.name] = glyphs
            logger.warning("Skipped font %s: %s.", font.name, glyphs)
        else:
            rendered[font] = glyphs
    if not rendered:
        raise ValueError(f"None of {len(fonts)} fonts can be rendered: {skipped}.")
    tensors = {
        name: torch.from_numpy(np.stack([getattr(glyphs, name) for glyphs in rendered.values()]))
        for name in Glyphs._fields
    }
    return Atlas(
        charset=charset,
        fonts=[font.name for font in rendered],
        licenses=[font.license for font in rendered],
        has_lowercase=has_lowercase(tensors["fields"], charset),
        skipped=skipped,
        **tensors,
    )


def _render_all(fonts: Sequence[FontFace], charset: str) -> Iterator[Glyphs | str]:
    render = partial(_render, charset=charset)
    processes = min(os.cpu_count() or 1, len(fonts) // FONTS_PER_PROCESS)
    if processes < 2:
        yield from map(render, fonts)
        return
    # Spawned, since forking a process that runs torch's threads may deadlock.
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(render, fonts, chunksize=4)


def _render(face: FontFace, charset: str) -> Glyphs | str:
    """Return the glyphs of a font, or the reason to skip it."""
    try:
        return render_font(face, charset)
    except UnusableFontError as error:
        return str(error)
