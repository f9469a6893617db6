"""The command `svtrv2 demo`: what is shown, the page as its API gives it, and the exported Space."""

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
import xml.etree.ElementTree as ET
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml
from conftest import draw, free_port
from PIL import Image
from transformers import pipeline

import svtrv2_hf
from svtrv2_hf.cli import main
from svtrv2_hf.demo.panel import bars, panel, picture
from svtrv2_hf.demo.readers import EXAMPLES, Reader, example_files, load_readers, open_upload


ROOT = Path(__file__).parents[1]
LABELS = dict(line.split("\t") for line in (EXAMPLES / "labels.tsv").read_text(encoding="utf-8").splitlines())


@pytest.fixture(scope="module")
def reader():
    return Reader("default", "ours")


def part(text, score=0.9, start=0.0, end=10.0):
    return {"text": text, "score": score, "start": start, "end": end}


def test_the_examples_have_labels_and_come_in_order():
    assert [file.name for file in example_files()] == list(LABELS)


def test_a_reading_says_what_the_pipeline_says_and_what_size_was_read(reader):
    image = open_upload(EXAMPLES / "0.png")
    [expected] = pipeline("text-recognition", svtrv2_hf.default_checkpoint())(image, return_characters=True)
    reading = reader.read(image)
    assert (reading.model, reading.text) == ("ours", expected["generated_text"])
    assert reading.score == pytest.approx(expected["score"], abs=1e-3)
    assert [character["text"] for character in reading.characters] == list(expected["generated_text"])
    assert (reading.height, reading.width) == svtrv2_hf.image_processing_svtrv2.target_size(*image.size, 20)
    assert reading.milliseconds > 0


def test_models_of_one_name_are_told_apart(saved):
    twin = shutil.copytree(saved, saved.parent / "other" / saved.name)
    assert [reader.name for reader in load_readers([str(saved), "default"])] == ["recogniser", "default"]
    assert [reader.name for reader in load_readers([str(saved), str(twin)])] == [str(saved), str(twin)]


def test_the_picture_marks_each_span_where_it_is():
    characters = [part("a", start=10, end=30), part(" ", start=30, end=50), part("b", start=60, end=90)]
    drawing = ET.fromstring(picture(Image.new("RGB", (100, 50)), characters))
    scale = float(drawing.find("image").get("width")) / 100
    spans = [rectangle for rectangle in drawing.iter("rect") if rectangle.get("class") == "span"]
    assert [float(span.get("x")) / scale for span in spans] == pytest.approx([10, 30, 60], abs=0.1)
    assert [float(span.get("width")) / scale for span in spans] == pytest.approx([20, 20, 30], abs=0.1)
    assert [text.text for text in drawing.iter("text")] == ["a", "␣", "b"]


@pytest.mark.parametrize("size", [(1, 1), (3, 400), (4000, 20), (3000, 2000)])
def test_pictures_of_any_shape_stay_small(size):
    drawing = picture(Image.new("RGB", size), [part("a", end=size[0])])
    assert len(drawing) < 200_000
    _, _, width, height = map(float, ET.fromstring(drawing).get("viewBox").split())
    assert width <= 640 and height <= 250


def test_what_looks_like_html_is_text(reader):
    reading = reader.read(draw("x"))
    nasty = "<script>alert(1)</script>&\"'`${1}"
    shown = panel(type(reading)(nasty, nasty, 0.5, [part(c) for c in nasty], 64, 64, 1.0), draw("x"))
    tree = ET.fromstring(shown)
    assert not list(tree.iter("script"))
    assert tree.find("h2").text == nasty and tree.find("p").text == nasty
    assert [label.text for label in tree.iter("b")] == list(nasty)


def test_bars_are_as_high_as_scores_and_can_be_read_aloud():
    tree = ET.fromstring(bars([part("é", 0.984), part(" ", 0.3)]))
    assert ["".join(item.itertext()) for item in tree] == ["é 98 %", "␣ 30 %"]
    assert [item.find("span/span").get("style") for item in tree] == ["height:98.4%", "height:30.0%"]
    assert [item.find("span/span").get("class") for item in tree] == ["sure", "doubtful"]


