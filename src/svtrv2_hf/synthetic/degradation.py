# SPDX-License-Identifier: Apache-2.0
"""Image degradation: lighting, blur, resolution, noise and JPEG."""

import math

import torch

from .background import crop_plane
from .glyphs import CAP_HEIGHT
from .palette import sample_color_pairs
from .sampling import RandomStreams, columns
from .scene import Scene


# Luminance quantization of JPEG at quality 50, from Annex K of ITU-T T.81.
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
MAX_PIXELS = _NOISE_LENGTH // 8  # per image, so that noise rarely repeats


class Camera:
    """Simulated lighting and capture of images on a device."""

    def __init__(self, device: torch.device):
        self.device = device
        generator = torch.Generator().manual_seed(0)
        self._noise = torch.randn(_NOISE_LENGTH, generator=generator).to(device)
        k = torch.arange(8.0)
        cosines = torch.cos((2 * k + 1) * k[:, None] * math.pi / 16) / 2
        cosines[0] /= math.sqrt(2)
        self._cosines = cosines.to(device)
        self._table = torch.tensor(_JPEG_TABLE, dtype=torch.float32, device=device)

    def light(self, image: torch.Tensor, scene: Scene, rng: RandomStreams) -> None:
        """Add uneven light, shadows, glare, and occluding bars, in place."""
        across, down = crop_plane(scene)
        height, width = scene.size
        ratio = width / height
        turn, strength = rng.uniform(0, 2 * math.pi), rng.normal(0, 0.07) * scene.difficulty.clamp(max=1)
        a, b = columns(self.device, torch.cos(turn) * strength, torch.sin(turn) * strength)
        image *= (1 + a * across + b * down)[:, None]
        shaded, part = rng.pick(rng.bernoulli(0.04 * scene.difficulty), "shaded")
        if len(shaded):
            turn = part.uniform(0, 2 * math.pi)
            away, sharp, strength = part.uniform(-1, 1), part.uniform(2, 16), part.uniform(0.15, 0.45)
            a, b, away, sharp, strength = columns(
                self.device, torch.cos(turn) * ratio, torch.sin(turn), away, sharp, strength
            )
            dark = torch.sigmoid((a * across + b * down - away * ratio) * sharp) * strength
            image[shaded.to(self.device)] *= 1 - dark[:, None]
        glaring, part = rng.pick(rng.bernoulli(0.04 * scene.difficulty), "glaring")
        if len(glaring):
            x, y, size = part.uniform(-1, 1), part.uniform(-1, 1), part.uniform(0.2, 0.7)
            strength = part.uniform(0.1, 0.6) * scene.contrast[glaring].clamp(max=0.6)
            x, y, size, strength = columns(self.device, x, y, size, strength)
            far = ((across - x) * ratio / 2) ** 2 + (down - y) ** 2
            image[glaring.to(self.device)] += (torch.exp(-far / (2 * size**2)) * strength)[:, None]
        hidden, part = rng.pick(rng.bernoulli(0.02 * scene.difficulty), "hidden")
        if len(hidden):
            turn = part.uniform(0, math.pi)
            away, thickness = part.uniform(-1, 1) * ratio, part.uniform(0.02, 0.09)
            a, b, away, thickness = columns(self.device, torch.cos(turn) * ratio, torch.sin(turn), away, thickness)
            bar = ((thickness - (a * across + b * down - away).abs()) * height / 2 + 0.5).clamp(0, 1)
            scene.blend(image, hidden, sample_color_pairs(part)[0], bar)

    def capture(self, image: torch.Tensor, scene: Scene, difficulty: float, rng: RandomStreams) -> torch.Tensor:
        """Blur images `(n, 3, height, width)`, downsample them, add noise and JPEG artifacts, and upsample them again.

        The values are 0..1 before and 0..255 after it, both approximately.
        """
        height, width = scene.size
        strength = min(difficulty, 1.0)
        letters = CAP_HEIGHT / scene.scale  # height of a capital in pixels of the crop
        # Crops of the training sets of IIIT5k and ICDAR 2015 are mostly smaller than the model's input sizes: the square
        # root of their area has a median of 49 pixels and quartiles of 33 and 71; that of all MSR sizes is 64.
        share = torch.exp(rng.normal(math.log(0.75), 0.55)).maximum(9 / letters).clamp(max=1)
        share = 1 - (1 - share) * strength
        rows_sampled = (share * height).round().clamp(min=8)
        columns_sampled = (share * width).round().clamp(min=8)
        # Relative to the letter height; the stroke width is mostly 0.1 to 0.2 of it.
        blur = torch.where(rng.bernoulli(0.25 * difficulty), rng.uniform(0.02, 0.065), rng.uniform(0.0, 0.03))
        moved = torch.where(rng.bernoulli(0.08 * difficulty), rng.uniform(0.02, 0.08), 0.0)
        # low-contrast text is blurred less
        limit = letters * strength * (2.5 * scene.contrast).clamp(max=1)
        upright = rng.bernoulli(0.3)
        blur_x = (blur + torch.where(upright, 0.0, moved)) * limit
        blur_y = (blur + torch.where(upright, moved, 0.0)) * limit

        image = image.clamp_(0, 1).mul_(255)
        rows_sampled, columns_sampled, blur_x, blur_y = (
            value.to(self.device) for value in (rows_sampled, columns_sampled, blur_x, blur_y)
        )
        taps = height // 2  # more than three standard deviations of the strongest blur
        image = self._scale(
            image,
            downsampling_weights(height, rows_sampled, blur_y, taps),
            downsampling_weights(width, columns_sampled, blur_x, taps),
        )
        self._add_noise(image, scene, rng.substream("noise"))
        self._compress_jpeg(image, rng.substream("store"), difficulty)
        return self._scale(image, upsampling_weights(height, rows_sampled), upsampling_weights(width, columns_sampled))

    def _scale(self, image: torch.Tensor, down: torch.Tensor, across: torch.Tensor) -> torch.Tensor:
        n, _, height, width = image.shape
        image = torch.matmul(down[:, None], image)
        return torch.bmm(image.reshape(n, 3 * height, width), across.transpose(1, 2)).reshape(n, 3, height, width)

    def _add_noise(self, image: torch.Tensor, scene: Scene, rng: RandomStreams) -> None:
        strength = torch.where(rng.bernoulli(0.2), rng.uniform(2, 9), rng.uniform(0, 4))
        strength = strength * scene.difficulty.clamp(max=1)
        strength = torch.minimum(strength, 0.16 * 255 * scene.contrast)
        plane = image.shape[2] * image.shape[3]
        windows = self._noise.as_strided((_NOISE_LENGTH - 4 * plane, plane), (1, 1))
        start = (rng.uniform() * (_NOISE_LENGTH - 8 * plane)).long()
        color = rng.uniform(0, 0.7)
        gray, colored = columns(self.device, strength * (1 - color), strength * color)
        gray_noise = windows.index_select(0, start.to(self.device)).reshape(len(image), 1, *image.shape[2:])
        image.addcmul_(gray_noise, gray[:, None])
        wide = self._noise.as_strided((_NOISE_LENGTH - 4 * plane, 3 * plane), (1, 1))
        start = (start + plane).to(self.device)
        image.addcmul_(wide.index_select(0, start).reshape(image.shape), colored[:, None])

    def _compress_jpeg(self, image: torch.Tensor, rng: RandomStreams, difficulty: float) -> None:
        """Simulate JPEG compression: quantize the frequencies of blocks of 8 by 8 pixels."""
        rows, rng = rng.pick(rng.bernoulli(0.65 * difficulty), "store")
        if not len(rows):
            return
        quality = torch.where(rng.bernoulli(0.7), rng.uniform(60, 95), rng.uniform(25, 70))
        factor = torch.where(quality < 50, 50 / quality, 2 - quality / 50).to(self.device)[:, None, None]
        table = (factor * self._table).clamp(min=1)
        # Chroma subsampling by two is approximated by keeping only the lower half of the frequencies.
        coarse = table * 1.7
        coarse[:, 4:] = coarse[:, :, 4:] = 1e6
        place = rows.to(self.device)
        red, green, blue = image[place].unbind(1)
        bright = 0.299 * red + 0.587 * green + 0.114 * blue
        planes = torch.stack([bright - 128, (blue - bright) * 0.564, (red - bright) * 0.713], 1)
        bright, bluish, reddish = self.quantize(planes, torch.stack([table, coarse, coarse], 1)).unbind(1)
        bright = bright + 128
        red, blue = bright + reddish / 0.713, bright + bluish / 0.564
        image[place] = torch.stack([red, (bright - 0.299 * red - 0.114 * blue) / 0.587, blue], 1)

    def quantize(self, planes: torch.Tensor, tables: torch.Tensor) -> torch.Tensor:
        """Quantize the frequencies of each 8 x 8 block of `(n, 3, height, width)` to multiples of `(n, 3, 8, 8)`."""
        n, _, height, width = planes.shape
        across = (n, 3, height // 8, 8, width // 8, 8)
        down = (n, 3, height // 8, 8, width)
        tables = tables[:, :, None, :, None, :]
        frequencies = (self._cosines @ planes.reshape(down)).reshape(across) @ self._cosines.T
        frequencies = (frequencies / tables).round_() * tables
        return (self._cosines.T @ (frequencies @ self._cosines).reshape(down)).reshape(planes.shape)


def downsampling_weights(size: int, sampled: torch.Tensor, blur: torch.Tensor, taps: int) -> torch.Tensor:
    """Weights `(n, size, size)` that blur and downsample a row to `sampled` pixels; the last one is repeated."""
    step = (size / sampled)[:, None]
    middle = (torch.minimum(torch.arange(size, device=sampled.device), sampled[:, None] - 1) + 0.5) * step - 0.5
    spread = (blur.square() + (0.33 * step[:, 0]).square())[:, None, None]
    pixel = middle.round()[:, :, None] + torch.arange(-taps, taps + 1, device=sampled.device)
    weights = torch.exp((pixel - middle[:, :, None]).square_() / (-2 * spread))
    return _to_dense(weights, pixel.long(), torch.full_like(sampled, size))


def upsampling_weights(size: int, sampled: torch.Tensor) -> torch.Tensor:
    """Weights `(n, size, size)` that upsample the first `sampled` pixels of a row: bicubic, like Pillow."""
    middle = (torch.arange(size, device=sampled.device) + 0.5) * (sampled / size)[:, None] - 0.5
    pixel = middle.floor()[:, :, None] + torch.arange(-1, 3, device=sampled.device)
    away = (pixel - middle[:, :, None]).abs_()
    near = (1.5 * away - 2.5) * away.square() + 1
    far = ((-0.5 * away + 2.5) * away - 4) * away + 2
    return _to_dense(torch.where(away < 1, near, far), pixel.long(), sampled)


def _to_dense(weights: torch.Tensor, pixel: torch.Tensor, sampled: torch.Tensor) -> torch.Tensor:
    """Scatter weights `(n, size, taps)` to `(n, size, size)`, normalized over the first `sampled` pixels."""
    n, size, _ = weights.shape
    weights = weights * ((pixel >= 0) & (pixel < sampled[:, None, None]))
    weights /= weights.sum(2, keepdim=True)
    return weights.new_zeros(n, size, size).scatter_add_(2, pixel.clamp_(0, size - 1), weights)
