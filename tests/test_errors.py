"""Error analysis: kinds of errors, confusions, calibration, the page and the figure."""

import json
import random
from html.parser import HTMLParser

import pytest
from conftest import draw, encoded
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from rapidfuzz.distance import Levenshtein

from svtrv2_hf.data.sample import Sample
from svtrv2_hf.evaluation.error_figure import COLUMNS, SHOWN, write_figure
from svtrv2_hf.evaluation.error_page import LARGEST_IMAGE, write_page
from svtrv2_hf.evaluation.errors import UNREADABLE_NAMED, ErrorKind, Errors, align, kind_of, visible
from svtrv2_hf.evaluation.metrics import normalize_text
from svtrv2_hf.evaluation.prediction import Prediction


IMAGE = encoded(draw("word"))


def prediction(label, text, score=0.9, name="one.png", image=IMAGE):
    characters = [
        {"text": character, "score": score, "start": 10.0 * place, "end": 10.0 * place + 10}
        for place, character in enumerate(text)
    ]
    return Prediction(Sample(image, label, name), text, score if text else 0.0, characters, draw("word").size)


def unreadable(name, error="it is in no image format that Pillow knows"):
    return Prediction(Sample(b"junk", "lost", name), "", error=error)


def collect(predictions, protocol="alphanumeric", set_name="words", **options):
    errors = Errors(**options)
    for one in predictions:
        errors.add(set_name, one, protocol)
    return errors


@pytest.mark.parametrize(
    ("label", "text", "protocol", "kind"),
    [
        ("Hello", "hel-lo!", "alphanumeric", None),
        ("Hello", "hel-lo!", "no_spaces", ErrorKind.SEVERAL_WRONG),
        ("hello", "", "alphanumeric", ErrorKind.EMPTY_PREDICTION),
        ("hello", "-?", "alphanumeric", ErrorKind.EMPTY_PREDICTION),  # nothing that is compared
        ("hello", "hallo", "alphanumeric", ErrorKind.ONE_WRONG),
        ("a", "b", "alphanumeric", ErrorKind.ONE_WRONG),  # although nothing agrees
        ("hello", "helo", "alphanumeric", ErrorKind.ONE_MISSING),
        ("hello", "he110", "alphanumeric", ErrorKind.ANOTHER_TEXT),  # 3 of 5 differ
        ("hello", "hellos", "alphanumeric", ErrorKind.ONE_TOO_MANY),
        ("hello", "ehllo", "alphanumeric", ErrorKind.SEVERAL_WRONG),  # 2 of 5 differ
        ("abcd", "abxy", "alphanumeric", ErrorKind.SEVERAL_WRONG),  # exactly half
        ("abcd", "axyz", "alphanumeric", ErrorKind.ANOTHER_TEXT),
        ("京A1", "A1", "no_spaces", ErrorKind.ONE_MISSING),
        ("京A1", "A1", "alphanumeric", None),
        ("!", "", "alphanumeric", None),
        ("!", "a", "alphanumeric", ErrorKind.ONE_TOO_MANY),
    ],
)
def test_error_is_of_the_first_kind_that_fits(label, text, protocol, kind):
    assert kind_of(prediction(label, text), protocol) is kind


def test_unreadable_image_is_an_error_with_any_label():
    lost = Prediction(Sample(b"", "", "one.png"), "", error="empty file")
    assert kind_of(lost, "alphanumeric") is ErrorKind.UNREADABLE


def test_counts_by_set_and_case():
    errors = collect([prediction("Hello", "hello"), prediction("Hello", "Hello!"), prediction("Hello", "Hallo")])
    errors.add("others", prediction("京A", "京a"), "no_spaces")
    errors.add("others", unreadable("bad.png"), "no_spaces")
    summary = errors.summary()
    assert (summary["samples"], summary["errors"]) == (5, 2)
    assert {kind: n for kind, n in summary["kinds"]["words"].items() if n} == {"one_wrong": 1}
    assert {kind: n for kind, n in summary["kinds"]["others"].items() if n} == {"unreadable": 1}
    assert summary["wrong_case"] == {"words": 1, "others": 1}
    assert (errors.sets["words"].correct, errors.sets["words"].wrong) == (2, 1)
    assert errors.sets["words"].cer == 1 / 15
    assert (errors.total.edits, errors.total.characters) == (1 + len("lost"), 15 + 2 + len("lost"))


