"""A laboratory of networks: two hosts with MCP servers, a name server and a client, each side in a network
namespace, and between them a wire that drops, forgets, delays and loses what it is told to.

As a script, it runs cases (``cases.py``) and prints a line of JSON for each; see ``--help``. It, its children
and its namespaces end with whoever started it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from typing import IO, Any

HERE = Path(__file__).resolve().parent
if str(HERE) not in sys.path:
    sys.path.insert(0, str(HERE))

import namespaces
import wire

CLIENT, VICTIM, HEALTHY, NOBODY = "10.77.0.1", "10.77.0.2", "10.77.0.3", "10.77.0.99"
PORT = 8000
_SERVER = HERE.parent / "servers" / "mcp_server.py"
_RESOLVER = "nameserver {address}\noptions timeout:{seconds} attempts:2\n"  # 5 by default


class Server:
    """An MCP server on one of the hosts beyond the wire."""

    def __init__(self, host: str, transport: str, namespace: int) -> None:
        self.url = f"http://{host}:{PORT}/{'sse' if transport == 'sse' else 'mcp'}"
        self._words = [sys.executable, "-P", str(_SERVER), "--host", host, "--port", str(PORT)]
        self._words += ["--transport", transport]
        self._namespace = namespace
        self._more: tuple[str, ...] = ()
        self._process: subprocess.Popen[bytes] | None = None

    def runs_with(self, words: tuple[str, ...]) -> bool:
        """Whether it does, with these arguments beside its own."""
        return self._process is not None and self._process.poll() is None and self._more == words

    def start(self, *words: str) -> None:
        """Start it; :meth:`wait` until it listens."""
        self._more = words

        def enter() -> None:
            namespaces.die_with_parent()
            namespaces.go_into(self._namespace)

        self._process = subprocess.Popen(
            [*self._words, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            preexec_fn=enter,  # noqa: PLW1509 - there is one thread, or none that holds a lock
            pass_fds=[self._namespace],
        )

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """It runs."""
        assert self._process is not None
        return self._process

    async def wait(self) -> None:
        """Until it listens."""
        said: IO[bytes] | None = self.process.stdout
        assert said is not None
        if not await asyncio.to_thread(said.readline):
            raise RuntimeError(f"the server has ended: {self.process.wait()}")

    def kill(self) -> None:
        """As a power loss does, where nothing reaches its host; harmless where it does not run."""
        if self._process is None:
            return
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()

    async def restart(self, *words: str) -> None:
        """Kill it, and start it anew."""
        self.kill()
        self.start(*words)
        await self.wait()


class Laboratory:
    """What a case works with.

    Attributes:
        transport: ``"sse"`` or ``"streamablehttp"``.
        is_fast: seconds stand for half-minutes.
        victim, healthy: the servers.
    """

    def __init__(self, transport: str, is_fast: bool) -> None:
        self.transport = transport
        self.is_fast = is_fast
        namespaces.enter(is_first=True)
        servers = namespaces.open_wire(VICTIM, [HEALTHY])
        names = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        names.bind((HEALTHY, 53))
        names.setblocking(False)
        beyond = namespaces.this_one()
        namespaces.enter()
        client = namespaces.open_wire(CLIENT, [])
        self._control, control = socket.socketpair()
        if os.fork() == 0:
            with contextlib.suppress(KeyboardInterrupt):
                namespaces.die_with_parent()
                with contextlib.suppress(OSError):
                    os.nice(-10)  # a wire does not wait for the processes of a busy machine
                self._control.close()
                control.setblocking(False)
                asyncio.run(wire.run(client, servers, names, control))
            os._exit(0)
        for descriptor in (client, servers):
            os.close(descriptor)
        names.close()
        control.close()
        with tempfile.NamedTemporaryFile("w", suffix=".conf") as file:
            file.write(_RESOLVER.format(address=HEALTHY, seconds=1 if is_fast else 5))
            file.flush()
            namespaces.use_resolver(Path(file.name))
        self.victim = Server(VICTIM, transport, beyond)
        self.healthy = Server(HEALTHY, transport, beyond)

    def rules(self, **changes: Any) -> None:
        """Change the rules of the wire; they hold when this returns."""
        self._control.sendall(json.dumps(changes).encode() + b"\n")
        self._control.recv(1)

    def vanish(self) -> None:
        """Nothing reaches the victim's host any more."""
        self.rules(vanished=[VICTIM])

    def reset(self) -> None:
        """A network as it should be."""
        self.rules(**dataclasses.asdict(wire.Rules()))

    def url_of(self, name: str) -> str:
        """The victim's URL by a name."""
        return self.victim.url.replace(VICTIM, name)

    async def fresh(self, *words: str) -> None:
        """Servers with these arguments, and a network as it should be."""
        self.reset()
        servers = [server for server in (self.victim, self.healthy) if not server.runs_with(words)]
        for server in servers:
            server.kill()
            server.start(*words)
        for server in servers:
            await server.wait()


async def run(lab: Laboratory, names: list[str]) -> None:
    """Run cases, one after the other."""
    import cases

    for name in names:
        try:
            outcome = dataclasses.asdict(await cases.run(lab, name))
        except Exception:
            outcome = {"error": traceback.format_exc()}
        print(json.dumps({"case": name, "transport": lab.transport, **outcome}), flush=True)


def main() -> None:
    """Parse the arguments, and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--transport", choices=("sse", "streamablehttp"), default="streamablehttp")
    parser.add_argument("--fast", action="store_true", help="settings that notice in seconds")
    parser.add_argument("--check", action="store_true", help="only say why there can be none here")
    parser.add_argument("cases", nargs="*")
    options = parser.parse_args()
    if options.check:
        print(namespaces.why_not())
        return
    namespaces.die_with_parent()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    asyncio.run(run(Laboratory(options.transport, options.fast), options.cases))


if __name__ == "__main__":
    main()
