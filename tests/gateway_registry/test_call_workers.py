"""Calls without a downstream session on gateways with several worker processes: under each launcher, with
shared counters, and when a worker is killed.
"""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from servers.process import ServerProcess
from servers.waiting import wait_until
from support.gateway_process import SWITCH, GatewayProcess, Launcher, Samples, failures, sum_samples
from support.registered import PREFIX

CALLS = 60
SETTINGS = {**SWITCH, "MCP_CLIENT_CONNECT_MODE": "legacy", "HEALTH_CHECK_INTERVAL": "3600"}


def count(samples: Samples, name: str, identifier: str) -> float:
    return sum_samples(samples, PREFIX + name, gateway_id=identifier)


def name_of(samples: Samples, identifier: str) -> str | None:
    """What a worker says is the name of a gateway."""
    infos = (dict(labels) for name, labels in samples if name == f"{PREFIX}gateway_info")
    return next((labels["name"] for labels in infos if labels["gateway_id"] == identifier), None)


def assert_adds_up(samples: Samples, identifier: str, calls: int) -> None:
    assert count(samples, "hits_total", identifier) + count(samples, "misses_total", identifier) == calls
    opened, evicted = (count(samples, name, identifier) for name in ("creates_total", "evictions_total"))
    assert opened == count(samples, "size", identifier) + evicted
    assert count(samples, "active_sessions", identifier) == 0


@pytest.mark.long("three workers to boot under each launcher; those of the registry have a short one")
@pytest.mark.parametrize("launcher", ["gunicorn", "gunicorn-preload", "granian"])
def test_workers_pool_calls_show_one_sum_and_lose_no_count_with_a_worker_that_is_killed(
    tmp_path: Path, launcher: Launcher
) -> None:
    settings = {**SETTINGS, "MCPGATEWAY_POOL_METRICS_DIR": str(tmp_path / "counters")}
    workers = 2 if launcher == "granian" else 3
    with (
        GatewayProcess(
            tmp_path / "gateway", workers=workers, launcher=launcher, environment=settings
        ) as gateway,
        ServerProcess() as server,
    ):
        identifier = gateway.register("server", server.url)
        answers = gateway.call_many(CALLS, 6, "server", "whoami")
        assert failures(answers) == []
        sessions = {json.loads(answer.text)["session"] for answer in answers}
        samples = gateway.samples()
        assert len(sessions) == count(samples, "creates_total", identifier) <= 6 * workers
        assert_adds_up(samples, identifier, CALLS)
        assert wait_until(lambda: name_of(gateway.samples(), identifier), 60) == "server"
        # Workers of granian have a socket each: connections to one that is stopped would wait.
        scrapes = (
            [gateway.samples() for _ in range(6)] if launcher == "granian" else gateway.scrape_each_worker()
        )
        for name in ("hits_total", "misses_total", "size"):
            assert len({count(scrape, name, identifier) for scrape in scrapes}) == 1

        victim = gateway.worker_pids()[0]
        helpers = gateway.helper_pids(victim)
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: victim not in gateway.worker_pids(), 60)
        answers = gateway.call_many(CALLS, 6, "server", "whoami")
        assert failures(answers) == []
        assert_adds_up(gateway.samples(), identifier, 2 * CALLS)

        def helpers_of_all() -> list[list[int]]:
            return [gateway.helper_pids(worker) for worker in gateway.worker_pids()]

        orphans = set(helpers)  # without this package, they are left, too
        if launcher == "granian":  # a worker by which it has replaced one leaves its helpers when it ends
            wait_until(lambda: [len(one) for one in helpers_of_all()] == [len(helpers)] * workers, 60)
            orphans.update(*helpers_of_all())
        assert gateway.stop(orphans=orphans) in (0, -signal.SIGTERM)
