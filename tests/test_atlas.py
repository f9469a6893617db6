"""Fonts with their licences, and the atlas of their glyphs."""

import csv
import hashlib
import json
import os
import shutil
import time
from dataclasses import replace
from importlib.metadata import version
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
from svtrv2_hf.synthetic import fonts as fonts_module
from svtrv2_hf.synthetic import glyphs, shapes
from svtrv2_hf.synthetic.atlas import Atlas, build_atlas, load_or_build
from svtrv2_hf.synthetic.fonts import (
    FREE_LICENCES,
    LETTERS_AND_DIGITS,
    FontFace,
    classify_copyright,
    classify_licence,
    find_fonts,
    package_of,
)
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
from svtrv2_hf.synthetic.shapes import letter_likeness


CHARSET = "AVHOTagnoyjl08.,%@- "
DEJAVU = Path(find_spec("matplotlib").origin).parent / "mpl-data" / "fonts" / "ttf"
OFL = "This Font Software is licensed under the SIL Open Font License, Version 1.1."


@pytest.fixture(scope="module")
def floor():
    """The fonts that are always there."""
    return find_fonts(packages=False, system=False).fonts


@pytest.fixture(scope="module")
def atlas(floor):
    chosen = [
        font for font in floor if font.name in ("DejaVu Sans Regular", "DejaVu Serif Bold", "DejaVu Sans Mono Italic")
    ]
    return build_atlas(chosen, CHARSET, progress=False)


def box(left, bottom, right, top):
    pen = TTGlyphPen(None)
    for number, corner in enumerate(((left, bottom), (left, top), (right, top), (right, bottom))):
        (pen.lineTo if number else pen.moveTo)(corner)
    pen.closePath()
    return pen.glyph()


def make_font(path, family="Boxes", glyphs=(), licence=OFL, style="Regular", weight=400, features="", axes=()):
    """A font file: all letters and digits are boxes of 1000 by 400 units, an em being 1000; `glyphs` replace some."""
    shapes = {character: box(0, 0, 400, 1000) for character in LETTERS_AND_DIGITS} | dict(glyphs)
    names = {character: f"u{ord(character):04X}" for character in shapes}
    builder = FontBuilder(1000)
    builder.setupGlyphOrder([".notdef", *names.values()])
    builder.setupCharacterMap({ord(character): name for character, name in names.items()})
    builder.setupGlyf({".notdef": box(100, 0, 300, 500)} | {names[one]: shape for one, shape in shapes.items()})
    builder.setupHorizontalMetrics(dict.fromkeys([".notdef", *names.values()], (500, 0)))
    builder.setupHorizontalHeader(ascent=1000, descent=-300)
    builder.setupNameTable({"familyName": family, "styleName": style, "licenseDescription": licence})
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
    """What a folder gives, without the floor."""
    found = find_fonts([folder], packages=False, system=False, **options)
    return [font for font in found.fonts if not font.family.startswith("DejaVu")], found.left_out


# Fonts


def test_dejavu_is_always_there(floor):
    assert [font.name for font in floor] == [
        f"DejaVu {family} {style}"
        for family in ("Sans", "Sans Mono", "Serif")
        for style in ("Regular", "Bold", "Italic")
    ]
    assert {font.licence for font in floor} == {"Bitstream-Vera"}


def test_one_face_of_each_style_that_is_nearest_to_its_weight(tmp_path):
    for style, weight in (("Light", 300), ("Regular", 400), ("SemiBold", 600), ("Bold", 700), ("Black", 900)):
        make_font(tmp_path / f"{style}.ttf", style=style, weight=weight)
    make_font(tmp_path / "Italic.ttf", style="Italic")
    fonts, left_out = found_in(tmp_path)
    assert [(font.style, font.path.stem) for font in fonts] == [
        ("Regular", "Regular"),
        ("Bold", "Bold"),
        ("Italic", "Italic"),
    ]
    assert left_out["another of its style in the family"] >= 3


