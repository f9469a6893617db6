"""Training by our own script, in one process."""

import copy
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import warnings
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
from svtrv2_hf.sources import open_source
from svtrv2_hf.training import train
from svtrv2_hf.training.arguments import SVTRv2TrainingArguments, parse_arguments
from svtrv2_hf.training.callbacks import StopInTime
from svtrv2_hf.training.model import model_and_processor
from svtrv2_hf.training.train import check_characters, main
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


def test_accumulated_gradients_are_the_mean_over_all_samples(folder, config, tmp_path):
    """Batches of two sizes and unequal numbers of samples; one step equals the gradient over their union."""
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


def test_weight_decay_spares_what_the_reference_spares(config, folder, tmp_path):
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


def test_one_cycle(config, folder, tmp_path):
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


def test_what_was_read_and_rejected_is_logged(config, tmp_path):
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
    """Data, losses and parameters are those of a run without a break."""
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


def test_resuming_otherwise_is_refused_or_asked_for(config, folder, tmp_path):
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
    going_on = trainer_on(folder, SVTRv2ForCTC(config), arguments(tmp_path, resume_inexactly=True, **other))
    going_on.train(resume_from_checkpoint=True)
    assert going_on.state.global_step == 6
    assert going_on.counts[0, "samples"] > first.counts[0, "samples"]
    again = trainer_on(folder, SVTRv2ForCTC(config), arguments(tmp_path, **other))
    again.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-4"))  # exactly, in the new order
    assert again.state.log_history[-2]["loss"] == going_on.state.log_history[-2]["loss"]
    assert again.counts == going_on.counts
    rates = [entry["learning_rate"] for entry in going_on.state.log_history if "loss" in entry]
    assert len(rates) == 6
    assert 1e-4 >= rates[2] > rates[-1] > 0, "the schedule of this run is gone on with"


def test_resuming_with_other_labels_or_hyperparameters_is_refused(config, folder, tmp_path):
    options = {"save_strategy": "steps", "save_steps": 2}
    trainer_on(folder, SVTRv2ForCTC(config), arguments(tmp_path, **options)).train()
    again = trainer_on(folder, SVTRv2ForCTC(config), arguments(tmp_path, **options))
    again.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-2"))
    for name, value in (("ema_decay", 0.9), ("max_grad_norm", 1.0), ("adam_beta2", 0.9)):
        other = trainer_on(folder, SVTRv2ForCTC(config), arguments(tmp_path, **{name: value}))
        with pytest.raises(ValueError, match=f"other settings than this run has: {name} was .* and is {value}"):
            other.train(resume_from_checkpoint=True)
    listing = folder / "labels.tsv"
    listing.write_text(listing.read_text().replace("\t001", "\t999"))
    other = trainer_on(folder, SVTRv2ForCTC(config), arguments(tmp_path))
    with pytest.raises(ValueError, match="other settings than this run has: fingerprints was"):
        other.train(resume_from_checkpoint=True)
    data_state = tmp_path / "out" / "checkpoint-2" / "data_state.json"
    states = json.loads(data_state.read_text())
    for name in ("ema_decay", "max_grad_norm", "adam_beta2", "freeze_stages", "fingerprints"):
        del states["settings"][name]
    data_state.write_text(json.dumps(states))
    other.train(resume_from_checkpoint=str(data_state.parent))  # of an older version, which did not write them
    assert other.state.global_step == 4


def test_no_run_goes_on_from_another_model(config, folder, tmp_path):
    options = {"save_strategy": "steps", "save_steps": 2}
    trainer_on(folder, SVTRv2ForCTC(config), arguments(tmp_path, **options)).train()
    checkpoint = str(tmp_path / "out" / "checkpoint-2")
    args = arguments(tmp_path, resume_inexactly=True)
    frozen = trainer_on(folder, SVTRv2ForCTC(config), args, freeze_stages=1)
    with pytest.raises(
        ValueError, match=r"checkpoint-2 was made with --freeze_stages 0, .*pass --model .*checkpoint-2"
    ):
        frozen.train(resume_from_checkpoint=checkpoint)
    other_charset = trainer_on(folder, SVTRv2ForCTC(config), args)
    other_charset.train_dataset.encoder = LabelEncoder(CHARSET[::-1])
    with pytest.raises(ValueError, match="was made with another charset"):
        other_charset.train(resume_from_checkpoint=checkpoint)
    config.hidden_sizes = [16, 32, 48]
    with pytest.raises(ValueError, match="was made with another model"):
        trainer_on(folder, SVTRv2ForCTC(config), args).train(resume_from_checkpoint=checkpoint)


