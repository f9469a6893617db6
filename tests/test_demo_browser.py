"""The page of `svtrv2 demo` in headless Chromium. Off by default: pytest -m browser."""

from urllib.parse import urlsplit

import pytest
from PIL import Image

from svtrv2_hf.demo.readers import EXAMPLES, Reader, open_upload


pytestmark = pytest.mark.browser


@pytest.fixture
def page(chromium, served):
    """The page on the screen of a phone; it must ask nobody else for anything, and have no error."""
    page = chromium.new_page(viewport={"width": 390, "height": 844}, color_scheme="dark")
    hosts, errors = set(), []
    page.on("request", lambda request: hosts.add(urlsplit(request.url).hostname))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(served)
    page.wait_for_selector(".reading")
    yield page
    page.close()
    assert hosts <= {urlsplit(served).hostname, None, ""}  # data: and blob: have none
    assert not errors


def upload(page, file):
    page.set_input_files("input[type=file]", str(file))


def expected(file):
    return Reader("default", "ours").read(open_upload(file))


def test_an_image_is_read_marked_and_charted(page):
    file = EXAMPLES / "1.png"
    upload(page, file)
    page.wait_for_selector(".reading .bars")
    reading = expected(file)
    assert page.inner_text(".reading .text") == reading.text
    assert f"resized to {reading.height} x {reading.width} pixels" in page.inner_text(".reading .facts")
    assert page.locator(".reading .picture rect.span").count() == len(reading.characters)
    assert page.locator(".reading .bars li").count() == len(reading.characters)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_an_example_is_read_when_it_is_chosen(page):
    page.locator("button.gallery-item").nth(5).click()
    page.wait_for_selector(".reading .bars")
    assert page.inner_text(".reading .text") == expected(EXAMPLES / "5.png").text


def test_what_is_no_image_is_told_on_the_page(page, tmp_path):
    page.locator("button.gallery-item").first.click()  # after which Gradio might make the component anew
    page.wait_for_selector(".reading .bars")
    file = tmp_path / "notes.png"
    file.write_text("not an image")
    upload(page, file)
    page.wait_for_selector(".reading [role=alert]")
    assert "notes.png: it is in no image format" in page.inner_text(".reading")
    assert "Traceback" not in page.inner_text("body")


def test_a_photo_of_30_megabytes_is_refused_on_the_page(page, tmp_path):
    file = tmp_path / "photo.png"
    Image.new("RGB", (64, 32)).save(file)
    with file.open("ab") as photo:
        photo.truncate(30 * 2**20)
    upload(page, file)
    page.wait_for_selector("text=/maximum allowed size/")
    assert "Traceback" not in page.inner_text("body")
