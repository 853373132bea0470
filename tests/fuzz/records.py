"""Targets: rows, seed documents, and the documents that are made of them."""

import json
import plistlib
from collections.abc import Callable
from types import ModuleType
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.etree import ElementTree

from automx import dns, kinds, rows, seeddocument, yamldocument
from automx.accountcolumns import TOKEN, TOKEN_DEFAULTS
from automx.accounts.randomwords import new_token
from automx.address import EmailAddress
from automx.clientconfig import FORBIDDEN, ClientConfig, ProviderDetails
from automx.errors import AddressError, BadRecordError, SeedError, SettingsError
from automx.formats import autoconfig, autodiscover, dclogin, mobileconfig, pacc
from automx.rows import BadRowError
from tests.fuzz.promises import keep, one_line, refusing, target, text_of
from tests.tables import OTHERS, ROWS

_READ: dict[str, Callable[[rows.Values], Any]] = {
    "server": rows.mail_server,
    "davserver": rows.service,
    "ldapserver": rows.ldap_server,
    "documentation": rows.documentation,
    "provider_detail": lambda row: rows.provider_details({"logo_size": 4, **row}),
}


def _row(data: bytes) -> tuple[str, dict[str, Any]]:
    """Return the table that the first line names, and its row with the columns of the others.

    A value is a text, or, as in Python, a number, None or bytes.
    """
    table, *lines = text_of(data).split("\n")
    row = dict(ROWS.get(table, ROWS["server"]))
    for line in lines:
        column, equals, text = line.partition("=")
        if equals and column in row:
            row[column] = _value(text)
    return table if table in ROWS else "server", row


def _value(text: str) -> object:
    if text.removeprefix("-").isdecimal() and len(text) < 4000:
        return int(text)
    if text.startswith("b:"):
        return text[2:].encode("utf-8", "surrogateescape")
    return {"None": None, "0.5": 0.5, "nan": float("nan")}.get(text, text)


@target
def row(data: bytes) -> None:
    """Read a row: it is refused, or each value is in its normal form, and documents hold it."""
    table, values = _row(data)
    if table == "ldapserver_detail":
        table, values = "ldapserver", {**ROWS["ldapserver"], **values, "id": 1}
    values.setdefault("login_name", None)
    columns = rows.TABLES.get(table)
    if columns is not None:
        if table == "provider_detail":
            values["logo_size"] = len(values["logo"]) if isinstance(values["logo"], bytes) else 0
        found, bad = rows.read(columns, values)
        for defect in bad:
            one_line(defect)
        again, bad = rows.read({name: columns[name] for name in found}, found)
        keep(again == found and not bad, f"a normal form is read as the same: {found}, {again}")
    if read := _READ.get(table):
        try:
            read(values)
        except BadRowError as error:
            one_line(str(error))
    if table == "domain":
        with refusing(kinds.BadValueError):
            name = kinds.DOMAIN_NAME.read(values["name"])
            keep(kinds.DOMAIN_NAME.read(name) == name, "a normal form is read as the same")


def _config(data: bytes) -> ClientConfig | None:
    """Return the settings of which a row is a part, None if the row is refused."""
    table, values = _row(data)
    found = {**ROWS, table: values}
    try:
        mail = [rows.mail_server(found["server"]), rows.mail_server({**ROWS["server"], **OTHERS})]
        services = [rows.service(found["davserver"])]
        details, _ = rows.provider_details({"logo_size": 4, **found["provider_detail"]})
        pages = (rows.documentation(found["documentation"]),)
    except BadRowError:
        return None
    names, _ = rows.read(rows.PROVIDER, found["provider"])
    if len(names) < len(rows.PROVIDER):
        return None
    whole: dict[str, Any] = {item: getattr(details, item) for item in details.__slots__}
    return ClientConfig(
        "xn--mller-kva.example",
        names["name"],
        names["short_name"],
        tuple(mail),
        tuple(services),
        details=ProviderDetails(**whole | {"documentation": pages}).for_domain("example.com"),
    )


ADDRESSES = tuple(
    EmailAddress.parse(f"{name}@xn--mller-kva.example")
    for name in ("alice", "A+b/c?d#e%f&g=h", "%EMAILDOMAIN%", "jürgen", "o'neil")
)
_NAMES = (("", ""), ("login<&>%zz", ""), ("", "Ä <b> & ]]>"))


