"""Training that fails: divergence, errors, damaged checkpoints, and unusable data."""

import copy
import io
import json
import os
import pickle
import signal

import pytest
import torch
from conftest import CHARSET, make_folder
from safetensors.torch import load_file, save_file
from test_training import arguments, run, trainer_on
from torch.utils.data import IterableDataset, get_worker_info
from transformers import TrainerCallback
from transformers.trainer_pt_utils import safe_globals

from svtrv2_hf import SVTRv2Config, SVTRv2ForCTC
from svtrv2_hf.data.labels import LabelEncoder, RejectedSampleError, Rejection
from svtrv2_hf.data.loader import Loader, plain_worker_errors
from svtrv2_hf.sources import open_source
from svtrv2_hf.sources.file_source import FileSource
from svtrv2_hf.training.checkpoint_files import DivergedError, check_optimizer_files
from svtrv2_hf.training.probe import check_evaluation_set, check_not_empty
from svtrv2_hf.training.record import RunRecord
from svtrv2_hf.training.train import main


NAN = float("nan")
SAVING = {"save_strategy": "steps", "save_steps": 2, "logging_steps": 1}


@pytest.fixture
def folder(tmp_path):
    return make_folder(tmp_path / "data", [f"{number:03}" for number in range(40)] + [f"{n:07}" for n in range(24)])


@pytest.fixture
def held(tmp_path):
    return make_folder(tmp_path / "held", [f"{number:03}" for number in range(10)])


class Poison(TrainerCallback):
    """Set a weight to NaN before or after a step."""

    def __init__(self, before=None, after=None):
        self.before, self.after = before, after

    def on_step_begin(self, args, state, control, model, **kwargs):
        if state.global_step + 1 == self.before:
            model.head.weight.data[0, 0] = NAN

    def on_step_end(self, args, state, control, model, **kwargs):
        if state.global_step == self.after:
            model.head.weight.data[0, 0] = NAN


def checkpoints(tmp_path):
    return sorted(path.name for path in (tmp_path / "out").glob("checkpoint-*"))


# Divergence


@pytest.mark.parametrize("options", [{}, {"gradient_accumulation_steps": 2}, {"ema_decay": 0.9}, {"bf16": True}])
def test_diverged_training_stops(config, folder, held, tmp_path, options):
    args = arguments(tmp_path, eval_strategy="steps", eval_steps=2, max_steps=6, **SAVING, **options)
    trainer = trainer_on(folder, SVTRv2ForCTC(config), args, held)
    trainer.add_callback(Poison(before=4))
    with pytest.raises(
        DivergedError, match=r"diverged by step 4: .* checkpoint is .*checkpoint-2\. The best model, of step 2"
    ) as error:
        trainer.train()
    assert "--learning_rate" in str(error.value) and not hasattr(error.value, "__notes__")
    assert checkpoints(tmp_path) == ["checkpoint-2"]
    assert [entry["step"] for entry in trainer.state.log_history if "loss" in entry] == [1, 2, 3]
    for path in (tmp_path / "out").rglob("*.safetensors"):
        assert all(tensor.isfinite().all() for tensor in load_file(path).values()), path


