"""``automx dns-apply`` and real primary name servers: BIND, Knot and PowerDNS, with TSIG."""

import json
import re
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from dns import rdata
from dns.message import Message
from flask import Flask

from automx import config
from automx.database import open_session
from automx.errors import ConflictError, ElsewhereError, ZoneChangedError, ZoneError
from automx.formats import pacc
from automx.lookup import find
from automx.models import Server
from automx.moments import this_second
from automx.zones import plan as plans
from automx.zones import states
from automx.zones.apply import Options, Outcome, waits_of
from automx.zones.plan import Plan, SetChange
from automx.zones.primary import Primary
from automx.zones.rollover import Step
from tests.commandline import attempt, automx
from tests.directory import dripping_socket
from tests.examples import DOCUMENT
from tests.paccclients import Clients
from tests.processes import wait_until
from tests.zonekill import Run
from tests.zoneservers import HOST, KINDS, PARENT, ZoneServer, seeded, zone_server

START = datetime(2026, 11, 30, 8, tzinfo=UTC)


@pytest.fixture(scope="module", params=KINDS)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ZoneServer]:
    """One server of each kind, for all tests."""
    folder = tmp_path_factory.mktemp("zones") / request.param
    with zone_server(request.param, folder) as started:
        yield started


# For what does not depend on the kind of server.
one_server = pytest.mark.parametrize("server", ["knot"], indirect=True, scope="module")


@pytest.fixture
def domain(server: ZoneServer) -> str:
    """A domain of which the zone knows nothing."""
    return server.new_domain()


@pytest.fixture
def env(database: Path, server: ZoneServer, domain: str) -> dict[str, str]:
    """Settings of a database with the domain; caches have no time."""
    return seeded(server, database, domain)


@pytest.fixture
def run(env: dict[str, str], domain: str) -> Run:
    """The same as an object."""
    return Run(config.load(env), Options(HOST), domain)


def expected(domain: str, env: dict[str, str]) -> dict[tuple[str, str], list[str]]:
    """Return what ``automx dns`` prints: name and type -> data."""
    found: dict[tuple[str, str], list[str]] = {}
    for record in json.loads(automx("dns", domain, "--format", "json", env=env)):
        found.setdefault((record["name"], record["type"]), []).append(record["data"])
    return {key: sorted(data) for key, data in found.items()}


def in_zone(server: ZoneServer, keys: Any) -> dict[tuple[str, str], list[str]]:
    return {key: server.records(*key) for key in keys}


def settle(run: Run, now: datetime = START) -> datetime:
    """Apply a domain until nothing follows; return the time."""
    for _ in range(9):
        outcome = run.apply(now)
        if not outcome.is_waiting:
            return now
        assert outcome.after
        now = outcome.after.due_at or now
    pytest.fail(f"it does not end: {outcome.after}")


def change_rows(env: dict[str, str], host: str) -> None:
    """Give all domains another IMAP server."""
    with open_session(env["AUTOMX_DB_URI"]) as session:
        session.execute(Server.update().values(name=host).where(Server.c.type == "imap"))