def test_a_variable_font_gives_a_regular_and_a_bold(tmp_path):
    make_font(tmp_path / "wide.ttf", "Wide", axes=[("wght", 100, 100, 900, "Weight"), ("wdth", 75, 75, 125, "Width")])
    make_font(tmp_path / "light.ttf", "Light", axes=[("wght", 200, 300, 500, "Weight")])
    fonts, _ = found_in(tmp_path)
    assert [(font.name, font.axes) for font in fonts] == [
        ("Light Regular", (400.0,)),
        ("Wide Regular", (400.0, 100.0)),
        ("Wide Bold", (700.0, 100.0)),
    ]


def test_only_free_fonts_and_the_others_are_counted(tmp_path):
    make_font(tmp_path / "a" / "stated.ttf", "Stated")
    make_font(tmp_path / "b" / "fonts" / "beside.ttf", "Beside", licence="")
    (tmp_path / "b" / "OFL.txt").write_text(f"Copyright 2026 Somebody\n{OFL}", encoding="utf-8")
    make_font(tmp_path / "c" / "files" / "packaged.ttf", "Packaged", licence="see my page")
    (tmp_path / "c" / "metadata.json").write_text(json.dumps({"license": "Apache-2.0"}), encoding="utf-8")
    make_font(tmp_path / "d" / "nothing.ttf", "Nothing", licence="")
    make_font(tmp_path / "e" / "gpl.ttf", "Copyleft", licence="GNU General Public License, with font exception")
    make_font(tmp_path / "f" / "demo.ttf", "Demo", licence="Free for personal use only.")
    fonts, left_out = found_in(tmp_path)
    assert [(font.family, font.licence) for font in fonts] == [
        ("Beside", "OFL-1.1"),
        ("Packaged", "Apache-2.0"),
        ("Stated", "OFL-1.1"),
    ]
    assert left_out["licence: unknown"] == left_out["licence: GPL"] == left_out["licence: restricted"] == 1
    assert len(found_in(tmp_path, free_only=False)[0]) == 6


@pytest.mark.parametrize(
    ("statement", "licence"),
    [
        (OFL, "OFL-1.1"),
        ("http://scripts.sil.org/OFL", "OFL-1.1"),
        ("This license allows copying; fonts must not be distributed under any other license. SIL OFL 1.1", "OFL-1.1"),
        ("Pick one: MIT and OFL licenses", "OFL-1.1"),
        ("GPL with font exception, or the SIL Open Font License", "GPL"),
        ("GPL-2+ with Font exception and OFL-1.1", "GPL"),
        ("Licensed under the Apache License, Version 2.0", "Apache-2.0"),
        ("Apache-2.0", "Apache-2.0"),
        ("Licensed for use with Apache OpenOffice only", "unknown"),
        ("Licensed for use with Apache OpenOffice only; no redistribution", "restricted"),
        ("DejaVu changes are in public domain. Bitstream Vera Fonts Copyright", "Bitstream-Vera"),
        ("Fonts are (c) Bitstream. DejaVu changes are in public domain.", "unknown"),
        ("Copyright (c) Bitstream Inc. All rights reserved. http://www.bitstream.com", "unknown"),
        (
            "Fonts are (c) Bitstream. Changes are under Creative Commons Attribution 3.0. Bitstream Vera license",
            "CC-BY",
        ),
        ("http://creativecommons.org/licenses/by/4.0/", "CC-BY"),
        ("CC-BY-4.0", "CC-BY"),
        ("Creative Commons Attribution-ShareAlike 4.0", "GPL"),
        ("http://creativecommons.org/licenses/by-nd/4.0/", "restricted"),
        ("Creative Commons Attribution-NoDerivs 4.0", "restricted"),
        ("MIT License", "MIT"),
        ("BSD-3-clause", "BSD"),
        ("This font is in the public domain.", "public-domain"),
        ("This font is not in the public domain.", "unknown"),
        ("Free for non-commercial use; MIT License for the scripts", "restricted"),
        ("GPL-2+", "GPL"),
        ("CC-BY-SA-4.0", "GPL"),
        ("All rights reserved.", "unknown"),
        ("", "unknown"),
    ],
)
def test_licences_are_told_from_what_is_stated(statement, licence):
    assert classify_licence(statement) == licence


