"""Training in one process: updates, schedule, evaluation, stopping and resuming."""

import copy
import json
import multiprocessing
import os
import random
import runpy
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet
import pytest
import torch
from conftest import CHARSET, make_folder
from PIL import Image
from torch.optim.lr_scheduler import OneCycleLR

from svtrv2_hf import SVTRv2Config, SVTRv2ForCTC, SVTRv2ImageProcessor, SVTRv2Processor, build_tokenizer
from svtrv2_hf.charsets import read_charset
from svtrv2_hf.data.augmentation import Augmentation
from svtrv2_hf.data.batches import BucketBatches, EvaluationBatches, pixel_values_of
from svtrv2_hf.data.labels import LabelEncoder, UnknownCharactersError
from svtrv2_hf.evaluation.prediction import Prediction
from svtrv2_hf.sources import open_source
from svtrv2_hf.training import evaluating, train
from svtrv2_hf.training.arguments import SVTRv2TrainingArguments, parse_arguments
from svtrv2_hf.training.callbacks import GracefulStop, Processes
from svtrv2_hf.training.model import model_and_processor
from svtrv2_hf.training.probe import check_labels
from svtrv2_hf.training.train import main
from svtrv2_hf.training.trainer import SVTRv2Trainer


SCRIPT = Path(__file__).parents[1] / "scripts" / "train.py"
RECIPES = SCRIPT.parent / "recipes"


@pytest.fixture
def folder(tmp_path):
    return make_folder(tmp_path / "data", [f"{number:03}" for number in range(40)] + [f"{n:07}" for n in range(24)])


def arguments(tmp_path, **kwargs):
    defaults = {
        "max_steps": 4,
        "per_device_train_batch_size": 4,
        "save_strategy": "no",
        "eval_strategy": "no",
        "use_cpu": True,
    }
    return SVTRv2TrainingArguments(str(tmp_path / "out"), disable_tqdm=True, **{**defaults, **kwargs})


def trainer_on(folder, model, args, eval_folder=None, policy="drop_sample", augment=False, **kwargs):
    processor = SVTRv2Processor(SVTRv2ImageProcessor(), build_tokenizer(CHARSET))
    batches = BucketBatches(
        [open_source(str(folder))],
        LabelEncoder(CHARSET, unknown_characters=policy),
        processor.image_processor,
        args.per_device_train_batch_size,
        augmentation=Augmentation() if augment else None,
    )
    held_out = (
        {"held": EvaluationBatches(open_source(str(eval_folder)), processor.image_processor, 8)}
        if eval_folder
        else None
    )
    return SVTRv2Trainer(
        model, args, train_dataset=batches, eval_dataset=held_out, processing_class=processor, **kwargs
    )


@pytest.mark.parametrize(("strategy", "steps"), [("steps", [2, 4]), ("no", [])])
def test_loss_of_short_runs_is_logged_with_each_evaluation(folder, config, tmp_path, strategy, steps):
    options = {"eval_strategy": "steps", "eval_steps": 2, "logging_strategy": strategy, "logging_steps": 50}
    trainer = trainer_on(folder, SVTRv2ForCTC(config), arguments(tmp_path, **options), folder)
    trainer.train()
    assert [entry["step"] for entry in trainer.state.log_history if "loss" in entry] == steps


def test_accumulated_gradients_are_the_mean_over_all_samples(folder, config, tmp_path):
    """With batches of two sizes and unequal numbers of samples, a step equals the gradient over all samples."""
    config.drop_path_rate = 0.0
    torch.manual_seed(0)
    model = SVTRv2ForCTC(config)
    for norm in (layer.norm for layer in model.svtrv2.embeddings.layers):
        norm.momentum = 0.0
    reference = copy.deepcopy(model)
    trainer = trainer_on(folder, model, arguments(tmp_path, max_steps=1, gradient_accumulation_steps=4))
    batches, gradients = [], {}

    class Spy(torch.optim.SGD):
        def step(self, closure=None):
            gradients.update({name: p.grad.clone() for name, p in model.named_parameters()})

    trainer.optimizer = Spy(model.parameters(), lr=1.0)
    loader = trainer.get_train_dataloader()
    trainer.get_train_dataloader = lambda: _Recorded(loader, batches)
    trainer.train()

    assert len({batch["pixels"].shape[1:] for batch in batches}) == 2
    reference.train()
    total = sum(len(batch["labels"]) for batch in batches)
    for batch in batches:
        output = reference(pixel_values_of(batch["pixels"]), labels=batch["labels"])
        (output.loss * len(batch["labels"]) / total).backward()
    for name, parameter in reference.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-4, atol=1e-6, msg=name)


class _Recorded:
    def __init__(self, loader, batches):
        self.loader, self.batches, self.dataset = loader, batches, loader.dataset

    def __iter__(self):
        for number, batch in enumerate(self.loader):
            if number == 1:
                batch = {name: value[:1] for name, value in batch.items()}  # a smaller batch than the others
            self.batches.append(dict(batch))
            yield batch


def test_weight_decay_groups_match_the_reference(config, folder, tmp_path):
    model = SVTRv2ForCTC(config)
    optimizer = trainer_on(folder, model, arguments(tmp_path, weight_decay=0.05)).create_optimizer()
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed, spared = ({names[id(p)] for p in group["params"]} for group in optimizer.param_groups)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.05, 0.0]
    assert decayed | spared == set(names.values())
    assert all(
        ".norm." in n or "_norm." in n or n.endswith(".bias") or "embeddings" in n or "downsample" in n for n in spared
    )
    assert {"rearrangement.token", "head.weight", "svtrv2.stages.0.blocks.0.mixer.0.weight"} <= decayed


