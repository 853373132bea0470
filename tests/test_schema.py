"""Tests of automx.schema: editors take what seeds take."""

import json
from typing import Any

import jsonschema
import pytest

from automx import schema, seeddocument
from automx.errors import SeedError
from automx.seeddocument import SAMPLE
from tests.commandline import automx
from tests.examples import DOCUMENT
from tests.processes import REPOSITORY
from tests.test_seed import EVERYTHING, NAMED
from tests.test_seeddocument import changed

VALIDATOR = jsonschema.Draft202012Validator(schema.of_document())
PUBLISHED = REPOSITORY / "docs" / "seed.schema.json"


@pytest.mark.parametrize(
    "document", [SAMPLE, EVERYTHING, DOCUMENT, NAMED | {"$schema": "seed.schema.json"}]
)
def test_what_seeds_take_fits_the_schema(document: dict[str, Any]) -> None:
    seeddocument.read(document)
    assert list(VALIDATOR.iter_errors(json.loads(json.dumps(document)))) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("colour", "red"),
        ("provider", ...),
        ("version", 3),
        ("origin", ""),
        ("domains.0.name", ...),
        ("domains.0.servers", [1, "2"]),
        ("servers.0.port", 0),
        ("servers.0.socket_type", "encrypted"),
        ("servers.0.url", "https://mail.example.com/"),
        ("details", {"color": "red"}),
        ("details", {"logo": {"type": "image/png"}}),
    ],
)
def test_what_seeds_refuse_does_not_fit_the_schema(path: str, value: object) -> None:
    document = changed(path, value)
    with pytest.raises(SeedError):
        seeddocument.read(document)
    assert list(VALIDATOR.iter_errors(document))


def test_the_schema_is_printed_for_the_place_where_documents_name_it() -> None:
    assert PUBLISHED.read_text() == automx("export", "--schema", env={})
    assert PUBLISHED.name == schema.ADDRESS
    jsonschema.Draft202012Validator.check_schema(schema.of_document())
