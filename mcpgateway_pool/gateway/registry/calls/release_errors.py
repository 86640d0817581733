"""What the release tells its callers of a request that failed: on the SDK 2.x it names the HTTP response,
where the SDK has made up an error of its own, or what the HTTP client raised.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from mcpgateway_pool.upstream import sdk

_MODULE = "mcpgateway.utils.streamable_http_compat"
# In 1.1 and in 1.0.x; releases on the SDK 1.x have neither.
_TRANSLATIONS = ("to_transport_error", "to_http_status_error")


def grouped(error: Exception) -> ExceptionGroup[Exception]:
    """An error as it leaves the task groups of a session of the call's own."""
    return ExceptionGroup("unhandled errors in a TaskGroup", [error])


def _made_up() -> Exception:
    """What the SDK 2.x makes of a status."""
    error: Exception = importlib.import_module("mcp").MCPError(0, "")
    return error


class ReleaseErrors:
    """The release's translation of errors, for one session.

    Args:
        client: its HTTP client; None over SSE, where the release translates none.
    """

    def __init__(self, client: Any | None) -> None:
        self._hook: Any = None
        self._failure: Exception | None = None
        self._refusal: Exception | None = None
        self._translate: Callable[[Exception], Exception | None] | None = None
        if client is None:
            return
        try:
            make = importlib.import_module(_MODULE).ErrorResponseHook
        except (ImportError, AttributeError):
            return
        hook = make()
        found = (getattr(hook, name, None) for name in _TRANSLATIONS)
        self._translate = next((method for method in found if method is not None), None)
        if self._translate is not None:
            self._hook = hook.install(client)

    def begin(self) -> None:
        """A new request: nothing of an earlier one counts for it."""
        self._failure = None
        if self._hook is not None:
            self._hook.response = None

    def failed(self, failure: Exception) -> None:
        """The HTTP client raised this: on the SDK 2.x it ends a session of the call's own."""
        self._failure = failure

    def answered_stream(self, response: Any) -> None:
        """The answer to the GET that opens a session over SSE: the SDK raises where that is an error."""
        try:
            response.raise_for_status()
        except sdk.http_library().HTTPStatusError as error:
            self._refusal = error

    def of_opening(self, failure: Exception | None) -> Exception | None:
        """What would leave a session of the call's own that could not be opened; None: what the release says.

        Args:
            failure: the last POST of the handshake met it; None: it has met none.
        """
        if self._refusal is not None:
            return grouped(self._refusal)
        failure = failure or self._failure
        if sdk.generation() == 1 or failure is None:
            return None
        if isinstance(failure, sdk.http_library().HTTPStatusError):
            return None if self._translate is None else self._translate(_made_up())
        return grouped(failure)

    def of(self, error: Exception) -> Exception | None:
        """What would leave a session of the call's own instead; None: the error itself."""
        if self._translate is None:
            return None
        return self._translate(error) if self._failure is None else grouped(self._failure)
