"""SVTRv2Processor: labels, texts, scores, positions, and options."""

import numpy as np
import pytest
import torch
from conftest import CHARSET, draw
from transformers import AutoImageProcessor

from svtrv2_hf import SVTRv2Processor
from svtrv2_hf.ctc_svtrv2 import log_likelihoods, log_softmax


def outputs(processor, *paths, certain=8.0):
    """Return the logits for these paths; "_" is the blank."""
    vocabulary = "_" + CHARSET
    length = max(map(len, paths))
    logits = torch.zeros(len(paths), length, len(vocabulary))
    for row, path in zip(logits, paths, strict=True):
        row[: len(path)][range(len(path)), [vocabulary.index(character) for character in path]] = certain
    return {"logits": logits, "logits_lengths": torch.tensor([len(path) for path in paths])}


def test_texts_become_padded_labels(processor):
    batch = processor([draw("ab"), draw("b")], ["ab", "b"], return_tensors="pt")
    assert batch["labels"].tolist() == [[11, 12], [12, -100]]
    assert set(batch) == {"pixel_values", "image_sizes", "labels"}
    assert processor(text="ab")["labels"].tolist() == [[11, 12]]
    assert processor.model_input_names == ["pixel_values", "image_sizes", "labels"]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, ValueError, "Nothing to process"),
        ({"text": ["ok", "caf\u00e9!"]}, ValueError, r"'café!' has characters that are not in the charset: '!é'"),
        ({"images": [draw("a")], "text": ["a", "b"]}, ValueError, "1 images, but 2 texts"),
        ({"images": draw("a"), "max_ration": 20}, TypeError, "no option 'max_ration'. Did you mean 'max_ratio'"),
        (
            {"images": draw("a"), "images_kwargs": {"max_ration": 20}},
            TypeError,
            "no option 'max_ration' in images_kwargs",
        ),
        ({"text": "ok", "text_kwargs": {"pading": True}}, TypeError, "no option 'pading' in text_kwargs"),
        ({"text": "ok", "return_offsets_mapping": True}, ValueError, "return_offsets_mapping=True is not supported"),
        ({"images": draw("a"), "do_center_crop": True}, ValueError, "do_center_crop=True is not supported"),
    ],
)
def test_invalid_arguments_raise(processor, arguments, error, message):
    with pytest.raises(error, match=message):
        processor(**arguments)


def test_saved_processor_is_loaded_unchanged(processor, tmp_path):
    processor.image_processor.max_ratio = 20
    processor.save_pretrained(tmp_path)
    loaded = SVTRv2Processor.from_pretrained(tmp_path)
    assert loaded.image_processor.max_ratio == 20
    assert loaded.encode(["a-b"]) == processor.encode(["a-b"])


def test_post_processing_returns_text_and_score(processor):
    results = processor.post_process_text_recognition(outputs(processor, "__HH_ee", "_______", "aa_aa__"))
    assert [result["text"] for result in results] == ["He", "", "aa"]
    peak = float(torch.softmax(torch.tensor([8.0] + [0.0] * len(CHARSET)), -1)[0])
    assert [result["score"] for result in results] == pytest.approx([peak, 0.0, peak])
    assert all(set(result) == {"text", "score"} for result in results)


def test_frames_after_the_length_are_ignored(processor):
    output = outputs(processor, "a_b_", "a_b_cdef")
    output["logits"][0, 4:] = output["logits"][1, 4:]
    assert [r["text"] for r in processor.post_process_text_recognition(output)] == ["ab", "abcdef"]


def test_positions_are_pixels_of_the_original_image(processor):
    path = "_1_2_____ _____a_b__"
    (result,) = processor.post_process_text_recognition(
        outputs(processor, path), target_sizes=[(50, 400)], return_characters=True, return_words=True
    )
    assert result["text"] == "12 ab"
    assert [character["text"] for character in result["characters"]] == list("12 ab")
    frame = 400 / len(path)
    for character, position in zip(result["characters"], [1, 3, 9, 15, 17], strict=True):
        assert character["start"] <= position * frame
        assert character["end"] >= (position + 1) * frame
        assert character["score"] == pytest.approx(result["score"], rel=1e-4)
    first, second = result["words"]
    assert (first["text"], second["text"]) == ("12", "ab")
    assert (first["start"], first["end"]) == (result["characters"][0]["start"], result["characters"][1]["end"])
    assert first["end"] < result["characters"][2]["start"] + 1e-6 < second["start"] + 1e-3
    assert second["end"] <= 400


