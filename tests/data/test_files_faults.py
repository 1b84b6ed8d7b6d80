"""Files that cannot be read: each fault is one line."""

import csv
import gzip
import json
import os

import pytest
from record_files import fault, write, write_parquet

from rlhf_lib.data.load import csv_table, files, json_text
from rlhf_lib.data.load.files import read

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("a.jsonl", b"", "holds no records; fill it or leave it out"),
        ("a.json", b"", "holds no records; fill it or leave it out"),
        ("a.csv", b"", "holds no records; fill it or leave it out"),
        ("a.jsonl.gz", b"", "holds no records; fill it or leave it out"),
        ("a.jsonl", b"\n \n\r\n", "holds no records; fill it or leave it out"),
        ("a.json", b"\n \n", "holds no records; fill it or leave it out"),
        ("a.csv", b"\n\r\n", "holds no records; fill it or leave it out"),
        ("a.csv", b"q,a\n", "holds no records; fill it or leave it out"),
        ("a.json", b"[ ]", "holds no records; fill it or leave it out"),
        ("a.jsonl", b'{"a": 1}\n{"a": "x', "line 2: not JSON (Unterminated string starting at: line 1 column 7"),
        ("a.jsonl", b'{"a": 1} {"a": 2}\n', "line 1: not JSON (Extra data"),
        ("a.jsonl", b"[\n{}\n]", "line 1: not JSON (Expecting value: line 2 column 1 (char 2)); each line must be one"),
        ("a.json", b'{"a": 1}\n{"a": \n{"a": 3}', "line 2: not JSON"),
        ("a.json", b'[{"a": 1}, {"a": "x', "row 2: not JSON (Unterminated string starting at); fix the file"),
        ("a.json", b'[{"a": 1}, {"a": 2}', "row 2: not JSON (expected ',' or ']', found '')"),
        ("a.json", b'[{"a": 1} rubbish {"a": 2}]', "row 1: not JSON (expected ',' or ']', found 'r')"),
        ("a.json", b'[{"a": 1}, ]', "row 2: not JSON (Expecting value)"),
        ("a.json", b'[{"a": 1}] x', "not JSON (more follows after the end of the array)"),
        ("a.json", b'[{"a": 1}]\n[{"a": 2}]', "not JSON (more follows after the end of the array)"),
        ("a.json", b'[{"a": ' + b"1" * 5000 + b"}]", "row 1: not JSON (Exceeds the limit"),
        ("a.json", b'{"a": [{}', "row 1: not JSON (expected ',' or ']', found '')"),
        ("a.json", b'{"a": [{}]', "not JSON (expected ',' or '}', found '')"),
        ("a.json", b'{"a" [{}]}', "not JSON (expected ':', found '[')"),
        ("a.json", b"{a: [{}]}", "not JSON (a key must be a string)"),
        ("a.json", b'{"a": [{}], "b": [{}], "c": []}', "has several lists of objects ('a', 'b'); give each a file"),
        *[("a.json", data, "holds no JSON objects; it must be an array") for data in (b"3", b'"x"', b"null", b"q,a")],
        ("a.jsonl", '{"é": "ü"}'.encode("latin-1"), "line 1: not UTF-8 (it has the byte 0xe9); save the file as UTF-8"),
        ("a.json", '[{"é": "ü"}]'.encode("latin-1"), "byte 3: not UTF-8 (it has the byte 0xe9)"),
        ("a.json", b"\xef\xbb\xbf[" + b" " * 9 + b'"\xc3', "byte 14: not UTF-8 (it has the byte 0xc3)"),
        ("a.csv", "q,a\nx,é\n".encode("latin-1"), "line 2: not UTF-8 (it has the byte 0xe9)"),
        *[(name, "[1]\n".encode("utf-16"), "is UTF-16; save it as UTF-8") for name in ("a.jsonl", "a.json", "a.csv")],
        ("a.jsonl", '{"a": 1}'.encode("utf-16-be"), "line 1: not JSON"),
        ("a.json", '[{"a": 1}]'.encode("utf-16-be"), "holds no JSON objects"),
        ("a.csv", "q,a\n".encode("utf-16-be"), "line 1: a NUL byte; save the file as UTF-8 text"),
        ("a.csv", b"q,a\n1,\0\n", "line 2: a NUL byte"),
        *[(name, b"\x89PNG\r\n\x1a\n\xff" * 9, "") for name in ("a.jsonl", "a.json", "a.csv", "a.tsv", "a.parquet")],
        ("a.jsonl", gzip.compress(b'{"a": 1}', mtime=0), "is compressed; end its name in .gz"),
        ("a.csv", b"q,a\n1,2\n1,2,3,4,5\n", "row 2: 5 fields where the header has 2; quote fields that hold commas"),
        ("a.tsv", b"q\ta\n1\n", "row 1: 1 fields where the header has 2; quote fields that hold tabs"),
        ("a.csv", b"q,a,q\n1,2,3\n", "header: two columns are called 'q'; each column needs a name of its own"),
        ("a.csv", b"q,,a\n0,1,2\n", "header: column 2 has no name; each column needs a name of its own"),
        ("a.csv", b'q,a\n1,2\n1,"never closed\n1,2\n', "row 2: unexpected end of data; check its quotes"),
        ("a.csv", b'q,a\n1,"x" y\n', "row 1: ',' expected after '\"'; check its quotes"),
        ("a.csv", b"q,a\r1,2\r", "header: new-line character seen in unquoted field"),
        (
            "a.txt",
            b"x",
            "unknown kind of file; its name must end in one of .jsonl, .ndjson, .json, .csv, .tsv, .parquet, .arrow, "
            ".feather",
        ),
        *[(f"a.{kind}.gz", b"x", "unknown kind of file") for kind in ("parquet", "arrow")],
        *[("a.arrow", data, "cannot be read as Arrow (") for data in (b"x", b"ARROW1\0\0", b"\xff" * 99)],
        *[(f"a.{kind}", LFS, "is a pointer of Git LFS, not the file") for kind in ("jsonl", "json", "csv", "parquet")],
        ("jsonl", b"x", "unknown kind of file"),
    ],
)
def test_faulty_files(tmp_path, name, data, expected):
    assert fault(write(tmp_path, name, data)).startswith(expected)


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.json.gz", "a.csv.gz"])
def test_faulty_gzip(tmp_path, name):
    lines = [f'"{os.urandom(20).hex()}"' for _ in range(50)]
    whole = gzip.compress((json.dumps(lines) if ".json." in name else "\n".join(lines)).encode())
    for data in (b'{"a": 1}\n', whole[:-1], whole[:200], whole[:5], whole[:30] + b"\xff" * 20 + whole[50:]):
        (tmp_path / name).write_bytes(data)
        assert fault(tmp_path / name).startswith("not a whole .gz file; copy it once more")


