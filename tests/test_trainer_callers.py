"""SVTRv2Trainer with the arguments and methods that callers of a Trainer use."""

import copy
import importlib
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers.trainer
from conftest import draw, encoded, make_folder
from datasets import Dataset, Features, Image, Value
from test_training import arguments, trainer_on
from transformers import (
    AutoModelForCTC,
    AutoProcessor,
    EarlyStoppingCallback,
    Seq2SeqTrainingArguments,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    default_data_collator,
    get_scheduler,
)

from svtrv2_hf import (
    SVTRv2DataCollator,
    SVTRv2ForCTC,
    SVTRv2Trainer,
    SVTRv2TrainingArguments,
    make_compute_metrics,
    predict_ids,
)
from svtrv2_hf.training.arguments import NOT_SUPPORTED


TEXTS = ["10", "a line of words", "B-7", "22", "abc", "G", "77 f", "0"]


def rows(texts=TEXTS):
    return [{"image": draw(text or "x"), "text": text} for text in texts]


def dataset(texts=TEXTS):
    return Dataset.from_list(rows(texts), features=Features({"image": Image(), "text": Value("string")}))


class Stream(torch.utils.data.IterableDataset):
    def __iter__(self):
        return iter(rows())


@pytest.fixture
def folder(tmp_path):
    return make_folder(tmp_path / "data", [f"{number:03}" for number in range(24)])


@pytest.fixture
def held(tmp_path):
    return make_folder(tmp_path / "held", ["1", "23", "a line of words", "4"])


def plain(tmp_path, **options):
    defaults = {
        "max_steps": 2,
        "per_device_train_batch_size": 2,
        "save_strategy": "no",
        "use_cpu": True,
        "report_to": [],
        "disable_tqdm": True,
    }
    return TrainingArguments(str(tmp_path / "out"), **{**defaults, **options})


# Datasets and plain arguments


@pytest.mark.parametrize("kind", ["Dataset", "list", "IterableDataset", "torch"])
def test_datasets_of_rows(model, processor, tmp_path, kind):
    data = {
        "Dataset": dataset,
        "list": rows,
        "IterableDataset": lambda: dataset().to_iterable_dataset(num_shards=2),
        "torch": Stream,
    }[kind]()
    trainer = SVTRv2Trainer(model, plain(tmp_path), train_dataset=data, eval_dataset=data, processing_class=processor)
    trainer.train()
    assert trainer.state.global_step == 2
    assert trainer.counts[0, "samples"] >= 2
    prediction = trainer.predict(data)
    assert prediction.metrics["test_samples"] == len(TEXTS)
    assert processor.batch_decode(prediction.label_ids, group_tokens=False) == TEXTS, "in the order of the dataset"
    expected = [
        processor.post_process_text_recognition(model.eval()(**processor(row["image"], return_tensors="pt")))[0][
            "text"
        ]
        for row in rows()
    ]
    texts = [
        processor.batch_decode([logits[(logits != -100).all(-1)].argmax(-1)])[0] for logits in prediction.predictions
    ]
    assert texts == expected
    assert trainer.evaluate()["eval_samples"] == len(TEXTS)


def test_epochs_of_plain_arguments(model, processor, tmp_path):
    """Values of plain arguments are kept, and epochs are converted to steps."""
    args = plain(
        tmp_path, max_steps=-1, num_train_epochs=2, eval_strategy="epoch", save_strategy="epoch", learning_rate=3e-3
    )
    trainer = SVTRv2Trainer(model, args, train_dataset=dataset(), eval_dataset=dataset(), processing_class=processor)
    trainer.train()
    per_epoch = trainer.state.max_steps // 2
    assert trainer.state.max_steps == 2 * per_epoch and 4 <= per_epoch <= 6
    evaluated = [entry["step"] for entry in trainer.state.log_history if "eval_loss" in entry]
    assert evaluated == [per_epoch, 2 * per_epoch]
    assert len(list((tmp_path / "out").glob("checkpoint-*"))) == 2
    assert type(trainer.args) is SVTRv2TrainingArguments and trainer.args.learning_rate == 3e-3
    assert args.max_steps == -1, "the arguments of the caller do not change"
    assert trainer.lr_scheduler.lr_lambdas, "the linear schedule of plain arguments"


