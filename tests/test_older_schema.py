"""An older schema, on which a newer automx answers clients, as during a rolling upgrade."""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from flask import Flask
from sqlalchemy import insert

from automx import migrations
from automx.database import open_session
from automx.formats import pacc
from automx.models import ManagedDomain
from tests.databases import engine_uri
from tests.documents import autodiscover_request
from tests.faults.neighbours import OWN, TOKEN, fill

STORED = b'{"stored": true}'
# Those that may be there while an installation is brought up to this version.
OLDER = [each for each in migrations.revisions() if "0007" <= each < migrations.head()]


@pytest.mark.parametrize("revision", OLDER)
def test_clients_are_answered_on_an_older_schema_and_on_the_new_one_once_it_is_there(
    any_database_uri: str, make_app: Callable[..., Flask], revision: str
) -> None:
    uri = engine_uri(any_database_uri)
    fill(uri)
    migrations.downgrade(uri, revision)
    assert migrations.current(uri) == revision
    client = make_app(db_uri=uri, account_rate_limit="").test_client()
    request = autodiscover_request(f"a@{OWN}")
    host = {"Host": f"ua-auto-config.{OWN}"}

    def statuses() -> list[int]:
        answers = [
            client.get(f"/mail/config-v1.1.xml?emailaddress=a@{OWN}"),
            client.get(f"/v1.1/below.{OWN}"),
            client.post("/autodiscover/autodiscover.xml", data=request),
            client.get(f"/mobileconfig?emailaddress=a@{OWN}"),
            client.get(pacc.PATH, headers=host),
            client.get(f"/?address=a@{OWN}"),
            client.post(f"/?t={TOKEN}"),
            client.get("/v1.1/unknown.example"),
            client.get("/healthz"),
        ]
        return [answer.status_code for answer in answers]

    assert statuses() == [200] * 7 + [404, 200]
    assert client.get("/readyz").status_code == 503
    migrations.upgrade(uri)
    with open_session(uri) as session:
        values = {"name": OWN, "document": STORED, "step": "", "ttl": 60, "version": 1}
        now = datetime.now(UTC)
        session.execute(insert(ManagedDomain).values(values | {"changed_at": now}))
    assert statuses() == [200] * 7 + [404, 200]
    assert client.get(pacc.PATH, headers=host).data == STORED
    assert client.get("/readyz").status_code == 200
