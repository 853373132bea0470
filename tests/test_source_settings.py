"""Settings of sources: sections, variables, and what is said about wrong ones."""

from datetime import timedelta
from pathlib import Path

import pytest

from automx.config import SOURCE_KEYS, SourceSettings, load
from automx.config.sources import PRESETS, TYPES
from automx.config.values import Share
from automx.errors import SettingsError
from docs import reference
from tests.commandline import automx
from tests.processes import REPOSITORY


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    return tmp_path / "automx.conf"


def sources(conf: Path, text: str, **variables: str) -> tuple[SourceSettings, ...]:
    conf.write_text(text)
    return load({"AUTOMX_CONF": str(conf), **variables}).sources


def error(conf: Path, text: str, **variables: str) -> str:
    with pytest.raises(SettingsError) as caught:
        sources(conf, text, **variables)
    return str(caught.value)


def test_a_source_has_a_section_of_its_own_with_every_key(conf: Path) -> None:
    text = (
        "[source.mail]\n"
        "type = SQL\n"
        "uri = mysql://reader:100%secret@db.example.com/postfix\n"
        "query = SELECT d.name AS domain,\n"
        "    d.enabled AS active -- of the domain\n"
        "  FROM domains d\n"
        "provider = Example Inc.\n"
        "servers = imap.example.com, 2\n"
        "services = https://dav.example.com/\n"
        "directory = ldap.example.com\n"
        "like = example.com\n"
        "interval = 1h\n"
        "timeout = 2.5\n"
        "max_removed = 20\n"
        "keep_days = 0\n"
        "[source.people-2]\n"
        "type = ldap\n"
        "uri = ldaps://ldap.example.com\n"
        "search_base = o=domains,dc=example\n"
        "search_filter = (objectClass=mailDomain)\n"
        "attributes = domain=domainName, active=accountStatus aliases=domainAliasName\n"
        "bind_user = cn=reader,dc=example\n"
        "bind_password = hidden # secret\n"
        "[source.program]\n"
        "type = command\n"
        "command = /bin/cat '/srv/my domains'\n"
        "[source.list]\n"
        "type = file\n"
        "file = /srv/domains\n"
    )
    assert sources(conf, text) == (
        SourceSettings(
            name="mail",
            type="sql",
            uri="mysql+pymysql://reader:100%secret@db.example.com/postfix",
            query="SELECT d.name AS domain,\nd.enabled AS active -- of the domain\nFROM domains d",
            provider="Example Inc.",
            servers=("imap.example.com", "2"),
            services=("https://dav.example.com/",),
            directory="ldap.example.com",
            like="example.com",
            interval=timedelta(hours=1),
            timeout=2.5,
            max_removed=Share(20, False),
            keep_days=0,
        ),
        SourceSettings(
            name="people-2",
            type="ldap",
            uri="ldaps://ldap.example.com",
            search_base="o=domains,dc=example",
            search_filter="(objectClass=mailDomain)",
            attributes={
                "domain": "domainName",
                "active": "accountStatus",
                "aliases": "domainAliasName",
            },
            bind_user="cn=reader,dc=example",
            bind_password="hidden # secret",
        ),
        SourceSettings(name="program", type="command", command=("/bin/cat", "/srv/my domains")),
        SourceSettings(name="list", type="file", file="/srv/domains"),
    )


def test_a_source_of_mailcow_has_endpoint_and_key_of_the_accounts_by_default(conf: Path) -> None:
    text = (
        "[automx]\nmailcow_endpoint = https://mail.example.com/api/v1\nmailcow_token = 0815\n"
        "[source.one]\ntype = mailcow\n"
        "[source.two]\ntype = mailcow\nuri = https://other.example.com/api/v1/\ntoken = 4711\n"
    )
    found = [(source.uri, source.token) for source in sources(conf, text)]
    assert found == [
        ("https://mail.example.com/api/v1", "0815"),
        ("https://other.example.com/api/v1", "4711"),
    ]
    text = text.replace("mailcow_token = 0815\n", "")
    assert error(conf, text) == "[source.one]: token is missing: the type mailcow needs it"


@pytest.mark.parametrize(("preset", "type_"), PRESETS.items())
def test_a_preset_says_type_and_query(conf: Path, preset: str, type_: str) -> None:
    uri, base = {
        "sql": ("sqlite:////srv/mail.sqlite", ""),
        "ldap": ("ldap://localhost", "search_base = dc=x\n"),
    }[type_]
    [source] = sources(conf, f"[source.a]\npreset = {preset}\nuri = {uri}\n{base}")
    assert (source.type, source.uri) == (type_, uri)
    other = next(name for name in TYPES if name != type_)
    assert error(conf, f"[source.a]\ntype = {other}\npreset = {preset}\n") == (
        f"[source.a]: the preset {preset} is of the type {type_}"
    )


