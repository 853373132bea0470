"""Export: writes a seed document from the tables.

The document seeds an equal database: each value is written in its normal form. A value that no
seed would take is written as it is, and named in a warning.
"""

import base64
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from automx import kinds, rows
from automx.database import chunks
from automx.errors import AddressError
from automx.kinds import BadValueError, Kind
from automx.models import Base
from automx.seed import number_of_rows
from automx.seeddocument import Row

log = logging.getLogger(__name__)

MAX_WARNINGS = 20

_AT_ONCE = 2_000  # rows that are read by one query
_NAMES_AT_ONCE = 400  # SQLite before 3.32 allows 999 parameters
_TABLES = Base.metadata.tables
_COUNTED = (
    *("provider", "provider_detail", "ldapserver", "domain"),
    *("server", "server_domain", "davserver", "davserver_domain"),
)


def begin_snapshot(session: Session) -> None:
    """Let all that this transaction reads be of one moment; call it before the first statement."""
    if session.get_bind().dialect.name == "sqlite":
        session.execute(text("BEGIN"))  # its driver begins a transaction only when it writes
    else:
        session.connection(execution_options={"isolation_level": "REPEATABLE READ"})


def export(
    session: Session, *, with_secrets: bool = False, warn: Callable[[str], None] = log.warning
) -> Iterator[str]:
    """Yield the pieces of a document that seeds an empty database with equal rows.

    ``with_secrets`` includes the passwords of directories. ``warn`` is called with one line about
    each row that no seed would take, up to a limit. Memory does not grow with the number of
    domains.
    """
    return _Export(session, with_secrets, warn).pieces()


