"""What a domain looks like to clients, its DNS records, what the doctor finds, and the audit."""

from threading import BoundedSemaphore
from typing import Any

from flask import Response

from automx import audit, dns, kinds, lookup
from automx.address import EmailAddress, is_ip, parse_domain
from automx.api import schemas
from automx.api.operations import (
    PAGE,
    PAGING,
    TEXT,
    Call,
    NothingHereError,
    Operation,
    answer,
    answer_page,
)
from automx.api.rows import row_id
from automx.cache import FoundConfig
from automx.errors import BusyError, ConflictError
from automx.formats import autoconfig, autodiscover, mobileconfig, pacc
from automx.kinds import Kind
from automx.moments import parse_moment
from automx.views.http import parts, personal_document
from automx.views.session import current_session
from automx.words import Role

_FORMATS: dict[str, Any] = {
    "autoconfig": (autoconfig.render, autoconfig.CONTENT_TYPE),
    "autodiscover": (autodiscover.render, autodiscover.CONTENT_TYPE),
    "mobileconfig": (mobileconfig.render, mobileconfig.CONTENT_TYPE),
    "pacc": (None, pacc.CONTENT_TYPE),
}
_CHECK_SECONDS = 2.0  # for each query and each connection; all take 16 times as long at most
_checks = BoundedSemaphore(2)  # that a worker runs at once


def _moment(value: object) -> Any:
    return parse_moment(str(value))


_AUDIT_QUERY = {
    **PAGING,
    "domain": kinds.A_LABEL,
    "since": Kind(
        'a time such as "2026-12-31" or "2026-12-31T18:00Z"',
        _moment,
        schema={"type": "string", "format": "date-time"},
    ),
}


def _found(call: Call) -> FoundConfig:
    """Return the settings of the domain in the path; wildcards have none."""
    number = row_id(call.access, "domain", call)
    name = kinds.domain_a_label(call.path["name"])
    if "*" in name:
        raise NothingHereError
    session = current_session()
    used = lookup.domain_row(session, name)
    if call.access.scope is not None and (used is None or used.id != number):
        raise NothingHereError  # another row of the same domain decides
    found = lookup.find(session, name)
    session.rollback()
    return found


def _document(call: Call) -> Response:
    if call.path["format"] not in _FORMATS:
        raise NothingHereError
    render, content_type = _FORMATS[call.path["format"]]
    found = _found(call)
    if render is None:
        return personal_document(found.pacc(), content_type)
    config = found.config
    address = call.query.get("address")
    if address is None and render is mobileconfig.render:  # it is always for a person
        address = EmailAddress.parse(f"user@{config.domain}")
    return personal_document(render(config, address), content_type)


def _records(call: Call) -> Response:
    host = parts().settings.public_host
    config = _found(call).config
    name = parse_domain(host) if host else ""
    if not name or is_ip(name):
        raise ConflictError("The setting public_host is no host name: no record can lead to it.")
    return answer({"items": [record.document() for record in dns.records(config, name)]})


def _check(call: Call) -> Response:
    from automx.check import check_domains, load_targets
    from automx.check.network import Network

    row_id(call.access, "domain", call)
    settings = parts().settings
    session = current_session()
    targets = load_targets(session, [call.path["name"]])
    session.rollback()
    host = settings.public_host
    if not _checks.acquire(blocking=False):
        raise BusyError
    try:
        network = Network(timeout=_CHECK_SECONDS)
        name = parse_domain(host) if host else ""
        work = check_domains(
            targets,
            network,
            settings,
            host="" if is_ip(name) else name,
        )
        found = [finding.document() for _, findings in work for finding in findings]
    finally:
        _checks.release()
    return answer({"items": found})


def _audit(call: Call) -> Response:
    access, query = call.access, call.query
    limit = query.get("limit", PAGE)
    found = audit.entries(
        current_session(),
        domain=query.get("domain", ""),
        since=query.get("since"),
        after=query.get("cursor", 0),
        actor=access.key.actor if access.scope else "",
        number=limit + 1,
    )
    entries = [entry.document() for entry in found]
    last = entries[limit - 1]["id"] if len(entries) > limit else None
    return answer_page(entries[:limit], last)


def _list_of(item: dict[str, Any]) -> dict[str, Any]:
    return schemas.record(items={"type": "array", "items": item})


_DOMAIN = "/domains/{name}"
_ADDRESS = Kind(
    kinds.MAIL_ADDRESS.expected,
    lambda value: EmailAddress.parse(TEXT.normalise(value)),
    schema=kinds.MAIL_ADDRESS.schema,
)

OPERATIONS = (
    Operation(
        *("GET", f"{_DOMAIN}/documents/{{format}}", Role.READ, "Read what clients of a domain get"),
        _document,
        {200: "*/*"},
        query={"address": _ADDRESS},
        errors=(404, 409),
    ),
    Operation(
        *("GET", f"{_DOMAIN}/dns", Role.READ, "Read the records for the zone of a domain"),
        _records,
        {200: _list_of(schemas.RECORD)},
        errors=(404, 409),
    ),
    Operation(
        *("GET", f"{_DOMAIN}/check", Role.READ, "Check a domain as mail clients do", _check),
        {200: _list_of(schemas.FINDING)},
        errors=(404,),
        unscoped=True,  # it connects to any host that a row names
    ),
    Operation(
        *("GET", "/audit", Role.READ, "Read who changed what", _audit),
        {200: schemas.page(schemas.ENTRY)},
        query=_AUDIT_QUERY,
    ),
)
