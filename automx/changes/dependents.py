"""What depends on a row, so that it cannot be deleted."""

from collections.abc import Collection
from contextlib import suppress
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, func, select

from automx import members
from automx.database import Session
from automx.errors import AddressError
from automx.kinds import domain_a_label
from automx.models import metadata

_SHOWN = 5
_FEW = 20  # domains that are looked for one by one

_TABLES = metadata.tables


class Dependents(NamedTuple):
    """Rows that depend on another one: their word, their number, and the first names."""

    word: str
    number: int
    names: tuple[str, ...]

    def __str__(self) -> str:
        more = ", …" if self.number > len(self.names) else ""
        return (
            f"{self.number} {self.word}{'s' * (self.number != 1)} ({', '.join(self.names)}{more})"
        )


def dependents(session: Session, kind: str, row_id: int, name: str) -> list[Dependents]:
    """Return what depends on a row: domains, keys, or the tokens and accounts of a domain."""
    domain = _TABLES["domain"].c
    match kind:
        case "provider":
            key = _TABLES["api_key"].c
            is_scope = (key.provider_id == row_id) & key.is_revoked.is_(False)
            found = [
                _of("domain", domain.name, domain.provider_id == row_id),
                _of("key", key.name, is_scope),
            ]
        case "directory":
            found = [_of("domain", domain.name, domain.ldapserver_id == row_id)]
        case "domain":
            token, account = _TABLES["token"].c, _TABLES["account"].c
            a_label = name
            with suppress(AddressError):  # a row may hold any text
                a_label = domain_a_label(name.strip())
            at_domain = account.address.endswith(f"@{a_label}", autoescape=True)
            found = [
                _of("token", token.name, token.domain == a_label),
                _of("account", account.address, at_domain),
            ]
        case _:
            server_id, domain_id = _TABLES[f"{members.TABLES[kind]}_domain"].columns
            linked = select(domain_id).where(server_id == row_id)
            found = [_of("domain", domain.name, domain.id.in_(linked))]
    counted = [_count(session, word, name, query) for word, name, query in found]
    return [one for one in counted if one.number]


def of_domains(session: Session, names: Collection[str]) -> dict[str, list[Dependents]]:
    """Return A-label -> what depends on it, of those domains on which tokens or accounts depend.

    The tables are read once for many domains.
    """
    if len(names) <= _FEW:
        each = ((name, dependents(session, "domain", 0, name)) for name in names)
        return {name: found for name, found in each if found}
    tables = (("token", _TABLES["token"].c.name), ("account", _TABLES["account"].c.address))
    found: dict[str, list[Dependents]] = {}
    for word, name in tables:
        domain = _TABLES["token"].c.domain if word == "token" else name
        names_of: dict[str, list[str]] = {}
        query = select(name, domain).order_by(name).execution_options(yield_per=2_000)
        for row_name, place in session.execute(query):
            a_label = str(place).rpartition("@")[2]
            if a_label in names:
                names_of.setdefault(a_label, []).append(str(row_name))
        for a_label, row_names in names_of.items():
            one = Dependents(word, len(row_names), tuple(row_names[:_SHOWN]))
            found.setdefault(a_label, []).append(one)
    return found


def _of(
    word: str, name: ColumnElement[Any], condition: ColumnElement[bool]
) -> tuple[str, ColumnElement[Any], Select[Any]]:
    return word, name, select(name).where(condition)


def _count(session: Session, word: str, name: ColumnElement[Any], query: Select[Any]) -> Dependents:
    number = session.scalar(select(func.count()).select_from(query.subquery())) or 0
    names = session.scalars(query.order_by(name).limit(_SHOWN)) if number else ()
    return Dependents(word, number, tuple(map(str, names)))
