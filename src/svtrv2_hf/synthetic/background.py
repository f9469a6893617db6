# SPDX-License-Identifier: Apache-2.0
"""Render the background: plain colors, textures, edges, panels, lines, and neighboring words."""

import math

import torch

from .glyphs import BASELINE, CAP_HEIGHT
from .palette import contrast, sample_color_pairs
from .sampling import RandomStreams, columns
from .scene import Glyphs, Scene, coverage
from .textures import COUNT, TextureBank


def render_background(scene: Scene, bank: TextureBank, rng: RandomStreams) -> torch.Tensor:
    """Render images without their texts: float32 of shape `(n, 3, height, width)`, about 0..1."""
    image = scene.color(scene.background).repeat(1, 1, *scene.size)
    _shade(image, scene, rng.substream("shade"))
    _texture(image, scene, bank, rng.substream("texture"))
    _second_surface(image, scene, rng.substream("cut"))
    _panel(image, scene, rng.substream("panel"))
    _rules(image, scene, rng.substream("rules"))
    _neighbors(image, scene, rng.substream("neighbours"))  # words: ok
    return image


def crop_plane(scene: Scene) -> tuple[torch.Tensor, torch.Tensor]:
    """Return normalized pixel coordinates, -1..1 from left to right `(width,)` and from top to bottom `(height, 1)`."""
    height, width = scene.size
    across = (torch.arange(width, device=scene.device) + 0.5) * (2 / width) - 1
    down = (torch.arange(height, device=scene.device) + 0.5) * (2 / height) - 1
    return across, down[:, None]


def _shade(image: torch.Tensor, scene: Scene, rng: RandomStreams) -> None:
    """Add a linear gradient."""
    strength = rng.normal(0, 0.16) * scene.contrast.clamp(max=0.5) * scene.difficulty.clamp(max=1)
    turn = rng.uniform(0, 2 * math.pi)
    a, b = columns(scene.device, torch.cos(turn) * strength, torch.sin(turn) * strength)
    across, down = crop_plane(scene)
    image += (a * across + b * down)[:, None]


def _texture(image: torch.Tensor, scene: Scene, bank: TextureBank, rng: RandomStreams) -> None:
    kind = rng.uniform()
    strength = torch.where(kind < 0.40, rng.uniform(0.01, 0.04), rng.uniform(0.04, 0.11))
    strength = torch.where(kind < 0.08, rng.uniform(0.1, 0.25), strength)
    # weaker for low-contrast text
    strength = torch.minimum(strength, scene.contrast * (0.2 + 0.4 * scene.contrast))
    rows = (kind < 0.68 * scene.difficulty).nonzero()[:, 0]
    if not len(rows):
        return
    texels = torch.exp2(rng.uniform(-2.2, 1.3))  # texels per pixel of a crop of height 32
    turn = torch.where(rng.bernoulli(0.7), rng.normal(0, 0.06), rng.uniform(0, 2 * math.pi))
    left, top, which = rng.uniform(0, 256), rng.uniform(0, 256), rng.uniform(0, COUNT).floor()
    height, width = scene.size
    # compensates for the stretching of the crop to this size
    stretch = scene.geometry.ratios * height / width
    across, down = crop_plane(scene)
    cosine, sine = torch.cos(turn) * texels, torch.sin(turn) * texels
    a, b, c, d, left, top, which, strength = columns(
        scene.device,
        *(value[rows] for value in (cosine * stretch, -sine, sine * stretch, cosine, left, top, which, strength)),
    )
    across, down = across * (width / 2 * 32 / height), down * 16
    rendered = bank.sample(which, a * across + b * down + left, c * across + d * down + top)
    image[rows.to(scene.device)] += rendered * strength[:, None]


def _second_surface(image: torch.Tensor, scene: Scene, rng: RandomStreams) -> None:
    """Add a second surface behind a straight edge, mostly in a margin."""
    rows, rng = rng.pick(rng.bernoulli(0.09 * scene.difficulty), "cut")
    if not len(rows):
        return
    turn = rng.uniform(0, 2 * math.pi)
    turn = torch.where(rng.bernoulli(0.7), (turn / (math.pi / 2)).round() * (math.pi / 2) + rng.normal(0, 0.05), turn)
    a, b, away = columns(scene.device, torch.cos(turn), torch.sin(turn), rng.uniform(0.7, 1.0))
    across, down = crop_plane(scene)
    pixel = 2 / scene.size[0]
    beyond = (((a * across + b * down) - away * (a.abs() + b.abs())) / pixel + 0.5).clamp(0, 1)
    scene.blend(image, rows, _sample_third_color(scene, rows, rng), beyond)


def _sample_third_color(scene: Scene, rows: torch.Tensor, rng: RandomStreams) -> torch.Tensor:
    """Sample a color for surfaces other than background and text; sometimes the ink color."""
    other = sample_color_pairs(rng.substream("other"))[0]
    similar = (scene.background[rows] + rng.normal(0, 0.15, (1,))).clamp(0, 1)
    kind = rng.uniform()[:, None]
    return torch.where(kind < 0.4, other, torch.where(kind < 0.75, similar, scene.ink[rows]))


