"""Gateways that change while sessions to them are open: what is noticed, when, and what is lost."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import AsyncIterator, Collection
from types import ModuleType
from typing import Any

import pytest

from mcpgateway_pool.gateway.registry.calls import gateways
from mcpgateway_pool.gateway.registry.calls.gateways import GatewayChanges, read_connections, read_names
from support.fakes import turns

WHO_CALLS: contextvars.ContextVar[str] = contextvars.ContextVar("who_calls", default="nobody")
PATIENCE_SECONDS = 10.0


class Changes(GatewayChanges):
    """Says when it has looked."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.has_looked = asyncio.Event()

    async def look(self) -> None:
        await super().look()
        self.has_looked.set()


class Database:
    """Gateways, sessions to them, and who looks after both.

    Attributes:
        rows: what the database says of each gateway; one that is missing was deleted.
        sessions: the gateways that have open sessions.
        lost: whose sessions were closed, in order.
        is_down: whether it cannot be read.
        readers: who called, each time it was read.
    """

    def __init__(self, **rows: str) -> None:
        self.rows = rows
        self.sessions: set[str] = set()
        self.lost: list[str] = []
        self.is_down = False
        self.readers: list[str] = []
        self.changes = Changes(lambda: set(self.sessions), self._lose, read=self._read)

    def open(self, gateway: str) -> None:
        self.sessions.add(gateway)
        self.changes.opened(gateway)

    async def looked(self) -> None:
        """What was opened, or noticed, just now leads to a look."""
        self.changes.has_looked.clear()
        await asyncio.wait_for(self.changes.has_looked.wait(), PATIENCE_SECONDS)

    async def _lose(self, gateway: str) -> None:
        self.lost.append(gateway)
        self.sessions.discard(gateway)

    def _read(self, identifiers: Collection[str]) -> dict[str, tuple[Any, ...]]:
        assert threading.current_thread() is not threading.main_thread()  # a database may take its time
        self.readers.append(WHO_CALLS.get())
        if self.is_down:
            raise OSError("the database does not answer")
        return {one: (self.rows[one],) for one in identifiers if one in self.rows}


def looking() -> list[asyncio.Task[Any]]:
    """The tasks that look."""
    return [task for task in asyncio.all_tasks() if task.get_name() == "mcpgateway-pool-changes"]


@pytest.fixture
async def database(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Database]:
    monkeypatch.setattr(gateways, "LOOK_EVERY_SECONDS", 1000.0)  # looks have other reasons here
    database = Database(g1="one", g2="two")
    yield database
    await database.changes.end()
    assert looking() == []


async def test_sessions_of_a_changed_gateway_are_lost_once_and_those_of_others_stay(
    database: Database,
) -> None:
    database.open("g1")
    database.open("g2")
    await database.looked()
    assert database.lost == []
    database.rows["g1"] = "changed"
    for _ in range(2):
        database.changes.notice()
        await database.looked()
    assert database.lost == ["g1"]
    assert database.sessions == {"g2"}


async def test_sessions_of_a_deleted_gateway_are_lost(database: Database) -> None:
    database.open("g1")
    await database.looked()
    del database.rows["g1"]
    database.changes.notice()
    await database.looked()
    assert database.lost == ["g1"]


async def test_a_gateway_that_was_deleted_before_the_first_look_is_noticed(database: Database) -> None:
    del database.rows["g1"]
    database.open("g1")
    database.open("g2")
    await database.looked()
    assert database.lost == ["g1"]


async def test_sessions_of_a_gateway_that_changes_again_and_again_are_lost_each_time(
    database: Database,
) -> None:
    database.open("g1")
    database.open("g2")  # keeps somebody looking
    await database.looked()
    for number in range(3):
        database.rows["g1"] = f"changed {number}"
        database.changes.notice()
        await database.looked()
        database.open("g1")
        database.changes.notice()
        await database.looked()
    assert database.lost == ["g1"] * 3


async def test_a_database_that_does_not_answer_loses_nothing_and_hides_nothing(database: Database) -> None:
    database.open("g1")
    await database.looked()
    database.is_down = True
    database.rows["g1"] = "changed"
    database.changes.notice()
    await database.looked()
    assert database.lost == []
    database.is_down = False
    database.changes.notice()
    await database.looked()
    assert database.lost == ["g1"]


