"""What is left to do before mail clients find a domain, as steps with commands to copy."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from shlex import quote

from automx import installation, webserver
from automx.check.finding import Finding, Level
from automx.config import Settings
from automx.config.files import File
from automx.installation import Service
from automx.webserver import Site

_WEB = ("https://", "http://", "POST https://")
_MAIL = ("imap ", "pop3 ", "smtp ")


@dataclass(frozen=True, slots=True)
class Step:
    """Something to do: what and why in one sentence, and the commands that do it."""

    text: str
    commands: tuple[str, ...] = ()
    is_web: bool = False  # whether it is about the web server


@dataclass(frozen=True, slots=True)
class Situation:
    """What the steps depend on.

    ``findings`` are the doctor's. ``is_served`` tells whether automx answers for the domain where
    ``site`` says that it listens, None if nothing answers there. ``has_address`` tells whether DNS
    gives an address for the public host. ``file`` is the configuration file, None without one.
    ``service`` runs automx, None if it is started by hand. ``is_large`` tells that there are more
    domains than fit into one certificate.
    """

    domain: str
    site: Site
    web_server: str
    settings: Settings
    findings: Sequence[Finding]
    is_served: bool | None
    has_address: bool
    file: File | None = None
    service: Service | None = None
    is_large: bool = False

    def errors(self) -> list[Finding]:
        """Return the findings for which mail clients fail."""
        return [finding for finding in self.findings if finding.level is Level.ERROR]

    def needs(self, *prefixes: str) -> bool:
        """Return whether an error has a subject that begins so."""
        return any(finding.subject.startswith(prefixes) for finding in self.errors())

    def needs_records(self) -> bool:
        """Return whether the zone lacks records that mail clients need."""
        names = [f.subject for f in self.errors() if not f.subject.startswith((*_WEB, *_MAIL))]
        is_own = (name == self.domain or name.endswith(f".{self.domain}") for name in names)
        return any(is_own) or not self.has_address


def remaining(situation: Situation) -> list[Step]:
    """Return what is left to do, in the order in which it should be done."""
    parts = (_settings, _service, _records, _web, _mail, _others)
    return [step for part in parts for step in part(situation)]


def _settings(situation: Situation) -> Iterator[Step]:
    settings = situation.settings
    wanted = {}
    if settings.public_host != situation.site.host:
        wanted["public_host"] = situation.site.host
    if not settings.proxy_count:
        wanted["proxy_count"] = "1"
    if not wanted:
        return
    # A variable takes the place of what the file says; a service has none of this shell.
    in_shell = {
        key: value
        for key, value in wanted.items()
        if situation.file is None
        or (situation.service is None and settings.given_by.get(key, "").startswith("environment"))
    }
    in_file = {key: value for key, value in wanted.items() if key not in in_shell}
    commands = []
    if situation.file is not None and in_file:
        commands.append(_edit(situation.file, in_file))
    if in_shell:
        words = " ".join(f"AUTOMX_{key.upper()}={value}" for key, value in in_shell.items())
        commands.append(f"export {words}")
    if situation.service is not None:
        commands.append(situation.service.restart)
    text = "Set " + " and ".join(f"{key} = {value}" for key, value in wanted.items())
    yield Step(f"{text}, then start automx again.", tuple(commands))


def _edit(file: File, wanted: Mapping[str, str]) -> str:
    """Return the command that sets keys in the section of automx in a file.

    A line that is there is changed, also a comment, but none of another section. The command may be
    run twice.
    """
    path = file.path.resolve()  # sed would replace a link
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError):
        text = ""
    name, place = file.section, quote(str(path))
    section = re.search(rf"(?m)^\[{name}\].*(\n(?!\[).*)*", text)
    lines = [f"{key} = {value}" for key, value in wanted.items()]
    if section is None:
        words = " ".join(quote(line) for line in ("", f"[{name}]", *lines))
        has_section = f"grep -q '^\\[{name}\\]' {place}"
        return f"{has_section} || printf '%s\\n' {words} >>{place}"
    begin = f"/^\\[{name}\\]/"
    parts = []
    for key, line in zip(wanted, lines, strict=True):
        line_of = next(
            (
                pattern
                for pattern in (rf"^{key}[ \t]*[=:]", f"^#* *{key} *=")
                if len(re.findall(f"(?im){pattern}", section[0])) == 1
            ),
            None,
        )
        if line_of:
            parts.append(f"-e '{begin},/^\\[/s|{line_of}.*|{line}|I'")
        else:  # what it has added before is taken away first
            parts.append(f"-e '{begin},/^\\[/{{/^{key}[ \\t]*[=:]/Id}}'")
            parts.append(f"-e '{begin}a {line}'")
    return f"sed -i {' '.join(parts)} {place}"


def _service(situation: Situation) -> Iterator[Step]:
    listens = situation.site.listens
    if situation.is_served is None:
        text = f"Start automx: nothing answers at {listens}."
        if situation.service is not None:
            yield Step(text, (situation.service.start,))
        else:
            page = installation.page("install.md")
            yield Step(f"{text} {page} makes it a service.", ("automx serve",))
    elif not situation.is_served:
        text = (
            f"What answers at {listens} does not know {situation.domain}: it is no automx, or one"
            " with another database. Compare db_uri."
        )
        yield Step(text, ("automx config",))


def _records(situation: Situation) -> Iterator[Step]:
    host = situation.site.host
    if not situation.has_address:
        text = f"Give {host} an address in DNS, that of the web server. This shows it:"
        yield Step(text, (f"dig +short {host} A {host} AAAA",))
    if situation.needs_records():
        text = f"Add the records above to the zone of {situation.domain}."
        yield Step(text, (f"automx dns {situation.domain} --host {host}",))


def _web(situation: Situation) -> Iterator[Step]:
    names_lack = situation.needs_records()
    if not (situation.needs(*_WEB) or names_lack):
        return
    kind = situation.web_server
    if not kind:
        text = "Put a web server with certificates in front of automx: nginx, apache or caddy."
        yield Step(text, (_print_command(situation, "nginx"),), is_web=True)
        return
    site = situation.site
    if situation.is_large:
        page = installation.page("tls.md")
        text = f"Let the web server get certificates for many domains, as {page} says."
        yield Step(text, ("automx names --all --resolving --format certbot",), is_web=True)
    elif command := webserver.certbot(kind, site):
        when = "When DNS has the names, get" if names_lack else "Get"
        yield Step(f"{when} a certificate, if there is none yet.", (command,), is_web=True)
    target = webserver.KINDS[kind].target
    command = f"{_print_command(situation, kind)} >{target}"
    text = f"Configure {kind}; see first what {target} holds, if it exists."
    yield Step(text, (command, webserver.KINDS[kind].load), is_web=True)


def _print_command(situation: Situation, kind: str) -> str:
    site = situation.site
    options = f" --listens {site.listens}" if site.listens != webserver.LISTENS else ""
    options += " --with-domain" if site.has_domains else ""
    return f"automx web-server {kind} {' '.join(site.domains)} --host {site.host}{options}"


def _mail(situation: Situation) -> Iterator[Step]:
    servers = dict.fromkeys(f.subject for f in situation.errors() if f.subject.startswith(_MAIL))
    for subject in servers:
        _, place, *_ = subject.split()
        yield Step(
            f"Repair the mail server {place}, as the line about {subject} says.",
            (f"automx server show {quote(place)}",),
        )


def _others(situation: Situation) -> Iterator[Step]:
    check = f"automx check {situation.domain} --host {situation.site.host}"
    if situation.errors():
        yield Step("Look again whether mail clients find everything.", (check,))
