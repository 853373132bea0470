"""compose.yaml without an engine: each service with its command, environment, secrets and health.

No registry of images can be asked. The services of automx run in the built image; PostgreSQL, Redis
and Caddy are those of this machine. All share a network that leads nowhere, in which each service
has a name. The only change: Caddy issues the certificates itself.
"""

import contextlib
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from packages.conftest import PAGE, Record
from packages.images import CONTAINER, Image
from packages.machines import Machine, nspawn, running
from tests.databases import run
from tests.processes import inner_process, own_mounts, program, wait_until
from tests.processes import running as started
from tests.test_docs import blocks

NAMES = {"postgresql": "127.0.0.2", "redis": "127.0.0.3", "automx": "127.0.0.4"}
CADDY = "127.0.0.5"
ASK = "/mail/config-v1.1.xml?emailaddress=alice@example.com"
NETWORK = """\
set -eu
ip link set lo up
touch "$1"
exec sleep infinity
"""
INSIDE = """\
set -eu
mount --bind "$0" /etc/hosts
exec "$@"
"""
NO_SOURCE = """\
Usage: automx sync [OPTIONS] [NAME...]
Try 'automx sync --help' for help.

automx: The settings have no section [source.NAME].
"""
# A shell goes on when what it waits for has ended.
WAKE = "kill $(grep -lx sleep /proc/[0-9]*/comm | cut -d / -f 3)"
ROW = pytest.mark.row("`compose.yaml`: its services without an engine")


def settings(folder: Path) -> dict[str, Any]:
    """Return the services as Compose reads them, after the first commands of the page.

    The folder gets what these commands write.
    """
    [text] = [text for _, text in blocks(PAGE) if text.startswith("cd contrib/packages/container")]
    shutil.copytree(CONTAINER, folder / "contrib/packages/container")
    run(["bash", "-euc", f"cd {shlex.quote(str(folder))}\n{text}"], "")
    where = ["--project-directory", str(folder / "contrib/packages/container")]
    file = str(folder / "contrib/packages/container/compose.yaml")
    command = [
        program("docker-compose", "docker-compose"),
        *where,
        "--file",
        file,
        "--profile",
        "sync",
        "config",
    ]
    services: dict[str, Any] = yaml.safe_load(run(command, ""))["services"]
    return services


@dataclass(frozen=True)
class Compose:
    """The services, their network, and what they share; ``process`` holds the network."""

    folder: Path
    services: Mapping[str, Any]
    process: int
    image: Image

    @property
    def secrets(self) -> Path:
        return self.folder / "contrib/packages/container/secrets"

    def beside(self, *command: str) -> list[str]:
        """Return the command that runs a program of this machine in the network."""
        enter = [program("nsenter", "util-linux"), f"--net=/proc/{self.process}/ns/net"]
        hosts = str(self.folder / "hosts")
        return [*enter, *own_mounts(), "sh", "-c", INSIDE, hosts, *command]

    def is_healthy(self, name: str, env: Mapping[str, str] = os.environ) -> bool:
        """Ask a program of this machine for its health, in the words of its service."""
        kind, *words = self.services[name]["healthcheck"]["test"]
        assert kind == "CMD"
        asked = subprocess.run(self.beside(*words), env=env, capture_output=True, check=False)
        return asked.returncode == 0

    def container(self, name: str) -> tuple[list[str], str]:
        """Return what systemd-nspawn does with a service of the built image, and its network."""
        service = self.services[name]
        options = [*self.image.options, f"--bind-ro={self.folder / 'hosts'}:/etc/hosts"]
        options += [f"--setenv={key}={value}" for key, value in service["environment"].items()]
        for secret in (each["source"] for each in service["secrets"]):
            options.append(f"--bind-ro={self.secrets / secret}:/run/secrets/{secret}")
        options += ["--drop-capability=all", "--no-new-privileges=yes"]
        words = [*service.get("entrypoint", ["automx"]), *service.get("command", [])]
        return [*options, *words], f"--network-namespace-path=/proc/{self.process}/ns/net"

    @contextlib.contextmanager
    def service(self, name: str) -> Iterator[Machine]:
        """Run a service of the built image until the block ends."""
        options, network = self.container(name)
        with running(self.image.root, options, self.log(name), network) as machine:
            yield machine

    def exec(self, machine: Machine, name: str, script: str) -> str:
        """Run shell commands in a running service, as ``docker compose exec`` does."""
        variables = [*self.image.settings["Env"]]  # type: ignore[misc]
        variables += [f"{key}={value}" for key, value in self.services[name]["environment"].items()]
        user = "setpriv --reuid=4243 --regid=4243 --clear-groups --no-new-privs"
        command = ["env", "-i", *variables, "sh", "-euc", script]
        return machine.run(f"cd /var/lib/automx\n{user} {shlex.join(command)}")

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def said(self, name: str) -> str:
        """Return the log of a service, without what its shell says of sleeps that were ended."""
        return self.log(name).read_text().replace("Terminated\n", "")

    def wait_for(self, name: str, log: str) -> None:
        """Wait until the log of a service begins so."""
        wait_until(lambda: self.said(name).startswith(log), f"{name}: {log}")


