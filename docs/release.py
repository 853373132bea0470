"""Says whether a release may be made: tag, version, CHANGELOG.md and all files agree.

``make release`` runs it before it builds, and then with the files that were built.
"""

import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path

from packaging.metadata import Metadata
from packaging.version import InvalidVersion, Version

ROOT = Path(__file__).parent.parent

_VERSION = re.compile(r'(?m)^__version__ = "(.*)"$')
_HEADING = re.compile(r"(?m)^## \[(.*?)\] - (.*)$")


def version(root: Path) -> str:
    """Return the version of a checkout."""
    found = _VERSION.search((root / "automx/__init__.py").read_text("utf-8"))
    return found[1] if found else ""


def newest(root: Path) -> tuple[str, str]:
    """Return version and date of the first section of CHANGELOG.md."""
    found = _HEADING.search((root / "CHANGELOG.md").read_text("utf-8"))
    return (found[1], found[2]) if found else ("", "")


def faults(root: Path, tag: str) -> Iterator[str]:
    """Yield why no release may be made of a checkout; ``tag`` is that of the release."""
    number, (changed, day) = version(root), newest(root)
    try:
        if str(Version(number)) != number:
            yield f"the version {number} must be written {Version(number)} (PEP 440)"
    except InvalidVersion:
        yield f'automx/__init__.py: "{number}" is no version'
    if tag != f"v{number}":
        yield f"the tag {tag} is not v{number}, by the version in automx/__init__.py"
    if changed != number:
        yield f"CHANGELOG.md begins with {changed or 'no version'}, and the version is {number}"
    try:
        date.fromisoformat(day)
    except ValueError:
        yield f"CHANGELOG.md: {changed} needs the day of the release (YYYY-MM-DD), not: {day}"
    head = _git(root, "rev-parse", "HEAD")
    tagged = _git(root, "rev-parse", "--verify", "--quiet", f"refs/tags/{tag}^{{commit}}")
    if not tagged:
        yield f'there is no tag {tag}: git tag --sign {tag} --message "automx {number}"'
    elif tagged != head:
        yield f"the tag {tag} is at another commit: {tagged[:12]}, not {head[:12]}"
    if changes := _git(root, "status", "--porcelain"):
        yield f"there are changes without a commit: {'; '.join(changes.splitlines()[:5])}"


def _git(root: Path, *words: str) -> str:
    """Return what git prints, "" if it fails."""
    result = subprocess.run(
        ["git", "-C", str(root), *words], stdout=subprocess.PIPE, text=True, check=False
    )
    return result.stdout.strip() if result.returncode == 0 else ""


def faults_of_file(path: Path, number: str) -> Iterator[str]:
    """Yield what indexes of packages would refuse in a wheel or a source archive."""
    try:
        data = _metadata(path)
        found = Metadata.from_email(data)
    except ExceptionGroup as group:
        yield from (f"{path.name}: {error}" for error in group.exceptions)
        return
    except (KeyError, OSError, StopIteration, tarfile.TarError, zipfile.BadZipFile) as error:
        yield f"{path.name} cannot be read: {error!r}"
        return
    if str(found.version) != number:
        yield f"{path.name} has the version {found.version}, not {number}"
    if not found.description or found.description_content_type != "text/markdown":
        yield f"{path.name} has no README"


def _metadata(path: Path) -> bytes:
    """Return the metadata of a package, as PyPA's specifications of both formats place them."""
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as wheel:
            name = next(n for n in wheel.namelist() if n.endswith(".dist-info/METADATA"))
            return wheel.read(name)
    with tarfile.open(path) as archive:
        name = next(n for n in archive.getnames() if re.fullmatch("[^/]+/PKG-INFO", n))
        stream = archive.extractfile(name)
        return stream.read() if stream else b""


def main(words: Sequence[str]) -> int:
    """Check the checkout by ``--tag TAG``, or files; return the exit status."""
    if words[:1] == ["--tag"]:
        found = [*faults(ROOT, words[1] or f"v{version(ROOT)}")]
    else:
        number = version(ROOT)
        found = [fault for word in words for fault in faults_of_file(Path(word), number)]
        found += [] if words else ["no file was named"]
    sys.stderr.writelines(f"{fault}\n" for fault in found)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
