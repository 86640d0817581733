"""A pool whose sessions open and close when the test says so, a clock that the test moves, and the check
that nothing got lost.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

from mcpgateway_pool import MCPSessionPool, PooledSession, TransportType

URL = "http://server.test/mcp"


class FakeClock:
    """Monotonic seconds; pass it as ``clock=``."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class Gate:
    """One creation or close that waits for the test.

    Attributes:
        url: of the session.
        pooled: the session that is being closed; None for a creation.
        cancellations: how often it was cancelled.
    """

    def __init__(self, url: str, pooled: Any = None) -> None:
        self.url = url
        self.pooled = pooled
        self.cancellations = 0
        self._passed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def open(self) -> None:
        """Let it succeed."""
        self._passed.set_result(None)

    def fail(self, error: BaseException) -> None:
        """Let it raise."""
        self._passed.set_exception(error)

    async def wait(self, *, ignores_cancellation: bool = False) -> None:
        while True:
            try:
                await asyncio.shield(self._passed)
            except asyncio.CancelledError:
                self.cancellations += 1
                if not ignores_cancellation:
                    self._passed.cancel()
                    raise
            else:
                return


class FakePool(MCPSessionPool):
    """Opens sessions without a server; lifetimes are not shortened unless asked for.

    Attributes:
        holds_creations, holds_closes: whether each waits for the test, in ``creations`` and ``closes``.
        ignores_cancellation: whether what waits there goes on when it is cancelled.
        create_error, close_error: raised by each creation or close, if set.
        attempts, returned: creations begun, and creations that returned a session.
        closed: every session that was closed, in order.
        open_now, most_open: connections, being opened and being closed included; ``"total"`` or a URL.
        answered: acquires that returned a session.
        checked: sessions that were health-checked, in order.
        is_healthy: what a health check says; an exception is raised.
    """

    def __init__(self, **settings: Any) -> None:
        settings.setdefault("session_ttl_jitter", 0.0)
        super().__init__(**settings)
        self.holds_creations = False
        self.holds_closes = False
        self.ignores_cancellation = False
        self.create_error: BaseException | None = None
        self.close_error: BaseException | None = None
        self.creations: list[Gate] = []
        self.closes: list[Gate] = []
        self.attempts = 0
        self.returned = 0
        self.closed: list[Any] = []
        self.open_now: Counter[str] = Counter()
        self.most_open: Counter[str] = Counter()
        self.answered = 0
        self.checked: list[Any] = []
        self.is_healthy: bool | BaseException = True

    async def acquire(self, *args: Any, **kwargs: Any) -> Any:
        pooled = await super().acquire(*args, **kwargs)
        self.answered += 1
        return pooled

    # ---- hooks

    def make_session(self, url: str, headers: Any, transport_type: TransportType) -> Any:
        """What a creation returns; to be replaced by tests that want something else."""
        return PooledSession(
            session=object(),
            transport_context=None,
            url=url,
            transport_type=transport_type,
            headers=dict(headers or {}),
            identity_key="",
        )

    async def _create_session(
        self,
        url: str,
        headers: Any,
        transport_type: TransportType,
        httpx_client_factory: Any,
        timeout: float | None = None,
        gateway_id: str | None = None,
    ) -> Any:
        self.attempts += 1
        self._count_open(url, 1)
        try:
            if self.holds_creations:
                await self._hold(self.creations, Gate(url))
            if self.create_error is not None:
                raise self.create_error  # noqa: TRY301
            pooled = self.make_session(url, headers, transport_type)
        except BaseException:
            self._count_open(url, -1)
            raise
        self.returned += 1
        return pooled

    async def _close_session(self, pooled: Any) -> None:
        try:
            if self.holds_closes:
                await self._hold(self.closes, Gate(getattr(pooled, "url", URL), pooled))
            if self.close_error is not None:
                raise self.close_error
        finally:
            self.closed.append(pooled)
            self._count_open(getattr(pooled, "url", URL), -1)

    async def _run_health_check_chain(self, pooled: Any) -> bool:
        self.checked.append(pooled)
        if isinstance(self.is_healthy, BaseException):
            raise self.is_healthy
        return self.is_healthy

    async def _hold(self, gates: list[Gate], gate: Gate) -> None:
        gates.append(gate)
        try:
            await gate.wait(ignores_cancellation=self.ignores_cancellation)
        finally:
            if gate in gates:
                gates.remove(gate)

    def _count_open(self, url: str, change: int) -> None:
        for name in ("total", url):
            self.open_now[name] += change
            self.most_open[name] = max(self.most_open[name], self.open_now[name])

    # ---- reading

    @property
    def evictions(self) -> dict[str, int]:
        """Evictions by reason, without the reasons that did not occur."""
        return {reason: count for reason, count in self._totals()["evictions"].items() if count}

    @property
    def rejections(self) -> dict[str, int]:
        """Refused acquires by reason, without the reasons that did not occur."""
        return {reason: count for reason, count in self._totals()["acquire_rejections"].items() if count}

    def count(self, name: str) -> int:
        """A number of the present, such as ``"idle"``, or a total, such as ``"hits"``."""
        counts = self._counts()
        return counts[name] if name in counts else self._totals()[name]


