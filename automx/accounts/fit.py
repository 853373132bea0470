"""Whether the mail server allows the addresses that a token makes."""

from collections.abc import Mapping
from contextlib import suppress

from automx.accounts.tokens import Token, sample_address
from automx.backends import Backends
from automx.errors import SettingsError


def check_new(backends: Backends, domain: str, columns: Mapping[str, object]) -> None:
    """Raise UnfitAddressError if the mail server allows no address of a token of these columns.

    Columns that are left out have their defaults. May take as long as a call of the backend: no
    transaction should be open. A backend whose settings are wrong is not asked.
    """
    address = sample_address(domain, columns)
    if address is None:
        return
    with suppress(SettingsError):
        backends.get(str(columns.get("backend", ""))).check_address(address)


def check_changed(backends: Backends, token: Token, changes: Mapping[str, object]) -> None:
    """Raise UnfitAddressError as check_new(), for a token with other values of some columns."""
    if {"prefix", "backend"} & changes.keys():
        columns = {name: getattr(token, name) for name in ("prefix", "address", "backend")}
        check_new(backends, token.domain, {**columns, **changes})
