"""The page of errors in headless Chromium. Off by default: pytest -m browser."""

import pytest
from conftest import draw, encoded

from svtrv2_hf.data.sample import Sample
from svtrv2_hf.evaluation.error_page import write_page
from svtrv2_hf.evaluation.errors import Errors
from svtrv2_hf.evaluation.prediction import Prediction


pytestmark = pytest.mark.browser
IMAGE = draw("word")


def add(errors, set_name, label, text, score, protocol="alphanumeric"):
    characters = [{"text": c, "score": score, "start": 0.0, "end": 1.0} for c in text]
    sample = Sample(encoded(IMAGE), label, f"folder/{label}_{score}.png")
    errors.add(set_name, Prediction(sample, text, score, characters, IMAGE.size), protocol)


@pytest.fixture(scope="module")
def errors():
    """Two sets with more errors than the page shows at once."""
    errors = Errors(kept=40)
    for number in range(200):
        add(errors, "words", f"word{number}", f"ward{number}", (number + 1) / 250)
    add(errors, "words", "right", "right", 0.9)
    add(errors, "plates", "\u4eacA 12345", "\u4eacB 12345", 0.7, "no_spaces")
    return errors


@pytest.fixture(params=[390, 1240], ids=["phone", "desk"])
def page(request, chromium, errors, tmp_path):
    """The page, opened as a file; it must not request anything else, and must not raise errors."""
    write_page(errors, tmp_path / "errors.html", "Errors of a model")
    page = chromium.new_page(viewport={"width": request.param, "height": 844})
    requests, failures = [], []
    page.on("request", lambda one: requests.append(one.url))
    page.on("pageerror", lambda error: failures.append(str(error)))
    page.goto((tmp_path / "errors.html").as_uri())
    yield page
    page.close()
    assert [url for url in requests if not url.startswith("data:")] == [(tmp_path / "errors.html").as_uri()]
    assert not failures


def cards(page):
    return page.locator("article.card")


def test_errors_are_shown_page_by_page_with_their_images(page, errors):
    kept = sum(len(one.shown) for one in errors.sets.values())
    assert kept > 60 == cards(page).count()
    assert page.inner_text(".controls output") == f"60 of {kept} shown"
    page.click("button.more")
    assert cards(page).count() == kept
    assert page.locator("button.more").is_hidden()
    widths = page.eval_on_selector_all(
        ".card img",
        "images => Promise.all(images.map(async image => {await image.decode(); return image.naturalWidth}))",
    )
    assert widths == [IMAGE.width] * kept


def test_errors_can_be_filtered_and_sorted(page, errors):
    page.select_option("select[name=choice]", "typical")
    assert cards(page).count() == len(errors.sets["words"].typical) + 1
    page.select_option("select[name=order]", "score")
    scores = page.eval_on_selector_all(".card", "cards => cards.map(card => +card.dataset.score)")
    assert scores == sorted(scores, reverse=True) and len(set(scores)) > 30
    page.select_option("select[name=choice]", "worst")
    page.select_option("select[name=set]", label="plates (1)")
    assert page.locator(".card .wrong").count() == 1
    assert page.locator(".card .wrong").inner_text().split() == ["A", "B"]
    page.select_option("select[name=set]", label=f"words ({len(errors.sets['words'].shown)})")
    worst = max(one.prediction.score for one in errors.sets["words"].worst)
    assert page.locator(".card strong").first.inner_text() == f"{worst:.3f}"


def test_the_page_fits_the_width_of_the_screen(page):
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]
    box = page.locator("figure svg").bounding_box()
    assert 200 < box["width"] <= page.viewport_size["width"] and box["height"] > 200
