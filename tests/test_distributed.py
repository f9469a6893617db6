"""Training on two ranks."""

import json
from pathlib import Path

import pytest
import torch
from conftest import make_folder
from ranks import run_on_ranks
from safetensors.torch import load_file
from test_training import arguments, trainer_on
from two_ranks import CONFIG

from svtrv2_hf import SVTRv2Config, SVTRv2ForCTC


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """The folder with the results of two ranks."""
    root = tmp_path_factory.mktemp("two_ranks")
    make_folder(root / "data", [f"{number:03}" for number in range(40)] + [f"{n:07}" for n in range(24)] + [""])
    make_folder(root / "held", [f"{number:03}" for number in range(11)] + ["caf\u00e9", "a line of words"])
    run_on_ranks(Path(__file__).parent / "two_ranks.py", [root], 2, root)
    return root


@pytest.fixture(scope="module")
def results(root):
    return [json.loads((root / f"results_{rank}.json").read_text()) for rank in range(2)]


def test_gradient_is_the_mean_over_the_samples_of_all_ranks(root):
    model = SVTRv2ForCTC(SVTRv2Config(**CONFIG, drop_path_rate=0.0))
    model.load_state_dict(load_file(root / "initial_0.safetensors"))
    model.train()
    batches = []
    for rank in range(2):
        tensors = load_file(root / f"batches_{rank}.safetensors")
        batches += [{name: tensors[f"{i}.{name}"] for name in ("pixel_values", "labels")} for i in range(2)]
    sizes = [(*batch["pixel_values"].shape[-2:], len(batch["labels"])) for batch in batches]
    assert len(set(sizes[:2]) | set(sizes[2:])) > 1, "batches of several sizes"
    total = sum(len(batch["labels"]) for batch in batches)
    for batch in batches:
        batch["pixel_values"] = batch["pixel_values"].contiguous(memory_format=torch.channels_last)
        (model(**batch).loss * len(batch["labels"]) / total).backward()
    first, second = (load_file(root / f"gradients_{rank}.safetensors") for rank in range(2))
    expected = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
    for gradients in (first, second):
        found = torch.cat([gradients[name].flatten() for name, _ in model.named_parameters()])
        assert ((found - expected).norm() / expected.norm()).item() < 1e-6


@pytest.mark.parametrize("workers", [0, 2])
def test_ranks_have_equal_parameters(root, workers):
    first, second = (load_file(root / f"parameters_{workers}_{rank}.safetensors") for rank in range(2))
    for name, parameter in first.items():
        assert torch.equal(parameter, second[name]), name


@pytest.mark.parametrize("workers", [0, 2])
def test_resuming_is_exact_on_both_ranks(results, workers):
    for result in (ranks[f"resuming_{workers}"] for ranks in results):
        assert len(result["losses"]) == 6
        assert result["losses"] == result["resumed_losses"]
        assert result["same_parameters"]
        assert result["same_counts"]


def test_counts_are_summed_over_ranks(results):
    logged = {ranks["resuming_0"]["logged_samples"] for ranks in results}
    assert logged == {sum(ranks["resuming_0"]["own_samples"] for ranks in results)}


def test_all_ranks_stop_after_the_same_step(results, root):
    assert [ranks["stopping"]["step"] for ranks in results] == [3, 3]
    assert [ranks["stopping"]["reason"] for ranks in results] == ["another process was asked to stop", "test"]
    assert (root / "stop" / "out" / "checkpoint-3" / "data_state.json").is_file()


def test_evaluation_equals_that_of_one_process(results, root):
    torch.manual_seed(1)
    model = SVTRv2ForCTC(SVTRv2Config(**CONFIG))
    single = trainer_on(root / "data", model, arguments(root / "single"), root / "held").evaluate()
    assert single["eval_held_samples"] == 13
    for ranks in results:
        assert ranks["evaluation"] == pytest.approx(single, rel=1e-5)


def test_predictions_of_all_ranks_are_in_the_order_of_the_dataset(results, root):
    torch.manual_seed(1)
    trainer = trainer_on(
        root / "data", SVTRv2ForCTC(SVTRv2Config(**CONFIG)), arguments(root / "single"), root / "held"
    )
    single = trainer.predict(trainer.eval_dataset["held"])
    assert trainer.processing_class.batch_decode(single.label_ids[:11], group_tokens=False) == [
        f"{number:03}" for number in range(11)
    ]
    for ranks in results:
        prediction = ranks["prediction"]
        assert prediction["labels"] == single.label_ids.tolist()
        assert prediction["frames"] == single.predictions.argmax(-1).tolist()
        assert prediction["metrics"] == pytest.approx(single.metrics, rel=1e-5)


def test_evaluation_uses_the_statistics_that_are_saved(results, root):
    model = SVTRv2ForCTC(SVTRv2Config(**CONFIG))
    model.load_state_dict(load_file(root / "evaluated_0.safetensors"))
    single = trainer_on(root / "data", model, arguments(root / "single"), root / "held").evaluate()
    for ranks in results:
        assert ranks["evaluation_after_training"]["eval_held_loss"] == pytest.approx(
            single["eval_held_loss"], rel=1e-5
        )


def test_resuming_with_another_number_of_processes_raises(root):
    model = SVTRv2ForCTC(SVTRv2Config(**CONFIG))
    trainer = trainer_on(root / "data", model, arguments(root / "single", gradient_accumulation_steps=2, max_steps=6))
    with pytest.raises(ValueError, match=r"checkpoint-3 was made with other settings: processes was 2 and is 1; "):
        trainer.train(resume_from_checkpoint=str(root / "resume0" / "out" / "checkpoint-3"))


@pytest.mark.parametrize(
    ("failure", "message"), [("data", "OSError: the disk"), ("held", "ValueError: Evaluation dataset held")]
)
def test_error_of_one_rank_stops_all_with_a_checkpoint(results, root, failure, message):
    first, second = (ranks[failure] for ranks in results)
    assert first["error"].startswith("ChildProcessError: Training stops because another process failed")
    assert second["error"].startswith(message)
    assert first["notes"] == second["notes"] and "To resume, add" in first["notes"][0]
    [checkpoint] = (root / f"{failure}_fails" / "out").glob("checkpoint-*")
    assert str(checkpoint) in first["notes"][0]
    states = json.loads((checkpoint / "data_state.json").read_text())
    step = json.loads((checkpoint / "trainer_state.json").read_text())["global_step"]
    assert [rank["taken"] for rank in states["ranks"]] == [2 * step, 2 * step]
    assert states["evaluation_pending"] == (failure == "held")


def test_divergence_of_one_rank_stops_all(results, root):
    for ranks in results:
        assert ranks["diverged"]["error"].startswith("DivergedError: Training has diverged by step 2")
    assert [path.name for path in (root / "diverged" / "out").glob("checkpoint-*")] == ["checkpoint-1"]