def test_rules_and_columns_of_the_collator(model, processor, tmp_path, caplog):
    texts = ["10", "", "1\u00e9", "123456", "11", "12", "13"]
    data = Dataset.from_list([{"picture": encoded(draw(text or "x")), "words": text} for text in texts])
    collator = SVTRv2DataCollator(processor, "picture", "words", max_label_length=5, unknown_characters="drop_sample")
    trainer = SVTRv2Trainer(
        model, plain(tmp_path, max_steps=6), collator, train_dataset=data, processing_class=processor
    )
    trainer.train()
    counted = {name: count for (_, name), count in trainer.counts.items()}
    assert set(counted) == {"samples", "empty", "unknown_characters", "too_long"}
    without = SVTRv2Trainer(
        model, plain(tmp_path), train_dataset=[{"image": draw("1"), "text": "1"}], processing_class=processor
    )
    with pytest.raises(ValueError, match=r"test_dataset, row 0, has no column 'image': its columns are \['picture'"):
        without.predict(data)


def test_exact_resuming_with_rows(config, processor, tmp_path):
    losses = []
    for checkpoint in (None, str(tmp_path / "out" / "checkpoint-2")):
        torch.manual_seed(0)
        args = arguments(tmp_path, save_strategy="steps", save_steps=2, logging_steps=1)
        trainer = SVTRv2Trainer(SVTRv2ForCTC(config), args, train_dataset=dataset(), processing_class=processor)
        trainer.train(checkpoint)
        losses.append([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
    assert losses[0] == losses[1]
    other = SVTRv2Trainer(
        SVTRv2ForCTC(config), args, train_dataset=dataset([*TEXTS[1:], "9"]), processing_class=processor
    )
    with pytest.raises(ValueError, match="fingerprints was"):
        other.train(str(tmp_path / "out" / "checkpoint-2"))


def test_predictions_without_texts_and_of_unreadable_images(model, processor, tmp_path):
    trainer = SVTRv2Trainer(model, plain(tmp_path), processing_class=processor)
    images = [{"image": encoded(draw("10"))}, {"image": b"no image"}, {"image": None}]
    prediction = trainer.predict(images)
    assert prediction.label_ids is None
    assert prediction.metrics == {"test_samples": 3, "test_unreadable": 2}
    assert (prediction.predictions[1:] == -100).all() and (prediction.predictions[0] > -100).any()
    assert trainer.predict(images[1:]).predictions.shape == (2, 0)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"data_collator": default_data_collator}, "data_collator must be a SVTRv2DataCollator"),
        ({"processing_class": None}, "processing_class must be the SVTRv2Processor"),
        ({"model_init": lambda: None}, "model_init is not supported"),
        ({"compute_loss_func": lambda *_: None}, "override compute_loss"),
        ({"train_dataset": {"train": []}}, "train_dataset is a dict of train: pass one of them"),
        ({"train_dataset": []}, "train_dataset has no samples"),
        ({"train_dataset": 3}, "train_dataset is a int: pass a dataset of rows"),
        ({"train_dataset": [("image", "text")]}, "row 0, has no column 'image': it is a tuple"),
        ({"train_dataset": [{"image": b"", "text": 3}]}, "the column 'text' contains a int"),
        ({"train_dataset": [{"image": b"", "words": "a"}]}, "train_dataset has no column 'text'"),
        ({"train_dataset": Stream(), "workers": 1}, "set dataloader_num_workers=0"),
        ({"train_dataset": Stream(), "max_steps": -1}, "number of samples in train_dataset is unknown"),
        ({"args": Seq2SeqTrainingArguments("out", use_cpu=True)}, "not Seq2SeqTrainingArguments"),
    ],
)
def test_refused_arguments_of_the_trainer(model, processor, tmp_path, given, message):
    given = dict(given)
    options = {"dataloader_num_workers": given.pop("workers", 0), "max_steps": given.pop("max_steps", 2)}
    given = {"args": plain(tmp_path, **options), "processing_class": processor, "train_dataset": rows(), **given}
    with pytest.raises(ValueError, match=message):
        SVTRv2Trainer(model, **given)


