"""Lines that users of transformers and datasets write first: they work, or one sentence says what to do."""

import copy
import pickle

import numpy as np
import pytest
import torch
from conftest import draw, make_folder
from datasets import Dataset, Features, Image, Value
from torch.utils.data import DataLoader
from transformers import (
    AutoImageProcessor,
    AutoModelForCTC,
    AutoModelForTextRecognition,
    AutoProcessor,
    Trainer,
    TrainingArguments,
    default_data_collator,
    pipeline,
)

import svtrv2_hf
from svtrv2_hf import (
    SVTRv2Config,
    SVTRv2DataCollator,
    SVTRv2ForCTC,
    UnreadableImageError,
    make_compute_metrics,
    open_source,
    predict_ids,
    training_batches,
)


# Other first lines and their tests:
#
# pipeline("text-recognition").save_pretrained(...)     test_pipeline.test_default_model_is_the_bundled_checkpoint
# list, tuple, iterator and KeyDataset as input         test_pipeline.test_kinds_of_input
# on_error="return"                                     test_pipeline.test_three_unreadable_images_of_a_thousand_are_reported
# a misspelled option of processor or pipeline          test_processing.test_invalid_arguments_raise,
#                                                       test_pipeline.test_unknown_options_raise
# processor(..., padding=True, text_kwargs={...})       test_processing.test_standard_options_of_labels
# processor(..., images_kwargs={...}, do_normalize=...) test_processing.test_standard_options_of_images
# model(**processor(image)) without tensors             test_plain_trainer.test_arrays_instead_of_tensors_raise
# preset(..., vocab_size=len(tokenizer))                test_plain_trainer.test_vocabulary_of_the_tokenizer_length_...
# Trainer with SVTRv2DataCollator and compute_metrics   test_plain_trainer.test_trainer_learns_eight_images
# model(**batch) of training_batches                    test_plain_trainer.test_batches_for_a_loop
# PEFT                                                  test_frozen.test_loaded_adapter_equals_the_trained_model
# drop_guidance(), from_pretrained(use_guidance=False)  test_modeling.test_guidance_can_be_omitted_when_loading_...
# torch.compile(model), gradient_checkpointing_enable() test_compile, test_modeling.test_gradients_do_not_depend_on_checkpointing

TEXTS = ["Coffee", "10", "Hello book"]


@pytest.fixture(scope="module")
def parts(bundled):
    return bundled.processor, bundled.model


@pytest.fixture(scope="module")
def dataset():
    rows = [{"image": draw(text), "text": text} for text in TEXTS]
    return Dataset.from_list(rows, features=Features({"image": Image(), "text": Value("string")}))


def texts(results):
    return [result["text"] for [result] in results]


@pytest.mark.parametrize("name", svtrv2_hf.__all__)
def test_public_names_can_be_imported(name):
    exec(f"from svtrv2_hf import {name}", {})


def test_result_of_the_pipeline_has_the_text(bundled):
    assert bundled(draw("Coffee"))[0]["text"] == "Coffee"
    bgr = np.asarray(draw("Coffee"))[..., ::-1]  # of cv2.imread
    assert bundled(bgr)[0]["text"] == "Coffee"


def test_name_of_the_command_line_is_not_a_model_of_the_pipeline():
    with pytest.raises(OSError):
        pipeline("text-recognition", model="default")


def test_snippet_of_the_recognition_models_of_transformers():
    folder = svtrv2_hf.default_checkpoint()
    image_processor = AutoImageProcessor.from_pretrained(folder)
    model = AutoModelForTextRecognition.from_pretrained(folder, device_map="auto")
    inputs = image_processor(images=draw("Coffee"), return_tensors="pt").to(model.device)
    outputs = model(**inputs)
    for result in image_processor.post_process_text_recognition(outputs):
        assert result["text"] == "Coffee"


