"""The backend ``mailcow``: the mailboxes of a mailcow server, made and deleted by its HTTP API.

The API is described in mailcow's ``data/web/api/openapi.yaml``, which each server shows under
``/api``. mailcow-dockerized 2026-08 differs from that: the entry that matters may be anywhere in a
list. So only an entry that says so is a success, and only a refusal before mailcow writes is
certain to change nothing.
"""

import html
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from automx import deadline
from automx.backends import Mailbox, Owner, mailadm_mark
from automx.backends.keys import KeyMemory
from automx.backends.mailcowapi import MailcowApi, quoted
from automx.errors import (
    MailLeftError,
    MisconfiguredError,
    NotReachedError,
    SilentError,
    TakenError,
    TryAgainError,
    UncertainError,
    UnfitAddressError,
    WeakPasswordError,
)
from automx.moments import this_second
from automx.texts import N_

log = logging.getLogger(__name__)

DELETE_SECONDS = 75  # mailcow itself waits up to 60 s until Dovecot's container has moved the mail

_LONGEST_TAG = 255  # characters; mailcow drops longer tags without an error

_TAKEN = {"object_exists", "is_alias", "is_spam_alias"}
_NO_ROOM = {"max_mailbox_exceeded", "mailbox_quota_left_exceeded"}
# The checks of mailcow before it writes, and hints for its administrator. After any other error,
# such as one of the database in a later step, the mailbox may exist.
_REFUSED = {
    "access_denied": "the key may not use the domain",
    "domain_invalid": "the domain is not valid",
    "domain_not_found": "mailcow does not know the domain",
    "mailbox_invalid": "mailcow allows no such address",
    "mailbox_quota_exceeded": "the quota of mailcow's template for mailboxes is above the limit of"
    " the domain for one mailbox",
    "password_complexity": "mailcow's password policy asks for more than automx gives",
    "password_mismatch": "mailcow has seen two different passwords",
    "unlimited_quota_acl": "the mailbox template of mailcow sets no quota, and the key may not",
}
# mailcow checks the quota of a mailbox again when it is disabled; the domain may allow less by now.
_ABOVE_LIMIT = {"mailbox_quota_exceeded", "mailbox_quota_left_exceeded"}
_NO_LIMIT = "0"


