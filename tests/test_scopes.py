"""Scopes: what SQL finds of the rows of a key."""

from datetime import UTC, datetime

from sqlalchemy import text, update

from automx.accounts import tokens
from automx.database import Session, create_engine
from automx.models import Token
from automx.scopes import Scope
from tests.databases import engine_uri

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)


def test_a_scope_sees_tokens_of_its_domains_in_any_spelling_on_every_database(
    any_migrated_uri: str,
) -> None:
    """Names that a collation takes for equal are names of others."""
    uri = engine_uri(any_migrated_uri)
    engine = create_engine(uri)
    names = ("own.example", "Upper.Example", "müller.example", "ünlike.example", "*.wild.example")
    with Session(engine) as session:
        session.execute(text("INSERT INTO provider VALUES (1, 'Own', 'Own'), (2, 'Other', 'O')"))
        rows = [*((name, 1) for name in names), ("other.example", 2), ("schön.example", 2)]
        for number, (name, provider) in enumerate(rows, 1):
            values = {"id": number, "name": name, "provider": provider}
            statement = text("INSERT INTO domain VALUES (:id, :name, :provider, NULL)")
            session.execute(statement, values)
        for domain in (
            *("own.example", "upper.example", "xn--mller-kva.example", "xn--schn-7qa.example"),
            *("other.example", "x.wild.example", "unlike.example"),
        ):
            tokens.add(session, domain, "own.example", now=NOW)
            row = update(Token).where(Token.c.name == domain)
            session.execute(row.values(domain=domain))
        session.commit()
        seen = ["own.example", "upper.example", "xn--mller-kva.example"]
        for scope, expected in (
            (Scope(1, (), "key:a"), seen),
            (Scope(2, (), "key:a"), ["xn--schn-7qa.example", "other.example"]),
            (Scope(1, ("own.example", "other.example"), "key:a"), seen[:1]),
            (Scope(77, (), "key:a"), []),
        ):
            found, _ = tokens.page(session, [scope.own_tokens(session)], 0, 100)
            assert [token.name for token in found] == expected
    engine.dispose()
