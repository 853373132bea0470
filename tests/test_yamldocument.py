"""Tests of automx.yamldocument: YAML says what JSON says."""

import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from automx.errors import SeedError
from automx.yamldocument import parse

TEXTS = st.text(st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="\x85\ufeff"))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS,
    lambda items: st.lists(items, max_size=4) | st.dictionaries(TEXTS, items, max_size=4),
    max_leaves=20,
)


@given(JSON)
def test_what_json_says_is_read_alike_in_both_forms_of_yaml(document: object) -> None:
    text = yaml.safe_dump(document, allow_unicode=True)
    assert parse(text.encode(), "a.yaml") == document
    assert parse(json.dumps(document, ensure_ascii=False).encode(), "a.yaml") == document


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),  # a language
        ("off", "off"),
        ("Yes", "Yes"),
        ("true", True),
        ("False", False),
        ("010", 10),
        ("0x1F", "0x1F"),
        ("12:30:45", "12:30:45"),
        ("1_000", "1_000"),
        ("2026-11-30", "2026-11-30"),
        ("1e3", 1000.0),
        ("~", None),
        ("", None),
        ("=", "="),
        ("'993'", "993"),
        ("'*.example.com'", "*.example.com"),
    ],
)
def test_plain_words_are_what_people_take_them_for(text: str, value: object) -> None:
    assert parse(f"a: {text}".encode(), "a.yaml") == {"a": value}


def test_an_anchor_is_written_once_and_used_often() -> None:
    assert parse(b"a: &all [1, 2]\nb: *all\n", "a.yaml") == {"a": [1, 2], "b": [1, 2]}


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"a: [1\n", ": line 2, column 1 is not valid YAML: did not find expected ',' or ']'"),
        (
            b"a: 1\nb:\n  c: 1\n  c: 2\n",
            ': line 4, column 3: the key "c" stands twice in one object',
        ),
        (
            b"a: *.example.com",
            ": line 1, column 5 is not valid YAML: did not find expected alphabet",
        ),
        (b"1: x", ": line 1, column 1: expected a text as key, found 1"),
        (b"a: !!binary aGk=", ': line 1, column 4: the type "tag:yaml.org,2002:binary" is'),
        (
            b"!!python/object/apply:os.system [ls]",
            ': line 1, column 1: the type "tag:yaml.org,2002:python/',
        ),
        (b"a: 1\n---\nb: 1\n", ": line 2, column 1 is not valid YAML: but found another document"),
        (b"a:\n b: \xff", ": line 2 is not UTF-8"),
        (b"a: \x00", " cannot be read as YAML: unacceptable character #x0000"),
        (b"&a [*a]", " cannot be read as YAML: maximum recursion depth exceeded"),
        (b"[" * 100_000, ": line 1, column 1001 is not valid YAML: exceeded maximum nesting"),
        (b"a: " + b"1" * 10_000, " cannot be read as YAML: Exceeds the limit"),
    ],
)
def test_what_json_cannot_say_is_refused_with_line_and_column(data: bytes, error: str) -> None:
    with pytest.raises(SeedError) as caught:
        parse(data, "a.yaml")
    assert str(caught.value).startswith(f"a.yaml{error}")
    assert "\n" not in str(caught.value)


def test_anchors_within_anchors_take_no_memory() -> None:
    levels = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30))
    found = parse(f"a0: &a0 [x]\n{levels}".encode(), "a.yaml")
    assert isinstance(found, dict)
    assert len(found) == 30
