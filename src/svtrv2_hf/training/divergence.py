# SPDX-License-Identifier: Apache-2.0
"""Training that came to no finite numbers."""

from collections.abc import Mapping

import torch


class DivergedError(ValueError):
    """Training has diverged: the loss or the weights are NaN or infinite."""


def non_finite(tensors: Mapping[str, torch.Tensor]) -> list[str]:
    """Names of the tensors that hold NaN or infinity. They are on one device, which is waited for once."""
    floating = {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point()}
    if not floating:
        return []
    finite = torch.stack([tensor.isfinite().all() for tensor in floating.values()]).tolist()
    return [name for name, is_finite in zip(floating, finite, strict=True) if not is_finite]
