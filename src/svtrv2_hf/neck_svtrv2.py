# SPDX-License-Identifier: Apache-2.0
"""The neck of the released OpenOCR 'server' models, which replaces the feature rearrangement of the paper's models.

Equivalent to Topdu/OpenOCR at ae934e5: `EncoderWithSVTR` of `openrec/modeling/decoders/ctc_decoder.py`, except that gradients
flow through it. In OpenOCR, the backbone is trained only by another branch, which the published checkpoint lacks.
"""

import torch
import torch.nn.functional as F
from torch import nn
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs

from .configuration_svtrv2 import SVTRv2Config
from .layers_svtrv2 import SVTRv2Attention, SVTRv2ConvolutionNorm, SVTRv2MLP


ACTIVATION = "silu"
HEADS = 8
MLP_RATIO = 2


class SVTRv2MixingBlock(nn.Module):
    """Self-attention over all frames and an MLP, both pre-norm (the backbone is post-norm)."""

    def __init__(self, config: SVTRv2Config, hidden_size: int):
        super().__init__()
        self.attention_norm = nn.LayerNorm(hidden_size)
        self.attention = SVTRv2Attention(config, hidden_size, HEADS)
        self.mlp_norm = nn.LayerNorm(hidden_size)
        self.mlp = SVTRv2MLP(hidden_size, MLP_RATIO * hidden_size, ACTIVATION)

    def forward(self, hidden_states: torch.Tensor, **kwargs: Unpack[TransformersKwargs]) -> torch.Tensor:
        hidden_states = hidden_states + self.attention(self.attention_norm(hidden_states), **kwargs)[0]
        return hidden_states + self.mlp(self.mlp_norm(hidden_states))


class SVTRv2Neck(nn.Module):
    """Convert feature maps to frames: average over the height and over pairs of columns, mixed by attention.

    Attention runs on fewer channels; its result is concatenated with the averaged features.
    """

    def __init__(self, config: SVTRv2Config):
        super().__init__()
        channels, hidden_size = config.hidden_sizes[-1], config.neck_hidden_size
        narrow = channels // 8

        def along(in_channels: int, out_channels: int) -> SVTRv2ConvolutionNorm:
            return SVTRv2ConvolutionNorm(in_channels, out_channels, ACTIVATION, kernel_size=(1, 3))

        def pointwise(in_channels: int, out_channels: int) -> SVTRv2ConvolutionNorm:
            return SVTRv2ConvolutionNorm(in_channels, out_channels, ACTIVATION)

        self.reduction = nn.Sequential(along(channels, narrow), pointwise(narrow, hidden_size))
        self.blocks = nn.ModuleList(SVTRv2MixingBlock(config, hidden_size) for _ in range(config.neck_depth))
        self.norm = nn.LayerNorm(hidden_size, eps=1e-6)
        self.expansion = pointwise(hidden_size, channels)
        self.fusion = nn.Sequential(along(2 * channels, narrow), pointwise(narrow, hidden_size))

    def forward(self, hidden_states: torch.Tensor, **kwargs: Unpack[TransformersKwargs]) -> torch.Tensor:
        """Map `hidden_states` of shape (B, C, H, W) to frames of shape (B, W // 2, neck_hidden_size)."""
        pooled = F.avg_pool2d(hidden_states.mean(dim=2, keepdim=True), kernel_size=(1, 2))
        mixed = self.reduction(pooled).permute(0, 2, 3, 1)
        for block in self.blocks:
            mixed = block(mixed, **kwargs)
        mixed = self.expansion(self.norm(mixed).permute(0, 3, 1, 2))
        return self.fusion(torch.cat([pooled, mixed], dim=1)).squeeze(2).transpose(1, 2)


__all__ = ["SVTRv2Neck"]
