"""The one module that knows the two generations of the MCP SDK, 1.27–1.30 and 2.x. Nothing else looks through
it.

They differ in the names of the transports, the HTTP library that goes with them (``httpx``, ``httpx2``), the
error class (``McpError``, ``MCPError``), the wrapping of messages, and in where a session keeps its requests
in flight.

Functions take an optional ``namespace``: any object with attributes ``ClientSession``, ``sse_client``,
``streamablehttp_client``, ``McpError``, looked up at each use. The gateway's stand-in module passes itself,
because gateway code and its tests replace these names there. What is found replaced is called exactly as the
SDK 1.x would be, and gets nothing of ours in between.

The SDK is imported at first use; without it every function here raises an ImportError that names the extra.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any, Literal

from mcpgateway_pool.tasks import say_goodbye

TransportName = Literal["sse", "streamablehttp"]
ClientFactory = Callable[..., Any]

CONNECTION_CLOSED = -32000
# What SDK 2.x makes of an answer that it cannot read.
PARSE_ERROR = -32700

_SSE_READ_TIMEOUT_SECONDS = 300.0
# How long the word that a request was given up may take, in the background.
_CANCEL_SECONDS = 5.0


class _Sdk:
    """The installed SDK, imported once."""

    def __init__(self) -> None:
        try:
            mcp = importlib.import_module("mcp")
        except ModuleNotFoundError as error:
            if error.name != "mcp":
                raise
            raise ImportError(
                "opening MCP sessions needs the MCP SDK: pip install 'mcpgateway-pool[mcp]'", name="mcp"
            ) from error
        exceptions = importlib.import_module("mcp.shared.exceptions")
        streamable_http = importlib.import_module("mcp.client.streamable_http")
        http_utils = importlib.import_module("mcp.shared._httpx_utils")
        self.generation = 2 if hasattr(exceptions, "MCPError") else 1
        modern = self.generation == 2
        self.error_class: type[Exception] = exceptions.MCPError if modern else exceptions.McpError
        self.client_session: Any = mcp.ClientSession
        self.sse_client: Any = importlib.import_module("mcp.client.sse").sse_client
        self.streamable_http_client: Any = streamable_http.streamable_http_client
        # The function of that name that 1.x keeps beside it, deprecated; 2.x has none.
        self.streamablehttp_client: Any = getattr(streamable_http, "streamablehttp_client", None)
        self.http: Any = importlib.import_module("httpx2" if modern else "httpx")
        self.types: Any = importlib.import_module("mcp_types" if modern else "mcp.types")
        # SDKs that follow redirects themselves (within the origin) make their clients without following.
        self.follow_redirects = not hasattr(http_utils, "stream_within_origin")


@functools.cache
def _sdk() -> _Sdk:
    return _Sdk()


def load() -> None:
    """Import the SDK and what it needs to connect, which takes about a second, unless that is done already.

    Raises:
        ImportError: it is not installed.
    """
    _sdk()
    http_core()
    importlib.import_module("anyio._backends._asyncio")  # what anyio imports within the first call


async def load_aside() -> None:
    """The same in a thread, so that the event loop goes on meanwhile."""
    if not is_loaded():
        await asyncio.to_thread(load)


def is_loaded() -> bool:
    """Whether the SDK was used already; where not, there is no session of its."""
    return _sdk.cache_info().currsize > 0


def generation() -> int:
    """1 or 2. Raises ImportError without an SDK, as all here do."""
    return _sdk().generation


def http_library() -> Any:
    """The module ``httpx`` or ``httpx2``, whichever the SDK uses."""
    return _sdk().http


def http_core() -> Any:
    """The module ``httpcore`` or ``httpcore2``, on which that library rests."""
    return importlib.import_module("httpcore2" if generation() == 2 else "httpcore")


def follows_redirects() -> bool:
    """Whether the SDK's HTTP clients follow redirects (1.27); later its transports do so themselves."""
    return _sdk().follow_redirects


