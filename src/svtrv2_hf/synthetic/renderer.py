# SPDX-License-Identifier: Apache-2.0
"""Batched renderer of synthetic text images."""

import math
from dataclasses import dataclass

import torch

from .atlas import Atlas
from .background import render_background
from .degradation import MAX_PIXELS, Camera
from .geometry import Geometry, sample_geometry
from .ink import render_text
from .layout import Layout, Typesetter
from .sampling import RandomStreams
from .scene import make_scene
from .textures import texture_bank


@dataclass
class RenderedTexts:
    """Rendered images of n texts.

    Attributes:
        pixels: uint8 of shape `(n, height, width, 3)`.
        centers: float32 of shape `(n, longest)`: `x` in pixels of the center of each character's ink; NaN for spaces and
            padding. Increasing from left to right except in vertical and stacked text.
        fonts: int64 of shape `(n,)`: indices of the fonts in the atlas.
    """

    pixels: torch.Tensor
    centers: torch.Tensor
    fonts: torch.Tensor


class Renderer:
    """Renderer of texts as they appear in photographs of signs, packages, screens and print.

    An image depends only on the renderer's arguments, its text, its size, the seed and its index. It does not depend on
    the other images of the batch nor, up to rounding, on the device.

    Args:
        atlas: glyph atlas.
        difficulty: 0 for clean upright print, 1 for typical photographs; values between and slightly above are allowed.
        device: device to render on; images stay on it.
    """

    def __init__(self, atlas: Atlas, difficulty: float = 1.0, device: torch.device | str = "cpu"):
        check_difficulty(difficulty)
        self.device = torch.device(device)
        self.difficulty = difficulty
        self._typesetter = Typesetter(atlas, difficulty, self.device)
        self._bank = texture_bank(self.device)
        self._camera = Camera(self.device)

    def plan(self, texts: list[str], seed: int, start: int | torch.Tensor) -> torch.Tensor:
        """Compute the aspect ratio (width / height) of the crop of each text, float32 of shape `(n,)`.

        Arguments and errors are those of `render`, without the size.
        """
        return self.lay_out(texts, seed, start)[1].ratios

    @torch.no_grad()
    def render(self, texts: list[str], size: tuple[int, int], seed: int, indices: int | torch.Tensor) -> RenderedTexts:
        """Render texts at one size.

        Text is stretched if the size differs from the aspect ratio that `plan` returns.

        Args:
            texts: texts to render.
            size: height and width in pixels, multiples of 8, with at most `MAX_PIXELS` pixels.
            seed: random seed.
            indices: index of the first text, or the indices of all texts, int64 of shape `(n,)`.

        Raises:
            ValueError: a text is blank, no font has all of its characters, or the size is invalid.
        """
        if min(size) < 8 or size[0] % 8 or size[1] % 8 or size[0] * size[1] > MAX_PIXELS:
            raise ValueError(
                f"size={size} must be a height and a width that are multiples of 8, with at most {MAX_PIXELS} pixels."
            )
        streams = _streams(texts, seed, indices)
        layout, geometry = self.lay_out(texts, seed, indices)
        # The names of substreams are part of the seed: changing one changes all images.
        colors = streams.substream("colours")  # words: ok
        scene = make_scene(self._typesetter, layout, geometry, size, self.difficulty, colors)
        image = render_background(scene, self._bank, streams.substream("ground"))
        render_text(image, scene, self._bank, streams.substream("ink"))
        self._camera.light(image, scene, streams.substream("light"))
        image = self._camera.capture(image, scene, self.difficulty, streams.substream("camera"))
        pixels = image.round_().clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()
        return RenderedTexts(pixels, _centers(layout, geometry, size[1]), layout.fonts)

    def lay_out(self, texts: list[str], seed: int, indices: int | torch.Tensor) -> tuple[Layout, Geometry]:
        """Sample the glyph positions of texts and their placement in the image; arguments as in `render`."""
        streams = _streams(texts, seed, indices)
        layout = self._typesetter.set(texts, streams.substream("layout"))
        return layout, sample_geometry(layout, self.difficulty, streams.substream("geometry"))


def check_difficulty(difficulty: float) -> None:
    """Raise ValueError for an invalid difficulty."""
    if not 0 <= difficulty < math.inf:
        raise ValueError(
            f"difficulty={difficulty} must be a finite number of 0 or more: 0 is clean print, 1 typical photographs."
        )


def _streams(texts: list[str], seed: int, indices: int | torch.Tensor) -> RandomStreams:
    if isinstance(indices, int):
        indices = torch.arange(indices, indices + len(texts))
    if len(indices) != len(texts):
        raise ValueError(f"Got {len(texts)} texts but {len(indices)} indices.")
    return RandomStreams.for_images(seed, indices.cpu())


def _centers(layout: Layout, geometry: Geometry, width: int) -> torch.Tensor:
    points = geometry.forward(layout.centers - geometry.middle[:, None])
    left, _, right, _ = geometry.crop.unbind(1)
    return (points[..., 0] - left[:, None]) / (right - left)[:, None] * width
