"""Tests of automx.seeddocument: what a document may hold, and what its errors say."""

import copy
import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from automx import members, seeddocument
from automx.errors import SeedError
from automx.seeddocument import SAMPLE, SeedRows, parse, read
from tests.processes import REPOSITORY

DOCUMENT: dict[str, Any] = {
    "version": 2,
    "provider": "Example Inc.",
    "domains": [{"name": "example.com", "ldapserver_id": 1}, {"name": "example.net"}],
    "ldapservers": [
        {"id": 1, "name": "ldap.example.com", "search_base": "dc=example", "bind_password": "hush"}
    ],
    "servers": [
        {"type": "imap", "name": "imap.example.com"},
        {"type": "smtp", "name": "smtp.example.com", "port": 587},
        {"type": "caldav", "url": "https://dav.example.com/"},
    ],
}


def changed(path: str, value: object) -> dict[str, Any]:
    """Return DOCUMENT with a value at a path such as ``servers.0.port``; ... deletes the key."""
    document = copy.deepcopy(DOCUMENT)
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    place: Any = document
    for part in parents:
        place = place[part]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return document


def refused(document: object) -> str:
    with pytest.raises(SeedError) as caught:
        read(document)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_automx2_defaults_fill_in_what_version_2_leaves_out() -> None:
    document = {
        "version": 2,
        "provider": "Ex\u00e4mple Inc. of Berlin",
        "domains": [{"name": "Example.COM", "ldapserver_id": 7}, {"name": "example.net"}],
        "ldapservers": [{"id": 7, "name": "ldap.example.com", "search_base": "dc=example"}],
        "servers": [
            {"type": "imap", "name": "imap.example.com"},
            {"type": "pop", "name": "pop.example.com"},
            {"type": "smtp", "name": "smtp.example.com"},
            {"type": "smtp", "name": "smtp.example.com", "port": 587, "prio": 5},
            {"type": "caldav", "url": "http://dav.example.com/"},
            {"type": "carddav", "url": "https://dav.example.com/", "port": 443},
        ],
    }

    seed = read(document)

    mail = {"id": None, "prio": 10, "user_name": "%EMAILADDRESS%", "authentication": "plain"}
    dav = {"id": None, "domain_required": True, "user_name": "%EMAILADDRESS%"}
    assert seed.rows["provider"] == [
        {"id": None, "name": "Ex\u00e4mple Inc. of Berlin", "short_name": "Ex\u00e4mple"}
    ]
    assert seed.rows["server"] == [
        mail | {"type": "imap", "name": "imap.example.com", "port": 993, "socket_type": "SSL"},
        mail | {"type": "pop", "name": "pop.example.com", "port": 995, "socket_type": "SSL"},
        mail | {"type": "smtp", "name": "smtp.example.com", "port": 465, "socket_type": "SSL"},
        mail
        | {"type": "smtp", "name": "smtp.example.com", "port": 587, "prio": 5}
        | {"socket_type": "STARTTLS"},
    ]
    assert seed.rows["davserver"] == [
        dav | {"type": "caldav", "url": "http://dav.example.com/", "port": 0, "use_ssl": False},
        dav | {"type": "carddav", "url": "https://dav.example.com/", "port": 443, "use_ssl": True},
    ]
    assert seed.rows["ldapserver"] == [
        {
            "id": 7,
            "name": "ldap.example.com",
            "port": 389,
            "use_ssl": False,
            "search_base": "dc=example",
            "search_filter": "(mail={0})",
            "attr_uid": "uid",
            "attr_cn": "cn",
            "bind_password": None,
            "bind_user": None,
        }
    ]
    domain = {"id": None, "provider_id": None}
    assert seed.rows["domain"] == [
        domain | {"name": "example.com", "ldapserver_id": 7},
        domain | {"name": "example.net", "ldapserver_id": None},
    ]
    assert seed.links == {"server": [None, None], "davserver": [None, None]}


# Like the one of automx2's own tests, with a name of the calendar.
SEED_OF_AUTOMX2S_TESTS = {
    "provider": "Test Provider",
    "domains": ["test.com"],
    "servers": [
        {"type": "imap", "name": "imap"},
        {"type": "pop", "name": "pop"},
        {"type": "smtp", "name": "smtp"},
        {"type": "caldav", "name": "caldav", "url": "https://caldav.test.com", "port": 443},
    ],
}


