# SPDX-License-Identifier: Apache-2.0
"""Evaluation during training, and selection of the best model."""

import copy
import math
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors.torch import load_file
from tqdm import tqdm
from transformers import EvalPrediction
from transformers.trainer_utils import PredictionOutput, denumpify_detensorize
from transformers.utils import logging

from ..console import printable
from ..data.batches import EvaluationBatches
from ..data.loader import plain_worker_errors
from ..evaluation.benchmarks import default_protocol
from ..evaluation.metrics import Score
from ..evaluation.prediction import predict, score_predictions
from ..evaluation.protocols import EvaluationProtocol, check_protocol
from ..modeling_svtrv2 import SVTRv2ForCTC
from .loader import count_metrics, make_loader, summarize_counts
from .outputs import NumberedSource, Outputs
from .recovery import RecoveringTrainer
from .rows import evaluation_batches_of, evaluation_sets_of


logger = logging.get_logger(__name__)
# Of each evaluation dataset, and as means over the datasets.
METRICS = ("word_accuracy", "cer", "one_minus_ned", "loss")
LOWER_IS_BETTER = ("_cer", "_loss")


class EvaluatingTrainer(RecoveringTrainer):
    """The part of [`SVTRv2Trainer`] that logs and evaluates.

    Attributes:
        protocol: how predictions are compared with labels; `None` for that of the benchmark whose name a dataset has, or "exact".
        evaluations_from: index in the log history of the first evaluation to select the best model from. Earlier ones used other
            datasets, or their best model is not in the output folder.
    """

    def __init__(self, *args: Any, protocol: EvaluationProtocol | None = None, **kwargs: Any):
        if protocol is not None:
            check_protocol(protocol)
        super().__init__(*args, **kwargs)
        self.protocol = protocol
        self.evaluations_from = 0
        self._metric = f"eval_{(self.args.metric_for_best_model or METRICS[0]).removeprefix('eval_')}"
        if self._metric.endswith(LOWER_IS_BETTER):  # transformers only knows this of the loss
            self.args.greater_is_better = False
        self._last_log = time.perf_counter()
        self._epoch: float | None = None  # passes over the data, if the number of samples is known
        names = [*METRICS, *(_join(name, kind) for name in self.eval_dataset or () if name for kind in METRICS)]
        if self.eval_dataset and self.compute_metrics is None and self._metric.removeprefix("eval_") not in names:
            raise ValueError(
                f"--metric_for_best_model {self.args.metric_for_best_model} is not one of {', '.join(names)}."
            )

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        if "loss" in logs and self.stream is not None:
            now = time.perf_counter()
            counts, waited = zip(*self.processes.gather((self.counts, self.stream.waited)), strict=True)
            logs = {
                **logs,
                **count_metrics(sum(counts, Counter()), self.train_dataset.names),
                "data/waiting": round(max(waited) / (now - self._last_log), 4),
                "hours": round((now - self.started) / 3600, 4),
            }
            if length := self.train_dataset.num_samples:
                self._epoch = round(logs.get("data/samples", 0) / length, 4)
            self.stream.waited, self._last_log = 0.0, now
        self.state.epoch = self._epoch  # transformers regards an endless stream as one epoch
        super().log(logs, *args, **kwargs)

    def summarize_samples(self) -> str:
        """Return a sentence about the share of skipped samples; all processes call this together."""
        return summarize_counts(sum(self.processes.gather(self.counts), Counter()))

    @property
    def inference_model(self) -> SVTRv2ForCTC:
        """The model to evaluate and save: with the averaged weights, if there are any."""
        return self.model if self.averaged is None else cast(SVTRv2ForCTC, self.averaged.module)

    def evaluate(
        self,
        eval_dataset: Any = None,
        ignore_keys: list[str] | None = None,  # noqa: ARG002
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Evaluate on every dataset, each process on a part of it.

        Args:
            eval_dataset: evaluation batches, a dataset of rows, datasets by name, or the name of one of the evaluation datasets; all
                of these by default.
            ignore_keys: without effect, as only logits are used.
            metric_key_prefix: start of the names of the metrics.

        Returns:
            `eval_NAME_word_accuracy` (0 to 1), `eval_NAME_cer` (0 or more), `eval_NAME_one_minus_ned` (0 to 1), `eval_NAME_loss`
            (mean over samples) and `eval_NAME_samples` of each dataset; `eval_NAME_unreadable` and `eval_NAME_emptied` (labels
            without a character that the protocol compares) unless 0; the metrics of `compute_metrics`, which take precedence; and
            means over the datasets as `eval_...`. A dataset without a name has only the latter. Empty if training should stop: the
            evaluation is aborted and runs when training resumes.

        Raises:
            ValueError: no evaluation dataset, a dataset cannot be read, or `compute_metrics` does not return numbers.
        """
        start = time.perf_counter()
        self._evaluating = self.state.global_step > 0
        datasets = self._evaluation_sets(eval_dataset)
        metrics: dict[str, float] = {}
        if self.args.world_size > 1:
            # Batch statistics differ between processes; evaluate those of the model that is saved.
            for buffer in self.inference_model.buffers():
                torch.distributed.broadcast(buffer, src=0)
        kinds = list(METRICS)
        for name, batches in datasets.items():
            score, outputs = self._score(name, batches, self.compute_metrics is not None)
            if self.is_in_train and self.stop.requested_anywhere():
                self.stop.save_and_stop(self.control, evaluation_pending=True)
                return {}
            score = sum(self.processes.gather(score), Score())
            values = _figures(score)
            values |= {kind: count for kind in ("unreadable", "emptied") if (count := getattr(score, kind))}
            values["samples"] = score.samples
            if outputs is not None:
                computed = self._compute_metrics(*self._gather(outputs))
                kinds = list(dict.fromkeys([*kinds, *computed]))
                values |= computed
            metrics |= {f"{metric_key_prefix}_{_join(name, kind)}": value for kind, value in values.items()}
            if score.unreadable and self.is_world_process_zero():
                logger.warning_once(unreadable_images(name or "eval_dataset", values))
        for kind in kinds:
            total = sum(metrics.get(f"{metric_key_prefix}_{_join(name, kind)}", math.nan) for name in datasets)
            metrics[f"{metric_key_prefix}_{kind}"] = total / max(1, len(datasets))
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        self._last_log += time.perf_counter() - start  # training did not wait for data meanwhile
        return metrics

    def protocol_of(self, name: str) -> EvaluationProtocol:
        """Return the protocol of an evaluation dataset."""
        return self.protocol or default_protocol(name)

    def predict(
        self,
        test_dataset: Any,
        ignore_keys: list[str] | None = None,  # noqa: ARG002
        metric_key_prefix: str = "test",
    ) -> PredictionOutput:
        """Predict the images of a dataset, each process a part of them.

        Args:
            test_dataset: evaluation batches, or a dataset of rows with an image and optionally a text.
            ignore_keys: without effect, as only logits are used.
            metric_key_prefix: start of the names of the metrics.

        Returns:
            `predictions`, the logits in the order of the dataset, float32 of shape `(samples, frames, vocab_size)`, or the result
            of `preprocess_logits_for_metrics`; `label_ids` of shape `(samples, longest label)`; both padded with -100; and
            `metrics`, as of `evaluate`. Unreadable images have only padding. Without texts, `label_ids` is `None`.

        Raises:
            ValueError: the dataset cannot be read.
        """
        batches = evaluation_batches_of("test_dataset", test_dataset, self.collator, self.args, labels_required=False)
        score, outputs = self._score("test_dataset", batches, True)
        assert outputs is not None
        score = sum(self.processes.gather(score), Score())
        predictions, label_ids = self._gather(outputs)
        metrics: dict[str, float] = {"samples": score.samples}
        if has_labels := getattr(batches.source, "has_labels", True):
            metrics |= _figures(score)
            if self.compute_metrics is not None:
                metrics |= self._compute_metrics(predictions, label_ids)
        if score.unreadable:
            metrics["unreadable"] = score.unreadable
        metrics = {f"{metric_key_prefix}_{kind}": value for kind, value in metrics.items()}
        self.control = self.callback_handler.on_predict(self.args, self.state, self.control, metrics)
        return PredictionOutput(predictions, label_ids if has_labels else None, metrics)

    def _evaluation_sets(self, given: Any) -> Mapping[str, EvaluationBatches]:
        """Return the evaluation datasets by name; a single one has an empty name."""
        sets = self.eval_dataset if given is None else given
        if isinstance(sets, str):
            if sets not in (self.eval_dataset or {}):
                raise ValueError(f"No evaluation dataset is named {sets!r}: {', '.join(self.eval_dataset or ())}.")
            sets = {sets: cast(Mapping, self.eval_dataset)[sets]}
        if sets is None or (isinstance(sets, Mapping) and not sets):
            raise ValueError("Evaluation requires an eval_dataset.")
        return evaluation_sets_of(sets, self.collator, self.args)

    def _gather(self, outputs: Outputs) -> tuple[Any, np.ndarray]:
        """Return predictions and label ids of all processes."""
        rows: dict[int, Any] = {}
        for part in self.processes.gather(outputs.rows):
            rows |= part
        return Outputs.arrays(rows)

    def _compute_metrics(self, predictions: Any, label_ids: np.ndarray) -> dict[str, float]:
        assert self.compute_metrics is not None
        computed = denumpify_detensorize(self.compute_metrics(EvalPrediction(predictions, label_ids)))
        if others := [name for name, value in computed.items() if type(value) not in (int, float)]:
            raise ValueError(f"compute_metrics must return numbers, but {', '.join(others)} is not a number.")
        return {name.removeprefix("eval_"): value for name, value in computed.items()}

    def _score(self, name: str, batches: EvaluationBatches, with_outputs: bool) -> tuple[Score, Outputs | None]:
        """Score the part of this process."""
        score, failure = Score(), None
        outputs = None
        if with_outputs:
            outputs = Outputs(self.processing_class.tokenizer, self.preprocess_logits_for_metrics)
            batches = copy.copy(batches)
            batches.source = NumberedSource(batches.source)
        self._use_averages_of_optimizer()
        try:
            with plain_worker_errors(), closing(iter(make_loader(batches, self.args))) as loaded:
                watched = self._watch(loaded, name, batches.source.num_samples)
                predictions = predict(
                    self.inference_model,
                    self.processing_class,
                    watched,
                    self.accelerator.autocast,
                    False,
                    with_loss=True,
                    on_output=None if outputs is None else outputs.add,
                )
                if outputs is not None:
                    predictions = outputs.with_unreadable(predictions)
                score = score_predictions(predictions, self.protocol_of(name))
        except Exception as error:
            failure = error
        self._raise_together(failure)
        return score, outputs

    def _use_averages_of_optimizer(self) -> None:
        """Let an optimizer that averages weights (schedule-free) set those to evaluate and save, until the next step."""
        if callable(average := getattr(self.optimizer, "eval", None)):
            average()

    def _watch(self, loaded: Iterable[dict[str, Any]], name: str, number: int | None) -> Iterator[dict[str, Any]]:
        """Yield the batches with a progress bar until training should stop."""
        own = None if number is None else number // self.args.world_size
        hidden = self.args.disable_tqdm or not self.is_world_process_zero()
        with tqdm(
            desc=f"Evaluating {name}".rstrip(), total=own, unit=" images", leave=False, disable=hidden, delay=2
        ) as bar:
            try:
                for batch in loaded:
                    if self.is_in_train and self.stop.requested():
                        return
                    yield batch
                    bar.update(len(batch["samples"]) + len(batch["unreadable"]))
            except (ValueError, OSError) as error:
                raise ValueError(f"Evaluation dataset {name or 'eval_dataset'} cannot be read: {error}") from error

    @property
    def evaluations(self) -> list[dict[str, float]]:
        """The entries of the log history to select the best model from, which is not that before training."""
        history = self.state.log_history[self.evaluations_from :]
        return [entry for entry in history if entry["step"] and {"eval_loss", self._metric} <= entry.keys()]

    @property
    def best_evaluation(self) -> dict[str, float] | None:
        """The evaluation with the best metric; the lowest loss decides ties."""
        sign = 1 if self.args.greater_is_better is False else -1

        def rank(entry: dict[str, float]) -> list[float]:
            return [math.inf if math.isnan(v) else v for v in (sign * entry[self._metric], entry["eval_loss"])]

        return min(self.evaluations, key=rank, default=None)

    def update_best(self) -> None:
        """Set the best metric of the trainer state to that of the best evaluation."""
        best = self.best_evaluation
        self.state.best_metric = best and best[self._metric]
        self.state.best_global_step = best and best["step"]

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any = None) -> bool:  # noqa: ARG002
        if metrics and self._metric not in metrics:
            names = ", ".join(name.removeprefix("eval_") for name in metrics)
            raise ValueError(f"--metric_for_best_model {self.args.metric_for_best_model} is not one of {names}.")
        self.update_best()
        is_best = bool(metrics) and self.state.best_global_step == self.state.global_step
        if is_best:
            self.save_model_for_inference()
        self._evaluating = False
        return is_best

    def _run_pending_evaluation(self) -> None:
        if self.stop.evaluation_pending:
            self.stop.evaluation_pending = False
            self._determine_best_metric(self.evaluate())

    def evaluate_last_step(self) -> None:
        """Evaluate unless the last step has been evaluated, and save the model if it is the best."""
        if any(entry["step"] == self.state.global_step for entry in self.evaluations):
            return
        try:
            self._determine_best_metric(self.evaluate())
        except BaseException as error:
            self._save_after(error)
            raise

    def load_best_model(self) -> None:
        """Evaluate the last step, and load the best model of all evaluations from the output folder."""
        self.evaluate_last_step()
        self.accelerator.wait_for_everyone()
        if self.best_evaluation is not None:
            weights = load_file(Path(self.args.output_dir) / "model.safetensors")
            for model in {self.model, self.inference_model}:
                model.load_state_dict(weights)

    def save_model_for_inference(self, folder: str | None = None) -> None:
        """Save model and processor to a folder, by default the output folder; each file appears when it is complete.

        Raises:
            DivergedError: the weights are NaN or infinite.
        """
        self._use_averages_of_optimizer()
        self._raise_if_diverged()
        if self.args.should_save:
            target = Path(folder or self.args.output_dir)
            target.mkdir(parents=True, exist_ok=True)
            staging = target / self.staging_folder.name / "model"
            self.inference_model.save_pretrained(staging)
            self.processing_class.save_pretrained(staging)
            for path in staging.iterdir():
                path.replace(target / path.name)
            shutil.rmtree(staging.parent)


def _join(name: str, kind: str) -> str:
    return f"{name}_{kind}" if name else kind


def unreadable_images(name: str, metrics: Mapping[str, float]) -> str:
    """Return a sentence about unreadable images of an evaluation dataset."""
    unreadable, samples = metrics["unreadable"], metrics["samples"]
    return printable(
        f"Evaluation dataset {name}: {unreadable:,.0f} of {samples:,.0f} images are unreadable and count as errors."
    )


def _figures(score: Score) -> dict[str, float]:
    return dict(zip(METRICS, (score.word_accuracy, score.cer, score.one_minus_ned, score.mean_loss), strict=True))
