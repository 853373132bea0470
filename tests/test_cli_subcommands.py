"""Commands that people guess: the answer names the one that they mean."""

import pytest

from tests.commandline import attempt

NOWHERE = {"AUTOMX_CONF": "/dev/null", "AUTOMX_DB_URI": "sqlite:////nowhere/automx.sqlite"}


@pytest.mark.parametrize(
    ("typed", "guess", "meant"),
    [
        ("domain remove a.example", "remove", "del"),
        ("domain rename a.example b.example", "rename", "set"),
        ("domain DEL a.example", "DEL", "del"),
        ("server delete 1", "delete", "del"),
        ("provider create", "create", "add"),
        ("service ls", "ls", "list"),
        ("directory edit 1", "edit", "set"),
        ("apikey del portal", "del", "revoke"),
        ("apikey show portal", "show", "list"),
        ("audit show 1", "show", "list"),
        ("token set oneday", "set", "mod"),
        ("token remove oneday", "remove", "del"),
        ("account new", "new", "add"),
        ("domains list", "domains", "domain"),
        ("Domain list", "Domain", "domain"),
    ],
)
def test_another_word_for_a_command_is_answered_with_ours(
    typed: str, guess: str, meant: str
) -> None:
    result = attempt(*typed.split(), env=NOWHERE)
    last = result.stderr.splitlines()[-1]
    expected = f"automx: No such command '{guess}'. Did you mean '{meant}'?"
    assert (result.returncode, result.stdout, last) == (2, "", expected)


@pytest.mark.parametrize("typed", ["domain frobnicate", "frobnicate", "--frobnicate"])
def test_a_word_for_no_command_suggests_none(typed: str) -> None:
    result = attempt(*typed.split(), env=NOWHERE)
    last = result.stderr.splitlines()[-1]
    assert (result.returncode, "Did you mean" in last) == (2, False)
