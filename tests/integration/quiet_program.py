"""A program that meets every fault once and says nothing; run by ``test_faults_pool.py``, which looks at its
standard error. The SDK's own log is off: it warns of what it is told to meet.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mcpgateway_pool import MCPSessionPool, TransportType
from servers.process import ServerProcess
from support.fault_cases import FAULTS, Hangs, Stage

# Most of a fault's time is the server's start: these share one, and come in an order that leaves it usable.
ALIVE = ("500", "cut", "garbage-open", "no-answer", "cancelled-caller", "cancelled-owner", "drain", "30-on-3")
DEADLY = ("kill-mid-call", "restart-5-burst", "freeze-close")


async def main(transport: str) -> None:
    asyncio.get_running_loop().slow_callback_duration = 60
    with ServerProcess(transport) as server:  # type: ignore[arg-type]
        for name in (*ALIVE, "close", *DEADLY):
            pool = MCPSessionPool(max_sessions_per_key=FAULTS[name].limit, cleanup_timeout_seconds=0.5)
            stage = Stage(server, pool, TransportType(transport))
            await FAULTS[name].strike(stage)
            # A creation that nobody waits for any more, and a session that nobody gives back.
            if not FAULTS[name].closes:
                leaked = await pool.acquire(server.url, None, TransportType(transport), user_identity="l")
                del leaked
                creating = asyncio.ensure_future(stage.call())
                await asyncio.sleep(0)
                creating.cancel()
                await asyncio.wait({creating})
            await pool.close_all()
            if any(isinstance(call.error, Hangs) for call in stage.calls):
                print("a call hangs:", name, file=sys.stderr)
    gc.collect()


if __name__ == "__main__":
    logging.getLogger("mcp").setLevel(logging.CRITICAL + 1)
    logging.getLogger("client").setLevel(logging.CRITICAL + 1)
    logging.getLogger("mcpgateway_pool").setLevel(logging.ERROR)
    asyncio.run(main(sys.argv[1]), debug=True)
    gc.collect()
    print("done")
