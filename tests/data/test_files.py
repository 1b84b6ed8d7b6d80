import codecs
import json
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from record_files import RECORDS, fault, jsonl, table, values, write, write_arrow, write_parquet

from rlhf_lib.data.load import arrow_table, json_text
from rlhf_lib.data.load.files import read


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.jsonl", jsonl(RECORDS)),
        ("a.ndjson", jsonl(RECORDS)),
        ("a.JSONL", "\n" + jsonl(RECORDS).replace("\n", "\r\n\n").rstrip()),
        ("a.json", jsonl(RECORDS)),
        ("a.json", json.dumps(RECORDS)),
        ("a.json", json.dumps(RECORDS, indent=4)),
        ("a.json", "\n " + json.dumps(RECORDS, ensure_ascii=False) + "\n"),
        ("a.json", json.dumps({"data": RECORDS})),
        ("a.json", json.dumps({"version": 2, "names": ["a"], "none": [], "data": RECORDS, "info": {"x": [{}]}})),
        ("a.json", json.dumps({"version": 2, "data": RECORDS}, indent=2)),
    ],
)
@pytest.mark.parametrize("form", ["plain", "BOM", "gzip"])
def test_json_files(tmp_path, monkeypatch, name, text, form):
    monkeypatch.setattr(json_text, "CHUNK", 5)
    data = (codecs.BOM_UTF8 if form == "BOM" else b"") + text.encode()
    assert values(write(tmp_path, name + (".gz" if form == "gzip" else ""), data)) == RECORDS


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.csv.gz", "a.tsv.gz"])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
def test_tables(tmp_path, name, bom):
    rows = [["q", "a b"], ["one, two\tthree", 'a "quote"\r\n\r\n  over\nlines'], ["", "x" * 200_000]]
    text = bom + table(rows, "\t" if "tsv" in name else ",").replace('"q"', "q")
    assert values(write(tmp_path, name, text)) == [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]


def test_blank_lines_of_a_table_are_no_rows(tmp_path):
    path = write(tmp_path, "a.csv", "\nq,a\n\n1,2\n\n3,4")
    assert [(r.place, r.value) for r in read(path)] == [
        (f"{path}: row 1", {"q": "1", "a": "2"}),
        (f"{path}: row 2", {"q": "3", "a": "4"}),
    ]


def test_parquet(tmp_path, monkeypatch):
    monkeypatch.setattr(arrow_table, "PARQUET_ROWS", 2)
    records = [{"prompt": [{"role": "user", "content": f"Q{i}"}], "score": i / 2 or None} for i in range(5)]
    path = write_parquet(tmp_path / "a.parquet", records, row_group_size=3)
    assert values(path) == records
    assert [record.place for record in read(path)] == [f"{path}: row {i + 1}" for i in range(5)]


def test_texts_that_parquet_has_as_bytes(tmp_path):
    records = [{"prompt": "é?".encode(), "chosen": [{"role": b"user", "content": None}], "image": b"\x89PNG\xff"}]
    (value,) = values(write_parquet(tmp_path / "a.parquet", records))
    assert value == {"prompt": "é?", "chosen": [{"role": "user", "content": None}], "image": b"\x89PNG\xff"}


@pytest.mark.parametrize(
    ("name", "opened"), [("a.arrow", "new_stream"), ("a.arrow", "new_file"), ("a.feather", "new_file")]
)
def test_arrow(tmp_path, name, opened):
    """A stream is what save_to_disk writes, a file what Feather is."""
    records = [{"prompt": [{"role": "user", "content": f"Q{i}"}], "score": i / 2 or None} for i in range(5)]
    path = write_arrow(tmp_path / name, records, opened)
    assert values(path) == records
    assert [record.place for record in read(path)] == [f"{path}: row {i + 1}" for i in range(5)]