def test_refused_methods(model, processor, tmp_path):
    trainer = SVTRv2Trainer(model, plain(tmp_path), processing_class=processor)
    with pytest.raises(ValueError, match="Training requires a train_dataset"):
        trainer.train()
    with pytest.raises(ValueError, match="Evaluation requires an eval_dataset"):
        trainer.evaluate()


# Metrics


def test_metrics_of_the_caller(config, folder, held, tmp_path):
    """They can select the best model, and are called for each set with readable texts."""
    seen = []

    def compute_metrics(prediction):
        seen.append(prediction)
        return {"share": np.float32(len(seen) / 10), "word_accuracy": -1.0}

    args = arguments(tmp_path, eval_strategy="steps", eval_steps=2, metric_for_best_model="share")
    trainer = trainer_on(
        folder,
        SVTRv2ForCTC(config),
        args,
        held,
        compute_metrics=compute_metrics,
        preprocess_logits_for_metrics=predict_ids,
    )
    (held / "1.png").write_bytes(b"no image")
    trainer.train()
    assert seen[0].predictions.shape[0] == 4 and seen[0].predictions.ndim == 2
    assert (seen[0].predictions[1] == -100).all()
    assert trainer.processing_class.batch_decode(seen[0].label_ids, group_tokens=False)[2] == "a line of words"
    logged = [entry for entry in trainer.state.log_history if "eval_loss" in entry]
    assert [entry["eval_held_share"] for entry in logged] == pytest.approx([0.1, 0.2])
    assert logged[0]["eval_word_accuracy"] == -1.0, "instead of that of the trainer"
    assert trainer.state.best_global_step == 4
    assert (tmp_path / "out" / "model.safetensors").is_file()
    trainer.compute_metrics = lambda _: {"share": "high"}
    with pytest.raises(ValueError, match="share is not a number"):
        trainer.evaluate()
    trainer.compute_metrics = lambda _: {}
    with pytest.raises(ValueError, match="--metric_for_best_model share is not one of held_word_accuracy"):
        trainer._determine_best_metric(trainer.evaluate())


def test_metrics_equal_those_of_a_plain_trainer(model, processor, tmp_path):
    """With texts outside the charset, which never count as correct."""
    options = {"compute_metrics": make_compute_metrics(processor), "preprocess_logits_for_metrics": predict_ids}
    own = SVTRv2Trainer(model, plain(tmp_path), eval_dataset=dataset(), processing_class=processor, **options)
    other = Trainer(
        model,
        plain(tmp_path, remove_unused_columns=False, per_device_eval_batch_size=1),
        SVTRv2DataCollator(processor),
        eval_dataset=dataset(),
        processing_class=processor,
        **options,
    )
    metrics, expected = own.evaluate(), other.evaluate()
    for name in ("eval_loss", "eval_word_accuracy", "eval_cer", "eval_one_minus_ned"):
        assert metrics[name] == pytest.approx(expected[name], rel=1e-4), name
    predicted = own.predict(dataset())
    read = processor.batch_decode(predicted.predictions)
    foreign = own.predict(
        [{"image": row["image"], "text": text + "\u00e9"} for row, text in zip(rows(), read, strict=True)]
    )
    assert foreign.metrics["test_word_accuracy"] == 0.0
    assert foreign.metrics["test_cer"] == pytest.approx(len(TEXTS) / sum(len(text) + 1 for text in read))


