# SPDX-License-Identifier: Apache-2.0
"""The command line: `svtrv2 read`, `evaluate`, `benchmark`, `demo`, `convert`, `audit`, `draw`, `atlas`, `train` and `publish`."""

import argparse
import glob
import io
import json
import os
import pickle
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm import tqdm
from transformers.utils import logging

from .charsets import ENGLISH_94, read_charset
from .checkpoint import load_model_and_processor
from .configuration_svtrv2 import PRESETS
from .console import printable
from .conversion import convert, local_file
from .image_loading_svtrv2 import FORMATS
from .image_processing_svtrv2 import AUTO_MAX_RATIO
from .redaction import redact
from .weight_files import check_values


_NO_PICTURES = {".bufr", ".grib", ".h5", ".hdf", ".mpg", ".mpeg"}
_PHOTOS = {".heic", ".heif", ".avif", ".jxl"}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status: 0, 1 if it failed (wholly or in part), 2 if it was misused."""
    words = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name or a text that the terminal cannot show must not end the run
            stream.reconfigure(errors="backslashreplace")
    parser = argparse.ArgumentParser(prog="svtrv2", description="Text recognition with SVTRv2.")
    parser.add_argument("--version", action="version", version=f"svtrv2-hf {version('svtrv2-hf')}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_read(commands)
    _add_evaluate(commands)
    _add_benchmark(commands)
    _add_demo(commands)
    _add_convert(commands)
    _add_audit(commands)
    _add_draw(commands)
    _add_atlas(commands)
    _add_publish(commands)
    commands.add_parser(
        "train", add_help=False, help="train or fine-tune: svtrv2 train [RECIPE.yaml] [--name value ...]"
    )
    try:
        if words[:1] == ["train"]:  # whose many arguments transformers' own parser reads
            return _train(words[1:])
        arguments = parser.parse_args(words)
        run: Callable[[argparse.Namespace], int] = arguments.run
        return run(arguments)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python would complain on its way out
        return 1
    except Exception as error:
        if os.environ.get("SVTRV2_TRACEBACK"):
            raise
        # On a line of its own, also where a progress bar is unfinished.
        tqdm.write(f"svtrv2: {printable(redact(_message(error)), keep=chr(10))}", file=sys.stderr)
        return 1


def _message(error: Exception) -> str:
    """This package's own errors as they are; of others the type and one line, and how to see where they come from."""
    text = str(error).strip()
    if isinstance(error, (ValueError, OSError)) and text and "Traceback" not in text:
        return text
    if isinstance(error, pickle.UnpicklingError):  # whose text advises to run the code in the file
        text = "a file holds Python objects that could run code, or is damaged"
    line = text.splitlines()[-1].strip() if "Traceback" in text else " ".join(text.split())
    return f"{type(error).__name__}: {line[:500]} (SVTRV2_TRACEBACK=1 in the environment shows where it comes from)"


@contextmanager
def _packages_for(work: str, extra: str = "train") -> Iterator[None]:
    """Around imports: tells how to get what is missing, by the name of the extra that brings it."""
    try:
        yield
    except ImportError as error:
        raise ValueError(f"{work} needs more packages ({error}): pip install 'svtrv2-hf[{extra}]'.") from error


def _options(arguments: argparse.Namespace) -> dict[str, Any]:
    """What was given to a command whose function takes it by the same names."""
    return {name: value for name, value in vars(arguments).items() if name != "run"}


def _train(words: Sequence[str]) -> int:
    with _packages_for("Training"):
        from .training.train import main as train
    train(words)
    return 0


def _add_convert(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "convert",
        help="turn an OpenOCR checkpoint into a Hub folder",
        description="Turns an OpenOCR checkpoint of SVTRv2 into a folder that transformers loads. Size, guidance branch and "
        "number of classes are found out from its tensors.",
    )
    parser.add_argument(
        "checkpoint", metavar="CHECKPOINT", help="the .pth or .safetensors file, or hub:OWNER/REPOSITORY/FILE"
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="the folder to write")
    parser.add_argument(
        "--charset",
        metavar="FILE",
        help="characters in the order of the head, one a line, without the blank; also hub:OWNER/REPOSITORY/FILE (default: the 94 of "
        "the English models)",
    )
    parser.add_argument(
        "--max_ratio",
        "--max-ratio",
        type=_positive,
        metavar="N",
        help="largest width in units of the height (default: 12 with guidance branch, 4 without, as published)",
    )
    parser.set_defaults(run=_convert)


