# SPDX-License-Identifier: Apache-2.0
"""The command `svtrv2 train`."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from transformers import set_seed
from transformers.trainer_utils import get_last_checkpoint
from transformers.utils import logging

from ..charsets import Normalization, charset_of
from ..console import note, printable
from ..data.augmentation import Augmentation
from ..data.batches import BucketBatches, EvaluationBatches
from ..data.labels import LabelEncoder
from ..data.normalized import NormalizedSource
from ..data.sample import Source
from ..evaluation.benchmarks import default_protocol
from ..image_processing_svtrv2 import SVTRv2ServerImageProcessor
from ..processing_svtrv2 import SVTRv2Processor
from ..reporting import markdown_table, plural
from ..sources import open_source
from ..synthetic.batches import SyntheticBatches
from ..synthetic.source import SyntheticSource
from .arguments import DataAndModelArguments, SVTRv2TrainingArguments, parse_arguments
from .checkpointing import find_checkpoint
from .evaluating import unreadable_images
from .model import model_and_processor
from .plan import describe, number_of_steps, steps_per_epoch
from .probe import check_evaluation_set, check_labels, check_not_empty
from .record import RunRecord
from .recovery import how_to_resume
from .trainer import SVTRv2Trainer


def main(argv: Sequence[str]) -> None:
    """Train a model and save it as a Hub folder: the best one of its evaluations, or the last one.

    If stopped early (`--max_hours`, SIGTERM, Ctrl-C), it saves a checkpoint to resume from.

    Raises:
        KeyboardInterrupt: on Ctrl-C; after the first one during training, the checkpoint has been saved.
        ValueError: labels have characters outside the charset, training would skip all samples or have few steps, an evaluation
            dataset cannot be read, the output folder contains another run, or settings contradict each other.
        DivergedError: the loss or the weights are NaN or infinite.
    """
    chosen, arguments = parse_arguments(argv)
    set_seed(arguments.seed)
    logging.disable_progress_bar()  # of loading and saving models
    output = str(arguments.output_dir)  # transformers replaces None
    checkpoint = find_checkpoint(arguments.resume_from_checkpoint, output)
    last = get_last_checkpoint(output) if Path(output).is_dir() else None
    if checkpoint is None and last is not None:  # two runs would be mixed
        raise ValueError(
            f"{last} is of an earlier run: pass --resume_from_checkpoint True to resume it, or another --output_dir, or remove it."
        )
    model, processor = model_and_processor(chosen)
    with arguments.main_process_first(desc="opening the data"):  # it may build files that the others use
        sources = open_sources(chosen.train_data, chosen.normalize)
        eval_sources = open_sources(chosen.eval_data, chosen.normalize, "test")
    charset = charset_of(processor.tokenizer)
    encoder = LabelEncoder(charset, chosen.max_label_length, chosen.unknown_characters)
    protocols = {source.name: chosen.protocol or default_protocol(source.name) for source in eval_sources}
    checks = []
    if arguments.process_index == 0:
        check_not_empty(sources)
        checks = check_labels(sources, encoder, processor.image_processor)
        for source in eval_sources:
            _print(arguments, check_evaluation_set(source, encoder, protocols[source.name]))
    batches = _batches(chosen, arguments, sources, encoder, processor)
    in_epoch: float | None = None
    if arguments.max_steps < 1:
        in_epoch = steps_per_epoch(arguments, batches)
        arguments.max_steps = number_of_steps(chosen, arguments, batches, in_epoch)
    elif batches.num_samples and all(source.local for source in sources):  # remote data would take too long
        in_epoch = steps_per_epoch(arguments, batches)
    if not eval_sources:
        arguments.eval_strategy = "no"
    eval_batch_size = arguments.per_device_eval_batch_size
    trainer = SVTRv2Trainer(
        model,
        arguments,
        train_dataset=batches,
        eval_dataset={
            source.name: EvaluationBatches(source, processor.image_processor, eval_batch_size)
            for source in eval_sources
        },
        processing_class=processor,
        protocol=chosen.protocol,
        freeze_stages=chosen.freeze_stages,
        callbacks=[RunRecord(argv, protocols)],
    )
    if arguments.process_index == 0:
        note(describe(chosen, arguments, model, batches, checks, eval_sources, in_epoch), keep="\n")
    try:
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        _print(arguments, trainer.summarize_samples())
        if trainer.stop.reason is None:
            _finish(trainer)
    except BaseException as error:
        for line in getattr(error, "__notes__", []):  # about the checkpoint
            _print(arguments, line)
        raise
    if trainer.stop.reason:
        stopped = (
            f"Stopped after step {trainer.state.global_step} of {trainer.state.max_steps}: {trainer.stop.reason}."
        )
        _print(arguments, f"{stopped} {how_to_resume(arguments)}")
        if trainer.stop.interrupted:
            raise KeyboardInterrupt  # also ends a script that runs further commands


def _finish(trainer: SVTRv2Trainer) -> None:
    """Save the best model, or the last one without evaluation datasets, and print its metrics."""
    if not trainer.eval_dataset:
        trainer.save_model_for_inference()
    else:
        trainer.evaluate_last_step()
        best = trainer.best_evaluation
        if best is not None and trainer.args.process_index == 0:
            print(f"Best of {plural(len(trainer.evaluations), 'evaluation')}, at step {best['step']:.0f}:")
            rows, unreadable = [], []
            for name in trainer.eval_dataset:
                metrics = {key.removeprefix(f"eval_{name}_"): value for key, value in best.items()}
                shares = [f"{100 * metrics[share]:.2f}" for share in ("word_accuracy", "cer", "one_minus_ned")]
                protocol, samples = trainer.protocol_of(name), f"{metrics['samples']:.0f}"
                rows.append([name, protocol, samples, *shares, f"{metrics['loss']:.3f}"])
                unreadable += [unreadable_images(name, metrics)] if "unreadable" in metrics else []
            header = ["dataset", "protocol", "samples", "word accuracy, %", "CER, %", "1-NED, %", "loss"]
            table = markdown_table(header, rows, align="llr")
            print(printable("\n".join([table, *unreadable]), keep="\n"))
    if trainer.args.push_to_hub:
        trainer.push_to_hub()
    _print(trainer.args, f"Saved to {trainer.args.output_dir}.")


def _batches(
    chosen: DataAndModelArguments,
    arguments: SVTRv2TrainingArguments,
    sources: Sequence[Source],
    encoder: LabelEncoder,
    processor: SVTRv2Processor,
) -> BucketBatches | SyntheticBatches:
    """Return the training batches; a single synthetic source without augmentation is rendered in batches."""
    rules = (encoder, processor.image_processor, arguments.per_device_train_batch_size, arguments.seed)
    [first, *others] = sources
    unchanged = not chosen.augment_operations and not isinstance(processor.image_processor, SVTRv2ServerImageProcessor)
    if isinstance(first, SyntheticSource) and not others and unchanged:
        on_gpu = arguments.device.type == "cuda" and not arguments.dataloader_num_workers
        device = arguments.device if on_gpu else "cpu"
        return SyntheticBatches(first, *rules, device=device, with_frame_labels=arguments.frame_label_steps > 0)
    if arguments.frame_label_steps:
        raise ValueError(
            "--frame_label_steps requires exactly one synthetic source, no augmentation (--train_data synthetic: "
            "--augment_operations 0), and a model that is not a 'server' model: otherwise, the positions of characters are "
            "unknown."
        )
    augmentation = None
    if chosen.augment_operations:
        augmentation = Augmentation(chosen.augment_operations, magnitude=chosen.augment_magnitude, seed=arguments.seed)
    return BucketBatches(sources, *rules, augmentation)


def open_sources(specs: Sequence[str], normalize: Normalization, split: str = "train") -> list[Source]:
    """Open sources with distinct names and normalized labels."""
    sources = [open_source(spec, split) for spec in specs]
    if normalize != "none":  # synthetic text uses the characters of its charset
        sources = [
            source if isinstance(source, SyntheticSource) else NormalizedSource(source, normalize)
            for source in sources
        ]
    names = Counter(source.name for source in sources)
    if repeated := [name for name, number in names.items() if number > 1]:
        raise ValueError(f"Several sources are named {', '.join(repeated)}: name them with ?name=... for the logs.")
    return sources


def _print(arguments: SVTRv2TrainingArguments, message: str | None) -> None:
    """Print a message on the main process to stderr."""
    if message is not None and arguments.process_index == 0:
        note(message, keep="\n")
