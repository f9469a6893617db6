# SPDX-License-Identifier: Apache-2.0
"""Fine-tune SVTRv2 in a plain PyTorch loop with accelerate.

python examples/train_loop.py DATASET OUTPUT [--model FOLDER_OR_ID] [--steps 500] [--batch_size 32] [--learning_rate 5e-4]
accelerate launch examples/train_loop.py DATASET OUTPUT

DATASET is a Hub id or a folder that `datasets.load_dataset` reads, with the columns `image` and `text`.
"""

import argparse
from itertools import chain, repeat

import torch
from accelerate import Accelerator
from datasets import load_dataset
from torch.utils.data import DataLoader
from transformers import AutoModelForCTC, AutoProcessor, get_linear_schedule_with_warmup

import svtrv2_hf
from svtrv2_hf import SVTRv2DataCollator


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("output")
    parser.add_argument("--model", default=svtrv2_hf.default_checkpoint())
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--learning_rate", type=float, default=5e-4)
    arguments = parser.parse_args()

    accelerator = Accelerator()
    processor = AutoProcessor.from_pretrained(arguments.model)
    model = AutoModelForCTC.from_pretrained(arguments.model)
    loader = DataLoader(
        load_dataset(arguments.dataset, split="train"),
        arguments.batch_size,
        shuffle=True,
        collate_fn=SVTRv2DataCollator(processor, unknown_characters="drop_sample"),
    )
    optimizer = torch.optim.AdamW(model.parameters(), arguments.learning_rate, weight_decay=0.05)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    schedule = get_linear_schedule_with_warmup(optimizer, arguments.steps // 10, arguments.steps)

    model.train()
    for step, batch in zip(range(1, arguments.steps + 1), chain.from_iterable(repeat(loader)), strict=False):
        loss = model(**batch).loss
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 50 == 0 or step == arguments.steps:
            accelerator.print(f"step {step}: loss {accelerator.reduce(loss.detach(), 'mean').item():.3f}")

    if accelerator.is_main_process:
        accelerator.unwrap_model(model).save_pretrained(arguments.output)
        processor.save_pretrained(arguments.output)
    accelerator.wait_for_everyone()
    accelerator.end_training()


if __name__ == "__main__":
    main()
