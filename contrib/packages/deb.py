"""Builds the package for Debian: automx and its libraries for the Pythons of Debian 12 and 13.

``make deb`` runs it. It needs debhelper, and PyPI for the libraries of constraints.txt; the package
needs no network when it is installed. Below /usr/lib/automx it has one virtual environment for each
Python, and each Debian uses that of its own.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from email import message_from_string
from email.message import Message
from email.utils import formatdate
from pathlib import Path

from automx import __version__
from docs import manpages

REPOSITORY = Path(__file__).parents[2]
DEBIAN = Path(__file__).parent / "debian"
BUILD = REPOSITORY / "var" / "deb"
PYTHONS = ("3.13", "3.11")  # the first that a machine has is used
EXTRAS = "mysql,postgresql,redis"
# Debian's names of architectures, and those of PyPI's wheels.
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
PLATFORMS = ("manylinux_2_28", "manylinux_2_17", "manylinux2014")
LIBRARY = Path("usr/lib/automx")
UNITS = ("automx", "automx-backup", "automx-dns", "automx-prune", "automx-publish", "automx-sync")
COMPLETIONS = {
    "bash": "usr/share/bash-completion/completions/automx",
    "zsh": "usr/share/zsh/vendor-completions/_automx",
    "fish": "usr/share/fish/vendor_completions.d/automx.fish",
}
EXAMPLES = (
    "Caddyfile", "Caddyfile.on-demand", "apache.conf", "automx-certbot.service",
    "automx-certbot.timer", "certbot.sh", "grafana", "nginx-published.conf", "nginx.conf",
    "provider-sql.sh", "seeds",
)  # fmt: skip


def main() -> None:
    """Build the package of a version, by default automx's, into the folder dist."""
    version = sys.argv[1] if len(sys.argv) > 1 else __version__
    architecture = _output("dpkg", "--print-architecture")
    tree = BUILD / f"automx-{version}"
    shutil.rmtree(BUILD, ignore_errors=True)
    shutil.copytree(DEBIAN, tree / "debian")
    files = tree / "files"
    wheel = _wheel()
    for python in PYTHONS:
        _environment(files, wheel, python, MACHINES[architecture])
    _programs(files, tree / "debian")
    write_settings(files)
    write_units(files / "lib/systemd/system")
    _documents(files)
    words = {
        "ARCHITECTURE": architecture,
        "HOMEPAGE": _homepage(files),
        "MAINTAINER": _maintainer(),
        "PYTHONS": " | ".join(f"python{python}" for python in PYTHONS),
    }
    control = tree / "debian/control"
    if not words["HOMEPAGE"]:
        control.write_text(control.read_text().replace("Homepage: @HOMEPAGE@\n", ""))
    _fill(control, words)
    (tree / "debian/changelog").write_text(_changelog(version))
    (tree / "debian/copyright").write_text(_copyright(files))
    # Nothing is compiled: no compiler is needed, which dpkg asks for.
    _run("dpkg-buildpackage", "--build=binary", "--no-sign", "--no-check-builddeps", cwd=tree)
    for made in BUILD.glob("automx_*.deb"):
        (REPOSITORY / "dist").mkdir(exist_ok=True)
        sys.stdout.write(f"{shutil.copy(made, REPOSITORY / 'dist')}\n")


