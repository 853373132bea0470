"""Placeholders in the values of rows, as the Autoconfig draft spells them, and what looks alike."""

import difflib
import re

# Thunderbird alone fills in %REALNAME%, and other clients show it.
WORDS = ("%EMAILADDRESS%", "%EMAILLOCALPART%", "%EMAILDOMAIN%", "%REALNAME%")
KNOWN = re.compile("|".join(WORDS), re.IGNORECASE)
# How other programs write placeholders (%WORD%, ${user}, {email}, %u, Dovecot's %Lu), and ours with
# one percent sign only.
_UNKNOWN = re.compile(
    r"%[\w.-]+%|[$%]\{[^{}]*\}|\{+ *(?:0|[A-Z]\w+) *\}+|%[LU]?\w(?!\w)"
    r"|%(?:EMAIL\w+|REALNAME)\b|\b(?:EMAIL\w+|REALNAME)%",
    re.ASCII | re.IGNORECASE,
)
_ESCAPE = re.compile(r"%[0-9A-F]{2}", re.IGNORECASE)  # RFC 3986
# Characters of a text with placeholders. No column holds as many, and the time that the patterns
# above take grows with the square of their number.
_LONGEST = 1024


def normal(value: str) -> str:
    """Return a text with its placeholders as the standard spells them.

    Raises ValueError for a text that is far too long.
    """
    if "%" not in value:
        return value
    if len(value) > _LONGEST:
        raise ValueError
    return KNOWN.sub(lambda match: match[0].upper(), value)


def unknown(value: str, *, in_url: bool = False) -> str:
    """Return the first part of a normal text that looks like a placeholder and is none, or ""."""
    if "%" not in value and "{" not in value:
        return ""
    if len(value) > _LONGEST:
        raise ValueError
    rest = KNOWN.sub(" ", value)
    found = _UNKNOWN.search(_ESCAPE.sub(" ", rest) if in_url else rest)
    return found[0] if found else ""


def suggestion(unknown: str) -> str:
    """Return the placeholder that was most likely meant."""
    name = re.sub(r"\W|_", "", unknown).upper()
    near = difflib.get_close_matches(f"%{name}%", WORDS, 1, 0.85)
    if near:
        return near[0]
    if name in {"D", "DOMAIN"} or "DOMAIN" in name or name == "HOST":
        return "%EMAILDOMAIN%"
    is_local = name in {"N", "USER", "USERNAME", "LOCAL", "NAME"} or "PART" in name
    return "%EMAILLOCALPART%" if is_local else "%EMAILADDRESS%"
