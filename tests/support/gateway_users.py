"""Users of a real gateway that authenticates: made over its API, with tokens of their own."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import json
import signal
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from .gateway_process import _SECRET, SWITCH, Answer, GatewayError, GatewayProcess, Samples, parse_samples

AUTHENTICATED = {"AUTH_REQUIRED": "true"}
# Of a gateway with users; sessions have an id then, where 1.1 prefers a revision of the protocol without.
OF_USERS = {
    **SWITCH,
    **AUTHENTICATED,
    "MCP_CLIENT_CONNECT_MODE": "legacy",
    "HEALTH_CHECK_INTERVAL": "3600",
    "ENABLE_HEADER_PASSTHROUGH": "true",
}
_LEFT_AT_DEFAULT = frozenset(
    {
        "ALLOW_UNAUTHENTICATED_ADMIN",
        "AUTH_REQUIRED",
        "CACHE_TYPE",
        "ENABLE_METRICS",
        "MCPGATEWAY_ADMIN_API_ENABLED",
        "MCP_SESSION_POOL_ENABLED",
    }
)
ADMIN = "admin@example.com"
ANN, BOB = "ann@example.com", "bob@example.com"
# Not a secret, and what the gateway accepts of an administrator: nothing in sequence.
_PASSWORD = "Quiet-Harbor-7f-Lantern-2k!"


def token_of(email: str, teams: list[str] | None = None) -> str:
    """A token of the gateway for one of its users, all of whom are administrators here; another each time.

    Args:
        email: who it is.
        teams: those that the token is bound to; None for no bounds.
    """
    now = int(time.time())
    claims = {
        "sub": email,
        "iss": "mcpgateway",
        "aud": "mcpgateway-api",
        "iat": now,
        "exp": now + 3600,
        "jti": str(uuid.uuid4()),
        "is_admin": True,
        "teams": teams,
    }
    head = _encoded(b'{"alg":"HS256","typ":"JWT"}') + "." + _encoded(json.dumps(claims).encode())
    return head + "." + _encoded(hmac.new(_SECRET.encode(), head.encode(), hashlib.sha256).digest())


def _encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def as_user(email: str, teams: list[str] | None = None, **more: str) -> dict[str, str]:
    """The headers of a request by a user, and more."""
    return {"Authorization": f"Bearer {token_of(email, teams)}", **more}


class AuthenticatingGateway(GatewayProcess):
    """A gateway with ``AUTH_REQUIRED=true``; what no user is named for is done by the administrator."""

    def request(
        self,
        method: str,
        path: str,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 90.0,
    ) -> tuple[int, bytes]:
        """See :meth:`GatewayProcess.request`."""
        sent = dict(headers or {})
        if "Authorization" not in sent and path != "/health":
            sent |= as_user(ADMIN)
        return super().request(method, path, body, sent, timeout)

    def add_user(self, email: str) -> None:
        """Make a user who may use everything."""
        self.json(
            "POST",
            "/auth/email/admin/users",
            {"email": email, "password": _PASSWORD, "full_name": email, "is_admin": True},
        )

    def add_team(self, name: str, *members: str) -> str:
        """Make a team of these users, beside the administrator; its id."""
        made = self.json("POST", "/teams/", {"name": name, "description": name, "visibility": "private"})
        for member in members:
            self.json("POST", f"/teams/{made['id']}/members", {"email": member, "role": "member"})
        return str(made["id"])

    def samples(self) -> Samples:
        """The samples of one scrape."""
        return parse_samples(self.scrape(as_user(ADMIN)))

    def over_mcp(self, method: str, headers: Mapping[str, str], /, **params: object) -> Answer:
        """A request to the gateway's own MCP endpoint, without a session."""
        begin = time.perf_counter()
        message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        accepted = {"Accept": "application/json, text/event-stream"}
        status, content = self.request("POST", "/mcp/", message, {**headers, **accepted})
        text = content.decode()
        lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
        return Answer(status, json.loads(lines[-1] if lines else text), time.perf_counter() - begin)

    def location(self, path: str, headers: Mapping[str, str]) -> str:
        """Where a GET is redirected to."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request("GET", path, headers=dict(headers))
            response = connection.getresponse()
            response.read()
        finally:
            connection.close()
        found = response.getheader("Location")
        if found is None:
            raise GatewayError(f"GET {path}: HTTP {response.status}, and no redirect")
        return found


class DefaultGateway(AuthenticatingGateway):
    """The same in its release's own default configuration: without what our tests set otherwise."""

    def _variables(self) -> dict[str, str]:
        variables = super()._variables()
        return {
            name: value
            for name, value in variables.items()
            if name not in _LEFT_AT_DEFAULT or name in self._environment
        }


@contextmanager
def gateway_of_users(folder: Path, settings: Mapping[str, str]) -> Iterator[AuthenticatingGateway]:
    """A gateway with the users ``ANN`` and ``BOB``; after the block it must end well."""
    with AuthenticatingGateway(folder, environment=settings) as gateway:
        for user in (ANN, BOB):
            gateway.add_user(user)
        yield gateway
        assert gateway.stop() in (0, -signal.SIGTERM)
