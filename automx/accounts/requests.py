"""Requests that make an account once: a repeat within a day makes nothing.

A client sends the same Idempotency-Key again if it has got no answer. The password of the account
is not kept, so that the repeat is told the address only.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from hashlib import sha256

from sqlalchemy import delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from automx.database import Session, commit
from automx.errors import RepeatedError
from automx.models import ApiRequest

KEPT = timedelta(days=1)


class Request:
    """A request that may make its account; ``address`` is set when it has."""

    address: str | None = None


@contextmanager
def once(session: Session, client: str, key: str, now: datetime) -> Iterator[Request]:
    """Let a client make one account by a request; commits before and after the block.

    ``key`` is the Idempotency-Key, "" for none. A request that fails may be sent again. Raises
    RepeatedError if the account is there, or is being made.
    """
    request = Request()
    if not key:
        yield request
        return
    digest = sha256(f"{client}\0{key}".encode(errors="surrogatepass")).hexdigest()
    this = ApiRequest.c.digest == digest
    session.execute(delete(ApiRequest).where(ApiRequest.c.made_at < now - KEPT))
    session.commit()
    try:
        commit(session, insert(ApiRequest).values(digest=digest, made_at=now))
    except IntegrityError:
        address = session.scalar(select(ApiRequest.c.address).where(this))
        raise RepeatedError(address) from None
    try:
        yield request
    except BaseException:
        commit(session, delete(ApiRequest).where(this))
        raise
    commit(session, update(ApiRequest).where(this).values(address=request.address))