def test_callbacks_stop_early(config, folder, held, tmp_path):
    args = arguments(
        tmp_path, max_steps=8, eval_strategy="steps", eval_steps=1, save_strategy="best", learning_rate=0.0
    )
    events = []

    class Recorder(TrainerCallback):
        def on_evaluate(self, args, state, control, metrics, **kwargs):
            events.append(metrics["eval_loss"])

    trainer = trainer_on(folder, SVTRv2ForCTC(config), args, held, callbacks=[EarlyStoppingCallback(2), Recorder()])
    trainer.train()
    assert len(events) == trainer.state.global_step < 8
    assert (tmp_path / "out" / f"checkpoint-{trainer.state.best_global_step}").is_dir(), (
        "saved because it was the best"
    )


def test_evaluation_before_training_is_not_the_best(config, folder, held, tmp_path):
    args = arguments(tmp_path, max_steps=2, eval_strategy="steps", eval_steps=2, eval_on_start=True)
    trainer = trainer_on(folder, SVTRv2ForCTC(config), args, held)
    trainer.train()
    assert [entry["step"] for entry in trainer.state.log_history if "eval_loss" in entry] == [0, 2]
    assert trainer.best_evaluation["step"] == 2
    assert (tmp_path / "out" / "model.safetensors").is_file()


# Optimizers and schedules


@pytest.mark.parametrize(
    ("optim", "schedule", "schedule_kwargs"),
    [
        ("adamw_torch_fused", "cosine", None),
        ("sgd", "warmup_stable_decay", {"num_decay_steps": 2}),
        ("adafactor", "constant_with_warmup", None),
        ("adamw_torch", "one_cycle", {"div_factor": 5}),
    ],
)
def test_resuming_is_exact_with_other_optimizers_and_schedules(
    config, folder, tmp_path, optim, schedule, schedule_kwargs
):
    options = {
        "optim": optim,
        "lr_scheduler_type": schedule,
        "lr_scheduler_kwargs": schedule_kwargs,
        "save_strategy": "steps",
        "save_steps": 2,
        "logging_steps": 1,
        "warmup_steps": 1,
    }
    trainers = []
    for checkpoint in (None, str(tmp_path / "out" / "checkpoint-2")):
        torch.manual_seed(0)
        trainer = trainer_on(folder, SVTRv2ForCTC(config), arguments(tmp_path, **options))
        trainer.train(checkpoint)
        trainers.append(trainer)
    whole, resumed = trainers
    logs = [
        [(entry["loss"], entry["learning_rate"]) for entry in t.state.log_history if "loss" in entry] for t in trainers
    ]
    assert logs[0] == logs[1] and len(logs[0]) == 4
    for one, other in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, other)
    groups = whole.optimizer.param_groups
    assert [group["weight_decay"] for group in groups] == [0.05, 0.0]
    assert all(parameter.ndim > 1 for parameter in groups[0]["params"])
    saved = torch.load(tmp_path / "out" / "checkpoint-4" / "training_args.bin", weights_only=False)
    assert saved.lr_scheduler_type == schedule and saved.optim == optim
    assert json.loads(saved.to_json_string())["lr_scheduler_type"] == schedule
    if schedule != "one_cycle":
        probe = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 6.5e-4)
        expected = get_scheduler(schedule, probe, 1, 4, schedule_kwargs)
        rates = []
        for _ in range(4):
            rates.append(expected.get_last_lr()[0])
            probe.step()
            expected.step()
        assert [rate for _, rate in logs[0]] == pytest.approx(rates)


