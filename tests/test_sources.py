"""Sources of labeled images, their parts, and mixtures of them."""

import csv
import io
import itertools
import os
import pickle
from collections import Counter, defaultdict

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import labeled, pairs, png, write_files, write_lmdb, write_rows, write_tar
from PIL import Image
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from svtrv2_hf.checkpoint import checkpoint_folder
from svtrv2_hf.data.mixing import mix
from svtrv2_hf.evaluation.benchmarks import find_sets
from svtrv2_hf.sources import Spec, describe, formats, open_source, parquet_shards, streamed_source
from svtrv2_hf.sources.shards import Shards
from svtrv2_hf.sources.splits import splits_of_paths
from svtrv2_hf.sources.streamed_source import StreamedSource


# Texts that parsers tend to change.
HARD = ["NA", "null", "007", "1e5", "a, b", 'say "x"', " t\u00e4b ", "\u65e5\u672c\u8a9e", "#", "True"]


def samples_of(name, count=37):
    return [(png(number), f"{name}-{number}") for number in range(count - len(HARD))] + [
        (png(200 + number), text) for number, text in enumerate(HARD)
    ]


def split(samples, shards):
    return [samples[shard::shards] for shard in range(shards)]


def write_parquet(folder, samples, shards=4):
    """Plain parquet as of other programs, whose schema does not mention images."""
    folder.mkdir(parents=True)
    for shard, part in enumerate(split(samples, shards)):
        columns = {"jpg": [image for image, _ in part], "word": [text for _, text in part], "number": [0] * len(part)}
        pq.write_table(pa.table(columns), folder / f"{shard}.parquet")


def write_typed_parquet(folder, samples, shards=2):
    """Parquet as of `datasets`."""
    folder.mkdir(parents=True)
    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
    for shard, part in enumerate(split(samples, shards)):
        columns = {"image": [{"bytes": image, "path": None} for image, _ in part], "text": [text for _, text in part]}
        datasets.Dataset.from_dict(columns, features=features).to_parquet(
            folder / f"train-{shard:05}-of-{shards:05}.parquet"
        )


def write_tars(folder, samples, shards=3):
    folder.mkdir(parents=True)
    for shard, part in enumerate(split(samples, shards)):
        write_tar(folder / f"{shard}.tar", *pairs(part))


@pytest.fixture(scope="module")
def kinds(tmp_path_factory):
    """A specification of each kind of place, and its images by text."""
    root = tmp_path_factory.mktemp("kinds")
    specs = {
        "folder": root / "folder",
        "list": root / "list" / "train_list.txt",
        "csv": root / "csv",
        "jsonl": f"{root}/jsonl/metadata.jsonl",
        "table": root / "table",
        "lmdb": root / "lmdb",
        "nested": root / "nested",
        "parquet": f"{root}/parquet/*.parquet?samples=37",
        "typed": root / "typed",
        "tar": root / "tar",
        "hub": f"hub:{root}/hub?split=train",
        "paths": f"hub:{root}/paths",
    }
    data = {name: samples_of(name) for name in specs}
    write_rows(root / "labels.tsv", write_files(root / "folder" / "images", data["folder"]))
    (root / "labels.tsv").rename(root / "folder" / "labels.tsv")
    for name, listing in (
        ("list", "train_list.txt"),
        ("csv", "metadata.csv"),
        ("jsonl", "metadata.jsonl"),
        ("table", "metadata.parquet"),
        ("paths", "metadata.jsonl"),
    ):
        files = write_files(root / name / "crops", data[name])
        write_rows(root / name / listing, [(f"crops/{file}", text) for file, text in files])
    for name in ("train", "test"):
        write_rows(root / "folders" / name / "metadata.csv", write_files(root / "folders" / name, data["csv"]))
    write_lmdb(root / "lmdb", data["lmdb"])
    for place, part in zip(("b", "a/deep", "a"), split(data["nested"], 3), strict=True):
        write_lmdb(root / "nested" / place / "x", part)
    write_parquet(root / "parquet", data["parquet"])
    write_typed_parquet(root / "typed", data["typed"])
    write_tars(root / "tar", data["tar"])
    write_typed_parquet(root / "hub" / "data", data["hub"], shards=4)
    pq.write_table(pa.table({"image": [b""], "text": ["no"]}), root / "hub" / "data" / "test-00000-of-00001.parquet")
    return {name: (str(spec), {text: image for image, text in data[name]}) for name, spec in specs.items()}


class Reader(IterableDataset):
    """Items of one rank; `reading(part, parts)` yields them."""

    def __init__(self, reading, rank, ranks):
        self.reading = reading
        self.rank = rank
        self.ranks = ranks

    def __iter__(self):
        worker = get_worker_info()
        workers = worker.num_workers if worker else 1
        part = self.rank * workers + (worker.id if worker else 0)
        for item in self.reading(part, self.ranks * workers):
            yield (part, worker is not None and os.getpid(), *item)


