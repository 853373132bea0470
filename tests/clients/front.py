"""The web server that automx stands behind in real life: nginx, with TLS, on loopback.

It answers for any number of mail domains and all their subdomains, keeps a record of every
request, and can be told to deny hosts or single URLs, as if an administrator had not set them up.
"""

import contextlib
import json
import os
import secrets
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.processes import free_port, listens, program, running, wait_until
from tests.tls import Certificate

# Debian's build logs to files and keeps its temporary files in /var: all of it moves to our folder.
# A file denied/HOST or denied/HOST/PATH makes nginx answer 404 in the place of automx.
CONFIGURATION = """\
{user}
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log stderr;
events {{ }}
http {{
    log_format requests escape=json '{{"method": "$request_method", "scheme": "$scheme", '
        '"host": "$host", "target": "$request_uri", "status": $status, '
        '"basic_user": "$remote_user"}}';
    access_log {folder}/requests.log requests;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    ssl_certificate {certificate.certificate};
    ssl_certificate_key {certificate.key};
    server_names_hash_bucket_size 128;

    server {{
        listen {address}:{http_port} default_server;
        listen {address}:{https_port} ssl default_server;
        return 404;
    }}
    server {{
        listen {address}:{http_port};
        listen {address}:{https_port} ssl;
        server_name {names};
        location / {{
            if (-f {folder}/denied/$host) {{ return 404; }}
            if (-f {folder}/denied/$host$uri) {{ return 404; }}
            proxy_pass {upstream};
            proxy_set_header Host $host;
            proxy_set_header X-Forwarded-Host $host;
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_set_header X-Forwarded-Proto $scheme;
        }}
    }}
}}
"""


@dataclass(frozen=True)
class Request:
    """What a client asked, and the status it got."""

    method: str
    scheme: str
    host: str
    target: str
    """Path and query as sent."""
    status: int
    basic_user: str
    """The user named in an Authorization header of the Basic scheme, or nothing."""

    def __str__(self) -> str:
        return f"{self.method} {self.scheme}://{self.host}{self.target}"


@dataclass(frozen=True)
class Front:
    """A running nginx with TLS on ``https_port``."""

    address: str
    http_port: int
    https_port: int
    folder: Path

    def deny(self, *urls: str) -> None:
        """Answer 404 from now on to hosts (``autoconfig.example.test``) or URLs (``HOST/PATH``)."""
        for url in urls:
            file = self.folder / "denied" / url
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()

    def requests(self, domain: str) -> list[Request]:
        """Return all requests so far for a domain or its subdomains, in the order of answers."""
        self._wait_for_the_log()
        lines = (self.folder / "requests.log").read_text().splitlines()
        requests = [Request(**json.loads(line)) for line in lines]
        return [r for r in requests if f".{r.host}".endswith(f".{domain}")]

    def answered(self, domain: str) -> set[str]:
        """Return each ``HOST/PATH`` of a domain or its subdomains that was answered with 200."""
        answered = (request for request in self.requests(domain) if request.status == 200)
        return {request.host + request.target.partition("?")[0] for request in answered}

    def _wait_for_the_log(self) -> None:
        """Wait until nginx has logged what it has answered: it does both in the same order."""
        marker = f"/{secrets.token_hex(8)}"
        with contextlib.suppress(urllib.error.HTTPError):
            urllib.request.urlopen(f"http://{self.address}:{self.http_port}{marker}", timeout=30)
        log = self.folder / "requests.log"
        wait_until(lambda: marker in log.read_text(), "the log line of a request")


@contextlib.contextmanager
def front(
    folder: Path,
    certificate: Certificate,
    domains: Sequence[str],
    upstream: str,
    *,
    address: str = "127.0.0.1",
    https_port: int | None = None,
) -> Iterator[Front]:
    """Run nginx before ``upstream`` for ``domains`` and their subdomains; 404 for other hosts."""
    started = Front(address, free_port(address), https_port or free_port(address), folder)
    configuration = folder / "nginx.conf"
    configuration.write_text(
        CONFIGURATION.format(
            user="user root;" if os.geteuid() == 0 else "",
            folder=folder,
            certificate=certificate,
            address=address,
            http_port=started.http_port,
            https_port=started.https_port,
            names=" ".join(f".{domain}" for domain in domains),
            upstream=upstream,
        )
    )
    nginx = program("nginx", "nginx-light")
    with running(
        [nginx, "-p", folder, "-c", configuration],
        folder / "nginx.log",
        ready=lambda: listens(started.https_port, address),
    ):
        yield started
