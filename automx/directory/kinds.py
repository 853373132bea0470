"""Kinds of values of directories: hosts, search bases, filters, login names."""

import ipaddress

from automx import kinds
from automx.address import parse_domain
from automx.directory.row import check_filter, check_login_name, read_bases, read_hosts
from automx.errors import AddressError


def _hosts(value: object) -> str:
    stripped = kinds.fitting(kinds.plain(value).strip(), 1, 128)
    for host in read_hosts(stripped):
        if host.scheme == "ldapi":
            continue
        try:
            parse_domain(host.name)
        except AddressError:
            ipaddress.ip_address(host.name)
    return stripped


HOSTS = kinds.Kind(
    'a host name such as "ldap.example.com" or "ldaps://ldap.example.com:636", an IP address, a'
    ' socket such as "ldapi://%2Frun%2Fldapi", or several with blanks between, of at most 128'
    " characters",
    _hosts,
    schema=kinds.string_schema(128),
)


def _search_filter(value: object) -> str:
    stripped = kinds.string(value).strip()
    try:
        check_filter(kinds.fitting(kinds.plain(stripped), 1, 512))
    except ValueError as error:
        if not error.args:
            raise
        raise kinds.BadValueError(
            f"expected an LDAP filter such as (mail={{0}}), found {kinds.shown(value)}: {error}"
        ) from error
    return stripped


SEARCH_FILTER = kinds.Kind(
    "an LDAP filter of at most 512 characters such as (mail={0})",
    _search_filter,
    schema=kinds.string_schema(512, pattern=r"^\s*\(.*\)\s*$"),
)


def _search_base(value: object) -> str:
    base = kinds.fitting(kinds.plain(kinds.or_empty(value)), 0, 1024)
    read_bases(base)
    return base


SEARCH_BASE = kinds.Kind(
    'a search base such as "ou=people,dc=example,dc=com", or several with semicolons between, of at'
    " most 1024 characters",
    _search_base,
    schema={"anyOf": [kinds.string_schema(1024, 0), {"type": "null"}]},
)


def _login_name(value: object) -> str:
    stripped = kinds.fitting(kinds.plain(value).strip(), 1, 128)
    try:
        check_login_name(stripped)
    except ValueError as error:
        raise kinds.BadValueError(
            f"expected a login name such as CORP\\{{uid}}, found {kinds.shown(value)}: {error}"
        ) from error
    return stripped


LOGIN_NAME = kinds.Kind(
    "a login name of at most 128 characters such as CORP\\{uid}",
    _login_name,
    schema=kinds.string_schema(128),
)
