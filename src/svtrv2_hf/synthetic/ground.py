# SPDX-License-Identifier: Apache-2.0
"""What lies behind and around the text: plain paint, textures, edges of panels, frames, and the next words."""

import math

import torch

from .draws import Draws, columns
from .glyphs import BASELINE, CAP_HEIGHT
from .palette import contrast, draw_pairs
from .scene import Glyphs, Scene, coverage
from .textures import COUNT, TextureBank


def draw_ground(scene: Scene, bank: TextureBank, draws: Draws) -> torch.Tensor:
    """The pictures without their texts, float32 of shape `(n, 3, height, width)`, about 0..1."""
    image = scene.colour(scene.ground).repeat(1, 1, *scene.size)
    _shade(image, scene, draws.part("shade"))
    _texture(image, scene, bank, draws.part("texture"))
    _cut(image, scene, draws.part("cut"))
    _panel(image, scene, draws.part("panel"))
    _rules(image, scene, draws.part("rules"))
    _neighbours(image, scene, draws.part("neighbours"))
    return image


def crop_plane(scene: Scene) -> tuple[torch.Tensor, torch.Tensor]:
    """Coordinates of the crops' pixels, -1..1 from left to right `(width,)` and from top to bottom `(height, 1)`."""
    height, width = scene.size
    across = (torch.arange(width, device=scene.device) + 0.5) * (2 / width) - 1
    down = (torch.arange(height, device=scene.device) + 0.5) * (2 / height) - 1
    return across, down[:, None]


def _shade(image: torch.Tensor, scene: Scene, draws: Draws) -> None:
    """A gradient from one side to another."""
    strength = draws.normal(0, 0.16) * scene.contrast.clamp(max=0.5) * scene.difficulty.clamp(max=1)
    turn = draws.uniform(0, 2 * math.pi)
    a, b = columns(scene.device, torch.cos(turn) * strength, torch.sin(turn) * strength)
    across, down = crop_plane(scene)
    image += (a * across + b * down)[:, None]


def _texture(image: torch.Tensor, scene: Scene, bank: TextureBank, draws: Draws) -> None:
    kind = draws.uniform()
    strength = torch.where(kind < 0.40, draws.uniform(0.01, 0.04), draws.uniform(0.04, 0.11))
    strength = torch.where(kind < 0.08, draws.uniform(0.1, 0.25), strength)
    # little of it where the text is faint
    strength = torch.minimum(strength, scene.contrast * (0.2 + 0.4 * scene.contrast))
    rows = (kind < 0.68 * scene.difficulty).nonzero()[:, 0]
    if not len(rows):
        return
    texels = torch.exp2(draws.uniform(-2.2, 1.3))  # of the texture in a pixel of a crop 32 pixels high
    turn = torch.where(draws.chance(0.7), draws.normal(0, 0.06), draws.uniform(0, 2 * math.pi))
    left, top, which = draws.uniform(0, 256), draws.uniform(0, 256), draws.uniform(0, COUNT).floor()
    height, width = scene.size
    # the crop may have been stretched on its way to this size
    stretch = scene.geometry.ratios * height / width
    across, down = crop_plane(scene)
    cosine, sine = torch.cos(turn) * texels, torch.sin(turn) * texels
    a, b, c, d, left, top, which, strength = columns(
        scene.device,
        *(value[rows] for value in (cosine * stretch, -sine, sine * stretch, cosine, left, top, which, strength)),
    )
    across, down = across * (width / 2 * 32 / height), down * 16
    drawn = bank.sample(which, a * across + b * down + left, c * across + d * down + top)
    place = rows.to(scene.device)
    image[place] += drawn * strength[:, None]


def _cut(image: torch.Tensor, scene: Scene, draws: Draws) -> None:
    """Another surface beyond a straight edge, mostly in a margin."""
    rows = draws.some(0.09 * scene.difficulty)
    if not len(rows):
        return
    draws = draws.part("cut", rows)
    turn = draws.uniform(0, 2 * math.pi)
    turn = torch.where(draws.chance(0.7), (turn / (math.pi / 2)).round() * (math.pi / 2) + draws.normal(0, 0.05), turn)
    away = draws.uniform(0.7, 1.0)
    a, b, away = columns(scene.device, torch.cos(turn), torch.sin(turn), away)
    across, down = crop_plane(scene)
    pixel = 2 / scene.size[0]
    beyond = (((a * across + b * down) - away * (a.abs() + b.abs())) / pixel + 0.5).clamp(0, 1)
    colour = _other_colour(scene, rows, draws)
    place = rows.to(scene.device)
    image[place] = image[place].lerp(scene.colour(colour), beyond[:, None])


def _other_colour(scene: Scene, rows: torch.Tensor, draws: Draws) -> torch.Tensor:
    """A colour for what is neither ground nor ink, though sometimes painted with the ink."""
    other = draw_pairs(draws.part("other"))[0]
    similar = (scene.ground[rows] + draws.normal(0, 0.15, (1,))).clamp(0, 1)
    kind = draws.uniform()[:, None]
    return torch.where(kind < 0.4, other, torch.where(kind < 0.75, similar, scene.ink[rows]))


