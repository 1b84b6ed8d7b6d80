import codecs
import csv
import gzip
import json
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlhf_lib.data.load import files
from rlhf_lib.data.load.files import parse_line, read

RECORDS = [
    {"prompt": "Q1?", "score": 1.5},
    {"prompt": "é\u2028\n,\t\"'", "score": None},
    {"prompt": "", "score": -2e-7},
]


def write(folder, name, data):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    data = data if isinstance(data, bytes) else data.encode()
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return str(path)


def jsonl(records):
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def table(rows, delimiter=","):
    """Rows as CSV text, header first."""
    quoted = [delimiter.join('"' + cell.replace('"', '""') + '"' for cell in row) for row in rows]
    return "\r\n".join(quoted) + "\r\n"


def write_parquet(path, records, **options):
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist(records), path, **options)
    return str(path)


def values(path, **options):
    """The values that are read, those of lines parsed."""
    return [
        parse_line(record.place, record.value) if isinstance(record.value, bytes) else record.value
        for record in read(str(path), **options)
    ]


def fault(path):
    """The one line that reading a file ends in, without the path before it."""
    with pytest.raises(SystemExit) as error:
        values(path)
    text = str(error.value)
    assert len(text.splitlines()) == 1
    assert text.startswith(f"{path}: ")
    return text.removeprefix(f"{path}: ")


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
    monkeypatch.setattr(files, "CHUNK", 5)
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
    monkeypatch.setattr(files, "PARQUET_ROWS", 2)
    records = [{"prompt": [{"role": "user", "content": f"Q{i}"}], "score": i / 2 or None} for i in range(5)]
    path = write_parquet(tmp_path / "a.parquet", records, row_group_size=3)
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
        ("a.json", b'[{"a": 1}, {"a": "x', "row 2: not JSON (Unterminated string starting at); mend the file"),
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
        ("a.jsonl", gzip.compress(b'{"a": 1}', mtime=0), "is compressed with gzip; end its name in .gz"),
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
            "unknown kind of file; its name must end in one of .jsonl, .ndjson, .json, .csv, .tsv, .parquet",
        ),
        ("a.parquet.gz", b"x", "unknown kind of file"),
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
        assert fault(tmp_path / name).startswith("not a whole gzip file; copy it once more")


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


def test_parquet_without_rows(tmp_path):
    assert fault(write_parquet(tmp_path / "a.parquet", [{"a": 1}][:0])).startswith("holds no records")


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
    monkeypatch.setattr(files, "MAX_RECORD", 50)
    monkeypatch.setattr(files, "CHUNK", 10)
    old = csv.field_size_limit()
    assert fault(write(tmp_path, name, data)).startswith(place)
    csv.field_size_limit(old)


def test_json_takes_numbers_that_only_python_knows(tmp_path):
    for name in ("a.jsonl", "a.json"):
        (value,) = values(write(tmp_path, name, '[NaN, Infinity, -Infinity, {"a": 1e999}]'))[:1]
        assert str(value) in ("nan", "[nan, inf, -inf, {'a': inf}]")


def test_missing_files(tmp_path):
    assert fault(tmp_path / "a.jsonl") == "no such file; correct the path"
    assert fault(tmp_path / "*.jsonl").startswith("no file matches; ")
    assert fault(tmp_path) == f"is a folder; name its files, such as {tmp_path}/*.jsonl"
    os.symlink("gone.jsonl", tmp_path / "link.jsonl")
    assert fault(tmp_path / "link.jsonl") == "a link to gone.jsonl, which does not exist; mend it"
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


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(JSON_VALUES, min_size=1), st.integers(1, 40), st.booleans(), st.sampled_from([None, 1]))
def test_any_array_is_read_whatever_the_size_of_the_pieces(tmp_path, monkeypatch, items, chunk, ascii_only, indent):
    monkeypatch.setattr(files, "CHUNK", chunk)
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