def test_non_finite_loss_is_not_logged_as_zero(config, folder, tmp_path):
    args = arguments(tmp_path, max_steps=3, logging_steps=3, learning_rate=1e30, warmup_steps=0)
    trainer = trainer_on(folder, SVTRv2ForCTC(config), args)
    with pytest.raises(DivergedError, match=r"by step 3: .* weight tensors contain NaN or infinity\. Lower"):
        trainer.train()
    assert not [entry for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.parametrize("where", ["weights", "buffers", "average"])
def test_non_finite_weights_are_not_saved(config, folder, tmp_path, where):
    args = arguments(tmp_path, max_steps=2, ema_decay=0.5 if where == "average" else None)
    trainer = trainer_on(folder, SVTRv2ForCTC(config), args)
    if where == "weights":
        trainer.add_callback(Poison(after=2))
        with pytest.raises(DivergedError, match=r"1 of .* weight tensors contain NaN or infinity"):
            trainer.train()
    else:
        trainer.train()
    next(
        iter(trainer.inference_model.buffers() if where == "buffers" else trainer.inference_model.parameters())
    ).data.fill_(NAN)
    with pytest.raises(DivergedError):
        trainer.save_model_for_inference()
    with pytest.raises(DivergedError):
        trainer._save_checkpoint(trainer.model, None)
    assert not list((tmp_path / "out").rglob("*.safetensors"))


def test_float16_step_that_overflows_does_not_count(config, folder, tmp_path):
    """The scaler skips it. If all steps overflow, training has diverged."""
    args = arguments(tmp_path, max_steps=4, logging_steps=2)
    trainer = trainer_on(folder, SVTRv2ForCTC(config), args)
    trainer.state.global_step, trainer._globalstep_last_logged = 4, 0
    trainer.control.should_log = True
    trainer._overflows += 1
    losses = torch.tensor(6.0)
    trainer._correct_overflows(losses)
    assert losses == 8.0, "four times the mean of the three others"
    trainer._overflows += 4
    trainer._correct_overflows(losses)
    assert losses.isnan()


def test_resuming_from_a_checkpoint_with_nan_raises(config, folder, tmp_path):
    args = arguments(tmp_path, ema_decay=0.9, **SAVING)
    trainer_on(folder, SVTRv2ForCTC(config), args).train()
    for name in ("averaged_weights.safetensors", "model.safetensors"):
        path = tmp_path / "out" / "checkpoint-4" / name
        weights = load_file(path)
        weights[next(key for key in weights if key.endswith("head.bias"))][0] = NAN
        save_file(weights, path, metadata={"format": "pt"})
        with pytest.raises(DivergedError, match=rf"{name}: 1 of .*head\.bias.*Resume from .*checkpoint-2\."):
            trainer_on(folder, SVTRv2ForCTC(config), args).train(resume_from_checkpoint=True)


def test_run_record_is_valid_json(tmp_path, config, folder):
    trainer = trainer_on(folder, SVTRv2ForCTC(config), arguments(tmp_path))
    trainer.state.log_history = [{"step": 1, "loss": NAN}, {"step": 1, "eval_loss": float("inf")}]
    RunRecord([], {}).write(trainer.args, trainer.state)
    record = json.loads((tmp_path / "out" / "run.json").read_text(), parse_constant=pytest.fail)
    assert record["loss"] == [[1, None]] and record["evaluations"] == [{"loss": None, "step": 1}]


# Errors during training


class Fail(TrainerCallback):
    """Raise an error in one event after a step."""

    def __init__(self, event, step, error):
        def fail(args, state, control, **kwargs):
            if state.global_step == step:
                raise error

        setattr(self, event, fail)


def losses(trainer):
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def fail_in_the_data(trainer):
    """Fail at the first batch of the fourth step."""
    make, calls = trainer.train_dataset.make_batch, []

    def failing(*args):
        calls.append(1)
        if len(calls) == 7:
            raise OSError("the disk is gone")
        return make(*args)

    trainer.train_dataset.make_batch = failing


def fail_in_a_forward_pass(trainer):
    """Fail after batch normalization has updated its statistics and random numbers were used."""
    forward, calls = trainer.model.forward, []

    def failing(*args, **kwargs):
        output = forward(*args, **kwargs)
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return output

    trainer.model.forward = failing


def callback(event):
    return lambda trainer: trainer.add_callback(Fail(event, 3, RuntimeError("a broken callback")))


WAYS = {
    "data": (fail_in_the_data, OSError),
    "forward": (fail_in_a_forward_pass, KeyboardInterrupt),
    "step_end": (callback("on_step_end"), RuntimeError),
    "step_begin": (callback("on_step_begin"), RuntimeError),
    "log": (callback("on_log"), RuntimeError),
    "save": (callback("on_save"), RuntimeError),
    "evaluate": (callback("on_evaluate"), RuntimeError),
}


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    """A complete run, and a function that creates trainers of the same run in another folder."""
    root = tmp_path_factory.mktemp("whole")
    data = make_folder(root / "data", [f"{number:03}" for number in range(40)] + [f"{n:07}" for n in range(24)])
    held = make_folder(root / "held", [f"{number:03}" for number in range(10)])
    torch.manual_seed(0)
    initial = SVTRv2ForCTC(small_config())

    def new(place, save_steps=100):
        args = arguments(
            place, max_steps=7, gradient_accumulation_steps=2, ema_decay=0.5, logging_steps=1, eval_strategy="steps",
            eval_steps=3, save_strategy="steps", save_steps=save_steps,
        )  # fmt: skip
        return trainer_on(data, copy.deepcopy(initial), args, held, augment=True)

    whole = new(root)
    whole.train()
    return whole, new


def small_config():
    return SVTRv2Config(
        vocab_size=len(CHARSET) + 1, hidden_sizes=[16, 32, 32], depths=[1, 1, 1], num_attention_heads=[2, 2, 2],
        num_convolution_blocks=[1, 0, 0],
    )  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_failed_run_leaves_a_checkpoint(whole_run, tmp_path, way):
    """Resuming from it equals an uninterrupted run."""
    whole, new = whole_run
    failing = new(tmp_path, save_steps=3 if way == "save" else 100)
    fail, error = WAYS[way]
    fail(failing)
    with pytest.raises(error) as caught:
        failing.train()
    step = failing.state.global_step
    assert 1 < step < 7
    if way != "save":  # the checkpoint is complete before the error
        [note] = caught.value.__notes__
        assert f"checkpoint-{step}. To resume, add --resume_from_checkpoint True" in note
    assert checkpoints(tmp_path) == [f"checkpoint-{step}"]
    resumed = new(tmp_path)
    resumed.train(resume_from_checkpoint=True)
    assert losses(resumed)[-3:] == losses(whole)[-3:]
    assert resumed.counts == whole.counts
    for one, other in ((resumed.model, whole.model), (resumed.inference_model, whole.inference_model)):
        assert all(
            torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True)
        )
    assert [entry["step"] for entry in resumed.evaluations] == [3, 6, 7]
    assert [entry["eval_loss"] for entry in resumed.evaluations] == [entry["eval_loss"] for entry in whole.evaluations]
    assert resumed.state.best_global_step == whole.state.best_global_step


