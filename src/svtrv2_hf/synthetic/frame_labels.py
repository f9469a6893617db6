# SPDX-License-Identifier: Apache-2.0
"""Labels for single frames, derived from known character positions."""

import torch


UNKNOWN = -100  # ignored by `torch.nn.functional.cross_entropy`
BLANK = 0


def frame_labels(centers: torch.Tensor, labels: torch.Tensor, width: int, pixels_per_frame: int) -> torch.Tensor:
    """Compute a class for each frame: a character at the center of its ink, and the blank elsewhere.

    A space is placed halfway between its neighbors. A text has no frame labels if they would not collapse to it: stacked
    and vertical text, two characters in one frame, or repeated characters in adjacent frames.

    Args:
        centers: float32 of shape `(n, longest)`: `x` in pixels of each character; NaN for spaces and padding.
        labels: int64 of shape `(n, length)`: character ids, padded with a negative number.
        width: width of the images in pixels.
        pixels_per_frame: pixels per frame of the model.

    Returns:
        int64 of shape `(n, width // pixels_per_frame)`; rows without frame labels are all `UNKNOWN`.
    """
    length, frames = labels.shape[1], width // pixels_per_frame
    present = labels >= 0
    centers = centers[:, :length].cpu()
    between = (centers.roll(1, 1) + centers.roll(-1, 1)) / 2
    centers = torch.where(centers.isnan() & present, between, centers)
    frame = (centers / pixels_per_frame).floor().nan_to_num(-1).long()
    inside = (frame >= 0) & (frame < frames)
    step = frame.diff(dim=1)
    needed = 1 + (labels[:, 1:] == labels[:, :-1]).long()
    consistent = (inside | ~present).all(1) & ((step >= needed) | ~present[:, 1:]).all(1)
    # Padding is written into an additional last frame, which is dropped.
    result = torch.full((len(labels), frames + 1), BLANK)
    result.scatter_(1, torch.where(inside & present, frame, frames), labels)
    return torch.where(consistent[:, None], result[:, :frames], UNKNOWN)