def test_attribution_is_a_class_of_its_own_that_is_not_taken():
    assert "CC-BY" not in FREE_LICENCES


def test_a_debian_copyright_file_speaks_of_the_font_not_of_the_packaging():
    header = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\n"
    font = "Files: *\nCopyright: 2026 Somebody\nLicense: OFL-1.1\n text\n\n"
    packaging = "Files: debian/*\nCopyright: 2026 Another\nLicense: GPL-2+\n\nLicense: GPL-2+\n text\n"
    assert classify_copyright(header + font + packaging) == "OFL-1.1"
    assert classify_copyright(header + font.replace("OFL-1.1", "MIT") + font + packaging) == "OFL-1.1", "the strictest"
    assert classify_copyright(header + font + font.replace("OFL-1.1", "GPL-3") + packaging) == "unknown"
    assert classify_copyright(header + font.replace("OFL-1.1", "GPL-3") + packaging) == "GPL"
    assert classify_copyright(f"It was packaged from somewhere.\n{OFL}") == "unknown"


def test_no_symbols_no_other_scripts_no_damaged_files(tmp_path):
    make_font(tmp_path / "dings.ttf", "Some Dingbats")
    face = make_font(tmp_path / "good.ttf", "Good")
    (tmp_path / "short.ttf").write_bytes(face.path.read_bytes()[:300])
    (tmp_path / "empty.otf").write_bytes(b"")
    shutil.copy(DEJAVU / "DejaVuSansDisplay.ttf", tmp_path)
    fonts, left_out = found_in(tmp_path)
    assert [font.family for font in fonts] == ["Good"]
    assert left_out["unreadable"] == 2
    assert left_out["no text font by its name"] == 1
    assert left_out["lacks Latin letters or digits"] >= 1
    with pytest.raises(FileNotFoundError, match="absent is no folder with fonts"):
        find_fonts([tmp_path / "absent"])


def test_folders_of_the_user_come_first(tmp_path):
    shutil.copy(DEJAVU / "DejaVuSans.ttf", tmp_path)
    found = find_fonts([tmp_path], packages=False, system=False)
    assert [font.path.parent for font in found.fonts if font.family == "DejaVu Sans"] == [tmp_path]
    assert found.left_out["family found before"] >= 3


# Fields


def test_shapes_types_and_names(atlas):
    assert atlas.fonts == ["DejaVu Sans Regular", "DejaVu Sans Mono Italic", "DejaVu Serif Bold"]
    assert atlas.licences == ["Bitstream-Vera"] * 3
    assert (atlas.fields.shape, atlas.fields.dtype) == ((3, 20, CELL, CELL), torch.uint8)
    assert (atlas.advances.shape, atlas.advances.dtype) == ((3, 20), torch.float32)
    assert (atlas.kerning.shape, atlas.kerning.dtype) == ((3, 20, 20), torch.int8)
    assert atlas.drawable.all()
    assert atlas.has_lowercase.all()
    assert atlas.left_out == {}
    assert not atlas.fields[:, CHARSET.index(" ")].any()
    assert (atlas.advances > 3).all()
    mono = atlas.advances[1]
    assert mono.max() - mono.min() < 0.01


def test_distances_of_a_box(tmp_path):
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


def test_fields_are_exact_distances():
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
def test_the_outline_is_where_pillow_draws_it(atlas, character):
    # Drawn large and averaged, since at the size itself hinting would move the outline.
    large = 16
    probe = ImageFont.truetype(DEJAVU / "DejaVuSans.ttf", 1000, layout_engine=ImageFont.Layout.BASIC)
    size = 1000 * CAP_HEIGHT / -probe.getbbox("H", anchor="ls")[1]
    font = ImageFont.truetype(DEJAVU / "DejaVuSans.ttf", size * large, layout_engine=ImageFont.Layout.BASIC)
    drawn = Image.new("L", (CELL * large, CELL * large))
    ImageDraw.Draw(drawn).text((ORIGIN * large, BASELINE * large), character, fill=255, font=font, anchor="ls")
    expected = np.asarray(drawn.reduce(large)) > 127
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
    # One pair by glyph, the others by class; a class rule must not be added to the pair's own.
    features = """
        languagesystem DFLT dflt; languagesystem latn dflt;
        feature kern { pos u0041 u0056 -80; pos [u0041 u0042] [u0056 u0057] -40; pos u0048 u0048 8; } kern;
    """
    face = make_font(tmp_path / "kerned.ttf", features=features)
    # An em is 25 pixels: 40 units are one.
    kerning = build_atlas([face], "ABHVW", progress=False).kerning[0]
    assert kerning.tolist() == [[0, 0, 0, -8, -4], [0, 0, 0, -4, -4], [0, 0, 1, 0, 0], [0] * 5, [0] * 5]


