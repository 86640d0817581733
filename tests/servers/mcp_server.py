"""An MCP server to test against, on the official SDK, 1.x or 2.x, whichever is installed.

Run as a script; see ``--help``. When it listens it prints one line of JSON on standard output: ``{"port": …,
"path": …, "pid": …}``. It ends when its standard input ends, so that it does not outlive whoever started it.
Counters and faults: ``faults.py``.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import json
import os
import socket
import ssl
import sys
import threading
from pathlib import Path
from typing import Any

import uvicorn
from mcp.server.transport_security import TransportSecuritySettings
from pydantic import BaseModel
from uvicorn.protocols.http.h11_impl import H11Protocol

sys.path.insert(0, str(Path(__file__).resolve().parent))
from encoding import ENCODINGS, EncodingLayer
from faults import FaultLayer

SDK_VERSION = importlib.metadata.version("mcp")
if SDK_VERSION.startswith("1."):
    from mcp import types as mcp_types
    from mcp.server.fastmcp import Context, FastMCP
else:
    import mcp_types
    from mcp.server.mcpserver import Context
    from mcp.server.mcpserver import MCPServer as FastMCP

_counters: dict[str, int] = {}
_may_proceed = asyncio.Event()


class Name(BaseModel):
    """What users are asked for."""

    name: str


def _session_id(request: Any) -> str:
    """The id that the transport gave to the session of a request: a header, or over SSE a part of the URL."""
    header = request.headers.get("mcp-session-id")
    return str(header or request.query_params.get("session_id") or "stateless")


async def echo(text: str) -> str:
    """The text itself."""
    return text


async def add(a: int, b: int) -> int:
    """The sum."""
    return a + b


async def slow(seconds: float) -> str:
    """Answers after a while."""
    await asyncio.sleep(seconds)
    return f"slept {seconds}"


async def fail(message: str = "this tool fails") -> str:
    """A tool error."""
    raise ValueError(message)


async def die() -> str:
    """Ends the server process without a word."""
    os._exit(9)


async def whoami(ctx: Context) -> str:
    """What the server knows of its caller, as JSON: user, session, request headers, and from where it comes
    (see ``CertifiedProtocol``).
    """
    request: Any = ctx.request_context.request
    headers = dict(request.headers)
    user = headers.get("x-user-id") or headers.get("authorization") or "anonymous"
    seen = {"user": user, "session": _session_id(request), "headers": headers, "peer": request.client.host}
    return json.dumps(seen)


async def counter(ctx: Context) -> int:
    """How often this tool was called in this session."""
    key = _session_id(ctx.request_context.request)
    _counters[key] = _counters.get(key, 0) + 1
    return _counters[key]


async def notify(ctx: Context, kind: str = "log", text: str = "hello") -> str:
    """Sends a notification before it answers: ``log`` (with the request), ``tools`` (on the session's own
    stream).
    """
    session: Any = ctx.session
    if kind == "tools":
        await session.send_tool_list_changed()
    else:
        await session.send_log_message(level="info", data=text, related_request_id=ctx.request_id)
    return kind


async def progress(ctx: Context, hold: bool = False) -> str:
    """Reports three steps, then answers; with ``hold`` not before ``proceed`` is called."""
    for step in (1, 2, 3):
        await ctx.report_progress(step, 3, f"step {step}")
    if hold:
        await _may_proceed.wait()
        _may_proceed.clear()
    return "done"


async def proceed() -> str:
    """Lets a held tool answer."""
    _may_proceed.set()
    return "proceeding"


async def meta(ctx: Context) -> str:
    """The ``_meta`` of the call, as JSON."""
    found: Any = ctx.request_context.meta
    return json.dumps(found if found is None or isinstance(found, dict) else found.model_dump(by_alias=True))


async def elicit(ctx: Context) -> str:
    """Asks the user by a request of the server's, as servers did before 2026-07-28."""
    answer: Any = await ctx.elicit("your name?", Name)
    return str(answer.data.name if answer.action == "accept" else answer.action)


def note(name: str = "nobody") -> str:
    """A text: what the prompt ``note`` and the resource ``note://all`` give."""
    return f"a note for {name}"


def notes() -> str:
    """The resource."""
    return note("all")


async def complete(_reference: Any, argument: Any, _context: Any) -> mcp_types.Completion:
    """Names for the prompt's argument."""
    names = [name for name in ("ann", "bob") if name.startswith(argument.value)]
    return mcp_types.Completion(values=names)