def read_by_all(reading, workers, ranks):
    loaders = [DataLoader(Reader(reading, rank, ranks), batch_size=None, num_workers=workers) for rank in range(ranks)]
    return [item for loader in loaders for item in loader]


@pytest.mark.parametrize(("workers", "ranks"), list(itertools.product([0, 1, 2], [1, 2])))
def test_parts_of_an_epoch_contain_every_sample_once(kinds, workers, ranks):
    sources = {name: open_source(spec) for name, (spec, _) in kinds.items()}
    # Workers inherit sources that are being read.
    begun = [source.read(seed=1) for source in sources.values()]
    for name, stream in zip(sources, begun, strict=True):
        assert next(stream).text in kinds[name][1]
        assert sorted(sources[name].texts()) == sorted(kinds[name][1])

    def two_epochs(part, parts):
        for name, source in sources.items():
            for epoch in range(2):
                for sample in source.read(part, parts, seed=5, epoch=epoch):
                    yield name, epoch, sample

    seen = defaultdict(list)
    processes = set()
    for part, process, name, epoch, sample in read_by_all(two_epochs, workers, ranks):
        processes.add((part, process))
        seen[name, epoch].append(sample)
    assert len(processes) == ranks * max(1, workers)
    for name, (_, expected) in kinds.items():
        orders = [[sample.text for sample in seen[name, epoch]] for epoch in range(2)]
        for epoch, order in enumerate(orders):
            assert Counter(order) == Counter(list(expected)), f"{name}, epoch {epoch}"
            assert all(sample.image == expected[sample.text] for sample in seen[name, epoch]), name
        assert orders[0] != orders[1], name
    for name, stream in zip(sources, begun, strict=True):
        assert len(list(stream)) == len(kinds[name][1]) - 1, name


@pytest.fixture(scope="module")
def sorted_shards(tmp_path_factory):
    """20 shards of 100 sorted samples each: as parquet, as tars, and as the row groups of one parquet file."""
    root = tmp_path_factory.mktemp("sorted")
    samples = [(b"x" * 50, f"{number:04}") for number in range(2000)]
    for shard in range(20):
        part = samples[100 * shard : 100 * shard + 100]
        write_parquet(root / f"parquet{shard}", part, shards=1)
        write_tars(root / f"tar{shard}", part, shards=1)
    columns = {"image": [image for image, _ in samples], "text": [text for _, text in samples]}
    pq.write_table(pa.table(columns), root / "one.parquet", row_group_size=100)
    return root