class Mailcow:
    """The mailboxes of a mailcow server. Safe for threads.

    ``endpoint`` is the URL of the API, such as ``https://mailcow.example.org/api/v1``, or of the
    server; ``token`` is a key that may read and write. ``timeout`` (seconds) limits a whole call,
    the look-up of the host name included; a deletion has at least DELETE_SECONDS. ``ca_file`` holds
    certificate authorities (PEM) to trust instead of those of the system, "" for none. ``keys``
    remembers whether mailcow accepts the key, by the clock ``now``. Raises SettingsError, whose
    text names the setting, for a value that cannot be used.
    """

    def __init__(
        self,
        endpoint: str,
        token: str,
        *,
        timeout: float,
        ca_file: str,
        keys: KeyMemory,
        now: Callable[[], datetime] = this_second,
    ) -> None:
        self._timeout = timeout
        self._api = MailcowApi(
            endpoint, token, timeout=timeout, ca_file=ca_file, keys=keys, now=now
        )

    def check_address(self, address: str) -> None:
        """Refuse "+": mailcow makes the mailbox, but delivers a+b@ to a@ (recipient_delimiter)."""
        if "+" in address:
            raise UnfitAddressError(cause=f"mailcow does not deliver to {address}: it has a +")

    def create(self, address: str, password: str, owner: Owner) -> None:
        """Make a mailbox. Raises TakenError if there is a mailbox or an alias of that name.

        Quota and other attributes are those of mailcow's default template for mailboxes.
        """
        self.check_address(address)  # the token may have been made for another backend
        local_part, _, domain = address.rpartition("@")
        attributes = {
            "local_part": local_part,
            "domain": domain,
            "name": local_part,
            "password": password,
            "password2": password,
            "active": "1",
            "tags": [f"automx:{owner.token}"[:_LONGEST_TAG], _mark(owner)],
            # A chat program needs IMAP and SMTP, and cannot change its password.
            "force_pw_update": "0",
            "imap_access": "1",
            "smtp_access": "1",
        }
        end = deadline.after(self._timeout)
        self._check_domain_is_ready(domain, end)
        entries = self._api.change("add/mailbox", attributes, end, secret=password)
        if _has_succeeded(entries, "mailbox_added", address):
            return
        codes = _complaints(entries)
        cause = f"mailcow made no mailbox {address}: {quoted(entries, password)}"
        if not codes or not codes <= _TAKEN | _NO_ROOM | _REFUSED.keys():
            raise UncertainError(cause=self._api.hinted(cause))
        if codes & _TAKEN:
            raise TakenError(cause=cause)
        if codes & _NO_ROOM:
            text = N_("The mail server has no room for further mailboxes.")
            raise TryAgainError(text, cause=cause)
        hints = "; ".join(_REFUSED[code] for code in sorted(codes))
        raise _refusal(codes)(cause=self._api.hinted(cause, hints))

    def find(self, address: str, owner: Owner) -> Mailbox | None:
        """Return what is known of a mailbox; None only if it is certain that there is none.

        A mailbox is ours if it has the tag of the account. The tag of the token does not decide,
        because another automx may use the same name; it lets people find all mailboxes of a token.
        For an account that was imported from mailadm, the tag of mailadm decides.
        """
        return self._find(address, owner, deadline.after(self._timeout))

    def set_password(self, address: str, password: str, owner: Owner) -> None:
        """Set another password. Raises MisconfiguredError, UncertainError and their like."""
        end = deadline.after(self._timeout)
        attributes = {"password": password, "password2": password}
        entries = self._edit(address, attributes, end, secret=password)
        if _has_succeeded(entries, "mailbox_modified", address):
            return
        codes = _complaints(entries)
        cause = f"mailcow set no password of {address}: {quoted(entries, password)}"
        if not codes or not codes <= _REFUSED.keys() | _ABOVE_LIMIT:
            raise UncertainError(cause=self._api.hinted(cause))
        hints = "; ".join(
            "the mailbox is above the limits of its domain"
            if code in _ABOVE_LIMIT
            else _REFUSED[code]
            for code in sorted(codes)
        )
        raise _refusal(codes)(cause=self._api.hinted(cause, hints))

    def disable(self, address: str, owner: Owner) -> None:
        """Prevent logins; the mail stays. A missing mailbox is no error.

        mailcow does not disable a mailbox whose quota is above the limits that its domain has now;
        such a mailbox loses its quota.
        """
        end = deadline.after(self._timeout)
        entries = self._edit(address, {"active": "0"}, end)
        if _complaints(entries) & _ABOVE_LIMIT:
            log.warning(
                "mailcow: %s is above the limits of its domain; its quota is removed", address
            )
            entries = self._edit(address, {"active": "0", "quota": _NO_LIMIT}, end)
        try:
            mailbox = self._find(address, owner, end)
        except TryAgainError as error:
            cause = f"mailcow was asked to disable {address}, and then: {error.cause}"
            raise UncertainError(cause=cause) from error
        if mailbox is None:
            return
        if mailbox.is_active:
            raise TryAgainError(cause=f"mailcow left {address} active: {quoted(entries)}")
        if not _has_succeeded(entries, "mailbox_modified", address):
            raise UncertainError(cause=f"mailcow did not disable {address}: {quoted(entries)}")

    def delete(self, address: str, owner: Owner) -> None:
        """Delete a mailbox. Returns only when mailcow has said that there is none any more.

        Raises MailLeftError if mailcow could not move the mail away from its place.
        """
        end = deadline.after(max(self._timeout, DELETE_SECONDS))
        entries = self._api.change("delete/mailbox", [address], end)
        if _has_succeeded(entries, "mailbox_removed", address):
            warnings = [entry.get("msg") for entry in entries if _kind(entry) == "warning"]
            if warnings:
                raise MailLeftError(
                    cause=f"the mailbox {address} is deleted, but its mail is still on the disk of"
                    f" mailcow: {quoted(warnings)}"
                )
            return
        cause = f"mailcow did not delete {address}: {quoted(entries)}"
        if _complaints(entries) != {"access_denied"}:
            raise UncertainError(cause=cause)
        # mailcow says the same of a mailbox that does not exist.
        if self._find(address, owner, end) is not None:
            raise TryAgainError(cause=cause)

    def faults(self, domains: Sequence[str]) -> Iterator[str]:
        """Yield which domains are unknown, inactive or full in mailcow.

        Raises the errors of a key that mailcow refuses, or that may only read.
        """
        # Without a mailbox to change, mailcow checks the key only.
        nothing = {"items": [], "attr": {"active": "1"}}
        self._api.post("edit/mailbox", nothing, deadline.after(self._timeout))
        for domain in domains:
            answer = self._domain(domain, deadline.after(self._timeout))
            fault = _domain_fault(domain, answer)
            if not fault and _number(answer.get("mboxes_left")) == 0:
                fault = f"the domain {domain} has no room for further mailboxes in mailcow"
            if fault:
                yield self._api.hinted(fault)

    def close(self) -> None:
        """Close connections; running calls end with an error."""
        self._api.close()

    def _edit(
        self, address: str, attributes: Mapping[str, str], end: float, *, secret: str = ""
    ) -> Sequence[Mapping[str, Any]]:
        change = {"items": [address], "attr": attributes}
        return self._api.change("edit/mailbox", change, end, secret=secret)

    def _find(self, address: str, owner: Owner, end: float) -> Mailbox | None:
        answer = self._api.get(f"get/mailbox/{_in_path(address)}", end)
        if answer == {}:
            self._check_domain_is_known(address, end)
            return None
        username = answer.get("username", "") if isinstance(answer, dict) else ""
        # mailcow gives null for a mailbox that it did not finish.
        if username is not None and str(username).lower() != address:
            cause = f"mailcow does not answer for {address}: {quoted(answer)}"
            raise UncertainError(cause=self._api.hinted(cause))
        active = _number(answer.get("active"))
        if active is None and username is not None:
            raise UncertainError(cause=f"mailcow does not say whether {address} is active")
        return Mailbox(
            is_active=active == 1,
            is_ours=_has_mark(answer.get("tags"), owner),
            last_login=_last_login(answer),
        )

    def _domain(self, domain: str, end: float) -> Mapping[str, Any]:
        """Return what mailcow tells of a domain, {} if it does not know it."""
        answer = self._api.get(f"get/domain/{_in_path(domain)}", end)
        return answer if isinstance(answer, dict) and "domain_name" in answer else {}

    def _check_domain_is_known(self, address: str, end: float) -> None:
        """Raise MisconfiguredError if the server has no such domain either.

        A server that is not mailcow, or not the one with the mailbox, may always answer ``{}``.
        """
        if not self._domain(address.rpartition("@")[2], end):
            cause = f"mailcow knows neither {address} nor its domain: check mailcow_endpoint"
            raise MisconfiguredError(cause=cause)

    def _check_domain_is_ready(self, domain: str, end: float) -> None:
        """Raise MisconfiguredError if mailboxes of a domain could not be used.

        mailcow makes mailboxes in inactive domains, and lets nobody log in to them. No error of
        this question leaves it open whether a mailbox was made.
        """
        try:
            answer = self._domain(domain, end)
        except UncertainError as error:
            kind = NotReachedError if isinstance(error, SilentError) else TryAgainError
            raise kind(cause=error.cause) from error
        if fault := _domain_fault(domain, answer):
            raise MisconfiguredError(cause=self._api.hinted(fault))