def test_a_name_of_a_service_is_passed_over_with_a_warning() -> None:
    seed = read(SEED_OF_AUTOMX2S_TESTS)

    assert seed.warnings == ["servers[3].name has no effect: a service has a url"]
    [service] = seed.rows["davserver"]
    assert (service["url"], "name" in service) == ("https://caldav.test.com", False)
    missing = {"type": "caldav", "name": "caldav"}
    assert refused(SEED_OF_AUTOMX2S_TESTS | {"servers": [missing]}).startswith(
        "servers[0]: the key url is missing; expected a URL"
    )


@pytest.mark.parametrize("version", [{}, {"version": 1}])
def test_version_1_has_domains_as_texts(version: dict[str, int]) -> None:
    document = {
        "_comment": "automx2 passes over this, too",
        "provider": "Example Inc.",
        "domains": ["example.com", "example.net"],
        "servers": [
            {"type": "imap", "name": "imap.example.com"},
            {"type": "caldav", "port": 443, "url": "https://www.example.net/%EMAILADDRESS%/"},
        ],
    }

    seed = read(document | version)

    assert [domain["name"] for domain in seed.rows["domain"]] == ["example.com", "example.net"]
    assert [server["port"] for server in seed.rows["server"] + seed.rows["davserver"]] == [993, 443]


def test_ldap_port_636_means_tls_unless_the_document_says_otherwise() -> None:
    base = {"id": 1, "name": "ldap.example.com", "search_base": "", "port": 636}
    for extra, expected in (({}, True), ({"use_ssl": False}, False), ({"use_ssl": "no"}, False)):
        seed = read(changed("ldapservers.0", base | extra))

        assert seed.rows["ldapserver"][0]["use_ssl"] is expected


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        ("EXAMPLE.com", "example.com"),
        ("example.com.", "example.com"),
        ("M\u00dcLLER.de", "m\u00fcller.de"),
        ("mu\u0308ller.de", "m\u00fcller.de"),
        ("XN--Mller-Kva.de", "xn--mller-kva.de"),
        ("*.Example.com", "*.example.com"),
        ("*.M\u00dcLLER.de", "*.m\u00fcller.de"),
        ("*", "*"),
    ],
)
def test_domains_are_stored_in_lower_case_in_the_form_they_are_written(
    name: str, stored: str
) -> None:
    assert read(changed("domains.0.name", name)).rows["domain"][0]["name"] == stored


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("servers.0.socket_type", "starttls"),
        ("servers.0.socket_type", "none"),
        ("servers.0.type", "IMAP"),
        ("servers.0.type", "pop3"),
        ("servers.0.authentication", "OAuth2 password-cleartext"),
        ("servers.0.authentication", "secure"),
        ("servers.0.type", "sieve"),
        ("servers.0.socket_type", ""),
        ("servers.0.user_name", ""),
        ("servers.0.user_name", " alice "),
        ("servers.0.user_name", "%emailaddress%"),
        ("servers.2.url", "dav.example.com/calendars"),
        ("ldapservers.0.port", 0),
        ("servers.0.name", "mail.%EMAILDOMAIN%"),
        ("servers.0.name", "192.0.2.1"),
        ("servers.0.prio", 0),
        ("servers.0.port", 65535),
        ("servers.2.url", "https://%EMAILDOMAIN%:8443/dav/%EMAILLOCALPART%"),
        ("servers.2.user_name", None),
        ("servers.2.domain_required", False),
        ("servers.2.type", "webdav"),
        ("ldapservers.0.name", "2001:db8::1"),
        ("ldapservers.0.attr_cn", None),
        ("ldapservers.0.bind_password", " blanks are part of it "),
        ("domains.0.ldapserver_id", None),
        ("short_name", "Ex"),
        ("domains", []),
    ],
)
def test_these_values_are_taken(path: str, value: object) -> None:
    assert isinstance(read(changed(path, value)), SeedRows)


