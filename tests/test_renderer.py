"""Renderer of synthetic text."""

import itertools
import random
from dataclasses import replace

import pytest
import torch

from svtrv2_hf import ENGLISH_94
from svtrv2_hf.resizing_svtrv2 import BUCKET_SIZES
from svtrv2_hf.synthetic import background, ink
from svtrv2_hf.synthetic.atlas import build_atlas
from svtrv2_hf.synthetic.degradation import Camera, downsampling_weights, upsampling_weights
from svtrv2_hf.synthetic.fonts import find_fonts
from svtrv2_hf.synthetic.glyphs import CAP_HEIGHT
from svtrv2_hf.synthetic.layout import Typesetter
from svtrv2_hf.synthetic.palette import contrast, enforce_contrast, luminance, sample_color_pairs
from svtrv2_hf.synthetic.renderer import Renderer
from svtrv2_hf.synthetic.sampling import RandomStreams
from svtrv2_hf.synthetic.textures import COUNT, TILE, texture_bank


CHARSET = ENGLISH_94 + " "
SIZES = [*BUCKET_SIZES, (32, 160), (32, 640)]
TEXTS = [
    "Hotel",
    "i",
    "FOR SALE",
    "www.example.com/index.html",
    "$9.99",
    "OPEN",
    "Q",
    "a line of text, " * 3 + "and more",
]


@pytest.fixture(scope="module")
def atlas():
    fonts = find_fonts(packages=False, system=False).fonts  # matplotlib's DejaVu fonts
    return build_atlas(fonts[:3], CHARSET, progress=False)


@pytest.fixture(scope="module")
def renderer(atlas):
    return Renderer(atlas)


@pytest.fixture(scope="module")
def plain(atlas):
    return Renderer(atlas, difficulty=0)


def random_texts(count, seed=0):
    rng = random.Random(seed)
    texts = ["".join(rng.choices(CHARSET, k=rng.choice((1, 2, 3, 5, 8, 13, 25, 60)))) for _ in range(count)]
    return [text if text.strip() else "blank" for text in texts]


def ink_columns(pixels):
    """Return which columns of an image without clutter contain ink."""
    gray = pixels.float().mean(-1)
    background = gray[0, 0]
    return ((gray - background).abs() > 0.4 * (gray - background).abs().max()).any(0)


def runs(columns):
    """Return the first and last index of each run of true values."""
    steps = torch.diff(columns.int(), prepend=torch.tensor([0]), append=torch.tensor([0]))
    return list(zip((steps == 1).nonzero()[:, 0].tolist(), ((steps == -1).nonzero()[:, 0] - 1).tolist(), strict=True))


@pytest.mark.parametrize("size", [(32, 128), (64, 64)])
def test_image_does_not_depend_on_its_batch(renderer, size):
    texts = TEXTS * 4
    together = renderer.render(texts, size, seed=3, indices=100)
    ratios = renderer.plan(texts, 3, 100)
    order = torch.randperm(len(texts))
    for rows in (order[:16], order[16:31], order[31:]):
        chosen = [texts[row] for row in rows]
        rendered = renderer.render(chosen, size, seed=3, indices=100 + rows)
        difference = (rendered.pixels.int() - together.pixels[rows].int()).abs()
        assert difference.max() <= 1
        longest = rendered.centers.shape[1]
        torch.testing.assert_close(rendered.centers, together.centers[rows, :longest], equal_nan=True)
        assert (rendered.fonts == together.fonts[rows]).all()
        torch.testing.assert_close(renderer.plan(chosen, 3, 100 + rows), ratios[rows])


def test_seed_and_index_change_the_image(renderer):
    first = renderer.render(["Hotel"] * 8, (32, 128), seed=1, indices=0).pixels.int()
    again = renderer.render(["Hotel"] * 8, (32, 128), seed=1, indices=0).pixels.int()
    other = renderer.render(["Hotel"] * 8, (32, 128), seed=2, indices=0).pixels.int()
    assert (first == again).all()
    assert ((first - other).abs().float().mean((1, 2, 3)) > 3).all()
    assert ((first[1:] - first[:-1]).abs().float().mean((1, 2, 3)) > 3).all()


