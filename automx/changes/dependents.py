"""What depends on a row, so that it cannot be deleted."""

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, func, select

from automx import members, references
from automx.database import Session
from automx.models import metadata

_SHOWN = 5
_FEW = 20  # domains whose tokens and accounts are searched for each domain

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
            return of_domains(session, {row_id: name}).get(row_id, [])
        case _:
            server_id, domain_id = _TABLES[f"{members.TABLES[kind]}_domain"].columns
            linked = select(domain_id).where(server_id == row_id)
            found = [_of("domain", domain.name, domain.id.in_(linked))]
    return _counted(session, found)


def of_domains(session: Session, names: Mapping[int, str]) -> dict[int, list[Dependents]]:
    """Return id -> tokens and accounts, of those domains that cannot be deleted because of them.

    ``names`` are the domains that are deleted together: id -> name. Nothing depends on a domain of
    which another row is left, and on a name that is no domain name.
    """
    ids = {
        a_label: row_id
        for row_id, name in names.items()
        if (a_label := references.a_label_of(name))
    }
    for row_id, _, a_label in references.same_domains(session, list(ids)):
        if row_id not in names:
            ids.pop(a_label, None)
    return {ids[a_label]: those for a_label, those in of_names(session, ids).items()}


def of_names(session: Session, a_labels: Collection[str]) -> dict[str, list[Dependents]]:
    """Return A-label -> tokens and accounts, of those names that have any, with a row or without.

    The tables are read once for many names.
    """
    find = _of_few if len(a_labels) <= _FEW else _of_many
    return {name: those for name, those in find(session, a_labels).items() if those}


def _of_few(session: Session, a_labels: Collection[str]) -> dict[str, list[Dependents]]:
    token, account = _TABLES["token"].c, _TABLES["account"].c
    found = {}
    for a_label in a_labels:
        at_domain = account.address.endswith(f"@{a_label}", autoescape=True)
        queries = [
            _of("token", token.name, token.domain == a_label),
            _of("account", account.address, at_domain),
        ]
        found[a_label] = _counted(session, queries)
    return found


def _of_many(session: Session, a_labels: Collection[str]) -> dict[str, list[Dependents]]:
    tables = (("token", _TABLES["token"].c.name), ("account", _TABLES["account"].c.address))
    found: dict[str, list[Dependents]] = {}
    for word, name in tables:
        domain = _TABLES["token"].c.domain if word == "token" else name
        names_of: dict[str, list[str]] = {}
        query = select(name, domain).order_by(name).execution_options(yield_per=2_000)
        for row_name, place in session.execute(query):
            a_label = str(place).rpartition("@")[2]
            if a_label in a_labels:
                names_of.setdefault(a_label, []).append(str(row_name))
        for a_label, row_names in names_of.items():
            one = Dependents(word, len(row_names), tuple(row_names[:_SHOWN]))
            found.setdefault(a_label, []).append(one)
    return found


def _counted(
    session: Session, queries: Collection[tuple[str, ColumnElement[Any], Select[Any]]]
) -> list[Dependents]:
    counted = [_count(session, word, name, query) for word, name, query in queries]
    return [one for one in counted if one.number]


def _of(
    word: str, name: ColumnElement[Any], condition: ColumnElement[bool]
) -> tuple[str, ColumnElement[Any], Select[Any]]:
    return word, name, select(name).where(condition)


def _count(session: Session, word: str, name: ColumnElement[Any], query: Select[Any]) -> Dependents:
    number = session.scalar(select(func.count()).select_from(query.subquery())) or 0
    names = session.scalars(query.order_by(name).limit(_SHOWN)) if number else ()
    return Dependents(word, number, tuple(map(str, names)))