@pytest.mark.parametrize("place", ["parquet*/0.parquet", "tar*/0.tar", "one.parquet"])
@pytest.mark.parametrize("parts", [1, 2, 3])
def test_shuffling_interleaves_shards(sorted_shards, place, parts, monkeypatch):
    source = open_source(f"{sorted_shards}/{place}")
    monkeypatch.setattr(streamed_source, "BUFFER", 50)
    for limit in (1 << 20, 500):  # 50 samples, and 10
        monkeypatch.setattr(streamed_source, "BUFFER_BYTES", limit)
        orders = [[int(sample.text) for sample in source.read(part, parts, seed=3)] for part in range(parts)]
        assert sorted(itertools.chain(*orders)) == list(range(2000))
        for order in orders:
            assert len({number // 100 for number in order[:100]}) >= min(10, 20 // parts)
            steps = sorted(abs(a - b) for a, b in itertools.pairwise(order))
            assert steps[len(steps) // 2] > 300, "about 580 if shuffled as a whole"


def test_number_of_open_row_groups_depends_on_their_size(sorted_shards, monkeypatch):
    monkeypatch.setattr(parquet_shards, "OPEN_BYTES", 5000)  # a row group has more than 1,000
    assert 2 <= open_source(f"{sorted_shards}/one.parquet").open_shards <= 4


def test_order_depends_on_seed_and_epoch_only(kinds):
    for name, (spec, expected) in kinds.items():

        def order(seed, epoch, source, parts=1):
            return [sample.text for part in range(parts) for sample in source.read(part, parts, seed, epoch)]

        source = open_source(spec)
        assert order(3, 1, source) == order(3, 1, open_source(spec)), name
        assert order(3, 1, source) != order(4, 1, source), name
        assert order(3, 1, source) != order(3, 0, source), name
        assert order(None, 0, source) == order(None, 7, source) == list(source.texts()), name
        assert sorted(order(None, 7, source, parts=3)) == sorted(expected), name


def test_sources_can_be_pickled_and_keep_the_order_of_files(kinds):
    for name, (spec, expected) in kinds.items():
        source = open_source(spec)
        if name in ("folder", "list", "csv", "jsonl", "lmdb", "paths"):
            assert list(source.texts()) == list(expected), name
        assert list(pickle.loads(pickle.dumps(source)).read(seed=1)) == list(source.read(seed=1)), name
    nested = list(open_source(kinds["nested"][0]).texts())
    deep, flat, last = (set(part) for part in (nested[:12], nested[12:24], nested[24:]))
    texts = split(list(kinds["nested"][1]), 3)
    assert [deep, flat, last] == [set(texts[1]), set(texts[2]), set(texts[0])], "sorted by path"


def test_number_of_samples_name_and_weight(kinds, tmp_path):
    for name, (spec, expected) in kinds.items():
        source = open_source(spec)
        assert source.num_samples == (None if name in ("tar", "paths") else len(expected)), name
        assert source.weight is None
    tar = kinds["tar"][0]
    source = open_source(f"{tar}?samples=5&weight=.5&name=my%20tars")
    assert (source.num_samples, source.weight, source.name) == (5, 0.5, "my tars")
    assert [open_source(kinds[name][0]).name for name in ("folder", "list", "hub")] == ["folder", "train_list", "hub"]
    odd = tmp_path / "why?not=this"
    rows = write_files(odd, [(png(1), "a")])
    write_rows(odd / "labels.tsv", rows)
    assert open_source(f"{odd}?weight=2").weight == 2, "only the last question mark starts the options"


def test_error_counts_all_missing_files_of_a_list(tmp_path):
    (tmp_path / "3.png").write_bytes(b"image")
    (tmp_path / "labels.tsv").write_text("".join(f"{number}.png\ta\n" for number in range(500)))
    with pytest.raises(FileNotFoundError) as error:
        open_source(str(tmp_path))
    message = str(error.value)
    assert "labels.tsv: 499 of its 500 files are missing" in message
    assert [f"(line {number + 1})" in message for number in (0, 1, 2, 4)] == [True, True, True, False]
    assert str(tmp_path / "2.png") in message


def test_lines_of_a_list(tmp_path):
    (tmp_path / "a.png").write_bytes(b"image")
    lines = ["a.png\tone\r", "", "a.png\t", "a.png\t two words ", "a.png\tcarriage\rreturn"]
    (tmp_path / "labels.tsv").write_bytes("\n".join(lines).encode("utf-8-sig"))
    source = open_source(str(tmp_path / "labels.tsv"))
    assert list(source.texts()) == ["one", "", " two words ", "carriage\rreturn"]
    assert next(source.read()) == (b"image", "one", str(tmp_path / "a.png"))


def test_columns_of_metadata_can_be_specified(tmp_path):
    (tmp_path / "a.png").write_bytes(b"image")
    write_rows(tmp_path / "metadata.csv", [("a.png", "yes", "no")], ("file", "text", "label"))
    assert list(open_source(f"{tmp_path}?image=file&text=text").texts()) == ["yes"]
    (tmp_path / "metadata.csv").unlink()
    write_rows(tmp_path / "metadata.jsonl", [("a.png", None)])
    assert list(open_source(str(tmp_path)).texts()) == [""], "null is an empty label"


@pytest.mark.parametrize(
    "header", [("filename", "words"), ("FILENAME", "IDENTITY"), ("image_path", "gt"), ("path", "label")]
)
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_csv_of_other_programs(tmp_path, header, separator):
    (tmp_path / "a.png").write_bytes(b"image")
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        csv.writer(file, delimiter=separator).writerows([header, ("a.png", "one, two; three")])
    for place in (tmp_path, tmp_path / "labels.csv"):
        assert next(open_source(str(place)).read())[:2] == (b"image", "one, two; three")


def test_error_for_a_folder_of_save_to_disk(tmp_path):
    dataset = datasets.Dataset.from_dict({"image": [b"x"], "text": ["a"]})
    dataset.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": dataset}).save_to_disk(tmp_path / "several")
    for name in ("one", "several"):
        with pytest.raises(FileNotFoundError, match=r"written by save_to_disk of datasets: convert it to parquet"):
            open_source(str(tmp_path / name))


def test_common_column_names_take_precedence(tmp_path):
    (tmp_path / "a.png").write_bytes(b"image")
    write_rows(tmp_path / "metadata.csv", [("a.png", "no", "yes", "no")], ("file_name", "path", "text", "sentence"))
    assert list(open_source(str(tmp_path)).texts()) == ["yes"]
    path = parquet_of(tmp_path / "a.parquet", {"images": [b"x"], "ground_truth": ["yes"], "number": [1]})
    assert next(open_source(path).read())[:2] == (b"x", "yes")


def test_missing_records_of_lmdb_are_empty_samples(tmp_path):
    samples = [(png(number), f"text {number}") for number in range(5)]
    missing = {"image-000000002": None, "label-000000003": None}
    write_lmdb(tmp_path / "db", samples, **missing)
    source = open_source(str(tmp_path / "db"))
    read = list(source.read())
    assert [sample.text for sample in read] == list(source.texts()) == ["text 0", "text 1", "", "text 3", "text 4"]
    assert [sample.image for sample in read] == [samples[0][0], b"", *(image for image, _ in samples[2:])]
    assert read[1].name == f"{tmp_path / 'db'}, image-000000002"


def test_linked_lmdb_is_read_once(tmp_path):
    write_lmdb(tmp_path / "elsewhere" / "x", [(b"image", "text")])
    (tmp_path / "all").mkdir()
    for name in ("a", "b"):
        (tmp_path / "all" / name).symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "round").symlink_to(tmp_path / "all")
    assert list(open_source(str(tmp_path / "all")).texts()) == ["text"]
    write_lmdb(tmp_path / "all" / "c", [(b"image", "more")])
    assert sorted(open_source(str(tmp_path / "all")).texts()) == ["more", "text"]
    write_lmdb(tmp_path / "all" / "c" / "d", [(b"image", "below")])
    assert list(open_source(str(tmp_path / "all" / "c")).texts()) == ["more", "below"]


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        (
            "{}/list/crops",
            FileNotFoundError,
            r"(?s)No data in a supported format at .*/list/crops'.*labels.tsv.*\n- LMDB.*\n- parquet.*hub:OWNER/NAME",
        ),
        ("{}/*.parquet", FileNotFoundError, "No data in a supported format"),
        ("{}/list", FileNotFoundError, "No data in a supported format"),
        ("{}/folders", FileNotFoundError, r"/folders'\. Subfolders with data: test, train\. "),
        ("{}/list/crops/0.png", FileNotFoundError, "No data in a supported format"),
        ("https://example.org/labels.tsv", FileNotFoundError, "No data in a supported format"),
        (
            "{}/folder?weights=1",
            ValueError,
            "unknown option weights for list of files; its options are weight, name, split",
        ),
        ("{}/folder?text=label", ValueError, "unknown option text"),
        ("{}/lmdb?samples=3", ValueError, "unknown option samples for LMDB"),
        ("{}/folder?split=test", ValueError, r"no row of the split 'test' \(found: train \(\d+\)\)"),
        ("hub:", ValueError, "'hub:' does not name a dataset"),
        ("hub:/?split=train", ValueError, "'hub:/' does not name a dataset"),
        ("{}/nowhere", FileNotFoundError, "No such file or folder: '.*/nowhere'"),
        ("~nouser/x", FileNotFoundError, "No such file or folder: '~nouser/x'"),
        ("{}/tar?split=val", ValueError, r"no file of the split 'validation' \(found: train \(3\)\)"),
        (
            "{}/hub",
            FileNotFoundError,
            r"Subfolders with data: data\. If the folder is a clone of a Hub dataset, use hub:.*/hub\.",
        ),
        ("{}/lmdb?text=label", ValueError, "unknown option text for LMDB"),
        ("{}/folder?weight=0", ValueError, "weight must be a number above 0, not '0'"),
        ("{}/folder?weight=inf", ValueError, "weight must be a number above 0"),
        ("{}/folder?weight=x", ValueError, "weight must be a number above 0, not 'x'"),
        ("{}/tar?samples=1.5", ValueError, "samples must be a whole number"),
        ("{}/folder?weight=1&weight=2", ValueError, "weight is repeated"),
        ("{}/folder?name=", ValueError, "name has no value"),
        ("{}/typed?image=picture", ValueError, "no column 'picture' among image, text"),
        (
            "hub:{}/hub?split=validation",
            ValueError,
            r"hub has no split 'validation' \(found: train, test\)\. Select one with \?split=NAME",
        ),
    ],
)
def test_invalid_specification_raises(kinds, spec, error, message):
    with pytest.raises(error, match=message):
        open_source(spec.format(kinds["lmdb"][0].removesuffix("/lmdb")))


