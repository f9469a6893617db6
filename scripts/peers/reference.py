# SPDX-License-Identifier: Apache-2.0
"""The reference implementation, Topdu/OpenOCR."""

import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image

from svtrv2_hf import SVTRv2Config

from .peer import Peer, Settings, UnavailableError, collapse, count_parameters


def reference_model(checkout: Path, config: SVTRv2Config) -> torch.nn.Module:
    """Create the reference model of an architecture, with random weights. Its outputs are probabilities.

    Raises:
        UnavailableError: the folder is not a checkout, or a package is missing.
    """
    if not (checkout / "openrec").is_dir():
        raise UnavailableError(f"{checkout} is not a checkout of Topdu/OpenOCR")
    if str(checkout) not in sys.path:
        sys.path.insert(0, str(checkout))
    try:
        from openrec.modeling.base_recognizer import BaseRecognizer
    except ImportError as error:
        raise UnavailableError(f"the reference needs more packages ({error})") from error
    mixers = []
    for depth, convolutions in zip(config.depths, config.num_convolution_blocks, strict=True):
        mixer = ["Conv"] * convolutions + ["Global"] * (depth - convolutions)
        if 0 < convolutions < depth:
            mixer[convolutions] = "FGlobal"
        mixers.append(mixer)
    torch.manual_seed(0)
    return BaseRecognizer(
        {
            "in_channels": 3,
            "Transform": None,
            "Encoder": {
                "name": "SVTRv2LNConvTwo33",
                "use_pos_embed": False,
                "dims": config.hidden_sizes,
                "depths": config.depths,
                "num_heads": config.num_attention_heads,
                "mixer": mixers,
                "sub_k": [[1, 1], [2, 1], [-1, -1]],
                "last_stage": False,
                "feat2d": True,
            },
            "Decoder": {"name": "RCTCDecoder", "out_channels": config.vocab_size},
        }
    ).eval()


def commit_of(checkout: Path) -> str:
    """Return the commit of a git checkout, or "no git checkout"."""
    git = ["git", "-C", str(checkout), "rev-parse", "--show-toplevel", "HEAD"]
    try:
        top, commit = subprocess.run(git, capture_output=True, text=True, check=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        return "no git checkout"
    return commit if Path(top) == checkout.resolve() else "no git checkout"  # files in another repository


class Reference(Peer):
    """The reference model, which processes images of one size at a time, as the model requires."""

    name = "OpenOCR's SVTRv2"
    note = "the reference model of the same size; random weights; preprocessing of svtrv2-hf"

    def __init__(self, settings: Settings):
        if settings.reference is None:
            raise UnavailableError("git clone https://github.com/Topdu/OpenOCR, and --reference PATH to the checkout")
        self.model = reference_model(settings.reference, settings.model.config)
        self.versions = {"OpenOCR": commit_of(settings.reference)}
        self.image_processor = settings.processor.image_processor
        self.parameters = count_parameters(self.model)

    @torch.no_grad()
    def read(self, images: Sequence[Image.Image]) -> list[str]:
        rows = defaultdict(list)
        prepared = [self.image_processor.prepare(image) for image in images]
        for row, pixels in enumerate(prepared):
            rows[pixels.shape].append(row)
        texts = [""] * len(images)
        for of_size in rows.values():
            batch = torch.stack([torch.from_numpy(prepared[row]) for row in of_size])
            for row, text in zip(of_size, collapse(self.model(batch).argmax(-1)), strict=True):
                texts[row] = text
        return texts
