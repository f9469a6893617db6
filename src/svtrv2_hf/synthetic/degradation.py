# SPDX-License-Identifier: Apache-2.0
"""What light, lens, sensor and file do to a picture."""

import math

import torch

from .draws import Draws, columns
from .glyphs import CAP_HEIGHT
from .ground import crop_plane
from .palette import draw_pairs
from .scene import Scene


# Annex K of ITU-T T.81: how coarsely JPEG keeps the brightness of each frequency at quality 50.
_JPEG_TABLE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_NOISE_LENGTH = 1 << 21
MOST_PIXELS = _NOISE_LENGTH // 8  # of a picture, so that noise seldom repeats


class Camera:
    """Lights pictures and photographs them.

    Args:
        device: of the pictures.
    """

    def __init__(self, device: torch.device):
        self.device = device
        generator = torch.Generator().manual_seed(0)
        self._noise = torch.randn(_NOISE_LENGTH, generator=generator).to(device)
        k = torch.arange(8.0)
        cosines = torch.cos((2 * k + 1) * k[:, None] * math.pi / 16) / 2
        cosines[0] /= math.sqrt(2)
        self._cosines = cosines.to(device)
        self._table = torch.tensor(_JPEG_TABLE, dtype=torch.float32, device=device)

    def light(self, image: torch.Tensor, scene: Scene, draws: Draws) -> None:
        """Uneven light, the edge of a shadow, glare, and things in front of the text."""
        across, down = crop_plane(scene)
        height, width = scene.size
        ratio = width / height
        turn, strength = draws.uniform(0, 2 * math.pi), draws.normal(0, 0.07) * scene.difficulty.clamp(max=1)
        a, b = columns(self.device, torch.cos(turn) * strength, torch.sin(turn) * strength)
        image *= (1 + a * across + b * down)[:, None]
        shaded = draws.some(0.04 * scene.difficulty)
        if len(shaded):
            part = draws.part("shaded", shaded)
            turn = part.uniform(0, 2 * math.pi)
            a, b, away, sharp, strength = columns(
                self.device, torch.cos(turn) * ratio, torch.sin(turn), part.uniform(-1, 1), part.uniform(2, 16),
                part.uniform(0.15, 0.45),
            )  # fmt: skip
            dark = torch.sigmoid((a * across + b * down - away * ratio) * sharp) * strength
            image[shaded.to(self.device)] *= 1 - dark[:, None]
        glaring = draws.some(0.04 * scene.difficulty)
        if len(glaring):
            part = draws.part("glaring", glaring)
            x, y, size, strength = columns(
                self.device, part.uniform(-1, 1), part.uniform(-1, 1), part.uniform(0.2, 0.7),
                part.uniform(0.1, 0.6) * scene.contrast[glaring].clamp(max=0.6),
            )  # fmt: skip
            far = ((across - x) * ratio / 2) ** 2 + (down - y) ** 2
            image[glaring.to(self.device)] += (torch.exp(-far / (2 * size**2)) * strength)[:, None]
        hidden = draws.some(0.02 * scene.difficulty)
        if len(hidden):
            part = draws.part("hidden", hidden)
            turn = part.uniform(0, math.pi)
            a, b, away, thickness = columns(
                self.device, torch.cos(turn) * ratio, torch.sin(turn), part.uniform(-1, 1) * ratio,
                part.uniform(0.02, 0.09),
            )  # fmt: skip
            bar = ((thickness - (a * across + b * down - away).abs()) * height / 2 + 0.5).clamp(0, 1)
            colour = scene.colour(draw_pairs(part)[0])
            place = hidden.to(self.device)
            image[place] = image[place].lerp(colour, bar[:, None])

    def photograph(self, image: torch.Tensor, scene: Scene, difficulty: float, draws: Draws) -> torch.Tensor:
        """Blurs the picture, takes it at the resolution of some camera, with noise, stores it and scales it up again.

        Args:
            image: float32 of shape `(n, 3, height, width)`, about 0..1.
            scene: what it shows.
            difficulty: how bad the camera may be; 0 for a perfect one.
            draws: decide on all that.

        Returns:
            Float32 of the same shape, about 0..255.
        """
        height, width = scene.size
        strength = min(difficulty, 1.0)
        letters = CAP_HEIGHT / scene.scale  # pixels of the crop in the height of a capital
        # Crops of the training parts of IIIT5k and ICDAR 2015 are mostly smaller than the sizes they are read at: the
        # square root of their area has a median of 49 pixels and quartiles of 33 and 71, against 64 for all of MSR's.
        share = torch.exp(draws.normal(math.log(0.75), 0.55)).maximum(9 / letters).clamp(max=1)
        share = 1 - (1 - share) * strength
        rows_taken = (share * height).round().clamp(min=8)
        columns_taken = (share * width).round().clamp(min=8)
        # In shares of the letters; a stroke is mostly 0.1 to 0.2 of their height.
        blur = torch.where(draws.chance(0.25 * difficulty), draws.uniform(0.02, 0.065), draws.uniform(0.0, 0.03))
        moved = torch.where(draws.chance(0.08 * difficulty), draws.uniform(0.02, 0.08), torch.zeros(len(draws)))
        # what is faint is not blurred as well
        limit = letters * strength * (2.5 * scene.contrast).clamp(max=1)
        upright = draws.chance(0.3)
        blur_x = (blur + torch.where(upright, 0.0, moved)) * limit
        blur_y = (blur + torch.where(upright, moved, 0.0)) * limit

        image = image.clamp_(0, 1).mul_(255)
        rows_taken, columns_taken, blur_x, blur_y = (
            value.to(self.device) for value in (rows_taken, columns_taken, blur_x, blur_y)
        )
        taps = height // 2  # three standard deviations of the strongest blur and more
        image = self._scale(image, _take(height, rows_taken, blur_y, taps), _take(width, columns_taken, blur_x, taps))
        self._add_noise(image, scene, draws.part("noise"))
        self._store(image, draws.part("store"), difficulty)
        return self._scale(image, _enlarge(height, rows_taken), _enlarge(width, columns_taken))

    def _scale(self, image: torch.Tensor, down: torch.Tensor, across: torch.Tensor) -> torch.Tensor:
        n, _, height, width = image.shape
        image = torch.matmul(down[:, None], image)
        return torch.bmm(image.reshape(n, 3 * height, width), across.transpose(1, 2)).reshape(n, 3, height, width)

    def _add_noise(self, image: torch.Tensor, scene: Scene, draws: Draws) -> None:
        strength = torch.where(draws.chance(0.2), draws.uniform(2, 9), draws.uniform(0, 4))
        strength = strength * scene.difficulty.clamp(max=1)
        strength = torch.minimum(strength, 0.16 * 255 * scene.contrast)
        plane = image.shape[2] * image.shape[3]
        windows = self._noise.as_strided((_NOISE_LENGTH - 4 * plane, plane), (1, 1))
        start = (draws.uniform() * (_NOISE_LENGTH - 8 * plane)).long()
        colour = draws.uniform(0, 0.7)
        grey, coloured = columns(self.device, strength * (1 - colour), strength * colour)
        grey_noise = windows.index_select(0, start.to(self.device)).reshape(len(image), 1, *image.shape[2:])
        image.addcmul_(grey_noise, grey[:, None])
        wide = self._noise.as_strided((_NOISE_LENGTH - 4 * plane, 3 * plane), (1, 1))
        start = (start + plane).to(self.device)
        image.addcmul_(wide.index_select(0, start).reshape(image.shape), coloured[:, None])

    def _store(self, image: torch.Tensor, draws: Draws, difficulty: float) -> None:
        """JPEG: rounds the frequencies of blocks of 8 by 8 pixels."""
        rows = draws.some(0.65 * difficulty)
        if not len(rows):
            return
        draws = draws.part("store", rows)
        quality = torch.where(draws.chance(0.7), draws.uniform(60, 95), draws.uniform(25, 70))
        factor = torch.where(quality < 50, 50 / quality, 2 - quality / 50).to(self.device)[:, None, None]
        table = (factor * self._table).clamp(min=1)
        # Colours are stored at half the resolution: much as if only the lower half of their frequencies were kept.
        coarse = table * 1.7
        coarse[:, 4:] = coarse[:, :, 4:] = 1e6
        place = rows.to(self.device)
        red, green, blue = image[place].unbind(1)
        bright = 0.299 * red + 0.587 * green + 0.114 * blue
        planes = torch.stack([bright - 128, (blue - bright) * 0.564, (red - bright) * 0.713], 1)
        bright, bluish, reddish = self._round(planes, torch.stack([table, coarse, coarse], 1)).unbind(1)
        bright = bright + 128
        red, blue = bright + reddish / 0.713, bright + bluish / 0.564
        image[place] = torch.stack([red, (bright - 0.299 * red - 0.114 * blue) / 0.587, blue], 1)

    def _round(self, planes: torch.Tensor, tables: torch.Tensor) -> torch.Tensor:
        """Keeps the frequencies of each 8 x 8 block of `(n, 3, height, width)` to multiples of `(n, 3, 8, 8)`."""
        n, _, height, width = planes.shape
        across = (n, 3, height // 8, 8, width // 8, 8)
        down = (n, 3, height // 8, 8, width)
        tables = tables[:, :, None, :, None, :]
        frequencies = (self._cosines @ planes.reshape(down)).reshape(across) @ self._cosines.T
        frequencies = (frequencies / tables).round_() * tables
        return (self._cosines.T @ (frequencies @ self._cosines).reshape(down)).reshape(planes.shape)


def _take(size: int, taken: torch.Tensor, blur: torch.Tensor, taps: int) -> torch.Tensor:
    """Weights `(n, size, size)` that blur a line of pixels and bring it to the first `taken` of them; the last goes on."""
    step = (size / taken)[:, None]
    middle = (torch.minimum(torch.arange(size, device=taken.device), taken[:, None] - 1) + 0.5) * step - 0.5
    spread = (blur.square() + (0.33 * step[:, 0]).square())[:, None, None]
    pixel = middle.round()[:, :, None] + torch.arange(-taps, taps + 1, device=taken.device)
    weights = torch.exp((pixel - middle[:, :, None]).square_() / (-2 * spread))
    return _spread_out(weights, pixel.long(), torch.full_like(taken, size))


def _enlarge(size: int, taken: torch.Tensor) -> torch.Tensor:
    """Weights `(n, size, size)` that bring the first `taken` pixels of a line to all of it: bicubic, as Pillow resizes."""
    middle = (torch.arange(size, device=taken.device) + 0.5) * (taken / size)[:, None] - 0.5
    pixel = middle.floor()[:, :, None] + torch.arange(-1, 3, device=taken.device)
    away = (pixel - middle[:, :, None]).abs_()
    near = (1.5 * away - 2.5) * away.square() + 1
    far = ((-0.5 * away + 2.5) * away - 4) * away + 2
    return _spread_out(torch.where(away < 1, near, far), pixel.long(), taken)


def _spread_out(weights: torch.Tensor, pixel: torch.Tensor, taken: torch.Tensor) -> torch.Tensor:
    """Weights of a few pixels, `(n, size, taps)`, to weights of all, `(n, size, size)`; none beyond the first `taken`."""
    n, size, _ = weights.shape
    weights = weights * ((pixel >= 0) & (pixel < taken[:, None, None]))
    weights /= weights.sum(2, keepdim=True)
    return weights.new_zeros(n, size, size).scatter_add_(2, pixel.clamp_(0, size - 1), weights)
