"""A few callers of one pool, and a scheduler that decides what happens next: which callback the loop runs,
whether a creation ends and how, who is cancelled, when the time is up, when the pool is drained or closed.

The callbacks that are ready may run in any order, not only in that of asyncio's own loop.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

from mcpgateway_pool import (
    AcquireTimeoutError,
    PoolClosedError,
    PooledSession,
    PoolExhaustedError,
    SessionCreateTimeoutError,
)
from mcpgateway_pool.tasks import CANCEL_GRACE_SECONDS
from model.controlled import Connection, ControlledPool, Operation, current_caller
from model.long_checkouts import LongCheckouts
from model.loop import SteppedLoop, no_polling

GATEWAY = "interleavings"
LONG = 1e6
DOCUMENTED = (AcquireTimeoutError, PoolClosedError, PoolExhaustedError, SessionCreateTimeoutError)


@dataclass(frozen=True)
class Scenario:
    """What may happen in a world.

    Attributes:
        keys: one caller for each letter, who acquires that key.
        limit: sessions per key; ``total``: of all keys, 0 for unlimited.
        cancels, failures, jumps: how many callers are cancelled, creations fail, and jumps of time to the
            next timer are made, at most, each at any point.
        event: ``"drain"`` or ``"close"``, once, at any point.
        discards: whether callers discard their sessions.
        warms: how many sessions of the first key are warmed, from some point on.
        min_idle: how many each key keeps ready; ``ttl``: the lifetime of a session, before whose end it is
            replaced.
        leak: for how long a session may be checked out, 0: for ever.
    """

    keys: str
    limit: int = 1
    total: int = 0
    cancels: int = 0
    failures: int = 0
    jumps: int = 0
    event: str = ""
    discards: bool = False
    warms: int = 0
    min_idle: int = 0
    ttl: float = LONG
    leak: float = 0.0


class Actor:
    """One caller: acquires, uses its session for a turn of the loop, releases it."""

    def __init__(self, name: str, key: str) -> None:
        self.name = name
        self.url = f"http://{key}.test/mcp"
        self.task: asyncio.Task[None] | None = None
        self.is_creating = False
        self.is_cancelled = False
        self.is_answered = False
        self.has_failed = False


class Nobody(Actor):
    """For whom sessions are opened that no caller waits for."""


class SeenPool(ControlledPool):
    """Also sees who begins a creation."""

    def _spawn(self, coroutine: Any, name: str, *, in_context: bool = False) -> asyncio.Task[None]:
        if name == "create":
            self.tell(self.observer.creation_decided, current_caller.get())  # type: ignore[attr-defined]
        return super()._spawn(coroutine, name, in_context=in_context)


class PoolWorld:
    """See the module; a world of explorer.py."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.left = {"cancel": scenario.cancels, "fail": scenario.failures, "jump": scenario.jumps}
        self.event = scenario.event
        self.at_event: Hashable = None
        self.arrivals: list[Actor] = []
        self.holders: dict[Connection, Actor] = {}
        self.connections: dict[Connection, str] = {}
        self.closes: Counter[Connection] = Counter()
        self.closing_since: dict[Connection, float] = {}
        self.long_checkouts = LongCheckouts(scenario.leak)
        self.errors: list[BaseException] = []
        self.is_over = False
        self.stack = ExitStack()
        self.stack.enter_context(no_polling())
        self.loop = SteppedLoop()
        self.stack.enter_context(self.loop.running())
        self.pool = SeenPool(
            self,
            max_sessions_per_key=scenario.limit,
            max_total_sessions=scenario.total,
            session_ttl_seconds=scenario.ttl,
            min_idle=scenario.min_idle,
            leak_detection_seconds=scenario.leak,
            idle_pool_eviction_seconds=LONG,
            health_check_interval_seconds=LONG,
            circuit_breaker_threshold=1000,
            acquire_timeout_seconds=10.0,
            session_create_timeout_seconds=8.0,
            clock=self.loop.time,
            session_ttl_jitter=0.0,
        )
        self.pool.held = {"create", "close"}
        self.actors = [Actor(f"{key}{number}", key) for number, key in enumerate(scenario.keys)]
        self.event_task: asyncio.Task[None] | None = None
        self.warmer: asyncio.Task[int] | None = None
        for actor in self.actors:
            actor.task = self.loop.create_task(self._act(actor), name=actor.name)
        if scenario.warms:
            self.warmer = self.loop.create_task(self._warm(self.actors[0].url), name="warm")

    async def _warm(self, url: str) -> int:
        current_caller.set(self._nobody_of(url))
        return await self.pool.warm(url, gateway_id=GATEWAY, sessions=self.scenario.warms)

    @staticmethod
    def _nobody_of(url: str) -> Nobody:
        nobody = Nobody("nobody", "")
        nobody.url = url
        return nobody

    async def _act(self, actor: Actor) -> None:
        current_caller.set(actor)
        self.arrivals.append(actor)
        try:
            pooled = await self._acquire(actor)
            try:
                await asyncio.sleep(0)
            finally:
                self.holders.pop(pooled.session, None)
                self.long_checkouts.ended(pooled.session, self.loop.now)
                if not self.is_over:
                    await self.pool.release(pooled, discard=self.scenario.discards)
        except AssertionError as error:
            self.errors.append(error)
            raise

    async def _acquire(self, actor: Actor) -> PooledSession:
        try:
            pooled = await self.pool.acquire(actor.url, gateway_id=GATEWAY)
        except BaseException:
            actor.has_failed = True
            raise
        if not actor.is_creating:
            self._judge_order(actor)
        connection = pooled.session
        assert connection not in self.holders, f"{actor.name} got what {self.holders[connection].name} has"
        assert self.connections[connection] == "open"
        actor.is_answered = True
        self.holders[connection] = actor
        self.long_checkouts.began(connection, self.loop.now)
        return pooled

    def _judge_order(self, served: Actor) -> None:
        """Whoever came earlier for the same key was granted something before."""
        for actor in self.arrivals[: self.arrivals.index(served)]:
            assert actor.task is not None
            waits_for = actor.task._fut_waiter  # type: ignore[attr-defined]
            if actor.url == served.url and self._is_waiting(actor):
                assert waits_for is None or waits_for.done(), f"{served.name} overtook {actor.name}"

    @staticmethod
    def _is_waiting(actor: Actor) -> bool:
        return not (actor.is_creating or actor.is_answered or actor.has_failed or actor.is_cancelled)

    # ---- told by the pool

    def nobody(self, like: Connection) -> Nobody:
        return self._nobody_of(like.creator.url)

    def creation_decided(self, actor: Actor) -> None:
        if isinstance(actor, Nobody):
            waiting = [one.name for one in self.arrivals if self._is_parked(one) and one.url == actor.url]
            assert not waiting, f"{waiting} wait for a place, and a session is opened for nobody"
            return
        self._judge_order(actor)
        actor.is_creating = True

    @staticmethod
    def _is_parked(actor: Actor) -> bool:
        """Whether it waits, and was not woken yet."""
        assert actor.task is not None
        waits_for = actor.task._fut_waiter  # type: ignore[attr-defined]
        return PoolWorld._is_waiting(actor) and waits_for is not None and not waits_for.done()

    def creation_begun(self, connection: Connection) -> None:
        self.connections[connection] = "creating"
        places = [seen for seen in self.connections if self._takes_a_place(seen)]
        of_key = [seen for seen in places if seen.creator.url == connection.creator.url]
        assert len(of_key) <= self.scenario.limit
        assert not self.scenario.total or len(places) <= self.scenario.total

    def _takes_a_place(self, connection: Connection) -> bool:
        """A close does for as long as it may take."""
        if self.connections[connection] == "closing":
            bound = self.pool._cleanup_timeout() + CANCEL_GRACE_SECONDS
            return self.loop.now < self.closing_since[connection] + bound
        return self.connections[connection] != "gone"

    def creation_ended(self, connection: Connection, error: BaseException | None) -> None:
        self.connections[connection] = "gone" if error else "open"

    def close_decided(self, connection: Connection, reason: str) -> None:
        if connection in self.holders:
            assert self.event == "closed", f"closing {connection} in use: {reason}"
            self.long_checkouts.ended(connection, self.loop.now)

    def checkout_reported(self, connection: Connection) -> None:
        self.long_checkouts.reported(connection, self.loop.now)

    def close_begun(self, connection: Connection) -> None:
        self.closes[connection] += 1
        assert self.closes[connection] == 1
        self.connections[connection] = "closing"
        self.closing_since[connection] = self.loop.now

    def close_ended(self, connection: Connection) -> None:
        self.connections[connection] = "gone"

    # ---- what can happen

    def _choices(self) -> Iterator[tuple[str, Callable[[], None]]]:
        for handle in self.loop.ready:
            yield "run", partial(self.loop.run, handle)
        for operation in self.pool.operations:
            if not operation.outcome.done():
                yield "end", operation.end
                if operation.kind == "create" and self.left["fail"]:
                    yield "fail", partial(self._fail, operation)
        if self.left["cancel"]:
            for actor in self.actors:
                if actor.task is not None and not actor.task.done():
                    yield "cancel", partial(self._cancel, actor)
        if self.left["jump"] and self._timer_is_near():
            yield "jump", self._jump
        if self.event in {"drain", "close"}:
            yield self.event, self._begin_event

    def _timer_is_near(self) -> bool:
        when = self.loop.next_timer()
        return when is not None and when < LONG

    def _fail(self, operation: Operation) -> None:
        self.left["fail"] -= 1
        operation.end(OSError("no server"))

    def _cancel(self, actor: Actor) -> None:
        self.left["cancel"] -= 1
        assert actor.task is not None
        actor.is_cancelled = True
        actor.task.cancel()

    def _jump(self) -> None:
        self.left["jump"] -= 1
        self.loop.wake_next()

    def _begin_event(self) -> None:
        if self.event == "drain":
            self.at_event = self._seen()
            self.event = "drained"
            self.event_task = self.loop.create_task(self.pool.drain_all(), name="drain")
        else:
            self.event = "closed"
            self.event_task = self.loop.create_task(self.pool.close_all(), name="close")

    def options(self) -> int:
        return sum(1 for _ in self._choices())

    def take(self, option: int) -> None:
        _, act = list(self._choices())[option]
        act()
        self._run_bookkeeping()
        for error in (*self.errors, *self.pool.violations):
            raise error
        assert not self.loop.complaints, self.loop.complaints

    def _run_bookkeeping(self) -> None:
        """What only takes a task that is done out of a set goes with any order: it is no decision."""
        self.loop.drop_cancelled()
        for handle in list(self.loop.ready):
            if handle._callback == self.pool._tasks.discard:  # type: ignore[attr-defined]
                self.loop.run(handle)

    # ---- what the future depends on

    def state(self) -> Hashable:
        waiting = tuple(actor.name for actor in self.arrivals if self._is_waiting(actor))
        return (
            self._seen(),
            self.at_event,
            waiting,
            tuple(self.left.values()),
            self.event,
            self.loop.now,
            tuple(sorted(self._describe_handle(handle) for handle in self.loop.ready)),
            repr(self.pool._counts()),
            repr(self.pool._totals()),
            repr([(idle, active) for _, idle, active in self._sessions_by_key()]),
        )

    def _seen(self) -> Hashable:
        tasks = sorted(self._describe_task(task) for task in self._tasks())
        connections = sorted(
            (
                connection.creator.name,
                state,
                self.closing_since[connection] if state == "closing" else 0.0,
                self.holders[connection].name if connection in self.holders else "",
                self.long_checkouts.seen(connection),
            )
            for connection, state in self.connections.items()
        )
        actors = [
            (actor.is_creating, actor.is_answered, actor.has_failed, actor.is_cancelled)
            for actor in self.actors
        ]
        return tuple(tasks), tuple(connections), tuple(actors)

    def _sessions_by_key(self) -> list[tuple[str, list[str], list[str]]]:
        def names(sessions: list[PooledSession]) -> list[str]:
            return [session.session.creator.name for session in sessions]

        return sorted((parts[1], names(idle), names(active)) for parts, idle, active in self.pool._keys())

    def _tasks(self) -> list[asyncio.Task[Any]]:
        tasks = [actor.task for actor in self.actors if actor.task is not None]
        tasks += [task for task in (self.event_task, self.warmer) if task is not None]  # type: ignore[misc]
        return tasks + list(self.pool._tasks)

    def _describe_task(self, task: asyncio.Task[Any]) -> tuple[str, ...]:
        waits_for = task._fut_waiter  # type: ignore[attr-defined]
        return (
            task.get_name(),
            *self._describe_coroutine(task.get_coro()),
            str(task._must_cancel),  # type: ignore[attr-defined]
            self._describe_future(task) + self._describe_future(waits_for),
        )

    @staticmethod
    def _describe_future(future: asyncio.Future[Any] | None) -> str:
        if future is None:
            return "none"
        if future.cancelled():
            return "cancelled"
        if not future.done():
            return "pending"
        return f"failed {type(future.exception()).__name__}" if future.exception() else "done"

    @staticmethod
    def _describe_coroutine(coroutine: Any) -> Iterator[str]:
        """Where it stands, for whom."""
        while coroutine is not None:
            frame = getattr(coroutine, "cr_frame", None)
            if frame is not None:
                local = frame.f_locals
                of = local.get("connection")
                if of is None and isinstance(local.get("pooled"), PooledSession):
                    of = local["pooled"].session
                name = of.creator.name if isinstance(of, Connection) and of.creator else ""
                yield f"{frame.f_code.co_name}:{frame.f_lasti}:{name}"
            coroutine = getattr(coroutine, "cr_await", None)

    def _describe_handle(self, handle: asyncio.Handle) -> str:
        callback = handle._callback  # type: ignore[attr-defined]
        owner = getattr(callback, "__self__", None)
        whose = "|".join(self._describe_task(owner)) if isinstance(owner, asyncio.Task) else ""
        arguments = [
            "|".join(self._describe_task(argument))
            if isinstance(argument, asyncio.Task)
            else type(argument).__name__
            for argument in handle._args or ()  # type: ignore[attr-defined]
        ]
        function = getattr(callback, "func", callback)
        return f"{getattr(function, '__qualname__', type(function).__name__)} {whose} {arguments}"

    # ---- the end

    def finish(self) -> None:
        for actor in self.actors:
            self._judge_end(actor)
        assert self.event_task is None or (self.event_task.done() and not self.event_task.exception())
        assert not self.holders
        self._judge_warmer()
        self._judge_rest()
        if self.event != "closed":
            self._judge_places()
        self._judge_closed()

    def _judge_end(self, actor: Actor) -> None:
        task = actor.task
        assert task is not None
        assert task.done(), f"{actor.name} hangs"
        if task.cancelled():
            assert actor.is_cancelled
            return
        assert not actor.is_cancelled or actor.is_answered, (
            f"{actor.name} did not learn that it was cancelled"
        )
        error = task.exception()
        is_injected = isinstance(error, OSError) and str(error) == "no server"
        assert error is None or is_injected or isinstance(error, DOCUMENTED), repr(error)
        if isinstance(error, PoolClosedError):
            assert self.event == "closed"
        if isinstance(error, PoolExhaustedError):
            assert self.scenario.total

    def _judge_warmer(self) -> None:
        if self.warmer is None:
            return
        assert self.warmer.done(), "warm() hangs"
        error = self.warmer.exception()
        is_injected = isinstance(error, OSError) and str(error) == "no server"
        assert error is None or is_injected or isinstance(error, PoolClosedError), repr(error)
        assert error is not None or self.warmer.result() <= self.scenario.limit

    def _judge_rest(self) -> None:
        counts, totals = self.pool._counts(), self.pool._totals()
        open_now = sum(state == "open" for state in self.connections.values())
        busy = {name: counts[name] for name in ("waiters", "creating", "checking", "closing", "active")}
        assert not any(busy.values()), busy
        assert counts["idle"] == open_now
        assert totals["creates"] == open_now + sum(totals["evictions"].values())
        self.long_checkouts.audit(self.loop.now)
        assert totals["hits"] + totals["misses"] == sum(actor.is_answered for actor in self.actors)
        assert not self.pool._tasks

    def _judge_places(self) -> None:
        """As many sessions as the limits allow are had at once, without waiting."""
        self.pool.held = set()
        scenario = self.scenario
        url = self.actors[0].url
        probes = [Actor(f"probe{number}", "x") for number in range(scenario.limit)]
        tasks = []
        for probe in probes:
            probe.url = url
            probe.task = self.loop.create_task(self._acquire_for_good(probe))
            tasks.append(probe.task)
            self.loop.settle()
        assert all(task.done() and not task.exception() for task in tasks), "a place was lost"
        self.holders.clear()

    async def _acquire_for_good(self, probe: Actor) -> None:
        current_caller.set(probe)
        self.arrivals.append(probe)
        self.kept = [*getattr(self, "kept", []), await self._acquire(probe)]

    def _judge_closed(self) -> None:
        self.pool.held = set()
        closing = self.loop.create_task(self.pool.close_all())
        self.event = "closed"
        self.loop.settle()
        assert closing.done(), "close_all() hangs"
        assert not self.pool._tasks
        assert set(self.connections.values()) <= {"gone"}
        assert self.pool._counts()["keys"] == 0
        assert not self.loop.complaints, self.loop.complaints

    def dispose(self) -> None:
        self.is_over = True
        ended: set[asyncio.Task[Any]] = set()
        while tasks := {task for task in self._tasks() if not task.done()} - ended:
            for task in tasks:  # which may begin others where they are ended
                coroutine = task.get_coro()
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                if inspect.iscoroutine(coroutine):
                    coroutine.close()
            ended |= tasks
        self.stack.close()
        self.loop.close()
