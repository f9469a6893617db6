# SPDX-License-Identifier: Apache-2.0
"""The command line: `svtrv2 read`, `svtrv2 convert`, `svtrv2 draw`, `svtrv2 audit` and `svtrv2 train`."""

import argparse
import glob
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from PIL import Image
from tqdm import tqdm
from transformers.utils import logging

from .charsets import ENGLISH_94, read_charset
from .conversion import convert


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status: 0, 1 if it failed (wholly or in part), 2 if it was misused."""
    words = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(prog="svtrv2", description="Text recognition with SVTRv2.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_read(commands)
    _add_convert(commands)
    _add_audit(commands)
    _add_draw(commands)
    commands.add_parser(
        "train", add_help=False, help="train or fine-tune: svtrv2 train [RECIPE.yaml] [--name value ...]"
    )
    try:
        if words[:1] == ["train"]:  # whose many arguments transformers' own parser reads
            return _train(words[1:])
        arguments = parser.parse_args(words)
        run: Callable[[argparse.Namespace], int] = arguments.run
        return run(arguments)
    except (ValueError, OSError) as error:
        print(f"svtrv2: {error}", file=sys.stderr)
        return 1


def _train(words: Sequence[str]) -> int:
    try:
        from .training.train import main as train
    except ImportError as error:
        raise ValueError(f"Training needs more packages ({error}): pip install 'svtrv2-hf[train]'.") from error
    train(words)
    return 0


def _add_convert(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "convert",
        help="turn an OpenOCR checkpoint into a Hub folder",
        description="Turns an OpenOCR checkpoint of SVTRv2 into a folder that transformers loads. Size, guidance branch and "
        "number of classes are found out from its tensors.",
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="the .pth or .safetensors file")
    parser.add_argument("--output", required=True, metavar="DIR", help="the folder to write")
    parser.add_argument(
        "--charset",
        metavar="FILE",
        help="characters in the order of the head, one a line, without the blank (default: the 94 of the English models)",
    )
    parser.add_argument(
        "--max-ratio",
        type=int,
        metavar="N",
        help="largest width in units of the height (default: 12 with guidance branch, 4 without, as published)",
    )
    parser.set_defaults(run=_convert)


def _convert(arguments: argparse.Namespace) -> int:
    charset = None if arguments.charset is None else read_charset(arguments.charset)
    model, processor = convert(arguments.checkpoint, arguments.output, charset, arguments.max_ratio)
    config = model.config
    print(
        f"{arguments.output}: {model.num_parameters() / 1e6:.6f} M parameters, hidden sizes {config.hidden_sizes}, depths "
        f"{config.depths}, {config.vocab_size} classes, {'with' if config.use_guidance else 'without'} guidance branch, max ratio "
        f"{processor.image_processor.max_ratio}."
    )
    return 0


def _add_audit(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "audit",
        help="examine data before training",
        description="Reads data as training would, decodes every image, counts what would be left out or repaired, and "
        "says what to do about it. The exit status is 0 if training would take every sample as it is, 1 if not, and 130 "
        "if Ctrl-C ended the reading; what was read by then is reported.",
    )
    parser.add_argument(
        "first",
        metavar="RECIPE_OR_SOURCE",
        help="a training recipe (.yaml or .yml), whose data are examined by its rules; or a source as --train_data of "
        "svtrv2 train takes it",
    )
    parser.add_argument("more", nargs="*", type=_source, metavar="SOURCE", help="more sources")
    parser.add_argument(
        "--charset",
        metavar="FILE",
        help="characters, one a line (default: the recipe's, or the 94 of the English models)",
    )
    parser.add_argument(
        "--max_label_length",
        type=_positive,
        metavar="N",
        help="most characters in a label (default: the recipe's, or 25)",
    )
    parser.add_argument(
        "--max_ratio",
        type=_positive,
        metavar="N",
        help="largest width in units of the height (default: the recipe's, or 12)",
    )
    parser.add_argument(
        "--workers",
        type=_not_negative,
        default=0,
        metavar="N",
        help="processes that read besides this one (default: 0)",
    )
    parser.add_argument("--limit", type=_positive, metavar="N", help="samples to read of each source (default: all)")
    parser.add_argument(
        "--output",
        metavar="FOLDER",
        help="also write here: audit.json, audit.md, charts (audit.png), and what augmentation does (augmentation.png)",
    )
    parser.set_defaults(run=_audit)


def _audit(arguments: argparse.Namespace) -> int:
    try:
        from .training.audit import run
    except ImportError as error:
        raise ValueError(f"Auditing needs more packages ({error}): pip install 'svtrv2-hf[train]'.") from error
    return run(
        [arguments.first, *arguments.more],
        charset=arguments.charset,
        max_label_length=arguments.max_label_length,
        max_ratio=arguments.max_ratio,
        workers=arguments.workers,
        limit=arguments.limit,
        output=arguments.output,
    )


def _add_draw(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "draw",
        help="draw text, as a contact sheet or as training data",
        description="Draws texts as photographs show them, in the fonts of this machine. What it draws follows from the seed.",
    )
    parser.add_argument(
        "output",
        metavar="OUTPUT",
        help="a .png for a contact sheet, a .parquet, a folder ending in .lmdb, or a folder for image files and labels.tsv",
    )
    parser.add_argument("--images", type=_positive, default=150, metavar="N", help="how many (default: 150)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of texts and pictures (default: 0)")
    parser.add_argument(
        "--difficulty",
        type=float,
        default=1.0,
        metavar="X",
        help="0 is clean print, 1 what photographs show (default: 1)",
    )
    parser.add_argument("--atlas", metavar="FILE", help="fonts drawn before (default: those of this machine)")
    parser.add_argument(
        "--charset",
        metavar="FILE",
        help="characters, one a line (default: the 94 of the English models and the space)",
    )
    parser.add_argument("--words", action="store_true", help="words alone, no phrases and lines")
    parser.set_defaults(run=_draw)


def _draw(arguments: argparse.Namespace) -> int:
    try:
        from .synthetic.draw import draw
        from .synthetic.source import DrawnSource
    except ImportError as error:
        raise ValueError(f"Drawing needs more packages ({error}): pip install 'svtrv2-hf[train]'.") from error
    source = DrawnSource(
        arguments.atlas,
        ENGLISH_94 + " " if arguments.charset is None else "".join(read_charset(arguments.charset)),
        difficulty=arguments.difficulty,
        num_samples=arguments.images,
        lines=not arguments.words,
    )
    draw(source, arguments.output, arguments.seed)
    print(f"{arguments.output}: {arguments.images} images in {len(source.atlas.fonts)} fonts.")
    return 0


def _source(word: str) -> str:
    if word.endswith((".yaml", ".yml")):
        raise argparse.ArgumentTypeError(f"there is one recipe at most, and it comes first; {word} does not")
    return word


def _positive(word: str) -> int:
    if not word.isdecimal() or int(word) < 1:
        raise argparse.ArgumentTypeError(f"{word!r} is no whole number above 0")
    return int(word)


def _not_negative(word: str) -> int:
    return 0 if word == "0" else _positive(word)


def _add_read(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "read",
        help="read images of words and lines",
        description="Reads images of single words or lines. Prints a line for each: path, text and score, parted by tabs. "
        "Files that cannot be read are told on stderr; the exit status is then 1.",
    )
    parser.add_argument(
        "paths", nargs="+", metavar="PATH", help="an image, a folder (read with all below it) or a glob"
    )
    parser.add_argument("--model", required=True, metavar="DIR", help="a saved recogniser, or its name on the Hub")
    parser.add_argument("--json", action="store_true", help="print one JSON object for each image instead")
    parser.add_argument("--characters", action="store_true", help="tell score and place of each character, too")
    parser.add_argument(
        "--batch-size", type=int, default=16, metavar="N", help="images computed together (default: 16)"
    )
    parser.set_defaults(run=_read)


def _read(arguments: argparse.Namespace) -> int:
    files = list(_find_images(arguments.paths))
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    from transformers import pipeline

    read = pipeline("text-recognition", model=arguments.model, batch_size=arguments.batch_size)
    failures = 0
    results = read((file for file in files), on_error="return", return_characters=arguments.characters)
    for file, [result] in zip(files, tqdm(results, total=len(files), unit="image", disable=None), strict=True):
        if error := result.get("error"):
            failures += 1
            tqdm.write(f"svtrv2: {error}", file=sys.stderr)
        if arguments.json:
            tqdm.write(json.dumps({"path": file, **result}, ensure_ascii=False))
        elif not error:
            tqdm.write("\t".join([file, _one_line(result["generated_text"]), f"{result['score']:.4f}"]))
            for character in result.get("characters", []):
                place = f"{character['start']:.1f}..{character['end']:.1f}"
                tqdm.write(f"\t{_one_line(character['text'])}\t{character['score']:.4f}\t{place}")
    if failures:
        print(f"svtrv2: {failures} of {len(files)} files could not be read.", file=sys.stderr)
    return 1 if failures else 0


def _find_images(paths: Sequence[str]) -> Iterator[str]:
    """Files as they are, even if they turn out to be no images; of folders, all files with an image's extension."""
    extensions = set(Image.registered_extensions())
    for path in paths:
        if Path(path).is_dir():
            found = [
                str(file)
                for file in sorted(Path(path).rglob("*"))
                if file.is_file() and file.suffix.lower() in extensions
            ]
            if not found:
                raise ValueError(f"There is no image in the folder {path}.")
        elif Path(path).exists() or not glob.has_magic(path):
            found = [path]
        else:
            found = sorted(glob.glob(path, recursive=True))  # noqa: PTH207  Path.glob takes no absolute pattern
            if not found:
                raise ValueError(f"No file matches {path}.")
        yield from found


def _one_line(text: str) -> str:
    return text.replace("\t", " ").replace("\n", " ")


if __name__ == "__main__":
    sys.exit(main())
