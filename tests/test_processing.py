"""SVTRv2Processor: labels, readings, confidence, and the options of reading."""

import numpy as np
import pytest
import torch
from conftest import CHARSET, draw

from svtrv2_hf import SVTRv2Processor
from svtrv2_hf.ctc_svtrv2 import log_likelihoods, log_softmax


def outputs(processor, *paths, certain=8.0):
    """Logits of a model that saw these paths, "_" being the blank."""
    vocabulary = "_" + CHARSET
    length = max(map(len, paths))
    logits = torch.zeros(len(paths), length, len(vocabulary))
    for row, path in zip(logits, paths, strict=True):
        row[: len(path)][range(len(path)), [vocabulary.index(character) for character in path]] = certain
    return {"logits": logits, "logits_lengths": torch.tensor([len(path) for path in paths])}


def test_labels(processor):
    batch = processor([draw("ab"), draw("b")], ["ab", "b"], return_tensors="pt")
    assert batch["labels"].tolist() == [[11, 12], [12, -100]]
    assert set(batch) == {"pixel_values", "image_sizes", "labels"}
    assert processor(text="ab")["labels"].tolist() == [[11, 12]]
    assert processor.model_input_names == ["pixel_values", "image_sizes", "labels"]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, ValueError, "nothing to process"),
        ({"text": ["ok", "caf\u00e9!"]}, ValueError, r"'café!' has characters that are not in the charset: '!é'"),
        ({"images": [draw("a")], "text": ["a", "b"]}, ValueError, "1 images, but 2 texts"),
        ({"images": draw("a"), "padding": True}, TypeError, "'padding'"),
    ],
)
def test_wrong_calls(processor, arguments, error, message):
    with pytest.raises(error, match=message):
        processor(**arguments)


def test_round_trip(processor, tmp_path):
    processor.image_processor.max_ratio = 20
    processor.save_pretrained(tmp_path)
    loaded = SVTRv2Processor.from_pretrained(tmp_path)
    assert loaded.image_processor.max_ratio == 20
    assert loaded.encode(["a-b"]) == processor.encode(["a-b"])


def test_reading(processor):
    readings = processor.post_process_text_recognition(outputs(processor, "__HH_ee", "_______", "aa_aa__"))
    assert [reading["text"] for reading in readings] == ["He", "", "aa"]
    peak = float(torch.softmax(torch.tensor([8.0] + [0.0] * len(CHARSET)), -1)[0])
    assert [reading["score"] for reading in readings] == pytest.approx([peak, 0.0, peak])
    assert all(set(reading) == {"text", "score"} for reading in readings)


def test_frames_beyond_the_length_are_not_read(processor):
    output = outputs(processor, "a_b_", "a_b_cdef")
    output["logits"][0, 4:] = output["logits"][1, 4:]
    assert [r["text"] for r in processor.post_process_text_recognition(output)] == ["ab", "abcdef"]


def test_characters_and_words_are_placed_in_the_original_image(processor):
    path = "_1_2_____ _____a_b__"
    (reading,) = processor.post_process_text_recognition(
        outputs(processor, path), target_sizes=[(50, 400)], return_characters=True, return_words=True
    )
    assert reading["text"] == "12 ab"
    assert [character["text"] for character in reading["characters"]] == list("12 ab")
    frame = 400 / len(path)
    for character, position in zip(reading["characters"], [1, 3, 9, 15, 17], strict=True):
        assert character["start"] <= position * frame
        assert character["end"] >= (position + 1) * frame
        assert character["score"] == pytest.approx(reading["score"], rel=1e-4)
    first, second = reading["words"]
    assert (first["text"], second["text"]) == ("12", "ab")
    assert (first["start"], first["end"]) == (reading["characters"][0]["start"], reading["characters"][1]["end"])
    assert first["end"] < reading["characters"][2]["start"] + 1e-6 < second["start"] + 1e-3
    assert second["end"] <= 400


def test_places_are_shares_of_the_width_without_target_sizes(processor):
    (reading,) = processor.post_process_text_recognition(outputs(processor, "a_______"), return_characters=True)
    assert reading["characters"] == [
        {"text": "a", "score": pytest.approx(reading["score"]), "start": 0.0, "end": 0.5625}
    ]


