# SPDX-License-Identifier: Apache-2.0
"""transformers' Trainer, taught SVTRv2's batches, loss, schedule, evaluation and checkpoints."""

import json
import shutil
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import astuple
from itertools import islice
from pathlib import Path
from typing import Any, cast

import safetensors.torch
import torch
import torch._dynamo
import torch.nn.functional as F
from accelerate.utils import gather_object
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm
from transformers import TrainerState
from transformers.trainer_utils import TrainOutput, get_last_checkpoint, rotate_checkpoints

from ..console import printable
from ..data.batches import EvaluationBatches, Position, Progress, TrainingBatches
from ..data.loader import plain_worker_errors
from ..evaluation.evaluator import evaluate
from ..evaluation.metrics import Protocol, Score
from ..modeling_svtrv2 import SVTRv2Downsample, SVTRv2Embeddings, SVTRv2ForCTC
from .callbacks import EvaluateFirst, LearningCurve
from .checkpoint_files import (
    AVERAGED_WEIGHTS,
    DATA_STATE,
    check_optimizer_files,
    check_resume_value,
    check_weights,
    read_averaged_weights,
    read_states,
    reading,
)
from .loader import TrainingStream, make_loader, to_model_inputs
from .recovery import RecoveringTrainer


COMPILED_SIZES = 64  # in training and in evaluation, single images by themselves
KINDS = ("word_accuracy", "one_minus_ned", "loss")  # of figures, of each set and as means over the sets
PLACE = ("last_epoch", "_step_count")  # what a schedule takes from a checkpoint


