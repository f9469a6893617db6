# SPDX-License-Identifier: Apache-2.0
"""Batches of images of several sizes: their division in groups of one size, and the logits of the groups as one tensor."""

from collections.abc import Sequence

import torch


CERTAIN = 1e4  # logit margin of the blank in frames after the end of an image: its softmax is exactly one

Group = tuple[torch.Tensor | None, torch.Tensor]  # rows in the batch, `None` for all; images of one size


def groups_of_one_size(pixel_values: torch.Tensor, image_sizes: torch.Tensor | None) -> list[Group]:
    """Return the images of each size, without their padding, with their rows in the batch.

    Args:
        pixel_values: images of shape `(batch_size, num_channels, height, width)`, each in the upper left corner.
        image_sizes: height and width of each image in pixels, of shape `(batch_size, 2)`; `None` if all fill the batch.

    Raises:
        ValueError: the sizes do not fit the images.
    """
    full = tuple(pixel_values.shape[-2:])
    sizes = [] if image_sizes is None else [tuple(size) for size in image_sizes.tolist()]
    if sizes and (
        len(sizes) != len(pixel_values) or any(h > full[0] or w > full[1] or min(h, w) < 1 for h, w in sizes)
    ):
        raise ValueError(f"image_sizes {sizes} do not fit pixel_values of shape {tuple(pixel_values.shape)}.")
    if len(set(sizes)) <= 1:
        height, width = sizes[0] if sizes else full
        return [(None, pixel_values[..., :height, :width])]
    groups: list[Group] = []
    for height, width in dict.fromkeys(sizes):
        rows = [row for row, size in enumerate(sizes) if size == (height, width)]
        index = torch.tensor(rows, device=pixel_values.device)
        groups.append((index, pixel_values[index, :, :height, :width]))
    return groups


def merge_logits(
    groups: Sequence[Group], logits_of_group: Sequence[torch.Tensor], blank: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Combine the logits of groups of images in the order of the batch.

    Args:
        groups: the groups of [`groups_of_one_size`].
        logits_of_group: logits of each group, of shape `(images, frames, vocab_size)`.
        blank: id of the blank, whose probability is 1 in frames after the end of an image.

    Returns:
        Logits of shape `(batch_size, most frames, vocab_size)`, and the number of frames of each image.
    """
    first = logits_of_group[0]
    if groups[0][0] is None:
        return first, torch.full((first.shape[0],), first.shape[1], dtype=torch.long, device=first.device)
    batch_size = sum(len(images) for _, images in groups)
    longest = max(part.shape[1] for part in logits_of_group)
    logits = first.new_full((batch_size, longest, first.shape[-1]), -CERTAIN)
    logits[..., blank] = 0.0
    lengths = torch.empty(batch_size, dtype=torch.long, device=first.device)
    for (index, _), part in zip(groups, logits_of_group, strict=True):
        logits[index, : part.shape[1]] = part
        lengths[index] = part.shape[1]
    return logits, lengths


__all__ = ["Group", "groups_of_one_size", "merge_logits"]