@pytest.mark.parametrize("difficulty", [0, 0.5, 1, 1.5])
def test_all_values_are_finite(atlas, difficulty, monkeypatch):
    capture = Camera.capture
    seen = []

    def checked(self, image, *rest):
        assert torch.isfinite(image).all()
        captured = capture(self, image, *rest)
        assert torch.isfinite(captured).all()
        seen.append(len(captured))
        return captured

    monkeypatch.setattr(Camera, "capture", checked)
    renderer = Renderer(atlas, difficulty)
    texts = [*(character for character in ENGLISH_94), *random_texts(60)]
    for number, size in enumerate(SIZES):
        some = texts[number :: len(SIZES)] if size != (64, 64) else texts
        rendered = renderer.render(some, size, seed=number, indices=7)
        assert rendered.pixels.dtype == torch.uint8
        assert rendered.pixels.shape == (len(some), *size, 3)
        assert rendered.centers.shape == (len(some), max(map(len, some)))
        for text, centers in zip(some, rendered.centers, strict=True):
            has_ink = torch.tensor([character != " " for character in text])
            assert torch.isfinite(centers[: len(text)][has_ink]).all()
            assert torch.isnan(centers[: len(text)][~has_ink]).all()
            assert torch.isnan(centers[len(text) :]).all()
    assert sum(seen) > len(texts)


def test_centers_match_characters(plain):
    text = "H I T E L"
    rendered = plain.render([text] * 20, (32, 192), seed=5, indices=0)
    for pixels, centers in zip(rendered.pixels, rendered.centers, strict=True):
        spans = runs(ink_columns(pixels))
        assert len(spans) == 5
        for (first, last), center in zip(spans, centers[::2], strict=True):
            assert abs((first + last + 1) / 2 - center) < 1.5
        assert torch.isnan(centers[1::2]).all()


def test_centers_match_characters_with_distortions(renderer, monkeypatch):
    """Compares centers with the ink for rotated, bent, cropped and spaced texts whose letters are separate."""
    opacity, fills = ink.opacity, []

    def watched(fill, *rest):
        fills.append(fill > 0.3)
        return opacity(fill, *rest)

    monkeypatch.setattr(ink, "opacity", watched)
    centers = renderer.render(["H H H H"] * 400, (32, 192), seed=5, indices=0).centers[:, ::2]
    [fills] = fills
    apart, off = 0, []
    for fill, where in zip(fills, centers, strict=True):
        spans = runs(fill.any(0))
        if len(spans) != 4 or spans[0][0] == 0 or spans[-1][1] == 191:  # cropped, vertical or steep
            continue
        apart += 1
        off += [
            abs((first + last + 1) / 2 - center) / (last - first + 1)
            for (first, last), center in zip(spans, where.tolist(), strict=True)
        ]
    assert apart > 200
    assert max(off) < 0.15
    assert sum(off) / len(off) < 0.03


def test_pixels_map_to_text_plane_and_back(renderer):
    texts = ["STACK", "Signs", "curved words"] * 200
    _, geometry = renderer.lay_out(texts, 0, 0)
    assert (geometry.curvature != 0).any()
    assert (geometry.wave[:, 0] != 0).any()
    height, width = 16, 32
    x, y = geometry.to_text(height, width, torch.device("cpu"))
    # within the box of the text: an arc overlaps itself far outside
    near = (x.abs() < geometry.half[:, 0, None, None]) & (y.abs() < geometry.half[:, 1, None, None])
    back = geometry.forward(torch.stack([x, y], -1).flatten(1, 2)).reshape(len(texts), height, width, 2)
    left, top, right, bottom = geometry.crop[:, :, None, None].unbind(1)
    expected_x = left + (right - left) * (torch.arange(width) + 0.5) / width
    expected_y = top + (bottom - top) * (torch.arange(height)[:, None] + 0.5) / height
    assert near.float().mean() > 0.3
    assert (back[..., 0] - expected_x)[near].abs().max() < 0.1
    assert (back[..., 1] - expected_y)[near].abs().max() < 0.1


def test_characters_are_in_reading_order(renderer):
    texts = ["reading"] * 300
    rendered = renderer.render(texts, (48, 96), seed=0, indices=0)
    in_order = (rendered.centers.diff(dim=1) > 0).all(1)
    inside = ((rendered.centers > -3) & (rendered.centers < 99)).all(1)
    assert in_order.float().mean() > 0.95  # except vertical text
    assert inside.all()


