# SPDX-License-Identifier: Apache-2.0
"""Pools: create, attach, open, unlink; names, modes, defaults; files that are no pools, or not yet."""

import errno
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

import ssm
from tests.conftest import SHM, SMALL
from tests.effort import seconds
from tests.isolation import become, need_root
from tests.processes import PATIENCE_S, wait_until

DEFAULT_CLASSES = {
    256: 1024,
    512: 768,
    1024: 512,
    2048: 384,
    4096: 256,
    16384: 128,
    65536: 64,
    262144: 32,
    1048576: 16,
}


def file_of(pool):
    return SHM / pool.name.lstrip("/")


def processes_of(pool):
    return [h for h in pool.holders() if h.kind == "process"]


# ---- create -----------------------------------------------------------------------------------


def test_create_makes_one_object_of_that_name(make_pool, name):
    pool = make_pool(name)
    assert pool.name.lstrip("/") == name
    assert file_of(pool).stat().st_size == pool.size
    assert dict(pool.classes) == SMALL["classes"]
    assert pool.shards == 4
    assert pool.check() == []


def test_leading_slash_is_added_when_missing(make_pool, name):
    with_slash = make_pool("/" + name)
    assert file_of(with_slash) == SHM / name
    with ssm.Pool.attach(name) as other:
        assert other.generation == with_slash.generation


def test_defaults_are_the_builds(name):
    with ssm.Pool.create(name) as pool:
        assert dict(pool.classes) == DEFAULT_CLASSES
        assert pool.shards == 4
        with pool.alloc(1) as packet:
            assert packet.headroom == 256
            assert packet.block_size == 512  # 256 + 1 + 32 do not fit into 256
            assert packet.tailroom == 512 - 256 - 1
        for size, count in DEFAULT_CLASSES.items():
            assert sum(pool.free_blocks(size)) <= count
        assert pool.ring("r").capacity == 1024
        pool.unlink()


def test_memory_is_reserved_at_creation(pool):
    """A full /dev/shm is an error from create(), never a SIGBUS later: every page is there already."""
    status = file_of(pool).stat()
    assert status.st_blocks * 512 >= status.st_size


def test_generation_is_the_pools_own(make_pool):
    pools = [make_pool() for _ in range(4)]
    assert len({p.generation for p in pools}) == 4


def test_create_refuses_a_name_that_exists(make_pool, pool):
    with pytest.raises(FileExistsError, match=r"Pool\.open\(\), or exist_ok=True") as caught:
        ssm.Pool.create(pool.name)
    assert "__main__" not in str(caught.value)
    assert pool.check() == []
    with ssm.Pool.attach(pool.name) as other:
        assert other.generation == pool.generation


FORGETS_THE_GUARD = """
import multiprocessing, sys
import ssm
pool = ssm.Pool.create(sys.argv[1], ephemeral=True)
multiprocessing.set_start_method(sys.argv[2])
child = multiprocessing.Process(target=print)
child.start()
child.join()
"""


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_forgotten_main_guard_is_named(new_name, tmp_path, method):
    """The child imports the program, and comes to the line that creates the pool."""
    program = tmp_path / "program.py"
    program.write_text(FORGETS_THE_GUARD)
    command = [sys.executable, program, new_name(), method]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    assert "put it below if __name__ == '__main__'" in done.stderr


def test_sizes_of_payload(make_pool):
    """Each becomes a class that such packets fit into; two that need one block size share it."""
    pool = make_pool(classes=None, sizes={1500: 8, 1480: 4, 0: 2, 9000: 1}, headroom=32, tailroom=16)
    assert pool.classes == {64: 2, 1600: 8, 1536: 4, 9088: 1}
    with pool.alloc(9000) as packet:
        assert len(packet) == 9000
    same = make_pool(classes=None, sizes={100: 1, 110: 2}, headroom=0, tailroom=0)
    assert same.classes == {128: 3}


def test_sizes_and_classes_are_one_or_the_other(name):
    with pytest.raises(ValueError, match=r"classes=.*or sizes=.*not both"):
        ssm.Pool.create(name, classes={256: 1}, sizes={100: 1})


