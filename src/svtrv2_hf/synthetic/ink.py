# SPDX-License-Identifier: Apache-2.0
"""Render the text itself: weight, edges, shadows and paint, computed from the distance to the outlines."""

import math

import torch
import torch.nn.functional as F

from .glyphs import ORIGIN
from .palette import enforce_contrast, luminance
from .sampling import RandomStreams, columns
from .scene import Glyphs, Scene, contrasting_color, coverage
from .textures import COUNT, TextureBank


_COARSE = 1.6  # atlas pixels per pixel above which edges are rendered at twice the resolution


def render_text(image: torch.Tensor, scene: Scene, bank: TextureBank, rng: RandomStreams) -> None:
    """Render the texts into images of shape `(n, 3, height, width)`, in place."""
    glyphs = Glyphs(scene.typesetter, scene.layout, scene.geometry.middle)
    weight = _sample_weight(scene, rng.substream("weight"))
    (scale,) = columns(scene.device, scene.scale)
    distance = glyphs.distance(scene.x, scene.y) + columns(scene.device, weight)[0]
    fill = coverage(distance, scale)
    _refine(fill, scene, glyphs, weight)
    suppress_clutter(image, scene, fill, distance)
    _shadow(image, scene, glyphs, weight, rng.substream("shadow"))
    _glow(image, scene, distance, rng.substream("glow"))
    _outline(image, scene, distance, rng.substream("outline"))
    _hollow(fill, scene, distance, rng.substream("hollow"))
    paint = _paint(scene, bank, distance, rng.substream("paint"))
    _light_neon(paint, scene, distance)
    image.lerp_(paint, opacity(fill, scene, bank, rng.substream("wear"))[:, None])


def _sample_weight(scene: Scene, rng: RandomStreams) -> torch.Tensor:
    """Sample how many atlas pixels strokes grow on either side."""
    strength = scene.difficulty.clamp(max=1)
    weight = torch.where(rng.bernoulli(0.3), rng.uniform(-0.35, 1.2), rng.normal(0, 0.12)) * strength
    # keeps strokes thinner than a pixel visible
    return weight + (scene.scale - 1).clamp(0, 1.5) * 0.35


def _refine(fill: torch.Tensor, scene: Scene, glyphs: Glyphs, weight: torch.Tensor) -> None:
    """Supersample small letters, whose strokes are thinner than pixels, with four points per pixel."""
    rows = (scene.scale > _COARSE).nonzero()[:, 0]
    if not len(rows):
        return
    height, width = scene.size
    x, y = scene.geometry.select(rows).to_text(2 * height, 2 * width, scene.device)
    grow, scale = columns(scene.device, weight[rows], scene.scale[rows] / 2)
    fine = coverage(glyphs.distance(x, y, rows) + grow, scale)
    fill[rows.to(scene.device)] = F.avg_pool2d(fine[:, None], 2)[:, 0]


def suppress_clutter(image: torch.Tensor, scene: Scene, fill: torch.Tensor, distance: torch.Tensor) -> None:
    """Reduce background clutter if too much of the outline would be invisible."""
    near = ((distance > -3) & (fill < 0.5)).float()
    ink = columns(scene.device, luminance(scene.ink))[0]
    needed = columns(scene.device, (0.5 * scene.contrast).clamp(max=0.2))[0]
    lost = (luminance(image, 1) - ink).abs() < needed
    share = (near * lost).sum((1, 2)) / near.sum((1, 2)).clamp(min=1)
    calm = ((share - 0.06) * 5).clamp(0, 0.85)[:, None, None, None]
    image.lerp_(scene.color(scene.background), calm)


def _shadow(image: torch.Tensor, scene: Scene, glyphs: Glyphs, weight: torch.Tensor, rng: RandomStreams) -> None:
    """Render a shadow, or the sides of three-dimensional letters."""
    rows, rng = rng.pick(rng.bernoulli(0.14 * scene.difficulty) | scene.raised, "shadow")
    if not len(rows):
        return
    raised = scene.raised[rows]
    turn = torch.where(rng.bernoulli(0.6), rng.normal(math.pi / 4, 0.4), rng.uniform(0, 2 * math.pi))
    length = rng.uniform(1.0, 3.6)
    blur = torch.where(rng.bernoulli(0.5), rng.uniform(1.5, 4), 1.0)
    solid = rng.bernoulli(0.45) | raised
    # The sides of three-dimensional letters are longer than shadows, and sharp.
    deep = rng.substream("deep")
    length = torch.where(solid & deep.bernoulli(0.5), deep.uniform(2.4, 6), length)
    blur = torch.where(solid, 1.0, blur)
    dark = (rng.uniform(0, 0.22, (1,)) + rng.normal(0, 0.03, (3,))).clamp(0, 1)
    light = (rng.uniform(0.6, 1.0, (1,)) + rng.normal(0, 0.05, (3,))).clamp(0, 1)
    ink = luminance(scene.ink[rows])
    dark_fits = torch.where(rng.bernoulli(0.75), ink > 0.3, ink > 0.65)
    color = torch.where(dark_fits[:, None], dark, light)
    strength = rng.uniform(0.35, 1.0)
    strength = torch.where(raised, 0.5 + 0.5 * strength, strength)
    dx, dy, grow, blur, scale, strength = columns(
        scene.device,
        torch.cos(turn) * length, torch.sin(turn) * length, weight[rows], blur, scene.scale[rows], strength,
    )  # fmt: skip
    x, y = scene.points(rows)
    shade = coverage((glyphs.distance(x - dx, y - dy, rows) + grow) / blur, scale)
    some = solid.nonzero()[:, 0]
    if len(some):
        spot = some.to(scene.device)
        for part in (0.2, 0.4, 0.6, 0.8):
            between = glyphs.distance(x[spot] - part * dx[spot], y[spot] - part * dy[spot], rows[some]) + grow[spot]
            shade[spot] = torch.maximum(shade[spot], coverage(between, scale[spot]))
    scene.blend(image, rows, color, shade * strength)


