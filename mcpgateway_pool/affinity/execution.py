"""Executing a forwarded request for another worker: what may go wrong becomes an answer."""

from __future__ import annotations

import asyncio
from typing import Any

from mcpgateway_pool.redact import safe_error, safe_text

from .answers import http_error, rpc_error
from .context import Context
from .forwarding import Execute, encode
from .keys import short

# An answer that reaches nobody is published again: the connection that waits for it may be a new one by then.
_ATTEMPTS = 6
_FIRST_PAUSE_SECONDS = 0.05


class Execution:
    """The owner's side: one request.

    Args:
        context: what all parts share.
        execute_rpc: executes an RPC request in this process.
        execute_http: executes an HTTP request in this process.
    """

    def __init__(self, context: Context, execute_rpc: Execute, execute_http: Execute) -> None:
        self._context = context
        self._execute_rpc = execute_rpc
        self._execute_http = execute_http

    async def rpc(self, request: dict[str, Any]) -> dict[str, Any]:
        """See ``SessionAffinity.execute_forwarded_request``."""
        logger = self._context.logger()
        method = safe_text(str(request.get("method")), 80)
        worker, session = self._context.worker_id(), short(request.get("mcp_session_id"))
        prefix = f"[AFFINITY] Worker {worker} | Session {session}... | Method: {method}"
        logger.info("%s | Received forwarded request, executing locally", prefix)
        try:
            async with asyncio.timeout(self._context.settings().forward_timeout_seconds):
                response = await self._execute_rpc(request)
        except TimeoutError:
            logger.warning("Timeout executing forwarded request: %s", method)
            return rpc_error("Internal request timeout")
        except Exception as error:
            logger.warning("Error executing forwarded request: %s", safe_error(error))
            return rpc_error(safe_error(error))
        how = "with error" if "error" in response else "successfully"
        logger.info("%s | Forwarded execution completed %s", prefix, how)
        return response

    async def http(self, request: dict[str, Any], client: Any) -> None:
        """See ``SessionAffinity.execute_forwarded_http_request``."""
        logger = self._context.logger()
        worker, session = self._context.worker_id(), short(request.get("mcp_session_id"))
        prefix = f"[HTTP_AFFINITY] Worker {worker} | Session {session}..."
        method = safe_text(str(request.get("method")), 20)
        logger.debug("%s | Received forwarded HTTP request: %s", prefix, method)
        try:
            async with asyncio.timeout(self._context.settings().forward_timeout_seconds):
                response = await self._execute_http(request)
            logger.debug("%s | Executed locally: %s", prefix, response.get("status"))
        except Exception as error:
            # No traceback: its last line is the message as it came, with whatever URL is in it.
            logger.error(  # noqa: TRY400
                "Error executing forwarded HTTP request: %s", safe_error(error)
            )
            response = http_error(500, "Internal forwarding error")
        if client and request.get("response_channel"):
            await self.answer(client, request, response)

    async def answer(
        self, client: Any, request: dict[str, Any], response: dict[str, Any], attempts: int = _ATTEMPTS
    ) -> None:
        """Publish a response. Raises nothing but CancelledError."""
        channel = str(request["response_channel"])
        logger = self._context.logger()
        try:
            data = encode(response)
        except (TypeError, ValueError) as error:
            logger.warning("A forwarded request's response is no JSON: %s", safe_error(error))
            is_http = request.get("type") == "http_forward"
            text = "Internal forwarding error"
            data = encode(http_error(500, text) if is_http else rpc_error(text))
        pause = _FIRST_PAUSE_SECONDS
        for attempt in range(1, attempts + 1):
            try:
                async with self._context.bounded():
                    if await client.publish(channel, data) != 0:
                        logger.debug("Processed forwarded request, response sent to %s", safe_text(channel))
                        return
                reason = "nobody waits for it"
            except Exception as error:
                reason = safe_error(error)
            if attempt < attempts:
                await asyncio.sleep(pause)
                pause *= 2
        logger.debug("Failed to publish the response to a forwarded request: %s", reason)