class PlainPool(FakePool):
    """The same, but ``acquire`` is not overridden: ``session()`` then takes its shorter way, and what was
    answered is not counted.
    """

    acquire = MCPSessionPool.acquire


async def until(condition: Callable[[], object], turns: int = 1000) -> None:
    """Let the loop turn until something holds; it must within ``turns`` turns."""
    for _ in range(turns):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError(f"did not come about in {turns} turns of the loop")


async def until_timer(condition: Callable[[], object], seconds: float = 5.0) -> None:
    """The same for what a timer does: on a replaced clock these ask every 20 ms."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def turns(count: int = 10) -> None:
    """Let the loop turn, for what must not happen."""
    for _ in range(count):
        await asyncio.sleep(0)


async def upkeep(pool: MCPSessionPool) -> None:
    """Let happen what is due."""
    while pool._upkeep():  # noqa: ASYNC110
        await asyncio.sleep(0)
    await turns()


async def cancelled(task: asyncio.Task[Any]) -> None:
    """Cancel a task; its CancelledError must come out."""
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled(), task


def assert_adds_up(pool: FakePool) -> None:
    """The identities of the series, and the limits."""
    totals, counts = pool._totals(), pool._counts()
    settings = pool._settings
    numbers = f"{totals} {counts}"
    assert totals["active_sessions"] == counts["active"], numbers
    assert totals["size"] == counts["active"] + counts["idle"] + counts["checking"], numbers
    assert totals["creates"] == totals["size"] + sum(totals["evictions"].values()), numbers
    if not isinstance(pool, PlainPool):
        assert totals["hits"] + totals["misses"] == pool.answered, (pool.answered, numbers)
    assert totals["misses"] <= totals["creates"] <= pool.returned <= pool.attempts, numbers
    assert totals["waiters"] == counts["waiters"], numbers
    assert totals["session_creations_in_progress"] == counts["creating"], numbers
    if settings.max_total_sessions:
        assert pool.most_open["total"] <= settings.max_total_sessions
    total = sum(counts[name] for name in ("creating", "active", "idle", "checking", "closing"))
    assert total <= counts["keys"] * settings.max_sessions_per_key, numbers


def assert_at_rest(pool: FakePool) -> None:
    """Nothing is under way: nobody waits, no task is left, and the numbers add up."""
    assert_adds_up(pool)
    counts = pool._counts()
    for name in ("waiters", "creating", "checking", "closing"):
        assert counts[name] == 0, counts
    assert pool.open_now["total"] == counts["active"] + counts["idle"], (pool.open_now, counts)
    assert all(task.done() for task in pool._tasks)
    assert not asyncio.all_tasks() - {asyncio.current_task()}


async def assert_all_places_usable(pool: FakePool, url: str = URL, **arguments: Any) -> None:
    """As many sessions as the limit allows can be had at once, and no more; then the pool is at rest."""
    limit = pool._settings.max_sessions_per_key
    taken = [await asyncio.wait_for(pool.acquire(url, **arguments), 5) for _ in range(limit)]
    assert len({id(pooled) for pooled in taken}) == limit
    extra = asyncio.ensure_future(pool.acquire(url, **arguments))
    await turns()
    assert not extra.done()
    await cancelled(extra)
    for pooled in taken:
        await pool.release(pooled)
    assert_at_rest(pool)
    assert pool.most_open[url] <= limit
