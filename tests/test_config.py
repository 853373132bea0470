"""Settings: where they are read, in which order, and what is said about wrong ones."""

import contextlib
import re
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import certifi
import pytest

from automx import migrations
from automx.config import KEYS, LOG_LEVELS, SOURCE_KEYS, files, load, make
from automx.errors import DatabaseError, SettingsError
from docs import reference
from tests.commandline import automx
from tests.processes import REPOSITORY


@pytest.fixture
def environ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Return an environment with an empty home; ``/etc`` is the folder ``etc`` beside it."""
    for name in ("home", "etc/automx", "etc/automx2"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.setattr(files, "ETC", tmp_path / "etc")
    return {"HOME": str(tmp_path / "home"), "PATH": "/usr/bin"}


@pytest.fixture
def automx_conf(environ: dict[str, str], tmp_path: Path) -> Path:
    """Return the file that ``$AUTOMX_CONF`` names; it is still empty."""
    path = tmp_path / "automx.conf"
    path.touch()
    environ["AUTOMX_CONF"] = str(path)
    return path


@pytest.fixture
def automx2_conf(environ: dict[str, str], tmp_path: Path) -> Path:
    """Return the file that ``$AUTOMX2_CONF`` names; it is still empty."""
    path = tmp_path / "automx2.conf"
    path.touch()
    environ["AUTOMX2_CONF"] = str(path)
    return path


def error(environ: Mapping[str, str]) -> str:
    """Return the text of the error that loading the settings raises."""
    with pytest.raises(SettingsError) as caught:
        load(environ)
    return str(caught.value)


def test_the_defaults_are_those_of_the_documentation(environ: dict[str, str]) -> None:
    settings = load(environ)
    assert settings.values() == {
        "db_uri": f"sqlite:///{environ['HOME']}/.local/share/automx/automx.sqlite",
        "db_read_uri": "",
        "db_timeout": 3,
        "db_echo": False,
        "loglevel": "WARNING",
        "proxy_count": 0,
        "domain_cache_seconds": 10,
        "stale_seconds": 3600,
        "publish_seconds": 600,
        "audit_days": 365,
        "initdb_token": "",
        "tls_ask_token": "",
        "permit_cleartext_passwords": False,
        "ldap_starttls": "yes",
        "ldap_ca_file": "",
        "ldap_verify": True,
        "ldap_timeout": 3,
        "ldap_cache_seconds": 60,
        "ldap_cache_size": 10_000,
        "ldap_bind_password_file": {},
        "ldap_client_certificate_file": {},
        "ldap_client_key_file": {},
        "web_endpoint": "",
        "public_host": "",
        "sync_in_server": False,
        "page_apps": (),
        "page_imprint": "",
        "page_privacy": "",
        "page_app_passwords": {},
        "account_backend": "none",
        "account_timeout": 20,
        "account_command": (),
        "mailcow_endpoint": "",
        "mailcow_token": "",
        "mailcow_ca_file": "",
        "account_warn_before": timedelta(0),
        "account_warn_command": (),
        "account_created_command": (),
        "account_grace": timedelta(0),
        "account_rate_limit": "30 per minute; 300 per day",
        "rate_limit_storage": "memory://",
        "signing_certificate": "",
        "signing_key": "",
        "signing_key_passphrase": "",
        "signing_chain": "",
        "zone_server": "",
        "zone_key": "",
        "zone_algorithm": "hmac-sha256",
        "zone_secret": "",
        "zone_command": (),
        "zone_timeout": 10,
        "zone_owner": "automx",
        "zone_ttl": 3600,
        "zone_delay": timedelta(minutes=10),
        "log_format": "text",
        "log_addresses": "full",
        "access_log": "",
        "metrics_listen": "",
        "metrics_token": "",
    }
    assert settings.permit_passwords_in_urls is False
    assert settings.given_by == dict.fromkeys(KEYS, "default")


def test_the_first_file_found_is_read_and_no_other(environ: dict[str, str], tmp_path: Path) -> None:
    places = [
        "automx.by-variable.conf",
        "home/.automx.conf",
        "etc/automx/automx.conf",
        "etc/automx.conf",
        "automx2.by-variable.conf",
        "home/.automx2.conf",
        "etc/automx2/automx2.conf",
        "etc/automx2.conf",
    ]
    environ["AUTOMX_CONF"] = str(tmp_path / places[0])
    environ["AUTOMX2_CONF"] = str(tmp_path / places[4])
    for number, place in enumerate(places, 1):
        section = "automx2" if "automx2" in place else "automx"
        (tmp_path / place).write_text(f"[{section}]\nproxy_count = {number}\n")
    found = []
    for place in places:
        settings = load(environ)
        found.append((settings.proxy_count, settings.given_by["proxy_count"]))
        assert settings.loglevel == "WARNING"
        (tmp_path / place).unlink()
        environ = {name: value for name, value in environ.items() if value != str(tmp_path / place)}
    assert found == [(number, str(tmp_path / place)) for number, place in enumerate(places, 1)]
    assert load(environ).given_by["proxy_count"] == "default"


@pytest.mark.parametrize("variable", ["AUTOMX_CONF", "AUTOMX2_CONF"])
def test_a_file_that_was_asked_for_and_is_missing_is_an_error(
    environ: dict[str, str], variable: str
) -> None:
    environ[variable] = "/nowhere/automx.conf"
    assert error(environ) == (
        f"environment variable {variable}: there is no file /nowhere/automx.conf"
    )


def test_dev_null_gives_the_defaults_even_if_there_are_other_files(
    environ: dict[str, str],
) -> None:
    Path(environ["HOME"], ".automx.conf").write_text("[automx]\nproxy_count = 3\n")
    assert load(environ | {"AUTOMX_CONF": "/dev/null"}).proxy_count == 0


def test_a_home_folder_that_is_closed_to_us_is_passed_over(environ: dict[str, str]) -> None:
    environ["HOME"] = f"/{'x' * 300}"  # as a folder without permission, but for root, too
    assert load(environ).given_by["proxy_count"] == "default"


def test_a_closed_folder_below_etc_is_an_error(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = Path(f"/{'x' * 300}")
    monkeypatch.setattr(files, "ETC", closed)
    text = f"{closed}/automx/automx.conf: cannot be read: File name too long"
    assert error(environ) == text


def test_all_keys_can_be_set_in_the_file(automx_conf: Path, environ: dict[str, str]) -> None:
    secret = automx_conf.with_name("ldap.secret")
    secret.write_text("hidden\n")
    automx_conf.write_text(
        "; settings of a test\n"
        "[automx]\n"
        "db_uri = postgresql://automx:100%secret@db.example.com/automx\n"
        "db_timeout = 2.5\n"
        "db_echo = Yes\n"
        "loglevel = info\n"
        "proxy_count = 2\n"
        "domain_cache_seconds = 0.5\n"
        "stale_seconds = 0\n"
        "db_read_uri = postgresql://automx:100%hidden@read.example.com/automx\n"
        "publish_seconds = 60\n"
        "audit_days = 30\n"
        "sync_in_server = yes\n"
        "page_apps = Thunderbird, outlook-new ios thunderbird\n"
        "page_imprint = https://example.com/?page=imprint&lang=de#top\n"
        "page_privacy = http://[2001:db8::1]:8080/privacy\n"
        "page_app_passwords = 3:https://mail.example.com/a?b=c *:https://example.net/\n"
        "initdb_token = let-me-in\n"
        "tls_ask_token = 0123456789abcdef\n"
        "permit_cleartext_passwords = on\n"
        "ldap_starttls = Try\n"
        f"ldap_ca_file = {automx_conf}\n"
        "ldap_verify = no\n"
        "ldap_timeout = 1.5\n"
        "ldap_cache_seconds = 0\n"
        "ldap_cache_size = 7\n"
        f"ldap_bind_password_file = 3:{secret}, 4:{secret}\n"
        f"ldap_client_certificate_file = 3:{automx_conf} 4:{automx_conf}\n"
        f"ldap_client_key_file = 4:{secret}\n"
        "web_endpoint = HTTPS://mail.example.com/new_email/\n"
        "public_host = AutoMX.example.net\n"
        "account_backend = Command\n"
        "account_timeout = 2.5\n"
        "account_command = /bin/sh -e '/srv/my accounts' \"--home=/x\"\n"
        "mailcow_endpoint = https://[::1]:8443/api/v1\n"
        "mailcow_token = hidden\n"
        f"mailcow_ca_file = {certifi.where()}\n"
        "account_warn_before = 1w\n"
        "account_warn_command = /bin/sh\n"
        "account_created_command = /bin/true created\n"
        "account_grace = 36h\n"
        "account_rate_limit = 5/minute; 10 per 2 hours\n"
        "rate_limit_storage = rediss://automx:hidden@redis.example.com:6380/1\n"
        f"signing_certificate = {automx_conf}\n"
        f"signing_key = {secret}\n"
        "signing_key_passphrase = hidden %s\n"
        f"signing_chain = {automx_conf}\n"
        "zone_server = NS1.example.net:5353\n"
        "zone_key = AutoMX\n"
        "zone_algorithm = HMAC-SHA512\n"
        "zone_secret = aGlkZGVu\n"
        "zone_command = /bin/true --zone\n"
        "zone_timeout = 1.5\n"
        "zone_owner = Berlin\n"
        "zone_ttl = 300\n"
        "zone_delay = 1h\n"
        "log_format = JSON\n"
        "log_addresses = Network\n"
        "access_log = Off\n"
        "metrics_listen = [::0]:09324\n"
        "metrics_token = hidden\n"
    )
    settings = load(environ)
    assert settings == make(
        db_uri="postgresql+psycopg://automx:100%secret@db.example.com/automx",
        db_timeout=2.5,
        db_echo=True,
        loglevel="INFO",
        proxy_count=2,
        domain_cache_seconds=0.5,
        stale_seconds=0,
        db_read_uri="postgresql+psycopg://automx:100%hidden@read.example.com/automx",
        publish_seconds=60,
        audit_days=30,
        sync_in_server=True,
        page_apps=("thunderbird", "outlook-new", "ios"),
        page_imprint="https://example.com/?page=imprint&lang=de#top",
        page_privacy="http://[2001:db8::1]:8080/privacy",
        page_app_passwords={"3": "https://mail.example.com/a?b=c", "*": "https://example.net/"},
        initdb_token="let-me-in",
        tls_ask_token="0123456789abcdef",
        permit_cleartext_passwords=True,
        ldap_starttls="try",
        ldap_ca_file=str(automx_conf),
        ldap_verify=False,
        ldap_timeout=1.5,
        ldap_cache_seconds=0,
        ldap_cache_size=7,
        ldap_bind_password_file={3: "hidden", 4: "hidden"},
        ldap_client_certificate_file={3: str(automx_conf), 4: str(automx_conf)},
        ldap_client_key_file={4: str(secret)},
        web_endpoint="https://mail.example.com/new_email",
        public_host="automx.example.net",
        account_backend="command",
        account_timeout=2.5,
        account_command=("/bin/sh", "-e", "/srv/my accounts", "--home=/x"),
        mailcow_endpoint="https://[::1]:8443/api/v1",
        mailcow_token="hidden",
        mailcow_ca_file=certifi.where(),
        account_warn_before=timedelta(days=7),
        account_warn_command=("/bin/sh",),
        account_created_command=("/bin/true", "created"),
        account_grace=timedelta(hours=36),
        account_rate_limit="5/minute; 10 per 2 hours",
        rate_limit_storage="rediss://automx:hidden@redis.example.com:6380/1",
        signing_certificate=str(automx_conf),
        signing_key=str(secret),
        signing_key_passphrase="hidden %s",
        signing_chain=str(automx_conf),
        zone_server="ns1.example.net:5353",
        zone_key="automx",
        zone_algorithm="hmac-sha512",
        zone_secret="aGlkZGVu",
        zone_command=("/bin/true", "--zone"),
        zone_timeout=1.5,
        zone_owner="Berlin",
        zone_ttl=300,
        zone_delay=timedelta(hours=1),
        log_format="json",
        log_addresses="network",
        access_log="off",
        metrics_listen="[::]:9324",
        metrics_token="hidden",
    )
    shown = {key: KEYS[key].show(value) for key, value in settings.values().items()}
    assert "hidden" not in str(shown)
    assert shown["page_apps"] == "thunderbird outlook-new ios"
    assert shown["page_app_passwords"] == "3:https://mail.example.com/a?b=c *:https://example.net/"
    assert shown["zone_secret"] == "***"
    assert shown["ldap_bind_password_file"] == "3:*** 4:***"
    assert shown["ldap_client_certificate_file"] == f"3:{automx_conf} 4:{automx_conf}"
    assert shown["account_command"] == "/bin/sh -e '/srv/my accounts' --home=/x"
    assert shown["account_timeout"] == "2.5"
    assert shown["account_grace"] == "36h"
    assert shown["mailcow_token"] == "***"
    assert shown["signing_key_passphrase"] == "***"
    assert shown["rate_limit_storage"] == "rediss://automx:***@redis.example.com:6380/1"
    assert "hidden" not in repr(settings)
    assert "aGlkZGVu" not in repr(settings)
    assert settings.given_by == dict.fromkeys(KEYS, str(automx_conf))


def test_a_byte_order_mark_is_no_part_of_the_file(
    automx_conf: Path, environ: dict[str, str]
) -> None:
    automx_conf.write_text("\ufeff[automx]\nproxy_count = 1\n", "utf-8")
    assert load(environ).proxy_count == 1


def test_the_environment_overrides_each_key_of_the_file(
    automx_conf: Path, environ: dict[str, str]
) -> None:
    automx_conf.write_text(
        "[automx]\ndb_uri = sqlite:////file.sqlite\nloglevel = DEBUG\nproxy_count = 1\n"
    )
    environ |= {
        "AUTOMX_DB_URI": "sqlite:////environment.sqlite",
        "AUTOMX_DB_ECHO": "yes",
        "AUTOMX_PROXY_COUNT": "2",
        "AUTOMX_DOMAIN_CACHE_SECONDS": "0",
        "AUTOMX_INITDB_TOKEN": "secret",
        "AUTOMX_PERMIT_CLEARTEXT_PASSWORDS": "true",
    }
    settings = load(environ)
    assert settings == make(
        db_uri="sqlite:////environment.sqlite",
        db_echo=True,
        loglevel="DEBUG",
        proxy_count=2,
        domain_cache_seconds=0,
        initdb_token="secret",
        permit_cleartext_passwords=True,
    )
    assert settings.given_by["loglevel"] == str(automx_conf)
    assert settings.given_by["proxy_count"] == "environment variable AUTOMX_PROXY_COUNT"


def test_a_secret_can_stand_in_a_file_of_its_own(
    automx_conf: Path, environ: dict[str, str], tmp_path: Path
) -> None:
    uri, token = tmp_path / "uri", tmp_path / "token"
    uri.write_text("mysql://automx:secret@db.example.com/automx\n")
    token.write_text("let-me-in\n")
    automx_conf.write_text(f"[automx]\ndb_uri_file = {uri}\n")
    environ["AUTOMX_INITDB_TOKEN_FILE"] = str(token)
    settings = load(environ)
    assert settings.db_uri == "mysql+pymysql://automx:secret@db.example.com/automx"
    assert settings.given_by["db_uri"] == f"{automx_conf}, db_uri_file {uri}"
    assert settings.initdb_token == "let-me-in"
    assert settings.given_by["initdb_token"] == (
        f"environment variable AUTOMX_INITDB_TOKEN_FILE, initdb_token_file {token}"
    )
    environ["AUTOMX_DB_URI"] = "sqlite:////other.sqlite"
    assert load(environ).db_uri == "sqlite:////other.sqlite"


def test_each_secret_can_stand_in_a_file(environ: dict[str, str], tmp_path: Path) -> None:
    values = {
        "db_uri": "postgresql+psycopg://automx@db.example.com/automx",
        "db_read_uri": "postgresql+psycopg://automx@read.example.com/automx",
        "initdb_token": "let-me-in",
        "tls_ask_token": "0123456789abcdef",
        "mailcow_token": "0815-4711",
        "rate_limit_storage": "redis://:secret@localhost:6379",
        "signing_key_passphrase": "open sesame",
        "zone_secret": "b3BlbiBzZXNhbWU=",
        "metrics_token": "open",
    }
    assert list(values) == [key for key in KEYS if KEYS[key].secret]
    for key, value in values.items():
        (tmp_path / key).write_text(f"{value}\n")
        environ[f"AUTOMX_{key.upper()}_FILE"] = str(tmp_path / key)
    settings = load(environ)
    assert {key: settings.values()[key] for key in values} == values


def test_limits_can_be_written_in_each_way_of_the_library(environ: dict[str, str]) -> None:
    from limits import parse_many

    for text in (
        "30 per minute; 300 per day",
        "10/second",
        "1 per 2 hours, 5/DAY | 7 per 3 months",
        "0/year",
    ):
        assert load(environ | {"AUTOMX_ACCOUNT_RATE_LIMIT": text}).limits.rate == text
        assert len(parse_many(text)) == len(re.split("[;,|]", text))
    assert load(environ | {"AUTOMX_ACCOUNT_RATE_LIMIT": " "}).limits.rate == ""


def test_a_secret_cannot_be_given_twice_in_one_place(
    automx_conf: Path, environ: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("one")
    given_twice = {
        "AUTOMX_INITDB_TOKEN": "two",
        "AUTOMX_INITDB_TOKEN_FILE": str(tmp_path / "token"),
    }
    assert error(environ | given_twice) == (
        "environment variable AUTOMX_INITDB_TOKEN_FILE: "
        "initdb_token and initdb_token_file exclude each other"
    )
    automx_conf.write_text(
        f"[automx]\ninitdb_token = two\ninitdb_token_file = {tmp_path / 'token'}\n"
    )
    assert error(environ) == (
        f"{automx_conf}: initdb_token and initdb_token_file exclude each other"
    )


def test_a_secret_file_that_cannot_be_read_is_named(
    automx_conf: Path, environ: dict[str, str], tmp_path: Path
) -> None:
    automx_conf.write_text("[automx]\ninitdb_token_file = /nowhere/token\n")
    assert error(environ) == (
        f"{automx_conf}: initdb_token_file: /nowhere/token cannot be read: "
        "No such file or directory"
    )
    (tmp_path / "token").write_bytes(b"\xff\xfe")
    automx_conf.write_text(f"[automx]\ninitdb_token_file = {tmp_path}/token\n")
    assert error(environ) == (
        f"{automx_conf}: initdb_token_file: {tmp_path}/token cannot be read: not UTF-8"
    )


def test_an_unknown_key_is_an_error_that_names_the_nearest_one(
    automx_conf: Path, environ: dict[str, str]
) -> None:
    automx_conf.write_text("[automx]\nproxy_counts = 1\n")
    assert error(environ) == (
        f"{automx_conf}: the key proxy_counts is not known; did you mean proxy_count?"
    )
    automx_conf.write_text("[automx]\nloglevel_file = /etc/level\n")
    assert "loglevel_file is not known" in error(environ)
    automx_conf.write_text("[automx]\nxyz = 1\n")
    assert error(environ) == (
        f"{automx_conf}: the key xyz is not known; allowed are db_uri, db_read_uri, db_timeout, "
        "db_echo, "
        "loglevel, proxy_count, domain_cache_seconds, stale_seconds, publish_seconds, audit_days, "
        "initdb_token, tls_ask_token, "
        "permit_cleartext_passwords, "
        "ldap_starttls, ldap_ca_file, ldap_verify, ldap_timeout, ldap_cache_seconds, "
        "ldap_cache_size, ldap_bind_password_file, ldap_client_certificate_file, "
        "ldap_client_key_file, web_endpoint, public_host, sync_in_server, "
        "page_apps, page_imprint, page_privacy, page_app_passwords, account_backend, "
        "account_timeout, account_command, mailcow_endpoint, mailcow_token, mailcow_ca_file, "
        "account_warn_before, account_warn_command, account_created_command, account_grace, "
        "account_rate_limit, "
        "rate_limit_storage, signing_certificate, signing_key, signing_key_passphrase, "
        "signing_chain, zone_server, zone_key, zone_algorithm, zone_secret, zone_command, "
        "zone_timeout, zone_owner, zone_ttl, zone_delay, "
        "log_format, log_addresses, access_log, metrics_listen, metrics_token, "
        "db_uri_file, db_read_uri_file, initdb_token_file, tls_ask_token_file, mailcow_token_file, "
        "rate_limit_storage_file, signing_key_passphrase_file, zone_secret_file, "
        "metrics_token_file"
    )
    automx_conf.write_text("")
    assert error(environ | {"AUTOMX_PROXYCOUNT": "1"}) == (
        "environment variable AUTOMX_PROXYCOUNT: the key proxycount is not known; "
        "did you mean proxy_count?"
    )


def test_a_key_for_a_directory_needs_a_certificate(
    environ: dict[str, str], automx_conf: Path
) -> None:
    automx_conf.write_text(f"[automx]\nldap_client_key_file = 3:{automx_conf}\n")
    assert error(environ) == "ldap_client_certificate_file is missing for the key of 3"


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("db_uri", "", "a URI such as sqlite:////path, postgresql://… or mysql://…"),
        ("db_uri", "/srv/db", "a URI such as sqlite:////path, postgresql://… or mysql://…"),
        ("db_uri", "oracle://u:secret@h/d", "a URI such as sqlite:////path, postgresql://… or"),
        ("db_echo", "maybe", "yes or no"),
        ("db_echo", "", "yes or no"),
        ("loglevel", "loud", f"one of {', '.join(LOG_LEVELS)}"),
        ("proxy_count", "-1", "a whole number from 0 to 99"),
        ("proxy_count", "1.5", "a whole number from 0 to 99"),
        ("proxy_count", "\u0661", "a whole number from 0 to 99"),
        ("proxy_count", "100", "a whole number from 0 to 99"),
        ("domain_cache_seconds", "-1", "a number of seconds, 0 or more"),
        ("db_timeout", "0", "a number of seconds above 0, at most 60"),
        ("db_timeout", "60.5", "a number of seconds above 0, at most 60"),
        ("audit_days", "1y", "a whole number of days, 0 or more"),
        ("stale_seconds", "1h", "a number of seconds, 0 or more"),
        ("domain_cache_seconds", "10 s", "a number of seconds, 0 or more"),
        ("domain_cache_seconds", "nan", "a number of seconds, 0 or more"),
        ("domain_cache_seconds", "inf", "a number of seconds, 0 or more"),
        ("initdb_token", "two words", "printable ASCII characters without blanks"),
        ("initdb_token", "schlüssel", "printable ASCII characters without blanks"),
        ("ldap_starttls", "maybe", "yes, no or try"),
        ("ldap_ca_file", "/nowhere/ca.pem", "the path of a file that can be read"),
        ("ldap_timeout", "0", "a number of seconds above 0"),
        ("ldap_timeout", "3 s", "a number of seconds above 0"),
        ("ldap_cache_size", "-1", "a whole number, 0 or more"),
        (
            "ldap_bind_password_file",
            "hunter2",
            "pairs of id and file, such as 3:/etc/automx/ldap.3",
        ),
        (
            "ldap_bind_password_file",
            "3:/nowhere/secret",
            "pairs of id and file; the file of 3 cannot be read: No such file or directory",
        ),
        (
            "ldap_client_certificate_file",
            "3:/nowhere/client.pem",
            "pairs of id and file; the file of 3 cannot be read: No such file or directory",
        ),
        ("permit_cleartext_passwords", "I_understand_the_risks", "yes or no"),
        *(
            (key, value, f"a URL such as https://{example}, without query")
            for key, example in (
                ("web_endpoint", "example.org/new_email"),
                ("mailcow_endpoint", "mailcow.example.org/api/v1"),
            )
            for value in (
                "example.org/new_email",
                "ftp://example.org/",
                "https:///new_email",
                "https://:443/",
                "https://[::1/",
                "https://example.org:65536/",
                "https://example.org:0/",
                "https://user:secret@example.org/",
                "https://example.org/?t=secret",
                "https://example.org/?",
                "https://example.org/#",
                "https://example.org/a b",
                "https://example.org/<path>",
                "https://bücher.example/",
            )
        ),
        *(
            ("public_host", value, "a host name such as mail.example.org, in ASCII, without port")
            for value in (
                "https://example.org",
                "example.org:443",
                "example.org/x",
                "192.0.2.1",
                "::1",
                "-.example.org",
                "bücher.example",
            )
        ),
        ("account_backend", "dovecot", "one of none, mailcow, command"),
        ("account_backend", "", "one of none, mailcow, command"),
        *(
            ("account_timeout", value, "a number of seconds above 0, at most 60")
            for value in ("0", "0.0", "60.001", "61", "100000", "-1", "1 s", "nan", "")
        ),
        *(
            (key, value, allowed)
            for key in ("account_command", "account_warn_command")
            for value, allowed in (
                ("sh", "the full path of a program that can be run, and its arguments"),
                ("/bin", "the full path of a program that can be run, and its arguments"),
                ("/nowhere/x", "the full path of a program that can be run, and its arguments"),
                ("/dev/null x", "the full path of a program that can be run, and its arguments"),
                ("/bin/sh 'secret", "a program and its arguments, with closed quotes"),
            )
        ),
        ("mailcow_token", "my secret", "printable ASCII characters without blanks"),
        ("mailcow_ca_file", "/nowhere/ca.pem", "the path of a file that can be read"),
        *(
            (key, value, allowed)
            for key in ("account_warn_before", "account_grace")
            for value, allowed in (
                ("", "a number and one of s, m, h, d, w, y, such as 12h or 2w"),
                ("7", "a number and one of s, m, h, d, w, y, such as 12h or 2w"),
                ("-1d", "a number and one of s, m, h, d, w, y, such as 12h or 2w"),
                ("never", "a number and one of s, m, h, d, w, y, such as 12h or 2w"),
                ("101y", "at most 100y"),
            )
        ),
        *(
            ("metrics_listen", value, "an IP address and a port, such as 127.0.0.1:9324")
            for value in ("9324", "localhost:9324", "127.0.0.1:0", "127.0.0.1:65536", "::1:x")
        ),
        ("log_format", "xml", "one of text, json"),
        ("log_addresses", "some", "one of full, network, none"),
        ("access_log", "access.log", "-, off, or the full path of a file"),
        ("account_rate_limit", "often", "limits such as 30 per minute; 300 per day"),
        ("account_rate_limit", "30", "limits such as 30 per minute; 300 per day"),
        ("account_rate_limit", "30 per minute;", "limits such as 30 per minute; 300 per day"),
        ("rate_limit_storage", "", "memory:// or a URI such as redis://localhost:6379"),
        ("rate_limit_storage", "redis://", "memory:// or a URI such as redis://localhost:6379"),
        (
            "rate_limit_storage",
            "memcached://secret@h",
            "memory:// or a URI such as redis://localhost:6379",
        ),
        *(
            (key, "/nowhere/file.pem", "the path of a file that can be read")
            for key in ("signing_certificate", "signing_key", "signing_chain")
        ),
        *(
            ("zone_server", value, "a host name or an IP address, perhaps with a port, such as")
            for value in ("https://ns1", "ns1:0", "ns1:65536", "[::1", "::1]:53", "ns 1", "bücher")
        ),
        ("zone_key", "a key", "the name of a key, such as automx"),
        (
            "page_apps",
            "ios, pegasus",
            "words of ios mac thunderbird outlook-new outlook outlook-mac",
        ),
        *(
            (key, value, "a URL such as https://example.org/imprint")
            for key in ("page_imprint", "page_privacy")
            for value in (
                "/imprint",
                "javascript:alert(1)",
                "https://",
                "https://a b",
                'http://a/"',
            )
        ),
        *(
            ("page_app_passwords", value, "pairs of id and URL, such as 1:https://example.org/app")
            for value in ("https://example.org/", "x:https://example.org/", "1:", "0:https://a.b/")
        ),
        ("page_app_passwords", "1:mail.example.org", "a URL such as https://example.org/imprint"),
        ("zone_algorithm", "hmac-md5", "one of hmac-sha224, hmac-sha256, hmac-sha384, hmac-sha512"),
        ("zone_secret", "secret!", "a text in base64, as tsig-keygen prints it"),
        ("zone_command", "nsupdate", "the full path of a program that can be run, and its"),
        ("zone_timeout", "0", "a number of seconds above 0, at most 60"),
        ("zone_owner", "", "1 to 64 letters, digits, dots, hyphens"),
        ("zone_owner", "a;b", "1 to 64 letters, digits, dots, hyphens"),
        ("zone_ttl", "0", "a whole number of seconds from 1 to 999999"),
        ("zone_delay", "10", "a number and one of s, m, h, d, w, y, such as 12h or 2w"),
    ],
)
def test_a_bad_value_is_an_error_that_tells_what_is_allowed_and_not_the_value(
    automx_conf: Path, environ: dict[str, str], key: str, value: str, allowed: str
) -> None:
    automx_conf.write_text(f"[automx]\n{key} = {value}\n", "utf-8")
    text = error(environ)
    assert text.startswith(f"{automx_conf}: {key} must be {allowed}")
    assert "secret" not in text.replace("zone_secret", "")
    automx_conf.write_text("")
    variable = f"AUTOMX_{key.upper()}"
    text = error(environ | {variable: value})
    assert text.startswith(f"environment variable {variable}: {key} must be {allowed}")
    assert "secret" not in text.replace("zone_secret", "")


@pytest.mark.parametrize("name", ["automx2", "sorce.mail", "mail", "Zone.example.com", "zones.x"])
@pytest.mark.parametrize("before", ["", "[automx]\nproxy_count = 1\n"])
def test_another_section_in_our_own_file_is_an_error(
    automx_conf: Path, environ: dict[str, str], before: str, name: str
) -> None:
    automx_conf.write_text(f"{before}[{name}]\nserver = 192.0.2.1\n")
    assert error(environ) == (
        f"{automx_conf}: the section [{name}] is not known; sections are [automx], [source.NAME]"
        " and [zone.NAME]"
    )


def test_choices_are_told_without_the_empty_one(automx_conf: Path, environ: dict[str, str]) -> None:
    automx_conf.write_text("[source.mail]\npreset = postfix\n")
    assert error(environ) == (
        f"{automx_conf}, [source.mail]: preset must be one of postfixadmin, modoboa, iredmail-ldap"
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"proxy_count = 1\n", "line 1: a section such as [automx] must come first"),
        (
            b"[automx]\n\nproxy_count\n",
            "line 3: is neither a section nor key = value; further lines of a value are indented",
        ),
        (b"[automx]\nproxy_count = 1\nproxy_count = 2\n", "line 3: proxy_count stands there twice"),
        (
            b"[automx]\nloglevel = INFO\n[automx]\n",
            "line 3: [automx] stands there twice: write its keys into one section",
        ),
        (b"[automx]\nloglevel = \xff\n", "is not UTF-8"),
    ],
)
def test_a_broken_file_is_told_by_line_without_repeating_it(
    automx_conf: Path, environ: dict[str, str], content: bytes, reason: str
) -> None:
    automx_conf.write_bytes(content)
    assert error(environ) == f"{automx_conf}: {reason}"


def test_a_broken_line_with_a_secret_is_not_repeated(
    automx_conf: Path, environ: dict[str, str]
) -> None:
    automx_conf.write_text("[automx]\ndb_uri postgresql://automx:secret@localhost/automx\n")
    assert "secret" not in error(environ).replace("zone_secret", "")


def test_a_folder_in_place_of_the_file_is_an_error(environ: dict[str, str], tmp_path: Path) -> None:
    environ["AUTOMX_CONF"] = str(tmp_path)
    assert error(environ) == f"{tmp_path}: cannot be read: Is a directory"


def test_automx2s_file_is_read_as_automx2_reads_it(
    automx2_conf: Path, environ: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    automx2_conf.write_text(
        "[DEFAULT]\n"
        "folder = /var/lib/automx2\n"
        "[other]\n"
        "x = 1\n"
        "[automx2]\n"
        "# a comment\n"
        "loglevel = WARNING\n"
        "db_echo = no\n"
        "db_uri = sqlite:///%(folder)s/100%%.sqlite\n"
        "proxy_count = 1\n"
        "pool_size = 7\n"
    )
    settings = load(environ)
    assert settings == make(db_uri="sqlite:////var/lib/automx2/100%.sqlite", proxy_count=1)
    assert settings.given_by["db_uri"] == str(automx2_conf)
    assert settings.given_by["domain_cache_seconds"] == "default"
    assert [record.getMessage() for record in caplog.records] == [
        f"{automx2_conf}: the key {key} is not known and has no effect"
        for key in ("folder", "pool_size")
    ]


@pytest.mark.parametrize("section", ["automx", "automx2"])
def test_a_comment_may_stand_behind_a_value_that_has_no_room_for_it(
    automx_conf: Path, automx2_conf: Path, environ: dict[str, str], section: str
) -> None:
    path = automx_conf if section == "automx" else automx2_conf
    if section == "automx2":
        del environ["AUTOMX_CONF"]
    path.write_text(
        f"[{section}]\nloglevel = DEBUG # or WARNING\nproxy_count = 1\t#nginx\n"
        "db_uri = sqlite:////var/lib/a.sqlite # a file\ndb_echo = no  # or yes\n"
        "signing_key_passphrase = a # b\ninitdb_token = a#b\n"
    )
    settings = load(environ)
    assert (settings.loglevel, settings.proxy_count, settings.db_echo) == ("DEBUG", 1, False)
    assert settings.db_uri == "sqlite:////var/lib/a.sqlite"
    assert (settings.signing.passphrase, settings.initdb_token) == ("a # b", "a#b")


@pytest.mark.parametrize(
    ("value", "level"), [("FATAL", "CRITICAL"), ("warn", "WARNING"), ("info", "INFO")]
)
def test_log_levels_have_the_words_of_python(
    automx2_conf: Path, environ: dict[str, str], value: str, level: str
) -> None:
    automx2_conf.write_text(f"[automx2]\nloglevel = {value}\n")
    assert load(environ).loglevel == level


@pytest.mark.parametrize("program", ["automx", "automx2"])
def test_a_file_with_defaults_only_is_read_as_automx2s_oldest_sample_wants_it(
    environ: dict[str, str], tmp_path: Path, program: str
) -> None:
    sample = "[DEFAULT]\nloglevel = DEBUG\ndb_echo = yes\ndb_uri = sqlite:///:memory:\n"
    (tmp_path / "home" / f".{program}.conf").write_text(sample)
    settings = load(environ)
    assert (settings.loglevel, settings.db_echo) == ("DEBUG", True)
    assert settings.db_uri == "sqlite:///:memory:"


@pytest.mark.parametrize(
    "text",
    [
        "[automx]\nprovider = example.com\ndomains = *\nlogfile = /var/log/automx.log\n",
        "[automx]\n  domains=example.com\n[global]\nbackend = static\nbackend = static\n",
        "# automx\n[DEFAULT]\naccount_type = email\n[automx]\nprovider : example.com\n",
    ],
)
def test_a_file_of_automx_1_is_recognised(
    environ: dict[str, str], tmp_path: Path, text: str
) -> None:
    path = tmp_path / "etc" / "automx.conf"
    path.write_text(text)
    assert error(environ) == (
        f"{path}: this is a file of automx 1.x, which has other settings, and domains in them: "
        "give this automx a file of its own (AUTOMX_CONF), or move that one away"
    )


@pytest.mark.parametrize(
    ("scheme", "instead"),
    [
        ("postgresql+asyncpg", "postgresql"),
        ("mysql+aiomysql", "mysql"),
        ("mariadb+asyncmy", "mariadb"),
        ("sqlite+aiosqlite", "sqlite"),
    ],
)
def test_an_asynchronous_driver_is_refused_with_what_to_write(
    automx_conf: Path, environ: dict[str, str], scheme: str, instead: str
) -> None:
    automx_conf.write_text(f"[automx]\ndb_uri = {scheme}://automx@localhost/automx\n")
    assert error(environ) == (
        f"{automx_conf}: db_uri must be a URI of a driver that is not asynchronous: write "
        f"{instead}:// in place of {scheme}://"
    )


def test_mailadms_variables_are_answered_with_ours(
    environ: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    environ |= {
        "WEB_ENDPOINT": "https://mail.example.com/new_email",
        "MAIL_DOMAIN": "example.com",
        "MAILCOW_TOKEN": "secret",
        "AUTOMX_MAILCOW_TOKEN": "key",
        "AUTOMX_DB_URI": "sqlite:////x",
        "MAILADM_DB": "/mailadm.db",
    }
    assert load(environ).web_endpoint == ""
    assert caplog.messages == [
        (
            "environment variable WEB_ENDPOINT is mailadm's and has no effect here: use the setting"
            " web_endpoint, or AUTOMX_WEB_ENDPOINT in the environment"
        ),
        (
            "environment variable MAIL_DOMAIN is mailadm's and has no effect here: the table domain"
            " holds the domains, and each token names one (automx token add NAME --domain DOMAIN)"
        ),
    ]
    caplog.clear()
    environ["AUTOMX_WEB_ENDPOINT"] = "https://mail.example.com/new_email"
    load(environ)
    assert caplog.messages == []  # MAIL_DOMAIN alone may be another program's


def test_automx2s_file_may_lack_its_section(automx2_conf: Path, environ: dict[str, str]) -> None:
    automx2_conf.write_text("[something]\nproxy_count = 1\n")
    assert load(environ).proxy_count == 0


def test_automx2s_interpolation_that_fails_is_told_in_one_line(
    automx2_conf: Path, environ: dict[str, str]
) -> None:
    automx2_conf.write_text("[automx2]\ndb_uri = mysql://u:secret%40@%(host)s/d\n")
    text = error(environ)
    assert text == f"{automx2_conf}: db_uri: the % must be written %%, or name a key: %(key)s"


def test_automx2s_bad_values_are_errors_like_our_own(
    automx2_conf: Path, environ: dict[str, str]
) -> None:
    automx2_conf.write_text("[automx2]\nproxy_count = many\n")
    expected = f"{automx2_conf}: proxy_count must be a whole number from 0 to 99"
    assert error(environ) == expected


def test_automx2s_variable_permits_passwords_in_profiles_and_in_urls(
    automx_conf: Path, environ: dict[str, str]
) -> None:
    automx_conf.write_text("[automx]\npermit_cleartext_passwords = no\n")
    environ["PERMIT_CLEARTEXT_PASSWORDS"] = "yes"
    settings = load(environ)
    assert not settings.permit_cleartext_passwords
    assert not settings.permit_passwords_in_urls
    environ["PERMIT_CLEARTEXT_PASSWORDS"] = "I_understand_the_risks"
    settings = load(environ)
    assert settings.permit_cleartext_passwords
    assert settings.permit_passwords_in_urls
    assert settings.given_by["permit_cleartext_passwords"] == (
        "environment variable PERMIT_CLEARTEXT_PASSWORDS"
    )


def test_our_own_key_permits_passwords_in_forms_only(
    automx_conf: Path, environ: dict[str, str]
) -> None:
    automx_conf.write_text("[automx]\npermit_cleartext_passwords = yes\n")
    settings = load(environ)
    assert settings.permit_cleartext_passwords
    assert not settings.permit_passwords_in_urls


def test_the_variables_of_a_kubernetes_service_named_automx_are_passed_over(
    environ: dict[str, str],
) -> None:
    plain = load(environ)
    links = {
        "AUTOMX_PORT": "tcp://10.0.0.1:80",
        "AUTOMX_PORT_80_TCP": "tcp://10.0.0.1:80",
        "AUTOMX_PORT_80_TCP_ADDR": "10.0.0.1",
        "AUTOMX_PORT_80_TCP_PORT": "80",
        "AUTOMX_PORT_80_TCP_PROTO": "tcp",
        "AUTOMX_SERVICE_HOST": "10.0.0.1",
        "AUTOMX_SERVICE_PORT": "80",
        "AUTOMX_SERVICE_PORT_HTTP": "80",
    }
    assert load(environ | links) == plain


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"STATE_DIRECTORY": "/var/lib/automx", "XDG_DATA_HOME": "/x"}, "/var/lib/automx"),
        ({"STATE_DIRECTORY": "/var/lib/automx:/var/lib/other"}, "/var/lib/automx"),
        ({"XDG_DATA_HOME": "/home/alice/data", "HOME": "/x"}, "/home/alice/data/automx"),
        ({"HOME": "/home/alice"}, "/home/alice/.local/share/automx"),
        ({"HOME": "/home/alice", "XDG_DATA_HOME": ""}, "/home/alice/.local/share/automx"),
    ],
)
def test_the_default_database_is_a_file_in_the_data_directory(
    variables: dict[str, str], folder: str
) -> None:
    settings = load({"AUTOMX_CONF": "/dev/null", **variables})
    assert settings.db_uri == f"sqlite:///{folder}/automx.sqlite"


@pytest.mark.parametrize(
    ("given", "effective"),
    [
        ("sqlite:////srv/automx.sqlite", "sqlite:////srv/automx.sqlite"),
        ("postgres://u@h/d", "postgresql+psycopg://u@h/d"),
        ("postgresql://u@h/d?sslmode=require", "postgresql+psycopg://u@h/d?sslmode=require"),
        ("postgresql+psycopg2://u@h/d", "postgresql+psycopg2://u@h/d"),
        ("mysql://u@h/d", "mysql+pymysql://u@h/d"),
        ("mariadb://u@h/d", "mariadb+pymysql://u@h/d"),
        ("mysql+mysqldb://u@h/d", "mysql+mysqldb://u@h/d"),
    ],
)
def test_a_uri_gets_the_driver_that_automx_ships(
    environ: dict[str, str], given: str, effective: str
) -> None:
    assert load(environ | {"AUTOMX_DB_URI": given}).db_uri == effective


def test_a_relative_sqlite_file_is_one_of_the_current_folder(
    environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    uri = load(environ | {"AUTOMX_DB_URI": "sqlite:///var/automx.sqlite"}).db_uri
    assert uri == f"sqlite:///{tmp_path}/var/automx.sqlite"


SECRET_URIS = [
    ("postgresql://u:secret@h/d", "postgresql://u:***@h/d"),
    ("postgresql://u:secr@et:/@h/d", "postgresql://u:***@h/d"),
    ("mysql://u@example.com:secret@h/d", "mysql://u@example.com:***@h/d"),
    ("postgresql://:secret@h/d", "postgresql://:***@h/d"),
    ("postgresql://h/d?user=u&password=secret&x=1", "postgresql://h/d?user=u&password=***&x=1"),
    ("mysql://h/d?passwd=secret", "mysql://h/d?passwd=***"),
    ("mysql://h/d?ssl_key_password=secret", "mysql://h/d?ssl_key_password=***"),
    ("mysql+pyodbc://?odbc_connect=PWD%3Dsecret", "mysql+pyodbc://?odbc_connect=***"),
    ("postgresql://h/d?PASSWORD=secret&x=1", "postgresql://h/d?PASSWORD=***&x=1"),
    ("postgresql://h/d?x=1;PassWord=secret;y=2", "postgresql://h/d?x=1;PassWord=***;y=2"),
    ("postgresql://h/d?sslpassword=secret", "postgresql://h/d?sslpassword=***"),
    ("postgresql://h/d?SSLPassword=a=secret", "postgresql://h/d?SSLPassword=***"),
    ("postgresql://h/d?%70assword=secret", "postgresql://h/d?%70assword=***"),
    ("postgresql://h/d?pass%2577ord=secret", "postgresql://h/d?pass%2577ord=***"),
    ("postgresql://h/d?oauth_client_secret=secret", "postgresql://h/d?oauth_client_secret=***"),
    ("rediss://:secret@h:6380/1?db=0", "rediss://:***@h:6380/1?db=0"),
    ("redis://h?Password=secret", "redis://h?Password=***"),
    ("redis+unix://u:secret@/run/redis.sock", "redis+unix://u:***@/run/redis.sock"),
]


@pytest.mark.parametrize("key", ["db_uri", "rate_limit_storage"])
@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        *SECRET_URIS,
        ("postgresql://u@h/d", "postgresql://u@h/d"),
        ("postgresql://h:5432/d?user=u&x", "postgresql://h:5432/d?user=u&x"),
        ("sqlite:////srv/a@b.sqlite", "sqlite:////srv/a@b.sqlite"),
    ],
)
def test_a_password_is_masked_for_readers(key: str, uri: str, shown: str) -> None:
    assert KEYS[key].show(uri) == shown


@pytest.mark.parametrize("name", KEYS)
def test_no_setting_shows_the_password_of_a_uri(name: str) -> None:
    key = KEYS[name]
    for uri in ("https://u:secret@h/d?password=secret", *(uri for uri, _ in SECRET_URIS)):
        with contextlib.suppress(ValueError):
            assert "secret" not in key.show(key.parse(uri)).replace("_secret", "")


@pytest.mark.parametrize("uri", [uri for uri, _ in SECRET_URIS])
def test_no_error_repeats_the_password_of_a_database(uri: str) -> None:
    with pytest.raises((DatabaseError, SettingsError)) as caught:
        migrations.upgrade(uri.replace("/h", "/127.0.0.1:1").replace("@h", "@127.0.0.1:1"))
    assert "secret" not in caught.value.reason


@pytest.mark.parametrize("scheme", ["postgresql", "mysql"])
def test_a_password_with_an_at_sign_is_refused_with_how_to_write_it(
    automx_conf: Path, environ: dict[str, str], scheme: str
) -> None:
    automx_conf.write_text(f"[automx]\ndb_uri = {scheme}://automx:se@cret@localhost/automx\n")
    assert error(environ) == (
        f"{automx_conf}: db_uri must be a URI in whose user name and password %40 stands for @"
    )
    rest = "://automx:se%40cret@localhost/automx?options=@"
    automx_conf.write_text(f"[automx]\ndb_uri = {scheme}{rest}\n")
    assert load(environ).db_uri.endswith(rest)


def test_secrets_do_not_show_in_a_settings_object() -> None:
    settings = make(
        db_uri="postgresql://u:hidden@h/d",
        initdb_token="hidden",
        mailcow_token="hidden",
        rate_limit_storage="redis://:hidden@h",
        signing_key_passphrase="hidden",
    )
    assert "hidden" not in repr(settings)


def test_the_public_host_is_that_of_web_endpoint_unless_it_is_set(environ: dict[str, str]) -> None:
    environ["AUTOMX_WEB_ENDPOINT"] = "https://Mail.example.com:8443/new_email"
    settings = load(environ)
    assert settings.public_host == "mail.example.com"
    assert settings.given_by["public_host"] == "the host of web_endpoint"
    settings = load(environ | {"AUTOMX_PUBLIC_HOST": "automx.example.com"})
    assert settings.public_host == "automx.example.com"
    assert settings.given_by["public_host"] == "environment variable AUTOMX_PUBLIC_HOST"
    assert settings.web_endpoint == "https://Mail.example.com:8443/new_email"


def test_contribs_file_and_the_table_of_the_documentation_are_those_of_make_reference() -> None:
    advice = "run make reference"
    assert reference.REFERENCE.read_text("utf-8") == reference.configuration_file(), advice
    page = reference.PAGE.read_text("utf-8")
    assert page == reference.page(page), advice


def test_contribs_file_lists_every_key_with_its_default(environ: dict[str, str]) -> None:
    text, _, of_source = (
        (REPOSITORY / "contrib" / "automx.conf").read_text().partition("#[source.NAME]")
    )
    listed = dict(re.findall(r"^#(\w+) = ?(.*)$", text, re.MULTILINE))
    defaults = {key: KEYS[key].show(value) for key, value in load(environ).values().items()}
    # The default of db_uri depends on the environment.
    assert listed | {"db_uri": ""} == defaults | {"db_uri": ""}
    assert list(listed) == list(KEYS)
    listed = dict(re.findall(r"^#(\w+) = ?(.*)$", of_source, re.MULTILINE))
    assert listed == {key: SOURCE_KEYS[key].default for key in SOURCE_KEYS}


def test_contribs_file_changes_nothing_as_it_is(environ: dict[str, str]) -> None:
    path = str(REPOSITORY / "contrib" / "automx.conf")
    assert load(environ | {"AUTOMX_CONF": path}) == load(environ)


SECRET = "c2VjcmV0"  # it decodes to "secret"
ZONES = f"""
[automx]
zone_server = 192.0.2.1
zone_key = automx
zone_secret = {SECRET}
[zone.example.com]
server = [2001:db8::1]:5353
ttl = 60
[zone.Sub.example.com]
secret_file = SECRET_FILE
[zone.elsewhere.example]
server =
"""


def test_a_zone_has_its_own_settings_and_else_those_of_all_zones(
    automx_conf: Path, environ: dict[str, str]
) -> None:
    file = automx_conf.with_name("tsig")
    file.write_text("b3RoZXI=\n")
    automx_conf.write_text(ZONES.replace("SECRET_FILE", str(file)))
    settings = load(environ)
    found = {
        name: zone and (zone.server, zone.key, zone.secret, zone.ttl)
        for name in ("example.net", "example.com", "a.b.example.com", "x.sub.example.com")
        for zone in [settings.zone_of(name)]
    }
    assert found == {
        "example.net": ("192.0.2.1", "automx", SECRET, 3600),
        "example.com": ("[2001:db8::1]:5353", "automx", SECRET, 60),
        "a.b.example.com": ("[2001:db8::1]:5353", "automx", SECRET, 60),
        "x.sub.example.com": ("192.0.2.1", "automx", "b3RoZXI=", 3600),
    }
    assert settings.zone_of("elsewhere.example") is None
    printed = automx("config", env=environ).splitlines()
    at = printed.index("[zone.sub.example.com]")
    assert printed[at + 1 : at + 5] == [
        "server = 192.0.2.1",
        "key = automx",
        "algorithm = hmac-sha256",
        "secret = ***",
    ]
    assert SECRET not in repr(settings)


@pytest.mark.parametrize(
    ("section", "complaint"),
    [
        ("[zone.example.com]\nttl = never", "ttl must be a whole number of seconds from 1 to"),
        ("[zone.example.com]\nservers = 192.0.2.1", "the key servers is not known; did you mean"),
        ("[zone.example.com]\nzone_ttl = 1", "the key zone_ttl is not known; allowed are server,"),
        ("[zone.]\nttl = 1", "the section must be [zone.NAME]"),
        ("[zone]\nttl = 1", "the section must be [zone.NAME]"),
        ("[zone.müller.example]\nttl = 1", "the name of a zone must be an A-label, such as"),
    ],
)
def test_a_wrong_section_of_a_zone_is_an_error_that_names_it(
    automx_conf: Path, environ: dict[str, str], section: str, complaint: str
) -> None:
    automx_conf.write_text(f"[automx]\n{section}\n", "utf-8")
    name = section.partition("\n")[0]
    text = error(environ)
    assert name in text
    assert f"{name}: {complaint}" in text
