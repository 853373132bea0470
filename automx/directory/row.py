"""A checked row of the table ``ldapserver``, and the syntax of what it holds.

The settings that concern directories are applied later, by :mod:`automx.directory.ldap`.
"""

import re
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, NamedTuple
from urllib.parse import unquote

from automx.address import EmailAddress, is_ip

_importing = Lock()

_PLACEHOLDER = re.compile(r"\{(0|local|domain)\}")
_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@.-_")
_HOST = re.compile(r"(?:(ldaps?)://)?(\[[0-9a-fA-F:.]+\]|[^\s:/\[\]]+)(?::(\d{1,5}))?/?")
_SOCKET = "ldapi://"
_DEFAULT_SOCKET = "/var/run/slapd/ldapi"  # of "ldapi:///" in Debian's OpenLDAP
_LONGEST_SOCKET = 107  # bytes of a path that Linux can connect to (unix(7))
# A semicolon stands between search bases: a value in one must escape it (RFC 4514, section 2.4).
_BASE = re.compile(r"(?:[^\\;]|\\.)+")

LOGIN_NAME = "{uid}"  # the login name is what the directory holds
_IN_LOGIN_NAME = re.compile(r"\{(uid|0|local|domain)\}")


class HostName(NamedTuple):
    """A host as the column ``name`` says it; ``scheme`` None and ``port`` 0 are not said.

    The ``name`` of the scheme ``ldapi`` is the path of a socket.
    """

    scheme: str | None
    name: str
    port: int


@dataclass(frozen=True, slots=True)
class LdapServer:
    """A checked row of the table ``ldapserver``, with what ``ldapserver_detail`` adds to it.

    ``hosts`` stand in the order in which they are tried. ``login_name`` is a template of login
    names.
    """

    id: int
    hosts: tuple[HostName, ...]
    port: int
    use_ssl: bool
    search_bases: tuple[str, ...]
    search_filter: str
    attr_uid: str
    attr_cn: str
    bind_user: str
    bind_password: str = field(repr=False)
    login_name: str = LOGIN_NAME

    def __hash__(self) -> int:
        """Return a hash that takes less time than one of all columns."""
        return hash(self.id)

    def filter_for(self, address: EmailAddress) -> str:
        """Return the filter that finds an address; what it inserts is escaped (RFC 4515)."""
        values = _parts(address)
        return _PLACEHOLDER.sub(lambda match: _escape(values[match[1]]), self.search_filter)

    def login_name_of(self, uid: str, address: EmailAddress) -> str:
        """Return the login name of a person whose ``attr_uid`` holds ``uid``; "" if that is ""."""
        values = _parts(address) | {"uid": uid}
        return uid and _IN_LOGIN_NAME.sub(lambda match: values[match[1]], self.login_name)

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
        if item.lower().startswith(_SOCKET):
            hosts.append(HostName("ldapi", _socket_path(item), 0))
            continue
        match = _HOST.fullmatch(f"[{item}]" if item.count(":") > 1 and is_ip(item) else item)
        port = int(match[3] or 0) if match else 0
        if not match or port > 65535 or (match[3] and not port):
            raise ValueError(item)
        hosts.append(HostName(match[1], match[2].strip("[]"), port))
    return tuple(hosts)


def _socket_path(url: str) -> str:
    """Return the path in a URL such as ``ldapi://%2Frun%2Fldapi`` or ``ldapi:///run/ldapi``."""
    path = unquote(url[len(_SOCKET) :], errors="strict")
    path = _DEFAULT_SOCKET if path in {"", "/"} else path.rstrip("/")
    if not path.startswith("/") or not path.isprintable() or len(path.encode()) > _LONGEST_SOCKET:
        raise ValueError(url)
    return path


def read_bases(text: str) -> tuple[str, ...]:
    """Return the search bases of the column ``search_base``, with semicolons between them.

    Raises ValueError if one of several is empty.
    """
    if ";" not in text:
        return (text,)
    bases = tuple(re.sub(r"(?<!\\)\s+$", "", base.lstrip()) for base in _BASE.findall(text))
    if not all(bases) or len(bases) != len(_BASE.sub("x", text).split(";")):
        raise ValueError(text)
    return bases


def check_login_name(template: str) -> None:
    """Raise ValueError, with the reason, for a template that makes no login name."""
    if "{uid}" not in template:
        raise ValueError("it has no placeholder {uid} for the value of attr_uid")
    if re.search(r"[{}]|%\w+%", _IN_LOGIN_NAME.sub("", template)):
        raise ValueError("its placeholders are {uid}, {0}, {local} and {domain}")


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


def _parts(address: EmailAddress) -> dict[str, str]:
    return {"0": str(address), "local": address.local_part, "domain": address.domain}


def _escape(text: str) -> str:
    """Return a value for a filter; all but the plainest characters are escaped (RFC 4515).

    ldap3 would drop blanks at the ends of a value.
    """
    return "".join(chr(octet) if octet in _PLAIN else f"\\{octet:02x}" for octet in text.encode())