def test_an_average_that_begins_after_the_last_step_is_of_the_trained_weights(config, folder, tmp_path):
    options = {"save_strategy": "steps", "save_steps": 4}
    trainer = trainer_on(folder, SVTRv2ForCTC(config), arguments(tmp_path, **options))
    trainer.train()
    again = arguments(tmp_path, ema_decay=0.9, resume_inexactly=True, **options)
    resumed = trainer_on(folder, SVTRv2ForCTC(config), again)
    resumed.train(resume_from_checkpoint=True)
    for name, tensor in resumed.recogniser.state_dict().items():
        torch.testing.assert_close(tensor, trainer.model.state_dict()[name], msg=name)


def test_without_its_optimiser_a_checkpoint_is_refused(config, folder, tmp_path):
    trainer_on(folder, SVTRv2ForCTC(config), arguments(tmp_path, save_strategy="steps", save_steps=2)).train()
    (tmp_path / "out" / "checkpoint-2" / "optimizer.pt").unlink()
    trainer = trainer_on(folder, SVTRv2ForCTC(config), arguments(tmp_path))
    with pytest.raises(ValueError, match=r"checkpoint-2/optimizer.pt is missing"):
        trainer.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-2"))


def test_a_checkpoint_of_others_is_refused(config, folder, tmp_path):
    (tmp_path / "checkpoint-3").mkdir()
    trainer = trainer_on(folder, SVTRv2ForCTC(config), arguments(tmp_path))
    with pytest.raises(ValueError, match=r"data_state\.json is missing"):
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    with pytest.raises(ValueError, match="no checkpoint in"):
        trainer.train(resume_from_checkpoint=True)


