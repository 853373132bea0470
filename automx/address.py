"""Mail addresses, domain names as A-label and U-label, and placeholders.

A domain is kept as A-label in lower case (RFC 5890), the form that every protocol can transport.
The U-label is made for people and for the look-up of database rows. The local part keeps its case
(RFC 5321, section 2.4). It is a dot-string of RFC 5321, section 4.1.2, in which RFC 6531 allows
letters of all languages; mail clients accept no quoted local parts.
"""

import ipaddress
import re
import unicodedata
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import quote

from automx.errors import AddressError

# The placeholders of Autoconfig, which automx2 uses in its database as well.
PLACEHOLDER = re.compile("%EMAIL(?:ADDRESS|LOCALPART|DOMAIN)%")

# RFC 5321, section 4.5.3.1: the local part, and with it "@" and 255 octets of a domain.
MAX_LOCAL_PART_OCTETS = 64
MAX_ADDRESS_OCTETS = 320

# Characters of a domain name before IDNA maps it, which drops some and joins others: it takes time
# that grows with the square of their number.
_MAX_WRITTEN = 512

_LABEL = r"(?!-)[a-z0-9_-]{1,63}(?<!-)"
_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*", re.ASCII)
_ATEXT = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+")  # RFC 5322


@lru_cache(1000)  # most requests are for few domains
def parse_domain(text: str) -> str:
    """Return the domain ``text`` as A-label in lower case, without a final dot.

    A-labels and U-labels are accepted: ``MÜLLER.de`` and ``xn--mller-kva.de`` give the same result.
    An underscore is accepted: a host name cannot hold it, but mail domains for testing do.
    Raises AddressError if it is not a domain name.
    """
    if len(text) > _MAX_WRITTEN:
        raise AddressError("The domain name is not valid.")
    domain = text.lower().removesuffix(".")
    if not domain.isascii():
        import idna  # few workers are asked for names that it has to map

        try:
            domain = idna.encode(domain, uts46=True, std3_rules=False).decode("ascii").lower()
        except (idna.IDNAError, UnicodeError) as error:
            raise AddressError("The domain name is not valid.") from error
    if len(domain) > 253 or not _DOMAIN.fullmatch(domain):
        raise AddressError("The domain name is not valid.")
    if "xn--" in domain:
        unicode_domain(domain)
    return domain


def unicode_domain(domain: str) -> str:
    """Return the U-label form of a domain given as A-label.

    Raises AddressError if a label that begins ``xn--`` does not decode.
    """
    if "xn--" not in domain:
        return domain
    import idna

    try:
        return ".".join(
            idna.decode(label) if label.startswith("xn--") else label for label in domain.split(".")
        )
    except (idna.IDNAError, UnicodeError) as error:
        raise AddressError("The domain name is not valid.") from error


