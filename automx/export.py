"""Export: writes a seed document from the tables.

The document seeds an equal database: each value is written in its normal form. A value that no
seed would take is written as it is, and named in a warning.
"""

import base64
import json
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

from sqlalchemy import func, inspect, select

from automx import references, rows, schema
from automx.changes import stored
from automx.database import Session, chunks, read_by_key
from automx.kinds import Kind
from automx.models import ORIGINS, metadata
from automx.seed import number_of_rows
from automx.seeddocument import Row

log = logging.getLogger(__name__)

MAX_WARNINGS = 20

_AT_ONCE = 2_000  # domains whose links are read by one query

_TABLES = metadata.tables
_COUNTED = (
    *("provider", "provider_detail", "ldapserver", "domain", "disabled_domain"),
    *("server", "server_domain", "davserver", "davserver_domain"),
)

# What a document cannot hold: tables, and what a row and several rows of them are called.
_LEFT_OUT: tuple[tuple[Collection[str], str, str], ...] = (
    (("token",), "token", "tokens"),
    (("account",), "account", "accounts"),
    (("api_key",), "key of the API", "keys of the API"),
    (("audit",), "entry of the audit", "entries of the audit"),
    ([table.name for table in ORIGINS.values()], "origin of a row", "origins of rows"),
    (("source_sync", "synced_domain"), "state of a source", "states of sources"),
    (("managed_domain",), "state of a zone", "states of zones"),
)


def export(
    session: Session, *, with_secrets: bool = False, warn: Callable[[str], None] = log.warning
) -> Iterator[str]:
    """Yield the pieces of a document that seeds an empty database with equal rows.

    ``with_secrets`` includes the passwords of directories. ``warn`` is called with one line about
    each row that no seed would take, up to a limit. Memory does not grow with the number of
    domains.
    """
    return _Export(session, with_secrets, warn).pieces()


def left_out(session: Session) -> str:
    """Return what the database holds and no document does, with numbers; "" if there is nothing."""
    existing = {*inspect(session.connection()).get_table_names()}  # the schema may be an older one
    found = []
    for tables, one, many in _LEFT_OUT:
        if number := sum(number_of_rows(session, table) for table in existing & {*tables}):
            found.append(f"{number} {one if number == 1 else many}")
    return ", ".join(found)