def test_constant_run_decays_from_a_checkpoint(config, folder, tmp_path):
    """As described in the guide: warmup_stable_decay without an end, and a decay from any checkpoint."""
    options = {
        "lr_scheduler_type": "warmup_stable_decay",
        "warmup_steps": 2,
        "save_total_limit": None,
        "save_strategy": "steps",
        "save_steps": 4,
        "logging_steps": 1,
    }
    stable = {"max_steps": 8, "lr_scheduler_kwargs": {"num_decay_steps": 0}}
    trainer_on(folder, SVTRv2ForCTC(config), arguments(tmp_path, **options, **stable)).train()
    decay = {"max_steps": 6, "lr_scheduler_kwargs": {"num_decay_steps": 2}, "resume_inexactly": True}
    trainer = trainer_on(folder, SVTRv2ForCTC(config), arguments(tmp_path, **options, **decay))
    trainer.train(str(tmp_path / "out" / "checkpoint-4"))
    rates = [entry["learning_rate"] for entry in trainer.state.log_history if "loss" in entry]
    assert rates == pytest.approx([0, 3.25e-4, 6.5e-4, 6.5e-4, 6.5e-4, 3.25e-4])
    linear = {"max_steps": 6, "lr_scheduler_type": "linear", "resume_inexactly": True}
    trainer = trainer_on(folder, SVTRv2ForCTC(config), arguments(tmp_path, **{**options, **linear}))
    trainer.train(str(tmp_path / "out" / "checkpoint-4"))
    rates = [entry["learning_rate"] for entry in trainer.state.log_history if "loss" in entry]
    assert rates[4:] == pytest.approx([6.5e-4 / 2, 6.5e-4 / 4])


def test_optimizers_of_the_caller(config, folder, tmp_path):
    model = SVTRv2ForCTC(config)
    optimizer = torch.optim.NAdam(model.parameters(), 1e-3)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    options = {"save_strategy": "steps", "save_steps": 2, "logging_steps": 1}
    trainer = trainer_on(folder, model, arguments(tmp_path, **options), optimizers=(optimizer, schedule))
    trainer.train()
    rates = [entry["learning_rate"] for entry in trainer.state.log_history if "loss" in entry]
    assert rates == pytest.approx([1e-3, 5e-4, 2.5e-4, 1.25e-4])
    checkpoint = str(tmp_path / "out" / "checkpoint-2")
    again = SVTRv2ForCTC(config)
    optimizer = torch.optim.NAdam(again.parameters(), 1e-3)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    resumed = trainer_on(folder, again, arguments(tmp_path, **options), optimizers=(optimizer, schedule))
    resumed.train(checkpoint)
    assert all(map(torch.equal, model.parameters(), again.parameters()))
    other = trainer_on(folder, SVTRv2ForCTC(config), arguments(tmp_path, resume_inexactly=True, **options))
    with pytest.raises(ValueError, match="was made with another optimizer"):
        other.train(checkpoint)
    one_cycle = trainer_on(
        folder, model, arguments(tmp_path), optimizers=(torch.optim.SGD(model.parameters(), 0.1), None)
    )
    assert one_cycle.create_scheduler(4).total_steps == 4
    assert one_cycle.optimizer.param_groups[0]["max_lr"] == 0.1, "that of the optimizer"


