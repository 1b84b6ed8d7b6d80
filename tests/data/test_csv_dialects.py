"""What separates the fields of a CSV file is told from its header."""

import pytest
from record_files import fault, values, write

ROWS = [{"Frage": "Wie, bitte?", "Antwort": "Gut; danke", "Note": "4,5"}]


def text(delimiter, quote='"'):
    cells = [["Frage", "Antwort", "Note"], ["Wie, bitte?", "Gut; danke", "4,5"]]
    return "\r\n".join(delimiter.join(f"{quote}{cell}{quote}" for cell in row) for row in cells)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
def test_any_of_four(tmp_path, delimiter, name, bom):
    assert values(write(tmp_path, name, bom + text(delimiter))) == ROWS


@pytest.mark.parametrize("delimiter", ["\t", "|"])
def test_without_quotes(tmp_path, delimiter):
    assert values(write(tmp_path, "a.csv", text(delimiter, quote=""))) == ROWS


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("q\na b\n", [{"q": "a b"}]),
        ("q\na;b|c\n", [{"q": "a;b|c"}]),
        # a comma in a name of a column does not make it a comma's file, nor a semicolon in a row a semicolon's
        ("question, in short;answer\nWhy?;So.\n", [{"question, in short": "Why?", "answer": "So."}]),
        ("q,a\nx; y; z,b; c\n", [{"q": "x; y; z", "a": "b; c"}]),
        ("q;a\nx, y, z;b\n", [{"q": "x, y, z", "a": "b"}]),
        ('"q, 1";"a; 2"\n1;2\n', [{"q, 1": "1", "a; 2": "2"}]),
        ('q;a\n"over\n;;\nlines";b\n', [{"q": "over\n;;\nlines", "a": "b"}]),
        ("\n\nq;a\n\n1;2\n", [{"q": "1", "a": "2"}]),
        # the line that Excel reads the delimiter from
        ("sep=;\nq;a\n1;2\n", [{"q": "1", "a": "2"}]),
        ("sep=!\r\nq!a\r\n1!2\r\n", [{"q": "1", "a": "2"}]),
        ("sep=,q\n1,2\n", [{"sep=": "1", "q": "2"}]),  # no such line
        # by hand: blanks after the commas, and quotes after those
        ('\nq, a\nx, "y, z"\n', [{"q": "x", "a": "y, z"}]),
        ('q ,a\nx, "y" z\n', [{"q": "x", "a": ' "y" z'}]),  # the header has none after its commas
    ],
)
def test_the_header_decides(tmp_path, data, expected):
    assert values(write(tmp_path, "a.csv", data)) == expected


@pytest.mark.parametrize(
    ("data", "what"), [("q,a\n1,2,3\n", "commas"), ("q;a\n1;2;3\n", "semicolons"), ("q|a\n1|2|3\n", "bars")]
)
def test_rows_of_another_width_are_named(tmp_path, data, what):
    path = write(tmp_path, "a.csv", data)
    assert fault(path) == f"row 1: 3 fields where the header has 2; quote fields that hold {what}"


def test_a_header_of_many_lines(tmp_path):
    name = "\n".join(map(str, range(200)))
    assert values(write(tmp_path, "a.csv", f'"{name}",a\n1,2\n')) == [{name: "1", "a": "2"}]