@pytest.mark.parametrize(("size", "named"), [(225, True), (240, True), (241, False), (1 << 70, False)])
def test_too_large_names_the_headroom_where_that_is_the_cause(make_pool, size, named):
    pool = make_pool(classes={256: 4}, headroom=32, tailroom=16)
    with pytest.raises((ssm.PacketTooLarge, OverflowError)) as caught:
        pool.alloc(size)
    assert ("headroom=0" in str(caught.value)) is named


def test_exist_ok_takes_the_pool_that_is_there(pool):
    packet = pool.alloc(5)
    with ssm.Pool.create(pool.name, exist_ok=True, **SMALL) as other:
        assert other.generation == pool.generation
        assert len(processes_of(other)) >= 1
    packet[0:5] = b"still"
    assert bytes(packet) == b"still"
    packet.free()


def test_open_creates_or_attaches(name):
    with ssm.Pool.open(name, **SMALL) as first, ssm.Pool.open(name, **SMALL) as second:
        assert first.generation == second.generation
        first.unlink()
    with pytest.raises(FileNotFoundError):
        ssm.Pool.attach(name)


def open_at_once(talk, name):
    talk.send("ready")
    talk.recv()
    with ssm.Pool.open(name, **SMALL) as pool:
        packet = pool.alloc(8)
        packet.free()
        return pool.generation


def test_open_is_free_of_races(children, new_name):
    for _ in range(5):
        name = new_name()
        openers = [children.start(open_at_once, name) for _ in range(4)]
        for child in openers:
            assert child.hear() == "ready"
        for child in openers:
            child.say("go")
        assert len({child.result() for child in openers}) == 1
        ssm.Pool.unlink(name)


@pytest.mark.parametrize(
    "bad",
    [
        {"classes": {}},
        {"classes": {32: 4}},  # below 64 bytes
        {"classes": {256: 0}},
        {"classes": {256: -1}},
        {"classes": None, "sizes": {}},
        {"classes": None, "sizes": {256: 0}},
        {"classes": None, "sizes": {-1: 4}},
        {"classes": {-256: 4}},
        {"classes": {0: 4}},
        {"shards": 0},
        {"shards": -1},
        {"shards": 1000},
        {"headroom": -1},
        {"tailroom": -1},
        {"cache": -1},
        {"holders": 0},
        {"holders": -5},
        {"headroom": 1 << 40},
        {"classes": {i * 64: 1 for i in range(1, 40)}},  # more than 32 classes
    ],
    ids=str,
)
def test_arguments_out_of_range(name, bad):
    with pytest.raises((ValueError, OverflowError)):
        ssm.Pool.create(name, **(SMALL | bad))
    assert not (SHM / name).exists()


@pytest.mark.parametrize(
    "bad", [{"classes": 256}, {"classes": {"a": 1}}, {"shards": "4"}, {"cache": 1.5}], ids=str
)
def test_arguments_of_the_wrong_type(name, bad):
    with pytest.raises((TypeError, AttributeError)):
        ssm.Pool.create(name, **(SMALL | bad))
    assert not (SHM / name).exists()


@pytest.mark.parametrize("bad", ["", "/", "a/b", "/a/b", "..", "x" * 300, "nul\0inside"], ids=repr)
@pytest.mark.parametrize("how", ["create", "open", "attach"])
def test_names_that_are_none(bad, how):
    with pytest.raises((ValueError, OSError)):
        getattr(ssm.Pool, how)(bad)


@pytest.mark.parametrize("bad", [None, 7, b"bytes"], ids=repr)
def test_names_of_the_wrong_type(bad):
    with pytest.raises(TypeError):
        ssm.Pool.attach(bad)


@pytest.mark.parametrize("shards", [1, 2, 3, 7, 16])
def test_number_of_shards(make_pool, shards):
    pool = make_pool(shards=shards, cache=0)
    assert pool.shards == shards
    assert pool.free_blocks(256) == (64,) + (0,) * (shards - 1)


