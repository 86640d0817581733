"""``mcpgateway-pool demo``: a pool at work, for ``top``, Prometheus and Grafana to look at.

Two real MCP servers, each a gateway to the pool. Calls come in waves, at their height more than the pool has
sessions, so that callers wait; one server is killed now and then and comes back; some callers forget to
release.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

from prometheus_client import start_http_server

from mcpgateway_pool import MCPSessionPool, TransportType, register_collector
from mcpgateway_pool.prometheus import shared_counters

from .common import OK, CommandError, missing_extra, say

_USERS = ("alice", "bob", "carol")
_SESSIONS_PER_KEY = 3
_CALLERS_PER_KEY = 6
_CALL_SECONDS = 0.04
_WAVE_SECONDS = 20.0  # from calm to busy and back
_DOWN_FROM, _DOWN_UNTIL = 0.70, 0.78  # of each wave: one server is gone
_START_SECONDS = 60.0


def run(arguments: argparse.Namespace) -> int:
    """The command.

    Raises:
        CommandError: the MCP SDK is missing, the port is taken, or a server does not start.
    """
    try:
        import mcp  # noqa: F401  (whether it is there)
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise missing_extra("mcp", "mcp", error) from error
    if shared_counters.directory() is not None:
        _start_anew_without_shared_counters(arguments)
    logging.getLogger("mcp").setLevel(logging.CRITICAL)  # of the killed server; the series tell it
    logging.getLogger("mcpgateway_pool").setLevel(logging.CRITICAL)
    register_collector()
    try:
        endpoint, thread = start_http_server(arguments.port, addr="127.0.0.1")
    except (OSError, OverflowError) as error:
        raise CommandError(f"port {arguments.port}: {getattr(error, 'strerror', None) or error}") from None
    servers = [_Server("search", TransportType.STREAMABLE_HTTP), _Server("weather", TransportType.SSE)]
    try:
        url = f"http://127.0.0.1:{endpoint.server_port}/metrics"
        return asyncio.run(_demo(url, servers, arguments.seconds))
    finally:
        for server in servers:
            server.kill()
        endpoint.shutdown()
        thread.join()
        endpoint.server_close()


def _start_anew_without_shared_counters(arguments: argparse.Namespace) -> NoReturn:
    """What the demo counts must not show up among what the real gateway of this environment counts."""
    again = ["demo", "--port", str(arguments.port)]
    if arguments.seconds is not None:
        again += ["--seconds", str(arguments.seconds)]
    environment = {
        name: value for name, value in os.environ.items() if name not in shared_counters.DIRECTORY_VARIABLES
    }
    command = [sys.executable, "-P", "-m", "mcpgateway_pool.cli", *again]
    os.execve(sys.executable, command, environment)  # noqa: S606  (our own interpreter and program)


class _Server:
    """One MCP server in a process of its own, and the gateway id under which it is called."""

    def __init__(self, gateway_id: str, transport: TransportType) -> None:
        self.gateway_id = gateway_id
        self.transport = transport
        self._port = 0
        self._process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        path = "sse" if self.transport is TransportType.SSE else "mcp"
        return f"http://127.0.0.1:{self._port}/{path}"

    @property
    def is_up(self) -> bool:
        return self._process is not None

    async def start(self) -> None:
        """Start it, on the port that it had before; returns when it listens."""
        script = Path(__file__).with_name("demo_server.py")
        # A process group of its own: Ctrl-C is for the demo, which then ends the servers.
        process = self._process = subprocess.Popen(  # noqa: ASYNC220, S603  (our own interpreter and script)
            [sys.executable, str(script), self.transport.value, str(self._port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            process_group=0,
        )
        assert process.stdout is not None
        try:
            async with asyncio.timeout(_START_SECONDS):
                line = await asyncio.to_thread(process.stdout.readline)
        except TimeoutError:
            line = ""
        if not line:
            self.kill()
            raise CommandError(f"the MCP server {self.gateway_id} did not start")
        self._port = int(line)

    def kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()


async def _demo(url: str, servers: list[_Server], seconds: float | None) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    await asyncio.gather(*(server.start() for server in servers))
    say(f"series  {url}")
    for server in servers:
        say(f"server  {server.url}  (gateway {server.gateway_id})")
    say(f"try     mcpgateway-pool top {url}")
    sys.stdout.flush()
    wave = _Wave()
    pool = MCPSessionPool(
        max_sessions_per_key=_SESSIONS_PER_KEY,
        max_total_sessions=_SESSIONS_PER_KEY * len(_USERS) * len(servers),
        acquire_timeout_seconds=1.0,
        session_ttl_seconds=30.0,
        health_check_interval_seconds=1.0,
        circuit_breaker_threshold=3,
        circuit_breaker_reset_seconds=0.5,
    )
    async with pool:
        work = asyncio.gather(
            _come_and_go(servers[-1], wave, stop),
            *(
                _caller(pool, server, user, number, wave, stop)
                for server in servers
                for user in _USERS
                for number in range(_CALLERS_PER_KEY)
            ),
        )
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), seconds)
        stop.set()
        await work
    return OK


class _Wave:
    """The course of the demo: 0 where a wave begins, 0.5 at its height, 1 where it ends."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    @property
    def phase(self) -> float:
        return (time.monotonic() - self._start) / _WAVE_SECONDS % 1

    @property
    def calm(self) -> float:
        """1 at the ends of the wave, 0 at its height."""
        return abs(self.phase - 0.5) * 2


async def _caller(
    pool: MCPSessionPool, server: _Server, user: str, number: int, wave: _Wave, stop: asyncio.Event
) -> None:
    """Calls a tool again and again; callers with a high number only at the height of the wave."""
    calls = 0
    while not stop.is_set():
        if number / _CALLERS_PER_KEY > 1.2 - wave.calm:
            await _pause(stop, 0.2)
            continue
        calls += 1
        try:
            async with pool.session(
                server.url,
                {"Authorization": f"Bearer token-of-{user}"},
                server.transport,
                user_identity=user,
                gateway_id=server.gateway_id,
            ) as pooled:
                await pooled.session.call_tool("look_up", {"word": "pool", "seconds": _CALL_SECONDS})
        except Exception:  # failures are what the series are to show
            await _pause(stop, 0.1)
        if number == 0 and user == _USERS[0] and calls % 200 == 0:
            await _forget_one(pool, server, user)
        await _pause(stop, 0.02 + 0.1 * wave.calm)


async def _forget_one(pool: MCPSessionPool, server: _Server, user: str) -> None:
    """Acquires and never releases: the pool takes the session back when Python collects it."""
    with contextlib.suppress(Exception):
        await pool.acquire(
            server.url,
            {"Authorization": f"Bearer token-of-{user}"},
            server.transport,
            user_identity=user,
            gateway_id=server.gateway_id,
        )


async def _come_and_go(server: _Server, wave: _Wave, stop: asyncio.Event) -> None:
    """Kills the server in each wave, and starts it again."""
    while not stop.is_set():
        is_down = _DOWN_FROM <= wave.phase < _DOWN_UNTIL
        if is_down and server.is_up:
            server.kill()
        elif not is_down and not server.is_up:
            await server.start()
        await _pause(stop, 0.1)


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)