def _wheel() -> Path:
    _run(sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", BUILD, REPOSITORY)
    (path,) = BUILD.glob("automx-*.whl")
    return path


def _environment(files: Path, wheel: Path, python: str, machine: str) -> None:
    """Lay a virtual environment of a Python that this machine need not have."""
    folder = files / LIBRARY / f"python{python}"
    packages = folder / "lib" / f"python{python}" / "site-packages"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--quiet", "--no-compile"]
    pip += ["--disable-pip-version-check", "--retries=10", "--only-binary=:all:"]
    pip += [f"--target={packages}", f"--python-version={python}", "--implementation=cp"]
    pip += [f"--platform={platform}_{machine}" for platform in PLATFORMS]
    _run(*pip, f"--constraint={REPOSITORY / 'constraints.txt'}", f"{wheel}[{EXTRAS}]")
    for name in ("bin", "share"):  # programs of libraries, which nothing here calls
        shutil.rmtree(packages / name, ignore_errors=True)
    for record in packages.glob("*.dist-info/direct_url.json"):  # a path of this machine
        record.unlink()
    for module in packages.rglob("*.py"):  # some look like programs, which nothing here runs
        module.chmod(0o644)
    (folder / "bin").mkdir()
    (folder / "bin" / "python").symlink_to(f"/usr/bin/python{python}")
    shutil.copy(DEBIAN / "entry", folder / "bin" / "automx")
    (folder / "pyvenv.cfg").write_text(
        f"home = /usr/bin\ninclude-system-site-packages = false\nversion = {python}\n"
    )


def _programs(files: Path, debian: Path) -> None:
    folders = " ".join(f"python{python}" for python in PYTHONS)
    for name, path in (("launcher", LIBRARY / "automx"), ("command", Path("usr/bin/automx"))):
        _fill(debian / name, {"FOLDERS": folders})
        (files / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(debian / name, files / path)
        (files / path).chmod(0o755)
    for shell, name in COMPLETIONS.items():
        text = _output(Path(sys.executable).with_name("automx"), "completion", shell)
        (files / name).parent.mkdir(parents=True)
        (files / name).write_text(f"{text}\n")


def write_settings(files: Path) -> None:
    """Write the settings that docs/install.md ends up with, and the folders beside them."""
    text = (REPOSITORY / "contrib/automx.conf").read_text()
    for old, new in (
        ("#db_uri =\n", "db_uri = sqlite:////var/lib/automx/automx.sqlite\n"),
        ("#proxy_count = 0\n", "proxy_count = 1\n"),
    ):
        if f"\n{old}" not in text:
            raise LookupError(old)
        text = text.replace(f"\n{old}", f"\n{new}")
    folder = files / "etc/automx"
    folder.mkdir(parents=True)
    (folder / "automx.conf").write_text(text)
    (files / "var/lib/automx").mkdir(parents=True)


def write_units(folder: Path) -> None:
    """Write the units of contrib with the path of the package, without their installation."""
    folder.mkdir(parents=True)
    for path in sorted(REPOSITORY.glob("contrib/automx*")):
        if path.stem in UNITS and path.suffix in {".service", ".timer"}:
            text = path.read_text()
            text = text[text.index("[Unit]") :]
            text = text.replace("/srv/automx/bin/automx", f"/{LIBRARY}/automx")
            text = text.replace("file:///usr/local/src/automx/docs/install.md", "man:automx(1)")
            (folder / path.name).write_text(text)


def _documents(files: Path) -> None:
    manpages.write(files / "usr/share/man/man1")
    folder = files / "usr/share/doc/automx"
    folder.mkdir(parents=True)
    docs = REPOSITORY / "docs"
    for path in (*docs.glob("**/*.md"), *docs.glob("pictures/*"), REPOSITORY / "SECURITY.md"):
        place = folder / (path.relative_to(docs) if docs in path.parents else path.name)
        place.parent.mkdir(exist_ok=True)
        shutil.copy(path, place)
    for name in EXAMPLES:
        path = REPOSITORY / "contrib" / name
        (folder / "examples").mkdir(exist_ok=True)
        if path.is_dir():
            shutil.copytree(path, folder / "examples" / name)
        else:
            shutil.copy(path, folder / "examples")


def _metadata(files: Path) -> Iterator[Message]:
    """Yield what each library says of itself, in the order of the names."""
    packages = files / LIBRARY / f"python{PYTHONS[0]}/lib/python{PYTHONS[0]}/site-packages"
    for path in sorted(packages.glob("*.dist-info/METADATA")):
        yield message_from_string(path.read_text("utf-8"))


def _homepage(files: Path) -> str:
    """Return the address of the project, "" as long as it is not known."""
    (own,) = (each for each in _metadata(files) if each["Name"] == "automx")
    urls = dict(str(each).split(", ", 1) for each in own.get_all("Project-URL", []))
    return urls.get("Repository", "")


def _maintainer() -> str:
    """Return who builds it, as Debian's tools are told."""
    name, address = (os.environ.get(name) for name in ("DEBFULLNAME", "DEBEMAIL"))
    if not address:
        address = f"root@{_output('hostname', '--fqdn')}"
    return f"{name or 'automx packager'} <{address}>"


def _changelog(version: str) -> str:
    date = formatdate(int(_output("git", "-C", REPOSITORY, "log", "-1", "--format=%ct")))
    return (
        f"automx ({version}) stable; urgency=medium\n\n"
        "  * This release; /usr/share/doc/automx/changelog.gz tells what is new.\n\n"
        f" -- {_maintainer()}  {date}\n"
    )


def _copyright(files: Path) -> str:
    lines = [
        f"automx is under the Apache License, version 2.0. {_homepage(files)}".rstrip() + "\n\n",
        "Copyright 2026 the contributors to automx\n\n",
        "On Debian systems, the license is in /usr/share/common-licenses/Apache-2.0.\n\n",
        "These libraries are part of the package. The notices of copyright and the\n",
        "licenses of each are in its folder NAME-VERSION.dist-info below\n",
        f"/{LIBRARY}; the GNU Lesser General Public License, version 3, is also in\n",
        "/usr/share/common-licenses/LGPL-3. Their source is at PyPI, under name and version.\n\n",
    ]
    libraries = (each for each in _metadata(files) if each["Name"] != "automx")
    lines += [f"{each['Name']} {each['Version']}: {_license(each)}\n" for each in libraries]
    lines.append(
        "\npsycopg-binary holds libpq (PostgreSQL license) and the libraries that it needs, among\n"
        "them OpenSSL (Apache-2.0), Kerberos (MIT), OpenLDAP (OLDAP-2.8) and Cyrus SASL (BSD).\n"
        "cryptography holds OpenSSL (Apache-2.0); lxml holds libxml2 and libxslt (MIT).\n"
    )
    return "".join(lines)


def _license(metadata: Message) -> str:
    classifiers = metadata.get_all("Classifier", [])
    named = [each.rpartition(" :: ")[2] for each in classifiers if each.startswith("License ::")]
    words = metadata["License-Expression"] or metadata["License"] or ", ".join(named)
    if not words:
        raise LookupError(f"{metadata['Name']} names no license")
    return str(words)


def _fill(path: Path, words: Mapping[str, str]) -> None:
    text = path.read_text()
    for name, value in words.items():
        text = text.replace(f"@{name}@", value)
    path.write_text(text)


def _output(*command: str | Path) -> str:
    """Return what a command prints."""
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def _run(*command: str | Path, cwd: Path | None = None) -> None:
    """Run a command; what it says is shown only if it fails."""
    result = subprocess.run(
        command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if result.returncode != 0:
        sys.stderr.write(result.stdout)
        sys.exit(1)


if __name__ == "__main__":
    main()