@contextlib.contextmanager
def postgresql(compose: Compose) -> Iterator[None]:
    """Run PostgreSQL as its image does with these settings, until its health is good."""
    service = compose.services["postgresql"]
    variables = service["environment"]
    secret = compose.secrets / Path(variables["POSTGRES_PASSWORD_FILE"]).name
    programs = max(Path("/usr/lib/postgresql").glob("*/bin"))
    folder = compose.folder / "postgresql"
    folder.mkdir()
    (folder / "password").write_text(secret.read_text())
    for path in (folder, folder / "password"):
        shutil.chown(path, "postgres", "postgres")
    user = [program("setpriv", "util-linux"), "--reuid=postgres", "--regid=postgres"]
    user.append("--clear-groups")
    initdb = [*user, str(programs / "initdb"), f"--username={variables['POSTGRES_USER']}"]
    initdb += [f"--pwfile={folder}/password", "--auth-host=scram-sha-256", "--auth-local=trust"]
    run([*initdb, "--no-sync", f"--pgdata={folder}/data"], "")
    options = [f"listen_addresses={NAMES['postgresql']}", f"unix_socket_directories={folder}"]
    words = [word for option in options for word in ("-c", option)]
    server = compose.beside(*user, str(programs / "postgres"), "-D", f"{folder}/data", *words)
    is_healthy = partial(compose.is_healthy, "postgresql", os.environ | {"PGHOST": str(folder)})
    with started(server, folder / "log", ready=is_healthy, cwd=folder):
        create = [f"--username={variables['POSTGRES_USER']}", variables["POSTGRES_DB"]]
        run([str(programs / "createdb"), f"--host={folder}", *create], "")
        yield


@contextlib.contextmanager
def redis(compose: Compose) -> Iterator[None]:
    """Run Redis with the words and as the user of its service, until its health is good."""
    service = compose.services["redis"]
    owner, group = service["user"].split(":")
    user = [program("setpriv", "util-linux"), f"--reuid={owner}", f"--regid={group}"]
    user += ["--clear-groups", "--no-new-privs", "--bounding-set=-all"]
    server = compose.beside(*user, *service["command"])
    is_healthy = partial(compose.is_healthy, "redis")
    with started(server, compose.log("redis"), ready=is_healthy, cwd=Path("/")):
        yield


@contextlib.contextmanager
def caddy(compose: Compose) -> Iterator[Path]:
    """Run Caddy with the file of its service; yield the authority that it is."""
    mount = next(each for each in compose.services["caddy"]["volumes"] if "Caddyfile" in each)
    text = Path(mount.partition(":")[0]).read_text()
    folder = compose.folder / "caddy"
    folder.mkdir()
    changed = text.replace("{\n", "{\n\tlocal_certs\n\tskip_install_trust\n", 1)
    (folder / "Caddyfile").write_text(changed)
    command = [program("caddy", "caddy"), "run", "--config", str(folder / "Caddyfile")]
    env = dict.fromkeys(("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"), str(folder))
    env |= compose.services["caddy"]["environment"]
    root = folder / "caddy/pki/authorities/local/root.crt"
    server = compose.beside(*command, "--adapter", "caddyfile")
    with started(server, compose.log("caddy"), ready=root.exists, env=env):
        yield root


