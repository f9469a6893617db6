# SPDX-License-Identifier: Apache-2.0
"""The atlas that texts are drawn from: signed distance fields of the glyphs of many fonts."""

import hashlib
import json
import logging
import multiprocessing
import os
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import PIL
import torch
from huggingface_hub import constants
from PIL import features
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from tqdm import tqdm

from . import glyphs as glyphs_module
from . import shapes as shapes_module
from .fonts import FontFace
from .glyphs import Glyphs, UndrawableFontError, draw_font
from .shapes import MOST_ALIKE, capitals_likeness, letter_likeness


logger = logging.getLogger(__name__)

FORMAT = 1  # of the code that computes and saves: with another number, every cached atlas is built anew
FONTS_PER_PROCESS = 32  # for fewer, another process is not worth its start
LEAST_READABLE = 0.5  # share of a font's letters and digits that must look like those of other fonts
LEAST_FAMILIES = 20  # fewer do not tell what letters look like


@dataclass
class Atlas:
    """Glyphs as signed distance fields, all fonts at the same cap height.

    Attributes:
        charset: the characters, in the order of the second dimension.
        fonts: the names of the fonts, in the order of the first.
        licences: the licence of each font.
        fields: uint8 of shape `(fonts, characters, CELL, CELL)`: 128 on the outline, more inside, less outside, by 127 for
            `SPREAD` pixels. The pen stands at the left edge of column `ORIGIN`, on the upper edge of row `BASELINE`.
        advances: float32 of shape `(fonts, characters)`: pixels that the pen moves on.
        kerning: int8 of shape `(fonts, characters, characters)`: quarter pixels to add between a character and the next.
        drawable: bool of shape `(fonts, characters)`: the font has the character, and its glyph fits into the cell. The
            space is drawable with an empty field.
        has_lowercase: bool of shape `(fonts,)`: small letters look other than capitals.
        left_out: the fonts that were not taken, and why.
    """

    charset: str
    fonts: list[str]
    licences: list[str]
    fields: torch.Tensor
    advances: torch.Tensor
    kerning: torch.Tensor
    drawable: torch.Tensor
    has_lowercase: torch.Tensor
    left_out: dict[str, str] = field(default_factory=dict)

    @cached_property
    def digest(self) -> str:
        """Tells this atlas from all others: SHA-256 of the tensors' bytes, in the order of their names."""
        digest = hashlib.sha256()
        for _, tensor in sorted(self._tensors().items()):
            digest.update(tensor.contiguous().cpu().numpy().data)
        return digest.hexdigest()

    @property
    def legible(self) -> torch.Tensor:
        """What texts each font can be used for, bool of shape `(fonts, characters)`.

        It is what is drawable, without the small letters of fonts that draw them as capitals.
        """
        small = torch.tensor([character.islower() for character in self.charset], device=self.drawable.device)
        return self.drawable & (self.has_lowercase[:, None] | ~small)

    def to(self, device: torch.device | str) -> "Atlas":
        """The same atlas with its tensors on another device."""
        moved: dict[str, Any] = {name: tensor.to(device) for name, tensor in self._tensors().items()}
        return replace(self, **moved)

    def select(self, fonts: torch.Tensor | Sequence[int]) -> "Atlas":
        """The atlas of some of the fonts: a bool mask of shape `(fonts,)`, or their numbers."""
        chosen = torch.as_tensor(fonts, device=self.fields.device)
        numbers = chosen.nonzero().flatten() if chosen.dtype == torch.bool else chosen
        values: dict[str, Any] = {name: tensor[numbers] for name, tensor in self._tensors().items()}
        for name in ("fonts", "licences"):
            values[name] = [getattr(self, name)[number] for number in numbers.tolist()]
        return replace(self, **values)

    def save(self, path: str | Path) -> None:
        """Writes one safetensors file, whose metadata hold charset, fonts, licences and digest; never half a file."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        described = {one.name: getattr(self, one.name) for one in fields(self)}
        described = {name: value for name, value in described.items() if not isinstance(value, torch.Tensor)}
        tensors = {name: tensor.contiguous().cpu() for name, tensor in self._tensors().items()}
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            unfinished = Path(folder, path.name)
            metadata = json.dumps({"format": FORMAT, "digest": self.digest, **described})
            save_file(tensors, unfinished, {"atlas": metadata})
            unfinished.replace(path)

    @classmethod
    def load(cls, path: str | Path, device: torch.device | str = "cpu") -> "Atlas":
        """Reads what `save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is no atlas, or one of another version of this package.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"There is no atlas {path}.")
        try:
            with safe_open(path, framework="pt", device=str(device)) as file:
                described: dict[str, Any] = json.loads((file.metadata() or {}).get("atlas", "{}"))
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise ValueError(f"{path} is no atlas: {error}.") from error
        if described.pop("format", None) != FORMAT:
            raise ValueError(f"{path} is no atlas of this version (format {FORMAT}): build it anew.")
        described.pop("digest", None)  # for who reads the file without this package; here it follows from the tensors
        return cls(**described, **tensors)

    def _tensors(self) -> dict[str, torch.Tensor]:
        return {name: value for name, value in vars(self).items() if isinstance(value, torch.Tensor)}


def load_or_build(
    fonts: Sequence[FontFace], charset: str, cache: str | Path | None = None, progress: bool = True
) -> Atlas:
    """The atlas of `fonts`, from the cache if it was built before from the same font files, charset and constants.

    Args:
        fonts: see `find_fonts`.
        charset: the characters to draw.
        cache: the folder that keeps atlases, 400 kB a font; `svtrv2_hf` in Hugging Face's home by default.
        progress: show a bar while building.
    """
    path = Path(cache or Path(constants.HF_HOME, "svtrv2_hf")) / f"atlas-{_key(fonts, charset)}.safetensors"
    if path.is_file():
        return Atlas.load(path)
    atlas = build_atlas(fonts, charset, progress)
    atlas.save(path)
    return atlas


def _key(fonts: Sequence[FontFace], charset: str) -> str:
    """A name for all that an atlas follows from."""
    rules = [
        [FORMAT, LEAST_READABLE, LEAST_FAMILIES],
        [_constants(glyphs_module), _constants(shapes_module)],
        [PIL.__version__, features.version("freetype2")],  # which draw the glyphs
    ]
    digests = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in {font.path for font in fonts}}
    faces = [[digests[font.path], font.number, font.axes, font.name, font.licence] for font in fonts]
    return hashlib.sha256(json.dumps([rules, charset, faces]).encode()).hexdigest()[:24]


def _constants(module: ModuleType) -> dict[str, Any]:
    names = [name for name in sorted(vars(module)) if name.isupper() and name != "F"]  # which is torch's
    return {name: getattr(module, name) for name in names}


def build_atlas(fonts: Sequence[FontFace], charset: str, progress: bool = True) -> Atlas:
    """Draws every character of every font: 0.2 s a font, on all cores where fonts are many.

    Fonts that cannot be drawn, or whose letters do not look like letters, are left out; `left_out` tells. As processes
    are started for many fonts, a script that calls this needs its `if __name__ == "__main__":`.

    Raises:
        ValueError: the charset is empty, or no font is left.
    """
    if not charset:
        raise ValueError("The charset is empty.")
    drawn: list[tuple[FontFace, Glyphs]] = []
    left_out: dict[str, str] = {}
    with tqdm(total=len(fonts), desc="Drawing fonts", unit="font", disable=not progress) as bar:
        for font, glyphs in zip(fonts, _draw_all(fonts, charset), strict=True):
            if isinstance(glyphs, str):
                left_out[font.name] = glyphs
            else:
                drawn.append((font, glyphs))
            bar.update()
    if not drawn:
        raise ValueError(f"None of {len(fonts)} fonts can be drawn: {left_out}.")
    fields = torch.from_numpy(np.stack([glyphs.fields for _, glyphs in drawn]))
    atlas = Atlas(
        charset=charset,
        fonts=[font.name for font, _ in drawn],
        licences=[font.licence for font, _ in drawn],
        fields=fields,
        advances=torch.from_numpy(np.stack([glyphs.advances for _, glyphs in drawn])),
        kerning=torch.from_numpy(np.stack([glyphs.kerning for _, glyphs in drawn])),
        drawable=torch.from_numpy(np.stack([glyphs.drawable for _, glyphs in drawn])),
        has_lowercase=capitals_likeness(fields, charset) < MOST_ALIKE,
        left_out=left_out,
    )
    readable = _readable(atlas, [font.family for font, _ in drawn])
    for name, reason in left_out.items():
        logger.warning("Left out %s: %s.", name, reason)
    return atlas.select(readable)


def _readable(atlas: Atlas, families: Sequence[str]) -> torch.Tensor:
    """Which fonts to take, bool of shape `(fonts,)`; those whose letters look like no others' go to `left_out`."""
    numbers = {family: number for number, family in enumerate(dict.fromkeys(families))}
    if len(numbers) < LEAST_FAMILIES:
        return torch.ones(len(families), dtype=torch.bool)
    likeness = letter_likeness(atlas.fields, atlas.charset, [numbers[family] for family in families])
    for name, share in zip(atlas.fonts, likeness.tolist(), strict=True):
        if share < LEAST_READABLE:
            atlas.left_out[name] = f"only {share:.0%} of its letters and digits look like those of other fonts"
    return likeness >= LEAST_READABLE


def _draw_all(fonts: Sequence[FontFace], charset: str) -> Iterator[Glyphs | str]:
    draw = partial(_draw, charset=charset)
    processes = min(os.cpu_count() or 1, len(fonts) // FONTS_PER_PROCESS)
    if processes < 2:
        yield from map(draw, fonts)
        return
    # Not forked: the threads of torch, which run in this process, would not be in the others.
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(draw, fonts, chunksize=4)


def _draw(face: FontFace, charset: str) -> Glyphs | str:
    """The glyphs of a font, or why there are none."""
    try:
        return draw_font(face, charset)
    except UndrawableFontError as error:
        return str(error)
