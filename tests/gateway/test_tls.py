"""Sessions of the gateway share a TLS context, and verify exactly as they would without."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from textwrap import dedent
from types import ModuleType, SimpleNamespace
from typing import Any

import httpx
import pytest
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamablehttp_client
from mcpgateway.config import settings
from mcpgateway.services import http_client_service
from mcpgateway.utils.ssl_context_cache import get_cached_ssl_context

from mcpgateway_pool.gateway import tls, uninstall
from mcpgateway_pool.upstream import http_client
from servers.process import ServerProcess
from support.certificates import Authority
from support.gateway_process import SWITCH, GatewayProcess, failures

Factory = Callable[..., httpx.AsyncClient]
NATIVE = SimpleNamespace(sse_client=sse_client, streamablehttp_client=streamablehttp_client)
VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "SSLKEYLOGFILE")


@pytest.fixture(autouse=True)
def _as_if_nothing_was_shared_yet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    http_client.drop_tls_contexts()
    yield
    tls.restore()
    http_client.drop_tls_contexts()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def gateway_factory(custom: ssl.SSLContext | None = None) -> Factory:
    """A client factory as the gateway's services make them."""

    def factory(
        headers: dict[str, str] | None = None,
        timeout: httpx.Timeout | None = None,
        auth: httpx.Auth | None = None,
    ) -> httpx.AsyncClient:
        from mcpgateway.services.http_client_service import get_default_verify

        return httpx.AsyncClient(
            verify=custom or get_default_verify(),
            follow_redirects=True,
            headers=headers,
            timeout=timeout or 10.0,
            auth=auth,
        )

    return factory


def shared(factory: Factory | None = None) -> Factory:
    return tls.sharing(factory or gateway_factory(), "streamablehttp", NATIVE)


def context_of(client: httpx.AsyncClient) -> ssl.SSLContext:
    context = client._transport._pool._ssl_context  # type: ignore[attr-defined]
    assert isinstance(context, ssl.SSLContext)
    return context


def described(context: ssl.SSLContext) -> dict[str, Any]:
    """Whatever of a context decides whom it trusts and how it speaks."""
    return {
        "verify_mode": context.verify_mode,
        "check_hostname": context.check_hostname,
        "verify_flags": context.verify_flags,
        "minimum": context.minimum_version,
        "maximum": context.maximum_version,
        "options": context.options,
        "security_level": context.security_level,
        "ciphers": context.get_ciphers(),
        "store": context.cert_store_stats(),
        "authorities": sorted(context.get_ca_certs(binary_form=True)),
        "common_name": context.hostname_checks_common_name,
        "keylog": context.keylog_filename,
        "protocol": context.protocol,
    }


@contextlib.asynccontextmanager
async def https_server(context: ssl.SSLContext) -> AsyncIterator[str]:
    """A server that answers 200; its URL."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok")
            await writer.drain()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    async with server:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/"


async def outcome(factory: Factory, url: str) -> str:
    """What a request becomes: ``ok``, or OpenSSL's reason to refuse the server."""
    async with factory() as client:
        try:
            return (await client.get(url)).text
        except httpx.ConnectError as error:
            return str(error)


# ---- exactly the same


