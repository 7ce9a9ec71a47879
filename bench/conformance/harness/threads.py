"""Stopping one thread of a process while the others go on, as a machine in trouble would."""

import ctypes
import os
from pathlib import Path

_SEIZE, _INTERRUPT, _DETACH = 0x4206, 0x4207, 17
# waitpid for threads as well as for processes.
_WALL = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long


def thread_of(pid: int, name: str) -> int:
    """The thread of a process that is called so: the eldest, for those that it starts inherit its name."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    found = [int(task.name) for task in tasks if (task / "comm").read_text().strip() == name]
    assert found, f"no thread of process {pid} is called {name}"
    return min(found)


class Stopped:
    """A context in which a thread of a child process stands still. Entered and left by one thread of ours."""

    def __init__(self, thread: int):
        self.thread = thread

    def __enter__(self) -> "Stopped":
        _ptrace(_SEIZE, self.thread)
        _ptrace(_INTERRUPT, self.thread)
        _, status = os.waitpid(self.thread, _WALL)
        assert os.WIFSTOPPED(status), f"thread {self.thread} does not stop: status {status:#x}"
        return self

    def __exit__(self, *_) -> None:
        _ptrace(_DETACH, self.thread)


def _ptrace(request: int, thread: int) -> None:
    if _libc.ptrace(request, thread, None, None) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"ptrace {request:#x} of thread {thread}: {os.strerror(error)}")
