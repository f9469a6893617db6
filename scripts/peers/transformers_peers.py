# SPDX-License-Identifier: Apache-2.0
"""Models of transformers, with random weights, on which their speed does not depend."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image

from .peer import Peer, Settings, UnavailableError, collapse, count_parameters


def tensor_of(images: Sequence[Image.Image]) -> torch.Tensor:
    """Convert images of one size to a tensor of shape (n, 3, height, width) in 0..1."""
    return torch.from_numpy(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2).float() / 255


class PPOcr(Peer):
    """A PP-OCR recognition model of transformers.

    Attributes:
        family: prefix of its class names.
        options: configuration options that differ from the defaults in the published network.
    """

    family: str
    options: dict[str, Any] = {}
    note = "random weights; 48 pixels high and at least 320 wide, as in its image processor"

    def __init__(self, _: Settings):
        try:
            config = getattr(transformers, f"{self.family}Config")(**self.options)
            self.model = getattr(transformers, f"{self.family}ForTextRecognition")(config).eval()
        except AttributeError as error:
            raise UnavailableError(
                f"transformers {transformers.__version__} has no {self.family}: pip install -U transformers"
            ) from error
        self.parameters = count_parameters(self.model)

    @torch.no_grad()
    def read(self, images: Sequence[Image.Image]) -> list[str]:
        # As in its image processor, which needs torchvision: a batch is as wide as its widest image, and at least 320.
        widest = max(image.width / image.height for image in images)
        width = min(max(320, math.ceil(48 * widest)), 3200)
        prepared = []
        for image in images:
            narrow = min(math.ceil(48 * image.width / image.height), width)
            canvas = Image.new("RGB", (width, 48), (128, 128, 128))
            canvas.paste(image.resize((narrow, 48), Image.Resampling.BILINEAR))
            prepared.append(canvas)
        probabilities = self.model((tensor_of(prepared) - 0.5) / 0.5).last_hidden_state
        return collapse(probabilities.max(-1).indices)


class PPOcrV6Tiny(PPOcr):
    """The published network has a narrower backbone and head than the default configuration."""

    name = "PP-OCRv6 tiny, transformers"
    family = "PPOCRV6TinyRec"
    options = {
        "hidden_size": 80,
        "head_out_channels": 6906,
        "backbone_config": {
            "model_type": "pp_lcnet_v4",
            "stem_type": "small",
            "stem_channels": [3, 24, 48],
            # kernel, channels in and out, stride, squeeze and excitation
            "block_configs": [
                [[3, 48, 48, 1, True]],
                [[3, 48, 48, 1, False]],
                [[3, 48, 96, [2, 1], False], [3, 96, 96, 1, True], [3, 96, 96, 1, False]],
                [[3, 96, 160, [2, 1], False], [3, 160, 160, 1, True], *[[3, 160, 160, 1, False]] * 2],
            ],
        },
    }


class PPOcrV6Small(PPOcr):
    """The default configuration is the published network."""

    name = "PP-OCRv6 small, transformers"
    family = "PPOCRV6SmallRec"


class PPOcrV5Mobile(PPOcr):
    """The default configuration has a detection backbone, which reduces a height of 48 pixels to nothing."""

    name = "PP-OCRv5 mobile, transformers"
    note = f"{PPOcr.note}; transformers does not merge the training branches of its convolutions"
    family = "PPOCRV5MobileRec"
    options = {
        "backbone_config": {
            "model_type": "pp_lcnet_v3",
            "scale": 0.95,
            "divisor": 16,
            "out_features": ["stage2", "stage3", "stage4", "stage5"],
            "block_configs": [
                [[3, 16, 32, 1, False]],
                [[3, 32, 64, 1, False], [3, 64, 64, 1, False]],
                [[3, 64, 128, [2, 1], False], [3, 128, 128, 1, False]],
                [[3, 128, 256, [1, 2], False], *[[5, 256, 256, 1, False]] * 4],
                [
                    [5, 256, 512, [2, 1], True],
                    [5, 512, 512, 1, True],
                    [5, 512, 512, [2, 1], False],
                    [5, 512, 512, 1, False],
                ],
            ],
        },
    }


class PPOcrV5Server(PPOcr):
    """The default configuration is the published network."""

    name = "PP-OCRv5 server, transformers"
    family = "PPOCRV5ServerRec"


class MgpStr(Peer):
    """Three parallel heads: characters, and two kinds of word pieces."""

    name = "MGP-STR base, transformers"
    note = "random weights; 32 x 128 pixels; word pieces are not decoded"

    def __init__(self, _: Settings):
        self.model = transformers.MgpstrForSceneTextRecognition(transformers.MgpstrConfig()).eval()
        self.parameters = count_parameters(self.model)

    @torch.no_grad()
    def read(self, images: Sequence[Image.Image]) -> list[str]:
        resized = [image.resize((128, 32), Image.Resampling.BICUBIC) for image in images]
        heads = [head.softmax(-1).max(-1) for head in self.model(tensor_of(resized)).logits]
        texts = []
        for row in heads[0].indices.tolist():
            end = row.index(1) if 1 in row else len(row)
            texts.append("".join("  0123456789abcdefghijklmnopqrstuvwxyz"[i] for i in row[1:end]))
        return texts


class TrOcr(Peer):
    """TrOCR generates one token after another, so its time depends on the text; the length is fixed."""

    name = "TrOCR base, transformers"
    tokens = 4  # three word pieces and the end token
    note = (
        f"random weights; 384 x 384 pixels; {tokens} tokens generated per image, three word pieces and the end token, "
        "without beam search and with cache; tokens are not decoded"
    )

    def __init__(self, _: Settings):
        encoder = transformers.ViTConfig(image_size=384, qkv_bias=False)
        decoder = transformers.TrOCRConfig(
            cross_attention_hidden_size=768,
            activation_function="gelu",
            is_decoder=True,
            add_cross_attention=True,
        )
        config = transformers.VisionEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder)
        self.model = transformers.VisionEncoderDecoderModel(config=config).eval()
        self.generation = transformers.GenerationConfig(
            min_new_tokens=self.tokens,
            max_new_tokens=self.tokens,
            num_beams=1,
            do_sample=False,
            use_cache=True,
            decoder_start_token_id=2,
            bos_token_id=0,
            eos_token_id=2,
            pad_token_id=1,
        )
        self.parameters = count_parameters(self.model)

    @torch.no_grad()
    def read(self, images: Sequence[Image.Image]) -> list[str]:
        resized = [image.resize((384, 384), Image.Resampling.BILINEAR) for image in images]
        ids = self.model.generate((tensor_of(resized) - 0.5) / 0.5, generation_config=self.generation)
        return [" ".join(map(str, row)) for row in ids.tolist()]
