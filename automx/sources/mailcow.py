"""Domains of a mailcow server, by its HTTP API and a key that may only read.

The calls for domains were read in the code of mailcow-dockerized, not seen: a list of objects,
``{}`` if there are none. Older ones have a sign in ``active`` and the number in ``active_int``.
"""

from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any

from automx import deadline
from automx.backends.keys import KeyMemory
from automx.config import SourceSettings
from automx.errors import AutomxError
from automx.sources.found import SourceError

_LARGEST_ANSWER = 256 * 1024 * 1024  # octets; each domain has about 2,000


def records(
    source: SourceSettings, keys: KeyMemory, *, ca_file: str
) -> Iterator[Mapping[str, object]]:
    """Yield the records of the domains and of their aliases. Raises SourceError."""
    from automx.backends.mailcowapi import MailcowApi  # httpx takes long to load

    end = deadline.after(source.timeout)
    try:
        with closing(
            MailcowApi(
                source.uri,
                source.token,
                timeout=source.timeout,
                ca_file=ca_file,
                keys=keys,
                largest_answer=_LARGEST_ANSWER,
            )
        ) as api:
            domains = _objects(api.get("get/domain/all", end), "domain_name")
            aliases = _objects(api.get("get/alias-domain/all", end), "alias_domain")
    except AutomxError as error:
        raise SourceError(cause=error.reason) from error
    return iter(
        [
            *(
                {"domain": each["domain_name"], "active": _active(each)}
                for each in domains
                if str(each.get("backupmx_int", each.get("backupmx", 0))) != "1"
            ),
            *(
                {
                    "domain": each["alias_domain"],
                    "active": _active(each),
                    "alias_of": each.get("target_domain"),
                }
                for each in aliases
            ),
        ]
    )


def _active(found: Mapping[str, Any]) -> object:
    return found.get("active_int", found.get("active"))


def _objects(answer: object, member: str) -> list[Mapping[str, Any]]:
    """Return the objects of an answer, each of which has a member. Raises SourceError."""
    found: list[Any] = answer if isinstance(answer, list) else [answer] if answer else []
    if not all(isinstance(each, dict) and member in each for each in found):
        raise SourceError(cause=f"mailcow: expected objects with a member {member}")
    return found
