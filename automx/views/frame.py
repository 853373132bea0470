"""The frame of all pages: the provider's name, logo and colour, the language, links at the foot."""

from collections.abc import Mapping
from urllib.parse import urlencode

from flask import request

from automx.clientconfig import ClientConfig, Logo, ProviderDetails
from automx.formats import pacc
from automx.views import languages, pagefiles
from automx.views.http import parts

_LOGO_BOX = (220, 56)  # pixels that a logo may take on a page


def values(
    config: ClientConfig | None,
    language: str,
    query: Mapping[str, str],
    *,
    is_alone: bool = False,
) -> dict[str, object]:
    """Return what the template ``base.html`` shows for the settings of a domain, or for none.

    URLs are relative to the page: a proxy may add a prefix to all paths. ``is_alone``: it may pass
    on no other path, so that the page's own path answers for style sheet and logo as well.
    ``query`` are the arguments of the page, which the links to its languages repeat.
    """
    details = config.details if config else ProviderDetails()
    root = "../" * (request.path.count("/") - 1)
    style = pagefiles.style_query(details.color)
    logo = None
    if config and details.logo:
        domain = urlencode({"domain": config.domain})
        url = f"?logo&{domain}" if is_alone else f"{root}{pacc.LOGO_PATH[1:]}?{domain}"
        logo = (url, *_shown_size(details.logo))
    return {
        "_": languages.translator(language),
        "language": language,
        "direction": languages.direction(language),
        "root": root,
        "config": config,
        "logo": logo,
        "style": f"?style&{style}" if is_alone else f"{root}static/{pagefiles.STYLE}?{style}",
        "languages": [
            (code, name, f"{'' if is_alone else root}?{urlencode({**query, 'lang': code})}")
            for code, name in languages.names().items()
        ],
        "page_settings": parts().settings.page,
    }


def _shown_size(logo: Logo) -> tuple[int, int]:
    """Return width and height (CSS pixels) of a logo on a page."""
    scale = min(_LOGO_BOX[0] / logo.width, _LOGO_BOX[1] / logo.height)
    return max(1, round(logo.width * scale)), max(1, round(logo.height * scale))
