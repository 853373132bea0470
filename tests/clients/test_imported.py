"""What automx serves after an import configures Thunderbird as the imported file does."""

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.clients.front import front
from tests.clients.hoster import settings
from tests.clients.thunderbird import PROVIDERS, Configuration, thunderbird
from tests.commandline import automx
from tests.processes import serving
from tests.tls import Authority

DOMAIN = "imported.test"
FILE = f"""<?xml version="1.0" encoding="UTF-8"?>
<clientConfig version="1.1">
  <emailProvider id="hoster.example">
    <domain>{DOMAIN}</domain>
    <displayName>Müller &amp; Söhne</displayName>
    <displayShortName>Müller</displayShortName>
    <incomingServer type="pop3">
      <hostname>pop.hoster.example</hostname>
      <port>10995</port>
      <socketType>SSL</socketType>
      <username>%EMAILLOCALPART%</username>
      <authentication>password-cleartext</authentication>
    </incomingServer>
    <incomingServer type="imap">
      <hostname>imap.hoster.example</hostname>
      <port>143</port>
      <socketType>STARTTLS</socketType>
      <username>%EMAILLOCALPART%.%EMAILDOMAIN%</username>
      <authentication>password-encrypted</authentication>
      <authentication>password-cleartext</authentication>
    </incomingServer>
    <incomingServer type="imap">
      <hostname>imap.%EMAILDOMAIN%</hostname>
      <port>993</port>
      <socketType>SSL</socketType>
      <username>%EMAILADDRESS%</username>
      <authentication>password-cleartext</authentication>
    </incomingServer>
    <outgoingServer type="smtp">
      <hostname>smtp.hoster.example</hostname>
      <port>587</port>
      <socketType>STARTTLS</socketType>
      <username>%EMAILADDRESS%</username>
      <authentication>password-cleartext</authentication>
    </outgoingServer>
    <outgoingServer type="smtp">
      <hostname>smtp.hoster.example</hostname>
      <port>10465</port>
      <socketType>SSL</socketType>
      <username>%EMAILADDRESS%</username>
      <authentication>password-cleartext</authentication>
    </outgoingServer>
    <documentation url="https://help.hoster.example/mail">
      <descr lang="de">E-Mail einrichten</descr>
    </documentation>
  </emailProvider>
</clientConfig>
"""


@contextlib.contextmanager
def web_server_of_the_file() -> Iterator[str]:
    """Serve FILE at the path of Autoconfig, as a web server without automx does; yield the URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            is_here = self.path.startswith("/mail/config-v1.1.xml")
            self.send_response(200 if is_here else 404)
            self.send_header("Content-Type", "application/xml")
            self.end_headers()
            self.wfile.write(FILE.encode() if is_here else b"")

        def log_message(self, *_: object) -> None:
            """Write nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@contextlib.contextmanager
def automx_with_the_file(folder: Path) -> Iterator[str]:
    """Run automx with the rows that FILE becomes; yield the URL."""
    env = settings(folder)
    (folder / "file.xml").write_text(FILE)
    automx("db", "upgrade", env=env)
    automx("import-autoconfig", str(folder / "file.xml"), "--yes", env=env)
    with serving(env, folder / "serve.log") as server:
        yield server.url


def found_behind(url: str, authority: Authority, folder: Path) -> Configuration | None:
    """Return what Thunderbird finds if a server is that of the domain."""
    folder.mkdir()
    certificate = authority.issue(DOMAIN, f"*.{DOMAIN}", PROVIDERS)
    with (
        front(folder, certificate, [DOMAIN], url) as web,
        thunderbird(folder, web, authority.root) as client,
    ):
        web.deny(f"autodiscover.{DOMAIN}", f"{DOMAIN}/autodiscover/autodiscover.xml")
        return client.find(f"alice@{DOMAIN}")


def test_an_imported_file_configures_thunderbird_as_before(
    authority: Authority, tmp_path: Path
) -> None:
    with web_server_of_the_file() as url:
        before = found_behind(url, authority, tmp_path / "before")
    with automx_with_the_file(tmp_path) as url:
        after = found_behind(url, authority, tmp_path / "after")
    assert before is not None
    assert before.id == "hoster.example"
    assert after == replace(before, id=DOMAIN)  # automx names the domain there