def test_a_pool_larger_than_4_gib(name):
    """Blocks of 512 MiB: few descriptors, and offsets that 32 bits do not hold."""
    free = os.statvfs(SHM)
    if min(free.f_bavail * free.f_frsize, memory_available()) < 12 << 30:
        pytest.skip("needs 12 GiB of free memory")
    with ssm.Pool.create(name, classes={512 << 20: 9}, headroom=0, tailroom=0) as pool:
        pool.unlink()
        packets = [pool.alloc(512 << 20) for _ in range(9)]
        for k, packet in enumerate(packets):
            packet[0], packet[(512 << 20) - 1] = k, 100 + k
        assert [(p[0], p[(512 << 20) - 1]) for p in packets] == [(k, 100 + k) for k in range(9)]
        for packet in packets:
            packet.free()


def memory_available():
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0


# ---- mode -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mask", "mode"), [(0o077, 0o666), (0o022, 0o660), (0o777, 0o640), (0, 0o600)], ids=oct
)
def test_mode_is_exact_despite_umask(new_name, mask, mode):
    name = new_name()
    old = os.umask(mask)
    try:
        pool = ssm.Pool.create(name, mode=mode, **SMALL)
    finally:
        os.umask(old)
    with pool:
        assert stat.S_IMODE(file_of(pool).stat().st_mode) == mode


def test_mode_is_private_unless_asked(new_name):
    old = os.umask(0)
    try:
        pool = ssm.Pool.create(new_name(), **SMALL)
    finally:
        os.umask(old)
    with pool:
        assert stat.S_IMODE(file_of(pool).stat().st_mode) == 0o600


def attach_as_nobody(talk, name):
    become()
    ssm.Pool.attach(name)


def test_another_user_is_kept_out(children, pool):
    need_root()
    how, (error, _) = children.start(attach_as_nobody, pool.name).outcome()
    assert (how, error) == ("raised", "PermissionError")


# ---- attach, close, unlink --------------------------------------------------------------------


def test_attach_needs_a_pool(name):
    began = time.monotonic()
    with pytest.raises(FileNotFoundError):
        ssm.Pool.attach(name)
    assert time.monotonic() - began < 20
    assert not (SHM / name).exists()


def attach_and_describe(talk, name):
    with ssm.Pool.attach(name) as pool:
        with pool.alloc(5) as packet:
            packet[0:5] = b"hello"
        return pool.name, pool.size, dict(pool.classes), pool.shards, pool.generation


def test_attach_sees_the_same_pool(children, start_method, pool):
    seen = children.run(attach_and_describe, pool.name, method=start_method)
    assert seen == (pool.name, pool.size, dict(pool.classes), pool.shards, pool.generation)


def test_two_attachments_in_one_process(pool):
    with ssm.Pool.attach(pool.name) as other:
        ours, theirs = pool.alloc(10), other.alloc(10)
        assert ours.handle != theirs.handle
        ours[0:10] = b"x" * 10
        assert bytes(ours) == b"x" * 10
        theirs.free()
        ours.free()
        assert pool.check() == []


def test_context_manager_closes_and_does_not_unlink(name):
    with ssm.Pool.create(name, **SMALL) as pool:
        generation = pool.generation
    with ssm.Pool.attach(name) as again:
        assert again.generation == generation
        again.unlink()
    assert not (SHM / name).exists()


def test_unlink_takes_the_name_not_the_memory(children, name):
    with ssm.Pool.create(name, **SMALL) as pool:
        child = children.start(hold_one_packet, name)
        child.hear()
        ssm.Pool.unlink(name)
        assert not (SHM / name).exists()
        with pytest.raises(FileNotFoundError):
            ssm.Pool.unlink(name)
        with pool.alloc(3) as packet:
            packet[0:3] = b"abc"
        with ssm.Pool.create(name, **SMALL) as newer:
            assert newer.generation != pool.generation
            assert sum(h.blocks for h in newer.holders()) == 0
            newer.unlink()
        child.say()
        assert child.result() == b"held"


def hold_one_packet(talk, name):
    with ssm.Pool.attach(name) as pool:
        packet = pool.alloc(4)
        packet[0:4] = b"held"
        talk.send(packet.handle)
        talk.recv()
        value = bytes(packet)
        packet.free()
        return value


def test_unlink_of_nothing(name):
    with pytest.raises(FileNotFoundError):
        ssm.Pool.unlink(name)


