#!/usr/bin/env python
# SPDX-License-Identifier: Apache-2.0
"""Recognize the text of some images with the bundled checkpoint.

The default images are rendered by this project, because photographs that may be redistributed are rare.
"""

import argparse
import time
from pathlib import Path

from transformers import pipeline
from transformers.utils import logging

import svtrv2_hf
from svtrv2_hf.demo.models import EXAMPLES as IMAGES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="*", help="crops of words or lines")
    paths = parser.parse_args().images
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    labels = dict(line.split("\t") for line in (IMAGES / "labels.tsv").read_text(encoding="utf-8").splitlines())
    if not paths:
        paths = [str(IMAGES / name) for name in labels]
    read = pipeline("text-recognition", svtrv2_hf.default_checkpoint())
    started = time.perf_counter()
    results = [result for [result] in read(paths)]
    seconds = time.perf_counter() - started
    width = max(len(Path(path).name) for path in paths)
    print(f"{'image':{width}}  score  text")
    for path, result in zip(paths, results, strict=True):
        label = labels.get(Path(path).name) if Path(path).parent == IMAGES else None
        remark = f"   (label: {label!r})" if label not in (None, result["text"]) else ""
        print(f"{Path(path).name:{width}}  {result['score']:.3f}  {result['text']}{remark}")
    print(f"\n{len(paths)} images in {seconds:.2f} s. For other images: svtrv2 read IMAGE ...")


if __name__ == "__main__":
    main()
