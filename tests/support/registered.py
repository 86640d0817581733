"""A server of a test as a real gateway knows it: its tools called by users, its series, what it saw."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from servers.process import ServerProcess
from servers.waiting import wait_until

from .gateway_process import Answer, sum_samples
from .gateway_users import ANN, AuthenticatingGateway, as_user

PREFIX = "mcp_session_pool_"
TRANSPORTS = {"sse": "SSE", "streamablehttp": "STREAMABLEHTTP"}
PATIENCE_SECONDS = 30.0


@dataclass
class Registered:
    """A server at the gateway."""

    gateway: AuthenticatingGateway
    server: ServerProcess
    name: str
    identifier: str

    def call(self, tool: str, user: str = ANN, /, teams: list[str] | None = None, **headers: str) -> Answer:
        sent = as_user(user, teams, **{name.replace("_", "-"): value for name, value in headers.items()})
        return self.gateway.call(self.name, tool, sent)

    def whoami(self, user: str = ANN, /, teams: list[str] | None = None, **headers: str) -> dict[str, Any]:
        """What the server saw of a call: its session, and the headers of the request."""
        seen: dict[str, Any] = json.loads(self.call("whoami", user, teams=teams, **headers).text)
        return seen

    def count(self, series: str, **labels: str) -> float:
        try:
            return sum_samples(self.gateway.samples(), PREFIX + series, gateway_id=self.identifier, **labels)
        except KeyError:  # it has no row yet
            return 0.0

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Ask until it is so."""
        wait_until(condition, PATIENCE_SECONDS, every=0.05)

    def requests(self) -> int:
        """How many messages the server got so far."""
        return sum(self.server.stats()["posts"].values())


def register(
    gateway: AuthenticatingGateway, server: ServerProcess, name: str = "", **more: object
) -> Registered:
    """Register a server at a gateway; see :meth:`GatewayProcess.register`."""
    name = name or f"server{server.port}"
    return Registered(
        gateway, server, name, gateway.register(name, server.url, TRANSPORTS[server.transport], **more)
    )


@contextlib.contextmanager
def registering(
    gateway: AuthenticatingGateway, server: ServerProcess, name: str = "", **more: object
) -> Iterator[Registered]:
    """The same for the time of a block."""
    registered = register(gateway, server, name, **more)
    try:
        yield registered
    finally:
        gateway.request("DELETE", f"/gateways/{registered.identifier}")
