"""A checked row of the table ``ldapserver``, and the syntax of what it holds.

The settings that concern directories are applied later, by :mod:`automx.directory.pool`.
"""

import re
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, NamedTuple

from automx.address import EmailAddress, is_ip

_importing = Lock()

_PLACEHOLDER = re.compile(r"\{(0|local|domain)\}")
_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@.-_")
_HOST = re.compile(r"(?:(ldaps?)://)?(\[[0-9a-fA-F:.]+\]|[^\s:/\[\]]+)(?::(\d{1,5}))?/?")


class HostName(NamedTuple):
    """A host as the column ``name`` says it; ``scheme`` None and ``port`` 0 are not said."""

    scheme: str | None
    name: str
    port: int


@dataclass(frozen=True, slots=True)
class LdapServer:
    """A checked row of the table ``ldapserver``; hosts in the order in which they are tried."""

    id: int
    hosts: tuple[HostName, ...]
    port: int
    use_ssl: bool
    search_base: str
    search_filter: str
    attr_uid: str
    attr_cn: str
    bind_user: str
    bind_password: str = field(repr=False)

    def filter_for(self, address: EmailAddress) -> str:
        """Return the filter that finds an address; what it inserts is escaped (RFC 4515)."""
        values = {"0": str(address), "local": address.local_part, "domain": address.domain}
        return _PLACEHOLDER.sub(lambda match: _escape(values[match[1]]), self.search_filter)

    @property
    def attributes(self) -> list[str]:
        """The names of the attributes that a search asks for."""
        return [name for name in (self.attr_uid, self.attr_cn) if name]


def read_hosts(text: str) -> tuple[HostName, ...]:
    """Return the hosts of the column ``name``, with blanks or commas between them.

    Raises ValueError with what is no host.
    """
    hosts = []
    for item in re.split(r"[\s,]+", text.strip()):
        match = _HOST.fullmatch(f"[{item}]" if item.count(":") > 1 and is_ip(item) else item)
        port = int(match[3] or 0) if match else 0
        if not match or port > 65535 or (match[3] and not port):
            raise ValueError(item)
        hosts.append(HostName(match[1], match[2].strip("[]"), port))
    return tuple(hosts)


def check_filter(search_filter: str) -> None:
    """Raise ValueError, with the reason, for a filter that cannot find an address (RFC 4515)."""
    if not re.search(r"\{(0|local)\}", search_filter):
        raise ValueError("it has no placeholder {0} or {local} for the address")
    text = _PLACEHOLDER.sub("x", search_filter)
    if re.search(r"\\(?![0-9a-fA-F]{2})|\(\s*[~<>]?=", text):
        raise ValueError("invalid escape or attribute")
    ldap3()
    from ldap3.core.exceptions import LDAPException
    from ldap3.operation.search import parse_filter

    try:
        parse_filter(text, None, False, False, None, False)  # type: ignore[no-untyped-call] # no stub
    except LDAPException as error:
        raise ValueError(str(error)) from error


def ldap3() -> Any:
    """Return the library, which takes several MiB; code that needs a part of it calls this first.

    Its modules import each other in circles: threads that begin with different ones fail.
    """
    with _importing:
        import ldap3

        return ldap3


def _escape(text: str) -> str:
    """Return a value for a filter; all but the plainest characters are escaped (RFC 4515).

    ldap3 would drop blanks at the ends of a value.
    """
    return "".join(chr(octet) if octet in _PLAIN else f"\\{octet:02x}" for octet in text.encode())
