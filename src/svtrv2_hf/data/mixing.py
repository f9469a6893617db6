# SPDX-License-Identifier: Apache-2.0
"""Mixing of sources: epochs and weights."""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from .sample import Sample, Source


def mix(sources: Sequence[Source], part: int, parts: int, seed: int) -> Iterator[tuple[int, int, Sample]]:
    """An endless stream of one part of several sources.

    Without weights there are true epochs: in each, every sample of every source comes exactly once, and the sources are mixed
    at random over the whole epoch; the order within a source is that of its `read`. With weights each draw picks a source with a chance in proportion to its weight, and each source goes
    through epochs of its own, every sample exactly once in each.

    Args:
        sources: all with a weight, or all without.
        part: which part to read, from 0.
        parts: how many there are: processes x workers.
        seed: of the order; what comes follows from it alone.

    Returns:
        the number of the source, its epoch, and the sample, for ever.

    Raises:
        ValueError: only some have a weight; a source does not tell how long it is, which true epochs of several
            sources need; or it has no sample for this part.
    """
    if not sources:
        raise ValueError("There is no source to read.")
    if short := [source for source in sources if source.num_samples is not None and source.num_samples < parts]:
        raise _nothing_to_read(short[0], part, parts)
    weights = [source.weight for source in sources if source.weight is not None]
    if len(sources) == 1:
        return _by_weight(sources, [1.0], part, parts, seed)
    if len(weights) == len(sources):
        return _by_weight(sources, weights, part, parts, seed)
    if weights:
        without = ", ".join(source.name for source in sources if source.weight is None)
        raise ValueError(f"Give all sources a weight or none; these have none: {without}.")
    lengths = [source.num_samples for source in sources if source.num_samples is not None]
    if len(lengths) < len(sources):
        unknown = ", ".join(source.name for source in sources if source.num_samples is None)
        raise ValueError(
            f"How many samples there are is not known of {unknown}. To mix several sources, give each a weight "
            f"(?weight=1), or these their number (?samples=N)."
        )
    return _by_epoch(sources, [len(range(part, length, parts)) for length in lengths], part, parts, seed)


def _nothing_to_read(source: Source, part: int, parts: int) -> ValueError:
    return ValueError(
        f"The source {source.name} has nothing for part {part} of {parts}: it has fewer samples (or shards) than there "
        f"are processes x workers. Lower the number of workers."
    )


def _by_weight(
    sources: Sequence[Source], weights: Sequence[float], part: int, parts: int, seed: int
) -> Iterator[tuple[int, int, Sample]]:
    # Seeds differ in their last numbers from those of the sources, [seed, epoch], which are as if followed by zeros.
    rng = np.random.default_rng([seed, part, 1])
    chances = np.array(weights) / sum(weights)
    passes = [_passes(source, part, parts, seed) for source in sources]
    while True:
        for number in rng.choice(len(sources), size=1024, p=chances).tolist():
            epoch, sample = next(passes[number])
            yield number, epoch, sample


def _passes(source: Source, part: int, parts: int, seed: int) -> Iterator[tuple[int, Sample]]:
    for epoch in itertools.count():
        empty = True
        for sample in source.read(part, parts, seed, epoch):
            empty = False
            yield epoch, sample
        if empty:
            raise _nothing_to_read(source, part, parts)


def _by_epoch(
    sources: Sequence[Source], lengths: Sequence[int], part: int, parts: int, seed: int
) -> Iterator[tuple[int, int, Sample]]:
    for epoch in itertools.count():
        passes = [source.read(part, parts, seed, epoch) for source in sources]
        rng = np.random.default_rng([seed, part, epoch + 1, 2])
        plan = rng.permutation(np.repeat(np.arange(len(sources), dtype=np.int16), lengths))
        counts = [0] * len(sources)
        for number in map(int, plan):
            if (sample := next(passes[number], None)) is not None:
                counts[number] += 1
                yield number, epoch, sample
            elif not counts[number]:
                raise _nothing_to_read(sources[number], part, parts)
        # What a source holds beyond the number that it gave.
        for number, rest in enumerate(passes):
            for sample in rest:
                counts[number] += 1
                yield number, epoch, sample
        lengths = counts
