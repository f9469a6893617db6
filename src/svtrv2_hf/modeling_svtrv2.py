# SPDX-License-Identifier: Apache-2.0
"""SVTRv2: a convolution and attention backbone with a CTC head (Du et al., ICCV 2025, arXiv:2411.15858).

The model predicts, for each four pixels of image width (a frame), the logits of the characters and the blank:

    pixel_values (B, 3, H, W)
      -> embeddings, stride 4                  (B, C0, H / 4, W / 4)
      -> stage 0, convolution                  (B, C1, H / 4, W / 4)
      -> stage 1, convolution, then attention  (B, C2, H / 8, W / 4)
      -> stage 2, attention                    (B, C2, H / 8, W / 4)
      -> rearrangement                         (B, W / 4, C2)
      -> head                                  (B, W / 4, V)

The released OpenOCR 'server' models have other kernels and strides, and a neck instead of the rearrangement
(`neck_svtrv2.py`).

Sizes that are not multiples of four or eight are rounded up. Feature maps have the shape (B, C, H, W) in channels-last memory
format, which convolutions use directly and of which `permute(0, 2, 3, 1)` is a contiguous view for norms, MLPs and attention.

Equivalent to Topdu/OpenOCR at ae934e5: `openrec/modeling/encoders/svtrv2_lnconv_two33.py` and
`openrec/modeling/decoders/rctc_decoder.py`.
"""

import json
import math
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from types import NoneType
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutput
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs, cached_file, can_return_tuple, logging
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .configuration_svtrv2 import SVTRv2Config
from .guidance_svtrv2 import SVTRv2Guidance
from .layers_svtrv2 import SVTRv2Attention, SVTRv2ConvolutionNorm, SVTRv2Linear, SVTRv2MLP
from .neck_svtrv2 import SVTRv2Neck
from .pipeline_svtrv2 import SVTRv2TextRecognitionPipeline  # noqa: F401  copied to saved folders
from .size_groups_svtrv2 import groups_of_one_size, merge_logits


logger = logging.get_logger(__name__)

WRAPPERS = r"^(?:(?:module|_orig_mod)\.)+"  # prefixes of names by DistributedDataParallel and torch.compile
BLANK_PRIOR = 0.9  # initial probability of the blank


@dataclass
class SVTRv2CTCOutput(ModelOutput):
    """
    Args:
        loss (`torch.FloatTensor`, *optional*, returned with `labels`):
            `ctc_loss`, or with guidance the weighted sum of `ctc_loss` and `guidance_loss`.
        logits (`torch.FloatTensor` of shape `(batch_size, frames, vocab_size)`):
            Scores before softmax. In frames after the end of an image, the probability of the blank is 1.
        logits_lengths (`torch.LongTensor` of shape `(batch_size,)`):
            Number of frames of each image.
        ctc_loss (`torch.FloatTensor`, *optional*, returned with `labels`):
            See [`ctc_loss`].
        guidance_loss (`torch.FloatTensor`, *optional*, returned with `labels` by a model with guidance):
            Cross-entropy of the guidance branch, averaged over its predicted characters.
        num_unalignable (`torch.LongTensor`, *optional*, returned with `labels`):
            Number of images with too few frames for their label, whose `ctc_loss` is zero.
        hidden_states (`tuple(torch.FloatTensor)`, *optional*): output of the embeddings and of each stage.
        attentions (`tuple(torch.FloatTensor)`, *optional*): weights of each attention block of the backbone.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    logits_lengths: torch.Tensor | None = None
    ctc_loss: torch.Tensor | None = None
    guidance_loss: torch.Tensor | None = None
    num_unalignable: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


def ctc_loss(
    logits: torch.Tensor, logits_lengths: torch.Tensor, labels: torch.Tensor, blank: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute the CTC loss of each sample in float32: summed over frames, not divided by the length of the label.

    The learning rates of the paper are for this loss, not for `reduction="mean"` of torch.

    Args:
        logits (`torch.FloatTensor` of shape `(batch_size, frames, vocab_size)`)
        logits_lengths (`torch.LongTensor` of shape `(batch_size,)`): number of frames of each sample.
        labels (`torch.LongTensor` of shape `(batch_size, length)`): character ids; negative ids and blanks are padding.
        blank (`int`): id of the blank.

    Returns:
        The losses and a mask of unalignable samples, whose loss is zero, both of shape `(batch_size,)`. A text of n characters,
        r of which repeat the previous one, needs n + r frames.

    Raises:
        ValueError: a label has an id outside the vocabulary of the model.
    """
    padding = (labels < 0) | (labels == blank)
    if labels.device.type == "cpu" and labels.numel() and labels.max() >= logits.shape[-1]:
        raise ValueError(
            f"labels contain the id {int(labels.max())}, but the model has only {logits.shape[-1]} classes."
        )
    # Moves characters to the start of each row, since padding may be anywhere.
    characters = labels.gather(-1, padding.long().argsort(dim=-1, stable=True))
    lengths = (~padding).sum(-1)
    position = torch.arange(labels.shape[-1], device=labels.device)
    repeats = (characters[:, 1:] == characters[:, :-1]) & (position[1:] < lengths[:, None])
    unalignable = lengths + repeats.sum(-1) > logits_lengths
    with torch.autocast(logits.device.type, enabled=False):
        losses = F.ctc_loss(
            logits.float().log_softmax(-1).transpose(0, 1),
            characters.clamp(min=0),
            logits_lengths,
            lengths,
            blank=blank,
            reduction="none",
            zero_infinity=True,
        )
    return losses, unalignable