def test_pools_do_not_mix(make_pool):
    one, two = make_pool(), make_pool()
    a, b = one.alloc(1), two.alloc(1)
    a[0], b[0] = 1, 2
    assert (a[0], b[0]) == (1, 2)
    with pytest.raises((ssm.SSMError, ValueError)):
        two.ring("r", capacity=4).put(a, block=False)
    assert a[0] == 1
    a.free()
    b.free()


def test_holders_exhausted(make_pool):
    pool = make_pool(holders=64)
    kept = []
    for _ in range(63):
        kept.append(ssm.Pool.attach(pool.name))
    with pytest.raises(ssm.HoldersExhausted):
        ssm.Pool.attach(pool.name)
    assert pool.check() == []
    kept.pop().close()
    with ssm.Pool.attach(pool.name) as again:  # a closed attachment's slot is free again
        again.alloc(1).free()
    for other in kept:
        other.close()
    assert len(processes_of(pool)) == 1


def test_slots_come_back(make_pool):
    pool = make_pool(holders=64)
    for _ in range(200):
        with ssm.Pool.attach(pool.name) as other:
            other.alloc(1).free()
    assert pool.check() == []


# ---- read-only --------------------------------------------------------------------------------


def test_readonly_looks_and_does_not_touch(pool):
    before = len(processes_of(pool))
    packet = pool.alloc(9)
    with ssm.Pool.attach(pool.name, readonly=True) as monitor:
        assert len(processes_of(pool)) == before
        assert monitor.generation == pool.generation
        assert monitor.stats().to_dict()["classes"] == pool.stats().to_dict()["classes"]
        assert sum(h.blocks for h in monitor.holders()) == 1
        for attempt in (lambda: monitor.alloc(1), lambda: monitor.alloc_many(2, 1)):
            with pytest.raises((ssm.SSMError, PermissionError)):
                attempt()
        with pytest.raises((ssm.SSMError, PermissionError)):
            monitor.packet(packet.handle)
    packet.free()


def test_readonly_does_not_need_the_right_to_write(children, new_name):
    need_root()
    with ssm.Pool.create(new_name(), mode=0o644, **SMALL) as pool:
        assert children.run(look_as_nobody, pool.name) == pool.generation


def look_as_nobody(talk, name):
    become()
    with ssm.Pool.attach(name, readonly=True) as pool:
        assert sum(pool.free_blocks(256)) > 0
        return pool.generation


# ---- ephemeral --------------------------------------------------------------------------------


def test_ephemeral_goes_with_the_last_close(name):
    pool = ssm.Pool.create(name, ephemeral=True, **SMALL)
    other = ssm.Pool.attach(name)
    pool.close()
    assert (SHM / name).exists()
    other.alloc(1).free()
    other.close()
    assert not (SHM / name).exists()


def close_quietly(talk, name):
    pool = ssm.Pool.attach(name)
    talk.send("here")
    talk.recv()
    pool.close()


def test_ephemeral_outlives_its_creator(children, start_method, name):
    pool = ssm.Pool.create(name, ephemeral=True, **SMALL)
    child = children.start(close_quietly, name, method=start_method)
    child.hear()
    pool.close()
    assert (SHM / name).exists()
    child.say()
    child.result()
    assert not (SHM / name).exists()


def end_with_a_view(name, make):
    """A process that ends while a view of its pool is alive."""
    program = f"import ssm; pool = {make}; view = memoryview(pool.alloc(10)); pool.close(); view[0] = 1"
    subprocess.run([sys.executable, "-X", "dev", "-W", "error", "-c", program], check=True, timeout=60)


_kept = []


def stay_to_the_end(talk, pool, view):
    """It ends without a close."""
    pool = ssm.Pool.attach(pool) if isinstance(pool, str) else pool
    packet = pool.alloc(1)
    _kept.extend([pool, memoryview(packet) if view else packet])
    talk.send("here")
    talk.recv()