def test_error_names_an_unknown_home_directory():
    for error, read in (
        (ValueError, checkpoint_folder),
        (FileNotFoundError, find_sets),
        (FileNotFoundError, open_source),
    ):
        with pytest.raises(error, match="~nouser/x"):
            read("~nouser/x")


def test_default_split_of_a_hub_dataset(tmp_path):
    for folder in ("one", "both"):
        (tmp_path / folder).mkdir()
        parquet_of(tmp_path / folder / "train.parquet", {"image": [png(1)], "text": ["train"]})
    parquet_of(tmp_path / "both" / "test.parquet", {"image": [png(2)], "text": ["test"]})
    assert list(open_source(f"hub:{tmp_path}/both").texts()) == ["train"]
    assert list(open_source(f"hub:{tmp_path}/both", split="test").texts()) == ["test"]
    assert list(open_source(f"hub:{tmp_path}/both?split=train", split="test").texts()) == ["train"]
    with pytest.raises(ValueError, match=r"one has no split 'test' \(found: train\)"):
        open_source(f"hub:{tmp_path}/one", split="test")
    # A single split is read under any name.
    assert list(open_source(f"{tmp_path}/one", split="test").texts()) == ["train"]


@pytest.mark.parametrize("kind", ["parquet", "tar", "lmdb", "folders"])
def test_splits_by_names_of_files_and_folders(tmp_path, kind, caplog):
    root = tmp_path / "test" / "data"  # a common parent does not count
    place = {"parquet": f"{root}/*.parquet", "tar": str(root), "lmdb": str(root), "folders": f"{root}/*/*.tar"}[kind]
    root.mkdir(parents=True)
    for name in ("train", "training", "test", "Val"):
        path = root / name
        if kind == "lmdb":
            write_lmdb(path / "MJ_test", [(png(1), name)])
        elif kind == "folders":
            write_tars(path, [(png(1), name)], shards=1)
        elif kind == "tar":
            write_tar(root / f"{name}-00000.tar", *pairs(labeled(name)))
        else:
            parquet_of(root / f"words_{name}-00000-of-00001.parquet", {"image": [png(1)], "text": [name]})
    for split, expected in {"train": ["train", "training"], "test": ["test"]}.items():
        caplog.clear()
        assert sorted(open_source(place, split=split).texts()) == expected
        assert f"test (1), train (2), validation (1): reading only {split};" in caplog.text
    caplog.clear()
    assert list(open_source(f"{place}?split=valid").texts()) == ["Val"]
    assert sorted(open_source(f"{place}?split=all").texts()) == ["Val", "test", "train", "training"]
    assert not caplog.text


