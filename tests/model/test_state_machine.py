"""Random histories of a pool against the oracle of the contract; see oracle.py and audit.py.

MGP_MODEL_EXAMPLES=5000 for a long run, with other histories each time; MGP_MODEL_STEPS bounds each history.
MGP_MODEL_SHRINK=1 shortens a history that fails, for which Hypothesis takes up to five minutes; long runs
always do.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import time
from collections import Counter
from contextlib import ExitStack
from itertools import count
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from mcpgateway_pool import CircuitOpenError, PoolClosedError, PooledSession, SessionCreateTimeoutError
from mcpgateway_pool.prometheus.collector import forget_gateway
from mcpgateway_pool.verdict import Fault, blame
from model import figures
from model.ahead import Nobody
from model.audit import audit, predict, series_by_gateway
from model.controlled import ControlledPool, Operation, current_caller
from model.loop import SteppedLoop, no_polling
from model.oracle import Caller, Key, Oracle, State

EXAMPLES = os.environ.get("MGP_MODEL_EXAMPLES")
SHRINKS = EXAMPLES is not None or bool(os.environ.get("MGP_MODEL_SHRINK"))
STEPS = int(os.environ.get("MGP_MODEL_STEPS", "50"))

# Of the steps of a history: little is left to happen after it.
CLOSES_AFTER = 0.8 * STEPS

# What the histories of a long run must come by.
REACHED = [
    "hits",
    "misses",
    "create_failures",
    "health_checks",
    "health_check_failures",
    "circuit_breaker_trips",
    "acquire_timeouts",
    "acquire_cancellations",
    "long_checkouts",
    *(f"acquire_rejections {reason}" for reason in ("circuit_open", "exhausted", "queue_full")),
    *(
        f"evictions {reason}"
        for reason in (
            "ttl_expired",
            "manual",
            "idle_timeout",
            "health_check",
            "broken",
            "capacity",
            "leaked",
        )
    ),
]

_runs = count(1)
# What the histories consisted of.
tried: Counter[str] = Counter()

# Short enough that all of them fall due in one history; multiples of a half are exact in binary.
TIMES = {
    "session_ttl_seconds": 40.0,
    "health_check_interval_seconds": 6.0,
    "acquire_timeout_seconds": 10.0,
    "session_create_timeout_seconds": 8.0,
    "circuit_breaker_reset_seconds": 12.0,
    "cleanup_timeout_seconds": 5.0,
}


def limits() -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {
            "max_sessions_per_key": st.sampled_from([1, 2, 3]),
            "max_total_sessions": st.sampled_from([0, 0, 0, 1, 2, 3, 4]),
            "max_total_keys": st.sampled_from([0, 0, 0, 1, 2]),
            "max_waiters": st.sampled_from([0, 0, 0, 1, 2]),
            "max_creating_per_url": st.sampled_from([0, 0, 1, 2]),
            "circuit_breaker_threshold": st.sampled_from([1, 2, 3, 100]),
            "isolation": st.sampled_from(["identity", "identity", "session"]),
            "health_checks_per_second": st.sampled_from([0, 10]),
            "idle_pool_eviction_seconds": st.sampled_from([24.0, 500.0]),
            "min_idle": st.sampled_from([0, 0, 1]),
            "replace_sessions": st.booleans(),
            "leak_detection_seconds": st.sampled_from([0.0, 7.0, 15.0]),
        }
    )


class Refused(Exception):
    """The server's refusal of the caller: no failure of the server."""

    counts = False

    def __init__(self) -> None:
        super().__init__("refused")
        self.response = mock.Mock(spec=["status_code"], status_code=401)


def failure(kind: str) -> BaseException:
    """What a creation raises."""
    if kind == "refused":
        return Refused()
    if kind == "mistake":
        error = ValueError("no such header")
        blame(error, Fault.CALLER)
        error.counts = False  # type: ignore[attr-defined]
        return error
    if kind == "cancelled":
        return asyncio.CancelledError("by itself")
    return OSError("no server")


