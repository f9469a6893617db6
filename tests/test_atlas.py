"""Fonts, their licenses, and the glyph atlas."""

import csv
import hashlib
import json
import os
import re
import shutil
import string
import time
import tomllib
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from fontTools.feaLib.builder import addOpenTypeFeaturesFromString
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from PIL import Image, ImageDraw, ImageFont
from safetensors import safe_open
from safetensors.torch import save_file

from svtrv2_hf import ENGLISH_94
from svtrv2_hf.cli import main as command
from svtrv2_hf.synthetic import atlas as atlas_module
from svtrv2_hf.synthetic.atlas import Atlas, build_atlas, load_or_build
from svtrv2_hf.synthetic.fonts import UNKNOWN_LICENSE, FontFace, find_fonts, known_fonts
from svtrv2_hf.synthetic.glyphs import (
    BASELINE,
    CAP_HEIGHT,
    CELL,
    MARGIN,
    ORIGIN,
    SPREAD,
    SUPERSAMPLING,
    signed_distance,
)


CHARSET = "AVHOTagnoyjl08.,%@- "
DEJAVU = Path(find_spec("matplotlib").origin).parent / "mpl-data" / "fonts" / "ttf"


@pytest.fixture(scope="module")
def dejavu():
    """The fonts that are always available."""
    return find_fonts(packages=False, system=False).fonts


@pytest.fixture(scope="module")
def atlas(dejavu):
    chosen = [
        font for font in dejavu if font.name in ("DejaVu Sans Regular", "DejaVu Serif Bold", "DejaVu Sans Mono Italic")
    ]
    return build_atlas(chosen, CHARSET, progress=False)


def box(left, bottom, right, top):
    pen = TTGlyphPen(None)
    for number, corner in enumerate(((left, bottom), (left, top), (right, top), (right, bottom))):
        (pen.lineTo if number else pen.moveTo)(corner)
    pen.closePath()
    return pen.glyph()


def make_font(path, family="Boxes", glyphs=(), style="Regular", weight=400, features="", axes=()):
    """Create a font whose letters and digits are boxes of 400 by 1000 units (1000 per em); `glyphs` replace some."""
    shapes = {character: box(0, 0, 400, 1000) for character in string.ascii_letters + string.digits} | dict(glyphs)
    names = {character: f"u{ord(character):04X}" for character in shapes}
    builder = FontBuilder(1000)
    builder.setupGlyphOrder([".notdef", *names.values()])
    builder.setupCharacterMap({ord(character): name for character, name in names.items()})
    builder.setupGlyf(
        {".notdef": box(100, 0, 300, 500)} | {names[character]: shape for character, shape in shapes.items()}
    )
    builder.setupHorizontalMetrics(dict.fromkeys([".notdef", *names.values()], (500, 0)))
    builder.setupHorizontalHeader(ascent=1000, descent=-300)
    builder.setupNameTable({"familyName": family, "styleName": style})
    builder.setupOS2(usWeightClass=weight)
    builder.setupPost()
    if "Italic" in style:
        builder.font["head"].macStyle = 2
    if axes:
        builder.setupFvar(axes, [])
    if features:
        addOpenTypeFeaturesFromString(builder.font, features)
    path.parent.mkdir(parents=True, exist_ok=True)
    builder.save(path)
    return FontFace(path, family, style, "OFL-1.1")


def found_in(folder, **options):
    """Find the fonts in a folder, without DejaVu."""
    options = {"allow_unknown_license": False, **options}
    found = find_fonts([folder], packages=False, system=False, **options)
    return [font for font in found.fonts if not font.family.startswith("DejaVu")], found.skipped


# Fonts


def test_dejavu_is_always_available(dejavu):
    assert [font.name for font in dejavu] == [
        f"DejaVu {family} {style}"
        for family in ("Sans", "Sans Mono", "Serif")
        for style in ("Regular", "Bold", "Italic")
    ]
    assert {font.license for font in dejavu} == {"Bitstream-Vera"}


def test_one_face_per_style_closest_to_its_weight(tmp_path):
    for style, weight in (("Light", 300), ("Regular", 400), ("SemiBold", 600), ("Bold", 700), ("Black", 900)):
        make_font(tmp_path / f"{style}.ttf", style=style, weight=weight)
    make_font(tmp_path / "Italic.ttf", style="Italic")
    fonts, skipped = found_in(tmp_path, allow_unknown_license=True)
    assert [(font.style, font.path.stem) for font in fonts] == [
        ("Regular", "Regular"),
        ("Bold", "Bold"),
        ("Italic", "Italic"),
    ]
    assert skipped["another face of the style chosen"] >= 3


