"""Whether the login names of a domain's people can be looked up in the database of a source."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

from automx.address import EmailAddress
from automx.check.finding import Check, DomainChecks, Finding
from automx.check.web import UNKNOWN
from automx.config import SourceSettings
from automx.database.foreign import ForeignDatabase, QueryError
from automx.directory.database import person, values
from automx.directory.queries import query
from automx.errors import AutomxError


@dataclass(frozen=True, slots=True)
class PeopleChecks(DomainChecks):
    """The checks of the source that knows the people of a domain."""

    source: SourceSettings

    def checks(self) -> Iterator[Check]:
        """Yield a check of the database; ``sources`` looks at what its account may do."""
        yield self.check

    def check(self) -> Iterator[Finding]:
        """Ask the database, once for all domains of the source."""
        key = ("people", self.source.name)
        failed, advice = self.network.once(key, self._examine)
        if failed:
            subject = f"source {self.source.name}"
            yield self.error(subject, f"people cannot be looked up: {failed}", advice)

    def _examine(self) -> tuple[str, str]:
        """Look up an address that no person has; return what failed, and advice."""
        source, network = self.source, self.network
        subject = f"source {source.name}"
        address = EmailAddress(UNKNOWN, self.domain or "invalid")  # RFC 2606
        seconds = min(network.timeout, source.people_timeout)
        with closing(ForeignDatabase(source.uri, seconds)) as database:
            try:
                person(subject, database.ask(query(source), values(address)), address)
            except QueryError as error:
                advice = (
                    "check people_query, the tables of the database, and what its account may read"
                )
                return error.reason, advice
            except AutomxError as error:
                return error.reason, "check uri and the database, see the log of automx"
        return "", ""
