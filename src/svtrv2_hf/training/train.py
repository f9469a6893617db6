# SPDX-License-Identifier: Apache-2.0
"""The training run behind `scripts/train.py` and `svtrv2 train`."""

import sys
from collections.abc import Sequence
from pathlib import Path

from transformers import set_seed

from ..charsets import ENGLISH_94, build_tokenizer, charset_of, read_charset
from ..configuration_svtrv2 import PRESETS, SVTRv2Config
from ..data.buckets import BucketBatches
from ..data.folder import Sample, read_folder
from ..data.labels import LabelEncoder
from ..evaluation.metrics import word_accuracy
from ..image_processing_svtrv2 import SVTRv2ImageProcessor
from ..modeling_svtrv2 import SVTRv2ForCTC
from ..pipeline_svtrv2 import SVTRv2TextRecognitionPipeline
from ..processing_svtrv2 import SVTRv2Processor
from .arguments import DataAndModelArguments, parse_arguments
from .trainer import SVTRv2Trainer


def main(argv: Sequence[str]) -> None:
    """Trains a recogniser, saves it as a Hub folder and reads the evaluation folders with it.

    Raises:
        ValueError: labels have characters outside the charset, or `max_steps` is missing.
    """
    chosen, arguments = parse_arguments(argv)
    if arguments.max_steps < 1:
        raise ValueError("--max_steps must tell how many optimiser steps to train for.")
    set_seed(arguments.seed)
    samples = [sample for folder in chosen.train_data for sample in read_folder(folder)]
    held_out = {folder: read_folder(folder) for folder in chosen.eval_data}
    model, processor = _model_and_processor(chosen)
    encoder = LabelEncoder(charset_of(processor.tokenizer), chosen.max_label_length, chosen.drop_unknown_characters)
    _check_characters(samples, encoder)
    batches = BucketBatches(
        samples, encoder, processor.image_processor, arguments.per_device_train_batch_size, arguments.seed
    )
    trainer = SVTRv2Trainer(model, arguments, train_dataset=batches, processing_class=processor)
    print(f"Training {model.num_parameters() / 1e6:.2f} M parameters on {len(samples)} samples.", file=sys.stderr)
    trainer.train(resume_from_checkpoint=arguments.resume_from_checkpoint)
    trainer.save_model()
    print(f"Samples read and rejected: {dict(trainer.counts)}. Saved to {arguments.output_dir}.", file=sys.stderr)

    if held_out:
        # read by what was saved, as a user would
        read = SVTRv2TextRecognitionPipeline(
            model=SVTRv2ForCTC.from_pretrained(arguments.output_dir),
            processor=SVTRv2Processor.from_pretrained(arguments.output_dir),
            batch_size=32,
            device=arguments.device,
        )
        for folder, labelled in held_out.items():
            readings = [result[0]["generated_text"] for result in read([str(sample.path) for sample in labelled])]
            accuracy = word_accuracy(readings, [sample.text for sample in labelled])
            print(f"{Path(folder).name}\t{len(labelled)} samples\tword accuracy {accuracy:.4f}")


def _model_and_processor(chosen: DataAndModelArguments) -> tuple[SVTRv2ForCTC, SVTRv2Processor]:
    if chosen.model not in PRESETS:
        if chosen.charset is not None:
            raise ValueError("--charset is for a new model; a saved one has its own.")
        processor = SVTRv2Processor.from_pretrained(chosen.model)
        if chosen.max_ratio is not None:
            processor.image_processor.max_ratio = chosen.max_ratio
        return SVTRv2ForCTC.from_pretrained(chosen.model), processor
    charset = ENGLISH_94 if chosen.charset is None else read_charset(chosen.charset)
    processor = SVTRv2Processor(
        SVTRv2ImageProcessor(max_ratio=12 if chosen.max_ratio is None else chosen.max_ratio), build_tokenizer(charset)
    )
    return SVTRv2ForCTC(SVTRv2Config.preset(chosen.model, vocab_size=len(charset) + 1)), processor


def _check_characters(samples: Sequence[Sample], encoder: LabelEncoder) -> None:
    strange = [sample for sample in samples if encoder.unknown(sample.text)]
    if strange and not encoder.drop_unknown:
        unknown = "".join(sorted(set().union(*(encoder.unknown(sample.text) for sample in strange))))
        raise ValueError(
            f"{len(strange)} of {len(samples)} labels have characters outside the charset: {unknown!r}, first in "
            f"{strange[0].path}. Add them to the charset (--charset FILE), or leave them out of the labels "
            "(--drop_unknown_characters)."
        )
