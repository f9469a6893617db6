"""Reading of datasets: BatchReader, svtrv2 read --input, and svtrv2 pack."""

import json
import os
import pickle
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import InProcess, draw, encoded, png, write_tar

from svtrv2_hf.bulk import BatchReader, parts, run
from svtrv2_hf.bulk.isolation import IsolatedReader
from svtrv2_hf.cli import main


WORDS = ["a", "bc 1", "word", "a long line", "0123456789 abcdefg", "x", "two words", "yz"]
IMAGES = [encoded(draw(word)) for word in WORDS]


def write_table(path, images, row_group=None, **columns):
    """Write a parquet file of images in the layout of the Hub; lists of other types stay as they are."""
    if all(image is None or isinstance(image, bytes) for image in images):
        images = [{"bytes": image, "path": None} for image in images]
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"image": images, **columns}), path, row_group_size=row_group)
    return path


@pytest.fixture
def data(tmp_path):
    """Three files with 20 rows, of which three images are damaged, empty or missing."""
    root = tmp_path / "data"
    write_table(root / "a.parquet", IMAGES, key=[f"a{number}" for number in range(8)])
    damaged = [*IMAGES[:3], b"not an image", IMAGES[4], b"", None, IMAGES[7]]
    write_table(root / "b.parquet", damaged, key=[f"b{number}" for number in range(8)])
    write_table(root / "more" / "c.parquet", IMAGES[:4], key=[f"c{number}" for number in range(4)])
    return root


def read(saved, source, output, *words):
    return main(["read", "--model", str(saved), "--input", str(source), "--output", str(output), *map(str, words)])


def rows_of(output):
    """All rows of the results, by part and row."""
    files = sorted(output.rglob("*.parquet"))
    rows = [row for file in files for row in pq.read_table(file).to_pylist()]
    by_place = {(row["part"], row["row"]): row for row in rows}
    assert len(by_place) == len(rows), "rows occur twice"
    return by_place


def leftovers(output):
    return [path.name for path in output.rglob("*.tmp")]


def texts(output):
    return {place: (row["text"], pytest.approx(row["score"], abs=1e-5)) for place, row in rows_of(output).items()}


# BatchReader


def test_rows_have_the_results_of_the_pipeline(saved):
    from transformers import pipeline

    pipe = pipeline("text-recognition", str(saved))
    reader = BatchReader(str(saved), return_characters=True, keep=["key"], batch_size=3)
    keys = list(range(len(IMAGES) + 1))
    columns = reader({"key": keys, "image": [*IMAGES, b"not an image"], "other": keys})
    assert list(columns) == ["key", "text", "score", "characters", "exceeds_max_ratio", "error"]
    assert columns["key"] == keys
    assert len(set(columns["text"])) > 4
    for number, [expected] in enumerate(pipe(list(map(draw, WORDS)), return_characters=True)):
        assert columns["text"][number] == expected["text"]
        assert columns["score"][number] == pytest.approx(expected["score"], abs=1e-5)
        starts = [character["start"] for character in columns["characters"][number]]
        assert starts == [character["start"] for character in expected["characters"]]
    assert columns["error"][:-1] == [None] * len(IMAGES) and "no image format" in columns["error"][-1]
    assert (columns["text"][-1], columns["score"][-1], columns["characters"][-1]) == ("", 0.0, [])


def test_columns_may_have_any_type(saved, tmp_path):
    (tmp_path / "a.png").write_bytes(IMAGES[0])
    reader = BatchReader(str(saved))
    images = [IMAGES[0], {"bytes": IMAGES[0], "path": "x"}, {"bytes": None, "path": str(tmp_path / "a.png")}]
    images += [str(tmp_path / "a.png"), draw(WORDS[0]), np.asarray(draw(WORDS[0]))]
    assert len(set(reader({"image": images})["text"])) == 1
    array = np.empty(len(images), dtype=object)
    array[:] = images
    for column in (array, pa.chunked_array([pa.array(IMAGES[:1] * 2)])):
        assert set(reader({"image": column})["text"]) == set(reader({"image": images})["text"])


def test_urls_in_columns_are_not_opened(saved, monkeypatch):
    monkeypatch.setattr("svtrv2_hf.image_loading_svtrv2.download", None)
    images = ["https://me:secret@example.org/a.png", "data:image/png;base64,AAAA", {"bytes": None, "path": "hf://x"}]
    errors = BatchReader(str(saved))({"image": images})["error"]
    assert all("download the images first" in error for error in errors)
    assert "secret" not in errors[0]


