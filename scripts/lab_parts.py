"""The parts of the laboratory: what each tries to break, by which command, for how long. `scripts/lab.py`
runs them.

A command is one of the tree, without a shell. It exits with something else than 0 when it fails, and its last
line says what it tried, in figures, unless ``figures`` finds them elsewhere. In commands and variables stand:

    {python}, {debug}, {sdk2}   the interpreters of the environments, see the Makefile
    {venv}                      the folder of the first; those of the others begin with it
    {length}                    the length of this part, as scaled by --scale or --minutes
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field


def last_line(output: str) -> str:
    """The last line that a program printed, not counting what `make` says of itself."""
    lines = [line.strip(" =") for line in output.splitlines()]
    return next((line for line in reversed(lines) if line and not re.match(r"make(\[\d+\])?: ", line)), "")


def matches(pattern: str) -> Callable[[str], str]:
    """The groups of each match, joined."""

    def find(output: str) -> str:
        found = [
            " ".join(filter(None, match.groups())) for match in re.finditer(pattern, output, re.MULTILINE)
        ]
        return "; ".join(found) or last_line(output)

    return find


def sums(pattern: str, form: str) -> Callable[[str], str]:
    """How many matches, and the sum of the number in each, as ``form`` says."""

    def find(output: str) -> str:
        numbers = [int(number.replace(",", "")) for number in re.findall(pattern, output)]
        return form.format(count=len(numbers), sum=sum(numbers)) if numbers else last_line(output)

    return find


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part.

    Attributes:
        name: also of its log file.
        shows: the claim that it tries to break.
        command: words, separated by blanks; see above.
        seconds: how long it takes on two quiet cores at scale 1.
        length: what ``{length}`` is at scale 1, in seconds or operations; 0: its time is its own.
        least: the least length that shows anything.
        needs: programs on PATH, and paths in the checkout, without which it is skipped.
        variables: of its environment.
        makes: goals of the Makefile to be made before.
        is_alone: nothing may run beside it, as it measures, or loads the machine by itself.
        figures: finds in the output what was tried.
    """

    name: str
    shows: str
    command: str
    seconds: float
    length: int = 0
    least: int = 1
    needs: tuple[str, ...] = ()
    variables: dict[str, str] = field(default_factory=dict)
    makes: tuple[str, ...] = ()
    is_alone: bool = False
    figures: Callable[[str], str] = last_line


RELEASE = ("{venv}/.installed", "{venv}/.group-test")
DEBUG = (*RELEASE, "{venv}-debug/.installed")
SDK2 = ("{venv}-sdk2/.installed",)
# Limits that only end what hangs: the machine may be busy.
PYTEST = "-P -m pytest -q --timeout 1800 -o faulthandler_timeout=1830 -p no:cacheprovider"
C_CLAIMS = sums(r"(\d+) claims hold", "{count} programs, {sum} claims hold")