class _Export:
    """One export; the first queries find out which keys the plain version 2 does without."""

    def __init__(self, session: Session, with_secrets: bool, warn: Callable[[str], None]) -> None:
        self.session = session
        self.with_secrets = with_secrets
        self.warn = warn
        self.warnings = 0
        self.counts = {table: number_of_rows(session, table) for table in _COUNTED}
        self.has_ids = {
            table: not self._is_counted_from_1(table)
            for table in ("provider", "server", "davserver", "domain")
        }
        self.has_some_links = {}
        for servers in ("server", "davserver"):
            number = self.counts[servers] * self.counts["domain"]
            self.has_some_links[servers] = self._number_of_links(servers) != number
            self.has_ids[servers] |= self.has_some_links[servers]
        self.has_ids["provider"] |= self.counts["provider"] > 1
        ids = session.scalars(select(_TABLES["provider"].c.id).limit(2)).all()
        self.only_provider = ids[0] if len(ids) == 1 else None

    def pieces(self) -> Iterator[str]:
        yield '{\n  "version": 2'
        if self.counts["provider"] == 1 and not self.has_ids["provider"]:
            for provider in self._providers():
                keys = {"name": "provider", "short_name": "short_name", "details": "details"}
                for key, value in provider.items():
                    yield f',\n  "{keys[key]}": {_json(value)}'
        else:
            yield from _list("providers", self._providers())
        if self.counts["ldapserver"]:
            yield from _list("ldapservers", self._ldapservers())
        yield from _list("servers", self._servers())
        yield from _list("domains", self._domains())
        yield "\n}\n"
        self._look_for_dangling_rows()
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
        details: Row = {}
        groups: dict[str, Row] = {"logo": {}, "oauth2": {}}
        for column, value in columns.items():
            group, _, key = column.partition("_")
            if value is None:
                continue
            if group in groups:
                groups[group][key or "data"] = value
            else:
                details[column] = value
        if isinstance(data := groups["logo"].get("data"), bytes):
            groups["logo"]["data"] = base64.b64encode(data).decode()
            details["logo"] = groups["logo"]
        if "issuer" in groups["oauth2"]:
            details["oauth2"] = groups["oauth2"]
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
            item = self._normal("server", row)
            yield _without(item, rows.server_defaults(item["type"], item["port"]), keep=("port",))
        for row in self._rows("davserver"):
            item = self._normal("davserver", row)
            yield _without(item, rows.service_defaults(str(item["url"])))

    def _domains(self) -> Iterator[Row]:
        odd_names: set[str] = set()
        for chunk in self._row_chunks("domain"):
            links = {table: self._links(table, chunk) for table in self.has_some_links}
            for row in chunk:
                item = self._normal("domain", row)
                provider_id = item.pop("provider_id")
                if provider_id != self.only_provider:
                    item["provider"] = provider_id
                if item["ldapserver_id"] is None:
                    del item["ldapserver_id"]
                for table, found in links.items():
                    if found and len(found[row["id"]]) != self.counts[table]:
                        item[f"{table}s"] = found[row["id"]]
                yield item
            self._look_for_twins(chunk, odd_names)

    def _normal(self, table: str, row: Row) -> Row:
        """Return the columns of a row in their normal forms, with the id if the document has it."""
        columns: Mapping[str, Kind] = {**rows.TABLES, "domain": rows.DOMAIN}[table]
        item = self._normal_columns(columns, row, f"{table} {row['id']}")
        return {"id": row["id"], **item} if self.has_ids.get(table) else item

    def _normal_columns(self, columns: Mapping[str, Kind], row: rows.Values, name: str) -> Row:
        """Return the normal forms of columns; what cannot be read stays as it is."""
        item: Row = {}
        for column, kind in columns.items():
            try:
                item[column] = kind.read(row[column])
            except BadValueError as error:
                self._note(f"{name} will not seed again: {column}: {error}")
                item[column] = row[column]
        return item

    def _look_for_twins(self, chunk: list[Row], odd_names: set[str]) -> None:
        """Warn about names that mean the same domain, such as Example.com and example.com.

        Of two such names at least one is odd, which is not an A-label in lower case;
        ``odd_names`` remembers those of earlier rows.
        """
        a_labels: dict[int, str] = {}
        for row in chunk:
            try:
                a_label = kinds.domain_a_label(str(row["name"]))
            except AddressError:
                continue
            if a_label != row["name"]:
                a_labels[row["id"]] = a_label
        column = _TABLES["domain"].c.name
        others: set[str] = set()
        for names in chunks(a_labels.values(), _NAMES_AT_ONCE):
            others.update(self.session.scalars(select(column).where(column.in_(names))))
        for row_id, a_label in a_labels.items():
            if a_label in others or a_label in odd_names:
                self._note(f"domain {row_id} will not seed again: {a_label} has two rows")
            odd_names.add(a_label)

    def _look_for_dangling_rows(self) -> None:
        """Warn about references to rows that do not exist; SQLite lets them be written."""
        domain = _TABLES["domain"]
        for column, name in (("provider_id", "provider"), ("ldapserver_id", "ldapserver")):
            other, reference = _TABLES[name], domain.c[column]
            joined = domain.outerjoin(other, other.c.id == reference)
            query = select(domain.c.id).select_from(joined).order_by(domain.c.id)
            dangling = query.where(other.c.id.is_(None), reference.is_not(None))
            for row_id in self.session.scalars(dangling):
                self._note(f"domain {row_id} will not seed again: its {column} is no {name}'s")
        for table in self.has_some_links:
            links = f"{table}_domain"
            if number := self.counts[links] - self._number_of_links(table):
                self._note(f"{links} has {number} rows without server or domain, left out")

    def _note(self, line: str) -> None:
        self.warnings += 1
        if self.warnings <= MAX_WARNINGS:
            self.warn(line)

    def _rows(self, table: str) -> Iterator[Row]:
        for chunk in self._row_chunks(table):
            yield from chunk

    def _row_chunks(self, table: str) -> Iterator[list[Row]]:
        """Yield all rows in the order of their ids."""
        key = _TABLES[table].c.id
        query = select(*rows.selected(table)).order_by(key).limit(_AT_ONCE)
        found = self.session.execute(query).mappings().all()
        while found:
            yield [dict(row) for row in found]
            query_rest = query.where(key > found[-1]["id"])
            found = self.session.execute(query_rest).mappings().all()

    def _links(self, table: str, chunk: Sequence[Row]) -> Mapping[int, list[int]] | None:
        """Return domain id -> server ids for some domains; None if all domains have all servers."""
        if not self.has_some_links[table]:
            return None
        servers, links = _TABLES[table], _TABLES[f"{table}_domain"]
        server_id, domain_id = links.columns
        query = (
            select(domain_id, server_id)
            .join(servers, servers.c.id == server_id)
            .where(domain_id.between(chunk[0]["id"], chunk[-1]["id"]))
            .order_by(domain_id, server_id)
        )
        found: dict[int, list[int]] = {row["id"]: [] for row in chunk}
        for domain, server in self.session.execute(query):
            found.setdefault(domain, []).append(server)
        return found

    def _is_counted_from_1(self, table: str) -> bool:
        """Tell whether the ids are those that rows without id are given in an empty database."""
        column = _TABLES[table].c.id
        least, most = self.session.execute(select(func.min(column), func.max(column))).one()
        return bool(least is None or (least == 1 and most == self.counts[table]))

    def _number_of_links(self, table: str) -> int:
        """Return how many rows of a link table lead from a server to a domain."""
        servers, domains, links = _TABLES[table], _TABLES["domain"], _TABLES[f"{table}_domain"]
        joined = links.join(servers, links.columns[0] == servers.c.id).join(
            domains, links.c.domain_id == domains.c.id
        )
        return self.session.scalar(select(func.count()).select_from(joined)) or 0


def _without(item: Row, defaults: Row, *, keep: Sequence[str] = ()) -> Row:
    """Return an item without what it has by default."""
    return {
        key: value
        for key, value in item.items()
        if key in keep or key not in defaults or value != defaults[key]
    }


def _list(key: str, items: Iterable[Row]) -> Iterator[str]:
    yield f',\n  "{key}": ['
    separator = "\n"
    for item in items:
        yield f"{separator}    {_json(item)}"
        separator = ",\n"
    yield "]" if separator == "\n" else "\n  ]"


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
