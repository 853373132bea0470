"""Documents that are rendered once for a domain and filled in for each person.

Rendering takes longer than everything else in a request. A template is the document of a made-up
person whose values are slots: private characters of Unicode that neither an address nor a checked
row holds (clientconfig.FORBIDDEN).
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from html import escape

from automx.address import EmailAddress
from automx.clientconfig import ClientConfig

_Render = Callable[[ClientConfig, EmailAddress], bytes]
_Value = Callable[[EmailAddress, str, str], str]

_LOCAL_PART = "\ue000"
_URL_LOCAL_PART = "\ue001L"  # urlsplit() puts host names into lower case, and with them this letter
_LOGIN_NAME = "\ue002"
_DISPLAY_NAME = "\ue003"

# What each slot stands for: a function of address, login name and display name.
SLOTS: dict[str, _Value] = {
    _LOCAL_PART: lambda address, *_: address.local_part,
    _URL_LOCAL_PART: lambda address, *_: address.url_local_part,
    _URL_LOCAL_PART.lower(): lambda address, *_: address.url_local_part.lower(),
    _LOGIN_NAME: lambda _, login_name, __: login_name,
    _DISPLAY_NAME: lambda address, _, display_name: display_name or str(address),
}


@dataclass(eq=False)
class Template:
    """The documents of one format for all people of a domain.

    ``render`` is the format. ``derived`` gives a further text of the document that depends on the
    address, such as a hash of it.
    """

    render: _Render
    config: ClientConfig
    derived: Callable[[EmailAddress], str] | None = None

    def fill(self, address: EmailAddress, login_name: str = "", display_name: str = "") -> bytes:
        """Return the document of a person whose address is in the domain.

        It equals ``render(config.for_person(login_name, display_name), address)``, byte for byte,
        and the same errors are raised.
        """
        pieces, values = self._with_login_name if login_name else self._without_login_name
        escaped = {
            slot: escape(value(address, login_name, display_name), quote=False)
            for slot, value in values.items()
        }
        return "".join(map(escaped.get, pieces, pieces)).encode()

    @cached_property
    def _with_login_name(self) -> tuple[list[str], dict[str, _Value]]:
        return self._prepared(_LOGIN_NAME)

    @cached_property
    def _without_login_name(self) -> tuple[list[str], dict[str, _Value]]:
        return self._prepared("")

    def _prepared(self, login_name: str) -> tuple[list[str], dict[str, _Value]]:
        """Return the document in pieces, each a slot or a text without slots, and its slots."""
        address = _Slots(_LOCAL_PART, self.config.domain)
        values = dict(SLOTS)
        if derived := self.derived:
            values[derived(address)] = lambda address, *_: derived(address)
        text = self.render(self.config.for_person(login_name, _DISPLAY_NAME), address).decode()
        pieces = re.split(f"({'|'.join(values)})", text)
        return pieces, {slot: value for slot, value in values.items() if slot in pieces}


class _Slots(EmailAddress):
    """The address of the made-up person."""

    __slots__ = ()

    @property
    def url_local_part(self) -> str:
        return _URL_LOCAL_PART
