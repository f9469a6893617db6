# SPDX-License-Identifier: Apache-2.0
"""The text itself: its weight, edges, shadows and paint, all told from the distance to the outlines."""

import math

import torch
import torch.nn.functional as F

from .draws import Draws, columns
from .glyphs import ORIGIN
from .palette import luminance, separate
from .scene import Glyphs, Scene, coverage, opposite
from .textures import COUNT, TextureBank


_COARSE = 1.6  # pixels of the atlas per pixel from which on edges are drawn at twice the resolution


def draw_ink(image: torch.Tensor, scene: Scene, bank: TextureBank, draws: Draws) -> None:
    """Draws the texts into pictures of shape `(n, 3, height, width)`."""
    glyphs = Glyphs(scene.typesetter, scene.layout, scene.geometry.middle)
    weight = _draw_weight(scene, draws.part("weight"))
    (scale,) = columns(scene.device, scene.scale)
    distance = glyphs.distance(scene.x, scene.y) + columns(scene.device, weight)[0]
    fill = coverage(distance, scale)
    _refine(fill, scene, glyphs, weight)
    _clear(image, scene, fill, distance)
    _shadow(image, scene, glyphs, weight, draws.part("shadow"))
    _glow(image, scene, distance, draws.part("glow"))
    _outline(image, scene, distance, draws.part("outline"))
    _hollow(fill, scene, distance, draws.part("hollow"))
    paint = _paint(scene, bank, distance, draws.part("paint"))
    _light_tubes(paint, scene, distance)
    image.lerp_(paint, _wear(fill, scene, bank, draws.part("wear"))[:, None])


def _draw_weight(scene: Scene, draws: Draws) -> torch.Tensor:
    """Pixels of the atlas by which strokes grow to either side."""
    strength = scene.difficulty.clamp(max=1)
    weight = torch.where(draws.chance(0.3), draws.uniform(-0.35, 1.2), draws.normal(0, 0.12)) * strength
    # strokes thinner than a pixel fade away
    return weight + (scene.scale - 1).clamp(0, 1.5) * 0.35


def _refine(fill: torch.Tensor, scene: Scene, glyphs: Glyphs, weight: torch.Tensor) -> None:
    """Draws small letters, whose strokes lie between pixels, from four points in each."""
    rows = (scene.scale > _COARSE).nonzero()[:, 0]
    if not len(rows):
        return
    height, width = scene.size
    x, y = scene.geometry.at(rows).to_text(2 * height, 2 * width, scene.device)
    grow, scale = columns(scene.device, weight[rows], scene.scale[rows] / 2)
    fine = coverage(glyphs.distance(x, y, rows) + grow, scale)
    fill[rows.to(scene.device)] = F.avg_pool2d(fine[:, None], 2)[:, 0]


def _clear(image: torch.Tensor, scene: Scene, fill: torch.Tensor, distance: torch.Tensor) -> None:
    """Calms the ground down where too much of the outline would not stand out from it."""
    near = ((distance > -3) & (fill < 0.5)).float()
    ink = columns(scene.device, luminance(scene.ink))[0]
    needed = columns(scene.device, (0.5 * scene.contrast).clamp(max=0.2))[0]
    lost = (luminance(image, 1) - ink).abs() < needed
    share = (near * lost).sum((1, 2)) / near.sum((1, 2)).clamp(min=1)
    calm = ((share - 0.06) * 5).clamp(0, 0.85)[:, None, None, None]
    image.lerp_(scene.colour(scene.ground), calm)


def _shadow(image: torch.Tensor, scene: Scene, glyphs: Glyphs, weight: torch.Tensor, draws: Draws) -> None:
    """A shadow on the ground, or the sides of letters that stand out from it."""
    rows = (draws.chance(0.14 * scene.difficulty) | scene.raised).nonzero()[:, 0]
    if not len(rows):
        return
    draws = draws.part("shadow", rows)
    raised = scene.raised[rows]
    turn = torch.where(draws.chance(0.6), draws.normal(math.pi / 4, 0.4), draws.uniform(0, 2 * math.pi))
    length, blur = (
        draws.uniform(1.0, 3.6),
        torch.where(draws.chance(0.5), draws.uniform(1.5, 4), torch.ones(len(rows))),
    )
    solid = draws.chance(0.45) | raised
    # The sides of deep letters are longer than their shadows, and sharp.
    deep = draws.part("deep")
    length = torch.where(solid & deep.chance(0.5), deep.uniform(2.4, 6), length)
    blur = torch.where(solid, torch.ones(len(rows)), blur)
    dark = (draws.uniform(0, 0.22, (1,)) + draws.normal(0, 0.03, (3,))).clamp(0, 1)
    light = (draws.uniform(0.6, 1.0, (1,)) + draws.normal(0, 0.05, (3,))).clamp(0, 1)
    ink = luminance(scene.ink[rows])
    dark_fits = torch.where(draws.chance(0.75), ink > 0.3, ink > 0.65)
    colour = torch.where(dark_fits[:, None], dark, light)
    strength = draws.uniform(0.35, 1.0)
    strength = torch.where(raised, 0.5 + 0.5 * strength, strength)
    dx, dy, grow, blur, scale, strength = columns(
        scene.device,
        torch.cos(turn) * length, torch.sin(turn) * length, weight[rows], blur, scene.scale[rows], strength,
    )  # fmt: skip
    place = rows.to(scene.device)
    x, y = scene.x[place], scene.y[place]
    shade = coverage((glyphs.distance(x - dx, y - dy, rows) + grow) / blur, scale)
    some = solid.nonzero()[:, 0]
    if len(some):
        spot = some.to(scene.device)
        for part in (0.2, 0.4, 0.6, 0.8):
            between = glyphs.distance(x[spot] - part * dx[spot], y[spot] - part * dy[spot], rows[some]) + grow[spot]
            shade[spot] = torch.maximum(shade[spot], coverage(between, scale[spot]))
    image[place] = image[place].lerp(scene.colour(colour), (shade * strength)[:, None])