def test_optimizer_class_of_the_caller(config, folder, tmp_path):
    trainer = trainer_on(
        folder, SVTRv2ForCTC(config), arguments(tmp_path), optimizer_cls_and_kwargs=(torch.optim.RMSprop, {"lr": 1e-3})
    )
    trainer.train()
    assert type(trainer.optimizer.optimizer) is torch.optim.RMSprop
    assert [group["weight_decay"] for group in trainer.optimizer.param_groups] == [0.05, 0.0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"lr_scheduler_type": "warmup_stable_decay"},
            "do not fit --lr_scheduler_type warmup_stable_decay: .*num_decay",
        ),
        ({"lr_scheduler_kwargs": {"power": 2}}, "do not fit --lr_scheduler_type one_cycle: .*power"),
        (
            {"lr_scheduler_type": "warmup_stable_decay", "lr_scheduler_kwargs": {"num_decay_steps": 5}},
            "0 steps of warmup and 5 of decay exceed the 4 steps",
        ),
    ],
)
def test_impossible_schedules_raise(config, folder, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        trainer_on(folder, SVTRv2ForCTC(config), arguments(tmp_path, warmup_steps=0, **options)).train()


# Other arguments of transformers


@pytest.mark.parametrize(
    ("name", "reason"), [(name, reason) for reason, names in NOT_SUPPORTED.items() for name in names]
)
def test_each_refused_argument_raises_with_its_reason(tmp_path, name, reason):
    default = SVTRv2TrainingArguments.__dataclass_fields__[name].default
    value = not default if isinstance(default, bool) else 0.5 if isinstance(default, float) else "any"
    with pytest.raises(ValueError, match=re.escape(f"--{name} is not supported: {reason}. Omit it.")):
        arguments(tmp_path, **{name: value})


def test_best_model_is_loaded_at_the_end(config, folder, held, tmp_path):
    options = {"eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps", "save_steps": 2, "ema_decay": 0.5}
    values = iter([2.0, 1.0])
    trainer = trainer_on(
        folder,
        SVTRv2ForCTC(config),
        arguments(tmp_path, load_best_model_at_end=True, metric_for_best_model="share", **options),
        held,
        compute_metrics=lambda _: {"share": next(values)},
    )
    trainer.train()
    assert trainer.state.best_global_step == 2
    best = SVTRv2ForCTC.from_pretrained(tmp_path / "out").state_dict()
    assert all(torch.equal(best[name], tensor) for name, tensor in trainer.model.state_dict().items())
    resumed = trainer_on(
        folder,
        SVTRv2ForCTC(config),
        arguments(tmp_path, **options, metric_for_best_model="share"),
        held,
        compute_metrics=lambda _: {"share": 0.0},
    )
    resumed.train(str(tmp_path / "out" / "checkpoint-4"))
    assert any(not torch.equal(best[name], tensor) for name, tensor in resumed.model.state_dict().items())


def test_checkpoints_of_only_the_model(config, folder, tmp_path):
    trainer = trainer_on(
        folder, SVTRv2ForCTC(config), arguments(tmp_path, save_only_model=True, save_strategy="steps", save_steps=4)
    )
    trainer.train()
    checkpoint = tmp_path / "out" / "checkpoint-4"
    SVTRv2ForCTC.from_pretrained(checkpoint)
    assert not (checkpoint / "optimizer.pt").exists()
    again = trainer_on(folder, SVTRv2ForCTC(config), arguments(tmp_path, max_steps=6, resume_inexactly=True))
    with pytest.raises(ValueError, match=r"optimizer\.pt is missing: .*Start a new run from its weights"):
        again.train(str(checkpoint))


def test_bfloat16_and_recomputed_activations_do_not_change_the_loss(config, folder, tmp_path):
    """Gradients with gradient_checkpointing equal those without; bfloat16 rounds them, and CTC is computed in float32."""
    config.drop_path_rate = 0.0
    initial = SVTRv2ForCTC(config)
    results = []
    for options in ({}, {"gradient_checkpointing": True}, {"bf16": True}):
        model, gradients = copy.deepcopy(initial), {}

        class Spy(TrainerCallback):
            def on_pre_optimizer_step(self, *_, gradients=gradients, model=model, **__):
                gradients.update({name: value.grad.clone() for name, value in model.named_parameters()})

        args = arguments(tmp_path / f"{len(results)}", max_steps=1, logging_steps=1, **options)
        trainer = trainer_on(folder, model, args, callbacks=[Spy()])
        trainer.train()
        results.append((trainer.state.log_history[0]["loss"], gradients))
    (loss, gradients), (same, recomputed), (rounded, _) = results
    assert loss == pytest.approx(same, rel=1e-5) and loss == pytest.approx(rounded, rel=0.02)
    for name, gradient in gradients.items():
        torch.testing.assert_close(recomputed[name], gradient, rtol=1e-4, atol=1e-6, msg=name)


def test_data_seed_changes_the_order(config, processor, tmp_path):
    orders = []
    for seed in (None, 7):
        trainer = SVTRv2Trainer(
            SVTRv2ForCTC(config),
            arguments(tmp_path, data_seed=seed),
            train_dataset=dataset(),
            processing_class=processor,
        )
        orders.append(next(iter(trainer.get_train_dataloader()))["labels"].tolist())
    assert orders[0] != orders[1]


def test_tracker_receives_the_logs(config, folder, held, tmp_path, monkeypatch):
    """The callback of transformers for TensorBoard, with a writer that stores the scalars in a file."""
    package = tmp_path / "packages" / "tensorboardX"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(
        "import json\n"
        "class SummaryWriter:\n"
        "    def __init__(self, log_dir=None): self.scalars = {}\n"
        "    def add_text(self, name, text): json.loads(text)\n"
        "    def add_scalar(self, name, value, step): self.scalars.setdefault(name, []).append([step, value])\n"
        "    def flush(self): open(r'%s', 'w').write(json.dumps(self.scalars))\n"
        "    def close(self): self.flush()\n" % (tmp_path / "scalars.json")
    )
    monkeypatch.syspath_prepend(package.parent)
    importlib.invalidate_caches()
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)  # it would have priority
    args = arguments(tmp_path, report_to="tensorboard", logging_steps=2, eval_strategy="steps", eval_steps=4)
    trainer_on(folder, SVTRv2ForCTC(config), args, held).train()
    scalars = json.loads((tmp_path / "scalars.json").read_text())
    assert [step for step, _ in scalars["train/loss"]] == [2, 4]
    assert {"train/data/samples", "train/learning_rate", "eval/word_accuracy", "eval/held_loss"} <= scalars.keys()


