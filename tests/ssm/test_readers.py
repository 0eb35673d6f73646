# SPDX-License-Identifier: Apache-2.0
"""A user who may read a pool and not write to it takes all read locks that there are.

Nobody is stopped, nobody looks alive who is not, and nothing is left of the file on which the pool's locks are.
"""

import contextlib
import fcntl
import os
import signal
import struct
import time
from pathlib import Path

import pytest

import ssm
from tests.isolation import NOBODY, become, need_root
from tests.processes import wait_until

F_OFD_SETLK = 37
SOON_S = 5.0
SHM = Path("/dev/shm")


def lock_file(pool):
    return SHM / f".ssm-locks-{pool.generation:016x}"


def read_lock(fd, start=0, length=0):
    fcntl.fcntl(fd, F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, start, length, 0))


def lock_what_can_be(talk, name, path):
    """Another user, with read locks on every byte that nobody has locked."""
    become()
    fd = os.open(SHM / name.removeprefix("/"), os.O_RDONLY)
    for byte in range(200):
        with contextlib.suppress(OSError):
            read_lock(fd, byte, 1)
    with contextlib.suppress(OSError):
        read_lock(fd, 200)
    with contextlib.suppress(PermissionError):
        path.open("rb").close()
        talk.send(f"it may open {path}")
    talk.send("locked")
    talk.recv()


def hold(talk, name):
    pool = ssm.Pool.attach(name)
    packet = pool.alloc(8)
    talk.send(packet.handle)
    talk.recv()


def fork_and_use(pool):
    pid = os.fork()
    if pid == 0:
        status = 1
        with contextlib.suppress(BaseException):
            pool.alloc(8).free()
            status = 0
        os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("mode", [0o644, 0o640, 0o664])
def test_who_may_only_read_stops_nobody(make_pool, children, mode):
    need_root()
    pool = make_pool(mode=mode, ephemeral=True)
    if mode == 0o640:
        os.chown(SHM / pool.name[1:], 0, NOBODY)
    died = children.start(hold, pool.name)
    died.hear()
    reader = children.start(lock_what_can_be, pool.name, lock_file(pool))
    assert reader.hear() == "locked"
    began = time.monotonic()
    os.kill(died.pid, signal.SIGKILL)
    wait_until(lambda: pool.reap().processes == 1, "the dead one counts as dead")
    pool.ring("new", 4).send(b"x")
    lives = children.start(hold, pool.name)
    lives.hear()
    assert {h.alive for h in pool.holders()} == {True}
    assert pool.reap() == ssm.Reaped(0, 0)
    assert fork_and_use(pool) == 0
    pool.ids("s", 0, 9).allocate_id()
    assert time.monotonic() - began < 6 * SOON_S
    lives.say()
    lives.result()
    pool.close()
    ssm.list_pools()
    assert not (SHM / pool.name[1:]).exists()
    ssm.Pool.create(pool.name, classes={512: 8}, mode=mode).close()  # the name can be had again
    ssm.Pool.unlink(pool.name)


def test_readers_see_who_lives(make_pool, children):
    need_root()
    pool = make_pool(mode=0o644)
    died, lives = (children.start(hold, pool.name) for _ in range(2))
    for child in (died, lives):
        child.hear()
    died.kill()
    assert children.run(look, pool.name) == {died.pid: False, lives.pid: True, os.getpid(): True}


def look(talk, name):
    become()
    with pytest.raises(PermissionError):
        ssm.Pool.attach(name)
    with ssm.Pool.attach(name, readonly=True) as pool:
        return {h.pid: h.alive for h in pool.holders()}


def test_a_lock_file_goes_with_its_pool(new_name):
    name = new_name()
    pool = ssm.Pool.create(name, classes={512: 8}, mode=0o644)
    file = lock_file(pool)
    assert file.stat().st_mode & 0o777 == 0o600
    pool.close()
    ssm.list_pools()
    assert file.exists()  # the pool is there still
    ssm.Pool.attach(name).close()
    with pytest.raises(FileExistsError):
        ssm.Pool.create(name, classes={512: 8}, mode=0o644)
    ssm.Pool.unlink(name)
    assert not file.exists()
    with ssm.Pool.create(name, classes={512: 8}, mode=0o664, ephemeral=True) as pool:
        file = lock_file(pool)
        assert file.stat().st_mode & 0o777 == 0o660
    assert not file.exists()


def attach_as(talk, name, uid):
    become(uid)
    with ssm.Pool.attach(name) as pool:
        pool.ring("r", 4)
    return "attached"


def test_it_belongs_to_whom_the_pool_belongs(new_name, children):
    need_root()
    name = new_name()
    with ssm.Pool.create(name, classes={512: 8}, mode=0o644, uid=NOBODY, gid=NOBODY) as pool:
        assert lock_file(pool).stat().st_uid == NOBODY
        assert children.run(attach_as, name, NOBODY) == "attached"
        file = lock_file(pool)
    ssm.Pool.unlink(name)
    assert not file.exists()


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666])
def test_where_all_readers_may_write_there_is_none(make_pool, mode):
    assert not lock_file(make_pool(mode=mode)).exists()


def test_one_that_belongs_to_nobody_is_swept(make_pool):
    pool = make_pool(mode=0o644)
    (SHM / pool.name[1:]).unlink()  # by other means
    ssm.list_pools()
    assert lock_file(pool).exists()  # somebody lives in it
    pool.ring("r", 4)
    pool.close()
    ssm.list_pools()
    assert not lock_file(pool).exists()


def test_one_that_is_gone_is_told_of(make_pool):
    pool = make_pool(mode=0o644)
    lock_file(pool).unlink()
    with pytest.raises(OSError, match="ssm-locks"):
        ssm.Pool.attach(pool.name)
    pool.ring("r", 4).send(b"x")  # who is in it goes on
    assert pool.check() == []
