"""One side of the comparison, in a process of its own: it measures what it is told to, one round at a time.

Reads lines ``{"measure": NAME, "options": {...}}`` on standard input, and answers each by ``{"value":
NUMBER}`` or ``{"error": TEXT}`` on standard output. Started by ``run.py``; usage: ``worker.py SIDE``.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys

import measures
import sides


def main() -> None:
    # Whatever else writes to standard output must not get between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    logging.disable(logging.CRITICAL)
    side = sides.load(sys.argv[1])
    with asyncio.Runner() as runner:  # one event loop for all rounds: pools that are kept belong to it
        for line in sys.stdin:
            order = json.loads(line)
            try:
                measure = getattr(measures, order["measure"])
                answer = {"value": runner.run(measure(side, **order["options"]))}
            except Exception as error:  # the other rows go on
                answer = {"error": f"{type(error).__name__}: {error}"}
            print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