def test_files_without_the_name_of_a_split_belong_to_train(tmp_path, caplog):
    for name in ("a", "b", "latest", "validated"):
        parquet_of(tmp_path / f"{name}.parquet", {"image": [png(1)], "text": [name]})
    for split in ("train", "test"):
        assert sorted(open_source(str(tmp_path), split=split).texts()) == ["a", "b", "latest", "validated"]
    assert not caplog.text
    parquet_of(tmp_path / "eval.parquet", {"image": [png(1)], "text": ["eval"]})
    assert sorted(open_source(str(tmp_path)).texts()) == ["a", "b", "latest", "validated"]
    with pytest.raises(ValueError, match=r"no file of the split 'validation' \(found: test \(1\), train \(4\)\)"):
        open_source(str(tmp_path), split="validation")
    assert list(open_source(f"{tmp_path}/eval.parquet").texts()) == ["eval"], "a single split"
    assert sorted(open_source(f"file://{tmp_path}/*.parquet").texts()) == ["a", "b", "latest", "validated"]


@pytest.mark.parametrize(
    "name",
    [
        *("testset", "test_images", "TestSet", "my-testset", "testA", "testb", "TESTING", "evalset", "plates_eval.v2"),
        *("holdout", "heldout", "held_out", "Hold-Out", "unseen_fonts", "test_unseen"),
    ],
)
def test_other_names_of_a_test_split(tmp_path, name):
    for one, text in (("trainset", "train"), (name, "test")):
        parquet_of(tmp_path / f"{one}.parquet", {"image": [png(1)], "text": [text]})
        write_lmdb(tmp_path / "lmdb" / one, [(png(1), text)])
    for place in (tmp_path, tmp_path / "lmdb"):
        for split in ("train", "test"):
            assert list(open_source(str(place), split=split).texts()) == [split]


@pytest.mark.parametrize("name", ["validate", "plates_validate", "devset", "valset", "valid_unseen", "validationData"])
def test_other_names_of_a_validation_split(tmp_path, name):
    assert splits_of_paths([f"a/{name}.parquet", "a/b.parquet"], by_name=True) == ["validation", "train"]
    assert splits_of_paths([f"a/{name}/data.mdb", "a/b/data.mdb"], by_name=True) == ["validation", "train"]


@pytest.mark.parametrize(
    "name",
    ["latest", "contest", "Contest2", "devices", "deva", "validated", "evaluated", "attest", "household_outdoor"],
)
def test_words_that_do_not_name_splits(name):
    assert splits_of_paths([f"a/{name}.parquet", f"a/{name}/0.tar"], by_name=True) == ["train", "train"]


