# SPDX-License-Identifier: Apache-2.0
"""The command `svtrv2 publish`: a saved recogniser, checked and with a card, to the Hub."""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from huggingface_hub.errors import HFValidationError, LocalTokenNotFoundError
from huggingface_hub.utils import validate_repo_id
from transformers.utils import logging

from ..evaluation.provenance import weights_digest
from .card import render_card
from .check import check_folder, left_behind, outside, stage


def run(
    folder: str,
    repo: str,
    private: bool = False,
    dry_run: bool = False,
    license: str | None = None,
    language: str | None = None,
    results: str | None = None,
    sample: str | None = None,
) -> int:
    """The command `svtrv2 publish`.

    Args:
        folder: of the recogniser.
        repo: `OWNER/NAME` on the Hub; made if it is not there.
        private: make it private, if it is made.
        dry_run: check and render, but do not upload.
        license: of the weights, for a new card; a card that is there is kept.
        language: of the texts, for a new card.
        results: a file that `svtrv2 evaluate` wrote, for a new card.
        sample: an image to try the folder with.

    Returns:
        0 if the folder was published, or could be.

    Raises:
        ValueError: the folder is not ready; all that is wrong is told. Or the results are not its own, or the Hub refuses it.
        FileNotFoundError: there is no such folder or file.
    """
    path = Path(folder)
    if not path.is_dir():
        raise FileNotFoundError(f"There is no folder {folder}.")
    if repo.count("/") != 1 or not all(repo.split("/")):
        raise ValueError(f"--repo {repo!r} must be OWNER/NAME.")
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise ValueError(f"--repo {repo!r} is no name on the Hub: {error}") from error
    if links := outside(path):
        raise ValueError(f"{folder} has links to files outside of it: {', '.join(links)}. Replace them by the files.")
    evaluated = None if results is None else _read(results, path)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    card = path / "README.md"
    if not card.is_file():
        card.write_text(render_card(path, repo, license, language, evaluated), encoding="utf-8")
        print(f"{card} written: read it, and say what only you know.", file=sys.stderr)
    else:
        given = {"--license": license, "--language": language, "--results": results}
        if idle := [option for option, value in given.items() if value]:
            print(
                f"{card} is kept: {' and '.join(idle)} {'has' if len(idle) == 1 else 'have'} no effect. Edit it, or remove it to have it "
                "written anew.",
                file=sys.stderr,
            )
    with tempfile.TemporaryDirectory() as temporary:
        staged = Path(temporary)
        if foreign := stage(path, staged):
            print(
                f"{', '.join(foreign)} in {folder} {'is' if len(foreign) == 1 else 'are'} not this package's code: the package's own "
                "is published instead.",
                file=sys.stderr,
            )
        if faults := check_folder(staged, None if sample is None else Path(sample)):
            listed = "\n  ".join(fault.replace(temporary, folder) for fault in faults)
            raise ValueError(f"{folder} is not ready to be published:\n  {listed}")
        if behind := left_behind(path):
            print(f"Not published: {', '.join(behind)}.", file=sys.stderr)
        if dry_run:
            print(f"{folder} is ready to be published as {repo}.")
            return 0
        return _upload(staged, repo, private)


def _upload(folder: Path, repo: str, private: bool) -> int:
    api = HfApi()
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        done = api.upload_folder(
            repo_id=repo, folder_path=folder, commit_message="Upload an SVTRv2 model with svtrv2-hf"
        )
    except LocalTokenNotFoundError as error:
        raise ValueError("You are not logged in to the Hub: run `hf auth login`, or set HF_TOKEN.") from error
    except OSError as error:  # of huggingface_hub's are all of this kind: no network, offline mode, a refusal
        raise ValueError(f"{repo} could not be published: {str(error).splitlines()[0]}") from error
    print(f"Published: {done.commit_url}")
    return 0


_RESULTS = {"model", "parameters", "date", "commit", "machine", "averages"}
_RESULTS_OF_SET = {"protocol", "max_ratio", "samples", "correct", "word_accuracy"}


def _read(results: str, folder: Path) -> dict[str, Any]:
    """Reads what `svtrv2 evaluate` wrote.

    Raises:
        ValueError: it is something else, or of other weights than those in the folder.
    """
    try:
        content = json.loads(Path(results).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"--results {results} is no JSON: {error}.") from error
    sets = content.get("sets") if isinstance(content, dict) else None
    if not (
        isinstance(sets, dict)
        and content.keys() >= _RESULTS
        and all(isinstance(one, dict) and one.keys() >= _RESULTS_OF_SET for one in sets.values())
    ):
        raise ValueError(f"--results {results} is not what svtrv2 evaluate writes by --output.")
    measured = content.get("weights_sha256")
    if measured is None:
        print(
            f"{results} does not say which weights it is of, only the model's name, {content['model']!r}: be sure that it is the one in "
            f"{folder}.",
            file=sys.stderr,
        )
    elif measured != weights_digest(str(folder)):
        raise ValueError(
            f"The figures in {results}, of the model {content['model']!r}, are of other weights than those in {folder}: evaluate {folder}."
        )
    return content
