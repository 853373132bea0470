"""The configuration of a web server in front of automx: a file of ``contrib``, filled in.

The files of ``contrib`` are the only source: what administrators would change in them, at the lines
marked CHANGE, is put in here.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from automx import dns
from automx.clientconfig import ClientConfig
from automx.errors import SettingsError

WEBROOT = "/var/www/html"  # where certbot proves that a name is ours
# A longer name does not fit into server_names_hash_bucket_size of nginx, which is 64 by default.
_LONGEST_NAME = 46
MAX_NAMES = 100  # that Let's Encrypt takes for one certificate


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of web server: its file in contrib, its place, and the command that loads it."""

    file: str
    target: str
    load: str
    gets_certificates: bool = False


KINDS = {
    "nginx": Kind(
        "nginx.conf", "/etc/nginx/conf.d/automx.conf", "nginx -t && systemctl reload nginx"
    ),
    "apache": Kind(
        "apache.conf",
        "/etc/apache2/sites-available/automx.conf",
        "a2enmod ssl proxy proxy_http headers macro rewrite && a2ensite automx"
        " && apachectl configtest && systemctl restart apache2",
    ),
    "caddy": Kind(
        "Caddyfile",
        "/etc/caddy/Caddyfile",
        "caddy validate --config /etc/caddy/Caddyfile && systemctl reload caddy",
        gets_certificates=True,
    ),
}
_MAIL_DOMAIN = "# The paths that clients ask on the mail domain itself."
_EXAMPLE = "example.com"
_ACCOUNT_PATH = "/new_email"
LISTENS = "127.0.0.1:4243"


@dataclass(frozen=True, slots=True)
class Site:
    """What is put into a file.

    ``host`` is the public host name, ``domains`` are mail domains and ``names`` the host names that
    the web server has for them and for itself, all as A-labels. ``certificate`` is the name of
    certbot's certificate, ``listens`` where automx listens, as HOST:PORT. With ``has_domains``, the
    web server answers at the mail domains themselves, too; Delta Chat accounts are made at
    ``account_path`` there.
    """

    host: str
    domains: Sequence[str]
    names: Sequence[str]
    certificate: str = "automx-1"
    listens: str = LISTENS
    has_domains: bool = False
    account_path: str = _ACCOUNT_PATH

    def certified(self) -> list[str]:
        """Return the host names that need a certificate and can have one, each once."""
        names = dict.fromkeys([*self.names, *(self.domains if self.has_domains else ())])
        return list(filter(dns.is_certifiable, names))


def names_of(configs: Iterable[ClientConfig], host: str) -> list[str]:
    """Return the public host, and the host names that DNS has for domains, each once."""
    found = [record for config in configs for record in dns.records(config, host)]
    return [*dict.fromkeys([host, *(each.name for each in found if each.type == "CNAME")])]


def path_of(web_endpoint: str) -> str:
    """Return the path of the setting, the usual one if it is another kind of path, or none."""
    path = urlsplit(web_endpoint).path.rstrip("/")
    return path if re.fullmatch(r"(/[\w.~-]+)+", path, re.ASCII) else _ACCOUNT_PATH


def configuration(kind: str, site: Site) -> str:
    """Return the configuration of a kind of web server. Raises SettingsError without contrib."""
    path = _contrib() / KINDS[kind].file
    try:
        text = path.read_text()
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}") from error
    begin, mark, domain_part = text.partition(_MAIL_DOMAIN)
    head, _, begin = _without_instructions(begin).partition("\n")
    fill = {"nginx": _nginx, "apache": _apache, "caddy": _caddy}[kind]
    found = fill(begin, site)
    # A public host that is a mail domain as well has all paths already.
    others = [domain for domain in site.domains if domain not in site.names]
    if site.has_domains and others:
        found += fill(f"{mark}{domain_part}", replace(site, domains=others))
    elif "UndefMacro" in domain_part:
        found += domain_part[domain_part.index("UndefMacro") :]
    domains = ", ".join(site.domains)
    note = f"# For {domains}, at {site.host}; written by automx from its {path.name}."
    return f"{head}\n{note}\n{found.rstrip()}\n"


