"""The files that pages load: a style sheet in the colours of the provider, and a script."""

import re
from functools import cache
from hashlib import blake2b
from pathlib import Path
from urllib.parse import urlencode

from flask import Blueprint, Response, request

from automx.errors import BadRequestError
from automx.formats import palette
from automx.views.http import argument

STYLE, SCRIPT = "page.css", "page.js"

blueprint = Blueprint("pagefiles", __name__)

_STATIC = Path(__file__).parent.parent / "static"


@blueprint.get(f"/static/{STYLE}")
def style_sheet() -> Response:
    """Answer with the style sheet, in colours made of ``color``, six hexadecimal digits."""
    color = argument(request.args, "color")
    if not re.fullmatch("(?:[0-9a-f]{6})?", color):
        raise BadRequestError("The argument color is no colour.")
    text = palette.style(f"#{color}" if color else "") + _file(STYLE)
    return _response(text, "text/css")


@blueprint.get(f"/static/{SCRIPT}")
def script() -> Response:
    """Answer with the script: buttons that copy, and a dialog."""
    return _response(_file(SCRIPT), "text/javascript")


def style_query(color: str) -> str:
    """Return the query of the style sheet's URL; ``color`` is the provider's, or ""."""
    return urlencode({"v": version(), "color": color[1:].lower()})


@cache
def version() -> str:
    """Return the version of style sheet and script, in hexadecimal digits."""
    texts = (_file(STYLE), _file(SCRIPT), palette.style(""))
    return blake2b("".join(texts).encode(), digest_size=6).hexdigest()


@cache
def _file(name: str) -> str:
    return (_STATIC / name).read_text("utf-8")


def _response(text: str, content_type: str) -> Response:
    """Answer with a file; caches may keep it for ever if the URL has the current version."""
    is_current = request.args.get("v") == version()
    caching = "public, max-age=31536000, immutable" if is_current else "no-cache"
    return Response(
        text,
        content_type=f"{content_type}; charset=utf-8",
        headers={"Cache-Control": caching, "X-Content-Type-Options": "nosniff"},
    )
