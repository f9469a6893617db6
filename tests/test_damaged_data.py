"""Truncated and inconsistent data raise errors that name the file; unusual data are read."""

import gzip
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import labeled, pairs, png, write_lmdb, write_tar

from svtrv2_hf.cli import main
from svtrv2_hf.sources import open_source
from svtrv2_hf.sources.decoding import decode


def texts(place):
    source = open_source(str(place))
    read = [sample.text for sample in source.read()]
    assert read == list(source.texts())
    assert source.num_samples in (None, len(read))
    return read


def error_of(place):
    """The error of reading a place to its end."""
    with pytest.raises((ValueError, OSError)) as error:
        list(open_source(str(place)).read())
    assert type(error.value) in (ValueError, FileNotFoundError)
    return str(error.value)


@pytest.fixture
def tar(tmp_path):
    return write_tar(tmp_path / "a.tar", *pairs(labeled("a", "b", "c")))


def member_offset(tar, number):
    with tarfile.open(tar) as archive:
        return archive.getmembers()[number].offset


@pytest.mark.parametrize("after", [0, 200, 512, 560])
def test_truncated_tar_raises(tar, after):
    """Between two samples, in a header, after it, and in the data."""
    content = tar.read_bytes()
    tar.write_bytes(content[: member_offset(tar, 2) + after])
    assert "a.tar" in error_of(tar)
    # the cheap check of the end does not apply to compressed archives
    tar.write_bytes(gzip.compress(tar.read_bytes()))
    assert "a.tar" in error_of(tar)
    tar.write_bytes(gzip.compress(content)[:-9])
    assert "a.tar cannot be read: Compressed file ended before" in error_of(tar)


def test_damaged_tar_raises(tar):
    content = tar.read_bytes()
    offset = member_offset(tar, 2)
    damaged = bytearray(content)
    damaged[offset + 5] ^= 1
    for broken, message in (
        (b"", "a.tar is empty"),
        (b"x" * 4096, "a.tar cannot be read"),
        (content + content, "a.tar has data after its end-of-archive marker"),
        (content[:offset] + bytes(512) + content[offset:], "a.tar has data after its end-of-archive marker"),
        (bytes(damaged), "a.tar cannot be read: bad checksum"),
    ):
        tar.write_bytes(broken)
        assert message in error_of(tar)
    tar.write_bytes(content[: content.index(bytes(1024), offset) + 1024])
    assert texts(tar) == ["a", "b", "c"], "padding after the marker is optional"


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("0.png", png())], r"a\.tar: 0 has no text; its members are \.png"),
        ([*pairs(labeled("a")), ("1.txt", b"b")], r"a\.tar: 1 has no image; its members are \.txt"),
        ([("0.png", b""), ("1.png", b""), ("0.txt", b""), ("1.txt", b"")], "0 has no text.* consecutive"),
        (
            [("0.png", b""), ("0.jpg", b""), ("0.txt", b"")],
            r"0 has several possible images.*\?image=EXTENSION",
        ),
        (
            [*pairs(labeled("a")), *pairs(labeled("b"))[:1], *pairs(labeled("b"))[:1]],
            r"the sample 0 has two members \.png",
        ),
        (
            [("0.png", png()), ("0.txt", b"caf\xe9")],
            r"a\.tar: 0\.txt is not UTF-8 \(it may be Latin-1 or another encoding\): convert it",
        ),
        (
            [("0.png", png()), ("0.txt", "中".encode("gbk"))],
            r"a\.tar: 0\.txt is not UTF-8 \(it may be GBK, Latin-1 or another encoding\)",
        ),
        ([("0.png", png()), ("0.txt", "a".encode("utf-16"))], r"a\.tar: 0\.txt is UTF-16"),
    ],
)
def test_inconsistent_tar_raises(tmp_path, members, message):
    write_tar(tmp_path / "a.tar", *members)
    with pytest.raises(ValueError, match=message):
        list(open_source(str(tmp_path / "a.tar")).read())


