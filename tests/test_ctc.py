"""Collapse, alignment, likelihood and beam search, compared with the enumeration of all paths."""

import itertools
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from svtrv2_hf.ctc_svtrv2 import (
    Token,
    align,
    beam_search,
    best_path,
    greedy_path,
    log_likelihoods,
    log_softmax,
    score,
    spans,
    tokens_of_path,
)


def random_log_probs(seed, frames=5, ids=4, sharpness=1.0):
    return log_softmax(np.random.default_rng(seed).normal(size=(frames, ids)) * sharpness)


def confidence(tokens):
    return score([token.probability for token in tokens])


def all_texts(log_probs, blank):
    """Enumerate all paths: every text with its likelihood and its best path."""
    likelihood, best = defaultdict(float), {}
    for path in itertools.product(range(log_probs.shape[1]), repeat=len(log_probs)):
        text = tuple(id for id, _ in itertools.groupby(path) if id != blank)
        probability = np.exp(log_probs[np.arange(len(path)), path].sum())
        likelihood[text] += probability
        if text not in best or probability > best[text][0]:
            best[text] = (probability, path)
    return likelihood, best


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ([1, 1, 0, 1, 2, 2], [1, 1, 2]),
        ([0, 0, 0], []),
        ([3], [3]),
        ([1, 2, 1], [1, 2, 1]),
        ([0, 1, 0, 0, 1, 0], [1, 1]),
        ([2, 2, 2], [2]),
    ],
)
def test_collapse(path, text):
    log_probs = np.log(np.full((len(path), 4), 0.1))
    log_probs[np.arange(len(path)), path] = np.log(0.7)
    tokens = best_path(log_probs)
    assert [token.id for token in tokens] == text
    assert confidence(tokens) == pytest.approx(0.7 if text else 0.0)


def test_character_has_maximum_probability_and_frames_of_its_run():
    log_probs = np.log(np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.3, 0.7], [0.6, 0.4], [0.05, 0.95]]))
    first, second = best_path(log_probs)
    assert first == Token(1, pytest.approx(0.8), 1, 4)
    assert second == Token(1, pytest.approx(0.95), 5, 6)


def test_score_is_the_geometric_mean():
    assert score([0.99] * 9 + [0.1]) == pytest.approx((0.99**9 * 0.1) ** 0.1)
    assert score([]) == 0.0
    assert score([0.0]) == pytest.approx(0.0)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("blank", [0, 2])
def test_likelihoods_alignments_and_beam_search_match_enumeration(seed, blank):
    log_probs = random_log_probs(seed, frames=5, ids=3)
    likelihood, best = all_texts(log_probs, blank)
    texts = list(likelihood)
    np.testing.assert_allclose(np.exp(log_likelihoods(log_probs, texts, blank)), [likelihood[text] for text in texts])
    assert sum(likelihood.values()) == pytest.approx(1.0)

    for text in texts:
        if not text:
            continue
        tokens = align(log_probs, text, blank)
        assert tuple(token.id for token in tokens) == text
        path = np.array(best[text][1])
        reference = tokens_of_path(path, log_probs[np.arange(len(path)), path], blank)
        assert [(t.start, t.end) for t in tokens] == [(t.start, t.end) for t in reference]
        assert confidence(tokens) == pytest.approx(confidence(reference))

    decoded = beam_search(log_probs, n_best=4, beam_width=1000, blank=blank)
    expected = sorted(likelihood.items(), key=lambda item: -item[1])[:4]
    assert [text for text, _ in decoded] == [text for text, _ in expected]
    np.testing.assert_allclose(np.exp([value for _, value in decoded]), [value for _, value in expected])


def test_batch_of_texts_matches_single_texts():
    log_probs = random_log_probs(3, frames=7, ids=5)
    texts = [[1, 2, 3, 4, 1], [1], [], [2, 2], [4, 3]]
    together = log_likelihoods(log_probs, texts)
    alone = [log_likelihoods(log_probs, [text])[0] for text in texts]
    np.testing.assert_allclose(together, alone)


def test_texts_longer_than_frames():
    log_probs = random_log_probs(0, frames=3)
    assert log_likelihoods(log_probs, [[1, 1, 1], [1, 2, 3, 1], [1, 2, 3]]).tolist()[:2] == [-np.inf, -np.inf]
    assert np.isfinite(log_likelihoods(log_probs, [[1, 2, 3]])[0])
    with pytest.raises(ValueError, match="3 frames are too few"):
        align(log_probs, [1, 1, 1])
    assert align(log_probs, []) == []
    assert len(log_likelihoods(log_probs, [])) == 0


