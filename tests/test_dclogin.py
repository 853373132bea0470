"""Texts for Delta Chat, and the commands that make QR codes of them and of profiles."""

import json
import os
import pty
import stat
import string
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest
from click.testing import CliRunner, Result
from flask.testing import FlaskClient

from automx.address import EmailAddress
from automx.cli import main
from automx.clientconfig import (
    Authentication,
    ClientConfig,
    MailServer,
    ServerType,
    SocketType,
)
from automx.errors import BadRecordError, SettingsError
from automx.formats.dclogin import account_text, login_text
from tests.barcodes import decoded, drawn
from tests.conftest import Execute
from tests.directory import Directory, insert_ldapserver
from tests.processes import AUTOMX
from tests.terminals import printed_to

ALICE = EmailAddress("alice", "example.com")
PASSWORD = "correct horse 100%+"
ALICE_TEXT = (
    "dclogin://alice@example.com/?p=correct%20horse%20100%25%2B&v=1"
    "&ih=imap.example.com&ip=993&iu=alice%40example.com&is=ssl"
    "&sh=smtp.example.com&sp=587&su=alice%40example.com&ss=starttls"
)
ALICE_PROFILE = "https://autoconfig.example.com/mobileconfig/?emailaddress=alice@example.com"

# Texts


@pytest.mark.parametrize(
    ("web_endpoint", "token", "name", "expected"),
    [
        (
            "https://mail.example.org/new_email",
            "1w_7rTq",
            "oneweek",
            "DCACCOUNT:https://mail.example.org/new_email?t=1w_7rTq&n=oneweek",
        ),
        ("https://example.org", "t", "n", "DCACCOUNT:https://example.org/?t=t&n=n"),
        (
            "HTTPS://example.org:8443/a/b",
            "+/&=#% é",
            "A & B",
            "DCACCOUNT:https://example.org:8443/a/b?t=%2B%2F%26%3D%23%25%20%C3%A9&n=A%20%26%20B",
        ),
    ],
)
def test_the_text_of_a_token_is_mailadms(
    web_endpoint: str, token: str, name: str, expected: str
) -> None:
    assert account_text(web_endpoint, token, name) == expected


@pytest.mark.parametrize(
    ("web_endpoint", "text"),
    [
        ("", "web_endpoint must be an https URL, and is not set"),
        (
            "http://example.org/new_email",
            "web_endpoint must be an https URL, not http://example.org/new_email",
        ),
    ],
)
def test_an_endpoint_that_no_client_asks_is_told(web_endpoint: str, text: str) -> None:
    with pytest.raises(SettingsError) as error:
        account_text(web_endpoint, "secret", "name")
    assert str(error.value) == text


def server(type_: ServerType, **columns: object) -> MailServer:
    usual = MailServer(
        type=type_,
        hostname=f"{type_}.example.com",
        port={"imap": 993, "pop3": 995, "smtp": 465}[type_],
        socket_type=SocketType.SSL,
        user_name="%EMAILADDRESS%",
        authentication=(Authentication.PASSWORD_CLEARTEXT,),
    )
    return replace(usual, **columns)  # type: ignore[arg-type] # the test knows the names


def config(*servers: MailServer) -> ClientConfig:
    return ClientConfig("example.com", "Example Inc.", "Example", servers, ())


IMAP, POP, SMTP = map(server, (ServerType.IMAP, ServerType.POP3, ServerType.SMTP))


def arguments(text: str) -> dict[str, str]:
    """Return what Delta Chat reads behind the address: a form."""
    return dict(parse_qsl(urlsplit(text).query, strict_parsing=True))


def test_without_settings_the_client_finds_the_servers() -> None:
    assert login_text(ALICE, PASSWORD) == (
        "dclogin://alice@example.com/?p=correct%20horse%20100%25%2B&v=1"
    )


def test_with_settings_both_servers_are_named_completely() -> None:
    smtp = server(ServerType.SMTP, port=587, socket_type=SocketType.STARTTLS)
    assert login_text(ALICE, PASSWORD, config(POP, IMAP, smtp)) == ALICE_TEXT


