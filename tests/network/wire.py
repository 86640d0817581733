"""The wire between the client's and the servers' namespace, and the name server beyond it: one process, which
reads packets of one side and writes them to the other, or not.

It is told what to do by lines of JSON, one for each change of its :class:`Rules`, and answers each by an
empty line once it holds.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import random
import socket
import struct
import time
from typing import Any

_SYN = 0x02
_TCP = 6


@dataclasses.dataclass
class Rules:
    """What becomes of packets, and of questions for names.

    Attributes:
        vanished: hosts that nothing reaches, and from which nothing comes.
        forget_seconds: a firewall forgets a connection that was silent for so long, and drops what comes; 0:
            there is none.
        loss: the share of packets that are lost.
        delay_seconds: each way.
        names: the addresses of each name; of others there are none.
        is_mute: the name server does not answer for names that are not among these.
    """

    vanished: list[str] = dataclasses.field(default_factory=list)
    forget_seconds: float = 0.0
    loss: float = 0.0
    delay_seconds: float = 0.0
    names: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    is_mute: bool = False


class Wire:
    """Args: the two devices; see :func:`.namespaces.open_wire`."""

    def __init__(self, client: int, servers: int) -> None:
        self.rules = Rules()
        self._random = random.Random(7)
        self._flows: dict[bytes, float] = {}
        loop = asyncio.get_running_loop()
        self._loop = loop
        loop.add_reader(client, self._ready, client, servers)
        loop.add_reader(servers, self._ready, servers, client)

    def _ready(self, source: int, target: int) -> None:
        for _ in range(100):
            try:
                packet = os.read(source, 65536)
            except BlockingIOError:
                return
            if not self._passes(packet):
                continue
            if self.rules.delay_seconds:
                self._loop.call_later(self.rules.delay_seconds, _write, target, packet)
            else:
                _write(target, packet)

    def _passes(self, packet: bytes) -> bool:
        rules = self.rules
        if packet[0] >> 4 != 4:
            return False
        source, target = packet[12:16], packet[16:20]
        if rules.vanished and {socket.inet_ntoa(source), socket.inet_ntoa(target)} & set(rules.vanished):
            return False
        if rules.loss and self._random.random() < rules.loss:
            return False
        return not rules.forget_seconds or self._is_known(packet, source, target)

    def _is_known(self, packet: bytes, source: bytes, target: bytes) -> bool:
        if packet[9] != _TCP:
            return True
        head = (packet[0] & 15) * 4
        ends = sorted([source + packet[head : head + 2], target + packet[head + 2 : head + 4]])
        flow, now = b"".join(ends), time.monotonic()
        last = self._flows.get(flow)
        if not packet[head + 13] & _SYN and (last is None or now - last > self.rules.forget_seconds):
            self._flows.pop(flow, None)
            return False
        self._flows[flow] = now
        return True


def _write(target: int, packet: bytes) -> None:
    with contextlib.suppress(OSError):  # a full queue: lost, as on any wire
        os.write(target, packet)


class NameServer(asyncio.DatagramProtocol):
    """Answers for IPv4 addresses."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, address: Any) -> None:
        labels, at = [], 12
        while data[at]:
            labels.append(data[at + 1 : at + 1 + data[at]].decode().lower())
            at += 1 + data[at]
        question = data[12 : at + 5]
        name = ".".join(labels)
        rules = self._wire.rules
        if rules.is_mute and name not in rules.names:
            return
        is_for_ipv4 = question[-4:-2] == b"\x00\x01"
        found = rules.names.get(name, []) if is_for_ipv4 else []
        code = 0 if name in rules.names else 3
        answers = b"".join(
            b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 0, 4) + socket.inet_aton(each) for each in found
        )
        head = data[:2] + struct.pack("!HHHHH", 0x8180 | code, 1, len(found), 0, 0)
        self._transport.sendto(head + question + answers, address)


async def run(client: int, servers: int, names: socket.socket, control: socket.socket) -> None:
    """Until the control ends."""
    wire = Wire(client, servers)
    await asyncio.get_running_loop().create_datagram_endpoint(lambda: NameServer(wire), sock=names)
    reader, writer = await asyncio.open_unix_connection(sock=control)
    while line := await reader.readline():
        wire.rules = dataclasses.replace(wire.rules, **json.loads(line))
        writer.write(b"\n")
