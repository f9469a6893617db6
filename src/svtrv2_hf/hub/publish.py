# SPDX-License-Identifier: Apache-2.0
"""The command `svtrv2 publish`."""

import json
import tempfile
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from huggingface_hub.errors import HFValidationError, LocalTokenNotFoundError
from huggingface_hub.utils import validate_repo_id
from transformers.utils import logging

from ..console import note
from ..evaluation.protocols import check_protocol
from ..evaluation.provenance import weights_digest
from .card import render_card
from .check import check_folder, check_links, stage


def run(
    folder: str,
    repo: str,
    private: bool = False,
    dry_run: bool = False,
    license: str | None = None,
    language: str | None = None,
    results: str | None = None,
    sample: str | None = None,
    handler: bool = False,
) -> int:
    """Check a saved model, add a card, and upload it to the Hub; returns 0 if the model was, or could be, published.

    Args:
        folder: folder of the model.
        repo: `OWNER/NAME` on the Hub, created if it does not exist.
        private: create a private repository.
        dry_run: check and write the card, but do not upload.
        license, language, results: license of the weights, language of the text, and file of `svtrv2 evaluate`, for a new
            card; an existing card is kept.
        sample: image for the comparison of predictions.
        handler: add a `handler.py` for Inference Endpoints.

    Raises:
        ValueError: the folder is not ready (the message lists all problems), the results are of other weights, or the
            Hub rejects the upload.
        FileNotFoundError: the folder or a file does not exist.
    """
    path = Path(folder)
    if not path.is_dir():
        raise FileNotFoundError(f"Folder not found: {folder}.")
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise ValueError(f"--repo {repo!r} is not a valid Hub id: {error}") from error
    if "/" not in repo:
        raise ValueError(f"--repo {repo!r} must be OWNER/NAME.")
    check_links(path)
    evaluated = None if results is None else _read_results(results, path)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    card = path / "README.md"
    options = {"--license": license, "--language": language, "--results": results}
    if not card.is_file():
        card.write_text(render_card(path, repo, license, language, evaluated), encoding="utf-8")
        note(f"Wrote {card}: read it, and complete it.")
    elif unused := [option for option, value in options.items() if value]:
        note(f"{' and '.join(unused)} had no effect, since {card} exists: edit it, or remove it to write a new one.")
    with tempfile.TemporaryDirectory() as temporary:
        staged = Path(temporary)
        foreign, others = stage(path, staged, handler)
        if foreign:
            note(f"Replaced by the code of this package: {', '.join(foreign)}.")
        if problems := check_folder(staged, None if sample is None else Path(sample)):
            listed = "\n  ".join(problem.replace(temporary, folder) for problem in problems)
            raise ValueError(f"{folder} is not ready to be published:\n  {listed}")
        if others:
            note(f"Not published: {', '.join(others)}.")
        if dry_run:
            print(f"{folder} is ready to be published as {repo}.")
        else:
            print(f"Published: {_upload(staged, repo, private)}")
    return 0


def _upload(folder: Path, repo: str, private: bool) -> str:
    api = HfApi()
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo, folder_path=folder, commit_message="Upload an SVTRv2 model with svtrv2-hf"
        )
    except LocalTokenNotFoundError as error:
        raise ValueError("You are not logged in to the Hub: run `hf auth login`, or set HF_TOKEN.") from error
    except OSError as error:  # no network, offline mode, a rejection
        raise ValueError(f"Cannot publish {repo}: {str(error).splitlines()[0]}") from error
    return str(commit.commit_url)


_RESULTS = {"model", "parameters", "date", "commit", "machine", "averages", "sets"}
_DATASET_RESULTS = {"protocol", "max_ratio", "samples", "correct", "word_accuracy"}


def _read_results(results: str, folder: Path) -> dict[str, Any]:
    """Read a file of `svtrv2 evaluate` about the weights in the folder."""
    try:
        content = json.loads(Path(results).read_text(encoding="utf-8"))
        complete = content.keys() >= _RESULTS and all(
            result.keys() >= _DATASET_RESULTS for result in content["sets"].values()
        )
    except ValueError as error:
        raise ValueError(f"--results {results} is not JSON: {error}.") from error
    except AttributeError:
        complete = False
    if not complete:
        raise ValueError(f"--results {results} was not written by svtrv2 evaluate --output.")
    for name, result in content["sets"].items():
        try:
            check_protocol(result["protocol"])
        except ValueError as error:
            raise ValueError(f"--results {results}, {name}: {error} Evaluate the model again.") from error
    measured = content.get("weights_sha256")
    if measured is None:
        note(
            f"{results} has no digest of the weights of {content['model']!r}: verify that they are those in {folder}."
        )
    elif measured != weights_digest(str(folder)):
        raise ValueError(
            f"{results}, of the model {content['model']!r}, is of other weights than those in {folder}: evaluate {folder}."
        )
    return dict(content)
