"""Files compressed as .gz, .bz2, .xz and .zst."""

import json
import os

import pytest
from record_files import COMPRESS, RECORDS, fault, jsonl, table, values, write

from rlhf_lib.data.load import json_text
from rlhf_lib.data.load.compression import open_bytes, suffix

SUFFIXES = pytest.mark.parametrize("packed", COMPRESS)


@SUFFIXES
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.jsonl", jsonl(RECORDS)),
        ("A.JSONL", jsonl(RECORDS)),
        ("a.json", jsonl(RECORDS)),
        ("a.json", json.dumps(RECORDS)),
        ("a.json", json.dumps({"version": 2, "data": RECORDS})),
    ],
)
def test_json(tmp_path, monkeypatch, packed, name, text):
    monkeypatch.setattr(json_text, "CHUNK", 5)
    path = tmp_path / (name + (packed.upper() if name.isupper() else packed))
    path.write_bytes(COMPRESS[packed](text.encode()))
    assert values(path) == RECORDS


@SUFFIXES
@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_tables(tmp_path, packed, name):
    rows = [["q", "a"], ["one", "two"], ["é", "over\r\nlines"]]
    path = write(tmp_path, name + packed, table(rows, "\t" if "tsv" in name else ","))
    assert values(path) == [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]


@SUFFIXES
def test_files_put_one_after_the_other_are_one(tmp_path, packed):
    path = tmp_path / f"a.jsonl{packed}"
    path.write_bytes(COMPRESS[packed](b'{"a": 1}\n') + COMPRESS[packed](b'{"a": 2}\n'))
    assert values(path) == [{"a": 1}, {"a": 2}]


@SUFFIXES
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv"])
def test_what_is_not_whole(tmp_path, packed, name):
    lines = [f'"{os.urandom(20).hex()}"' for _ in range(50)]
    whole = COMPRESS[packed]((json.dumps(lines) if name == "a.json" else "\n".join(lines)).encode())
    damaged = whole[:30] + b"\xff" * 20 + whole[50:]
    for data in (b'{"a": 1}\n', whole[:-1], whole[:200], whole[:5], damaged):
        (tmp_path / f"{name}{packed}").write_bytes(data)
        assert fault(tmp_path / f"{name}{packed}") == (
            f"not a whole {packed} file; copy it once more, or take {packed} off its name if it is not compressed"
        )


@SUFFIXES
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv"])
def test_a_name_that_hides_the_compression(tmp_path, packed, name):
    (tmp_path / name).write_bytes(COMPRESS[packed](b'{"a": 1}\n'))
    assert fault(tmp_path / name) == f"is compressed; end its name in {packed}"


@SUFFIXES
def test_nothing_within(tmp_path, packed):
    assert fault(write(tmp_path, f"a.jsonl{packed}", "")) == "holds no records; fill it or leave it out"


def test_parquet_is_compressed_within(tmp_path):
    assert fault(write(tmp_path, "a.parquet.zst", "x")).startswith("unknown kind of file")


@SUFFIXES
def test_reading_begins_anew_as_often_as_wanted(tmp_path, packed):
    data = os.urandom(300) * 10_000
    with open_bytes(write(tmp_path, f"a{packed}", data)) as file:
        assert file.read(7) == data[:7]
        file.seek(0)
        assert file.read() == data and file.tell() == len(data)
        file.seek(2_000_000)
        assert (file.tell(), file.read(9)) == (2_000_000, data[2_000_000:2_000_009])
        file.seek(5)
        assert file.read(4) == data[5:9]


def test_suffixes():
    assert [suffix(name) for name in ("a.jsonl.ZST", "b/a.xz", "a.xz/b.json", "zst", ".gz")] == [
        *(".zst", ".xz"),
        *("", "", ""),
    ]


def test_a_missing_permission_is_no_damage(tmp_path):
    os.mkdir(tmp_path / "a.jsonl.gz")
    assert fault(tmp_path / "a.jsonl.gz").startswith("is a folder")
