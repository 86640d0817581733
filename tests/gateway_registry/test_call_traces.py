"""A whole gateway that is traced by the OpenTelemetry SDK: its calls are pooled all the same."""

from __future__ import annotations

import json
import secrets
from pathlib import Path

import pytest

from servers.otlp_collector import OtlpCollector
from servers.process import ServerProcess
from servers.waiting import wait_until
from support.gateway_process import SWITCH
from support.gateway_users import ANN, AUTHENTICATED, AuthenticatingGateway, as_user
from support.registered import registering

pytestmark = pytest.mark.long("another boot: the OpenTelemetry SDK; spans and headers have unit tests")


def test_traced_calls_are_pooled_with_a_span_and_headers_of_their_own(tmp_path: Path) -> None:
    with OtlpCollector() as collector:
        settings = {
            **SWITCH,
            **AUTHENTICATED,
            "MCP_CLIENT_CONNECT_MODE": "legacy",
            "HEALTH_CHECK_INTERVAL": "3600",
            "OTEL_ENABLE_OBSERVABILITY": "true",
            "OTEL_TRACES_EXPORTER": "otlp",
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http",
            "OTEL_BSP_SCHEDULE_DELAY": "100",
            "OTEL_BAGGAGE_ENABLED": "true",
            "OTEL_BAGGAGE_PROPAGATE_TO_EXTERNAL": "true",
            "OTEL_BAGGAGE_HEADER_MAPPINGS": '[{"header_name": "X-Tenant", "baggage_key": "tenant"}]',
        }
        with (
            AuthenticatingGateway(tmp_path, environment=settings) as gateway,
            ServerProcess() as server,
            registering(gateway, server) as registered,
        ):
            gateway.add_user(ANN)
            traces = [secrets.token_hex(16) for _ in range(4)]
            seen = []
            for number, trace in enumerate(traces):
                sent = {"traceparent": f"00-{trace}-{secrets.token_hex(8)}-01"}
                if number % 2:
                    sent["X-Tenant"] = f"tenant-{number}"
                answer = gateway.call(registered.name, "whoami", as_user(ANN, **sent))
                seen.append(json.loads(answer.text))

            assert len({call["session"] for call in seen}) == 1
            assert registered.count("hits_total") == 3
            assert registered.count("unpooled_calls_total") == 0
            parents = [call["headers"]["traceparent"].split("-") for call in seen]
            assert [parent[1] for parent in parents] == traces
            baggage = [call["headers"].get("baggage") for call in seen]
            assert baggage == [None, "tenant=tenant-1", None, "tenant=tenant-3"]

            def own_spans() -> dict[str, str]:
                return {
                    span.trace: span.identifier
                    for span in list(collector.spans)
                    if span.name == "mcp.client.call" and span.attributes.get("mcpgateway_pool.pooled")
                }

            wait_until(lambda: own_spans().keys() >= set(traces), 60)
            # The server can hang spans beneath that of the call, and this hangs beneath the gateway's.
            assert [own_spans()[trace] for trace in traces] == [parent[2] for parent in parents]
            names = {span.identifier: span.name for span in list(collector.spans)}
            calls = [span for span in list(collector.spans) if span.identifier in own_spans().values()]
            assert all(names.get(span.parent) for span in calls), "each hangs beneath a span of the gateway's"