def test_places_and_values_of_lines(tmp_path):
    path = write(tmp_path, "a.jsonl", '{"a": 1}\n\nnot JSON\n[2]')
    assert [tuple(record) for record in read(path)] == [
        (f"{path}: line 1", b'{"a": 1}\n', False, ""),
        (f"{path}: line 3", b"not JSON\n", False, ""),
        (f"{path}: line 4", b"[2]", False, ""),
    ]


def test_globs_read_the_files_in_order_and_count_in_each(tmp_path):
    for name in ("b/2.jsonl", "b/1.json", "a/deep/3.jsonl", "a/0.jsonl.gz"):
        write(tmp_path, name, jsonl([{"n": name}, {"n": "second"}]))
    os.mkdir(tmp_path / "b" / "folder.jsonl")
    assert [v["n"] for v in values(tmp_path / "**" / "*.json*", max_records=1)] == [
        "a/0.jsonl.gz",
        "a/deep/3.jsonl",
        "b/1.json",
        "b/2.jsonl",
    ]
    assert [v["n"] for v in values(tmp_path / "b" / "[0-9].jsonl")] == ["b/2.jsonl", "second"]


def test_a_name_with_the_characters_of_a_glob(tmp_path):
    assert values(write(tmp_path, "a[1].jsonl", '{"a": 1}')) == [{"a": 1}]


def test_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path, "x/a.jsonl", '{"a": 1}')
    assert values("~/x/a.jsonl") == values("~/*/a.jsonl") == [{"a": 1}]


def test_max_records_stops_before_later_faults(tmp_path):
    assert values(write(tmp_path, "a.json", '[{"a": 1}, {"a": 2}, rubbish'), max_records=2) == [{"a": 1}, {"a": 2}]
    assert values(write(tmp_path, "a.csv", "a\n1\n2\n3,4\n"), max_records=2) == [{"a": "1"}, {"a": "2"}]


def test_parquet_without_rows(tmp_path):
    assert fault(write_parquet(tmp_path / "a.parquet", [{"a": 1}][:0])).startswith("holds no records")


def test_json_takes_numbers_that_only_python_knows(tmp_path):
    for name in ("a.jsonl", "a.json"):
        (value,) = values(write(tmp_path, name, '[NaN, Infinity, -Infinity, {"a": 1e999}]'))[:1]
        assert str(value) in ("nan", "[nan, inf, -inf, {'a': inf}]")


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(JSON_VALUES, min_size=1), st.integers(1, 40), st.booleans(), st.sampled_from([None, 1]))
def test_any_array_is_read_whatever_the_size_of_the_pieces(tmp_path, monkeypatch, items, chunk, ascii_only, indent):
    monkeypatch.setattr(json_text, "CHUNK", chunk)
    text = json.dumps(items, ensure_ascii=ascii_only, indent=indent).encode(errors="replace")
    assert values(write(tmp_path, "a.json", text)) == json.loads(text)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["a.jsonl", "a.json", "a.csv", "a.tsv.gz", "a.parquet", "a.json.gz"]),
    st.binary() | st.text(alphabet='[]{}",:1e.-\n a\ufeff').map(str.encode),
)
def test_any_bytes_are_read_or_end_in_one_line(tmp_path, name, data):
    path = write(tmp_path, name, data)
    try:
        values(path)
    except SystemExit as error:
        assert str(error).startswith(f"{path}: ")
        assert len(str(error).splitlines()) == 1


def test_memory_stays_flat(tmp_path):
    import tracemalloc

    items = '{"prompt": "' + "x" * 1000 + '"}'
    for name, text in [
        ("a.json", "[" + ",".join([items] * 10_000) + "]"),
        ("b.json", '{"data": [' + ",".join([items] * 10_000) + "]}"),
        ("a.csv", "prompt\n" + ("x" * 1000 + "\n") * 10_000),
    ]:
        path = write(tmp_path, name, text)
        tracemalloc.start()
        assert sum(1 for _ in read(path)) == 10_000
        assert tracemalloc.get_traced_memory()[1] < 7 * 2**20
        tracemalloc.stop()
