"""Domains in an LDAP directory (RFC 4511), read in pages (RFC 2696).

The hosts are asked one after the other; the first that answers is read to the end. TLS and StartTLS
are those of the settings of directories.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from automx import deadline
from automx.config import DirectorySettings, SourceSettings
from automx.directory.connection import BrokenError, Connection, Host, HostError
from automx.directory.ldap import credentials, hosts, tls_context
from automx.directory.row import LdapServer, read_bases, read_hosts
from automx.errors import SettingsError
from automx.sources import presets
from automx.sources.found import SourceError

# What directories say (RFC 4511, appendix A), and what to do about it.
_ADVICE = {
    "invalidCredentials": "see bind_user and bind_password",
    "password is mandatory": "bind_password is missing",
    "noSuchObject": "see search_base, and what bind_user may read",
    "invalidDNSyntax": "see search_base: a name such as o=domains,dc=example,dc=com",
    "invalid filter": "see search_filter: a filter such as (objectClass=mailDomain)",
    "insufficientAccessRights": "let bind_user read below search_base",
    "Connection refused": "see that the directory runs, and host and port of uri",
    "ssl wrapping": "see uri: ldaps:// is for the port with TLS, usually 636",
}

_NO_ROW = -1  # in place of the id of a row of ``ldapserver``


def records(source: SourceSettings, settings: DirectorySettings) -> Iterator[Mapping[str, object]]:
    """Yield the records of the entries, and those of their aliases. Raises SourceError."""
    names = presets.search(source).attributes
    entries = _entries(source, settings)
    found = [record for entry in entries for record in _of_entry(entry, names)]
    if entries and not found:
        raise SourceError(
            cause=f"none of {len(entries)} entries shows the attribute {names['domain']}: see"
            " attributes, and what bind_user may read"
        )
    return iter(found)


def _entries(source: SourceSettings, settings: DirectorySettings) -> list[Any]:
    """Return the entries that the first host gives that answers. Raises SourceError."""
    search = presets.search(source)
    end = deadline.after(source.timeout)
    server = _server(source, search)
    try:
        access = credentials(server, settings, tls_context(settings))
    except SettingsError as error:
        raise SourceError(cause=error.reason) from error
    troubles = []
    targets: list[Host] = []
    for host in hosts(server, settings):
        try:
            targets += host.each_address()
        except BrokenError as error:
            troubles.append(f"{host}: {error}")
    for number, target in enumerate(targets):
        connection = Connection(target, access)
        # What is left is shared: a silent host must not use up the time of the next one.
        until = deadline.after(deadline.left(end) / (len(targets) - number))
        try:
            with connection.ending(until):
                connection.log_in(until)
            attributes = [*search.attributes.values()]
            with connection.ending(end):
                return connection.entries(
                    server.search_bases, search.search_filter, attributes, end
                )
        except HostError as error:
            troubles.append(f"{target}: {error}")
        finally:
            connection.close()
    raise SourceError(cause=_advised("; ".join(troubles)))


def _server(source: SourceSettings, search: presets.Search) -> LdapServer:
    """Return the directory of a source as a row. Raises SourceError."""
    try:
        hosts_ = read_hosts(source.uri)
    except ValueError as error:
        raise SourceError(
            cause=f"uri: {error} is no host of a directory, such as ldaps://ldap.example.com"
        ) from error
    try:
        return LdapServer(
            id=_NO_ROW,
            hosts=hosts_,
            port=0,
            use_ssl=False,
            search_bases=read_bases(source.search_base),
            search_filter=search.search_filter,
            attr_uid="",
            attr_cn="",
            bind_user=source.bind_user,
            bind_password=source.bind_password,
        )
    except ValueError as error:
        text = "search_base: expected a base, or several with semicolons between them"
        raise SourceError(cause=text) from error


def _advised(trouble: str) -> str:
    """Return a trouble with the keys of the source that may be wrong."""
    for word, advice in _ADVICE.items():
        if word in trouble:
            return f"{trouble}; {advice}"
    return trouble


def _of_entry(entry: Mapping[str, Any], names: Mapping[str, str]) -> Iterator[dict[str, object]]:
    """Yield the records of an entry: each value of ``domain`` is a domain, others are alike."""
    values = {name.lower(): found for name, found in entry["raw_attributes"].items()}

    def texts(said: str) -> list[str]:
        found = values.get(names[said].lower(), ()) if said in names else ()
        return [bytes(value).decode(errors="replace") for value in found]

    common = {said: texts(said)[0] for said in ("active", "provider", "like") if texts(said)}
    domains = texts("domain")
    for domain in domains:
        yield {"domain": domain, **common, "alias_of": "".join(texts("alias_of")[:1])}
    for alias in texts("aliases") if domains else ():
        yield {"domain": alias, **common, "alias_of": domains[0]}