def test_confusions_are_counted_from_edit_operations():
    errors = collect(
        [
            prediction("Boot", "b0ot"),  # o -> 0
            prediction("book", "bo0k"),  # o -> 0
            prediction("clock", "ciock"),  # l -> i
            prediction("hello", "helo"),  # missing l
            prediction("word", "words"),  # extra s
            prediction("right", "right"),
            prediction("lost", ""),  # not counted: nothing was recognized
            prediction("apple", "grunt"),  # not counted: another text
            unreadable("bad.png"),
        ]
    )
    assert errors.confusions == {("o", "0"): 2, ("l", "i"): 1, ("l", None): 1, (None, "s"): 1}
    assert errors.characters["o"] == 2 + 2 + 1 + 1 + 1  # of boot, book, clock, hello and word
    assert errors.characters["p"] == 0
    assert errors.summary()["confusions"] == [["o", "0", 2], [None, "s", 1], ["l", None, 1], ["l", "i", 1]]


def test_calibration_by_bins():
    """Two predictions at 0.92, one of them correct; one correct at 1, one wrong at 0.5, and an empty one."""
    errors = collect(
        [
            prediction("a", "a", 0.92),
            prediction("a", "b", 0.92),
            prediction("a", "a", 1.0),
            prediction("a", "b", 0.5),
            prediction("a", ""),
            unreadable("bad.png"),  # has no score
        ]
    )
    calibration = errors.summary()["calibration"]
    filled = [tuple(one.values()) for one in calibration["bins"] if one["samples"]]
    assert filled == [(0, 0.05, 1, 0, 0), (0.5, 0.55, 1, 0, 0.5), (0.9, 0.95, 2, 1, 0.92), (0.95, 1, 1, 1, 1)]
    assert sum(one["samples"] for one in calibration["bins"]) == 5
    assert calibration["expected_calibration_error"] == pytest.approx((0 + 0.5 + 2 * (0.92 - 0.5) + 0) / 5)


def test_scores_outside_0_to_1_raise():
    with pytest.raises(ValueError, match=r"words, one\.png: the score nan"):
        collect([prediction("a", "b", float("nan"))])


def test_set_has_one_protocol():
    errors = collect([prediction("a", "b")])
    with pytest.raises(ValueError, match="words already has predictions under"):
        errors.add("words", prediction("a", "b"), "no_spaces")


def wrong_predictions(number):
    """Errors that differ only in their images; some are equally confident."""
    return [prediction("word", "wart", (n % 40) / 40, image=b"%d" % n) for n in range(number)]


def test_only_the_mistakes_to_be_shown_are_kept():
    errors = collect([*wrong_predictions(500), prediction("word", "word", 0.99)], kept=5)
    kept = errors.sets["words"]
    assert len(kept.worst) == len(kept.typical) == 5
    assert [one.prediction.score for one in kept.worst] == [39 / 40] * 5
    assert len({one.prediction.sample.image for one in kept.typical}) == 5
    assert len(kept.shown) <= 10
    assert set(kept.shown) == {*kept.worst, *kept.typical}


def test_kept_mistakes_depend_on_the_seed_but_not_on_the_order():
    def images(predictions, seed):
        kept = collect(predictions, kept=5, seed=seed).sets["words"]
        return [[one.prediction.sample.image for one in mistakes] for mistakes in (kept.worst, kept.typical)]

    predictions = wrong_predictions(300)
    mixed = random.Random(0).sample(predictions, len(predictions))
    assert images(predictions, 1) == images(mixed, 1) == images(predictions[::-1], 1)
    assert images(predictions, 1) != images(predictions, 2)
    assert collect(predictions).summary() == collect(mixed).summary()


def test_typical_mistakes_are_sampled_uniformly():
    """Over many seeds every mistake is sampled about as often: 10 of 40, 100 times."""
    times = [0] * 40
    for seed in range(100):
        for one in collect(wrong_predictions(40), kept=10, seed=seed).sets["words"].typical:
            times[int(one.prediction.sample.image)] += 1
    assert sum(times) == 1000
    assert 25 - 4 * 4.3 < min(times) <= max(times) < 25 + 4 * 4.3  # four standard deviations


def test_equal_mistakes_are_all_kept():
    errors = collect([prediction("word", "ward")] * 3, kept=2)
    assert len(errors.sets["words"].worst) == 2


def aligned(label, text, protocol="alphanumeric"):
    columns = align(prediction(label, text), protocol)
    return (
        "".join(column.true or "_" for column in columns),
        "".join(column.predicted or "_" for column in columns),
        "".join("x" if column.wrong else " " if column.compared else "." for column in columns),
    )


