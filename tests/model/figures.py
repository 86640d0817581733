"""What the tests of this folder tried, shown at the end of the run."""

from __future__ import annotations

lines: list[str] = []
