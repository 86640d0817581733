"""The real gateway in processes of its own, started in every way that its operators start it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from servers.process import ServerProcess
from support.gateway_process import (
    OUR_APP,
    STOCK_APP,
    SWITCH,
    Answer,
    GatewayProcess,
    Launcher,
    Samples,
    failures,
    sum_samples,
)

pytestmark = pytest.mark.timeout(300)

LIMIT = 10  # sessions of one user on one server, by default


@dataclass(frozen=True)
class Launch:
    """One way of starting it; the variable is set unless the application is ours."""

    launcher: Launcher
    workers: int = 1
    app: str = STOCK_APP
    multiprocess: bool = False

    def __str__(self) -> str:
        how = "variable" if self.app == STOCK_APP else "app"
        return f"{self.launcher}-{self.workers}-{how}" + ("-multiprocess" if self.multiprocess else "")

    def gateway(self, folder: Path) -> GatewayProcess:
        """The gateway, not started yet."""
        environment = dict(SWITCH) if self.app == STOCK_APP else {}
        if self.multiprocess:
            shared = folder / "multiprocess"
            shared.mkdir(parents=True)
            environment["PROMETHEUS_MULTIPROC_DIR"] = str(shared)
        return GatewayProcess(
            folder, launcher=self.launcher, workers=self.workers, app=self.app, environment=environment
        )


# Short: uvicorn with one process (the fixture ``gateway``), and a supervisor with two workers.
SHORT = Launch("uvicorn", 2, multiprocess=True)
MATRIX = [
    Launch("uvicorn", app=OUR_APP, multiprocess=True),
    SHORT,
    Launch("uvicorn", 2, OUR_APP),
    Launch("gunicorn", 3),
    Launch("gunicorn", 3, OUR_APP, multiprocess=True),
    Launch("gunicorn-preload", 3, multiprocess=True),
    Launch("gunicorn-preload", 3, OUR_APP),
    Launch("mcpgateway"),
    Launch("mcpgateway", app=OUR_APP, multiprocess=True),
]


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    """An MCP server that every gateway of these tests calls."""
    with ServerProcess() as server:
        yield server


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """A gateway in one process, switched on by the variable and otherwise on its defaults."""
    with Launch("uvicorn").gateway(tmp_path_factory.mktemp("gateway")) as gateway:
        yield gateway
        assert_ends_cleanly(gateway)


def start_lines(gateway: GatewayProcess) -> list[str]:
    """What was logged when the pool was put in."""
    return [line for line in gateway.output.splitlines() if "mcpgateway-pool" in line and " is on: " in line]


def assert_ends_cleanly(gateway: GatewayProcess) -> None:
    """It ends when asked to, leaves no process behind, logs no traceback then, and none of ours ever."""
    before = gateway.output
    assert "mcpgateway_pool/" not in before
    # uvicorn ends by the signal itself, once it has shut down.
    assert gateway.stop() in {0, -signal.SIGTERM}
    assert "Traceback" not in gateway.output[len(before) :]


def is_shared(gateway: GatewayProcess) -> bool:
    """Whether a scrape shows all workers, as the start line says."""
    said = {"shared counters" in line for line in start_lines(gateway)}
    assert len(said) == 1
    return said.pop()


def answered(samples: Samples) -> float:
    """The acquires that a scrape shows; none where the process has answered none yet."""
    try:
        return sum_samples(samples, "mcp_session_pool_hits_total") + sum_samples(
            samples, "mcp_session_pool_misses_total"
        )
    except KeyError:
        return 0.0


def assert_all_calls_are_shown(gateway: GatewayProcess, calls: int) -> None:
    """Every worker shows the pool's series beside the gateway's own; together they show these calls."""
    scrapes = gateway.scrape_each_worker()
    assert len(scrapes) == gateway.workers
    for samples in scrapes:
        assert sum_samples(samples, "mcp_session_pool_max_sessions_per_key") == LIMIT
        assert sum_samples(samples, "mcp_session_pool_label_overflow_total") == 0
        assert any(name.startswith("http_request") for name, _ in samples)
    shown = [answered(samples) for samples in scrapes]
    if is_shared(gateway):
        assert shown == [calls] * gateway.workers
    else:
        assert sum(shown) == calls


@pytest.mark.parametrize(
    "launch",
    [
        pytest.param(
            launch, marks=[] if launch is SHORT else pytest.mark.long("every launcher; two of them are short")
        )
        for launch in MATRIX
    ],
    ids=str,
)
def test_calls_succeed_series_show_and_shutdown_is_clean(
    launch: Launch, tmp_path: Path, server: ServerProcess
) -> None:
    with launch.gateway(tmp_path / "gateway") as gateway:
        # The master of preloading workers imports it for all of them.
        imports = 1 if launch.launcher == "gunicorn-preload" else launch.workers
        assert len(start_lines(gateway)) == imports
        assert is_shared(gateway) == launch.multiprocess
        gateway.register("server", server.url)
        answers = gateway.call_many(24, 6, "server", "echo", text="hello")
        assert failures(answers) == []
        assert_all_calls_are_shown(gateway, 24)
        assert_ends_cleanly(gateway)


@pytest.mark.long("one more gateway to boot; install() after the import is short in test_switch.py")
def test_install_after_the_application_was_imported(tmp_path: Path, server: ServerProcess) -> None:
    folder = tmp_path / "gateway"
    folder.mkdir()
    (folder / "serve.py").write_text(
        "from mcpgateway.main import app\nfrom mcpgateway_pool.gateway import install\nassert install()\n"
    )
    with GatewayProcess(folder, app="serve:app") as gateway:
        gateway.register("server", server.url)
        answers = gateway.call_many(12, 3, "server", "echo", text="hello")
        assert failures(answers) == []
        assert_all_calls_are_shown(gateway, 12)
        assert_ends_cleanly(gateway)


def test_one_line_says_what_runs_on_the_gateways_default_log_level(gateway: GatewayProcess) -> None:
    [line] = start_lines(gateway)
    for part in ("INFO", "session pool", "ContextForge", "counters"):
        assert part in line


def test_no_call_fails_at_more_concurrency_than_the_limit(
    gateway: GatewayProcess, server: ServerProcess
) -> None:
    identifier = gateway.register("busy", server.url)
    for concurrency, calls in ((16, 300), (64, 600)):
        answers = gateway.call_many(300, concurrency, "busy", "echo", text="hello")
        assert failures(answers) == []
        samples = gateway.samples()
        value = {
            name.removeprefix("mcp_session_pool_"): value
            for (name, labels), value in samples.items()
            if ("gateway_id", identifier) in labels
        }
        assert value["hits_total"] + value["misses_total"] == calls
        assert value["size"] == value["creates_total"] == value["misses_total"] <= LIMIT
        assert value["active_sessions"] == value["waiters"] == 0
        assert value["acquire_timeouts_total"] == 0


def test_series_at_the_endpoint_are_exactly_what_the_calls_did(gateway: GatewayProcess) -> None:
    with ServerProcess() as server:
        identifier = gateway.register("counted", server.url)

        def call(tool: str = "echo", **arguments: object) -> Answer:
            return gateway.call("counted", tool, **arguments)

        def shown() -> dict[str, float]:
            samples = gateway.samples()
            names = ("hits_total", "misses_total", "evictions_total", "active_sessions", "size")
            return {
                name: sum_samples(samples, f"mcp_session_pool_{name}", gateway_id=identifier)
                for name in names
            }

        def expected(hits: int, misses: int, evictions: int, active: int, size: int) -> dict[str, float]:
            return {
                "hits_total": hits,
                "misses_total": misses,
                "evictions_total": evictions,
                "active_sessions": active,
                "size": size,
            }

        assert call(text="one").text == "one"
        assert shown() == expected(hits=0, misses=1, evictions=0, active=0, size=1)

        for _ in range(4):
            call(text="again")
        assert shown() == expected(hits=4, misses=1, evictions=0, active=0, size=1)

        # Two at a time: one finds the session, the other opens a second one. The server holds both calls
        # until the scrape is done.
        calls = threading.Thread(
            target=gateway.call_many, args=(2, 2, "counted", "slow"), kwargs={"seconds": 3}
        )
        calls.start()
        server.wait_for(lambda stats: stats["posts"].get("tools/call", 0) == 7, timeout=30)
        assert shown() == expected(hits=5, misses=2, evictions=0, active=2, size=2)
        calls.join()
        assert shown() == expected(hits=5, misses=2, evictions=0, active=0, size=2)

        # A tool that fails says nothing about its session.
        assert call("fail").failed
        assert shown() == expected(hits=6, misses=2, evictions=0, active=0, size=2)

        # The server does not know the session any more: that one is closed, the other still serves.
        server.fault("status", status=404, method="tools/call")
        assert call(text="lost").failed
        assert shown() == expected(hits=7, misses=2, evictions=1, active=0, size=1)
        assert gateway.sum("mcp_session_pool_evictions_total", gateway_id=identifier, reason="broken") == 1
        assert call(text="served").text == "served"
        assert shown() == expected(hits=8, misses=2, evictions=1, active=0, size=1)

        # The server dies in a call, and is started again.
        assert call("die").failed
        assert shown() == expected(hits=9, misses=2, evictions=2, active=0, size=0)
        server.restart()
        assert call(text="back").text == "back"
        assert shown() == expected(hits=9, misses=3, evictions=2, active=0, size=1)