def test_an_empty_reading_is_shown_as_one(reader):
    image = Image.new("RGB", (40, 20), "white")
    reading = type(reader.read(image))("ours", "", 0.0, [], 48, 96, 1.0)
    assert "Nothing read" in panel(reading, image) and "<ol" not in panel(reading, image)


def test_what_is_no_image_is_told_with_its_name_and_what_to_do(tmp_path):
    text = tmp_path / "notes.png"
    text.write_text("not an image")
    with pytest.raises(svtrv2_hf.UnreadableImageError) as told:
        open_upload(text)
    assert str(told.value) == (
        "Cannot read notes.png: it is in no image format that Pillow knows. Take an image as PNG, JPEG or WebP."
    )


def test_files_that_are_too_large_are_not_opened(tmp_path):
    large = tmp_path / "large.png"
    with large.open("wb") as file:
        file.truncate(21 * 2**20)
    with pytest.raises(svtrv2_hf.UnreadableImageError, match=r"large.png has more than 20 MB\. Crop"):
        open_upload(large)


def test_images_of_too_many_pixels_are_not_decoded(tmp_path):
    bomb = tmp_path / "bomb.png"
    Image.new("1", (12_000, 12_000)).save(bomb)
    with pytest.raises(svtrv2_hf.UnreadableImageError, match=r"bomb.png: its 12000x12000 pixels"):
        open_upload(bomb)


def test_without_gradio_the_command_tells_how_to_get_it(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "svtrv2_hf.demo.page", raising=False)
    monkeypatch.delitem(sys.modules, "svtrv2_hf.demo.command", raising=False)
    assert main(["demo"]) == 1
    assert "pip install 'svtrv2-hf[demo]'" in capsys.readouterr().err


def client_of(address):
    from gradio_client import Client

    return Client(address, verbose=False, analytics_enabled=False)


def ask(client, file):
    from gradio_client import handle_file

    return client.predict(handle_file(str(file)), api_name="/read")


def test_the_endpoint_answers_with_characters(served, reader):
    [answer] = ask(client_of(served), EXAMPLES / "1.png")
    expected = reader.read(open_upload(EXAMPLES / "1.png"))
    assert (answer["model"], answer["text"]) == ("default", expected.text)
    assert answer["characters"] == expected.characters
    assert (answer["height"], answer["width"]) == (expected.height, expected.width)


def test_ten_users_at_a_time_get_their_own_answers(served, reader):
    expected = {file: reader.read(open_upload(file)).text for file in example_files()}
    assert len(set(expected.values())) == len(expected)
    users = 10

    def use(number):
        client = client_of(served)
        files = [example_files()[(number + turn) % len(expected)] for turn in range(3)]
        return [(file, ask(client, file)[0]["text"]) for file in files]

    with ThreadPoolExecutor(users) as pool:
        answers = [answer for some in pool.map(use, range(users)) for answer in some]
    assert len(answers) == 3 * users
    assert all(text == expected[file] for file, text in answers)


def test_readers_may_be_used_by_several_threads(reader):
    images = [open_upload(file) for file in example_files()]
    alone = [reader.read(image).text for image in images]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            assert [reading.text for reading in pool.map(reader.read, images)] == alone


def test_the_endpoint_tells_politely_what_it_cannot_read(served, tmp_path):
    from gradio_client.exceptions import AppError

    text = tmp_path / "notes.png"
    text.write_text("not an image")
    with pytest.raises(AppError, match=r"notes.png.*no image format") as told:
        ask(client_of(served), text)
    assert "Traceback" not in str(told.value) and "tmp" not in str(told.value)