def test_several_devices_in_a_process_are_refused(config, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(SVTRv2TrainingArguments, "n_gpu", 2)
    with pytest.raises(ValueError, match="One process cannot train on 2 devices"):
        trainer_on(folder, SVTRv2ForCTC(config), arguments(tmp_path))


def test_old_checkpoints_go_when_new_ones_are_complete(config, folder, tmp_path):
    options = {"max_steps": 5, "save_strategy": "steps", "save_steps": 1, "save_total_limit": 2}
    trainer_on(folder, SVTRv2ForCTC(config), arguments(tmp_path, **options)).train()
    assert sorted(path.name for path in (tmp_path / "out").glob("checkpoint-*")) == ["checkpoint-4", "checkpoint-5"]
    assert not (tmp_path / "out" / ".saving").exists()


def test_evaluation_is_the_mean_over_samples_and_keeps_the_best(config, folder, tmp_path, monkeypatch):
    held = make_folder(tmp_path / "held", [f"{number:03}" for number in range(10)] + ["caf\u00e9", "a line of words"])
    (held / "0.png").write_bytes(b"no image")
    options = {"max_steps": 4, "eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 2}
    trainer = trainer_on(folder, SVTRv2ForCTC(config), arguments(tmp_path, **options), held)
    saved_at = []
    save = trainer.save_recogniser
    monkeypatch.setattr(trainer, "save_recogniser", lambda: (saved_at.append(trainer.state.global_step), save())[1])
    accuracies = iter([0.2, 0.5, 0.5, 0.4])
    real = trainer.evaluate
    seen = []

    def evaluate(**kwargs):
        metrics = real(**kwargs)
        seen.append(dict(metrics))
        return {**metrics, "eval_word_accuracy": next(accuracies)}

    monkeypatch.setattr(trainer, "evaluate", evaluate)
    trainer.train()
    assert saved_at == [1, 2], "only what is better than all before"
    assert seen[0]["eval_held_samples"] == 12
    assert seen[0]["eval_held_unreadable"] == 1
    best = SVTRv2ForCTC.from_pretrained(tmp_path / "out")
    at_two = SVTRv2ForCTC.from_pretrained(tmp_path / "out" / "checkpoint-2")
    assert all(torch.equal(a, b) for a, b in zip(best.parameters(), at_two.parameters(), strict=True))

    # by hand, one image a time
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
    right = sum(text.replace(" ", "") == read.replace(" ", "").lower() for text, read in texts.items())
    assert seen[-1]["eval_held_word_accuracy"] == pytest.approx(right / 12)
    with Image.open(tmp_path / "out" / "learning_curve.png") as picture:
        assert picture.size == (1100, 400)


def test_the_best_model_has_the_lowest_loss(config, folder, tmp_path):
    assert arguments(tmp_path).greater_is_better is True
    held = make_folder(tmp_path / "held", ["1", "2"])
    trainer = trainer_on(folder, SVTRv2ForCTC(config), arguments(tmp_path, metric_for_best_model="loss"), held)
    assert [trainer._determine_best_metric({"eval_loss": loss}, None) for loss in (3.0, 4.0, 2.0)] == [
        True,
        False,
        True,
    ]
    with pytest.raises(ValueError, match=r"accuracy: there is no such metric. There are word_accuracy, .* held_loss"):
        trainer_on(folder, SVTRv2ForCTC(config), arguments(tmp_path, metric_for_best_model="accuracy"), held)


def test_the_best_is_chosen_among_evaluations_that_can_be_compared(config, folder, tmp_path):
    """With other sets or another metric on resuming, the first evaluation is the best so far, whatever came before."""
    held = make_folder(tmp_path / "held", ["1", "23"])
    other = make_folder(tmp_path / "other", ["1", "23", "4"])
    options = {"save_strategy": "steps", "save_steps": 2, "eval_strategy": "steps", "eval_steps": 2}
    trainer_on(folder, SVTRv2ForCTC(config), arguments(tmp_path, **options), held).train()
    output, checkpoint = tmp_path / "out", tmp_path / "out" / "checkpoint-2"
    state = json.loads((checkpoint / "trainer_state.json").read_text())
    state["best_metric"] = 2.0  # which nothing beats
    (checkpoint / "trainer_state.json").write_text(json.dumps(state))

    shutil.copytree(output, tmp_path / "kept")
    for change in ({"metric_for_best_model": "loss"}, {"eval": other}, {"output_dir": str(tmp_path / "new")}, {}):
        shutil.rmtree(output)
        shutil.copytree(tmp_path / "kept", output)
        (output / "model.safetensors").write_bytes(b"the best of before")
        args = arguments(tmp_path, **options, **{key: value for key, value in change.items() if key.startswith("m")})
        args.output_dir = change.get("output_dir", args.output_dir)
        trainer = trainer_on(folder, SVTRv2ForCTC(config), args, change.get("eval", held))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            trainer.train(resume_from_checkpoint=str(checkpoint))
        told = [str(one.message) for one in caught if "The best model until now is passed over" in str(one.message)]
        assert len(told) == bool(change), change
        assert len(trainer.evaluations) == (1 if change else 2)
        trainer.evaluate_at_the_end()
        replaced = (Path(args.output_dir) / "model.safetensors").read_bytes() != b"the best of before"
        assert replaced == bool(change), change


def test_of_equally_accurate_models_the_one_with_the_lower_loss_is_kept(config, folder, tmp_path):
    trainer = trainer_on(folder, SVTRv2ForCTC(config), arguments(tmp_path))
    best = []
    for step, (accuracy, loss) in enumerate([(0.5, 3.0), (0.5, 4.0), (0.5, 2.0), (0.5, 2.5), (0.4, 1.0), (0.6, 9.0)]):
        trainer.state.global_step = step
        metrics = {"eval_word_accuracy": accuracy, "eval_loss": loss}
        trainer.state.log_history.append({**metrics, "step": step})
        best.append(trainer._determine_best_metric(metrics, None))
    assert best == [True, False, True, False, False, True]
    assert trainer.state.best_metric == 0.6


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("lr_scheduler_type", "cosine", "not supported here: the schedule is always one cycle"),
        ("optim", "sgd", "not supported here: the optimiser is always AdamW"),
        ("average_tokens_across_devices", False, "not supported here: the loss is always the mean"),
        ("save_only_model", True, "not supported here: a checkpoint is there to go on from"),
        ("label_smoothing_factor", 0.1, "not supported here: the loss"),
        ("include_for_metrics", ["loss"], "not supported here: evaluation"),
        ("eval_strategy", "epoch", "no epoch ends. Use steps, and --eval_steps"),
        ("save_strategy", "epoch", "no epoch ends. Use steps, and --save_steps"),
        ("per_device_train_batch_size", 0, "must be 1 or more, not 0"),
        ("max_hours", -1.0, "must be more than 0, not -1.0"),
        ("max_grad_norm", -1.0, "must be 0 or more, not -1.0"),
        ("ema_decay", 1.0, "less than 1, not 1.0"),
        ("report_to", "nowhere", "nowhere: transformers finds no package of that name"),
    ],
)
def test_what_is_not_supported_is_refused(tmp_path, name, value, message):
    with pytest.raises(ValueError, match=f"^--{name} .*{message}"):
        arguments(tmp_path, **{name: value})