def test_learning_rate_follows_one_cycle(config, folder, tmp_path):
    steps = 40
    trainer = trainer_on(folder, SVTRv2ForCTC(config), arguments(tmp_path, max_steps=steps, logging_steps=1))
    trainer.train()
    rates = [entry["learning_rate"] for entry in trainer.state.log_history if "learning_rate" in entry]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))])
    schedule = OneCycleLR(optimizer, 6.5e-4, total_steps=steps, pct_start=3 / 40, cycle_momentum=False)
    expected = []
    for _ in range(steps):
        expected.append(schedule.get_last_lr()[0])
        optimizer.step()
        if len(expected) < steps:
            schedule.step()
    assert rates == pytest.approx(expected)
    assert max(rates) == pytest.approx(6.5e-4)


def test_samples_read_and_skipped_are_logged(config, tmp_path):
    folder = make_folder(tmp_path / "data", [*[f"{number:03}" for number in range(30)], "", "\u00e9"])
    trainer = trainer_on(folder, SVTRv2ForCTC(config), arguments(tmp_path, max_steps=12, logging_steps=12))
    trainer.train()
    logged = next(entry for entry in trainer.state.log_history if "loss" in entry)
    assert logged["data/samples"] >= 36
    assert logged["data/empty"] >= 1
    assert logged["data/unknown_characters"] >= 1
    assert logged["epoch"] == round(logged["data/samples"] / 32, 4)
    assert 0 <= logged["data/waiting"] <= 1


@pytest.mark.parametrize("workers", [0, 2])
def test_resuming_is_exact(config, folder, tmp_path, workers):
    """Data, losses and parameters equal those of an uninterrupted run."""
    options = {
        "max_steps": 6,
        "save_strategy": "steps",
        "save_steps": 3,
        "logging_steps": 1,
        "dataloader_num_workers": workers,
        "gradient_accumulation_steps": 2,
        "ema_decay": 0.5,
    }

    def trainer():
        torch.manual_seed(1)
        return trainer_on(folder, SVTRv2ForCTC(config), arguments(tmp_path, **options), augment=True)

    whole = trainer()
    whole.train()
    resumed = trainer()
    resumed.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-3"))
    losses = [[entry["loss"] for entry in t.state.log_history if "loss" in entry] for t in (whole, resumed)]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 6
    assert whole.counts == resumed.counts
    for one, other in ((whole.model, resumed.model), (whole.averaged, resumed.averaged)):
        for (name, tensor), again in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
            assert torch.equal(tensor, again), name
    averaged = dict(whole.averaged.module.named_parameters())
    assert any(not torch.equal(p, averaged[name]) for name, p in whole.model.named_parameters())


def test_resuming_with_other_settings_requires_resume_inexactly(config, folder, tmp_path):
    options = {"save_strategy": "steps", "save_steps": 2, "logging_steps": 1}
    first = trainer_on(folder, SVTRv2ForCTC(config), arguments(tmp_path, max_steps=2, **options))
    first.train()
    other = {"max_steps": 6, "dataloader_num_workers": 1, "learning_rate": 1e-4, **options}
    refused = trainer_on(folder, SVTRv2ForCTC(config), arguments(tmp_path, **other))
    with pytest.raises(
        ValueError,
        match=r"dataloader_num_workers was 0 and is 1; max_steps was 2 and is 6; learning_rate .*--resume_inex",
    ):
        refused.train(resume_from_checkpoint=True)
    resumed = trainer_on(folder, SVTRv2ForCTC(config), arguments(tmp_path, resume_inexactly=True, **other))
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == 6
    assert resumed.counts[0, "samples"] > first.counts[0, "samples"]
    again = trainer_on(folder, SVTRv2ForCTC(config), arguments(tmp_path, **other))
    again.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-4"))  # exactly, in the new order
    assert again.state.log_history[-2]["loss"] == resumed.state.log_history[-2]["loss"]
    assert again.counts == resumed.counts
    rates = [entry["learning_rate"] for entry in resumed.state.log_history if "loss" in entry]
    assert len(rates) == 6
    assert 1e-4 >= rates[2] > rates[-1] > 0, "the schedule is that of the new settings"


def test_resuming_with_other_labels_or_hyperparameters_raises(config, folder, tmp_path):
    options = {"save_strategy": "steps", "save_steps": 2}
    trainer_on(folder, SVTRv2ForCTC(config), arguments(tmp_path, **options)).train()
    again = trainer_on(folder, SVTRv2ForCTC(config), arguments(tmp_path, **options))
    again.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-2"))
    for name, value in (("ema_decay", 0.9), ("max_grad_norm", 1.0), ("adam_beta2", 0.9)):
        other = trainer_on(folder, SVTRv2ForCTC(config), arguments(tmp_path, **{name: value}))
        with pytest.raises(ValueError, match=f"other settings: {name} was .* and is {value}"):
            other.train(resume_from_checkpoint=True)
    listing = folder / "labels.tsv"
    listing.write_text(listing.read_text().replace("\t001", "\t999"))
    other = trainer_on(folder, SVTRv2ForCTC(config), arguments(tmp_path))
    with pytest.raises(ValueError, match="other settings: fingerprints was"):
        other.train(resume_from_checkpoint=True)


