"""A reader of the Prometheus text format, for pages of any size: one line at a time, in linear time.

prometheus_client's parser makes an object of each sample and wants the page whole: 10,000 gateways took it a
minute and 800 MB. What this one accepts, that one accepts, with the same result; it refuses what the format
does not have, also where that one is lenient. No pattern here can match a line in two ways, so that none
takes longer than the line is long.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

MAX_LINE_BYTES = 1024 * 1024

# No group is possessive: CPython before 3.11.5 goes on behind one that it has matched in part. What follows a
# group never begins as the group does, so that nothing is tried twice.
_BLANKS = rb"[ \t]*+"
_LABEL_NAME = rb"[a-zA-Z_][a-zA-Z0-9_]*+"
# Without the quotes, as it is written: what follows a backslash is one of three.
ESCAPED = rb'[^"\\\n]*+(?:\\[\\"n][^"\\\n]*+)*'
NUMBER = rb"[-+]?+(?:[0-9]++(?:\.[0-9]*+)?|\.[0-9]++)(?:[eE][-+]?+[0-9]++)?"
_VALUE = rb"(?:" + NUMBER + rb"|[-+]?+Inf|NaN)"


def _label_of(name: bytes, value: bytes) -> bytes:
    return _BLANKS + name + _BLANKS + b"=" + _BLANKS + b'"' + value + b'"' + _BLANKS


_LABEL = _label_of(_LABEL_NAME, ESCAPED)
_LABELS = rb"\{((?:" + _LABEL + rb"(?:," + _LABEL + rb")*,?+)?" + _BLANKS + rb")\}" + _BLANKS
_TIME = rb"(?:[ \t]++" + NUMBER + rb")?" + _BLANKS
_LINE = (
    _BLANKS + rb"([a-zA-Z_:][a-zA-Z0-9_:]*+)"
    rb"(?:" + _BLANKS + _LABELS + rb"|[ \t]++)"
    rb"(" + _VALUE + rb")" + _TIME
)  # fmt: skip
_EXEMPLAR = rb"(?:# ?+" + _LABELS + _VALUE + _TIME + rb")?"

_label = re.compile(_label_of(b"(" + _LABEL_NAME + b")", b"(" + ESCAPED + b")") + rb",?+")
_sample = re.compile(_LINE)
_sample_of_openmetrics = re.compile(_LINE + _EXEMPLAR)

_ESCAPES = re.compile(rb"\\(.)")


class BadTextError(ValueError):
    """A line that the format does not have."""


class CutOffTextError(ValueError):
    """The page ends in the middle.

    Args:
        rest: of a line.
    """

    def __init__(self, rest: bytes) -> None:
        super().__init__()
        self.rest = rest


class Sample(NamedTuple):
    """One line.

    Attributes:
        name: of the series.
        labels: by name; values as they are written, without their quotes: see :func:`unescape`.
        value: as it is written.
    """

    name: bytes
    labels: dict[bytes, bytes]
    value: bytes


def read_sample(line: bytes, *, is_openmetrics: bool = False) -> Sample:
    """A line that is neither empty nor a comment.

    Raises:
        BadTextError: it is no sample.
    """
    match = (_sample_of_openmetrics if is_openmetrics else _sample).fullmatch(line)
    if match is None:
        raise BadTextError
    labels: dict[bytes, bytes] = {}
    for name, value in _label.findall(match[2] or b""):
        if name in labels:
            raise BadTextError
        labels[name] = value
    return Sample(match[1], labels, match[3])


def unescape(value: bytes) -> str:
    """The value of a label, from how it is written.

    Raises:
        BadTextError: it is no UTF-8.
    """
    if b"\\" in value:
        value = _ESCAPES.sub(lambda match: b"\n" if match[1] == b"n" else match[1], value)
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise BadTextError from None


def blocks_of(parts: Iterable[bytes], *, is_openmetrics: bool = False) -> Iterator[list[bytes]]:
    """The lines of a page that comes in parts, without their ends; many at a time, for speed.

    Raises:
        BadTextError: a line is longer than 1 MiB.
        CutOffTextError: the last line is not ended or, of OpenMetrics, is not ``# EOF``.
    """
    rest: list[bytes] = []
    size = 0
    last = b""
    for part in parts:
        head, newline, tail = part.rpartition(b"\n")
        if newline:
            lines = b"".join((*rest, head)).split(b"\n")
            last = lines[-1]
            yield lines
            rest, size = [], 0
        rest.append(tail)
        size += len(tail)
        if size > MAX_LINE_BYTES:
            raise BadTextError
    if size or (is_openmetrics and last != b"# EOF"):
        raise CutOffTextError(b"".join(rest))
