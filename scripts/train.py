#!/usr/bin/env python
# SPDX-License-Identifier: Apache-2.0
"""Train a model: `python scripts/train.py [RECIPE.yaml] [--name value ...]`; `--help` lists the names."""

import sys

from svtrv2_hf.cli import main


if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