def test_resuming_with_another_model_raises(config, folder, tmp_path):
    options = {"save_strategy": "steps", "save_steps": 2}
    trainer_on(folder, SVTRv2ForCTC(config), arguments(tmp_path, **options)).train()
    checkpoint = str(tmp_path / "out" / "checkpoint-2")
    args = arguments(tmp_path, resume_inexactly=True)
    frozen = trainer_on(folder, SVTRv2ForCTC(config), args, freeze_stages=1)
    with pytest.raises(
        ValueError, match=r"checkpoint-2 was made with another freeze_stages, .*pass --model .*checkpoint-2"
    ):
        frozen.train(resume_from_checkpoint=checkpoint)
    other_charset = trainer_on(folder, SVTRv2ForCTC(config), args)
    other_charset.train_dataset.encoder = LabelEncoder(CHARSET[::-1])
    with pytest.raises(ValueError, match="was made with another charset"):
        other_charset.train(resume_from_checkpoint=checkpoint)
    config.hidden_sizes = [16, 32, 48]
    with pytest.raises(ValueError, match="was made with another model"):
        trainer_on(folder, SVTRv2ForCTC(config), args).train(resume_from_checkpoint=checkpoint)


def test_average_added_after_the_last_step_equals_the_trained_weights(config, folder, tmp_path):
    options = {"save_strategy": "steps", "save_steps": 4}
    trainer = trainer_on(folder, SVTRv2ForCTC(config), arguments(tmp_path, **options))
    trainer.train()
    again = arguments(tmp_path, ema_decay=0.9, resume_inexactly=True, **options)
    resumed = trainer_on(folder, SVTRv2ForCTC(config), again)
    resumed.train(resume_from_checkpoint=True)
    for name, tensor in resumed.inference_model.state_dict().items():
        torch.testing.assert_close(tensor, trainer.model.state_dict()[name], msg=name)


