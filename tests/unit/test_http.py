"""HTTP clients and their watch, without a server: the HTTP library's own mock transport answers."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import importlib
import json
import ssl
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from mcpgateway_pool import verdict
from mcpgateway_pool.upstream import http_client, sdk
from mcpgateway_pool.upstream.http_client import (
    build_tls_context_aside,
    default_client_factory,
    drop_tls_contexts,
    tls_context,
)
from mcpgateway_pool.upstream.http_watch import HttpWatch
from mcpgateway_pool.upstream.request_headers import Cleaner

http = sdk.http_library()
URL = "http://u:p@host/mcp?secret=1"


@pytest.fixture(autouse=True)
def _no_contexts_of_other_tests() -> None:
    drop_tls_contexts()


# ---- TLS


def test_clients_of_one_setting_share_a_tls_context_until_it_is_dropped() -> None:
    first = tls_context()
    assert tls_context() is first
    assert tls_context(verify=False) is not first
    drop_tls_contexts()
    assert tls_context() is not first


def test_the_default_context_verifies_and_no_verification_is_only_on_request() -> None:
    assert tls_context().verify_mode == ssl.CERT_REQUIRED
    assert tls_context().check_hostname
    assert tls_context(verify=False).verify_mode == ssl.CERT_NONE


def test_a_change_of_the_environment_makes_a_new_context(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    certifi_or_system = ssl.get_default_verify_paths().cafile or importlib.import_module("certifi").where()
    first = tls_context()
    monkeypatch.setenv("SSL_CERT_FILE", certifi_or_system)
    second = tls_context()
    assert second is not first
    assert tls_context(trust_env=False) is not second
    monkeypatch.delenv("SSL_CERT_FILE")
    assert tls_context() is first


def test_a_context_of_the_callers_is_used_as_it_is() -> None:
    own = ssl.create_default_context()
    assert tls_context(own) is own


def test_a_ca_file_that_cannot_be_read_raises_and_is_not_remembered(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(OSError, match=r"No such file|\[X509\]"):
            tls_context(str(tmp_path / "missing.pem"))


async def test_a_context_is_built_beside_the_loop_and_once_for_all_who_want_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    threads: list[int] = []
    build = http_client._build_tls_context

    def noted(*arguments: Any, **options: Any) -> ssl.SSLContext:
        threads.append(threading.get_ident())
        return build(*arguments, **options)

    monkeypatch.setattr(http_client, "_build_tls_context", noted)
    await asyncio.gather(*(build_tls_context_aside() for _ in range(5)))
    tls_context()
    assert len(threads) == 1
    assert threads[0] != threading.get_ident()
    drop_tls_contexts()
    await build_tls_context_aside()
    assert len(threads) == 2
    with pytest.raises(OSError, match=r"No such file|\[X509\]"):
        await build_tls_context_aside("/missing.pem")


async def test_a_context_that_is_dropped_while_it_is_built_is_not_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    has_read, may_go_on = threading.Event(), threading.Event()
    build = http_client._build_tls_context
    built: list[ssl.SSLContext] = []

    def held(*arguments: Any, **options: Any) -> ssl.SSLContext:
        built.append(build(*arguments, **options))
        has_read.set()
        may_go_on.wait(30)
        return built[-1]

    monkeypatch.setattr(http_client, "_build_tls_context", held)
    building = asyncio.create_task(build_tls_context_aside())
    await asyncio.to_thread(has_read.wait, 30)
    drop_tls_contexts()
    may_go_on.set()
    await building
    assert tls_context() is not built[0]


async def test_who_waits_for_a_context_may_be_cancelled_alone() -> None:
    waiting = [asyncio.create_task(build_tls_context_aside()) for _ in range(2)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    done, _ = await asyncio.wait(waiting, timeout=30)
    assert done == set(waiting)
    assert waiting[0].cancelled()
    assert waiting[1].exception() is None


def test_default_clients_have_the_sdks_timeouts_and_redirects_and_the_shared_context() -> None:
    ours = default_client_factory()(headers={"a": "b"})
    theirs = importlib.import_module("mcp.shared._httpx_utils").create_mcp_http_client(headers={"a": "b"})
    assert ours.timeout == theirs.timeout
    assert ours.follow_redirects == theirs.follow_redirects
    assert ours.headers == theirs.headers
    assert ours._transport._pool._ssl_context is tls_context()
    pools = (ours._transport._pool, theirs._transport._pool)
    assert len({(pool._max_connections, pool._max_keepalive_connections) for pool in pools}) == 1
    other = default_client_factory()(timeout=http.Timeout(1.0))
    assert other.timeout == http.Timeout(1.0)
    assert other._transport._pool._ssl_context is ours._transport._pool._ssl_context


# ---- the watch


class Listener:
    """Notes what the watch reports."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, Any]] = []
        self.over = asyncio.Event()

    def request_over(self, request_id: int | str, problem: str) -> None:
        self.seen.append(("over", (request_id, problem)))
        self.over.set()

    def request_refused(self, request_id: int | str, error: dict[str, Any]) -> None:
        self.seen.append(("refused", (request_id, error)))

    def judged(self, seen: verdict.Verdict, _problem: str) -> None:
        self.seen.append(("judged", seen))

    def cannot_begin(self, error: Exception) -> None:
        self.seen.append(("no beginning", str(error)))

    def standing_stream_over(self) -> None:
        self.seen.append(("standing stream", None))


