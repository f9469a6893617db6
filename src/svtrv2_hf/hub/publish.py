# SPDX-License-Identifier: Apache-2.0
"""The command `svtrv2 publish`: a saved recogniser, checked and with a card, to the Hub."""

import json
import sys
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from huggingface_hub.errors import LocalTokenNotFoundError
from transformers.utils import logging

from .card import render_card
from .check import PUBLISHED_FILES, check_folder, left_behind


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
        license: of the weights, for a new card.
        language: of the texts, for a new card.
        results: a file that `svtrv2 evaluate` wrote, for a new card.
        sample: an image to try the folder with.

    Returns:
        0 if the folder was published, or could be.

    Raises:
        ValueError: the folder is not ready; all that is wrong is told. Or the Hub refuses it.
        FileNotFoundError: there is no such folder or file.
    """
    path = Path(folder)
    if not path.is_dir():
        raise FileNotFoundError(f"There is no folder {folder}.")
    if repo.count("/") != 1 or not all(repo.split("/")):
        raise ValueError(f"--repo {repo!r} must be OWNER/NAME.")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    card = path / "README.md"
    if not card.is_file():
        card.write_text(render_card(path, repo, license, language, _read(results)), encoding="utf-8")
        print(f"{card} written: read it, and say what only you know.", file=sys.stderr)
    elif license or language or results:
        raise ValueError(
            f"{card} is there already, so --license, --language and --results have no effect: edit it, or remove it."
        )
    if faults := check_folder(path, None if sample is None else Path(sample)):
        raise ValueError(f"{folder} is not ready to be published:\n  " + "\n  ".join(faults))
    if behind := left_behind(path):
        print(f"Not published: {', '.join(behind)}.", file=sys.stderr)
    if dry_run:
        print(f"{folder} is ready to be published as {repo}.")
        return 0
    api = HfApi()
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        done = api.upload_folder(
            repo_id=repo,
            folder_path=path,
            allow_patterns=list(PUBLISHED_FILES),
            commit_message="Upload an SVTRv2 recogniser with svtrv2-hf",
        )
    except LocalTokenNotFoundError as error:
        raise ValueError("You are not logged in to the Hub: run `hf auth login`, or set HF_TOKEN.") from error
    except OSError as error:  # of huggingface_hub's are all of this kind: no network, offline mode, a refusal
        raise ValueError(f"{repo} could not be published: {str(error).splitlines()[0]}") from error
    print(f"Published: {done.commit_url}")
    return 0


def _read(results: str | None) -> dict[str, Any] | None:
    return None if results is None else json.loads(Path(results).read_text(encoding="utf-8"))