@pytest.mark.parametrize(
    ("label", "text", "expected"),
    [
        ("Book", "b0ok", ("Book", "b0ok", " x  ")),
        ("hello", "helo", ("hello", "hel_o", "   x ")),
        ("it's", "its!", ("it's_", "it_s!", "  . .")),
        ("a-b", "a-xb", ("a-_b", "a-xb", " .x ")),
        ("", "a", ("_", "a", "x")),
        ("a", "", ("a", "_", "x")),
        ("--", "", ("--", "__", "..")),
    ],
)
def test_labels_and_predictions_are_aligned(label, text, expected):
    assert aligned(label, text) == expected


def test_letter_with_two_lower_case_characters_is_aligned_as_one():
    assert aligned("\u0130x", "\u0130y", "no_spaces") == ("\u0130x", "\u0130y", " x")


@settings(max_examples=200, deadline=None)
@given(
    st.text(st.sampled_from("abAB1-' \u00e9\u4eac"), max_size=8),
    st.text(st.sampled_from("abAB1-' \u00e9\u4eac"), max_size=8),
    st.sampled_from(["alphanumeric", "no_spaces"]),
)
def test_alignment_has_all_characters_and_as_many_errors_as_edits(label, text, protocol):
    columns = align(prediction(label, text, 0.25), protocol)
    assert "".join(column.true or "" for column in columns) == label
    assert "".join(column.predicted or "" for column in columns) == text
    edits = Levenshtein.distance(normalize_text(label, protocol), normalize_text(text, protocol))
    assert sum(column.wrong for column in columns) == edits
    assert all((column.score == 0.25) == (column.predicted is not None) for column in columns)


@pytest.mark.parametrize(
    ("character", "shown"),
    [("a", "a"), (" ", "\u2423"), ("\u00a0", "\u2423"), ("\u0301", "\u25cc\u0301"), ("\x00", "U+0000")],
)
def test_every_character_has_a_visible_form(character, shown):
    assert visible(character) == shown


class Walk(HTMLParser):
    """Records the elements, images, addresses and text of a page, and checks that elements are closed in order."""

    VOID = {"meta", "img", "wbr"}

    def __init__(self):
        super().__init__()
        self.open, self.met, self.images, self.addresses, self.alternatives, self.text = [], [], [], [], [], ""

    def handle_starttag(self, tag, attributes):
        self.met.append(tag)
        self.addresses += [value for name, value in attributes if name in ("src", "href", "xlink:href", "action")]
        if tag == "img":
            self.images.append(dict(attributes)["src"])
            self.alternatives.append(dict(attributes)["alt"])
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.met.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data):
        self.text += data if not {"script", "style"} & set(self.open) else ""


def walk(errors, tmp_path, title="Errors of a model"):
    path = tmp_path / "errors.html"
    write_page(errors, path, title)
    page = Walk()
    page.feed(path.read_text(encoding="utf-8"))
    page.close()
    assert page.open == []
    return page


NASTY = "</script><script>alert('1 & \"2\"')"


def test_page_is_complete_and_self_contained(tmp_path):
    errors = collect(
        [*(prediction("word", "ward", n / 50, f"{n}.png") for n in range(50)), prediction("word", "word")]
    )
    errors.add("lines & <b>", prediction("京A 12", "京B  1"), "no_spaces")
    page = walk(errors, tmp_path)
    content = (tmp_path / "errors.html").read_text(encoding="utf-8")
    assert "http://" not in content and "https://" not in content and "@import" not in content
    assert page.addresses == page.images  # no other resource
    assert all(image.startswith("data:image/webp;base64,") for image in page.images)
    kept = [one for one_set in errors.sets.values() for one in one_set.shown]
    assert len(page.images) == len(kept) > 25
    assert page.met.count("svg") == 1
    assert "lines & <b>" in page.text
    assert len(content) < 5000 * len(kept) + 30_000


def test_page_lists_replaced_missing_and_extra_characters(tmp_path):
    pairs = [("boot", "b0ot"), ("boot", "b0ot"), ("hello", "helo"), ("word", "words"), ("ooo", "ooo o")]
    walk(collect([prediction(label, text, name=str(n)) for n, (label, text) in enumerate(pairs)]), tmp_path)
    content = (tmp_path / "errors.html").read_text(encoding="utf-8")
    assert 'title="o predicted as 0: 2">2<' in content
    assert 'title="nothing predicted as o: 1">1<' in content
    assert all(f"<caption>{heading}</caption>" in content for heading in ("Replaced", "Missing", "Extra"))


