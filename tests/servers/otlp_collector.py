"""A collector of OpenTelemetry traces on 127.0.0.1, in a thread; OTLP over HTTP, by opentelemetry-proto."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from .post_server import PostServer


@dataclass(frozen=True)
class Span:
    """One span; ids in hexadecimal, ``parent`` empty for a root."""

    name: str
    trace: str
    identifier: str
    parent: str
    attributes: dict[str, Any] = field(repr=False)


class OtlpCollector(PostServer):
    """A context manager.

    Attributes:
        spans: all that has arrived.
    """

    CONTENT_TYPE = "application/x-protobuf"

    def __init__(self) -> None:
        super().__init__()
        self.spans: list[Span] = []

    def answer(self, content: bytes, headers: Mapping[str, str]) -> bytes:
        """See :meth:`PostServer.answer`."""
        if headers.get("Content-Encoding") == "gzip":
            content = gzip.decompress(content)
        self.spans.extend(_spans_of(ExportTraceServiceRequest.FromString(content)))
        return b""

    @property
    def url(self) -> str:
        """Where traces go."""
        return f"{super().url}/v1/traces"


def _spans_of(request: Any) -> list[Span]:
    return [
        Span(
            span.name,
            span.trace_id.hex(),
            span.span_id.hex(),
            span.parent_span_id.hex(),
            {
                item.key: getattr(item.value, item.value.WhichOneof("value") or "string_value")
                for item in span.attributes
            },
        )
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
