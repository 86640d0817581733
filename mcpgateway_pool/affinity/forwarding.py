"""Sending a request to the worker that owns its session, and waiting for the answer."""

from __future__ import annotations

import asyncio
import json
import logging
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from mcpgateway_pool.redact import safe_error, safe_text, safe_url

from . import keys
from .context import Context
from .headers import forwardable
from .ownership import Ownership
from .replies import Replies

# Between attempts, while nobody listens on the channel of an owner that lives.
_FIRST_RETRY_SECONDS = 0.05
_LAST_RETRY_SECONDS = 1.0


@dataclass(slots=True)
class Counts:
    """What was forwarded.

    Attributes:
        requests: RPC requests that an owner received, and HTTP requests that one answered.
        failures: given up because of an error; they were executed here.
        timeouts: not answered in time.
    """

    requests: int = 0
    failures: int = 0
    timeouts: int = 0


@dataclass(frozen=True, slots=True)
class _Request:
    """What to send, and how to name it in logs.

    Attributes:
        session_id: the downstream session.
        channel: of the owner, by its id.
        response_channel: where the answer is to go.
        message: all but the ``response_channel``.
        log_prefix: the beginning of its log lines.
        log_level: of the lines that say where it goes.
    """

    session_id: str
    channel: Callable[[str], str]
    response_channel: str
    message: dict[str, Any]
    log_prefix: str
    log_level: int


Execute = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


def encode(message: dict[str, Any]) -> bytes:
    """A message as it is published: JSON.

    Raises:
        TypeError, ValueError: it holds what JSON cannot.
    """
    return json.dumps(message, separators=(",", ":"), allow_nan=False).encode()