def test_variables_override_the_keys_of_a_section_or_are_all_that_there_is(
    conf: Path, tmp_path: Path
) -> None:
    secret = tmp_path / "uri"
    secret.write_text("postgresql://reader:hidden@/mail\n")
    found = sources(
        conf,
        "[source.my-mail]\npreset = postfixadmin\nuri = sqlite:////srv/old.sqlite\n",
        AUTOMX_SOURCE_MY_MAIL_URI_FILE=str(secret),
        AUTOMX_SOURCE_MY_MAIL_INTERVAL="1m",
        AUTOMX_SOURCE_LIST_2_TYPE="file",
        AUTOMX_SOURCE_LIST_2_FILE="/srv/domains",
    )
    assert [(one.name, one.type, one.uri, one.file) for one in found] == [
        ("my-mail", "sql", "postgresql+psycopg://reader:hidden@/mail", ""),
        ("list_2", "file", "", "/srv/domains"),
    ]
    assert found[0].interval == timedelta(minutes=1)
    assert found[0].given_by["uri"] == (
        f"environment variable AUTOMX_SOURCE_MY_MAIL_URI_FILE, uri_file {secret}"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[source.a]\n", "[source.a]: type or preset is missing: one of sql, ldap, command, "),
        (
            "[source.a]\ntype = sql\nuri = sqlite:////x\n",
            "[source.a]: preset (postfixadmin, modoboa) or query is missing: the type sql needs it",
        ),
        ("[source.a]\npreset = modoboa\n", "[source.a]: uri is missing: the type sql needs it"),
        (
            "[source.a]\ntype = file\nfile = x\n",
            "{conf}, [source.a]: file must be the full path of",
        ),
        ("[source.a]\ntype = files\n", "{conf}, [source.a]: type must be one of "),
        (
            "[source.a]\ntype = file\nfile = /x\nurl = x\n",
            "{conf}, [source.a]: the key url is not known; did you mean uri?",
        ),
        (
            "[source.a]\ntype = file\nfile = /x\nquery = SELECT 1\n",
            "[source.a]: query has no meaning for the type file",
        ),
        (
            "[source.a]\npreset = modoboa\nuri = oracle://u:hidden@h/d\n",
            "[source.a]: uri must be a URI such as sqlite:////path, ",
        ),
        (
            "[source.a]\ntype = sql\nuri = sqlite:////x\nquery = DELETE FROM domain\n",
            "{conf}, [source.a]: query must be a query that begins with SELECT or WITH",
        ),
        (
            "[source.a]\ninterval = 5s\n",
            "{conf}, [source.a]: interval must be a duration such as 5m",
        ),
        (
            "[source.a]\nmax_removed = 101%\n",
            "{conf}, [source.a]: max_removed must be a percentage",
        ),
        (
            "[source.a]\ntype = ldap\nattributes = name=cn\n",
            "{conf}, [source.a]: attributes must be pairs such as domain=domainName; names are ",
        ),
        (
            "[source.a]\npreset = iredmail-ldap\nuri = x\nsearch_base = x\nattributes = active=y",
            "[source.a]: attributes must name that of domain, such as domain=cn",
        ),
        ("[source.A]\n", "{conf}: the section [source.A] must be called [source.NAME], with "),
        ("[sources.a]\n", "{conf}: the section [sources.a] must be called [source.NAME], "),
        ("[source a]\n", "{conf}: the section [source a] must be called [source.NAME], "),
        ("[source]\n", "{conf}: the section [source] must be called [source.NAME], "),
        ("[source.a_b]\n[source.a-b]\n", "[source.a-b]: its variables would be those of a_b"),
        ("[source.a]\n[source.a]\n", "{conf}: line 2: [source.a] stands there twice"),
    ],
)
def test_a_wrong_source_stops_the_program_with_file_section_and_key(
    conf: Path, text: str, expected: str
) -> None:
    found = error(conf, text)
    assert found.startswith(expected.format(conf=conf))
    assert "hidden" not in found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("preset = modoboa\nuri = sqlite:////x", "sqlite:////x"),
        ("type = mailcow\ntoken = x\nuri = https://mail.example/api", "https://mail.example/api"),
    ],
)
def test_a_comment_may_stand_behind_the_uri(conf: Path, text: str, expected: str) -> None:
    [found] = sources(conf, f"[source.a]\n{text}  # the account that reads\n")
    assert found.uri == expected


def test_an_unknown_variable_of_a_source_is_an_error(conf: Path) -> None:
    assert error(conf, "", AUTOMX_SOURCE_A_URL="x").startswith(
        "environment variable AUTOMX_SOURCE_A_URL: the key source_a_url is not known; "
    )


def test_automx2s_file_may_hold_sources_as_well(tmp_path: Path) -> None:
    path = tmp_path / "automx2.conf"
    path.write_text("[automx2]\nproxy_count = 1\n[source.a]\ntype = file\nfile = /srv/100%%\n")
    found = load({"HOME": str(tmp_path), "AUTOMX2_CONF": str(path)})
    assert (found.proxy_count, found.sources[0].file) == (1, "/srv/100%")


