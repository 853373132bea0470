"""``account_created_command``: a program of the administrator that is told of each new account."""

import logging

from automx.accounts.accounts import NewAccount
from automx.accounts.tokens import Token
from automx.backends.command import run_hook
from automx.config import AccountSettings
from automx.errors import AutomxError
from automx.moments import iso

log = logging.getLogger(__name__)


def tell(settings: AccountSettings, account: NewAccount, token: Token) -> None:
    """Run the program for an account that was just made; a failure is logged and has no effect.

    The program does not get the password.
    """
    if not settings.created_command:
        return
    document = {
        "version": 1,
        "action": "created",
        "address": account.address,
        "token": token.name,
        "expires_at": iso(account.expires_at),
    }
    try:
        run_hook(settings.created_command, document, timeout=settings.timeout)
    except AutomxError as error:
        log.error("account_created_command, %s: %s", account.address, error.reason)
