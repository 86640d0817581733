"""The identity that a user's own function makes of the headers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mcpgateway_pool.redact import safe_error

if TYPE_CHECKING:
    from .protocol import Pool


def extract(pool: Pool, headers: dict[str, str]) -> str | None:
    """What the pool's identity extractor says; None when the headers are to decide."""
    extractor = pool._settings.identity_extractor
    assert extractor is not None
    try:
        identity = extractor(headers)
    except Exception as error:
        pool._warn_once("the identity extractor failed, the headers decide: %s", safe_error(error))
        return None
    if not isinstance(identity, str):
        pool._warn_once("the identity extractor returned no str, the headers decide")
        return None
    return identity