def test_snippet_of_wav2vec2(parts, dataset):
    processor, model = parts
    inputs = processor(images=dataset["image"], text=dataset["text"], padding=True, return_tensors="pt")
    with torch.no_grad():
        output = model(**inputs)
        logits = model(**inputs, return_dict=False)[1]
    assert output.loss < 1
    assert torch.equal(output.logits, logits)
    assert processor.batch_decode(output.logits.argmax(-1)) == TEXTS
    labels = torch.where(inputs["labels"] < 0, processor.tokenizer.pad_token_id, inputs["labels"])
    assert processor.tokenizer.batch_decode(labels, skip_special_tokens=True) == TEXTS
    of_tokenizer = processor.tokenizer(dataset["text"][:], padding=True, return_tensors="pt").input_ids
    assert model(**{**inputs, "labels": of_tokenizer}).loss.item() == pytest.approx(output.loss.item())


def test_attributes_of_the_image_processor_describe_its_output(parts):
    image_processor = parts[0].image_processor
    assert (image_processor.image_mean, image_processor.image_std) == ([0.5] * 3, [0.5] * 3)
    assert (image_processor.do_resize, image_processor.do_rescale, image_processor.do_normalize) == (True,) * 3
    assert image_processor.rescale_factor == 1 / 255
    assert image_processor.size is None  # one for each aspect ratio
    white = image_processor(np.full((32, 64, 3), 255, np.uint8))["pixel_values"]
    assert (white == (1 - 0.5) / 0.5).all()


@pytest.mark.parametrize("options", [{"dtype": torch.float16}, {"dtype": "bfloat16", "device_map": "auto"}])
def test_half_precision(options):
    read = pipeline("text-recognition", svtrv2_hf.default_checkpoint(), **options)
    assert texts(read([draw(text) for text in TEXTS])) == TEXTS
    inputs = read.processor(draw("Coffee"), return_tensors="pt").to(read.device, read.model.dtype)
    assert read.processor.post_process_text_recognition(read.model(**inputs))[0]["text"] == "Coffee"


def test_copies_of_the_pipeline(bundled):
    for copied in (copy.deepcopy(bundled), pickle.loads(pickle.dumps(bundled))):
        assert copied(draw("Coffee"))[0]["text"] == "Coffee"


@pytest.mark.parametrize(
    "make_images",
    [
        lambda dataset: dataset["image"],
        lambda dataset: dataset[:]["image"],
        lambda dataset: (row["image"] for row in dataset),
        lambda dataset: dataset.with_format("torch")[:]["image"],
        lambda dataset: dataset.cast_column("image", Image(decode=False))["image"],
    ],
    ids=["column", "slice", "generator", "torch", "undecoded"],
)
def test_images_of_a_dataset(bundled, parts, dataset, make_images):
    processor, model = parts
    assert texts(bundled(make_images(dataset))) == TEXTS
    outputs = model(**processor(images=make_images(dataset), return_tensors="pt"))
    assert processor.batch_decode(outputs.logits.argmax(-1)) == TEXTS


def test_batch_of_tensors(bundled, parts):
    images = torch.stack([torch.from_numpy(np.array(draw("Coffee"))).permute(2, 0, 1)] * 2)
    assert texts(bundled(images)) == ["Coffee"] * 2
    assert len(parts[0](images)["pixel_values"]) == 2


def test_undecoded_image_is_named_by_its_path(bundled, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"not an image")
    for bytes_ in (None, b"not an image"):
        with pytest.raises(UnreadableImageError, match=r"bad\.png"):
            bundled({"bytes": bytes_, "path": str(tmp_path / "bad.png")})


def test_map_with_the_pipeline(bundled, dataset):
    predict = lambda rows: {"predicted": texts(bundled(rows["image"]))}  # noqa: E731  the usual form
    assert dataset.map(predict, batched=True)["predicted"][:] == TEXTS


def test_processor_as_transformation(parts, dataset):
    processor, model = parts
    transformed = dataset.with_transform(lambda rows: processor(images=rows["image"], text=rows["text"]))
    [batch] = DataLoader(transformed, batch_size=len(TEXTS), collate_fn=default_data_collator)
    assert model(**batch).loss < 1


@pytest.mark.parametrize(
    "convert",
    [
        lambda dataset: dataset,
        lambda dataset: dataset.with_format("torch"),
        lambda dataset: dataset.with_format("numpy"),
        lambda dataset: dataset.cast_column("image", Image(decode=False)),
        lambda dataset: dataset.to_iterable_dataset(),
    ],
    ids=["decoded", "torch", "numpy", "undecoded", "streaming"],
)
def test_rows_of_a_dataset(parts, dataset, convert):
    processor, model = parts
    [batch] = DataLoader(convert(dataset), batch_size=len(TEXTS), collate_fn=SVTRv2DataCollator(processor))
    assert processor.batch_decode(batch["labels"], group_tokens=False) == TEXTS
    assert processor.batch_decode(model(**batch).logits.argmax(-1)) == TEXTS


