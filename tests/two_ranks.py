"""The script that test_distributed.py runs on two ranks: two_ranks.py FOLDER."""

import json
import sys
from pathlib import Path

import torch
from conftest import CHARSET
from safetensors.torch import save_file
from test_training import arguments, trainer_on
from transformers import TrainerCallback

from svtrv2_hf import SVTRv2Config, SVTRv2ForCTC


# The fixture `config` of conftest.py, with drop path, which uses different random numbers on each rank.
CONFIG = {
    "vocab_size": len(CHARSET) + 1,
    "hidden_sizes": [16, 32, 32],
    "depths": [1, 2, 1],
    "num_attention_heads": [2, 2, 2],
    "num_convolution_blocks": [1, 1, 0],
}


def new_trainer(root, out, drop_path_rate=0.1, **options):
    torch.manual_seed(1)
    model = SVTRv2ForCTC(SVTRv2Config(**CONFIG, drop_path_rate=drop_path_rate))
    args = arguments(root / out, gradient_accumulation_steps=2, logging_steps=1, **options)
    assert args.world_size == 2
    return trainer_on(root / "data", model, args, eval_folder=root / "held", augment=True)


def parameters(trainer):
    return {name: parameter.detach().clone() for name, parameter in trainer.model.named_parameters()}


def losses(trainer):
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def one_gradient(root, rank):
    """Save the gradient of a step over four batches, two on each rank, and the batches."""
    trainer = new_trainer(root, "gradient", drop_path_rate=0.0, max_steps=1)
    gradients, batches = {}, []

    class Spy(torch.optim.SGD):
        def step(self, closure=None):
            gradients.update({name: p.grad.clone() for name, p in trainer.model.named_parameters()})

    trainer.optimizer = Spy(trainer.model.parameters(), lr=1.0)
    save_file(trainer.model.state_dict(), root / f"initial_{rank}.safetensors")
    prepare = trainer._prepare_inputs

    def recording(inputs):
        prepared = prepare(inputs)
        batches.append(prepared)
        return prepared

    trainer._prepare_inputs = recording
    trainer.train()
    tensors = {f"{number}.{name}": t.contiguous() for number, batch in enumerate(batches) for name, t in batch.items()}
    save_file(tensors, root / f"batches_{rank}.safetensors")
    save_file(gradients, root / f"gradients_{rank}.safetensors")


def resuming(root, rank, workers):
    options = {"max_steps": 6, "save_strategy": "steps", "save_steps": 3, "dataloader_num_workers": workers}
    whole = new_trainer(root, f"resume{workers}", **options)
    whole.train()
    resumed = new_trainer(root, f"resume{workers}", **options)
    resumed.train(resume_from_checkpoint=str(root / f"resume{workers}" / "out" / "checkpoint-3"))
    save_file(parameters(whole), root / f"parameters_{workers}_{rank}.safetensors")
    logged = [entry for entry in whole.state.log_history if "loss" in entry]
    return {
        "same_parameters": all(
            torch.equal(a, b) for a, b in zip(parameters(whole).values(), parameters(resumed).values(), strict=True)
        ),
        "losses": losses(whole),
        "resumed_losses": losses(resumed),
        "same_counts": whole.counts == resumed.counts,
        "own_samples": whole.counts[0, "samples"],
        "logged_samples": logged[-1]["data/samples"],
    }


def stopping(root, rank):
    """Request a stop only on rank 1."""
    trainer = new_trainer(root, "stop", max_steps=50)
    if rank == 1:
        step = trainer.training_step
        done = []

        def training_step(*args, **kwargs):
            done.append(1)
            if len(done) == 5:
                trainer.stop.reason = "test"
            return step(*args, **kwargs)

        trainer.training_step = training_step
    trainer.train()
    return {"step": trainer.state.global_step, "reason": trainer.stop.reason}


def evaluating_after_training(root, rank):
    """Evaluate with batch statistics that differ between ranks; only those of rank 0 are saved."""
    trainer = new_trainer(root, "after", max_steps=2)
    trainer.train()
    for buffer in trainer.model.buffers():
        buffer += rank
    metrics = trainer.evaluate()
    save_file(trainer.model.state_dict(), root / f"evaluated_{rank}.safetensors")
    return metrics


def predicting(root, rank):
    trainer = new_trainer(root, "predict")
    prediction = trainer.predict(trainer.eval_dataset["held"])
    return {
        "labels": prediction.label_ids.tolist(),
        "frames": prediction.predictions.argmax(-1).tolist(),
        "metrics": prediction.metrics,
    }


def failing(root, rank, out, fail, **options):
    """Let training fail only on rank 1."""
    trainer = new_trainer(root, out, max_steps=6, **options)
    if rank == 1:
        fail(trainer)
    try:
        trainer.train()
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}", "notes": getattr(error, "__notes__", [])}


def fail_to_read(source, after):
    """Let a source fail after a number of images."""
    fetch, read = source.fetch, []

    def failing_fetch(indices):
        read.extend(indices)
        if len(read) > after:
            raise OSError("the disk is gone")
        return fetch(indices)

    source.fetch = failing_fetch


class Poison(TrainerCallback):
    """Set batch statistics to NaN after the second step."""

    def on_step_end(self, args, state, control, model, **kwargs):
        if state.global_step == 2:
            next(model.buffers()).fill_(float("nan"))


def main():
    root = Path(sys.argv[1])
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    one_gradient(root, rank)
    results = {f"resuming_{workers}": resuming(root, rank, workers) for workers in (0, 2)}
    results["stopping"] = stopping(root, rank)
    results["evaluation"] = new_trainer(root, "evaluate").evaluate()
    results["evaluation_after_training"] = evaluating_after_training(root, rank)
    results["prediction"] = predicting(root, rank)
    results["data"] = failing(root, rank, "data_fails", lambda t: fail_to_read(t.train_dataset.sources[0], 50))
    results["held"] = failing(
        root,
        rank,
        "held_fails",
        lambda t: fail_to_read(t.eval_dataset["held"].source, 0),
        eval_strategy="steps",
        eval_steps=2,
    )
    results["diverged"] = failing(
        root, rank, "diverged", lambda t: t.add_callback(Poison), save_strategy="steps", save_steps=1
    )
    (root / f"results_{rank}.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main()
