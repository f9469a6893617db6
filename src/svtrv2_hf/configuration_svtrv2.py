# SPDX-License-Identifier: Apache-2.0
"""Configuration of SVTRv2 (Du et al., ICCV 2025, arXiv:2411.15858), and the four sizes it is built in."""

import difflib
from collections.abc import Mapping
from dataclasses import fields
from types import MappingProxyType
from typing import Any, Literal

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig
from transformers.activations import ACT2FN
from transformers.utils import logging


logger = logging.get_logger(__name__)

# T, S and B are the paper's; nano is this project's own, about a tenth of the multiply-adds of T, for CPUs.
PRESETS: Mapping[str, Mapping[str, list[int] | float]] = MappingProxyType(
    {
        "nano": {
            "hidden_sizes": [32, 64, 128],
            "depths": [2, 4, 2],
            "num_attention_heads": [2, 4, 4],
            "num_convolution_blocks": [2, 2, 0],
            "drop_path_rate": 0.0,  # it underfits: model_cards/LOG.md
        },
        "tiny": {
            "hidden_sizes": [64, 128, 256],
            "depths": [3, 6, 3],
            "num_attention_heads": [2, 4, 8],
            "num_convolution_blocks": [3, 3, 0],
        },
        "small": {
            "hidden_sizes": [96, 192, 384],
            "depths": [3, 6, 3],
            "num_attention_heads": [3, 6, 12],
            "num_convolution_blocks": [3, 3, 0],
        },
        "base": {
            "hidden_sizes": [128, 256, 384],
            "depths": [6, 6, 6],
            "num_attention_heads": [4, 8, 12],
            "num_convolution_blocks": [6, 2, 0],
        },
    }
)