@pytest.mark.parametrize(
    ("path", "value", "error"),
    [
        (
            "servers.1.port",
            "abc",
            'servers[1].port: expected a whole number from 1 to 65535, found "abc"',
        ),
        ("servers.1.port", 0, "servers[1].port: expected a whole number from 1 to 65535, found 0"),
        (
            "servers.1.port",
            70000,
            "servers[1].port: expected a whole number from 1 to 65535, found 70000",
        ),
        (
            "servers.1.port",
            True,
            "servers[1].port: expected a whole number from 1 to 65535, found true",
        ),
        (
            "servers.1.port",
            None,
            "servers[1].port: expected a whole number from 1 to 65535, found null",
        ),
        (
            "servers.1.port",
            587.0,
            "servers[1].port: expected a whole number from 1 to 65535, found 587.0",
        ),
        (
            "servers.0.type",
            "imaps",
            (
                "servers[0].type: expected one of imap, pop, pop3, smtp, managesieve, sieve, "
                "caldav, carddav, webdav, jmap, activesync, ews, graph, xmpp, matrix, "
                'found "imaps"'
            ),
        ),
        (
            "servers.0.type",
            ...,
            (
                "servers[0]: the key type is missing; "
                "expected one of imap, pop, pop3, smtp, managesieve, sieve, caldav, carddav, "
                "webdav, jmap, activesync, ews, graph, xmpp, matrix"
            ),
        ),
        (
            "servers.0.name",
            ...,
            (
                "servers[0]: the key name is missing; "
                'expected a host name of at most 128 characters such as "mail.example.com"'
            ),
        ),
        (
            "servers.0.name",
            "imap example.com",
            (
                "servers[0].name: expected a host name of at most 128 characters such as "
                '"mail.example.com", found "imap example.com"'
            ),
        ),
        (
            "servers.2.url",
            "dav example.com",
            (
                "servers[2].url: expected a URL of at most 128 characters such as "
                '"https://dav.example.com/calendars/", found "dav example.com"'
            ),
        ),
        (
            "servers.2.url",
            "https://dav.example.com:99999/",
            (
                "servers[2].url: expected a URL of at most 128 characters such as "
                '"https://dav.example.com/calendars/", found "https://dav.example.com:99999/"'
            ),
        ),
        (
            "servers.0.socket_type",
            "TLS1.3",
            'servers[0].socket_type: expected one of SSL, STARTTLS, plain, none, found "TLS1.3"',
        ),
        (
            "servers.0.authentication",
            "OAuth2 krb5",
            (
                "servers[0].authentication: expected one of plain, password-cleartext, secure, "
                "password-encrypted, OAuth2, GSSAPI, NTLM, TLS-client-cert, client-IP-address, "
                'none, or several with blanks between, found "OAuth2 krb5"'
            ),
        ),
        (
            "servers.0.authentication",
            "OAuth2, GSSAPI, NTLM, TLS-client-cert, password-cleartext",
            (
                "servers[0].authentication: expected at most 32 characters, found "
                '"OAuth2 GSSAPI NTLM TLS-client-cert plain", which has 40'
            ),
        ),
        (
            "servers.0.user_name",
            "%EMAILADRESS%",
            (
                'servers[0].user_name: "%EMAILADRESS%" is no placeholder; '
                "did you mean %EMAILADDRESS%?"
            ),
        ),
        (
            "ldapservers.0.search_filter",
            "(uid=x)",
            (
                "ldapservers[0].search_filter: expected an LDAP filter such as (mail={0}), found "
                '"(uid=x)": it has no placeholder {0} or {local} for the address'
            ),
        ),
        (
            "servers.0.user_name",
            "a" * 65,
            (
                "servers[0].user_name: expected a text of 0 to 64 characters without control "
                f'characters, found "{"a" * 64}a"'
            ),
        ),
        (
            "servers.0.user_name",
            "a\u0000b",
            (
                "servers[0].user_name: expected a text of 0 to 64 characters without control "
                'characters, found "a\\u0000b"'
            ),
        ),
        (
            "servers.0.user_name",
            "\ud800",
            (
                "servers[0].user_name: expected a text of 0 to 64 characters without control "
                'characters, found "\\ud800"'
            ),
        ),
        (
            "servers.0.prot",
            993,
            'servers[0]: the key "prot" is not known here; did you mean prio or port?',
        ),
        (
            "servers.2.prio",
            1,
            (
                'servers[2]: the key "prio" is not known here; expected one of '
                "id, type, url, port, "
                "use_ssl, domain_required, user_name"
            ),
        ),
        ("servers.0", "imap", 'servers[0]: expected an object ({…}), found "imap"'),
        (
            "servers",
            {},
            (
                'servers: expected a list such as [{"type": "imap", "name": "imap.example.com"}], '
                "found an object"
            ),
        ),
        (
            "servers",
            ...,
            (
                "the document: the key servers is missing; "
                'expected a list such as [{"type": "imap", "name": "imap.example.com"}]'
            ),
        ),
        (
            "domains.1",
            "example.net",
            'domains[1]: expected an object ({…}), found "example.net"',
        ),
        (
            "domains.1.name",
            "example..net",
            (
                "domains[1].name: expected a domain name of at most 128 characters such as "
                '"example.com", "*.example.com" or "*", found "example..net"'
            ),
        ),
        (
            "domains.1.name",
            "www.*.example.net",
            (
                "domains[1].name: expected a domain name of at most 128 characters such as "
                '"example.com", "*.example.com" or "*", found "www.*.example.net"'
            ),
        ),
        (
            "domains.1.name",
            "EXAMPLE.com",
            'domains[1]: expected another domain than that of domains[0], found "example.com"',
        ),
        (
            "domains.1.servers",
            ["1"],
            "domains[1].servers: expected a list of ids such as [1, 2], found a list",
        ),
        (
            "origin",
            " ",
            'origin: expected a text of 1 to 64 characters without control characters, found " "',
        ),
        (
            "domains.0.provider",
            "  ",
            'domains[0].provider: expected a text of 1 to 128 characters, found "  "',
        ),
        (
            "ldapservers.0.bind_password",
            "secret" * 30,
            (
                "ldapservers[0].bind_password: expected a text of 0 to 128 characters without "
                "control characters, or null, found another value, which is not shown"
            ),
        ),
        (
            "provider",
            ...,
            "the document: expected one of the keys provider and providers, found none",
        ),
        (
            "providers",
            [{"id": 1, "name": "Example"}],
            "the document: expected one of the keys provider and providers, found both",
        ),
        (
            "provider",
            "  ",
            ('provider: expected a text of 1 to 128 characters, found "  "'),
        ),
        ("version", 3, "version: expected 1 or 2, found 3"),
        ("version", "2", 'version: expected 1 or 2, found "2"'),
        (
            "version",
            1,
            'the document: the key "ldapservers" is not known here; did you mean servers?',
        ),
        (
            "Provider",
            "Example",
            (
                'the document: the key "Provider" is not known here; '
                "did you mean provider or providers?"
            ),
        ),
    ],
)
def test_an_error_says_which_key_where_what_was_expected_and_found(
    path: str, value: object, error: str
) -> None:
    assert refused(changed(path, value)) == error