def test_what_a_font_lacks_is_not_drawable(tmp_path):
    glyphs = {
        "W": box(0, 0, 1900, 1000),  # as wide as the cell
        "Q": box(0, -800, 400, 1000),  # below it
        "M": box(100, 0, 300, 500),  # the sign for what is missing
        "x": TTGlyphPen(None).glyph(),  # blank
        " ": TTGlyphPen(None).glyph(),
        "N": box(0, 0, (CELL - ORIGIN - MARGIN) * 40, 1000),  # fits exactly
    }
    face = make_font(tmp_path / "some.ttf", glyphs=glyphs)
    charset = "AWQMx ?字N"
    atlas = build_atlas([face], charset, progress=False)
    assert dict(zip(charset, atlas.drawable[0].tolist(), strict=True)) == dict(
        zip(charset, (True, False, False, False, False, True, False, False, True), strict=True)
    )
    assert not atlas.fields[0, [charset.index("W"), charset.index(" ")]].any()


def test_all_of_ascii_is_drawable_in_dejavu(floor):
    regular = next(font for font in floor if font.name == "DejaVu Sans Regular")
    assert build_atlas([regular], ENGLISH_94 + " ", progress=False).drawable.all()


def test_capitals_in_place_of_small_letters_are_told(tmp_path):
    shapes = {one: box(0, 0, 100 + 20 * number, 1000) for number, one in enumerate("ABDEGHQRT")}
    small = {one.lower(): box(0, 0, 50 + 10 * number, 500) for number, one in enumerate("ABDEGHQRT")}
    face = make_font(tmp_path / "capitals.ttf", glyphs=shapes | small)
    assert build_atlas([face], "ABDEGHQRTabdeghqrt", progress=False).has_lowercase.tolist() == [False]


# Which fonts to take


def test_fonts_whose_letters_are_others_are_left_out(floor):
    charset = "ABEFGHKMRSTXabeghkmr"
    fields = build_atlas(floor, charset, progress=False).fields
    shuffled = fields[:1].roll(5, dims=1)
    alike = fields[:1, :1].expand(1, len(charset), CELL, CELL)
    likeness = letter_likeness(torch.cat([fields, shuffled, alike]), charset, list(range(11)))
    assert likeness[:9].min() > 0.9
    assert likeness[9:].max() < 0.2
    assert letter_likeness(fields[:, :5], charset[:5], list(range(9))).tolist() == [1.0] * 9


def test_an_atlas_of_many_families_leaves_them_out(floor, monkeypatch, tmp_path, caplog):
    monkeypatch.setattr(atlas_module, "LEAST_FAMILIES", 5)
    families = [replace(font, family=f"Family {number}") for number, font in enumerate(floor[:5])]
    boxes = make_font(tmp_path / "boxes.ttf")
    atlas = build_atlas([*families, boxes], "ABEGHKMRSTXabeghkm", progress=False)
    assert atlas.fonts == [font.name for font in families]
    assert list(atlas.left_out) == ["Boxes Regular"]
    assert "letters and digits look like those of other fonts" in caplog.text


def test_a_font_that_cannot_be_drawn_is_left_out(floor, tmp_path):
    broken = FontFace(tmp_path / "broken.ttf", "Broken", "Regular", "OFL-1.1")
    broken.path.write_bytes(b"\0\1\0\0 this is no font")
    atlas = build_atlas([floor[0], broken], "AB", progress=False)
    assert atlas.fonts == ["DejaVu Sans Regular"]
    assert list(atlas.left_out) == ["Broken Regular"]
    with pytest.raises(ValueError, match=r"None of 1 fonts can be drawn: .*Broken Regular"):
        build_atlas([broken], "AB", progress=False)
    with pytest.raises(ValueError, match="charset is empty"):
        build_atlas(floor, "", progress=False)