PARTS: tuple[Part, ...] = (
    # ---- the machine in C
    Part(
        name="c-plain",
        shows="every claim of the C tests, with a check of the whole pool after each operation",
        command="make -C tests/c check",
        seconds=40,
        figures=C_CLAIMS,
    ),
    Part(
        name="c-asan",
        shows="no bad access, no leak, no undefined behaviour in C",
        command="make -C tests/c check-asan",
        seconds=60,
        figures=C_CLAIMS,
    ),
    Part(
        name="c-tsan",
        shows="no data race in the counters",
        command="make -C tests/c check-tsan",
        seconds=20,
        figures=C_CLAIMS,
    ),
    Part(
        name="c-model",
        shows="the pool machine does what a naive model allows, and leaves nothing undone",
        command="make -C tests/c check-long OPERATIONS={length}",
        seconds=400,
        length=100_000_000,
        least=100_000,
        is_alone=True,  # two processes
    ),
    # ---- the pool in Python
    Part(
        name="histories",
        shows="random histories of the pool follow the contract, step by step",
        command=f"{{debug}} {PYTEST} tests/model/test_state_machine.py",
        variables={"MGP_MODEL_EXAMPLES": "{length}"},
        makes=DEBUG,
        seconds=150,
        length=1000,
        least=400,  # with fewer, it complains that not everything was reached
        figures=matches(r"^random histories: (.*)$"),
    ),
    Part(
        name="schedules",
        shows="every schedule of two and three callers ends well, not a sample of them",
        command=f"{{debug}} {PYTEST} tests/model/test_interleavings.py",
        makes=DEBUG,
        seconds=150,
        figures=sums(r"([\d,]+) schedules through", "{count} scenarios, {sum:,} schedules, all end well"),
    ),
    Part(
        name="py-asan",
        shows="no bad access, no leak, no undefined behaviour in the extension, by the Python suite",
        command="make sanitize-py VENV={venv}",
        # Those that take minutes on the plain build have parts of their own.
        variables={
            "PYTEST_ARGS": "-q tests/unit tests/isolated tests/security tests/integration"
            " --ignore=tests/integration/test_faults.py --ignore=tests/integration/test_faults_pool.py"
        },
        makes=("{venv}-asan/.installed", "{venv}/.group-test"),
        seconds=900,
        figures=matches(r"^(\d+ passed.*?) in .*|^(\d+ reports, .*)$"),
    ),
    Part(
        name="isolated",
        shows="the pool stays whole: out of memory, hooks that raise or re-enter, signals, forks",
        command=f"{{debug}} {PYTEST} tests/isolated",
        variables={"PYTHONMALLOC": "debug"},
        makes=DEBUG,
        seconds=120,
    ),
    Part(
        name="binding",
        shows="finalizers, weak references, forks, loops that move: nothing crashes, nothing is lost",
        command="{debug} -P -X faulthandler -m support.binding_fuzz 1000 {length}",
        variables={"PYTHONPATH": "tests", "PYTHONMALLOC": "debug"},
        makes=DEBUG,
        seconds=150,
        length=1000,
        least=20,
    ),
    Part(
        name="refleaks",
        shows="nothing that is done again and again leaves a reference behind",
        command="{debug} -P tests/refleaks/refleaks.py",
        needs=("tests/refleaks/refleaks.py",),
        makes=DEBUG,
        seconds=90,
    ),
    # Behind c-plain by some parts, as it shares its build.
    Part(
        name="c-valgrind",
        shows="no use of memory that was never set",
        command="make -C tests/c check-valgrind",
        seconds=180,
        needs=("valgrind",),
        figures=C_CLAIMS,
    ),
    Part(
        name="security",
        shows="hostile headers, keys, labels and files do no harm; secrets are never shown",
        command=f"{{python}} {PYTEST} tests/security",
        makes=RELEASE,
        seconds=60,
    ),
    Part(
        name="fuzz",
        shows="no input breaks the machine, the keys, the reader and the writer of counters",
        command="make -C tests/fuzz fuzz SECONDS={length}",
        needs=("clang", "tests/fuzz/Makefile"),
        seconds=200,
        length=45,
        least=3,
        is_alone=True,  # two at a time by itself
    ),
    Part(
        name="mutants",
        shows="a mistake in the code, in C or in Python, is seen by a test: a sample, another each day",
        command="{python} -P scripts/mutants.py --venv {venv} --count {length} --least 0.75",
        makes=RELEASE,
        needs=("gcov",),
        seconds=1500,
        length=60,
        least=10,
        is_alone=True,  # a machine that is busy with other things makes tests fail that have a time limit
    ),
    # ---- all of it, under load
    Part(
        name="load",
        shows="no lost place, exact counters, flat memory under load and random faults",
        command="{python} -P tests/load/load.py --seconds {length}",
        makes=RELEASE,
        seconds=160,
        length=120,
        least=10,
        is_alone=True,
    ),
    Part(
        name="load-debug",
        shows="the same on the debug build, which checks the whole pool after each operation",
        command="{debug} -P tests/load/load.py --seconds {length} --callers 3000",
        makes=DEBUG,
        seconds=80,
        length=60,
        least=10,
        is_alone=True,
    ),
    Part(
        name="load-notices",
        shows="that the load test finds out pools that were broken on purpose",
        command="{python} -P tests/load/notices.py",
        makes=RELEASE,
        seconds=110,
    ),
    Part(
        name="soak-sdk1",
        shows="nothing hangs and nothing is left while real servers are killed and stopped, SDK 1.x",
        command="make soak SECONDS={length} VENV={venv}",
        makes=RELEASE,
        seconds=140,
        length=120,
        least=10,
        is_alone=True,
        figures=matches(r"^(calls: .*|slowest: .*|memory: .*|passed: .*)$"),
    ),
    Part(
        name="soak-sdk2",
        shows="the same on SDK 2.x",
        command="make soak SDK=2 SECONDS={length} VENV={venv}",
        makes=SDK2,
        seconds=140,
        length=120,
        least=10,
        is_alone=True,
        figures=matches(r"^(calls: .*|slowest: .*|memory: .*|passed: .*)$"),
    ),
    Part(
        name="errors",
        shows="errors in answer to every third call cost no session, and none is closed without evidence",
        command="make soak-errors SECONDS={length} VENV={venv}",
        makes=RELEASE,
        seconds=610,
        length=600,
        least=10,
        figures=matches(r"^(calls: .*|hit rate: .*|closed: .*)$"),
    ),
    Part(
        name="soak-gateway",
        shows="no call through a whole gateway is lost or crossed while its servers are killed and changed",
        command="make soak-gateway SECONDS={length} VENV={venv}",
        seconds=200,
        length=120,
        least=20,
        is_alone=True,
        figures=matches(r"^(calls: .*|slowest: .*|memory: .*|passed: .*)$"),
    ),
    Part(
        name="faults",
        shows="real servers broken in every way: what fails, and for how long",
        command=f"{{python}} {PYTEST} tests/integration/test_faults.py tests/integration/test_faults_pool.py",
        makes=RELEASE,
        seconds=200,
    ),
    Part(
        name="network",
        shows="a network that falls silent is noticed in half a minute, and costs nobody else anything",
        command="{python} -P tests/network/table.py --sdk2-python {sdk2}",
        makes=(*RELEASE, *SDK2),
        needs=("ip", "/dev/net/tun"),
        seconds=600,
    ),
    # ---- scale
    Part(
        name="simulation",
        shows="the pool machine alone adds up with up to 100,000 keys, and no step takes long",
        command="{python} -P benchmarks/simulation.py --short",
        makes=("{venv}/.installed",),
        seconds=60,
        is_alone=True,
    ),
)