def test_crop_never_cuts_off_half_a_character(atlas):
    """Texts that begin and end with narrow letters and dots, in tight crops."""
    renderer = Renderer(atlas, difficulty=8)
    texts = ["il", "I am I", ".and.", "|x|", "life", "-", "1:1", "WWW"] * 60
    layout, geometry = renderer.lay_out(texts, 0, 0)
    middles = geometry.forward(layout.centers - geometry.middle[:, None])
    low, high = geometry.crop[:, None, :2], geometry.crop[:, None, 2:]
    known = ~middles.isnan()
    assert (known <= ((middles > low) & (middles < high))).all()
    edges = geometry.forward(torch.tensor([[-1.0, 0.0], [1.0, 0.0]]) * geometry.half[:, None])
    cut = edges[:, 0, 0].minimum(edges[:, 1, 0]) < geometry.crop[:, 0]
    assert cut.sum() > 20, "some texts are cropped"


def test_neighboring_words_are_a_space_away(atlas, monkeypatch):
    words, moves, gaps = [], [], []
    columns, set_neighbors = background.columns, Typesetter.set_neighbors

    def recording_columns(device, *values):
        moves.append(values)
        return columns(device, *values)

    def recording_set_neighbors(typesetter, layout, rng):
        words.append(layout)
        return set_neighbors(typesetter, layout, rng)

    class Recording(background.Glyphs):
        def distance(self, x, y, rows):
            along, across = moves[-1]
            if not across.any():  # on the same line
                box, word = self.layout.select(rows).box, words[-1].select(rows).box
                gaps.append(torch.maximum(box[:, 0] + along - word[:, 2], word[:, 0] - box[:, 2] - along) / CAP_HEIGHT)
            return super().distance(x, y, rows)

    monkeypatch.setattr(background, "columns", recording_columns)
    monkeypatch.setattr(background, "Glyphs", Recording)
    monkeypatch.setattr(Typesetter, "set_neighbors", recording_set_neighbors)
    Renderer(atlas, difficulty=3).render(["Rock"] * 100, (32, 128), seed=0, indices=0)
    before, after = gaps
    assert min(len(before), len(after)) > 10
    assert torch.cat(gaps).min() >= 0.399
    assert torch.cat(gaps).max() <= 0.601


def test_every_character_is_visible(plain):
    rendered = plain.render(list(ENGLISH_94), (64, 64), seed=0, indices=0)
    gray = rendered.pixels.float().mean(-1).flatten(1)
    assert ((gray.amax(1) - gray.amin(1)) > 80).all()


def test_words_contrast_with_background(renderer, monkeypatch):
    opacity, fills = ink.opacity, []

    def watched(fill, *rest):
        fills.append(fill.flatten(1).clone())
        return opacity(fill, *rest)

    monkeypatch.setattr(ink, "opacity", watched)
    pixels = renderer.render(["legible"] * 400, (40, 112), seed=0, indices=0).pixels
    fill = fills[0] - fills[0].mean(1, keepdim=True)
    # the difference of ink and background, from a regression of the final colors on the ink
    difference = (fill[:, :, None] * pixels.float().flatten(1, 2)).sum(1) / fill.square().sum(1, keepdim=True)
    assert (difference.norm(dim=1) < 0.05 * 255).float().mean() < 0.02


def hue_at(pixels, center):
    """Return whether red, green or blue dominates at a character."""
    column = pixels[:, round(float(center)) - 3 : round(float(center)) + 4].float().flatten(0, 1)
    return int(column[column.sum(1).argmin()].argmax())


@pytest.mark.parametrize(("text", "alike"), [("IIII", []), ("II II II", [(0, 1), (3, 4), (6, 7)])])
def test_letters_or_words_in_different_colors(plain, text, alike, monkeypatch):
    colors = torch.tensor([[0.5, 0, 0], [0, 0.5, 0], [0, 0, 0.5]])
    monkeypatch.setattr(
        ink, "enforce_contrast", lambda background, color, wanted: colors[[next(numbers) % 3] * len(background)]
    )
    color_letters = ink.color_letters

    def all_multicolored(paint, scene, rng):
        scene.difficulty, scene.background = torch.full((len(rng),), 40.0), torch.ones(len(rng), 3)
        color_letters(paint, scene, rng)

    monkeypatch.setattr(ink, "color_letters", all_multicolored)
    monkeypatch.setattr(ink, "suppress_clutter", lambda image, *rest: image.fill_(1))
    numbers = itertools.count()
    rendered = plain.render([text] * 40, (64, 256), seed=0, indices=0)
    visible = [place for place, character in enumerate(text) if character != " "]
    hues = [
        {place: hue_at(pixels, centers[place]) for place in visible}
        for pixels, centers in zip(rendered.pixels, rendered.centers, strict=True)
    ]
    assert all(len(set(row.values())) > 1 for row in hues)
    by_word = [row for row in hues if all(row[first] == row[second] for first, second in alike)]
    if alike:
        assert 18 < len(by_word) < 38  # colored by word in 70 % of lines, otherwise by letter
        assert all(row[0] != row[3] for row in by_word)