def _light_neon(paint: torch.Tensor, scene: Scene, distance: torch.Tensor) -> None:
    """Color neon tubes: white inside, with the color along the edge."""
    rows = scene.neon.nonzero()[:, 0]
    if not len(rows):
        return
    place = rows.to(scene.device)
    paint[place] = paint[place].lerp(torch.ones_like(paint[:1]), (distance[place] / 2).clamp(0, 0.9)[:, None])


def _glow(image: torch.Tensor, scene: Scene, distance: torch.Tensor, rng: RandomStreams) -> None:
    """Render the glow around letters of illuminated signs."""
    rows, rng = rng.pick(rng.bernoulli(0.04 * scene.difficulty) | scene.neon, "glow")
    if not len(rows):
        return
    reach = rng.uniform(1.5, 3.5)
    strength = torch.where(scene.neon[rows], rng.uniform(0.8, 1.3), rng.uniform(0.2, 0.8))
    reach, strength = columns(scene.device, reach, strength)
    place = rows.to(scene.device)
    light = torch.exp(distance[place].clamp(max=0) / reach) - torch.exp(-6 / reach)
    hue = (scene.ink[rows] * rng.uniform(0.6, 1.0, (3,))).clamp(0, 1)
    scene.blend(image, rows, hue, (light * strength * 0.7).clamp(0, 1))


def _outline(image: torch.Tensor, scene: Scene, distance: torch.Tensor, rng: RandomStreams) -> None:
    rows, rng = rng.pick(rng.bernoulli(0.06 * scene.difficulty), "outline")
    if not len(rows):
        return
    color = contrasting_color(scene.ink[rows], rng)
    thickness, scale = columns(scene.device, rng.uniform(0.9, 3.0), scene.scale[rows])
    place = rows.to(scene.device)
    scene.blend(image, rows, color, coverage(distance[place] + thickness, scale))


def _hollow(fill: torch.Tensor, scene: Scene, distance: torch.Tensor, rng: RandomStreams) -> None:
    """Reduce letters to their outlines."""
    rows, rng = rng.pick(rng.bernoulli(0.01 * scene.difficulty) & (scene.scale < 1), "hollow")
    if not len(rows):
        return
    place = rows.to(scene.device)
    thickness, scale = columns(scene.device, rng.uniform(0.7, 1.1), scene.scale[rows])
    fill[place] = coverage(thickness - (distance[place] + 0.3).abs(), scale)