def _convert(arguments: argparse.Namespace) -> int:
    charset = None if arguments.charset is None else read_charset(local_file(arguments.charset))
    model, processor = convert(arguments.checkpoint, arguments.output, charset, arguments.max_ratio)
    config = model.config
    print(
        f"{arguments.output}: {model.num_parameters() / 1e6:.6f} M parameters, hidden sizes {config.hidden_sizes}, depths "
        f"{config.depths}, {config.vocab_size} classes, {'with' if config.use_guidance else 'without'} guidance branch, max ratio "
        f"{processor.image_processor.max_ratio}."
    )
    return 0


def _add_evaluate(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "evaluate",
        help="measure how well labelled images are read",
        description="Reads test sets and prints how well, beside what the authors of SVTRv2 published. Benchmarks are known by "
        "the names of their folders, with their protocols and sizes. The exit status is 1 if a set or an image could not be read, a "
        "benchmark has more or fewer samples than it should, or the protocol leaves out the letters of most labels of a set.",
    )
    _add_model(parser)
    parser.add_argument("--data", metavar="ROOT", help="the folder that holds the sets' folders")
    parser.add_argument(
        "--sets",
        nargs="+",
        metavar="SET",
        help="names of sets in ROOT (default: all), or sources as --train_data of svtrv2 train takes them, NAME=SOURCE or SOURCE alone; "
        "of a dataset of the Hub (hub:NAME) the test split is read if none is named",
    )
    parser.add_argument(
        "--labels",
        metavar="FILE",
        help="another list of labels than labels.tsv, such as labels_official.tsv, for the sets that have it in their folder",
    )
    parser.add_argument(
        "--protocol",
        choices=("english", "chinese"),
        help="compare ASCII letters and digits (english), or all but spaces (chinese); case is ignored in both (default: as usual for each "
        "benchmark, and for other sets chinese if the model knows other letters or digits)",
    )
    parser.add_argument(
        "--max_ratio",
        type=_positive,
        metavar="N",
        help="widest image in units of its height (default: the model's; 20 for LTB)",
    )
    parser.add_argument(
        "--normalize",
        choices=("none", "nfc", "nfkc"),
        default="none",
        help="compare readings and labels in this Unicode normalization form; give the one that the model was trained with (default: none)",
    )
    parser.add_argument(
        "--output",
        metavar="FILE.json",
        help="write the results there after each set, and tables as .csv and .md beside it",
    )
    parser.add_argument(
        "--errors",
        metavar="FOLDER",
        help="write what was misread: errors.html and errors.png; and readings.jsonl, all readings",
    )
    parser.add_argument(
        "--batch_size", type=_positive, default=32, metavar="N", help="images computed together (default: 32)"
    )
    parser.add_argument(
        "--workers",
        type=_not_negative,
        default=0,
        metavar="N",
        help="processes that read images besides this one (default: 0)",
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: a GPU if there is one)")
    parser.set_defaults(run=_evaluate)


def _evaluate(arguments: argparse.Namespace) -> int:
    with _packages_for("Evaluating"):
        from .evaluation.provenance import check_output
        from .evaluation.runner import evaluate_sets
    if arguments.device is not None:
        _check_device(arguments.device)
    if arguments.output is not None:
        check_output(arguments.output)
    return evaluate_sets(**_options(arguments))


def _check_device(name: str) -> None:
    import torch

    try:
        torch.zeros(1, device=name).item()
    except (RuntimeError, AssertionError) as error:  # the latter where torch was built without CUDA
        raise ValueError(f"--device {name}: torch cannot compute on such a device here.") from error


def _add_benchmark(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "benchmark",
        help="measure how fast a model reads",
        description="Measures a model on this machine: milliseconds and images a second of the forward pass at the usual image "
        "sizes and at the best batch size, which is searched for; multiply-adds, memory; and, where image files are given, the whole way "
        "from files to texts, and the latency as the paper measures it.",
    )
    what = parser.add_mutually_exclusive_group()
    _add_model(what)
    what.add_argument("--size", choices=list(PRESETS), help="a size with random weights instead of a model")
    parser.add_argument("--images", metavar="PLACE", help="a folder of images, or a source as svtrv2 train takes it")
    parser.add_argument(
        "--limit", type=_positive, default=3000, metavar="N", help="images to read, at most (default: 3000)"
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ... (default: cpu)")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16"), default="float32", help="precision (default: float32)"
    )
    parser.add_argument("--threads", type=_positive, metavar="N", help="of the CPU (default: as torch sees fit)")
    parser.add_argument(
        "--batch_sizes",
        type=_positive,
        nargs="+",
        default=[1, 32],
        metavar="N",
        help="to measure besides the best one (default: 1 32)",
    )
    parser.add_argument(
        "--largest_batch",
        type=_positive,
        default=1024,
        metavar="N",
        help="where the search for the best batch size ends, at the latest (default: 1024)",
    )
    parser.add_argument(
        "--rounds", type=_positive, default=10, metavar="N", help="how often everything is timed (default: 10)"
    )
    parser.add_argument("--output", metavar="FILE.json", help="write the figures there, too")
    parser.set_defaults(run=_benchmark)