def test_collator_in_workers(parts, dataset):
    loader = DataLoader(dataset, batch_size=2, collate_fn=SVTRv2DataCollator(parts[0]), num_workers=2)
    assert [text for batch in loader for text in parts[0].batch_decode(batch["labels"], False)] == TEXTS


def plain_trainer(model, processor, dataset, folder, **options):
    arguments = {
        "max_steps": 1,
        "per_device_train_batch_size": 2,
        "per_device_eval_batch_size": 2,
        "use_cpu": True,
        "remove_unused_columns": False,
        "report_to": [],
        "save_strategy": "no",
        "disable_tqdm": True,
    }
    return Trainer(
        model,
        TrainingArguments(folder, **{**arguments, **options}),
        data_collator=SVTRv2DataCollator(processor),
        train_dataset=dataset,
        eval_dataset=dataset,
        processing_class=processor,
        compute_metrics=make_compute_metrics(processor),
    )


@pytest.fixture
def small(config, parts):
    """A small model with a guidance branch, for the bundled charset."""
    charset = {"vocab_size": len(parts[0].tokenizer) - 1}
    return SVTRv2ForCTC(SVTRv2Config(**{**config.to_dict(), **charset, "use_guidance": True}))


def test_plain_trainer_accumulates_gradients_of_a_model_with_guidance(small, parts, dataset, tmp_path):
    before = small.guidance.next_token.detach().clone()
    options = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 3, "learning_rate": 1e-2}
    trainer = plain_trainer(small, parts[0], dataset, tmp_path, **options)
    with torch.no_grad():
        losses = [small(**trainer.data_collator([row])).loss.item() for row in dataset]
    assert trainer.train().training_loss == pytest.approx(
        np.mean(losses), rel=0.2
    )  # drop path and guidance are random
    assert not torch.equal(small.guidance.next_token, before)


@pytest.mark.parametrize("options", [{}, {"eval_do_concat_batches": False}])
def test_plain_trainer_evaluates_and_predicts(parts, dataset, tmp_path, options):
    trainer = plain_trainer(copy.deepcopy(parts[1]), parts[0], dataset, tmp_path, **options)
    metrics = trainer.evaluate()
    assert {name: metrics[f"eval_{name}"] for name in ("word_accuracy", "cer", "one_minus_ned")} == {
        "word_accuracy": 1,
        "cer": 0,
        "one_minus_ned": 1,
    }
    if not options:
        trainer.preprocess_logits_for_metrics = predict_ids
        prediction = trainer.predict(dataset)
        assert parts[0].batch_decode(prediction.predictions) == TEXTS
        assert prediction.metrics["test_word_accuracy"] == 1


def test_unused_columns_are_explained(small, parts, dataset, tmp_path):
    trainer = plain_trainer(small, parts[0], dataset, tmp_path, remove_unused_columns=True)
    with pytest.raises(ValueError, match="remove_unused_columns=False"):
        trainer.train()