@pytest.mark.parametrize(("blank", "allowed"), [(0, None), (3, None), (0, [0, 5, 2, 5]), (3, [3, 6, 1])])
def test_greedy_path_equals_the_best_path_of_the_probabilities(blank, allowed):
    for seed in range(20):
        logits = np.random.default_rng(seed).normal(size=(30, 7)).astype(np.float32) * 3
        greedy, best = greedy_path(logits, blank, allowed), best_path(log_softmax(logits, allowed), blank)
        assert [token._replace(probability=0.0) for token in greedy] == [
            token._replace(probability=0.0) for token in best
        ]
        assert [token.probability for token in greedy] == pytest.approx(
            [token.probability for token in best], abs=1e-6
        )
    assert greedy_path(np.eye(7, dtype=np.float32)[[blank, blank]], blank, allowed) == []


def test_likelihoods_do_not_underflow():
    log_probs = log_softmax(np.zeros((500, 7000)))
    (value,) = log_likelihoods(log_probs, [list(range(1, 200))])
    assert np.isfinite(value)
    assert value < -2000


def test_beam_search_keeps_doubled_letters():
    """A narrow blank separates a double letter: greedy decoding and beam search both return "happy", not "hapy"."""
    h, a, p, y = 1, 2, 3, 4
    path = [h, h, 0, a, 0, p, p, 0, p, 0, y, y]
    probabilities = np.full((len(path), 5), 0.02)
    probabilities[np.arange(len(path)), path] = 0.92
    probabilities[7] = [0.5, 0.02, 0.02, 0.44, 0.02]
    log_probs = np.log(probabilities)
    assert [token.id for token in best_path(log_probs)] == [h, a, p, p, y]
    assert beam_search(log_probs, n_best=1)[0][0] == (h, a, p, p, y)


def test_beam_search_finds_text_that_greedy_decoding_misses():
    """Blank is the most likely id of every frame, but "a" is more likely than the empty text."""
    log_probs = np.log(np.array([[0.6, 0.4], [0.6, 0.4]]))
    assert best_path(log_probs) == []
    assert beam_search(log_probs, n_best=2) == [((1,), pytest.approx(np.log(0.64))), ((), pytest.approx(np.log(0.36)))]


def test_allowed_ids_condition_the_probabilities():
    logits = np.array([[2.0, 1.0, 0.5, 3.0]])
    log_probs = log_softmax(logits, allowed=[0, 2])
    assert np.exp(log_probs).sum() == pytest.approx(1.0)
    assert np.isneginf(log_probs[0, [1, 3]]).all()
    assert log_probs[0, 0] - log_probs[0, 2] == pytest.approx(1.5)
    ranked = beam_search(log_probs, n_best=5)
    assert {id for text, _ in ranked for id in text} <= {2}


@given(seed=st.integers(0, 2**32 - 1), frames=st.integers(1, 40), sharpness=st.floats(0.1, 6))
@settings(max_examples=60, deadline=None)
def test_spans_are_ordered_and_contain_their_characters(seed, frames, sharpness):
    log_probs = random_log_probs(seed, frames, 5, sharpness)
    tokens = best_path(log_probs)
    placed = spans(tokens, frames)
    assert len(placed) == len(tokens)
    for token, (start, end) in zip(tokens, placed, strict=True):
        assert 0 <= start <= token.start / frames + 1e-9
        assert token.end / frames - 1e-9 <= end <= 1
    assert all(left[1] <= right[0] + 1e-9 for left, right in itertools.pairwise(placed))
    # the text of a best path aligns to the same path
    if tokens:
        assert align(log_probs, [token.id for token in tokens]) == tokens


def test_spans_keep_wide_gaps_free():
    tokens = [Token(1, 1, 2, 3), Token(1, 1, 6, 7), Token(1, 1, 30, 31), Token(1, 1, 34, 35)]
    placed = [(start * 40, end * 40) for start, end in spans(tokens, 40)]
    assert placed == [pytest.approx(p) for p in [(0.5, 4.5), (4.5, 8.5), (28.5, 32.5), (32.5, 36.5)]]


def test_beam_search_returns_no_impossible_texts():
    """With one allowed character, repeats need a blank in between, so few texts are possible."""
    log_probs = log_softmax(np.zeros((4, 3)), allowed=[0, 1])
    assert {text for text, _ in beam_search(log_probs, n_best=20)} == {(), (1,), (1, 1)}
