"""Connections that notice a silent network, on sockets of this machine."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import socket
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mcpgateway_pool import NetworkSettings, client_factory, verdict
from mcpgateway_pool.upstream import name_lookups, network, network_stream, sdk
from mcpgateway_pool.upstream.http_client import default_client_factory
from mcpgateway_pool.upstream.network import preparing
from support.certificates import Authority

http = sdk.http_library()
core = sdk.http_core()

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Served:
    """A server: its port, and how many connections it has accepted."""

    port = 0
    accepted = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"


@contextlib.asynccontextmanager
async def serving(handler: Handler, **options: Any) -> AsyncIterator[Served]:
    served = Served()
    handling: dict[asyncio.Task[Any] | None, asyncio.StreamWriter] = {}

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.accepted += 1
        handling[asyncio.current_task()] = writer
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await handler(reader, writer)
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, **options)
    served.port = server.sockets[0].getsockname()[1]
    try:
        yield served
    finally:
        server.close()
        for writer in handling.values():
            writer.transport.abort()
        await asyncio.gather(*filter(None, handling))


def answering(headers: str = "") -> Handler:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n{headers}\r\nok".encode())

    return handle


async def silence(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    while await reader.read(4096):
        pass


def network_stream_of(response: Any) -> Any:
    return response.extensions["network_stream"]


def option(response: Any, level: int, name: str) -> int:
    return network_stream_of(response).get_extra_info("socket").getsockopt(level, getattr(socket, name))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Of idle connections."""
    now = SimpleNamespace(monotonic=lambda: now.seconds, seconds=1000.0)
    monkeypatch.setattr(network_stream, "time", now)
    return now


# ---- socket options


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="this system has no such option")
@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (NetworkSettings(), (1, 15, 5, 3, 30_000)),
        (
            NetworkSettings(
                tcp_keepalive_idle_seconds=60,
                tcp_keepalive_interval_seconds=0.2,
                tcp_keepalive_probes=9,
                tcp_user_timeout_seconds=1.5,
            ),
            (1, 60, 1, 9, 1500),
        ),
        (
            NetworkSettings(
                tcp_keepalive_idle_seconds=float("inf"),
                tcp_keepalive_probes=1000,
                tcp_user_timeout_seconds=float("inf"),
            ),
            (1, 32767, 5, 127, 2**31 - 1),
        ),
        (NetworkSettings(tcp_keepalive_idle_seconds=0, tcp_user_timeout_seconds=0), (0, None, None, None, 0)),
    ],
)
def test_default_clients_probe_their_connections(
    settings: NetworkSettings, expected: tuple[int | None, ...]
) -> None:
    async def test() -> None:
        async with serving(answering()) as served, default_client_factory(network=settings)() as client:
            response = await client.get(served.url)
            assert option(response, socket.SOL_SOCKET, "SO_KEEPALIVE") == expected[0]
            names = ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT")
            for name, value in zip(names, expected[1:], strict=True):
                assert value is None or option(response, socket.IPPROTO_TCP, name) == value, name

    asyncio.run(test())


def test_options_that_the_system_does_not_have_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    network.socket_options_of.cache_clear()
    for name in ("TCP_KEEPIDLE", "TCP_KEEPALIVE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT"):
        monkeypatch.delattr(socket, name, raising=False)
    assert network.socket_options_of(NetworkSettings()) == ((socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),)
    monkeypatch.setattr(socket, "TCP_KEEPALIVE", 0x10, raising=False)  # as macOS calls it
    network.socket_options_of.cache_clear()
    assert (socket.IPPROTO_TCP, 0x10, 15) in network.socket_options_of(NetworkSettings())
    network.socket_options_of.cache_clear()


def test_a_socket_that_refuses_an_option_serves_all_the_same() -> None:
    class Refusing:
        def setsockopt(self, *_: Any) -> None:
            raise OSError(errno.EINVAL, "invalid")

    class Inner:
        async def connect_tcp(self, *_: Any, **_options: Any) -> Any:
            return SimpleNamespace(get_extra_info=lambda _: Refusing())

    async def test() -> None:
        assert await network.Network(Inner(), NetworkSettings()).connect_tcp("127.0.0.1", 1) is not None

    asyncio.run(test())


