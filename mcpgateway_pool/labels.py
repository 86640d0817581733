"""From a gateway id, which may be any string, to the value of the label ``gateway_id``.

A label must be text that every parser of the exposition formats reads back, and bounded. An id that is such
text is its own label. Any other is cleaned and cut, and gets a digest of the whole id, so that two ids never
share a label by accident.
"""

from __future__ import annotations

import hashlib

NO_GATEWAY = "none"
MAX_LABEL_BYTES = 256

_DIGEST_CHARS = 16


def gateway_label(gateway_id: str | None) -> str:
    """The value of the label ``gateway_id``.

    Args:
        gateway_id: as passed to ``acquire()``; None and ``""`` stand for no gateway.

    Returns:
        At most 256 bytes of UTF-8 without NUL or lone surrogates; ``"none"`` for no gateway.
    """
    if not gateway_id:
        return NO_GATEWAY
    if len(gateway_id) <= MAX_LABEL_BYTES and gateway_id.isascii() and "\0" not in gateway_id:
        return gateway_id
    raw = gateway_id.encode("utf-8", "surrogatepass")
    clean = gateway_id[:MAX_LABEL_BYTES].encode("utf-8", "replace").replace(b"\0", b"?")
    if len(raw) <= MAX_LABEL_BYTES and clean == raw:
        return gateway_id
    digest = hashlib.sha256(raw).hexdigest()[:_DIGEST_CHARS]
    head = clean[: MAX_LABEL_BYTES - _DIGEST_CHARS - 1].decode("utf-8", "ignore")
    return f"{head}~{digest}"