@pytest.mark.parametrize(
    ("socket_type", "word"),
    [
        (SocketType.SSL, "ssl"),
        (SocketType.STARTTLS, "starttls"),
        (SocketType.PLAIN, "plain"),
    ],
)
def test_encryption_is_said_in_the_words_of_delta_chat(socket_type: SocketType, word: str) -> None:
    imap = server(ServerType.IMAP, socket_type=socket_type)
    found = arguments(login_text(ALICE, "", config(imap, SMTP)))
    assert (found["is"], found["ss"]) == (word, "ssl")


def test_the_first_server_is_taken_that_encrypts_and_takes_a_password() -> None:
    plain = server(ServerType.IMAP, port=143, socket_type=SocketType.PLAIN)
    oauth2 = server(ServerType.IMAP, port=1, authentication=(Authentication.OAUTH2,))
    both = server(
        ServerType.IMAP,
        port=2,
        authentication=(Authentication.OAUTH2, Authentication.PASSWORD_ENCRYPTED),
    )
    text = login_text(ALICE, PASSWORD, config(plain, oauth2, both, IMAP, SMTP))
    assert arguments(text)["ip"] == "2"
    assert arguments(login_text(ALICE, PASSWORD, config(plain, oauth2, SMTP)))["ip"] == "143"


def test_placeholders_are_filled_in() -> None:
    imap = server(
        ServerType.IMAP, hostname="%EMAILLOCALPART%.mail.net", user_name="%EMAILLOCALPART%+x"
    )
    smtp = server(ServerType.SMTP, hostname="smtp.%EMAILDOMAIN%", user_name="fixed name")
    found = arguments(login_text(ALICE, PASSWORD, config(imap, smtp)))
    assert found["ih"] == "alice.mail.net"
    assert found["iu"] == "alice+x"
    assert found["sh"] == "smtp.example.com"
    assert found["su"] == "fixed name"


@pytest.mark.parametrize(
    ("servers", "cause"),
    [
        ([POP, SMTP], "domain example.com: no usable IMAP server that takes a password"),
        ([IMAP], "domain example.com: no usable SMTP server that takes a password"),
        (
            [server(ServerType.IMAP, authentication=(Authentication.OAUTH2,)), SMTP],
            "domain example.com: no usable IMAP server that takes a password",
        ),
    ],
)
def test_a_domain_without_a_server_for_delta_chat_is_told(
    servers: list[MailServer], cause: str
) -> None:
    with pytest.raises(BadRecordError) as error:
        login_text(ALICE, PASSWORD, config(*servers))
    assert error.value.cause == cause


@pytest.mark.parametrize(
    "password", [string.punctuation, " a  b ", "%20+%2B", "pässwörd ✉ 密码", "://?&p=x&v=2#"]
)
def test_passwords_of_any_characters_are_read_as_they_were(password: str) -> None:
    text = login_text(ALICE, password, config(IMAP, SMTP))
    assert text.isascii()
    assert arguments(text)["p"] == password
    assert arguments(text)["v"] == "1"


@pytest.mark.parametrize(
    ("local_part", "written"),
    [
        ("o'neil+x", "o'neil+x"),
        ("a/b?c#d%e", "a%2Fb%3Fc%23d%25e"),
        ("{^`|}", "%7B%5E%60%7C%7D"),
        ("!$&*=_-.~", "!$&*=_-.~"),
        ("jürgen", "j%C3%BCrgen"),
    ],
)
def test_addresses_are_encoded_no_more_than_a_url_needs(local_part: str, written: str) -> None:
    text = login_text(EmailAddress(local_part, "xn--bcher-kva.example"), "x")
    assert text == f"dclogin://{written}@xn--bcher-kva.example/?p=x&v=1"


# Commands


@pytest.fixture
def environment(database: Path, example: None, tmp_path: Path) -> dict[str, str]:
    """Return the environment of a command that works on the example rows."""
    return {
        "AUTOMX_CONF": "/dev/null",
        "AUTOMX_DB_URI": f"sqlite:///{database}",
        "HOME": str(tmp_path),
    }


Command = Callable[..., Result]


@pytest.fixture
def automx(environment: dict[str, str]) -> Command:
    """Run a command within the test; ``stdin`` is what it can read."""

    def run(*arguments: str | Path, stdin: bytes = b"", **settings: str) -> Result:
        runner = CliRunner(env={**environment, **settings})
        return runner.invoke(main, [str(argument) for argument in arguments], input=stdin)

    return run


