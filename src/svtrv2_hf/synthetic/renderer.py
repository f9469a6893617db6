# SPDX-License-Identifier: Apache-2.0
"""Pictures of texts for training, drawn in batches."""

import math
from dataclasses import dataclass

import torch

from .atlas import Atlas
from .degradation import MOST_PIXELS, Camera
from .draws import Draws
from .geometry import Geometry, draw_geometry
from .ground import draw_ground
from .ink import draw_ink
from .layout import Layout, Typesetter
from .scene import make_scene
from .textures import texture_bank


@dataclass
class Drawn:
    """Pictures of n texts.

    Attributes:
        pixels: uint8 of shape `(n, height, width, 3)`.
        centres: float32 of shape `(n, longest)`: `x` in pixels of the middle of each character's ink; NaN for spaces and
            beyond the end. They run from left to right but in texts that stand upright or are stacked.
        fonts: int64 of shape `(n,)`: numbers of the fonts in the atlas.
    """

    pixels: torch.Tensor
    centres: torch.Tensor
    fonts: torch.Tensor


class Renderer:
    """Draws texts as they look in photographs of signs, packages, screens and print.

    An image follows from the renderer's arguments, its text, its size, the seed and its index alone: neither from the
    images beside it nor, up to rounding, from the device.

    Args:
        atlas: the fonts.
        difficulty: 0 for clean upright print, 1 for what photographs show; in between and a little beyond by degrees.
        device: where pictures are drawn and lie.
    """

    def __init__(self, atlas: Atlas, difficulty: float = 1.0, device: torch.device | str = "cpu"):
        check_difficulty(difficulty)
        self.device = torch.device(device)
        self.difficulty = difficulty
        self._typesetter = Typesetter(atlas, difficulty, self.device)
        self._bank = texture_bank(self.device)
        self._camera = Camera(self.device)

    def plan(self, texts: list[str], seed: int, start: int | torch.Tensor) -> torch.Tensor:
        """Width / height that crops of the texts would have, float32 of shape `(n,)`.

        Args:
            texts: what is drawn.
            seed: of all random choices.
            start: the index of the first text, or the indices of all of them, int64 of shape `(n,)`.

        Raises:
            ValueError: a text is blank, or no font can draw it.
        """
        return self._arrange(texts, _streams(texts, seed, start))[1].ratios

    @torch.no_grad()
    def render(self, texts: list[str], size: tuple[int, int], seed: int, indices: int | torch.Tensor) -> Drawn:
        """Draws texts at one size.

        Their proportions are natural if the size is the one that `plan`'s ratio calls for; else they are stretched.

        Args:
            texts: what is drawn.
            size: height and width in pixels, multiples of 8; at most `MOST_PIXELS` pixels.
            seed: of all random choices.
            indices: the index of the first text, or the indices of all of them, int64 of shape `(n,)`.

        Raises:
            ValueError: a text is blank, or no font can draw it; or the size is none.
        """
        if min(size) < 8 or size[0] % 8 or size[1] % 8 or size[0] * size[1] > MOST_PIXELS:
            raise ValueError(
                f"size={size} must be a height and a width that are multiples of 8, of at most {MOST_PIXELS} pixels."
            )
        streams = _streams(texts, seed, indices)
        layout, geometry = self._arrange(texts, streams)
        scene = make_scene(self._typesetter, layout, geometry, size, self.difficulty, streams.part("colours"))
        image = draw_ground(scene, self._bank, streams.part("ground"))
        draw_ink(image, scene, self._bank, streams.part("ink"))
        self._camera.light(image, scene, streams.part("light"))
        image = self._camera.photograph(image, scene, self.difficulty, streams.part("camera"))
        pixels = image.round_().clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()
        return Drawn(pixels, _centres(layout, geometry, size[1]), layout.fonts)

    def _arrange(self, texts: list[str], streams: Draws) -> tuple[Layout, Geometry]:
        layout = self._typesetter.set(texts, streams.part("layout"))
        return layout, draw_geometry(layout, self.difficulty, streams.part("geometry"))


def check_difficulty(difficulty: float) -> None:
    """Raises ValueError if a renderer cannot have this difficulty."""
    if not 0 <= difficulty < math.inf:
        raise ValueError(f"difficulty={difficulty} must be a number of 0 or more: 0 is clean print, 1 photographs.")


def _streams(texts: list[str], seed: int, indices: int | torch.Tensor) -> Draws:
    if isinstance(indices, int):
        indices = torch.arange(indices, indices + len(texts))
    if len(indices) != len(texts):
        raise ValueError(f"There are {len(texts)} texts but {len(indices)} indices.")
    return Draws.of(seed, indices.cpu())


def _centres(layout: Layout, geometry: Geometry, width: int) -> torch.Tensor:
    points = geometry.forward(layout.centres - geometry.middle[:, None])
    left, _, right, _ = geometry.crop.unbind(1)
    return (points[..., 0] - left[:, None]) / (right - left)[:, None] * width