def test_only_single_words_are_widely_spaced(atlas, renderer):
    lone, several = (renderer.lay_out([text] * 2000, 0, 0)[0] for text in ("HHHH", "HH HH"))
    further = lone.pens[:, 1] - several.pens[:, 1]  # same fonts and otherwise same spacing
    assert 0.015 < (further > 0).float().mean() < 0.035
    assert further.min() == 0
    assert further.max() > 0.8 * CAP_HEIGHT


def test_spaces_leave_gaps(plain):
    rendered = plain.render(["HH HH"] * 10, (32, 160), seed=1, indices=0)
    for pixels, centers in zip(rendered.pixels, rendered.centers, strict=True):
        spans = runs(ink_columns(pixels))
        gaps = [(right[0] - left[1], left[1], right[0]) for left, right in itertools.pairwise(spans)]
        widest, first, last = max(gaps)
        assert centers[1] < first < last < centers[3]
        assert sorted(gap for gap, *_ in gaps)[-2] < 0.7 * widest


def test_difficulty_0_renders_clean_print(plain):
    rendered = plain.render(["Clean", "PRINT"] * 20, (32, 128), seed=0, indices=0)
    pixels = rendered.pixels.float()
    background = pixels[:, 0, 0]
    corners = torch.stack([pixels[:, 0, -1], pixels[:, -1, 0], pixels[:, -1, -1]], 1)
    assert (corners - background[:, None]).abs().max() <= 2
    away = (luminance(pixels) - luminance(background)[:, None, None]).flatten(1)
    strongest = away.gather(1, away.abs().argmax(1, keepdim=True))
    assert (strongest.abs() > 90).all()
    level = away / strongest  # 0 for background, 1 for ink, few values in between
    assert ((level > 0.25) & (level < 0.75)).float().mean() < 0.2
    assert (level > -0.05).all()
    assert 0.2 < (strongest > 0).float().mean() < 0.8


def test_plan_returns_plausible_aspect_ratios(plain, renderer):
    ratios = plain.plan(["HH", "HHHH", "HHHHHHHH"], seed=0, start=0)
    assert 1.5 < ratios[1] / ratios[0] < 2.5
    assert 1.5 < ratios[2] / ratios[1] < 2.5
    words = renderer.plan(["street"] * 500, seed=0, start=0)
    assert 2 < words.median() < 4
    assert words.min() > 0.2
    assert words.std() > 0.4


def test_fonts_without_a_character_are_not_chosen(atlas):
    available = atlas.available.clone()
    available[0, CHARSET.index("Q")] = False
    lowercase = torch.tensor([True, False, True])
    renderer = Renderer(replace(atlas, available=available, has_lowercase=lowercase))
    texts = ["QUIET"] * 40 + ["quiet"] * 40 + ["Qi"] * 40
    quiet_upper, quiet_lower, both = renderer.render(texts, (32, 128), seed=0, indices=0).fonts.split(40)
    assert set(quiet_upper.tolist()) == {1, 2}
    assert set(quiet_lower.tolist()) == {0, 2}
    assert set(both.tolist()) == {2}


def test_invalid_arguments_raise(atlas, renderer):
    with pytest.raises(ValueError, match="Text 1, 'Zürich', has the character 'ü', which is not in the atlas"):
        renderer.render(["Bern", "Zürich"], (32, 128), seed=0, indices=0)
    with pytest.raises(ValueError, match="Text 0, '  ', is blank"):
        renderer.plan(["  "], seed=0, start=0)
    with pytest.raises(ValueError, match=r"size=\(30, 128\) must be"):
        renderer.render(["Bern"], (30, 128), seed=0, indices=0)
    with pytest.raises(ValueError, match="Got 2 texts but 1 indices"):
        renderer.render(["Bern", "Basel"], (32, 128), seed=0, indices=torch.tensor([4]))
    with pytest.raises(ValueError, match=r"difficulty=-1 must be a finite number of 0 or more"):
        Renderer(atlas, difficulty=-1)
    capitals = Renderer(replace(atlas, has_lowercase=torch.zeros(3, dtype=torch.bool)))
    with pytest.raises(ValueError, match="None of the 3 fonts of the atlas has all characters of 'Bern'"):
        capitals.render(["BERN", "Bern"], (32, 128), seed=0, indices=0)