@pytest.mark.parametrize("cut", [0, 3, 100, -1, -9])
def test_truncated_parquet(tmp_path, cut):
    path = write_parquet(tmp_path / "a.parquet", [{"a": i} for i in range(100)])
    data = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(data[:cut])
    assert fault(path).startswith("cannot be read as Parquet (")


def test_parquet_with_two_columns_of_one_name(tmp_path):
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_arrays([pyarrow.array(["x"])] * 2, names=["a", "a"]), tmp_path / "a.parquet")
    assert fault(tmp_path / "a.parquet").startswith("header: two columns are called 'a'; ")


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_deeply_nested_json(tmp_path, name):
    assert "nested too deeply" in fault(write(tmp_path, name, '[{"a": ' + "[" * 100_000 + "]" * 100_000 + "}]"))


@pytest.mark.parametrize(
    ("name", "data", "place"),
    [
        ("a.jsonl", '{"a": 1}\n"' + "x" * 100 + '"\n', "line 2: longer than 50 bytes"),
        ("a.csv", "q\n" + "x" * 100, "line 2: longer than 50 bytes"),
        ("a.csv", 'q\n1\n"' + "x\n" * 100, "row 2: field larger than field limit (50)"),
        (
            "a.json",
            '[{"a": 1}, "' + "x" * 100,
            "row 2: not JSON (Unterminated string starting at, or longer than 50 characters)",
        ),
    ],
)
def test_records_that_are_too_long(tmp_path, monkeypatch, name, data, place):
    for module in (files, json_text, csv_table):
        monkeypatch.setattr(module, "MAX_RECORD", 50)
    monkeypatch.setattr(json_text, "CHUNK", 10)
    old = csv.field_size_limit()
    assert fault(write(tmp_path, name, data)).startswith(place)
    csv.field_size_limit(old)


def test_missing_files(tmp_path):
    assert fault(tmp_path / "a.jsonl") == "no such file; correct the path"
    assert fault(tmp_path / "*.jsonl").startswith("no file matches; ")
    assert fault(tmp_path) == f"is a folder; name its files, such as {tmp_path}/*.jsonl"
    write(tmp_path, "sets/state.json", "{}")
    write(tmp_path, "sets/data-0.arrow", "")
    write(tmp_path, "deep/er/train.jsonl.gz", "")
    assert fault(tmp_path / "sets") == f"is a folder; name its files, such as {tmp_path}/sets/*.arrow"
    assert fault(tmp_path / "deep") == f"is a folder; name its files, such as {tmp_path}/deep/**/*.jsonl.gz"
    os.symlink("gone.jsonl", tmp_path / "link.jsonl")
    assert fault(tmp_path / "link.jsonl") == "a link to gone.jsonl, which does not exist; fix it"
    os.mkfifo(tmp_path / "pipe.jsonl")
    assert fault(tmp_path / "pipe.jsonl").startswith("is not a regular file")


@pytest.mark.parametrize("name", ["", "a\0b.jsonl", "x" * 300 + ".jsonl", "a.jsonl/b.jsonl"])
def test_names_that_no_file_can_have(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "a.jsonl", "{}")
    with pytest.raises(SystemExit) as error:
        read(name)
    assert len(str(error.value).splitlines()) == 1


def test_faults_of_paths_come_before_the_first_record(tmp_path):
    write(tmp_path, "a.jsonl", "{}")
    write(tmp_path, "b.txt", "x")
    with pytest.raises(SystemExit, match="b.txt: unknown kind of file"):
        read(str(tmp_path / "*"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission(tmp_path):
    path = write(tmp_path, "a.jsonl", "{}")
    os.chmod(path, 0)
    assert fault(path).startswith("cannot be read: Permission denied; check its permissions")