@pytest.mark.parametrize("view", [False, True], ids=["packet", "view"])
@pytest.mark.parametrize("sent", ["name", "pool"])
def test_ephemeral_goes_with_a_child_that_ends(children, start_method, name, sent, view):
    """multiprocessing runs no atexit functions in processes that it forks, and the fork server neither."""
    pool = ssm.Pool.create(name, ephemeral=True, **SMALL)
    child = children.start(stay_to_the_end, name if sent == "name" else pool, view, method=start_method)
    child.hear()
    pool.close()
    assert (SHM / name).exists()
    child.say()
    child.result()
    assert not (SHM / name).exists()


BEFORE_MULTIPROCESSING = """
    import os, sys
    import ssm
    pool = ssm.Pool.create(sys.argv[1], classes={1024: 8}, ephemeral=True)
    assert "multiprocessing" not in sys.modules
    import multiprocessing
    def child(here, go):
        pool.alloc(1)
        here.set()
        go.wait(60)
    context = multiprocessing.get_context("fork")
    here, go = context.Event(), context.Event()
    process = context.Process(target=child, args=(here, go))
    process.start()
    here.wait(60)
    pool.close()
    assert os.path.exists("/dev/shm/" + sys.argv[1])
    go.set()
    process.join(60)
    assert process.exitcode == 0
"""

FORKED = """
    import os, sys
    import ssm
    pool = ssm.Pool.create(sys.argv[1], classes={1024: 8}, ephemeral=True)
    (here, there), parent = os.pipe(), os.getpid()
    if os.fork() == 0:
        pool.alloc(1)
        os.write(there, b".")
        while os.getppid() == parent:
            pass
        sys.exit()
    os.read(here, 1)
    os._exit(0)
"""


@pytest.mark.parametrize(
    "program", [BEFORE_MULTIPROCESSING, FORKED], ids=["older than multiprocessing", "os.fork"]
)
def test_ephemeral_goes_with_a_forked_child(name, program):
    """It ends normally, as the last one, and has the pool from its parent."""
    subprocess.run([sys.executable, "-c", textwrap.dedent(program), name], check=True, timeout=60)
    wait_until(lambda: not (SHM / name).exists(), "the end of the pool")


def test_ephemeral_goes_with_a_process_that_ends_with_a_view(name):
    end_with_a_view(name, f"ssm.Pool.create({name!r}, ephemeral=True)")
    assert not (SHM / name).exists()
    with ssm.Pool.create(name, ephemeral=True) as pool:
        end_with_a_view(name, f"ssm.Pool.attach({name!r})")
        assert (SHM / name).exists()
        pool.reap()
        assert [holder.pid for holder in pool.holders()] == [os.getpid()]
        assert all(each.free == each.blocks for each in pool.stats().classes)
    assert not (SHM / name).exists()


def create_and_wait(talk, name, ephemeral):
    pool = ssm.Pool.create(name, ephemeral=ephemeral, **SMALL)
    talk.send(pool.generation)
    talk.recv()


@pytest.mark.parametrize("who", ["create", "open", "list"])
def test_ephemeral_after_a_crash(children, name, who):
    child = children.start(create_and_wait, name, True)
    generation = child.hear()
    child.kill()
    if who == "list":
        assert name not in [str(n).lstrip("/") for n in names_of(ssm.list_pools())]
        assert not (SHM / name).exists()
    else:
        with getattr(ssm.Pool, who)(name, **SMALL) as pool:
            assert pool.generation != generation
            pool.unlink()


def names_of(pools):
    return [getattr(p, "name", p) for p in pools]


def test_a_pool_that_is_not_ephemeral_stays_after_a_crash(children, name):
    child = children.start(create_and_wait, name, False)
    generation = child.hear()
    child.kill()
    ssm.list_pools()
    with ssm.Pool.open(name, **SMALL) as pool:
        assert pool.generation == generation
        assert pool.check() == []


def test_ephemeral_in_use_is_left_alone(children, name):
    child = children.start(create_and_wait, name, True)
    generation = child.hear()
    assert name in [str(n).lstrip("/") for n in names_of(ssm.list_pools())]
    with pytest.raises(FileExistsError):
        ssm.Pool.create(name, **SMALL)
    with ssm.Pool.open(name, **SMALL) as pool:
        assert pool.generation == generation
    child.kill()
    ssm.list_pools()


# ---- no space ---------------------------------------------------------------------------------


