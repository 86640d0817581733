"""The cases of the laboratory: what callers meet when the network falls silent in one way or another."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from laboratory import HEALTHY, NOBODY, VICTIM, Laboratory

import mcpgateway_pool
from mcpgateway_pool import MCPSessionPool, TransportType

# What a caller would wait for at most; the SDK's own bound is 300 s.
_GIVE_UP_SECONDS = 320.0


@dataclass
class Outcome:
    """What callers met.

    Attributes:
        seconds: until the last of them knew.
        calls, failed: of those to the host in trouble.
        others_seconds: the longest call to the healthy host meanwhile.
        places_lost: sessions that count as active, though nobody has them any more.
        descriptors_left: sockets open when the pool is closed.
        errors: what they were told, each once.
        note: what else was seen.
    """

    seconds: float = 0.0
    calls: int = 0
    failed: int = 0
    others_seconds: float = 0.0
    places_lost: int = 0
    descriptors_left: int = 0
    errors: list[str] = field(default_factory=list)
    note: str = ""


class Bench:
    """A pool, and callers of it.

    Args:
        lab: where they are.
        is_patient: the network's settings are the default ones, also where the laboratory is fast.
        settings: of the pool.
    """

    def __init__(self, lab: Laboratory, *, is_patient: bool = False, **settings: Any) -> None:
        self.lab = lab
        self.outcome = Outcome()
        self._sockets = _sockets()
        self._others: asyncio.Task[None] | None = None
        if lab.is_fast and not is_patient and hasattr(mcpgateway_pool, "NetworkSettings"):
            settings.setdefault(
                "network",
                mcpgateway_pool.NetworkSettings(
                    connect_timeout_seconds=3,
                    tcp_keepalive_idle_seconds=2,
                    tcp_keepalive_interval_seconds=1,
                    tcp_keepalive_probes=2,
                    tcp_user_timeout_seconds=4,
                ),
            )
        self.pool = MCPSessionPool(**settings)

    async def call(
        self, url: str | None = None, user: str = "u", tool: str = "echo", **arguments: Any
    ) -> float:
        """A tool call of one user; how long it took.

        Raises:
            Exception: the call failed.
        """
        begin = time.monotonic()
        async with asyncio.timeout(_GIVE_UP_SECONDS):
            async with self.pool.session(
                url or self.lab.victim.url,
                {"authorization": f"Bearer {user}"},
                TransportType(self.lab.transport),
                user_identity=user,
            ) as pooled:
                result = await pooled.session.call_tool(tool, arguments or {"text": "x"})
                if getattr(result, "isError", False) or getattr(result, "is_error", False):
                    raise RuntimeError(str(result.content))
        return time.monotonic() - begin

    async def judged(self, *calls: Awaitable[float], begin: float | None = None) -> list[bool]:
        """Whether each has succeeded; they count in the outcome. They began now, or then."""
        begin = time.monotonic() if begin is None else begin
        results = await asyncio.gather(*calls, return_exceptions=True)
        self.outcome.seconds = max(self.outcome.seconds, time.monotonic() - begin)
        self.outcome.calls += len(results)
        for result in results:
            if isinstance(result, BaseException):
                self.outcome.failed += 1
                text = f"{type(result).__name__}: {result}"[:200]
                if text not in self.outcome.errors and len(self.outcome.errors) < 5:
                    self.outcome.errors.append(text)
        return [not isinstance(result, BaseException) for result in results]

    async def ready(self, users: Iterable[str] = ("u",), url: str | None = None) -> None:
        """A session for each; on a busy machine, not at the first attempt."""
        for user in users:
            for is_last in (False, False, True):
                error = await _error_of(self.call(url, user))
                if error is None:
                    break
                if is_last:
                    raise error

    @contextlib.asynccontextmanager
    async def others(self) -> AsyncIterator[None]:
        """Meanwhile, others call the healthy host, and say how long they wait."""
        await self.ready(["other"], self.lab.healthy.url)
        stop = asyncio.Event()

        async def go_on() -> None:
            while not stop.is_set():
                took = await self.call(self.lab.healthy.url, "other")
                self.outcome.others_seconds = max(self.outcome.others_seconds, took)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), 0.2)

        task = asyncio.create_task(go_on())
        try:
            yield
        finally:
            stop.set()
            await task

    async def close(self) -> Outcome:
        """Close the pool, and count what is left."""
        pools = self.pool.get_metrics()["pools"].values()
        self.outcome.places_lost = sum(pool["active"] for pool in pools)
        await self.pool.close_all()
        for _ in range(300):  # the system's resolver goes on for a while
            self.outcome.descriptors_left = max(0, _sockets() - self._sockets)
            if not self.outcome.descriptors_left:
                break
            await asyncio.sleep(0.1)
        return self.outcome


def _sockets() -> int:
    count = 0
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            count += os.readlink(f"/proc/self/fd/{name}").startswith("socket:")
    return count


Case = Callable[[Laboratory], Awaitable[Outcome]]
CASES: dict[str, Case] = {}
# Arguments of the servers. One that was paused sees first, where uvloop runs it, that its connections were
# idle for longer than it keeps them, and closes them with the request that it has not read.
SERVER_WORDS = {"hasty_server": ("--keep-alive", "2"), "paused_server": ("--keep-alive", "60")}


def case(function: Case) -> Case:
    """Enter it in the list."""
    CASES[function.__name__] = function
    return function


async def run(lab: Laboratory, name: str) -> Outcome:
    """Run one, with servers and a network of its own."""
    await lab.fresh(*SERVER_WORDS.get(name, ()))
    return await CASES[name](lab)


# ---- a host vanishes


@case
async def vanished_while_idle(lab: Laboratory) -> Outcome:
    bench = Bench(lab)
    await bench.ready()
    async with bench.others():
        lab.vanish()
        await asyncio.sleep(3)  # kept connections are too old by now
        await bench.judged(bench.call())
    return await bench.close()


@case
async def vanished_in_a_call(lab: Laboratory) -> Outcome:
    bench = Bench(lab)
    users = [f"u{number}" for number in range(5)]
    await bench.ready(users)
    async with bench.others():
        calls = [asyncio.create_task(bench.call(user=user, tool="slow", seconds=600)) for user in users]
        await asyncio.sleep(0.5)
        lab.vanish()
        await bench.judged(*calls)
    return await bench.close()


@case
async def vanished_before_a_creation(lab: Laboratory) -> Outcome:
    bench = Bench(lab)
    async with bench.others():
        lab.vanish()
        await bench.judged(*(bench.call(user=f"u{number}") for number in range(3)))
    return await bench.close()


@case
async def vanished_at_close(lab: Laboratory) -> Outcome:
    bench = Bench(lab)
    await bench.ready(f"u{number}" for number in range(5))
    lab.vanish()
    begin = time.monotonic()
    await bench.pool.close_all()
    bench.outcome.seconds = time.monotonic() - begin
    return await bench.close()


@case
async def power_loss(lab: Laboratory) -> Outcome:
    """The host is back soon, and knows of nothing."""
    bench = Bench(lab)
    users = [f"u{number}" for number in range(5)]
    await bench.ready(users)
    lab.vanish()
    await lab.victim.restart()
    lab.reset()
    for user in users:
        await bench.judged(bench.call(user=user))
    return await bench.close()


@case
async def vanished_for_a_while(lab: Laboratory) -> Outcome:
    """40 callers go on and on. The note says how long a healthy host was refused after its return."""
    away, reset = (4.0, 6.0) if lab.is_fast else (20.0, 60.0)
    bench = Bench(lab, circuit_breaker_reset_seconds=reset)
    users = [f"u{number}" for number in range(40)]
    await bench.ready(users)
    served = set()
    back = asyncio.Event()
    begin = 0.0

    async def go_on(user: str) -> None:
        while user not in served:
            is_after = back.is_set()
            [is_well] = await bench.judged(bench.call(user=user))
            if is_well and is_after:
                served.add(user)
            await asyncio.sleep(0.2)

    async with bench.others():
        lab.vanish()
        tasks = [asyncio.create_task(go_on(user)) for user in users]
        await asyncio.sleep(away)
        lab.reset()
        back.set()
        begin = time.monotonic()
        await asyncio.wait(tasks, timeout=12 * reset)
    bench.outcome.note = f"all served {time.monotonic() - begin:.1f} s after the return"
    if len(served) < len(users):
        bench.outcome.note = f"only {len(served)} of {len(users)} served after the return"
        for task in tasks:
            task.cancel()
    bench.outcome.seconds = time.monotonic() - begin
    return await bench.close()


# ---- a network that forgets, loses, is slow


@case
async def firewall_forgets(lab: Laboratory) -> Outcome:
    """It forgets what was silent for 5 s; a session is idle for longer."""
    forget, idle = (0.8, 8.0) if lab.is_fast else (5.0, 40.0)
    bench = Bench(lab, health_check_interval_seconds=600)
    lab.rules(forget_seconds=forget)
    await bench.ready()
    await asyncio.sleep(idle)
    begin = time.monotonic()
    await bench.judged(bench.call())
    bench.outcome.seconds = time.monotonic() - begin
    return await bench.close()


@case
async def loss_and_latency(lab: Laboratory) -> Outcome:
    bench = Bench(lab, is_patient=True)
    await bench.ready(["first"], lab.healthy.url)
    lab.rules(loss=0.03, delay_seconds=0.03)
    for _ in range(3 if lab.is_fast else 10):
        await bench.judged(*(bench.call(user=f"u{number}") for number in range(5)))
    lab.reset()
    return await bench.close()


# ---- names


@case
async def names_hang(lab: Laboratory) -> Outcome:
    """A name server that answers for the healthy host, and for none of 20 others."""
    bench = Bench(lab, is_patient=True)
    await bench.ready(["first"], lab.healthy.url)
    lab.rules(is_mute=True, names={"healthy.test": [HEALTHY]})
    url = lab.url_of("healthy.test")
    begin = time.monotonic()
    hanging = [
        asyncio.create_task(bench.call(lab.url_of(f"dead{number}.test"), f"d{number}"))
        for number in range(20)
    ]
    await asyncio.sleep(0.3)
    bench.outcome.others_seconds = await bench.call(url, "other")
    await bench.judged(*hanging, begin=begin)
    return await bench.close()


@case
async def name_moves(lab: Laboratory) -> Outcome:
    """The old address is dead. What is idle there fails once; the next call goes to the new one."""
    bench = Bench(lab)
    lab.rules(names={"moving.test": [VICTIM]})
    url = lab.url_of("moving.test")
    await bench.ready(url=url)
    lab.rules(names={"moving.test": [HEALTHY]}, vanished=[VICTIM])
    await asyncio.sleep(2.5)
    begin = time.monotonic()
    while not (await bench.judged(bench.call(url)))[0]:
        pass
    bench.outcome.seconds = time.monotonic() - begin
    return await bench.close()


@case
async def name_has_a_dead_address(lab: Laboratory) -> Outcome:
    bench = Bench(lab, is_patient=True)
    await bench.ready(["first"], lab.healthy.url)
    lab.rules(names={"half.test": [NOBODY, VICTIM]})
    await bench.judged(*(bench.call(lab.url_of("half.test"), f"u{number}") for number in range(5)))
    return await bench.close()


# ---- servers and this process


@case
async def many_sessions_and_a_restart(lab: Laboratory) -> Outcome:
    count = 40 if lab.is_fast else 500
    bench = Bench(lab, is_patient=True, session_ttl_seconds=3600)
    users = [f"u{number}" for number in range(count)]
    await bench.ready(users)
    lab.vanish()
    await lab.victim.restart()
    lab.reset()
    async with bench.others():
        await bench.judged(*(_in_turn(bench, users[begin::40]) for begin in range(40)))
    bench.outcome.calls = count
    return await bench.close()


async def _in_turn(bench: Bench, users: Iterable[str]) -> float:
    failures = [error for user in users if (error := await _error_of(bench.call(user=user))) is not None]
    if failures:
        bench.outcome.failed += len(failures) - 1  # one is counted by who judges
        raise failures[0]
    return 0.0


async def _error_of(call: Awaitable[float]) -> Exception | None:
    try:
        await call
    except Exception as error:
        return error
    return None


@case
async def paused_server(lab: Laboratory) -> Outcome:
    """Its system answers for it: only time-outs can tell. It goes on before they end."""
    pause = 3.0 if lab.is_fast else 15.0
    bench = Bench(lab, is_patient=True)
    await bench.ready()
    async with bench.others():
        lab.victim.process.send_signal(signal.SIGSTOP)
        calls = [asyncio.create_task(bench.call(user=user)) for user in ("u", "new")]
        await asyncio.sleep(pause)
        lab.victim.process.send_signal(signal.SIGCONT)
        await bench.judged(*calls)
    return await bench.close()


@case
async def hasty_server(lab: Laboratory) -> Outcome:
    """It closes what was idle for 2 s, and says nothing of it; callers come every 2 s."""
    bench = Bench(lab, is_patient=True)
    users = [f"u{number}" for number in range(20)]
    await bench.ready(users)

    async def go_on(number: int, user: str) -> None:
        for _ in range(2 if lab.is_fast else 10):
            await asyncio.sleep(1.99 + number * 0.001)
            await bench.judged(bench.call(user=user))

    await asyncio.gather(*(go_on(number, user) for number, user in enumerate(users)))
    return await bench.close()


@case
async def few_descriptors(lab: Laboratory) -> Outcome:
    """64 of them, and 60 callers. It is nobody's fault: once there are more, all are served."""
    bench = Bench(lab, is_patient=True)
    await bench.ready(["first"], lab.healthy.url)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    users = [f"u{number}" for number in range(60)]
    try:
        await bench.judged(*(bench.call(user=user) for user in users))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    begin = time.monotonic()
    results = await asyncio.gather(*(_error_of(bench.call(user=user)) for user in users))
    refused = sum(error is not None for error in results)
    bench.outcome.note = f"then {refused} of 60 refused, in {time.monotonic() - begin:.1f} s"
    return await bench.close()