def before_planning(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Do something once, when zone and state were read and the plan is not made yet."""
    make = plans.make

    def made(*arguments: Any, **options: Any) -> plans.Plan:
        monkeypatch.setattr(plans, "make", make)
        act()
        return make(*arguments, **options)

    monkeypatch.setattr(plans, "make", made)


def test_the_zone_gets_what_automx_dns_prints(
    server: ZoneServer, env: dict[str, str], domain: str, run: Run
) -> None:
    settle(run)
    wanted = expected(domain, env)
    assert in_zone(server, wanted) == wanted
    assert {ttl for key in wanted for _, ttl in server.answer(*key)} == {3600}
    assert not run.apply(START + timedelta(days=1))


@one_server
def test_the_plan_is_printed_and_nothing_done_without_a_yes(
    server: ZoneServer, env: dict[str, str], domain: str
) -> None:
    for arguments, status in ((["--dry-run"], 3), ([], 2), (["--json"], 2)):
        result = attempt("dns-apply", domain, *arguments, env=env)
        assert result.returncode == status
        assert f"_imaps._tcp.{domain}" in result.stdout
        assert server.records(f"_imaps._tcp.{domain}", "SRV") == []
        with open_session(env["AUTOMX_DB_URI"]) as session:
            assert states.read(session, domain) is None
    assert "say --yes to do it" in result.stderr


@one_server
def test_the_command_tells_the_next_step_and_then_nothing_is_left_to_do(
    server: ZoneServer, env: dict[str, str], domain: str
) -> None:
    env |= {"AUTOMX_ZONE_DELAY": "0s", "AUTOMX_ZONE_TTL": "1"}
    first = attempt("dns-apply", domain, "--yes", env=env)
    assert (first.returncode, first.stderr) == (3, "")
    lines = first.stdout.splitlines()
    assert lines[0] == f"{domain}, in the zone {PARENT}:"
    assert f"+ autoconfig.{domain}. CNAME {HOST}." in lines
    assert lines[-2].startswith(f"{domain}: the PACC document is stored; its digest follows after ")
    assert lines[-1] == "1 domain changed."
    again = json.loads(attempt("dns-apply", "--all", "--yes", "--json", env=env).stdout)
    [told] = again["domains"]
    assert (told["domain"], told["zone"], told["step"]) == (domain, PARENT, "pinned")
    assert again["next_step_at"] == told["next_step_at"]


def test_changed_rows_change_the_records_that_automx_has_written(
    server: ZoneServer, env: dict[str, str], domain: str, run: Run
) -> None:
    now = settle(run)
    change_rows(env, "new.example.com")
    outcome = run.apply(now)
    changed = {change.name: change.type for change in outcome.plan.changes}
    assert changed == {
        f"_imaps._tcp.{domain}": "SRV",
        f"_ua-auto-config.{domain}": "TXT",
        f"_automx.{domain}": "TXT",
    }
    assert server.records(f"_imaps._tcp.{domain}", "SRV") == ["0 1 993 new.example.com."]
    assert len(server.records(f"_ua-auto-config.{domain}", "TXT")) == 2
    settle(run, now)
    wanted = expected(domain, env)
    assert in_zone(server, wanted) == wanted


@one_server
def test_the_audit_tells_what_was_changed_in_the_zone_and_who_gave_a_domain_up(
    server: ZoneServer, env: dict[str, str], domain: str
) -> None:
    env["SUDO_USER"] = "alice"
    attempt("dns-apply", domain, "--yes", env=env)
    attempt("dns-apply", domain, "--yes", env=env)
    automx("dns-apply", domain, "--yes", "--abandon", env=env)
    entries = json.loads(automx("audit", "list", "--domain", domain, "--json", env=env))
    found = [each for each in entries if each["action"] in {"records", "abandon"}]
    assert {(each["actor"], each["kind"], each["name"]) for each in found} == {
        ("user:alice", "domain", domain)
    }
    details = {each["action"]: each["details"] for each in found}
    assert len(found) == len(details) == 2
    assert details["records"]["zone"] == PARENT
    assert details["records"]["changes"][0] == {
        "name": f"autoconfig.{domain}",
        "type": "CNAME",
        "removed": [],
        "added": [f"{HOST}."],
        "ttl": 3600,
    }


def test_a_new_ttl_is_that_of_all_records_then(
    server: ZoneServer, env: dict[str, str], domain: str, run: Run
) -> None:
    now = settle(run)
    server.add(f"_caldavs._tcp.{domain}", "TXT", '"of somebody else"', ttl=77)
    short = replace(run, settings=config.load(env | {"AUTOMX_ZONE_TTL": "60"}))
    outcome = short.apply(now)
    assert len(outcome.plan.changes) == len(expected(domain, env))
    wanted = expected(domain, env)
    assert in_zone(server, wanted) == wanted
    assert {ttl for key in wanted for _, ttl in server.answer(*key)} == {60}
    assert not short.apply(now)
    assert server.answer(f"_caldavs._tcp.{domain}", "TXT") == [('"of somebody else"', 77)]


def test_a_domain_without_changes_costs_three_questions(
    server: ZoneServer, domain: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = settle(run)
    asked: list[str] = []
    exchange = Primary._send_and_receive

    def counted(self: Primary, messages: Sequence[Message], end: float) -> list[Message]:
        asked.extend(f"{message.opcode().name} {message.question[0]}" for message in messages)
        return exchange(self, messages, end)

    monkeypatch.setattr(Primary, "_send_and_receive", counted)
    serial = server.records(PARENT, "SOA")
    for options in ({}, {"dry_run": True}):
        asked.clear()
        assert not run.apply(now, **options)
        assert asked == [
            f"QUERY {domain}. IN SOA",
            f"QUERY _ua-auto-config.{domain}. IN TXT",
            f"UPDATE {PARENT}. IN SOA",
        ]
    assert server.records(PARENT, "SOA") == serial


DELETED = {
    "alias": ("autoconfig", "CNAME"),
    "service": ("_imaps._tcp", "SRV"),
    "digest": ("_ua-auto-config", "TXT"),
}


@pytest.mark.parametrize("wildcard", [False, True])
@pytest.mark.parametrize("kind", DELETED)
def test_a_record_that_somebody_has_deleted_is_written_again(
    server: ZoneServer, env: dict[str, str], domain: str, run: Run, kind: str, wildcard: bool
) -> None:
    now = settle(run)
    label, type_ = DELETED[kind]
    name = f"{label}.{domain}"
    [data] = server.records(name, type_)
    server.delete(name, type_)
    if wildcard:  # so that resolvers get the same answer as before
        server.add(f"*.{name.partition('.')[2]}", type_, data, ttl=3600)
    assert bool(run.apply(now)) != wildcard
    wanted = expected(domain, env)
    assert in_zone(server, wanted) == wanted


FOREIGN = {
    "SRV": ("_imaps._tcp", "SRV", "0 1 993 other.example."),
    "CNAME": ("autoconfig", "CNAME", "other.example."),
    "alias": ("_jmap._tcp", "CNAME", "other.example."),
    "mail": ("autodiscover", "MX", "10 other.example."),
    "digest": ("_ua-auto-config", "TXT", '"v=UAAC1; a=sha256; d=AAAA"'),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_record_of_others_is_never_changed(
    server: ZoneServer, env: dict[str, str], domain: str, run: Run, kind: str
) -> None:
    label, type_, data = FOREIGN[kind]
    name = f"{label}.{domain}"
    server.add(name, type_, data)
    now = settle(run)
    assert data in server.records(name, type_)
    outcome = run.apply(now)
    assert not outcome
    if kind == "digest":  # several may stand side by side
        assert outcome.plan.conflicts == []
        assert len(server.records(name, type_)) == 2
    else:
        assert [each.name for each in outcome.plan.conflicts] == [name]
        assert server.records(name, type_) == [data]
    others = {key: value for key, value in expected(domain, env).items() if key[0] != name}
    assert in_zone(server, others) == others
    result = attempt("dns-apply", domain, "--yes", env=env)
    assert result.returncode == (0 if kind == "digest" else 1)
    assert (f"automx: {name} " in result.stderr) == (kind != "digest")
    automx("domain", "set", domain, "--disabled", env=env)
    replace(run, options=Options(HOST, prune=True)).apply(now)
    assert server.records(name, type_) == [data]


@one_server
def test_addresses_in_place_of_an_alias_are_left_and_are_no_conflict(
    server: ZoneServer, env: dict[str, str], domain: str, run: Run
) -> None:
    server.add(f"autoconfig.{domain}", "A", "192.0.2.1")
    now = settle(run)
    outcome = run.apply(now)
    assert [each.name for each in outcome.plan.kept] == [f"autoconfig.{domain}"]
    assert outcome.plan.conflicts == []
    assert server.records(f"autoconfig.{domain}", "A") == ["192.0.2.1"]
    assert attempt("dns-apply", domain, "--yes", env=env).returncode == 0


@one_server
def test_a_record_that_was_written_by_hand_is_taken_over_on_demand_only(
    server: ZoneServer, env: dict[str, str], domain: str, run: Run
) -> None:
    name = f"_imaps._tcp.{domain}"
    server.add(name, "SRV", "0 1 993 imap.example.com.")
    now = settle(run)
    change_rows(env, "new.example.com")
    assert [each.name for each in run.apply(now).plan.conflicts] == [name]
    change_rows(env, "imap.example.com")
    replace(run, options=Options(HOST, adopt=True)).apply(now)
    change_rows(env, "new.example.com")
    assert run.apply(now).plan.conflicts == []
    assert server.records(name, "SRV") == ["0 1 993 new.example.com."]


def test_a_wildcard_of_the_zone_is_no_record_of_the_domain(
    server: ZoneServer, env: dict[str, str], domain: str, run: Run
) -> None:
    wild = f"*.{domain}"
    server.add(wild, "CNAME", "www.example.com.")
    now = settle(run)
    wanted = expected(domain, env)
    assert in_zone(server, wanted) == wanted
    assert not run.apply(now)
    assert server.records(wild, "CNAME") == ["www.example.com."]
    server.delete(wild, "CNAME")


def test_names_that_are_delegated_get_no_records(
    server: ZoneServer, domain: str, env: dict[str, str], run: Run
) -> None:
    server.add(f"_tcp.{domain}", "NS", "ns.example.com.")
    settle(run)
    names = {name for name, _ in expected(domain, env)}
    outcome = run.apply(START + timedelta(days=1))
    assert not outcome
    assert {each.name for each in outcome.plan.conflicts} == {
        name for name in names if name.endswith(f"._tcp.{domain}")
    }
    assert {each.reason for each in outcome.plan.conflicts} == {"the name is in a zone of its own"}
    assert server.records(f"autoconfig.{domain}", "CNAME") == [f"{HOST}."]


@pytest.mark.parametrize(
    ("type_", "data"),
    [("MX", "10 mail.example.com."), ("A", "192.0.2.1"), ("CNAME", f"ns.{PARENT}.")],
)
def test_a_domain_keeps_what_a_wildcard_gives_it(
    server: ZoneServer, env: dict[str, str], domain: str, run: Run, type_: str, data: str
) -> None:
    wild = f"*.{PARENT}"
    server.add(wild, type_, data)
    result = attempt("dns-apply", domain, "--yes", env=env)
    assert result.returncode == 1
    assert result.stderr == (
        f"automx: {domain}: its {type_} is that of {wild}, which it would lose by records below it:"
        f" give {domain} records of its own first\n"
    )
    assert server.records(domain, type_) == [data]
    # A record of its own may be the same; then nothing is lost.
    server.add(domain, type_ if type_ != "CNAME" else "TXT", data)
    settle(run)
    wanted = expected(domain, env)
    assert in_zone(server, wanted) == wanted
    assert not run.apply(START + timedelta(days=1))
    server.delete(wild, type_)


@one_server
def test_the_records_of_another_installation_are_left_alone(
    server: ZoneServer, env: dict[str, str], domain: str, run: Run
) -> None:
    settle(run)
    before = server.records(f"_automx.{domain}", "TXT")
    result = attempt("dns-apply", domain, "--yes", env=env | {"AUTOMX_ZONE_OWNER": "other"})
    assert result.returncode == 1
    assert "another installation (zone_owner automx) writes its records" in result.stderr
    assert server.records(f"_automx.{domain}", "TXT") == before


@one_server
def test_a_domain_that_is_off_keeps_its_records_until_they_are_pruned(
    server: ZoneServer, env: dict[str, str], domain: str, run: Run
) -> None:
    now = settle(run)
    automx("domain", "set", domain, "--disabled", env=env)
    assert not run.apply(now)
    kept = attempt("dns-apply", "--all", "--yes", env=env)
    assert (kept.returncode, kept.stderr) == (0, "")
    assert f"{domain} is switched off or deleted, and its records stay" in kept.stdout
    wanted = {
        (f"_imaps._tcp.{domain}", "SRV"): ["0 1 993 imap.example.com."],
        (f"autoconfig.{domain}", "CNAME"): [f"{HOST}."],
    }
    assert in_zone(server, wanted) == wanted
    automx("domain", "del", domain, "--yes", env=env)
    pruned = attempt("dns-apply", "--all", "--prune", "--yes", env=env)
    assert (pruned.returncode, pruned.stderr) == (0, "")
    names = [*wanted, (f"_automx.{domain}", "TXT"), (f"_ua-auto-config.{domain}", "TXT")]
    assert in_zone(server, names) == {key: [] for key in names}
    replace(run, options=Options(HOST, prune=True)).apply(this_second() + timedelta(days=1))
    with open_session(env["AUTOMX_DB_URI"]) as session:
        assert [*states.names(session)] == []


def test_what_was_changed_after_it_was_read_is_not_overwritten(
    server: ZoneServer,
    env: dict[str, str],
    domain: str,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settle(run)
    change_rows(env, "new.example.com")
    name = f"_imaps._tcp.{domain}"
    before_planning(monkeypatch, lambda: server.add(name, "SRV", "0 1 993 other.example."))
    with pytest.raises(ZoneChangedError):
        run.apply(START)
    assert server.records(name, "SRV") == ["0 1 993 imap.example.com.", "0 1 993 other.example."]


@one_server
def test_of_two_programs_at_once_one_makes_the_step(
    server: ZoneServer,
    env: dict[str, str],
    domain: str,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start = settle(run)
    change_rows(env, "new.example.com")
    done: list[Outcome] = []
    before_planning(monkeypatch, lambda: done.append(run.apply(start)))
    with pytest.raises(ConflictError):
        run.apply(start)
    [outcome] = done
    assert outcome.after
    assert outcome.after.step is Step.ANNOUNCED
    assert not run.apply(start)
    assert len(server.records(f"_ua-auto-config.{domain}", "TXT")) == 2


@one_server
def test_a_plan_that_was_agreed_to_is_what_is_done(
    server: ZoneServer, env: dict[str, str], domain: str, run: Run
) -> None:
    agreed = run.apply(START, dry_run=True)
    server.add(f"autoconfig.{domain}", "CNAME", "other.example.")
    with pytest.raises(ConflictError, match="look at the new plan"):
        run.apply(START, expected=agreed)
    assert server.records(f"_imaps._tcp.{domain}", "SRV") == []


def test_a_wrong_key_and_a_zone_that_is_elsewhere_are_told(
    server: ZoneServer, env: dict[str, str], domain: str
) -> None:
    for wrong in ({"AUTOMX_ZONE_KEY": "other"}, {"AUTOMX_ZONE_SECRET": "AAAA"}):
        for which in (domain, "--all"):
            result = attempt("dns-apply", which, "--yes", env=env | wrong)
            assert result.returncode == 1
            assert any(
                text in result.stderr for text in ("BADKEY", "BADSIG", "see zone_key and zone_sec")
            )
    primary = Primary(server.settings)
    with pytest.raises(ElsewhereError, match="cannot be read"):
        primary.snapshot("elsewhere.example")
    primary.close()
    automx("domain", "add", "elsewhere.example", "--provider", "Example Inc.", env=env)
    alone = attempt("dns-apply", "elsewhere.example", "--yes", env=env)
    assert (alone.returncode, alone.stdout) == (1, "")
    assert "elsewhere.example: " in alone.stderr
    every = attempt("dns-apply", "--all", "--yes", env=env)
    assert (every.returncode, every.stderr) == (3, "")
    assert "1 domain passed over, whose zone is elsewhere." in every.stdout


@pytest.mark.parametrize("server", ["bind", "knot"], indirect=True, scope="module")
def test_what_the_key_may_not_change_is_told_with_what_to_do(
    server: ZoneServer, domain: str
) -> None:
    address = rdata.from_text("IN", "A", "192.0.2.1")
    change = SetChange(domain, "A", None, (), (address,), 300)
    primary = Primary(server.settings)
    with closing(primary), pytest.raises(ZoneError) as caught:
        primary.update(Plan(domain, PARENT, [change]))
    said = rf"refuses (to update the zone {PARENT}: REFUSED|the update \(BADKEY\))"
    assert re.search(
        f" {said}; it must let zone_key change CNAME, SRV and TXT there; a frozen zone takes no"
        " update$",
        str(caught.value.cause),
    )


@one_server
def test_a_zone_whose_section_has_another_secret_uses_it_beside_others(
    server: ZoneServer, env: dict[str, str], domain: str, tmp_path: Path
) -> None:
    other = server.new_domain()
    automx("domain", "add", other, "--like", domain, env=env)
    (tmp_path / "automx.conf").write_text(f"[automx]\n[zone.{other}]\nsecret = AAAA\n")
    env |= {"AUTOMX_CONF": str(tmp_path / "automx.conf")}
    result = attempt("dns-apply", domain, other, "--yes", env=env)
    assert result.returncode == 1
    assert f"_imaps._tcp.{domain}. SRV" in result.stdout
    assert result.stderr.startswith(f"automx: {other}: ")


def test_digests_and_documents_fit_whenever_the_program_is_killed(
    server: ZoneServer, env: dict[str, str], domain: str, run: Run
) -> None:
    """At each time, the program is killed at its first point, then at its second one, and so on.

    The rows change after some of these kills, too.
    """
    settings = config.load(env | {"AUTOMX_DOMAIN_CACHE_SECONDS": "10", "AUTOMX_ZONE_TTL": "600"})
    run = replace(run, settings=settings)
    waits = waits_of(settings, settings.zone)
    clients = Clients()
    steps: set[Step | None] = set()
    kills = 0

    def look(now: datetime) -> Step | None:
        with open_session(env["AUTOMX_DB_URI"]) as session:
            state, document = states.read(session, domain), find(session, domain).pacc()
        found = server.answer(f"_ua-auto-config.{domain}", "TXT")
        texts = [data.strip('"') for data, _ in found]
        assert len(texts) <= 2
        ttl = max((ttl for _, ttl in found), default=60) + int(waits.spread.total_seconds())
        clients.look(texts, ttl, document, int(waits.caches.total_seconds()), now)
        return state.step if state else None

    now = START
    for host in ("imap.example.com", "second.example.com"):
        change_rows(env, host)
        for _ in range(9):
            for point in range(1, 20):
                if not run.kill_at(point, now):
                    break
                kills += 1
                steps.add(look(now))
                if kills in {2, 6, 7, 10, 14}:
                    change_rows(env, f"{kills}.{host}")
            steps.add(look(now))
            outcome = run.apply(now)
            if not outcome.is_waiting:
                break
            assert outcome.after
            assert outcome.after.due_at
            now = outcome.after.due_at
            look(now)
        else:
            pytest.fail(f"it does not end: {outcome.after}")
    assert steps >= {*Step}
    assert kills >= 12
    wanted = expected(domain, env)
    assert in_zone(server, wanted) == wanted


@one_server
def test_workers_serve_the_stored_document_and_see_a_step_within_a_second(
    server: ZoneServer, env: dict[str, str], domain: str, run: Run, make_app: Callable[..., Flask]
) -> None:
    client = make_app(domain_cache_seconds=3600).test_client()

    def served() -> bytes:
        answer = client.get(pacc.PATH, headers={"Host": f"ua-auto-config.{domain}"})
        return bytes(answer.data)

    now = settle(run)
    first = served()
    change_rows(env, "new.example.com")
    state = run.apply(now).after
    assert served() == first
    assert state
    assert state.due_at
    run.apply(state.due_at)
    wait_until(lambda: served() == state.next_document, "the next document")


@one_server
@pytest.mark.parametrize("octets", [b"", bytes(100), b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_a_name_server_that_does_not_answer_is_given_up(
    server: ZoneServer, env: dict[str, str], domain: str, octets: bytes
) -> None:
    with dripping_socket(octets, seconds=0.01) as port:
        env |= {"AUTOMX_ZONE_SERVER": f"127.0.0.1:{port}", "AUTOMX_ZONE_TIMEOUT": "0.5"}
        result = attempt("dns-apply", domain, "--yes", env=env)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith(f"automx: {domain}: 127.0.0.1:{port}: ")
    assert len(result.stderr.splitlines()) == 1


@one_server
def test_a_connection_that_the_server_has_closed_is_opened_anew(
    server: ZoneServer, domain: str
) -> None:
    primary = Primary(server.settings)
    first = primary.snapshot(domain)
    assert primary._socket
    primary._socket.shutdown(socket.SHUT_RDWR)
    assert primary.snapshot(domain) == first
    primary.close()


@one_server
def test_a_domain_that_is_a_zone_of_its_own_and_one_with_an_umlaut(
    server: ZoneServer, env: dict[str, str]
) -> None:
    for name, a_label in (
        ("apex.test", "apex.test"),
        (f"Müller.{PARENT}", f"xn--mller-kva.{PARENT}"),
    ):
        automx(
            "domain",
            "add",
            name,
            "--provider",
            "Example Inc.",
            "--server",
            "1",
            "--server",
            "2",
            env=env,
        )
        assert attempt("dns-apply", name, "--yes", env=env).returncode == 3
        assert server.records(f"autoconfig.{a_label}", "CNAME") == [f"{HOST}."]


@one_server
def test_a_registry_of_many_records_is_read_again(
    server: ZoneServer, env: dict[str, str], domain: str, run: Run
) -> None:
    servers = [{"type": "imap", "name": f"i{number}.example.com"} for number in range(40)]
    servers.append({"type": "smtp", "name": "smtp.example.com"})
    seed = DOCUMENT | {"domains": [{"name": f"many.{domain}"}], "servers": servers}
    automx("seed", "-", env=env, stdin=json.dumps(seed))
    many = replace(run, domain=f"many.{domain}")
    assert len(many.apply(START).plan.changes) == 10
    assert len(server.records(f"_imaps._tcp.many.{domain}", "SRV")) == 40
    again = many.apply(START)
    assert not again
    assert again.plan.conflicts == []


@one_server
def test_names_that_would_be_too_long_are_told(server: ZoneServer, env: dict[str, str]) -> None:
    name = f"{'a' * 58}.{'b' * 58}.{PARENT}"
    long = f"{'c' * 60}.{'d' * 51}.{name}"
    automx(
        "domain",
        "add",
        f"*.{PARENT}",
        "--provider",
        "Example Inc.",
        "--server",
        "1",
        "--server",
        "2",
        env=env,
    )
    result = attempt("dns-apply", long, "--yes", env=env)
    assert (result.returncode, len(long)) == (1, 242)
    assert result.stderr == f"automx: {long}: a name would be longer than 255 octets\n"
