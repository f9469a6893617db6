# SPDX-License-Identifier: Apache-2.0
"""Connectionist temporal classification (Graves et al., ICML 2006): from scores of frames to texts, by numpy alone.

A path gives one id to each frame. Merging its repeats and then removing its blanks collapses it to a text, and the
likelihood of a text is the sum over all paths that collapse to it. Everything here works on log probabilities of shape
(frames, ids), and texts are sequences of ids.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Token(NamedTuple):
    """A character of a reading: its id, its probability, and the frames `start` to `end` (exclusive) that it takes."""

    id: int
    probability: float
    start: int
    end: int


def log_softmax(logits: np.ndarray, allowed: Sequence[int] | None = None) -> np.ndarray:
    """Log probabilities over the last axis, in float64.

    With `allowed`, they are conditioned on these ids: all other ids have none, and what is left adds up to one.
    """
    scores = logits.astype(np.float64)
    if allowed is not None:
        kept = np.zeros(scores.shape[-1], dtype=bool)
        kept[list(allowed)] = True
        scores = np.where(kept, scores, -np.inf)
    scores -= scores.max(axis=-1, keepdims=True)
    return scores - np.log(np.exp(scores).sum(axis=-1, keepdims=True))


def tokens_of_path(path: np.ndarray, log_probs: np.ndarray, blank: int = 0) -> list[Token]:
    """Collapses a path; the probability of a character is that of the best of its frames."""
    probabilities = log_probs[np.arange(len(path)), path]
    edges = np.flatnonzero(np.diff(path)) + 1
    tokens = []
    for start, end in zip([0, *edges], [*edges, len(path)], strict=True):
        if end > start and path[start] != blank:
            tokens.append(Token(int(path[start]), float(np.exp(probabilities[start:end].max())), int(start), int(end)))
    return tokens


def best_path(log_probs: np.ndarray, blank: int = 0) -> list[Token]:
    """The reading of the single best path (Graves et al., section 3.2): the best id of every frame.

    >>> [token.id for token in best_path(np.log([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7], [0.2, 0.8]]))]
    [1, 1]
    """
    return tokens_of_path(log_probs.argmax(axis=-1), log_probs, blank)


def score(probabilities: Sequence[float]) -> float:
    """Confidence of a reading or word in 0..1: the geometric mean of its characters' probabilities, 0 if it has none.

    Geometric, because one doubtful character makes a word doubtful: 0.99 nine times and 0.1 once is 0.79, where the
    arithmetic mean is 0.90. Being a mean, it does not punish long texts.
    """
    if not len(probabilities):
        return 0.0
    return float(np.exp(np.mean(np.log(np.maximum(probabilities, 1e-300)))))


def _with_blanks(text: Sequence[int], blank: int) -> np.ndarray:
    states = np.full(2 * len(text) + 1, blank, dtype=np.int64)
    states[1::2] = text
    return states


def align(log_probs: np.ndarray, text: Sequence[int], blank: int = 0) -> list[Token]:
    """The characters of a given text on the best path that collapses to it (Viterbi).

    Raises:
        ValueError: there are too few frames for the text.
    """
    if not len(text):
        return []
    states = _with_blanks(text, blank)
    emitted = log_probs[:, states]
    # A state is reached from itself, from the one before, and, unless it is blank or a repeat, from the one before that.
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
        raise ValueError(f"{len(emitted)} frames cannot hold a text of {len(text)} characters with these repeats.")
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
    """Exact log likelihood of each text: the sum over all its paths (Graves et al., section 4.1), in the log domain.

    Returns:
        Array of shape `(len(texts),)`; minus infinity where a text needs more frames than there are.
    """
    if not len(texts):
        return np.zeros(0)
    lengths = np.array([len(text) for text in texts])
    states = np.full((len(texts), 2 * lengths.max() + 1), blank, dtype=np.int64)
    for row, text in zip(states, texts, strict=True):
        row[: 2 * len(text) + 1] = _with_blanks(text, blank)
    skips = np.zeros(states.shape, dtype=bool)
    skips[:, 2:] = (states[:, 2:] != blank) & (states[:, 2:] != states[:, :-2])
    # Every text's states go on into padding that its own last states never come back from.
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
    """log(exp(a) + exp(b)); numpy's own takes many times longer for two single numbers."""
    high, low = (a, b) if a > b else (b, a)
    return high if low == -math.inf else high + math.log1p(math.exp(low - high))


def beam_search(
    log_probs: np.ndarray, n_best: int, beam_width: int | None = None, blank: int = 0
) -> list[tuple[tuple[int, ...], float]]:
    """The likeliest texts by prefix beam search, each with its log likelihood (of the paths the beam kept).

    A prefix carries two likelihoods, of its paths that end in a blank and of those that end in its last character. Only
    from the first kind can the same character follow anew, which is what keeps doubled letters.

    Args:
        log_probs (`np.ndarray` of shape `(frames, ids)`)
        n_best (`int`): how many texts to return, at most.
        beam_width (`int`, *optional*): prefixes kept from frame to frame, and ids tried in a frame; by default twice
            `n_best`, and at least 10.
        blank (`int`): the blank's id.
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
    likeliest = [(text, _log_add(*parts)) for text, parts in list(beam.items())[:n_best]]
    # A beam that is wider than what is possible keeps what is not.
    return [(text, likelihood) for text, likelihood in likeliest if likelihood > impossible]


def spans(tokens: Sequence[Token], num_frames: int) -> list[tuple[float, float]]:
    """Where each character lies along the line, as shares of its length, 0 to 1.

    CTC tells where a character was recognised, often in a single frame, not how wide it is. So each is widened to
    half-way towards its neighbours, but no more than half the usual distance between characters, which keeps spaces free.
    Approximate, since attention and rearrangement may move features.
    """
    if not tokens:
        return []
    centres = np.array([(token.start + token.end) / 2 for token in tokens])
    pitch = float(np.median(np.diff(centres))) if len(tokens) > 1 else float(num_frames)
    result = []
    for number, token in enumerate(tokens):
        start, end = centres[number] - pitch / 2, centres[number] + pitch / 2
        if number > 0:
            start = max(start, (tokens[number - 1].end + token.start) / 2)
        if number < len(tokens) - 1:
            end = min(end, (token.end + tokens[number + 1].start) / 2)
        start, end = max(min(start, token.start), 0), min(max(end, token.end), num_frames)
        result.append((float(start) / num_frames, float(end) / num_frames))
    return result


__all__ = ["Token", "align", "beam_search", "best_path", "log_likelihoods", "log_softmax", "score", "spans"]
