"""What each column of the tables of tokens, accounts and keys of the API may hold.

``rows`` reads the rows of these tables, as it does those of automx2's.
"""

import re
from collections.abc import Mapping
from ipaddress import ip_network

from automx import kinds
from automx.address import parse_domain
from automx.config import BACKENDS
from automx.duration import parse_duration
from automx.kinds import Kind
from automx.words import Role, State

NEVER = "never"  # the expiry of accounts without end
SHORTEST_LIFETIME, LONGEST_LIFETIME = parse_duration("30s"), parse_duration("10y")
MAX_USE = 1_000_000_000
KEY_PREFIX = "automx_"  # so that programs that look for published secrets know a key of the API
KEY_FORM = re.compile(f"{KEY_PREFIX}[A-Za-z0-9]{{40}}")


def _expiry(value: object) -> str:
    text = kinds.instance(value, str).strip().lower()
    if text != NEVER and not SHORTEST_LIFETIME <= parse_duration(text) <= LONGEST_LIFETIME:
        raise ValueError
    return text


TOKEN = {
    "name": kinds.pattern(  # it stands in URLs, tags, files and command lines
        "a text of 1 to 64 characters without blanks and ? # / % \\",
        r"[^\s?#/%\\]{1,64}",
        exact=True,
    ),
    "token": kinds.pattern(
        "1 to 255 ASCII characters without blanks", r"[!-~]{1,255}", exact=True, secret=True
    ),
    "domain": kinds.A_LABEL,
    "prefix": kinds.pattern(
        "up to 40 lower-case letters, digits and . _ + -, with no dot or hyphen at the beginning"
        " and no two dots in a row",
        rf"(?![.-])(?!.*\.\.)[{kinds.ACCOUNT_LETTERS}]{{0,40}}",
        exact=True,
    ),
    "address": kinds.or_null(kinds.ACCOUNT_ADDRESS),
    "expiry": Kind(
        f"a number and one of s, m, h, d, w, y, from 30s to 10y, such as 12h or 2w, or {NEVER}",
        _expiry,
    ),
    "maxuse": Kind(
        f"a whole number from 0 (no limit) to {MAX_USE}", kinds.number(0, MAX_USE).normalise
    ),
    "usecount": kinds.number(0, MAX_USE),
    "valid_until": kinds.or_null(kinds.MOMENT),
    "is_revoked": kinds.BOOLEAN,
    "backend": kinds.word({name: name for name in ("", *BACKENDS)}),
    "spare_active": kinds.BOOLEAN,
}
ACCOUNT = {
    "address": kinds.ACCOUNT_ADDRESS,
    "token_id": kinds.ID,
    "mark": kinds.exact_text(32),
    "backend": kinds.word({name: name for name in BACKENDS}),
    "state": kinds.word({state.value: state for state in State}),
    "created_at": kinds.MOMENT,
    "expires_at": kinds.or_null(kinds.MOMENT),
    "changed_at": kinds.MOMENT,
    "warned_at": kinds.or_null(kinds.MOMENT),
}


def _network(value: object) -> str:
    text = kinds.string(value).strip()
    if not re.fullmatch(r"[0-9A-Fa-f.:/]+", text):  # a zone of IPv6 may hold anything
        raise ValueError
    return str(ip_network(text))


def _networks(value: object) -> str:
    words = kinds.string(value).replace(",", " ").split()
    return " ".join(dict.fromkeys(map(_network, words)))


NETWORK = Kind('a network such as "192.0.2.0/24"', _network)
API_KEY = {
    "name": kinds.pattern(
        "a text of 1 to 60 letters, digits and . _ -", r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}"
    ),
    "role": kinds.word({role.value: role for role in Role}),
    "provider_id": kinds.or_null(kinds.ID),
    "domains": Kind(
        'domain names such as "example.com", with blanks between',
        lambda value: " ".join(
            dict.fromkeys(map(parse_domain, kinds.fitting(kinds.string(value), 0, 60_000).split()))
        ),
    ),
    "networks": Kind('networks such as "192.0.2.0/24 2001:db8::/32"', _networks),
    "valid_until": kinds.or_null(kinds.MOMENT),
    "is_revoked": kinds.BOOLEAN,
}
# The columns of a token of which only name and domain are said; mailadm's.
TOKEN_DEFAULTS: Mapping[str, object] = {
    "prefix": "tmp.",
    "address": None,
    "expiry": "1d",
    "maxuse": 50,
    "usecount": 0,
    "valid_until": None,
    "is_revoked": False,
    "backend": "",
    "spare_active": False,
}
