"""The page of `svtrv2 demo` in headless Chromium. Off by default: pytest -m browser."""

from urllib.parse import urlsplit

import pytest
from PIL import Image

from svtrv2_hf.demo.models import EXAMPLES, DemoModel, open_upload


pytestmark = pytest.mark.browser


@pytest.fixture
def page(chromium, served):
    """The page on the screen of a phone; it must load nothing from other servers and raise no errors."""
    page = chromium.new_page(viewport={"width": 390, "height": 844}, color_scheme="dark")
    hosts, errors = set(), []
    page.on("request", lambda request: hosts.add(urlsplit(request.url).hostname))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(served)
    page.wait_for_selector(".result")
    yield page
    page.close()
    assert hosts <= {urlsplit(served).hostname, None, ""}  # data: and blob: have none
    assert not errors


def upload(page, file):
    page.set_input_files("input[type=file]", str(file))


def expected(file):
    return DemoModel("default", "ours").predict(open_upload(file))


def test_upload_is_recognized_with_positions_and_bars(page):
    file = EXAMPLES / "1.png"
    upload(page, file)
    page.wait_for_selector(".result .bars")
    prediction = expected(file)
    assert page.inner_text(".result .text") == prediction.text
    assert f"resized to {prediction.height} x {prediction.width} pixels" in page.inner_text(".result .facts")
    assert page.locator(".result .picture rect.span").count() == len(prediction.characters)
    assert page.locator(".result .bars li").count() == len(prediction.characters)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_selected_example_is_recognized(page):
    page.locator("button.gallery-item").nth(5).click()
    page.wait_for_selector(".result .bars")
    assert page.inner_text(".result .text") == expected(EXAMPLES / "5.png").text


def test_invalid_image_shows_an_error(page, tmp_path):
    page.locator("button.gallery-item").first.click()  # after which Gradio might replace the component
    page.wait_for_selector(".result .bars")
    file = tmp_path / "notes.png"
    file.write_text("not an image")
    upload(page, file)
    page.wait_for_selector(".result [role=alert]")
    assert "Cannot read notes.png" in page.inner_text(".result")
    assert "Traceback" not in page.inner_text("body")


def test_photo_of_30_megabytes_is_rejected(page, tmp_path):
    file = tmp_path / "photo.png"
    Image.new("RGB", (64, 32)).save(file)
    with file.open("ab") as photo:
        photo.truncate(30 * 2**20)
    upload(page, file)
    page.wait_for_selector("text=/maximum allowed size/")
    assert "Traceback" not in page.inner_text("body")
