# SPDX-License-Identifier: Apache-2.0
"""Tesseract, by its command."""

import io
import os
import shutil
import subprocess
from collections.abc import Sequence

from PIL import Image

from .peer import Peer, Settings, UnavailableError


class Tesseract(Peer):
    """One process for each image."""

    name = "Tesseract"
    trained = True
    batches = False

    def __init__(self, settings: Settings):
        if shutil.which("tesseract") is None:
            raise UnavailableError("there is no command tesseract: apt-get install tesseract-ocr")
        version = subprocess.run(
            ["tesseract", "--version"], capture_output=True, text=True, check=True
        ).stdout.split()[1]
        self.versions = {"tesseract": version}
        self.note = (
            f"{version}, English, trained weights, --psm 8 (a single word); the start of its process is included"
        )
        self.environment = {**os.environ, "OMP_THREAD_LIMIT": str(settings.threads)}

    def read(self, images: Sequence[Image.Image]) -> list[str]:
        readings = []
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
            readings.append(done.stdout.decode("utf-8").strip())
        return readings
