"""Prediction and scoring of whole sets."""

import copy

import numpy as np
import pytest
import torch
from conftest import CHARSET, ListSource, draw, encoded
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerFast

from svtrv2_hf import SVTRv2Processor
from svtrv2_hf.data.batches import EvaluationBatches
from svtrv2_hf.data.sample import Sample
from svtrv2_hf.evaluation.metrics import compare
from svtrv2_hf.evaluation.prediction import predict, score_predictions


def batches_of(samples, processor, batch_size=2):
    return DataLoader(EvaluationBatches(ListSource(samples), processor.image_processor, batch_size), batch_size=None)


@pytest.fixture
def images():
    """Images of several sizes."""
    return [encoded(draw(text)) for text in ("ab", "one line of words", "Hello", "12345678", "x", "longer words")]


def texts_of(model, processor, images):
    with torch.no_grad():
        results = processor.post_process_text_recognition(model(**processor(images, return_tensors="pt")))
    return [result["text"] for result in results]


def test_scores_are_those_of_the_processor_and_the_loss_of_the_model(model, processor, images):
    """Every third label is wrong, one is not in the charset, and one image is unreadable."""
    texts = texts_of(model, processor, images)
    assert any(text.isalnum() for text in texts), "the comparison is not trivial"
    labels = [text if number % 3 else "wrong" for number, text in enumerate(texts)]
    labels[1] = texts[1] + "\u00e9"
    samples = [Sample(image, label, str(n)) for n, (image, label) in enumerate(zip(images, labels, strict=True))]
    samples.append(Sample(b"not an image", "lost", "bad"))
    model.train()
    score = score_predictions(predict(model, processor, batches_of(samples, processor), with_loss=True))
    assert model.training
    expected = compare(texts, labels)
    assert 0 < expected.correct < len(images)
    assert (score.samples, score.unreadable, score.correct) == (len(images) + 1, 1, expected.correct)
    assert score.similarity == pytest.approx(expected.similarity)
    assert (score.edits, score.characters) == (expected.edits + len("lost"), expected.characters + len("lost"))
    losses = []
    for image, label in zip(images, labels, strict=True):
        if label and "\u00e9" not in label:
            with torch.no_grad():
                output = model.eval()(**processor([image], text=[label], return_tensors="pt"))
            if not output.num_unalignable:
                losses.append(output.loss.item())
    assert score.loss_samples == len(losses)
    np.testing.assert_allclose(score.mean_loss, np.mean(losses), rtol=1e-4)


def test_blank_is_that_of_the_configuration(model, processor, images):
    """Moving the blank from the first to the last id changes neither texts nor losses."""
    last = len(CHARSET)
    moved = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in (moved.head.weight, moved.head.bias):
            parameter.copy_(parameter.roll(-1, dims=0))
    moved.config.blank_token_id = last
    vocabulary = {character: number for number, character in enumerate([*CHARSET, "<blank>", "<unk>"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<blank>", unk_token="<unk>")
    other = SVTRv2Processor(processor.image_processor, tokenizer)
    samples = [Sample(image, "ab", str(number)) for number, image in enumerate(images)]
    expected = list(predict(model, processor, batches_of(samples, processor), with_loss=True))
    predictions = list(predict(moved, other, batches_of(samples, other), with_loss=True))
    assert any(prediction.text for prediction in expected)
    assert [one.text for one in predictions] == [one.text for one in expected]
    assert [one.loss for one in predictions] == pytest.approx([one.loss for one in expected], rel=1e-5)


def test_unreadable_image_with_a_label_without_compared_characters_is_an_error(model, processor):
    samples = [Sample(b"not an image", "...", "bad")]
    score = score_predictions(predict(model, processor, batches_of(samples, processor)), "alphanumeric")
    assert (score.samples, score.correct, score.unreadable, score.emptied, score.loss_samples) == (1, 0, 1, 1, 0)