def is_native(transport: TransportName, namespace: object | None) -> bool:
    """Whether the transport function to use is the SDK's own, not one that a namespace has in its place."""
    if namespace is None:
        return True
    sdk = _sdk()
    if transport == "sse":
        return getattr(namespace, "sse_client", None) is sdk.sse_client
    function = getattr(namespace, "streamablehttp_client", None)
    return function is not None and function is sdk.streamablehttp_client


@contextlib.asynccontextmanager
async def open_streams(
    transport: TransportName,
    url: str,
    headers: dict[str, str],
    timeout: float,
    client_factory: ClientFactory | None,
    namespace: object | None = None,
) -> AsyncIterator[tuple[Any, Any]]:
    """Enter a transport.

    Args:
        transport: ``"sse"`` or ``"streamablehttp"``.
        url: the endpoint.
        headers: what to send with each request.
        timeout: seconds for connecting, writing and ordinary answers; event streams may be silent for 300 s,
            as in the SDK.
        client_factory: makes the HTTP client, called with ``headers``, ``timeout``, ``auth``. Required for
            the SDK's own transports; for replaced ones None means that the argument is left out.
        namespace: see the module.

    Yields:
        The read stream and the write stream.
    """
    if not is_native(transport, namespace):
        name = "sse_client" if transport == "sse" else "streamablehttp_client"
        options: dict[str, Any] = {} if client_factory is None else {"httpx_client_factory": client_factory}
        replaced = getattr(namespace, name)
        context = replaced(url=url, headers=headers, timeout=timeout, **options)
        # By hand: a mock's __aexit__ may return what counts as true, which must not swallow the error.
        streams = await context.__aenter__()
        try:
            yield streams[0], streams[1]
        except BaseException as error:
            await context.__aexit__(type(error), error, error.__traceback__)
            raise
        await context.__aexit__(None, None, None)
        return
    sdk = _sdk()
    if client_factory is None:
        raise TypeError("client_factory is required")
    if transport == "sse":
        async with sdk.sse_client(
            url, headers=headers, timeout=timeout, httpx_client_factory=client_factory
        ) as streams:
            yield streams[0], streams[1]
        return
    client = client_factory(
        headers=headers, timeout=sdk.http.Timeout(timeout, read=_SSE_READ_TIMEOUT_SECONDS), auth=None
    )
    async with client, sdk.streamable_http_client(url, http_client=client) as streams:
        yield streams[0], streams[1]


def new_session(read: Any, write: Any, message_handler: Any, namespace: Any = None) -> Any:
    """A ``ClientSession``, not entered yet."""
    session_class = _sdk().client_session if namespace is None else namespace.ClientSession
    return session_class(read, write, message_handler=message_handler)


def make_error(code: int, message: str, namespace: object | None = None) -> Exception:
    """An error of the class that users of this SDK catch (``McpError`` or ``MCPError``)."""
    sdk = _sdk()
    error_class = sdk.error_class
    if namespace is not None:
        replaced = getattr(namespace, "McpError", None)
        if isinstance(replaced, type) and issubclass(replaced, Exception):
            error_class = replaced
    if sdk.generation == 2:
        return error_class(code, message)
    return error_class(sdk.types.ErrorData(code=code, message=message))


def error_class() -> type[Exception]:
    """``McpError`` or ``MCPError``."""
    return _sdk().error_class


def error_code(error: BaseException) -> int | None:
    """The JSON-RPC code of an SDK error, None for any other exception. Needs no SDK."""
    code = getattr(getattr(error, "error", None), "code", None)
    return code if type(code) is int else None


# Codes that a server may send, and that an SDK also makes up where no answer came: closed, "Session
# terminated", timed out (1.x and 2.x).
_AMBIGUOUS_CODES = frozenset({CONNECTION_CLOSED, 32600, -32600, 408, -32001})


