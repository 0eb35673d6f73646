# SPDX-License-Identifier: Apache-2.0
"""Strange machines: what the system lacks is said as such, at once, and nothing is left; what it has suffices."""

import errno
import os
import resource
import shutil
import subprocess
import sys
import textwrap

import pytest

import ssm
from tests.conftest import SHM
from tests.isolation import F_OFD_SETLK, become, cannot_run, forbid, forbid_unnamed_files, need_root

SOON_S = 20.0  # of what does not wait


def error_of(call, *args, **kwargs):
    """The OSError that it raises: errno and text."""
    try:
        call(*args, **kwargs)
    except OSError as error:
        return error.errno, str(error)
    raise AssertionError(f"{call} raised nothing")


# ---- mount namespaces ---------------------------------------------------------------------------

UNSHARE = (
    ["unshare", "--mount", "--propagation", "private"],
    ["unshare", "--user", "--map-root-user", "--mount"],
)
TRY = """
    import errno, os, sys
    import ssm
    calls = {
        "create": lambda: ssm.Pool.create("odd", classes={512: 8}).close(),
        "create exist_ok": lambda: ssm.Pool.create("odd", classes={512: 8}, exist_ok=True).close(),
        "open": lambda: ssm.Pool.open("odd", classes={512: 8}).close(),
        "attach": lambda: ssm.Pool.attach("odd").close(),
        "attach patiently": lambda: ssm.Pool.attach("odd", timeout=60).close(),
        "queue": lambda: ssm.Queue(memory=1 << 20),
        "list": ssm.list_pools,
        "unlink": lambda: ssm.Pool.unlink("odd"),
    }
    for name in sys.argv[1:]:
        try:
            calls[name]()
            print(name, "worked")
        except Exception as error:
            print(name, type(error).__name__, errno.errorcode.get(getattr(error, "errno", 0), 0), error)
"""