def test_file_name_of_two_splits_raises(tmp_path):
    parquet_of(tmp_path / "train_test-0.parquet", {"image": [png(1)], "text": ["both"]})
    assert list(open_source(str(tmp_path)).texts()) == ["both"]
    parquet_of(tmp_path / "train-0.parquet", {"image": [png(1)], "text": ["train"]})
    message = (
        r"several splits, and .*train_test-0\.parquet may be test and train: select one .* every file with \?split=all"
    )
    with pytest.raises(ValueError, match=message):
        open_source(str(tmp_path))
    assert list(open_source(f"{tmp_path}?split=train").texts()) == ["train"]
    assert list(open_source(f"{tmp_path}?split=all").texts()) == ["train", "both"]


@pytest.mark.parametrize("name", ["labels.tsv", "list.tsv", "metadata.csv", "metadata.jsonl", "metadata.parquet"])
def test_rows_are_split_by_folders_of_their_files(tmp_path, name, caplog):
    rows = [("train/0.png", "train 0"), (f"{tmp_path}/trainset/0.png", "train 1"), ("test_images/0.png", "test 0")]
    for file, _ in rows:
        (tmp_path / file).parent.mkdir()
        (tmp_path / file).write_bytes(png(1))
    listing = write_rows(tmp_path / name, [*rows, ("val/0.png", "missing")])
    for split, expected in (("train", ["train 0", "train 1"]), ("test", ["test 0"])):
        caplog.clear()
        assert list(open_source(str(listing), split=split).texts()) == expected
        assert (
            f"{listing} has rows of several splits, test (1), train (2), validation (1): reading only {split};"
            in caplog.text
        )
    caplog.clear()
    assert list(open_source(f"{listing}?split=test").texts()) == ["test 0"]
    with pytest.raises(FileNotFoundError, match=r"line [45]: .*val/0\.png is not found"):
        open_source(f"{listing}?split=validation")
    write_rows(listing, rows)
    assert list(open_source(f"{listing}?split=all").texts()) == ["train 0", "train 1", "test 0"]
    write_rows(listing, [("test_images/0.png", "a")])
    assert list(open_source(str(listing)).texts()) == ["a"], "a single split"
    assert not caplog.text


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl", "metadata.parquet"])
def test_rows_are_split_by_a_column(tmp_path, name):
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(png(number))
    columns = ("file_name", "text", "Split")
    listing = write_rows(
        tmp_path / name, [("0.png", "a", "train"), ("1.png", "b", "TEST"), ("2.png", "c", "val")], columns
    )
    assert [list(open_source(str(listing), split=split).texts()) for split in ("train", "test", "all")] == [
        ["a"],
        ["b"],
        ["a", "b", "c"],
    ]
    assert list(open_source(f"{listing}?split=valid").texts()) == ["c"]
    write_rows(listing, [("0.png", "a", "fold1"), ("1.png", "b", "fold2")], columns)
    assert list(open_source(str(listing)).texts()) == ["a", "b"], "other values do not split the rows"


def test_parquet_with_several_splits_in_a_column_raises(tmp_path):
    columns = {"image": [png(1), png(2)], "text": ["a", "b"]}
    path = parquet_of(tmp_path / "a.parquet", {**columns, "split": ["train", "test"]})
    with pytest.raises(
        ValueError, match=r"a\.parquet: the column split names several splits, test, train: .*\?split=all"
    ):
        open_source(path)
    assert list(open_source(f"{path}?split=all").texts()) == ["a", "b"]
    for values in (["test", "test"], ["x", "y"], [None, None], [1, 2]):
        parquet_of(tmp_path / "a.parquet", {**columns, "split": values})
        assert list(open_source(path).texts()) == ["a", "b"]


def test_place_with_two_formats_raises(tmp_path):
    write_tars(tmp_path / "data", [(png(1), "a")], shards=1)
    write_rows(tmp_path / "data" / "labels.tsv", [])
    for pattern in ("", "/*"):
        with pytest.raises(ValueError, match=r"several datasets.*: \*\.tar, labels\.tsv\."):
            open_source(f"{tmp_path / 'data'}{pattern}")
    assert list(open_source(f"{tmp_path / 'data'}/*.tar").texts()) == ["a"]


def parquet_of(path, columns, **features):
    if features:
        datasets.Dataset.from_dict(columns, features=datasets.Features(features)).to_parquet(path)
    else:
        pq.write_table(pa.table(columns), path)
    return str(path)