@pytest.mark.parametrize(
    ("document", "found"),
    [([], "an empty list"), ([1], "a list"), (None, "null"), ("x", '"x"'), (2, "2")],
)
def test_a_document_is_an_object(document: object, found: str) -> None:
    assert refused(document) == f"the document: expected an object ({{…}}), found {found}"


def test_the_same_domain_twice_is_found_across_its_forms() -> None:
    domains = [{"name": "example.com"}, {"name": "xn--mller-kva.de"}, {"name": "M\u00fcller.DE"}]

    assert refused(changed("domains", domains)) == (
        'domains[2]: expected another domain than that of domains[1], found "m\u00fcller.de"'
    )


def test_the_same_id_twice_is_refused_in_one_table_only() -> None:
    servers = [
        {"id": 1, "type": "imap", "name": "imap.example.com"},
        {"id": 1, "type": "caldav", "url": "https://dav.example.com/"},
    ]
    assert len(read(changed("servers", servers)).rows["server"]) == 1

    servers.append({"id": 1, "type": "smtp", "name": "smtp.example.com"})
    assert refused(changed("servers", servers)) == (
        "servers[2].id: expected another id than that of servers[0], found 1"
    )


def test_of_several_providers_each_domain_names_one() -> None:
    document = changed("providers", [{"id": 1, "name": "One"}, {"id": 2, "name": "Two"}])
    del document["provider"]
    document["domains"][0]["provider"] = 2

    assert refused(document) == (
        "domains[1]: the key provider is missing; expected the id of a provider, "
        "because the document does not have exactly one"
    )
    assert refused(document | {"short_name": "x"}) == (
        "short_name: expected beside provider only, found beside providers"
    )