def run_mounted(mounts, *calls, program=TRY):
    """Lines that the program prints in a mount namespace of its own."""
    if shutil.which("unshare") is None:
        cannot_run("no unshare")
    for command in UNSHARE:
        if subprocess.run([*command, "true"], capture_output=True, timeout=SOON_S).returncode == 0:
            break
    else:
        cannot_run("a private mount namespace is not permitted")
    script = f'{mounts} && exec "$0" -c "$@"'
    run = subprocess.run(
        [*command, "sh", "-c", script, sys.executable, textwrap.dedent(program), *calls],
        capture_output=True,
        text=True,
        timeout=SOON_S,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.splitlines()


ALL = ("create", "create exist_ok", "open", "attach", "attach patiently", "queue")


def test_no_dev_shm(tmp_path):
    """A chroot, or a minimal container."""
    nodes = "".join(
        f" && touch {tmp_path}/{n} && mount --bind /dev/{n} {tmp_path}/{n}" for n in ("null", "urandom")
    )
    mounts = f"mount -t tmpfs t {tmp_path}{nodes} && mount --rbind {tmp_path} /dev"
    lines = run_mounted(mounts, *ALL, "list", "unlink")
    assert len(lines) == len(ALL) + 2
    for line in lines:
        assert "OSError ENOSYS" in line
        assert "there is no directory /dev/shm" in line


def test_no_proc():
    """Looking at names needs none."""
    lines = run_mounted("mount -t tmpfs t /proc", "create", "create exist_ok", "open", "queue", "list")
    for line in lines[:-1]:
        assert "OSError ENOSYS" in line
        assert "mount -t proc proc /proc" in line
    assert lines[-1] == "list worked"


def test_read_only_dev_shm():
    lines = run_mounted("mount -t tmpfs -o ro t /dev/shm", "create", "open", "queue", "list", "attach")
    for line in lines[:3]:
        assert "OSError EROFS" in line
        assert "remount,rw" in line
    assert lines[3] == "list worked"
    assert "FileNotFoundError" in lines[4]


@pytest.mark.parametrize(
    "mounts",
    [
        "mount -t tmpfs -o noexec,nosuid,nodev t /dev/shm",
        "mount -t ramfs t /dev/shm",
        "mount --bind {} /dev/shm",
    ],
    ids=["noexec", "ramfs", "a directory"],
)
def test_other_kinds_of_dev_shm(tmp_path, mounts):
    lines = run_mounted(mounts.format(tmp_path), "create", "attach", "open", "list", "unlink", "queue")
    assert [line.split()[-1] for line in lines] == ["worked"] * 6


CROWD = """
    import os, sys
    import ssm
    go = os.pipe()
    for _ in range(6):
        if os.fork() == 0:
            os.close(go[1])
            os.read(go[0], 1)
            with ssm.Pool.open("crowded", classes={1 << 20: 35}, headroom=0, tailroom=0) as pool:
                pool.alloc(1).free()
            os._exit(0)
    os.close(go[1])
    print(*(os.waitstatus_to_exitcode(os.wait()[1]) for _ in range(6)))
"""


def test_many_open_a_pool_for_which_there_is_room_once():
    """Each makes it, and one gets it done; the others take that one."""
    lines = run_mounted("mount -t tmpfs -o size=64m t /dev/shm", program=CROWD)
    assert lines == ["0 0 0 0 0 0"]


# ---- kernels ------------------------------------------------------------------------------------


def without_locks(talk, name):
    forbid("fcntl", 1, F_OFD_SETLK, errno.EINVAL)
    return [error_of(call, name) for call in (ssm.Pool.create, ssm.Pool.open)]


def test_no_open_file_description_locks(children, name):
    for number, text in children.run(without_locks, name):
        assert number == errno.ENOSYS
        assert "F_OFD_SETLK" in text
    assert not (SHM / name).exists()


def without_locks_and_unnamed_files(talk, name):
    forbid_unnamed_files()
    return without_locks(talk, name)


def test_neither_locks_nor_unnamed_files(children, name):
    """Not even a temporary name is left: nobody could tell whose it is."""
    before = set(SHM.iterdir())
    assert children.run(without_locks_and_unnamed_files, name)[0][0] == errno.ENOSYS
    assert not any(path.name.startswith(".ssm-new-") for path in set(SHM.iterdir()) - before)


# ---- limits -------------------------------------------------------------------------------------


def lock_too_much(talk, name):
    if os.geteuid() == 0:
        become()
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (1 << 20, 1 << 20))
    said = []
    for call in (ssm.Pool.create, ssm.Pool.open):
        said.append(error_of(call, name, classes={1 << 20: 4}, mlock=True))
        assert not (SHM / name).exists()
    with ssm.Pool.create(name, classes={1 << 20: 4}) as pool:
        said.append(error_of(ssm.Pool.attach, name, mlock=True))
        asked = pool.size
        pool.unlink()
    return said, asked


def test_more_than_may_be_locked(children, name):
    """It names the limit, what was asked for, and the remedy."""
    said, asked = children.run(lock_too_much, name)
    for number, text in said:
        assert number == errno.ENOMEM
        assert f"{1 << 20} (RLIMIT_MEMLOCK" in text
        assert f"lock its {asked} bytes" in text
        assert "raise the limit" in text


# ---- signals while memory is reserved --------------------------------------------------------------

SLOW = r"""
    #define _GNU_SOURCE
    #include <dlfcn.h>
    #include <errno.h>
    #include <fcntl.h>
    #include <time.h>
    static int give_up(off_t bytes)
    {
        for (long ns = (long)(bytes >> 10) * 400L; ns > 0; ns -= 500000L) {
            struct timespec t = {0, ns < 500000L ? ns : 500000L}; /* one that is over before its signal comes: 0 */
            if (nanosleep(&t, 0) != 0)
                return -1;
        }
        return 0;
    }
    #define PLAY(name) \
        int name(int fd, off_t start, off_t bytes) \
        { \
            int (*real)(int, off_t, off_t) = (int (*)(int, off_t, off_t))dlsym(RTLD_NEXT, #name); \
            return give_up(bytes) != 0 ? EINTR : real(fd, start, bytes); \
        }
    PLAY(posix_fallocate)
    PLAY(posix_fallocate64)
"""
UNDER_A_TIMER = """
    import os, signal, sys, threading, time
    import ssm
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    period = float(sys.argv[2])
    signal.setitimer(signal.ITIMER_REAL, period, period)
    began = time.monotonic()
    if sys.argv[3] == "interrupt":
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        ssm.Pool.create(sys.argv[1], classes={1 << 20: int(sys.argv[4])}).unlink()
        print("created")
    except KeyboardInterrupt:
        print("interrupted", time.monotonic() - began < 2 and not os.path.exists("/dev/shm/" + sys.argv[1]))
"""


