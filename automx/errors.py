"""The errors that automx raises on purpose.

Each class has the HTTP status of its answer. The text of an error may be sent to strangers; its
``cause`` is for the administrator: it is logged and never sent.
"""

from automx.texts import N_


class AutomxError(Exception):
    """Base of all errors raised on purpose.

    ``str(error)`` is the public text: one line in English, harmless to give to a stranger. Where
    people may read it, it is marked by ``N_()``, and the edge translates it. ``cause`` is for
    the log, or None if there is nothing to log. ``status`` is the HTTP status, ``retry_after`` the
    time in seconds after which the request may succeed, or None.
    """

    status = 500
    public = "The server cannot answer this request."
    retry_after: int | None = None
    is_logged = False  # whether the log has the cause already

    def __init__(self, public: str | None = None, *, cause: str | None = None) -> None:
        super().__init__(public or self.public)
        self.cause = cause

    @property
    def reason(self) -> str:
        """What an administrator has to know, on one line; it is not for strangers."""
        if self.status >= 500 and self.cause:  # the public text of these says nothing
            return self.cause
        return f"{self} ({self.cause})" if self.cause else str(self)


class BadRequestError(AutomxError):
    """The request cannot be understood; the text says why."""

    status = 400
    public = "The request cannot be understood."


class AddressError(BadRequestError):
    """A mail address or a domain name that no mail server could have."""

    public = "This is not a mail address."


class ForbiddenError(AutomxError):
    """The request is understood and refused."""

    status = 403
    public = N_("This is not allowed.")


class UnknownDomainError(AutomxError):
    """No row of the table ``domain`` fits."""

    status = 404
    public = "No configuration is known for this domain."


class DisabledDomainError(UnknownDomainError):
    """The domain is switched off; ``cause`` says so, and strangers see no difference."""

    @property
    def reason(self) -> str:
        """The cause alone: an administrator knows the domain."""
        return self.cause or str(self)


class UnknownRowError(AutomxError):
    """There is no such provider, server, service, directory or domain."""

    status = 404
    public = "There is no such row."


class UnknownTokenError(AutomxError):
    """There is no such token."""

    status = 404
    public = "There is no such token."


class UnknownAccountError(AutomxError):
    """There is no such account."""

    status = 404
    public = "There is no such account."


class UnknownKeyError(AutomxError):
    """There is no such key of the API."""

    status = 404
    public = "There is no such key."


class ConflictError(AutomxError):
    """The change is in conflict with rows of the database."""

    status = 409
    public = N_("The database holds other data already.")


class TooManyRequestsError(AutomxError):
    """A client asks too often; it may ask again after ``retry_after`` seconds."""

    status = 429
    public = N_("Too many accounts were asked for. Please wait a while and try again.")

    def __init__(self, *, retry_after: int) -> None:
        super().__init__()
        self.retry_after = retry_after


class SeedError(BadRequestError):
    """A seed document that cannot be used; the text says which key, where, what was expected."""

    public = "The seed document cannot be used."


class BackupError(BadRequestError):
    """A backup that cannot be read or restored; the text says why."""

    public = "The backup cannot be restored."


class BadRecordError(AutomxError):
    """The rows of a domain cannot be served; ``cause`` names table, id and column."""

    public = "The settings of this domain are incomplete; its administrator has to look into it."


class UnfitAddressError(BadRecordError):
    """A token or an administrator asks for an address that the mail server does not allow."""

    public = "The mail server does not allow this address; its administrator has to look into it."


class UnavailableError(AutomxError):
    """The database, a directory or a mail server does not answer; a later request may succeed."""

    status = 503
    public = N_("The service is not available at the moment. Please try again later.")
    retry_after: int | None = 10  # seconds


class BusyError(UnavailableError):
    """Too many requests are answered at the moment; nothing was done for this one."""

    public = N_("The server is busy at the moment. Please try again in a minute.")


class DatabaseError(UnavailableError):
    """The database cannot be reached, or does not have the schema of this program."""


class NoAnswerError(DatabaseError):
    """The database has not answered in time."""


class TurnError(DatabaseError):
    """Another transaction changes rows, longer than this one may wait."""

    public = "Another change is running: send this one again later."


class TakenError(ConflictError):
    """The mailbox exists already; nothing was changed."""

    public = N_("This address is taken already.")


class RepeatedError(ConflictError):
    """A request with the same Idempotency-Key has made ``address``, or is making an account."""

    def __init__(self, address: str | None) -> None:
        made = f"has made {address}" if address else "is being answered"
        super().__init__(f"A request with this Idempotency-Key {made}; nothing was changed.")
        self.address = address


class NoFreeAddressError(TakenError):
    """Each address that was tried for an account is taken."""

    public = N_("No free address was found. Please try again.")


class TryAgainError(UnavailableError):
    """A backend refused, or could not be asked; nothing was changed."""

    public = N_("The mail server cannot do this at the moment. Please try again later.")
    retry_after: int | None = 60


class NotReachedError(TryAgainError):
    """A backend cannot be reached; nothing was changed."""

    status = 504
    public = N_("The mail server cannot be reached at the moment. Please try again later.")


class MisconfiguredError(TryAgainError):
    """A backend refuses because of its settings, or of ours; nothing was changed.

    Waiting does not help: an administrator has to change something.
    """

    status = 500
    public = "The mail server refuses this; its administrator has to look into it."
    retry_after = None


class WeakPasswordError(MisconfiguredError):
    """The mail server asks for another password than the one that it was given."""


class UncertainError(UnavailableError):
    """A backend failed; the mailbox may have changed."""

    public = N_("The mail server did not answer as it should. Please try again later.")
    retry_after = 60


class SilentError(UncertainError):
    """A backend did not answer in time; the mailbox may have changed, or may still change."""

    status = 504
    public = N_("The mail server did not answer in time. Please try again later.")


class MailLeftError(AutomxError):
    """A mailbox is deleted, and its mail is still on the disk of the mail server."""


class SettingsError(AutomxError):
    """The settings are wrong; the text names file or variable, key, and what is allowed."""


class PublishError(AutomxError):
    """Published files cannot be written; the text says why, and is never sent to strangers."""


class ZoneError(AutomxError):
    """A zone of DNS could not be read or written."""

    status = 503
    public = "The zone cannot be read or written."


class ElsewhereError(ZoneError):
    """The name server of the settings does not have the zone of a domain."""


class ZoneUncertainError(ZoneError):
    """It is not known whether an update was made; another run sees what the zone holds now."""


class ZoneChangedError(ZoneError):
    """The zone was changed while it was looked at; another run sees what it holds now."""