def call(request_id: int | None = 1, method: str = "tools/call") -> dict[str, Any]:
    message: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
    return message if request_id is None else {**message, "id": request_id}


@contextlib.asynccontextmanager
async def watched(
    transport: sdk.TransportName, answer: Callable[[Any], Any], **options: Any
) -> AsyncIterator[tuple[Any, Listener, HttpWatch]]:
    listener = Listener()
    watch = HttpWatch(transport, listener, Cleaner({"Authorization": "Bearer t0ken"}))
    make = functools.partial(http.AsyncClient, transport=http.MockTransport(answer), **options)

    def factory(headers: Any = None, timeout: Any = None, auth: Any = None) -> Any:
        return make(headers=headers, timeout=timeout, auth=auth or options.get("auth"))

    async with watch.factory(factory)() as client:
        yield client, listener, watch


async def parts(*given: bytes) -> AsyncIterator[bytes]:
    for part in given:
        yield part


async def post(client: Any, message: Any, headers: dict[str, str] | None = None) -> Any:
    """A POST in a task of its own, as the SDK's streamable HTTP transport makes it."""

    async def send() -> Any:
        async with client.stream("POST", URL, json=message, headers=headers) as response:
            await response.aread()
        return response

    return await asyncio.create_task(send())


@pytest.mark.parametrize(("status", "expected"), [(401, []), (429, []), (500, [verdict.FAILING])])
def test_a_refused_request_gets_an_error_answer_with_its_id(
    status: int, expected: list[verdict.Verdict]
) -> None:
    async def test() -> None:
        async with watched("streamablehttp", lambda _: http.Response(status, text="secret")) as (
            client,
            seen,
            _,
        ):
            response = await post(client, call(7))
            assert response.status_code == 200
            answer = json.loads(response.content)
            assert (answer["id"], answer["error"]["code"]) == (7, -32000)
            assert f"HTTP {status}" in answer["error"]["message"]
            assert "secret" not in response.text
            await seen.over.wait()
            assert [said for kind, said in seen.seen if kind == "judged"] == expected

    asyncio.run(test())


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"jsonrpc": "2.0", "id": None, "error": {"code": -32602, "message": "m"}}, -32602),
        ({"error": "invalid_token"}, -32000),
        ({"error": {"code": "x", "message": "m"}}, -32000),
        ([1], -32000),
        ("x" * (2 << 20), -32000),
    ],
    ids=["json-rpc", "oauth", "no-code", "list", "too-long"],
)
def test_only_a_json_rpc_error_in_a_refusal_is_passed_on(body: Any, code: int) -> None:
    async def test() -> None:
        async with watched("streamablehttp", lambda _: http.Response(400, json=body)) as (client, _, _):
            answer = json.loads((await post(client, call(7))).content)
            assert (answer["id"], answer["error"]["code"]) == (7, code)

    asyncio.run(test())


@pytest.mark.parametrize("code", [-32001, -32600, -32601, None])
def test_404_to_a_named_session_loses_it_and_is_left_to_the_sdk(code: int | None) -> None:
    body = {"jsonrpc": "2.0", "id": None, "error": {"code": code, "message": "m"}}

    async def test() -> None:
        async with watched(
            "streamablehttp", lambda _: http.Response(404, json=body) if code else http.Response(404)
        ) as (client, seen, _):
            response = await post(client, call(7), {"mcp-session-id": "s"})
            assert response.status_code == 404
            assert response.content == (json.dumps(body, separators=(",", ":")).encode() if code else b"")
            await seen.over.wait()
            assert seen.seen[0] == ("judged", verdict.LOST)

    asyncio.run(test())


