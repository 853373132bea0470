"""Tables in CSV are read as spreadsheets write them."""

import codecs

import pytest

from automx import csvfile
from automx.errors import SeedError

COLUMNS = ("name", "provider")
UTF_16 = codecs.BOM_UTF16_LE + "name\tprovider\r\nmüller.de\tÄ\r\n".encode("utf-16-le")


def read(data: bytes, delimiter: str = "") -> list[tuple[int, dict[str, str]]]:
    return list(csvfile.read(data, "my.csv", COLUMNS, "name", delimiter))


@pytest.mark.parametrize(
    "data",
    [
        "name,provider\nmüller.de,Ä\n".encode(),
        "name;provider\nmüller.de;Ä".encode(),
        "\ufeffname;provider\r\nmüller.de;Ä\r\n".encode(),
        "name;provider\r\nmüller.de;Ä\r\n".encode("cp1252"),
        "Name , PROVIDER\n müller.de , Ä \n".encode(),
        '"name","provider"\n"müller.de","Ä"\n'.encode(),
        "provider\tname\nÄ\tmüller.de\n".encode(),
        UTF_16,
        codecs.BOM_UTF16_BE + UTF_16.decode("utf-16").encode("utf-16-be"),
    ],
)
def test_a_table_of_each_program_gives_the_same_rows(data: bytes) -> None:
    assert read(data) == [(2, {"name": "müller.de", "provider": "Ä"})]


def test_a_line_that_names_the_delimiter_is_no_row() -> None:
    assert read(b"sep=;\r\nname;provider\r\na,b;c\r\n") == [(3, {"name": "a,b", "provider": "c"})]


def test_a_delimiter_that_is_given_is_used() -> None:
    assert read(b"name;provider\na;b,c\n", ";") == [(2, {"name": "a", "provider": "b,c"})]
    with pytest.raises(SeedError):
        read(b"name;provider\na;b,c\n", ",")


def test_rows_are_numbered_by_their_first_line_and_empty_ones_left_out() -> None:
    data = b'name,provider\n\na,"x\ny"\n , \nb,\n'
    assert read(data) == [
        (3, {"name": "a", "provider": "x\ny"}),
        (6, {"name": "b", "provider": ""}),
    ]


def test_one_column_is_a_table() -> None:
    assert read(b"name\na.example\n") == [(2, {"name": "a.example"})]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "my.csv: line 1: expected the column name, and each column once"),
        (b"provider\nx\n", "my.csv: line 1: expected the column name, and each column once"),
        (b"name,name\nx,y\n", "my.csv: line 1: expected the column name, and each column once"),
        (
            b"sep=,\nname,port\nx,y\n",
            'my.csv: line 2: expected a head with columns of name, provider, found "port"',
        ),
        (b"name,provider\nx\n", "my.csv: line 2: expected 2 cells, found 1 cell"),
        (b"name,provider\n\nx,y,z\n", "my.csv: line 3: expected 2 cells, found 3 cells"),
        (b'name,provider\n"x,y\nz', "my.csv: line 3 is no CSV: unexpected end of data"),
        (b'name\na\n"x"y\n', "my.csv: line 3 is no CSV: ',' expected after '\"'"),
        (b"name\na\n\xfc\x81", "my.csv: line 3 is no text in UTF-8 or Windows-1252"),
        (b"name\na\0b", "my.csv is no text: it has a character NUL"),
        (b"\xff\xfen", "my.csv: line 1 is no text in UTF-16"),
        (
            b"name\n" + b"x" * 200_000,
            "my.csv: line 2 is no CSV: field larger than field limit (131072)",
        ),
    ],
)
def test_what_is_no_table_is_refused_with_file_and_line(data: bytes, reason: str) -> None:
    with pytest.raises(SeedError) as caught:
        read(data)
    assert str(caught.value) == reason