def test_positions_are_relative_without_target_sizes(processor):
    (result,) = processor.post_process_text_recognition(outputs(processor, "a_______"), return_characters=True)
    assert result["characters"] == [
        {"text": "a", "score": pytest.approx(result["score"]), "start": 0.0, "end": 0.5625}
    ]


def test_words_of_a_text_without_spaces_and_of_an_empty_text(processor):
    one, none = processor.post_process_text_recognition(outputs(processor, "a_b_", "____"), return_words=True)
    assert [word["text"] for word in one["words"]] == ["ab"]
    assert none["words"] == []


def test_score_of_a_word_is_the_geometric_mean_of_its_characters(processor):
    output = outputs(processor, "ab_ _c")
    for frame, certain in ((0, 3.0), (1, 5.0), (5, 4.0)):
        output["logits"][0, frame] *= certain / 8
    (result,) = processor.post_process_text_recognition(output, return_characters=True, return_words=True)
    scores = [character["score"] for character in result["characters"]]
    assert len(set(scores)) == 4
    assert [word["score"] for word in result["words"]] == pytest.approx([(scores[0] * scores[1]) ** 0.5, scores[3]])
    assert result["score"] == pytest.approx(np.prod(scores) ** 0.25)


def test_allowed_characters(processor):
    output = outputs(processor, "I_D_", certain=2.0)
    output["logits"][0, 0, 1 + CHARSET.index("1")] = 1.5
    output["logits"][0, 2, 1 + CHARSET.index("0")] = 1.9
    assert processor.post_process_text_recognition(outputs(processor, "I_H_"))[0]["text"] == "IH"
    (result,) = processor.post_process_text_recognition(
        output, allowed_characters="0123456789", return_characters=True
    )
    assert result["text"] == "10"
    # conditioned on a digit or the blank: exp(1.5) against nine digits and a blank of exp(0)
    assert result["characters"][0]["score"] == pytest.approx(np.exp(1.5) / (np.exp(1.5) + 10), rel=1e-6)
    with pytest.raises(ValueError, match="'!'"):
        processor.post_process_text_recognition(output, allowed_characters="01!")


def test_lexicon_predicts_the_entry_with_the_highest_exact_likelihood(processor):
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(1, 10, len(CHARSET) + 1, generator=generator)
    words = ["hello", "he", "a", "world", "dd", "0"]
    (result,) = processor.post_process_text_recognition({"logits": logits}, lexicon=words, n_best=6)
    likelihoods = log_likelihoods(log_softmax(logits[0].numpy()), processor.encode(words))
    ranked = sorted(zip(likelihoods, words, strict=True), reverse=True)
    assert [alternative["text"] for alternative in result["alternatives"]] == [word for _, word in ranked]
    assert [a["log_likelihood"] for a in result["alternatives"]] == pytest.approx([value for value, _ in ranked])
    assert result["text"] == ranked[0][1]
    assert result["score"] == result["alternatives"][0]["score"]


def test_lexicon_distinguishes_doubled_letters(processor):
    output = outputs(processor, "h_a_p_p_y_", certain=5.0)
    words = ["hapy", "happy", "happpy"]
    assert processor.post_process_text_recognition(output, lexicon=words)[0]["text"] == "happy"
    prepared = processor.encode_lexicon(words)
    assert processor.post_process_text_recognition(output, lexicon=prepared)[0]["text"] == "happy"


def test_lexicon_without_an_entry_that_fits_predicts_an_empty_text(processor):
    (result,) = processor.post_process_text_recognition(outputs(processor, "ab"), lexicon=["abcdef"], n_best=3)
    assert result == {"text": "", "score": 0.0, "alternatives": []}


@pytest.mark.parametrize(("lexicon", "message"), [([], "empty"), (["ok", "n\u00f6"], "'nö'.*'ö'")])
def test_invalid_lexicons_raise(processor, lexicon, message):
    with pytest.raises(ValueError, match=message):
        processor.post_process_text_recognition(outputs(processor, "ab"), lexicon=lexicon)


def test_alternatives_are_sorted_by_likelihood(processor):
    output = outputs(processor, "a_b_", certain=6.0)
    output["logits"][0, 2, 1 + CHARSET.index("8")] = 5.0
    (result,) = processor.post_process_text_recognition(output, n_best=2)
    assert [alternative["text"] for alternative in result["alternatives"]] == ["ab", "a8"]
    assert result["text"] == "ab"
    scores = [alternative["score"] for alternative in result["alternatives"]]
    assert scores[0] > scores[1]
    greedy = processor.post_process_text_recognition(output)[0]
    assert greedy["score"] == pytest.approx(result["score"])
    with pytest.raises(ValueError, match="n_best=0"):
        processor.post_process_text_recognition(output, n_best=0)


