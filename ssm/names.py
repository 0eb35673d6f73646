# SPDX-License-Identifier: Apache-2.0
"""Names of shared memory objects: open, unlink; and the end of pools that are over. The core makes them.

posix_ipc does it where it can be loaded, for names that are UTF-8. It cannot in sub-interpreters with a GIL of their
own, and without the GIL it would bring the GIL back: there the same calls are made on the directory that shm_open(3)
uses.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import stat
import sys
from pathlib import Path
from typing import Any

from ssm import _core, late
from ssm.errors import LayoutMismatch

DIRECTORY = Path("/dev/shm")
MAGIC = b"pl\x00ssm01"  # the first bytes of a pool's superblock, see layout.h
_TEMPORARY = ".ssm-new-"  # see object.c
_LOCKS = ".ssm-locks-"  # see lock_file.c
NAME_MAX = 254


def _load_posix_ipc() -> Any:
    if not getattr(sys, "_is_gil_enabled", lambda: True)():
        return None
    try:
        return importlib.import_module("posix_ipc")
    except ImportError:  # a sub-interpreter
        return None


posix_ipc = _load_posix_ipc()


def normalize(name: object) -> str:
    """Return the name with its leading slash; ValueError when it cannot be one."""
    if not isinstance(name, str):
        raise TypeError(f"a pool's name is a str, not {type(name).__name__}")
    bare = name.removeprefix("/")
    if not bare or bare in {".", ".."} or "/" in bare or "\0" in bare or bare.startswith(_TEMPORARY):
        raise ValueError(
            f"{name!r} is no name for a pool: use 1 .. {NAME_MAX} bytes without '/' and NUL, no '.', '..' or "
            f"{_TEMPORARY + '...'!r}"
        )
    size = len(os.fsencode(bare))
    if size > NAME_MAX:
        raise ValueError(
            f"a pool's name of {size} bytes is too long: the limit is {NAME_MAX}; use a shorter one"
        )
    return "/" + bare


def opener() -> Any:
    """Return what opens objects, for the core: it keeps the descriptor, which no signal handler can make it lose."""
    return None if posix_ipc is None else posix_ipc.SharedMemory


def exists(name: str) -> bool:
    """Whether anything has that name."""
    return os.path.lexists(_path(name))


def free_bytes() -> tuple[int, int]:
    """Return how many bytes are free for objects, and how many there are; 0, 0: no limit is known."""
    shm = os.statvfs(DIRECTORY)
    return shm.f_bavail * shm.f_frsize, shm.f_blocks * shm.f_frsize


def unlink(name: str) -> None:
    """Remove the name; what has it open or mapped keeps the memory. FileNotFoundError."""
    locks = _core.locks_of(name)
    _unlink(name)
    if locks:
        _core.unlink_locks(locks, False)


def _unlink(name: str) -> None:
    try:
        if posix_ipc is None or not _is_utf8(name):
            _path(name).unlink()
        else:
            posix_ipc.unlink_shared_memory(name)
    except FileNotFoundError:
        raise _not_there(name) from None
    except PermissionError:
        raise explain(_error(errno.EACCES, name), name) from None
    except Exception as error:
        if posix_ipc is None or not isinstance(error, posix_ipc.Error):
            raise
        gone = isinstance(error, posix_ipc.ExistentialError)
        raise _not_there(name) if gone else explain(_error(errno.EACCES, name), name) from None


def is_mine(name: str) -> bool:
    """Whether the name may be taken over by this user, should what has it be over."""
    try:
        return _path(name).lstat().st_uid == os.geteuid()
    except FileNotFoundError:
        return True


def retire(name: str, leaving: _core.Pool | None = None) -> bool:
    """Remove the name if its pool is this user's and over: ephemeral, and no process alive.

    Returns True when the name is free afterwards. While the core is at it, no other process may unlink the name, and
    none can attach any more: no live pool loses its name. `leaving` is that pool in this process, which has left it, or
    ends now and does not count as alive.
    """
    return _core.retire(opener(), name, leaving)


def list_names() -> list[str]:
    """Return the names of all pools that this user may read, live ones and left ones."""
    try:
        files = [path.name for path in DIRECTORY.iterdir()]
    except FileNotFoundError:
        raise _not_there("") from None
    if any(file.startswith(_TEMPORARY) for file in files):
        _core.sweep()
    found = [name for name in sorted("/" + file for file in files) if _core.begins(name, MAGIC)]
    _sweep_locks([file.removeprefix(_LOCKS) for file in files if file.startswith(_LOCKS)])
    return found


def _sweep_locks(there: list[str]) -> None:
    """Remove lock files whose pool has no name any more, and no process alive."""
    if there:
        named = {
            _core.locks_of("/" + path.name)
            for path in DIRECTORY.iterdir()
            if not path.name.startswith(_LOCKS)
        }
        for generation in there:
            with contextlib.suppress(ValueError):
                if int(generation, 16) not in named:
                    _core.unlink_locks(int(generation, 16), True)


def explain(error: Exception, name: str) -> Exception:
    """Say why the object could not be opened or removed, where the system's answer does not; or return `error`."""
    try:
        there = _path(name).lstat()
    except OSError:
        return error
    kinds = {stat.S_IFLNK: "a symbolic link", stat.S_IFDIR: "a directory", stat.S_IFIFO: "a FIFO"}
    if not stat.S_ISREG(there.st_mode):
        kind = kinds.get(stat.S_IFMT(there.st_mode), "a special file")
        return LayoutMismatch(
            f"{_path(name)} is {kind} and no shared memory object: use another name, or remove it"
        )
    if isinstance(error, PermissionError):
        return PermissionError(
            errno.EACCES,
            f"it belongs to user {there.st_uid} and group {there.st_gid}, with mode {stat.S_IMODE(there.st_mode):#o}; "
            f"this process is user {os.geteuid()}. To attach takes the right to read and write, or to read with "
            "readonly=True (Pool.create: mode=, uid=, gid=); to remove the name, to be its user, or root",
            name,
        )
    return error


