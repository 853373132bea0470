"""Writes where the project is into the files that name it; ``make reference`` runs it.

The table [project.urls] of pyproject.toml is the only place to set it. As long as an address is not
known, the files say how a reader finds it, and guess none.
"""

import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).parent.parent
IMAGE = ROOT / "contrib/packages/container/Dockerfile"

_BEGIN = "<!-- make reference writes where the project is -->\n"
_END = "<!-- end of it -->\n"
_CLONE = re.compile(r"(?m)^git clone \S+ ")
_SOURCE = "org.opencontainers.image.source="
_UNKNOWN = "ADDRESS"


@dataclass(frozen=True, slots=True)
class Project:
    """Where the project is: ``repository`` can be cloned, ``security`` takes reports.

    Both are URLs, "" if they are not known. ``name`` is that of the Python package.
    """

    name: str
    repository: str = ""
    security: str = ""

    @property
    def form(self) -> str:
        """The form for reports of security faults, "" if there is none."""
        if self.security.startswith("https:"):
            return self.security
        is_github = urlsplit(self.repository).hostname == "github.com"
        return f"{self.repository}/security/advisories/new" if is_github else ""

    @property
    def mail(self) -> str:
        """The mail address for reports of security faults, "" if there is none."""
        return self.security.partition("mailto:")[2]


def read(text: str) -> Project:
    """Return what pyproject.toml says. Raises ValueError for what is no address."""
    table = tomllib.loads(text)["project"]
    urls = table.get("urls", {})
    found = Project(table["name"], urls.get("Repository", ""), urls.get("Security", ""))
    for url, schemes in ((found.repository, ["https"]), (found.security, ["https", "mailto"])):
        if url and (urlsplit(url).scheme not in schemes or not url.isprintable() or " " in url):
            raise ValueError(f"[project.urls]: {url} must begin with {' or '.join(schemes)}:")
    return found


def _clone(project: Project, page: str) -> str:
    """Return a page with the address in its commands, and how it is found if it is not known."""
    address = project.repository.rstrip("/") or _UNKNOWN
    page = _CLONE.sub(f"git clone {address} ", page)
    text = (
        f"In place of `{_UNKNOWN}`, write the address of the page where you found automx; git can"
        " clone it. The project has no fixed\naddress yet.\n"
    )
    return _marked(page, "" if project.repository else text)


def _security(project: Project, page: str) -> str:
    """Return SECURITY.md with the way of a report."""
    ways = [f"by [this form]({project.form})"] if project.form else []
    ways += [f"by mail to <{project.mail}>"] if project.mail else []
    text = f"Report it privately, {' or '.join(ways)}.\n"
    if not ways:
        text = (
            "Report it privately, where you found automx. On GitHub, that is the tab *Security*,"
            " then *Report a\nvulnerability*. Elsewhere, ask the maintainers for a private way, and"
            " give no details before. There is no mail address for\nreports yet.\n"
        )
    return _marked(page, text)


def _marked(page: str, text: str) -> str:
    before, begin, rest = page.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not end:
        raise LookupError(_BEGIN)
    return before + begin + text + end + after


def _issues(project: Project, _: str) -> str:
    """Return the links beside the forms for issues."""
    links = ""
    if project.form:
        links += (
            f"  - name: A fault of security\n    url: {project.form}\n"
            "    about: Report it here, not in public.\n"
        )
    if project.repository:
        links += (
            f"  - name: The manual\n    url: {project.repository}#readme\n"
            "    about: Installation, everyday tasks, and the reference.\n"
        )
    head = "# make reference writes this file: docs/project.py\nblank_issues_enabled: true\n"
    return head + (f"contact_links:\n{links}" if links else "")


def _image(project: Project, text: str) -> str:
    """Return the file of the image, whose labels name the source if it is known."""
    text = re.sub(rf"(?m)^ +{re.escape(_SOURCE)}.*\n", "", text)
    if project.repository:
        label = f'      {_SOURCE}"{project.repository}" \\\n'
        text = re.sub(r"(?m)^LABEL .*\\\n", lambda found: found[0] + label, text, count=1)
    return text


FILES: Mapping[Path, Callable[[Project, str], str]] = {
    ROOT / "README.md": _clone,
    ROOT / "CONTRIBUTING.md": _clone,
    ROOT / "docs/install.md": _clone,
    ROOT / "SECURITY.md": _security,
    ROOT / ".github/ISSUE_TEMPLATE/config.yml": _issues,
    IMAGE: _image,
}


def current() -> Project:
    """Return where the project is, by pyproject.toml."""
    return read((ROOT / "pyproject.toml").read_text("utf-8"))


if __name__ == "__main__":
    for path, written in FILES.items():
        path.write_text(written(current(), path.read_text("utf-8")), "utf-8")