def is_ip(host: str) -> bool:
    """Return whether the name of a host is an IP address."""
    with suppress(ValueError):
        return bool(ipaddress.ip_address(host))
    return False


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine: ``localhost`` or a loopback address."""
    if host.lower() == "localhost":
        return True
    with suppress(ValueError):
        address = ipaddress.ip_address(host)
        # A socket for both families shows 127.0.0.1 as ::ffff:127.0.0.1.
        return (getattr(address, "ipv4_mapped", None) or address).is_loopback
    return False


def parse_host(text: str) -> str:
    """Return the name of a host as A-label, or its IP address in the usual form, without brackets.

    Raises AddressError if it is neither; an IPv6 address of one link only (``fe80::1%eth0``) is no
    host for others.
    """
    is_bracketed = text.startswith("[") and text.endswith("]")
    if ":" not in text or "%" in text:
        return parse_domain(text)
    try:
        return str(ipaddress.IPv6Address(text[1:-1] if is_bracketed else text))
    except ValueError as error:
        raise AddressError("The host name is not valid.") from error


def names_for(domain: str) -> list[str]:
    """Return the names of rows that fit a domain, best first: its own, wildcards, ``*``."""
    labels = domain.split(".")
    return [domain, *("*." + ".".join(labels[i:]) for i in range(1, len(labels))), "*"]


def spellings(name: str) -> list[str]:
    """Return the spellings of a domain or wildcard in a database after its function lower().

    ``name`` is given as A-label in lower case. SQLite, and PostgreSQL in the C locale, turn only
    ASCII letters into lower case: a row "MÜLLER.de" is found as "mÜller.de".
    """
    if "xn--" not in name:
        return [name]
    u_label = unicode_domain(name)
    ascii_lowered = "".join(char if char.isascii() else char.upper() for char in u_label)
    return list(dict.fromkeys((name, u_label, ascii_lowered)))


@dataclass(frozen=True, slots=True)
class EmailAddress:
    """A mail address: the local part in its own case, the domain as A-label in lower case."""

    local_part: str
    domain: str

    @classmethod
    def parse(cls, text: str) -> "EmailAddress":
        """Return the address in ``text``; spaces around it are ignored.

        Raises AddressError, with a text for the person that typed it.
        """
        text = text.strip(" ")
        if len(text.encode("utf-8", "surrogatepass")) > MAX_ADDRESS_OCTETS:
            raise AddressError("The mail address is too long.")
        # First of all, as it makes an ASCII character of some others: ";" of U+037E.
        local_part, at, domain = unicodedata.normalize("NFC", text).partition("@")
        if not at or "@" in domain:
            raise AddressError("A mail address has exactly one @.")
        if not local_part or not domain:
            raise AddressError("A mail address has a name before the @ and a domain after it.")
        if len(local_part.encode("utf-8", "surrogatepass")) > MAX_LOCAL_PART_OCTETS:
            raise AddressError("The part before the @ is too long.")
        atoms = local_part.split(".")
        if not all(atoms):
            raise AddressError(
                "The part before the @ has a dot at its beginning or end, or two in a row."
            )
        if not all(_ATEXT.fullmatch(atom) or _is_international(atom) for atom in atoms):
            raise AddressError("The part before the @ has a character that is not allowed there.")
        return cls(local_part, parse_domain(domain))

    def __str__(self) -> str:
        return f"{self.local_part}@{self.domain}"

    @property
    def for_people(self) -> str:
        """The address as people read it, with the domain in its U-label form."""
        return f"{self.local_part}@{unicode_domain(self.domain)}"

    @property
    def url_local_part(self) -> str:
        """The local part, percent-encoded for a URL (RFC 3986): it may hold "/", "?" and "#"."""
        return quote(self.local_part, safe="!$&'()*+,;=:@~")


def expand_url(url: str, domain: str, address: EmailAddress | None) -> str | None:
    """Return a URL as expand() does, with the local part percent-encoded."""
    return expand(url, domain, _in_url(address))


def expand(text: str, domain: str, address: EmailAddress | None) -> str | None:
    """Return ``text`` with its placeholders replaced; None if it needs an address that is None."""
    if "%" not in text:
        return text
    values = _values(domain, address)
    if text in values:  # as most are
        return values[text]
    if any(found not in values for found in PLACEHOLDER.findall(text)):
        return None
    return PLACEHOLDER.sub(lambda match: values[match[0]], text)


def fill_in(text: str, domain: str, address: EmailAddress | None) -> str:
    """Return ``text`` with those placeholders replaced whose value is known; the others stay.

    A text that is exactly %EMAILADDRESS% stays as well: every client fills it in, and a document
    with it is the same for everybody.
    """
    if "%" not in text or text == "%EMAILADDRESS%":
        return text
    values = _values(domain, address)
    return PLACEHOLDER.sub(lambda match: values.get(match[0], match[0]), text)


def fill_in_url(url: str, domain: str, address: EmailAddress | None) -> str:
    """Return a URL as fill_in() does, with the local part percent-encoded."""
    return fill_in(url, domain, _in_url(address))


def shared_url(url: str, domain: str) -> str | None:
    """Return the part of a URL that is the same for all people of a domain, or None if none is.

    ``https://dav.example.com/calendars/%EMAILADDRESS%/`` gives ``https://dav.example.com/calendars/``.
    There, a client finds the URLs of a person's own data (RFC 6764, section 6).
    """
    whole = expand_url(url, domain, None)
    if whole is not None:
        return whole
    before = PLACEHOLDER.split(url.replace("%EMAILDOMAIN%", domain))[0]
    shared = before.rpartition("/")[0] + "/"
    return shared if shared.count("/") > 2 else None


def _in_url(address: EmailAddress | None) -> EmailAddress | None:
    return address and EmailAddress(address.url_local_part, address.domain)


def _values(domain: str, address: EmailAddress | None) -> dict[str, str]:
    """Return what each placeholder stands for, as far as it is known."""
    values = {"%EMAILDOMAIN%": domain}
    if address is not None:
        values["%EMAILADDRESS%"] = str(address)
        values["%EMAILLOCALPART%"] = address.local_part
    return values


def _is_international(atom: str) -> bool:
    """Return whether an atom holds letters, marks, digits and symbols only (RFC 6531).

    Refused are U+FFFD, which decoders put in the place of bytes that are not UTF-8, and other forms
    of a character, such as a superscript digit (RFC 8264, section 9.17).
    """
    return all(
        _ATEXT.fullmatch(char)
        or (
            ord(char) > 127
            and char != "\ufffd"
            and unicodedata.category(char)[0] not in "CZ"
            and unicodedata.is_normalized("NFKC", char)
        )
        for char in atom
    )