def test_an_option_of_the_callers_own_transport_stays() -> None:
    theirs = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 0)]

    async def test() -> None:
        client = http.AsyncClient(transport=http.AsyncHTTPTransport(socket_options=theirs))
        network.prepare(client, NetworkSettings())
        async with serving(answering()) as served, client:
            response = await client.get(served.url)
            assert option(response, socket.SOL_SOCKET, "SO_KEEPALIVE") == 0
            if hasattr(socket, "TCP_USER_TIMEOUT"):
                assert option(response, socket.IPPROTO_TCP, "TCP_USER_TIMEOUT") == 30_000

    asyncio.run(test())


# ---- which clients


def test_a_factory_of_ones_own_settings_keeps_those_of_the_pool() -> None:
    async def test() -> None:
        priority = (socket.SOL_SOCKET, socket.SO_PRIORITY, 3)
        limits = sdk.http_library().Limits(max_connections=1)
        made = client_factory(verify=False, limits=limits, socket_options=iter([priority]))
        for _ in range(2):  # each client has the options
            async with serving(answering()) as served, made(headers={"X-A": "1"}) as client:
                response = await client.get(served.url)
                assert response.request.headers["x-a"] == "1"
                assert option(response, socket.SOL_SOCKET, "SO_PRIORITY") == 3
                assert option(response, socket.SOL_SOCKET, "SO_KEEPALIVE") == 1
                assert client._transport._pool._max_connections == 1

    asyncio.run(test())


def test_connections_through_a_proxy_of_the_environment_are_probed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        async with serving(answering()) as served:
            monkeypatch.setenv("HTTP_PROXY", served.url)
            async with default_client_factory()() as client:
                response = await client.get("http://server.invalid/")  # the proxy's to look up
                assert option(response, socket.SOL_SOCKET, "SO_KEEPALIVE") == 1

    asyncio.run(test())


def test_connections_under_tls_are_probed_and_say_what_was_negotiated(tmp_path: Path) -> None:
    """By which the HTTP library decides between HTTP/1.1 and HTTP/2."""
    authority = Authority(tmp_path)
    context = authority.server_context()
    context.set_alpn_protocols(["http/1.1"])

    async def test() -> None:
        client = default_client_factory(str(authority.path))()
        async with serving(answering(), ssl=context) as served, client:
            response = await client.get(f"https://127.0.0.1:{served.port}/")
            assert response.text == "ok"
            assert option(response, socket.SOL_SOCKET, "SO_KEEPALIVE") == 1
            tls = network_stream_of(response).get_extra_info("ssl_object")
            assert tls.selected_alpn_protocol() == "http/1.1"

    asyncio.run(test())


def test_a_transport_that_the_client_is_given_later_is_prepared_at_its_next_request() -> None:
    """As the gateway does, which pins addresses by a transport of its own."""

    def factory(**options: Any) -> Any:
        return http.AsyncClient(**options)

    async def test() -> None:
        client = preparing(factory, NetworkSettings())()
        client._transport = http.AsyncHTTPTransport()
        async with serving(answering()) as served, client:
            response = await client.get(served.url)
            assert option(response, socket.SOL_SOCKET, "SO_KEEPALIVE") == 1

    asyncio.run(test())


def test_the_latest_settings_of_a_client_count_and_its_hooks_are_there_once() -> None:
    async def test() -> None:
        client = default_client_factory()()
        for _ in range(3):
            network.prepare(client, NetworkSettings(tcp_keepalive_idle_seconds=0))
        assert [len(hooks) for hooks in client.event_hooks.values()] == [1, 1]
        async with serving(answering()) as served, client:
            response = await client.get(served.url)
            assert option(response, socket.SOL_SOCKET, "SO_KEEPALIVE") == 0

    asyncio.run(test())


def test_a_transport_without_sockets_stays_as_it_is() -> None:
    async def test() -> None:
        client = http.AsyncClient(transport=http.MockTransport(lambda _: http.Response(204)))
        network.prepare(client, NetworkSettings())
        async with client:
            assert (await client.get("http://host/")).status_code == 204
        assert preparing(lambda: "no client", NetworkSettings())() == "no client"

    asyncio.run(test())


def test_a_prepared_client_is_freed_without_the_collector() -> None:
    gc.disable()
    try:
        client = default_client_factory()()
        freed = weakref.ref(client)
        del client
        assert freed() is None
    finally:
        gc.enable()


# ---- connecting