async def test_a_gateway_whose_sessions_were_all_closed_may_come_back_changed(database: Database) -> None:
    """Its new session was opened by what the database says now. To close it would fail the call in it."""
    database.open("g1")
    database.open("g2")
    await database.looked()
    database.sessions.remove("g1")
    database.changes.notice()
    await database.looked()
    database.rows["g1"] = "changed"
    database.open("g1")
    await database.looked()
    assert database.lost == []
    assert database.sessions == {"g1", "g2"}


@pytest.mark.parametrize("ends", ["nothing is open", "the registry was closed"])
async def test_a_gateway_may_come_back_changed_when_nobody_looked_in_the_meantime(
    database: Database, ends: str
) -> None:
    database.open("g1")
    await database.looked()
    database.sessions.clear()
    if ends == "nothing is open":
        database.changes.notice()
        await turns()
    else:
        await database.changes.end()
    reads = len(database.readers)
    database.rows["g1"] = "changed"
    database.changes.notice()
    await turns()
    assert len(database.readers) == reads
    database.open("g1")
    await database.looked()
    assert database.lost == []
    database.rows["g1"] = "changed again"
    database.changes.notice()
    await database.looked()
    assert database.lost == ["g1"]


async def test_a_gateway_that_was_evicted_may_come_back_changed_at_once(database: Database) -> None:
    database.open("g1")
    await database.looked()
    database.changes.forget("g1")
    database.rows["g1"] = "changed"
    database.open("g1")
    await database.looked()
    assert database.lost == []


async def test_it_is_looked_again_without_a_word_of_the_release(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateways, "LOOK_EVERY_SECONDS", 0.01)
    database.open("g1")
    await database.looked()
    database.rows["g1"] = "changed"  # by another worker
    while not database.lost:
        await database.looked()
    assert database.lost == ["g1"]


async def test_nobody_looks_where_nothing_is_open(database: Database) -> None:
    database.changes.notice()
    await database.changes.look()
    await turns()
    assert database.readers == []
    database.open("g1")
    await database.looked()
    assert len(looking()) == 1
    database.sessions.clear()
    database.changes.notice()
    await turns()
    assert looking() == []


async def test_who_looks_is_nobody_whoever_opened_the_session(database: Database) -> None:
    WHO_CALLS.set("ann")
    database.open("g1")
    await database.looked()
    assert database.readers == ["nobody"]


async def test_the_end_leaves_no_task_behind_also_in_the_midst_of_a_look(database: Database) -> None:
    database.open("g1")
    await turns()
    assert len(looking()) == 1
    await database.changes.end()
    assert looking() == []
    await database.changes.end()  # again, as it is with registries


# ---- the release's database


def test_what_a_session_depends_on_is_read_and_what_it_does_not_is_not(release: ModuleType) -> None:
    from mcpgateway import db

    db.Base.metadata.create_all(db.engine)
    try:
        with db.SessionLocal() as session:
            gateway = db.Gateway(name="A Name", slug="a-name", url="http://server.test/mcp", capabilities={})
            other = db.Gateway(name="Other", slug="other", url="http://server.test/other", capabilities={})
            session.add_all([gateway, other])
            session.commit()
            mine, others = str(gateway.id), str(other.id)
            assert read_names(mine) == (mine, "A Name", "a-name")
            assert read_names("deleted") == ("deleted",)
            first = read_connections([mine, "deleted"])
            assert first.keys() == {mine}
            assert read_connections([mine, others])[mine] == first[mine]
            gateway.description = "of no importance to sessions"
            session.commit()
            assert read_connections([mine]) == first
            for name, value in (
                ("url", "http://server.test/moved"),
                ("transport", "STREAMABLEHTTP"),
                ("enabled", False),
                ("auth_type", "bearer"),
                ("auth_value", {"Authorization": "Bearer t"}),
                ("auth_query_params", {"key": "k"}),
                ("oauth_config", {"grant_type": "client_credentials"}),
                ("passthrough_headers", ["X-Tenant-Id"]),
                ("ca_certificate", "a certificate"),
                ("client_cert", "a client's certificate"),
                ("client_key", "its key"),
            ):
                if hasattr(db.Gateway, name):  # else this release has none
                    before = read_connections([mine])
                    setattr(gateway, name, value)
                    session.commit()
                    assert read_connections([mine]) != before, name
    finally:  # in an empty database, all gateways of other tests would be deleted ones
        db.Base.metadata.drop_all(db.engine)
