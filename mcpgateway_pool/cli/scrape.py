"""From the text of a scrape to numbers by gateway."""

from __future__ import annotations

import math
import re
import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from mcpgateway_pool import _core
from mcpgateway_pool.labels import MAX_LABEL_BYTES
from mcpgateway_pool.prometheus.collector import PREFIX

from .common import CommandError
from .fetch import Fetch, Source, cut_off
from .text_format import ESCAPED, NUMBER, BadTextError, CutOffTextError, blocks_of, read_sample, unescape

ALL = ""  # the row of all gateways together; no label is empty
MAX_GATEWAYS = 100_000
_MAX_COLUMNS = 400
_MAX_LABEL_BYTES = 4 * MAX_LABEL_BYTES  # as it is written

# The series that the commands show, and the label whose values are kept apart; over all others of a sample's
# labels, those of whoever relabels included, it is summed.
_WANTED: Final[dict[str, str]] = {
    "hits_total": "",
    "misses_total": "",
    "evictions_total": "reason",
    "health_check_failures_total": "",
    "active_sessions": "",
    "size": "",
    "waiters": "",
    "oldest_waiter_seconds": "",
    "keys": "",
    "acquire_timeouts_total": "",
    "acquire_rejections_total": "reason",
    "create_failures_total": "",
    "circuit_breakers_open": "",
    "replays_total": "",
    "unpooled_calls_total": "reason",
    "acquire_wait_seconds_bucket": "le",
    "create_seconds_bucket": "le",
    "max_sessions_per_key": "",
    "label_overflow_total": "",
}
_LARGEST = ("oldest_waiter_seconds", "max_sessions_per_key")  # of several rows together, instead of the sum

_INFO = (PREFIX + _core.GATEWAY_INFO_SERIES[0]).encode()

# A line as most exporters write it; all others are read by read_sample().
_usual_rest = re.compile(
    rb'gateway_id="(' + ESCAPED + rb')"(?:,(le|reason)="(' + ESCAPED + rb')")?\} (' + NUMBER + rb")"
).fullmatch


class Scrape:
    """The pool's samples of one moment; 500 bytes a gateway.

    Attributes:
        at: monotonic seconds.
    """

    def __init__(
        self,
        columns: dict[str, dict[str, int]] | None = None,
        rows: dict[str, array[float]] | None = None,
        gateway_names: dict[str, str] | None = None,
    ) -> None:
        self.at = time.monotonic()
        self._gateway_names = gateway_names or {}
        self._with_name = Counter(self._gateway_names.values())
        # By the series' name without its prefix, then by the value of the label that is kept apart: an index
        # into the rows, which may be shorter.
        self._columns = columns or {}
        self._rows = rows or {}
        self._bounds = {
            name.removesuffix("_bucket"): sorted((_bound(value), value) for value in values)
            for name, values in self._columns.items()
            if _WANTED[name] == "le"
        }

    @property
    def gateways(self) -> list[str]:
        """Every gateway that has a row."""
        return [name for name in self._rows if name != ALL]

    def gateway_name(self, gateway: str) -> str | None:
        """The name of a gateway, where it is known."""
        return self._gateway_names.get(gateway)

    def shown(self, gateway: str) -> str:
        """How a gateway is shown: by its name, with its id where another has that name; else by its id."""
        name = self._gateway_names.get(gateway)
        if name is None:
            return gateway
        is_alone = self._with_name[name] == 1 and (name == gateway or name not in self._rows)
        return name if is_alone else f"{name} {gateway}"

    @property
    def names(self) -> list[str]:
        """The series that there are, without their prefix."""
        return list(self._columns)

    def get(self, name: str, gateway: str, value: str | None = None) -> float:
        """A number; 0 where there is none.

        Args:
            name: of the series, without its prefix.
            gateway: one of :attr:`gateways`, or ``ALL``.
            value: of the label that is kept apart (a reason, or a bound); default: over all of them.
        """
        columns, row = self._columns.get(name), self._rows.get(gateway)
        if columns is None or row is None:
            return 0.0
        if value is not None:
            wanted = [columns[value]] if value in columns else []
        else:
            wanted = list(columns.values())
        return math.fsum(row[column] for column in wanted if column < len(row))

    def values(self, name: str) -> list[str]:
        """Of the label that is kept apart, those that there are."""
        return list(self._columns.get(name, ()))

    def bounds(self, stem: str) -> list[tuple[float, str]]:
        """The upper bounds of a histogram, ascending, as numbers and as they are written."""
        return self._bounds.get(stem, [])


def read(source: Source) -> Scrape:
    """Scrape a URL.

    Raises:
        CommandError: it cannot be read, is no Prometheus text, or shows no series of the pool.
    """
    return begin(source).result()


def begin(source: Source, when_done: Callable[[], None] = lambda: None) -> Fetch[Scrape]:
    """Begin to scrape a URL; ``result()`` is as :func:`read`."""

    def consume(content_type: str, parts: Iterator[bytes]) -> Scrape:
        scrape = parse(content_type, parts, source.shown)
        if not scrape.names:
            raise CommandError(
                f"{source.shown} shows no series of the session pool ({PREFIX}…)",
                "mcpgateway-pool doctor --url URL says what may be missing",
            )
        return scrape

    return Fetch(source, consume, when_done)