def test_several_devices_in_a_process_raise(config, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(SVTRv2TrainingArguments, "n_gpu", 2)
    with pytest.raises(ValueError, match="One process cannot train on 2 devices"):
        trainer_on(folder, SVTRv2ForCTC(config), arguments(tmp_path))


def test_save_total_limit_keeps_the_last_checkpoints(config, folder, tmp_path):
    options = {"max_steps": 5, "save_strategy": "steps", "save_steps": 1, "save_total_limit": 2}
    trainer_on(folder, SVTRv2ForCTC(config), arguments(tmp_path, **options)).train()
    assert sorted(path.name for path in (tmp_path / "out").glob("checkpoint-*")) == ["checkpoint-4", "checkpoint-5"]
    assert not (tmp_path / "out" / ".saving").exists()


def test_evaluation_is_the_mean_over_samples_and_saves_the_best_model(config, folder, tmp_path, monkeypatch):
    held = make_folder(tmp_path / "held", [f"{number:03}" for number in range(10)] + ["caf\u00e9", "a line of words"])
    (held / "0.png").write_bytes(b"no image")
    options = {"max_steps": 4, "eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 2}
    trainer = trainer_on(folder, SVTRv2ForCTC(config), arguments(tmp_path, **options), held)
    saved_at = []
    save = trainer.save_model_for_inference
    monkeypatch.setattr(
        trainer, "save_model_for_inference", lambda: (saved_at.append(trainer.state.global_step), save())[1]
    )
    accuracies = iter([0.2, 0.5, 0.3, 0.4])
    real = trainer.evaluate
    seen = []

    def evaluate(**kwargs):
        metrics = real(**kwargs)
        seen.append(dict(metrics))
        trainer.state.log_history[-1]["eval_word_accuracy"] = next(accuracies)
        return metrics

    monkeypatch.setattr(trainer, "evaluate", evaluate)
    trainer.train()
    assert saved_at == [1, 2], "only improvements are saved"
    assert seen[0]["eval_held_samples"] == 12
    assert seen[0]["eval_held_unreadable"] == 1
    best = SVTRv2ForCTC.from_pretrained(tmp_path / "out")
    at_two = SVTRv2ForCTC.from_pretrained(tmp_path / "out" / "checkpoint-2")
    assert all(torch.equal(a, b) for a, b in zip(best.parameters(), at_two.parameters(), strict=True))

    # the same, one image at a time
    processor = SVTRv2Processor.from_pretrained(tmp_path / "out")
    losses, texts = [], {}
    trainer.model.eval()
    for line in (held / "labels.tsv").read_text().splitlines()[1:]:
        file, text = line.split("\t")
        inputs = processor(str(held / file), return_tensors="pt")
        with torch.no_grad():
            output = trainer.model(
                **inputs, labels=None if "\u00e9" in text else processor(text=text, return_tensors="pt")["labels"]
            )
        texts[text] = processor.post_process_text_recognition(output)[0]["text"]
        if output.loss is not None:
            losses.append(output.loss.item())
    assert seen[-1]["eval_loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-4)
    right = sum(text == read for text, read in texts.items())
    assert seen[-1]["eval_held_word_accuracy"] == pytest.approx(right / 12)
    with Image.open(tmp_path / "out" / "learning_curve.png") as picture:
        assert picture.size == (1100, 400)


def test_best_model_is_selected_among_comparable_evaluations(config, folder, tmp_path, caplog):
    """If datasets or metric change on resuming, earlier evaluations do not count."""
    held = make_folder(tmp_path / "held", ["1", "23"])
    other = make_folder(tmp_path / "other", ["1", "23", "4"])
    options = {"save_strategy": "steps", "save_steps": 2, "eval_strategy": "steps", "eval_steps": 2}
    trainer_on(folder, SVTRv2ForCTC(config), arguments(tmp_path, **options), held).train()
    output, checkpoint = tmp_path / "out", tmp_path / "out" / "checkpoint-2"
    state = json.loads((checkpoint / "trainer_state.json").read_text())
    [evaluation] = [entry for entry in state["log_history"] if "eval_loss" in entry]
    evaluation["eval_word_accuracy"] = 2.0  # cannot be exceeded
    (checkpoint / "trainer_state.json").write_text(json.dumps(state))

    shutil.copytree(output, tmp_path / "kept")
    for change in ({"metric_for_best_model": "loss"}, {"eval": other}, {"output_dir": str(tmp_path / "new")}, {}):
        shutil.rmtree(output)
        shutil.copytree(tmp_path / "kept", output)
        (output / "model.safetensors").write_bytes(b"the best model so far")
        args = arguments(tmp_path, **options, **{key: value for key, value in change.items() if key.startswith("m")})
        args.output_dir = change.get("output_dir", args.output_dir)
        trainer = trainer_on(folder, SVTRv2ForCTC(config), args, change.get("eval", held))
        caplog.clear()
        trainer.train(resume_from_checkpoint=str(checkpoint))
        assert ("The best model so far is ignored" in caplog.text) == bool(change), change
        assert len(trainer.evaluations) == (1 if change else 2)
        trainer.evaluate_last_step()
        replaced = (Path(args.output_dir) / "model.safetensors").read_bytes() != b"the best model so far"
        assert replaced == bool(change), change


@pytest.mark.parametrize(
    ("metric", "evaluations", "is_best"),
    [
        ("loss", [(0.1, 3.0), (0.9, 4.0), (0.1, 2.0), (0.1, 2.0)], [True, False, True, False]),
        ("cer", [(0.5, 3.0), (1.5, 1.0), (0.2, 4.0), (0.2, 3.5)], [True, False, True, True]),
        (
            "word_accuracy",
            [(0.5, 3.0), (0.5, 4.0), (0.5, 2.0), (0.5, 2.5), (0.4, 1.0), (0.6, float("nan"))],
            [True, False, True, False, False, True],
        ),
    ],
)
def test_best_model_has_the_best_metric_and_then_the_lowest_loss(
    config, folder, tmp_path, monkeypatch, metric, evaluations, is_best
):
    options = {
        "max_steps": len(evaluations),
        "eval_strategy": "steps",
        "eval_steps": 1,
        "metric_for_best_model": metric,
    }
    held = make_folder(tmp_path / "held", ["1", "2"])
    trainer = trainer_on(folder, SVTRv2ForCTC(config), arguments(tmp_path, **options), held)
    saved_at = []

    def evaluate(**kwargs):
        figure, loss = evaluations[trainer.state.global_step - 1]
        metrics = {"eval_word_accuracy": figure, "eval_cer": figure, "eval_loss": loss}
        trainer.log(metrics)
        trainer.control.should_evaluate = False
        return metrics

    monkeypatch.setattr(trainer, "evaluate", evaluate)
    monkeypatch.setattr(trainer, "save_model_for_inference", lambda: saved_at.append(trainer.state.global_step))
    trainer.train()
    assert saved_at == [step for step, best in enumerate(is_best, start=1) if best]
    assert trainer.state.best_global_step == saved_at[-1]


@pytest.mark.parametrize(
    ("metric", "greater_is_better"),
    [("cer", False), ("eval_held_cer", False), ("held_loss", False), ("held_word_accuracy", True), (None, True)],
)
def test_lower_error_rates_are_better(config, folder, tmp_path, metric, greater_is_better):
    """Also for EarlyStoppingCallback, which reads the argument; transformers sets it to True except for losses."""
    held = make_folder(tmp_path / "held", ["1", "2"])
    args = arguments(tmp_path, **({} if metric is None else {"metric_for_best_model": metric}))
    assert trainer_on(folder, SVTRv2ForCTC(config), args, held).args.greater_is_better is greater_is_better


def test_evaluation_datasets_are_compared_exactly_unless_they_are_benchmarks(config, folder, tmp_path, monkeypatch):
    own = make_folder(tmp_path / "own", ["$ 12", "AB"])
    texts = {"$ 12": "12", "AB": "ab!"}
    monkeypatch.setattr(
        evaluating,
        "predict",
        lambda model, processor, batches, *_, **__: [
            Prediction(sample, texts[sample.text], size=(40, 30)) for batch in batches for sample in batch["samples"]
        ],
    )
    expected = {
        None: {"svt": (1, 0, 1), "own": (0, 5 / 6, (2 / 4 + 0) / 2)},
        "case_insensitive": dict.fromkeys(("svt", "own"), (0, 3 / 6, (2 / 4 + 2 / 3) / 2)),
    }
    for protocol, figures in expected.items():
        trainer = trainer_on(folder, SVTRv2ForCTC(config), arguments(tmp_path), own, protocol=protocol)
        trainer.eval_dataset = dict.fromkeys(figures, trainer.eval_dataset["held"])
        metrics = trainer.evaluate()
        kinds = ("word_accuracy", "cer", "one_minus_ned")
        for name, values in figures.items():
            assert [metrics[f"eval_{name}_{kind}"] for kind in kinds] == pytest.approx(values)
        means = [sum(values) / 2 for values in zip(*figures.values(), strict=True)]
        assert [metrics[f"eval_{kind}"] for kind in kinds] == pytest.approx(means)


def test_unknown_metric_or_protocol_raises(config, folder, tmp_path):
    held = make_folder(tmp_path / "held", ["1", "2"])
    with pytest.raises(ValueError, match="Unknown protocol 'english': choose exact, "):
        trainer_on(folder, SVTRv2ForCTC(config), arguments(tmp_path), held, protocol="english")
    with pytest.raises(ValueError, match=r"accuracy is not one of word_accuracy, .* held_loss"):
        trainer_on(folder, SVTRv2ForCTC(config), arguments(tmp_path, metric_for_best_model="accuracy"), held)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("lr_scheduler_type", "cosinus", "not supported: it is not one of one_cycle, linear, cosine"),
        ("lr_scheduler_type", "reduce_lr_on_plateau", "not supported: an evaluation may be postponed"),
        ("average_tokens_across_devices", False, "not supported: the loss is always the mean"),
        ("label_smoothing_factor", 0.1, "not supported: CTC"),
        ("include_for_metrics", ["loss"], "not supported: .* only logits and labels"),
        ("fp16", True, "requires a GPU. On a CPU, use --bf16"),
        ("per_device_train_batch_size", 0, "must be 1 or more, not 0"),
        ("max_hours", -1.0, "must be more than 0, not -1.0"),
        ("max_grad_norm", -1.0, "must be 0 or more, not -1.0"),
        ("ema_decay", 1.0, "less than 1, not 1.0"),
        ("logging_nan_inf_filter", True, "not supported: training stops"),
        ("report_to", "nowhere", "nowhere: not installed"),
    ],
)
def test_unsupported_argument_raises(tmp_path, name, value, message):
    with pytest.raises(ValueError, match=f"^--{name} .*{message}"):
        arguments(tmp_path, **{name: value})


def test_warmup_longer_than_the_run_raises(config, folder, tmp_path):
    with pytest.raises(ValueError, match="--warmup_steps 10 exceeds the 4 steps"):
        trainer_on(folder, SVTRv2ForCTC(config), arguments(tmp_path, warmup_steps=10)).train()


def test_worker_error_leaves_no_worker_and_no_signal_handler(config, folder, tmp_path):
    """The traceback of the error keeps the iterator of the loader alive."""
    held = make_folder(tmp_path / "held", [f"{number:03}" for number in range(9)])
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    trainer = trainer_on(folder, SVTRv2ForCTC(config), arguments(tmp_path, dataloader_num_workers=2), held)
    for place, work in ((held, trainer.evaluate), (folder, trainer.train)):
        (place / "3.png").unlink()
        with pytest.raises((ValueError, FileNotFoundError), match=r"3\.png") as caught:
            work()
        assert not multiprocessing.active_children(), caught
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_frozen_stages_do_not_change(config, folder, tmp_path):
    model = SVTRv2ForCTC(config)
    before = copy.deepcopy(model.state_dict())
    trainer_on(folder, model, arguments(tmp_path), freeze_stages=1).train()
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert not any(name.startswith(("svtrv2.embeddings", "svtrv2.stages.0")) for name in changed), (
        "statistics included"
    )
    assert any(name.startswith("svtrv2.stages.1") for name in changed) and "head.weight" in changed
    with pytest.raises(ValueError, match="stages 1 to 3"):
        trainer_on(folder, model, arguments(tmp_path), freeze_stages=4)


def run(tmp_path, folder, *words):
    main(
        [
            "--output_dir", str(tmp_path / "out"), "--train_data", str(folder), "--max_steps", "3", "--eval_steps", "3",
            "--per_device_train_batch_size", "4", "--use_cpu", "True", "--disable_tqdm", "True", *words,
        ]
    )  # fmt: skip
    return tmp_path / "out"


@pytest.fixture
def digits(tmp_path):
    path = tmp_path / "digits.txt"
    path.write_text("\n".join("0123456789") + "\n")
    return path


def test_training_from_scratch_and_fine_tuning(folder, digits, tmp_path, capsys):
    saved = run(
        tmp_path, folder, "--model", "nano", "--charset", str(digits), "--max_ratio", "6", "--eval_data", str(folder)
    )
    printed = capsys.readouterr().out
    assert "Best of 1 evaluation, at step 3:" in printed
    assert "| dataset | protocol | samples | word accuracy, % | CER, % | 1-NED, % |" in " ".join(printed.split())
    assert printed.splitlines()[-1].split()[1:6:2] == ["data", "exact", "64"]
    record = json.loads((saved / "run.json").read_text())
    assert record["protocols"] == {"data": "exact"} and record["evaluations"][0]["cer"] > 0
    model = SVTRv2ForCTC.from_pretrained(saved)
    assert model.config.vocab_size == 11
    assert model.config.hidden_sizes == SVTRv2Config.preset("nano").hidden_sizes
    assert SVTRv2Processor.from_pretrained(saved).image_processor.max_ratio == 6
    assert (saved / "modeling_svtrv2.py").is_file(), "the folder contains the code of the model"
    assert json.loads((saved / "checkpoint-3" / "trainer_state.json").read_text())["global_step"] == 3

    again = run(tmp_path / "again", folder, "--model", str(saved), "--use_guidance", "True")
    assert SVTRv2Processor.from_pretrained(again).image_processor.max_ratio == 6
    guided = SVTRv2ForCTC.from_pretrained(again)
    assert guided.config.vocab_size == 11
    assert guided.guidance is not None


def test_number_of_steps_is_computed_from_epochs(folder, digits, tmp_path, capsys):
    run(
        tmp_path, folder, "--model", "nano", "--charset", str(digits), "--max_steps", "-1", "--num_train_epochs", "0.5"
    )
    assert "| 8 of 4 images, about 0.5 epochs " in capsys.readouterr().err  # 64 / 4 / 2


def test_output_folder_of_another_run_raises(folder, digits, tmp_path):
    words = ("--model", "nano", "--charset", str(digits))
    run(tmp_path, folder, *words)
    with pytest.raises(ValueError, match=r"checkpoint-3 is of an earlier run: pass --resume_from_checkpoint True"):
        run(tmp_path, folder, *words)
    run(tmp_path, folder, *words, "--resume_from_checkpoint", "True")  # the run is complete
    with pytest.raises(ValueError, match=r"No checkpoint to resume from in .*elsewhere"):
        run(tmp_path / "elsewhere", folder, *words, "--resume_from_checkpoint", "true")


def test_augment_magnitude_changes_the_images(folder, digits, tmp_path):
    losses = []
    for magnitude in ((), ("--augment_magnitude", "5"), ("--augment_magnitude", "10")):
        words = ("--model", "nano", "--charset", str(digits), "--max_steps", "1", "--logging_steps", "1")
        out = run(tmp_path / f"{len(losses)}", folder, *words, *magnitude, "--save_strategy", "no")
        losses.append(json.loads((out / "run.json").read_text())["loss"])
    assert losses[0] == losses[1], "5 is the default"
    assert losses[1] != losses[2]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_checkpoints_of_any_dtype_are_trained_in_float32(config, folder, tmp_path, dtype):
    SVTRv2ForCTC(config).to(dtype).save_pretrained(tmp_path / "saved")
    SVTRv2Processor(SVTRv2ImageProcessor(), build_tokenizer(CHARSET)).save_pretrained(tmp_path / "saved")
    words = ["--train_data", str(folder), "--output_dir", str(tmp_path / "out"), "--model", str(tmp_path / "saved")]
    chosen, _ = parse_arguments(words)
    model, _ = model_and_processor(chosen)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        (["--model", "large"], ValueError, r"--model large: not a model size \(nano, tiny, small, base\)"),
        (
            ["--charset", "{digits}"],
            UnknownCharactersError,
            r"40 of 104 labels have characters outside the charset: 'a' \(40\), 'b' \(40\)\. .*--unknown_characters",
        ),
        (["--train_data", "{folder}", "{folder}"], ValueError, r"Several sources are named data: .*\?name="),
    ],
)
def test_errors_before_training(folder, digits, tmp_path, words, error, message):
    more = make_folder(tmp_path / "more", [f"ab{number}" for number in range(40)])
    words = [word.format(digits=digits, folder=folder) for word in words]
    with pytest.raises(error, match=message):
        run(tmp_path, folder, "--model", "nano", "--train_data", str(folder), str(more), *words)
    assert not list((tmp_path / "out").glob("checkpoint-*"))