class SVTRv2DropPath(nn.Module):
    """Stochastic depth: in training, drops the output of a block with probability `rate` for each sample."""

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        if not self.training or self.rate == 0.0:
            return hidden_states
        kept = hidden_states.new_empty((hidden_states.shape[0],) + (1,) * (hidden_states.ndim - 1))
        return hidden_states * kept.bernoulli_(1 - self.rate).div_(1 - self.rate)

    def extra_repr(self) -> str:
        return f"rate={self.rate:.3f}"


class SVTRv2ConvolutionBlock(GradientCheckpointingLayer):
    """Grouped convolutions (in the paper, two of 3x3) and an MLP, both post-norm."""

    def __init__(self, config: SVTRv2Config, hidden_size: int, num_groups: int, drop_path_rate: float):
        super().__init__()
        self.mixer = nn.Sequential(
            *(
                nn.Conv2d(
                    hidden_size, hidden_size, config.kernel_size, padding=config.kernel_size // 2, groups=num_groups
                )
                for _ in range(config.convolutions_per_block)
            )
        )
        self.mixer_norm = nn.LayerNorm(hidden_size, eps=config.layer_norm_eps)
        self.mlp = SVTRv2MLP(hidden_size, int(config.mlp_ratio * hidden_size), config.hidden_act)
        self.mlp_norm = nn.LayerNorm(hidden_size, eps=config.layer_norm_eps)
        self.drop_path = SVTRv2DropPath(drop_path_rate)

    def forward(self, hidden_states: torch.Tensor, **kwargs: Unpack[TransformersKwargs]) -> torch.Tensor:
        hidden_states = hidden_states + self.drop_path(self.mixer(hidden_states))
        hidden_states = self.mixer_norm(hidden_states.permute(0, 2, 3, 1))
        hidden_states = self.mlp_norm(hidden_states + self.drop_path(self.mlp(hidden_states)))
        return hidden_states.permute(0, 3, 1, 2)