TOOLS = (echo, add, slow, fail, die, whoami, counter, notify, progress, proceed, meta, elicit)
if not SDK_VERSION.startswith("1."):

    async def ask(ctx: Context) -> mcp_types.InputRequiredResult | str:
        """Asks the user by a result that wants input, as servers do from 2026-07-28 on."""
        answers: Any = ctx.input_responses
        if answers:
            return f"hello {answers['who'].content['name']}, {ctx.request_state}"
        params = mcp_types.ElicitRequestFormParams(
            message="your name?", requested_schema=Name.model_json_schema()
        )
        return mcp_types.InputRequiredResult(
            input_requests={"who": mcp_types.ElicitRequest(params=params)}, request_state="asked"
        )

    TOOLS += (ask,)


def build_app(
    transport: str, json_response: bool, stateless: bool, host: str = "127.0.0.1"
) -> tuple[Any, str]:
    """The ASGI application and the path of its MCP endpoint, for ``sse`` or ``streamablehttp``. On another
    host than this machine it answers to any name.
    """
    path = "/sse" if transport == "sse" else "/mcp"
    security: dict[str, Any] = {}
    if host != "127.0.0.1":
        security["transport_security"] = TransportSecuritySettings(enable_dns_rebinding_protection=False)
    options = {"json_response": json_response, "stateless_http": stateless}
    if SDK_VERSION.startswith("1."):
        server = FastMCP("test server", log_level="CRITICAL", **options, **security)
        options, security = {}, {}
    else:
        server = FastMCP("test server", log_level="CRITICAL")
    for tool in TOOLS:
        server.add_tool(tool)
    server.prompt(name="note")(note)
    server.resource("note://all")(notes)
    server.completion()(complete)
    app = (
        server.sse_app(**security)
        if transport == "sse"
        else server.streamable_http_app(**options, **security)
    )
    info = {"sdk": SDK_VERSION, "transport": transport}
    return FaultLayer(app, info), path


class CertifiedProtocol(H11Protocol):
    """In place of its address, a client has the name in its certificate."""

    def connection_made(self, transport: Any) -> None:
        """See :class:`asyncio.Protocol`."""
        super().connection_made(transport)
        subject = transport.get_extra_info("peercert")["subject"]
        self.client = (dict(part[0] for part in subject)["commonName"], 0)


class AnnouncingServer(uvicorn.Server):
    """A uvicorn server that says on standard output when it listens."""

    announcement: dict[str, Any]

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then print the one line."""
        await super().startup(sockets)
        print(json.dumps(self.announcement), flush=True)


def _end_with_stdin() -> None:
    # Read the descriptor itself: a daemon thread that holds the buffered sys.stdin can abort the shutdown.
    while os.read(0, 4096):
        pass
    os._exit(0)


def main() -> None:
    """Parse the arguments and serve until ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--transport", choices=("sse", "streamablehttp"), default="streamablehttp")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen at")
    parser.add_argument("--port", type=int, default=0, help="0: any free port (printed)")
    parser.add_argument(
        "--json", action="store_true", help="streamable HTTP: answer with JSON instead of streams"
    )
    parser.add_argument("--stateless", action="store_true", help="streamable HTTP: no sessions")
    parser.add_argument(
        "--grace", type=int, default=1, help="seconds to wait for open connections on SIGTERM"
    )
    parser.add_argument(
        "--keep-alive", type=int, default=5, help="seconds until an idle connection is closed"
    )
    parser.add_argument("--certificate", help="serve over TLS, with the certificate and key of this file")
    parser.add_argument(
        "--client-authority", help="want certificates of clients, by the authority of this file"
    )
    parser.add_argument("--encoding", choices=tuple(ENCODINGS), help="encode all bodies")
    parser.add_argument("--keep", action="store_true", help="do not end with standard input")
    args = parser.parse_args()

    app, path = build_app(args.transport, args.json, args.stateless, args.host)
    if args.encoding:
        app = EncodingLayer(app, args.encoding)
    # The protocol must be named: asyncio sets TCP_NODELAY only where it is, and answers would wait 40 ms.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((args.host, args.port))
    mutual: dict[str, Any] = {}
    if args.client_authority:
        mutual = {
            "ssl_ca_certs": args.client_authority,
            "ssl_cert_reqs": ssl.CERT_REQUIRED,
            "http": CertifiedProtocol,
        }
    config = uvicorn.Config(
        app,
        log_level="critical",
        timeout_graceful_shutdown=args.grace,
        timeout_keep_alive=args.keep_alive,
        ws="none",
        ssl_certfile=args.certificate,
        **mutual,
        h11_max_incomplete_event_size=1 << 20,  # of a head that comes in parts
    )
    server = AnnouncingServer(config)
    server.announcement = {
        "port": listener.getsockname()[1],
        "path": path,
        "pid": os.getpid(),
        "sdk": SDK_VERSION,
    }
    if not args.keep:
        threading.Thread(target=_end_with_stdin, daemon=True).start()
    asyncio.run(server.serve(sockets=[listener]))


if __name__ == "__main__":
    main()
