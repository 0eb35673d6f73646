# SPDX-License-Identifier: Apache-2.0
"""Names of shared memory objects: create, open, unlink; and the end of pools that are over.

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
from typing import TYPE_CHECKING, Any

from ssm import _core
from ssm.errors import LayoutMismatch

if TYPE_CHECKING:
    from collections.abc import Generator

DIRECTORY = Path("/dev/shm")
MAGIC = b"pl\x00ssm01"  # the first bytes of a pool's superblock, see layout.h
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
    if not bare or bare in {".", ".."} or "/" in bare or "\0" in bare:
        raise ValueError(f"{name!r} is no name for a pool: use 1 .. {NAME_MAX} bytes without '/' and NUL")
    size = len(os.fsencode(bare))
    if size > NAME_MAX:
        raise ValueError(
            f"a pool's name of {size} bytes is too long: the limit is {NAME_MAX}; use a shorter one"
        )
    return "/" + bare


def create(name: str, mode: int) -> int:
    """Create an empty object of exactly that mode; return its descriptor. FileExistsError."""
    fd = _shm_open(name, os.O_CREAT | os.O_EXCL | os.O_RDWR)
    try:
        os.fchmod(fd, mode)
    except BaseException:
        os.close(fd)
        unlink(name)
        raise
    return fd


def open_object(name: str, *, writable: bool) -> int:
    """Open an object; return its descriptor. FileNotFoundError, PermissionError, LayoutMismatch."""
    try:
        fd = _shm_open(
            name, (os.O_RDWR if writable else os.O_RDONLY) | os.O_NONBLOCK
        )  # a FIFO may have that name
    except (FileNotFoundError, PermissionError):
        raise
    except OSError:
        _refuse_others(name, _path(name).lstat().st_mode)
        raise
    try:
        _refuse_others(name, os.fstat(fd).st_mode)
    except BaseException:
        os.close(fd)
        raise
    return fd


def unlink(name: str) -> None:
    """Remove the name; what has it open or mapped keeps the memory. FileNotFoundError."""
    if posix_ipc is None or not _is_utf8(name):
        _path(name).unlink()
        return
    try:
        posix_ipc.unlink_shared_memory(name)
    except posix_ipc.ExistentialError:
        raise _error(errno.ENOENT, name) from None
    except posix_ipc.PermissionsError:
        raise _error(errno.EACCES, name) from None


def is_name_of(name: str, fd: int) -> bool:
    """Whether the name still leads to the object behind `fd`. It takes no descriptor: none may be left."""
    try:
        return os.path.samestat(_path(name).lstat(), os.fstat(fd))
    except OSError:
        return False


def is_mine(name: str) -> bool:
    """Whether the name may be taken over by this user, should what has it be over."""
    try:
        return _path(name).lstat().st_uid == os.geteuid()
    except FileNotFoundError:
        return True


def unlink_same(name: str, fd: int) -> None:
    """Remove the name if it still leads to the object behind `fd`."""
    if is_name_of(name, fd):
        with contextlib.suppress(FileNotFoundError):
            unlink(name)


def retire(name: str, leaving: _core.Pool | None = None) -> bool:
    """Remove the name if its pool is this user's and over: abandoned by its creator, or ephemeral and nobody alive.

    Returns True when the name is free afterwards. From retire() of the core until the descriptor is closed,
    nobody else may unlink the name, and nobody can attach any more: no live pool loses its name. `leaving` is that
    pool in this process, which ends now and does not count as alive.
    """
    try:
        fd = open_object(name, writable=True)
    except FileNotFoundError:
        return True
    except (OSError, LayoutMismatch):
        return False
    try:
        over = _core.retire(fd, leaving)
        if over:
            unlink_same(name, fd)
        return over
    finally:
        os.close(fd)


def list_names() -> list[str]:
    """Return the names of all pools that this user may read, live ones and left ones."""
    return [name for name in sorted("/" + path.name for path in DIRECTORY.iterdir()) if _is_pool(name)]


def _is_utf8(name: str) -> bool:
    """Whether posix_ipc can take the name. The file system has others as well."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _path(name: str) -> Path:
    return DIRECTORY / name[1:]


def _is_pool(name: str) -> bool:
    """Judge by its first bytes: other programs' objects are not even opened for writing."""
    try:
        fd = _open(name, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        return os.pread(fd, len(MAGIC), 0) == MAGIC
    except OSError:
        return False
    finally:
        os.close(fd)


def _refuse_others(name: str, mode: int) -> None:
    """LayoutMismatch unless it is a plain file. Nothing is done to it, and no symbolic link is followed."""
    kinds = {stat.S_IFLNK: "a symbolic link", stat.S_IFDIR: "a directory", stat.S_IFIFO: "a FIFO"}
    if not stat.S_ISREG(mode):
        kind = kinds.get(stat.S_IFMT(mode), "a special file")
        raise LayoutMismatch(
            f"{_path(name)} is {kind} and no shared memory object: use another name, or remove it"
        )


def _error(number: int, name: str) -> OSError:
    return OSError(number, os.strerror(number), name)


@contextlib.contextmanager
def _above_standard() -> Generator[None]:
    """Keep what is opened in the block from becoming descriptor 0, 1 or 2, where any library may write to it.

    Those that are closed are taken meanwhile, by a mere path, to which nobody can write.
    """
    taken: list[int] = []
    try:
        for fd in range(3):
            try:
                os.fstat(fd)
            except OSError:
                taken.append(os.open("/", os.O_PATH | os.O_CLOEXEC))
        yield
    finally:
        for fd in taken:
            os.close(fd)


def _open(name: str, flags: int, mode: int = 0o600) -> int:
    with _above_standard():
        return os.open(_path(name), flags | os.O_NOFOLLOW | os.O_CLOEXEC, mode)


def _shm_open(name: str, flags: int) -> int:
    if posix_ipc is None or not _is_utf8(name):
        return _open(name, flags)
    try:
        read_only = flags & os.O_ACCMODE == os.O_RDONLY
        with _above_standard():
            memory = posix_ipc.SharedMemory(name, flags & ~os.O_ACCMODE, mode=0o600, read_only=read_only)
    except posix_ipc.ExistentialError:
        raise _error(errno.EEXIST if flags & os.O_EXCL else errno.ENOENT, name) from None
    except posix_ipc.PermissionsError:
        raise _error(errno.EACCES, name) from None
    except ValueError:  # the name is good, so it is a directory or the like
        raise _error(errno.EINVAL, name) from None
    except OSError as error:
        if error.errno is None:  # no descriptor is left; the system call says which limit it is
            return _open(name, flags)
        raise
    return int(memory.fd)
