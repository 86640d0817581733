"""Calls without a downstream session: which are pooled, and the session that one gets."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from types import ModuleType
from typing import TYPE_CHECKING, Any

from mcpgateway_pool import _core
from mcpgateway_pool.gateway.calls_without_session import VARIABLE, Reason
from mcpgateway_pool.gateway.registry.registry_pool import BY_GATEWAY
from mcpgateway_pool.gateway.settings import GatewaySettings
from mcpgateway_pool.labels import gateway_label
from mcpgateway_pool.redact import safe_error, safe_text

from . import machine_tokens
from .call_lease import CallLease
from .call_pool import CallPool
from .callers import ANONYMOUS, Caller, CallWithoutSession, is_authentication_on, known_users
from .gateways import ExceptedGateways, GatewayChanges, read_unmatched
from .keys import key_of, names_identity, split_headers

if TYPE_CHECKING:
    from mcpgateway_pool.gateway.registry.upstream_registry import UpstreamSessionRegistry
    from mcpgateway_pool.pool.session_context import AcquireArguments


class Calls:
    """What one registry does for calls without a downstream session.

    Args:
        registry: whose settings and factory the sessions have.
        release: the release's module.
        settings: what the environment says.
    """

    def __init__(
        self, registry: UpstreamSessionRegistry, release: ModuleType, settings: GatewaySettings
    ) -> None:
        self.policy = settings.calls_without_session
        self.pool = CallPool(registry, release, settings)
        self._log: logging.Logger = release.logger
        self._call_headers = settings.call_headers
        self._excepted = ExceptedGateways(self.policy.excepted)
        self._changes = GatewayChanges(self.pool.gateways, self._lose)
        self.pool.on_opened = self._changes.opened
        self._has_warned = False
        self._looking: asyncio.Task[None] | None = None

    def refusal(self, caller: Caller | None, gateway_id: str) -> Reason | None:
        """Why a call is not pooled; None: it is."""
        if not self.policy.are_pooled:
            return "switched_off"
        if self._excepted.has(gateway_id):
            return "excepted"
        if caller is None or (not caller.users and is_authentication_on()):
            return "no_user"
        return None

    def admit(self, caller: Caller | None, gateway_id: str) -> CallWithoutSession | None:
        """What stands for the call's downstream session id; None, and counted, where the call is to go the
        release's own way.
        """
        if self.policy.excepted and self._looking is None:
            self._looking = asyncio.get_running_loop().create_task(
                self._warn_of_unmatched(), context=contextvars.Context()
            )
        reason = self.refusal(caller, gateway_id)
        if reason is not None or caller is None:
            _core.count_unpooled(gateway_label(gateway_id), reason or "no_user")
            return None
        users = known_users(caller)
        if not users:
            users = (ANONYMOUS,)
            if not self._has_warned:
                self._has_warned = True
                self._log.warning(
                    "mcpgateway-pool: authentication is off (AUTH_REQUIRED=false), so that all callers share"
                    " sessions with the servers"
                )
        return CallWithoutSession(Caller(caller.service, users, caller.teams))

    async def _warn_of_unmatched(self) -> None:
        """Once: a name that means no gateway is more likely a mistake, and its calls share sessions."""
        try:
            unmatched = await asyncio.to_thread(read_unmatched, self.policy.excepted)
        except Exception as error:  # the database does not answer
            self._log.debug("mcpgateway-pool: the list of gateways was not read: %s", safe_error(error))
            return
        if unmatched:
            self._log.warning(
                "mcpgateway-pool: %s names what is no gateway's id or name: %s",
                VARIABLE,
                ", ".join(safe_text(name, 60) for name in unmatched),
            )

    def lease(self, call: CallWithoutSession, arguments: AcquireArguments) -> CallLease:
        """The use of a session by one call.

        Args:
            call: from :meth:`admit`.
            arguments: of the registry's ``acquire()``.
        """
        caller = call.caller
        pinned, own = split_headers(arguments.headers, self._call_headers)
        compared = pinned
        client = machine_tokens.client_of(pinned)
        if client is not None:
            # The session keeps the token of the call that opens it for what happens between calls.
            name, described = client
            own[name] = pinned[name]
            compared = {**pinned, name: described}
        key = key_of(caller, compared, arguments.httpx_client_factory)
        return CallLease(
            self.pool,
            arguments._replace(headers=pinned, user_identity=key),
            (caller.users, arguments.gateway_id),
            own,
            is_anonymous=caller.is_anonymous and not names_identity(pinned),
        )

    def notice_change(self) -> None:
        """The release says that a gateway was changed, here or by another worker."""
        self._excepted.forget()
        self._changes.notice()

    async def evict_gateway(self, gateway_id: str) -> int:
        """Close every session to a gateway; see the registry's."""
        self._excepted.forget()
        self._changes.forget(gateway_id)
        return await self.pool.evict(BY_GATEWAY, gateway_id)

    async def close(self, timeout: float) -> None:
        """Close every session; see the registry's ``close_all()``."""
        await asyncio.gather(self._changes.end(), self.pool.close_generation(timeout))

    async def _lose(self, gateway_id: str) -> None:
        self._log.info("mcpgateway-pool: gateway %s was changed: its sessions are closed", gateway_id)
        await self.pool.evict(BY_GATEWAY, gateway_id)

    def totals(self) -> dict[str, Any]:
        """The pool's counts since it was made."""
        return self.pool.totals()