def test_404_to_a_request_without_a_session_id_is_an_ordinary_refusal() -> None:
    async def test() -> None:
        async with watched("streamablehttp", lambda _: http.Response(404)) as (client, seen, _):
            assert "HTTP 404" in (await post(client, call(7))).json()["error"]["message"]
            await seen.over.wait()
            assert [kind for kind, _ in seen.seen] == ["over"]

    asyncio.run(test())


def test_a_request_that_cannot_be_sent_gets_an_error_answer_but_initialize_raises() -> None:
    def answer(_: Any) -> Any:
        raise http.ConnectError("no route for Bearer t0ken") from OSError(111, "refused, t0ken")

    async def test() -> None:
        async with watched("streamablehttp", answer) as (client, seen, _):
            error = json.loads((await post(client, call(7))).content)["error"]
            assert error["code"] == -32000
            assert "ConnectError: " in error["message"]
            assert "[Errno 111] refused" in error["message"]
            assert "t0ken" not in error["message"]
            assert ("judged", verdict.LOST) in seen.seen
            with pytest.raises(http.ConnectError):
                await post(client, call(0, "initialize"))

    asyncio.run(test())


@pytest.mark.parametrize(
    ("status", "expected"), [(401, []), (429, []), (404, [verdict.LOST]), (503, [verdict.FAILING])]
)
def test_over_sse_a_refused_message_fails_its_request_and_the_transport_goes_on(
    status: int, expected: list[verdict.Verdict]
) -> None:
    async def test() -> None:
        async with watched("sse", lambda _: http.Response(status)) as (client, seen, watch):
            response = await client.post(URL, json=call(7))
            response.raise_for_status()
            assert [said for kind, said in seen.seen if kind == "judged"] == expected
            ((request_id, error),) = [said for kind, said in seen.seen if kind == "refused"]
            assert (request_id, error["code"]) == (7, -32000)
            assert f"HTTP {status}" in error["message"]
            assert watch.failure is None
            (await client.post(URL, json=call(None, "notifications/cancelled"))).raise_for_status()

    asyncio.run(test())


def test_over_sse_a_message_that_cannot_be_sent_loses_the_session() -> None:
    def answer(_: Any) -> Any:
        raise http.ConnectError("x")

    async def test() -> None:
        async with watched("sse", answer) as (client, seen, _):
            with pytest.raises(http.ConnectError):
                await client.post(URL, json=call(7))
            assert seen.seen == [("judged", verdict.LOST)]

    asyncio.run(test())


def test_over_sse_a_shortage_of_this_machine_fails_the_handshake_at_once() -> None:
    """Raised, the SDK would only log it, and the handshake would wait until its time is up."""

    def answer(_: Any) -> Any:
        raise http.ConnectError("x") from OSError(errno.EMFILE, "Too many open files")

    async def test() -> None:
        async with watched("sse", answer) as (client, seen, watch):
            (await client.post(URL, json=call(0, "initialize"))).raise_for_status()
            [(kind, (request_id, error))] = seen.seen
            assert (kind, request_id) == ("refused", 0)
            assert "Too many open files" in error["message"]
            assert verdict.fault_of(watch.failure) is verdict.Fault.MACHINE

    asyncio.run(test())


@pytest.mark.parametrize("status", [400, 404, 405, 500])
def test_a_refused_notification_leaves_the_transport_alone(status: int) -> None:
    async def test() -> None:
        async with watched("streamablehttp", lambda _: http.Response(status)) as (client, seen, _):
            assert (await post(client, call(None, "notifications/initialized"))).status_code == 202
            assert seen.seen == ([("judged", verdict.FAILING)] if status == 500 else [])

    asyncio.run(test())


def test_the_callers_own_mistake_is_none_of_the_connection() -> None:
    def answer(_: Any) -> Any:
        raise http.LocalProtocolError("Illegal header value b'Bearer t0ken'")

    async def test() -> None:
        async with watched("streamablehttp", answer) as (client, seen, _):
            message = (await post(client, call(7))).json()["error"]["message"]
            assert "could not be sent" in message
            assert "t0ken" not in message
            await seen.over.wait()
            assert [kind for kind, _ in seen.seen] == ["over"]

    asyncio.run(test())


def test_a_refused_initialize_is_remembered() -> None:
    async def test() -> None:
        async with watched("streamablehttp", lambda _: http.Response(403)) as (client, _, watch):
            await post(client, call(0, "initialize"))
            assert str(watch.failure) == "HTTP 403 Forbidden from http://host/mcp"

    asyncio.run(test())


