"""The command `svtrv2 demo`: what is shown, the page as its API gives it, and the exported Space."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
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
    assert [reader.name for reader in load_readers([str(saved), "default"])] == ["recogniser", "svtrv2-nano-drawn"]
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
        "Cannot read notes.png: it is in no image format that Pillow knows. Send the crop of a word or line as PNG, JPEG or WebP."
    )


def test_files_that_are_too_large_are_not_opened(tmp_path):
    large = tmp_path / "large.png"
    with large.open("wb") as file:
        file.truncate(21 * 2**20)
    with pytest.raises(svtrv2_hf.UnreadableImageError, match=r"large.png has more than 20 MB\. Crop"):
        open_upload(large)


def test_images_of_too_many_pixels_are_not_decoded(tmp_path):
    bomb = tmp_path / "bomb.png"
    Image.new("1", (4001, 4000)).save(bomb)
    with pytest.raises(svtrv2_hf.UnreadableImageError, match=r"bomb.png: its 4001x4000 pixels"):
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
    assert (answer["model"], answer["text"]) == ("svtrv2-nano-drawn", expected.text)
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


def send(served, path, body, content_type="application/json", method="POST"):
    """Status and text of an answer."""
    request = urllib.request.Request(served + path, body, {"Content-Type": content_type}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, response.read().decode("utf-8", "replace")
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def upload(served, name, data):
    head = f'--x\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'.encode()
    return send(served, "gradio_api/upload", head + data + b"\r\n--x--\r\n", "multipart/form-data; boundary=x")


def call(served, value):
    """Status and answer of the endpoint, as any program may call it."""
    status, answer = send(served, "gradio_api/call/read", json.dumps({"data": [value]}).encode())
    if status != 200:
        return status, answer
    return send(served, f"gradio_api/call/read/{json.loads(answer)['event_id']}", None, method="GET")


def test_files_of_the_server_are_not_to_be_had(served, tmp_path, capfd):
    file = tmp_path / "private.png"
    draw("secret").save(file)
    [sent] = json.loads(upload(served, "mine.png", file.read_bytes())[1])
    assert call(served, {"path": sent})[1].startswith("event: complete")
    meta = {"meta": {"_type": "gradio.FileData"}}
    answers = [
        call(served, value)
        for value in (
            {"path": str(file)},
            {"path": str(file), **meta},
            {"path": str(tmp_path / "nothing.png")},
            {"path": str(tmp_path)},
            {"path": f"{sent}/../../../..{file}"},
            {"path": file.as_uri()},
            {"path": "x" * 5000},
            {"path": "\0"},
            {"path": 5},
            {"url": f"{served}config"},
            {"url": file.as_uri(), **meta},
            {"video": {"path": str(file), **meta}},
            [{"path": str(file)}],
            str(file),
            0,
        )
    ]
    assert set(answers) == {answers[0]}, "what there is on the server makes no difference"
    assert answers[0][0] == 422 and str(tmp_path) not in answers[0][1]
    assert "There is no image to read." in call(served, None)[1]
    status, _ = send(served, f"gradio_api/file={file}", None, method="GET")
    assert status == send(served, f"gradio_api/file={file}.png", None, method="GET")[0] == 403
    assert "Traceback" not in "".join(capfd.readouterr())


def test_requests_that_the_page_does_not_make_are_refused(served, capfd):
    for path in (
        "proxy=https://a.hf.space/",
        "file=https://example.com/a.png",
        "monitoring",
        "stream/a/b/1/playlist.m3u8",
    ):
        assert send(served, f"gradio_api/{path}", None, method="GET")[0] in (403, 404)
    paths = (
        "component_server",
        "process_recording",
        "run/read",
        "api/read",
        "call/show",
        "call/v2/read",
        "stream/a",
        "run/predict",
    )
    bodies = (
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"data": 1}',
        b'{"data": [null, null]}',
        b"[" * 60_000,
        b'{"data": [99], "fn_index": 0}',
    )
    for path in (*paths, "queue/join", "call/read"):
        for body in bodies:
            assert send(served, f"gradio_api/{path}", body)[0] in (404, 422), (path, body[:20])
    for number in (-1, 99, "0", 1e99, None, [0]):
        body = json.dumps({"data": [None], "fn_index": number, "session_hash": "a"}).encode()
        assert send(served, "gradio_api/queue/join", body)[0] == 422
    assert send(served, "gradio_api/queue/join", b"x" * 100_000)[0] == 413
    assert send(served, "gradio_api/upload", b"garbage")[0] == 400
    assert send(served, "gradio_api/upload", b"garbage", "multipart/form-data; boundary=x")[0] == 400
    assert "Traceback" not in "".join(capfd.readouterr())


def test_answers_that_are_not_fetched_do_not_pile_up(served):
    body = json.dumps({"data": [None], "session_hash": "hoarder"}).encode()
    assert 429 in [send(served, "gradio_api/call/read", body)[0] for _ in range(12)]


def test_uploads_are_limited_and_deleted(served, monkeypatch):
    from svtrv2_hf.demo import uploads

    folder = uploads.upload_folder()
    examples = {path for path in folder.rglob("*.png") if path.name == "0.png"}
    assert upload(served, "large.png", bytes(20 * 2**20 + 1))[0] == 413
    monkeypatch.setattr(uploads, "KEPT_BYTES", 10**6)
    for number in range(5):
        assert upload(served, f"{number}.bin", bytes([number]) * 10**6)[0] == 200
    kept = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".png"]
    assert sum(path.stat().st_size for path in kept) <= 2 * 10**6
    monkeypatch.setattr(uploads, "SECONDS", 0)
    assert upload(served, "last.bin", b"x")[0] == 200
    assert [path.name for path in folder.rglob("*.bin")] == ["last.bin"]
    assert {path for path in folder.rglob("*.png") if path.name == "0.png"} == examples


def test_requests_that_gradio_cannot_answer_are_refused_without_a_log(served, capfd):
    for path in ("cancel", "reset"):
        for body in (b'{"event_id": 1e999}', b'{"event_id": NaN}', b'{"event_id": "\\ud800"}', b"[" * 60_000):
            assert send(served, f"gradio_api/{path}", body)[0] == 422
    assert call(served, {"path": "\ud800"})[0] == 422
    without_a_file = b'--x\r\nContent-Disposition: form-data; name="files"\r\n\r\nabc\r\n--x--\r\n'
    status, _ = send(served, "gradio_api/upload", without_a_file, "multipart/form-data; boundary=x")
    assert status == 422
    output = "".join(capfd.readouterr())
    assert "failed" not in output and "ERROR" not in output


def gate_with(app, monkeypatch, **limits):
    """A gate before another app, and a function that sends an upload through it and returns the status of the answer."""
    pytest.importorskip("gradio")
    from svtrv2_hf.demo import gate

    for name, value in limits.items():
        monkeypatch.setattr(gate, name, value)
    made = gate.Gate(app, {}, lambda session: 0)

    async def upload(address, parts, then=3600):
        parts, sent = list(parts), []

        async def receive():
            if not parts:
                await asyncio.sleep(then)
            return parts.pop(0) if parts else {"type": "http.disconnect"}

        async def send(message):
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": "/gradio_api/upload", "headers": [], "client": (address, 1)}
        await made(scope, receive, send)
        return sent[0]["status"] if sent else None

    return upload


async def takes_all(scope, receive, send):
    while (message := await receive()).get("more_body"):
        pass
    if message["type"] == "http.disconnect":
        from starlette.requests import ClientDisconnect

        raise ClientDisconnect
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def test_idle_uploads_of_one_visitor_do_not_block_others(monkeypatch):
    upload = gate_with(takes_all, monkeypatch, IDLE=0.5)
    part = {"type": "http.request", "body": b"x", "more_body": True}
    last = {"type": "http.request", "body": b"x", "more_body": False}

    async def run():
        idle = [asyncio.create_task(upload("1.1.1.1", [part])) for _ in range(40)]
        await asyncio.sleep(0.05)
        other = await asyncio.wait_for(upload("2.2.2.2", [part, last]), 0.4)
        first, _ = await asyncio.wait(idle, timeout=0.9)
        for task in idle:
            task.cancel()
        return other, [task.result() for task in first]

    other, first = asyncio.run(run())
    assert other == 200
    assert first == [408] * 4, "four at a time, each given up after the time without a byte"


def test_an_upload_that_drips_or_breaks_off_ends_quietly(monkeypatch, capsys):
    upload = gate_with(takes_all, monkeypatch, PATIENCE=0.3)
    part = {"type": "http.request", "body": b"x", "more_body": True}
    assert asyncio.run(upload("1.1.1.1", [part])) == 408
    assert asyncio.run(upload("1.1.1.1", [part, {"type": "http.disconnect"}])) is None
    assert capsys.readouterr().err == ""


def test_an_answer_that_breaks_off_is_ended(monkeypatch, capsys):
    async def breaks_off(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError("already started")

    upload = gate_with(breaks_off, monkeypatch)
    assert asyncio.run(upload("1.1.1.1", [])) == 200
    assert capsys.readouterr().err.count("\n") == 1


def test_a_line_of_any_length_is_read_at_its_width(served, tmp_path):
    draw("word", width=1600, height=32).save(tmp_path / "line.png")
    [answer] = ask(client_of(served), tmp_path / "line.png")
    assert (answer["height"], answer["width"]) == (32, 1600)


def test_two_models_answer_side_by_side(saved):
    pytest.importorskip("gradio")
    from svtrv2_hf.demo.page import serve

    page = serve(["default", str(saved)], port=free_port(), wait=False)
    try:
        answers = ask(client_of(page.local_url), EXAMPLES / "0.png")
    finally:
        page.close()
    assert [answer["model"] for answer in answers] == ["svtrv2-nano-drawn", "recogniser"]


def test_three_models_are_refused(capsys):
    pytest.importorskip("gradio")
    assert main(["demo", "--model", "a", "--model", "b", "--model", "c"]) == 1
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
    assert main(["demo", "--model", "default", "--model", str(twin), "--export", str(space)]) == 0
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
    assert [answer["model"] for answer in answers] == ["svtrv2-nano-drawn", "recogniser"]
