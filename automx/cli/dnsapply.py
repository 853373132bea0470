"""``automx dns-apply``: writes the records of domains into their zones."""

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import click

from automx import lookup
from automx.cli import names
from automx.cli.addresses import DOMAIN
from automx.cli.context import Context, with_json
from automx.cli.dns import host_option, needed_public_host
from automx.cli.terminal import complain, confirm, say, say_json, with_progress
from automx.database import Session
from automx.errors import AutomxError, ElsewhereError, UnknownDomainError
from automx.formats import pacc
from automx.kinds import domain_a_label
from automx.moments import iso, this_second, to_minute
from automx.zones import plan as plans
from automx.zones import states
from automx.zones.apply import Domains, Options, Outcome, abandon, newest_document
from automx.zones.rollover import State, Step

_WAITS = 3  # the exit status

_EPILOG = (
    "Exit status: 0 if all is done, 1 if something could not be done, such as a record that is in"
    " conflict with one of others (standard error says why), 2 if the command was not understood,"
    " 3 if all is done that can be done now, and a later step follows."
)


@click.command("dns-apply", epilog=_EPILOG)
@click.argument(
    "domains", nargs=-1, type=DOMAIN, metavar="[DOMAIN]...", shell_complete=names.of("domain")
)
@click.option("--all", "all_domains", is_flag=True, help="All domains whose zone has settings.")
@click.option("--dry-run", is_flag=True, help="Print the plan, and change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--adopt", is_flag=True, help="Take over records that are as they should be.")
@click.option(
    "--prune",
    is_flag=True,
    help="Delete the records of domains that are switched off or deleted.",
)
@click.option(
    "--abandon",
    "gives_up",
    is_flag=True,
    help="Manage the domains no more: leave the zone as it is, and serve what the rows say.",
)
@host_option
@with_json
def dns_apply(
    context: Context,
    domains: tuple[str, ...],
    all_domains: bool,
    dry_run: bool,
    yes: bool,
    adopt: bool,
    prune: bool,
    gives_up: bool,
    host: str | None,
) -> None:
    """Write the DNS records of each DOMAIN into its zone.

    What would be changed is printed first: + added, ~ changed, - removed. Only records that automx
    has written are changed and removed.

    The digest of a PACC document is rolled over in steps. The command does not wait: it tells when
    the next step can be made, and a timer runs it again.
    """
    if all_domains == bool(domains):
        raise click.UsageError("Name either domains or --all.")
    if gives_up and (prune or adopt or dry_run):
        raise click.UsageError("--abandon goes with no other option but --yes.")
    labels = list(dict.fromkeys(domains))
    with context.session() as session:
        if gives_up:
            _abandon(context, session, labels or [*states.names(session)], yes=yes)
            return
        name = needed_public_host(context, host)
        options = Options(name, context.actor, adopt=adopt, prune=prune)
        with closing(Domains(session, context.settings, options, now=this_second)) as work:
            run = _Run(context, session, work, is_lenient=all_domains)
            _apply(context, run, labels or run.all_domains(), dry_run=dry_run, yes=yes)


class _Run:
    """A run over domains; what fails for one is reported, and the next one goes on.

    With ``is_lenient``, domains whose zone is elsewhere are passed over.
    """

    def __init__(
        self, context: Context, session: Session, work: Domains, *, is_lenient: bool
    ) -> None:
        self._context, self._session, self._work = context, session, work
        self._is_lenient = is_lenient
        self._managed: set[str] = set()
        self.failed: dict[str, str] = {}
        self.elsewhere: list[str] = []

    def all_domains(self) -> list[str]:
        """Return all domains whose zone has settings, and those that automx manages already."""
        self._managed = set(states.names(self._session))
        found = dict.fromkeys(sorted(self._managed))
        for _, text in lookup.domain_names(self._session):
            try:
                name = domain_a_label(text.strip())
            except AutomxError:  # the doctor reports it
                continue
            if "*" not in name and self._context.settings.zone_of(name):
                found[name] = None
        self._session.rollback()
        return [*found]

    def outcomes(
        self, domains: list[str], *, dry_run: bool, expected: dict[str, Outcome] | None = None
    ) -> Iterator[Outcome]:
        """Yield what was done for each domain, or would be."""
        for domain in domains:
            wanted = None if expected is None else expected[domain]
            try:
                yield self._work.apply(domain, dry_run=dry_run, expected=wanted)
            except AutomxError as error:
                self._session.rollback()
                passes = self._is_lenient and domain not in self._managed
                if passes and isinstance(error, ElsewhereError):
                    self.elsewhere.append(domain)
                elif not (passes and isinstance(error, UnknownDomainError)):
                    self.failed[domain] = error.reason
                    complain(
                        error.reason if domain in error.reason else f"{domain}: {error.reason}"
                    )


