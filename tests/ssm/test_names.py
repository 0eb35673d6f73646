# SPDX-License-Identifier: Apache-2.0
"""Whose name it is: other users, other kinds of files, names that are taken over and those that are not."""

import os
import stat
import time

import pytest

import ssm
from ssm import names
from tests.conftest import SHM, SMALL
from tests.isolation import become, need_root

SOON_S = 5.0

pytestmark = pytest.mark.usefixtures("patience")


@pytest.fixture
def patience():
    """No test here waits for long."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began < 4 * SOON_S


@pytest.fixture(params=[True, False], ids=["posix_ipc", "without posix_ipc"])
def either_way(request, monkeypatch):
    """With posix_ipc, and as where it cannot be loaded."""
    if not request.param:
        monkeypatch.setattr(names, "posix_ipc", None)
    elif names.posix_ipc is None:
        pytest.skip("posix_ipc is not there")


def outcome(call):
    """Name of the exception, and its text."""
    try:
        call()
    except Exception as error:
        return type(error).__name__, str(error)
    return "returned", ""


# ---- what is no file --------------------------------------------------------------------------


def make_directory(path, target):
    path.mkdir()


def make_fifo(path, target):
    os.mkfifo(path)


def make_link(path, target):
    path.symlink_to(target)


def make_dangling_link(path, target):
    path.symlink_to(target.with_name("nothing"))


@pytest.fixture(
    params=[make_directory, make_fifo, make_link, make_dangling_link], ids=lambda m: m.__name__[5:]
)
def odd(request, name, tmp_path):
    """A name that leads to no shared memory object; what a link leads to."""
    target = tmp_path / "target"
    target.write_bytes(b"precious")
    path = SHM / name
    request.param(path, target)
    before = path.lstat()
    yield name, {"directory": "directory", "fifo": "FIFO"}.get(request.param.__name__[5:], "symbolic link")
    after = path.lstat()
    assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)
    assert target.read_bytes() == b"precious"
    assert list(tmp_path.iterdir()) == [target]
    if stat.S_ISDIR(before.st_mode):
        path.rmdir()
    else:
        path.unlink()


@pytest.mark.parametrize("readonly", [False, True])
def test_attach_to_what_is_no_file(either_way, odd, readonly):
    name, kind = odd
    with pytest.raises(ssm.LayoutMismatch, match=kind):
        ssm.Pool.attach(name, readonly=readonly)


def test_open_what_is_no_file(either_way, odd):
    name, kind = odd
    with pytest.raises(ssm.LayoutMismatch, match=kind):
        ssm.Pool.open(name, **SMALL)


def test_create_over_what_is_no_file(either_way, odd):
    name, kind = odd
    with pytest.raises(FileExistsError):
        ssm.Pool.create(name, **SMALL)
    with pytest.raises(ssm.LayoutMismatch, match=kind):
        ssm.Pool.create(name, exist_ok=True, **SMALL)


def test_lists_pass_over_what_is_no_file(odd):
    assert "/" + odd[0] not in ssm.list_pools()


def test_unlink_does_not_follow(either_way, name, tmp_path):
    target = tmp_path / "target"
    target.write_bytes(b"precious")
    (SHM / name).symlink_to(target)
    ssm.Pool.unlink(name)
    assert not (SHM / name).is_symlink()
    assert target.read_bytes() == b"precious"


def test_a_link_to_a_pool_is_not_followed(either_way, make_pool, new_name):
    """Not even where it leads to a pool."""
    pool, other = make_pool(), new_name()
    (SHM / other).symlink_to(SHM / pool.name[1:])
    with pytest.raises(ssm.LayoutMismatch, match="symbolic link"):
        ssm.Pool.attach(other)
    ssm.Pool.unlink(other)
    ssm.Pool.attach(pool.name).close()


# ---- somebody else's --------------------------------------------------------------------------


@pytest.fixture
def stranger():
    """A user of this worker's own: another one's list_pools() would take away what these tests leave unfinished."""
    need_root()
    return 1_000_000 + os.getpid()


def as_stranger(talk, uid, calls, name):
    become(uid)
    return {call: outcome(lambda call=call: CALLS[call](name)) for call in calls}


CALLS = {
    "attach": lambda name: ssm.Pool.attach(name).close(),
    "attach readonly": lambda name: ssm.Pool.attach(name, readonly=True).close(),
    "attach patiently": lambda name: ssm.Pool.attach(name, timeout=0.3).close(),
    "open": lambda name: ssm.Pool.open(name, **SMALL).close(),
    "create": lambda name: ssm.Pool.create(name, **SMALL).close(),
    "create exist_ok": lambda name: ssm.Pool.create(name, exist_ok=True, **SMALL).close(),
    "unlink": ssm.Pool.unlink,
    "list": lambda name: ssm.list_pools(),
}
TAKING = ("attach", "attach patiently", "open", "create exist_ok", "unlink")


def inode(name):
    return (SHM / name).lstat().st_ino


def test_somebody_elses_pool(either_way, children, make_pool, name, stranger):
    """Another user gets PermissionError whatever it tries, and the pool does not notice."""
    pool = make_pool(name)
    packet = pool.alloc(4)
    before = inode(name)
    said = children.run(as_stranger, stranger, list(CALLS), name)
    assert {call: said[call][0] for call in TAKING} == dict.fromkeys(TAKING, "PermissionError")
    assert said["attach readonly"][0] == "PermissionError"
    assert said["create"][0] == "FileExistsError"
    assert said["list"][0] == "returned"
    assert inode(name) == before
    assert len([h for h in pool.holders() if h.kind == "process"]) == 1
    packet.free()


@pytest.mark.parametrize("content", [b"", names.MAGIC, names.MAGIC + bytes(5000)], ids=["empty", "8", "5008"])
@pytest.mark.parametrize("call", list(CALLS))
def test_what_is_no_pool_stays(either_way, name, content, call):
    """An empty file above all: nobody takes it for an unfinished pool, for there are none that others can see."""
    (SHM / name).write_bytes(content)
    before = inode(name)
    began = time.monotonic()
    said = outcome(lambda: CALLS[call](name))[0]
    assert time.monotonic() - began < SOON_S
    if call == "unlink":  # says so
        assert said == "returned"
        return
    corrupt = ("CorruptionError",) if len(content) > 5000 else ()
    wanted = {"create": ("FileExistsError",), "list": ("returned",)}
    assert said in wanted.get(call, ("LayoutMismatch", *corrupt))
    assert inode(name) == before
    assert (SHM / name).read_bytes() == content


def make_and_die(talk, uid, name, mode):
    become(uid)
    pool = ssm.Pool.create(name, ephemeral=True, mode=mode, **SMALL)
    assert not pool.closed
    os._exit(0)


def test_another_users_ephemeral_pool(children, name, stranger):
    """Nobody alive is in it: its owner removes it, others leave it, and may use it where they may write."""
    child = children.start(make_and_die, stranger, name, 0o666)
    child.join()
    assert "/" + name in ssm.list_pools()
    with ssm.Pool.attach(name) as pool:
        pool.alloc(1).free()
    assert (SHM / name).exists()
    said = children.run(as_stranger, stranger, ["list", "attach"], name)
    assert said == {"list": ("returned", ""), "attach": said["attach"]}
    assert said["attach"][0] == "FileNotFoundError"
    assert not (SHM / name).exists()


def another_program(talk, uid, name):
    become(uid)
    (SHM / name).write_bytes(b"another program's" * 1000)
    (SHM / name).chmod(0o666)


@pytest.mark.parametrize("call", list(CALLS))
def test_another_programs_object(either_way, children, name, stranger, call):
    children.run(another_program, stranger, name)
    if call not in ("unlink", "list"):
        assert outcome(lambda: CALLS[call](name))[0] in ("LayoutMismatch", "FileExistsError")
    assert (SHM / name).read_bytes() == b"another program's" * 1000


# ---- shared with a group ----------------------------------------------------------------------


def share_with_group(talk, name, mode, gid):
    """With the umask that would cut it most."""
    os.umask(0o077)
    os.setgid(gid)
    pool = ssm.Pool.create(name, mode=mode, **SMALL)
    talk.send(stat.S_IMODE((SHM / name).stat().st_mode))
    talk.recv()
    with pool.ring("r").get(timeout=SOON_S) as packet:
        return bytes(packet)


def put_as_member(talk, name, gid):
    become(gid=gid)  # nobody, and in one group
    with ssm.Pool.attach(name) as pool:
        pool.ring("r").send(b"from a member")


GROUP = 54321  # nobody's


@pytest.mark.parametrize(
    ("mode", "member", "allowed"), [(0o660, GROUP, True), (0o660, GROUP + 1, False), (0o600, GROUP, False)]
)
def test_a_group(children, name, mode, member, allowed):
    need_root()
    owner = children.start(share_with_group, name, mode, GROUP)
    assert owner.hear() == mode
    how, value = children.start(put_as_member, name, member).outcome()
    assert (how == "returned") is allowed
    assert allowed or value[0] == "PermissionError"
    if allowed:
        owner.say()
        assert owner.result() == b"from a member"
    owner.kill()
    ssm.Pool.unlink(name)
