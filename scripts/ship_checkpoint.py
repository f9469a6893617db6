#!/usr/bin/env python
# SPDX-License-Identifier: Apache-2.0
"""Copy a trained checkpoint into the package as its bundled checkpoint.

    python scripts/ship_checkpoint.py output/synthetic_nano

Weights are stored in float16 and loaded as float32. The guidance branch is dropped, as is the code, which is in the package.
"""

import argparse
import json
import shutil
import tempfile
from pathlib import Path

from svtrv2_hf.checkpoint import default_checkpoint, load_model_and_processor
from svtrv2_hf.weight_files import check_values


MAX_SIZE = 12e6  # bytes of all files


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="output folder of a training run")
    ship(parser.parse_args().checkpoint, Path(default_checkpoint()))


def ship(checkpoint: str, folder: Path) -> None:
    """Replace the content of `folder`, except its card, and print its size.

    Raises:
        ValueError: the checkpoint is too large for the package.
    """
    model, processor = load_model_and_processor(checkpoint, use_guidance=False)
    check_values(model.half().state_dict(), f"The weights in {checkpoint} in float16")
    with tempfile.TemporaryDirectory() as temporary:
        staging = Path(temporary)
        model.save_pretrained(staging)
        processor.save_pretrained(staging)
        for path in staging.glob("*.py"):
            path.unlink()
        for name in ("config.json", "processor_config.json", "tokenizer_config.json"):
            content = json.loads((staging / name).read_text(encoding="utf-8"))
            for part in (content, content.get("image_processor", {})):
                for key in ("auto_map", "custom_pipelines"):  # they refer to the code
                    part.pop(key, None)
            if name == "config.json":
                content["dtype"] = "float32"  # dtype of the computation
            (staging / name).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        size = sum(path.stat().st_size for path in staging.iterdir())
        if size > MAX_SIZE:
            raise ValueError(
                f"{checkpoint} takes {size / 1e6:.1f} MB in float16; the limit of the package is {MAX_SIZE / 1e6:.0f} MB."
            )
        folder.mkdir(exist_ok=True)
        for path in folder.iterdir():
            if path.name != "README.md":
                path.unlink()
        for path in sorted(staging.iterdir()):
            shutil.copyfile(path, folder / path.name)
    print(
        f"{folder}: {model.num_parameters() / 1e6:.2f} M parameters, {size / 1e6:.2f} MB. Next, evaluate it and render its card."
    )


if __name__ == "__main__":
    main()