def test_variable_font_has_regular_and_bold_instances(tmp_path):
    make_font(tmp_path / "wide.ttf", "Wide", axes=[("wght", 100, 100, 900, "Weight"), ("wdth", 75, 75, 125, "Width")])
    make_font(tmp_path / "light.ttf", "Light", axes=[("wght", 200, 300, 500, "Weight")])
    fonts, _ = found_in(tmp_path, allow_unknown_license=True)
    assert [(font.name, font.axes) for font in fonts] == [
        ("Light Regular", (400.0,)),
        ("Wide Regular", (400.0, 100.0)),
        ("Wide Bold", (700.0, 100.0)),
    ]


def test_families_outside_the_curated_list_are_skipped_unless_allowed(tmp_path):
    make_font(tmp_path / "listed.ttf", "ABEEZEE")
    make_font(tmp_path / "other.ttf", "Unlisted")
    fonts, skipped = found_in(tmp_path)
    assert [(font.family, font.license) for font in fonts] == [("ABEEZEE", "OFL-1.1")]
    assert skipped["license unknown"] == 1
    fonts, skipped = found_in(tmp_path, allow_unknown_license=True)
    assert [(font.family, font.license) for font in fonts] == [("ABEEZEE", "OFL-1.1"), ("Unlisted", UNKNOWN_LICENSE)]
    assert "license unknown" not in skipped


def test_curated_list_has_permissive_licenses_and_all_packages_of_the_extra():
    fonts = known_fonts()
    assert {font.license for font in fonts.values()} == {
        "OFL-1.1",
        "Apache-2.0",
        "BSD",
        "Bitstream-Vera",
        "MIT",
        "public-domain",
    }
    packages = {package for font in fonts.values() for package in font.package.split(" or ")}
    assert all(re.fullmatch(r"(PyPI|Debian) [a-z0-9-]+", package) for package in packages)
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8"))["project"]
    extra = project["optional-dependencies"]["synthetic"]
    assert {f"PyPI {name}" for name in extra if name.startswith("fontpkg-")} <= packages


def test_symbol_fonts_other_scripts_and_damaged_files_are_skipped(tmp_path):
    make_font(tmp_path / "dings.ttf", "Some Dingbats")
    face = make_font(tmp_path / "good.ttf", "Good")
    (tmp_path / "short.ttf").write_bytes(face.path.read_bytes()[:300])
    (tmp_path / "empty.otf").write_bytes(b"")
    shutil.copy(DEJAVU / "DejaVuSansDisplay.ttf", tmp_path)
    fonts, skipped = found_in(tmp_path, allow_unknown_license=True)
    assert [font.family for font in fonts] == ["Good"]
    assert skipped["unreadable"] == 2
    assert skipped["symbol font by its name"] == 1
    assert skipped["lacks Latin letters or digits"] >= 1
    with pytest.raises(FileNotFoundError, match=r"Font folder .*absent not found"):
        find_fonts([tmp_path / "absent"])


def test_user_folders_take_precedence(tmp_path):
    shutil.copy(DEJAVU / "DejaVuSans.ttf", tmp_path)
    found = find_fonts([tmp_path], packages=False, system=False)
    assert [font.path.parent for font in found.fonts if font.family == "DejaVu Sans"] == [tmp_path]
    assert found.skipped["family already found"] >= 3


# Fields


def test_atlas_shapes_dtypes_and_names(atlas):
    assert atlas.fonts == ["DejaVu Sans Regular", "DejaVu Sans Mono Italic", "DejaVu Serif Bold"]
    assert atlas.licenses == ["Bitstream-Vera"] * 3
    assert (atlas.fields.shape, atlas.fields.dtype) == ((3, 20, CELL, CELL), torch.uint8)
    assert (atlas.advances.shape, atlas.advances.dtype) == ((3, 20), torch.float32)
    assert (atlas.kerning.shape, atlas.kerning.dtype) == ((3, 20, 20), torch.int8)
    assert atlas.available.all()
    assert atlas.has_lowercase.all()
    assert atlas.skipped == {}
    assert not atlas.fields[:, CHARSET.index(" ")].any()
    assert (atlas.advances > 3).all()
    mono = atlas.advances[1]
    assert mono.max() - mono.min() < 0.01


