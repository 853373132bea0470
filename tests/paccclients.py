"""A client that checks digests (draft-ietf-mailmaint-pacc), and what others remember for it.

Resolvers remember records for their TTL, caches of HTTP a document for its max-age, from whatever
moment: the model remembers all that could still be remembered, and a client may get any pair of it.
"""

import base64
import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TypeVar

_Key = TypeVar("_Key")

_DIGEST = re.compile(r"v=UAAC1; a=sha256; d=([A-Za-z0-9+/=]+)")


def accepts(document: bytes, texts: Iterable[str]) -> bool:
    """Return whether a client takes a document; without a digest, there is nothing to check."""
    digests = [match[1] for text in texts if (match := _DIGEST.fullmatch(text))]
    json.loads(document)
    return not digests or base64.b64encode(hashlib.sha256(document).digest()).decode() in digests


@dataclass
class Clients:
    """All that clients may have got until now."""

    # What was seen, and until when it may be remembered.
    zones: dict[frozenset[str], datetime] = field(default_factory=dict)
    documents: dict[bytes, datetime] = field(default_factory=dict)

    def look(
        self, texts: Iterable[str], ttl: int, document: bytes | None, max_age: int, now: datetime
    ) -> None:
        """See what the zone and the web server have now; fail at a pair that does not fit.

        ``texts`` are those of the TXT records, ``document`` is None if there is none, ``max_age``
        is the time in seconds for which it may be remembered.
        """
        _keep(self.zones, frozenset(texts), now + timedelta(seconds=ttl))
        if document is not None:
            _keep(self.documents, document, now + timedelta(seconds=max_age))
        for known, end in [*self.zones.items()]:
            if end < now:
                del self.zones[known]
        for kept, end in [*self.documents.items()]:
            if end < now:
                del self.documents[kept]
        for known in self.zones:
            for kept in self.documents:
                assert accepts(kept, known), f"at {now}: {kept!r} has none of the digests {known}"


def _keep(memory: dict[_Key, datetime], key: _Key, end: datetime) -> None:
    memory[key] = max(end, memory.get(key, end))
