"""Training by our own script."""

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import CHARSET
from test_data import make_folder
from torch.optim.lr_scheduler import OneCycleLR

from svtrv2_hf import SVTRv2Config, SVTRv2ForCTC, SVTRv2ImageProcessor, SVTRv2Processor
from svtrv2_hf.data.buckets import BucketBatches
from svtrv2_hf.data.folder import read_folder
from svtrv2_hf.data.labels import LabelEncoder
from svtrv2_hf.training.arguments import SVTRv2TrainingArguments, parse_arguments
from svtrv2_hf.training.train import main
from svtrv2_hf.training.trainer import SVTRv2Trainer


SCRIPT = Path(__file__).parents[1] / "scripts" / "train.py"


@pytest.fixture
def folder(tmp_path):
    return make_folder(tmp_path / "data", [f"{number:03}" for number in range(40)] + [f"{n:07}" for n in range(24)])


def arguments(tmp_path, **kwargs):
    defaults = {"max_steps": 4, "per_device_train_batch_size": 4, "save_strategy": "no", "use_cpu": True}
    return SVTRv2TrainingArguments(str(tmp_path / "out"), disable_tqdm=True, **{**defaults, **kwargs})


def trainer_on(folder, model, args, batch_size=4):
    batches = BucketBatches(read_folder(folder), LabelEncoder(CHARSET), SVTRv2ImageProcessor(), batch_size)
    return SVTRv2Trainer(model, args, train_dataset=batches)


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

    assert len({batch["pixel_values"].shape[-2:] for batch in batches}) == 2
    reference.train()
    total = sum(len(batch["labels"]) for batch in batches)
    for batch in batches:
        output = reference(batch["pixel_values"], labels=batch["labels"])
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
    assert logged["data/empty label"] >= 1
    assert logged["data/characters outside the charset"] >= 1


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
    }

    def trainer():
        torch.manual_seed(1)
        return trainer_on(folder, SVTRv2ForCTC(config), arguments(tmp_path, **options))

    whole = trainer()
    whole.train()
    resumed = trainer()
    resumed.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-3"))
    losses = [[entry["loss"] for entry in t.state.log_history if "loss" in entry] for t in (whole, resumed)]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 6
    assert whole.counts == resumed.counts
    for (name, parameter), other in zip(whole.model.named_parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(parameter, other), name


def test_several_processes_are_refused(config, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(SVTRv2TrainingArguments, "world_size", 2)
    with pytest.raises(ValueError, match="one process on one device so far, not on 2 x"):
        trainer_on(folder, SVTRv2ForCTC(config), arguments(tmp_path))


def test_nothing_to_resume_from(config, folder, tmp_path):
    with pytest.raises(ValueError, match="no checkpoint in"):
        trainer_on(folder, SVTRv2ForCTC(config), arguments(tmp_path)).train(resume_from_checkpoint=True)


def run(tmp_path, folder, *words):
    main(
        [
            "--output_dir", str(tmp_path / "out"), "--train_data", str(folder), "--max_steps", "3",
            "--per_device_train_batch_size", "4", "--use_cpu", "True", "--disable_tqdm", "True", *words,
        ]
    )  # fmt: skip
    return tmp_path / "out"


def test_a_run_from_scratch_and_on(folder, tmp_path, capsys):
    charset = tmp_path / "charset.txt"
    charset.write_text("\n".join("0123456789") + "\n")
    saved = run(
        tmp_path, folder, "--model", "nano", "--charset", str(charset), "--max_ratio", "6", "--eval_data", str(folder)
    )
    assert "data\t64 samples\tword accuracy 0." in capsys.readouterr().out
    model = SVTRv2ForCTC.from_pretrained(saved)
    assert model.config.vocab_size == 11
    assert model.config.hidden_sizes == SVTRv2Config.preset("nano").hidden_sizes
    assert SVTRv2Processor.from_pretrained(saved).image_processor.max_ratio == 6
    assert (saved / "modeling_svtrv2.py").is_file(), "what is trained can be shared"
    assert json.loads((saved / "checkpoint-3" / "trainer_state.json").read_text())["global_step"] == 3

    again = run(tmp_path / "again", folder, "--model", str(saved))
    assert SVTRv2Processor.from_pretrained(again).image_processor.max_ratio == 6
    assert SVTRv2ForCTC.from_pretrained(again).config.vocab_size == 11


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "large", "--max_steps", "3"], "large"),
        (["--max_steps", "-1"], "--max_steps must tell"),
        (["--charset", "{digits}"], r"40 of 104 labels have characters outside the charset: 'ab'"),
    ],
)
def test_errors_before_training(folder, tmp_path, words, message):
    more = make_folder(tmp_path / "more", [f"ab{number}" for number in range(40)])
    digits = tmp_path / "digits.txt"
    digits.write_text("\n".join("0123456789"))
    words = [word.format(digits=digits) for word in words]
    with pytest.raises((ValueError, OSError), match=message):
        run(tmp_path, folder, "--train_data", str(folder), str(more), *words)


def test_recipes(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("train_data: [a, b]\nmodel: nano\noutput_dir: out\nlearning_rate: 1.0e-3\nmax_steps: 10\n")
    chosen, arguments = parse_arguments([str(recipe), "--max_steps", "20"])
    assert (chosen.train_data, chosen.model) == (["a", "b"], "nano")
    assert (arguments.learning_rate, arguments.max_steps) == (1e-3, 20)
    recipe.write_text("- a\n- b\n")
    with pytest.raises(ValueError, match="must map the names"):
        parse_arguments([str(recipe)])


def test_the_script(folder, tmp_path):
    done = subprocess.run(
        [
            sys.executable, SCRIPT, "--output_dir", tmp_path / "out", "--train_data", folder, "--model", "nano",
            "--max_steps", "2", "--per_device_train_batch_size", "4", "--use_cpu", "True",
        ],
        capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "model.safetensors").is_file()


@pytest.mark.slow
def test_learns_to_read(tmp_path):
    """Four hundred steps of nano on drawn numbers read other numbers."""
    import random

    rng = random.Random(0)
    numbers = sorted({str(rng.randrange(10_000, 100_000)) for _ in range(600)})
    rng.shuffle(numbers)
    train, held_out = make_folder(tmp_path / "train", numbers[:500]), make_folder(tmp_path / "test", numbers[500:])
    charset = tmp_path / "charset.txt"
    charset.write_text("\n".join("0123456789"))
    saved = run(
        tmp_path, train, "--model", "nano", "--charset", str(charset), "--max_steps", "400", "--learning_rate", "1e-3",
        "--per_device_train_batch_size", "16",
    )  # fmt: skip
    from transformers import pipeline

    from svtrv2_hf.evaluation.metrics import word_accuracy

    samples = read_folder(held_out)
    readings = pipeline("text-recognition", str(saved))([str(sample.path) for sample in samples], batch_size=32)
    texts = [reading["generated_text"] for [reading] in readings]
    assert word_accuracy(texts, [sample.text for sample in samples]) > 0.9