def test_a_warmup_longer_than_the_run_is_refused(config, folder, tmp_path):
    with pytest.raises(ValueError, match="--warmup_steps 10 is more than the 4 steps"):
        trainer_on(folder, SVTRv2ForCTC(config), arguments(tmp_path, warmup_steps=10)).train()


def test_an_error_in_a_worker_leaves_no_worker_and_no_handler(config, folder, tmp_path):
    """While the error is held, and with it, by its traceback, the loader's iterator."""
    held = make_folder(tmp_path / "held", [f"{number:03}" for number in range(9)])
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    trainer = trainer_on(folder, SVTRv2ForCTC(config), arguments(tmp_path, dataloader_num_workers=2), held)
    for place, work in ((held, trainer.evaluate), (folder, trainer.train)):
        (place / "3.png").unlink()
        with pytest.raises((ValueError, FileNotFoundError), match=r"3\.png") as caught:
            work()
        assert not multiprocessing.active_children(), caught
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_frozen_stages_stay_as_they_are(config, folder, tmp_path):
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


def test_a_run_from_scratch_and_on(folder, digits, tmp_path, capsys):
    saved = run(
        tmp_path, folder, "--model", "nano", "--charset", str(digits), "--max_ratio", "6", "--eval_data", str(folder)
    )
    told = capsys.readouterr().out
    assert "Best of 1 evaluations, at step 3:" in told
    assert told.splitlines()[-1].split()[:2] == ["data", "64"]
    model = SVTRv2ForCTC.from_pretrained(saved)
    assert model.config.vocab_size == 11
    assert model.config.hidden_sizes == SVTRv2Config.preset("nano").hidden_sizes
    assert SVTRv2Processor.from_pretrained(saved).image_processor.max_ratio == 6
    assert (saved / "modeling_svtrv2.py").is_file(), "what is trained can be shared"
    assert json.loads((saved / "checkpoint-3" / "trainer_state.json").read_text())["global_step"] == 3

    again = run(tmp_path / "again", folder, "--model", str(saved), "--use_guidance", "True")
    assert SVTRv2Processor.from_pretrained(again).image_processor.max_ratio == 6
    guided = SVTRv2ForCTC.from_pretrained(again)
    assert guided.config.vocab_size == 11
    assert guided.guidance is not None


def test_steps_follow_from_epochs(folder, digits, tmp_path, capsys):
    run(
        tmp_path, folder, "--model", "nano", "--charset", str(digits), "--max_steps", "-1", "--num_train_epochs", "0.5"
    )
    assert "on 64 samples for 8 steps" in capsys.readouterr().err  # 64 / 4 / 2


def test_a_folder_with_another_run_is_not_mixed_up(folder, digits, tmp_path):
    words = ("--model", "nano", "--charset", str(digits))
    run(tmp_path, folder, *words)
    with pytest.raises(ValueError, match=r"checkpoint-3 is of an earlier run: pass --resume_from_checkpoint True"):
        run(tmp_path, folder, *words)
    run(tmp_path, folder, *words, "--resume_from_checkpoint", "True")  # nothing left to do
    with pytest.raises(ValueError, match=r"no checkpoint in .*elsewhere"):
        run(tmp_path / "elsewhere", folder, *words, "--resume_from_checkpoint", "true")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_whatever_a_model_was_saved_in_it_is_trained_in_float32(config, folder, tmp_path, dtype):
    SVTRv2ForCTC(config).to(dtype).save_pretrained(tmp_path / "saved")
    SVTRv2Processor(SVTRv2ImageProcessor(), build_tokenizer(CHARSET)).save_pretrained(tmp_path / "saved")
    words = ["--train_data", str(folder), "--output_dir", str(tmp_path / "out"), "--model", str(tmp_path / "saved")]
    chosen, _ = parse_arguments(words)
    model, _ = model_and_processor(chosen)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        (["--model", "large"], ValueError, r"--model large is no size \(nano, tiny, small, base\), not default"),
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


