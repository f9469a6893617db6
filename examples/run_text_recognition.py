# SPDX-License-Identifier: Apache-2.0
"""Fine-tune SVTRv2 for text recognition with `transformers.Trainer` and `datasets`.

    python examples/run_text_recognition.py --dataset_name OWNER/NAME --output_dir output --remove_unused_columns False \
        --do_train --do_eval --num_train_epochs 10 --learning_rate 5e-4 --eval_strategy epoch --save_strategy epoch

It also runs under `accelerate launch` and `torchrun`. All arguments of `TrainingArguments` are available.
"""

import logging
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from datasets import DatasetDict, Image, load_dataset
from transformers import AutoModelForCTC, AutoProcessor, HfArgumentParser, Trainer, TrainingArguments, set_seed
from transformers.trainer_utils import get_last_checkpoint

import svtrv2_hf
from svtrv2_hf import SVTRv2DataCollator, make_compute_metrics, predict_ids


logger = logging.getLogger(__name__)


@dataclass
class ModelArguments:
    """Arguments about the model."""

    model_name_or_path: str | None = field(
        default=None, metadata={"help": "Checkpoint to fine-tune; defaults to the one that comes with svtrv2-hf."}
    )
    revision: str = field(default="main", metadata={"help": "Revision of the checkpoint on the Hub."})


@dataclass
class DataTrainingArguments:
    """Arguments about the data."""

    dataset_name: str | None = field(default=None, metadata={"help": "Dataset on the Hub, or a local folder."})
    dataset_config_name: str | None = field(default=None, metadata={"help": "Configuration of the dataset."})
    train_file: str | None = field(default=None, metadata={"help": "Parquet file with training data."})
    validation_file: str | None = field(default=None, metadata={"help": "Parquet file with evaluation data."})
    train_split_name: str = field(default="train", metadata={"help": "Split to train on."})
    eval_split_name: str = field(default="validation", metadata={"help": "Split to evaluate on."})
    image_column_name: str = field(default="image", metadata={"help": "Column with images."})
    text_column_name: str = field(default="text", metadata={"help": "Column with labels."})
    max_train_samples: int | None = field(default=None, metadata={"help": "Use at most this many training samples."})
    max_eval_samples: int | None = field(default=None, metadata={"help": "Use at most this many evaluation samples."})
    max_label_length: int | None = field(default=None, metadata={"help": "Skip samples with longer labels."})
    unknown_characters: Literal["error", "drop_sample", "drop_character"] = field(
        default="error", metadata={"help": "Handling of labels with characters outside the charset."}
    )

    def __post_init__(self) -> None:
        if self.dataset_name is None and self.train_file is None and self.validation_file is None:
            raise ValueError("Specify --dataset_name, or --train_file and --validation_file.")


def load_data(arguments: DataTrainingArguments, training: TrainingArguments) -> DatasetDict:
    """Load the splits that are needed, with decoded images."""
    if arguments.dataset_name is not None:
        source = {"path": arguments.dataset_name, "name": arguments.dataset_config_name}
        names = {"train": arguments.train_split_name, "eval": arguments.eval_split_name}
    else:
        files = {"train": arguments.train_file, "eval": arguments.validation_file}
        source = {"path": "parquet", "data_files": {split: file for split, file in files.items() if file}}
        names = {"train": "train", "eval": "eval"}
    limits = {"train": arguments.max_train_samples, "eval": arguments.max_eval_samples}
    splits = DatasetDict()
    for split in ("train",) * training.do_train + ("eval",) * training.do_eval:
        data = load_dataset(**source, split=names[split])
        for column in (arguments.image_column_name, arguments.text_column_name):
            if column not in data.column_names:
                raise ValueError(
                    f"Column {column!r} not found in split {names[split]!r}, which has {data.column_names}: set "
                    "--image_column_name and --text_column_name."
                )
        data = data.cast_column(arguments.image_column_name, Image())
        splits[split] = data if limits[split] is None else data.select(range(min(limits[split], len(data))))
    return splits


def main() -> None:
    """Run the command line."""
    parser = HfArgumentParser((ModelArguments, DataTrainingArguments, TrainingArguments))
    if len(sys.argv) == 2 and sys.argv[1].endswith(".json"):
        model_arguments, data_arguments, training = parser.parse_json_file(sys.argv[1])
    else:
        model_arguments, data_arguments, training = parser.parse_args_into_dataclasses()
    if not (training.do_train or training.do_eval):
        parser.error("Nothing to do: specify --do_train, --do_eval or both.")
    logging.basicConfig(level=logging.INFO if training.should_log else logging.WARNING)
    training.remove_unused_columns = False  # the collator needs the images
    set_seed(training.seed)

    with training.main_process_first(desc="loading the data"):
        splits = load_data(data_arguments, training)

    checkpoint = model_arguments.model_name_or_path or svtrv2_hf.default_checkpoint()
    processor = AutoProcessor.from_pretrained(checkpoint, revision=model_arguments.revision)
    model = AutoModelForCTC.from_pretrained(checkpoint, revision=model_arguments.revision)
    collator = SVTRv2DataCollator(
        processor,
        data_arguments.image_column_name,
        data_arguments.text_column_name,
        data_arguments.max_label_length,
        data_arguments.unknown_characters,
    )
    trainer = Trainer(
        model,
        training,
        data_collator=collator,
        train_dataset=splits.get("train"),
        eval_dataset=splits.get("eval"),
        processing_class=processor,
        compute_metrics=make_compute_metrics(processor),
        preprocess_logits_for_metrics=predict_ids,
    )

    if training.do_train:
        last = training.resume_from_checkpoint
        if last is None and Path(training.output_dir).is_dir():
            last = get_last_checkpoint(training.output_dir)
            if last is not None:
                logger.warning("Resuming from %s; choose another --output_dir to train from scratch.", last)
        result = trainer.train(resume_from_checkpoint=last)
        trainer.save_model()
        trainer.log_metrics("train", result.metrics)
        trainer.save_metrics("train", result.metrics)
        trainer.save_state()
    if training.do_eval:
        metrics = trainer.evaluate()
        trainer.log_metrics("eval", metrics)
        trainer.save_metrics("eval", metrics)
    if collator.skipped:
        logger.warning("Skipped samples by reason: %s", dict(collator.skipped))
    if training.push_to_hub:
        trainer.push_to_hub()
    trainer.accelerator.wait_for_everyone()  # a process must not exit while others use its connections
    trainer.accelerator.end_training()


if __name__ == "__main__":
    main()