def test_columns_of_streams(tmp_path):
    columns = {"image": [b"x"], "text": ["yes"], "label": ["no"], "jpg": [b"y"], "number": [7]}
    path = parquet_of(tmp_path / "many.parquet", columns)
    with pytest.raises(
        ValueError, match=r"several possible image columns among image, text, label, jpg, number\. .*\?image="
    ):
        open_source(path)
    with pytest.raises(ValueError, match="several possible text columns"):
        open_source(f"{path}?image=jpg")
    sample = next(open_source(f"{path}?image=jpg&text=label").read())
    assert sample[:2] == (b"y", "no")
    assert "many.parquet" in sample.name
    with pytest.raises(ValueError, match="the text column number contains 7"):
        open_source(f"{path}?image=jpg&text=number")
    with pytest.raises(ValueError, match="the image column text contains a str"):
        open_source(f"{path}?image=text&text=label")
    classes = {"image": datasets.Value("binary"), "label": datasets.ClassLabel(names=["a", "b"])}
    path = parquet_of(tmp_path / "classes.parquet", {"image": [b"x"], "label": [1]}, **classes)
    with pytest.raises(ValueError, match="the text column label contains 1"):
        open_source(path)


def test_missing_values_of_parquet_are_empty_samples(tmp_path):
    (tmp_path / "there.png").write_bytes(b"there")
    paths = [str(tmp_path / "there.png"), str(tmp_path / "missing.png"), None]
    images = [{"bytes": b"x", "path": "a.png"}, *({"bytes": None, "path": path} for path in paths), None]
    path = parquet_of(tmp_path / "a.parquet", {"image": images, "text": ["a", "b", None, "d", "e"]})
    source = open_source(path)
    read = list(source.read())
    assert [sample.image for sample in read] == [b"x", b"there", b"", b"", b""]
    assert [sample.text for sample in read] == list(source.texts()) == ["a", "b", "", "d", "e"]
    assert [sample.name for sample in read[:2]] == ["a.png", paths[0]]


class Rows(Shards):
    """A single shard of rows in memory."""

    def __init__(self, *rows):
        self._rows = rows

    def shards(self):
        return [self._rows]

    def rows(self, shard, columns):
        return ({name: row[name] for name in columns or row} for row in shard)


def test_custom_shards():
    image = Image.new("RGB", (3, 2), (1, 1, 2))
    source = StreamedSource(Rows({"image": image, "text": "a"}), Spec("mine", "mine"))
    with Image.open(io.BytesIO(next(source.read()).image)) as read:
        assert read.tobytes() == image.tobytes()
    for row, message in (
        ({"image": 7, "text": "a"}, "the image column image contains a int"),
        ({"image": b"", "text": 7}, "the text column text contains 7"),
    ):
        with pytest.raises(ValueError, match=f"mine: {message}"):
            StreamedSource(Rows(row), Spec("mine", "mine"))
    with pytest.raises(ValueError, match="No samples in mine"):
        StreamedSource(Rows(), Spec("mine", "mine"))


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("weights", [None, (3, 1, 1)])
def test_mixture_yields_every_sample_once_per_epoch_of_its_source(kinds, weights, workers, ranks):
    names = ["nested", "typed", "csv"]
    sources = [open_source(kinds[name][0]) for name in names]
    for source, weight in zip(sources, weights or (), strict=bool(weights)):
        source.weight = weight

    def two_epochs(part, parts):
        epochs = [0] * len(sources)
        for number, epoch, sample in mix(sources, part, parts, seed=2):
            epochs[number] = epoch
            if min(epochs) == 2:
                return
            yield number, epoch, sample

    seen = defaultdict(Counter)
    numbers = Counter()
    for *_, number, epoch, sample in read_by_all(two_epochs, workers, ranks):
        numbers[number] += 1
        seen[number, epoch][sample.text] += 1
        assert sample.image == kinds[names[number]][1][sample.text]
    for number, name in enumerate(names):
        for epoch in range(2):
            assert seen[number, epoch] == Counter(list(kinds[name][1])), (name, epoch)
    share = numbers[0] / numbers.total()
    assert share == pytest.approx(0.6 if weights else 1 / 3, abs=0.1 if weights else 0.02)


def in_memory(count, name="memory", weight=None, declared=None):
    """`count` samples, with another declared number."""
    rows = ({"image": b"", "text": f"{name} {number}"} for number in range(count))
    return StreamedSource(Rows(*rows), Spec(name, name, {"weight": str(weight)} if weight else {}), declared)


def first_epochs(stream, epochs):
    return list(itertools.takewhile(lambda item: item[1] < epochs, stream))


def test_sources_are_mixed_over_the_whole_epoch():
    items = first_epochs(mix([in_memory(400, "a", declared=400), in_memory(100, "b", declared=100)], 0, 1, seed=0), 1)
    assert len(items) == 500
    for start in range(0, 500, 100):
        assert 5 <= sum(number == 1 for number, *_ in items[start : start + 100]) <= 40


