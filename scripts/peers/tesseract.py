# SPDX-License-Identifier: Apache-2.0
"""Tesseract, run as a command."""

import io
import os
import shutil
import subprocess
from collections.abc import Sequence

from PIL import Image

from .peer import Peer, Settings, UnavailableError


class Tesseract(Peer):
    """The command `tesseract`, one process per image."""

    name = "Tesseract"
    trained = True
    batches = False

    def __init__(self, settings: Settings):
        if shutil.which("tesseract") is None:
            raise UnavailableError("tesseract is not installed: apt-get install tesseract-ocr")
        version = subprocess.run(
            ["tesseract", "--version"], capture_output=True, text=True, check=True
        ).stdout.split()[1]
        self.versions = {"tesseract": version}
        self.note = f"{version}, English, trained weights, --psm 8 (a single word); process startup is included"
        self.environment = {**os.environ, "OMP_THREAD_LIMIT": str(settings.threads)}

    def read(self, images: Sequence[Image.Image]) -> list[str]:
        texts = []
        for image in images:
            buffer = io.BytesIO()
            image.save(buffer, "PPM")
            done = subprocess.run(
                ["tesseract", "stdin", "stdout", "--psm", "8", "-l", "eng"],
                input=buffer.getvalue(),
                capture_output=True,
                check=True,
                env=self.environment,
            )
            texts.append(done.stdout.decode("utf-8").strip())
        return texts
