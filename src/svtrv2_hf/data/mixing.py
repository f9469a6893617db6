# SPDX-License-Identifier: Apache-2.0
"""Mixtures of sources."""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from .sample import Sample, Source


def mix(sources: Sequence[Source], part: int, parts: int, seed: int) -> Iterator[tuple[int, int, Sample]]:
    """Return an endless stream of one part of several sources.

    Without weights, each epoch contains every sample of every source once, and the sources are mixed randomly over the whole
    epoch; the order within a source is that of its `read`. With weights, each sample comes from a random source with a
    probability proportional to its weight, and each source has separate epochs.

    Args:
        sources: sources, all with or all without a weight.
        part: index of the part.
        parts: number of parts: processes x workers.
        seed: random seed of the order.

    Returns:
        an iterator over the index of the source, its epoch, and the sample.

    Raises:
        ValueError: only some sources have a weight; the number of samples of a source is unknown, which epochs of several
            sources require; or a source has no samples for this part.
    """
    if not sources:
        raise ValueError("No sources to read.")
    if short := [source for source in sources if source.num_samples is not None and source.num_samples < parts]:
        raise _empty_part(short[0], part, parts)
    weights = [source.weight for source in sources if source.weight is not None]
    if len(sources) == 1:
        return _by_weight(sources, [1.0], part, parts, seed)
    if len(weights) == len(sources):
        return _by_weight(sources, weights, part, parts, seed)
    if weights:
        without = ", ".join(source.name for source in sources if source.weight is None)
        raise ValueError(f"Set the weight of all sources or of none; it is missing for: {without}.")
    lengths = [source.num_samples for source in sources if source.num_samples is not None]
    if len(lengths) < len(sources):
        unknown = ", ".join(source.name for source in sources if source.num_samples is None)
        raise ValueError(
            f"Unknown number of samples: {unknown}. To mix several sources, set the weight of each (?weight=1), or the "
            "number of samples of these (?samples=N)."
        )
    return _by_epoch(sources, [len(range(part, length, parts)) for length in lengths], part, parts, seed)


def _empty_part(source: Source, part: int, parts: int) -> ValueError:
    return ValueError(
        f"The source {source.name} has no samples for part {part} of {parts}: it has fewer samples (or shards) than there "
        f"are processes x workers. Lower the number of workers."
    )


def _by_weight(
    sources: Sequence[Source], weights: Sequence[float], part: int, parts: int, seed: int
) -> Iterator[tuple[int, int, Sample]]:
    # The last number differs from the seeds of sources, [seed, epoch], which numpy pads with zeros.
    rng = np.random.default_rng([seed, part, 1])
    probabilities = np.array(weights) / sum(weights)
    passes = [_endless(source, part, parts, seed) for source in sources]
    while True:
        for number in rng.choice(len(sources), size=1024, p=probabilities).tolist():
            epoch, sample = next(passes[number])
            yield number, epoch, sample


def _endless(source: Source, part: int, parts: int, seed: int) -> Iterator[tuple[int, Sample]]:
    for epoch in itertools.count():
        empty = True
        for sample in source.read(part, parts, seed, epoch):
            empty = False
            yield epoch, sample
        if empty:
            raise _empty_part(source, part, parts)


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
                raise _empty_part(sources[number], part, parts)
        for number, rest in enumerate(passes):  # samples beyond the stated number
            for sample in rest:
                counts[number] += 1
                yield number, epoch, sample
        lengths = counts
