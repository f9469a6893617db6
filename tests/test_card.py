"""Model cards of saved models."""

import json

import pytest
import yaml

from svtrv2_hf.hub.card import fill_template, metadata, render_card


RUN = {
    "command": "svtrv2 train --train_data data --hub_token hf_" + "a" * 34,
    "steps": 1200,
    "samples": None,
    "hours": 1.26,
    "machine": "a machine",
    "seed": 7,
    "date": "2026-01-01",
    "recipe": {"max_steps": 1200},
}


def test_card_describes_the_training(saved):
    (saved / "run.json").write_text(json.dumps(RUN))
    card = render_card(saved, "me/reader", "mit", "en")
    assert yaml.safe_load(card.split("---\n")[1])["license"] == "mit"
    assert "# reader\n" in card and "1,200 steps, 1.3 hours on a machine; seed 7, 2026-01-01.\n" in card
    assert '```json\n{\n "max_steps": 1200\n}\n```' in card
    assert "    svtrv2 train --train_data data" in card and "hf_aaa" not in card
    assert "learning_curve.png" not in card and "## Accuracy" not in card
    (saved / "learning_curve.png").touch()
    (saved / "run.json").write_text(json.dumps(RUN | {"samples": 5000, "hours": None, "recipe": None}))
    card = render_card(saved, "me/reader", "mit")
    assert "1,200 steps, 5,000 samples on a machine;" in card
    assert "![Learning curve](learning_curve.png)" in card and "The recipe" not in card


def test_metadata_has_the_metrics_of_the_results():
    """The error rate may exceed 100 %; results of earlier versions do not have it."""
    figures = {"protocol": "exact", "samples": 2, "word_accuracy": 0.5, "cer": 1.25}
    before = {name: figures[name] for name in ("protocol", "samples", "word_accuracy")}
    data = metadata(
        "a model", "mit", results={"sets": {"new": figures, "old": before, "blank": {**figures, "cer": None}}}
    )
    found = [(result.dataset_name, result.metric_type, result.metric_value) for result in data.eval_results]
    assert found == [
        ("new", "accuracy", 50.0),
        ("new", "cer", 125.0),
        ("old", "accuracy", 50.0),
        ("blank", "accuracy", 50.0),
    ]
    assert data.eval_results[1].metric_name == "CER (all characters including spaces and case)"
    assert data.metrics == ["accuracy", "cer"]
    assert metadata("a model", "mit", results={"sets": {"old": before}}).metrics == ["accuracy"]


def test_template_variable_without_a_value_raises(tmp_path):
    template = tmp_path / "card.md.j2"
    template.write_text("---\n{{ card_data }}\n---\n{{ name }} {{ missing }}")
    data = metadata("a model", "mit")
    with pytest.raises(ValueError, match=r"card\.md\.j2 has variables without a value: missing\."):
        fill_template(template, data, name="a model")
    assert fill_template(template, data, name="a model", missing="{{ name }}").endswith("a model {{ name }}\n")