@target
def documents(data: bytes) -> None:
    """Write the documents of a domain in which a row has odd values."""
    config = _config(data)
    if config is None:
        return
    ElementTree.fromstring(autoconfig.render(config))
    ElementTree.fromstring(autodiscover.render(config))
    with refusing(pacc.NothingToPublishError):
        keep(isinstance(json.loads(pacc.render(config)), dict), "PACC is an object")
    zone = dns.zone(config, dns.records(config, "automx.example.com"))
    keep(all(line.isprintable() for line in zone.splitlines()), "a zone is printable")
    for record in dns.records(config, "automx.example.com"):
        one_line(record.data)
    for address in ADDRESSES:
        for format_ in (autoconfig, autodiscover, mobileconfig):
            _check_filled(format_, config, address)
        with refusing(BadRecordError):
            _check_login(dclogin.login_text(address, "p&a=s?s", config), address)


def _check_filled(format_: ModuleType, config: ClientConfig, address: EmailAddress) -> None:
    """Check that a template that is filled in equals the document that is written."""
    try:
        template = format_.template(config)
        for login_name, display_name in _NAMES:
            expected = format_.render(config.for_person(login_name, display_name), address)
            filled = template.fill(address, login_name, display_name)
            keep(filled == expected, f"filled in: {filled!r} is {expected!r}")
    except BadRecordError as error:
        one_line(error.reason)
        return
    if format_ is mobileconfig:
        plistlib.loads(filled)
    else:
        ElementTree.fromstring(filled)
    keep(not FORBIDDEN.search(filled.decode().replace("\n", "").replace("\t", "")), "no slot")


def _check_login(text: str, address: EmailAddress) -> None:
    one_line(text)
    parts = urlsplit(text.replace("dclogin:", "https:", 1))
    keep(unquote(parts.netloc) == str(address) and parts.path == "/", "the address is read again")
    query = parse_qs(parts.query, keep_blank_values=True, strict_parsing=True)
    keep(query["p"] == ["p&a=s?s"] and query["v"] == ["1"], "so is the password")
    keep(text.isascii(), "a QR code has ASCII")


@target
def login_text(data: bytes) -> None:
    """Write the texts of an address and a password, or of a token: a line each."""
    first, _, second = text_of(data).partition("\n")
    with refusing(AddressError):
        address = EmailAddress.parse(first)
        password = second.encode("utf-8", "replace").decode()
        text = dclogin.login_text(address, password)
        parts = urlsplit(text.replace("dclogin:", "https:", 1))
        keep(unquote(parts.netloc) == str(address), f"the address is read again: {text}")
        query = parse_qs(parts.query, keep_blank_values=True)
        keep(query["p"] == [password], f"the password is read again: {text}")
    token = TOKEN["token"], TOKEN["name"]
    with refusing(kinds.BadValueError, SettingsError):
        secret, name = token[0].read(first), token[1].read(second)
        text = dclogin.account_text("https://example.com/new_email", secret, name)
        one_line(text)
        query = parse_qs(urlsplit(text.removeprefix("DCACCOUNT:")).query, keep_blank_values=True)
        keep(query == {"t": [secret], "n": [name]}, f"the token is read again: {text}")


@target
def token(data: bytes) -> None:
    """Read the columns of a token: "column=value" in each line."""
    values: dict[str, Any] = {"name": "summer", "token": new_token(), "domain": "example.com"}
    values = {**TOKEN_DEFAULTS, **values}
    for line in text_of(data).split("\n"):
        column, equals, text = line.partition("=")
        if equals and column in values:
            values[column] = _value(text)
    found, bad = rows.read(TOKEN, values)
    for defect in bad:
        one_line(defect)
        if defect.startswith("token:"):
            keep(defect.endswith(", which is not shown") or "null" in defect, "a secret is hidden")
    keep(rows.read({name: TOKEN[name] for name in found}, found) == (found, []), "normal")


@target
def seed_document(data: bytes) -> None:
    with refusing(SeedError):
        seed = seeddocument.read(seeddocument.parse(data, "the body"))
        for warning in seed.warnings:
            one_line(warning)
        for table, found in seed.rows.items():
            for values in found:
                known = {name: kind for name, kind in _kinds_of(table).items() if name in values}
                again, bad = rows.read(known, values)
                keep(not bad, f"a row of a seed can be read: {bad}")
                keep(all(values[name] == again[name] for name in again), "and is in normal form")


@target
def yaml_document(data: bytes) -> None:
    """Read YAML; what it says can be said by JSON."""
    with refusing(SeedError):
        document = yamldocument.parse(data, "the body")
        keep(json.loads(json.dumps(document)) == document, "the types are those of JSON")
        seeddocument.read(document, with_objects=True)


def _kinds_of(table: str) -> dict[str, kinds.Kind]:
    special = {"domain": {"name": rows.DOMAIN["name"]}, "provider_detail": rows.PROVIDER_DETAIL}
    if table == "ldapserver_detail":
        return {}
    if table == "ldapserver":  # what is too long for a column stands in ldapserver_detail
        return {n: k for n, k in rows.LDAPSERVER.items() if n != "search_filter"}
    return dict(special.get(table) or rows.TABLES[table])