def test_what_is_no_json_rpc_post_passes_untouched() -> None:
    async def test() -> None:
        async with watched("sse", lambda _: http.Response(500)) as (client, seen, _):
            assert (await client.get("http://host/")).status_code == 500
            assert (await client.post("http://host/token", data={"a": "b"})).status_code == 500
            assert (await client.post("http://host/", content=b"[1, 2]")).status_code == 500
            assert seen.seen == []

    asyncio.run(test())


def test_authentication_sees_the_refusal_first_and_may_cure_it() -> None:
    class Auth(http.Auth):  # type: ignore[misc]
        def auth_flow(self, request: Any) -> Any:
            response = yield request
            if response.status_code == 401:
                request.headers["authorization"] = "fresh"
                yield request

    def answer(request: Any) -> Any:
        return http.Response(200 if "authorization" in request.headers else 401, json={"ok": True})

    async def test() -> None:
        async with watched("streamablehttp", answer, auth=Auth()) as (client, seen, _):
            assert (await post(client, call(7))).json() == {"ok": True}
            await seen.over.wait()
            assert [kind for kind, _ in seen.seen] == ["over"]

    asyncio.run(test())


def test_redirects_are_followed_as_the_client_is_told_to() -> None:
    def answer(request: Any) -> Any:
        if request.url.path == "/new":
            return http.Response(200, json={"ok": True})
        return http.Response(307, headers={"location": "/new"})

    async def test() -> None:
        async with watched("streamablehttp", answer, follow_redirects=True) as (client, _, _):
            assert (await post(client, call(7))).json() == {"ok": True}
        async with watched("streamablehttp", answer) as (client, _, _):
            assert (await post(client, call(7))).status_code == 307

    asyncio.run(test())


def test_a_redirect_over_sse_is_a_refusal_only_where_the_sdk_does_not_follow_it() -> None:
    """It follows within the origin, and asks the response to raise where it does not."""

    async def test() -> None:
        async with watched("sse", lambda _: http.Response(307, headers={"location": "/new"})) as (
            client,
            listener,
            watch,
        ):
            response = await post(client, call(7, "initialize"))
            assert response.next_request is not None
            assert listener.seen == []
            response.raise_for_status()
            assert [what for what, _ in listener.seen] == ["refused"]
            assert str(watch.failure) == "HTTP 307 Temporary Redirect from http://host/mcp"

    asyncio.run(test())


@pytest.mark.parametrize(
    ("response", "words"),
    [
        (lambda: http.Response(202), "202"),
        (
            lambda: http.Response(200, text="{}", headers={"content-type": "application/json"}),
            "not an answer",
        ),
        (lambda: http.Response(200, text="hi", headers={"content-type": "text/html"}), "text/html"),
        (
            lambda: http.Response(200, content=parts(b": x"), headers={"content-type": "text/event-stream"}),
            "event stream",
        ),
    ],
)
def test_the_end_of_a_requests_task_is_reported_with_what_was_seen(response: Any, words: str) -> None:
    async def test() -> None:
        async with watched("streamablehttp", lambda _: response()) as (client, seen, _):
            await post(client, call(7))
            await seen.over.wait()
            lost = [("judged", verdict.LOST)] if words == "event stream" else []
            *judged, (kind, (request_id, problem)) = seen.seen
            assert (judged, kind, request_id) == (lost, "over", 7)
            assert words in problem

    asyncio.run(test())


def test_a_stream_that_breaks_off_is_reported_so() -> None:
    class Broken(http.AsyncByteStream):  # type: ignore[misc]
        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield b"event: mess"
            raise http.ReadError("the rest")

    def answer(_: Any) -> Any:
        return http.Response(200, headers={"content-type": "text/event-stream"}, stream=Broken())

    async def test() -> None:
        async with watched("streamablehttp", answer) as (client, seen, _):
            with pytest.raises(http.ReadError):
                await post(client, call(7))
            await seen.over.wait()
            assert seen.seen == [
                ("judged", verdict.LOST),
                ("over", (7, "the server's answer broke off (ReadError: the rest)")),
            ]

    asyncio.run(test())


def test_a_detached_watch_reports_nothing_and_leaves_its_clients() -> None:
    async def test() -> None:
        async with watched("sse", lambda _: http.Response(500)) as (client, seen, watch):
            watch.detach()
            assert (await client.post("http://host/", json=call())).status_code == 500
            assert seen.seen == []

    asyncio.run(test())