def test_all_labels_of_local_sources_are_checked(tmp_path):
    """All labels of a parquet file; only the first 10,000 of a remote source."""
    rows = [{"image": b"", "text": "1"}] * 10_500 + [{"image": b"", "text": "\u00e9"}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "many.parquet")
    source = open_source(str(tmp_path / "many.parquet"))
    with pytest.raises(
        UnknownCharactersError, match="1 of 10501 labels have characters outside the charset: '\u00e9'"
    ):
        check_labels([source], LabelEncoder(CHARSET), SVTRv2ImageProcessor())
    remote = open_source(f"hub:{tmp_path}")
    [check] = check_labels([remote], LabelEncoder(CHARSET), SVTRv2ImageProcessor())
    assert (check.labels, check.is_complete) == (10_000, False)


def test_normalize_applies_to_labels(tmp_path):
    make_folder(tmp_path / "data", ["cafe\u0301", "\uff21", "x"])
    encoder = LabelEncoder("acefx\u00e9A")
    spec = str(tmp_path / "data")
    expected = {"none": 2, "nfc": 1}
    for form, count in expected.items():
        message = f"{count} of 3 labels have characters outside .* With --normalize nfkc, {count} of the labels"
        with pytest.raises(UnknownCharactersError, match=message):
            check_labels(train.open_sources([spec], form), encoder, SVTRv2ImageProcessor())
    [source] = train.open_sources([spec], "nfkc")
    check_labels([source], encoder, SVTRv2ImageProcessor())
    assert list(source.texts()) == [sample.text for sample in source.read()] == ["caf\u00e9", "A", "x"]
    [plain] = train.open_sources([spec], "none")
    assert source.fingerprint != plain.fingerprint, "resuming with other labels raises"


