"""An OAuth 2.1 authorization server on 127.0.0.1, in a thread: it gives each grant a token of its own.
Standard library only.
"""

from __future__ import annotations

import base64
import json
import threading
import urllib.parse
from collections import Counter
from collections.abc import Mapping
from typing import Any

from .post_server import PostServer

EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"


class OAuthServer(PostServer):
    """A context manager.

    Tokens say what they were given for: ``client-N`` for client credentials, ``exchanged-N-SUBJECT`` for an
    exchange, ``granted-N-CODE`` for a code, where N counts all tokens.

    Attributes:
        grants: how many tokens were given, by grant type.
    """

    CONTENT_TYPE = "application/json"

    def __init__(self) -> None:
        super().__init__()
        self.grants: Counter[str] = Counter()
        self._lock = threading.Lock()

    def answer(self, content: bytes, headers: Mapping[str, str]) -> bytes:
        """See :meth:`PostServer.answer`."""
        return json.dumps(self._answer(dict(urllib.parse.parse_qsl(content.decode())))).encode()

    def config(self, grant_type: str, **more: object) -> dict[str, object]:
        """What a gateway needs to know of it: its ``oauth_config``."""
        return {
            "grant_type": grant_type,
            "client_id": "gateway",
            "client_secret": "not-a-secret",
            "token_url": f"{self.url}/token",
            "authorization_url": f"{self.url}/authorize",
            "redirect_uri": "http://127.0.0.1:1/oauth/callback",
            "scopes": ["tools"],
            **more,
        }

    def _answer(self, form: dict[str, str]) -> dict[str, Any]:
        grant = form.get("grant_type", "")
        with self._lock:
            self.grants[grant] += 1
            number = self.grants.total()
        token = f"client-{number}"
        if grant == EXCHANGE:
            token = f"exchanged-{number}-{_subject_of(form['subject_token'])}"
        elif grant == "authorization_code":
            token = f"granted-{number}-{form['code']}"
        return {
            "access_token": token,
            "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
            "token_type": "Bearer",
            "expires_in": 3600,
        }


def _subject_of(token: str) -> str:
    """The subject of a JSON web token, unverified."""
    payload = token.split(".")[1]
    return str(json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["sub"])