def test_distance_field_of_a_box(tmp_path):
    # 25 pixels high and 10 wide: columns 16 to 25, rows 19 to 43.
    face = make_font(tmp_path / "boxes.ttf")
    boxes = build_atlas([face], "HX", progress=False)
    distances = (boxes.fields[0, 0].float() - 128) * SPREAD / 127
    middle = BASELINE - 12
    for column, distance in (
        (ORIGIN - 4, -3.5),
        (ORIGIN - 1, -0.5),
        (ORIGIN, 0.5),
        (ORIGIN + 4, 4.5),
        (ORIGIN + 12, -2.5),
    ):
        assert distances[middle, column] == pytest.approx(distance, abs=0.15)
    assert distances[BASELINE, ORIGIN + 5] == pytest.approx(-0.5, abs=0.15)
    assert distances[BASELINE - CAP_HEIGHT, ORIGIN + 5] == pytest.approx(0.5, abs=0.15)
    # From a corner, three pixels to the left and four down.
    assert distances[BASELINE + 3, ORIGIN - 3] == pytest.approx(-((2.5**2 + 3.5**2) ** 0.5), abs=0.15)
    assert distances[2, 2] == pytest.approx(-128 * SPREAD / 127)
    assert boxes.advances[0].tolist() == pytest.approx([12.5, 12.5], abs=0.02)


def test_distance_fields_are_exact():
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.random((1, 1, 20, 20), dtype=np.float32))
    smooth = torch.nn.functional.interpolate(coarse, (320, 320), mode="bicubic")[0].numpy() > 0.6
    field = signed_distance(smooth)[0]
    points = np.argwhere(smooth[0]), np.argwhere(~smooth[0])
    for row, column in rng.integers(0, CELL, (40, 2)):
        at = np.array([row, column]) * SUPERSAMPLING + SUPERSAMPLING // 2
        inside = smooth[0][tuple(at)]
        nearest = np.sqrt(((points[1 if inside else 0] - at) ** 2).sum(1).min()) - 0.5
        distance = nearest / SUPERSAMPLING * (1 if inside else -1)
        assert abs(int(field[row, column]) - np.clip(128 + distance * 127 / SPREAD, 0, 255)) <= 0.51


@pytest.mark.parametrize("character", "Aagy8%@")
def test_outline_matches_pillow(atlas, character):
    # Rendered large and averaged, since hinting shifts the outline at small sizes.
    large = 16
    probe = ImageFont.truetype(DEJAVU / "DejaVuSans.ttf", 1000, layout_engine=ImageFont.Layout.BASIC)
    size = 1000 * CAP_HEIGHT / -probe.getbbox("H", anchor="ls")[1]
    font = ImageFont.truetype(DEJAVU / "DejaVuSans.ttf", size * large, layout_engine=ImageFont.Layout.BASIC)
    rendered = Image.new("L", (CELL * large, CELL * large))
    ImageDraw.Draw(rendered).text((ORIGIN * large, BASELINE * large), character, fill=255, font=font, anchor="ls")
    expected = np.asarray(rendered.reduce(large)) > 127
    field = atlas.fields[0, CHARSET.index(character)].numpy() >= 128
    assert (field & expected).sum() / (field | expected).sum() > 0.92


def test_kerning(atlas, tmp_path):
    a, v, h = (CHARSET.index(character) for character in "AVH")
    sans, mono, serif = atlas.kerning
    assert sans[a, v] < -2
    assert sans[v, a] < -2
    assert serif[a, v] < -2
    assert sans[h, h] == 0
    assert not mono.any()
    # One pair by glyph, the others by class: the class rule must not be added to the glyph pair.
    features = """
        languagesystem DFLT dflt; languagesystem latn dflt;
        feature kern { pos u0041 u0056 -80; pos [u0041 u0042] [u0056 u0057] -40; pos u0048 u0048 8; } kern;
    """
    face = make_font(tmp_path / "kerned.ttf", features=features)
    # An em is 25 pixels: 40 units are one.
    kerning = build_atlas([face], "ABHVW", progress=False).kerning[0]
    assert kerning.tolist() == [[0, 0, 0, -8, -4], [0, 0, 0, -4, -4], [0, 0, 1, 0, 0], [0] * 5, [0] * 5]


def test_missing_characters_are_not_available(tmp_path):
    glyphs = {
        "W": box(0, 0, 1900, 1000),  # as wide as the cell
        "Q": box(0, -800, 400, 1000),  # below it
        "M": box(100, 0, 300, 500),  # identical to the glyph for missing characters
        "x": TTGlyphPen(None).glyph(),  # blank
        " ": TTGlyphPen(None).glyph(),
        "N": box(0, 0, (CELL - ORIGIN - MARGIN) * 40, 1000),  # fits exactly
    }
    face = make_font(tmp_path / "some.ttf", glyphs=glyphs)
    charset = "AWQMx ?字N"
    atlas = build_atlas([face], charset, progress=False)
    assert dict(zip(charset, atlas.available[0].tolist(), strict=True)) == dict(
        zip(charset, (True, False, False, False, False, True, False, False, True), strict=True)
    )
    assert not atlas.fields[0, [charset.index("W"), charset.index(" ")]].any()


