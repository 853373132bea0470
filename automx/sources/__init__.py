"""Sources: the programs that know which domains a mail server has; automx only reads them.

A source is read whole before anything is changed: one that ends in the middle raises SourceError.
``found`` says what a domain is; each type of source has a module.
"""

from collections.abc import Iterator, Mapping

from automx.backends.keys import KeyMemory
from automx.config import Settings, SourceSettings
from automx.sources import command, file, found, ldap, mailcow, sql
from automx.sources.found import Domains


def read(source: SourceSettings, settings: Settings, keys: KeyMemory) -> Domains:
    """Return the domains of a source.

    ``keys`` remembers whether mailcow accepts a key. Raises SourceError if the source cannot be
    read to its end within its time.
    """
    return found.read(_records(source, settings, keys))


def _records(
    source: SourceSettings, settings: Settings, keys: KeyMemory
) -> Iterator[Mapping[str, object]]:
    match source.type:
        case "sql":
            return sql.records(source)
        case "ldap":
            return ldap.records(source, settings.directory)
        case "command":
            return command.records(source)
        case "file":
            return file.records(source)
        case _:
            return mailcow.records(source, keys, ca_file=settings.accounts.mailcow_ca_file)