def _outside(scene: Scene, rows: torch.Tensor, gap: torch.Tensor, corner: torch.Tensor) -> torch.Tensor:
    """Return the distance in atlas pixels from a rounded box at a distance of `gap` from the text; positive outside."""
    x, y = scene.points(rows)
    half_width, half_height, gap, corner = columns(scene.device, *scene.geometry.half[rows].unbind(1), gap, corner)
    horizontal, vertical = x.abs() - (half_width + gap - corner), y.abs() - (half_height + gap - corner)
    round_off = torch.hypot(horizontal.clamp(min=0), vertical.clamp(min=0))
    return round_off + torch.maximum(horizontal, vertical).clamp(max=0) - corner


def _panel(image: torch.Tensor, scene: Scene, rng: RandomStreams) -> None:
    """Add a plate or label around the text, sometimes with a border."""
    rows, rng = rng.pick(rng.bernoulli(0.10 * scene.difficulty), "panel")
    if not len(rows):
        return
    gap = rng.uniform(0.06, 0.5) * CAP_HEIGHT
    corner = torch.where(rng.bernoulli(0.5), rng.uniform(0, 0.5), 0.0) * CAP_HEIGHT
    outside = _outside(scene, rows, gap, corner.clamp(max=12))
    (scale,) = columns(scene.device, scene.scale[rows])
    beyond = coverage(outside, scale) * columns(scene.device, rng.bernoulli(0.7))[0]
    scene.blend(image, rows, _sample_third_color(scene, rows, rng), beyond)
    inset, thickness, visible = columns(scene.device, rng.uniform(0.5, 4), rng.uniform(0.5, 2), rng.bernoulli(0.5))
    line = coverage(thickness - (outside + inset).abs(), scale) * visible
    scene.blend(image, rows, scene.ink[rows], line)


def _rules(image: torch.Tensor, scene: Scene, rng: RandomStreams) -> None:
    """Add a line under or above the text."""
    rows, rng = rng.pick(rng.bernoulli(0.04 * scene.difficulty), "rules")
    if not len(rows):
        return
    side = torch.where(rng.bernoulli(0.75), 1.0, -1.0)
    away = rng.uniform(0.12, 0.4) * CAP_HEIGHT
    half_height, side, away, thickness, scale = columns(
        scene.device, scene.geometry.half[rows, 1], side, away, rng.uniform(0.5, 2.0), scene.scale[rows]
    )
    line = coverage(thickness - (scene.points(rows)[1] * side - half_height - away).abs(), scale)
    scene.blend(image, rows, scene.ink[rows], line)


def _neighbors(image: torch.Tensor, scene: Scene, rng: RandomStreams) -> None:
    """Render words before and after the text and on the lines above and below, as far as they are visible."""
    rows, rng = rng.pick(rng.bernoulli(0.30 * scene.difficulty) & ~scene.layout.stacked, "neighbours")  # words: ok
    if not len(rows):
        return
    texts = scene.layout.select(rows)
    layout = scene.typesetter.set_neighbors(texts, rng)
    glyphs = Glyphs(scene.typesetter, layout, scene.geometry.middle[rows])
    left, top, right, bottom = texts.box.unbind(1)
    # Ascenders reach 8 pixels above the capitals, descenders 8 below the line.
    gap = rng.uniform(0.0, 0.45) * CAP_HEIGHT
    above = (top - gap) - (BASELINE + rng.uniform(0, 8))
    below = (bottom + gap) - (BASELINE - CAP_HEIGHT - rng.uniform(0, 6))
    sideways = rng.uniform(-0.5, 0.9) * (right - left)
    space = rng.uniform(0.4, 0.6) * CAP_HEIGHT  # a narrower space would make them part of the word
    before = (left - space) - layout.box[:, 2]
    after = (right + space) - layout.box[:, 0]
    zero = torch.zeros(len(rows))
    kind = rng.uniform()
    x, y = scene.points(rows)
    (scale,) = columns(scene.device, scene.scale[rows])
    rendered = torch.zeros_like(x)
    for low, high, along, across in (
        (0.0, 0.45, sideways, above),
        (0.3, 0.7, sideways, below),
        (0.65, 0.85, before, zero),
        (0.8, 1.0, after, zero),
    ):
        some = ((kind >= low) & (kind < high)).nonzero()[:, 0]
        if len(some):
            spot = some.to(scene.device)
            move_x, move_y = columns(scene.device, along[some], across[some])
            distance = glyphs.distance(x[spot] - move_x, y[spot] - move_y, some)
            rendered[spot] = torch.maximum(rendered[spot], coverage(distance, scale[spot]))
    other = sample_color_pairs(rng.substream("ink"))[1]
    same = rng.bernoulli(0.85) | (contrast(scene.background[rows], other) < 0.1)
    color = torch.where(same[:, None], scene.ink[rows], other)
    scene.blend(image, rows, color, rendered)