def test_pickles_contain_the_options_but_not_the_model(saved, model):
    reader = BatchReader(str(saved), image="crop")
    content = pickle.dumps(reader)
    assert len(content) < 2000
    copy = pickle.loads(content)
    assert copy({"crop": IMAGES[:2]}) == reader({"crop": IMAGES[:2]})
    model.head.bias.data.add_(1)
    model.save_pretrained(saved)
    with pytest.raises(ValueError, match="has changed since the reader was created"):
        pickle.loads(content)({"crop": IMAGES[:1]})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep": ["text"]}, "'text' cannot be kept"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"backend": "tensorrt"}, "backend='tensorrt' must be"),
        ({"backend": "onnx", "device": "cuda"}, "device='cuda' needs the backend torch"),
        ({"model": "nothing"}, "Folder not found"),
    ],
)
def test_invalid_options_raise(saved, options, message):
    with pytest.raises(ValueError, match=message):
        BatchReader(**{"model": str(saved), **options})


def test_unknown_column_raises(saved):
    with pytest.raises(ValueError, match="No column 'image' among crop"):
        BatchReader(str(saved))({"crop": IMAGES})


def test_map_of_datasets(saved):
    from datasets import Dataset, Features, Image

    crops = Dataset.from_dict({"image": [*IMAGES, b"damaged"]}).cast_column("image", Image(decode=False))
    reader = BatchReader(str(saved), return_characters=True)
    features = Features.from_arrow_schema(reader.schema)
    mapped = crops.map(
        reader, batched=True, batch_size=4, writer_batch_size=4, remove_columns=["image"], features=features
    )
    expected = reader({"image": [*IMAGES, b"damaged"]})
    assert mapped["text"] == expected["text"]
    assert mapped["error"] == expected["error"]
    characters = ["".join(character["text"] for character in row) for row in mapped.to_dict()["characters"]]
    assert characters == expected["text"]


# svtrv2 read --input


@pytest.mark.usefixtures("in_process")
def test_every_row_is_in_the_results_once(saved, data, tmp_path, capsys):
    assert read(saved, data, tmp_path / "out", "--keep", "key", "--characters") == 0
    captured = capsys.readouterr()
    assert "3 of 3 parts complete, 3 of them read now" in captured.out
    assert "3 of 20 images could not be read" in captured.err
    rows = rows_of(tmp_path / "out")
    files = {"a.parquet": 8, "b.parquet": 8, "more/c.parquet": 4}
    assert set(rows) == {(file, row) for file, count in files.items() for row in range(count)}
    assert all(row["key"] == f"{part.split('/')[-1][0]}{number}" for (part, number), row in rows.items())
    assert [place for place, row in rows.items() if row["error"]] == [
        ("b.parquet", 3),
        ("b.parquet", 5),
        ("b.parquet", 6),
    ]
    assert rows["a.parquet", 4]["text"] == "".join(c["text"] for c in rows["a.parquet", 4]["characters"]) != ""
    order = [row["row"] for row in pq.read_table(tmp_path / "out" / "a.parquet").to_pylist()]
    assert order == sorted(order)
    assert not leftovers(tmp_path / "out")


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize(("batch_size", "part_rows", "workers"), [(1, 100, 1), (3, 4, 2), (32, 2, 1)])
def test_results_equal_those_of_read_for_any_batches_and_parts(
    saved, tmp_path, capsys, monkeypatch, batch_size, part_rows, workers
):
    crops = tmp_path / "crops"
    crops.mkdir()
    for number, image in enumerate(IMAGES):
        (crops / f"{number}.png").write_bytes(image)
    assert main(["read", str(crops), "--model", str(saved), "--json"]) == 0
    expected = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    monkeypatch.setattr(parts, "PART_ROWS", part_rows)
    monkeypatch.setattr(run, "WINDOW_BATCHES", 2)
    source = write_table(tmp_path / "data" / "a.parquet", IMAGES, row_group=2)
    assert read(saved, source, tmp_path / "out", "--batch-size", batch_size, "--workers", workers) == 0
    rows = rows_of(tmp_path / "out")
    assert len(rows) == len(IMAGES)
    for number, result in enumerate(expected):
        assert rows["a.parquet", number]["text"] == result["text"]
        assert rows["a.parquet", number]["score"] == pytest.approx(result["score"], abs=1e-5)
    names = sorted(path.name for path in (tmp_path / "out").glob("*.parquet"))
    starts = range(0, 8, part_rows)
    assert names == (["a.parquet"] if part_rows == 100 else [f"a.rows-{start:09}.parquet" for start in starts])


