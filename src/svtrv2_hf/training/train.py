# SPDX-License-Identifier: Apache-2.0
"""The training run behind `scripts/train.py` and `svtrv2 train`."""

import math
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import set_seed
from transformers.trainer_utils import get_last_checkpoint
from transformers.utils import logging

from ..charsets import Normalization, charset_of
from ..console import printable
from ..data.augmentation import Augmentation
from ..data.batches import BucketBatches, EvaluationBatches
from ..data.labels import LabelEncoder
from ..data.normalized import NormalizedSource
from ..data.sample import Source
from ..evaluation.metrics import usual_protocol
from ..processing_svtrv2 import SVTRv2Processor
from ..sources import open_source
from ..synthetic.batches import SyntheticBatches
from ..synthetic.source import SyntheticSource
from .arguments import DataAndModelArguments, SVTRv2TrainingArguments, parse_arguments
from .checkpoint_files import check_resume_value
from .model import model_and_processor
from .probe import check_characters, check_evaluation_set, check_not_empty
from .record import RunRecord
from .trainer import SVTRv2Trainer, unreadable_images


def main(argv: Sequence[str]) -> None:
    """Trains a recogniser and saves it as a Hub folder: the best one of its evaluations, or the last.

    Stopped before its end (`--max_hours`, SIGTERM, Ctrl-C), it leaves a checkpoint to go on from.

    Raises:
        KeyboardInterrupt: by Ctrl-C; the checkpoint has been saved if it was the first one during training.
        ValueError: labels have characters outside the charset; an evaluation set cannot be read; the output folder holds another
            run; settings contradict.
        DivergedError: the loss or the weights are NaN or infinite.
    """
    chosen, arguments = parse_arguments(argv)
    set_seed(arguments.seed)
    logging.disable_progress_bar()  # of loading and saving, which take no time
    resume = _resume_from(arguments)
    model, processor = model_and_processor(chosen)
    with arguments.main_process_first(desc="opening the data"):  # which may build what the others then find
        sources = _open_sources(chosen.train_data, chosen.normalize)
        held_out = _open_sources(chosen.eval_data, chosen.normalize, "test")
    encoder = LabelEncoder(charset_of(processor.tokenizer), chosen.max_label_length, chosen.unknown_characters)
    protocol = chosen.protocol or usual_protocol(charset_of(processor.tokenizer))
    if arguments.process_index == 0:
        check_not_empty(sources)
        if chosen.unknown_characters == "error":
            check_characters(sources, encoder)
        for source in held_out:
            if remark := check_evaluation_set(source, encoder, protocol):
                _tell(arguments, remark)
    batches = _batches(chosen, arguments, sources, encoder, processor)
    if arguments.max_steps < 1:
        step = arguments.world_size * arguments.gradient_accumulation_steps
        arguments.max_steps = math.ceil(arguments.num_train_epochs * batches.batches_per_epoch() / step)
    if not held_out:
        arguments.eval_strategy = "no"
    trainer = SVTRv2Trainer(
        model,
        arguments,
        train_dataset=batches,
        eval_dataset={
            source.name: EvaluationBatches(source, processor.image_processor, arguments.per_device_eval_batch_size)
            for source in held_out
        },
        processing_class=processor,
        protocol=protocol,
        freeze_stages=chosen.freeze_stages,
    )
    trainer.add_callback(RunRecord(argv))
    _tell(
        arguments,
        f"Training {model.num_parameters(only_trainable=True) / 1e6:.2f} M of {model.num_parameters() / 1e6:.2f} M "
        f"parameters on {batches.num_samples or 'an unknown number of'} samples for {arguments.max_steps} steps.",
    )
    try:
        trainer.train(resume_from_checkpoint=resume)
        _tell(arguments, trainer.skipped())
        if trainer.stop_in_time.reason is None:
            _finish(trainer, [source.name for source in held_out])
    except BaseException as error:
        for note in getattr(error, "__notes__", []):  # of what is saved
            _tell(arguments, note)
        raise
    if trainer.stop_in_time.reason:
        _tell(
            arguments,
            f"Stopped after step {trainer.state.global_step} of {trainer.state.max_steps}: {trainer.stop_in_time.reason}. The "
            "same command with --resume_from_checkpoint True goes on.",
        )
        if trainer.stop_in_time.interrupted:
            raise KeyboardInterrupt  # so that nothing begins that was to come after this run