class Hub:
    """Replaces the Hub: copies the files that it would store."""

    def __init__(self, root):
        self.root, self.messages = root, []

    def create_repo(self, name, **_):
        return type("Url", (), {"repo_id": f"owner/{Path(name).name}"})

    def upload_folder(self, folder_path, commit_message, ignore_patterns=(), path_in_repo="", **options):
        from fnmatch import fnmatch

        self.messages.append(commit_message)
        for path in Path(folder_path).rglob("*"):
            name = str(path.relative_to(folder_path))
            if path.is_file() and not any(fnmatch(name, pattern) for pattern in ignore_patterns):
                target = self.root / path_in_repo / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())


@pytest.fixture
def hub(tmp_path, monkeypatch):
    hub = Hub(tmp_path / "hub")
    monkeypatch.setattr(transformers.trainer, "hf_api", lambda: hub)
    monkeypatch.setattr("svtrv2_hf.training.upload.upload_folder", hub.upload_folder)
    return hub


def test_uploads_are_complete_folders(config, folder, held, tmp_path, hub):
    """The best model and, if requested, checkpoints; never files that are being written."""
    args = arguments(
        tmp_path,
        push_to_hub=True,
        hub_strategy="checkpoint",
        eval_strategy="steps",
        eval_steps=2,
        save_strategy="steps",
        save_steps=2,
        metric_for_best_model="share",
    )
    values = iter([2.0, 1.0])
    trainer = trainer_on(folder, SVTRv2ForCTC(config), args, held, compute_metrics=lambda _: {"share": next(values)})
    (tmp_path / "out" / ".saving").mkdir()
    (tmp_path / "out" / ".saving" / "half").write_text("of a run that was killed")
    trainer.train()
    trainer.push_to_hub()
    step = "Training in progress, step"
    assert hub.messages == [
        f"{step} 2", f"{step} 2, checkpoint", f"{step} 4", f"{step} 4, checkpoint", "End of training"
    ]  # fmt: skip
    stored = {str(path.relative_to(hub.root)) for path in hub.root.rglob("*")}
    assert not [name for name in stored if ".saving" in name or name.startswith("checkpoint-")]
    best = SVTRv2ForCTC.from_pretrained(tmp_path / "out" / "checkpoint-2").state_dict()
    loaded = AutoModelForCTC.from_pretrained(hub.root)
    assert all(torch.equal(best[name], tensor) for name, tensor in loaded.state_dict().items())
    inputs = AutoProcessor.from_pretrained(hub.root)(draw("10"), return_tensors="pt")
    assert loaded(**inputs).logits.isfinite().all()
    last = json.loads((hub.root / "last-checkpoint" / "trainer_state.json").read_text())
    assert last["global_step"] == 4 and (hub.root / "last-checkpoint" / "optimizer.pt").is_file()
    assert "one_cycle" in (hub.root / "README.md").read_text()