def _benchmark(arguments: argparse.Namespace) -> int:
    import torch

    from .evaluation.provenance import check_output
    from .evaluation.speed import benchmark, fresh, image_files
    from .evaluation.speed_report import render

    _check_device(arguments.device)
    if arguments.output:
        check_output(arguments.output)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    logging.disable_progress_bar()
    if arguments.size:
        model, processor = fresh(arguments.size)
    else:
        model, processor = load_model_and_processor(arguments.model)
    model = model.eval().to(arguments.device, getattr(torch, arguments.dtype))
    check_values(model.state_dict(), f"The weights in {arguments.dtype}")
    with tempfile.TemporaryDirectory() as folder:
        files = image_files(arguments.images, Path(folder), arguments.limit) if arguments.images else []
        results = benchmark(
            model,
            processor,
            files,
            arguments.rounds,
            arguments.batch_sizes,
            arguments.largest_batch,
        )
    print(render(results))
    if arguments.output:
        Path(arguments.output).write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return 0


def _add_demo(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "demo",
        help="read images in the browser, or write that page as a Space",
        description="Serves a page that reads the image of a word or a line, dropped on it or taken by the camera, and shows the "
        "place and the score of each character. Ctrl-C ends it.",
    )
    parser.add_argument(
        "--model",
        nargs="+",
        default=["default"],
        metavar="DIR",
        help="a saved recogniser, or its name on the Hub; or two, to compare them (default: the one that comes with the package)",
    )
    parser.add_argument(
        "--host", metavar="ADDRESS", help="to listen at; 0.0.0.0 lets other machines in (default: this one alone)"
    )
    parser.add_argument(
        "--port", type=_positive, metavar="N", help="to listen at (default: the first free one from 7860)"
    )
    parser.add_argument(
        "--export",
        metavar="FOLDER",
        help="write the page there instead, with models and code, ready to be uploaded as a Space",
    )
    parser.set_defaults(run=_demo)


