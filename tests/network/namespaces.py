"""Network namespaces for one process and its children. They have no names, so that they vanish with the last
process in them, however that ends. Linux, with ``ip`` of iproute2; as root, or where users may make them.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import signal
import struct
import subprocess
import sys
from pathlib import Path

_NEWNS, _NEWUSER, _NEWNET = 0x00020000, 0x10000000, 0x40000000
_MS_REC, _MS_PRIVATE, _MS_BIND = 0x4000, 0x40000, 0x1000
_PR_SET_PDEATHSIG = 1
_TUNSETIFF = 0x400454CA
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000

_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def _call(name: str, *arguments: object) -> None:
    if getattr(_libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}(): {os.strerror(number)}")


def why_not() -> str:
    """Why there can be no laboratory here; empty where there can."""
    if _libc is None:
        return "network namespaces are Linux's"
    if shutil.which("ip") is None:
        return "`ip` of iproute2 is not installed"
    here = str(Path(__file__).parent)
    code = f"import sys; sys.path.insert(0, {here!r}); import namespaces; namespaces.try_it()"
    tried = subprocess.run(
        [sys.executable, "-P", "-c", code],
        capture_output=True,
        text=True,
        check=False,
    )
    return tried.stderr.strip().rpartition("\n")[2] if tried.returncode else ""


def try_it() -> None:
    """Do what a laboratory needs; raises OSError, or CalledProcessError, where that is forbidden."""
    enter(is_first=True)
    os.close(open_wire("10.77.0.1", []))


def die_with_parent() -> None:
    """For a child, before it runs: whoever kills its parent ends it, too."""
    assert _libc is not None
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def enter(*, is_first: bool = False) -> None:
    """Go into a new network namespace, with nothing but its loopback device.

    Args:
        is_first: make one for mounts, and where this is not root, for users, too.

    Raises:
        OSError: the system forbids it.
    """
    flags = _NEWNET
    if is_first:
        flags |= _NEWNS
        if os.geteuid() != 0:
            user, group = os.geteuid(), os.getegid()
            _call("unshare", flags | _NEWUSER)
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"0 {user} 1")
            Path("/proc/self/gid_map").write_text(f"0 {group} 1")
            flags = 0
    if flags:
        _call("unshare", flags)
    if is_first:
        _call("mount", None, b"/", None, _MS_REC | _MS_PRIVATE, None)
    _ip("link", "set", "lo", "up")


def this_one() -> int:
    """A descriptor of the network namespace in which this process is."""
    return os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def go_into(namespace: int) -> None:
    """Go into the network namespace of a descriptor."""
    _call("setns", namespace, _NEWNET)


def open_wire(address: str, more: list[str]) -> int:
    """Make the device ``wire`` with these addresses of 10.77.0.0/24.

    Returns:
        The descriptor on which its packets are read and written. The device vanishes with it.
    """
    wire = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    fcntl.ioctl(wire, _TUNSETIFF, struct.pack("16sH", b"wire", _IFF_TUN | _IFF_NO_PI))
    for each in (address, *more):
        _ip("address", "add", f"{each}/24", "dev", "wire")
    _ip("link", "set", "wire", "up")
    return wire


def use_resolver(configuration: Path) -> None:
    """Have names looked up as a file says, for this process and its children."""
    _call("mount", os.fsencode(configuration), b"/etc/resolv.conf", None, _MS_BIND, None)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