def certbot(kind: str, site: Site) -> str:
    """Return the command that gets the certificate, and changes nothing if it is there.

    It is "" for a web server that does so itself, and for names that no authority certifies.
    """
    names = " ".join(f"-d {name}" for name in site.certified())
    if KINDS[kind].gets_certificates or not names:
        return ""
    how = f"--keep-until-expiring --webroot -w {WEBROOT} --cert-name {site.certificate}"
    return f"certbot certonly {how} {names}"


def _contrib() -> Path:
    """Return the folder contrib: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent
    for folder in (package / "contrib", package.parent / "contrib"):
        if (folder / "nginx.conf").is_file():
            return folder
    raise SettingsError(f"the files of contrib are missing from {package}")


def _without_instructions(text: str) -> str:
    """Return a file without the paragraph of its head that says what to do with it."""
    first, _, rest = text.partition("\n#\n# Copy it to ")
    return f"{first}\n#\n{rest.partition(chr(10) + '#' + chr(10))[2]}"


def _nginx(text: str, site: Site) -> str:
    text = re.sub(r"(?m)^ *# listen .*# CHANGE: .*\n", "", text)
    text = re.sub(r" +# CHANGE(: .*)?$", "", text, flags=re.MULTILINE)
    names = "autoconfig.* autodiscover.* ua-auto-config.*"
    with_host = _with_host(names, replace(site, host=_nginx_name(site.host)))
    text = text.replace(f"server_name {names};", f"server_name {with_host};")
    domains = " ".join(map(_nginx_name, site.domains))
    text = text.replace(f"server_name {_EXAMPLE};", f"server_name {domains};")
    return _common(text, site)


def _nginx_name(name: str) -> str:
    """Return a name for ``server_name``: nginx refuses long ones that are no pattern."""
    return name if len(name) <= _LONGEST_NAME else rf"~^{re.escape(name)}$"


def _apache(text: str, site: Site) -> str:
    text = re.sub(r"(?m)^# Behind another proxy that speaks plain HTTP: CHANGE .*\n", "", text)
    names = "autoconfig.* autodiscover.* ua-auto-config.*"
    text = text.replace(f"ServerAlias {names}", f"ServerAlias {_with_host(names, site)}")
    text = text.replace(f"autoconfig.{_EXAMPLE}", f"autoconfig.{site.domains[0]}")
    others = "".join(f"\n    ServerAlias {domain}" for domain in site.domains[1:])
    text = text.replace(f"ServerName {_EXAMPLE}", f"ServerName {site.domains[0]}{others}")
    return _common(text, site)


def _caddy(text: str, site: Site) -> str:
    text = re.sub(r"(?m)^\t+# CHANGE: behind another proxy.*\n(\t+# [\w:-]+ .*\n)+", "", text)
    names = ", ".join(dns.host_names(_EXAMPLE))
    text = text.replace(f"\n{names} {{", f"\n{', '.join(site.names)} {{")
    text = text.replace(f"\n{_EXAMPLE} {{", f"\n{', '.join(site.domains)} {{")
    return _common(text, site)


def _common(text: str, site: Site) -> str:
    folder = f"/etc/letsencrypt/live/{site.certificate}"
    text = text.replace("/etc/ssl/certs/automx.pem", f"{folder}/fullchain.pem")
    text = text.replace("/etc/ssl/private/automx.key", f"{folder}/privkey.pem")
    path = re.escape(site.account_path.removeprefix("/"))
    text = text.replace(_ACCOUNT_PATH.removeprefix("/"), path)
    text = re.sub(r"CHANGE: (\w)", lambda match: match[1].upper(), text)
    text = text.replace(f"https://{_EXAMPLE}/", f"https://{site.domains[0]}/")
    return text.replace(LISTENS, site.listens)


def _with_host(names: str, site: Site) -> str:
    is_among = site.host.partition(".")[0] in dns.SERVICE_HOSTS
    return names if is_among else f"{names} {site.host}"