def _demo(arguments: argparse.Namespace) -> int:
    with _packages_for("The demo", extra="demo"):
        from .demo.command import run
    return run(**_options(arguments))


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
        "--model",
        metavar="DIR",
        help="the saved recogniser that training goes on from, or default, the package's own, whose charset and widest size "
        "count (default: the recipe's, or none)",
    )
    parser.add_argument(
        "--charset",
        metavar="FILE",
        help="characters, one a line (default: the recipe's, the model's, or the 94 of the English models)",
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
        help="largest width in units of the height (default: the recipe's, the model's, or 12)",
    )
    parser.add_argument(
        "--unknown_characters",
        choices=("error", "drop_sample", "drop_character"),
        help="what training is to do about characters outside the charset (default: the recipe's, or error)",
    )
    parser.add_argument(
        "--normalize",
        choices=("none", "nfc", "nfkc"),
        help="Unicode normalization form of charset file and labels (default: the recipe's, or none)",
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
    with _packages_for("Auditing"):
        from .training.audit import run
    return run(
        [arguments.first, *arguments.more],
        model=arguments.model,
        charset=arguments.charset,
        max_label_length=arguments.max_label_length,
        max_ratio=arguments.max_ratio,
        unknown_characters=arguments.unknown_characters,
        normalize=arguments.normalize,
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
        help="a .png for a contact sheet, a .parquet, a folder ending in .lmdb, or a folder without an ending for image files and "
        "labels.tsv",
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
    with _packages_for("Drawing"):
        from .synthetic.source import SyntheticSource
        from .synthetic.synthesize import synthesize
    source = SyntheticSource(
        arguments.atlas,
        _drawn_charset(arguments.charset),
        difficulty=arguments.difficulty,
        num_samples=arguments.images,
        lines=not arguments.words,
    )
    synthesize(source, arguments.output, arguments.seed)
    print(f"{arguments.output}: {arguments.images} images in {len(source.atlas.fonts)} fonts.")
    return 0


def _add_atlas(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "atlas",
        help="draw fonts ahead, for drawn text on other machines",
        description="Draws the glyphs of all fonts in the curated list of licenses into one file, for svtrv2 draw --atlas and "
        "--train_data synthetic:FILE, and lists the fonts in a .tsv beside it: licence, package, file and checksum. The digest that it "
        "prints is the same wherever the same fonts are drawn by the same versions of this package, Pillow and FreeType.",
    )
    parser.add_argument("output", metavar="OUTPUT.safetensors", help="the file to write")
    parser.add_argument(
        "--fonts",
        nargs="+",
        default=[],
        metavar="FOLDER",
        help="take the fonts in these folders, and matplotlib's DejaVu (default: all of this machine and of fontpkg-* packages)",
    )
    parser.add_argument(
        "--charset",
        metavar="FILE",
        help="characters, one a line (default: the 94 of the English models and the space)",
    )
    parser.add_argument(
        "--leave_out",
        "--leave-out",
        nargs="+",
        default=[],
        metavar="NAME",
        help="fonts or families not to take",
    )
    parser.add_argument(
        "--allow_unknown_license",
        "--allow-unknown-license",
        action="store_true",
        help="include fonts that are not in the curated list of licenses",
    )
    parser.set_defaults(run=_atlas)


def _atlas(arguments: argparse.Namespace) -> int:
    with _packages_for("Drawing fonts"):
        from .synthetic.build import build
    charset = _drawn_charset(arguments.charset)
    atlas, found = build(
        arguments.output, charset, arguments.fonts, arguments.leave_out, arguments.allow_unknown_license
    )
    print(f"{arguments.output}: {len(atlas.fonts)} of {len(found.fonts)} fonts.")
    for name, reason in atlas.skipped.items():
        print(printable(f"Skipped {name}: {reason}."))
    for reason, count in found.skipped.items():
        print(f"Skipped {count} faces: {reason}.")
    print(f"Digest: {atlas.digest}")
    return 0


def _drawn_charset(path: str | None) -> str:
    return ENGLISH_94 + " " if path is None else "".join(read_charset(path))


def _add_publish(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "publish",
        help="share a recogniser on the Hub",
        description="Checks a saved recogniser (complete, no pickles, loads and reads where this package is not installed, has a "
        "card), writes a model card if there is none, and uploads it. An upload that was interrupted goes on where it stopped.",
    )
    parser.add_argument("folder", metavar="FOLDER", help="a saved recogniser")
    parser.add_argument("--repo", required=True, metavar="OWNER/NAME", help="on the Hub; made if it is not there")
    parser.add_argument("--private", action="store_true", help="make it private, if it is made")
    parser.add_argument("--dry_run", "--dry-run", action="store_true", help="check and write the card, upload nothing")
    parser.add_argument(
        "--license", metavar="NAME", help="of the weights, for a new card (apache-2.0, cc-by-4.0, ...)"
    )
    parser.add_argument("--language", metavar="CODE", help="of the texts, for a new card (en, zh, ...)")
    parser.add_argument("--results", metavar="FILE.json", help="what svtrv2 evaluate wrote, for a new card")
    parser.add_argument("--sample", metavar="IMAGE", help="try the folder with this image (default: a drawn one)")
    parser.set_defaults(run=_publish)


def _publish(arguments: argparse.Namespace) -> int:
    with _packages_for("Publishing"):
        from .hub.publish import run
    return run(**_options(arguments))


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


def _ratio(word: str) -> int | str:
    return word if word == "auto" else _positive(word)


def _add_read(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "read",
        help="read images of words and lines",
        description="Reads images of single words or lines. Prints a line for each: path, text and score, parted by tabs. "
        "Files that cannot be read are told on stderr; the exit status is then 1.",
    )
    parser.add_argument(
        "paths", nargs="+", metavar="PATH", help="an image, its URL, a folder (read with all below it) or a glob"
    )
    _add_model(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object for each image instead")
    parser.add_argument("--characters", action="store_true", help="tell score and place of each character, too")
    parser.add_argument(
        "--max_ratio",
        "--max-ratio",
        type=_ratio,
        metavar="N",
        help="squeeze only what is wider than N times its height; auto gives every line the width that it needs, up to 100 (default: the "
        "model's, 20 for the one that comes along)",
    )
    parser.add_argument(
        "--batch_size",
        "--batch-size",
        type=_positive,
        default=16,
        metavar="N",
        help="images computed together (default: 16)",
    )
    parser.set_defaults(run=_read)


def _add_model(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--model",
        default="default",
        metavar="DIR",
        help="a saved recogniser, or its name on the Hub (default: the one that comes with the package)",
    )


def _read(arguments: argparse.Namespace) -> int:
    files, problems = _find_images(arguments.paths)
    for problem in problems:
        print(f"svtrv2: {printable(redact(problem))}", file=sys.stderr)
    if not files:
        return 1
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    from transformers import pipeline

    model, processor = load_model_and_processor(arguments.model)
    read = pipeline("text-recognition", model=model, processor=processor, batch_size=arguments.batch_size)
    failures = squeezed = 0
    ascii_only = (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
    results = read(
        (file for file in files),
        on_error="return",
        return_characters=arguments.characters,
        max_ratio=arguments.max_ratio,
    )
    for file, [result] in zip(files, tqdm(results, total=len(files), unit="image", disable=None), strict=True):
        squeezed += "squeezed" in result
        if error := result.get("error"):
            failures += 1
            result["error"] = redact(error)
            tqdm.write(f"svtrv2: {printable(redact(error))}", file=sys.stderr)
        file = redact(file) if "://" in file else file
        if arguments.json:
            tqdm.write(printable(json.dumps({"path": file, **result}, ensure_ascii=ascii_only)))
        elif not error:
            tqdm.write("\t".join([printable(file), printable(result["generated_text"]), f"{result['score']:.4f}"]))
            for character in result.get("characters", []):
                place = f"{character['start']:.1f}..{character['end']:.1f}"
                tqdm.write(f"\t{printable(character['text'])}\t{character['score']:.4f}\t{place}")
    if squeezed:
        limit = arguments.max_ratio or read.processor.image_processor.max_ratio
        hint = "crop them" if limit == "auto" else "read them with --max_ratio auto"
        print(
            f"svtrv2: {squeezed} of {len(files)} images are wider than {AUTO_MAX_RATIO if limit == 'auto' else limit} times their height. "
            f"They were squeezed, which loses narrow letters: {hint}.",
            file=sys.stderr,
        )
    if failures:
        print(f"svtrv2: {failures} of {len(files)} files could not be read.", file=sys.stderr)
    return 1 if failures or problems else 0


def _find_images(paths: Sequence[str]) -> tuple[list[str], list[str]]:
    """Files as they are, even if they turn out to be no images; of folders, all files with an image's extension.

    Second, what was wrong: a folder or a pattern without images, files that are not regular ones, or images in formats that are not
    supported.
    """
    files: list[str] = []
    problems: list[str] = []
    for path in paths:
        found: list[str]
        if not path:
            problems.append("A path is empty: name an image, a folder, a pattern or a URL.")
            continue
        if os.path.isdir(path):  # noqa: PTH112  Path.is_dir raises for a path that is too long
            found, wrong = _images_below(path)
            problems += wrong
        elif os.path.lexists(path) or not glob.has_magic(path) or "://" in path:
            found = [path]
        else:
            found = sorted(glob.glob(path, recursive=True))  # noqa: PTH207  Path.glob takes no absolute pattern
            if not found:
                problems.append(f"No file matches {path}.")
        files += found
    return files, problems


def _images_below(folder: str) -> tuple[list[str], list[str]]:
    """The images in a folder and all folders below it, and what was wrong there."""
    Image.init()
    known = Image.registered_extensions()
    readable = {suffix for suffix, kind in known.items() if kind in FORMATS and kind in Image.OPEN}
    unreadable: list[OSError] = []
    below = sorted(Path(root, name) for root, _, names in os.walk(folder, onerror=unreadable.append) for name in names)
    problems = [f"The folder {error.filename} cannot be listed: {error.strerror}." for error in unreadable]
    found = []
    for file in below:
        if file.suffix.lower() not in readable:
            continue
        if file.is_file():
            found.append(str(file))
        elif file.exists():
            problems.append(f"{file} is not a regular file and was skipped.")
        else:
            problems.append(f"{file} is a link that leads nowhere and was skipped.")
    others = {suffix for suffix, kind in known.items() if kind in Image.OPEN} | _PHOTOS
    left = [file for file in below if file.suffix.lower() in others - readable - _NO_PICTURES]
    if left:
        problems.append(
            f"{len(left)} images in {folder} are in formats that are not supported here, {left[0].name} the first of them: convert them "
            "to PNG or JPEG."
        )
    elif not found and not problems:
        problems.append(f"There is no image in the folder {folder}.")
    return found, problems


if __name__ == "__main__":
    sys.exit(main())