class _Export:
    """One export; the first queries find out which keys the plain version 2 does without."""

    def __init__(self, session: Session, with_secrets: bool, warn: Callable[[str], None]) -> None:
        self.session = session
        self.with_secrets = with_secrets
        self.warn = warn
        self.warnings = 0
        self.counts = {table: number_of_rows(session, table) for table in _COUNTED}
        self.has_ids: dict[str, bool] = {
            table: not self._is_counted_from_1(table)
            for table in ("provider", "server", "davserver", "domain")
        }
        self.links = {
            table: references.number_of_links(session, table) for table in ("server", "davserver")
        }
        self.partly_linked = [
            table
            for table, number in self.links.items()
            if number != self.counts[table] * self.counts["domain"]
        ]
        self.has_ids |= dict.fromkeys(self.partly_linked, True)
        self.has_ids["provider"] |= self.counts["provider"] > 1
        is_one = self.counts["provider"] == 1
        self.only_provider = session.scalar(select(_TABLES["provider"].c.id)) if is_one else None

    def pieces(self) -> Iterator[str]:
        yield f'{{\n  "$schema": "{schema.ADDRESS}",\n  "version": 2'
        if self.counts["provider"] == 1 and not self.has_ids["provider"]:
            for provider in self._providers():
                document = {"provider": provider.pop("name"), **provider}
                for key, value in document.items():
                    yield f',\n  "{key}": {_json(value)}'
        else:
            yield from _list("providers", self._providers())
        if self.counts["ldapserver"]:
            yield from _list("ldapservers", self._ldapservers())
        yield from _list("servers", self._servers())
        yield from _list("domains", self._domains())
        yield "\n}\n"
        self._look_for_bad_references()
        if self.warnings > MAX_WARNINGS:
            self.warn(f"there are {self.warnings - MAX_WARNINGS} more rows of this kind")

    def _providers(self) -> Iterator[Row]:
        for row in self._rows("provider"):
            item = self._normal("provider", row)
            if item["short_name"] == rows.default_short_name(str(item["name"])):
                del item["short_name"]
            if self.counts["provider_detail"]:
                item |= self._details(row["id"])
            yield item

    def _details(self, provider_id: int) -> Row:
        """Return the details of a provider as a document holds them; {} if it has none."""
        table = _TABLES["provider_detail"]
        query = select(table).where(table.c.provider_id == provider_id)
        row = self.session.execute(query).mappings().one_or_none()
        if row is None:
            return {}
        name = f"the details of provider {provider_id}"
        columns = self._normal_columns(rows.PROVIDER_DETAIL, row, name)
        given = {column: value for column, value in columns.items() if value is not None}
        details = {column: given[column] for column in rows.CONTACT if column in given}
        for defect in rows.missing_parts(given):
            self._note(f"{name} will not seed again: {defect}")
        for group, needed in ((rows.LOGO, "logo"), (rows.OAUTH2, "oauth2_issuer")):
            parts = {column.partition("_")[2]: given[column] for column in group if column in given}
            if needed in given:
                details[needed.partition("_")[0]] = parts
            elif parts:
                self._note(f"{name} are seeded without {', '.join(parts)}: there is no {needed}")
        if "logo" in details:
            data = details["logo"].pop("")
            is_image = isinstance(data, bytes)
            details["logo"]["data"] = base64.b64encode(data).decode() if is_image else data
        table = _TABLES["documentation"]
        pages = select(table).where(table.c.provider_id == provider_id).order_by(table.c.id)
        if found := self.session.execute(pages).mappings().all():
            details["documentation"] = [
                self._normal_columns(rows.DOCUMENTATION, page, f"documentation {page['id']}")
                for page in found
            ]
        return {"details": details}

    def _ldapservers(self) -> Iterator[Row]:
        passwords = 0
        for row in self._rows("ldapserver"):
            item = {"id": row["id"], **self._normal("ldapserver", row)}
            if item["login_name"] is None:
                del item["login_name"]
            if not self.with_secrets:
                passwords += item.pop("bind_password") is not None
            yield item
        if passwords:
            self.warn(
                f"the passwords of {passwords} LDAP server{'s' * (passwords > 1)} are left out; "
                "automx export --with-secrets includes them"
            )

    def _servers(self) -> Iterator[Row]:
        for row in self._rows("server"):
            item = self._normal("server", dict(rows.with_clear_socket_type(row)))
            defaults = rows.server_defaults(item["type"], item["port"])
            del defaults["port"]  # it is written even where it is the standard one
            yield _without(item, defaults)
        for row in self._rows("davserver"):
            item = self._normal("davserver", row)
            yield _without(item, rows.service_defaults(str(item["url"])))

    def _domains(self) -> Iterator[Row]:
        for chunk in chunks(self._rows("domain"), _AT_ONCE):
            ids = [row["id"] for row in chunk]
            links = {table: stored.links(self.session, table, ids) for table in self.partly_linked}
            has_disabled = self.counts["disabled_domain"]
            disabled = stored.disabled(self.session, ids) if has_disabled else set()
            for row in chunk:
                item = self._normal("domain", row)
                provider_id = item.pop("provider_id")
                if provider_id != self.only_provider:
                    item["provider"] = provider_id
                if item["ldapserver_id"] is None:
                    del item["ldapserver_id"]
                for table, found in links.items():
                    linked = found.get(row["id"], ())
                    if len(linked) != self.counts[table]:
                        item[f"{table}s"] = linked
                yield item | ({"disabled": True} if row["id"] in disabled else {})

    def _normal(self, table: str, row: Row) -> Row:
        """Return the columns of a row in their normal forms, with the id if the document has it."""
        columns: Mapping[str, Kind] = {**rows.TABLES, "domain": rows.DOMAIN}[table]
        item = self._normal_columns(columns, row, f"{table} {row['id']}")
        return {"id": row["id"], **item} if self.has_ids.get(table) else item

    def _normal_columns(self, columns: Mapping[str, Kind], row: rows.Values, name: str) -> Row:
        """Return the normal forms of columns; what cannot be read stays as it is."""
        values, bad = rows.read(columns, row)
        for defect in bad:
            self._note(f"{name} will not seed again: {defect}")
        return {column: values.get(column, row[column]) for column in columns}

    def _look_for_bad_references(self) -> None:
        """Warn about rows that cannot be seeded because of other rows."""
        for name in references.non_normal_names(self.session):
            if name.duplicate_of is not None:
                self._note(f"domain {name.id} will not seed again: {name.a_label} has two rows")
        for found in references.dangling_references(self.session):
            if found.table == "domain":
                domain = found.key.replace("id", "domain")
                self._note(f"{domain} will not seed again: there is no {found.missing}")
        for table, number in self.links.items():
            links = f"{table}_domain"
            if dangling := self.counts[links] - number:
                self._note(f"{links} has {dangling} rows without server or domain, left out")

    def _note(self, line: str) -> None:
        self.warnings += 1
        if self.warnings <= MAX_WARNINGS:
            self.warn(line)

    def _rows(self, table: str) -> Iterator[Row]:
        """Yield all rows in the order of their ids."""
        query = select(*rows.selected(table))
        return map(dict, read_by_key(self.session, query, _TABLES[table].c.id))

    def _is_counted_from_1(self, table: str) -> bool:
        """Return whether the ids are those that rows without id are given in an empty database."""
        column = _TABLES[table].c.id
        least, most = self.session.execute(select(func.min(column), func.max(column))).one()
        return bool(least is None or (least == 1 and most == self.counts[table]))


def _without(item: Row, defaults: Row) -> Row:
    """Return an item without what it has by default."""
    return {key: value for key, value in item.items() if (key, value) not in defaults.items()}


def _list(key: str, items: Iterable[Row]) -> Iterator[str]:
    yield f',\n  "{key}": ['
    separator = "\n"
    for item in items:
        yield f"{separator}    {_json(item)}"
        separator = ",\n"
    yield "]" if separator == "\n" else "\n  ]"


def _json(value: object) -> str:
    # SQLite lets bytes into any column. As a list, no seed takes them for a text.
    return json.dumps(value, ensure_ascii=False, default=lambda octets: [str(octets)])
