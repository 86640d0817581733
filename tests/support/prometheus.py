"""A real Prometheus, as a process of its own, that scrapes what a test serves."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import threading
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from servers.program import Program
from servers.waiting import wait_until

needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None,
    reason="prometheus is not on PATH (Debian package prometheus): nothing was run against a real one",
)

INTERVAL = "500ms"  # between scrapes, and between evaluations of the rules

_START_SECONDS = 40.0


class Prometheus(Program):
    """Everything it writes is in one folder.

    Args:
        folder: for its configuration and its data.
        targets: ``host:port`` by job, scraped at ``/metrics``.
        rules: the text of a rule file.
    """

    def __init__(self, folder: Path, targets: dict[str, str], rules: str = "") -> None:
        self._folder = folder
        jobs = [{"job_name": job, "static_configs": [{"targets": [at]}]} for job, at in targets.items()]
        intervals = {"scrape_interval": INTERVAL, "scrape_timeout": INTERVAL, "evaluation_interval": INTERVAL}
        config: dict[str, Any] = {"global": intervals, "scrape_configs": jobs}
        if rules:
            folder.joinpath("test.rules.yaml").write_text(rules, "utf-8")
            config["rule_files"] = ["test.rules.yaml"]
        folder.joinpath("prometheus.yml").write_text(json.dumps(config), "utf-8")  # YAML reads JSON
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._said: list[str] = []
        self._port = 0

    def start(self) -> None:
        """Start it, and wait until it is ready; RuntimeError, with what it said, when it is not in time."""
        self._process = subprocess.Popen(
            [
                "prometheus",
                "--config.file=prometheus.yml",
                "--storage.tsdb.path=data",
                "--web.listen-address=127.0.0.1:0",
            ],
            cwd=self._folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            wait_until(lambda: self._port or self._process.poll() is not None, _START_SECONDS)  # type: ignore[union-attr]
            wait_until(self._is_ready, _START_SECONDS)
        except BaseException as error:
            self.kill()
            raise RuntimeError(f"Prometheus did not start:\n{''.join(self._said)}") from error

    def kill(self) -> None:
        """End it, and wait until it is gone. Harmless when it is gone already."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        assert self._reader is not None
        self._reader.join()
        assert process.stderr is not None
        process.stderr.close()

    @property
    def pid(self) -> int:
        """The process id; RuntimeError when it does not run."""
        if self._process is None:
            raise RuntimeError("Prometheus is not running")
        return self._process.pid

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal; RuntimeError when it does not run."""
        os.kill(self.pid, number)

    def _read(self) -> None:
        # It says which port it was given, and its log must be read, or it would stop at a full pipe.
        assert self._process is not None
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._said.append(line)
            found = re.search(r'msg="Listening on" address=127\.0\.0\.1:(\d+)', line)
            if found:
                self._port = int(found.group(1))

    def _is_ready(self) -> bool:
        try:
            self._open("/-/ready").close()
        except OSError:
            return False
        return True

    def _open(self, path: str, **parameters: str) -> Any:
        # No proxies: the environment may name one, and this is 127.0.0.1.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        query = "?" + urllib.parse.urlencode(parameters) if parameters else ""
        return opener.open(f"http://127.0.0.1:{self._port}{path}{query}", timeout=20)

    def get(self, path: str, **parameters: str) -> Any:
        """The ``data`` of an answer of its API, ``/api/v1/`` + path; an error of Prometheus is raised."""
        with self._open(f"/api/v1/{path}", **parameters) as response:
            answer = json.load(response)
        assert answer["status"] == "success", answer
        assert not answer.get("warnings"), answer
        return answer["data"]

    def query(self, expression: str) -> dict[str, float]:
        """What an expression gives now: values by label set, without those that are no number."""
        samples = self.get("query", query=expression)["result"]
        return {
            json.dumps(sample["metric"], sort_keys=True): float(sample["value"][1])
            for sample in samples
            if sample["value"][1] != "NaN"
        }

    def wait_for(self, expression: str, seconds: float = 10.0) -> dict[str, float]:
        """The same, once there is something."""
        return wait_until(lambda: self.query(expression), seconds)