def test_files_of_the_server_are_not_to_be_had(served, tmp_path):
    file = tmp_path / "private.png"
    draw("secret").save(file)
    sent = {"data": [{"path": str(file), "meta": {"_type": "gradio.FileData"}}]}
    answers = []
    for body in (sent, {"data": [None]}):
        request = urllib.request.Request(
            f"{served}gradio_api/call/read", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request) as response:
            number = json.load(response)["event_id"]
        with urllib.request.urlopen(f"{served}gradio_api/call/read/{number}") as response:
            answers.append(response.read().decode())
    assert all(answer.startswith("event: error") for answer in answers)
    assert "There is no image to read." in answers[1]


def test_two_models_answer_side_by_side(saved):
    pytest.importorskip("gradio")
    from svtrv2_hf.demo.page import serve

    page = serve(["default", str(saved)], port=free_port(), wait=False)
    try:
        answers = ask(client_of(page.local_url), EXAMPLES / "0.png")
    finally:
        page.close()
    assert [answer["model"] for answer in answers] == ["default", "recogniser"]


def test_three_models_are_refused(capsys):
    pytest.importorskip("gradio")
    assert main(["demo", "--model", "a", "b", "c"]) == 1
    assert "two models at most" in capsys.readouterr().err


def test_a_folder_that_is_not_empty_is_not_written_to(tmp_path, capsys):
    pytest.importorskip("gradio")
    (tmp_path / "mine.txt").write_text("mine")
    assert main(["demo", "--export", str(tmp_path)]) == 1
    assert "is not an empty folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_what_is_no_model_is_not_exported(tmp_path, capsys):
    pytest.importorskip("gradio")
    (tmp_path / "nothing").mkdir()
    assert main(["demo", "--model", str(tmp_path / "nothing"), "--export", str(tmp_path / "space")]) == 1
    assert "no config.json" in capsys.readouterr().err
    assert not (tmp_path / "space").exists()


# Only the folder, and what pip installed: not the checkout.
RUN = """
import runpy, sys
checkout, folder = sys.argv[1:3]
sys.path[:] = [folder, *(place for place in sys.path if place != checkout)]
import svtrv2_hf
print(svtrv2_hf.__file__, flush=True)
runpy.run_path(folder + "/app.py", run_name="__main__")
"""


def test_an_exported_space_runs_by_itself(saved, tmp_path):
    gradio = pytest.importorskip("gradio")
    (saved / "optimizer.pt").write_text("not for others")
    twin = tmp_path / "twin" / saved.name
    twin.parent.mkdir()
    saved.rename(twin)
    space = tmp_path / "space"
    assert main(["demo", "--model", "default", str(twin), "--export", str(space)]) == 0
    card = yaml.safe_load((space / "README.md").read_text(encoding="utf-8").split("---\n")[1])
    assert (card["sdk"], card["sdk_version"], card["app_file"]) == ("gradio", gradio.__version__, "app.py")
    assert (space / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
    assert (space / "NOTICE").read_text() == (ROOT / "NOTICE").read_text()
    assert str(tmp_path) not in (space / "README.md").read_text() + (space / "app.py").read_text()
    assert any(line.startswith("torch") for line in (space / "requirements.txt").read_text().splitlines())
    assert not list(space.rglob("__pycache__")) and not list(space.rglob("*.pt"))
    assert (space / "models" / "recogniser" / "model.safetensors").is_file()

    port = free_port()
    environment = {**os.environ, "GRADIO_SERVER_PORT": str(port), "HF_HUB_OFFLINE": "1", "PYTHONPATH": ""}
    command = [sys.executable, "-P", "-c", RUN, str(ROOT / "src"), str(space)]
    log = tmp_path / "log.txt"
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment, cwd=tmp_path)
    try:
        until = time.monotonic() + 90
        while "Reading at" not in log.read_text() and process.poll() is None and time.monotonic() < until:
            time.sleep(0.2)
        assert "Reading at" in log.read_text(), log.read_text()
        answers = ask(client_of(f"http://127.0.0.1:{port}"), EXAMPLES / "0.png")
    finally:
        process.terminate()
        process.wait(30)
    assert log.read_text().splitlines()[0] == str(space / "svtrv2_hf" / "__init__.py")
    assert [answer["model"] for answer in answers] == ["default", "recogniser"]