@pytest.fixture
def login(automx: Command) -> Command:
    """Run ``automx dclogin alice@example.com --password-stdin`` with further options."""

    def run(*options: str | Path, stdin: bytes = PASSWORD.encode(), **settings: str) -> Result:
        command = ["dclogin", "alice@example.com", "--password-stdin"]
        return automx(*command, *options, stdin=stdin, **settings)

    return run


def on_screen(lines: str, folder: Path) -> Path:
    """Return a picture of half blocks on a dark terminal, each for two modules, as PGM."""
    rows = lines.splitlines()
    halves = {" ": (0, 0), "▀": (255, 0), "▄": (0, 255), "█": (255, 255)}
    pixels = [
        bytes(halves[c][half] for c in row for _ in range(4)) for row in rows for half in (0, 1)
    ]
    image = folder / "screen.pgm"
    image.write_bytes(
        b"P5 %d %d 255\n" % (len(pixels[0]), len(pixels) * 4) + b"".join(p * 4 for p in pixels)
    )
    return image


def test_dclogin_prints_the_text_and_the_code(login: Command, tmp_path: Path) -> None:
    result = login()
    assert (result.stderr, result.exit_code) == ("", 0)
    text, empty, code = result.stdout.split("\n", 2)
    assert (text, empty) == (ALICE_TEXT, "")
    assert decoded(on_screen(code, tmp_path)) == [ALICE_TEXT]


def test_dclogin_may_leave_the_servers_out(login: Command) -> None:
    first_line = login("--discover").stdout.splitlines()[0]
    assert first_line == "dclogin://alice@example.com/?p=correct%20horse%20100%25%2B&v=1"


@pytest.mark.parametrize("name", ["code.png", "code.svg", "CODE.PNG"])
def test_dclogin_writes_a_file_that_its_owner_alone_may_read(
    login: Command, tmp_path: Path, name: str
) -> None:
    file = tmp_path / name
    file.write_text("old")
    file.chmod(0o644)
    result = login("--qr", file)
    assert result.output == f"Wrote {file}.\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    image = drawn(file) if file.suffix == ".svg" else file
    assert decoded(image) == [ALICE_TEXT]
    assert not list(tmp_path.glob(f".{name}*"))


def test_a_card_of_dclogin_warns_of_the_password_and_does_not_show_it(
    login: Command, tmp_path: Path
) -> None:
    file = tmp_path / "card.svg"
    assert login("--qr", file, "--card").exit_code == 0
    card = file.read_text()
    assert decoded(drawn(file)) == [ALICE_TEXT]
    for words in ("Example Inc.", "Install Delta Chat", "For alice@example.com.", "password"):
        assert words in card
    assert "correct" not in card
    assert "dclogin" not in card


def test_dclogin_prints_json(login: Command, tmp_path: Path) -> None:
    expected = {"address": "alice@example.com", "dclogin_url": ALICE_TEXT}
    assert json.loads(login("--json").stdout) == expected
    file = str(tmp_path / "code.png")
    assert json.loads(login("--json", "--qr", file).stdout) == {**expected, "file": file}
    assert decoded(Path(file)) == [ALICE_TEXT]


def test_the_login_name_of_a_directory_stands_in_the_text(
    automx: Command, execute: Execute, shared_directory: Directory
) -> None:
    execute(insert_ldapserver(shared_directory))
    execute("UPDATE domain SET ldapserver_id = 3")
    options = ["--password-stdin", "--json"]
    result = automx("dclogin", "alice@example.com", *options, stdin=b"x", AUTOMX_LDAP_STARTTLS="no")
    found = arguments(json.loads(result.stdout)["dclogin_url"])
    shown = automx("show", "alice@example.com", AUTOMX_LDAP_STARTTLS="no").stdout
    assert f"login {found['iu']} " in shown
    assert found["iu"] == found["su"] != "alice@example.com"


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_one_line_end_behind_the_password_does_not_belong_to_it(login: Command, end: bytes) -> None:
    found = json.loads(login("--json", stdin=b" geheim " + end).stdout)
    assert arguments(found["dclogin_url"])["p"] == " geheim "


@pytest.mark.parametrize(
    ("stdin", "text"),
    [
        (b"", "the password is empty"),
        (b"\n", "the password is empty"),
        (b"gehe\xefm", "the password is not UTF-8"),
        (b"geheim\n\n", "the password contains a control character"),
        (b"geh\0eim", "the password contains a control character"),
    ],
)
def test_a_password_that_cannot_be_is_told_and_not_shown(
    login: Command, stdin: bytes, text: str
) -> None:
    result = login(stdin=stdin)
    assert (result.stdout, result.stderr, result.exit_code) == ("", f"automx: {text}\n", 1)


