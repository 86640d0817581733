"""What the release tells its callers of a request that failed: on the SDK 2.x it names the HTTP response,
where the SDK has made up an error of its own.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

_MODULE = "mcpgateway.utils.streamable_http_compat"
# In 1.1 and in 1.0.x; releases on the SDK 1.x have neither.
_TRANSLATIONS = ("to_transport_error", "to_http_status_error")


class ReleaseErrors:
    """The release's translation of errors, for one HTTP client.

    Args:
        client: the HTTP client.
    """

    def __init__(self, client: Any) -> None:
        self._hook: Any = None
        self._translate: Callable[[Exception], Exception | None] | None = None
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
        if self._hook is not None:
            self._hook.response = None

    def of(self, error: Exception) -> Exception | None:
        """What the release would raise instead; None: the error itself."""
        return None if self._translate is None else self._translate(error)
