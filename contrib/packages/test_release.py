"""The workflow of releases: its shell commands, in a fresh checkout on a bare Debian 12.

Commit and tag are made as CONTRIBUTING.md says; a key of this test signs the tag and the sums. What
GitHub does is not tried: its actions, and the signatures of Sigstore.
"""

import contextlib
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from automx import __version__
from packages.conftest import Record
from packages.machines import bootstrap, repository, with_index
from tests.databases import run
from tests.processes import REPOSITORY, program

TAG = f"v{__version__}"
GUIDE = (REPOSITORY / "CONTRIBUTING.md").read_text()
JOBS = yaml.safe_load((REPOSITORY / ".github/workflows/release.yml").read_text())["jobs"]
ADDRESS = "you@example.org"
# What the action for a checkout does: the commit of the tag alone, in a folder of another user.
CHECKOUT = f"""\
git clone --quiet --depth 1 --branch {TAG} file:///srv/automx.git "$GITHUB_WORKSPACE"
chown -R 1001:1001 "$GITHUB_WORKSPACE"
cd "$GITHUB_WORKSPACE"
"""


@contextlib.contextmanager
def key(home: Path) -> Iterator[dict[str, str]]:
    """Make a key that lives as long as the block; yield the environment that has it."""
    home.mkdir(mode=0o700)
    person = {"GIT_AUTHOR_NAME": "A", "GIT_AUTHOR_EMAIL": ADDRESS}
    person |= {name.replace("AUTHOR", "COMMITTER"): value for name, value in person.items()}
    env = os.environ | person | {"GNUPGHOME": str(home), "DEBEMAIL": ADDRESS}
    make = [program("gpg", "gnupg"), "--batch", "--quiet", "--passphrase", ""]
    try:
        subprocess.run([*make, "--quick-generate-key", f"A <{ADDRESS}>"], env=env, check=True)
        yield env
    finally:
        subprocess.run([program("gpgconf", "gpgconf"), "--kill", "all"], env=env, check=False)


def told(start: str) -> str:
    """Return the command of the guide for releases that begins so."""
    [found] = re.findall(rf"`({re.escape(start)}[^`]*)`", GUIDE.replace("v1.0.0", TAG))
    return str(found)


def script() -> str:
    """Return the commands of the job that builds, as GitHub runs them."""
    lines = [
        "set -e",
        "export GITHUB_WORKSPACE=/srv/automx",
        f"export GITHUB_REF_NAME={TAG}",
    ]
    for step in JOBS["build"]["steps"]:
        if "run" in step:
            env = step.get("env", {}).items()
            values = [(name, re.sub(r"\$\{\{.*?\}\}", "me", value)) for name, value in env]
            lines += [f"export {name}={shlex.quote(value)}" for name, value in values]
            lines.append(step["run"])
        elif step["uses"].startswith("actions/checkout@"):
            lines.append(CHECKOUT)
    return "\n".join(lines)


@pytest.mark.row("`release.yml`: its commands on a bare Debian 12")
def test_a_signed_tag_becomes_a_release(tmp_path: Path, record_property: Record) -> None:
    origin = repository(tmp_path)
    clone, root = tmp_path / "clone", tmp_path / "root"
    run(["git", "clone", "--quiet", str(tmp_path / "automx.git"), str(clone)], "")
    page, title = clone / "CHANGELOG.md", f"## [{__version__}] - "
    day = f"{title}{datetime.now(UTC):%Y-%m-%d}"
    page.write_text(page.read_text().replace(f"{title}unreleased", day))
    with key(tmp_path / "key") as env:

        def entered(command: str) -> str:
            words = ["bash", "-euc", f"{command} 2>&1"]
            done = subprocess.run(words, cwd=clone, env=env, stdout=-1, text=True, check=False)
            assert done.returncode == 0, done.stdout
            return done.stdout

        entered("git checkout --quiet -B main")
        entered(told("git commit --all"))
        entered(told("git tag --sign"))
        entered(told("git push origin main"))
        assert "Good signature" in entered(f"git verify-tag {TAG}")
        try:
            bootstrap(JOBS["build"]["container"]["image"].partition(":")[2], root)
            with_index(root, script(), origin)
            shutil.copytree(root / "srv/automx/dist", clone / "dist")
        finally:
            shutil.rmtree(root)
        jobs = JOBS["publish"]["steps"]
        [check] = [step["run"] for step in jobs if step.get("name", "").startswith("Check")]
        assert entered(check).count(": OK\n") == 3
        entered(told("gpg --armor --detach-sign"))
        assert "Good signature" in entered("gpg --verify dist/SHA256SUMS.asc dist/SHA256SUMS")
    names = sorted(path.name for path in (clone / "dist").iterdir())
    assert names == [
        "SHA256SUMS",
        "SHA256SUMS.asc",
        f"automx-{__version__}-py3-none-any.whl",
        f"automx-{__version__}.tar.gz",
        f"automx_{__version__}_amd64.deb",
    ]
    record_property("seen", "wheel, source and Debian package, sums, signed by a key of this test")