def test_dejavu_has_all_ascii_characters(dejavu):
    regular = next(font for font in dejavu if font.name == "DejaVu Sans Regular")
    assert build_atlas([regular], ENGLISH_94 + " ", progress=False).available.all()


def test_capitals_in_place_of_lowercase_letters_are_detected(tmp_path):
    shapes = {letter: box(0, 0, 100 + 20 * number, 1000) for number, letter in enumerate("ABDEGHQRT")}
    small = {letter.lower(): box(0, 0, 50 + 10 * number, 500) for number, letter in enumerate("ABDEGHQRT")}
    face = make_font(tmp_path / "capitals.ttf", glyphs=shapes | small)
    assert build_atlas([face], "ABDEGHQRTabdeghqrt", progress=False).has_lowercase.tolist() == [False]


def test_unusable_fonts_are_skipped(dejavu, tmp_path):
    broken = FontFace(tmp_path / "broken.ttf", "Broken", "Regular", "OFL-1.1")
    broken.path.write_bytes(b"\0\1\0\0 this is not a font")
    atlas = build_atlas([dejavu[0], broken], "AB", progress=False)
    assert atlas.fonts == ["DejaVu Sans Regular"]
    assert list(atlas.skipped) == ["Broken Regular"]
    with pytest.raises(ValueError, match=r"None of 1 fonts can be rendered: .*Broken Regular"):
        build_atlas([broken], "AB", progress=False)
    with pytest.raises(ValueError, match="charset is empty"):
        build_atlas(dejavu, "", progress=False)


# Files


def assert_equal(first, second):
    for name, value in vars(first).items():
        assert (
            torch.equal(value, getattr(second, name))
            if isinstance(value, torch.Tensor)
            else value == getattr(second, name)
        )


def test_saved_atlas_is_loaded_unchanged(atlas, tmp_path):
    path = tmp_path / "folder" / "atlas.safetensors"
    atlas.save(path)
    assert_equal(Atlas.load(path), atlas)
    assert [file.name for file in path.parent.iterdir()] == ["atlas.safetensors"]


def test_digest_covers_all_tensors(atlas, tmp_path):
    atlas.save(tmp_path / "atlas.safetensors")
    with safe_open(tmp_path / "atlas.safetensors", framework="pt") as file:
        assert json.loads(file.metadata()["atlas"])["digest"] == atlas.digest
    assert Atlas.load(tmp_path / "atlas.safetensors").digest == atlas.digest
    names = ("fields", "advances", "kerning", "available", "has_lowercase")
    changed = [replace(atlas, **{name: getattr(atlas, name).clone().fill_(0)}) for name in names]
    assert len({atlas.digest, *(other.digest for other in changed)}) == 6
    by_hand = hashlib.sha256(b"".join(getattr(atlas, name).numpy().tobytes() for name in sorted(names)))
    assert atlas.digest == by_hand.hexdigest()


def test_lowercase_letters_that_look_like_capitals_are_not_usable(atlas):
    capitals = replace(atlas, has_lowercase=torch.tensor([True, False, True]))
    lowercase = torch.tensor([character.islower() for character in CHARSET])
    assert capitals.usable[[0, 2]].all()
    assert torch.equal(capitals.usable[1], ~lowercase)


