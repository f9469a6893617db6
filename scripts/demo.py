#!/usr/bin/env python
# SPDX-License-Identifier: Apache-2.0
"""Trains the smallest model for about two minutes on words drawn with Pillow, and reads words that it has not seen.

It shows the whole way, from images and labels to readings, where nothing can be downloaded. What comes out reads this one
font and little else: it is no text recogniser for use.
"""

import argparse
import random
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from transformers import pipeline
from transformers.utils import logging

from svtrv2_hf.evaluation.metrics import compare
from svtrv2_hf.training.train import main as train


CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789"


def draw_word(text: str, rng: random.Random) -> Image.Image:
    """A dark word in Pillow's own font on light paper, a little turned, on an image that fits it closely."""
    font = ImageFont.load_default(rng.randint(20, 40))
    left, top, right, bottom = font.getbbox(text)
    margin = rng.randint(2, 8)
    paper = [rng.randint(160, 255) for _ in range(3)]
    ink = [rng.randint(0, 90) for _ in range(3)]
    image = Image.new("RGB", (int(right - left) + 2 * margin, int(bottom - top) + 2 * margin), tuple(paper))
    ImageDraw.Draw(image).text((margin - left, margin - top), text, font=font, fill=tuple(ink))
    return image.rotate(rng.uniform(-3, 3), Image.Resampling.BICUBIC, expand=True, fillcolor=tuple(paper))


def draw_folder(folder: Path, words: list[str], rng: random.Random) -> list[str]:
    """Draws the words into a folder with a labels.tsv, and gives the paths of the images."""
    (folder / "images").mkdir(parents=True)
    lines = []
    for number, word in enumerate(words):
        draw_word(word, rng).save(folder / "images" / f"{number:05}.png")
        lines.append(f"{number:05}.png\t{word}\n")
    (folder / "labels.tsv").write_text("".join(lines), encoding="utf-8")
    return [str(folder / "images" / f"{number:05}.png") for number in range(len(words))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=900, help="optimiser steps (default: two minutes on two cores)")
    parser.add_argument("--words", type=int, default=4000, help="words to draw and train on")
    parser.add_argument("--output", type=Path, help="keep data and model in this new folder")
    arguments = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as temporary:
        run(arguments.output or Path(temporary), arguments.words, arguments.steps)


def run(output: Path, number_of_words: int, steps: int) -> None:
    """Draws, trains, reads and prints."""
    rng = random.Random(0)
    words = list({"".join(rng.choices(CHARACTERS, k=rng.randint(3, 8))) for _ in range(number_of_words + 200)})
    words.sort()
    rng.shuffle(words)
    print(f"Drawing {len(words)} words with Pillow ...", flush=True)
    draw_folder(output / "train", words[200:], rng)
    unseen, paths = words[:200], draw_folder(output / "unseen", words[:200], rng)
    (output / "charset.txt").write_text("\n".join(CHARACTERS) + "\n")
    train(
        [
            *("--train_data", str(output / "train"), "--model", "nano", "--charset", str(output / "charset.txt")),
            *("--output_dir", str(output / "model"), "--max_steps", str(steps), "--per_device_train_batch_size", "16"),
            *(
                "--learning_rate",
                "1e-3",
                "--augment_operations",
                "0",
                "--save_strategy",
                "no",
                "--logging_steps",
                str(max(1, steps // 6)),
            ),
        ]
    )
    read = pipeline("text-recognition", str(output / "model"), batch_size=16)
    readings = [result for [result] in read(paths)]
    print(f"\n{'drawn':12}{'read':12}score")
    for word, reading in list(zip(unseen, readings, strict=True))[:10]:
        print(f"{word:12}{reading['generated_text']:12}{reading['score']:.3f}")
    accuracy = compare([reading["generated_text"] for reading in readings], unseen).word_accuracy
    print(
        f"\n{accuracy:.1%} of {len(unseen)} words that it had not seen are read without error.\n"
        "This model was trained just now, on words in a single font that this script drew. It shows that the parts work\n"
        "together; photographs it cannot read."
    )


if __name__ == "__main__":
    main()