def test_saved_parts_are_loaded_together(small, parts, tmp_path):
    small.save_pretrained(tmp_path)
    parts[0].save_pretrained(tmp_path)
    processor, model = AutoProcessor.from_pretrained(tmp_path), AutoModelForCTC.from_pretrained(tmp_path)
    assert isinstance(pipeline("text-recognition", model=model, processor=processor)(draw("10"))[0]["text"], str)
    with pytest.raises(ValueError, match="max_ratio=0 must be"):
        processor(draw("10"), max_ratio=0)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda p: p(text=[10]), TypeError, "The text 10 is of type int: pass strings"),
        (lambda p: p(text=[None]), TypeError, "The text None is of type NoneType"),
        (lambda p: p(text=[["a"]]), TypeError, r"The text \['a'\] is of type list"),
        (lambda p: p(image=draw("a")), TypeError, "no option 'image'. Did you mean 'images'"),
        (lambda p: p(draw("a"), texts=["a"]), TypeError, "no option 'texts'. Did you mean 'text'"),
        (lambda p: p(images=iter([])), ValueError, "No images"),
        (lambda p: p({"image": draw("a"), "text": "a"}), UnreadableImageError, "has the keys image, text: pass the"),
        (lambda p: p.post_process_text_recognition(torch.zeros(1, 4, 96)), TypeError, '{"logits": logits}'),
        (lambda p: p.post_process_text_recognition((torch.zeros(1, 4, 96),)), TypeError, "object of type tuple"),
        (lambda p: SVTRv2DataCollator(p.tokenizer), TypeError, r"processor of a model.*AutoProcessor"),
        (lambda p: make_compute_metrics(p.image_processor), TypeError, "processor of a model"),
        (lambda p: training_batches("data", p.tokenizer), TypeError, "processor of a model"),
        (lambda p: training_batches("data", p, batch_size=0), ValueError, "batch_size=0"),
        (lambda p: training_batches("nowhere", p), FileNotFoundError, "No such file or folder: 'nowhere'"),
        (lambda p: training_batches([{"text": "a"}], p), TypeError, "type dict.*SVTRv2DataCollator"),
        (lambda p: SVTRv2DataCollator(p, max_label_length=0), ValueError, "must be 1 or more"),
        (lambda p: SVTRv2DataCollator(p)([]), ValueError, "no rows"),
        (
            lambda p: SVTRv2DataCollator(p)([(draw("a"), "a")]),
            TypeError,
            "rows with columns, not an object of type tuple",
        ),
        (lambda p: SVTRv2DataCollator(p)([{"image": draw("1"), "text": 1}]), TypeError, "label 1 of type int"),
        (
            lambda p: SVTRv2DataCollator(p)([{"pixel_values": 0, "labels": 0}]),
            ValueError,
            "The collator applies the processor",
        ),
    ],
)
def test_misuse_is_explained(parts, call, error, message):
    with pytest.raises(error, match=message):
        call(parts[0])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda model, batch: model(batch), TypeError, r"model\(\*\*inputs\)"),
        (lambda model, batch: model(**{**batch, "labels": [[1], [2]]}), TypeError, "labels must be tensors"),
        (
            lambda model, batch: model(**{**batch, "labels": torch.tensor([1])}),
            ValueError,
            r"shape \(1,\) instead of \(1",
        ),
        (
            lambda model, batch: model(**{**batch, "labels": torch.ones(2, 1).long()}),
            ValueError,
            r"\(2, 1\) instead of",
        ),
        (lambda model, batch: model(batch["pixel_values"][0]), ValueError, r"\(batch_size, 3, height, width\)"),
        (lambda model, batch: model(batch["pixel_values"][:, :1]), ValueError, r"\(batch_size, 3, height, width\)"),
    ],
)
def test_misuse_of_the_model_is_explained(parts, call, error, message):
    processor, model = parts
    with pytest.raises(error, match=message):
        call(model, processor(draw("a"), "a", return_tensors="pt"))


def test_tokens_that_the_model_cannot_predict_raise(parts):
    processor = copy.deepcopy(parts[0])
    processor.tokenizer.add_tokens(["\u00e9"])
    with pytest.raises(ValueError, match=r"1 tokens after the unknown token.*build_tokenizer"):
        processor(text="\u00e9")
    with pytest.raises(ValueError, match="build_tokenizer"):
        processor.post_process_text_recognition({"logits": torch.zeros(1, 4, len(processor.tokenizer))})
    with pytest.raises(ValueError, match="build_tokenizer"):
        SVTRv2DataCollator(processor)


def test_missing_labels_are_counted_as_empty(parts):
    collator = SVTRv2DataCollator(parts[0])
    assert len(collator([{"image": draw("a"), "text": text} for text in ("a", None)])["labels"]) == 1
    assert collator.skipped == {"empty": 1}


def test_sources_are_paths_or_strings(parts, tmp_path):
    folder = make_folder(tmp_path / "data", ["10", "22"])
    assert open_source(folder).num_samples == open_source(str(folder)).num_samples == 2
    assert set(next(training_batches(folder, parts[0], batch_size=2))) == {"pixel_values", "labels"}
    with pytest.raises(TypeError, match="type Dataset"):
        open_source(Dataset.from_dict({"text": ["a"]}))