def is_answer(error: BaseException) -> bool:
    """Whether what a request raised is the server's own answer: an error, or a result of another shape than
    asked for. Of codes that the SDK makes up where none came, only :class:`HttpWatch` knows. Needs no SDK.
    """
    if type(error).__name__ == "ValidationError" and type(error).__module__.startswith("pydantic"):
        return True
    code = error_code(error)
    return code is not None and not (code == PARSE_ERROR and str(error).startswith("Failed to parse"))


def is_surely_answer(error: BaseException) -> bool:
    """The same where nothing watches the requests: codes that the SDK may have made up do not count."""
    return is_answer(error) and error_code(error) not in _AMBIGUOUS_CODES


def request_of(body: bytes) -> tuple[str, int | str | None] | None:
    """Method and id of the JSON-RPC message in a POST's body; the id is None for what expects no answer.

    None when the body is no JSON-RPC message (an OAuth client's form, for one).
    """
    try:
        message = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(message, dict) or "jsonrpc" not in message:
        return None
    method = message.get("method")
    if not isinstance(method, str):
        return "", None
    request_id = message.get("id")
    return method, request_id if isinstance(request_id, (int, str)) else None


def error_of(body: bytes | None, problem: str, clean: Callable[[str], str] = str) -> dict[str, Any]:
    """The JSON-RPC error for a request that was refused: the server's own where ``body`` is one, else ours.

    Args:
        body: of the refusal; None where it has none that can be read.
        problem: the message of ours.
        clean: takes out of the server's message what must not be shown.
    """
    error: Any = None
    if body is not None:
        try:
            error = json.loads(body)["error"]
        except (ValueError, TypeError, KeyError, IndexError, RecursionError):
            error = None
    if isinstance(error, dict) and type(error.get("code")) is int and isinstance(error.get("message"), str):
        return {**error, "message": clean(error["message"])}
    return {"code": CONNECTION_CLOSED, "message": problem}


def error_answer(request_id: int | str, error: dict[str, Any]) -> bytes:
    """The body of an answer that fails one request."""
    return json.dumps({"jsonrpc": "2.0", "id": request_id, "error": error}).encode()


def _pending(session: Any) -> dict[Any, Any]:
    """The session's requests in flight, by id; empty for anything that is no SDK session (a mock)."""
    if _sdk().generation == 2:
        pending = getattr(getattr(session, "_dispatcher", None), "_pending", None)
    else:
        pending = getattr(session, "_response_streams", None)
    return pending if isinstance(pending, dict) else {}


def fail_request(
    session: Any, request_id: int | str, message: str, error: dict[str, Any] | None = None
) -> bool:
    """Fail one request in flight with code -32000, or with an error of the server's.

    Returns:
        False when it is answered already, or unknown.
    """
    import anyio

    pending = _pending(session)
    waiter = pending.get(request_id)
    if waiter is None:
        return False
    sdk = _sdk()
    data = sdk.types.ErrorData(**(error or {"code": CONNECTION_CLOSED, "message": message}))
    try:
        if sdk.generation == 2:
            waiter.send.send_nowait(data)
        else:
            # Taken out, so that neither a late answer nor the session's own end sends to it again.
            del pending[request_id]
            waiter.send_nowait(sdk.types.JSONRPCError(jsonrpc="2.0", id=request_id, error=data))
    except (anyio.WouldBlock, anyio.BrokenResourceError, anyio.ClosedResourceError):
        return False
    return True


def fail_requests(session: Any, message: str) -> int:
    """Fail all requests in flight with code -32000; how many there were."""
    return sum(fail_request(session, request_id, message) for request_id in list(_pending(session)))