def _finish(trainer: SVTRv2Trainer, held_out: Sequence[str]) -> None:
    """Saves the best model, or the last one where nothing is evaluated."""
    if not held_out:
        trainer.save_recogniser()
    else:
        trainer.evaluate_at_the_end()
        _print_best(trainer, held_out)
    _tell(trainer.args, f"Saved to {trainer.args.output_dir}.")


def _batches(
    chosen: DataAndModelArguments,
    arguments: SVTRv2TrainingArguments,
    sources: Sequence[Source],
    encoder: LabelEncoder,
    processor: SVTRv2Processor,
) -> BucketBatches | SyntheticBatches:
    """Drawn text alone comes straight from the renderer; with other sources, or augmented, as samples like theirs."""
    rules = (encoder, processor.image_processor, arguments.per_device_train_batch_size, arguments.seed)
    [first, *others] = sources
    straight = not chosen.augment_operations and processor.image_processor.fixed_height is None
    if isinstance(first, SyntheticSource) and not others and straight:
        on_gpu = arguments.device.type == "cuda" and not arguments.dataloader_num_workers
        device = arguments.device if on_gpu else "cpu"
        return SyntheticBatches(first, *rules, device=device, with_frame_labels=arguments.frame_label_steps > 0)
    if arguments.frame_label_steps:
        raise ValueError(
            "--frame_label_steps needs drawn text alone, without augmentation (--train_data synthetic: --augment_operations 0): of "
            "nothing else it is known where the characters stand."
        )
    augmentation = None
    if chosen.augment_operations:
        augmentation = Augmentation(chosen.augment_operations, magnitude=chosen.augment_magnitude, seed=arguments.seed)
    return BucketBatches(sources, *rules, augmentation)


def _open_sources(specs: Sequence[str], normalize: Normalization, split: str = "train") -> list[Source]:
    sources = [open_source(spec, split) for spec in specs]
    if normalize != "none":  # rendered text is what its charset says
        sources = [
            source if isinstance(source, SyntheticSource) else NormalizedSource(source, normalize)
            for source in sources
        ]
    names = Counter(source.name for source in sources)
    if twice := [name for name, number in names.items() if number > 1]:
        raise ValueError(
            f"Several sources are named {', '.join(twice)}: name them by ?name=..., so that logs can tell."
        )
    return sources


def _resume_from(arguments: SVTRv2TrainingArguments) -> str | None:
    """The checkpoint to go on from.

    Raises:
        ValueError: it starts anew where a run has left checkpoints, which would mix the two; there is none to go on from; or the value
            is empty.
    """
    resume = arguments.resume_from_checkpoint
    if resume is not None:
        check_resume_value(resume)
    output = Path(arguments.output_dir)
    last = get_last_checkpoint(output) if output.is_dir() else None
    if resume is None or resume.lower() in ("false", "no"):
        if last is not None:
            raise ValueError(
                f"{last} is of an earlier run: pass --resume_from_checkpoint True to go on with it, or another "
                "--output_dir, or remove it."
            )
        return None
    if resume.lower() in ("true", "yes"):
        if last is None:
            raise ValueError(f"There is no checkpoint in {output} to resume from.")
        return last
    return resume


def _print_best(trainer: SVTRv2Trainer, names: Sequence[str]) -> None:
    if trainer.args.process_index:
        return
    metric = (trainer.args.metric_for_best_model or "word_accuracy").removeprefix("eval_")
    evaluations = trainer.evaluations
    sign = -1 if trainer.args.greater_is_better else 1
    best = min(evaluations, key=lambda entry: (sign * entry[f"eval_{metric}"], entry["eval_loss"]))
    print(f"Best of {len(evaluations)} evaluations, at step {best['step']}:")
    rows: list[tuple[Any, ...]] = [("set", "samples", "word accuracy", "1-NED", "loss")]
    for name in names:
        values = [best[f"eval_{name}_{kind}"] for kind in ("samples", "word_accuracy", "one_minus_ned", "loss")]
        rows.append((name, f"{values[0]:.0f}", f"{100 * values[1]:.2f}", f"{100 * values[2]:.2f}", f"{values[3]:.3f}"))
    width = max(len(str(row[0])) for row in rows)
    for name, *values in rows:
        print(f"{name:{width}}" + "".join(f"{value:>15}" for value in values))
    for name in names:
        if unreadable := best.get(f"eval_{name}_unreadable"):
            print(printable(unreadable_images(name, int(unreadable), int(best[f"eval_{name}_samples"]))))


def _tell(arguments: SVTRv2TrainingArguments, message: str) -> None:
    if arguments.process_index == 0:
        print(printable(message, keep="\n"), file=sys.stderr)