def test_failed_evaluation_names_its_dataset_and_runs_after_resuming(config, folder, held, tmp_path):
    options = {"eval_strategy": "steps", "eval_steps": 2}
    trainer = trainer_on(folder, SVTRv2ForCTC(config), arguments(tmp_path, **options), held)
    (held / "3.png").rename(tmp_path / "away.png")
    with pytest.raises(ValueError, match=r"Evaluation dataset held cannot be read: .*3\.png") as error:
        trainer.train()
    assert "checkpoint-2" in error.value.__notes__[0]
    (tmp_path / "away.png").rename(held / "3.png")
    resumed = trainer_on(folder, SVTRv2ForCTC(config), arguments(tmp_path, **options), held)
    resumed.train(resume_from_checkpoint=True)
    assert [entry["step"] for entry in resumed.evaluations] == [2, 4]


def test_failed_last_evaluation_leaves_a_checkpoint(config, folder, held, tmp_path):
    trainer = trainer_on(folder, SVTRv2ForCTC(config), arguments(tmp_path), held)
    trainer.train()
    (held / "3.png").unlink()
    with pytest.raises(ValueError, match="Evaluation dataset held") as error:
        trainer.evaluate_last_step()
    assert "checkpoint-4" in error.value.__notes__[0]
    assert checkpoints(tmp_path) == ["checkpoint-4"]


def test_error_during_an_update_saves_nothing(config, folder, tmp_path):
    trainer = trainer_on(folder, SVTRv2ForCTC(config), arguments(tmp_path))
    trainer.add_callback(Fail("on_optimizer_step", 2, RuntimeError("broken")))
    with pytest.raises(RuntimeError) as error:
        trainer.train()
    assert error.value.__notes__ == [
        "Step 2 cannot be saved: the weights were being updated. No checkpoint was saved."
    ]
    assert not checkpoints(tmp_path)


def test_full_disk_is_reported_once(config, folder, tmp_path, monkeypatch):
    trainer = trainer_on(folder, SVTRv2ForCTC(config), arguments(tmp_path, max_steps=3, **{**SAVING, "save_steps": 1}))
    save = SVTRv2ForCTC.save_pretrained

    def full(self, *args, **kwargs):
        if trainer.state.global_step > 1:
            raise OSError(28, "No space left on device")
        save(self, *args, **kwargs)

    monkeypatch.setattr(SVTRv2ForCTC, "save_pretrained", full)
    with pytest.raises(OSError, match="No space left") as error:
        trainer.train()
    assert error.value.__notes__ == [
        "Step 2 cannot be saved: [Errno 28] No space left on device. The last checkpoint is of step 1."
    ]
    assert checkpoints(tmp_path) == ["checkpoint-1"]