def test_ids_that_the_document_does_not_hold_are_noted_with_their_path() -> None:
    document = changed("domains.1.servers", [4, 5])
    document["domains"][1] |= {"davservers": [6], "ldapserver_id": 8, "provider": 9}

    assert read(document).outside == {
        ("server", 4): "domains[1].servers",
        ("server", 5): "domains[1].servers",
        ("davserver", 6): "domains[1].davservers",
        ("ldapserver", 8): "domains[1].ldapserver_id",
        ("provider", 9): "domains[1].provider",
    }


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (
            b'{"a":\n 1,}',
            (
                "seed.json: line 2, column 4 is not valid JSON: "
                "expecting property name enclosed in double quotes"
            ),
        ),
        (b'{"a":\n "\xff"}', "seed.json: line 2, column 3 is not UTF-8"),
        (b"", "seed.json: line 1, column 1 is not valid JSON: expecting value"),
        (
            b'{"_comment": NaN}',
            "seed.json cannot be read as JSON: NaN is no value of JSON",
        ),
        (b"[-Infinity]", "seed.json cannot be read as JSON: -Infinity is no value of JSON"),
        (b'{"a": 1, "b": 2, "a": 3}', 'seed.json: the key "a" stands twice in one object'),
    ],
)
def test_text_that_is_not_json_is_refused_with_line_and_column(data: bytes, error: str) -> None:
    with pytest.raises(SeedError) as caught:
        parse(data, "seed.json")
    # Python 3.13 words one of these errors anew.
    assert (
        str(caught.value)
        .replace(
            "illegal trailing comma before end of object",
            "expecting property name enclosed in double quotes",
        )
        .replace("column 3 is not valid JSON", "column 4 is not valid JSON")
        == error
    )


def test_a_key_that_stands_twice_is_found_soon_among_many() -> None:
    names = [f'"_{number}": 0' for number in range(50_000)]
    document = f"{{{', '.join([*names, names[-1]])}}}".encode()
    began = time.thread_time()
    with pytest.raises(SeedError, match='the key "_49999" stands twice'):
        parse(document, "seed.json")
    assert time.thread_time() - began < 5  # to compare each with each takes half a minute


@pytest.mark.parametrize("data", [b"[" * 100_000, b"1" * 10_000])
def test_absurd_json_is_refused(data: bytes) -> None:
    with pytest.raises(SeedError, match=r"^seed\.json cannot be read as JSON: "):
        parse(data, "seed.json")


def test_a_byte_order_mark_is_passed_over() -> None:
    assert parse(b"\xef\xbb\xbf{}", "seed.json") == {}


@pytest.mark.parametrize(
    "path", sorted((REPOSITORY / "contrib" / "seeds").glob("*.json")), ids=lambda path: path.name
)
def test_sample_seeds_are_valid(path: Path) -> None:
    assert isinstance(read(parse(path.read_bytes(), path.name)), SeedRows)


def test_the_sample_is_plain_json_and_valid() -> None:
    assert json.loads(json.dumps(SAMPLE)) == SAMPLE
    assert [domain["name"] for domain in read(SAMPLE).rows["domain"]] == [
        "example.com",
        "example.net",
        "example.org",
    ]


DOCS = (REPOSITORY / "docs" / "seed.md").read_text()


@pytest.mark.parametrize("example", re.findall(r"```json\n(.*?)```", DOCS, re.DOTALL))
def test_examples_of_the_documentation_are_valid(example: str) -> None:
    assert isinstance(read(parse(example.encode(), "docs/seed.md")), SeedRows)


@pytest.mark.parametrize(
    ("heading", "keys"),
    [
        ("Keys of the document", seeddocument.DOCUMENT_KEYS),
        ("Domains", members.DOMAIN),
        ("Mail servers", members.SERVER),
        ("Services", members.SERVICE),
        ("LDAP servers", members.DIRECTORY | {"bind_password_file": None}),
        ("Several providers ¹", members.PROVIDER),
    ],
)
def test_every_key_is_documented(heading: str, keys: dict[str, object]) -> None:
    section = DOCS.split(f"\n## {heading}\n")[1].split("\n## ")[0]

    assert sorted(re.findall(r"^\| `([$\w]+)`", section, re.MULTILINE)) == sorted(keys)