class PoolHistory(RuleBasedStateMachine):
    """One pool on a loop and a clock of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.stack.enter_context(no_polling())
        self.loop = SteppedLoop()
        self.stack.enter_context(self.loop.running())
        self.steps = 0
        self.wall_step = 0.0
        wall = time.time

        def stepped_wall() -> float:
            return wall() + self.wall_step

        self.stack.enter_context(mock.patch("time.time", stepped_wall))
        self.tasks: dict[asyncio.Task[None], Caller] = {}
        self.others: list[asyncio.Task[None]] = []
        self.pooled: dict[Caller, PooledSession] = {}
        self.blocks: dict[Caller, asyncio.Future[BaseException | None]] = {}

    @initialize(
        limits=limits(),
        keys=st.integers(1, 5),
        held=st.sets(st.sampled_from(["create", "close", "check"])),
    )
    def make_pool(self, limits: dict[str, Any], keys: int, held: set[str]) -> None:
        self.settings = TIMES | limits
        self.oracle = Oracle(self.settings, self.loop.time)
        self.pool = ControlledPool(self.oracle, clock=self.loop.time, session_ttl_jitter=0.0, **self.settings)
        run = next(_runs)
        one, two = f"model-{run}-1", f"model-{run}-2"
        self.gateways = [one, two]
        self.pool.held = held
        first, second = "http://first.test/mcp", "http://second.test/mcp"
        self.keys = [
            Key(first, "ann", one),
            Key(first, "bob", one),
            Key(second, "ann", one, token="Bearer 1"),
            Key(second, "ann", two, token="Bearer 1"),
            Key(first, "ann", one, downstream="session-1"),
        ][:keys]

    # ---- callers

    async def _acquire(self, caller: Caller) -> None:
        current_caller.set(caller)
        self.oracle.arrived(caller)
        key = caller.key
        try:
            pooled = await self.pool.acquire(
                key.url, key.headers, user_identity=key.user, gateway_id=key.gateway
            )
        except GeneratorExit:
            raise  # the test is over
        except BaseException as error:
            self.pool.tell(self.oracle.ended, caller, error)
            raise
        self.pool.tell(self.oracle.answered, caller, pooled.session)
        self.pooled[caller] = pooled

    async def _use_block(self, caller: Caller) -> None:
        current_caller.set(caller)
        self.oracle.arrived(caller)
        key = caller.key
        block = self.pool.session(key.url, key.headers, user_identity=key.user, gateway_id=key.gateway)
        try:
            pooled = await block.__aenter__()
        except GeneratorExit:
            raise  # the test is over
        except BaseException as error:
            self.pool.tell(self.oracle.ended, caller, error)
            raise
        connection = pooled.session
        del pooled
        self.pool.tell(self.oracle.answered, caller, connection)
        self.blocks[caller] = self.loop.create_future()
        try:
            error = await self.blocks[caller]
            if error is not None:
                raise error  # noqa: TRY301
        except GeneratorExit:
            raise
        except BaseException as error:
            self._leave_block(caller, error)
            await block.__aexit__(type(error), error, None)
            raise
        self._leave_block(caller, None)
        await block.__aexit__(None, None, None)

    def _leave_block(self, caller: Caller, error: BaseException | None) -> None:
        del self.blocks[caller]
        if caller.session is None:
            return  # the pool was closed meanwhile
        self.oracle.releasing(caller.session, has_raised=error is not None)

    def _start(self, caller: Caller, coroutine: Any) -> None:
        """Run its first step alone: the pool has answered by then what it can answer at once."""
        expected = {"closed"} if self.oracle.is_closed else predict(self.oracle, caller.key)
        used = [
            session.used_at
            for session in filter(self.oracle.is_fresh, self.oracle.of(caller.key, State.IDLE))
        ]
        sure = not any(
            session.used_at < session.used_at_most for session in self.oracle.of(caller.key, State.IDLE)
        )
        idle = {session: session.used_at for session in self.oracle.of(caller.key, State.IDLE)}
        before = self.pool._counts()
        task = self.loop.create_task(coroutine)
        self.tasks[task] = caller
        self.loop.run(self.loop.ready[0])
        after = self.pool._counts()
        for error in self.pool.violations:
            raise error
        if caller.is_answered:
            outcome = "hit"
            if sure and expected == {"hit"}:
                assert caller.session is not None
                assert idle[caller.session] == max(used), "not the most recently used"
        elif task.done():
            outcome = {
                "PoolClosedError": "closed",
                "CircuitOpenError": "circuit_open",
                "PoolExhaustedError": "exhausted",
            }[type(caller.error).__name__]
        else:
            outcome = "create" if after["creating"] > before["creating"] else "wait"
        assert outcome in expected, f"{caller}: {outcome}, expected {expected}; before: {before}"

    # Hypothesis leaves out some rules in each history. What the others need comes in several of them.

    @rule(key=st.integers(0, 4), is_block=st.booleans())
    def acquire(self, key: int, is_block: bool) -> None:
        caller = Caller(self.keys[key % len(self.keys)])
        self._start(caller, self._use_block(caller) if is_block else self._acquire(caller))
        self.loop.settle()

    @rule(keys=st.lists(st.integers(0, 4), min_size=2, max_size=4), is_block=st.booleans())
    def acquire_several(self, keys: list[int], is_block: bool) -> None:
        for key in keys:
            self.acquire(key, is_block)

    @rule(key=st.integers(0, 4), data=st.data())
    def give_back_and_acquire(self, key: int, data: st.DataObject) -> None:
        self.give_back(data)
        self.acquire(key, is_block=False)

    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        """Whoever has a session releases it; where nobody has, a creation goes on."""
        holders = [*self.pooled, *self.blocks]
        creations = [one for one in self.pool.operations if one.kind == "create" and not one.outcome.done()]
        if holders:
            caller = data.draw(st.sampled_from(holders), "caller")
            if caller in self.blocks:
                self.blocks[caller].set_result(None)
            else:
                self._give_back(caller, self.pooled.pop(caller))
        elif creations:
            creations[0].end()
        self.loop.settle()

    def _spawn(self, coroutine: Any) -> None:
        self.others.append(self.loop.create_task(coroutine))

    # ---- what callers do with their sessions

    async def _release(self, pooled: PooledSession, discard: bool) -> None:
        await self.pool.release(pooled, discard=discard)

    def _let_go(self, data: st.DataObject) -> tuple[Caller, PooledSession]:
        caller = data.draw(st.sampled_from(list(self.pooled)), "caller")
        return caller, self.pooled.pop(caller)

    def _give_back(self, caller: Caller, pooled: PooledSession) -> None:
        if caller.session is not None:
            self.oracle.releasing(caller.session)
        self._spawn(self._release(pooled, False))
        self.loop.settle()

    @precondition(lambda self: self.pooled)
    @rule(data=st.data(), discard=st.booleans(), cancel=st.booleans())
    def release(self, data: st.DataObject, discard: bool, cancel: bool) -> None:
        caller, pooled = self._let_go(data)
        session = self.oracle.sessions[pooled.session]
        task = self.loop.create_task(self._release(pooled, discard))
        self.others.append(task)
        if caller.session is not None:
            self.oracle.releasing(session, discard=discard)
        self.loop.run(self.loop.ready[0])
        if cancel:
            self._cancel_somebody(data)
            task.cancel()
        self.loop.settle()

    @precondition(lambda self: self.pooled)
    @rule(data=st.data())
    def release_twice(self, data: st.DataObject) -> None:
        caller, pooled = self._let_go(data)
        if caller.session is not None:
            self.oracle.releasing(self.oracle.sessions[pooled.session])
        self._spawn(self._release_twice(pooled))
        self.loop.settle()

    async def _release_twice(self, pooled: PooledSession) -> None:
        """At once, so that it has not been lent again to somebody who knows of it."""
        lease = self.pool._lease_of(pooled)
        await self.pool.release(pooled)
        if lease is None or self.pool._lease_of(pooled) is None:
            await self.pool.release(pooled, discard=True)

    @precondition(lambda self: self.pooled)
    @rule(data=st.data())
    def leak(self, data: st.DataObject) -> None:
        caller, pooled = self._let_go(data)
        if caller.session is not None:
            self.oracle.dropped(self.oracle.sessions[pooled.session])
        del pooled
        gc.collect()  # an exception's traceback may refer to it still
        self.loop.settle()

    @precondition(lambda self: self.steps % 5 == 0 and not self.oracle.is_closed)
    @rule(cancels=st.booleans())
    def release_foreign(self, cancels: bool) -> None:
        """One that no pool gave out is closed, not pooled."""
        stranger = self.pool.connect(None)
        task = self.loop.create_task(self._release(self.pool.wrap(stranger, self.keys[0].url), False))
        self.others.append(task)
        self.loop.settle()
        if cancels:
            task.cancel()
            self.loop.settle()

    @precondition(lambda self: self.blocks)
    @rule(data=st.data(), how=st.sampled_from(["well", "error", "connection"]))
    def leave_block(self, data: st.DataObject, how: str) -> None:
        caller = data.draw(st.sampled_from(list(self.blocks)), "caller")
        errors = {"well": None, "error": ValueError("in the block"), "connection": ConnectionResetError()}
        self.blocks[caller].set_result(errors[how])
        self.loop.settle()

    # ---- what the world does

    @precondition(lambda self: any(not task.done() for task in self.tasks))
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        self._cancel_somebody(data)
        self.loop.settle()

    def _cancel_somebody(self, data: st.DataObject) -> None:
        running = [task for task in self.tasks if not task.done()]
        if running:
            task = data.draw(st.sampled_from(running), "cancelled")
            caller = self.tasks[task]
            caller.is_cancelled = True
            self.oracle.is_raced |= bool(self.loop.ready)
            task.cancel()

    @rule(kind=st.sampled_from(["create", "close", "check"]))
    def hold(self, kind: str) -> None:
        """From now on these wait for the test, or no longer."""
        self.pool.held ^= {kind}

    def _operation(self, data: st.DataObject, *kinds: str) -> Operation | None:
        waiting = [
            operation
            for operation in self.pool.operations
            if operation.kind in kinds and not operation.outcome.done()
        ]
        return data.draw(st.sampled_from(waiting), "operation") if waiting else None

    @precondition(lambda self: self.pool.operations)
    @rule(data=st.data(), is_well=st.booleans(), cancel=st.booleans())
    def end_operation(self, data: st.DataObject, is_well: bool, cancel: bool) -> None:
        """A close or a check ends, well or not; a creation ends well."""
        operation = self._operation(data, "create", "close", "check")
        if operation is not None:
            ill = {"create": None, "close": OSError("already gone"), "check": False}[operation.kind]
            operation.end(True if is_well else ill)
            if cancel:
                self._cancel_somebody(data)
            self.loop.settle()

    @precondition(lambda self: any(operation.kind == "create" for operation in self.pool.operations))
    @rule(data=st.data(), kind=st.sampled_from(["server", "server", "refused", "mistake", "cancelled"]))
    def fail_creation(self, data: st.DataObject, kind: str) -> None:
        operation = self._operation(data, "create")
        if operation is not None:
            error = failure(kind)
            operation.connection.creator.injected = error
            operation.end(error)
            self.loop.settle()

    @precondition(lambda self: any(operation.kind == "close" for operation in self.pool.operations))
    @rule(data=st.data())
    def ignore_cancellation(self, data: st.DataObject) -> None:
        operation = self._operation(data, "close")
        if operation is not None:
            operation.ignores_cancellation = True

    @rule(data=st.data())
    def die(self, data: st.DataObject) -> None:
        """A session's connection is lost: idle, under a check, or in use."""
        alive = [
            session
            for session in self.oracle.of(None, State.ACTIVE, State.IDLE, State.CHECKING)
            if not session.connection.owner.done()
        ]
        if alive:
            session = data.draw(st.sampled_from(alive), "session")
            session.connection.owner.set_result(None)
            self.oracle.died(session)
            self.loop.settle()

    @rule(
        seconds=st.sampled_from([0.5, 2.0, 6.0, 6.5, 8.0, 10.0, 12.0, 24.0, 150.0]),
        wall_step=st.sampled_from([0.0, 0.0, -1e6, 3600.0]),
    )
    def advance(self, seconds: float, wall_step: float) -> None:
        """A step of the wall clock changes nothing: everything is measured on the monotonic one."""
        self.wall_step += wall_step
        self.loop.advance(seconds, self.audit_in_between)
        self.loop.settle()

    @rule(seconds=st.sampled_from([6.5, 6.5, 24.0, 39.0]), is_healthy=st.booleans())
    def rest(self, seconds: float, is_healthy: bool) -> None:
        """Everything is given back, and nobody comes for a while."""
        for operation in [one for one in self.pool.operations if not one.outcome.done()]:
            operation.end()
        self.loop.settle()
        self._give_back_all()
        self.pool.is_healthy = is_healthy
        self.advance(seconds, wall_step=0.0)
        self.pool.is_healthy = True

    def _give_back_all(self) -> None:
        while self.blocks or self.pooled:  # whoever waits has a session then, too
            for block in self.blocks.values():
                block.set_result(None)
            self.loop.settle()
            for caller in list(self.pooled):
                self._give_back(caller, self.pooled.pop(caller))
            for operation in [one for one in self.pool.operations if not one.outcome.done()]:
                operation.end()
            self.loop.settle()

    async def _warm(self, key: Key, sessions: int) -> None:
        nobody = Nobody(key, is_warm=True)
        current_caller.set(nobody)
        try:
            count = await self.pool.warm(
                key.url, key.headers, user_identity=key.user, gateway_id=key.gateway, sessions=sessions
            )
        except PoolClosedError:
            assert self.oracle.is_closed
        except CircuitOpenError:
            assert self.oracle.breaker(key.url).is_open
        except SessionCreateTimeoutError:
            pass
        except Exception as error:
            if error is not nobody.injected:
                raise
        else:
            assert 0 <= count <= self.settings["max_sessions_per_key"]

    @rule(key=st.integers(0, 4), sessions=st.integers(1, 3), cancel=st.booleans())
    def warm(self, key: int, sessions: int, cancel: bool) -> None:
        task = self.loop.create_task(self._warm(self.keys[key % len(self.keys)], sessions))
        self.others.append(task)
        self.loop.run(self.loop.ready[0])
        if cancel:
            task.cancel()
        self.loop.settle()

    @rule(data=st.data(), cancel=st.booleans())
    def drain(self, data: st.DataObject, cancel: bool) -> None:
        self.oracle.drained()
        self._spawn(self.pool.drain_all())
        self.loop.run(self.loop.ready[0])
        if cancel:
            self._cancel_somebody(data)
        self.loop.settle()

    @precondition(lambda self: self.steps > CLOSES_AFTER)
    @rule(is_twice=st.booleans())
    def close(self, is_twice: bool) -> None:
        self._close()
        if is_twice:
            self._spawn(self.pool.close_all())
        self.loop.settle()

    def _close(self) -> None:
        self.oracle.closed()
        self._spawn(self.pool.close_all())

    # ---- judged after each step

    def audit_in_between(self) -> None:
        for error in self.pool.violations:
            raise error
        audit(self.oracle, self.pool, self.keys)

    @invariant()
    def nothing_is_left_undone(self) -> None:
        if not hasattr(self, "oracle"):
            return
        self.steps += 1
        assert not self.loop.complaints, self.loop.complaints
        self.audit_in_between()
        for task in [task for task in self.tasks if task.done()]:
            self._judge_end(task, self.tasks.pop(task))
        for task in [task for task in self.others if task.done()]:
            self.others.remove(task)
            if not task.cancelled():
                task.result()

    def _judge_end(self, task: asyncio.Task[None], caller: Caller) -> None:
        """A cancelled caller learns of it; what went wrong in this test itself comes out here."""
        if caller.is_cancelled:
            assert task.cancelled(), f"{caller} did not learn that it was cancelled"
        elif not task.cancelled():
            error = task.exception()
            if isinstance(error, AssertionError):
                raise error

    # ---- the end

    def teardown(self) -> None:
        try:
            if hasattr(self, "oracle") and sys.exc_info()[0] is None:  # else it failed already
                self._end()
        finally:
            self.pooled.clear()
            self.stack.close()
            self.loop.close()

    def _end(self) -> None:
        """Everything is given back and closed, and nothing is left."""
        self.pool.held = set()
        for operation in list(self.pool.operations):
            if not operation.outcome.done():
                operation.end()
        self.loop.settle()
        self._give_back_all()
        self._close()
        self.loop.settle()
        self.loop.advance(60.0)
        self.loop.settle()
        self.nothing_is_left_undone()
        assert not self.tasks, f"{list(self.tasks.values())} never ended"
        assert not self.others
        assert not self.pool._tasks
        assert not self.pool.operations
        for session in self.oracle.sessions.values():
            assert session.state is State.GONE, session
        assert not any(self.pool._counts()[name] for name in ("keys", "waiters", "active", "closing"))
        shown = series_by_gateway()
        for gateway in self.gateways:
            for name in ("size", "active_sessions", "idle_sessions", "waiters", "keys"):
                assert shown[gateway].get((name,), 0) == 0, name
        for gateway in self.gateways:
            forget_gateway(gateway)
        tried["histories"] += 1
        for (_, *series), number in self.oracle.counted.items():
            tried[" ".join(series)] += number


def run_settings(examples: int) -> settings:
    every_run = settings(
        stateful_step_count=STEPS, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    if not SHRINKS:
        every_run = settings(every_run, phases=[Phase.explicit, Phase.generate], report_multiple_bugs=False)
    if EXAMPLES is None:
        return settings(every_run, max_examples=examples, derandomize=True)
    return settings(every_run, max_examples=examples, print_blob=True)


@pytest.mark.timeout(7200 if SHRINKS else 120)
@pytest.mark.parametrize(
    "examples",
    [40, pytest.param(100, marks=pytest.mark.long("more histories than the short ones"))]
    if EXAMPLES is None
    else [int(EXAMPLES)],
)
def test_pool_does_what_the_oracle_allows(examples: int):
    run_state_machine_as_test(PoolHistory, settings=run_settings(examples))  # type: ignore[no-untyped-call]
    numbers = ", ".join(f"{number:,} {name}" for name, number in sorted(tried.items()))
    figures.lines.append(f"random histories: {numbers}")
    if EXAMPLES is not None:
        missing = [name for name in REACHED if not tried[name]]
        assert not missing, f"histories that reach too little: {missing}"
