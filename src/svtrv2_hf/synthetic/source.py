# SPDX-License-Identifier: Apache-2.0
"""Drawn text as training data: batches straight from the renderer, or samples like those of any other source."""

import hashlib
import io
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property, partial, reduce
from itertools import chain, count, islice
from operator import and_
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

import torch
from PIL import Image

from ..charsets import ENGLISH_94
from ..data.buckets import Progress, Size, TrainingBatches, Waiting
from ..data.labels import LabelEncoder
from ..data.sources import Sample, Source
from ..image_processing_svtrv2 import SVTRv2ImageProcessor
from ..processing_svtrv2 import pad_labels
from .atlas import Atlas, load_or_build
from .fonts import find_fonts
from .frame_labels import UNKNOWN, frame_labels
from .renderer import Renderer, check_difficulty
from .texts import TextSource


CHUNK = 256  # texts that are planned, and drawn, together


class Planned(NamedTuple):
    """A text, its place in the stream, and the size it is to be drawn at."""

    number: int
    text: str
    size: Size


class DrawnSource(Source):
    """Text that is drawn anew in each epoch.

    Image `index` of a seed is a pure function of the two and of the arguments. A text whose characters no single font of the
    atlas has is limited to those of the font that has the most of them.

    Args:
        atlas: the file of an atlas; by default that of the fonts found on this machine, built if need be, which takes minutes
            and several processes.
        charset: what texts are made of; see [`TextSource`].
        difficulty: of the renderer.
        num_samples: images in an epoch.
        lines: draw phrases and long lines, too, not words alone.
        words: a file of words beside those that come with the package; see [`TextSource`].
        name: for logs.
        weight: in a mixture.

    Attributes:
        atlas: the glyphs.
        text_source: where the texts come from.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no font of the atlas draws some character of the charset; or an argument is out of range.
    """

    num_samples: int

    def __init__(
        self,
        atlas: str | Path | None = None,
        charset: str = ENGLISH_94 + " ",
        difficulty: float = 1.0,
        num_samples: int = 1_000_000,
        lines: bool = True,
        words: str | Path | None = None,
        name: str = "drawn",
        weight: float | None = None,
    ):
        check_difficulty(difficulty)
        self.text_source = TextSource(charset, None if lines else {"phrase": 0, "line": 0}, words)
        # here and not when it is first needed, which may be in a worker
        self.atlas = load_or_build(find_fonts().fonts, charset) if atlas is None else Atlas.load(atlas)
        self._fonts_of = _fonts_of(self.atlas)
        if lacking := [character for character in charset if not self._fonts_of.get(character)]:
            raise ValueError(
                f"No font of the atlas{f' {atlas}' if atlas else ''} draws {_told(lacking)}: take them out of the charset, or "
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
        """All that the images follow from, beside the code."""
        words = hashlib.sha256(Path(self.words).read_bytes()).hexdigest() if self.words else None
        return [self.charset, self.difficulty, self.lines, words, self.atlas.digest]

    def renderer(self, device: torch.device | str = "cpu") -> Renderer:
        """The renderer of this source's images."""
        return Renderer(self.atlas, self.difficulty, device)

    def plan(
        self,
        renderer: Renderer,
        image_processor: SVTRv2ImageProcessor,
        seed: int,
        part: int = 0,
        parts: int = 1,
        chunks: Iterable[int] | None = None,
    ) -> Iterator[Planned]:
        """The texts of a part of the endless stream, with the sizes that crops of them would be resized to.

        `chunks` are the numbers of the chunks of the part to plan, by default all.
        """
        for chunk in count() if chunks is None else chunks:
            start = (part + chunk * parts) * CHUNK
            texts = self._drawable_texts(seed, start, CHUNK)
            ratios = renderer.plan(texts, seed, start).tolist()
            for index, text, ratio in zip(count(start), texts, ratios, strict=False):
                yield Planned(index, text, image_processor.target_size(max(1, round(1000 * ratio)), 1000))

    def read(self, part: int = 0, parts: int = 1, seed: int | None = None, epoch: int = 0) -> Iterator[Sample]:
        """Images as PNG, of the sizes that training resizes to, so that nothing is lost by that."""
        renderer = self.renderer()
        stream = self._stream(seed, epoch)
        mine = islice(self.plan(renderer, self.image_processor, stream), part, self.num_samples, parts)
        while chunk := list(islice(mine, CHUNK)):
            images = _images(renderer, chunk, stream)
            for planned in chunk:
                name = f"{self.name} {planned.number} of seed {stream}"
                yield Sample(_png(images[planned.number]), planned.text, name)

    def texts(self) -> Iterator[str]:
        """The texts that are read without a seed."""
        seed = self._stream(None, 0)
        for start in range(0, self.num_samples, CHUNK):
            yield from self._drawable_texts(seed, start, min(CHUNK, self.num_samples - start))

    def _drawable_texts(self, seed: int, start: int, count: int) -> list[str]:
        """Texts that a font can draw as a whole."""
        return [self._limited(text) for text in self.text_source.texts(seed, start, count)]

    def _limited(self, text: str) -> str:
        if reduce(and_, (self._fonts_of[character] for character in text)):
            return text
        visible = text.replace(" ", "")
        most = max(
            range(len(self.atlas.fonts)),
            key=lambda font: sum(self._fonts_of[character] >> font & 1 for character in visible),
        )
        kept = "".join(character for character in text if self._fonts_of[character] >> most & 1)
        return " ".join(kept.split())

    def _stream(self, seed: int | None, epoch: int) -> int:
        """A stream of its own for each source and epoch; where no seed is given, one that no run trains on."""
        return crc32(f"{self.name} {seed} {epoch}".encode())


class DrawnBatches(TrainingBatches):
    """Batches straight from the renderer, without files between.

    Args:
        source: what is drawn.
        encoder, image_processor, batch_size, seed: as of [`TrainingBatches`].
        device: where pictures are drawn. On a GPU, this takes a loader without workers.
        with_frame_labels: batches hold `frame_labels`, too; see [`frame_labels`].
    """

    def __init__(
        self,
        source: DrawnSource,
        encoder: LabelEncoder,
        image_processor: SVTRv2ImageProcessor,
        batch_size: int,
        seed: int = 0,
        device: torch.device | str = "cpu",
        with_frame_labels: bool = False,
    ):
        super().__init__([source.name], encoder, image_processor, batch_size, seed)
        self.source = source
        self.num_samples = source.num_samples
        self.device = torch.device(device)
        self.with_frame_labels = with_frame_labels

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "fingerprints": [self.source.fingerprint]}

    def _samples(
        self, part: int, parts: int, counts: Counter[tuple[int, str]], begun: Progress
    ) -> Iterator[Waiting | None]:
        waiting, first = set(begun.waiting), begun.read // CHUNK
        before = sorted({number // CHUNK for number in waiting if number // CHUNK < first})
        numbers = (chunk * CHUNK + place for chunk in chain(before, count(first)) for place in range(CHUNK))
        chunks = chain(before, count(first))
        planned = self.source.plan(self._renderer, self.image_processor, self.seed, part, parts, chunks)
        for number, one in zip(numbers, planned, strict=False):
            if number >= begun.read or number in waiting:
                yield self._accept(number, one.text, partial(_as_planned, one), 0, counts)

    def _batch(self, waiting: Sequence[Waiting], counts: Counter[tuple[int, str]]) -> dict[str, torch.Tensor]:  # noqa: ARG002
        texts = [one.item.text for one in waiting]
        indices = torch.tensor([one.item.number for one in waiting])
        drawn = self._renderer.render(texts, waiting[0].size, self.seed, indices)
        labels = torch.from_numpy(pad_labels([one.ids for one in waiting]))
        batch = {"pixels": drawn.pixels, "labels": labels}
        if self.with_frame_labels:
            width, per_frame = waiting[0].size[1], self.image_processor.pixels_per_frame
            batch["frame_labels"] = frame_labels(drawn.centres, labels, width, per_frame)
            # Where characters were dropped, places belong to others.
            dropped = torch.tensor([len(one.ids) != len(one.item.text) for one in waiting])
            batch["frame_labels"][dropped] = UNKNOWN
        return batch

    @cached_property
    def _renderer(self) -> Renderer:
        return self.source.renderer(self.device)


def _fonts_of(atlas: Atlas) -> dict[str, int]:
    """The fonts that can stand for each character, as the bits of a number: bit 0 is the first font."""
    columns = atlas.legible.T.tolist()
    return {
        character: sum(1 << font for font, has in enumerate(column) if has)
        for character, column in zip(atlas.charset, columns, strict=True)
    }


def _told(characters: Sequence[str]) -> str:
    named = ", ".join(f"{character!r} (U+{ord(character):04X})" for character in characters[:10])
    return named + (f" and {len(characters) - 10} more characters" if len(characters) > 10 else "")


def _images(renderer: Renderer, chunk: Sequence[Planned], seed: int) -> dict[int, torch.Tensor]:
    """By number; those of one size are drawn together, which is four times as fast as one by one."""
    by_size: defaultdict[Size, list[Planned]] = defaultdict(list)
    for planned in chunk:
        by_size[planned.size].append(planned)
    images: dict[int, torch.Tensor] = {}
    for size, group in by_size.items():
        numbers = [planned.number for planned in group]
        drawn = renderer.render([planned.text for planned in group], size, seed, torch.tensor(numbers))
        images.update(zip(numbers, drawn.pixels, strict=True))
    return images


def _png(pixels: torch.Tensor) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels.numpy()).save(buffer, "PNG")
    return buffer.getvalue()


def _as_planned(planned: Planned) -> tuple[Planned, Size]:
    return planned, planned.size
