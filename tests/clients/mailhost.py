"""A mail host on loopback: Dovecot for IMAP, aiosmtpd for submission, on ports nobody can guess.

Dovecot's own users (dovecot, dovenull, nobody) must be able to enter its folder.
"""

import base64
import contextlib
import re
import ssl
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from aiosmtpd.controller import Controller
from aiosmtpd.handlers import Sink
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from tests.processes import Running, free_port, listens, program, running
from tests.tls import Certificate

# Dovecot 2.3, as in Debian 12.
DOVECOT = """\
base_dir = {folder}/run
state_dir = {folder}/state
instance_name = automx-tests
log_path = /dev/stderr
listen = {address}
protocols = imap
ssl = required
ssl_cert = <{certificate.certificate}
ssl_key = <{certificate.key}
auth_mechanisms = plain login
mail_location = maildir:{folder}/mail/%u
first_valid_uid = 1
passdb {{
  driver = passwd-file
  args = {folder}/users
}}
userdb {{
  driver = static
  args = uid=nobody gid=nogroup home={folder}/mail/%u
}}
service imap-login {{
  inet_listener imap {{
    port = {ports.imap_starttls}
  }}
  inet_listener imaps {{
    port = {ports.imap_tls}
  }}
}}
"""


@dataclass(frozen=True)
class Ports:
    """Where the mail host listens."""

    imap_tls: int
    imap_starttls: int
    smtp_tls: int
    smtp_starttls: int


class MailHost:
    """A running mail host."""

    def __init__(
        self, ports: Ports, dovecot: Running, submission: Sequence[str], users: Path
    ) -> None:
        self.ports = ports
        self.users = users
        """Dovecot's passwd-file; it notices a change within a second."""
        self._dovecot = dovecot
        self._submission = submission

    def knows(self, user: str, password: str) -> bool:
        """Tell whether Dovecot lets a user log in."""
        return _knows(self.users.with_name("dovecot.conf"), user, password)

    def logged_in(self, user: str) -> bool:
        """Tell whether a user has logged in to both servers, which accept that over TLS only."""
        imap = re.compile(rf"imap-login: .*Login: user=<{re.escape(user)}>.*, TLS,")
        return user in self._submission and imap.search(self._dovecot.output) is not None


@contextlib.contextmanager
def mail_host(
    folder: Path, address: str, certificate: Certificate, users: Mapping[str, str]
) -> Iterator[MailHost]:
    """Run a mail host at ``address`` for ``users``, whose passwords are the values."""
    ports = Ports(*(free_port(address) for _ in range(4)))
    configuration = folder / "dovecot.conf"
    configuration.write_text(
        DOVECOT.format(folder=folder, address=address, certificate=certificate, ports=ports)
    )
    passwords = folder / "users"
    encoded = {user: base64.b64encode(users[user].encode()).decode() for user in users}
    passwords.write_text("".join(f"{user}:{{PLAIN.b64}}{encoded[user]}\n" for user in users))
    mail = folder / "mail"
    mail.mkdir(mode=0o777)
    mail.chmod(0o777)
    with (
        running(
            [program("dovecot", "dovecot-imapd"), "-F", "-c", configuration],
            folder / "dovecot.log",
            ready=lambda: listens(ports.imap_tls, address),
        ) as dovecot,
        _submission(address, ports, certificate, configuration) as logins,
    ):
        yield MailHost(ports, dovecot, logins, passwords)


def _knows(configuration: Path, user: str, password: str) -> bool:
    """Ask Dovecot whether a user has a password."""
    command: list[str | Path] = [program("doveadm", "dovecot-imapd"), "-c", configuration]
    command += ["auth", "test", user, password]
    result = subprocess.run(command, capture_output=True, check=False)
    return result.returncode == 0


@contextlib.contextmanager
def _submission(
    address: str, ports: Ports, certificate: Certificate, configuration: Path
) -> Iterator[list[str]]:
    """Run submission servers for Dovecot's users; the list grows by each one who logs in."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate.certificate, certificate.key)
    logins: list[str] = []

    def authenticate(
        server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: LoginPassword
    ) -> AuthResult:
        user, password = data.login.decode(), data.password.decode()
        success = _knows(configuration, user, password)
        if success:
            logins.append(user)
        return AuthResult(success=success, handled=False)

    controllers = [
        # aiosmtpd does not count implicit TLS as TLS, and would refuse logins.
        Controller(
            Sink(),
            address,
            ports.smtp_tls,
            ssl_context=context,
            auth_require_tls=False,
            authenticator=authenticate,
        ),
        Controller(
            Sink(),
            address,
            ports.smtp_starttls,
            tls_context=context,
            require_starttls=True,
            authenticator=authenticate,
        ),
    ]
    with contextlib.ExitStack() as stack:
        for controller in controllers:
            controller.start()
            stack.callback(controller.stop)
        yield logins