@pytest.mark.usefixtures("in_process")
def test_parts_with_results_are_not_read_again(saved, data, tmp_path, capsys):
    output = tmp_path / "out"
    assert read(saved, data, output) == 0
    before = texts(output)
    (output / "b.parquet").unlink()
    (output / ".b.parquet.host.1.tmp").write_bytes(b"of a killed process")
    InProcess.images = 0
    assert read(saved, data, output, "--batch-size", "2", "--workers", "2") == 0
    assert InProcess.images == 8
    assert "3 of 3 parts complete, 1 of them read now" in capsys.readouterr().out
    assert texts(output) == before
    assert not leftovers(output)


@pytest.mark.usefixtures("in_process")
def test_interrupted_run_leaves_no_incomplete_part_and_continues(saved, data, tmp_path, capsys, monkeypatch):
    output = tmp_path / "out"
    monkeypatch.setattr(run, "WINDOW_BATCHES", 1)
    call = InProcess.__call__

    def interrupted(self, images):
        if InProcess.images >= 12:
            raise KeyboardInterrupt
        return call(self, images)

    with monkeypatch.context() as patch:
        patch.setattr(InProcess, "__call__", interrupted)
        assert read(saved, data, output, "--batch-size", "2") == 130
    assert "run the same command to continue" in capsys.readouterr().err
    assert [path.name for path in output.rglob("*.parquet")] == ["a.parquet"]
    assert not leftovers(output)
    assert read(saved, data, output, "--batch-size", "2") == 0
    assert len(rows_of(output)) == 20


@pytest.mark.usefixtures("in_process")
def test_shards_share_the_parts(saved, data, tmp_path):
    for shard in ("0/2", "1/2"):
        assert read(saved, data, tmp_path / "out", "--shard", shard) == 0
    assert InProcess.images == 20
    assert len(rows_of(tmp_path / "out")) == 20


def test_second_run_of_a_part_is_an_error(tmp_path):
    part = parts.Part("data/x.parquet", "x.parquet", "x.parquet")
    first, second = (run.PartFile(tmp_path, part, pa.schema([]), pa.schema([("text", pa.string())])) for _ in range(2))
    second.commit()
    with pytest.raises(FileNotFoundError, match=r"Another run reads x\.parquet to the same --output"):
        first.commit()
    assert [path.name for path in tmp_path.iterdir()] == ["x.parquet"]


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--characters"], "characters was False, now True"),
        (["--max-ratio", "auto"], "max_ratio was None, now 'auto'"),
        (["--keep", "key", "--keep", "key"], "keep was [], now ['key']"),
    ],
)
def test_run_with_other_options_is_refused(saved, data, tmp_path, capsys, words, message):
    assert read(saved, data / "more", tmp_path / "out") == 0
    assert read(saved, data / "more", tmp_path / "out", *words) == 1
    assert message in capsys.readouterr().err


@pytest.mark.usefixtures("in_process")
def test_run_with_other_weights_or_data_is_refused(saved, model, data, tmp_path, capsys):
    output = tmp_path / "out"
    assert read(saved, data / "more", output) == 0
    assert read(saved, data, output) == 1
    assert "input was " in capsys.readouterr().err
    write_table(data / "more" / "c.parquet", IMAGES[:3])
    assert read(saved, data / "more", output) == 1
    assert "has 4 rows, but c.parquet now has 3" in capsys.readouterr().err
    (data / "more" / "c.parquet").rename(data / "more" / "d.parquet")
    assert read(saved, data / "more", output) == 1
    assert "is not a result of the files" in capsys.readouterr().err
    model.head.bias.data.add_(1)
    model.save_pretrained(saved)
    assert read(saved, data / "more", output) == 1
    assert "model_sha256 was " in capsys.readouterr().err