def test_page_has_the_character_error_rate_and_wrong_case_unless_all_is_exact(tmp_path):
    for protocol, edits in (("exact", "2 edits"), ("no_spaces", "1 edit")):
        page = walk(collect([prediction("Word", "word"), prediction("ab", "abc")], protocol), tmp_path)
        assert "character error rate" in page.text and edits in page.text
        assert ("wrong case" in page.text) == (protocol != "exact")


def test_labels_and_names_are_escaped(tmp_path):
    errors = collect([prediction(NASTY, f"{NASTY}1", name=NASTY), unreadable(NASTY, NASTY)], set_name=NASTY)
    page = walk(errors, tmp_path, NASTY)
    assert page.met.count("script") == 1  # the page's own
    assert "b" in page.met and "alert" not in page.met
    assert page.text.count(NASTY) > 5
    assert NASTY in page.alternatives[0]


def test_texts_in_any_characters_can_be_shown(tmp_path):
    texts = [
        "\x00\x07\n",
        "\udc80\ud800",
        "\u05e9\u05dc\u05d5\u05dd",
        "e\u0301\u0302",
        "\U0001f600\ufe0f",
        "\u200b\ufeff\u202e",
        "$x^$",
    ]
    errors = collect([prediction(text, f"{text}a\u4eac", name=text) for text in texts], "no_spaces")
    assert len(walk(errors, tmp_path, "".join(texts)).images) == len(texts)
    write_figure(errors, tmp_path / "errors.png", "".join(texts))
    assert Image.open(tmp_path / "errors.png").size[0] == 1600
    json.dumps(errors.summary())


def test_images_on_the_page_are_small(tmp_path):
    large = encoded(Image.effect_noise((2000, 1500), 50))
    path = tmp_path / "errors.html"
    write_page(collect([prediction("word", "ward", image=large)]), path, "One")
    assert path.stat().st_size < 60_000 < len(large)
    assert LARGEST_IMAGE[0] < 2000


def test_unreadable_images_are_listed_with_their_errors(tmp_path):
    errors = collect([unreadable("b/2.png", "it is empty"), unreadable("a/1.png", "truncated")])
    assert errors.sets["words"].unreadable == [("a/1.png", "truncated"), ("b/2.png", "it is empty")]
    text = walk(errors, tmp_path).text
    assert text.index("a/1.png") < text.index("truncated") < text.index("b/2.png") < text.index("it is empty")
    write_figure(errors, tmp_path / "errors.png", "No image to show")
    many = collect([unreadable(f"{n:05}.png") for n in range(UNREADABLE_NAMED + 23)])
    assert len(many.sets["words"].unreadable) == UNREADABLE_NAMED
    assert "and 23 more" in walk(many, tmp_path).text


@pytest.mark.parametrize(
    "predictions", [[], [prediction("word", "WORD")], [unreadable("bad.png")], [prediction("word", "")]]
)
def test_page_of_at_most_one_prediction_is_complete(tmp_path, predictions):
    errors = collect(predictions)
    json.dumps(errors.summary(), allow_nan=False)
    assert len(walk(errors, tmp_path).images) == sum(bool(one.size) for one in predictions if one.text != "WORD")
    write_figure(errors, tmp_path / "errors.png", "Little")
    assert Image.open(tmp_path / "errors.png").size == (1600, 260)


def colors(path):
    return {color: count for count, color in Image.open(path).convert("RGB").getcolors(1 << 24)}


def test_figure_shows_the_worst_errors_of_every_set(tmp_path):
    errors = Errors(kept=SHOWN)
    red, blue = (encoded(Image.new("RGB", (60, 20), color)) for color in ("red", "blue"))
    for number in range(SHOWN):
        errors.add("sure", prediction("word", "wort", 0.9, f"{number}.png", red), "alphanumeric")
        errors.add("unsure", prediction("word", "wort", 0.1, f"{number}.png", blue), "alphanumeric")
    path = tmp_path / "errors.png"
    write_figure(errors, path, "Two sets")
    pixels = colors(path)
    assert pixels[255, 0, 0] == pytest.approx(pixels[0, 0, 255], rel=0.05)  # the same number of either set
    write_figure(collect([prediction("word", "wort", image=red)]), tmp_path / "one.png", "One error")
    in_one_cell = colors(tmp_path / "one.png")[255, 0, 0]
    assert in_one_cell > 10_000
    assert 0.3 < pixels[255, 0, 0] / (SHOWN / 2 * in_one_cell) < 1.5
    assert Image.open(tmp_path / "one.png").height < Image.open(path).height / (SHOWN // COLUMNS) * 2