def test_a_password_that_no_code_can_hold_is_told(login: Command, tmp_path: Path) -> None:
    file = tmp_path / "code.png"
    file.write_text("old")
    result = login("--qr", file, stdin=b"x" * 3000)
    assert result.output == "automx: This text is too long for a QR code.\n"
    assert result.exit_code == 1
    assert file.read_text() == "old"


def test_without_a_terminal_there_is_no_prompt(automx: Command) -> None:
    result = automx("dclogin", "alice@example.com", stdin=b"secret\n")
    assert result.exit_code == 2
    assert result.stderr.endswith(
        "automx: There is no terminal to ask for the password: --password-stdin\n"
    )


def test_at_a_terminal_the_password_is_asked_for_and_not_shown(
    environment: dict[str, str],
) -> None:
    person, program = pty.openpty()  # the ends of whoever sits there, and of the program
    with subprocess.Popen(
        [AUTOMX, "dclogin", "alice@example.com", "--json"],
        stdin=program,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **environment},
        start_new_session=True,  # getpass prefers the terminal of whoever runs the tests
    ) as process:
        assert process.stderr is not None
        assert process.stderr.read(10) == b"Password: "
        os.write(person, b"s3cret word\n")
        stdout, stderr = process.communicate(timeout=60)
    os.close(program)
    os.close(person)
    found = arguments(json.loads(stdout)["dclogin_url"])
    assert found["p"] == "s3cret word"
    assert stderr == b"\n"


@pytest.mark.parametrize(("columns", "is_told"), [("40", True), ("80", False)])
def test_a_terminal_that_is_too_narrow_for_the_code_is_told(
    environment: dict[str, str], tmp_path: Path, columns: str, is_told: bool
) -> None:
    person, program = pty.openpty()
    password, errors = tmp_path / "password", tmp_path / "errors"
    password.write_text(PASSWORD)
    with password.open("rb") as stdin, errors.open("wb") as stderr:
        process = subprocess.Popen(
            [AUTOMX, "dclogin", "alice@example.com", "--password-stdin"],
            stdin=stdin,
            stdout=program,
            stderr=stderr,
            env={**os.environ, **environment, "COLUMNS": columns},
        )
    os.close(program)
    shown = printed_to(person)
    assert process.wait(60) == 0
    assert shown.startswith(b"dclogin://alice@example.com/")
    told = "the QR code needs 57 columns; make the terminal wider, or write it to a file: --qr FILE"
    assert errors.read_text() == (f"automx: {told}\n" if is_told else "")


@pytest.mark.parametrize("name", ["code.jpg", "code", "png"])
def test_only_png_and_svg_are_written(login: Command, tmp_path: Path, name: str) -> None:
    result = login("--qr", tmp_path / name)
    assert result.exit_code == 2
    assert "the name must end in .png or .svg" in result.stderr
    assert not (tmp_path / name).exists()


@pytest.mark.parametrize("options", [["--card"], ["--card", "--qr", "card.png"]])
def test_a_card_is_an_svg(login: Command, options: list[str]) -> None:
    result = login(*options)
    assert result.exit_code == 2
    assert "--card needs the name of an .svg file: --qr FILE.svg" in result.stderr


def test_a_file_that_cannot_be_written_is_told(login: Command, tmp_path: Path) -> None:
    file = tmp_path / "nowhere" / "code.png"
    result = login("--qr", file)
    assert result.output == f"automx: {file} cannot be written: No such file or directory\n"
    assert result.exit_code == 1


@pytest.mark.parametrize("command", ["dclogin", "mobileconfig-qr"])
def test_an_unknown_domain_is_told_before_a_password_is_asked_for(
    automx: Command, command: str
) -> None:
    result = automx(command, "alice@example.org")
    assert result.output == (
        "automx: No configuration is known for this domain. (domain example.org)\n"
    )
    assert result.exit_code == 1


