# SPDX-License-Identifier: Apache-2.0
"""Source of synthetic text."""

import hashlib
import io
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property, reduce
from itertools import count, islice
from operator import and_
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

import torch
from PIL import Image

from ..charsets import PRINTABLE_ASCII, code_point
from ..data.batches import Size
from ..data.sample import Sample, Source
from ..image_processing_svtrv2 import SVTRv2ImageProcessor
from .atlas import Atlas, load_or_build
from .fonts import find_fonts
from .renderer import Renderer, check_difficulty
from .texts import TextSource


CHUNK = 256  # texts that are planned and rendered together


class PlannedImage(NamedTuple):
    """A text, its index in the stream, and the size to render it at."""

    number: int
    text: str
    size: Size


class SyntheticSource(Source):
    """Source of synthetic text images, different in each epoch.

    Image `index` is a pure function of the seed, the index and the arguments. If no single font of the atlas has all
    characters of a text, the text is reduced to the characters of the font that has most of them.

    Args:
        atlas: atlas file; by default an atlas of the fonts of this machine, which is built once and cached. Building takes
            minutes and starts several processes.
        charset: characters of the texts; see [`TextSource`].
        difficulty: difficulty of the [`Renderer`].
        num_samples: number of images per epoch.
        lines: include phrases and long lines in addition to words.
        words: file with additional words; see [`TextSource`].
        name: name in logs; part of the seed of `read`.
        weight: weight in a mixture of sources.
        allow_unknown_license: without an atlas, use fonts that are not in the curated list of licenses, too.

    Attributes:
        atlas: the glyph atlas.
        text_source: the source of the texts.

    Raises:
        FileNotFoundError: the atlas or the word file does not exist.
        ValueError: no font of the atlas has some character of the charset, or an argument is out of range.
    """

    num_samples: int

    def __init__(
        self,
        atlas: str | Path | None = None,
        charset: str = PRINTABLE_ASCII,
        difficulty: float = 1.0,
        num_samples: int = 1_000_000,
        lines: bool = True,
        words: str | Path | None = None,
        name: str = "synthetic",
        weight: float | None = None,
        allow_unknown_license: bool = False,
    ):
        check_difficulty(difficulty)
        self.text_source = TextSource(charset, None if lines else {"phrase": 0, "line": 0}, words)
        # Loaded here because building starts processes, which data-loading workers may not.
        if atlas is None:
            self.atlas = load_or_build(find_fonts(allow_unknown_license=allow_unknown_license).fonts, charset)
        else:
            self.atlas = Atlas.load(atlas)
        self._fonts_of = _fonts_of(self.atlas)
        if missing := [character for character in charset if not self._fonts_of.get(character)]:
            raise ValueError(
                f"No font of the atlas{f' {atlas}' if atlas else ''} has {_listed(missing)}: remove them from the charset, or "
                f"{'build an atlas of fonts that have them' if atlas else 'install fonts that have them'}."
            )
        self.charset = charset
        self.difficulty = difficulty
        self.num_samples = num_samples
        self.lines = lines
        self.words = words
        self.name = name
        self.weight = weight
        self.image_processor = SVTRv2ImageProcessor(max_ratio=20)

    @cached_property
    def fingerprint(self) -> list[Any]:
        """Everything that the images depend on except the code."""
        words = hashlib.sha256(Path(self.words).read_bytes()).hexdigest() if self.words else None
        return [self.charset, self.difficulty, self.lines, words, self.atlas.digest]

    def renderer(self, device: torch.device | str = "cpu") -> Renderer:
        """Create the renderer of this source."""
        return Renderer(self.atlas, self.difficulty, device)

    def plan(
        self,
        renderer: Renderer,
        image_processor: SVTRv2ImageProcessor,
        seed: int,
        part: int = 0,
        parts: int = 1,
        chunks: Iterable[int] | None = None,
    ) -> Iterator[PlannedImage]:
        """Yield the texts of one part of the endless stream, with the sizes that their crops are resized to.

        `chunks` are the indices of the chunks of the part to plan; defaults to all.
        """
        for chunk in count() if chunks is None else chunks:
            start = (part + chunk * parts) * CHUNK
            texts = [self._restrict(text) for text in self.text_source.texts(seed, start, CHUNK)]
            ratios = renderer.plan(texts, seed, start).tolist()
            for index, text, ratio in zip(count(start), texts, ratios, strict=False):
                yield PlannedImage(index, text, image_processor.target_size(max(1, round(1000 * ratio)), 1000))

    def read(self, part: int = 0, parts: int = 1, seed: int | None = None, epoch: int = 0) -> Iterator[Sample]:
        """Yield PNG images at the sizes that training resizes to, so that resizing does not change them."""
        renderer = self.renderer()
        stream = self._stream(seed, epoch)
        own = islice(self.plan(renderer, self.image_processor, stream), part, self.num_samples, parts)
        while chunk := list(islice(own, CHUNK)):
            images = _render_images(renderer, chunk, stream)
            for planned in chunk:
                name = f"{self.name} {planned.number} of seed {stream}"
                yield Sample(_png(images[planned.number]), planned.text, name)

    def texts(self) -> Iterator[str]:
        """Yield the texts that `read` renders without a seed."""
        seed = self._stream(None, 0)
        for start in range(0, self.num_samples, CHUNK):
            yield from map(self._restrict, self.text_source.texts(seed, start, min(CHUNK, self.num_samples - start)))

    def _restrict(self, text: str) -> str:
        """Reduce a text to the characters of one font."""
        if reduce(and_, (self._fonts_of[character] for character in text)):
            return text
        visible = text.replace(" ", "")
        fonts = range(len(self.atlas.fonts))
        most = max(fonts, key=lambda font: sum(self._fonts_of[character] >> font & 1 for character in visible))
        kept = "".join(character for character in text if self._fonts_of[character] >> most & 1)
        return " ".join(kept.split())

    def _stream(self, seed: int | None, epoch: int) -> int:
        """Return the renderer's seed for each source and epoch; without a seed, one that training never uses."""
        return crc32(f"{self.name} {seed} {epoch}".encode())


def _fonts_of(atlas: Atlas) -> dict[str, int]:
    """Return the fonts usable for each character as a bit set: bit 0 is the first font."""
    columns = atlas.usable.T.tolist()
    return {
        character: sum(1 << font for font, has in enumerate(column) if has)
        for character, column in zip(atlas.charset, columns, strict=True)
    }


def _listed(characters: Sequence[str]) -> str:
    listed = ", ".join(f"{character!r} ({code_point(character)})" for character in characters[:10])
    return listed + (f" and {len(characters) - 10} more characters" if len(characters) > 10 else "")


def _render_images(renderer: Renderer, chunk: Sequence[PlannedImage], seed: int) -> dict[int, torch.Tensor]:
    """Render images, by number. Rendering images of one size together is four times as fast as one by one."""
    by_size: defaultdict[Size, list[PlannedImage]] = defaultdict(list)
    for planned in chunk:
        by_size[planned.size].append(planned)
    images: dict[int, torch.Tensor] = {}
    for size, group in by_size.items():
        numbers = [planned.number for planned in group]
        rendered = renderer.render([planned.text for planned in group], size, seed, torch.tensor(numbers))
        images.update(zip(numbers, rendered.pixels, strict=True))
    return images


def _png(pixels: torch.Tensor) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels.numpy()).save(buffer, "PNG")
    return buffer.getvalue()