@pytest.mark.usefixtures("in_process")
def test_damaged_part_is_reported_and_the_others_read(saved, data, tmp_path, capsys):
    output = tmp_path / "out"
    content = (data / "b.parquet").read_bytes()
    # without its end, and with its end but damaged pages
    for damaged in (content[:-100], content[:4] + bytes(len(content) // 2) + content[len(content) // 2 + 4 :]):
        (data / "b.parquet").write_bytes(damaged)
        assert read(saved, data, output) == 1
        captured = capsys.readouterr()
        assert "b.parquet cannot be read" in captured.err and "1 part could not be read: b.parquet" in captured.err
        assert "2 of 3 parts complete" in captured.out
        assert {part for part, _ in rows_of(output)} == {"a.parquet", "more/c.parquet"}
        assert not leftovers(output)
    (data / "b.parquet").write_bytes(content)
    assert read(saved, data, output) == 0
    assert len(rows_of(output)) == 20


@pytest.mark.usefixtures("in_process")
def test_columns_of_bytes_and_of_paths(saved, tmp_path):
    data = tmp_path / "data"
    write_table(data / "paths.parquet", ["crops/0.png", "crops/missing.png", str(data / "crops" / "0.png")])
    pq.write_table(pa.table({"image": pa.array(IMAGES[:2], pa.large_binary())}), data / "bytes.parquet")
    (data / "crops").mkdir()
    (data / "crops" / "0.png").write_bytes(IMAGES[0])
    assert read(saved, data, tmp_path / "out") == 0
    rows = rows_of(tmp_path / "out")
    assert rows["paths.parquet", 0]["text"] == rows["paths.parquet", 2]["text"] == rows["bytes.parquet", 0]["text"]
    assert "no such file" in rows["paths.parquet", 1]["error"]


@pytest.mark.usefixtures("in_process")
def test_archives(saved, tmp_path, capsys):
    members = [("k/0.png", IMAGES[0]), ("k/0.txt", b"zero"), ("k/1.txt", b"without an image"), ("k/2.png", IMAGES[2])]
    (tmp_path / "data").mkdir()
    write_tar(tmp_path / "data" / "x-000.tar", *members)
    write_tar(tmp_path / "data" / "x-001.tar", ("3.png", IMAGES[3]))
    assert read(saved, tmp_path / "data" / "*.tar", tmp_path / "out", "--keep", "__key__", "--keep", "txt") == 0
    rows = rows_of(tmp_path / "out")
    assert [(part, row["__key__"], row["txt"], bool(row["error"])) for (part, _), row in rows.items()] == [
        ("x-000.tar", "k/0", b"zero", False),
        ("x-000.tar", "k/1", b"without an image", True),
        ("x-000.tar", "k/2", None, False),
        ("x-001.tar", "3", None, False),
    ]
    assert (tmp_path / "out" / "x-001.parquet").is_file()
    assert "2 of 4 rows have no member .txt: their value is null." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--keep", "text"],
            "x-001.tar: the first 2 samples have no member .text to keep; their members are .png, .txt.",
        ),
        (["--keep", "TXT"], "no member .TXT to keep"),
        (
            ["--image", "jpg"],
            "have no image .jpg; their members are .png, .txt. Specify its extension with --image EXTENSION.",
        ),
    ],
)
@pytest.mark.usefixtures("in_process")
def test_extension_that_no_first_sample_has_is_an_error(saved, tmp_path, capsys, words, message):
    data = tmp_path / "data"
    data.mkdir()
    (data / "x-000.tar").write_bytes(b"damaged")
    write_tar(data / "x-001.tar", ("0.png", IMAGES[0]), ("0.txt", b"zero"), ("1.png", IMAGES[1]))
    assert read(saved, data, tmp_path / "out", *words) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("in_process")