def test_outputs_of_another_model_raise(processor):
    with pytest.raises(ValueError, match="has 95 classes, but the tokenizer has 49"):
        processor.post_process_text_recognition({"logits": torch.zeros(1, 4, 95)})


def test_another_number_of_target_sizes_raises(processor):
    with pytest.raises(ValueError, match="1 outputs, but 2 target_sizes"):
        processor.post_process_text_recognition(outputs(processor, "ab"), target_sizes=[(1, 1), (2, 2)])


def test_frame_ids_are_decoded_as_ctc(processor):
    ids = processor.tokenizer.convert_tokens_to_ids
    frames = torch.tensor([[0 if c == "-" else ids(c) for c in text] for text in ("hh-ell-loo", "--o-o-----")])
    frames[1, 6:] = -100
    assert processor.batch_decode(frames) == ["hello", "oo"]
    assert processor.batch_decode(frames.tolist(), skip_special_tokens=True) == ["hello", "oo"]
    assert processor.decode(frames[0].numpy()) == "hello"
    logits = torch.nn.functional.one_hot(frames.clamp(min=0), len(processor.tokenizer) - 1).float()
    assert processor.batch_decode(logits.argmax(-1)) == ["hello", "oo"]
    for raw in (logits, logits[0], [[0.5, 1.5]]):
        with pytest.raises(TypeError, match=r"logits\.argmax"):
            processor.batch_decode(raw)
    with pytest.raises(TypeError, match="no option 'top_k'"):
        processor.batch_decode(frames, top_k=2)


def test_labels_are_decoded_unchanged(processor):
    labels = processor(text=["hello", "oo"])["labels"]
    assert processor.tokenizer.batch_decode([row[row >= 0] for row in labels]) == ["hello", "oo"]
    assert processor.batch_decode(labels, group_tokens=False) == ["hello", "oo"]
    assert processor.batch_decode(labels) == ["helo", "o"]  # as if they were frames


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({"padding": True}, (2, 5)),
        ({"padding": "longest"}, (2, 5)),
        ({"padding": "max_length", "max_length": 9}, (2, 9)),
        ({"text_kwargs": {"padding": "max_length", "max_length": 9}}, (2, 9)),
        ({"truncation": True, "max_length": 3}, (2, 3)),
        ({"pad_to_multiple_of": 8}, (2, 8)),
        ({"common_kwargs": {"return_tensors": "pt"}, "text_kwargs": {"padding": True}}, (2, 5)),
    ],
)
def test_standard_options_of_labels(processor, options, shape):
    labels = processor(text=["hello", "oo"], **options)["labels"]
    assert tuple(labels.shape) == shape
    assert isinstance(labels, torch.Tensor) == ("common_kwargs" in options)
    assert (labels[1, 2:] == -100).all()


def test_standard_options_of_images(processor):
    image = draw("hello", 300, 50)
    default = processor(images=image)["pixel_values"]
    assert default.shape == (1, 3, 32, 192)
    same = {"do_resize": True, "do_rescale": True, "do_normalize": True, "image_mean": 0.5, "image_std": [0.5] * 3}
    assert (
        processor(images=image, **same, device="cpu", return_tensors="pt")["pixel_values"].numpy() == default
    ).all()
    assert processor(images=image, images_kwargs={"max_ratio": 4})["pixel_values"].shape == (1, 3, 32, 128)
    assert isinstance(processor(images=image, images_kwargs={"return_tensors": "pt"})["pixel_values"], torch.Tensor)
    assert processor(images=image, size={"height": 48, "width": 100})["pixel_values"].shape == (1, 3, 48, 100)
    assert processor(images=image, do_resize=False)["pixel_values"].shape == (1, 3, 50, 300)
    unnormalized = processor(images=image, do_normalize=False)["pixel_values"]
    assert np.allclose(unnormalized, (default + 1) / 2, atol=1e-6)
    assert np.allclose(
        processor(images=image, do_normalize=False, do_rescale=False)["pixel_values"], unnormalized * 255
    )
    assert np.allclose(
        processor(images=image, image_mean=[0.0] * 3, image_std=[1.0] * 3)["pixel_values"], unnormalized
    )


def test_image_processor_decodes_with_the_charset_of_its_folder(saved, model, processor):
    image_processor = AutoImageProcessor.from_pretrained(saved)
    inputs = image_processor(draw("hello"), return_tensors="pt")
    with torch.no_grad():
        outputs = model(**inputs)
    assert image_processor.post_process_text_recognition(outputs) == processor.post_process_text_recognition(outputs)
    with pytest.raises(ValueError, match="not loaded with from_pretrained"):
        processor.image_processor.post_process_text_recognition(outputs)
