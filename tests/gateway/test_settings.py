"""The settings of our own that an operator gives by environment variables."""

from __future__ import annotations

from dataclasses import fields

import pytest

from mcpgateway_pool import NetworkSettings
from mcpgateway_pool.cli.fetch import TOKEN_VARIABLE
from mcpgateway_pool.gateway import settings
from mcpgateway_pool.prometheus.shared_counters import DIRECTORY_VARIABLES


def test_nothing_set_means_the_defaults() -> None:
    assert settings.read_all({}) == settings.GatewaySettings(
        enabled=False,
        isolation="identity",
        max_waiters=0,
        max_total_sessions=0,
        max_total_keys=0,
        shared_tls=True,
        gateway_names=True,
    )
    assert settings.read_all({}).of_pool() == {}


def test_an_empty_variable_counts_as_not_set() -> None:
    assert settings.read_all({"MCPGATEWAY_POOL_SHARED_TLS": "", "MCPGATEWAY_POOL_MAX_WAITERS": " "}) == (
        settings.GatewaySettings()
    )


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *[(text, True) for text in ("true", "True", " 1 ", "yes", "ON")],
        *[(text, False) for text in ("false", "0", "No", "off")],
    ],
)
def test_booleans(text: str, value: bool) -> None:
    assert settings.read("shared_tls", {"MCPGATEWAY_POOL_SHARED_TLS": text}) is value
    assert settings.read("enabled", {"MCPGATEWAY_POOL_ENABLED": text}) is value


def test_what_differs_from_the_defaults_goes_to_the_pool() -> None:
    environ = {
        "MCPGATEWAY_POOL_ISOLATION": "Session",
        "MCPGATEWAY_POOL_MAX_WAITERS": "100",
        "MCPGATEWAY_POOL_MAX_TOTAL_SESSIONS": "200",
        "MCPGATEWAY_POOL_MAX_TOTAL_KEYS": "0",
        "MCPGATEWAY_POOL_MIN_IDLE": "2",
        "MCPGATEWAY_POOL_REPLACE_SESSIONS": "off",
        "MCPGATEWAY_POOL_LEAK_DETECTION_SECONDS": "2.5",
    }
    assert settings.read_all(environ).of_pool() == {
        "isolation": "session",
        "max_waiters": 100,
        "max_total_sessions": 200,
        "min_idle": 2,
        "replace_sessions": False,
        "leak_detection_seconds": 2.5,
    }


def test_no_more_can_be_kept_ready_for_a_key_than_it_may_have() -> None:
    given = settings.read_all({"MCPGATEWAY_POOL_MIN_IDLE": "3"})
    given.check_min_idle(3, "LIMIT")
    with pytest.raises(settings.SettingError, match="MIN_IDLE must be at most LIMIT, which is 2, not 3"):
        given.check_min_idle(2, "LIMIT")