# Kept on disk


def assert_equal(one, other):
    for name, value in vars(one).items():
        assert (
            torch.equal(value, getattr(other, name))
            if isinstance(value, torch.Tensor)
            else value == getattr(other, name)
        )


def test_an_atlas_is_saved_and_loaded(atlas, tmp_path):
    path = tmp_path / "folder" / "atlas.safetensors"
    atlas.save(path)
    assert_equal(Atlas.load(path), atlas)
    assert [file.name for file in path.parent.iterdir()] == ["atlas.safetensors"]
    assert_equal(atlas.to("cpu"), atlas)


def test_the_digest_is_of_all_that_is_drawn(atlas, tmp_path):
    atlas.save(tmp_path / "atlas.safetensors")
    with safe_open(tmp_path / "atlas.safetensors", framework="pt") as file:
        assert json.loads(file.metadata()["atlas"])["digest"] == atlas.digest
    assert Atlas.load(tmp_path / "atlas.safetensors").digest == atlas.digest
    assert atlas.to("cpu").digest == atlas.select([0, 1, 2]).digest == atlas.digest
    names = ("fields", "advances", "kerning", "drawable", "has_lowercase")
    changed = [replace(atlas, **{name: getattr(atlas, name).clone().fill_(0)}) for name in names]
    assert len({atlas.digest, atlas.select([1, 0, 2]).digest, *(one.digest for one in changed)}) == 7
    by_hand = hashlib.sha256(b"".join(getattr(atlas, name).numpy().tobytes() for name in sorted(names)))
    assert atlas.digest == by_hand.hexdigest()


def test_small_letters_that_look_like_capitals_are_not_legible(atlas):
    capitals = replace(atlas, has_lowercase=torch.tensor([True, False, True]))
    small = torch.tensor([character.islower() for character in CHARSET])
    assert capitals.legible[[0, 2]].all()
    assert torch.equal(capitals.legible[1], ~small)


def test_fonts_are_selected(atlas):
    last = atlas.select(torch.tensor([False, False, True]))
    assert last.fonts == ["DejaVu Serif Bold"]
    assert last.charset == CHARSET
    assert torch.equal(last.kerning, atlas.kerning[2:])
    assert_equal(atlas.select([2]), last)
    assert atlas.select([2, 0]).fonts == ["DejaVu Serif Bold", "DejaVu Sans Regular"]