class SVTRv2Trainer(RecoveringTrainer):
    """Trains [`SVTRv2ForCTC`] on [`TrainingBatches`], on any number of ranks.

    What differs from its parent: batches come ready made and of several sizes, and ranks draw them on their own; the loss is
    a mean over all samples of a step, over ranks and accumulated batches alike; weight decay and schedule are the paper's;
    evaluation adds up counts; what was read and rejected is logged as `data/...`; a checkpoint appears under its name only
    when it is complete, and resuming from it is exact; errors leave a checkpoint, as [`RecoveringTrainer`] does.

    Args:
        eval_dataset (`dict[str, EvaluationBatches]`, *optional*): the sets to evaluate on, by name.
        protocol ("english" or "chinese"): what readings must agree in.
        freeze_stages (`int`): leave the stem and so many stages of the backbone as they are.
        kwargs: as the parent's. `args` are [`SVTRv2TrainingArguments`].

    Raises:
        ValueError: one process is to use several devices, there is no such stage to freeze, or evaluation gives no such metric
            as the best model is to be best in.
    """

    optimizer: torch.optim.Optimizer | None
    lr_scheduler: LRScheduler | None
    model: SVTRv2ForCTC
    train_dataset: TrainingBatches
    eval_dataset: Mapping[str, EvaluationBatches] | None

    def __init__(self, *args: Any, protocol: Protocol = "english", freeze_stages: int = 0, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if self.args.n_gpu > 1:
            raise ValueError(
                f"One process cannot train on {self.args.n_gpu} devices: start one for each (accelerate launch), or choose "
                "one device with CUDA_VISIBLE_DEVICES."
            )
        self._check_metric()
        self.protocol = protocol
        self.freeze_stages = freeze_stages
        self.frozen = self._freeze(freeze_stages)
        self.add_callback(EvaluateFirst(self._make_up_for_evaluation))
        self.add_callback(LearningCurve)
        self.seed_shift = 0  # by which the order of the data was changed on going on inexactly
        self._last_log = self._started = time.perf_counter()
        self._seconds_before = 0.0  # of the parts of this run that came before
        self._epoch: float | None = None  # passes over the data so far, where their number is known
        self._evaluations_from = 0  # in the log; those before are of other sets, or their best model is not at hand
        self._staging: Path | None = None
        self._resumed_from: Path | None = None
        self._reported_unreadable: dict[str, int] = {}
        # The loss divides by the number of samples that `_get_num_items_in_batch` gives.
        self.model_accepts_loss_kwargs = True

    # The run

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any) -> Any:
        """Trains, from `resume_from_checkpoint` on exactly as if there had been no break.

        Args:
            resume_from_checkpoint: a checkpoint's folder; or `True` for the last one in the output folder.

        After an error, a checkpoint of the last complete step is saved where that is possible; a note on the error says so.

        Raises:
            ValueError: there is no checkpoint; or it is damaged or of another model; or data or settings differ from those that
                it was made with, and `resume_inexactly` is not set.
            DivergedError: the loss or the weights are NaN or infinite. No such weights are saved.
        """
        if resume_from_checkpoint is True:
            resume_from_checkpoint = get_last_checkpoint(self.args.output_dir)
            if resume_from_checkpoint is None:
                raise ValueError(f"There is no checkpoint in {self.args.output_dir} to resume from.")
        elif resume_from_checkpoint is not None and resume_from_checkpoint is not False:
            check_resume_value(resume_from_checkpoint)
        self._resumed_from = None if not resume_from_checkpoint else Path(str(resume_from_checkpoint))
        self.counts.clear()
        self._started, self._seconds_before = time.perf_counter(), 0.0
        self.train_dataset.start = Position()
        self._forget_failures()
        self._evaluations_from, self._epoch = 0, None
        self.stop_in_time.evaluation_due = False
        self._shift_seed(0)
        # Drop path and guidance draw other random numbers on each rank.
        torch.manual_seed(self.args.seed + self.args.process_index)
        if self.args.ema_decay is not None:
            average = get_ema_multi_avg_fn(self.args.ema_decay)
            self.averaged = AveragedModel(self.model, multi_avg_fn=average, use_buffers=True)
        if resume_from_checkpoint:
            state = self._restore(Path(str(resume_from_checkpoint)))
            self._saved_step = state.global_step
            if state.global_step >= self.args.max_steps:  # there is nothing left but what comes after training
                self._load_from_checkpoint(str(resume_from_checkpoint))
                if self.averaged is not None and not self.averaged.n_averaged:  # there was no average until now
                    self.averaged.module.load_state_dict(self.model.state_dict())
                self._forget_the_best_of_others(state)
                self.state = state
                self.state.is_world_process_zero = self.is_world_process_zero()
                return TrainOutput(state.global_step, 0.0, {})
        if self.args.should_save:
            shutil.rmtree(Path(self.args.output_dir) / ".saving", ignore_errors=True)  # of a run that was killed
        if self.args.torch_compile:
            # Each image size is compiled by itself. Beyond the limit, torch runs the other sizes uncompiled.
            torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, COMPILED_SIZES)
        try:
            with plain_worker_errors():
                return super().train(resume_from_checkpoint=resume_from_checkpoint or None, **kwargs)
        except BaseException as error:
            self._save_after(error)
            raise
        finally:
            if self._stream is not None:
                self._stream.close()
            self.stop_in_time.let_signals_be()

    def _check_metric(self) -> None:
        metric = self.args.metric_for_best_model
        if metric is None or not self.eval_dataset:
            return
        names = [*KINDS, *(f"{name}_{kind}" for name in self.eval_dataset for kind in KINDS)]
        if metric.removeprefix("eval_") not in names:
            raise ValueError(
                f"--metric_for_best_model {metric}: there is no such metric. There are {', '.join(names)}."
            )

    def _load_callback_state(self) -> None:
        assert self._resumed_from is not None
        with reading(self._resumed_from / "trainer_state.json"):
            super()._load_callback_state()
        self._forget_the_best_of_others(self.state)
        # The state has just been read from the checkpoint, and with it how often to log, evaluate and save; the arguments decide.
        self.state.compute_steps(self.args, self.args.max_steps)

    def get_train_dataloader(self) -> Any:
        loader = make_loader(self.train_dataset, self.args)
        self._stream = TrainingStream(loader, self.counts, self.train_dataset.start)
        return self._stream

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        return to_model_inputs(inputs, self.args.device)

    def get_batch_samples(
        self, epoch_iterator: Iterator[dict[str, Any]], num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Any]], torch.Tensor]:
        """The batches of a step, and how many samples they hold on all processes together.

        Where the data of one process fail, all of them raise an error.
        """
        batches: list[dict[str, Any]] = []
        failure = None
        try:
            with plain_worker_errors():
                batches.extend(islice(epoch_iterator, num_batches))
        except Exception as error:
            failure = error
        own = sum(len(batch["labels"]) for batch in batches)
        failures, number = self.stop_in_time.sum_over_processes(failure is not None, own)
        self._fail_together(failure, failures > 0)
        return batches, torch.tensor(int(number), device=device)

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        for module in self.frozen:
            module.eval()  # the Trainer has just put the whole model into training mode
        frame_labels = inputs.pop("frame_labels", None)
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        share = self._share_of_frame_labels()
        if frame_labels is not None and share:
            # As with CTC: summed over frames, a mean over samples, of all ranks.
            by_frames = F.cross_entropy(outputs.logits.float().flatten(0, 1), frame_labels.flatten(), reduction="sum")
            samples = len(frame_labels) if num_items_in_batch is None else num_items_in_batch
            loss = (1 - share) * loss + share * by_frames * self.args.world_size / samples
        return (loss, outputs) if return_outputs else loss

    def _share_of_frame_labels(self) -> float:
        """Of the loss: all of it in the first half of their steps, and less and less in the second."""
        steps = self.args.frame_label_steps
        return min(1.0, max(0.0, 2 - 2 * self.state.global_step / steps)) if steps else 0.0

    def _freeze(self, stages: int) -> list[torch.nn.Module]:
        backbone = self.model.svtrv2
        if not 0 <= stages <= len(backbone.stages):
            raise ValueError(f"freeze_stages={stages}: the backbone has stages 1 to {len(backbone.stages)}.")
        frozen = [backbone.embeddings, *backbone.stages[:stages]] if stages else []
        for module in frozen:
            module.requires_grad_(False)
        return frozen

    # Optimiser and schedule

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """AdamW without weight decay on vectors, and on the convolutions of stem and downsampling.

        As upstream's `openrec/optimizer` with `filter_bias_and_bn` and the encoder's `no_weight_decay`.
        """
        if self.optimizer is None:
            decayed, spared = _parameter_groups(self.model if model is None else model)
            self.optimizer = torch.optim.AdamW(
                [
                    {"params": decayed, "weight_decay": self.args.weight_decay},
                    {"params": spared, "weight_decay": 0.0},
                ],
                lr=self.args.learning_rate,
                betas=(self.args.adam_beta1, self.args.adam_beta2),
                eps=self.args.adam_epsilon,
            )
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> LRScheduler:
        """One cycle (paper, section 4.1): up to the learning rate over `warmup_steps` of the steps, then down to 0."""
        if self.lr_scheduler is None:
            warmup = self.args.get_warmup_steps(num_training_steps)
            if warmup > num_training_steps:
                raise ValueError(
                    f"--warmup_steps {warmup} is more than the {num_training_steps} steps of the whole training. Below 1, it is a "
                    "share of them."
                )
            self.lr_scheduler = OneCycleLR(
                optimizer or self.create_optimizer(),
                max_lr=self.args.learning_rate,
                total_steps=num_training_steps,
                # torch divides by zero where the way up is a single step
                pct_start=warmup / num_training_steps if warmup > 1 else 0.0,
                cycle_momentum=False,
            )
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Takes the place in the schedule from the checkpoint; its length and all hyperparameters are those of this run."""
        scheduler, optimizer = self.lr_scheduler, self.optimizer
        assert scheduler is not None and optimizer is not None
        shape = {}
        if isinstance(scheduler, OneCycleLR):
            shape = {name: value for name, value in vars(scheduler).items() if name not in PLACE}
        rates = [
            {name: value for name, value in group.items() if name not in ("params", "lr")}
            for group in optimizer.param_groups
        ]
        if checkpoint is not None:
            with reading(Path(checkpoint) / "optimizer.pt"):
                super()._load_optimizer_and_scheduler(checkpoint)
        vars(scheduler).update(shape)
        for group, own in zip(optimizer.param_groups, rates, strict=True):
            group.update(own)
        with warnings.catch_warnings(action="ignore"):  # of asking for rates between the steps
            scheduler._last_lr = scheduler.get_lr()
        for group, rate in zip(optimizer.param_groups, scheduler._last_lr, strict=True):
            group["lr"] = rate

    # Logs and evaluation

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        if "loss" in logs and self._stream is not None:
            now = time.perf_counter()
            own = [(dict(self.counts), self._stream.waited)]
            total: Counter[tuple[int, str]] = Counter()
            waited = 0.0
            for counts, seconds in gather_object(own) if self.args.world_size > 1 else own:
                total.update(counts)
                waited = max(waited, seconds)
            logs = {
                **logs,
                **self._describe(total),
                "data/waiting": round(waited / (now - self._last_log), 4),
                "hours": round(self._seconds() / 3600, 4),
            }
            if length := self.train_dataset.num_samples:
                self._epoch = round(logs.get("data/samples", 0) / length, 4)
            self._stream.waited, self._last_log = 0.0, now
        self.state.epoch = self._epoch  # to the parent, an endless stream is one epoch
        super().log(logs, *args, **kwargs)

    def _seconds(self) -> float:
        """Since training began, over all its parts, without the breaks between."""
        return self._seconds_before + time.perf_counter() - self._started

    def _describe(self, counts: Counter[tuple[int, str]]) -> dict[str, float]:
        """The counts as log entries: all together, and by source where there are several."""
        described: Counter[str] = Counter()
        names = self.train_dataset.names
        for (number, name), count in sorted(counts.items()):
            described[f"data/{name}"] += count
            if len(names) > 1:
                described[f"data/{names[number]}/{name}"] += count
        return dict(described)

    def skipped(self) -> str:
        """A sentence about the share of samples that were skipped, and why. All processes call this together."""
        total: Counter[str] = Counter()
        own = [dict(self.counts)]
        for counts in gather_object(own) if self.args.world_size > 1 else own:
            for (_, name), count in counts.items():
                total[name] += count
        read, dropped = total.pop("samples", 0), total.pop("dropped_characters", 0)
        number = total.total()
        sentence = f"Of {read:,} samples read, {number:,} were skipped"
        if number:
            reasons = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in total.most_common())
            sentence += f" ({100 * number / read:.2g} %: {reasons})"
        return sentence + (f"; {dropped:,} characters were dropped from labels." if dropped else ".")

    @property
    def recogniser(self) -> SVTRv2ForCTC:
        """The model that is evaluated and saved for use: of the averaged weights, if there are any."""
        return self.model if self.averaged is None else cast(SVTRv2ForCTC, self.averaged.module)

    def evaluate(
        self, eval_dataset: Mapping[str, EvaluationBatches] | None = None, metric_key_prefix: str = "eval", **_: Any
    ) -> dict[str, float]:
        """Reads every set, each rank a part of it, and adds up the scores.

        Returns:
            For each set `eval_NAME_word_accuracy`, `eval_NAME_one_minus_ned`, `eval_NAME_loss` (the mean over samples),
            `eval_NAME_samples`, and `eval_NAME_unreadable` and `eval_NAME_emptied` (labels of which the protocol leaves
            nothing) if there are any; the means over the sets of the first three under `eval_...`. All in 0..1 but the loss.
            Nothing, if training is to stop: then the evaluation is broken off, and made up for on resuming.
        """
        start = time.perf_counter()
        self._evaluating = True
        sets = eval_dataset or self.eval_dataset or {}
        metrics: dict[str, float] = {}
        if self.args.world_size > 1:
            # Each rank has gathered the statistics of its own batches; evaluated is the recogniser that is saved.
            for buffer in self.recogniser.buffers():
                torch.distributed.broadcast(buffer, src=0)
        for name, batches in sets.items():
            score, failure = Score(), None
            try:
                with plain_worker_errors(), closing(iter(make_loader(batches, self.args))) as loaded:
                    watched = self._watched(loaded, name, batches)
                    score = evaluate(
                        self.recogniser, self.processing_class, watched, self.protocol, self.accelerator.autocast
                    )
            except Exception as error:
                failure = error
            self._fail_together(failure, self.stop_in_time.on_any_process(failure is not None))
            if self.is_in_train and self.stop_in_time.agreed():
                self.stop_in_time.save_and_stop(self.control, evaluation_left=True)
                return {}
            score = self._sum_over_ranks(score)
            values = (score.word_accuracy, score.one_minus_ned, score.mean_loss)
            metrics |= {f"{metric_key_prefix}_{name}_{kind}": value for kind, value in zip(KINDS, values, strict=True)}
            metrics[f"{metric_key_prefix}_{name}_samples"] = score.samples
            if score.unreadable:
                metrics[f"{metric_key_prefix}_{name}_unreadable"] = score.unreadable
                self._report_unreadable(name, int(score.unreadable), int(score.samples))
            if score.emptied:
                metrics[f"{metric_key_prefix}_{name}_emptied"] = score.emptied
        for kind in KINDS:
            metrics[f"{metric_key_prefix}_{kind}"] = sum(
                metrics[f"{metric_key_prefix}_{name}_{kind}"] for name in sets
            ) / max(1, len(sets))
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        self._last_log += time.perf_counter() - start  # nobody waited for training data meanwhile
        return metrics

    def _report_unreadable(self, name: str, unreadable: int, samples: int) -> None:
        """Prints a line on the main process, unless the last evaluation did with the same number."""
        if self.is_world_process_zero() and self._reported_unreadable.get(name) != unreadable:
            tqdm.write(printable(unreadable_images(name, unreadable, samples)), file=sys.stderr)
            self._reported_unreadable[name] = unreadable

    def _watched(
        self, loaded: Iterable[dict[str, Any]], name: str, batches: EvaluationBatches
    ) -> Iterator[dict[str, Any]]:
        """The batches with a progress bar, and no more of them once training is to stop."""
        number = batches.source.num_samples
        own = None if number is None else number // self.args.world_size
        hidden = self.args.disable_tqdm or not self.is_world_process_zero()
        with tqdm(desc=f"Evaluating {name}", total=own, unit=" images", leave=False, disable=hidden, delay=2) as bar:
            try:
                for batch in loaded:
                    if self.is_in_train and self.stop_in_time.told():
                        return
                    yield batch
                    bar.update(len(batch["samples"]) + len(batch["unreadable"]))
            except (ValueError, OSError) as error:
                raise ValueError(f"The evaluation set {name} cannot be read: {error}") from error

    @property
    def evaluations(self) -> list[dict[str, float]]:
        """The log's entries of evaluations among which the best model was chosen."""
        return [entry for entry in self.state.log_history[self._evaluations_from :] if "eval_loss" in entry]

    def _make_up_for_evaluation(self) -> None:
        if self.stop_in_time.evaluation_due:
            self.stop_in_time.evaluation_due = False
            self._determine_best_metric(self.evaluate(), trial=None)

    def evaluate_at_the_end(self) -> None:
        """Evaluates, unless the last step just did, and keeps the model if it is the best."""
        if any(entry["step"] == self.state.global_step for entry in self.evaluations):
            return
        try:
            self._determine_best_metric(self.evaluate(), trial=None)
        except BaseException as error:
            self._save_after(error)
            raise

    def _sum_over_ranks(self, score: Score) -> Score:
        if self.args.world_size == 1:
            return score
        sums = torch.tensor(astuple(score), dtype=torch.float64, device=self.args.device)
        torch.distributed.all_reduce(sums)
        return Score(*sums.tolist())

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        is_best = False
        if metrics:  # not of an evaluation that was broken off
            is_best = self._wins_a_tie(metrics) or super()._determine_best_metric(metrics, trial)
        if is_best:
            self.save_recogniser()
        self._evaluating = False
        return is_best

    def _wins_a_tie(self, metrics: dict[str, float]) -> bool:
        """Whether this evaluation is as good as the best one before, and has a lower loss."""
        name = f"eval_{(self.args.metric_for_best_model or '').removeprefix('eval_')}"
        if name not in metrics or metrics[name] != self.state.best_metric:
            return False
        losses = [
            entry["eval_loss"]
            for entry in self.evaluations
            if entry[name] == metrics[name] and entry["step"] < self.state.global_step
        ]
        if not losses or metrics["eval_loss"] >= min(losses):
            return False
        self.state.best_global_step = self.state.global_step
        return True

    # Saving and resuming

    def save_recogniser(self) -> None:
        """Saves the recogniser and its processor into the output folder, for use.

        Each file appears when it is complete.

        Raises:
            DivergedError: its weights are NaN or infinite.
        """
        self._stop_if_diverged()
        if self.args.should_save:
            staging = Path(self.args.output_dir) / ".saving" / "recogniser"
            self.recogniser.save_pretrained(staging)
            self.processing_class.save_pretrained(staging)
            for path in staging.iterdir():
                path.replace(Path(self.args.output_dir) / path.name)
            shutil.rmtree(staging.parent)

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._staging or super()._get_output_dir(trial))

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        """Writes the checkpoint aside and renames it when it is complete, so that a kill leaves no half of one.

        Raises:
            DivergedError: the weights are NaN or infinite.
        """
        self._stop_if_diverged()
        run = Path(super()._get_output_dir(trial))
        name = f"checkpoint-{self.state.global_step}"
        self._staging = run / ".saving"
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self._staging = None
        states = self._data_states()  # of all ranks, which have thereby all written their parts
        if self.args.should_save:
            complete = run / ".saving" / name
            # The best recogniser lies in the output folder; the parent notes where this checkpoint lies now, and not for long.
            self.state.best_model_checkpoint = None
            self.state.save_to_json(str(complete / "trainer_state.json"))
            (complete / DATA_STATE).write_text(json.dumps(states, indent=1))
            if self.averaged is not None:
                safetensors.torch.save_file(self.averaged.state_dict(), complete / AVERAGED_WEIGHTS)
            if (run / name).exists():  # of a run that went this way before
                (run / name).rename(run / ".saving" / "replaced")
            complete.rename(run / name)
            shutil.rmtree(run / ".saving")
            rotate_checkpoints(str(run), save_total_limit=self.args.save_total_limit, use_mtime=True)
        self.accelerator.wait_for_everyone()
        self._saved_step = self.state.global_step

    def _data_states(self) -> dict[str, Any]:
        assert self._stream is not None
        counts = [[number, name, count] for (number, name), count in self.counts.items()]
        position = self._stream.position
        own = {"taken": position.taken, "workers": position.workers, "counts": counts}
        ranks = gather_object([own]) if self.args.world_size > 1 else [own]
        settings = {**self._settings(), "seed": self.train_dataset.seed - self.seed_shift}
        return {
            "settings": settings,
            "seed_shift": self.seed_shift,
            "seconds": self._seconds(),
            "best_among": self._best_among(),
            "evaluations_from": self._evaluations_from,
            "evaluation_due": self.stop_in_time.evaluation_due,
            "ranks": ranks,
        }

    def _best_among(self) -> dict[str, Any]:
        """What figures of evaluation must have in common to be compared."""
        sets = {name: batches.source.num_samples for name, batches in (self.eval_dataset or {}).items()}
        return {"metric": self.args.metric_for_best_model, "protocol": self.protocol, "eval_data": sets}

    def _settings(self) -> dict[str, Any]:
        """All that decides which data come next, and what is made of them."""
        return {
            "processes": self.args.world_size,
            "dataloader_num_workers": self.args.dataloader_num_workers,
            "gradient_accumulation_steps": self.args.gradient_accumulation_steps,
            "max_steps": self.args.max_steps,
            "learning_rate": self.args.learning_rate,
            "warmup_steps": self.args.warmup_steps,
            "weight_decay": self.args.weight_decay,
            "adam_beta1": self.args.adam_beta1,
            "adam_beta2": self.args.adam_beta2,
            "adam_epsilon": self.args.adam_epsilon,
            "max_grad_norm": self.args.max_grad_norm,
            "bf16": self.args.bf16,
            "fp16": self.args.fp16,
            "ema_decay": self.args.ema_decay,
            "frame_label_steps": self.args.frame_label_steps,
            "freeze_stages": self.freeze_stages,
            **self.train_dataset.settings(),
        }

    def _restore(self, checkpoint: Path) -> TrainerState:
        """Sets data and averaged weights to where the checkpoint left them; the parent restores the rest."""
        if not checkpoint.is_dir():
            raise ValueError(f"There is no checkpoint {checkpoint} to resume from.")
        states, state = read_states(checkpoint)
        now, before = json.loads(json.dumps(self._settings())), states["settings"]
        self._check_model(checkpoint, before)
        # older checkpoints hold fewer settings
        differing = [name for name in now if name in before and now[name] != before[name]]
        if not differing:
            own = states["ranks"][self.args.process_index]
            # older checkpoints hold only how many batches each worker has formed
            workers = own.get("workers") or [(formed,) for formed in own["formed"]]
            self.train_dataset.start = Position(own["taken"], [Progress(*worker) for worker in workers])
            self._shift_seed(states["seed_shift"])
            self._add_counts(own["counts"])
        elif self.args.resume_inexactly:
            self._shift_seed(states["seed_shift"] + state.global_step)  # another order than the one that was begun
            if self.args.process_index == 0:
                for rank in states["ranks"]:
                    self._add_counts(rank["counts"])
        else:
            raise ValueError(
                f"{checkpoint} was made with other settings than this run has: "
                + "; ".join(f"{name} was {before[name]!r} and is {now[name]!r}" for name in differing)
                + ". With the same settings, training goes on exactly as if it had never stopped. To go on with these, "
                "reading the data in a new order, pass --resume_inexactly True."
            )
        self._seconds_before = states.get("seconds", 0.0)
        self.stop_in_time.evaluation_due = states.get("evaluation_due", False)
        self._evaluations_from = states.get("evaluations_from", 0)
        if states.get("best_among", self._best_among()) != self._best_among():
            self._begin_evaluations_anew(state, "other sets, another metric or another protocol decide now")
        elif not (Path(self.args.output_dir) / "model.safetensors").is_file():
            self._begin_evaluations_anew(state, f"{self.args.output_dir} does not hold it")
        files = ["optimizer.pt", "scheduler.pt"]
        if self.args.world_size == before.get("processes"):
            files.append(self._random_file)
        if self.args.fp16 and before.get("fp16"):
            files.append("scaler.pt")
        # The scaler of float16 skips steps, also of a run that went on inexactly from one with it.
        exact = not before.get("fp16", True) and not states["seed_shift"]
        check_optimizer_files(checkpoint, files, self._optimizer_shapes(), state.global_step, exact)
        if self.averaged is not None and before.get("ema_decay") is not None:
            averaged = read_averaged_weights(checkpoint)
            with reading(checkpoint / AVERAGED_WEIGHTS):
                self.averaged.load_state_dict(averaged)
        return state

    def _optimizer_shapes(self) -> list[list[torch.Size]] | None:
        if self.optimizer is None:
            groups = _parameter_groups(self.model)
        elif isinstance(getattr(self.optimizer, "optimizer", self.optimizer), torch.optim.AdamW):
            groups = [group["params"] for group in self.optimizer.param_groups]
        else:
            return None
        return [[parameter.shape for parameter in group] for group in groups]

    @property
    def _random_file(self) -> str:
        return "rng_state.pth" if self.args.world_size == 1 else f"rng_state_{self.args.process_index}.pth"

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        with reading(Path(checkpoint) / self._random_file):
            super()._load_rng_state(checkpoint)

    def _begin_evaluations_anew(self, state: TrainerState, why: str) -> None:
        if state.best_metric is not None and self.is_world_process_zero():
            warnings.warn(f"The best model until now is passed over, since {why}.", stacklevel=2)
        self._evaluations_from = len(state.log_history)

    def _forget_the_best_of_others(self, state: TrainerState) -> None:
        if not any("eval_loss" in entry for entry in state.log_history[self._evaluations_from :]):
            state.best_metric = state.best_global_step = None

    def _check_model(self, checkpoint: Path, before: dict[str, Any]) -> None:
        """Refuses what no run can go on with: weights and optimiser would not fit.

        Raises:
            ValueError: model, charset or frozen stages were others.
        """
        shapes = check_weights(checkpoint)
        if shapes != {name: tuple(tensor.shape) for name, tensor in self.model.state_dict().items()}:
            difference = "another model, or another number of characters"
        elif before.get("charset") != self._settings()["charset"]:
            difference = "another charset"
        elif before.get("freeze_stages", self.freeze_stages) != self.freeze_stages:
            difference = f"--freeze_stages {before['freeze_stages']}"
        else:
            return
        raise ValueError(
            f"{checkpoint} was made with {difference}, and this run cannot go on from it. To begin a new run with its weights, "
            f"pass --model {checkpoint} and another --output_dir."
        )

    def _shift_seed(self, shift: int) -> None:
        self.train_dataset.seed += shift - self.seed_shift
        self.seed_shift = shift

    def _add_counts(self, counts: list[list[Any]]) -> None:
        self.counts.update({(number, name): count for number, name, count in counts})


def unreadable_images(name: str, unreadable: int, samples: int) -> str:
    """A sentence about images of an evaluation set that could not be read."""
    return f"Evaluation set {name}: {unreadable:,} of {samples:,} images could not be read and count as wrong."


def _parameter_groups(model: torch.nn.Module) -> list[list[torch.nn.Parameter]]:
    """Trainable parameters with weight decay, and those without."""
    spared = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, (SVTRv2Embeddings, SVTRv2Downsample))
        for parameter in module.parameters()
    }
    groups: dict[bool, list[torch.nn.Parameter]] = {True: [], False: []}
    for parameter in model.parameters():
        if parameter.requires_grad:
            groups[parameter.ndim > 1 and id(parameter) not in spared].append(parameter)
    return [groups[True], groups[False]]
