"""The way in: what is replaced in the release's services, so that their calls come to the registry.

Each service asks a function of its module, under one name in all releases, for the downstream session id of
the call that it serves, and goes to the registry where it gets one. Ours answers for calls without one. Who
calls is an argument of the service's method; which gateway is called, a variable of the function that asks.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import logging
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import CodeType, FrameType, ModuleType
from typing import TYPE_CHECKING, Any

from . import machine_tokens
from .callers import caller_of, current

if TYPE_CHECKING:
    from .calls import Calls

_ASK = "_downstream_session_id_from_request"
_TRACED = "otel_context_active"
_SERVICES = "mcpgateway.services."
_REGISTRY = "mcpgateway.services.upstream_session_registry"


@dataclass(frozen=True, slots=True)
class Entrance:
    """One service.

    Attributes:
        service: its name in log lines and keys.
        module: has the function that is asked for the downstream session id.
        owner, method: the class and its method that serve a call.
        users: arguments of the method that say who calls.
        teams: the argument with the teams of the caller's token.
        gateway: the variable, where the question is asked, that has the id of the gateway.
        asks_trace: whether it also asks whether the call is traced, and goes its own way then.
    """

    service: str
    module: str
    owner: str
    method: str
    users: tuple[str, ...]
    teams: str
    gateway: str
    asks_trace: bool = False


@dataclass(frozen=True, slots=True)
class Signal:
    """A method of the release that is called when a gateway was changed, here or by another worker."""

    module: str
    owner: str
    method: str
    message: str | None = None


ENTRANCES = (
    Entrance(
        service="tools",
        module="tool_service",
        owner="ToolService",
        method="invoke_tool",
        users=("app_user_email", "user_email"),
        teams="token_teams",
        gateway="gateway_id_str",
        asks_trace=True,
    ),
    Entrance(
        service="resources",
        module="resource_service",
        owner="ResourceService",
        method="read_resource",
        users=("user",),
        teams="token_teams",
        gateway="gateway_id",
    ),
    Entrance(
        service="prompts",
        module="prompt_service",
        owner="PromptService",
        method="get_prompt",
        users=("user",),
        teams="token_teams",
        gateway="gateway_id",
    ),
    Entrance(
        service="completion",
        module="completion_service",
        owner="CompletionService",
        method="handle_completion",
        users=("user_email",),
        teams="token_teams",
        gateway="gateway_id",
    ),
)

SIGNALS = (
    Signal("mcpgateway.cache.registry_cache", "RegistryCache", "invalidate_gateways"),
    Signal(
        "mcpgateway.cache.registry_cache",
        "CacheInvalidationSubscriber",
        "_process_invalidation",
        "registry:gateways",
    ),
)

# Gets the tokens that stand for the release itself: module, class and method.
_TOKENS = ("mcpgateway.services.oauth_manager", "OAuthManager", "get_access_token")

# What was replaced: (where, name, what was there), in the order in which it was.
_replaced: list[tuple[Any, str, Any]] = []


def open_entrances(log: logging.Logger) -> tuple[str, ...]:
    """Replace what the tables say; twice is harmless. Services that are not loaded stay as they are.

    Returns:
        The services whose calls come here now.
    """
    if _replaced:
        close_entrances()
    services = []
    for entrance in ENTRANCES:
        module = sys.modules.get(_SERVICES + entrance.module)
        if module is None:
            continue
        missing = _missing(entrance, module)
        if missing is None:
            _open(entrance, module)
            services.append(entrance.service)
        else:
            log.info(
                "mcpgateway-pool: calls of %s without a downstream session go the gateway's own way: this"
                " release has no %s",
                entrance.service,
                missing,
            )
    if services:
        for signal in SIGNALS:
            owner = _found(signal.module, signal.owner)
            method = getattr(owner, signal.method, None)
            if method is not None:
                _replace(owner, signal.method, _signalling(method, signal.message))
        where, name, get_token = _TOKENS
        manager = _found(where, name)
        if hasattr(manager, get_token):
            _replace(manager, get_token, machine_tokens.noting_token(getattr(manager, get_token)))
    return tuple(services)


def close_entrances() -> None:
    """Put back what was there; harmless where nothing was replaced."""
    while _replaced:
        where, name, value = _replaced.pop()
        setattr(where, name, value)


def _found(module: str, name: str) -> Any:
    """A class of the release, which may not have used it yet; None where it has none."""
    try:
        return getattr(importlib.import_module(module), name, None)
    except ImportError:
        return None


def _replace(where: Any, name: str, value: Any) -> None:
    _replaced.append((where, name, getattr(where, name)))
    setattr(where, name, value)


def _missing(entrance: Entrance, module: ModuleType) -> str | None:
    """The first thing that the release does not have; None: it has all."""
    owner = getattr(module, entrance.owner, None)
    method = getattr(owner, entrance.method, None)
    if method is None:
        return f"{entrance.owner}.{entrance.method}"
    for name in (_ASK, _TRACED) if entrance.asks_trace else (_ASK,):
        if not callable(getattr(module, name, None)):
            return f"{entrance.module}.{name}"
    parameters = inspect.signature(method).parameters
    for name in (*entrance.users, entrance.teams):
        if name not in parameters:
            return f"argument {name} of {entrance.owner}.{entrance.method}"
    asking = [
        code
        for function in vars(owner).values()
        for code in _codes(
            getattr(inspect.unwrap(function), "__code__", None) if callable(function) else None
        )
        if _ASK in code.co_names
    ]
    if not asking or any(
        entrance.gateway not in (*code.co_varnames, *code.co_cellvars, *code.co_freevars) for code in asking
    ):
        return f"variable {entrance.gateway} where {_ASK} is asked"
    return None


def _codes(code: CodeType | None) -> Iterator[CodeType]:
    """A function's code, and that of the functions inside it."""
    if code is None:
        return
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _open(entrance: Entrance, module: ModuleType) -> None:
    owner = getattr(module, entrance.owner)
    stock_ask = getattr(module, _ASK)

    def ask() -> Any:
        downstream = stock_ask()
        calls = None if downstream else _calls()
        if calls is None:
            return downstream
        return calls.admit(current.get(), _gateway_of(entrance, sys._getframe(1)))

    if entrance.asks_trace:
        stock_traced = getattr(module, _TRACED)

        def traced() -> bool:
            """A traced call that is pooled gets its span and its headers from its lease."""
            calls = _calls() if stock_traced() else None
            if calls is None or stock_ask():
                return bool(stock_traced())
            return calls.refusal(current.get(), _gateway_of(entrance, sys._getframe(1))) is not None

        _replace(module, _TRACED, traced)
    _replace(module, _ASK, ask)
    _replace(owner, entrance.method, _noting_caller(entrance, getattr(owner, entrance.method)))