def test_connecting_is_bounded_whatever_takes_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name; TCP; a proxy that accepts, and does not answer; TLS."""
    settings = NetworkSettings(connect_timeout_seconds=0.05)

    async def hangs(*_: Any, **_options: Any) -> Any:
        await asyncio.Event().wait()

    async def of_name() -> None:
        monkeypatch.setattr(name_lookups, "addresses_of", hangs)
        async with default_client_factory(network=settings)(timeout=None) as client:
            with pytest.raises(http.ConnectTimeout, match="within"):
                await client.get("http://host.invalid/")

    async def of_address() -> None:
        connecting = network.Network(SimpleNamespace(connect_tcp=hangs), settings)
        with pytest.raises(core.ConnectTimeout, match="within"):
            await connecting.connect_tcp("127.0.0.1", 1)
        with pytest.raises(core.ConnectTimeout, match=r"0\.01"):
            await connecting.connect_tcp("127.0.0.1", 1, timeout=0.01)

    async def of_proxy(variable: str, scheme: str) -> None:
        async with serving(silence) as served:
            monkeypatch.setenv(variable, f"{scheme}://127.0.0.1:{served.port}")
            async with default_client_factory(network=settings)(timeout=http.Timeout(None)) as client:
                with pytest.raises(http.ConnectTimeout, match="proxy"):
                    await client.get("https://host.invalid/")
            monkeypatch.delenv(variable)

    async def of_tls() -> None:
        make = default_client_factory(network=settings)
        async with serving(silence) as served, make(timeout=http.Timeout(None)) as client:
            with pytest.raises(http.ConnectTimeout):
                await client.get(f"https://127.0.0.1:{served.port}/")

    asyncio.run(of_address())
    asyncio.run(of_proxy("HTTPS_PROXY", "http"))
    asyncio.run(of_tls())
    asyncio.run(of_name())


def test_a_socks_proxy_that_does_not_answer_is_bounded_too() -> None:
    async def test() -> None:
        settings = NetworkSettings(connect_timeout_seconds=0.05)
        async with serving(silence) as served:
            stream = await network.Network(core.AnyIOBackend(), settings).connect_tcp(
                "127.0.0.1", served.port
            )
            await stream.write(b"\x05\x01\x00")
            with pytest.raises(core.ConnectTimeout, match="proxy"):
                await stream.read(4096)
            await stream.aclose()

    asyncio.run(test())


def test_what_follows_the_handshake_is_not_bounded_by_it() -> None:
    """A body may begin like a proxy's handshake."""
    read_with: list[float | None] = []

    class Inner:
        async def write(self, *_: Any) -> None: ...

        async def read(self, _max_bytes: int, timeout: float | None) -> bytes:
            read_with.append(timeout)
            return b"x"

    async def test() -> None:
        stream = network_stream.NetworkStream(Inner(), asyncio.get_running_loop().time() + 5, 1.0)
        for part in (b"\x05\x01\x00", b"POST / HTTP/1.1\r\n", b"", b"\x05body"):
            await stream.write(part)
            await stream.read(1, 300.0)
        assert read_with[0] is not None
        assert read_with[0] <= 5
        assert read_with[1:] == [300.0] * 3

    asyncio.run(test())


def test_a_refused_connection_is_an_error_with_its_cause() -> None:
    async def test() -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            async with default_client_factory()() as client:
                with pytest.raises(http.ConnectError) as caught:
                    await client.get(f"http://127.0.0.1:{unused.getsockname()[1]}/")
        assert "ConnectionRefusedError: [Errno" in verdict.describe(caught.value)
        assert verdict.fault_of(caught.value) is verdict.Fault.SERVER

    asyncio.run(test())


# ---- several addresses


class Addresses:
    """Stands for an inner backend; each address does what it is said to."""

    def __init__(self, **does: Any) -> None:
        self.does = {name.replace("_", "."): what for name, what in does.items()}
        self.asked: list[str] = []
        self.closed: list[str] = []

    async def connect_tcp(self, host: str, **_: Any) -> Any:
        self.asked.append(host)
        what = self.does[host]
        if isinstance(what, Exception):
            raise what
        if what == "hang":
            await asyncio.Event().wait()

        async def aclose() -> None:
            self.closed.append(host)

        return SimpleNamespace(host=host, aclose=aclose, get_extra_info=lambda _: None)


