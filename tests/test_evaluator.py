"""Reading and scoring whole sets."""

import numpy as np
import pytest
import torch
from conftest import ListSource, draw, encoded
from torch.utils.data import DataLoader

from svtrv2_hf.data.batches import EvaluationBatches
from svtrv2_hf.data.sample import Sample
from svtrv2_hf.evaluation.evaluator import evaluate
from svtrv2_hf.evaluation.metrics import compare


def test_the_readings_are_those_of_the_processor(model, processor):
    """Images of several sizes; every third label is wrong, one cannot be encoded, one image cannot be read."""
    images = [encoded(draw(text)) for text in ("ab", "one line of words", "Hello", "12345678", "x", "longer words")]
    inputs = processor(images, return_tensors="pt")
    with torch.no_grad():
        readings = [reading["text"] for reading in processor.post_process_text_recognition(model(**inputs))]
    assert any(reading.isalnum() for reading in readings), "there is something to compare"
    labels = [reading if number % 3 else "wrong" for number, reading in enumerate(readings)]
    labels[1] = readings[1] + "\u00e9"
    samples = [Sample(image, label, str(n)) for n, (image, label) in enumerate(zip(images, labels, strict=True))]
    samples.append(Sample(b"no image", "lost", "bad"))
    batches = DataLoader(EvaluationBatches(ListSource(samples), processor.image_processor, 2), batch_size=None)
    model.train()
    score = evaluate(model, processor, batches)
    assert model.training
    expected = compare(readings, labels)
    assert 0 < expected.correct < len(images)
    assert (score.samples, score.unreadable, score.correct) == (len(images) + 1, 1, expected.correct)
    assert score.similarity == pytest.approx(expected.similarity)
    losses = []
    for image, label in zip(images, labels, strict=True):
        if label and "\u00e9" not in label:
            with torch.no_grad():
                output = model.eval()(**processor([image], text=[label], return_tensors="pt"))
            if not output.num_unalignable:
                losses.append(output.loss.item())
    assert score.loss_samples == len(losses)
    np.testing.assert_allclose(score.mean_loss, np.mean(losses), rtol=1e-4)