def parse(content_type: str, parts: Iterable[bytes], shown: str = "the page") -> Scrape:
    """The pool's samples of a page that comes in parts; none is no error here.

    Raises:
        CommandError: the page is no Prometheus text, or is cut off.
    """
    reader = _Reader(is_openmetrics="openmetrics" in content_type)
    is_whole = True
    try:
        try:
            reader.read(parts)
        except CutOffTextError as error:
            reader.take_first(error.rest)
            is_whole = False
        scrape = reader.finish()
    except BadTextError:
        kind = content_type.partition(";")[0] or "no content type"
        raise CommandError(
            f"{shown} did not answer with Prometheus text ({kind})",
            "is the path right? A web page or a log-in is no metrics endpoint",
        ) from None
    if not is_whole:
        raise cut_off(shown)
    return scrape


class _Series:
    """One of the series that are wanted."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.label = _WANTED[name].encode() or None
        self.is_largest = name in _LARGEST
        self.columns: dict[bytes, int] = {}


class _Reader:
    """Adds up the samples of one page."""

    def __init__(self, *, is_openmetrics: bool) -> None:
        self._is_openmetrics = is_openmetrics
        self._wanted = {(PREFIX + name).encode(): _Series(name) for name in _WANTED}
        self._rows: dict[bytes, array[float]] = {}  # by the label as it is written
        self._gateway_names: dict[bytes, bytes] = {}  # likewise
        self._width = 0
        self._first: bytes | None = None  # line of somebody else that is no comment

    def read(self, parts: Iterable[bytes]) -> None:
        """All lines."""
        wanted = self._wanted.get
        for lines in blocks_of(parts, is_openmetrics=self._is_openmetrics):
            for line in lines:  # a million of them
                head, _, rest = line.partition(b"{")
                series = wanted(head)
                match = _usual_rest(rest) if series is not None else None
                if match is None or series is None:
                    self._read_unusual(line, head)
                    continue
                gateway, label, value, number = match.groups()
                if series.label is None:
                    value = b""
                elif series.label != label:
                    self._read_unusual(line, head)
                    continue
                self._add(series, gateway, value, float(number))

    def _read_unusual(self, line: bytes, head: bytes) -> None:
        """A line without labels, with others, with blanks, of somebody else, or a comment."""
        words = head.split(None, 1)
        if not words or words[0].startswith(b"#"):
            if not words:  # empty, or nothing before the brace
                self.take_first(line)
            return
        if words[0] == _INFO:
            self._take_name(read_sample(line, is_openmetrics=self._is_openmetrics).labels)
            return
        series = self._wanted.get(words[0])
        if series is None:
            self.take_first(line)
            return
        _, labels, number = read_sample(line, is_openmetrics=self._is_openmetrics)
        value = b"" if series.label is None else labels.get(series.label, b"")
        if series.label == b"le" and not value:
            raise BadTextError
        self._add(series, labels.get(b"gateway_id", b""), value, float(number))

    def _take_name(self, labels: dict[bytes, bytes]) -> None:
        gateway, name = labels.get(b"gateway_id", b""), labels.get(b"name", b"")
        if gateway and name and max(len(gateway), len(name)) <= _MAX_LABEL_BYTES:
            self._gateway_names[gateway] = name
        if len(self._gateway_names) > MAX_GATEWAYS:
            raise CommandError(f"the page has more than {MAX_GATEWAYS:,} gateways")

    def take_first(self, line: bytes) -> None:
        """A line of somebody else: the first that is no comment tells whether this is Prometheus text."""
        if self._first is None and line.strip() and not line.startswith(b"#"):
            self._first = line

    def _add(self, series: _Series, gateway: bytes, value: bytes, number: float) -> None:
        column = series.columns.get(value)
        if column is None:
            column = series.columns[value] = self._width
            self._width += 1
            if self._width > _MAX_COLUMNS:
                raise BadTextError
        row = self._rows.get(gateway)
        if row is None:
            if len(gateway) > _MAX_LABEL_BYTES:
                raise BadTextError
            row = self._rows[gateway] = array("d")
            if len(self._rows) > MAX_GATEWAYS:
                raise CommandError(f"the page has more than {MAX_GATEWAYS:,} gateways")
        if column >= len(row):
            row.frombytes(bytes(8 * (column + 8 - len(row))))
        row[column] = max(row[column], number) if series.is_largest else row[column] + number

    def finish(self) -> Scrape:
        """What it comes to.

        Raises:
            BadTextError: what was read is no page of metrics, or a number is none.
        """
        columns = {
            series.name: {unescape(value): column for value, column in series.columns.items()}
            for series in self._wanted.values()
            if series.columns
        }
        rows = {unescape(written): row for written, row in self._rows.items() if written}
        if self._rows:
            rows[ALL] = self._all()
        elif self._first is not None:
            read_sample(self._first, is_openmetrics=self._is_openmetrics)
        names = {
            unescape(gateway): unescape(name)
            for gateway, name in self._gateway_names.items()
            if gateway in self._rows
        }
        return Scrape(columns, rows, names)

    def _all(self) -> array[float]:
        """The row of all gateways together, and of what has none."""
        total = array("d", bytes(8 * self._width))
        for row in self._rows.values():
            if not math.isfinite(sum(row)):
                raise BadTextError
            for column in range(min(len(row), self._width)):
                total[column] += row[column]
        for series in self._wanted.values():
            for column in series.columns.values() if series.is_largest else ():
                total[column] = max(row[column] for row in self._rows.values() if column < len(row))
        return total


def _bound(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise BadTextError from None
    if math.isnan(value):
        raise BadTextError
    return value


EVER = Scrape()  # as an older scrape: everything since the processes started
