"""The documents of domains that are the same for everybody, as automx answers them.

Domains of a provider are read together. Where it is not plain which row decides for a domain, the
look-up of a request is asked.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from time import monotonic

from sqlalchemy import ColumnElement, RowMapping, func, select

from automx import domainrows, lookup
from automx.address import parse_domain
from automx.cache import FoundConfig
from automx.clientconfig import ClientConfig
from automx.config import Settings
from automx.database import KEYS_AT_ONCE, Session, chunks, read_by_key
from automx.directory.pool import source_of_people
from automx.domainrows import Row
from automx.errors import AddressError, BadRecordError, UnknownDomainError
from automx.formats import autoconfig, pacc
from automx.models import Domain
from automx.publish.folder import KINDS
from automx.records import Records
from automx.rowmemory import RowMemory

_AT_ONCE = 500  # domains whose rows are read together
_RECORDS = 5_000  # records that are remembered
_FEW = 50  # sets of servers of domains that are read together; more are not remembered

# Kind -> the document, or None if nginx has to ask automx.
Documents = Mapping[str, bytes | None]

_NOTHING: Documents = dict.fromkeys(KINDS)


class Reader:
    """Reads the documents of domains, by some settings.

    The transaction of the session is rolled back in between.
    """

    def __init__(self, session: Session, settings: Settings) -> None:
        self._session = session
        self._sources = [source for source in settings.sources if source.finds_people]
        self._has_pacc = settings.publish_seconds > 0
        self._memory = _memory()
        self._twins: frozenset[str] | None = None

    def of_rows(self, condition: ColumnElement[bool] | None) -> Iterator[tuple[str, Documents]]:
        """Yield the documents of domains with rows that fit a condition, by default of all.

        Wildcards are left out: nobody knows the domains below them.
        """
        query = domainrows.query_rows(Domain.c.name)
        if condition is not None:
            query = query.where(condition)
        for some in chunks(read_by_key(self._session, query, Domain.c.id), _AT_ONCE):
            yield from self._of_some(some)

    def of_domain(self, domain: str) -> Documents:
        """Return the documents of a domain, with a row or without."""
        try:
            return self._of(lookup.find(self._session, domain, self._memory))
        except (UnknownDomainError, BadRecordError):
            return _NOTHING

    def without_row(self, names: Sequence[str]) -> Iterator[str]:
        """Yield those of some A-labels that no row has as its name in this form."""
        for some in chunks(names, KEYS_AT_ONCE):
            column = domainrows.lower_name(self._session.engine.dialect.name)
            query = select(Domain.c.name).where(column.in_(some))
            found = {str(name).lower() for name in self._session.scalars(query).all()}
            self._session.rollback()
            yield from (name for name in some if name not in found)

    def _of_some(self, columns: Sequence[RowMapping]) -> Iterator[tuple[str, Documents]]:
        if self._twins is None:
            self._twins = self._names_twice()
        rows = [domainrows.row_of(self._session, [*each.values()]) for each in columns]
        self._read_records(rows)
        found = [*self._of_each(rows)]
        self._session.rollback()
        yield from found

    def _of_each(self, rows: Sequence[Row]) -> Iterator[tuple[str, Documents]]:
        for row in rows:
            with suppress(AddressError):
                domain = parse_domain(str(row.name).strip())
                if row.name == domain and domain not in (self._twins or ()):
                    yield domain, self._of_row(domain, row)
                else:
                    yield domain, self.of_domain(domain)

    def _of_row(self, domain: str, row: Row) -> Documents:
        if row.is_off:
            return _NOTHING
        try:
            return self._of(lookup.found_by(self._session, domain, row, self._memory))
        except BadRecordError:
            return _NOTHING

    def _of(self, found: FoundConfig) -> Documents:
        if found.is_by_wildcard:
            return _NOTHING
        return {"autoconfig": self._autoconfig(found), "pacc": self._pacc(found)}

    def _autoconfig(self, found: FoundConfig) -> bytes | None:
        if found.ldap_server is not None or not found.value(_is_the_same):
            return None
        if self._sources and source_of_people(self._sources, found.origin, found.config.domain):
            return None
        return found.document(autoconfig.render)

    def _pacc(self, found: FoundConfig) -> bytes | None:
        if not self._has_pacc:
            return None
        try:
            return found.document(pacc.render) if found.stored_pacc is None else found.pacc()
        except (pacc.NothingToPublishError, BadRecordError):
            return None

    def _names_twice(self) -> frozenset[str]:
        """Return the names in lower case that several rows have."""
        name = domainrows.lower_name(self._session.engine.dialect.name)
        query = select(name).group_by(name).having(func.count() > 1)
        return frozenset(str(each).lower() for each in self._session.scalars(query))

    def _read_records(self, rows: Sequence[Row]) -> None:
        """Read what rows refer to at once; else each domain with servers of its own would ask."""
        keys = {(row.provider_id, row.ldapserver_id, row.servers, row.services) for row in rows}
        if len(keys) > _FEW:
            self._memory = _memory()
        records = Records(self._session, self._memory)
        records.servers([*{each for row in rows for each in row.servers}])
        records.services([*{each for row in rows for each in row.services}])


def _memory() -> RowMemory:
    # A run is short, and what is changed meanwhile is read by the next one.
    return RowMemory(float("inf"), _RECORDS, monotonic)


def _is_the_same(config: ClientConfig) -> bool:
    """Return whether there is an Autoconfig document, and it is the same for everybody."""
    return not (config.missing or autoconfig.is_personal(config))