@strict
class SVTRv2Config(PreTrainedConfig):
    r"""
    Architecture and charset size of an SVTRv2 recogniser. The defaults are SVTRv2-T; see `SVTRv2Config.preset`.

    Args:
        vocab_size (`int`, *optional*, defaults to 95):
            Classes of the head: the characters of the charset and the blank.
        blank_token_id (`int`, *optional*, defaults to 0):
            Class of CTC's blank. Labels never hold it.
        num_channels (`int`, *optional*, defaults to 3):
            Colour channels of the image.
        hidden_sizes (`list[int]`, *optional*, defaults to `[64, 128, 256]`):
            Channels of each of the three stages.
        depths (`list[int]`, *optional*, defaults to `[3, 6, 3]`):
            Blocks of each stage.
        num_attention_heads (`list[int]`, *optional*, defaults to `[2, 4, 8]`):
            Heads of each stage's attention blocks, and groups of its convolution blocks.
        num_convolution_blocks (`list[int]`, *optional*, defaults to `[3, 3, 0]`):
            How many blocks of each stage, counted from its first, mix by convolution; the others mix by attention over
            the whole feature map.
        kernel_size (`int`, *optional*, defaults to 3):
            Height and width of the convolution blocks' kernels, an odd number.
        convolutions_per_block (`int`, *optional*, defaults to 2):
            Convolutions of a convolution block.
        height_strides (`list[int]`, *optional*, defaults to `[1, 2]`):
            What the ways down from the first and from the second stage divide the height by.
        stem_bias (`bool`, *optional*, defaults to `False`):
            Whether the convolutions of the stem have a bias.
        neck (`str`, *optional*, defaults to `"rearrangement"`):
            What turns feature maps into frames: `"rearrangement"` (paper, section 3.3), a frame for every four pixels of width; or
            `"mixing"`, as in the models that upstream publishes for use, a frame for every eight.
        neck_hidden_size (`int`, *optional*, defaults to 256):
            Channels of the frames of a mixing neck.
        neck_depth (`int`, *optional*, defaults to 2):
            Attention blocks of a mixing neck.
        mlp_ratio (`float`, *optional*, defaults to 4.0):
            Width of a block's MLP in units of the block's channels.
        hidden_act (`str`, *optional*, defaults to `"gelu"`):
            Activation of the stem and the MLPs.
        layer_norm_eps (`float`, *optional*, defaults to 1e-6):
            Epsilon of the layer norms in the backbone's blocks. (The other layer norms keep torch's default, 1e-5, as
            the published weights were trained so.)
        drop_path_rate (`float`, *optional*, defaults to 0.1):
            Stochastic depth of the last block; it grows from 0 linearly with the depth. The preset nano has none.
        initializer_range (`float`, *optional*, defaults to 0.02):
            Standard deviation of the initial linear weights of the backbone and of learned tokens.
        use_guidance (`bool`, *optional*, defaults to `False`):
            Whether the model carries the semantic guidance branch (paper, section 3.4), which is needed in training only.
        guidance_context_length (`int`, *optional*, defaults to 5):
            Characters to the left and to the right that the guidance branch predicts a character from.
        guidance_loss_weight (`float`, *optional*, defaults to 1.0):
            Weight of the guidance loss where the branch is present.
        ctc_loss_weight (`float`, *optional*, defaults to 0.1):
            Weight of the CTC loss beside the guidance loss. Without the branch the loss is the CTC loss itself.
    """

    model_type = "svtrv2"
    # Trainer gathers every other output of an evaluation step; these are scalars, or of no use to a metric.
    keys_to_ignore_at_inference = ["logits_lengths", "ctc_loss", "guidance_loss", "num_unalignable"]

    vocab_size: int = 95
    blank_token_id: int = 0
    pad_token_id: int | None = 0
    num_channels: int = 3
    hidden_sizes: list[int] | tuple[int, ...] = (64, 128, 256)
    depths: list[int] | tuple[int, ...] = (3, 6, 3)
    num_attention_heads: list[int] | tuple[int, ...] = (2, 4, 8)
    num_convolution_blocks: list[int] | tuple[int, ...] = (3, 3, 0)
    kernel_size: int = 3
    convolutions_per_block: int = 2
    height_strides: list[int] | tuple[int, ...] = (1, 2)
    stem_bias: bool = False
    neck: Literal["rearrangement", "mixing"] = "rearrangement"
    neck_hidden_size: int = 256
    neck_depth: int = 2
    mlp_ratio: float | int = 4.0
    hidden_act: str = "gelu"
    layer_norm_eps: float | int = 1e-6
    drop_path_rate: float | int = 0.1
    initializer_range: float | int = 0.02
    use_guidance: bool = False
    guidance_context_length: int = 5
    guidance_loss_weight: float | int = 1.0
    ctc_loss_weight: float | int = 0.1

    @classmethod
    def preset(cls, name: str, **kwargs: Any) -> "SVTRv2Config":
        """The configuration of size `name` ("nano", "tiny", "small" or "base"); `kwargs` are further fields.

        Raises:
            ValueError: there is no such size.
        """
        if name not in PRESETS:
            raise ValueError(f"There is no SVTRv2 size {name!r}; the sizes are {', '.join(PRESETS)}.")
        return cls(**{**PRESETS[name], **kwargs})

    def __post_init__(self, **kwargs: Any):
        for name in ("hidden_sizes", "depths", "num_attention_heads", "num_convolution_blocks", "height_strides"):
            setattr(self, name, list(getattr(self, name)))  # JSON has no tuples: the same after saving and loading
        self._warn_of_misspelt(kwargs)
        super().__post_init__(**kwargs)

    @property
    def preset_name(self) -> str | None:
        """The size whose layers these are, or None; what is of training alone may differ."""
        for name, preset in PRESETS.items():
            if all(getattr(self, key) == value for key, value in preset.items() if key != "drop_path_rate"):
                return name
        return None

    @property
    def frame_size(self) -> int:
        """Channels of a frame, which the head scores."""
        return self.hidden_sizes[-1] if self.neck == "rearrangement" else self.neck_hidden_size

    @property
    def pixels_per_frame(self) -> int:
        """Of an image's width."""
        return 4 if self.neck == "rearrangement" else 8

    def _warn_of_misspelt(self, unknown: Mapping[str, Any]) -> None:
        # PreTrainedConfig keeps every keyword it is given, so a slip of the pen would go unnoticed.
        own = [field.name for field in fields(SVTRv2Config)]
        for name in unknown:
            if close := difflib.get_close_matches(name, own, n=1, cutoff=0.75):
                logger.warning_once(
                    f"SVTRv2Config has no field {name!r}, which therefore has no effect. Is {close[0]!r} meant?"
                )

    def validate_stages(self) -> None:
        """Every list speaks of the same three stages, and the channels split evenly into heads and groups."""
        per_stage = {
            name: getattr(self, name)
            for name in ("hidden_sizes", "depths", "num_attention_heads", "num_convolution_blocks")
        }
        for name, values in per_stage.items():
            if len(values) != 3:
                raise ValueError(f"{name}={values} must have three entries, one for each stage.")
            if any(value < (0 if name == "num_convolution_blocks" else 1) for value in values):
                raise ValueError(f"{name}={values} has an entry that is too small.")
        for channels, heads in zip(self.hidden_sizes, self.num_attention_heads, strict=True):
            if channels % heads:
                raise ValueError(f"hidden_sizes={self.hidden_sizes} must be divisible by {self.num_attention_heads=}.")
        for depth, convolutions in zip(self.depths, self.num_convolution_blocks, strict=True):
            if convolutions > depth:
                raise ValueError(f"num_convolution_blocks={self.num_convolution_blocks} exceeds depths={self.depths}.")
        if self.hidden_sizes[-1] % 32:
            raise ValueError(
                f"hidden_sizes={self.hidden_sizes}: the last must be a multiple of 32 (rearrangement heads)."
            )
        if self.hidden_sizes[0] % 2:
            raise ValueError(
                f"hidden_sizes={self.hidden_sizes}: the first must be even (the stem starts with half of it)."
            )

    def validate_architecture(self) -> None:
        """Kernels have a middle, strides make maps smaller, and guidance has the frames that it was made for."""
        if self.kernel_size < 1 or self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size={self.kernel_size} must be an odd number.")
        if self.hidden_act not in ACT2FN:
            raise ValueError(f"hidden_act={self.hidden_act!r} is not an activation that transformers knows.")
        if self.convolutions_per_block < 1:
            raise ValueError(f"convolutions_per_block={self.convolutions_per_block} must be at least 1.")
        if len(self.height_strides) != 2 or any(stride < 1 for stride in self.height_strides):
            raise ValueError(f"height_strides={self.height_strides} must be two numbers, 1 or more.")
        if self.neck_hidden_size % 8 or self.neck_hidden_size < 8 or self.neck_depth < 0:
            raise ValueError(
                f"neck_hidden_size={self.neck_hidden_size} must be a multiple of 8 (heads), neck_depth={self.neck_depth} 0 or more."
            )

    def validate_vocabulary(self) -> None:
        """There is at least one character, and the blank is one of the classes."""
        if self.vocab_size < 2:
            raise ValueError(f"vocab_size={self.vocab_size} leaves no character beside the blank.")
        if not 0 <= self.blank_token_id < self.vocab_size:
            raise ValueError(f"blank_token_id={self.blank_token_id} is not within 0..{self.vocab_size - 1}.")

    def validate_rates(self) -> None:
        """Stochastic depth is a probability; the guidance branch looks at one character or more."""
        if not 0 <= self.drop_path_rate < 1:
            raise ValueError(f"drop_path_rate={self.drop_path_rate} is not within [0, 1).")
        if self.guidance_context_length < 1:
            raise ValueError(f"guidance_context_length={self.guidance_context_length} must be at least 1.")


__all__ = ["PRESETS", "SVTRv2Config"]
