"""Documents that tests send, and those that they expect: files in ``tests/data``."""

import re

from tests.processes import REPOSITORY

DATA = REPOSITORY / "tests" / "data"

OUTLOOK_SCHEMA = "http://schemas.microsoft.com/exchange/autodiscover/outlook/responseschema/2006a"
MOBILESYNC_SCHEMA = (
    "http://schemas.microsoft.com/exchange/autodiscover/mobilesync/responseschema/2006"
)


def golden(name: str) -> str:
    """Return the text of a file in ``tests/data``."""
    return (DATA / name).read_text("utf-8")


def autodiscover_request(address: str, schema: str = OUTLOOK_SCHEMA) -> str:
    """Return what Outlook sends in a POST for an address, which is inserted as it is."""
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n'
        '<Autodiscover xmlns="http://schemas.microsoft.com/exchange/autodiscover/outlook/'
        'requestschema/2006">\n'
        "  <Request>\n"
        f"    <EMailAddress>{address}</EMailAddress>\n"
        f"    <AcceptableResponseSchema>{schema}</AcceptableResponseSchema>\n"
        "  </Request>\n"
        "</Autodiscover>\n"
    )


def autodiscover_error(code: int, message: str) -> str:
    """Return the error document of Autodiscover, with the time that :func:`timeless` puts in."""
    text = golden("error.autodiscover.xml")
    return text.replace("{code}", str(code)).replace("{message}", message)


def timeless(document: str) -> str:
    """Return an error document of Autodiscover with ``HH:MM:SS.fffffff`` as its time."""
    return re.sub(r'(?<= Time=")\d\d:\d\d:\d\d\.\d{7}(?=")', "HH:MM:SS.fffffff", document)


def unversioned(page: str) -> str:
    """Return a page without what changes with each change of its style sheet or script."""
    return re.sub(r"\bv=[0-9a-f]{12}\b", "v=VERSION", page)