def _light_tubes(paint: torch.Tensor, scene: Scene, distance: torch.Tensor) -> None:
    """Colours lit tubes: white within, and their own colour along the edge."""
    rows = scene.neon.nonzero()[:, 0]
    if not len(rows):
        return
    place = rows.to(scene.device)
    paint[place] = paint[place].lerp(torch.ones_like(paint[:1]), (distance[place] / 2).clamp(0, 0.9)[:, None])


def _glow(image: torch.Tensor, scene: Scene, distance: torch.Tensor, draws: Draws) -> None:
    """Light around the letters of lit signs."""
    rows = (draws.chance(0.04 * scene.difficulty) | scene.neon).nonzero()[:, 0]
    if not len(rows):
        return
    draws = draws.part("glow", rows)
    reach, strength = columns(
        scene.device,
        draws.uniform(1.5, 3.5),
        torch.where(scene.neon[rows], draws.uniform(0.8, 1.3), draws.uniform(0.2, 0.8)),
    )
    place = rows.to(scene.device)
    light = torch.exp(distance[place].clamp(max=0) / reach) - torch.exp(-6 / reach)
    hue = (scene.ink[rows] * draws.uniform(0.6, 1.0, (3,))).clamp(0, 1)
    image[place] = image[place].lerp(scene.colour(hue), (light * strength * 0.7).clamp(0, 1)[:, None])


def _outline(image: torch.Tensor, scene: Scene, distance: torch.Tensor, draws: Draws) -> None:
    rows = draws.some(0.06 * scene.difficulty)
    if not len(rows):
        return
    draws = draws.part("outline", rows)
    colour = opposite(scene.ink[rows], draws)
    thickness, scale = columns(scene.device, draws.uniform(0.9, 3.0), scene.scale[rows])
    place = rows.to(scene.device)
    image[place] = image[place].lerp(scene.colour(colour), coverage(distance[place] + thickness, scale)[:, None])


def _hollow(fill: torch.Tensor, scene: Scene, distance: torch.Tensor, draws: Draws) -> None:
    """Leaves of the letters no more than a line along their outlines."""
    rows = (draws.chance(0.01 * scene.difficulty) & (scene.scale < 1)).nonzero()[:, 0]
    if not len(rows):
        return
    draws = draws.part("hollow", rows)
    place = rows.to(scene.device)
    thickness, scale = columns(scene.device, draws.uniform(0.7, 1.1), scene.scale[rows])
    fill[place] = coverage(thickness - (distance[place] + 0.3).abs(), scale)