def test_unusual_tars_are_read(tmp_path):
    members = [
        ("folder/1.PNG", png(1)),
        ("folder/1.TXT", b"a\n"),
        ("folder/2.jpg", png(2)),
        ("folder/2.txt", b"\xef\xbb\xbfb\r\n"),
        ("folder/._2.jpg", b"of macOS"),
        ("folder/LICENSE", b"without an extension"),
        ("folder/3.jpg", png(3)),
        ("folder/3.json", b"{}"),
        ("folder/3.txt", b" c "),
    ]
    write_tar(tmp_path / "A.TAR", *members)
    assert texts(tmp_path) == texts(tmp_path / "A.TAR") == ["a", "b", " c "]
    first, *_ = open_source(str(tmp_path)).read()
    assert first == (png(1), "a", f"{tmp_path / 'A.TAR'}, folder/1.png")
    (tmp_path / "gz").mkdir()
    (tmp_path / "gz" / "a.tar.gz").write_bytes(gzip.compress((tmp_path / "A.TAR").read_bytes()))
    assert texts(tmp_path / "gz") == ["a", "b", " c "]
    with tarfile.open(tmp_path / "A.TAR", "a") as archive:
        link = tarfile.TarInfo("folder/4.jpg")
        link.type, link.linkname = tarfile.LNKTYPE, "folder/3.jpg"
        archive.addfile(link)
    assert "folder/4.jpg is a link" in error_of(tmp_path / "A.TAR")


def test_tars_without_samples_are_skipped(tmp_path, caplog):
    write_tar(tmp_path / "empty.tar")
    assert "No samples in" in error_of(tmp_path)
    write_tar(tmp_path / "full.tar", *pairs(labeled("a")))
    assert texts(tmp_path) == ["a"]
    assert f"Skipping files without samples: {tmp_path / 'empty.tar'}." in caplog.text


def write_images(folder, count, **others):
    return write_lmdb(folder, [(png(number) * 9, "text") for number in range(1, count + 1)], **others)


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ({"num-samples": b"20"}, r"num-samples is 20, but image-000000021 exists; .* may be up to 30 images"),
        ({"num-samples": b"29"}, "num-samples is 29, but image-000000030 exists"),
        ({"num-samples": b"20", "image-000000021": None}, "num-samples is 20, but image-000000022 exists"),
        ({"num-samples": b"31"}, "num-samples is 31, but image-000000031 is missing; the file has 61 entries"),
        ({"num-samples": b"9" * 11}, "num-samples is 99,999,999,999, but"),
        ({"num-samples": b"9" * 5000}, "num-samples is b'99"),
        ({"num-samples": b"thirty"}, "num-samples is b'thirty'"),
        ({"num-samples": None}, "num-samples is None"),
        ({"num-samples": b"0", **dict.fromkeys(f"image-{n:09}" for n in range(1, 31))}, r"No samples in .*db"),
        ({"image-000000030": None, "image-000000000": b""}, "must be image-000000001, not image-000000000"),
        (
            {"label-000000007": "中文".encode("gbk")},
            r"data\.mdb: label-000000007 is not UTF-8 \(it may be GBK, Latin-1 or another encoding\): convert",
        ),
    ],
)
def test_inconsistent_lmdb_raises(tmp_path, records, message):
    write_images(tmp_path / "db", 30, **records)
    with pytest.raises(ValueError, match=message):
        list(open_source(str(tmp_path / "db")).texts())


def test_unusual_lmdb_is_read(tmp_path):
    write_images(
        tmp_path / "db", 3, **{"num-samples": b"3\n", "label-000000002": b"\xef\xbb\xbftext\r\n", "more": b"x"}
    )
    assert texts(tmp_path / "db") == ["text"] * 3


