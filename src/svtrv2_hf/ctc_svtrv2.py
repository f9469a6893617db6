# SPDX-License-Identifier: Apache-2.0
"""Decoding for connectionist temporal classification (Graves et al., ICML 2006) in numpy.

A path assigns one id to each frame. Merging repeated ids and then removing blanks collapses a path to a text. The
likelihood of a text is the sum over all paths that collapse to it. All functions take log probabilities of shape
`(frames, ids)`; texts are sequences of ids.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Token(NamedTuple):
    """A predicted character: its id, its probability, and its frames from `start` to `end` (exclusive)."""

    id: int
    probability: float
    start: int
    end: int


def log_softmax(logits: np.ndarray, allowed: Sequence[int] | None = None) -> np.ndarray:
    """Compute log probabilities over the last axis, in float64.

    With `allowed`, probabilities are conditioned on these ids: all other ids have probability 0.
    """
    scores = logits.astype(np.float64)
    if allowed is not None:
        kept = np.zeros(scores.shape[-1], dtype=bool)
        kept[list(allowed)] = True
        scores = np.where(kept, scores, -np.inf)
    scores -= scores.max(axis=-1, keepdims=True)
    return scores - np.log(np.exp(scores).sum(axis=-1, keepdims=True))


def tokens_of_path(path: np.ndarray, log_probs: np.ndarray, blank: int = 0) -> list[Token]:
    """Collapse a path with the log probability of each frame; that of a character is the maximum over its frames."""
    edges = np.flatnonzero(np.diff(path)) + 1
    tokens = []
    for start, end in zip([0, *edges], [*edges, len(path)], strict=True):
        if end > start and path[start] != blank:
            tokens.append(Token(int(path[start]), float(np.exp(log_probs[start:end].max())), int(start), int(end)))
    return tokens


def collapse(ids: np.ndarray, blank: int = 0) -> np.ndarray:
    """Collapse the ids of frames: merge repeated ids, then remove blanks.

    >>> collapse(np.array([0, 7, 7, 0, 7, 3])).tolist()
    [7, 7, 3]
    """
    ids = np.asarray(ids)
    return ids[np.flatnonzero(np.diff(ids, prepend=-1) * (ids != blank))]


def best_path(log_probs: np.ndarray, blank: int = 0) -> list[Token]:
    """Decode greedily (Graves et al., section 3.2): take the most likely id of every frame.

    >>> [token.id for token in best_path(np.log([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7], [0.2, 0.8]]))]
    [1, 1]
    """
    return tokens_of_path(log_probs.argmax(axis=-1), log_probs.max(axis=-1), blank)


def greedy_path(logits: np.ndarray, blank: int = 0, allowed: Sequence[int] | None = None) -> list[Token]:
    """Decode logits like `best_path(log_softmax(logits, allowed))`, but compute only the probabilities that are needed.

    With 6,625 classes, most of the time of decoding would be the softmax over all of them.
    """
    kept = None if allowed is None else np.unique(allowed)
    if kept is not None:
        logits = logits[..., kept]
    path = logits.argmax(axis=-1)
    ids = path if kept is None else kept[path]
    log_probs = np.zeros(len(path))
    if len(frames := np.flatnonzero(ids != blank)):
        relative = logits[frames] - logits[frames].max(axis=-1, keepdims=True)
        log_probs[frames] = -np.log(np.exp(relative).sum(axis=-1, dtype=np.float64))
    return tokens_of_path(ids, log_probs, blank)


def score(probabilities: Sequence[float]) -> float:
    """Compute the confidence of a text in 0..1: the geometric mean of its characters' probabilities, 0 if it is empty.

    In a geometric mean, one uncertain character makes the text uncertain: nine probabilities of 0.99 and one of 0.1 give
    0.79, compared with an arithmetic mean of 0.90. As a mean, it does not penalize long texts.
    """
    if not len(probabilities):
        return 0.0
    return float(np.exp(np.mean(np.log(np.maximum(probabilities, 1e-300)))))


def _with_blanks(text: Sequence[int], blank: int) -> np.ndarray:
    states = np.full(2 * len(text) + 1, blank, dtype=np.int64)
    states[1::2] = text
    return states


def align(log_probs: np.ndarray, text: Sequence[int], blank: int = 0) -> list[Token]:
    """Align a text: return its characters on the best path that collapses to it (Viterbi).

    Raises:
        ValueError: the text needs more frames than available.
    """
    if not len(text):
        return []
    states = _with_blanks(text, blank)
    emitted = log_probs[:, states]
    # Transitions: from the state itself, from the previous state, and, if not blank or a repeat, from the one before that.
    skips = np.zeros(len(states), dtype=bool)
    skips[2:] = (states[2:] != blank) & (states[2:] != states[:-2])
    best = np.full(len(states), -np.inf)
    best[:2] = emitted[0, :2]
    came_from = np.zeros(emitted.shape, dtype=np.int64)
    for frame in range(1, len(emitted)):
        choices = np.full((3, len(states)), -np.inf)
        choices[0] = best
        choices[1, 1:] = best[:-1]
        choices[2, 2:] = np.where(skips[2:], best[:-2], -np.inf)
        came_from[frame] = choices.argmax(axis=0)
        best = choices.max(axis=0) + emitted[frame]
    state = len(states) - 1 if best[-1] > best[-2] else len(states) - 2
    if not np.isfinite(best[state]):
        raise ValueError(f"{len(emitted)} frames are too few for a text of {len(text)} characters with these repeats.")
    visited = [state]
    for frame in range(len(emitted) - 1, 0, -1):
        state -= came_from[frame, state]
        visited.append(state)
    visited_states = np.array(visited[::-1])
    tokens = []
    for number, character in enumerate(text):
        frames = np.flatnonzero(visited_states == 2 * number + 1)
        probability = float(np.exp(log_probs[frames, character].max()))
        tokens.append(Token(int(character), probability, int(frames[0]), int(frames[-1]) + 1))
    return tokens


def log_likelihoods(log_probs: np.ndarray, texts: Sequence[Sequence[int]], blank: int = 0) -> np.ndarray:
    """Compute the exact log likelihood of each text: the sum over all its paths (Graves et al., section 4.1).

    Returns:
        Array of shape `(len(texts),)`; minus infinity if a text needs more frames than available.
    """
    if not len(texts):
        return np.zeros(0)
    lengths = np.array([len(text) for text in texts])
    states = np.full((len(texts), 2 * lengths.max() + 1), blank, dtype=np.int64)
    for row, text in zip(states, texts, strict=True):
        row[: 2 * len(text) + 1] = _with_blanks(text, blank)
    skips = np.zeros(states.shape, dtype=bool)
    skips[:, 2:] = (states[:, 2:] != blank) & (states[:, 2:] != states[:, :-2])
    # The states of shorter texts are padded; probability that enters the padding never returns.
    forward = np.full(states.shape, -np.inf)
    forward[:, :2] = log_probs[0][states[:, :2]]
    with np.errstate(divide="ignore", invalid="ignore"):
        for frame in log_probs[1:]:
            previous = np.full_like(forward, -np.inf)
            previous[:, 1:] = forward[:, :-1]
            before = np.full_like(forward, -np.inf)
            before[:, 2:] = np.where(skips[:, 2:], forward[:, :-2], -np.inf)
            forward = np.logaddexp(np.logaddexp(forward, previous), before) + frame[states]
    rows = np.arange(len(texts))
    last_blank = forward[rows, 2 * lengths]
    last_character = np.where(lengths > 0, forward[rows, np.maximum(2 * lengths - 1, 0)], -np.inf)
    return np.logaddexp(last_blank, last_character)


def _log_add(a: float, b: float) -> float:
    """Compute log(exp(a) + exp(b)); much faster than numpy for two scalars."""
    high, low = (a, b) if a > b else (b, a)
    return high if low == -math.inf else high + math.log1p(math.exp(low - high))


def beam_search(
    log_probs: np.ndarray, n_best: int, beam_width: int | None = None, blank: int = 0
) -> list[tuple[tuple[int, ...], float]]:
    """Find the most likely texts by prefix beam search, each with its log likelihood (over the paths in the beam).

    Each prefix has two likelihoods: of its paths that end in a blank, and of those that end in its last character. Only
    the former can be extended by the same character, which preserves doubled letters.

    Args:
        log_probs (`np.ndarray` of shape `(frames, ids)`)
        n_best (`int`): maximum number of texts to return.
        beam_width (`int`, *optional*): number of prefixes kept per frame and of ids tried per frame; defaults to twice
            `n_best`, at least 10.
        blank (`int`): id of the blank.
    """
    beam_width = max(beam_width or max(10, 2 * n_best), n_best)
    impossible = -math.inf
    beam: dict[tuple[int, ...], tuple[float, float]] = {(): (0.0, impossible)}  # in blank, in the last character
    for frame in log_probs:
        order = np.argsort(frame)[::-1][: beam_width + 1].tolist()
        candidates = [id for id in order if id != blank and frame[id] > impossible]
        scores = frame.tolist()
        extended: dict[tuple[int, ...], tuple[float, float]] = {}
        for prefix, (in_blank, in_character) in beam.items():
            total = _log_add(in_blank, in_character)
            last = prefix[-1] if prefix else None
            stays = impossible if last is None else in_character + scores[last]
            grown = [((*prefix, id), (in_blank if id == last else total) + scores[id]) for id in candidates]
            for longer, ends_in_blank, ends_in_character in [
                (prefix, total + scores[blank], stays),
                *((text, impossible, likelihood) for text, likelihood in grown),
            ]:
                known = extended.get(longer, (impossible, impossible))
                extended[longer] = (_log_add(known[0], ends_in_blank), _log_add(known[1], ends_in_character))
        beam = dict(sorted(extended.items(), key=lambda item: -_log_add(*item[1]))[:beam_width])
    most_likely = [(text, _log_add(*parts)) for text, parts in list(beam.items())[:n_best]]
    # A beam wider than the number of possible texts contains impossible ones.
    return [(text, likelihood) for text, likelihood in most_likely if likelihood > impossible]


def spans(tokens: Sequence[Token], num_frames: int) -> list[tuple[float, float]]:
    """Estimate the horizontal span of each character, relative to the line's length, 0 to 1.

    CTC localizes a character, often in a single frame, but not its width. Each span is therefore extended halfway to the
    neighboring characters, but at most by half the median distance between characters, which keeps spaces free. Spans are
    approximate, since attention and rearrangement may shift features.
    """
    if not tokens:
        return []
    centers = np.array([(token.start + token.end) / 2 for token in tokens])
    pitch = float(np.median(np.diff(centers))) if len(tokens) > 1 else float(num_frames)
    result = []
    for number, token in enumerate(tokens):
        start, end = centers[number] - pitch / 2, centers[number] + pitch / 2
        if number > 0:
            start = max(start, (tokens[number - 1].end + token.start) / 2)
        if number < len(tokens) - 1:
            end = min(end, (token.end + tokens[number + 1].start) / 2)
        start, end = max(min(start, token.start), 0), min(max(end, token.end), num_frames)
        result.append((float(start) / num_frames, float(end) / num_frames))
    return result


__all__ = [
    "Token",
    "align",
    "beam_search",
    "best_path",
    "collapse",
    "greedy_path",
    "log_likelihoods",
    "log_softmax",
    "score",
    "spans",
]
