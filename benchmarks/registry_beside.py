"""The registry of 1.0.0 and later compared with the gateway's own, in one run and in turns: what a caller
sees of evictions, renewed tokens, error answers and refusals.

One command, one table; the environment is that of a gateway with this package. Times hold for this machine
and this moment only.

    .venv-gateway-1.1.0/bin/python -P benchmarks/registry_beside.py --rounds 2
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests")]

from servers.process import ServerProcess
from support.gateway_in_process import settings_of_registry

SIDES = ("own", "this package")
TRANSPORTS = ("streamablehttp", "sse")
# The release's own may wait for ever.
PATIENCE_SECONDS = 15.0
LONG_CALL_SECONDS = 6.0
CALLS = 20
NEVER = "not within 15 s"


class Side:
    """One registry, and calls on it as the gateway's services make them.

    Args:
        release: the release's module.
        server: that it calls.
    """

    def __init__(self, release: Any, server: ServerProcess) -> None:
        self.registry = release.UpstreamSessionRegistry()
        self.server = server
        self._release = release

    async def call(self, tool: str, token: str = "t", **arguments: object) -> str:
        """The text of a tool's answer."""
        async with self.registry.acquire(
            downstream_session_id="d1",
            gateway_id="g1",
            url=self.server.url,
            headers={"Authorization": f"Bearer {token}"},
            transport_type=self._release.TransportType(self.server.transport),
            httpx_client_factory=_client,
        ) as upstream:
            result = await upstream.session.call_tool(tool, arguments)
        return str(result.content[0].text)

    async def outcome(self, call: Awaitable[str]) -> tuple[str, float]:
        """``answered``, ``error`` or :data:`NEVER`, and after how many seconds."""
        begin = time.perf_counter()
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await call
        except TimeoutError:
            return NEVER, PATIENCE_SECONDS
        except Exception:
            return "error", time.perf_counter() - begin
        return "answered", time.perf_counter() - begin

    async def in_flight(self, kind: str, **options: object) -> asyncio.Task[tuple[str, float]]:
        """A call that the server has by now."""
        if kind == "hang":
            self.server.fault("hang", method="tools/call")
            task = asyncio.create_task(self.outcome(self.call("echo", text="never")))
        else:
            task = asyncio.create_task(self.outcome(self.call("slow", seconds=LONG_CALL_SECONDS)))
        known = await asyncio.to_thread(self.server.stats)
        await asyncio.to_thread(
            self.server.wait_for, lambda stats: stats["posts"]["tools/call"] >= known["posts"]["tools/call"]
        )
        await asyncio.sleep(0.3)
        return task

    async def measure(self) -> dict[str, str]:
        """All cases, in one row each."""
        rows: dict[str, str] = {}
        rows["a call: processor time of its process"] = f"{await self._processor_seconds() * 1e3:.1f} ms"

        hanging = await self.in_flight("hang")
        begin = time.perf_counter()
        await self.registry.evict_session("d1")
        rows["eviction while a call hangs: evict_session() took"] = f"{time.perf_counter() - begin:.1f} s"
        kind, seconds = await self.outcome(self.call("echo", text="next"))
        rows["eviction while a call hangs: the next call"] = f"{kind}, {seconds:.1f} s"
        kind, seconds = await hanging
        rows["eviction while a call hangs: the hanging call"] = (
            kind if kind == NEVER else f"{kind}, {seconds:.1f} s"
        )

        long = await self.in_flight("slow")
        await self.registry.evict_gateway("g1")
        kind, seconds = await self.outcome(self.call("echo", text="next", token="new"))
        rows["credentials rotated during a call of 6 s: the next call"] = f"{kind}, {seconds:.1f} s"
        kind, seconds = await long
        rows["credentials rotated during a call of 6 s: that call"] = f"{kind}, {seconds:.1f} s"

        await self.call("echo", text="old", token="old")
        seen = json.loads(await self.call("whoami", token="renewed"))["headers"]["authorization"]
        rows["a token that was renewed: the server sees"] = seen.removeprefix("Bearer ")

        for name, fault in (
            ("a tool's error", None),
            ("JSON-RPC error -32000", {"kind": "error", "code": -32000}),
            ("JSON-RPC error -32602", {"kind": "error", "code": -32602}),
            ("HTTP 429", {"kind": "status", "status": 429}),
            ("HTTP 503", {"kind": "status", "status": 503}),
        ):
            if fault is not None and fault["kind"] == "error" and self.server.transport == "sse":
                continue  # in the answer to a POST, where none is looked for
            known, session = await self._refused(fault)
            rows[f"{name}: known after, at best"] = known
            rows[f"{name}: sessions opened, state kept"] = session
        return rows

    async def _refused(self, fault: dict[str, Any] | None) -> tuple[str, str]:
        """How soon a caller knows, and what became of the session and its state on the server."""
        before = self.registry.snapshot().creates
        count = await self._count()
        taken = []
        for _ in range(5):
            if fault is not None:
                self.server.fault(**fault, method="tools/call")
            kind, seconds = await self.outcome(self.call("fail"))
            taken.append(seconds)
            if kind == NEVER:
                break
        await self.outcome(self.call("echo", text="after"))
        is_kept = count is not None and await self._count() == count + 1
        opened = self.registry.snapshot().creates - before
        best = min(taken)  # what else runs on this machine only adds to it
        return (
            NEVER if best >= PATIENCE_SECONDS else f"{best * 1e3:.0f} ms",
            f"{opened}, {'yes' if is_kept else 'no'}",
        )

    async def _count(self) -> int | None:
        """How often the server was asked this in the session; None where it does not answer."""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                return int(await self.call("counter"))
        except Exception:
            return None

    async def _processor_seconds(self) -> float:
        await self.call("echo", text="hello")
        taken = []
        for _ in range(5):
            begin = time.process_time()
            for _ in range(CALLS):
                await self.call("echo", text="hello")
            taken.append((time.process_time() - begin) / CALLS)
        return min(taken)


