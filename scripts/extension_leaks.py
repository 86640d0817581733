"""Tells which leaks that LeakSanitizer reported are the extension's.

CPython keeps memory when it ends, and so do other extensions: a suppression by module would hide ours with
theirs, as every stack goes through the interpreter. A leak counts here when the extension is the first to
have asked for the memory, behind the allocator and CPython's own functions. Any other error that a sanitizer
reported counts, too.

    extension_leaks.py FOLDER    the folder with the reports (log_path of LSAN_OPTIONS)

Exits with 1 where there are any.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

_LEAK = re.compile(r"^(?:Direct|Indirect) leak of (\d+) byte")
_FRAME = re.compile(r"^\s+#\d+ \S+ (?:in (\S+) )?(.*)$")
_ERROR = re.compile(r"ERROR: AddressSanitizer|: runtime error: ")
_ALLOCATORS = re.compile(r"libsanitizer|libasan|liblsan|libpython|bin/python|^(Objects|Python|Modules)/")
_EXTENSION = re.compile(r"mcpgateway_pool/_core\.|csrc/")


def leaks(report: str) -> list[list[str]]:
    """Each leak as its lines: the headline, then the frames."""
    found: list[list[str]] = []
    is_inside = False
    for line in report.splitlines():
        if _LEAK.match(line):
            found.append([line])
            is_inside = True
        elif is_inside and _FRAME.match(line):
            found[-1].append(line)
        else:
            is_inside = False
    return found


def is_the_extensions(leak: list[str]) -> bool:
    for line in leak[1:]:
        match = _FRAME.match(line)
        assert match is not None
        place = match.group(2)
        if _EXTENSION.search(place):
            return True
        if not _ALLOCATORS.search(place):
            return False
    return False


def main() -> int:
    reports = sorted(Path(sys.argv[1]).glob("*"))
    others = 0
    ours: dict[str, str] = {}
    for path in reports:
        report = path.read_text(errors="replace")
        if _ERROR.search(report):
            ours[report] = path.name
        for leak in leaks(report):
            if is_the_extensions(leak):
                ours.setdefault("\n".join(leak[1:]), f"{path.name}: {leak[0]}")
            else:
                others += 1
    for stack, headline in ours.items():
        print(f"{headline}\n{stack}\n")
    print(f"{len(reports)} reports, {others:,} leaks of others, {len(ours)} leaks or errors of the extension")
    return 1 if ours else 0


if __name__ == "__main__":
    sys.exit(main())
