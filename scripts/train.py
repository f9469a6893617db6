#!/usr/bin/env python
# SPDX-License-Identifier: Apache-2.0
"""`svtrv2 train` as a script, for `accelerate launch`: `python scripts/train.py [RECIPE.yaml] [--name value]...`."""

import sys

from svtrv2_hf.cli import main


if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