def _outside(scene: Scene, rows: torch.Tensor, gap: torch.Tensor, corner: torch.Tensor) -> torch.Tensor:
    """Distance in pixels of the atlas from a box round the text, `gap` away from it; positive outside."""
    place = rows.to(scene.device)
    half_width, half_height, gap, corner = columns(scene.device, *scene.geometry.half[rows].unbind(1), gap, corner)
    beside = scene.x[place].abs() - (half_width + gap - corner)
    above = scene.y[place].abs() - (half_height + gap - corner)
    round_off = torch.hypot(beside.clamp(min=0), above.clamp(min=0))
    return round_off + torch.maximum(beside, above).clamp(max=0) - corner


def _panel(image: torch.Tensor, scene: Scene, draws: Draws) -> None:
    """The text stands on a plate or label that ends within the crop; some have a line along the rim."""
    rows = draws.some(0.10 * scene.difficulty)
    if not len(rows):
        return
    draws = draws.part("panel", rows)
    gap = draws.uniform(0.06, 0.5) * CAP_HEIGHT
    corner = torch.where(draws.chance(0.5), draws.uniform(0, 0.5), torch.zeros(len(rows))) * CAP_HEIGHT
    outside = _outside(scene, rows, gap, corner.clamp(max=12))
    (scale,) = columns(scene.device, scene.scale[rows])
    place = rows.to(scene.device)
    beyond = coverage(outside, scale)[:, None]
    beyond = beyond * (draws.chance(0.7).float().to(scene.device))[:, None, None, None]
    picture = image[place].lerp(scene.colour(_other_colour(scene, rows, draws)), beyond)
    inset, thickness, visible = columns(
        scene.device, draws.uniform(0.5, 4), draws.uniform(0.5, 2), draws.chance(0.5).float()
    )
    line = coverage(thickness - (outside + inset).abs(), scale) * visible
    image[place] = picture.lerp(scene.colour(scene.ink[rows]), line[:, None])


def _rules(image: torch.Tensor, scene: Scene, draws: Draws) -> None:
    """A line under the text, or over it."""
    rows = draws.some(0.04 * scene.difficulty)
    if not len(rows):
        return
    draws = draws.part("rules", rows)
    side = torch.where(draws.chance(0.75), 1.0, -1.0)
    away = draws.uniform(0.12, 0.4) * CAP_HEIGHT
    half_height, side, away, thickness, scale = columns(
        scene.device, scene.geometry.half[rows, 1], side, away, draws.uniform(0.5, 2.0), scene.scale[rows]
    )
    place = rows.to(scene.device)
    line = coverage(thickness - (scene.y[place] * side - half_height - away).abs(), scale)
    image[place] = image[place].lerp(scene.colour(scene.ink[rows]), line[:, None])


def _neighbours(image: torch.Tensor, scene: Scene, draws: Draws) -> None:
    """Parts of the words before and after, and of the lines above and below, as far as the crop shows them."""
    rows = (draws.chance(0.30 * scene.difficulty) & ~scene.layout.stacked).nonzero()[:, 0]
    if not len(rows):
        return
    draws = draws.part("neighbours", rows)
    own = scene.layout.at(rows)
    layout = scene.typesetter.set_neighbours(own, draws)
    middle = scene.geometry.middle[rows]
    glyphs = Glyphs(scene.typesetter, layout, middle)
    left, top, right, bottom = own.box.unbind(1)
    # Ascenders reach 8 pixels above the capitals, descenders 8 below the line.
    gap = draws.uniform(0.0, 0.45) * CAP_HEIGHT
    above = (top - gap) - (BASELINE + draws.uniform(0, 8))
    below = (bottom + gap) - (BASELINE - CAP_HEIGHT - draws.uniform(0, 6))
    sideways = draws.uniform(-0.5, 0.9) * (right - left)
    space = draws.uniform(0.4, 0.6) * CAP_HEIGHT  # closer, they would look like letters of the word itself
    before = (left - space) - layout.box[:, 2]
    after = (right + space) - layout.box[:, 0]
    zero = torch.zeros(len(rows))
    kind = draws.uniform()
    place = rows.to(scene.device)
    (scale,) = columns(scene.device, scene.scale[rows])
    drawn = torch.zeros_like(scene.x[place])
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
            x, y = scene.x[place[spot]] - move_x, scene.y[place[spot]] - move_y
            found = coverage(glyphs.distance(x, y, some), scale[spot])
            drawn[spot] = torch.maximum(drawn[spot], found)
    other = draw_pairs(draws.part("ink"))[1]
    same = draws.chance(0.85) | (contrast(scene.ground[rows], other) < 0.1)
    colour = torch.where(same[:, None], scene.ink[rows], other)
    image[place] = image[place].lerp(scene.colour(colour), drawn[:, None])
