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
from .answers import http_error, rpc_error
from .context import Context
from .headers import forwardable
from .ownership import Ownership
from .replies import Replies

# How often in a row a dead owner's session may be taken by another that is dead by the time of looking.
_MAX_RACES = 8
# Between attempts, while nobody listens on the channel of an owner that lives.
_FIRST_RETRY_SECONDS = 0.05
_LAST_RETRY_SECONDS = 1.0


@dataclass(slots=True)
class Counts:
    """What was forwarded.

    Attributes:
        requests: RPC requests that an owner received, and HTTP requests that one answered.
        failures: ended by an error, before or after the owner received them.
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

    def read_answer(self, data: str | bytes) -> dict[str, Any]:
        """The owner's answer, in the shape that the gateway reads.

        Raises:
            Exception: it is none.
        """
        answer = json.loads(data)
        if self.message["type"] == "http_forward":
            bytes.fromhex(answer.get("body") or "")
            if not (isinstance(answer["status"], int) and isinstance(answer["headers"], dict)):
                raise TypeError("status or headers are missing")
        elif not isinstance(answer, dict) or not isinstance(answer.get("error", {}), dict):
            raise TypeError("it is no object, or its error is none")
        return answer  # type: ignore[no-any-return]


Execute = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


def encode(message: dict[str, Any]) -> bytes:
    """A message as it is published: JSON.

    Raises:
        TypeError, ValueError: it holds what JSON cannot.
    """
    return json.dumps(message, separators=(",", ":"), allow_nan=False).encode()


class UnansweredError(Exception):
    """The owner has the request, and may have executed it: nobody else must."""


class Forwarding:
    """The requester's side. A request is executed once: by its owner, or here where no owner can have it.

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
        except UnansweredError as error:
            self.counts.failures += 1
            logger.warning("No answer to a forwarded request: %s", safe_error(error))
            return rpc_error(str(error))
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
        response: dict[str, Any] | None = None
        try:
            async with asyncio.timeout(settings.forward_timeout_seconds):
                response = await self._to_owner(request, owner)
        except TimeoutError:
            self.counts.timeouts += 1
            logger.warning("Timeout forwarding HTTP request to owner %s", safe_text(owner))
            response = http_error(504, "The worker that owns the session did not answer in time")
        except UnansweredError as error:
            self.counts.failures += 1
            logger.warning("No answer to a forwarded HTTP request: %s", safe_error(error))
            response = http_error(504, str(error))
        except Exception as error:
            self.counts.failures += 1
            logger.warning("Error forwarding HTTP request via Redis: %s", safe_error(error))
        if response is None:
            response = await self._here(request)
        return {**response, "body": bytes.fromhex(response.get("body") or "")}

    async def _here(self, request: _Request) -> dict[str, Any]:
        """Execute an HTTP request in this process. The gateway has read its body by now, and cannot serve it
        any more: it would wait for that body until its client goes away.
        """
        try:
            async with asyncio.timeout(self._context.settings().forward_timeout_seconds):
                return await self._execute_http(request.message)
        except Exception as error:
            # No traceback: its last line is the message as it came, with whatever URL is in it.
            self._context.logger().error("Error executing an HTTP request here: %s", safe_error(error))
            return http_error(500, "Internal forwarding error")

    async def _to_owner(self, request: _Request, owner: str | None = None) -> dict[str, Any] | None:
        """Find the owner, make sure that it lives, and let it execute a request.

        Args:
            request: what to send.
            owner: who owned the session just now, if that is known.

        Returns:
            The answer; None when the request is to be executed here.

        Raises:
            UnansweredError: it must not be.
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
                return None
            answer = await self._exchange(client, request, owner)
            if answer is not None:
                return answer
            # The owner lives, and does not listen: it is about to connect again, or has just died.
            pause = min(max(2 * pause, _FIRST_RETRY_SECONDS), _LAST_RETRY_SECONDS)
            await asyncio.sleep(pause)

    async def _live_owner(self, client: Any, request: _Request, owner: str | None) -> str | None:
        """The other worker that is to execute a request; None when that is this one."""
        ownership = self._ownership
        for _ in range(_MAX_RACES):
            if owner is None or owner == self._context.worker_id():
                break
            if await ownership.heartbeat.is_alive(client, owner):
                self._log(request, f"Owner: {safe_text(owner)} → forwarding")
                return owner
            if await ownership.reclaim(client, request.session_id, owner):
                self._log(request, "Reclaimed from a dead worker → execute locally")
                return None
            owner = await ownership.read(client, request.session_id)  # somebody was quicker
        else:
            owner = None  # it is no worker's, whatever it says: none of them lives
        if owner is None:
            self._log(request, "No owner → execute locally (new session)")
        else:
            self._log(request, "We own it → execute locally")
            await ownership.refresh(client, request.session_id)
        return None

    async def _exchange(self, client: Any, request: _Request, owner: str) -> dict[str, Any] | None:
        """Publish a request and wait for its answer; None when nobody listened.

        Raises:
            UnansweredError: somebody did, or may have; and there is no answer that can be read.
        """
        data = encode({**request.message, "response_channel": request.response_channel})
        async with self._replies.expect(client, request.response_channel) as answer:
            has_begun = False
            try:
                async with self._context.bounded():
                    has_begun = True
                    receivers = await client.publish(request.channel(owner), data)
            except Exception as error:
                if not has_begun:
                    raise
                raise UnansweredError("Redis does not say whether the owner has the request") from error
            if receivers == 0:
                return None
            if request.message["type"] == "rpc_forward":
                self.counts.requests += 1
            self._log(request, f"Published to worker {safe_text(owner)}")
            try:
                decoded = request.read_answer(await answer)
            except Exception as error:
                raise UnansweredError("The answer of the worker that owns the session was lost") from error
            if request.message["type"] == "http_forward":
                self.counts.requests += 1
            return decoded

    def _log(self, request: _Request, text: str) -> None:
        self._context.logger().log(request.log_level, "%s | %s", request.log_prefix, text)
