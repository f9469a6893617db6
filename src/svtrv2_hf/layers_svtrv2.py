# SPDX-License-Identifier: Apache-2.0
"""Layers shared by several parts of SVTRv2."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn
from transformers.activations import ACT2FN
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs, is_torchdynamo_exporting

from .configuration_svtrv2 import SVTRv2Config


def eager_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Unpack[TransformersKwargs],
) -> tuple[torch.Tensor, torch.Tensor]:
    weights = torch.matmul(query, key.transpose(-1, -2)) * scaling
    weights = weights.softmax(dim=-1, dtype=torch.float32).to(query.dtype)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), weights


class SVTRv2Linear(nn.Linear):
    """A linear layer over feature maps of shape (B, H, W, C).

    On CPUs it runs as the equivalent 1x1 convolution: torch dispatches convolutions to oneDNN, which takes half the time
    of MKL's matrix product, as measured on an AMD processor. Exported graphs contain matrix products, which other runtimes
    and their quantization support better.
    """

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        # In torch.compile, `is_exporting` is true.
        exporting = not torch.compiler.is_dynamo_compiling() and is_torchdynamo_exporting()
        if hidden_states.ndim != 4 or hidden_states.device.type != "cpu" or exporting:
            return super().forward(hidden_states)
        outputs = F.conv2d(hidden_states.permute(0, 3, 1, 2), self.weight[:, :, None, None], self.bias)
        return outputs.permute(0, 2, 3, 1)


class SVTRv2Attention(nn.Module):
    """Self-attention over a whole feature map of shape (B, H, W, C), or over each of its rows."""

    is_causal = False

    def __init__(self, config: SVTRv2Config, hidden_size: int, num_heads: int, by_row: bool = False):
        super().__init__()
        self.config = config
        self.num_heads = num_heads
        self.scaling = (hidden_size // num_heads) ** -0.5
        self.by_row = by_row
        self.qkv = SVTRv2Linear(hidden_size, 3 * hidden_size, bias=not by_row)
        self.projection = SVTRv2Linear(hidden_size, hidden_size)

    def forward(
        self, hidden_states: torch.Tensor, **kwargs: Unpack[TransformersKwargs]
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        sequences = (0, 1) if self.by_row else (1, 2)  # flattens (B, H, W, ...) to (N, length, ...)
        qkv = self.qkv(hidden_states).flatten(*sequences).unflatten(-1, (3, self.num_heads, -1))
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        attention: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        attended, weights = attention(self, query, key, value, None, scaling=self.scaling, dropout=0.0, **kwargs)
        return self.projection(attended.reshape(hidden_states.shape)), weights


class SVTRv2MLP(nn.Module):
    """Two linear layers with the activation `hidden_act` in between, over feature maps of shape (B, H, W, C)."""

    def __init__(self, hidden_size: int, intermediate_size: int, hidden_act: str):
        super().__init__()
        self.fc1 = SVTRv2Linear(hidden_size, intermediate_size)
        self.activation = ACT2FN[hidden_act]
        self.in_place = hidden_act == "gelu"
        self.fc2 = SVTRv2Linear(intermediate_size, hidden_size)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        widened = self.fc1(hidden_states)
        if self.in_place and not torch.is_grad_enabled():
            # These are the largest tensors of the model: on CPUs, allocating memory for another one takes longer than
            # the activation itself.
            return self.fc2(torch.ops.aten.gelu_(widened))
        return self.fc2(self.activation(widened))


class SVTRv2BatchNorm(nn.BatchNorm2d):
    """Batch norm that uses its running statistics without updating them if its weight is frozen.

    It is frozen by `requires_grad_(False)` on the layer or a parent module, as PEFT does: frozen layers must not change, and
    adapters do not save statistics.
    """

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        if self.weight.requires_grad:
            return super().forward(hidden_states)
        return F.batch_norm(
            hidden_states, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps
        )


class SVTRv2ConvolutionNorm(nn.Module):
    """A convolution with "same" padding, batch norm and activation."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        hidden_act: str,
        kernel_size: tuple[int, int] = (1, 1),
        stride: int = 1,
        bias: bool = False,
    ):
        super().__init__()
        padding = (kernel_size[0] // 2, kernel_size[1] // 2)
        self.convolution = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=bias)
        self.norm = SVTRv2BatchNorm(out_channels)
        self.activation = ACT2FN[hidden_act]

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.activation(self.norm(self.convolution(hidden_states)))


__all__ = ["SVTRv2Attention", "SVTRv2ConvolutionNorm", "SVTRv2Linear", "SVTRv2MLP"]