class SVTRv2AttentionBlock(GradientCheckpointingLayer):
    """Attention over the whole feature map and an MLP, both post-norm."""

    def __init__(self, config: SVTRv2Config, hidden_size: int, num_heads: int, drop_path_rate: float):
        super().__init__()
        self.mixer = SVTRv2Attention(config, hidden_size, num_heads)
        self.mixer_norm = nn.LayerNorm(hidden_size, eps=config.layer_norm_eps)
        self.mlp = SVTRv2MLP(hidden_size, int(config.mlp_ratio * hidden_size), config.hidden_act)
        self.mlp_norm = nn.LayerNorm(hidden_size, eps=config.layer_norm_eps)
        self.drop_path = SVTRv2DropPath(drop_path_rate)

    def forward(self, hidden_states: torch.Tensor, **kwargs: Unpack[TransformersKwargs]) -> torch.Tensor:
        hidden_states = hidden_states.permute(0, 2, 3, 1)
        hidden_states = self.mixer_norm(hidden_states + self.drop_path(self.mixer(hidden_states, **kwargs)[0]))
        hidden_states = self.mlp_norm(hidden_states + self.drop_path(self.mlp(hidden_states)))
        return hidden_states.permute(0, 3, 1, 2)


class SVTRv2Downsample(nn.Module):
    """Convolution that increases the channels and reduces height and width by `stride`."""

    def __init__(self, in_channels: int, out_channels: int, stride: tuple[int, int]):
        super().__init__()
        self.convolution = nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=stride, padding=1)
        self.norm = nn.LayerNorm(out_channels)  # eps 1e-5, not config.layer_norm_eps, as the published weights

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.norm(self.convolution(hidden_states).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class SVTRv2Stage(nn.Module):
    """Convolution blocks, attention blocks and, except in the last stage, downsampling."""

    def __init__(self, config: SVTRv2Config, stage: int, drop_path_rates: list[float]):
        super().__init__()
        hidden_size, num_heads = config.hidden_sizes[stage], config.num_attention_heads[stage]
        self.blocks = nn.ModuleList(
            (SVTRv2ConvolutionBlock if i < config.num_convolution_blocks[stage] else SVTRv2AttentionBlock)(
                config, hidden_size, num_heads, rate
            )
            for i, rate in enumerate(drop_path_rates)
        )
        self.downsample: nn.Module = nn.Identity()
        if stage < len(config.hidden_sizes) - 1:
            stride = (config.height_strides[stage], 1)
            self.downsample = SVTRv2Downsample(hidden_size, config.hidden_sizes[stage + 1], stride)

    def forward(self, hidden_states: torch.Tensor, **kwargs: Unpack[TransformersKwargs]) -> torch.Tensor:
        for block in self.blocks:
            hidden_states = block(hidden_states, **kwargs)
        return self.downsample(hidden_states)


class SVTRv2Embeddings(nn.Module):
    """Stem: two convolutions from 4 x 4 pixels to one position, without position embedding."""

    def __init__(self, config: SVTRv2Config):
        super().__init__()
        hidden_size = config.hidden_sizes[0]
        self.layers = nn.Sequential(
            *(
                SVTRv2ConvolutionNorm(
                    in_channels, out_channels, config.hidden_act, kernel_size=(3, 3), stride=2, bias=config.stem_bias
                )
                for in_channels, out_channels in pairwise((config.num_channels, hidden_size // 2, hidden_size))
            )
        )

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        if pixel_values.device.type == "cpu" and torch.compiler.is_dynamo_compiling():
            # As dictionary keys, height and width become constants: one graph for each image size and all batch sizes. On
            # CPUs, inductor cannot compile a single graph for all sizes (torch 2.13).
            dict.fromkeys(pixel_values.shape[-2:])
        dtype = next(self.parameters()).dtype
        return self.layers(pixel_values.to(dtype, memory_format=torch.channels_last))


class SVTRv2FeatureRearrangement(nn.Module):
    """Feature rearrangement module (paper, section 3.3): converts feature maps to frames from left to right.

    After a pre-norm attention block along each row, each frame is the sum of the values of a column, weighted by the
    softmax over the rows of the product of a learned token and the keys (not scaled by the square root of the channels).
    """

    def __init__(self, config: SVTRv2Config):
        super().__init__()
        hidden_size = config.hidden_sizes[-1]
        self.attention_norm = nn.LayerNorm(hidden_size)
        self.attention = SVTRv2Attention(config, hidden_size, num_heads=hidden_size // 32, by_row=True)
        self.mlp_norm = nn.LayerNorm(hidden_size)
        self.mlp = SVTRv2MLP(hidden_size, int(config.mlp_ratio * hidden_size), config.hidden_act)
        self.token = nn.Parameter(torch.zeros(1, 1, hidden_size))
        # Not nn.Linear, which dynamic quantization of torch replaces with a class whose weight is a method.
        self.key = SVTRv2Linear(hidden_size, hidden_size)
        self.value = SVTRv2Linear(hidden_size, hidden_size)

    def forward(self, hidden_states: torch.Tensor, **kwargs: Unpack[TransformersKwargs]) -> torch.Tensor:
        """Map `hidden_states` of shape (B, C, H, W) to frames of shape (B, W, C)."""
        hidden_states = hidden_states.permute(0, 2, 3, 1)  # (B, H, W, C)
        hidden_states = hidden_states + self.attention(self.attention_norm(hidden_states), **kwargs)[0]
        hidden_states = hidden_states + self.mlp(self.mlp_norm(hidden_states))
        # token x (K h + k) = (token x K) h + token x k, and the weights of a column sum to one, so the linear layers and the
        # sums are swapped: one product for all keys, and one value per column instead of per position.
        query = (self.token @ self.key.weight).flatten()
        scores = hidden_states @ query + (self.token * self.key.bias).sum()  # (B, H, W)
        weights = scores.softmax(dim=1, dtype=torch.float32).to(hidden_states.dtype)
        return self.value((weights[..., None] * hidden_states).sum(dim=1))


class SVTRv2Head(nn.Linear):
    """Linear layer from frames to logits; a separate class for its initialization."""


class SVTRv2WeightsError(ValueError, RuntimeError):
    """Error for tensors that do not match the model. Also a `RuntimeError`, as transformers raises for shapes."""


class SVTRv2PreTrainedModel(PreTrainedModel):
    """Base class with initialization, strict loading, and saving with code."""

    config_class = SVTRv2Config
    base_model_prefix = "svtrv2"
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_attention_backend = True
    _no_split_modules = ["SVTRv2ConvolutionBlock", "SVTRv2AttentionBlock"]
    _can_record_outputs = {"hidden_states": SVTRv2Stage, "attentions": SVTRv2Attention}
    # Prefixes of tensors that this class ignores; a model would inherit _keys_to_ignore_on_load_unexpected from its backbone.
    _ignored: tuple[str, ...] = ()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        std = self.config.initializer_range
        if isinstance(module, nn.Linear):
            init.trunc_normal_(module.weight, std=std)
        elif isinstance(module, nn.Conv2d):
            init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Embedding):
            init.normal_(module.weight, std=module.embedding_dim**-0.5)
        if isinstance(module, (SVTRv2Head, SVTRv2FeatureRearrangement, SVTRv2Neck)):
            # Unlike the reference, so that small models and batches learn. At first, a CTC model only learns the frequencies
            # of blank and characters. With small weights after the backbone, it does so by making all features equal, from
            # which post-norm networks rarely recover. Therefore these weights preserve the variance of the features, and
            # the head initially predicts mostly blanks.
            for linear in [submodule for submodule in module.modules() if isinstance(submodule, nn.Linear)]:
                init.normal_(linear.weight, std=linear.in_features**-0.5)
        if isinstance(module, SVTRv2Head):
            bias = torch.zeros(self.config.vocab_size)
            bias[self.config.blank_token_id] = math.log(BLANK_PRIOR / (1 - BLANK_PRIOR) * (self.config.vocab_size - 1))
            init.copy_(module.bias, bias)
        elif isinstance(module, SVTRv2FeatureRearrangement):
            init.trunc_normal_(module.token, std=std)
        elif isinstance(module, SVTRv2Guidance):
            for parameter in (module.next_token, module.previous_token, module.next_prompt, module.previous_prompt):
                init.trunc_normal_(parameter, std=std)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *model_args, **kwargs):
        """
        Load a saved model like [`~transformers.PreTrainedModel.from_pretrained`], but raise an error instead of continuing
        with random weights.

        The tensors of model and checkpoint must be the same, except for

        - the guidance branch, which can be dropped (`use_guidance=False`) or added (`use_guidance=True`);
        - everything outside the backbone, if `cls` is [`SVTRv2Model`];
        - tensors of other shapes, with `ignore_mismatched_sizes=True`.

        The prefixes `module.` (DistributedDataParallel) and `_orig_mod.` (torch.compile) are removed with a warning. With
        `output_loading_info=True`, missing and unexpected tensors are part of the returned information and raise no error.

        Raises:
            SVTRv2WeightsError: the tensors do not match; the message lists them.
        """
        wants_info = kwargs.pop("output_loading_info", False)
        allows_shapes = kwargs.pop("ignore_mismatched_sizes", False)

        def load(**more):
            # Mismatched shapes raise an error below; transformers only logs them.
            return super(SVTRv2PreTrainedModel, cls).from_pretrained(
                pretrained_model_name_or_path,
                *model_args,
                **{**kwargs, **more},
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )

        model, info = load()
        wrapped = [name for name in info["unexpected_keys"] if re.match(WRAPPERS, name)]
        unwrapped = {re.sub(WRAPPERS, "", name) for name in wrapped}
        ambiguous = len(unwrapped) < len(wrapped) or unwrapped & (model.state_dict().keys() - info["missing_keys"])
        if wrapped and not ambiguous and kwargs.get("key_mapping") is None:
            model, info = load(key_mapping={WRAPPERS: ""})
            model._weight_conversions = None  # saving the model would add the prefix again
            logger.warning(
                f"The names of the weights in {pretrained_model_name_or_path} have the prefix of a wrapper (module. or "
                "_orig_mod.), which is removed. Save the unwrapped model to avoid this warning."
            )
        mismatches = [f"{n}: {tuple(saved)} instead of {tuple(shape)}" for n, saved, shape in info["mismatched_keys"]]
        problems = {"of wrong shape": [] if allows_shapes else mismatches}
        if pretrained_model_name_or_path is not None:
            problems["stored as integers"] = _integers_in(pretrained_model_name_or_path, _hub_options(kwargs))
        if not wants_info and (pretrained_model_name_or_path is not None or kwargs.get("state_dict")):
            missing = info["missing_keys"]
            if any(name.startswith("guidance.") for name in missing) and cls._adds_guidance(
                pretrained_model_name_or_path, kwargs
            ):
                missing = [name for name in missing if not name.startswith("guidance.")]
            unexpected = [name for name in info["unexpected_keys"] if not name.startswith(cls._ignored)]
            problems |= {"missing": missing, "unexpected": unexpected}
        if any(problems.values()):
            raise SVTRv2WeightsError(
                f"The weights in {pretrained_model_name_or_path} do not match {cls.__name__} with its config.json: "
                f"{'; '.join(_first_of(kind, names) for kind, names in problems.items() if names)}. Save the whole model with "
                "save_pretrained, or use the config.json with which the weights were saved."
            )
        return (model, info) if wants_info else model

    @classmethod
    def _adds_guidance(cls, name, kwargs) -> bool:
        """Return whether the saved configuration lacks the guidance branch, so that the caller adds it."""
        try:
            saved, _ = cls.config_class.get_config_dict(name, **_hub_options(kwargs))
        except (OSError, ValueError):  # the folder has only weights, and the caller passes a configuration
            return True
        return not saved.get("use_guidance", False)

    def save_pretrained(self, save_directory, **kwargs):
        """Save the model together with its code, so that it can be loaded without this package."""
        # `register_for_auto_class` supports only one Auto class per class. `pipeline` modifies the dict, so create it again.
        self.config.auto_map = {
            "AutoConfig": "configuration_svtrv2.SVTRv2Config",
            "AutoModel": "modeling_svtrv2.SVTRv2Model",
            "AutoModelForCTC": "modeling_svtrv2.SVTRv2ForCTC",
            "AutoModelForTextRecognition": "modeling_svtrv2.SVTRv2ForCTC",
        }
        # A single task, so that `pipeline(model=...)` is unambiguous.
        self.config.custom_pipelines = {
            "image-to-text": {
                "impl": "pipeline_svtrv2.SVTRv2TextRecognitionPipeline",
                "pt": ["AutoModelForCTC"],
                "type": "image",
            }
        }
        return super().save_pretrained(save_directory, **kwargs)


def _hub_options(kwargs) -> dict[str, Any]:
    hub = ("cache_dir", "force_download", "local_files_only", "proxies", "revision", "subfolder", "token")
    return {key: kwargs[key] for key in hub if key in kwargs}


def _first_of(kind: str, names: Iterable[str]) -> str:
    """Return the number of names and the first five."""
    names = sorted(names)
    return f"{len(names)} {kind} ({', '.join(names[:5])}{', ...' if len(names) > 5 else ''})"


def _integers_in(name: str | os.PathLike, hub: dict[str, Any]) -> list[str]:
    """Return the weights that a checkpoint stores as integers, because it is quantized or damaged; transformers casts them."""
    file = cached_file(name, "model.safetensors", _raise_exceptions_for_missing_entries=False, **hub)
    if file is None:
        return []
    with open(file, "rb") as stream:  # noqa: PTH123  the header is its length in 8 bytes, and JSON
        header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
    return [
        key
        for key, tensor in header.items()
        if tensor.get("shape") and not tensor["dtype"].startswith(("F", "BF"))  # counters have no shape
    ]


class SVTRv2Model(SVTRv2PreTrainedModel):
    """Backbone, which converts images to feature maps."""

    _ignored = ("rearrangement.", "neck.", "head.", "guidance.")

    def __init__(self, config: SVTRv2Config):
        super().__init__(config)
        self.embeddings = SVTRv2Embeddings(config)
        rates = iter(torch.linspace(0, config.drop_path_rate, sum(config.depths), device="cpu").tolist())
        self.stages = nn.ModuleList(
            SVTRv2Stage(config, stage, [next(rates) for _ in range(depth)])
            for stage, depth in enumerate(config.depths)
        )
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.embeddings

    @merge_with_config_defaults
    @capture_outputs
    def forward(self, pixel_values: torch.Tensor, **kwargs: Unpack[TransformersKwargs]) -> BaseModelOutput:
        r"""
        Args:
            pixel_values (`torch.FloatTensor` of shape `(batch_size, num_channels, height, width)`):
                Images of one size, scaled to -1..1.

        Returns:
            `last_hidden_state` of shape `(batch_size, hidden_sizes[-1], height / 8, width / 4)` (with the default
            `height_strides`); on request `hidden_states` (of the embeddings and each stage) and `attentions`.
        """
        hidden_states = self.embeddings(pixel_values)
        for stage in self.stages:
            hidden_states = stage(hidden_states, **kwargs)
        return BaseModelOutput(last_hidden_state=hidden_states)


class SVTRv2ForCTC(SVTRv2PreTrainedModel):
    """Text recognition model: backbone, feature rearrangement, CTC head, and for training the semantic guidance branch."""

    # A model without guidance is complete, even if the file has weights of the branch.
    _keys_to_ignore_on_load_unexpected = [r"^guidance\."]
    # Because of the `**kwargs` of `forward`, Trainer would assume that the loss is divided by a number of *tokens*, and not
    # divide gradients of accumulated batches. A trainer that counts samples can set it.
    accepts_loss_kwargs = False

    def __init__(self, config: SVTRv2Config):
        super().__init__(config)
        self.svtrv2 = SVTRv2Model(config)
        # One of the two converts feature maps to frames.
        self.rearrangement = SVTRv2FeatureRearrangement(config) if config.neck == "rearrangement" else None
        self.neck = SVTRv2Neck(config) if config.neck == "mixing" else None
        self.head = SVTRv2Head(config.frame_size, config.vocab_size)
        self.guidance = SVTRv2Guidance(config) if config.use_guidance else None
        self.post_init()

    def drop_guidance(self) -> "SVTRv2ForCTC":
        """Remove the guidance branch, which is not used for inference, from the model and its configuration."""
        self.guidance = None
        self.config.use_guidance = False
        return self

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor,
        image_sizes: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> SVTRv2CTCOutput:
        r"""
        Args:
            pixel_values (`torch.FloatTensor` of shape `(batch_size, num_channels, height, width)`):
                Images, scaled to -1..1; images smaller than the batch are in the upper left corner.
            image_sizes (`torch.LongTensor` of shape `(batch_size, 2)`, *optional*):
                Height and width of each image in pixels. Images are cropped to these sizes and processed in groups of one
                size, so that predictions do not depend on padding or other images. By default, all images fill the batch.
            labels (`torch.LongTensor` of shape `(batch_size, length)`, *optional*):
                Character ids, padded with -100.
            num_items_in_batch (`int`, *optional*):
                Number of samples of the whole batch if this is a part of it (gradient accumulation, several devices), by which
                the loss is divided instead of `batch_size`.

        Raises:
            ValueError: hidden states or attentions are requested for images of several sizes, or an argument has a wrong shape.
            TypeError: `pixel_values` or `labels` are not tensors.
        """
        if not isinstance(pixel_values, torch.Tensor) or not isinstance(labels, (torch.Tensor, NoneType)):
            raise TypeError(
                'pixel_values and labels must be tensors: call processor(..., return_tensors="pt") and model(**inputs).'
            )
        batch_size = pixel_values.shape[0]
        if pixel_values.ndim != 4 or pixel_values.shape[1] != self.config.num_channels:
            raise ValueError(
                f"pixel_values has the shape {tuple(pixel_values.shape)} instead of (batch_size, {self.config.num_channels}, "
                "height, width)."
            )
        if labels is not None and (labels.ndim != 2 or labels.shape[0] != batch_size):
            raise ValueError(f"labels has the shape {tuple(labels.shape)} instead of ({batch_size}, length).")
        logits_of_size, guidance_logits, guidance_targets = [], [], []
        groups = groups_of_one_size(pixel_values, image_sizes)
        to_frames = cast(nn.Module, self.rearrangement or self.neck)
        for index, images in groups:
            backbone = self.svtrv2(images, **{**kwargs, "return_dict": True})
            # The outputs are checked, since both the call and the configuration can request them.
            if len(groups) > 1 and (backbone.hidden_states is not None or backbone.attentions is not None):
                raise ValueError(
                    "Hidden states and attentions are not available for images of several sizes: pass one size per call."
                )
            features = backbone.last_hidden_state
            logits_of_size.append(self.head(to_frames(features)))
            if labels is not None and self.guidance is not None:
                branch_logits, targets = self.guidance(features, labels if index is None else labels[index])
                guidance_logits.append(branch_logits.flatten(0, 1))
                guidance_targets.append(targets.flatten())

        logits, lengths = merge_logits(groups, logits_of_size, self.config.blank_token_id)
        loss = ctc = guidance = num_unalignable = None
        if labels is not None:
            share = 1.0 if num_items_in_batch is None else batch_size / num_items_in_batch
            losses, unalignable = ctc_loss(logits, lengths, labels, self.config.blank_token_id)
            num_unalignable = unalignable.sum()
            loss = ctc = losses.mean() * share
            if self.guidance is not None:
                targets = torch.cat(guidance_targets)
                guidance = F.cross_entropy(torch.cat(guidance_logits).float(), targets) * share
                loss = self.config.ctc_loss_weight * ctc + self.config.guidance_loss_weight * guidance

        return SVTRv2CTCOutput(
            loss=loss,
            logits=logits,
            logits_lengths=lengths,
            ctc_loss=ctc,
            guidance_loss=guidance,
            num_unalignable=num_unalignable,
            hidden_states=backbone.hidden_states,
            attentions=backbone.attentions,
        )


if hasattr(os, "register_at_fork"):
    # OpenMP's threads do not survive a fork: a forked child would wait for them forever, unless it uses one thread.
    os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))

__all__ = [
    "SVTRv2CTCOutput",
    "SVTRv2ForCTC",
    "SVTRv2Model",
    "SVTRv2PreTrainedModel",
    "SVTRv2WeightsError",
    "ctc_loss",
]