def test_a_domain_that_delta_chat_cannot_use_is_told_before_a_password_is_asked_for(
    automx: Command, execute: Execute
) -> None:
    execute("UPDATE server SET type = 'pop' WHERE type = 'imap'")
    result = automx("dclogin", "alice@example.com")
    assert result.output == (
        "automx: domain example.com: no usable IMAP server that takes a password\n"
    )
    assert result.exit_code == 1


def test_mobileconfig_qr_leads_to_the_profile(
    automx: Command, client: FlaskClient, tmp_path: Path
) -> None:
    for address in ("alice@example.com", "O'Neil+x/&#%@Example.COM", "jürgen@example.com"):
        file = tmp_path / "code.png"
        assert automx("mobileconfig-qr", address, "--qr", file).exit_code == 0
        (text,) = decoded(file)
        url = urlsplit(text)
        assert (url.scheme, url.netloc) == ("https", "autoconfig.example.com")
        answer = client.get(f"{url.path}?{url.query}", base_url=f"https://{url.netloc}")
        assert answer.status_code == 200
        shown = automx("show", address, "--format", "mobileconfig")
        assert answer.data == shown.stdout_bytes


def test_mobileconfig_qr_prints_the_url_and_the_code(automx: Command, tmp_path: Path) -> None:
    result = automx("mobileconfig-qr", "alice@example.com")
    text, empty, code = result.stdout.split("\n", 2)
    assert (text, empty) == (ALICE_PROFILE, "")
    assert decoded(on_screen(code, tmp_path)) == [ALICE_PROFILE]
    found = json.loads(automx("mobileconfig-qr", "alice@example.com", "--json").stdout)
    assert found == {"address": "alice@example.com", "url": ALICE_PROFILE}


def test_a_card_of_mobileconfig_qr_says_what_to_do_on_an_iphone(
    automx: Command, tmp_path: Path
) -> None:
    file = tmp_path / "card.svg"
    assert automx("mobileconfig-qr", "alice@example.com", "--qr", file, "--card").exit_code == 0
    assert decoded(drawn(file)) == [ALICE_PROFILE]
    card = file.read_text()
    for words in ("Example Inc.", "iPhone", "For alice@example.com."):
        assert words in card


@pytest.mark.parametrize(
    ("web_endpoint", "url", "base"),
    [
        ("https://mail.example.org/new_email", None, "https://mail.example.org"),
        ("https://mail.example.org:8443/new_email", None, "https://mail.example.org:8443"),
        ("https://mail.example.org/x", "https://example.com/automx/", "https://example.com/automx"),
        ("", "http://127.0.0.1:4243", "http://127.0.0.1:4243"),
    ],
)
def test_the_host_of_a_profile_can_be_named(
    automx: Command, web_endpoint: str, url: str | None, base: str
) -> None:
    options = ["--url", url] if url else []
    result = automx(
        "mobileconfig-qr", "alice@example.com", *options, AUTOMX_WEB_ENDPOINT=web_endpoint
    )
    first_line = result.stdout.splitlines()[0]
    assert first_line == f"{base}/mobileconfig/?emailaddress=alice@example.com"


@pytest.mark.parametrize("web_endpoint", ["", "https://mail.example.org:8443/new_email"])
def test_a_profile_is_at_the_public_host(automx: Command, web_endpoint: str) -> None:
    settings = {"AUTOMX_WEB_ENDPOINT": web_endpoint, "AUTOMX_PUBLIC_HOST": "automx.example.net"}
    result = automx("mobileconfig-qr", "alice@example.com", **settings)
    first_line = result.stdout.splitlines()[0]
    assert first_line == "https://automx.example.net/mobileconfig/?emailaddress=alice@example.com"


@pytest.mark.parametrize(
    "url",
    ["", "example.org", "ftp://example.org", "https://", "https://[", "https://a/?b", "https://ä"],
)
def test_a_url_that_is_none_is_told(automx: Command, url: str) -> None:
    result = automx("mobileconfig-qr", "alice@example.com", "--url", url)
    assert result.exit_code == 2
    assert f"automx: Invalid value for '--url': {url!r}: th" in result.stderr
    assert "such as https://example.org/automx" in result.stderr


def test_a_domain_without_a_profile_is_told(automx: Command, execute: Execute) -> None:
    execute("DELETE FROM server WHERE type = 'smtp'")
    result = automx("mobileconfig-qr", "alice@example.com")
    assert result.exit_code == 1
    assert result.stderr.endswith("automx: domain example.com: no usable outgoing mail server\n")
