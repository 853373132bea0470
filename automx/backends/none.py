"""The backend ``none``: the mail server itself makes a mailbox when a person logs in to it first.

So automx makes, disables and deletes nothing, and keeps only the rows of accounts.
"""

from collections.abc import Iterator, Sequence

from automx.backends import Mailbox, Owner
from automx.errors import ConflictError


class NoBackend:
    """Does nothing. Each mailbox may exist; nothing is known of log-ins."""

    def check_address(self, address: str) -> None:
        """Allow each address."""

    def create(self, address: str, password: str, owner: Owner) -> None:
        """Make no mailbox."""

    def find(self, address: str, owner: Owner) -> Mailbox | None:
        """Return a mailbox that may be in use."""
        return Mailbox(is_active=True, is_ours=True, sees_logins=False)

    def set_password(self, address: str, password: str, owner: Owner) -> None:
        """Refuse: the mail server knows the password."""
        raise ConflictError(
            "The backend none sets no passwords: the mail server made the mailbox, and sets its"
            " password."
        )

    def disable(self, address: str, owner: Owner) -> None:
        """Leave the mailbox as it is."""

    def delete(self, address: str, owner: Owner) -> None:
        """Leave the mailbox as it is."""

    def faults(self, domains: Sequence[str]) -> Iterator[str]:
        """Yield nothing."""
        yield from ()

    def close(self) -> None:
        """Nothing is open."""
