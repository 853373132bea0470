"""``automx web-server``: what it prints is what nginx, Apache and Caddy take as it is."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from automx import webserver
from automx.webserver import KINDS, Site
from tests.commandline import attempt, automx
from tests.processes import REPOSITORY, program
from tests.test_proxies import put
from tests.tls import Authority, Certificate

HOST = "automx.customer.test"
NAMES = [HOST, *(f"{label}.customer.test" for label in ("autoconfig", "autodiscover"))]
NAMES.append("ua-auto-config.customer.test")
APACHE_MODULES = (
    *("alias", "authz_core", "dir", "env", "headers", "macro", "mime", "mpm_event", "proxy"),
    *("proxy_http", "rewrite", "setenvif", "socache_shmcb", "ssl"),
)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return Authority(tmp_path_factory.mktemp("tls")).issue(*NAMES)


def installed(text: str, kind: str, certificate: Certificate) -> str:
    """Return a configuration with the certificate that certbot would have got."""
    if kind == "caddy":
        return text
    folder = "/etc/letsencrypt/live/automx-1"
    return put(
        text,
        (f"{folder}/fullchain.pem", str(certificate.certificate)),
        (f"{folder}/privkey.pem", str(certificate.key)),
    )


def check_nginx(file: Path) -> list[str]:
    """Return the command that checks a file; ports and logs are those of a test."""
    folder = file.parent
    text = file.read_text().replace("    listen [::]:80;\n", "")
    text = text.replace("    listen [::]:443 ssl;\n", "").replace("/var/log/nginx/", f"{folder}/")
    file.write_text(text)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "\n".join(f"{kind}_temp_path {folder / kind};" for kind in kinds)
    main = folder / "main.conf"
    main.write_text(f"pid {folder}/pid;\nevents {{}}\nhttp {{\n{temporary}\ninclude {file};\n}}\n")
    return [program("nginx", "nginx-light"), "-t", "-c", str(main), "-e", "stderr"]


def check_apache(file: Path) -> list[str]:
    folder = file.parent
    modules = (
        f"LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so"
        for name in APACHE_MODULES
    )
    (folder / "mime.types").touch()
    main = folder / "main.conf"
    lines = [*modules, "ServerName localhost", f"TypesConfig {folder}/mime.types"]
    lines += [f"DefaultRuntimeDir {folder}", f"ErrorLog {folder}/error.log", f"Include {file}"]
    main.write_text("\n".join(lines))
    return [program("apache2", "apache2"), "-t", "-f", str(main)]


def check_caddy(file: Path) -> list[str]:
    return [program("caddy", "caddy"), "validate", "--config", str(file), "--adapter", "caddyfile"]


CHECKS: dict[str, Callable[[Path], list[str]]] = {
    "nginx": check_nginx,
    "apache": check_apache,
    "caddy": check_caddy,
}


def accepts(kind: str, folder: Path, text: str, certificate: Certificate) -> str:
    """Return what the web server complains of in a configuration."""
    file = folder / KINDS[kind].file
    file.write_text(installed(text, kind, certificate))
    env = {**os.environ, "APACHE_LOG_DIR": str(folder), "HOME": str(folder)}
    result = subprocess.run(
        CHECKS[kind](file), env=env, capture_output=True, text=True, check=False
    )
    is_warned = "[warn]" in result.stderr or "[emerg]" in result.stderr
    return result.stderr if result.returncode or is_warned else ""


@pytest.mark.parametrize("has_domains", [False, True], ids=["names", "with-domain"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_web_server_takes_what_is_printed(
    tmp_path: Path, certificate: Certificate, kind: str, has_domains: bool
) -> None:
    site = Site(
        HOST,
        ["customer.test", "second.test"],
        [*NAMES, "autoconfig.second.test"],
        listens="[::1]:8080",
        has_domains=has_domains,
        account_path="/new.account",
    )
    text = webserver.configuration(kind, site)
    for gone in ("CHANGE", "example.com", "automx.pem", "4243", "new_email"):
        assert gone not in text
    assert "[::1]:8080" in text
    assert HOST in text
    assert ("new\\.account" in text) == has_domains
    assert accepts(kind, tmp_path, text, certificate) == ""


@pytest.mark.parametrize("kind", KINDS)
def test_a_public_host_that_is_a_mail_domain_as_well_is_there_once(
    tmp_path: Path, certificate: Certificate, kind: str
) -> None:
    domains = ["customer.test", "autoconfig.customer.test", "second.test"]
    names = ["customer.test", *NAMES[1:]]
    text = webserver.configuration(kind, Site(domains[0], domains, names, has_domains=True))
    assert accepts(kind, tmp_path, text, certificate) == ""
    alone = webserver.configuration(kind, Site(domains[0], domains[:1], names, has_domains=True))
    assert webserver.configuration(kind, Site(domains[0], domains[:1], names)) == alone


@pytest.mark.parametrize("kind", KINDS)
def test_long_names_and_many_domains_are_taken(
    tmp_path: Path, certificate: Certificate, kind: str
) -> None:
    long = ".".join(["x" * 60, "y" * 60, "test"])
    domains = [long, *(f"domain-{number}.customer.test" for number in range(33))]
    hosts = [f"automx.{long}", *(f"autoconfig.{domain}" for domain in domains)]
    text = webserver.configuration(kind, Site(hosts[0], domains, hosts, has_domains=True))
    assert accepts(kind, tmp_path, text, certificate) == ""


def test_names_that_no_authority_certifies_are_not_asked_for() -> None:
    names = ["automx.test", "autoconfig.a_b.test", "autoconfig.second.test"]
    site = Site(names[0], ["a_b.test", "second.test"], names, has_domains=True)
    asked = webserver.certbot("nginx", site).split(" --cert-name automx-1 ")[1]
    assert asked == "-d automx.test -d autoconfig.second.test -d second.test"
    assert webserver.certbot("nginx", Site("a_b.test", [], ["a_b.test"])) == ""


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_but_the_marked_lines_is_changed(kind: str) -> None:
    """With the values of the example, the file of contrib comes back."""
    example = ["autoconfig.example.com", "autodiscover.example.com", "ua-auto-config.example.com"]
    site = Site(example[0], ["example.com"], example, has_domains=True)
    printed = webserver.configuration(kind, site).splitlines()
    original = (REPOSITORY / "contrib" / KINDS[kind].file).read_text().splitlines()
    marked = (
        "CHANGE",
        "/etc/ssl/",
        "web_endpoint",
        "# header_up",
        "# trusted_",
        "# request_header",
    )
    kept = [line for line in original[5:] if line.startswith(("#", "\t", " ", "<", "}"))]
    lost = [line for line in kept if line not in printed and not any(m in line for m in marked)]
    assert [line for line in lost if not line.startswith("#     ")] == []


@pytest.mark.usefixtures("example")
def test_the_command_takes_the_names_that_dns_has(database: Path) -> None:
    env = {"AUTOMX_CONF": "/dev/null", "AUTOMX_DB_URI": f"sqlite:///{database}"}
    zone = automx("dns", "example.com", "--host", HOST, env=env)
    text = automx("web-server", "caddy", "example.com", "--host", HOST, env=env)
    [line] = [line for line in text.splitlines() if line.startswith(HOST)]
    names = line.removesuffix(" {").split(", ")
    assert names[1:] == [row.split()[0][:-1] for row in zone.splitlines() if "CNAME" in row]
    assert "\nexample.com {" not in text
    command = ["web-server", "caddy", "example.com", "--host", HOST, "--with-domain"]
    assert "\nexample.com {" in automx(*command, env=env)
    stranger = attempt("web-server", "nginx", "stranger.test", "--host", HOST, env=env)
    assert (stranger.returncode, stranger.stdout) == (1, "")
    nameless = attempt("web-server", "nginx", "example.com", env=env)
    assert (nameless.returncode, nameless.stdout) == (1, "")


@pytest.mark.parametrize(
    ("endpoint", "path"),
    [
        ("https://a.example/new_email", "/new_email"),
        ("https://a.example/accounts/new", "/accounts/new"),
        ("https://a.example/", "/new_email"),
        ("", "/new_email"),
        ("https://a.example/a;b{", "/new_email"),
    ],
)
def test_the_path_of_accounts_is_that_of_the_setting(endpoint: str, path: str) -> None:
    assert webserver.path_of(endpoint) == path
