"""Become another program that dies with its parent: ``python _launch.py <parent's pid> <program> <argument>...``.

Linux sends a process the signal of its choice when its parent ends, even by kill -9 (PR_SET_PDEATHSIG, prctl(2)); the
choice survives execve. It is made here, in a tiny program of its own, because the obvious place, `preexec_fn`, runs
Python between fork and exec: the documentation of `subprocess` warns that this can deadlock where threads run, and
both gRPC and pymongo run threads in the processes that start servers.
"""

from __future__ import annotations

import ctypes
import os
import sys

_PR_SET_PDEATHSIG = 1
_SIGKILL = 9  # The module that names it takes a third of this program's time to import.


def main() -> None:
    parent, program = int(sys.argv[1]), sys.argv[2]
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, _SIGKILL) != 0:
        sys.exit(f"prctl failed: {os.strerror(ctypes.get_errno())}")
    # The parent may have ended before the call above; then nobody is left to trigger the signal.
    if os.getppid() != parent:
        sys.exit("The process that started this one has ended.")
    try:
        os.execvp(program, sys.argv[2:])  # noqa: S606  # replacing this process without a shell is the purpose.
    except OSError as error:
        sys.exit(f"Cannot run {program}: {error.strerror}")


if __name__ == "__main__":
    main()