# Damaged checkpoints


class Hostile:
    def __reduce__(self):
        return (os.system, ("exit 1",))


DAMAGES = {
    "empty": lambda _: b"",
    "cut": lambda content: content[: len(content) // 2],
    "page": lambda _: b"<!DOCTYPE html><html>not found</html>",
    "pickle": lambda _: pickle.dumps(Hostile()),
    "other": lambda _: saved_by_torch({"a": 1}),
    "json": lambda _: b"{}",
    "list": lambda _: b"[1]",
}


def saved_by_torch(value):
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def run_to_damage(tmp_path_factory):
    """A run with two checkpoints, and a function that creates a trainer to resume it."""
    root = tmp_path_factory.mktemp("damaged")
    data = make_folder(root / "data", [f"{number:03}" for number in range(20)])

    def new():
        return trainer_on(data, SVTRv2ForCTC(small_config()), arguments(root, ema_decay=0.9, **SAVING))

    new().train()
    return root / "out", new


@pytest.mark.parametrize(
    "name",
    [
        "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", "data_state.json", "model.safetensors",
        "averaged_weights.safetensors",
    ],
)  # fmt: skip
def test_damaged_file_of_a_checkpoint_raises(run_to_damage, name):
    output, new = run_to_damage
    path = output / "checkpoint-4" / name
    content = path.read_bytes()
    try:
        for kind, damage in {**DAMAGES, "missing": None}.items():
            path.unlink()
            if damage is not None:
                path.write_bytes(damage(content))
            with pytest.raises(ValueError, match=name) as error:
                new().train(resume_from_checkpoint=True)
            message = str(error.value)
            assert message.startswith(str(path)) and "\n" not in message and "weights_only" not in message, kind
            assert (
                f"Resume from the previous checkpoint (--resume_from_checkpoint {output / 'checkpoint-2'})" in message
            )
            assert ("--model" in message) == (name != "model.safetensors")
            path.touch()
    finally:
        path.write_bytes(content)


def changed_json(change):
    def damage(path):
        values = json.loads(path.read_text())
        change(values)
        path.write_text(json.dumps(values))

    return damage


def changed_by_torch(change):
    def damage(path):
        with safe_globals():
            values = torch.load(path, weights_only=True)
        change(values)
        torch.save(values, path)

    return damage


def changed_weights(path):
    weights = load_file(path)
    next(tensor for name, tensor in weights.items() if name.endswith("running_var"))[0] = -1
    save_file(weights, path, metadata={"format": "pt"})


def entry(**values):
    return changed_by_torch(lambda state: state["state"][0].update(values))


def schedule(**values):
    return changed_by_torch(lambda state: state.update(values))


def rank(**values):
    return changed_json(lambda states: states["ranks"][0].update(values))


def state(**values):
    return changed_json(lambda states: states.update(values))


@pytest.mark.parametrize(
    ("name", "damages"),
    [
        ("model.safetensors", [(changed_weights, "damaged")]),
        ("averaged_weights.safetensors", [(changed_weights, "damaged")]),
        (
            "optimizer.pt",
            [
                (changed_by_torch(lambda state: state["state"].clear()), "contains the states of 0 of"),
                (changed_by_torch(lambda state: state["state"].pop(5)), "contains the states of"),
                (changed_by_torch(lambda state: state["state"][0].pop("exp_avg_sq")), "damaged"),
                (changed_by_torch(lambda state: state["state"][0]["exp_avg"].fill_(NAN)), "exp_avg of parameter 0 is NaN"),
                (changed_by_torch(lambda state: state["state"][0]["exp_avg_sq"].sub_(1)), "exp_avg_sq .* is negative"),
                (changed_by_torch(lambda state: state["param_groups"].pop()), "its groups are not those"),
                (changed_by_torch(lambda state: state["param_groups"].reverse()), "its groups are not those"),
                (entry(exp_avg=torch.zeros(3, 3)), r"has the shape \[3, 3\] instead of"),
                (entry(exp_avg="x"), "damaged"),
                (entry(step=torch.tensor(3.0)), "were updated 3, 4 times by step 4"),
                (entry(step=torch.tensor(NAN)), "were updated"),
            ],
        ),
        (
            "scheduler.pt",
            [
                *((schedule(last_epoch=value), "its last_epoch is") for value in (-5, 3, 5, 999, 4.0, "4", None, True)),
                (schedule(_step_count="x"), "its _step_count"),
                (schedule(get_lr=3), "which schedulers do not save"),
            ],
        ),
        (
            "data_state.json",
            [
                *((rank(taken=value), "its taken is") for value in (-3, 1.5, "x", True)),
                *((rank(counts=value), "damaged") for value in ([1, 2], [[0, 5, 1]], [[0, "x", -1]], [[0.5, "x", 1]], None)),
                *((rank(workers=value), "damaged") for value in ([[-1, 0, []]], [[1, 0, ["x"]]], [[1, 0, []]] * 2, [5])),
                *((state(ranks=value), "states of 1 processes") for value in ([], {}, [{}, {}])),
                *((state(seed_shift=value), "its seed_shift") for value in (-1, 1.5, "x")),
                *((state(seconds=value), "its seconds") for value in (-1, NAN, "x")),
                (state(evaluations_from=-1), "its evaluations_from"),
                (state(evaluation_pending="x"), "its evaluation_pending"),
                *((state(settings=value), "damaged") for value in ({}, [])),
            ],
        ),
        (
            "trainer_state.json",
            [
                (state(global_step=400), "its global_step is 400, but the run has 4 steps"),
                (state(global_step=1), "its global_step is 1, but the folder is of step 4"),
                *((state(global_step=value), "its global_step is") for value in (-1, "x", 4.0, True, None)),
                *((state(best_metric=value), "its best_metric is") for value in (NAN, "x", [])),
                *((state(best_global_step=value), "its best_global_step is") for value in (-1, "x", 5)),
                *((state(log_history=value), "its log_history") for value in (5, [5], [{}], [{"step": 5}])),
                (state(log_history=[{"step": 2, "eval_loss": "x"}]), "eval_loss of step 2 in its log_history is 'x'"),
            ],
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_invalid_value_in_a_checkpoint_raises(run_to_damage, name, damages):
    output, new = run_to_damage
    path = output / "checkpoint-4" / name
    content = path.read_bytes()
    trainer = new()
    try:
        for number, (damage, message) in enumerate(damages):
            damage(path)
            with pytest.raises(ValueError, match=message) as error:
                trainer.train(resume_from_checkpoint=True)
            assert str(error.value).startswith(f"{path} is damaged"), number
            assert "Resume from the previous checkpoint" in str(error.value)
            path.write_bytes(content)
    finally:
        path.write_bytes(content)


def test_state_that_transformers_cannot_load_raises(run_to_damage):
    """Only transformers detects it, when training starts."""
    output, new = run_to_damage
    damages = {
        "trainer_state.json": state(stateful_callbacks={"TrainerControl": {"args": 5}}),
        "rng_state.pth": changed_by_torch(lambda state: state.update(cpu=torch.zeros(3))),
    }
    for name, damage in damages.items():
        path = output / "checkpoint-2" / name
        content = path.read_bytes()
        damage(path)
        try:
            trainer = new()
            trainer.args.restore_callback_states_from_checkpoint = True
            with pytest.raises(ValueError, match=r"is damaged, or not a file of this trainer") as error:
                trainer.train(resume_from_checkpoint=str(path.parent))
            assert str(error.value).startswith(str(path))
        finally:
            path.write_bytes(content)


def test_steps_skipped_by_the_float16_scaler_are_valid(tmp_path):
    entries = {0: {"exp_avg": torch.zeros(2), "exp_avg_sq": torch.zeros(2), "step": torch.tensor(3.0)}}
    optimizer = {"state": entries, "param_groups": [{"params": [0]}, {"params": []}]}
    files, shapes = ["optimizer.pt", "scheduler.pt"], [[torch.Size([2])], []]
    torch.save(optimizer, tmp_path / "optimizer.pt")
    torch.save({"last_epoch": 3, "_step_count": 4}, tmp_path / "scheduler.pt")
    check_optimizer_files(tmp_path, files, shapes, 3, exact=True)
    check_optimizer_files(tmp_path, files, shapes, 5, exact=False)
    for step, exact in ((5, True), (2, False)):
        with pytest.raises(ValueError, match=r"optimizer\.pt is damaged: its parameters were updated 3 times"):
            check_optimizer_files(tmp_path, files, shapes, step, exact)
    torch.save({"last_epoch": 2, "_step_count": 3}, tmp_path / "scheduler.pt")
    with pytest.raises(ValueError, match=r"scheduler\.pt is damaged: its last_epoch is 2 at step 5"):
        check_optimizer_files(tmp_path, files, shapes, 5, exact=False)
    torch.save({**optimizer, "state": {}}, tmp_path / "optimizer.pt")
    torch.save({"last_epoch": 0, "_step_count": 1}, tmp_path / "scheduler.pt")
    check_optimizer_files(tmp_path, files, shapes, 5, exact=False)


@pytest.mark.parametrize("value", ["", " ", 0])
def test_empty_resume_from_checkpoint_raises(run_to_damage, value):
    """An unset shell variable does not start a new run in the folder of another one."""
    output, new = run_to_damage
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*")}
    with pytest.raises(ValueError, match=r"--resume_from_checkpoint .* is empty"):
        new().train(resume_from_checkpoint=value)
    if isinstance(value, str):
        words = ["--train_data", "x", "--output_dir", str(output), "--use_cpu", "True"]
        for option in (["--resume_from_checkpoint", value], [f"--resume_from_checkpoint={value}"]):
            with pytest.raises(ValueError, match=r"--resume_from_checkpoint .* is empty"):
                main([*words, *option])
    assert before == {path: path.stat().st_mtime_ns for path in output.rglob("*")}


class Words(IterableDataset):
    def __init__(self, fail):
        self.fail = fail

    def __iter__(self):
        yield 1
        self.fail()
        yield 2


def value_error():
    raise ValueError("labels.tsv, line 3: no tab")


def key_error():
    raise KeyError("text")


def rejected():
    raise RejectedSampleError(Rejection.EMPTY, "it takes two arguments")


def kill():
    assert get_worker_info() is not None
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("fail", "error", "message"),
    [
        (value_error, ValueError, r"^labels\.tsv, line 3: no tab$"),
        (key_error, KeyError, "^'text'$"),
        (rejected, (ValueError, RuntimeError), "empty: it takes two arguments$"),
    ],
)
def test_worker_errors_equal_those_of_the_dataset(workers, fail, error, message):
    with pytest.raises(error, match=message) as caught:
        list(Loader(Words(fail), num_workers=workers))
    assert "worker process" not in str(caught.value)


def test_killed_worker_is_reported_in_one_sentence():
    with pytest.raises(ChildProcessError, match=r"^A data loading worker .* memory: use fewer workers") as caught:
        list(Loader(Words(kill), num_workers=1))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("message", "found"),
    [
        (
            "DataLoader worker (pid 7) is killed by signal: Killed. ",
            "killed (signal: Killed), most likely because the machine",
        ),
        (
            "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible",
            "bus error, most likely because /dev/shm",
        ),
        ("DataLoader worker (pid(s) 7, 8) exited unexpectedly", "ended unexpectedly"),
    ],
)
def test_messages_of_torch_about_killed_workers_are_translated(message, found):
    with pytest.raises(ChildProcessError) as error, plain_worker_errors():
        raise RuntimeError(message)
    assert found in str(error.value)
    with pytest.raises(RuntimeError, match=r"^another$"), plain_worker_errors():
        raise RuntimeError("another")


# Checks before training


def test_unknown_characters_of_evaluation_datasets_are_reported(tmp_path):
    held = make_folder(tmp_path / "held", ["abc", "caf\u00e9", "\u00e9t\u00e9", "a b", "A"])
    encoder = LabelEncoder("abcdefghijklmnopqrstuvwxyz")
    remark = check_evaluation_set(open_source(str(held)), encoder, "exact")  # a space is also a character
    assert remark is not None and "'\u00e9' (2), ' ' (1), 'A' (1). 4 of them cannot be predicted." in remark
    remark = check_evaluation_set(open_source(str(held)), encoder, "no_spaces")
    assert remark == (
        "Evaluation dataset held: 3 of 5 labels have characters outside the charset: '\u00e9' (2), 'A' (1). 2 of them cannot be "
        "predicted; in the others, the no_spaces protocol ignores these characters."
    )
    assert "0 of them cannot be predicted" in check_evaluation_set(open_source(str(held)), encoder, "alphanumeric")
    assert check_evaluation_set(open_source(str(held)), LabelEncoder("abceft\u00e9A"), "alphanumeric") is None


def test_unusable_evaluation_dataset_raises_before_training(tmp_path, folder):
    held = make_folder(tmp_path / "held", ["1", "2"])
    for number in range(2):
        (held / f"{number}.png").write_bytes(b"GIF8 not really")
    message = r"Evaluation dataset held cannot be used: none of its first 2 images is readable\."
    with pytest.raises(ValueError, match=message):
        run(tmp_path, folder, "--model", "nano", "--eval_data", str(held))
    assert not checkpoints(tmp_path)
    source = open_source(str(folder))

    def broken():
        yield "1"
        raise ValueError("shard.tar: 7.txt is not UTF-8.")

    source.texts = broken
    with pytest.raises(ValueError, match=r"Evaluation dataset data cannot be used: shard\.tar: 7\.txt is not UTF-8\."):
        check_evaluation_set(source, LabelEncoder(CHARSET), "alphanumeric")


def test_dataset_without_samples_raises(tmp_path):
    class Empty:
        name, num_samples, local = "empty", None, True

        def read(self):
            return iter(())

    with pytest.raises(ValueError, match="Training dataset empty has no samples"):
        check_not_empty([Empty()])
    with pytest.raises(ValueError, match="Evaluation dataset empty cannot be used: it has no samples"):
        check_evaluation_set(Empty(), LabelEncoder("a"), "alphanumeric")


# Skipped samples


def test_command_prints_skipped_samples_and_unreadable_images(tmp_path, folder, held, capsys, caplog):
    (held / "9.png").write_bytes(b"junk")
    run(tmp_path, folder, "--model", "nano", "--eval_data", str(held), "--eval_steps", "1", "--save_strategy", "no")
    line = "Evaluation dataset held: 1 of 10 images are unreadable and count as errors."
    assert caplog.text.count(line) == 1, "only once for evaluations with the same number"
    printed = capsys.readouterr()
    assert printed.out.splitlines()[-1] == line, "also in the summary"
    assert "samples read, 0 were skipped." in printed.err


def test_share_of_skipped_samples_is_reported(config, tmp_path):
    labels = [f"{number:03}" for number in range(16)] + ["", "caf\u00e9", "x" * 40, ""]
    args = arguments(tmp_path, max_steps=5)
    trainer = trainer_on(make_folder(tmp_path / "data", labels), SVTRv2ForCTC(config), args)
    trainer.train()
    trainer.counts.clear()
    trainer.counts.update({(0, "samples"): 2000, (0, "empty"): 2, (0, "too_long"): 10, (0, "dropped_characters"): 3})
    assert trainer.summarize_samples() == (
        "Of 2,000 samples read, 12 were skipped (0.6 %: 10 too long, 2 empty); 3 characters were removed from labels."
    )
    trainer.counts.clear()
    trainer.counts[0, "samples"] = 5
    assert trainer.summarize_samples() == "Of 5 samples read, 0 were skipped."


def test_command_prints_the_checkpoint_saved_after_an_error(tmp_path, folder, held, capsys, monkeypatch):
    fetch, calls = FileSource.fetch, []

    def failing(self, indices):
        if self.name == "held":
            calls.append(indices)
            if len(calls) > 1:  # after the check before training
                raise OSError("gone")
        return fetch(self, indices)

    monkeypatch.setattr(FileSource, "fetch", failing)
    with pytest.raises(ValueError, match="Evaluation dataset held cannot be read: gone"):
        run(tmp_path, folder, "--model", "nano", "--eval_data", str(held), "--save_strategy", "no")
    assert "out/checkpoint-3. To resume, add --resume_from_checkpoint True" in capsys.readouterr().err