def test_the_settings_of_the_network_go_to_the_pool_together() -> None:
    environ = {
        "MCPGATEWAY_POOL_CONNECT_TIMEOUT_SECONDS": "3",
        "MCPGATEWAY_POOL_TCP_KEEPALIVE_IDLE_SECONDS": "0",
        "MCPGATEWAY_POOL_TCP_KEEPALIVE_INTERVAL_SECONDS": "2.5",
        "MCPGATEWAY_POOL_TCP_KEEPALIVE_PROBES": "9",
        "MCPGATEWAY_POOL_TCP_USER_TIMEOUT_SECONDS": "60",
        "MCPGATEWAY_POOL_IDLE_CONNECTION_SECONDS": "0",
    }
    network = NetworkSettings(
        connect_timeout_seconds=3,
        tcp_keepalive_idle_seconds=0,
        tcp_keepalive_interval_seconds=2.5,
        tcp_keepalive_probes=9,
        tcp_user_timeout_seconds=60,
        idle_connection_seconds=0,
    )
    assert settings.read_all(environ).of_pool() == {"network": network}


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("enabled", "maybe", "MCPGATEWAY_POOL_ENABLED must be true or false, not 'maybe'"),
        ("isolation", "user", "MCPGATEWAY_POOL_ISOLATION must be 'identity' or 'session', not 'user'"),
        ("max_waiters", "many", "MCPGATEWAY_POOL_MAX_WAITERS must be a whole number, 0 for unlimited"),
        ("max_total_keys", "-1", "MCPGATEWAY_POOL_MAX_TOTAL_KEYS must be a whole number"),
        ("connect_timeout_seconds", "0", "MCPGATEWAY_POOL_CONNECT_TIMEOUT_SECONDS must be more than 0"),
        ("tcp_keepalive_probes", "0", "MCPGATEWAY_POOL_TCP_KEEPALIVE_PROBES must be at least 1"),
        ("idle_connection_seconds", "-1", "MCPGATEWAY_POOL_IDLE_CONNECTION_SECONDS must be a number of"),
        ("min_idle", "-1", "MCPGATEWAY_POOL_MIN_IDLE must be a whole number"),
        ("replace_sessions", "often", "MCPGATEWAY_POOL_REPLACE_SESSIONS must be true or false"),
        ("leak_detection_seconds", "nan", "MCPGATEWAY_POOL_LEAK_DETECTION_SECONDS must be a number of"),
        ("max_total_sessions", "9" * 20, "MCPGATEWAY_POOL_MAX_TOTAL_SESSIONS must be a whole number"),
    ],
)
def test_a_bad_value_names_its_variable_and_what_it_can_be(name: str, text: str, expected: str) -> None:
    with pytest.raises(settings.SettingError) as caught:
        settings.read_all({settings.variable_of(name): text})
    assert expected in str(caught.value)


def test_all_bad_values_are_named_at_once() -> None:
    environ = {
        "MCPGATEWAY_POOL_ISOLATION": "user",
        "MCPGATEWAY_POOL_MAX_WAITERS": "3",
        "MCPGATEWAY_POOL_MAX_TOTAL_KEYS": "-1",
        "MCPGATEWAY_POOL_CONCURRENCY": "both",
    }
    with pytest.raises(settings.SettingError) as caught:
        settings.read_all(environ)
    named = [problem.partition(" ")[0] for problem in caught.value.problems]
    assert named == [
        "MCPGATEWAY_POOL_ISOLATION",
        "MCPGATEWAY_POOL_MAX_TOTAL_KEYS",
        "MCPGATEWAY_POOL_CONCURRENCY",
    ]
    assert str(caught.value) == "; ".join(caught.value.problems)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("MCPGATEWAY_POOL_ENABLE", "MCPGATEWAY_POOL_ENABLED"),
        ("MCP_GATEWAY_POOL_ENABLED", "MCPGATEWAY_POOL_ENABLED"),
        ("mcpgateway_pool_enabled", "MCPGATEWAY_POOL_ENABLED"),
        ("MCPGATEWAY_POOL_CALLS_WITHOUT_SESSIONS", "MCPGATEWAY_POOL_CALLS_WITHOUT_SESSION"),
        ("MCPGATEWAY_POOL_METRIC_DIR", "MCPGATEWAY_POOL_METRICS_DIR"),
        ("MCPGATEWAY_POOL_SESSION_TTL", "MCPGATEWAY_POOL_SESSION_TTL_SECONDS"),
        ("MCPGATEWAY_POOL_XYZZY", None),
        ("MCPGATEWAY_POOL_\x1b[2J", None),
    ],
)
def test_a_name_that_is_none_of_ours_is_told_with_the_nearest(name: str, nearest: str | None) -> None:
    [(shown, found)] = settings.unknown_variables({name: "1", "PATH": "/bin"})
    assert found == nearest
    assert shown == name.replace("\x1b", "\\x1b")


def test_the_names_of_ours_and_of_others_are_no_mistakes() -> None:
    ours = {settings.variable_of(field.name): "x" for field in fields(settings.GatewaySettings)}
    others = {"MCP_SESSION_POOL_MAX_PER_KEY": "1", "MCPGATEWAY_UI_ENABLED": "true", "HOME": "/"}
    read_elsewhere = {TOKEN_VARIABLE: "x", DIRECTORY_VARIABLES[0]: "x"}
    assert set(settings.READ_ELSEWHERE) == set(read_elsewhere)
    assert settings.unknown_variables({**ours, **others, **read_elsewhere}) == []