def test_random_streams_are_random_and_depend_on_the_image():
    rng = RandomStreams.for_images(1, torch.arange(20_000))
    numbers = rng.uniform(2, 4, (3,))
    assert numbers.min() >= 2
    assert numbers.max() <= 4
    torch.testing.assert_close(numbers.mean(0), torch.full((3,), 3.0), atol=0.02, rtol=0)
    assert torch.corrcoef(numbers.T).fill_diagonal_(0).abs().max() < 0.03
    assert abs(torch.corrcoef(torch.stack([numbers[1:, 0], numbers[:-1, 0]]))[0, 1]) < 0.03
    normal = rng.normal(1, 2, (5,))
    assert abs(normal.mean() - 1) < 0.03
    assert abs(normal.std() - 2) < 0.03
    again = RandomStreams.for_images(1, torch.tensor([7, 3]))
    assert (again.uniform(2, 4, (3,)) == numbers[[7, 3]]).all()
    assert (again.normal(1, 2, (2,)) == normal[[7, 3], :2]).all()
    some = RandomStreams.for_images(1, torch.arange(10))
    assert (some.substream("a", torch.tensor([4])).uniform() == some.substream("a").uniform()[4]).all()
    assert (some.substream("a").uniform() != some.substream("b").uniform()).all()


def test_enforced_contrast_of_ink_and_background():
    background, ink_color = sample_color_pairs(RandomStreams.for_images(0, torch.arange(2000)))
    separated = enforce_contrast(background, ink_color, torch.full((2000,), 0.3))
    assert (contrast(background, ink_color) < 0.25).any()
    assert (contrast(background, separated) > 0.25).all()
    enough = contrast(background, ink_color) >= 0.3
    assert (separated[enough] == ink_color[enough]).all()


def test_resampling_at_full_resolution_is_the_identity():
    full, none = torch.full((1,), 40.0), torch.zeros(1)
    line = torch.rand(1, 40, 1)
    torch.testing.assert_close(upsampling_weights(40, full) @ line, line)
    assert (downsampling_weights(40, full, none, 20) @ line - line).abs().max() < 0.03
    sampled = torch.tensor([13.0, 40.0, 27.0])
    for weights in (
        downsampling_weights(40, sampled, torch.tensor([0.0, 3.0, 1.0]), 20),
        upsampling_weights(40, sampled),
    ):
        torch.testing.assert_close(weights.sum(2), torch.ones(3, 40))
    ramp = torch.arange(40.0)[None, :, None]
    there_and_back = upsampling_weights(40, sampled[:1]) @ (downsampling_weights(40, sampled[:1], none, 20) @ ramp)
    assert (there_and_back - ramp)[:, 6:-6].abs().max() < 0.5


def test_coarser_quantization_increases_the_error():
    camera = Camera(torch.device("cpu"))
    image = torch.rand(2, 3, 16, 24) * 255
    fine = camera.quantize(image, torch.full((2, 3, 8, 8), 0.01))
    torch.testing.assert_close(fine, image, atol=0.1, rtol=0)
    errors = [
        (camera.quantize(image, torch.full((2, 3, 8, 8), step)) - image).square().mean() for step in (4.0, 16.0, 64.0)
    ]
    assert errors[0] < errors[1] < errors[2]


def test_textures_are_normalized_and_periodic():
    bank = texture_bank(torch.device("cpu"))
    which = torch.arange(COUNT)[:, None, None]
    down, across = torch.meshgrid(torch.arange(TILE) * 1.0, torch.arange(TILE) * 1.0, indexing="ij")
    tiles = bank.sample(which, across.expand(COUNT, -1, -1), down.expand(COUNT, -1, -1))
    assert tiles.mean((1, 2, 3)).abs().max() < 0.2
    assert ((tiles.mean(1).std((1, 2)) > 0.7) & (tiles.mean(1).std((1, 2)) < 1.1)).all()
    again = bank.sample(which, across.expand(COUNT, -1, -1) + TILE, down.expand(COUNT, -1, -1) - TILE)
    torch.testing.assert_close(tiles, again, atol=0.02, rtol=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpu_and_cpu_render_the_same(atlas, renderer):
    texts = TEXTS * 8
    on_cpu = renderer.render(texts, (32, 128), seed=0, indices=0)
    on_gpu = Renderer(atlas, device="cuda").render(texts, (32, 128), seed=0, indices=0)
    difference = (on_cpu.pixels.int() - on_gpu.pixels.cpu().int()).abs()
    assert (difference <= 2).float().mean() > 0.999
    torch.testing.assert_close(on_cpu.centers, on_gpu.centers.cpu(), equal_nan=True)
