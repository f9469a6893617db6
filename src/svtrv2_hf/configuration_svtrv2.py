# SPDX-License-Identifier: Apache-2.0
"""Configuration of SVTRv2 (Du et al., ICCV 2025, arXiv:2411.15858) with presets for four sizes."""

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

# T, S and B are from the paper. Nano is specific to this project: a tenth of the multiply-adds of T, for CPUs.
PRESETS: Mapping[str, Mapping[str, list[int] | float]] = MappingProxyType(
    {
        "nano": {
            "hidden_sizes": [32, 64, 128],
            "depths": [2, 4, 2],
            "num_attention_heads": [2, 4, 4],
            "num_convolution_blocks": [2, 2, 0],
            "drop_path_rate": 0.0,  # nano underfits, see model_cards/LOG.md
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


# Minimum values.
STAGE_FIELDS = {"hidden_sizes": 1, "depths": 1, "num_attention_heads": 1, "num_convolution_blocks": 0}


@strict
class SVTRv2Config(PreTrainedConfig):
    r"""
    Configuration of an SVTRv2 model. The defaults correspond to SVTRv2-T; see `SVTRv2Config.preset` for other sizes.

    Args:
        vocab_size (`int`, *optional*, defaults to 95):
            Number of classes of the head: the characters of the charset and the blank.
        blank_token_id (`int`, *optional*, defaults to 0):
            Id of the CTC blank. Labels never contain it.
        num_channels (`int`, *optional*, defaults to 3):
            Number of color channels of the image.
        hidden_sizes (`list[int]`, *optional*, defaults to `[64, 128, 256]`):
            Number of channels of each of the three stages.
        depths (`list[int]`, *optional*, defaults to `[3, 6, 3]`):
            Number of blocks of each stage.
        num_attention_heads (`list[int]`, *optional*, defaults to `[2, 4, 8]`):
            Number of heads of each stage's attention blocks, and of groups of its convolution blocks.
        num_convolution_blocks (`list[int]`, *optional*, defaults to `[3, 3, 0]`):
            Number of convolution blocks at the start of each stage; the other blocks are attention blocks over the whole
            feature map.
        kernel_size (`int`, *optional*, defaults to 3):
            Kernel size of the convolution blocks, an odd number.
        convolutions_per_block (`int`, *optional*, defaults to 2):
            Number of convolutions per convolution block.
        height_strides (`list[int]`, *optional*, defaults to `[1, 2]`):
            Strides along the height of the downsampling after the first and after the second stage.
        stem_bias (`bool`, *optional*, defaults to `False`):
            Whether the convolutions of the stem have a bias.
        neck (`str`, *optional*, defaults to `"rearrangement"`):
            How feature maps are converted to frames: `"rearrangement"` (paper, section 3.3), one frame per four pixels of
            width; or `"mixing"`, as in the released OpenOCR "server" models, one frame per eight pixels.
        neck_hidden_size (`int`, *optional*, defaults to 256):
            Number of channels of the frames of a mixing neck.
        neck_depth (`int`, *optional*, defaults to 2):
            Number of attention blocks of a mixing neck.
        mlp_ratio (`float`, *optional*, defaults to 4.0):
            Ratio of the hidden size of a block's MLP to the block's channels.
        hidden_act (`str`, *optional*, defaults to `"gelu"`):
            Activation function of the stem and the MLPs.
        layer_norm_eps (`float`, *optional*, defaults to 1e-6):
            Epsilon of the layer norms in the backbone's blocks. (The other layer norms use torch's default, 1e-5, with
            which the published weights were trained.)
        drop_path_rate (`float`, *optional*, defaults to 0.1):
            Stochastic depth rate of the last block; rates increase linearly with depth from 0. The nano preset uses 0.
        initializer_range (`float`, *optional*, defaults to 0.02):
            Standard deviation for initializing the linear layers of the backbone and the learned tokens.
        use_guidance (`bool`, *optional*, defaults to `False`):
            Whether the model has the semantic guidance branch (paper, section 3.4), which is used in training only.
        guidance_context_length (`int`, *optional*, defaults to 5):
            Number of characters to the left and to the right from which the guidance branch predicts a character.
        guidance_loss_weight (`float`, *optional*, defaults to 1.0):
            Weight of the guidance loss if the branch is present.
        ctc_loss_weight (`float`, *optional*, defaults to 0.1):
            Weight of the CTC loss if the branch is present. Without the branch, the loss is the CTC loss.
    """

    model_type = "svtrv2"
    # Trainer gathers all other outputs in evaluation; these are scalars or not needed by metrics.
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
        """Create the configuration of size `name` ("nano", "tiny", "small" or "base"); `kwargs` override fields.

        Raises:
            ValueError: the size is unknown.
        """
        if name not in PRESETS:
            raise ValueError(f"Unknown SVTRv2 size {name!r}; the sizes are {', '.join(PRESETS)}.")
        return cls(**{**PRESETS[name], **kwargs})

    def __post_init__(self, **kwargs: Any):
        for name in (*STAGE_FIELDS, "height_strides"):
            setattr(self, name, list(getattr(self, name)))  # JSON has no tuples
        self._warn_about_misspelled(kwargs)
        super().__post_init__(**kwargs)

    @property
    def preset_name(self) -> str | None:
        """Name of the preset with the same layers, or None; settings of training may differ."""
        for name, preset in PRESETS.items():
            if all(getattr(self, key) == value for key, value in preset.items() if key != "drop_path_rate"):
                return name
        return None

    @property
    def frame_size(self) -> int:
        """Number of channels of a frame, the input of the head."""
        return self.hidden_sizes[-1] if self.neck == "rearrangement" else self.neck_hidden_size

    @property
    def pixels_per_frame(self) -> int:
        """Pixels of image width per frame."""
        return 4 if self.neck == "rearrangement" else 8

    def _warn_about_misspelled(self, unknown: Mapping[str, Any]) -> None:
        # PreTrainedConfig accepts any keyword, so misspelled names would be ignored silently.
        own = [field.name for field in fields(SVTRv2Config)]
        for name in unknown:
            if close := difflib.get_close_matches(name, own, n=1, cutoff=0.75):
                logger.warning_once(
                    f"SVTRv2Config has no field {name!r}, so it has no effect. Did you mean {close[0]!r}?"
                )

    def validate_stages(self) -> None:
        """Check that all lists have one entry per stage and that channels are divisible by heads and groups."""
        for name, minimum in STAGE_FIELDS.items():
            values = getattr(self, name)
            if len(values) != 3:
                raise ValueError(f"{name}={values} must have three entries, one per stage.")
            if min(values) < minimum:
                raise ValueError(f"{name}={values} has an entry below {minimum}.")
        if any(channels % heads for channels, heads in zip(self.hidden_sizes, self.num_attention_heads, strict=True)):
            raise ValueError(f"hidden_sizes={self.hidden_sizes} must be divisible by {self.num_attention_heads=}.")
        if any(number > depth for number, depth in zip(self.num_convolution_blocks, self.depths, strict=True)):
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
        """Check kernel size, number of convolutions, strides and the neck."""
        if self.kernel_size < 1 or self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size={self.kernel_size} must be an odd number.")
        if self.hidden_act not in ACT2FN:
            raise ValueError(f"hidden_act={self.hidden_act!r} is not an activation that transformers knows.")
        if self.convolutions_per_block < 1:
            raise ValueError(f"convolutions_per_block={self.convolutions_per_block} must be at least 1.")
        if len(self.height_strides) != 2 or any(stride < 1 for stride in self.height_strides):
            raise ValueError(f"height_strides={self.height_strides} must have two entries of 1 or more.")
        if self.neck_hidden_size % 8 or self.neck_hidden_size < 8 or self.neck_depth < 0:
            raise ValueError(
                f"neck_hidden_size={self.neck_hidden_size} must be a positive multiple of 8 (heads), and "
                f"neck_depth={self.neck_depth} must be 0 or more."
            )

    def validate_vocabulary(self) -> None:
        """Check that there is at least one character and that the blank is one of the classes."""
        if self.vocab_size < 2:
            raise ValueError(f"vocab_size={self.vocab_size} must be at least 2: one character and the blank.")
        if not 0 <= self.blank_token_id < self.vocab_size:
            raise ValueError(f"blank_token_id={self.blank_token_id} is not within 0..{self.vocab_size - 1}.")

    def validate_rates(self) -> None:
        """Check the stochastic depth rate and the context length of the guidance branch."""
        if not 0 <= self.drop_path_rate < 1:
            raise ValueError(f"drop_path_rate={self.drop_path_rate} is not within [0, 1).")
        if self.guidance_context_length < 1:
            raise ValueError(f"guidance_context_length={self.guidance_context_length} must be at least 1.")


__all__ = ["PRESETS", "SVTRv2Config"]
