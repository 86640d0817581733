"""Scrapes over several processes: the pool's shared counters, and the multiprocess mode of prometheus_client.

The processes that count are alive while they are read, as a gateway's workers are. Each is this file, run as
a program; so is the one that reads, because both modes are switched on by the environment.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
from typing import Literal

from prometheus_client import CollectorRegistry
from prometheus_client import generate_latest as by_prometheus_client

Writer = Literal["native", "c"]

VARIABLES: dict[Writer, str] = {"native": "PROMETHEUS_MULTIPROC_DIR", "c": "MCPGATEWAY_POOL_METRICS_DIR"}


def scrape_workers(writer: Writer, workers: int, gateways: int) -> float:
    """One page over so many processes with so many gateways each, in seconds of processor time.

    ``native``: the same series as metrics of prometheus_client in its multiprocess mode; ``c``: the pool's.
    """
    with tempfile.TemporaryDirectory() as folder:
        environ = {name: value for name, value in os.environ.items() if name not in VARIABLES.values()}
        environ[VARIABLES[writer]] = folder

        def start(task: str) -> subprocess.Popen[str]:
            return subprocess.Popen(
                [sys.executable, __file__, task, writer, str(gateways)],
                env=environ,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )

        processes = [start("count") for _ in range(workers)]
        try:
            for process in processes:
                assert process.stdout is not None
                if not process.stdout.readline():
                    raise RuntimeError("a process that counts did not start")
            reader = start("read")
            processes.append(reader)
            seconds, _ = reader.communicate(timeout=300)
            return float(seconds)
        finally:
            for process in processes:
                process.kill()
                process.communicate()


def _count(writer: Writer, gateways: int) -> None:
    import scrapes

    if writer == "native":
        kept: object = scrapes.make_native(gateways)
    else:
        import sides

        kept = asyncio.run(_use(sides.load("project"), gateways))
    print("ready", flush=True)
    sys.stdin.read()  # until it is killed
    del kept


async def _use(side: object, gateways: int) -> object:
    import scrapes

    return await scrapes.use_gateways(side, gateways)


def _read(writer: Writer) -> float:
    import scrapes

    registry = CollectorRegistry()
    if writer == "native":
        from prometheus_client.multiprocess import MultiProcessCollector

        MultiProcessCollector(registry)
        return scrapes.best_of(lambda: by_prometheus_client(registry), 1)
    from mcpgateway_pool import MCPSessionPool, generate_latest, register_collector

    MCPSessionPool()  # a process that shows the counters has a pool, as a worker of the gateway has
    register_collector(registry)
    return scrapes.best_of(lambda: generate_latest(registry), 10)


def main() -> None:
    task, writer, gateways = sys.argv[1], sys.argv[2], int(sys.argv[3])
    assert writer in ("native", "c")
    if task == "count":
        _count(writer, gateways)
    else:
        print(_read(writer))


if __name__ == "__main__":
    main()
