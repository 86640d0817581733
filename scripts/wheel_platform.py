"""Where a wheel loads: its platform tag, and what `auditwheel show` says of it."""

from __future__ import annotations

import re
from dataclasses import dataclass

PLATFORM = re.compile(r"(manylinux|musllinux)_(\d+)_(\d+)_(\w+)")


@dataclass(frozen=True)
class Platform:
    """A platform tag of PEP 600 or PEP 656: this libc, from that version on."""

    libc: str  # manylinux is glibc, musllinux is musl
    version: tuple[int, int]
    machine: str

    @classmethod
    def of(cls, tag: str) -> Platform | None:
        """The platform that a tag names; None for any other tag, as linux_x86_64, which promises nothing."""
        match = PLATFORM.fullmatch(tag)
        return match and cls(match[1], (int(match[2]), int(match[3])), match[4])

    @classmethod
    def of_wheel(cls, name: str) -> Platform | None:
        """The platform in a wheel's file name; of several, the oldest."""
        found = [cls.of(tag) for tag in name.removesuffix(".whl").rpartition("-")[2].split(".")]
        known = [platform for platform in found if platform is not None]
        return min(known, key=lambda platform: platform.version) if known else None

    def covers(self, other: Platform) -> bool:
        """Whether what loads here loads there, too."""
        return (self.libc, self.machine) == (other.libc, other.machine) and self.version <= other.version

    def __str__(self) -> str:
        return f"{self.libc}_{self.version[0]}_{self.version[1]}_{self.machine}"


def granted(shown: str) -> Platform | None:
    """The platform that `auditwheel show` grants."""
    match = re.search(r'consistent\s+with\s+the\s+following\s+platform\s+tag:\s*"(\w+)"', shown)
    return Platform.of(match[1]) if match else None