def test_dataset_of_the_hub(saved, tmp_path, capsys):
    dataset = tmp_path / "dataset"
    write_table(dataset / "data" / "train-00000-of-00001.parquet", IMAGES)
    write_table(dataset / "data" / "test-00000-of-00001.parquet", IMAGES[:3])
    assert read(saved, f"hub:{dataset}?split=test", tmp_path / "test") == 0
    assert {part for part, _ in rows_of(tmp_path / "test")} == {"data/test-00000-of-00001.parquet"}
    assert read(saved, f"hub:{dataset}", tmp_path / "all") == 0
    assert len(rows_of(tmp_path / "all")) == 11
    assert read(saved, f"hub:{dataset}?split=dev", tmp_path / "dev") == 1
    assert "no split 'dev' (found: train, test)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("files", "words", "message"),
    [
        ([], [], "svtrv2 pack FOLDER OUTPUT"),
        (["a.parquet", "b.tar"], [], "contains .parquet and .tar files"),
        (["a-00000-of-00002.parquet"], [], "1 of 2 shards are missing"),
        (["a.parquet"], ["--image", "crop"], "no column 'crop' among image, key. Specify it with --image COLUMN"),
        (["a.parquet"], ["--keep", "id"], "no column 'id' to keep among image, key"),
        (["a.parquet"], ["--keep", "key", "--keep", "row"], "no column 'row' to keep among image, key"),
    ],
)
@pytest.mark.usefixtures("in_process")
def test_unsuitable_data_are_an_error(saved, tmp_path, capsys, files, words, message):
    data = tmp_path / "data"
    data.mkdir()
    for file in files:
        write_table(data / file, IMAGES[:1], key=["k"])
    assert read(saved, data, tmp_path / "out", *words) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_names_of_parts_are_relative_to_the_dataset(data, tmp_path, monkeypatch):
    def names(place):
        return [part.name for part in parts.plan_parts(str(place)).parts]

    (data / ".hidden").mkdir()
    (data / "_temporary").mkdir()
    for folder in (".hidden", "_temporary"):
        write_table(data / folder / "d.parquet", IMAGES[:1])
    (tmp_path / "link").symlink_to(data)
    for place in (data, tmp_path / "link", f"{data}/more/..", f"file://{data}"):
        assert names(place) == ["a.parquet", "b.parquet", "more/c.parquet"]
    assert names(f"{tmp_path}/link/*.parquet") == ["a.parquet", "b.parquet"]
    assert names(data / "*" / "c.parquet") == ["more/c.parquet"]
    assert names(data / "a.parquet") == ["a.parquet"]
    monkeypatch.chdir(data / "more")
    assert names("../*.parquet") == ["a.parquet", "b.parquet"]
    assert names("c.parquet") == ["c.parquet"]
    assert {"a.parquet", "b.parquet", "more/c.parquet"} <= set(names(f"hub:{tmp_path / 'link'}"))


@pytest.mark.usefixtures("in_process")
def test_kept_column_with_the_name_of_a_result_is_an_error(saved, tmp_path, capsys):
    data = write_table(tmp_path / "data" / "a.parquet", IMAGES[:1], text=["label"], row=[1])
    for column in ("text", "row"):
        assert read(saved, data, tmp_path / "out", "--keep", column) == 1
        assert f"--keep {column}: the results have a column of this name" in capsys.readouterr().err


@pytest.mark.usefixtures("in_process")
def test_unsuitable_output_is_an_error(saved, data, tmp_path, capsys):
    assert read(saved, data, data / "out") == 1
    assert "in the folder of the dataset" in capsys.readouterr().err
    assert read(saved, data / "*.parquet", data) == 1
    assert "has parquet files, but no _run.json" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["x.png", "--input", "data", "--output", "out"], "Specify either images (PATH)"),
        (["--input", "data"], "--input needs --output"),
        (["--input", "data", "--output", "out", "--json"], "does not support --json"),
        (["x.png", "--output", "out"], "--output needs --input"),
        (["--input", "data", "--output", "out", "--shard", "2/2"], "is not I/N"),
    ],
)
def test_options_that_exclude_each_other(words, message, capsys):
    assert main(["read", *words]) == 2
    assert message in capsys.readouterr().err


# Images that end the process


class Lethal:
    """A reader whose texts are the images, some of which end the process."""

    image = "image"
    results = ("text", "error")

    def __init__(self, flag):
        self.flag = flag

    def __call__(self, batch):
        for image in batch["image"]:
            if image == "abort":
                os.abort()
            if image == "memory":
                raise MemoryError
            if image == "once" and not self.flag.exists():
                self.flag.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            if image == "fault":
                raise ValueError("The logits contain NaN")
        return {"text": list(map(str, batch["image"])), "error": [None] * len(batch["image"])}


class Broken(Lethal):
    def __call__(self, batch):
        os.abort()


def test_image_that_ends_the_process_becomes_an_error(tmp_path):
    reader = IsolatedReader(Lethal(tmp_path / "flag"))
    try:
        assert reader(["a", "once"]) == {"text": ["a", "once"], "error": [None, None]}
        columns = reader(["b", "abort", "c", "memory", "d"])
        assert columns["text"] == ["b", "", "c", "", "d"]
        assert columns["error"][::2] == [None, None, None]
        assert "killed by SIGABRT" in columns["error"][1] and "ran out of memory" in columns["error"][3]
        assert reader(["e"]) == {"text": ["e"], "error": [None]}
        with pytest.raises(ValueError, match="NaN"):
            reader(["fault"])
        assert reader(["f"])["text"] == ["f"]
    finally:
        reader.close()