@pytest.fixture(scope="module")
def compose(image: Image) -> Iterator[Compose]:
    """The network with PostgreSQL and Redis; the tables are made by the service for them."""
    with tempfile.TemporaryDirectory(prefix="automx-") as name:  # other users reach it
        folder = Path(name)
        folder.chmod(0o755)
        lines = [f"{address} {name}\n" for name, address in NAMES.items()]
        (folder / "hosts").write_text("".join(["127.0.0.1 localhost\n", *lines]))
        command = own_mounts("--net", "--fork", "--kill-child")
        command += ["sh", "-c", NETWORK, "sh", str(folder / "ready")]
        ready = str(folder / "ready")
        with inner_process(command, folder / "network.log", ready, "a network") as process:
            compose = Compose(folder, settings(folder), process, image)
            with postgresql(compose), redis(compose):
                yield compose


@pytest.fixture(scope="module")
def automx(compose: Compose) -> Iterator[Machine]:
    """The service automx, after that of the tables, until its health is good."""
    options, network = compose.container("schema")
    command = [*nspawn(compose.image.root), network, "--console=pipe", *options]
    assert "The database is up to date" in run(command, "")
    health = compose.image.settings["Healthcheck"]["Test"]  # type: ignore[index]
    with compose.service("automx") as machine:
        check = shlex.join([f"/opt/automx/bin/{health[1]}", *health[2:]])
        wait_until(lambda: machine.attempt(check).returncode == 0, "the health of automx")
        document = (CONTAINER.parents[1] / "seeds/provider.json").read_text()
        seed = f"automx seed - <<'END'\n{document}END\n"
        assert compose.exec(machine, "automx", seed).startswith("Added 1 provider, 2 domains")
        yield machine


@ROW
def test_automx_has_the_database_and_counts_in_redis(
    compose: Compose, automx: Machine, record_property: Record
) -> None:
    assert compose.exec(automx, "automx", "automx domain list --names") == (
        "example.com\nexample.net\n"
    )
    secret = (compose.secrets / "db_uri").read_text().strip()
    assert secret.startswith("postgresql://automx:")
    assert secret not in compose.exec(automx, "automx", "cat /proc/self/environ")
    account = ["--request", "POST", "http://automx:4243/new_email?t=none"]
    run(compose.beside("curl", "--silent", *account), "")
    assert int(run(compose.beside("redis-cli", "--raw", "dbsize"), "")) > 0
    record_property("seen", "tables, automx")


@ROW
@pytest.mark.parametrize(("name", "said"), [("prune", "Nothing to do.\n"), ("sync", NO_SOURCE)])
def test_a_service_does_its_work_again_and_again(
    compose: Compose, automx: Machine, name: str, said: str, record_property: Record
) -> None:
    with compose.service(name) as machine:
        for number in (1, 2):
            compose.wait_for(name, said * number)
            wait_until(lambda: machine.attempt(WAKE).returncode == 0, "its sleep")
        assert compose.said(name).replace(said, "") == ""
    record_property("seen", name)


def ask(compose: Compose, authority: Path, name: str) -> "subprocess.CompletedProcess[str]":
    """Ask Caddy for the document of the example at a name, as a client does."""
    where = ["--resolve", f"{name}:443:{CADDY}", "--cacert", str(authority)]
    command = compose.beside("curl", "--silent", "--show-error", *where, f"https://{name}{ASK}")
    return subprocess.run(command, capture_output=True, text=True, check=False)


@ROW
def test_caddy_has_certificates_for_names_of_domains_only(
    compose: Compose, automx: Machine, record_property: Record
) -> None:
    with caddy(compose) as authority:
        for name in ("autoconfig.example.com", "automx.example.org"):
            answer = ask(compose, authority, name)
            assert "<hostname>mail.example.com</hostname>" in answer.stdout, answer.stderr
        refused = ask(compose, authority, "autoconfig.example.edu")
        assert refused.returncode == 35, refused.stderr  # of the handshake
    record_property("seen", "Caddy")
