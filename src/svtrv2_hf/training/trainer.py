# SPDX-License-Identifier: Apache-2.0
"""The Trainer of transformers with SVTRv2's batches, loss, schedule, evaluation and checkpoints."""

import shutil
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import torch._dynamo
import torch.nn.functional as F
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import TrainerState, TrainingArguments
from transformers.trainer_utils import HubStrategy, IntervalStrategy, TrainOutput

from ..data.collator import SVTRv2DataCollator
from ..data.loader import plain_worker_errors
from .arguments import Schedule, SVTRv2TrainingArguments
from .callbacks import CallAt
from .checkpoint_files import reading
from .checkpointing import Checkpoints, find_checkpoint, random_state_file
from .evaluating import EvaluatingTrainer
from .loader import TrainingStream, make_loader, to_model_inputs
from .optimization import check_schedule, create_one_cycle, decayed_parameters, load_states
from .record import LearningCurve
from .requirements import check_trainer
from .rows import evaluation_sets_of, in_steps, training_batches_of
from .upload import upload


COMPILED_SIZES = 64  # image sizes in training and evaluation, of single images and of batches

# The private part of transformers' Trainer that this package relies on: parameters of methods, and attributes. A test compares it
# with the installed version.
PRIVATE_METHODS = {
    "_determine_best_metric": ("metrics", "trial"),  # saves the best model, decides ties by the loss
    "_get_output_dir": ("trial",),  # redirects checkpoints to the staging folder
    "_load_callback_state": (),  # runs after the trainer state was read, which must not override the arguments
    "_load_from_checkpoint": ("resume_from_checkpoint", "model"),  # called for a run that is already complete
    "_load_optimizer_and_scheduler": ("checkpoint",),  # keeps the hyperparameters of this run if they have changed
    "_load_rng_state": ("checkpoint",),  # reports a damaged file
    "_maybe_log_save_evaluate": (  # the place to detect divergence
        *("tr_loss", "grad_norm", "model", "trial", "epoch", "ignore_keys_for_eval", "start_time", "learning_rate"),
    ),
    "_prepare_inputs": ("inputs",),  # converts bytes to pixel values on the device
    "_push_from_checkpoint": ("checkpoint_folder",),  # would upload a checkpoint that is not complete
    "_save_checkpoint": ("model", "trial"),  # makes checkpoints atomic and adds the state of the data
}
PRIVATE_ATTRIBUTES = (
    "_created_lr_scheduler",  # set, because create_scheduler is overridden
    "_globalstep_last_logged",  # read to correct losses that overflowed
)


