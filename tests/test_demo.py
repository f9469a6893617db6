"""The command `svtrv2 demo`: predictions as HTML, the server with its endpoint, and the exported Space."""

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
from svtrv2_hf.demo.models import EXAMPLES, DemoModel, Prediction, example_files, load_models, open_upload
from svtrv2_hf.demo.panel import panel


ROOT = Path(__file__).parents[1]
LABELS = dict(line.split("\t") for line in (EXAMPLES / "labels.tsv").read_text(encoding="utf-8").splitlines())


@pytest.fixture(scope="module")
def bundled():
    return DemoModel("default", "ours")


def test_example_images_have_labels_in_order():
    assert [file.name for file in example_files()] == list(LABELS)


def test_prediction_matches_the_pipeline(bundled):
    image = open_upload(EXAMPLES / "0.png")
    [expected] = pipeline("text-recognition", svtrv2_hf.default_checkpoint())(image, return_characters=True)
    prediction = bundled.predict(image)
    assert (prediction.model, prediction.text) == ("ours", expected["text"])
    assert prediction.score == pytest.approx(expected["score"], abs=1e-3)
    assert [character["text"] for character in prediction.characters] == list(expected["text"])
    assert (prediction.height, prediction.width) == svtrv2_hf.resizing_svtrv2.target_size(*image.size, 20)
    assert prediction.milliseconds > 0


def test_models_with_the_same_name_are_shown_with_their_paths(saved):
    twin = shutil.copytree(saved, saved.parent / "other" / saved.name)
    assert [model.name for model in load_models([str(saved), "default"])] == [saved.name, "svtrv2-nano-synthetic"]
    assert [model.name for model in load_models([str(saved), str(twin)])] == [str(saved), str(twin)]


def character(text, score=0.9, start=0.0, end=10.0):
    return {"text": text, "score": score, "start": start, "end": end}


def render(size, characters, model="ours"):
    """The panel of a prediction as a tree."""
    text = "".join(one["text"] for one in characters)
    prediction = Prediction(model, text, 0.5, characters, 48, 96, 1.0)
    html = panel(prediction, Image.new("RGB", size, "white"))
    assert len(html) < 200_000
    return ET.fromstring(html)


def test_panel_marks_each_character_at_its_position():
    tree = render(
        (100, 50),
        [character("a", start=10, end=30), character(" ", start=30, end=50), character("b", start=60, end=90)],
    )
    scale = float(tree.find("svg/image").get("width")) / 100
    spans = [rectangle for rectangle in tree.iter("rect") if rectangle.get("class") == "span"]
    assert [float(span.get("x")) / scale for span in spans] == pytest.approx([10, 30, 60], abs=0.1)
    assert [float(span.get("width")) / scale for span in spans] == pytest.approx([20, 20, 30], abs=0.1)
    assert [text.text for text in tree.iter("text")] == ["a", "␣", "b"]


@pytest.mark.parametrize("size", [(1, 1), (3, 400), (4000, 20), (3000, 2000)])
def test_image_of_any_shape_is_shown_small(size):
    _, _, width, height = map(float, render(size, [character("a", end=size[0])]).find("svg").get("viewBox").split())
    assert width <= 640 and height <= 250


def test_panel_escapes_html():
    text = "<script>alert(1)</script>&\"'`${1}"
    tree = render((40, 20), [character(one) for one in text], model=text)
    assert not list(tree.iter("script"))
    assert tree.find("h2").text == tree.find("p").text == text
    assert [label.text for label in tree.iter("b")] == list(text)


def test_bars_show_scores_as_height_color_and_text():
    [bars] = render((40, 20), [character("é", 0.984), character(" ", 0.3)]).iter("ol")
    assert ["".join(item.itertext()) for item in bars] == ["é 98 %", "␣ 30 %"]
    assert [item.find("span/span").get("style") for item in bars] == ["height:98.4%", "height:30.0%"]
    assert [item.find("span/span").get("class") for item in bars] == ["sure", "doubtful"]


def test_empty_prediction_has_no_bars():
    tree = render((40, 20), [])
    assert tree.find("p").text == "No text recognized." and tree.find("ol") is None


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (
            lambda file: file.write(b"not an image"),
            r"^Cannot read x\.png: .*\. Upload the crop of a word or line as PNG, JPEG or",
        ),
        (lambda file: file.truncate(21 * 2**20), r"^x\.png is larger than 20 MB\. Crop"),
        (lambda file: Image.new("1", (4001, 4000)).save(file, "PNG"), r"x\.png: its 4001x4000 pixels"),
    ],
    ids=["text", "bytes", "pixels"],
)
def test_invalid_or_large_upload_raises(tmp_path, write, message):
    path = tmp_path / "x.png"
    with path.open("wb") as file:
        write(file)
    with pytest.raises(svtrv2_hf.UnreadableImageError, match=message):
        open_upload(path)