def test_command_line_overrides_the_recipe(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("train_data: [a, b]\nmodel: nano\noutput_dir: out\nlearning_rate: 1.0e-3\nmax_steps: 10\n")
    chosen, arguments = parse_arguments([str(recipe), "--max_steps", "20"])
    assert (chosen.train_data, chosen.model) == (["a", "b"], "nano")
    assert (arguments.learning_rate, arguments.max_steps) == (1e-3, 20)
    recipe.write_text("train_data: a\neval_data: []\nmax_hours: null\ncharset: null\noutput_dir: out\n")
    chosen, arguments = parse_arguments([str(recipe)])
    assert (chosen.train_data, chosen.eval_data, chosen.charset, arguments.max_hours) == (["a"], [], None, None)
    recipe.write_text("train_data: a\noutput_dir: out\nlr_scheduler_kwargs: {num_decay_steps: 2}\noptim: sgd\n")
    _, arguments = parse_arguments([str(recipe), "--lr_scheduler_type", "warmup_stable_decay"])
    assert (arguments.lr_scheduler_type, arguments.optim) == ("warmup_stable_decay", "sgd")
    assert arguments.lr_scheduler_kwargs == {"num_decay_steps": 2}
    recipe.write_text("- a\n- b\n")
    with pytest.raises(ValueError, match="must map names of arguments"):
        parse_arguments([str(recipe)])
    recipe.write_text("a: [")
    with pytest.raises(ValueError, match=r"recipe\.yaml is not valid YAML"):
        parse_arguments([str(recipe)])


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_recipes_are_valid(path):
    chosen, arguments = parse_arguments([str(path), "--bf16", "False"])
    assert chosen.train_data and chosen.eval_data
    assert chosen.charset is None or "data/" in chosen.charset or read_charset(path.parents[2] / chosen.charset)
    if path.stem.startswith(("union14m", "mjst", "chinese")):  # of the paper
        stage_two = path.stem.endswith("stage2")
        assert chosen.use_guidance is (True if stage_two or path.stem == "chinese" else None)
        images_a_step = 4 * arguments.per_device_train_batch_size
        assert arguments.learning_rate == pytest.approx(6.5e-4 * images_a_step / 1024)
        assert chosen.model.endswith("_stage1") == stage_two, "stage 2 starts from the model of stage 1"
        assert arguments.eval_steps == arguments.save_steps


def script(*words, **kwargs):
    return subprocess.Popen(
        [sys.executable, "-u", SCRIPT, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **kwargs,
    )


def test_script_runs_the_smoke_recipe(folder, digits, tmp_path):
    """Sources of two formats, guidance, averaged weights, evaluation."""
    more = make_folder(tmp_path / "more", [f"{number:02}" for number in range(12)])
    (more / "metadata.csv").write_text("file_name,text\n" + (more / "labels.tsv").read_text().replace("\t", ","))
    (more / "labels.tsv").unlink()
    process = script(
        RECIPES / "smoke.yaml", "--output_dir", tmp_path / "out", "--train_data", folder, more, "--eval_data", folder,
        "--charset", digits,
    )  # fmt: skip
    printed, errors = process.communicate()
    assert process.returncode == 0, errors
    assert "Best of 2 evaluations" in printed
    for name in ("model.safetensors", "learning_curve.png", "checkpoint-6/averaged_weights.safetensors"):
        assert (tmp_path / "out" / name).is_file(), name
    state = json.loads((tmp_path / "out" / "checkpoint-6" / "trainer_state.json").read_text())
    assert any(entry.get("data/more/samples") for entry in state["log_history"])
    assert state["best_global_step"] and state["best_model_checkpoint"] is None, (
        "the best model is in the output folder"
    )
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["command"].startswith("svtrv2 train ") and "smoke.yaml" in record["command"]
    assert record["recipe"]["ema_decay"] == 0.9
    assert (record["steps"], record["seed"], record["processes"]) == (6, 42, 1)
    assert record["samples"] == [entry for entry in state["log_history"] if "loss" in entry][-1]["data/samples"]
    assert [entry["step"] for entry in record["evaluations"]] == [3, 6]
    evaluations = [entry for entry in state["log_history"] if "eval_loss" in entry]
    assert [entry["loss"] for entry in record["evaluations"]] == [entry["eval_loss"] for entry in evaluations]
    assert record["versions"]["torch"] == torch.__version__


LONG_RUN = ("--model", "nano", "--max_steps", "100000", "--per_device_train_batch_size", "2", "--use_cpu", "True")


def test_stopped_run_resumes(folder, digits, tmp_path):
    words = ("--output_dir", tmp_path / "out", "--train_data", folder, "--charset", digits, *LONG_RUN)
    words = (*words, "--dataloader_num_workers", "1")
    process = script(*words, "--max_hours", "0.0008")
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert "--max_hours have passed. To resume, add --resume_from_checkpoint True" in errors
    [checkpoint] = (tmp_path / "out").glob("checkpoint-*")
    assert not (tmp_path / "out" / "model.safetensors").exists(), "an incomplete run has no result"
    step = json.loads((checkpoint / "trainer_state.json").read_text())["global_step"]
    seconds = json.loads((checkpoint / "data_state.json").read_text())["seconds"]
    assert 0 < seconds < 60

    often = ("--eval_steps", "2", "--logging_steps", "1")
    # After an evaluation, workers of the endless stream used to outlive the run, which waited for them forever.
    process = script(*words, "--resume_from_checkpoint", "True", "--eval_data", folder, *often)
    assert any("eval_loss" in line for line in iter(process.stdout.readline, "")), process.stderr.read()
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert "received SIGTERM" in errors
    assert max(int(path.name[11:]) for path in (tmp_path / "out").glob("checkpoint-*")) > step
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["samples"] > step and record["steps"] > step
    assert record["steps"] < step + 50, "the evaluation interval is that of the resumed run"
    assert record["hours"] > seconds / 3600, "the hours of both parts"


def test_ctrl_c_saves_a_checkpoint(folder, digits, tmp_path):
    words = ("--output_dir", tmp_path / "out", "--train_data", folder, "--charset", digits, *LONG_RUN)
    process = script(*words, "--dataloader_num_workers", "1", "--logging_steps", "1", start_new_session=True)
    assert any("'loss'" in line for line in iter(process.stdout.readline, "")), process.stderr.read()
    os.killpg(process.pid, signal.SIGINT)  # the trainer and its workers, as from a terminal
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Saving a checkpoint after this step" in errors
    assert "received SIGINT. To resume, add --resume_from_checkpoint True" in errors
    assert "Traceback" not in errors
    assert last_step(tmp_path / "out") > 0


def test_evaluation_aborted_by_a_stop_runs_after_resuming(config, folder, tmp_path):
    held = make_folder(tmp_path / "held", [f"{number:03}" for number in range(20)])
    options = {"save_strategy": "steps", "save_steps": 9, "eval_strategy": "steps", "eval_steps": 2}
    whole = trainer_on(folder, SVTRv2ForCTC(config), arguments(tmp_path / "whole", **options), held)
    initial = copy.deepcopy(whole.model.state_dict())
    whole.train()
    model = SVTRv2ForCTC(config)
    model.load_state_dict(initial)
    stopped = trainer_on(folder, model, arguments(tmp_path, **options), held)
    forward = stopped.model.forward

    def stop_during_evaluation(*args, **kwargs):
        if not stopped.model.training:
            stopped.stop.reason = "printed"
        return forward(*args, **kwargs)

    stopped.model.forward = stop_during_evaluation
    stopped.train()
    assert (stopped.state.global_step, stopped.evaluations) == (2, [])
    resumed = trainer_on(folder, SVTRv2ForCTC(config), arguments(tmp_path, **options), held)
    resumed.train(resume_from_checkpoint=True)
    assert [entry["step"] for entry in resumed.evaluations] == [2, 4]
    for one, other in zip(resumed.evaluations, whole.evaluations, strict=True):
        assert one["eval_loss"] == other["eval_loss"]


def test_last_evaluation_skipped_by_a_stop_runs_after_resuming(config, folder, tmp_path):
    held = make_folder(tmp_path / "held", ["1", "2"])
    options = {"save_strategy": "steps", "save_steps": 9, "eval_strategy": "steps", "eval_steps": 4}
    stopped = trainer_on(folder, SVTRv2ForCTC(config), arguments(tmp_path, **options), held)
    forward = stopped.model.forward

    def stop_at_the_last_step(*args, **kwargs):
        stopped.stop.reason = "printed" if stopped.state.global_step == 3 else None
        return forward(*args, **kwargs)

    stopped.model.forward = stop_at_the_last_step
    stopped.train()
    assert (stopped.state.global_step, stopped.evaluations, stopped.stop.reason) == (4, [], "printed")
    resumed = trainer_on(folder, SVTRv2ForCTC(config), arguments(tmp_path, **options), held)
    resumed.train(resume_from_checkpoint=True)
    resumed.evaluate_last_step()
    assert [entry["step"] for entry in resumed.evaluations] == [4]


def test_second_ctrl_c_aborts_immediately(capfd):
    stop = GracefulStop(Processes())
    stop.on_train_begin(None, None, None)
    try:
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    finally:
        stop.restore_signal_handlers()
    assert "Press Ctrl-C again to stop immediately" in capfd.readouterr().err


def test_user_error_is_printed_in_one_line(tmp_path, monkeypatch, capsys):
    words = ("--model", "nano", "--train_data", "nodir", "--output_dir", str(tmp_path / "out"))
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *words])
    with pytest.raises(SystemExit, match="1"):
        runpy.run_path(str(SCRIPT), run_name="__main__")
    errors = capsys.readouterr().err
    assert errors.startswith("svtrv2: ") and errors.count("\n") == 1