def _client(headers: Any = None, timeout: Any = None, auth: Any = None) -> Any:
    """What the gateway's services pass."""
    from mcpgateway_pool.upstream import sdk

    http = sdk.http_library()
    return http.AsyncClient(headers=headers, timeout=timeout or http.Timeout(30.0), auth=auth)


async def _run_side(side: str, transport: str) -> dict[str, str]:
    if side != SIDES[0]:
        from mcpgateway_pool.gateway import install

        install()
    from mcpgateway.services import upstream_session_registry as release

    with ServerProcess(transport) as server:
        one = Side(release, server)
        try:
            return await one.measure()
        finally:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE_SECONDS):
                    await one.registry.close_all()


def _spawn(side: str, transport: str) -> dict[str, str]:
    with tempfile.TemporaryDirectory(prefix="mcpgateway-pool-beside-") as folder:
        environment = {
            **os.environ,
            **settings_of_registry(folder),
            "MCP_CLIENT_CONNECT_MODE": "legacy",  # sessions have state then
        }
        done = subprocess.run(
            [sys.executable, "-P", __file__, "--side", side, "--transport", transport],
            env=environment,
            stdout=subprocess.PIPE,
            check=True,
            timeout=600,
        )
    rows: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Run both sides in turns, and print a table for each transport."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=1, help="how often each side has its turn")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--transport", choices=TRANSPORTS, help="only this one")
    given = parser.parse_args(arguments)
    if given.side is not None:
        logging.disable(logging.CRITICAL)
        print(json.dumps(asyncio.run(_run_side(given.side, given.transport))))
        return
    for transport in [given.transport] if given.transport else TRANSPORTS:
        found: dict[str, list[dict[str, str]]] = {side: [] for side in SIDES}
        for _ in range(given.rounds):
            for side in SIDES:
                found[side].append(_spawn(side, transport))
        print(f"\n{transport}\n\n| case | the gateway's own | this package |\n|---|---|---|")
        for row in found[SIDES[0]][0]:
            cells = ("; ".join(dict.fromkeys(rows[row] for rows in found[side])) for side in SIDES)
            print(f"| {row} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
