# SPDX-License-Identifier: Apache-2.0
"""What each frame should show, where it is known where the characters stand."""

import torch


UNKNOWN = -100  # as `torch.nn.functional.cross_entropy` leaves out
BLANK = 0


def frame_labels(centres: torch.Tensor, labels: torch.Tensor, width: int, pixels_per_frame: int) -> torch.Tensor:
    """A class for each frame: a character's where the middle of its ink lies, and the blank elsewhere.

    A space stands halfway between its neighbours. Texts that this would not spell (stacked or upright ones, two characters in
    a frame, or twice the same in frames side by side) have no such labels.

    Args:
        centres: float32 of shape `(n, longest)`: `x` in pixels of each character; NaN for spaces, and beyond the end.
        labels: int64 of shape `(n, length)`: the characters' ids, padded with a negative number.
        width: of the images in pixels.
        pixels_per_frame: of the model.

    Returns:
        int64 of shape `(n, width // pixels_per_frame)`; rows without labels are all `UNKNOWN`.
    """
    length, frames = labels.shape[1], width // pixels_per_frame
    present = labels >= 0
    centres = centres[:, :length].cpu()
    between = (centres.roll(1, 1) + centres.roll(-1, 1)) / 2
    centres = torch.where(centres.isnan() & present, between, centres)
    place = (centres / pixels_per_frame).floor().nan_to_num(-1).long()
    inside = (place >= 0) & (place < frames)
    step = place.diff(dim=1)
    needed = 1 + (labels[:, 1:] == labels[:, :-1]).long()
    spelled = (inside | ~present).all(1) & ((step >= needed) | ~present[:, 1:]).all(1)
    found = torch.full((len(labels), frames), BLANK)
    # What is beyond the end is written into a frame of its own, which is cut off.
    found = torch.cat([found, found[:, :1]], 1)
    found.scatter_(1, torch.where(inside & present, place, frames), labels)
    return torch.where(spelled[:, None], found[:, :frames], UNKNOWN)