def _paint(scene: Scene, bank: TextureBank, distance: torch.Tensor, draws: Draws) -> torch.Tensor:
    """Colours of the letters, `(n, 3, height, width)`."""
    paint = scene.colour(scene.ink).repeat(1, 1, *scene.size)
    _motley(paint, scene, draws.part("motley"))
    gradient = draws.some(0.25 * scene.difficulty)
    if len(gradient):
        part = draws.part("gradient", gradient)
        place = gradient.to(scene.device)
        vertical = part.chance(0.75).float()
        side = torch.where(luminance(scene.ink[gradient]) > luminance(scene.ground[gradient]), 1.0, -1.0)
        # towards the ground only as far as there is contrast to spare
        spare = (scene.contrast[gradient] - 0.2).clamp(0, 0.35)
        amount = torch.where(part.chance(0.5), side * part.uniform(0, 0.3), -side * spare * part.uniform())
        half_width, half_height, vertical, flip = columns(
            scene.device, *scene.geometry.half[gradient].unbind(1), vertical, torch.where(part.chance(0.5), 1.0, -1.0)
        )
        ramp = vertical * scene.y[place] / half_height + (1 - vertical) * scene.x[place] / half_width
        ramp = (0.5 + 0.5 * flip * ramp).clamp(0, 1)
        tint = amount[:, None] + part.normal(0, 0.06, (3,))
        paint[place] += ramp[:, None] * scene.colour(tint)
    textured = draws.some(0.15 * scene.difficulty)
    if len(textured):
        part = draws.part("texture", textured)
        strength = (part.uniform(0.01, 0.12)).minimum(0.3 * scene.contrast[textured])
        paint[textured.to(scene.device)] += _texture(scene, bank, textured, strength, part)
    bevelled = ((draws.chance(0.06 * scene.difficulty) | scene.raised) & (scene.scale < 1.1)).nonzero()[:, 0]
    if len(bevelled):
        part = draws.part("bevel", bevelled)
        place = bevelled.to(scene.device)
        turn = part.normal(math.pi / 4, 0.5)
        a, b, strength = columns(scene.device, torch.cos(turn), torch.sin(turn), part.uniform(0.1, 0.35))
        height = distance[place].clamp(-1, 2.5)
        slope = F.pad(height[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
        slope = a * (slope[:, 1:-1, 2:] - slope[:, 1:-1, :-2]) + b * (slope[:, 2:, 1:-1] - slope[:, :-2, 1:-1])
        paint[place] += (slope.clamp(-1.5, 1.5) * strength)[:, None]
    return paint


def _motley(paint: torch.Tensor, scene: Scene, draws: Draws) -> None:
    """Gives each letter, or each word, a colour of its own."""
    layout = scene.layout
    in_line = ~layout.stacked & (layout.small_scale == 1) & ~scene.raised & ~scene.neon
    rows = (draws.chance(0.025 * scene.difficulty) & in_line).nonzero()[:, 0]
    if not len(rows):
        return
    draws, layout, place = draws.part("motley", rows), layout.at(rows), rows.to(scene.device)
    ground, contrast = scene.ground[rows], 0.6 * scene.contrast[rows]
    count = draws.uniform(2, 5).long()[:, None]
    colours = draws.uniform(0, 1, (4, 3))
    colours = torch.stack([separate(ground, colour, contrast) for colour in colours.unbind(1)], 1)
    # words take turns in lines of several, mostly; else letters do
    spaces = (scene.typesetter.is_space[layout.ids.clamp(min=0)] & (layout.ids >= 0)).cumsum(1)
    by_word = draws.chance(0.7) & (spaces[:, -1] > 0)
    turn = torch.where(by_word[:, None], spaces, torch.arange(layout.ids.shape[1])) % count
    along = scene.x[place] + columns(scene.device, scene.geometry.middle[rows, 0] - ORIGIN)[0]
    letter = torch.searchsorted(layout.pens.to(scene.device), along.flatten(1), right=True).sub_(1).clamp_(min=0)
    each = colours.gather(1, turn[:, :, None].expand(-1, -1, 3)).to(scene.device)
    paint[place] = each.gather(1, letter[:, :, None].expand(-1, -1, 3)).transpose(1, 2).reshape(-1, 3, *scene.size)


def _texture(
    scene: Scene, bank: TextureBank, rows: torch.Tensor, strength: torch.Tensor, draws: Draws
) -> torch.Tensor:
    """A texture that lies in the plane of the text, `(m, 3, height, width)`."""
    which, left, top, texels, strength = columns(
        scene.device,
        draws.uniform(0, COUNT).floor(), draws.uniform(0, 256), draws.uniform(0, 256), draws.uniform(0.5, 3), strength,
    )  # fmt: skip
    place = rows.to(scene.device)
    return bank.sample(which, scene.x[place] * texels + left, scene.y[place] * texels + top) * strength[:, None]


def _wear(fill: torch.Tensor, scene: Scene, bank: TextureBank, draws: Draws) -> torch.Tensor:
    """How opaque the paint is: thin, worn off in places, or made of the dots of a display."""
    thin = torch.where(draws.chance(0.1 * scene.difficulty), draws.uniform(0.75, 1.0), torch.ones(len(draws)))
    opaque = fill * columns(scene.device, thin)[0]
    worn = draws.some(0.02 * scene.difficulty)
    if len(worn):
        part = draws.part("worn", worn)
        gone = _texture(scene, bank, worn, torch.ones(len(worn)), part)[:, 0]
        (limit,) = columns(scene.device, part.uniform(0.9, 1.8))
        opaque[worn.to(scene.device)] *= ((limit - gone) * 4).clamp(0.1, 1)
    dotted = (draws.chance(0.008 * scene.difficulty) & (scene.scale < 0.8)).nonzero()[:, 0]
    if len(dotted):
        part = draws.part("dotted", dotted)
        place = dotted.to(scene.device)
        pitch, base = columns(scene.device, part.uniform(2.6, 3.6), part.uniform(0.1, 0.4))
        waves = torch.cos(scene.x[place] * (2 * math.pi) / pitch) + torch.cos(scene.y[place] * (2 * math.pi) / pitch)
        opaque[place] *= (waves + 0.9).clamp_(0, 1) * (1 - base) + base
    return opaque