def test_what_is_no_atlas_is_refused(atlas, tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"no atlas .*absent"):
        Atlas.load(tmp_path / "absent")
    (tmp_path / "text").write_text("text" * 9)
    with pytest.raises(ValueError, match="text is no atlas: "):
        Atlas.load(tmp_path / "text")
    save_file({"weight": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"model\.safetensors is no atlas of this version"):
        Atlas.load(tmp_path / "model.safetensors")
    atlas.save(tmp_path / "old.safetensors")
    monkeypatch.setattr(atlas_module, "FORMAT", atlas_module.FORMAT + 1)
    with pytest.raises(ValueError, match=r"old\.safetensors is no atlas of this version"):
        Atlas.load(tmp_path / "old.safetensors")


def test_the_cache_is_hit_for_the_same_and_missed_for_anything_else(tmp_path, monkeypatch):
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
    assert len(built) == 1, "neither dates nor places matter"

    load_or_build([face], "BA", cache, progress=False)
    load_or_build([replace(face, licence="MIT")], "AB", cache, progress=False)
    load_or_build([face, moved], "AB", cache, progress=False)
    assert len(built) == 4
    make_font(face.path, glyphs={"A": box(0, 0, 300, 1000)})
    assert not torch.equal(load_or_build([face], "AB", cache, progress=False).fields, first.fields)
    rules = [
        (glyphs, "MARGIN", MARGIN + 1),
        (glyphs, "FINER", 4),
        (shapes, "STRETCH", 0.2),
        (shapes, "LOOK_ALIKES", {}),
        (atlas_module, "LEAST_FAMILIES", 9),
        (atlas_module, "FORMAT", 99),
        (atlas_module.features, "version", lambda _: "another FreeType"),
    ]
    for module, name, value in rules:
        monkeypatch.setattr(module, name, value)
        load_or_build([face], "AB", cache, progress=False)
    assert len(built) == len(list(cache.iterdir())) == 5 + len(rules)


# By the command line


def test_an_atlas_can_be_built_again(tmp_path, capsys):
    make_font(tmp_path / "fonts" / "boxes.ttf")
    make_font(tmp_path / "fonts" / "gpl.ttf", "Copyleft", licence="GPL-2+")
    charset = tmp_path / "charset.txt"
    charset.write_text("A\nB\na\n", encoding="utf-8")
    told = []
    for name in ("one", "two"):
        words = [
            "atlas",
            str(tmp_path / f"{name}.safetensors"),
            "--fonts",
            str(tmp_path / "fonts"),
            "--charset",
            str(charset),
        ]
        assert command([*words, "--leave_out", "dejavu serif", "DejaVu Sans Mono Bold"]) == 0
        told.append(capsys.readouterr().out)
    assert told[0].startswith(f"{tmp_path}/one.safetensors: 6 of 10 fonts.\n")
    assert "Left out DejaVu Serif Italic: not wanted.\n" in told[0]
    assert "Left out 1 faces: licence: GPL.\n" in told[0]
    atlas = Atlas.load(tmp_path / "one.safetensors")
    assert told[0].endswith(f"Digest: {atlas.digest}\n") and told[1].endswith(f"Digest: {atlas.digest}\n")
    assert atlas.charset == "ABa"
    with (tmp_path / "one.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert [row["font"] for row in rows] == atlas.fonts
    assert [row["licence"] for row in rows] == atlas.licences
    boxes, sans = rows[0], rows[1]
    assert (boxes["font"], boxes["package"], boxes["file"]) == ("Boxes Regular", "", "boxes.ttf")
    assert boxes["sha256"] == hashlib.sha256((tmp_path / "fonts" / "boxes.ttf").read_bytes()).hexdigest()
    assert (sans["package"], sans["file"]) == (f"PyPI matplotlib {version('matplotlib')}", "DejaVuSans.ttf")
    assert (tmp_path / "one.tsv").read_bytes() == (tmp_path / "two.tsv").read_bytes()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["atlas.bin"], "atlas.bin must end in .safetensors"),
        (["there.safetensors"], "there.safetensors is there already"),
        (["listed.safetensors"], "listed.tsv is there already"),
        (
            ["a.safetensors", "--fonts", "fonts", "--leave_out", "Ubuntu"],
            "There is no font 'Ubuntu' to leave out among the 9",
        ),
        (["a.safetensors", "--fonts", "absent"], "absent is no folder with fonts"),
    ],
)
def test_what_no_atlas_is_built_of(words, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("there.safetensors", "listed.tsv", "fonts/x"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert command(["atlas", *words]) == 1
    assert message in capsys.readouterr().err


def test_packages_of_fonts(tmp_path, monkeypatch):
    site = tmp_path / "site-packages"
    (site / "fontpkg_some-1.3.dist-info").mkdir(parents=True)
    (site / "fontpkg_some-1.3.dist-info" / "METADATA").write_text(
        "Name: fontpkg-some\nVersion: 1.3\n", encoding="utf-8"
    )
    assert package_of(site / "fontpkg_some" / "files" / "Some.ttf") == "PyPI fontpkg-some 1.3"
    assert package_of(site / "other" / "Some.ttf") == package_of(tmp_path / "Some.ttf") == ""
    monkeypatch.setattr(fonts_module, "_debian_packages", lambda: {"/usr/share/fonts/Some.ttf": "fonts-some"})
    monkeypatch.setattr(fonts_module, "_debian_versions", lambda: {"fonts-some": "37-1"})
    assert package_of(Path("/usr/share/fonts/Some.ttf")) == "Debian fonts-some 37-1"
