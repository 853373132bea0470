"""A small internet on loopback: a name server, a web server and mail servers for many domains.

Ports are the real ones, because records and documents tell them, so only root can run it; the
addresses are ones that nobody else uses.
"""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.clients.deltachat import Network, network
from tests.nameserver import NameServer, name_server
from tests.processes import listens, program, running
from tests.tls import Authority, Certificate

HOST = "automx.test"  # the public name of automx
MAIL = "mail.test"

NGINX = """\
user root;
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log stderr;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    ssl_certificate {certificate.certificate};
    ssl_certificate_key {certificate.key};
    ssl_protocols TLSv1.2 TLSv1.3;
    server_names_hash_bucket_size 128;
    proxy_set_header Host $host;

    server {{
        listen {address}:80 default_server;
        listen {address}:443 ssl default_server;
        location / {{ proxy_pass {automx}; }}
    }}
    {servers}
}}
"""
# One that differs: for the host, and with the lines that make it different.
NGINX_SERVER = """\
    server {{
        listen {address}:80;
        listen {address}:443 ssl;
        server_name {host};
        {lines}
    }}
"""
# Dovecot 2.3, as in Debian 12.
DOVECOT = """\
base_dir = {folder}/run
state_dir = {folder}/state
instance_name = {folder.name}
log_path = /dev/stderr
listen = {address}
protocols = imap pop3 submission sieve
ssl = {ssl}
ssl_cert = <{certificate.certificate}
ssl_key = <{certificate.key}
submission_relay_host = 127.0.0.1
hostname = mail.test
mail_location = maildir:{folder}/mail/%u
passdb {{
  driver = static
  args = password=secret
}}
service managesieve-login {{
  inet_listener sieve {{
    port = 4190
  }}
}}
{more}
"""
DOVECOT_SUBMISSIONS = """\
service submission-login {
  inet_listener submissions {
    port = 465
    ssl = yes
  }
}
"""
DOVECOT_NAME = """\
local_name {name} {{
  ssl_cert = <{certificate.certificate}
  ssl_key = <{certificate.key}
}}
"""


@dataclass(frozen=True)
class Internet:
    """What runs, and where: ``web`` and ``mail`` are addresses, ``nothing`` listens nowhere."""

    addresses: Network
    names: NameServer

    def options(self, authority: Path) -> list[str]:
        """Return options of ``automx check``."""
        return ["--dns", self.names.option, "--host", HOST, "--ca-file", str(authority)]


def prepared(folder: Path) -> tuple[Network, Authority]:
    """Return addresses for an internet, and an authority that keeps its files in the folder."""
    for parent in (folder, *folder.parents[:2]):
        parent.chmod(0o755)  # Dovecot's own users must be able to enter
    (folder / "authority").mkdir()
    return network(), Authority(folder / "authority")


def common_records(addresses: Network) -> str:
    """Return the records of the hosts that serve all domains."""
    return f"{HOST}. IN A {addresses.front}\n{MAIL}. IN A {addresses.mail}\n"


def without_tls(addresses: Network) -> str:
    """Return the address of the mail servers that offer no TLS."""
    return addresses.nothing[:-1] + "4"


@contextlib.contextmanager
def internet(
    folder: Path,
    addresses: Network,
    *,
    automx: str,
    web: Certificate,
    mail: Certificate,
    zones: Mapping[str, str | None],
    web_servers: Mapping[str, str] | None = None,
    mail_names: Mapping[str, Certificate] | None = None,
) -> Iterator[Internet]:
    """Run it all; ``automx`` is the URL of a running automx.

    ``web_servers`` are hosts whose nginx differs, with the lines of their server block,
    ``mail_names`` names of the mail server that have another certificate.
    """
    servers = "".join(
        NGINX_SERVER.format(address=addresses.front, host=host, lines=lines)
        for host, lines in (web_servers or {}).items()
    )
    configuration = folder / "nginx.conf"
    configuration.write_text(
        NGINX.format(
            folder=folder,
            address=addresses.front,
            certificate=web,
            automx=automx,
            servers=servers,
        )
    )
    nginx: list[str | Path] = [program("nginx", "nginx-light"), "-p", folder, "-c", configuration]
    names = "".join(
        DOVECOT_NAME.format(name=name, certificate=certificate)
        for name, certificate in (mail_names or {}).items()
    )
    with (
        name_server(folder / "names", zones) as started,
        running(nginx, folder / "nginx.log", ready=lambda: listens(443, addresses.front)),
        dovecot(folder / "dovecot", addresses.mail, mail, names=names),
        dovecot(folder / "dovecot-plain", without_tls(addresses), mail, ssl="no"),
    ):
        yield Internet(addresses, started)


@contextlib.contextmanager
def dovecot(
    folder: Path,
    address: str,
    certificate: Certificate,
    *,
    ssl: str = "yes",
    names: str = "",
) -> Iterator[None]:
    """Run IMAP, POP3, submission and ManageSieve at their own ports."""
    folder.mkdir()
    configuration = folder / "dovecot.conf"
    configuration.write_text(
        DOVECOT.format(
            folder=folder,
            address=address,
            certificate=certificate,
            ssl=ssl,
            more=names + (DOVECOT_SUBMISSIONS if ssl != "no" else ""),
        )
    )
    ports = (143, 110, 587, 4190) + ((993, 995, 465) if ssl != "no" else ())
    with running(
        [program("dovecot", "dovecot-imapd"), "-F", "-c", configuration],
        folder / "dovecot.log",
        ready=lambda: all(listens(port, address) for port in ports),
    ):
        yield


__all__ = ["HOST", "MAIL", "Internet", "common_records", "dovecot", "internet", "prepared"]
