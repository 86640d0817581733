"""A URL that a library will refuse is refused before it gets there: their messages quote what is wrong."""

from __future__ import annotations

import pytest

from mcpgateway_pool.upstream import sdk
from mcpgateway_pool.upstream.http_client import check_url

PASSWORD = "hunter2"


@pytest.mark.parametrize(
    "url",
    [
        # Refused by the HTTP library.
        "http://a@[::1]b/",
        "http://h/\x00",
        # Refused by urllib.parse, which the SDK uses over SSE.
        "http://h:99999/mcp",
        "http://h:-1/mcp",
        "http://h]/mcp",
        f"http://ann:{PASSWORD}@h:65536/mcp",
        f"http://ann:{PASSWORD}]@h/mcp",
        f"http://ann:[{PASSWORD}@h/mcp?t={PASSWORD}",
        # By both.
        "http://[::1/mcp",
        f"http://ann:{PASSWORD}/x@h/mcp",
    ],
)
def test_url_that_one_of_the_libraries_refuses_is_refused_without_its_secrets(url: str) -> None:
    with pytest.raises(sdk.http_library().InvalidURL, match="not a valid URL") as caught:
        check_url(url)
    assert PASSWORD not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    "url", ["http://h/mcp", "https://h:65535/mcp", "http://h:/mcp", "http://[::1]:80/mcp", "http://ann:p@h/"]
)
def test_url_that_both_understand_is_not_refused(url: str) -> None:
    check_url(url)