def _is_utf8(name: str) -> bool:
    """Whether posix_ipc can take the name. The file system has others as well."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _path(name: str) -> Path:
    return DIRECTORY / name[1:]


def _not_there(name: str) -> OSError:
    if DIRECTORY.is_dir():
        return _error(errno.ENOENT, name)
    mount = f"mount -t tmpfs tmpfs {DIRECTORY}"
    text = f"there is no directory {DIRECTORY}, where POSIX shared memory is; mount it ({mount})"
    return OSError(errno.ENOSYS, text, name or None)


def _error(number: int, name: str) -> OSError:
    return OSError(number, os.strerror(number), name)


# ---- without a name ---------------------------------------------------------------------------------


class _Opened:
    """What the core takes from an opener: it closes the descriptor."""

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd


class Apart:
    """Where an object is that has no name: in a descriptor of the process that pickles this.

    What multiprocessing starts gets a descriptor of its own along; all others open it through /proc, while the process
    that sent it lives and has it.
    """

    __slots__ = ("_fd", "_given", "_pid")

    def __init__(self, pid: int, fd: int, given: Any) -> None:
        self._pid = pid
        self._fd = fd
        self._given = given

    @classmethod
    def of(cls, fd: int) -> Apart:
        """Return where this process has it."""
        context: Any = sys.modules.get("multiprocessing.context")
        starts = context is not None and context.get_spawning_popen() is not None
        given = late.load("multiprocessing.reduction").DupFd(fd) if starts else None
        return cls(os.getpid(), fd, given)

    def __reduce__(self) -> tuple[Any, ...]:
        return Apart, (self._pid, self._fd, self._given)

    def open(self, name: str, *, flags: int, read_only: bool) -> _Opened:
        """Open it, once."""
        if self._given is not None:
            return _Opened(self._given.detach())
        return _Opened(
            os.open(f"/proc/{self._pid}/fd/{self._fd}", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK | flags)
        )
