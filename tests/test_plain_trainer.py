"""Training with a plain `Trainer`, or in a loop without one."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import draw, make_folder
from datasets import Dataset, Features, Image, Value
from ranks import run_on_ranks
from transformers import EvalPrediction, Trainer, TrainingArguments, pipeline

from svtrv2_hf import (
    SVTRv2Config,
    SVTRv2DataCollator,
    SVTRv2ForCTC,
    make_compute_metrics,
    predict_ids,
    training_batches,
)


EXAMPLES = Path(__file__).parents[1] / "examples"
TEXTS = ["10", "a line of words", "B-7", "22", "abc", "G", "77 f", "0"]


def rows(texts=TEXTS):
    return [{"image": draw(text or "x"), "text": text} for text in texts]


def dataset(texts=TEXTS):
    return Dataset.from_list(rows(texts), features=Features({"image": Image(), "text": Value("string")}))


def test_batch_of_several_sizes(model, processor):
    batch = SVTRv2DataCollator(processor)(rows())
    assert len({tuple(size) for size in batch["image_sizes"].tolist()}) > 1
    assert [processor.tokenizer.decode(label[label >= 0]) for label in batch["labels"]] == TEXTS
    assert torch.isfinite(model(**batch).loss)


@pytest.mark.parametrize(
    ("texts", "options", "skipped", "kept"),
    [
        (["10", "", "22"], {}, {"empty": 1}, ["10", "22"]),
        (["10", "12345"], {"max_label_length": 4}, {"too_long": 1}, ["10"]),
        (["10", "é"], {"unknown_characters": "drop_sample"}, {"unknown_characters": 1}, ["10"]),
        (["10", "1é0"], {"unknown_characters": "drop_character"}, {}, ["10", "10"]),
    ],
)
def test_rules_for_labels(processor, texts, options, skipped, kept):
    collator = SVTRv2DataCollator(processor, **options)
    batch = collator(rows(texts))
    assert [processor.tokenizer.decode(label[label >= 0]) for label in batch["labels"]] == kept
    assert len(batch["pixel_values"]) == len(kept)
    assert collator.skipped == skipped


def test_label_with_more_characters_than_frames_is_skipped(processor):
    # 64 x 64 pixels are 16 frames; 9 equal characters need 9 and 8 blanks between them.
    square = [{"image": draw("x", 40, 40), "text": text} for text in ("1" * 8, "1" * 9)]
    collator = SVTRv2DataCollator(processor)
    assert len(collator(square)["labels"]) == 1
    assert collator.skipped == {"unalignable": 1}


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"picture": draw("1"), "text": "1"},
            r"Column 'image' not found in the row; its columns are \['picture', 'text'\]",
        ),
        ({}, "remove_unused_columns=False"),
        ({"image": draw("1"), "text": "é"}, "outside the charset"),
        ({"image": draw("1"), "text": ""}, r"All 1 samples of a batch were skipped \(empty: 1\)"),
    ],
)
def test_bad_rows_raise(processor, columns, message):
    with pytest.raises(ValueError, match=message):
        SVTRv2DataCollator(processor)([columns])


@pytest.mark.parametrize("reduce", [False, True])
def test_metrics(processor, reduce):
    ids = processor.tokenizer.convert_tokens_to_ids
    one, two, zero = ids("1"), ids("2"), ids("0")
    frames = np.array([[one, one, 0, one, 0, 0], [two, two, two, zero, -100, -100]])  # "11" and "20"
    logits = np.full((2, 6, len(processor.tokenizer) - 1), -9.0, np.float32)
    for row, column in np.argwhere(frames >= 0):
        logits[row, column, frames[row, column]] = 3.0
    logits[frames < 0] = -100.0
    labels = np.array([[one, one, -100], [two, one, zero]])  # "11" and "210"
    prediction = EvalPrediction(frames if reduce else logits, labels)
    metrics = make_compute_metrics(processor)(prediction)
    assert metrics == pytest.approx({"word_accuracy": 0.5, "cer": 1 / 5, "one_minus_ned": (1 + 2 / 3) / 2})
    assert np.array_equal(predict_ids(torch.tensor(logits))[0], frames[0])


def test_trainer_learns_eight_images(model, processor, tmp_path):
    model.train()
    arguments = TrainingArguments(
        tmp_path,
        remove_unused_columns=False,
        max_steps=60,
        per_device_train_batch_size=8,
        per_device_eval_batch_size=3,  # logits of several lengths
        learning_rate=5e-3,
        eval_strategy="steps",
        eval_steps=60,
        report_to=[],
        save_strategy="no",
        use_cpu=True,
    )
    trainer = Trainer(
        model,
        arguments,
        data_collator=SVTRv2DataCollator(processor),
        train_dataset=dataset(),
        eval_dataset=dataset(),
        processing_class=processor,
        compute_metrics=make_compute_metrics(processor),
        preprocess_logits_for_metrics=predict_ids,
    )
    before = trainer.evaluate()
    trainer.train()
    after = trainer.evaluate()
    assert after["eval_cer"] < before["eval_cer"] / 2
    assert 0 <= after["eval_word_accuracy"] <= 1


def test_batches_for_a_loop(model, processor, tmp_path):
    folder = make_folder(tmp_path / "data", ["10", "", "22", "a line of words", "B-7"])
    batches = training_batches(str(folder), processor, batch_size=2, seed=3)
    for _, batch in zip(range(3), batches, strict=False):
        assert batch["pixel_values"].shape[1] == 3 and len(batch["pixel_values"]) == len(batch["labels"])
        assert torch.isfinite(model(**batch).loss)
    again = next(training_batches([str(folder)], processor, batch_size=2, seed=3))
    first = next(training_batches([str(folder)], processor, batch_size=2, seed=3))
    assert all(torch.equal(first[name], again[name]) for name in ("pixel_values", "labels"))


def test_batches_refuse_other_pixels(processor, tmp_path):
    processor.image_processor.do_normalize = False
    with pytest.raises(ValueError, match="do_normalize"):
        next(training_batches(str(make_folder(tmp_path / "data", ["10"])), processor))


def test_vocabulary_of_the_tokenizer_length_trains_and_predicts(config, processor, tmp_path):
    model = SVTRv2ForCTC(SVTRv2Config(**{**config.to_dict(), "vocab_size": len(processor.tokenizer)}))
    batch = SVTRv2DataCollator(processor)(rows())
    assert torch.isfinite(model(**batch).loss)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    [result] = pipeline("text-recognition", str(tmp_path))(draw("10"))
    assert isinstance(result["text"], str)


def test_arrays_instead_of_tensors_raise(model, processor):
    with pytest.raises(TypeError, match='return_tensors="pt"'):
        model(**processor(draw("10")))


@pytest.mark.parametrize(
    ("script", "ranks"),
    [
        ("run_text_recognition.py", 2),
        ("train_loop.py", 1),
        pytest.param("run_text_recognition.py", 1, marks=pytest.mark.slow),
        pytest.param("train_loop.py", 2, marks=pytest.mark.slow),
    ],
)
def test_example(saved, tmp_path, script, ranks, monkeypatch):
    data, output = tmp_path / "data", tmp_path / "output"
    data.mkdir()
    for split in ("train", "validation"):
        dataset().to_parquet(data / f"{split}.parquet")
    if script == "train_loop.py":
        options = [data, output, "--model", saved, "--steps", 3, "--batch_size", 2]
    else:
        options = [
            "--model_name_or_path", saved, "--dataset_name", data, "--output_dir", output, "--do_train", "--do_eval", "--max_steps", 3,
            "--per_device_train_batch_size", 2, "--report_to", "none", "--use_cpu",
        ]  # fmt: skip
    monkeypatch.setenv("ACCELERATE_USE_CPU", "1")
    run_on_ranks(EXAMPLES / script, options, ranks, tmp_path)
    [result] = pipeline("text-recognition", str(output))(draw("10"))
    assert isinstance(result["text"], str)
    if script != "train_loop.py":
        assert (output / "eval_results.json").is_file()
