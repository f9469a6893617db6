#!/usr/bin/env python
# SPDX-License-Identifier: Apache-2.0
"""Puts a trained recogniser into the package as its default checkpoint.

    python scripts/ship_checkpoint.py output/drawn_nano

Weights are stored in float16 and loaded as float32; the guidance branch stays behind, and so does the code, which the package
has.
"""

import argparse
import json
import shutil
import tempfile
from pathlib import Path

from svtrv2_hf.checkpoint import default_checkpoint, load_model_and_processor
from svtrv2_hf.weight_files import check_values


LARGEST = 12e6  # bytes of all files together


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recogniser", help="the folder that a training run has left")
    ship(parser.parse_args().recogniser, Path(default_checkpoint()))


def ship(recogniser: str, folder: Path) -> None:
    """Writes `folder` anew, but for its card, and says how large it is.

    Raises:
        ValueError: it would be larger than a package should be.
    """
    model, processor = load_model_and_processor(recogniser, use_guidance=False)
    check_values(model.half().state_dict(), f"The weights in {recogniser} in float16")
    with tempfile.TemporaryDirectory() as temporary:
        staging = Path(temporary)
        model.save_pretrained(staging)
        processor.save_pretrained(staging)
        for path in staging.glob("*.py"):
            path.unlink()
        for name in ("config.json", "processor_config.json", "tokenizer_config.json"):
            content = json.loads((staging / name).read_text(encoding="utf-8"))
            for part in (content, content.get("image_processor", {})):
                for key in ("auto_map", "custom_pipelines"):  # which name the code
                    part.pop(key, None)
            if name == "config.json":
                content["dtype"] = "float32"  # to compute in
            (staging / name).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        size = sum(path.stat().st_size for path in staging.iterdir())
        if size > LARGEST:
            raise ValueError(
                f"{recogniser} takes {size / 1e6:.1f} MB in float16, and the package takes {LARGEST / 1e6:.0f}."
            )
        folder.mkdir(exist_ok=True)
        for path in folder.iterdir():
            if path.name != "README.md":
                path.unlink()
        for path in sorted(staging.iterdir()):
            shutil.copyfile(path, folder / path.name)
    print(
        f"{folder}: {model.num_parameters() / 1e6:.2f} M parameters, {size / 1e6:.2f} MB. Now evaluate it, and render its card."
    )


if __name__ == "__main__":
    main()
