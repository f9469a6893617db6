"""Damaged data of every format yield the same number of samples or an error that names the file, not less data or a crash."""

import io
import json
import random
import signal
import subprocess
import sys
from pathlib import Path

import conftest
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from svtrv2_hf.sources import open_source


WORDS = ["EXIT", 'say "x"', "a, b", "007", "NA", "caf\u00e9", "\u65e5\u672c\u8a9e", "hotel", "#", "True"]
READER = """
import json, sys
sys.path.insert(0, sys.argv[1])
from test_fuzz_data import read
print("ready", flush=True)
for line in sys.stdin:
    print(json.dumps(read(json.loads(line))), flush=True)
"""


def read(spec):
    """Labels and image lengths of a source, or its error."""
    try:
        samples = list(open_source(str(spec)).read())
    except (ValueError, OSError) as error:
        return {"error": str(error)}
    except Exception as error:
        return {"failure": f"{type(error).__name__}: {error}"}
    return {"texts": [sample.text for sample in samples], "bytes": [len(sample.image) for sample in samples]}


class Reader:
    """Reads sources in another process, which damaged LMDBs may kill, and starts it again."""

    process = None

    def __call__(self, spec):
        if self.process is None:
            self.process = subprocess.Popen(
                [sys.executable, "-c", READER, str(Path(__file__).parent)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            assert self.process.stdout.readline() == "ready\n"
        try:
            self.process.stdin.write(json.dumps(str(spec)) + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if answer:
            return json.loads(answer)
        status = self.process.wait()
        self.close()
        return {"failure": f"the process ended with status {status}"}

    def close(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process.stdin.close()
            self.process.stdout.close()
            self.process = None


@pytest.fixture(scope="module")
def reader():
    reader = Reader()
    yield reader
    reader.close()


def image(number):
    file = io.BytesIO()
    # noise, so that images are longer than a block
    Image.effect_noise((20 + number, 20), 90).save(file, "PNG")
    return file.getvalue()


SAMPLES = [(image(number), text) for number, text in enumerate(WORDS)]


def write_listing(name):
    return lambda folder: conftest.write_rows(folder / name, conftest.write_files(folder, SAMPLES))


def write_lmdb(folder):
    conftest.write_lmdb(folder, SAMPLES)
    (folder / "lock.mdb").unlink()
    return folder / "data.mdb"


def write_parquet(folder):
    images, texts = zip(*SAMPLES, strict=True)
    pq.write_table(pa.table({"image": images, "text": texts}), folder / "a.parquet", row_group_size=5)
    return folder / "a.parquet"


def write_tar(folder):
    return conftest.write_tar(folder / "a.tar", *conftest.pairs(SAMPLES))


# writer, and whether a truncated file can be detected if it ends with a line
FORMATS = {
    "tsv": (write_listing("labels.tsv"), False),
    "csv": (write_listing("metadata.csv"), False),
    "jsonl": (write_listing("metadata.jsonl"), False),
    "lmdb": (write_lmdb, True),
    "parquet": (write_parquet, True),
    "tar": (write_tar, True),
}


def flipped(content, seed):
    """Change one to three bytes."""
    rng = random.Random(seed)
    damaged = bytearray(content)
    for _ in range(rng.randint(1, 3)):
        damaged[rng.randrange(len(damaged))] = rng.randrange(256)
    return bytes(damaged)


def mistakes(reader, name, tmp_path, flips, step):
    """Yield damaged files that are read with fewer samples, or whose error does not name the file."""
    write, ends_with_a_marker = FORMATS[name]
    path = write(tmp_path)
    content = path.read_bytes()
    place = path.parent if name == "lmdb" else path
    whole = reader(place)
    assert whole == {"texts": WORDS, "bytes": [len(one) for one, _ in SAMPLES]}
    for case in [
        *(f"cut at {end}" for end in range(0, len(content), step)),
        *(f"seed {seed}" for seed in range(flips)),
    ]:
        how, number = case.rsplit(" ", 1)
        cut = how == "cut at"
        path.write_bytes(content[: int(number)] if cut else flipped(content, int(number)))
        answer = reader(place)
        # LMDB trusts the pointers in its pages; those beyond the end of the file kill the process.
        if name == "lmdb" and not cut and answer.get("failure", "").endswith(f"status {-signal.SIGBUS}"):
            continue
        if "failure" in answer or ("error" in answer and str(path.parent) not in answer["error"]):
            yield case, answer
        elif "texts" in answer:
            if cut and ends_with_a_marker and answer != whole:
                yield case, answer
            if not cut and len(answer["texts"]) != len(WORDS):
                yield case, answer


@pytest.mark.parametrize("name", FORMATS)
def test_damaged_files(name, tmp_path):
    size = FORMATS[name][0](tmp_path).stat().st_size
    assert list(mistakes(read, name, tmp_path, flips=10, step=max(size // 10, 1))) == []


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", FORMATS)
def test_many_damaged_files(reader, name, tmp_path):
    step = 512 if FORMATS[name][1] else 16
    assert list(mistakes(reader, name, tmp_path, flips=2000, step=step)) == []