def test_loading_another_file_raises(atlas, tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"Atlas .*absent not found"):
        Atlas.load(tmp_path / "absent")
    (tmp_path / "text").write_text("text" * 9)
    with pytest.raises(ValueError, match="text is not an atlas: "):
        Atlas.load(tmp_path / "text")
    save_file({"weight": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"model\.safetensors is not an atlas of format"):
        Atlas.load(tmp_path / "model.safetensors")
    atlas.save(tmp_path / "old.safetensors")
    monkeypatch.setattr(atlas_module, "FORMAT", atlas_module.FORMAT + 1)
    with pytest.raises(ValueError, match=r"old\.safetensors is not an atlas of format"):
        Atlas.load(tmp_path / "old.safetensors")


def test_cache_key_covers_everything_the_atlas_depends_on(tmp_path, monkeypatch):
    face = make_font(tmp_path / "fonts" / "boxes.ttf")
    built = []

    def counting(fonts, charset, progress):
        built.append(charset)
        return build_atlas(fonts, charset, progress)

    monkeypatch.setattr(atlas_module, "build_atlas", counting)
    cache = tmp_path / "cache"
    first = load_or_build([face], "AB", cache, progress=False)
    assert_equal(load_or_build([face], "AB", cache, progress=False), first)
    assert len(built) == 1
    os.utime(face.path, (time.time(), time.time() + 60))
    moved = replace(face, path=Path(shutil.copy(face.path, tmp_path / "moved.ttf")))
    load_or_build([face], "AB", cache, progress=False)
    load_or_build([moved], "AB", cache, progress=False)
    assert len(built) == 1, "dates and paths do not matter"

    load_or_build([face], "BA", cache, progress=False)
    load_or_build([replace(face, license="MIT")], "AB", cache, progress=False)
    load_or_build([face, moved], "AB", cache, progress=False)
    assert len(built) == 4
    make_font(face.path, glyphs={"A": box(0, 0, 300, 1000)})
    assert not torch.equal(load_or_build([face], "AB", cache, progress=False).fields, first.fields)
    monkeypatch.setattr(atlas_module.features, "version", lambda _: "another FreeType")
    load_or_build([face], "AB", cache, progress=False)
    assert len(built) == len(list(cache.iterdir())) == 6


# Command line


def test_atlas_command_is_reproducible(tmp_path, capsys):
    make_font(tmp_path / "fonts" / "boxes.ttf")
    make_font(tmp_path / "fonts" / "listed.ttf", "ABeeZee")
    charset = tmp_path / "charset.txt"
    charset.write_text("A\nB\na\n", encoding="utf-8")
    printed = []
    for name in ("one", "two"):
        arguments = ["atlas", str(tmp_path / f"{name}.safetensors"), "--fonts", str(tmp_path / "fonts")]
        arguments += ["--charset", str(charset), "--exclude", "dejavu serif", "--exclude", "DejaVu Sans Mono Bold"]
        assert command(arguments) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0].startswith(f"{tmp_path}/one.safetensors: 6 of 10 fonts.\n")
    assert "Skipped DejaVu Serif Italic: excluded.\n" in printed[0]
    assert "Skipped 1 faces: license unknown.\n" in printed[0]
    atlas = Atlas.load(tmp_path / "one.safetensors")
    assert printed[0].endswith(f"Digest: {atlas.digest}\n") and printed[1].endswith(f"Digest: {atlas.digest}\n")
    assert atlas.charset == "ABa"
    with (tmp_path / "one.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert [row["font"] for row in rows] == atlas.fonts
    assert [row["license"] for row in rows] == atlas.licenses
    boxes, sans = rows[0], rows[1]
    assert (boxes["font"], boxes["package"]) == ("ABeeZee Regular", "PyPI fontpkg-abeezee")
    assert boxes["sha256"] == hashlib.sha256((tmp_path / "fonts" / "listed.ttf").read_bytes()).hexdigest()
    assert sans["package"].startswith("PyPI matplotlib or ") and sans["file"] == "DejaVuSans.ttf"
    assert (tmp_path / "one.tsv").read_bytes() == (tmp_path / "two.tsv").read_bytes()


def test_atlas_command_includes_unknown_licenses_on_request(tmp_path, capsys):
    make_font(tmp_path / "fonts" / "boxes.ttf")
    charset = tmp_path / "charset.txt"
    charset.write_text("A\nB\n", encoding="utf-8")
    output = tmp_path / "atlas.safetensors"
    arguments = ["atlas", str(output), "--fonts", str(tmp_path / "fonts"), "--charset", str(charset)]
    assert command([*arguments, "--allow-unknown-license"]) == 0
    assert "10 of 10 fonts" in capsys.readouterr().out
    with output.with_suffix(".tsv").open(encoding="utf-8", newline="") as file:
        first = next(csv.DictReader(file, delimiter="\t"))
    assert (first["font"], first["license"], first["package"]) == ("Boxes Regular", "unknown", "")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["atlas.bin"], "atlas.bin: the file name of an atlas must end in .safetensors"),
        (["there.safetensors"], "there.safetensors already exists"),
        (["listed.safetensors"], "listed.tsv already exists"),
        (
            ["a.safetensors", "--fonts", "fonts", "--exclude", "Ubuntu"],
            "Cannot exclude 'Ubuntu': not among the 9 fonts found",
        ),
        (["a.safetensors", "--fonts", "absent"], "Font folder absent not found"),
    ],
)
def test_atlas_command_rejects_invalid_arguments(words, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("there.safetensors", "listed.tsv", "fonts/x"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert command(["atlas", *words]) == 1
    assert message in capsys.readouterr().err