@pytest.fixture(scope="module")
def slow_kernel(tmp_path_factory):
    """A library that reserves memory as kernels before 6.11 do: a signal ends it, and undoes it."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    library = tmp_path_factory.mktemp("slow") / "slow.so"
    command = [compiler, "-shared", "-fPIC", "-o", library, "-x", "c", "-", "-ldl"]
    subprocess.run(command, input=textwrap.dedent(SLOW), text=True, check=True)
    return library


@pytest.mark.parametrize("period", ["0.01", "0.001"])
@pytest.mark.parametrize(
    ("end", "megabytes", "said"), [("wait", 512, "created"), ("interrupt", 8192, "interrupted True")]
)
def test_signals_while_memory_is_reserved(slow_kernel, name, period, end, megabytes, said):
    """Under a profiler's timer it comes to an end, and it answers Ctrl-C."""
    free = os.statvfs(SHM)
    if free.f_bavail * free.f_frsize < megabytes << 21:
        megabytes = 512
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(UNDER_A_TIMER), name, period, end, str(megabytes)],
        env={**os.environ, "LD_PRELOAD": str(slow_kernel)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.stdout.strip() == said, run.stderr


# ---- other users ----------------------------------------------------------------------------------


def use_as(talk, name, uid):
    become(uid, uid)
    with ssm.Pool.attach(name) as pool:
        pool.alloc(1).free()
    ssm.Pool.unlink(name)
    return True


def test_a_pool_for_another_user(children, name):
    need_root()
    uid = 1_000_000 + os.getpid()
    with ssm.Pool.create(name, classes={512: 8}, uid=uid, gid=uid, mode=0o640) as pool:
        there = (SHM / name).stat()
        assert (there.st_uid, there.st_gid, there.st_mode & 0o777) == (uid, uid, 0o640)
        assert children.run(use_as, name, uid)
        assert not (SHM / name).exists()
        assert len([h for h in pool.holders() if h.kind == "process"]) == 1


@pytest.mark.parametrize("call", [ssm.Pool.create, ssm.Pool.open])
def test_its_maker_ends_it_where_it_is_the_last(name, call):
    need_root()
    pool = call(name, classes={512: 8}, uid=1_000_000 + os.getpid(), ephemeral=True)
    assert (SHM / name).stat().st_uid != 0
    pool.close()
    assert not (SHM / name).exists()


def give_away(talk, name):
    become()
    said = []
    for owner in ({"uid": 0}, {"gid": 0}, {"uid": 1, "gid": 1}):
        with pytest.raises(PermissionError) as caught:
            ssm.Pool.create(name, classes={512: 8}, **owner)
        said.append(str(caught.value))
    with ssm.Pool.create(name, classes={512: 8}, uid=os.getuid(), gid=os.getgid()) as pool:
        pool.unlink()
    return said


def test_only_root_gives_pools_away(children, name):
    need_root()
    for text, owner in zip(children.run(give_away, name), ("uid=0", "gid=0", "uid=1, gid=1"), strict=True):
        assert owner in text
        assert "only root can" in text
    assert not (SHM / name).exists()


@pytest.mark.parametrize("owner", [{"uid": -2}, {"gid": 2**32}, {"mode": -1}, {"mode": 0o1777}])
def test_no_owner_and_no_mode(name, owner):
    with pytest.raises(ValueError, match=next(iter(owner))):
        ssm.Pool.create(name, **owner)


def refused(talk, name):
    become()
    with pytest.raises(PermissionError) as caught:
        ssm.Pool.attach(name)
    return str(caught.value)


def test_who_is_refused_hears_why(children, name):
    need_root()
    with ssm.Pool.create(name, classes={512: 8}, uid=12345, gid=54321) as pool:
        text = children.run(refused, name)
        pool.unlink()
    assert "belongs to user 12345 and group 54321, with mode 0o600" in text
    assert "this process is user 65534" in text