def _apply(context: Context, run: _Run, domains: list[str], *, dry_run: bool, yes: bool) -> None:
    is_asking = not (yes or dry_run)
    found = []
    for outcome in with_progress(run.outcomes(domains, dry_run=dry_run or is_asking), len(domains)):
        found.append(outcome)
        if not context.as_json:
            _print(outcome)
    changed = {outcome.domain: outcome for outcome in found if outcome}
    if is_asking and changed:
        if context.as_json:
            say_json(_document(found, run))
        confirm(f"this would change {_counted(len(changed))}", question="Apply?", yes=False)
        done = {o.domain: o for o in run.outcomes([*changed], dry_run=False, expected=changed)}
        found = [done.get(outcome.domain, outcome) for outcome in found]
    elif context.as_json:
        say_json(_document(found, run))
    if not context.as_json:
        _summarize(found, run, is_plan=dry_run)
    if run.failed or any(outcome.plan.conflicts for outcome in found):
        raise click.exceptions.Exit(1)
    if any(outcome.is_waiting for outcome in found):
        raise click.exceptions.Exit(_WAITS)


def _print(outcome: Outcome) -> None:
    """Print what is changed for a domain, and conflicts to standard error."""
    if outcome.plan:
        say(f"{outcome.domain}, in the zone {outcome.plan.zone}:")
        for line in plans.lines(outcome.plan):
            say(line)
    for conflict in outcome.plan.conflicts:
        complain(f"{conflict.name} {conflict.type} was not written: {conflict.reason}")
    for kept in outcome.plan.kept:
        say(f"{kept.name} is left as it is: {kept.reason}")
    if outcome.is_off:
        say(f"{outcome.domain} is switched off or deleted, and its records stay: see --prune")


def _summarize(found: list[Outcome], run: _Run, *, is_plan: bool) -> None:
    """Print how many domains were changed, and when the next steps can be made."""
    for outcome in found:
        if outcome.is_waiting and outcome.after:
            say(f"{outcome.domain}: {_waiting(outcome.after)}")
    if run.elsewhere:
        say(f"{_counted(len(run.elsewhere))} passed over, whose zone is elsewhere.")
    if number := sum(map(bool, found)):
        say(f"{_counted(number)} {'to be changed' if is_plan else 'changed'}.")
    elif not run.failed:
        say("Nothing to do.")


def _waiting(state: State) -> str:
    """Return what is waited for."""
    when = f"after {to_minute(state.due_at)}" if state.due_at else "when the zone has its digest"
    match state.step:
        case Step.PINNED:
            return f"the PACC document is stored; its digest follows {when}"
        case Step.ANNOUNCED:
            return f"the next PACC document is served {when}"
    return f"the new PACC document is served; the digest of the old one is deleted {when}"


def _counted(number: int) -> str:
    return f"{number} {'domain' if number == 1 else 'domains'}"


def _document(found: list[Outcome], run: _Run) -> dict[str, Any]:
    moments = [o.after.due_at for o in found if o.is_waiting and o.after and o.after.due_at]
    return {
        "domains": [outcome.document() for outcome in found],
        "failed": [{"domain": domain, "reason": text} for domain, text in run.failed.items()],
        "elsewhere": run.elsewhere,
        "next_step_at": iso(min(moments, default=None)),
    }


def _abandon(context: Context, session: Session, domains: list[str], *, yes: bool) -> None:
    """Forget the states of domains, and tell what their zones should hold now."""
    what = f"this would manage {_counted(len(domains))} no more"
    confirm(what, question="Manage them no more?", yes=yes)
    documents = []
    for domain in domains:
        abandon(session, domain, actor=context.actor, now=context.now)
        session.commit()
        digest = _digest(session, domain)
        documents.append({"domain": domain, "digest": digest})
        if not context.as_json:
            say(f"{domain}: the rows give the PACC document. {_advice(domain, digest)}")
    if context.as_json:
        say_json({"abandoned": documents})


def _digest(session: Session, domain: str) -> str | None:
    """Return the digest of the PACC document that the rows give, None if there is none."""
    try:
        document = newest_document(lookup.find(session, domain))
    except AutomxError:  # it is off, or unusable
        return None
    finally:
        session.rollback()
    return pacc.digest_record(document) if document else None


def _advice(domain: str, digest: str | None) -> str:
    name = f"{pacc.TXT_NAME}.{domain}."
    if digest is None:
        return f"The zone should have no digest at {name}"
    return f'The zone should have: {name} IN TXT "{digest}"'
