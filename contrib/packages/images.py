"""The image for containers, built on a bare Debian 13: no registry of images is asked."""

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from packages.machines import base
from tests.databases import run
from tests.processes import REPOSITORY, program

CONTAINER = Path(__file__).parent / "container"


@dataclass(frozen=True)
class Image:
    """A built image: its root folder, and its settings by the words of a Dockerfile."""

    root: Path
    settings: dict[str, object]

    @property
    def options(self) -> list[str]:
        """How systemd-nspawn runs it, as an engine does with ``--read-only``."""
        variables = self.settings["Env"]
        assert isinstance(variables, list)
        options = [f"--setenv={each}" for each in variables]
        state = "/var/lib/automx:uid=4243,gid=4243,mode=0750"
        options += ["--user=automx", "--read-only", "--tmpfs=/tmp", f"--tmpfs={state}"]
        return [*options, "--chdir=/var/lib/automx", "--as-pid2"]


@contextlib.contextmanager
def built_image(folder: Path) -> Iterator[Image]:
    """Build the image, which goes with the block; ``folder`` is an empty one for it."""
    if os.geteuid() != 0:
        pytest.fail("an image is built by root")
    env = os.environ | {"STORAGE_DRIVER": "vfs", "BUILDAH_ISOLATION": "chroot"}

    def buildah(*words: str | Path) -> str:
        where = [f"--root={folder}/storage", f"--runroot={folder}/run"]
        command = [program("buildah", "buildah"), *where, *map(str, words)]
        result = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr[-4000:]
        return result.stdout.strip()

    root = folder / "base"
    root.mkdir()
    run(
        [
            "tar",
            f"--directory={root}",
            "--exclude=./dev/*",
            "--extract",
            f"--file={base('trixie')}",
        ],
        "",
    )
    for name in ("resolv.conf", "ssl/certs/ca-certificates.crt"):
        shutil.copy(Path("/etc") / name, root / "etc" / name)
    container = buildah("from", "scratch")
    try:
        buildah("add", "--quiet", container, root, "/")
        buildah("commit", "--quiet", "--rm", container, "localhost/debian:bare")
        dockerfile = f"--file={CONTAINER / 'Dockerfile'}"
        options = ["--format=docker", "--network=host", "--build-arg=BASE=localhost/debian:bare"]
        buildah("bud", "--quiet", *options, dockerfile, "--tag=automx", REPOSITORY)
        built = buildah("from", "localhost/automx")
        described = json.loads(buildah("inspect", "--type=image", "localhost/automx"))
        yield Image(Path(buildah("mount", built)), described["Docker"]["config"])
    finally:
        buildah("rm", "--all")
        buildah("rmi", "--all", "--force")