def _gateway_of(entrance: Entrance, frame: FrameType) -> str:
    return str(frame.f_locals.get(entrance.gateway) or "")


def _noting_caller(entrance: Entrance, method: Callable[..., Any]) -> Callable[..., Any]:
    names = tuple(inspect.signature(method).parameters)

    @functools.wraps(method)
    async def noting(*args: Any, **kwargs: Any) -> Any:
        arguments = {**dict(zip(names, args, strict=False)), **kwargs}
        token = current.set(caller_of(entrance.service, arguments, entrance.users, entrance.teams))
        machine_token = machine_tokens.of_call.set(None)
        try:
            return await method(*args, **kwargs)
        finally:
            machine_tokens.of_call.reset(machine_token)
            current.reset(token)

    return noting


def _signalling(method: Callable[..., Any], message: str | None) -> Callable[..., Any]:
    @functools.wraps(method)
    async def signalling(*args: Any, **kwargs: Any) -> Any:
        result = await method(*args, **kwargs)
        calls = _calls()
        if calls is not None and (message is None or message in args or message in kwargs.values()):
            calls.notice_change()
        return result

    return signalling


def _calls() -> Calls | None:
    """Those of the registry that runs; None where it is not ours."""
    registry = getattr(sys.modules.get(_REGISTRY), "_registry", None)
    return getattr(registry, "_calls", None)