def _domain_fault(domain: str, answer: Mapping[str, Any]) -> str:
    """Return why a domain can have no new mailboxes, "" if it can."""
    if not answer:
        return f"mailcow does not know the domain {domain}"
    if _number(answer.get("active")) == 0:
        return f"the domain {domain} is not active in mailcow, so nobody could log in"
    return ""


def _mark(owner: Owner) -> str:
    return f"automx-account:{owner.mark}"


def _has_mark(tags: object, owner: Owner) -> bool:
    """Return whether the tags of a mailbox name its owner."""
    for tag in tags if isinstance(tags, list) else ():
        kind, _, name = str(tag).partition(":")
        if tag == _mark(owner) or (kind == "mailadm" and mailadm_mark(name) == owner.mark):
            return True
    return False


def _in_path(name: str) -> str:
    """Return an address for a path, encoded twice: nginx decodes it, and PHP does it again."""
    return quote(quote(name, safe="@"), safe="@")


def _kind(entry: Mapping[str, Any]) -> str:
    return str(entry.get("type"))


def _message(entry: Mapping[str, Any]) -> tuple[str, str]:
    """Return code and first argument of an entry; the argument is "" if there is none."""
    message = entry.get("msg")
    words: list[object] = message if isinstance(message, list) else [message]
    code, argument, *_ = [*words, "", ""]
    return str(code), str(argument)


def _has_succeeded(entries: Sequence[Mapping[str, Any]], code: str, address: str) -> bool:
    """Return whether one of the entries is this success for an address."""
    for entry in entries:
        found, argument = _message(entry)
        # Some entries have the address as HTML, others as plain text.
        names = {argument.lower(), html.unescape(argument).lower()}
        if _kind(entry) == "success" and found == code and address in names:
            return True
    return False


def _refusal(codes: set[str]) -> type[MisconfiguredError]:
    """Return the class of the error for codes of _REFUSED."""
    return WeakPasswordError if codes == {"password_complexity"} else MisconfiguredError


def _complaints(entries: Sequence[Mapping[str, Any]]) -> set[str]:
    """Return the codes of the entries that are errors."""
    return {_message(entry)[0] for entry in entries if _kind(entry) in {"danger", "error"}}


def _last_login(mailbox: Mapping[str, Any]) -> datetime | None:
    """Return the last login by any protocol, None if mailcow knows none, for which it has 0."""
    times = (_number(mailbox.get(f"last_{name}_login")) for name in ("imap", "pop3", "smtp", "sso"))
    newest = max(time or 0 for time in times)
    return datetime.fromtimestamp(newest, UTC) if newest else None


def _number(value: object) -> int | None:
    """Return a whole number, which older versions of mailcow give as a string."""
    return int(str(value)) if re.fullmatch(r"\d{1,10}", str(value), re.ASCII) else None