def test_missing_gradio_names_the_extra(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "svtrv2_hf.demo.page", raising=False)
    assert main(["demo"]) == 1
    assert "pip install 'svtrv2-hf[demo]'" in capsys.readouterr().err


def client_of(address):
    from gradio_client import Client

    return Client(address, verbose=False, analytics_enabled=False)


def ask(client, file):
    from gradio_client import handle_file

    return client.predict(handle_file(str(file)), api_name="/read")


def test_endpoint_returns_characters(served, bundled, tmp_path):
    draw("word", width=1600, height=32).save(tmp_path / "line.png")
    [answer] = ask(client_of(served), tmp_path / "line.png")
    expected = bundled.predict(open_upload(tmp_path / "line.png"))
    assert (answer["model"], answer["text"]) == ("svtrv2-nano-synthetic", expected.text)
    assert answer["characters"] == expected.characters
    assert (answer["height"], answer["width"]) == (expected.height, expected.width) == (32, 1600)


def test_ten_concurrent_users_get_their_own_answers(served, bundled):
    expected = {file: bundled.predict(open_upload(file)).text for file in example_files()}
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


def test_endpoint_reports_an_unreadable_image(served, tmp_path):
    from gradio_client.exceptions import AppError

    text = tmp_path / "notes.png"
    text.write_text("not an image")
    with pytest.raises(AppError, match=r"Cannot read notes\.png") as caught:
        ask(client_of(served), text)
    assert "Traceback" not in str(caught.value) and "tmp" not in str(caught.value)


def send(served, path, body, content_type="application/json", method="POST"):
    """Send a request, and return the status and the text of the answer."""
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
    """Call the endpoint like any program, and return the status and the answer."""
    status, answer = send(served, "gradio_api/call/read", json.dumps({"data": [value]}).encode())
    if status != 200:
        return status, answer
    return send(served, f"gradio_api/call/read/{json.loads(answer)['event_id']}", None, method="GET")


def test_files_of_the_server_are_not_accessible(served, tmp_path, capfd):
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
    assert set(answers) == {answers[0]}, "the answer does not depend on the files of the server"
    assert answers[0][0] == 422 and str(tmp_path) not in answers[0][1]
    assert "The request has no image." in call(served, None)[1]
    status, _ = send(served, f"gradio_api/file={file}", None, method="GET")
    assert status == send(served, f"gradio_api/file={file}.png", None, method="GET")[0] == 403
    assert "Traceback" not in "".join(capfd.readouterr())


def test_requests_other_than_those_of_the_page_are_rejected(served, capfd):
    for path in ("proxy=https://a.hf.space/", "file=https://example.com/a.png", "monitoring", "stream/a/b/1/x.m3u8"):
        assert send(served, f"gradio_api/{path}", None, method="GET")[0] in (403, 404)
    paths = [
        "component_server",
        "process_recording",
        "run/read",
        "api/read",
        "call/show",
        "call/v2/read",
        "stream/a",
        "run/predict",
    ]
    bodies = [
        "",
        "{",
        "[]",
        "null",
        '{"data": 1}',
        '{"data": [null, null]}',
        "[" * 60_000,
        '{"data": [99], "fn_index": 0}',
    ]
    for path in (*paths, "queue/join", "call/read"):
        for body in bodies:
            assert send(served, f"gradio_api/{path}", body.encode())[0] in (404, 422), (path, body[:20])
    for number in (-1, 99, "0", 1e99, None, [0]):
        body = json.dumps({"data": [None], "fn_index": number, "session_hash": "a"}).encode()
        assert send(served, "gradio_api/queue/join", body)[0] == 422
    assert send(served, "gradio_api/queue/join", b"x" * 100_000)[0] == 413
    assert send(served, "gradio_api/upload", b"garbage")[0] == 400
    assert send(served, "gradio_api/upload", b"garbage", "multipart/form-data; boundary=x")[0] == 400
    assert "Traceback" not in "".join(capfd.readouterr())


def test_unfetched_answers_are_limited(served):
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


def test_requests_that_gradio_cannot_handle_are_rejected_without_a_log(served, capfd):
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
    """Return a function that sends an upload to an app behind a gate and returns the status of the answer."""
    pytest.importorskip("gradio")
    from svtrv2_hf.demo import gate

    for name, value in limits.items():
        monkeypatch.setattr(gate, name, value)
    guarded = gate.Gate(app, {}, lambda session: 0)

    async def upload(address, parts, then=3600):
        parts, sent = list(parts), []

        async def receive():
            if not parts:
                await asyncio.sleep(then)
            return parts.pop(0) if parts else {"type": "http.disconnect"}

        async def send(message):
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": "/gradio_api/upload", "headers": [], "client": (address, 1)}
        await guarded(scope, receive, send)
        return sent[0]["status"] if sent else None

    return upload


