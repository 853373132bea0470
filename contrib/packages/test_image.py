"""The image for containers: built on a bare Debian, looked at, and run with a read-only root."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from packages.conftest import Record
from packages.images import CONTAINER, Image
from packages.machines import running
from tests.databases import run
from tests.processes import REPOSITORY, program, wait_until

ENV = {"AUTOMX_HOST": "automx.example.com", "AUTOMX_TLS_ASK_TOKEN": "secret-1"}
MEGABYTE = 1_000_000
ASK = (
    "import urllib.request as r; print(r.urlopen("
    "'http://127.0.0.1:4243/mail/config-v1.1.xml?emailaddress=a@example.com').read().decode())"
)


def size(folder: Path) -> int:
    """Return how many bytes the files of a folder have, each file once."""
    found = {}
    for top, _, names in os.walk(folder):
        for status in (Path(top, name).lstat() for name in names):
            found[status.st_dev, status.st_ino] = status.st_size
    return sum(found.values())


@pytest.mark.row("Image, built on a bare Debian 13 by buildah")
def test_the_image_serves_with_a_read_only_root(
    image: Image, tmp_path: Path, record_property: Record
) -> None:
    settings = image.settings
    assert settings["User"] == "4243:4243"
    assert settings["ExposedPorts"] == {"4243/tcp": {}}
    assert settings["Entrypoint"] == ["automx"]
    assert size(image.root) < 300 * MEGABYTE

    materials = json.loads((image.root / "opt/automx/share/sbom.cdx.json").read_text())
    listed = {each["name"].lower() for each in materials["components"]}
    assert {"automx", "flask", "granian", "psycopg-binary", "redis"} <= listed
    assert not {"pip", "build", "hatchling", "cyclonedx-bom"} & listed
    for name in ("pip", "gcc", "git", "make"):
        assert not list(image.root.glob(f"usr/bin/{name}")) + list(
            image.root.glob(f"opt/*/bin/{name}")
        )

    serve = " ".join(["automx", *settings["Cmd"]])  # type: ignore[misc]
    start = f"automx db upgrade && automx seed --sample && exec {serve}"
    with running(image.root, [*image.options, "sh", "-c", start], tmp_path / "log") as machine:
        check = settings["Healthcheck"]["Test"]  # type: ignore[index]
        assert check[0] == "CMD"
        health = shlex.join([f"/opt/automx/bin/{check[1]}", *check[2:]])
        wait_until(lambda: machine.attempt(health).returncode == 0, "the health of the container")
        answer = machine.run(f'/opt/automx/bin/python -c "{ASK}"')
        assert "<hostname>imap.example.com</hostname>" in answer
        owners = machine.run(
            "stat -c %u /proc/[0-9]*/cmdline 2>/dev/null | sort | uniq -c | sort -n"
        )
        assert "4243" in owners
        assert "Read-only file system" in machine.attempt("touch /opt/x").stderr
    record_property(
        "seen", f"{size(image.root) // MEGABYTE} MB, ran as 4243 with a read-only root, healthy"
    )


@pytest.mark.row("hadolint, yamllint, `caddy validate`, `docker-compose config`")
def test_linters_find_no_fault(record_property: Record) -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    assert run([str(hadolint), str(CONTAINER / "Dockerfile")], "") == ""
    yamllint = [program("yamllint", "yamllint"), "--strict", "--config-file"]
    rules, compose = CONTAINER / "yamllint.yaml", CONTAINER / "compose.yaml"
    assert run([*yamllint, str(rules), str(compose), str(rules)], "") == ""
    for command in (
        [program("caddy", "caddy"), "validate", "--adapter=caddyfile", "--config"],
        [program("docker-compose", "docker-compose"), "--file"],
    ):
        is_caddy = "validate" in command
        words = [str(CONTAINER / "Caddyfile")] if is_caddy else [str(compose), "config"]
        subprocess.run(
            [*command, *words], env=os.environ | ENV, check=True, capture_output=True, text=True
        )
    record_property("seen", "no fault")


def test_compose_has_no_defaults_for_what_only_the_administrator_knows() -> None:
    compose = [
        program("docker-compose", "docker-compose"),
        "--file",
        str(CONTAINER / "compose.yaml"),
    ]
    for name in ENV:
        env = {key: value for key, value in (os.environ | ENV).items() if key != name}
        result = subprocess.run(
            [*compose, "config"], env=env, capture_output=True, text=True, check=False
        )
        assert result.returncode != 0
        assert name in result.stderr


def test_caddy_of_compose_does_what_that_of_contrib_does() -> None:
    ours = (CONTAINER / "Caddyfile").read_text()
    theirs = (REPOSITORY / "contrib" / "Caddyfile.on-demand").read_text()
    lines = {line.strip() for line in theirs[theirs.index("{\n") :].splitlines()} ^ {
        line.strip() for line in ours[ours.index("{\n") :].splitlines()
    }
    assert {line for line in lines if not line.startswith("#")} == {
        "ask http://127.0.0.1:4243/tls/ask",
        "ask http://automx:4243/tls/ask?token={$AUTOMX_TLS_ASK_TOKEN}",
        "reverse_proxy 127.0.0.1:4243 {",
        "reverse_proxy automx:4243 {",
    }