class _InFlight(dict[Any, Any]):
    """The requests in flight of a session, by id. It tells of each that begins and ends."""

    begun: Callable[[Any], None] | None = None
    ended: Callable[[Any], None] | None = None

    def __setitem__(self, request_id: Any, waiter: Any) -> None:
        if self.begun is not None:
            self.begun(request_id)
        super().__setitem__(request_id, waiter)

    def __delitem__(self, request_id: Any) -> None:
        if self.ended is not None:
            self.ended(request_id)
        super().__delitem__(request_id)

    def pop(self, request_id: Any, *default: Any) -> Any:
        if self.ended is not None:
            self.ended(request_id)
        return super().pop(request_id, *default)


def on_requests(session: Any, *, begun: Callable[[Any], None], ended: Callable[[Any], None]) -> None:
    """Have functions called with the id of each request of a session: before it is sent, in the context of
    its caller; and when nobody waits for its answer any more. Nothing happens for what is no SDK session.
    """
    pending = _pending(session)
    if not isinstance(pending, _InFlight):
        holder, name = (
            (getattr(session, "_dispatcher", None), "_pending")
            if _sdk().generation == 2
            else (session, "_response_streams")
        )
        if getattr(holder, name, None) is not pending:
            return
        pending = _InFlight(pending)
        setattr(holder, name, pending)
    pending.begun, pending.ended = begun, ended


class _Requests(_InFlight):
    """SDK 1.x: the same. Whoever takes out what it has put in has given its request up; an answered one was
    taken out by the task that receives.
    """

    def __init__(self, on_given_up: Callable[[], None]) -> None:
        super().__init__()
        self._on_given_up = on_given_up
        self._tasks: dict[Any, Any] = {}

    def __setitem__(self, request_id: Any, waiter: Any) -> None:
        self._tasks[request_id] = asyncio.current_task()
        super().__setitem__(request_id, waiter)

    def __delitem__(self, request_id: Any) -> None:
        self._tasks.pop(request_id, None)
        super().__delitem__(request_id)

    def pop(self, request_id: Any, *default: Any) -> Any:
        task = self._tasks.pop(request_id, None)
        if request_id in self and task is asyncio.current_task():
            self._on_given_up()
        return super().pop(request_id, *default)


def on_given_up(session: Any, callback: Callable[[], None]) -> None:
    """Have a function called whenever a request of a session ends without an answer because its caller was
    cancelled, or because its own time was up. Nothing happens for what is no SDK session.

    SDK 2.x then tells the server so, and lets nobody cancel that for 5 s: a caller whose time is up would
    wait for a transport that takes nothing more, such as SSE while its last POST is without an answer. Here
    nobody waits for it longer than for any other goodbye.
    """
    if _sdk().generation == 2:
        dispatcher: Any = getattr(session, "_dispatcher", None)
        send_cancel = getattr(dispatcher, "_cancel_outbound", None)
        if send_cancel is None:
            return

        async def noted(*arguments: Any, **options: Any) -> None:
            callback()
            await say_goodbye(send_cancel(*arguments, **options), _CANCEL_SECONDS)

        dispatcher._cancel_outbound = noted
    elif type(_pending(session)) is dict and hasattr(session, "_response_streams"):
        session._response_streams = _Requests(callback)


def knows_tools(session: Any) -> bool:
    """Whether a session has asked for the tools of its server, by whose schemas it checks results."""
    return bool(getattr(session, "_tool_output_schemas", None))


def is_transport_closed(session: Any) -> bool:
    """Whether a session's transport is known to have ended. False for anything that is no SDK session, and
    for an idle streamable HTTP session whose server is gone: that shows at its next request only.
    """
    if _sdk().generation == 2:
        dispatcher = getattr(session, "_dispatcher", None)
        return getattr(dispatcher, "_closed", None) is True or getattr(dispatcher, "_running", None) is False
    stream = getattr(session, "_write_stream", None)
    if getattr(stream, "_closed", None) is True:
        return True
    receivers = getattr(getattr(stream, "_state", None), "open_receive_channels", None)
    return type(receivers) is int and receivers == 0


def is_known_to_be_closed(session: Any) -> bool:
    """The same, also where the SDK was never used: False."""
    return is_loaded() and is_transport_closed(session)