def test_process_that_ends_without_an_image_is_an_error(tmp_path):
    with pytest.raises(ChildProcessError, match=r"killed by SIGABRT while it loaded the model"):
        IsolatedReader(Broken(tmp_path))([png()])


def test_process_that_cannot_be_started_is_closed(monkeypatch):
    def fail(process):
        raise RuntimeError(
            "if __name__ == '__main__'"
        )  # as multiprocessing, while it imports a script without this line

    monkeypatch.setattr("multiprocessing.process.BaseProcess.start", fail)
    reader = IsolatedReader(None)
    with pytest.raises(RuntimeError, match="__main__"):
        reader([png()])
    reader.close()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_stopped_run_continues(saved, tmp_path, number, request):
    """In new processes; the main process receives a signal."""
    data, output = tmp_path / "data", tmp_path / "out"
    for part in range(16):
        write_table(data / f"{part:02}.parquet", IMAGES * 4)
    command = [sys.executable, "-m", "svtrv2_hf.cli", "read", "--model", saved, "--input", data, "--output", output]
    process = subprocess.Popen([*command, "--workers", "2"], stderr=subprocess.PIPE, text=True, start_new_session=True)
    while process.poll() is None and not any(output.glob("*.parquet")):
        time.sleep(0.01)
    (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
    _, errors = process.communicate()
    assert process.returncode == (130 if number == signal.SIGINT else -number), errors
    assert "Traceback" not in errors
    done = texts(output)
    assert 0 < len(done) < 16 * 32
    if number == signal.SIGINT:
        assert not leftovers(output)
        assert "run the same command to continue" in errors
    request.getfixturevalue("in_process")
    assert read(saved, data, output) == 0
    assert InProcess.images == 16 * 32 - len(done)
    assert len(rows_of(output)) == 16 * 32
    assert not leftovers(output)


# svtrv2 pack


@pytest.mark.usefixtures("in_process")
def test_packed_folder_is_read(saved, tmp_path, capsys):
    crops = tmp_path / "crops"
    (crops / "more").mkdir(parents=True)
    names = [f"{'more/' * (number % 2)}{number}.png" for number in range(len(IMAGES))]
    for name, image in zip(names, IMAGES, strict=True):
        (crops / name).write_bytes(image)
    (crops / "notes.txt").write_text("not an image")
    assert main(["pack", str(crops), str(tmp_path / "packed"), "--rows", "3"]) == 0
    assert "8 images in 3 files" in capsys.readouterr().out
    assert (tmp_path / "packed" / "part-00002-of-00003.parquet").is_file()
    assert read(saved, tmp_path / "packed", tmp_path / "out", "--keep", "file_name") == 0
    result = {row["file_name"]: row["text"] for row in rows_of(tmp_path / "out").values()}
    expected = BatchReader(str(saved))({"image": IMAGES})["text"]
    assert result == dict(zip(names, expected, strict=True))
    from datasets import load_dataset

    packed = load_dataset(
        "parquet", data_dir=str(tmp_path / "packed"), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert packed[0]["image"].size == draw(WORDS[0]).size


def test_images_that_cannot_be_packed_are_reported(tmp_path, capsys, monkeypatch):
    (tmp_path / "crops").mkdir()
    for number in range(2):
        (tmp_path / "crops" / f"{number}.png").write_bytes(png() + bytes(1000 * number))
    monkeypatch.setattr("svtrv2_hf.bulk.pack.MAX_BYTES", 500)
    assert main(["pack", str(tmp_path / "crops"), str(tmp_path / "packed")]) == 1
    assert "1 of 2 images could not be copied" in capsys.readouterr().err
    [file] = (tmp_path / "packed").iterdir()
    assert [row["image"]["bytes"] for row in pq.read_table(file).to_pylist()] == [png(), None]
    assert main(["pack", str(tmp_path / "crops"), str(tmp_path / "packed")]) == 1
    assert "is not empty" in capsys.readouterr().err
    assert main(["pack", str(tmp_path / "missing"), str(tmp_path / "other")]) == 1
    assert "Folder not found" in capsys.readouterr().err