async def accept(scope, receive, send):
    while (message := await receive()).get("more_body"):
        pass
    if message["type"] == "http.disconnect":
        from starlette.requests import ClientDisconnect

        raise ClientDisconnect
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def test_idle_uploads_of_a_visitor_do_not_block_others(monkeypatch):
    upload = gate_with(accept, monkeypatch, IDLE=0.5)
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
    assert first == [408] * 4, "four at a time, each ended after the time without a byte"


def test_slow_or_interrupted_upload_ends_quietly(monkeypatch, capsys):
    upload = gate_with(accept, monkeypatch, PATIENCE=0.3)
    part = {"type": "http.request", "body": b"x", "more_body": True}
    assert asyncio.run(upload("1.1.1.1", [part])) == 408
    assert asyncio.run(upload("1.1.1.1", [part, {"type": "http.disconnect"}])) is None
    assert capsys.readouterr().err == ""


def test_failed_answer_is_completed(monkeypatch, capsys):
    async def fail(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError("already started")

    upload = gate_with(fail, monkeypatch)
    assert asyncio.run(upload("1.1.1.1", [])) == 200
    assert capsys.readouterr().err.count("\n") == 1


def test_two_models_answer_together(saved):
    pytest.importorskip("gradio")
    from svtrv2_hf.demo.page import serve

    page = serve(["default", str(saved)], port=free_port(), wait=False)
    try:
        answers = ask(client_of(page.local_url), EXAMPLES / "0.png")
    finally:
        page.close()
    assert [answer["model"] for answer in answers] == ["svtrv2-nano-synthetic", saved.name]


def test_three_models_raise(capsys):
    pytest.importorskip("gradio")
    assert main(["demo", "--model", "a", "--model", "b", "--model", "c"]) == 1
    assert "two models at most" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("file", "model", "message"),
    [("space/mine.txt", "default", "is not an empty folder"), ("nothing/x", "nothing", "no config.json")],
)
def test_export_raises_without_writing(tmp_path, monkeypatch, capsys, file, model, message):
    pytest.importorskip("gradio")
    monkeypatch.chdir(tmp_path)
    Path(file).parent.mkdir()
    Path(file).write_text("mine")
    assert main(["demo", "--model", model, "--export", "space"]) == 1
    assert message in capsys.readouterr().err
    assert [path for path in Path().rglob("*") if path.is_file()] == [Path(file)]


def test_export_rejects_secrets_and_links_to_other_files(saved, tmp_path, capsys):
    pytest.importorskip("gradio")
    words = ["demo", "--model", str(saved), "--export", str(tmp_path / "space")]
    (saved / "LICENSE").write_text("hf_" + "aB3" * 11)
    assert main(words) == 1
    assert "LICENSE contains a possible token" in capsys.readouterr().err
    (saved / "LICENSE").unlink()
    (saved / "LICENSE").symlink_to(__file__)
    assert main(words) == 1
    assert "links to files outside" in capsys.readouterr().err
    assert not (tmp_path / "space").exists()


# Imports from the folder and installed packages only, not from the checkout.
RUN = """
import runpy, sys
checkout, folder = sys.argv[1:3]
sys.path[:] = [folder, *(place for place in sys.path if place != checkout)]
import svtrv2_hf
print(svtrv2_hf.__file__, flush=True)
runpy.run_path(folder + "/app.py", run_name="__main__")
"""


def test_exported_space_runs_without_the_checkout(saved, tmp_path):
    gradio = pytest.importorskip("gradio")
    (saved / "optimizer.pt").write_text("not published")
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
    assert (space / "models" / saved.name / "model.safetensors").is_file()

    port = free_port()
    environment = {**os.environ, "GRADIO_SERVER_PORT": str(port), "HF_HUB_OFFLINE": "1", "PYTHONPATH": ""}
    command = [sys.executable, "-P", "-c", RUN, str(ROOT / "src"), str(space)]
    log = tmp_path / "log.txt"
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment, cwd=tmp_path)
    try:
        until = time.monotonic() + 90
        while "Serving http" not in log.read_text() and process.poll() is None and time.monotonic() < until:
            time.sleep(0.2)
        assert "Serving http" in log.read_text(), log.read_text()
        answers = ask(client_of(f"http://127.0.0.1:{port}"), EXAMPLES / "0.png")
    finally:
        process.terminate()
        process.wait(30)
    assert log.read_text().splitlines()[0] == str(space / "svtrv2_hf" / "__init__.py")
    assert [answer["model"] for answer in answers] == ["svtrv2-nano-synthetic", saved.name]
