# SPDX-License-Identifier: Apache-2.0
"""The program `svtrv2`: joins the commands, runs one of them and reports its errors."""

import functools
import io
import os
import pickle
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from .commands import (
    atlas,
    audit,
    benchmark,
    charset,
    convert,
    demo,
    evaluate,
    export,
    pack,
    publish,
    read,
    synthesize,
    train,
)
from .console import warn


app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"], "max_content_width": 100},
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: 0, 1 for an error, 2 for invalid usage, or 130 after Ctrl-C."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # print characters that the terminal cannot show as escapes
            stream.reconfigure(errors="backslashreplace")
    try:
        typer.main.get_command(app)(None if argv is None else list(argv), prog_name="svtrv2")
    except SystemExit as status:
        return int(status.code or 0)
    return 0


def _print_version(requested: bool) -> None:
    if requested:
        from importlib.metadata import version

        print(f"svtrv2-hf {version('svtrv2-hf')}")
        raise typer.Exit


@app.callback()
def _program(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Text recognition with SVTRv2."""


def _guarded(command: Callable[..., int]) -> Callable[..., None]:
    """Wrap a command: register the model before it, report its errors after it."""

    @functools.wraps(command)
    def run(**options: Any) -> None:
        try:
            from .registration import register

            register()
            status = command(**options)
        except (typer.Exit, typer.BadParameter):
            raise
        except KeyboardInterrupt:
            status = 130
        except BrokenPipeError:  # for example, of `| head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python would complain when it exits
            status = 1
        except Exception as error:
            if os.environ.get("SVTRV2_TRACEBACK"):
                raise
            warn(_message(error), keep="\n")
            status = 1
        raise typer.Exit(status)

    return run


def _message(error: Exception) -> str:
    """Return the message of an error of this package; of other errors, the type and one line."""
    text = str(error).strip()
    if isinstance(error, OSError) and error.strerror and error.filename is not None:  # not "[Errno 2] ..."
        return f"{error.filename}: {error.strerror}."
    if isinstance(error, (ValueError, OSError)) and text and "Traceback" not in text:
        return text
    if isinstance(error, pickle.UnpicklingError):  # its text suggests running the code in the file
        text = "a file contains Python objects that could run code, or is damaged"
    line = text.splitlines()[-1].strip() if "Traceback" in text else " ".join(text.split())
    return f"{type(error).__name__}: {line[:500]} (SVTRV2_TRACEBACK=1 in the environment shows the traceback)"


for _command in (
    *(read.read, pack.pack, evaluate.evaluate, benchmark.benchmark, demo.demo, convert.convert, export.export),
    *(audit.audit, charset.charset, synthesize.synthesize, atlas.atlas, publish.publish),
):
    app.command()(_guarded(_command))
app.command(  # all arguments go to the parser of transformers
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
)(_guarded(train.train))

if __name__ == "__main__":
    sys.exit(main())