def test_words_of_a_text_without_spaces_and_of_none(processor):
    one, none = processor.post_process_text_recognition(outputs(processor, "a_b_", "____"), return_words=True)
    assert [word["text"] for word in one["words"]] == ["ab"]
    assert none["words"] == []


def test_allowed_characters(processor):
    output = outputs(processor, "I_D_", certain=2.0)
    output["logits"][0, 0, 1 + CHARSET.index("1")] = 1.5
    output["logits"][0, 2, 1 + CHARSET.index("0")] = 1.9
    assert processor.post_process_text_recognition(outputs(processor, "I_H_"))[0]["text"] == "IH"
    (reading,) = processor.post_process_text_recognition(
        output, allowed_characters="0123456789", return_characters=True
    )
    assert reading["text"] == "10"
    # conditioned on a digit or the blank: exp(1.5) against nine digits and a blank of exp(0)
    assert reading["characters"][0]["score"] == pytest.approx(np.exp(1.5) / (np.exp(1.5) + 10), rel=1e-6)
    with pytest.raises(ValueError, match="'!'"):
        processor.post_process_text_recognition(output, allowed_characters="01!")


def test_lexicon_takes_the_largest_exact_likelihood(processor):
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(1, 10, len(CHARSET) + 1, generator=generator)
    words = ["hello", "he", "a", "world", "dd", "0"]
    (reading,) = processor.post_process_text_recognition({"logits": logits}, lexicon=words, n_best=6)
    likelihoods = log_likelihoods(log_softmax(logits[0].numpy()), processor.encode(words))
    ranked = sorted(zip(likelihoods, words, strict=True), reverse=True)
    assert [alternative["text"] for alternative in reading["alternatives"]] == [word for _, word in ranked]
    assert [a["log_likelihood"] for a in reading["alternatives"]] == pytest.approx([value for value, _ in ranked])
    assert reading["text"] == ranked[0][1]
    assert reading["score"] == reading["alternatives"][0]["score"]


def test_lexicon_reads_the_doubled_letter(processor):
    output = outputs(processor, "h_a_p_p_y_", certain=5.0)
    words = ["hapy", "happy", "happpy"]
    assert processor.post_process_text_recognition(output, lexicon=words)[0]["text"] == "happy"
    prepared = processor.encode_lexicon(words)
    assert processor.post_process_text_recognition(output, lexicon=prepared)[0]["text"] == "happy"


def test_lexicon_none_of_which_fits(processor):
    (reading,) = processor.post_process_text_recognition(outputs(processor, "ab"), lexicon=["abcdef"], n_best=3)
    assert reading == {"text": "", "score": 0.0, "alternatives": []}


@pytest.mark.parametrize(("lexicon", "message"), [([], "empty"), (["ok", "n\u00f6"], "'nö'.*'ö'")])
def test_impossible_lexicon(processor, lexicon, message):
    with pytest.raises(ValueError, match=message):
        processor.post_process_text_recognition(outputs(processor, "ab"), lexicon=lexicon)


def test_alternatives(processor):
    output = outputs(processor, "a_b_", certain=6.0)
    output["logits"][0, 2, 1 + CHARSET.index("8")] = 5.0
    (reading,) = processor.post_process_text_recognition(output, n_best=2)
    assert [alternative["text"] for alternative in reading["alternatives"]] == ["ab", "a8"]
    assert reading["text"] == "ab"
    scores = [alternative["score"] for alternative in reading["alternatives"]]
    assert scores[0] > scores[1]
    greedy = processor.post_process_text_recognition(output)[0]
    assert greedy["score"] == pytest.approx(reading["score"])
    with pytest.raises(ValueError, match="n_best=0"):
        processor.post_process_text_recognition(output, n_best=0)


def test_outputs_of_another_model_are_refused(processor):
    with pytest.raises(ValueError, match="scores 95 classes, but the tokenizer has 49"):
        processor.post_process_text_recognition({"logits": torch.zeros(1, 4, 95)})


def test_target_sizes_of_another_number_are_refused(processor):
    with pytest.raises(ValueError, match="1 readings, but 2 target_sizes"):
        processor.post_process_text_recognition(outputs(processor, "ab"), target_sizes=[(1, 1), (2, 2)])
