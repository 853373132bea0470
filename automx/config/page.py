"""Settings of the page for people."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from automx.config import values
from automx.config.keys import setting

# The mail programs that the page can show, in the usual order: the words of `page_apps`.
APPS = (
    "ios",
    "mac",
    "thunderbird",
    "outlook-new",
    "outlook",
    "outlook-mac",
    "thunderbird-android",
    "fairemail",
    "gmail",
    "samsung",
    "deltachat",
)

_URL = re.compile(r"https?://[A-Za-z0-9.:\[\]-]+(?:[/?#][!#-;=?-~]*)?", re.IGNORECASE)


def apps(text: str) -> tuple[str, ...]:
    """Return words of APPS, each once, in the order of the text."""
    found = tuple(dict.fromkeys(values.words(text.lower())))
    if not set(found) <= set(APPS):
        raise ValueError(f"words of {' '.join(APPS)}")
    return found


def url(text: str) -> str:
    """Return the URL of a page, or ""."""
    if text and not _URL.fullmatch(text):
        raise ValueError("a URL such as https://example.org/imprint")
    return text


def urls_of_providers(text: str) -> Mapping[str, str]:
    """Return URLs by the id of the provider, ``*`` for all others: ``3:https://…``."""
    found = {}
    for word in values.words(text):
        provider, colon, page = word.partition(":")
        if not colon or not re.fullmatch(r"\*|[1-9]\d{0,9}", provider, re.ASCII) or not page:
            raise ValueError("pairs of id and URL, such as 1:https://example.org/app-passwords")
        found[provider] = url(page)
    return found


def shown_urls(urls: Mapping[str, str]) -> str:
    """Return URLs by the id of the provider as the file would hold them."""
    return " ".join(f"{provider}:{page}" for provider, page in urls.items())


@dataclass(frozen=True, kw_only=True, slots=True)
class PageSettings:
    """The [page for people](page.md).

    page_apps: The mail programs that the page shows, in this order, with blanks between; those for
    the visitor's device come first. The words are `ios`, `mac`, `thunderbird`, `outlook-new`,
    `outlook` (classic), `outlook-mac`, `thunderbird-android`, `fairemail`, `gmail`, `samsung` and
    `deltachat`. Empty: all of them, but Delta Chat only if `web_endpoint` is set.

    page_imprint: The URL of your imprint, to which all pages link at their foot.

    page_privacy: The URL of your privacy policy, to which all pages link at their foot.

    page_app_passwords: Where people make app passwords: the id of a provider and a URL, such as
    `1:https://mail.example.org/app-passwords`; several are separated by blanks, and `*` stands for
    all other providers. The page then says that mail programs want such a password.
    """

    apps: tuple[str, ...] = setting("page_apps", apps, show=" ".join)
    imprint: str = setting("page_imprint", url)
    privacy: str = setting("page_privacy", url)
    app_passwords: Mapping[str, str] = setting(
        "page_app_passwords", urls_of_providers, show=shown_urls
    )

    def app_password_url(self, provider: str) -> str:
        """Return where people of a provider, named by its id, make app passwords, or ""."""
        return self.app_passwords.get(provider, self.app_passwords.get("*", ""))
