"""The other Pythons that automx promises to support: what needs no server works there, too."""

import pytest

from tests.pythons import DEBIAN, debian_python, on_the_path, python

# Tests that start no program.
QUICK = (
    "address", "autoconfig", "autodiscover", "autodiscover_newer", "duration", "lookup",
    "mobileconfig", "models", "page", "seeddocument", "templates", "tokens", "wellknown",
)  # fmt: skip


@pytest.mark.parametrize("name", [DEBIAN, *on_the_path()])
def test_quick_tests_pass_on_other_pythons(name: str) -> None:
    other = debian_python() if name == DEBIAN else python(name)
    # What assertions show is known from the other runs: to rewrite them takes half of the time.
    options = ["-q", "-p", "no:cacheprovider", "--assert=plain"]
    options += ["-k", "not postgresql and not mariadb"]
    result = other.run("-m", "pytest", *options, *(f"tests/test_{name}.py" for name in QUICK))
    assert result.returncode == 0, f"{result.stdout[-8000:]}\n{result.stderr[-2000:]}"