def test_every_label_that_lies_here_is_looked_at(tmp_path):
    """Of parquet as of lists, however many there are; of what comes over a network, the first ones."""
    rows = [{"image": b"", "text": "1"}] * 10_500 + [{"image": b"", "text": "\u00e9"}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "many.parquet")
    source = open_source(str(tmp_path / "many.parquet"))
    with pytest.raises(
        UnknownCharactersError, match="1 of 10501 labels have characters outside the charset: '\u00e9'"
    ):
        check_characters([source], LabelEncoder(CHARSET))
    remote = open_source(f"hub:{tmp_path}")
    check_characters([remote], LabelEncoder(CHARSET))


def test_labels_are_normalized_where_that_is_asked_for(tmp_path):
    make_folder(tmp_path / "data", ["cafe\u0301", "\uff21", "x"])
    encoder = LabelEncoder("acefx\u00e9A")
    spec = str(tmp_path / "data")
    expected = {"none": 2, "nfc": 1}
    for form, count in expected.items():
        message = f"{count} of 3 labels have characters outside .* With --normalize nfkc, {count} of the labels"
        with pytest.raises(UnknownCharactersError, match=message):
            check_characters(train._open_sources([spec], form), encoder)
    [source] = train._open_sources([spec], "nfkc")
    check_characters([source], encoder)
    assert list(source.texts()) == [sample.text for sample in source.read()] == ["caf\u00e9", "A", "x"]
    [plain] = train._open_sources([spec], "none")
    assert source.fingerprint != plain.fingerprint, "a run is not resumed with other labels"