def test_killed_run_leaves_a_complete_checkpoint(folder, digits, tmp_path):
    """Saves and evaluates after each step; two of three kills hit it while it saves."""
    rng = random.Random(0)
    output = tmp_path / "out"
    words = ("--output_dir", output, "--train_data", folder, "--charset", digits, "--save_steps", "1", *LONG_RUN)
    words = (*words, "--eval_data", folder, "--eval_steps", "1")
    last, saving = 0, 0
    for delay in (0.0, 0.02, None):
        process = script(*words, "--save_total_limit", "1", *(["--resume_from_checkpoint", "True"] if last else []))
        while process.poll() is None and last_step(output) < last + 2:
            time.sleep(0.01)
        while delay is not None and process.poll() is None and not unfinished(output):
            pass
        time.sleep(rng.uniform(0, 1) if delay is None else delay)
        process.kill()
        _, errors = process.communicate()
        assert process.returncode == -signal.SIGKILL, errors
        saving += len(unfinished(output))
        assert last_step(output) >= last + 2
        last = last_step(output)
        checkpoint = output / f"checkpoint-{last}"
        SVTRv2ForCTC.from_pretrained(checkpoint)
        SVTRv2Processor.from_pretrained(checkpoint)
        for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
            torch.load(checkpoint / name, weights_only=name != "rng_state.pth")
        assert json.loads((checkpoint / "trainer_state.json").read_text())["global_step"] == last
    assert saving, "no kill hit the run while it saved, so the test shows nothing"


def unfinished(output):
    """Return the checkpoints that are being saved."""
    try:
        return list((output / ".saving").glob("checkpoint-*"))
    except FileNotFoundError:  # renamed meanwhile
        return []


def last_step(output):
    return max((int(path.name[11:]) for path in output.glob("checkpoint-*")), default=0)


@pytest.mark.slow
def test_learns_to_read(digits, tmp_path, capsys):
    """After 400 steps on rendered numbers, nano recognizes other numbers."""
    rng = random.Random(0)
    numbers = sorted({str(rng.randrange(10_000, 100_000)) for _ in range(600)})
    rng.shuffle(numbers)
    train, held_out = make_folder(tmp_path / "train", numbers[:500]), make_folder(tmp_path / "test", numbers[500:])
    saved = run(
        tmp_path, train, "--model", "nano", "--charset", str(digits), "--max_steps", "400", "--learning_rate", "1e-3",
        "--per_device_train_batch_size", "16", "--augment_operations", "0", "--eval_data", str(held_out),
    )  # fmt: skip
    [accuracy] = [
        float(line.split()[5]) for line in capsys.readouterr().out.splitlines() if line.startswith("| test ")
    ]
    assert accuracy > 90
    assert (saved / "model.safetensors").is_file()