@pytest.mark.parametrize(
    "variable",
    [None, "SSL_CERT_FILE", "SSL_CERT_DIR", "SSLKEYLOGFILE"],
)
def test_the_shared_context_equals_the_one_that_the_library_builds(
    variable: str | None, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {
        "SSL_CERT_FILE": str(authority.path),
        "SSL_CERT_DIR": str(tmp_path),
        "SSLKEYLOGFILE": str(tmp_path / "keys.log"),
    }
    if variable is not None:
        monkeypatch.setenv(variable, values[variable])
    ours, theirs = context_of(shared()()), context_of(gateway_factory()())
    assert ours is not theirs
    assert described(ours) == described(theirs)
    assert ours.verify_mode is ssl.CERT_REQUIRED
    assert ours.check_hostname
    if variable is None:
        assert len(ours.get_ca_certs()) > 50


async def test_servers_are_accepted_and_refused_for_the_same_reasons(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stranger = Authority(tmp_path, "stranger")
    cases = {
        "good": authority.server_context(),
        "of another authority": stranger.server_context(),
        "for another host": authority.server_context(address="127.0.0.2"),
        "expired": authority.server_context(days=-1),
    }
    for name, server_context in cases.items():
        async with https_server(server_context) as url:
            outcomes = []
            for trusted in (None, str(authority.path)):
                if trusted is None:
                    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
                else:
                    monkeypatch.setenv("SSL_CERT_FILE", trusted)
                ours = await outcome(shared(), url)
                assert ours == await outcome(gateway_factory(), url)
                outcomes.append(ours)
        assert outcomes[0] != "ok", name
        assert (outcomes[1] == "ok") is (name == "good"), (name, outcomes)
        assert name == "good" or "CERTIFICATE_VERIFY_FAILED" in outcomes[1]


# ---- shared, and for how long


def test_clients_of_all_factories_share_one_context_until_the_drain() -> None:
    first = context_of(shared()())
    assert context_of(shared()()) is first
    http_client.drop_tls_contexts()
    assert context_of(shared()()) is not first


def test_a_certificate_file_that_was_replaced_is_read_again(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "trusted.pem"
    path.write_text(authority.pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    first = context_of(shared()())
    assert context_of(shared()()) is first
    path.write_text(authority.pem + Authority(tmp_path, "second").pem)
    assert len(context_of(shared()()).get_ca_certs()) == 2
    path.unlink()
    for factory in (gateway_factory(), shared()):
        with pytest.raises(FileNotFoundError):
            factory()


def test_variables_that_come_and_go_are_followed(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = described(context_of(shared()()))
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.path))
    assert len(context_of(shared()()).get_ca_certs()) == 1
    monkeypatch.delenv("SSL_CERT_FILE")
    assert described(context_of(shared()())) == usual


# ---- what stays as it is


def test_a_custom_authority_stays_the_only_one_that_decides(authority: Authority) -> None:
    custom = get_cached_ssl_context(authority.pem)
    assert context_of(shared(gateway_factory(custom))()) is custom
    assert context_of(shared()()) is not custom


def test_skip_ssl_verify_is_obeyed_at_once_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    verified = context_of(shared()())
    monkeypatch.setattr(settings, "skip_ssl_verify", True)
    first, second = context_of(shared()()), context_of(shared()())
    assert first.verify_mode is ssl.CERT_NONE
    assert first is not second
    monkeypatch.setattr(settings, "skip_ssl_verify", False)
    assert context_of(shared()()) is verified
    assert verified.verify_mode is ssl.CERT_REQUIRED


def test_clients_outside_of_the_pool_get_the_gateways_own_answer() -> None:
    context = context_of(shared()())
    assert http_client_service.get_default_verify() is True
    assert context_of(gateway_factory()()) is not context


def test_a_factory_that_fails_leaves_no_sharing_behind() -> None:
    def failing(**_options: object) -> httpx.AsyncClient:
        raise OSError("the caller's own")

    with pytest.raises(OSError, match="the caller's own"):
        shared(failing)()
    assert http_client_service.get_default_verify() is True


@pytest.mark.parametrize("give_back", [tls.restore, uninstall])
def test_modules_that_imported_the_function_early_are_reached_and_given_it_back(
    monkeypatch: pytest.MonkeyPatch, give_back: Callable[[], None]
) -> None:
    original = http_client_service.get_default_verify
    early = ModuleType("mcpgateway.early")
    early.get_default_verify = original  # type: ignore[attr-defined]
    other = ModuleType("another.package")
    other.get_default_verify = original  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mcpgateway.early", early)
    monkeypatch.setitem(sys.modules, "another.package", other)

    def factory(**_options: object) -> httpx.AsyncClient:
        return httpx.AsyncClient(verify=early.get_default_verify())

    assert context_of(shared(factory)()) is context_of(shared()())
    assert other.get_default_verify is original
    give_back()
    assert early.get_default_verify is original
    assert http_client_service.get_default_verify is original


@pytest.mark.parametrize("transport", ["sse", "streamablehttp"])
def test_a_transport_that_was_replaced_gets_the_callers_own_factory(transport: Any) -> None:
    factory = gateway_factory()
    replaced = SimpleNamespace(sse_client=object(), streamablehttp_client=object())
    assert tls.sharing(factory, transport, replaced) is factory
    assert tls.sharing(factory, transport, NATIVE) is not factory


# ---- in the real gateway

COUNTING = """
    import os, ssl

    _build = ssl.create_default_context

    def create_default_context(*arguments, **options):
        with open(os.environ["CONTEXTS_BUILT"], "a") as file:
            file.write("built\\n")
        return _build(*arguments, **options)

    ssl.create_default_context = create_default_context
"""


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "is_on",
    [True, pytest.param(False, marks=pytest.mark.long("boots a gateway to show what it does without us"))],
)
def test_the_gateways_sessions_build_one_context_or_one_each(is_on: bool, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(dedent(COUNTING))
    built = tmp_path / "built"
    environment = {
        **SWITCH,
        "PYTHONPATH": str(tmp_path),
        "CONTEXTS_BUILT": str(built),
        "MCPGATEWAY_POOL_SHARED_TLS": str(is_on).lower(),
        "HEALTH_CHECK_INTERVAL": "3600",  # the gateway's own checks make clients, too
    }
    with (
        ServerProcess() as server,
        GatewayProcess(tmp_path / "gateway", environment=environment) as gateway,
    ):
        gateway.register("server", server.url)
        built.write_text("")
        answers = gateway.call_many(8, 4, "server", "slow", seconds=2.0)
        assert failures(answers) == []
        sessions = gateway.sum("mcp_session_pool_creates_total")
        assert 2 <= sessions <= 4
        assert len(built.read_text().splitlines()) == (1 if is_on else sessions)