def connecting(monkeypatch: pytest.MonkeyPatch, inner: Addresses, **settings: Any) -> Any:
    async def addresses_of(_host: str, _port: int) -> list[str]:
        return list(inner.does)

    monkeypatch.setattr(name_lookups, "addresses_of", addresses_of)
    monkeypatch.setattr(network, "_NEXT_ADDRESS_SECONDS", 0.01)
    return network.Network(inner, NetworkSettings(**settings)).connect_tcp("host", 1)


@pytest.mark.parametrize("first", ["hang", core.ConnectError("refused")])
def test_an_address_that_is_dead_is_passed_over(monkeypatch: pytest.MonkeyPatch, first: Any) -> None:
    inner = Addresses(a_1=first, a_2="ok", a_3="ok")

    async def test() -> None:
        stream = await connecting(monkeypatch, inner)
        assert stream._inner.host == "a.2"
        assert inner.asked == ["a.1", "a.2"]

    asyncio.run(test())


def test_where_no_address_answers_the_error_has_every_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    shortage = core.ConnectError("no descriptors")
    shortage.__cause__ = OSError(errno.EMFILE, "Too many open files")
    inner = Addresses(a_1=core.ConnectError("refused"), a_2=shortage)

    async def test() -> None:
        with pytest.raises(core.ConnectError, match="no address") as caught:
            await connecting(monkeypatch, inner)
        assert verdict.fault_of(caught.value) is verdict.Fault.MACHINE
        with pytest.raises(core.ConnectTimeout):
            await connecting(monkeypatch, Addresses(a_1="hang", a_2="hang"), connect_timeout_seconds=0.05)

    asyncio.run(test())


def test_a_connection_that_nobody_wants_any_more_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two attempts that succeed at once; and a caller that is cancelled just then."""

    async def test() -> None:
        gate = asyncio.Event()
        inner = Addresses(a_1="ok", a_2="ok")
        connect = inner.connect_tcp

        async def at_the_gate(host: str, **options: Any) -> Any:
            if len(inner.asked) == 0:
                inner.asked.append(host)
                await gate.wait()
            else:
                gate.set()
            return await connect(host, **options)

        inner.connect_tcp = at_the_gate  # type: ignore[method-assign]
        stream = await connecting(monkeypatch, inner)
        await asyncio.sleep(0)
        await asyncio.gather(*network._closing)
        assert sorted([*inner.closed, stream._inner.host]) == ["a.1", "a.2"]

    async def cancelled() -> None:
        inner = Addresses(a_1="ok", a_2="hang")
        task = asyncio.ensure_future(connecting(monkeypatch, inner))
        while inner.asked != ["a.1"]:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0)
        await asyncio.gather(*network._closing)
        assert inner.closed == ["a.1"]

    asyncio.run(test())
    asyncio.run(cancelled())


# ---- idle connections


@pytest.mark.parametrize(
    ("header", "kept", "left"),
    [
        ("", 1.4, 1.5),
        ("Keep-Alive: timeout=5\r\n", 3.9, 4.0),
        ("keep-alive: max=100, TIMEOUT = 72\r\n", 59.0, 71.0),
        ("Keep-Alive: timeout=1\r\n", 0.4, 0.5),
        ("Keep-Alive: timeout=0\r\n", None, 0.0),
        ("Keep-Alive: max=3, x-timeout=110, timeout=soon\r\n", 1.4, 1.5),
    ],
)
def test_an_idle_connection_is_left_before_its_server_closes_it(
    clock: SimpleNamespace, header: str, kept: float | None, left: float
) -> None:
    async def test() -> None:
        async with serving(answering(header)) as served, default_client_factory()() as client:
            await client.get(served.url)
            for _ in range(3 if kept is not None else 0):  # each use counts anew
                clock.seconds += kept
                await client.get(served.url)
            assert served.accepted == 1
            clock.seconds += left
            await client.get(served.url)
            assert served.accepted == 2

    asyncio.run(test())


def test_the_setting_says_how_long_where_the_server_does_not(clock: SimpleNamespace) -> None:
    async def reused(seconds: float, gap: float, header: str = "") -> bool:
        make = default_client_factory(network=NetworkSettings(idle_connection_seconds=seconds))
        async with serving(answering(header)) as served, make() as client:
            await client.get(served.url)
            clock.seconds += gap
            await client.get(served.url)
            return served.accepted == 1

    assert asyncio.run(reused(20, 19))
    assert not asyncio.run(reused(20, 20))
    assert not asyncio.run(reused(0, 0))
    assert asyncio.run(reused(0, 3, "Keep-Alive: timeout=5\r\n"))