@pytest.mark.parametrize("declared", [4, 20, 33])
def test_wrong_number_of_samples_neither_drops_nor_repeats_samples(declared):
    sources = [in_memory(20, "a", declared=declared), in_memory(10, "b", declared=10)]
    for part in range(2):
        items = first_epochs(mix(sources, part, 2, seed=1), 3)
        counts = Counter((number, epoch, sample.text) for number, epoch, sample in items)
        assert set(counts.values()) == {1}
        assert Counter((number, epoch) for number, epoch, _ in counts) == {
            (number, epoch): count for number, count in ((0, 10), (1, 5)) for epoch in range(3)
        }
    later = [number for number, epoch, _ in items if epoch == 1]
    assert 1 in later[-8:] and 0 in later[:8], "the second epoch uses the counted numbers"


def test_mixture_depends_on_its_seed_only():
    assert len(first_epochs(mix([in_memory(7)], 0, 1, seed=0), 3)) == 21
    weighted = [in_memory(30, "a", weight=1), in_memory(30, "b", weight=2)]

    def start(part, seed):
        return [(number, sample.text) for number, _, sample in itertools.islice(mix(weighted, part, 2, seed), 40)]

    assert start(0, 1) == start(0, 1)
    assert start(0, 1) != start(0, 2)
    assert [number for number, _ in start(0, 1)] != [number for number, _ in start(1, 1)]


def test_invalid_mixture_raises(tmp_path):
    with pytest.raises(ValueError, match="No sources"):
        mix([], 0, 1, 0)
    with pytest.raises(ValueError, match="weight of all sources or of none; it is missing for: b, c"):
        mix([in_memory(1, "a", weight=1), in_memory(1, "b"), in_memory(1, "c")], 0, 1, 0)
    with pytest.raises(ValueError, match=r"Unknown number of samples: b\. .*\?weight=1.*\?samples=N"):
        mix([in_memory(1, "a", declared=1), in_memory(1, "b")], 0, 1, 0)
    message = r"source few has no samples for part 2 of 3.*fewer samples \(or shards\).*Lower the number of workers"
    few, many = in_memory(2, "few"), in_memory(9, "many")
    with pytest.raises(ValueError, match=message):
        list(mix([few], 2, 3, 0))
    few.weight = many.weight = 1
    with pytest.raises(ValueError, match=message):
        list(mix([many, few], 2, 3, 0))
    with pytest.raises(ValueError, match=message):
        list(mix([in_memory(9, "many", declared=9), in_memory(2, "few", declared=9)], 2, 3, 0))
    with pytest.raises(ValueError, match=message):
        mix([in_memory(2, "few", declared=2)], 2, 3, 0)


PLUGIN = """
from svtrv2_hf.data.sample import IndexedSource, Sample
from svtrv2_hf.sources import Format, Option

class Numbers(IndexedSource):
    def __init__(self, spec, files):
        self.name, self.weight, self.files = spec.name, spec.weight, files
        self.num_samples = int(spec.number("limit") or 3)

    def fetch(self, indices):
        return [Sample(b"", str(index), self.files[0]) for index in indices]

    def texts(self):
        return map(str, range(self.num_samples))

FORMAT = Format(
    name="numbers",
    help="a `.numbers` file",
    options=(Option("limit", "largest number"),),
    match=lambda place: place.find(".numbers"),
    open=Numbers,
)
"""


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """An installed package with a source format."""
    (tmp_path / "numbers_plugin.py").write_text(PLUGIN)
    metadata = tmp_path / "numbers_plugin-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: numbers-plugin\nVersion: 1.0\n")
    lines = ["[svtrv2_hf.sources]", "numbers = numbers_plugin:FORMAT", "broken = missing_plugin:FORMAT"]
    (metadata / "entry_points.txt").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(tmp_path)
    formats.cache_clear()
    yield tmp_path
    formats.cache_clear()


def test_formats_of_other_packages(plugin, caplog):
    (plugin / "a.numbers").touch()
    source = open_source(f"{plugin}/a.numbers?limit=5&weight=2&name=first")
    assert (source.name, source.weight, list(source.texts())) == ("first", 2, ["0", "1", "2", "3", "4"])
    assert [sample.text for sample in open_source(str(plugin)).read()] == ["0", "1", "2"]
    assert "missing_plugin:FORMAT cannot be loaded: No module named 'missing_plugin'" in caplog.text
    with pytest.raises(ValueError, match="unknown option text for numbers; its options are weight, name, limit"):
        open_source(f"{plugin}?text=a")
    with pytest.raises(ValueError, match="limit must be a number above 0, not 'x'"):
        open_source(f"{plugin}?limit=x")
    (plugin / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"(?s)Supported formats:\n.*\n- numbers: a \.numbers file"):
        open_source(str(plugin / "empty"))
    write_rows(plugin / "labels.tsv", [])
    with pytest.raises(ValueError, match=r"several datasets.*: \*\.numbers, labels\.tsv"):
        open_source(str(plugin))
    assert "| numbers " in describe() and "largest number" in describe()
