"""Scopes: the part of the database that a key of the API may see and change.

The scope of a key is its domains: those of a provider, those with some names, or what is both.
Wildcards, providers, and changes of directories are in no scope. Servers and services belong to no
provider: a key sees those that its domains use and those that it has made, and changes them if no
other domain uses them. Directories are seen if its domains use them.
"""

from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    LargeBinary,
    Select,
    cast,
    exists,
    false,
    func,
    or_,
    select,
)

from automx import domainrows, kinds, references
from automx.database import KEYS_AT_ONCE, Session, chunks
from automx.errors import AddressError, ConflictError, ForbiddenError, SeedError
from automx.members import TABLES, Item
from automx.models import ORIGINS, Token, metadata

_TABLES = metadata.tables
_DOMAIN = _TABLES["domain"].c
_REFERRED = {"servers": "server", "davservers": "service"}  # member of a domain -> kind


@dataclass(frozen=True, slots=True)
class Scope:
    """The scope of a key: ``provider`` is an id, ``domains`` are A-labels, () for all.

    Rows that the key makes are of ``origin``.
    """

    provider: int | None
    domains: tuple[str, ...]
    origin: str

    def seen(self, session: Session, kind: str) -> ColumnElement[bool]:
        """Return the condition that the key sees a row of a kind."""
        own = self.own_domains(session)
        key = _TABLES[TABLES[kind]].c.id
        match kind:
            case "domain":
                return key.in_(own)
            case "directory":
                used = select(_DOMAIN.ldapserver_id).where(_DOMAIN.id.in_(own))
                return key.in_(used.where(_DOMAIN.ldapserver_id.is_not(None)))
            case "server" | "service":
                server_id, domain_id = _TABLES[f"{TABLES[kind]}_domain"].columns
                made, origin = ORIGINS[TABLES[kind]].columns
                return or_(
                    key.in_(select(server_id).where(domain_id.in_(own))),
                    key.in_(select(made).where(origin == self.origin)),
                )
            case _:
                return false()

    def own_domains(self, session: Session) -> Select[Any]:
        """Return the query for the ids of the domains of the key."""
        query = select(_DOMAIN.id).where(_DOMAIN.name.not_like("%*%"))
        if self.provider is not None:
            query = query.where(_DOMAIN.provider_id == self.provider)
        if self.domains:
            found = references.same_domains(session, self.domains)
            query = query.where(_DOMAIN.id.in_([row_id for row_id, _, _ in found]))
        return query

    def sees(self, session: Session, kind: str, row_id: int) -> bool:
        """Return whether the key sees a row."""
        key = _TABLES[TABLES[kind]].c.id
        query = select(key).where(key == row_id, self.seen(session, kind))
        return session.scalar(query) is not None

    def own_names(self, session: Session, a_labels: Collection[str]) -> set[str]:
        """Return those of some A-labels that are domains of the key."""
        found = {row_id: name for row_id, _, name in references.same_domains(session, a_labels)}
        query = self.own_domains(session)
        return {
            found[row_id]
            for ids in chunks(found, KEYS_AT_ONCE)
            for row_id in session.scalars(query.where(_DOMAIN.id.in_(ids)))
        }

    def own_tokens(self, session: Session) -> ColumnElement[bool]:
        """Return the condition that a token makes accounts in a domain of the key.

        SQL compares names that are A-labels; tokens of other names are few.
        """
        dialect = session.engine.dialect.name
        is_its = domainrows.lower_name(dialect) == Token.c.domain
        if dialect in {"mysql", "mariadb"}:
            # By the index of names, whose collation may find too much.
            is_its = _DOMAIN.name == Token.c.domain.collate("utf8mb4_general_ci")
            as_bytes = cast(func.lower(_DOMAIN.name), LargeBinary)
            is_its &= as_bytes == cast(Token.c.domain, LargeBinary)
        is_plain = exists(select(_DOMAIN.id).where(is_its))
        others = set(session.scalars(select(Token.c.domain).where(~is_plain).distinct()))
        return or_(
            exists(self.own_domains(session).where(is_its)),
            Token.c.domain.in_(self.own_names(session, others)),
        )

    def check_change(self, session: Session, kind: str, row_id: int) -> None:
        """Raise ForbiddenError if the key may not change or delete a row that it sees."""
        if kind == "domain":
            return
        if kind not in {"server", "service"}:
            raise ForbiddenError("This key may not change this row.")
        server_id, domain_id = _TABLES[f"{TABLES[kind]}_domain"].columns
        others = select(domain_id).where(
            server_id == row_id, domain_id.not_in(self.own_domains(session))
        )
        if session.scalar(others.limit(1)) is not None:
            raise ForbiddenError("This key may not change this row.")

    def check_new(self, kind: str, value: Mapping[str, Any]) -> dict[str, Any]:
        """Return the object of a new row; a domain is one of the provider of the key.

        Raises ForbiddenError for a kind of row that the key may not make, and SeedError for an id:
        whether it is taken is not told.
        """
        if kind not in {"server", "service", "domain"}:
            raise ForbiddenError("This key may not make such a row.")
        if kind == "domain" and self.provider is None:
            raise ForbiddenError("This key is for some domains only, and may make no others.")
        if value.get("id") is not None:
            raise SeedError("id: expected no id, because this key has a scope")
        return {"provider": self.provider, **value} if kind == "domain" else dict(value)

    def check_item(
        self, session: Session, kind: str, item: Item, before: Item | None, path: str = ""
    ) -> None:
        """Raise an error if the key may not let a row become as an item says.

        ``before`` is what the row was, None for a new one. What the key does not see is answered as
        what does not exist.
        """
        if kind != "domain":
            return
        begin = f"{path}." if path else ""
        old = before or {}
        if item["provider"] != old.get("provider", self.provider):
            raise SeedError(f"{begin}provider: expected the provider of this key")
        if before is None or item["name"] != old["name"]:
            self.check_name(item["name"], f"{begin}name")
        for member, referred in _REFERRED.items():
            for row_id in set(item[member] or ()) - set(old.get(member) or ()):
                if not self.sees(session, referred, row_id):
                    raise SeedError(_missing(f"{begin}{member}", TABLES[referred], row_id))
        directory = item["ldapserver_id"]
        is_new = directory is not None and directory != old.get("ldapserver_id")
        if is_new and not self.sees(session, "directory", directory):
            raise SeedError(_missing(f"{begin}ldapserver_id", "ldapserver", directory))

    def check_name(self, name: str, path: str) -> None:
        """Raise SeedError if no domain of the key can have a name."""
        if "*" in name:
            raise SeedError(f"{path}: expected no wildcard, because this key has a scope")
        if self.domains and kinds.domain_a_label(name) not in self.domains:
            raise SeedError(f"{path}: expected a domain of this key")

    def check_free(self, session: Session, name: str, row_id: int | None = None) -> None:
        """Raise ConflictError if a domain of the key cannot get a name, as if it existed.

        ``row_id`` is that of the domain if it exists already.
        """
        found = {
            other for other, *_ in references.same_domains(session, [kinds.domain_a_label(name)])
        }
        if found == {row_id}:  # another spelling of its name
            return
        if found or self.taken(session, [name]):
            raise ConflictError(f"The database holds the domain {name} already")

    def taken(self, session: Session, names: Collection[str]) -> set[str]:
        """Return the A-labels of those names that belong to others although there is no such row.

        A wildcard of another provider stands for them; ``*`` does not count. Or tokens or accounts
        are left of an earlier domain, which the key would get.
        """
        from automx.changes.dependents import of_names  # not for workers without the API

        query = select(_DOMAIN.name, _DOMAIN.provider_id).where(_DOMAIN.name.like("%*.%"))
        wildcards: dict[str, int] = {}
        for wildcard, provider in session.execute(query):
            with suppress(AddressError):
                wildcards[kinds.domain_a_label(str(wildcard).strip())] = provider
        a_labels = {kinds.domain_a_label(name) for name in names}
        foreign = {name for name in a_labels if self._is_foreign(name, wildcards)}
        return foreign | set(of_names(session, a_labels))

    def _is_foreign(self, a_label: str, wildcards: Mapping[str, int]) -> bool:
        labels = a_label.split(".")
        above = (f"*.{'.'.join(labels[at:])}" for at in range(1, len(labels)))
        return any(wildcards.get(name, self.provider) != self.provider for name in above)


def _missing(path: str, table: str, row_id: int) -> str:
    """Return the text of a reference to a row that does not exist, as for all keys."""
    return (
        f"{path}: expected the id of a {table} in this document or in the database, found {row_id}"
    )