def test_a_recipe_and_the_command_line(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("train_data: [a, b]\nmodel: nano\noutput_dir: out\nlearning_rate: 1.0e-3\nmax_steps: 10\n")
    chosen, arguments = parse_arguments([str(recipe), "--max_steps", "20"])
    assert (chosen.train_data, chosen.model) == (["a", "b"], "nano")
    assert (arguments.learning_rate, arguments.max_steps) == (1e-3, 20)
    recipe.write_text("train_data: a\neval_data: []\nmax_hours: null\ncharset: null\noutput_dir: out\n")
    chosen, arguments = parse_arguments([str(recipe)])
    assert (chosen.train_data, chosen.eval_data, chosen.charset, arguments.max_hours) == (["a"], [], None, None)
    recipe.write_text("train_data: a\noutput_dir: out\nlr_scheduler_kwargs: {a: 1}\n")
    with pytest.raises(ValueError, match="--lr_scheduler_kwargs is not supported"):
        parse_arguments([str(recipe)])
    recipe.write_text("- a\n- b\n")
    with pytest.raises(ValueError, match="must map names of arguments"):
        parse_arguments([str(recipe)])
    recipe.write_text("a: [")
    with pytest.raises(ValueError, match=r"recipe\.yaml is no YAML"):
        parse_arguments([str(recipe)])


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_recipes_of_the_repository(path):
    chosen, arguments = parse_arguments([str(path), "--bf16", "False"])
    header = path.read_text(encoding="utf-8").split("\nmodel:")[0]
    assert f"scripts/train.py scripts/recipes/{path.name}" in header, "the command"
    assert all(word in header for word in ("# Hardware:", "# Time:", "# Result:", "# Commit:"))
    assert chosen.train_data and chosen.eval_data
    assert chosen.charset is None or "data/" in chosen.charset or read_charset(path.parents[2] / chosen.charset)
    if path.stem.startswith(("union14m", "mjst", "chinese")):  # the paper's
        stage_two = path.stem.endswith("stage2")
        assert chosen.use_guidance is (True if stage_two or path.stem == "chinese" else None)
        images_a_step = 4 * arguments.per_device_train_batch_size
        assert arguments.learning_rate == pytest.approx(6.5e-4 * images_a_step / 1024)
        assert chosen.model.endswith("_stage1") == stage_two, "which begins with the first stage's model"
        assert arguments.eval_steps == arguments.save_steps


def script(*words, **kwargs):
    return subprocess.Popen(
        [sys.executable, "-u", SCRIPT, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **kwargs,
    )


def test_the_script_and_the_smoke_recipe(folder, digits, tmp_path):
    """Two sources of two kinds, guidance, averaged weights, evaluation."""
    more = make_folder(tmp_path / "more", [f"{number:02}" for number in range(12)])
    (more / "metadata.csv").write_text("file_name,text\n" + (more / "labels.tsv").read_text().replace("\t", ","))
    (more / "labels.tsv").unlink()
    process = script(
        RECIPES / "smoke.yaml", "--output_dir", tmp_path / "out", "--train_data", folder, more, "--eval_data", folder,
        "--charset", digits,
    )  # fmt: skip
    told, errors = process.communicate()
    assert process.returncode == 0, errors
    assert "Best of 2 evaluations" in told
    for name in ("model.safetensors", "learning_curve.png", "checkpoint-6/averaged_weights.safetensors"):
        assert (tmp_path / "out" / name).is_file(), name
    state = json.loads((tmp_path / "out" / "checkpoint-6" / "trainer_state.json").read_text())
    assert any(entry.get("data/more/samples") for entry in state["log_history"])
    assert state["best_global_step"] and state["best_model_checkpoint"] is None, "the best is in the output folder"
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["command"].startswith("python scripts/train.py ") and "smoke.yaml" in record["command"]
    assert record["recipe"]["ema_decay"] == 0.9
    assert (record["steps"], record["seed"], record["processes"]) == (6, 42, 1)
    assert record["samples"] == [entry for entry in state["log_history"] if "loss" in entry][-1]["data/samples"]
    assert [entry["step"] for entry in record["evaluations"]] == [3, 6]
    evaluations = [entry for entry in state["log_history"] if "eval_loss" in entry]
    assert [entry["loss"] for entry in record["evaluations"]] == [entry["eval_loss"] for entry in evaluations]
    assert record["versions"]["torch"] == torch.__version__


LONG_RUN = ("--model", "nano", "--max_steps", "100000", "--per_device_train_batch_size", "2", "--use_cpu", "True")


def test_it_stops_after_some_hours_and_goes_on(folder, digits, tmp_path):
    words = ("--output_dir", tmp_path / "out", "--train_data", folder, "--charset", digits, *LONG_RUN)
    words = (*words, "--dataloader_num_workers", "1")
    process = script(*words, "--max_hours", "0.0008")
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert "--max_hours have passed. The same command with --resume_from_checkpoint True goes on" in errors
    [checkpoint] = (tmp_path / "out").glob("checkpoint-*")
    assert not (tmp_path / "out" / "model.safetensors").exists(), "what is unfinished is no result"
    step = json.loads((checkpoint / "trainer_state.json").read_text())["global_step"]
    seconds = json.loads((checkpoint / "data_state.json").read_text())["seconds"]
    assert 0 < seconds < 60

    often = ("--eval_steps", "2", "--logging_steps", "1")
    # With an evaluation between, workers of the endless stream once outlived the run, which then waited for them for ever.
    process = script(*words, "--resume_from_checkpoint", "True", "--eval_data", folder, *often)
    assert any("eval_loss" in line for line in iter(process.stdout.readline, "")), process.stderr.read()
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert "it was sent SIGTERM" in errors
    assert max(int(path.name[11:]) for path in (tmp_path / "out").glob("checkpoint-*")) > step
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["samples"] > step and record["steps"] > step
    assert record["steps"] < step + 50, "it was evaluated every other step, not as often as the part before"
    assert record["hours"] > seconds / 3600, "the hours of both parts"


def test_an_error_in_a_worker_ends_the_program(folder, digits, tmp_path):
    words = ("--output_dir", tmp_path / "out", "--train_data", folder, "--charset", digits, *LONG_RUN)
    process = script(*words, "--max_label_length", "1", "--dataloader_num_workers", "2")
    try:
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 1
    assert "samples can be trained on" in errors


def test_ctrl_c_saves_a_checkpoint(folder, digits, tmp_path):
    words = ("--output_dir", tmp_path / "out", "--train_data", folder, "--charset", digits, *LONG_RUN)
    process = script(*words, "--dataloader_num_workers", "1", "--logging_steps", "1", start_new_session=True)
    assert any("'loss'" in line for line in iter(process.stdout.readline, "")), process.stderr.read()
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the trainer and its workers
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Saving a checkpoint after this step" in errors
    assert "it was sent SIGINT. The same command with --resume_from_checkpoint True goes on" in errors
    assert "Traceback" not in errors
    assert last_step(tmp_path / "out") > 0


def test_an_evaluation_is_broken_off_to_stop_and_made_up_for(config, folder, tmp_path):
    held = make_folder(tmp_path / "held", [f"{number:03}" for number in range(20)])
    options = {"save_strategy": "steps", "save_steps": 9, "eval_strategy": "steps", "eval_steps": 2}
    whole = trainer_on(folder, SVTRv2ForCTC(config), arguments(tmp_path / "whole", **options), held)
    initial = copy.deepcopy(whole.model.state_dict())
    whole.train()
    model = SVTRv2ForCTC(config)
    model.load_state_dict(initial)
    stopped = trainer_on(folder, model, arguments(tmp_path, **options), held)
    recognise = stopped.model.forward

    def told_while_it_reads(*args, **kwargs):
        if not stopped.model.training:
            stopped.stop_in_time.reason = "told"
        return recognise(*args, **kwargs)

    stopped.model.forward = told_while_it_reads
    stopped.train()
    assert (stopped.state.global_step, stopped.evaluations) == (2, [])
    resumed = trainer_on(folder, SVTRv2ForCTC(config), arguments(tmp_path, **options), held)
    resumed.train(resume_from_checkpoint=True)
    assert [entry["step"] for entry in resumed.evaluations] == [2, 4]
    for one, other in zip(resumed.evaluations, whole.evaluations, strict=True):
        assert one["eval_loss"] == other["eval_loss"]


def test_a_stop_in_the_last_evaluation_leaves_it_for_the_next_time(config, folder, tmp_path):
    held = make_folder(tmp_path / "held", ["1", "2"])
    options = {"save_strategy": "steps", "save_steps": 9, "eval_strategy": "steps", "eval_steps": 4}
    stopped = trainer_on(folder, SVTRv2ForCTC(config), arguments(tmp_path, **options), held)
    forward = stopped.model.forward

    def told_at_the_last_step(*args, **kwargs):
        stopped.stop_in_time.reason = "told" if stopped.state.global_step == 3 else None
        return forward(*args, **kwargs)

    stopped.model.forward = told_at_the_last_step
    stopped.train()
    assert (stopped.state.global_step, stopped.evaluations, stopped.stop_in_time.reason) == (4, [], "told")
    resumed = trainer_on(folder, SVTRv2ForCTC(config), arguments(tmp_path, **options), held)
    resumed.train(resume_from_checkpoint=True)
    resumed.evaluate_at_the_end()
    assert [entry["step"] for entry in resumed.evaluations] == [4]


def test_a_second_ctrl_c_stops_at_once(capfd):
    stop = StopInTime()
    stop._note_signal(signal.SIGINT, None)
    with pytest.raises(KeyboardInterrupt):
        stop._note_signal(signal.SIGINT, None)
    assert "Ctrl-C again stops at once" in capfd.readouterr().err


def test_a_mistake_is_told_in_one_line(tmp_path):
    process = script("--model", "nano", "--train_data", "nodir", "--output_dir", tmp_path / "out")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors.startswith("svtrv2: There is no data") and errors.count("\n") == 1


def test_killed_at_any_moment_it_leaves_a_checkpoint(folder, digits, tmp_path):
    """Saving and evaluating after each step; two kills are aimed at its saving, one is not."""
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
    assert saving, "no kill has hit it while it saved: this test shows nothing"


def unfinished(output):
    """The checkpoints that are being saved."""
    try:
        return list((output / ".saving").glob("checkpoint-*"))
    except FileNotFoundError:  # moved while it was looked at
        return []


def last_step(output):
    return max((int(path.name[11:]) for path in output.glob("checkpoint-*")), default=0)


@pytest.mark.slow
def test_learns_to_read(digits, tmp_path, capsys):
    """Four hundred steps of nano on drawn numbers read other numbers."""
    rng = random.Random(0)
    numbers = sorted({str(rng.randrange(10_000, 100_000)) for _ in range(600)})
    rng.shuffle(numbers)
    train, held_out = make_folder(tmp_path / "train", numbers[:500]), make_folder(tmp_path / "test", numbers[500:])
    saved = run(
        tmp_path, train, "--model", "nano", "--charset", str(digits), "--max_steps", "400", "--learning_rate", "1e-3",
        "--per_device_train_batch_size", "16", "--augment_operations", "0", "--eval_data", str(held_out),
    )  # fmt: skip
    [accuracy] = [float(line.split()[2]) for line in capsys.readouterr().out.splitlines() if line.startswith("test")]
    assert accuracy > 90
    assert (saved / "model.safetensors").is_file()