class Forwarding:
    """The requester's side.

    Args:
        context: what all parts share.
        ownership: who owns what.
        execute_http: executes an HTTP request in this process.
    """

    def __init__(self, context: Context, ownership: Ownership, execute_http: Execute) -> None:
        self._execute_http = execute_http
        self._context = context
        self._ownership = ownership
        self._replies = Replies(context)
        self.counts = Counts()

    async def forward_rpc(
        self, mcp_session_id: str, request_data: dict[str, Any], timeout: float | None
    ) -> dict[str, Any] | None:
        """See ``SessionAffinity.forward_request_to_owner``."""
        settings = self._context.settings()
        if not settings.enabled or not keys.is_valid_mcp_session_id(mcp_session_id):
            return None
        logger = self._context.logger()
        worker, session = self._context.worker_id(), keys.short(mcp_session_id)
        method = safe_text(str(request_data.get("method", "unknown")), 80)
        request = _Request(
            session_id=mcp_session_id,
            channel=keys.rpc_channel,
            response_channel=keys.rpc_response_channel(str(uuid.uuid4())),
            message={
                **request_data,
                "type": "rpc_forward",
                "headers": forwardable(request_data.get("headers"), has_new_body=True),
                "mcp_session_id": mcp_session_id,
            },
            log_prefix=f"[AFFINITY] Worker {worker} | Session {session}... | Method: {method}",
            log_level=logging.INFO,
        )
        try:
            async with asyncio.timeout(settings.forward_timeout_seconds if timeout is None else timeout):
                return await self._to_owner(request)
        except TimeoutError:
            self.counts.timeouts += 1
            logger.warning("Timeout forwarding request to owner for session %s...", session)
            raise
        except Exception as error:
            self.counts.failures += 1
            logger.warning("Error forwarding request to owner: %s", safe_error(error))
            return None

    async def forward_http(
        self,
        owner: str,
        mcp_session_id: str,
        method: str,
        path: str,
        headers: dict[str, str],
        body: bytes,
        query_string: str,
    ) -> dict[str, Any] | None:
        """See ``SessionAffinity.forward_streamable_http_to_owner``."""
        settings = self._context.settings()
        if not settings.enabled or not keys.is_valid_mcp_session_id(mcp_session_id):
            return None
        logger = self._context.logger()
        worker, session = self._context.worker_id(), keys.short(mcp_session_id)
        what = f"{safe_text(method, 20)} {safe_url(path)}"
        request = _Request(
            session_id=mcp_session_id,
            channel=keys.http_channel,
            response_channel=keys.http_response_channel(uuid.uuid4().hex),
            message={
                "type": "http_forward",
                "mcp_session_id": mcp_session_id,
                "method": method,
                "path": path,
                "query_string": query_string,
                "headers": headers,
                "body": body.hex() if body else "",
                "original_worker": worker,
                "timestamp": time.time(),
            },
            log_prefix=f"[HTTP_AFFINITY] Worker {worker} | Session {session}... | {what}",
            log_level=logging.DEBUG,
        )
        try:
            async with asyncio.timeout(settings.forward_timeout_seconds):
                response = await self._to_owner(request, owner)
            if response is not None:
                response["body"] = bytes.fromhex(response.get("body") or "")
        except TimeoutError:
            self.counts.timeouts += 1
            logger.warning("Timeout forwarding HTTP request to owner %s", safe_text(owner))
            return None
        except Exception as error:
            self.counts.failures += 1
            logger.warning("Error forwarding HTTP request via Redis: %s", safe_error(error))
            return None
        return response

    async def _to_owner(self, request: _Request, owner: str | None = None) -> dict[str, Any] | None:
        """Find the owner, make sure that it lives, and let it execute a request.

        Args:
            request: what to send.
            owner: who owned the session just now, if that is known.

        Returns:
            The answer; None when the request is to be executed by the caller.
        """
        pause = 0.0
        while True:
            async with self._context.redis() as client:
                if not client:
                    self._log(request, "Redis unavailable → execute locally")
                    return None
                if owner is None or pause:
                    owner = await self._ownership.read(client, request.session_id)
                owner = await self._live_owner(client, request, owner)
            if owner is None:
                # The gateway has read an HTTP request's body by now, and cannot serve it any more: it would
                # wait for that body until its client goes away.
                is_http = request.message["type"] == "http_forward"
                return await self._execute_http(request.message) if is_http else None
            answer = await self._exchange(client, request, owner)
            if answer is not None:
                return answer
            # The owner lives, and does not listen: it is about to connect again, or has just died.
            pause = min(max(2 * pause, _FIRST_RETRY_SECONDS), _LAST_RETRY_SECONDS)
            await asyncio.sleep(pause)

    async def _live_owner(self, client: Any, request: _Request, owner: str | None) -> str | None:
        """The other worker that is to execute a request; None when that is this one."""
        ownership = self._ownership
        while owner is not None and owner != self._context.worker_id():
            if await ownership.heartbeat.is_alive(client, owner):
                self._log(request, f"Owner: {safe_text(owner)} → forwarding")
                return owner
            if await ownership.reclaim(client, request.session_id, owner):
                self._log(request, "Reclaimed from a dead worker → execute locally")
                return None
            owner = await ownership.read(client, request.session_id)  # somebody was quicker
        if owner is None:
            self._log(request, "No owner → execute locally (new session)")
        else:
            self._log(request, "We own it → execute locally")
            await ownership.refresh(client, request.session_id)
        return None

    async def _exchange(self, client: Any, request: _Request, owner: str) -> dict[str, Any] | None:
        """Publish a request and wait for its answer; None when nobody listened."""
        async with self._replies.expect(client, request.response_channel) as answer:
            message = {**request.message, "response_channel": request.response_channel}
            async with self._context.bounded():
                receivers = await client.publish(request.channel(owner), encode(message))
            if receivers == 0:
                return None
            if request.message["type"] == "rpc_forward":
                self.counts.requests += 1
            self._log(request, f"Published to worker {safe_text(owner)}")
            decoded = json.loads(await answer)
            if not isinstance(decoded, dict):
                raise TypeError("the owner's answer is no object")
            if request.message["type"] == "http_forward":
                self.counts.requests += 1
            return decoded

    def _log(self, request: _Request, text: str) -> None:
        self._context.logger().log(request.log_level, "%s | %s", request.log_prefix, text)