def test_failed_upload_does_not_end_training(config, folder, tmp_path, hub, monkeypatch, caplog):
    def fail(**_):
        raise OSError("the network is down")

    monkeypatch.setattr(hub, "upload_folder", fail)
    args = arguments(tmp_path, push_to_hub=True, save_strategy="steps", save_steps=2)
    trainer = trainer_on(folder, SVTRv2ForCTC(config), args)
    trainer.train()
    assert trainer.state.global_step == 4
    assert "Step 2 was not uploaded to the Hub: the network is down" in caplog.text
    with pytest.raises(OSError, match="the network is down"):
        trainer.push_to_hub()


def test_saved_model_is_that_of_the_caller(config, folder, tmp_path):
    trainer = trainer_on(folder, SVTRv2ForCTC(config), arguments(tmp_path, max_steps=1))
    trainer.train()
    trainer.save_model(str(tmp_path / "elsewhere"))
    loaded = AutoModelForCTC.from_pretrained(tmp_path / "elsewhere").state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in trainer.model.state_dict().items())
    assert not (tmp_path / "elsewhere" / ".saving").exists()
    AutoProcessor.from_pretrained(tmp_path / "elsewhere")


# Adapters


@pytest.mark.parametrize("checkpointing", [False, True])
def test_adapter_trains_with_a_plain_trainer(saved, processor, tmp_path, checkpointing):
    peft = pytest.importorskip("peft")
    lora = peft.LoraConfig(r=2, target_modules=["qkv", "projection"], modules_to_save=["head"])
    model = peft.get_peft_model(SVTRv2ForCTC.from_pretrained(saved), lora)
    before = {name: value.clone() for name, value in model.named_parameters() if value.requires_grad}
    args = plain(tmp_path, remove_unused_columns=False, gradient_checkpointing=checkpointing, learning_rate=1e-2)
    trainer = Trainer(model, args, SVTRv2DataCollator(processor), train_dataset=dataset(), processing_class=processor)
    trainer.train()
    after = {name: value for name, value in model.named_parameters() if value.requires_grad}
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert any("head" in name for name in changed) and any("qkv.lora_B" in name for name in changed)
    trainer.save_model(str(tmp_path / "adapter"))
    batch = processor([draw("10"), draw("22")], return_tensors="pt")
    trained = model.eval()(**batch).logits
    assert torch.equal(AutoModelForCTC.from_pretrained(tmp_path / "adapter")(**batch).logits, trained)
    model.merge_and_unload().save_pretrained(tmp_path / "merged")
    torch.testing.assert_close(
        AutoModelForCTC.from_pretrained(tmp_path / "merged")(**batch).logits, trained, rtol=0, atol=1e-3
    )
    with pytest.raises(ValueError, match="not from adapters such as PeftModel"):
        SVTRv2Trainer(peft.get_peft_model(SVTRv2ForCTC.from_pretrained(saved), lora), args, processing_class=processor)
