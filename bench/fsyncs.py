"""Counts the fsyncs of a nats-server, without root and without a tracer.

The kernel lets a process put a filter before its own system calls and have a listener told of some of them. Run as a
program, ``python fsyncs.py SOCKET PROGRAM ARGUMENT…`` does that to itself, hands the listener over SOCKET to whoever
started it, and becomes PROGRAM; each fsync then waits until it was counted. Writes to files that were opened to be
synchronous are not seen.
"""

from __future__ import annotations

import array
import ctypes
import fcntl
import os
import platform
import select
import socket
import struct
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from backhaul_local.member import Command
from backhaul_local.nats_server import NatsConfig, NatsServer

# What linux/seccomp.h, linux/filter.h and the tables of system calls say: numbers that the kernel never changes.
_CALLS = {"x86_64": (317, (74, 75)), "aarch64": (277, (82, 83))}
"""seccomp; fsync and fdatasync."""
_NO_NEW_PRIVS = 38
_SET_MODE_FILTER = 1
_NEW_LISTENER, _WAIT_KILLABLE = 1 << 3, 1 << 5
_ALLOW, _NOTIFY = 0x7FFF0000, 0x7FC00000
_LOAD, _EQUALS, _RETURN = 0x20, 0x15, 0x06
_RECEIVE, _SEND = 0xC0502100, 0xC0182101
_NOTIFICATION_BYTES = 80
_CONTINUE = 1
_STARTS_WITHIN_S = 10.0


class Fsyncs:
    """How many there were so far."""

    def __init__(self) -> None:
        self.count = 0


class CountedNats(NatsServer):
    """nats-server behind the filter; ``path`` is the socket on which the listener is expected."""

    def __init__(self, config: NatsConfig, path: Path) -> None:
        super().__init__(config)
        self._path = path

    def command(self) -> Command:
        """See Member."""
        plain = super().command()
        return Command([sys.executable, __file__, str(self._path), *plain.argv], plain.env, plain.cwd)


@contextmanager
def counting(path: Path) -> Iterator[Fsyncs]:
    """Counts for the one program that hands over its listener at ``path``, until it has ended: end it inside."""
    fsyncs = Fsyncs()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen(1)
        server.settimeout(_STARTS_WITHIN_S)
        counter = threading.Thread(target=_count, args=(server, fsyncs), daemon=True)
        counter.start()
        try:
            yield fsyncs
        finally:
            path.unlink()
            counter.join(_STARTS_WITHIN_S)


def supported() -> bool:
    """Whether this machine's kernel is one whose numbers are known."""
    return sys.platform == "linux" and platform.machine() in _CALLS


def _count(server: socket.socket, fsyncs: Fsyncs) -> None:
    try:
        connection, _ = server.accept()
    except TimeoutError:
        return  # Nobody came; whoever waits for the program says so.
    with connection:
        _, (listener, *_), _, _ = socket.recv_fds(connection, 1, 1)
    events = select.poll()
    events.register(listener, select.POLLIN)
    try:
        while not events.poll()[0][1] & select.POLLHUP:  # It hangs up when the program has ended.
            notification = bytearray(_NOTIFICATION_BYTES)
            try:
                fcntl.ioctl(listener, _RECEIVE, notification)
                (number,) = struct.unpack_from("Q", notification)
                fcntl.ioctl(listener, _SEND, struct.pack("QqiI", number, 0, 0, _CONTINUE))
            except FileNotFoundError:
                continue  # A signal interrupted it; it comes again.
            fsyncs.count += 1
    finally:
        os.close(listener)


def _listener() -> int:
    """The listener of a filter that holds every fsync of this process, and of what it becomes."""
    libc = ctypes.CDLL(None, use_errno=True)
    seccomp, calls = _CALLS[platform.machine()]
    program = [(_LOAD, 0, 0, 0)]
    # Jumps count from the next instruction: the last one notifies, the one before it allows.
    program += [(_EQUALS, len(calls) - n, 0, call) for n, call in enumerate(calls)]
    program += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _NOTIFY)]
    code = array.array("B", b"".join(struct.pack("HBBI", *one) for one in program))
    head = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(program), code.buffer_info()[0]))
    libc.syscall.restype = ctypes.c_long
    # Whoever gives up every chance of more rights may filter its own calls.
    libc.prctl(_NO_NEW_PRIVS, *(ctypes.c_ulong(one) for one in (1, 0, 0, 0)))
    # Older kernels do not know the second flag: an fsync that a signal interrupts may then be counted twice.
    for flags in (_NEW_LISTENER | _WAIT_KILLABLE, _NEW_LISTENER):
        numbers = (ctypes.c_long(one) for one in (seccomp, _SET_MODE_FILTER, flags))
        listener = int(libc.syscall(*numbers, head))
        if listener >= 0:
            return listener
    raise OSError(ctypes.get_errno(), "The kernel takes no filter with a listener")


def main() -> None:
    """See the module."""
    path, *program = sys.argv[1:]
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        socket.send_fds(connection, [b"1"], [_listener()])
    os.execv(program[0], program)  # noqa: S606  # the stack's own command


if __name__ == "__main__":
    main()