class SVTRv2Trainer(EvaluatingTrainer):
    """Trainer of [`SVTRv2ForCTC`] on [`TrainingBatches`] with any number of processes.

    Differs from `Trainer` as follows: the dataset yields complete batches with one image size each, and every process reads its
    own shard; the loss is the mean over all samples of a step, across processes and accumulated batches; the paper's weight decay,
    and its schedule by default; evaluation compares texts; samples read and skipped are logged as `data/...`;
    checkpoints are complete or absent, and resuming is exact; after errors a checkpoint is saved, see [`RecoveringTrainer`].

    Args:
        model ([`SVTRv2ForCTC`]): model to train.
        args ([`SVTRv2TrainingArguments`] or `TrainingArguments`, *optional*): arguments; plain ones keep their values.
        data_collator ([`SVTRv2DataCollator`], *optional*): columns and label rules for datasets of rows. The trainer itself forms
            their batches.
        train_dataset: [`TrainingBatches`]; or a dataset of rows with an image and a text, map-style or iterable.
        eval_dataset: [`EvaluationBatches`], a dataset of rows, or several of them by name.
        processing_class ([`SVTRv2Processor`]): processor of the model.
        protocol (`str`, *optional*): "exact", "case_insensitive", "alphanumeric" or "no_spaces"; by default "exact", and for datasets
            with the name of a benchmark, that of the benchmark.
        freeze_stages (`int`): number of stages of the backbone to freeze together with the stem.
        kwargs: `compute_metrics`, `preprocess_logits_for_metrics`, `callbacks`, `optimizers` and `optimizer_cls_and_kwargs`, as of
            `Trainer`.

    Raises:
        ValueError: an argument cannot be honored, one process has several devices, the model has fewer stages, or the metric for
            the best model does not exist.
    """

    def __init__(
        self,
        model: Any = None,
        args: TrainingArguments | None = None,
        data_collator: Any = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        freeze_stages: int = 0,
        **kwargs: Any,
    ):
        arguments = SVTRv2TrainingArguments.complete(args)
        if arguments.n_gpu > 1:
            raise ValueError(
                f"One process cannot train on {arguments.n_gpu} devices: start one process per device (accelerate launch), or "
                "select one device with CUDA_VISIBLE_DEVICES."
            )
        check_trainer(model, processing_class, data_collator, train_dataset, kwargs)
        self.collator = data_collator or SVTRv2DataCollator(processing_class)
        if train_dataset is not None:
            train_dataset = training_batches_of(train_dataset, self.collator, arguments)
            if arguments.data_seed is not None:
                train_dataset.seed = arguments.data_seed
            arguments = in_steps(arguments, train_dataset)
        if eval_dataset is not None:
            eval_dataset = evaluation_sets_of(eval_dataset, self.collator, arguments)
        super().__init__(model, arguments, None, train_dataset, eval_dataset, processing_class, **kwargs)
        self.frozen = self._freeze(freeze_stages)
        self.checkpoints = Checkpoints(self, freeze_stages)
        # `add_callback` warns about a second callback of one class
        functions = {"on_train_begin": self._run_pending_evaluation, "on_step_end": self._log_evaluated_step}
        self.callback_handler.callbacks.append(CallAt(**functions))
        self.add_callback(LearningCurve)
        # The loss divides by the number of samples that `get_batch_samples` returns.
        self.model_accepts_loss_kwargs = True

    def _freeze(self, stages: int) -> list[torch.nn.Module]:
        backbone = self.model.svtrv2
        if not 0 <= stages <= len(backbone.stages):
            raise ValueError(f"freeze_stages={stages}: the backbone has stages 1 to {len(backbone.stages)}.")
        frozen = [backbone.embeddings, *backbone.stages[:stages]] if stages else []
        for module in frozen:
            module.requires_grad_(False)
        return frozen

    # Training

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """Train, and resume from a checkpoint as if training had not been interrupted.

        After an error, a checkpoint of the last complete step is saved if possible; a note on the error says so.

        Args:
            resume_from_checkpoint: folder of a checkpoint, or `True` for the last one in the output folder.

        Raises:
            ValueError: the checkpoint does not exist, is damaged, or is of another model; or data or settings differ from those of
                the checkpoint, and `resume_inexactly` is not set.
            DivergedError: the loss or the weights are NaN or infinite. Such weights are not saved.
        """
        if self.train_dataset is None:
            raise ValueError("Training requires a train_dataset.")
        checkpoint = find_checkpoint(resume_from_checkpoint, self.args.output_dir)
        self._reset_recovery()
        self.checkpoints.reset()
        # Drop path and guidance use different random numbers in each process.
        torch.manual_seed(self.args.seed + self.args.process_index)
        if self.args.ema_decay is not None:
            average = get_ema_multi_avg_fn(self.args.ema_decay)
            self.averaged = AveragedModel(self.model, multi_avg_fn=average, use_buffers=True)
        if checkpoint is not None:
            state = self.checkpoints.restore(checkpoint)
            self._saved_step = state.global_step
            if state.global_step >= self.args.max_steps:
                return self._restore_complete_run(checkpoint, state)
        if self.args.should_save:
            shutil.rmtree(self.staging_folder, ignore_errors=True)  # left by a process that was killed
        if self.args.torch_compile:
            # Each image size is compiled separately. Beyond the limit, torch does not compile further sizes.
            torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, COMPILED_SIZES)
        try:
            with plain_worker_errors():
                result = super().train(checkpoint and str(checkpoint), *args, **kwargs)
        except BaseException as error:
            self._save_after(error)
            raise
        finally:
            if self.stream is not None:
                self.stream.close()
            self.stop.restore_signal_handlers()
        if self.args.load_best_model_at_end and self.stop.reason is None:
            self.load_best_model()
        return result

    def _log_evaluated_step(self) -> None:
        """Log the loss before each evaluation, even if a stop postpones it, and at the end, also in short runs."""
        evaluated = self.control.should_evaluate or self.stop.evaluation_pending
        if evaluated or self.state.global_step >= self.state.max_steps:
            self.control.should_log = self.args.logging_strategy != IntervalStrategy.NO

    def _restore_complete_run(self, checkpoint: Path, state: TrainerState) -> TrainOutput:
        self._load_from_checkpoint(str(checkpoint))
        if self.averaged is not None and not self.averaged.n_averaged:  # the run had no average
            self.averaged.module.load_state_dict(self.model.state_dict())
        self.state = state
        self.update_best()
        self.state.is_world_process_zero = self.is_world_process_zero()
        return TrainOutput(state.global_step, 0.0, {})

    def get_train_dataloader(self) -> Any:
        self.stream = TrainingStream(make_loader(self.train_dataset, self.args), self.counts, self.train_dataset.start)
        return self.stream

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        return to_model_inputs(inputs, self.args.device)

    def get_batch_samples(
        self, epoch_iterator: Iterator[dict[str, Any]], num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Any]], torch.Tensor]:
        """Return the batches of a step and the number of their samples on all processes.

        If the data of one process fail, all processes raise an error.
        """
        batches: list[dict[str, Any]] = []
        failure = None
        try:
            with plain_worker_errors():
                batches.extend(islice(epoch_iterator, num_batches))
        except Exception as error:
            failure = error
        own = failure is not None, sum(len(batch["labels"]) for batch in batches)
        failed, samples = zip(*self.processes.gather(own), strict=True)
        if any(failed):
            self._raise_together(failure)
        return batches, torch.tensor(sum(samples), device=device)

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        for module in self.frozen:
            module.eval()  # transformers sets the whole model to training mode
        frame_labels = inputs.pop("frame_labels", None)
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        steps = self.args.frame_label_steps
        # the share of frame labels in the loss: 1 in the first half of their steps, decreasing to 0 in the second half
        share = min(1.0, max(0.0, 2 - 2 * self.state.global_step / steps)) if steps else 0.0
        if frame_labels is not None and share:
            # as with CTC: the sum over frames, and the mean over the samples of all processes
            by_frames = F.cross_entropy(outputs.logits.float().flatten(0, 1), frame_labels.flatten(), reduction="sum")
            samples = len(frame_labels) if num_items_in_batch is None else num_items_in_batch
            loss = (1 - share) * loss + share * by_frames * self.args.world_size / samples
        return (loss, outputs) if return_outputs else loss

    def get_decay_parameter_names(self, model: torch.nn.Module) -> list[str]:
        return decayed_parameters(model)

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> LRScheduler:
        if self.lr_scheduler is not None:
            return self.lr_scheduler
        check_schedule(self.args, num_training_steps)
        optimizer = optimizer or self.create_optimizer()
        try:
            if self.args.lr_scheduler_type != Schedule.ONE_CYCLE:
                return super().create_scheduler(num_training_steps, optimizer)
            self.lr_scheduler = create_one_cycle(optimizer, self.args, num_training_steps)
        except TypeError as error:
            raise ValueError(
                f"--lr_scheduler_kwargs {self.args.lr_scheduler_kwargs} do not fit --lr_scheduler_type "
                f"{self.args.lr_scheduler_type.value}: {error}."
            ) from error
        self._created_lr_scheduler = True
        return self.lr_scheduler

    # Saving and resuming

    def _get_output_dir(self, trial: Any) -> str:
        return str(self.staging_folder if self.checkpoints.is_staging else super()._get_output_dir(trial))

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        self._raise_if_diverged()
        with self.checkpoints.staged():
            super()._save_checkpoint(model, trial)
        self._saved_step = self.state.global_step
        if self.args.push_to_hub and self.args.hub_strategy != HubStrategy.END:
            if not self.eval_dataset:
                self.save_model_for_inference()
            upload(self, Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}")

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Do nothing: the checkpoint is in the staging folder, and uploaded when it is complete."""

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the model to a folder, by default the output folder, and upload it if `push_to_hub` is set.

        With `ema_decay`, the averaged weights are saved.
        """
        if self.checkpoints.is_staging:
            super().save_model(output_dir, _internal_call)
        elif not _internal_call:
            self.save_model_for_inference(output_dir)
            if self.args.push_to_hub:
                self.push_to_hub(commit_message="Model save", revision=self.args.hub_revision)
        elif self.best_evaluation is None or not (Path(self.args.output_dir) / "model.safetensors").is_file():
            self.save_model_for_inference()  # otherwise, `push_to_hub` uploads the best model

    def push_to_hub(self, *args: Any, **kwargs: Any) -> Any:
        """Upload the output folder without checkpoints: the best model of the evaluations, or the last one without evaluation."""
        if self.args.should_save:
            shutil.rmtree(self.staging_folder, ignore_errors=True)  # left by an error
        return super().push_to_hub(*args, **kwargs)

    def _load_callback_state(self) -> None:
        assert self.checkpoints.resumed_from is not None
        with reading(self.checkpoints.resumed_from / "trainer_state.json"):
            super()._load_callback_state()
        self.update_best()
        # The state was read from the checkpoint with its logging, evaluation and save steps; the arguments override them.
        self.state.compute_steps(self.args, self.args.max_steps)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        assert self.lr_scheduler is not None and self.optimizer is not None
        if checkpoint is not None:
            load_states(Path(checkpoint), self.optimizer, self.lr_scheduler, self.checkpoints.is_exact)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            with reading(Path(checkpoint) / random_state_file(self.args)):
                super()._load_rng_state(checkpoint)