def _paint(scene: Scene, bank: TextureBank, distance: torch.Tensor, rng: RandomStreams) -> torch.Tensor:
    """Compute the colors of the letters: `(n, 3, height, width)`."""
    paint = scene.color(scene.ink).repeat(1, 1, *scene.size)
    color_letters(paint, scene, rng.substream("motley"))
    gradient, part = rng.pick(rng.bernoulli(0.25 * scene.difficulty), "gradient")
    if len(gradient):
        x, y = scene.points(gradient)
        vertical = part.bernoulli(0.75)
        side = torch.where(luminance(scene.ink[gradient]) > luminance(scene.background[gradient]), 1.0, -1.0)
        # toward the background only if the contrast suffices
        spare = (scene.contrast[gradient] - 0.2).clamp(0, 0.35)
        amount = torch.where(part.bernoulli(0.5), side * part.uniform(0, 0.3), -side * spare * part.uniform())
        flip = torch.where(part.bernoulli(0.5), 1.0, -1.0)
        half = scene.geometry.half[gradient].unbind(1)
        half_width, half_height, vertical, flip = columns(scene.device, *half, vertical, flip)
        ramp = vertical * y / half_height + (1 - vertical) * x / half_width
        ramp = (0.5 + 0.5 * flip * ramp).clamp(0, 1)
        tint = amount[:, None] + part.normal(0, 0.06, (3,))
        paint[gradient.to(scene.device)] += ramp[:, None] * scene.color(tint)
    textured, part = rng.pick(rng.bernoulli(0.15 * scene.difficulty), "texture")
    if len(textured):
        strength = (part.uniform(0.01, 0.12)).minimum(0.3 * scene.contrast[textured])
        paint[textured.to(scene.device)] += _texture(scene, bank, textured, strength, part)
    bevelled, part = rng.pick((rng.bernoulli(0.06 * scene.difficulty) | scene.raised) & (scene.scale < 1.1), "bevel")
    if len(bevelled):
        place = bevelled.to(scene.device)
        turn = part.normal(math.pi / 4, 0.5)
        a, b, strength = columns(scene.device, torch.cos(turn), torch.sin(turn), part.uniform(0.1, 0.35))
        height = distance[place].clamp(-1, 2.5)
        slope = F.pad(height[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
        slope = a * (slope[:, 1:-1, 2:] - slope[:, 1:-1, :-2]) + b * (slope[:, 2:, 1:-1] - slope[:, :-2, 1:-1])
        paint[place] += (slope.clamp(-1.5, 1.5) * strength)[:, None]
    return paint


def color_letters(paint: torch.Tensor, scene: Scene, rng: RandomStreams) -> None:
    """Give each letter or each word a different color."""
    layout = scene.layout
    in_line = ~layout.stacked & (layout.small_scale == 1) & ~scene.raised & ~scene.neon
    rows, rng = rng.pick(rng.bernoulli(0.025 * scene.difficulty) & in_line, "motley")
    if not len(rows):
        return
    layout = layout.select(rows)
    background, contrast = scene.background[rows], 0.6 * scene.contrast[rows]
    count = rng.uniform(2, 5).long()[:, None]
    colors = rng.uniform(0, 1, (4, 3))
    colors = torch.stack([enforce_contrast(background, color, contrast) for color in colors.unbind(1)], 1)
    # in texts of several words, colors mostly alternate by word, otherwise by letter
    spaces = (scene.typesetter.is_space[layout.ids.clamp(min=0)] & (layout.ids >= 0)).cumsum(1)
    by_word = rng.bernoulli(0.7) & (spaces[:, -1] > 0)
    turn = torch.where(by_word[:, None], spaces, torch.arange(layout.ids.shape[1])) % count
    along = scene.points(rows)[0] + columns(scene.device, scene.geometry.middle[rows, 0] - ORIGIN)[0]
    letter = torch.searchsorted(layout.pens.to(scene.device), along.flatten(1), right=True).sub_(1).clamp_(min=0)
    each = colors.gather(1, turn[:, :, None].expand(-1, -1, 3)).to(scene.device)
    each = each.gather(1, letter[:, :, None].expand(-1, -1, 3)).transpose(1, 2).reshape(-1, 3, *scene.size)
    paint[rows.to(scene.device)] = each


def _texture(
    scene: Scene, bank: TextureBank, rows: torch.Tensor, strength: torch.Tensor, rng: RandomStreams
) -> torch.Tensor:
    """Sample a texture in the text plane: `(m, 3, height, width)`."""
    which, left, top, texels, strength = columns(
        scene.device,
        rng.uniform(0, COUNT).floor(), rng.uniform(0, 256), rng.uniform(0, 256), rng.uniform(0.5, 3), strength,
    )  # fmt: skip
    x, y = scene.points(rows)
    return bank.sample(which, x * texels + left, y * texels + top) * strength[:, None]


def opacity(fill: torch.Tensor, scene: Scene, bank: TextureBank, rng: RandomStreams) -> torch.Tensor:
    """Compute the opacity of the paint: thin, partly worn off, or the dots of a display."""
    thin = torch.where(rng.bernoulli(0.1 * scene.difficulty), rng.uniform(0.75, 1.0), 1.0)
    opaque = fill * columns(scene.device, thin)[0]
    worn, part = rng.pick(rng.bernoulli(0.02 * scene.difficulty), "worn")
    if len(worn):
        gone = _texture(scene, bank, worn, torch.ones(len(worn)), part)[:, 0]
        (limit,) = columns(scene.device, part.uniform(0.9, 1.8))
        opaque[worn.to(scene.device)] *= ((limit - gone) * 4).clamp(0.1, 1)
    dotted, part = rng.pick(rng.bernoulli(0.008 * scene.difficulty) & (scene.scale < 0.8), "dotted")
    if len(dotted):
        x, y = scene.points(dotted)
        pitch, base = columns(scene.device, part.uniform(2.6, 3.6), part.uniform(0.1, 0.4))
        waves = torch.cos(x * (2 * math.pi) / pitch) + torch.cos(y * (2 * math.pi) / pitch)
        opaque[dotted.to(scene.device)] *= (waves + 0.9).clamp_(0, 1) * (1 - base) + base
    return opaque
