# SPDX-License-Identifier: Apache-2.0
"""The memory of queues as ordinary programs meet it: filled before anybody reads, kept, full, and small machines."""

import logging
import logging.handlers
import os
import queue
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

import ssm
from tests.isolation import cannot_run

KIB, MIB = 1 << 10, 1 << 20
SOON_S = 60
FRAME = (480, 640)


@pytest.fixture
def make_queue(new_name):
    made = []

    def make(*args, **kwargs):
        made.append(ssm.Queue(*args, name=new_name(), **kwargs))
        return made[-1]

    yield make
    for each in made:
        each.close()


def bytes_of_file(pool):
    """What it takes of /dev/shm."""
    return Path("/dev/shm" + pool.name).stat().st_blocks * 512


def count_jobs(talk, jobs):
    return sum(1 for _ in iter(jobs.get, None))


def test_filled_before_the_workers_start(make_queue, children):
    jobs = make_queue()
    for i in range(10_000):
        jobs.put(("task", i), timeout=SOON_S)
    for _ in range(2):
        jobs.put(None)
    workers = [children.start(count_jobs, jobs) for _ in range(2)]
    assert sum(worker.result() for worker in workers) == 10_000


def test_no_log_record_is_lost(make_queue):
    q, arrived = make_queue(-1), []

    class Slow(logging.Handler):
        def emit(self, record):
            arrived.append(record.getMessage())
            time.sleep(0.0001)

    listener = logging.handlers.QueueListener(q, Slow())
    listener.start()
    log = logging.Logger("w", logging.DEBUG)
    log.addHandler(logging.handlers.QueueHandler(q))
    for i in range(5000):
        log.info("message %d", i)
    listener.stop()
    assert arrived == [f"message {i}" for i in range(5000)]


def send_frames(talk, q, count):
    for i in range(count):
        q.put((i, np.full(FRAME, i % 256, "u1")), timeout=SOON_S)


def test_arrays_that_are_kept_stop_nobody(make_queue, children):
    """A queue of 8 MiB lends three quarters of them at most; all others are copies."""
    q = make_queue(max_memory=8 * MIB)
    child = children.start(send_frames, q, 100)
    with pytest.warns(RuntimeWarning, match=r"of 8,388,608 bytes .*\(max_memory="):
        kept = [q.get(timeout=SOON_S) for _ in range(100)]
    child.result()
    assert [int(array[-1, -1]) for _, array in kept] == list(range(100))
    assert all(array.flags.writeable for _, array in kept)
    lent = [array for _, array in kept if is_view(array)]
    assert 0 < len(lent) * FRAME[0] * FRAME[1] <= 6 * MIB
    assert 0 < q.pool.stats().copied <= 100 - len(lent)  # others were cut, by the speed of both
    del kept, lent
    assert q.pool.stats().arena.used == 0


def until(error, call):
    """What it returned, one after the other, until that error."""
    got = []
    while True:
        try:
            got.append(call())
        except error:
            return got


def is_view(array):
    """Whether it lies in shared memory."""
    whose = array
    while isinstance(whose, np.ndarray):
        whose = whose.base
    return isinstance(whose, memoryview) and type(whose.obj) is ssm.Packet


@pytest.mark.parametrize(("copy", "views"), [("auto", 2), ("always", 0), ("never", 2)])
def test_copy(make_queue, copy, views):
    q = make_queue(copy=copy)
    for _ in range(2):
        q.put(np.zeros(FRAME))
    got = [q.get() for _ in range(2)]
    assert sum(map(is_view, got)) == views
    assert q.pool.stats().copied == 0
    again = ssm.Queue._reopen(*q.__reduce__()[1])
    assert again._copy == copy
    again.close()


def test_never_waits_where_all_is_kept(make_queue):
    q = make_queue(copy="never", max_memory=MIB)
    kept = until(queue.Full, lambda: q.put(np.zeros(FRAME, "u1"), timeout=0.1) or q.get())
    assert 2 <= len(kept) <= 3
    assert all(map(is_view, kept))