def test_larger_than_dev_shm_is_enospc(name):
    size = os.statvfs(SHM)
    blocks = size.f_blocks * size.f_frsize // (1 << 24) + 64
    with pytest.raises(OSError, match=r"[Nn]o space|ENOSPC") as caught:
        ssm.Pool.create(name, classes={1 << 24: blocks})
    assert caught.value.errno == errno.ENOSPC
    assert not (SHM / name).exists()


FULL_SHM = """
    import errno, os, sys
    import ssm
    small = {"classes": {1024: 64}, "headroom": 0, "tailroom": 0}
    with ssm.Pool.create("fits", **small) as pool:
        try:
            ssm.Pool.create("full", classes={65536: 256}, headroom=0, tailroom=0)
        except OSError as error:
            assert error.errno == errno.ENOSPC, error
        else:
            sys.exit("created a pool of 16 MiB in 12 MiB")
        assert os.listdir("/dev/shm") == ["fits"], os.listdir("/dev/shm")
        packets = [pool.alloc(1024) for _ in range(64)]
        for packet in packets:
            packet[0:1024] = b"x" * 1024
        assert pool.check() == []
        for packet in packets:
            packet.free()
        pool.unlink()
    print("done")
"""


def test_full_dev_shm_is_enospc():
    """In a /dev/shm of 12 MiB, seen by nobody else."""
    if shutil.which("unshare") is None:
        pytest.skip("no unshare")
    commands = [
        ["unshare", "--mount", "--propagation", "private"],
        ["unshare", "--user", "--map-root-user", "--mount"],
    ]
    script = 'mount -t tmpfs -o size=12m tmpfs /dev/shm && exec "$0" -X dev -W error -c "$1"'
    for command in commands:
        mount = "mount -t tmpfs -o size=12m tmpfs /dev/shm"
        if subprocess.run([*command, "sh", "-c", mount], capture_output=True, timeout=60).returncode == 0:
            break
    else:
        pytest.skip("a private mount namespace is not permitted")
    run = subprocess.run(
        [*command, "sh", "-c", script, sys.executable, textwrap.dedent(FULL_SHM)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout == "done\n"
    assert run.stderr == ""


# ---- what is no pool, or not yet --------------------------------------------------------------

GARBAGE = {
    "zeros": lambda size: bytes(size),
    "ones": lambda size: b"\xff" * size,
    "random": lambda size: random.Random(7).randbytes(size),
    "text": lambda size: (b"This is not a pool of packets.\n" * (size // 31 + 1))[:size],
}


@pytest.mark.parametrize("size", [1, 63, 64, 4095, 4096, 100_000])
@pytest.mark.parametrize("kind", GARBAGE)
def test_garbage_is_not_attached(name, kind, size):
    content = GARBAGE[kind](size)
    (SHM / name).write_bytes(content)
    for attempt in (lambda: ssm.Pool.attach(name), lambda: ssm.Pool.attach(name, readonly=True)):
        began = time.monotonic()
        with pytest.raises((ssm.LayoutMismatch, ssm.CorruptionError)) as caught:
            attempt()
        assert name in str(caught.value)
        assert time.monotonic() - began < 30
    with pytest.raises((ssm.SSMError, FileExistsError)):
        ssm.Pool.create(name, **SMALL)
    with pytest.raises(ssm.SSMError):
        ssm.Pool.open(name, **SMALL)
    assert (SHM / name).read_bytes() == content  # somebody else's: not touched


@pytest.mark.parametrize("keep", [0.02, 0.3, 0.9, 0.999])
def test_truncated_pool_is_not_attached(make_pool, keep):
    pool = make_pool()
    image = file_of(pool).read_bytes()
    pool.close()
    file_of(pool).write_bytes(image[: int(len(image) * keep)])
    for readonly in (False, True):
        with pytest.raises((ssm.LayoutMismatch, ssm.CorruptionError)):
            ssm.Pool.attach(pool.name, readonly=readonly)


def test_longer_pool_is_not_attached(make_pool):
    pool = make_pool()
    pool.close()
    with file_of(pool).open("ab") as file:
        file.write(bytes(8192))
    with pytest.raises((ssm.LayoutMismatch, ssm.CorruptionError)):
        ssm.Pool.attach(pool.name)


def test_a_copy_of_a_pool_with_a_scribbled_head(make_pool, name):
    """Any single byte of the first 4 KiB: an error or a pool that works, never a crash."""
    pool = make_pool()
    image = file_of(pool).read_bytes()
    seed = int(os.environ.get("SSM_TEST_SEED", "1"))
    print("seed", seed)
    rng = random.Random(seed)
    pool.close()
    positions = [*range(256), *(rng.randrange(4096) for _ in range(64))]
    outcomes = set()
    for position in positions:
        broken = bytearray(image)
        broken[position] ^= 1 << rng.randrange(8)
        (SHM / name).write_bytes(broken)
        try:
            with ssm.Pool.attach(name, timeout=0.05) as other:
                other.alloc(1).free()
                other.check()
        except (ssm.SSMError, OSError) as error:
            outcomes.add(type(error).__name__)
        else:
            outcomes.add("works")
        (SHM / name).unlink(missing_ok=True)
    assert "LayoutMismatch" in outcomes


def test_nothing_follows_a_symlink(make_pool, name, tmp_path):
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (SHM / name).symlink_to(victim)
    try:
        for attempt in (ssm.Pool.attach, ssm.Pool.open, ssm.Pool.create):
            with pytest.raises((ssm.SSMError, OSError)):
                attempt(name)
    finally:
        (SHM / name).unlink()
    assert victim.read_bytes() == b"precious"


def test_a_directory_of_that_name(name):
    (SHM / name).mkdir()
    try:
        for attempt in (ssm.Pool.attach, ssm.Pool.open, ssm.Pool.create):
            with pytest.raises((ssm.SSMError, OSError)):
                attempt(name)
    finally:
        (SHM / name).rmdir()


def create_slowly(talk, name):
    talk.send("now")
    ssm.Pool.create(name, classes={65536: 512})  # 32 MiB: tens of milliseconds


def test_creator_killed_in_the_middle(children, new_name):
    """At random moments of create: there is a pool of that name, or nothing."""
    seed = int(os.environ.get("SSM_TEST_SEED", "0")) or time.time_ns() & 0xFFFF
    print("seed", seed)
    rng = random.Random(seed)
    until = time.monotonic() + seconds(4)
    kills = made = 0
    while kills < 4 or time.monotonic() < until:
        name = new_name()
        child = children.start(create_slowly, name)
        child.hear()
        time.sleep(rng.uniform(0, 0.03))
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        kills += 1
        if (SHM / name).exists():
            made += 1
            with ssm.Pool.attach(name) as pool:
                assert pool.check() == []
                pool.unlink()
        with ssm.Pool.create(name, **SMALL) as pool:
            pool.alloc(1).free()
            pool.unlink()
    print(kills, "kills,", made, "pools made")


def attach_while_created(talk, name):
    until = time.monotonic() + 30
    while time.monotonic() < until:
        try:
            with ssm.Pool.attach(name) as pool:
                with pool.alloc(100) as packet:
                    packet[0:100] = b"." * 100
                return pool.generation
        except FileNotFoundError:
            pass
    return None


def test_attach_while_it_is_created(children, new_name):
    """Attaching all the while: never a half-made pool, never another error than FileNotFoundError."""
    for _ in range(3):
        name = new_name()
        attachers = [children.start(attach_while_created, name) for _ in range(2)]
        with ssm.Pool.create(name, classes={65536: 256}) as pool:
            assert [child.result() for child in attachers] == [pool.generation] * 2
            pool.unlink()


def test_poll_until_created(children, name):
    child = children.start(create_and_wait, name, False)
    pool = wait_until(lambda: (SHM / name).exists() and ssm.Pool.attach(name), "the pool")
    assert pool.generation == child.hear()
    pool.close()
    child.say()
    child.result()


# ---- list -------------------------------------------------------------------------------------


def test_list_pools(make_pool, name):
    (SHM / name).write_bytes(b"not a pool")
    pools = [make_pool(), make_pool()]
    listed = [str(n).lstrip("/") for n in names_of(ssm.list_pools())]
    for pool in pools:
        assert pool.name.lstrip("/") in listed
    assert name not in listed