def test_truncated_lmdb_raises(tmp_path):
    """Reading it would kill the process."""
    (tmp_path / "data.mdb").write_bytes(b"x" * 10000)
    assert f"{tmp_path / 'data.mdb'} cannot be opened as LMDB" in error_of(tmp_path)
    (tmp_path / "data.mdb").unlink()
    data = write_images(tmp_path / "a" / "db", 30) / "data.mdb"
    write_images(tmp_path / "b" / "db", 3)
    content = data.read_bytes()
    for end in (0, 1, 100, 4096, 5000, 8192, len(content) // 2, len(content) - 4096, len(content) - 1):
        data.write_bytes(content[:end])
        assert str(data) in error_of(tmp_path)


PLAIN = (pa.binary(), pa.string())


def write_parquet(path, images, labels, kinds=PLAIN):
    columns = {"image": pa.array(images, kinds[0]), "text": pa.array(labels, kinds[1])}
    pq.write_table(pa.table(columns), path)


def test_parquet_files_without_rows_are_skipped(tmp_path, caplog):
    write_parquet(tmp_path / "a.parquet", [], [])
    assert "No samples in" in error_of(tmp_path)
    write_parquet(tmp_path / "b.parquet", [b"x", b"y"], ["b", "c\n"])
    write_parquet(tmp_path / "c.parquet", [], [])
    assert texts(tmp_path) == texts(f"hub:{tmp_path}") == ["b", "c"]
    assert open_source(str(tmp_path)).num_samples == 2
    assert f"without samples: {tmp_path / 'a.parquet'}, {tmp_path / 'c.parquet'}." in caplog.text


def test_parquet_column_types(tmp_path):
    kinds = [
        (pa.binary(), pa.string()),
        (pa.large_binary(), pa.large_string()),
        (pa.binary_view(), pa.string_view()),
        (pa.binary(), pa.dictionary(pa.int32(), pa.string())),
        (pa.binary(), pa.null()),
    ]
    for number, (image, text) in enumerate(kinds):
        write_parquet(
            tmp_path / f"{number}.parquet", [b"x"], [None if text == pa.null() else f"{number}"], (image, text)
        )
    assert texts(tmp_path) == ["0", "1", "2", "3", ""]
    write_parquet(tmp_path / "5.parquet", [b"x"], [7], (pa.binary(), pa.int64()))
    assert (
        f"{tmp_path / '5.parquet'}: the column text has type int64, but string in {tmp_path / '0.parquet'}"
        in error_of(tmp_path)
    )
    pq.write_table(pa.table({"image": [b"x"], "word": ["a"]}), tmp_path / "5.parquet")
    assert f"{tmp_path / '5.parquet'} has no column text. Its columns are image, word" in error_of(tmp_path)
    write_parquet(tmp_path / "5.parquet", [[b"x"]], ["a"], (pa.list_(pa.binary()), pa.string()))
    assert "the image column image contains a list" in error_of(tmp_path / "5.parquet")


def test_damaged_parquet_raises(tmp_path):
    write_parquet(tmp_path / "a.parquet", [b"x" * 1000] * 9, ["b"] * 9)
    write_parquet(tmp_path / "b.parquet", [b"x" * 1000] * 9, ["b"] * 9)
    content = (tmp_path / "b.parquet").read_bytes()
    garbled = bytearray(content)
    garbled[4:60] = bytes(56)
    for broken in (b"", content[:4], content[:-1], content[: len(content) // 2], b"x" * 99, bytes(garbled)):
        (tmp_path / "b.parquet").write_bytes(broken)
        assert str(tmp_path / "b.parquet") in error_of(tmp_path)
        if broken:  # `datasets` skips empty files of a folder
            assert str(tmp_path / "b.parquet") in error_of(f"hub:{tmp_path}")
    raw = pa.StringArray.from_buffers(1, pa.array([0, 4], pa.int32()).buffers()[1], pa.py_buffer(b"caf\xe9"))
    pq.write_table(pa.table({"image": [b"x"], "text": raw}), tmp_path / "b.parquet")
    assert (
        f"{tmp_path / 'b.parquet'}, column text, row 1 is not UTF-8 (it may be Latin-1 or another encoding)"
        in error_of(tmp_path)
    )


def test_repeated_column_of_parquet_raises(tmp_path):
    columns = [pa.array([b"x"]), pa.array(["a"]), pa.array(["b"])]
    pq.write_table(pa.table(columns, names=["image", "text", "text"]), tmp_path / "a.parquet")
    assert "a.parquet has several columns text. Rename" in error_of(tmp_path)
    pq.write_table(pa.table(columns[1:] * 2, names=["file_name", "text"] * 2), tmp_path / "metadata.parquet")
    assert "metadata.parquet: columns of the same name: file_name, text" in error_of(tmp_path / "metadata.parquet")


@pytest.mark.parametrize("form", ["parquet", "tar"])
@pytest.mark.parametrize("numbers", [(0, 2), (1, 3)])
def test_missing_shard_raises(tmp_path, form, numbers, caplog):
    """Numbers start at 0 or 1."""

    def write(name):
        path = tmp_path / f"{name}.{form}"
        write_parquet(path, [png()], [name]) if form == "parquet" else write_tar(path, *pairs(labeled(name)))

    names = [f"train-{number:05}-of-00003" for number in numbers]
    missing = f"train-{sum(numbers) // 2:05}-of-00003"
    for name in names:
        write(name)
    for place in (tmp_path, f"{tmp_path}/*", f"{tmp_path}/train*.{form}", f"hub:{tmp_path}"):
        assert f"{tmp_path}: 1 of 3 shards are missing: {missing}.{form}." in error_of(place)
    assert texts(f"{tmp_path}/{names[0]}.{form}") == names[:1], "a single file"
    assert texts(f"{tmp_path}/*-0000[{numbers[0]}{numbers[1]}]-*") == names, "the pattern excludes the missing file"
    write("test-00001-of-00009")
    write(missing)
    assert len(texts(tmp_path)) == 3
    assert "test (1), train (3): reading only train" in caplog.text


def test_paths_in_parquet_are_relative_to_the_file(tmp_path):
    (tmp_path / "crops").mkdir()
    (tmp_path / "crops" / "a.png").write_bytes(png(5))
    pq.write_table(
        pa.table({"image": [{"bytes": None, "path": "crops/a.png"}], "text": ["a"]}), tmp_path / "a.parquet"
    )
    [sample] = open_source(str(tmp_path / "a.parquet")).read()
    assert sample == (png(5), "a", str(tmp_path / "crops" / "a.png"))


def test_wrong_number_of_samples_raises(tmp_path, capsys):
    write_parquet(tmp_path / "a.parquet", [png()], ["a"])
    assert "samples=2 contradicts the data, which have 1 samples" in error_of(f"{tmp_path}/a.parquet?samples=2")
    write_tar(tmp_path / "a.tar", *pairs(labeled("a", "b")))
    with pytest.raises(ValueError, match=r"a\.tar has 2 samples, not 5: correct \?samples=NUMBER"):
        list(open_source(f"{tmp_path}/a.tar?samples=5").texts())
    assert main(["audit", f"{tmp_path}/a.tar?samples=5"]) == 1
    assert "svtrv2: a has 2 samples, not 5" in capsys.readouterr().err


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images").mkdir()
    for number in range(4):
        (tmp_path / "images" / f"{number}.png").write_bytes(png(number))
    (tmp_path / "4.PNG").write_bytes(png(4))
    return tmp_path


@pytest.mark.parametrize("name", ["labels.tsv", "train_list.txt", "LABELS.TSV", "Labels.TXT"])
def test_files_in_images_or_next_to_it(folder, name):
    lines = ["0.png\ta", "images/1.png\tb", "images\\2.png\tc", "4.PNG\td", f"{folder}/images/3.png\te"]
    (folder / name).write_bytes("\r\n".join(lines).encode("utf-8-sig"))
    assert texts(folder / name) == list("abcde")
    images = [sample.image for sample in open_source(str(folder / name)).read()]
    assert images == [png(number) for number in (0, 1, 2, 4, 3)]


ROW = '{"file_name": "images/0.png", "text": "a"}\n'


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("labels.tsv", '0.png\t"say ""x"""\n1.png\tplain\n', "labels.tsv, line 1 is quoted as in CSV.*QUOTE_NONE"),
        ("labels.tsv", "0.png\ta\nimages\tb\n", "line 2: .*images is (a folder|not found)"),
        ("labels.tsv", "0.png\ta\n1.png\tb\tc\n", "line 2: more than the two fields"),
        ("labels.tsv", "0.png\ta\n1.pn", "line 2: no tab"),
        ("labels.tsv", "\n", "contains no images"),
        ("labels.tsv", "0.png\ta\n1.png\tb\0\n", "line 2 contains a NUL byte"),
        ("labels.tsv", "0.png\ta\n".encode("utf-16"), "labels.tsv is UTF-16"),
        ("labels.tsv", "0.png\ta\n".encode("utf-16-le"), "line 1 contains a NUL byte: the file is damaged, or UTF-16"),
        (
            "labels.tsv",
            "0.png\ta\n1.png\t\u4e2d\u6587\n".encode("gbk"),
            r"line 2, is not UTF-8 \(it may be GBK, Latin-1 or",
        ),
        ("labels.tsv", "0.png\ta\n1.png\tcaf\xe9\n".encode("latin-1"), r"line 2, is not UTF-8 \(it may be Latin-1 or"),
        ("labels.tsv", b"\xff\t\n", r"labels\.tsv is not UTF-8 \(it may be Latin-1 or another encoding\): convert"),
        ("labels.tsv", f"0.png\ta\n{'x' * 5000}\tb\n", "line 2: .* is not found"),
        ("metadata.csv", "file_name,text\nmissing.png,a\n", "line 2: .*missing.png is not found"),
        ("metadata.csv", "file_name,text\n0.png,a,b\n", "line 2: 3 values for the 2 columns.*quotes"),
        ("metadata.csv", "file_name;text\n0.png;a;b\n", "line 2: 3 values .* a semicolon must be in double"),
        ("metadata.csv", "where,text\n0.png,a\n", r"no image column among where, text\. .*\?image=COLUMN"),
        ("metadata.csv", "file,path,text\n0.png,a,b\n", r"several possible image columns.*\?image=COLUMN"),
        ("metadata.csv", "file_name,text,label\n0.png,a,b\n", r"several possible text columns.*\?text=COLUMN"),
        ("metadata.csv", "file_name,text,text\nimages/0.png,a,b\n", "line 1: columns of the same name"),
        ("metadata.csv", "", "contains no images"),
        ("metadata.csv", 'file_name,text\nimages/0.png,"a\nimages/1.png,b\n', "line 3: unexpected end of data"),
        ("metadata.csv", 'file_name,text\na,"a\nimages,b"\n', r"line 3: a quote is not closed before 'a\\nimages"),
        ("metadata.csv", 'file_name,text\nimages/0.png,"a"b\n', "line 2: ',' expected after '\"'"),
        ("metadata.csv", "file_name,text\nimages/0.png,a\nimages/1.pn", "line 3: 1 values for the 2 columns"),
        ("metadata.csv", f"file_name,text\nimages/0.png,{'a' * 200_000}\n", "line 2: field larger than field limit"),
        ("metadata.jsonl", '{"file_name": "0.png", "text": 7}\n', "line 1: .* must be strings"),
        ("metadata.jsonl", '\n{"file_name": "0.png"\n', "line 2: "),
        ("metadata.jsonl", "7\n", "line 1: not a JSON object: '7'"),
        ("metadata.jsonl", ROW + "[" * 100_000, "line 2: maximum recursion depth"),
        ("metadata.jsonl", ROW.replace('"a"', '"\\ud800"'), "line 1: .*lone surrogate"),
        ("metadata.jsonl", ROW + ROW[:20], "line 2: Unterminated string"),
        ("metadata.jsonl", ROW[:-2] + ', "text": "b"}', "line 1: the key 'text' is repeated"),
    ],
)
def test_invalid_listing_raises(folder, name, content, message):
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        open_source(str(folder))


@pytest.mark.parametrize(
    ("name", "content", "label"),
    [
        ("a.tsv", "0.png\ta\n1.png\tb", "b"),
        ("a.txt", "0.png\ta\n1.png\t", ""),
        ("images/a.csv", "file_name,text\n0.png,a\n1.png,b", "b"),
        ("a.tsv", "0.png\ta\n1.png\t\n", None),
        ("images/a.csv", 'file_name,text\n0.png,a\n1.png,"b"', None),
        ("images/a.jsonl", '{"file_name": "0.png", "text": "a"}\n{"file_name": "1.png", "text": "b"}', None),
    ],
)
def test_warning_if_a_list_ends_within_a_line(folder, name, content, label, caplog):
    (folder / name).write_text(content)
    assert len(texts(folder / name)) == 2
    warning = (
        f"{folder / name}: the last line has no line end, so the file and its last label {label!r} may be truncated."
    )
    assert (warning in caplog.text) if label is not None else not caplog.text


def test_quotes_in_a_list_are_kept(folder):
    """Unless all fields with quotes have the form of CSV."""
    labels = ['"say ""x"""', '"x"', 'a "b"', '"']
    (folder / "labels.tsv").write_text("".join(f"{number}.png\t{text}\n" for number, text in enumerate(labels)))
    assert texts(folder) == labels
    (folder / "labels.tsv").write_text('0.png\t"x"\n1.png\t""\n')
    assert texts(folder) == ['"x"', '""']


def test_parquet_metadata(folder):
    pq.write_table(
        pa.table({"file_name": ["images/0.png", "no.png"], "text": ["007", "NA"]}), folder / "metadata.parquet"
    )
    assert "metadata.parquet, line 2: " in error_of(folder)
    pq.write_table(
        pa.table({"file_name": ["images/0.png", "4.PNG"], "text": ["007\n", "NA"]}), folder / "metadata.parquet"
    )
    assert texts(folder) == ["007", "NA"]


def test_line_ends_and_byte_order_marks_of_labels_are_removed(folder):
    (folder / "METADATA.CSV").write_text(
        'file_name,text\nimages/0.png,"a\n"\nimages/1.png,\ufeffb\n', encoding="utf-8"
    )
    assert texts(folder / "METADATA.CSV") == ["a", "b"]


def test_decoding():
    assert decode(b"\xef\xbb\xbfa", "x") == "a"
    with pytest.raises(ValueError, match=r"^x is not UTF-8 .it may be GBK, Latin-1 or another encoding.: convert"):
        decode("中".encode("gbk"), "x")
    with pytest.raises(
        ValueError, match=r"^x, line 2, is not UTF-8 \(it may be Latin-1 or another encoding\): convert"
    ):
        decode(b"a\n\xe9 \nb", "x")


def test_audit_continues_after_a_damaged_source(tmp_path, capsys):
    tar = write_tar(tmp_path / "a.tar", *pairs(labeled("a", "b")), ("2.png", png()), ("2.txt", b"\xff\xfe"))
    write_tar(tmp_path / "b.tar", *pairs(labeled("a", "b", "c")))
    missing = tmp_path / "nowhere"
    assert main(["audit", str(tar), str(missing), str(tmp_path / "b.tar"), "--output", str(tmp_path / "out")]) == 1
    out, errors = capsys.readouterr()
    assert f"svtrv2: {tar}: 2.txt is UTF-16, not UTF-8" in errors
    assert f"Not read completely: {tar}: 2.txt is UTF-16" in out
    assert str(missing) in errors
    assert "| b " in out
    assert main(["audit", str(tmp_path / "b.tar")]) == 0