def test_the_settings_of_sources_are_printed_without_secrets(conf: Path) -> None:
    conf.write_text(
        "[source.mail]\npreset = postfixadmin\nuri = mysql://reader:hidden@localhost/postfix\n"
        "[source.people]\npreset = iredmail-ldap\nuri = ldap://localhost\nsearch_base = dc=x\n"
        "bind_user = cn=vmail\nbind_password = hidden\n"
        "[source.cow]\ntype = mailcow\nuri = https://x.example/api/v1\ntoken = hidden\n"
    )
    printed = automx("config", env={"AUTOMX_CONF": str(conf)})
    assert "hidden" not in printed
    lines = printed.split("\n\n")[1:]
    assert [part.splitlines()[0] for part in lines] == [
        "[source.mail]",
        "[source.people]",
        "[source.cow]",
    ]
    for line in (
        f"uri = mysql+pymysql://reader:***@localhost/postfix  # {conf}, [source.mail]",
        f"bind_password = ***  # {conf}, [source.people]",
        f"token = ***  # {conf}, [source.cow]",
        "max_removed = 10%  # default",
        "interval = 5m  # default",
    ):
        assert line in printed
    settings = load({"AUTOMX_CONF": str(conf)})
    assert "hidden" not in repr(settings)


def test_the_documentation_names_every_key_of_a_source() -> None:
    page = (REPOSITORY / "docs" / "configuration.md").read_text()
    table = page.partition("make reference writes this table of sources")[2]
    names = [
        line.split("`")[1] for line in table.partition("<!--")[0].splitlines() if "| `" in line
    ]
    assert names == list(SOURCE_KEYS)
    assert "#[source.NAME]\n" in reference.configuration_file()


PEOPLE = "[source.a]\ntype = sql\nuri = sqlite:////srv/mail.sqlite\n"
QUERY = "SELECT login FROM people WHERE mail = :address"


@pytest.mark.parametrize(
    ("text", "domains", "people"),
    [
        ("preset = postfixadmin\n", True, False),
        ("preset = postfixadmin\npeople = no\n", True, False),
        ("preset = postfixadmin\npeople = yes\n", True, True),
        ("preset = postfixadmin\npeople = mailcow\n", True, True),
        (f"preset = postfixadmin\npeople_query = {QUERY}\n", True, True),
        ("people = modoboa\ndomains = *\n", False, True),
        (f"people_query = {QUERY};\ndomains = Example.com, *.example.org\n", False, True),
        (f"people = no\npeople_query = {QUERY}\ndomains = *\n", False, False),
        ("query = SELECT 1 AS domain\npeople = mailcow\npeople_timeout = 0.5\n", True, True),
    ],
)
def test_a_source_knows_domains_or_people_or_both(
    conf: Path, text: str, domains: bool, people: bool
) -> None:
    [source] = sources(conf, PEOPLE + text)
    assert (source.finds_domains, source.finds_people) == (domains, people)
    assert source.people_query in {"", QUERY}
    assert set(source.domains) <= {"*", "example.com", "*.example.org"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "preset (postfixadmin, modoboa) or query is missing: the type sql needs it"),
        (
            "people = mailcow\n",
            "query or domains is missing: for which domains people are looked up",
        ),
        (
            "people = yes\ndomains = *\n",
            "people must name a preset: one of postfixadmin, mailcow, modoboa; or people_query",
        ),
        (
            f"people = mailcow\npeople_query = {QUERY}\ndomains = *\n",
            "people and people_query exclude each other",
        ),
        ("preset = iredmail-ldap\n", "the preset iredmail-ldap is of the type ldap"),
    ],
)
def test_settings_of_people_fit_each_other(conf: Path, text: str, expected: str) -> None:
    assert error(conf, PEOPLE + text) == f"[source.a]: {expected}"


def test_only_databases_have_people(conf: Path) -> None:
    text = "[source.a]\ntype = file\nfile = /srv/domains\npeople = mailcow\n"
    assert error(conf, text) == "[source.a]: people has no meaning for the type file"


@pytest.mark.parametrize("value", ["exa mple..com", "*.*.com", "a*.com", "müller.de", "http://x"])
def test_domains_are_names_and_wildcards(conf: Path, value: str) -> None:
    assert error(conf, f"{PEOPLE}people = mailcow\ndomains = {value}\n") == (
        f"{conf}, [source.a]: domains must be domains or wildcards such as example.com"
        " *.example.org, in ASCII"
    )


def test_a_placeholder_in_quotes_stops_the_program(conf: Path) -> None:
    text = f"{PEOPLE}domains = *\npeople_query = SELECT a AS login FROM t WHERE m = ':address'\n"
    assert error(conf, text) == (
        f"{conf}, [source.a]: people_query must be a query whose placeholders stand without quotes"
        " and not in comments: :address, not ':address'"
    )
