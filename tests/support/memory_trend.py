"""Whether the memory of a process that has long been running still grows."""

from __future__ import annotations

# What may come and go: caches, code that is imported late, the allocator's own ways.
MIB_PER_HOUR = 60.0
MIB_SLACK = 12.0


class MemoryTrend:
    """What was measured, one after the other.

    Args:
        slack: MiB by which it may differ at any time.
    """

    def __init__(self, slack: float = MIB_SLACK) -> None:
        self._slack = slack
        self._measured: list[tuple[float, float]] = []

    def __len__(self) -> int:
        return len(self._measured)

    def add(self, seconds: float, mib: float) -> None:
        """One value, and when it was measured."""
        self._measured.append((seconds, mib))

    def medians(self) -> tuple[float, float, float]:
        """Median of the second and the last fifth of the time, and the minutes between them."""
        fifth = len(self._measured) // 5
        if not fifth:
            return 0.0, 0.0, 0.0
        early, late = self._measured[fifth : 2 * fifth], self._measured[-fifth:]
        middle = fifth // 2
        return (
            sorted(mib for _, mib in early)[middle],
            sorted(mib for _, mib in late)[middle],
            (late[middle][0] - early[middle][0]) / 60,
        )

    def excess(self) -> float:
        """The MiB that it grew by more than it may; below 0: it did not."""
        early, late, minutes = self.medians()
        return late - early - self._slack - MIB_PER_HOUR * minutes / 60

    def __str__(self) -> str:
        early, late, minutes = self.medians()
        return f"{early:.1f} MiB, then {late:.1f} MiB, {minutes:.1f} minutes later"