def test_copy_is_one_of_three_words(make_queue):
    with pytest.raises(ValueError, match="copy must be 'auto', 'always' or 'never', not 'yes'"):
        make_queue(copy="yes")


def test_a_class_of_its_own_is_lent_to_a_quarter(make_queue):
    q = make_queue(classes={1024: 8, 512 * KIB: 8})
    kept = []
    for i in range(20):
        q.put(np.full(FRAME, i, "u1"), timeout=1)
        kept.append(q.get())
    assert sum(map(is_view, kept)) == 6
    assert [int(array[0, 0]) for array in kept] == list(range(20))


# ---- how much it holds --------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [320, 385, 1000, 2049, 4097, 5000, 16_385, 65_537, 300_000])
def test_four_fifths_of_the_memory_are_payload(make_queue, size):
    q = make_queue(max_memory=4 * MIB)
    obj = os.urandom(size)
    count = len(until(ssm.QueueExhausted, lambda: q.put_nowait(obj)))
    assert count * size >= 0.8 * (4 * MIB)
    assert all(q.get() == obj for _ in range(count))
    assert q.empty()
    assert q.pool.stats().arena.used == 0


def test_an_object_that_fits_no_range_is_cut(make_queue):
    """Every second piece is free: no range has room for the whole."""
    q = make_queue(max_memory=4 * MIB, copy="never")
    held = until(ssm.PoolExhausted, lambda: q.pool.alloc(64 * KIB))
    del held[::2]
    large = np.arange(MIB // 4, dtype="u4")
    q.put(large, timeout=5)
    got = q.get()
    assert (got == large).all()
    assert not is_view(got)
    assert q.pool.check() == []


def test_who_waits_for_memory_gets_the_pieces_that_come(make_queue, children):
    q = make_queue(max_memory=4 * MIB)
    held = until(ssm.PoolExhausted, lambda: q.pool.alloc(64 * KIB))
    child = children.start(put_one, q, MIB)
    child.wait_asleep()
    del held[::2]
    assert q.get(timeout=SOON_S).sum() == MIB
    child.result()


def put_one(talk, q, size):
    q.put(np.ones(size, "u1"), timeout=SOON_S)


def test_too_large_for_all_of_it(make_queue):
    q = make_queue(max_memory=MIB)
    with pytest.raises(ssm.PacketTooLarge, match=r"larger max_memory= \(4,000,\d\d\d is enough\)"):
        q.put(bytes(2_000_000))
    make_queue(max_memory=4_001_000).put(bytes(2_000_000), timeout=5)


def test_like_has_blocks_and_grows(make_queue):
    frame = np.zeros(FRAME, "u1")
    q = make_queue(like=frame, memory=MIB)
    for _ in range(50):
        q.put(frame, timeout=5)
    assert q.pool.stats().arena.used > 0
    assert sum(q.get().nbytes for _ in range(50)) == 50 * frame.nbytes


def test_arguments(make_queue, make_pool):
    for wrong in ({"max_memory": 0}, {"max_memory": 2**41}):
        with pytest.raises(ValueError, match=r"max_memory= is 1 \.\. 2\*\*40 bytes"):
            make_queue(**wrong)
    with pytest.raises(ValueError, match="leave out memory= and max_memory="):
        make_queue(classes={512: 4}, max_memory=MIB)
    with pytest.raises(ValueError, match="leave out pool="):
        ssm.Queue(pool=make_pool(), max_memory=MIB)


# ---- limits of the process and of the machine ----------------------------------------------------------


def run(code, *, inside=None, timeout=240):
    """Run a program in a process of its own; `inside`: bytes of a /dev/shm of its own."""
    command = [sys.executable, "-c", textwrap.dedent(code)]
    if inside is not None:
        if shutil.which("unshare") is None or os.geteuid() != 0:
            cannot_run("mounting a /dev/shm takes root and unshare")
        mount = f'mount -t tmpfs -o size={inside} tmpfs /dev/shm || exit 77; exec "$@"'
        command = ["unshare", "-m", "--propagation", "private", "sh", "-c", mount, "sh", *command]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    if inside is not None and (done.returncode == 77 or "unshare" in done.stderr):
        cannot_run(f"no mount namespace: {done.stderr}")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("limit", ["RLIMIT_AS", "RLIMIT_FSIZE"])
def test_limits_of_the_process_halve_it(limit):
    most = 2 << 30 if limit == "RLIMIT_AS" else 256 * MIB
    out = run(f"""
        import resource, ssm
        resource.setrlimit(resource.{limit}, ({most}, {most}))
        with ssm.Queue() as q:
            q.put(bytes(1 << 20))
            print(q.pool.size, len(q.get()))
    """)
    size, got = map(int, out.split())
    assert 16 * MIB < size <= most
    assert got == MIB


def test_300_queues_where_dev_shm_is_small():
    """As Docker has it: 64 MiB. They need none of it, and go to processes of every kind."""
    out = run(
        """
        import multiprocessing as mp, os, sys, tempfile
        with tempfile.TemporaryDirectory() as directory:
            with open(directory + "/worker_of_300.py", "w") as file:
                file.write("def work(q, results):\\n    x = q.get()\\n    results.put((int(x.sum()), x.nbytes))\\n")
            sys.path.insert(0, directory)
            os.environ["PYTHONPATH"] = directory
            import numpy as np, ssm
            from worker_of_300 import work
            if __name__ == "__main__":
                queues = [ssm.Queue(max_memory=200 << 20) for _ in range(300)]
                q, results = queues[:2]
                for method in ("fork", "spawn", "forkserver"):
                    child = mp.get_context(method).Process(target=work, args=(q, results))
                    child.start()
                    q.put(np.ones(100 << 20, "u1"), timeout=60)
                    print(*results.get(timeout=60))
                    child.join()
                queues[2].put(q)
                again = queues[2].get()
                again.put("through a queue")
                print(q.get(timeout=60) == "through a queue", again.pool is q.pool)
                print(os.listdir("/dev/shm"), q.pool.check())
        """,
        inside=64 * MIB,
    )
    assert out.splitlines() == [f"{100 * MIB} {100 * MIB}"] * 3 + ["True True", "[] []"]


def test_next_to_no_dev_shm():
    """A queue without a name needs none."""
    out = run(
        """
        import os, ssm
        q = ssm.Queue()
        q.put(list(range(100_000)))
        print(sum(q.get()), q.pool._descriptor > 2)
        """,
        inside=KIB * 8,
    )
    assert out.split() == [str(sum(range(100_000))), "True"]


def test_its_descriptor_is_the_program_s_to_close():
    """Closed by the program, and opened as something else: neither is handed on nor closed by the queue."""
    out = run(
        """
        import os, pickle, ssm
        q = ssm.Queue()
        fd = q.pool._descriptor
        os.dup2(os.open("/dev/null", os.O_RDWR), fd)
        print(q.pool._descriptor)
        q.put(1); print(q.get())
        q.close(); del q
        os.fstat(fd)
        """,
        inside=64 * MIB,
    )
    assert out.split() == ["-1", "1"]


def test_a_full_dev_shm_is_no_reason_to_stop():
    """The estimate counts what the file system still gives: max_memory says 10 GiB, /dev/shm has 48 MiB."""
    out = run(
        """
        import os, threading, warnings
        import numpy as np, ssm
        warnings.simplefilter("ignore")
        q = ssm.Queue(name="queue-in-the-small", max_memory=10 << 30)
        def produce():
            for i in range(300):
                q.put(np.full((480, 640), i % 256, "u1"), timeout=60)
        thread = threading.Thread(target=produce)
        thread.start()
        kept = [q.get(timeout=60) for _ in range(300)]
        thread.join()
        print(sum(int(a[0, 0]) for a in kept), q.pool.stats().copied > 100, q.pool.check())
        """,
        inside=48 * MIB,
    )
    assert out.strip() == f"{sum(i % 256 for i in range(300))} True []"


def test_others_fill_and_empty_dev_shm():
    """Nobody is ended by SIGBUS, nothing is lost, the books are right."""
    out = run(
        """
        import multiprocessing as mp, os, random, time, warnings, zlib
        import numpy as np, ssm
        warnings.simplefilter("ignore")
        COUNT = 400
        def fill():
            fd = os.open("/dev/shm/filler", os.O_RDWR | os.O_CREAT)
            while True:
                for size in (8 << 20, 24 << 20, 40 << 20):
                    try:
                        os.posix_fallocate(fd, 0, size)
                    except OSError:
                        pass
                    time.sleep(0.02)
                os.ftruncate(fd, 0)
                time.sleep(0.02)
        def produce(q, seed):
            draw = random.Random(seed)
            for i in range(COUNT):
                size = int(300 * (4e6 / 300) ** draw.random())
                q.put((seed, i, np.full(size, i % 251, "u1") if i % 2 else bytes([i % 251]) * size), timeout=120)
        def consume(q, results):
            kept = []
            for seed, i, data in iter(q.get, None):
                assert data[0] == data[-1] == data[len(data) // 2] == i % 251
                kept = [*kept[-5:], data]
                results.put((seed, i))
            results.put(None)
        q, results = ssm.Queue(name="queue-beside-a-filler", max_memory=1 << 30), ssm.Queue()
        context = mp.get_context("fork")
        filler = context.Process(target=fill)
        makers = [context.Process(target=produce, args=(q, seed)) for seed in range(2)]
        takers = [context.Process(target=consume, args=(q, results)) for _ in range(2)]
        for each in (filler, *makers, *takers):
            each.start()
        for each in makers:
            each.join()
        for _ in takers:
            q.put(None)
        seen = [item for _ in takers for item in iter(results.get, None)]
        for each in takers:
            each.join()
        filler.kill()
        filler.join()
        print(sorted(seen) == [(s, i) for s in range(2) for i in range(COUNT)], [p.exitcode for p in makers + takers])
        q.pool.reap()
        print(q.pool.check(), q.pool.stats().arena.used)
        """,
        inside=64 * MIB,
    )
    assert out.splitlines() == ["True [0, 0, 0, 0]", "[] 0"]


def mixed(number, size):
    """One object of so many bytes, of the kind that its number says, and a look whether it came out whole."""
    mark = number % 251
    if number % 3 == 0:
        return np.full(size, mark, "u1"), lambda got: got[0] == got[-1] == mark and got.size == size
    if number % 3 == 1:
        return bytes([mark]) * size, lambda got: len(got) == size and got[0] == got[-1] == mark
    record = {"number": number, "frame": np.full((2, size // 2), mark, "u1"), "words": ["a", "b"] * 20}
    return (
        record,
        lambda got: got["number"] == number and got["frame"][1, -1] == mark and len(got["words"]) == 40,
    )


@pytest.mark.slow
def test_four_gib_of_mixed_objects(make_queue):
    """They go in before anything comes out. Then all of it is free, and goes back to the machine."""
    most = 6 << 30
    shm = os.statvfs("/dev/shm")
    if shm.f_bavail * shm.f_frsize < 2 * most:
        cannot_run("/dev/shm has less than 12 GiB free")
    q, draw, looks, sent = make_queue(max_memory=most), np.random.default_rng(4), [], 0
    memory = [bytes_of_file(q.pool)]
    while sent < 4 << 30:
        size = int(300 * (4e7 / 300) ** draw.random())
        obj, is_whole = mixed(len(looks), size)
        q.put(obj, timeout=SOON_S)
        looks.append(is_whole)
        sent += size
    del obj
    memory.append(bytes_of_file(q.pool))
    assert q.pool.stats().arena.used > 4 << 30
    for is_whole in looks:
        assert is_whole(q.get(timeout=SOON_S))
    assert q.pool.stats().arena.used == 0
    until = time.monotonic() + SOON_S
    while bytes_of_file(q.pool) > 64 * MIB and time.monotonic() < until:
        with pytest.raises(queue.Empty):
            q.get(timeout=0.2)
    memory.append(bytes_of_file(q.pool))
    print(f"{len(looks)} objects; MiB before, at the brim, after:", *(n // MIB for n in memory))
    before, brim, after = memory
    assert before < MIB
    assert brim > 4 << 30
    assert after < 64 * MIB
    assert q.pool.check() == []
