"""The stored states of managed domains, on each database."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from automx import changelog
from automx.database import Session, create_engine
from automx.errors import BadRecordError, ConflictError
from automx.models import ManagedDomain
from automx.zones import states
from automx.zones.rollover import State, Step
from tests.databases import engine_uri

NOW = datetime(2026, 11, 30, 8, tzinfo=UTC)
FIRST = State("example.com", b"\0{}\xff", Step.PINNED, 3600, NOW, NOW + timedelta(hours=1))


def test_a_state_is_kept_and_changed_by_one_program_only(any_migrated_uri: str) -> None:
    uri = engine_uri(any_migrated_uri)
    engine = create_engine(uri)
    with Session(engine) as session:
        assert states.read(session, "example.com") is None
        first = states.write(session, None, FIRST)
        with pytest.raises(ConflictError):
            states.write(session, None, FIRST)
        session.commit()
        assert states.read(session, "example.com") == first == replace(FIRST, version=1)
        number = changelog.last_number(session)
        step = replace(first, step=Step.ANNOUNCED, next_document=b"{}", due_at=None)
        second = states.write(session, first, step)
        assert changelog.last_number(session) == number  # what is served is the same
        switched = replace(second, document=b"{}", old_document=second.document, next_document=None)
        third = states.write(session, second, switched)
        session.commit()
        assert changelog.read_since(session, number)[1] == {("domain", "example.com")}
        for stale in (first, second):
            with pytest.raises(ConflictError):
                states.write(session, stale, FIRST)
            assert not states.forget(session, stale.domain, stale.version)
        assert states.read(session, "example.com") == third
        assert [*states.names(session)] == ["example.com"]
        assert [*states.read_all(session)] == [third]
        session.execute(ManagedDomain.update().values(step="other"))
        with pytest.raises(BadRecordError):
            states.read(session, "example.com")
        session.rollback()
        assert states.forget(session, third.domain, third.version)
        assert not states.forget(session, third.domain)
        session.commit()
        assert states.read(session, "example.com") is None
    engine.dispose()
