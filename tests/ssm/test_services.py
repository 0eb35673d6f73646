# SPDX-License-Identifier: Apache-2.0
"""Services: allocators that processes share by name.

What each does is tested in tests/allocators, form "hosted"; many processes at once in tests/stress.
"""

import os
import pickle
import signal
import time

import pytest

import ssm
from allocators import AllocPolicy, AlreadyReleased, InvalidRange, RangeInclusive, ResourceNotAvailable
from tests.isolation import move_clock, need_time_namespaces
from tests.services import KINDS, OPEN, give, key, take, used

# ---- opening ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_opened_twice_it_is_the_same(pool, kind):
    first, second = OPEN[kind](pool), OPEN[kind](pool)
    value = take(first)
    assert pool.services() == [kind]
    assert used(pool, kind) == len(second.owned()) == 1
    assert (first.name, first.pool, first.reclaim) == (kind, pool, False)
    give(second, value)
    assert used(pool, kind) == 0


@pytest.mark.parametrize(
    ("kind", "other"),
    [
        ("ids", lambda pool: pool.ids("ids", 5, 1005)),
        ("ids", lambda pool: pool.pids("ids", 1)),
        ("ids", lambda pool: pool.ids("ids", 5, 1004, reclaim=True)),
        ("addresses", lambda pool: pool.addresses("addresses", 0x1000, 0x10001)),
        ("addresses", lambda pool: pool.addresses("addresses", 0x1000, 0x10000, ranges=501)),
        ("pids", lambda pool: pool.pids("pids", order=9)),
        ("rmids", lambda pool: pool.rmids("rmids", 100)),
    ],
)
def test_other_arguments_are_an_error(pool, kind, other):
    OPEN[kind](pool)
    with pytest.raises(ValueError, match=kind) as caught:
        other(pool)
    assert isinstance(caught.value, ssm.ServiceMismatch)
    assert pool.services() == [kind]


def test_ranges_may_be_left_out(pool):
    OPEN["addresses"](pool).allocate(4)
    assert len(pool.addresses("addresses", 0x1000, 0x10000).owned()) == 1


@pytest.mark.parametrize("name", ["", "x" * 48, "a\0b"])
def test_names_that_cannot_be(pool, name):
    with pytest.raises(ValueError, match=r"1 \.\. 47 bytes"):
        pool.pids(name, 1)


def test_wrong_parameters_make_nothing(pool):
    with pytest.raises(InvalidRange):
        pool.ids("x", 5, 4)
    with pytest.raises(ssm.MetadataExhausted, match="metadata="):
        pool.ids("x", 0, 2**32 - 1)
    assert pool.services() == []
    assert pool.check() == []


def test_a_range_of_2_to_the_24_ids(make_pool):
    count = 1 << 24
    pool = make_pool(metadata=72 << 20)
    ids = pool.ids("many", 7, 7 + count - 1)
    (service,) = pool.stats().services
    assert (service.capacity, service.bytes < 4.3 * count) == (count, True)
    assert [ids.allocate_id() for _ in range(1000)] == list(range(7, 1007))
    for i in range(7, 1007, 3):
        ids.free_id(i)
    assert [ids.allocate_id() for _ in range(3)] == [7, 10, 13]


def test_metadata_exhausted(make_pool):
    pool = make_pool(metadata=64 << 10)
    names = [f"s{i}" for i in range(20)]
    with pytest.raises(ssm.MetadataExhausted):
        [pool.ids(name, 0, 999) for name in names]
    assert 10 < len(pool.services()) < 20
    with pytest.raises(ssm.MetadataExhausted):
        pool.ring("r", capacity=4096)
    pool.ids(names[0], 0, 999).allocate_id()


def test_the_directory_is_full(pool):
    for i in range(64):
        pool.pids(f"p{i}", 1)
    with pytest.raises(ssm.MetadataExhausted):
        pool.pids("one more", 1)


def test_closed_and_readonly(pool):
    ids = OPEN["ids"](pool)
    with ssm.Pool.attach(pool.name, readonly=True) as monitor:
        assert monitor.services() == ["ids"]
        with pytest.raises(PermissionError):
            OPEN["ids"](monitor)
    other = ssm.Pool.attach(pool.name)
    ids, pids = OPEN["ids"](other), OPEN["pids"](other)
    pid = pids.allocate()
    other.close()
    for call in (ids.allocate_id, ids.owned, pids.allocate, pid.free, lambda: OPEN["ids"](other)):
        with pytest.raises(ValueError, match="closed"):
            call()
    del pid  # no error either


def open_and_count(talk, name, kind):
    talk.recv()
    with ssm.Pool.attach(name) as pool:
        service = OPEN[kind](pool)
        return [key(take(service)) for _ in range(20)] if kind != "pids" else [0] * 20


@pytest.mark.parametrize("kind", KINDS)
def test_created_by_several_at_once(pool, children, kind):
    started = [children.start(open_and_count, pool.name, kind) for _ in range(4)]
    for child in started:
        child.say()
    values = [value for child in started for value in child.result()]
    assert pool.services() == [kind]
    if kind != "pids":
        assert len(set(values)) == used(pool, kind) == 80


# ---- other processes --------------------------------------------------------------------------


def use_services(talk, services):
    return [key(take(service)) for service in services if not isinstance(service, ssm.PidService)]


def test_as_arguments(pool, children, start_method):
    services = [OPEN[kind](pool) for kind in KINDS]
    assert children.run(use_services, services, method=start_method) == [5, 0x1000, 1]
    assert [used(pool, kind) for kind in KINDS] == [1, 1, 0, 1]


@pytest.mark.parametrize("kind", KINDS)
def test_pickled_it_is_the_same(pool, kind):
    service = OPEN[kind](pool, reclaim=True)
    copy = pickle.loads(pickle.dumps(service))
    assert (type(copy), copy.name, copy.reclaim) == (type(service), kind, True)
    keep = take(copy)
    assert len(service.owned()) == 1
    assert kind in repr(service)
    del keep


def test_a_pid_is_not_pickled(pool):
    with OPEN["pids"](pool).allocate() as pid, pytest.raises(TypeError):
        pickle.dumps(pid)


def use_inherited(talk, pids, pid):
    seen = [repr(pid)]
    for use in (pid.free, pid.__enter__):
        try:
            use()
        except ssm.StaleHandle as error:
            seen.append("parent" in str(error) or str(error))
    own = pids.allocate()
    return [*seen, int(own), int(pid)]


def test_an_inherited_pid_is_the_parents(pool, children):
    pids = OPEN["pids"](pool)
    pid = pids.allocate()
    seen = children.run(use_inherited, pids, pid, method="fork")
    assert seen[1:3] == [seen[1], seen[2]]
    assert seen[-2:] == [1, 0]
    assert 0 in pids
    pid.free()
    assert 0 not in pids


def drop_inherited(talk, pid):
    del pid


def test_an_inherited_pid_that_is_dropped(pool, children):
    pids = OPEN["pids"](pool)
    pid = pids.allocate()
    children.run(drop_inherited, pid, method="fork")
    assert pid in pids
    with pytest.raises(AlreadyReleased):
        pid.free() or pid.free()


# ---- owners -----------------------------------------------------------------------------------


def take_some(talk, name, reclaim):
    pool = ssm.Pool.attach(name)
    held = {kind: [take(OPEN[kind](pool, reclaim=reclaim)) for _ in range(5)] for kind in KINDS}
    talk.send(os.getpid())
    talk.recv()
    pool.close()
    del held


@pytest.mark.parametrize("reclaim", [False, True])
@pytest.mark.parametrize("end", ["kill", "close"])
def test_what_is_left_behind(pool, children, reclaim, end):
    services = {kind: OPEN[kind](pool, reclaim=reclaim) for kind in KINDS}
    mine = {kind: take(service) for kind, service in services.items()}
    child = children.start(take_some, pool.name, reclaim)
    pid = child.hear()
    for service in services.values():
        owners = [owner for _, owner in service.owned()]
        assert [o.pid for o in owners] == [os.getpid()] + [pid] * 5
        assert all(o.alive for o in owners)
    if end == "kill":
        child.kill()
    else:
        child.say()
        child.result()
    pool.reap()
    for kind, service in services.items():
        owned = service.owned()
        assert len(owned) == used(pool, kind) == (1 if reclaim else 6)
        assert [o.alive for _, o in owned] == [True] + [False] * (len(owned) - 1)
        assert [o.pid for _, o in owned[1:]] == [pid] * (len(owned) - 1)
    assert pool.check() == []
    for value, owner in services["ids"].owned():
        if not owner.alive:
            services["ids"].free_id(value)  # anybody may
    assert used(pool, "ids") == 1
    del mine


def attach_take_leave(talk, name, kill):
    with ssm.Pool.attach(name) as pool:
        held = [take(OPEN[kind](pool, reclaim=True)) for kind in KINDS]
        if kill:
            os.kill(os.getpid(), signal.SIGKILL)
        del held


def test_many_cycles_leave_nothing(pool, children):
    for kind in KINDS:
        OPEN[kind](pool, reclaim=True)
    for i in range(24):
        child = children.start(attach_take_leave, pool.name, i % 2 == 0)
        child.join()
    for _ in range(300):
        with ssm.Pool.attach(pool.name) as other:
            OPEN["ids"](other, reclaim=True).allocate_id()
    pool.reap()
    assert [used(pool, kind) for kind in KINDS] == [0] * 4
    assert [h.pid for h in pool.holders()] == [os.getpid()]
    assert pool.check() == []


def test_exact_addresses_are_shared(pool):
    one, two = OPEN["addresses"](pool), OPEN["addresses"](pool)
    one.allocate(16, 16, AllocPolicy.exact(0x2000))
    with pytest.raises(ResourceNotAvailable):
        two.allocate(1, 1, AllocPolicy.exact(0x200F))
    assert two.ranges() == [RangeInclusive(0x2000, 0x200F)]


# ---- RMIDs across time namespaces --------------------------------------------------------------

REST_S = 0.3


def in_another_time(talk, name, seconds):
    """Take and free as told, by a clock that is ahead of the test's by so many seconds."""
    move_clock(seconds)
    pool = ssm.Pool.attach(name)
    rmids = pool.rmids("rmids", 1, int(REST_S * 1e9))
    while (order := talk.recv()) != "end":
        if order == "free":
            rmids.free(1)
        else:
            take_patiently(rmids)
        talk.send(order)


def take_patiently(rmids):
    while rmids.alloc() == 0:
        time.sleep(0.002)


@pytest.mark.parametrize("seconds", [1000, -1])
def test_an_rmid_rests_as_long_in_another_time(pool, children, seconds):
    """Whoever frees it and whoever takes it then: not for the difference of their clocks, and not without its rest."""
    need_time_namespaces()
    rmids = pool.rmids("rmids", 1, int(REST_S * 1e9))
    other = children.start(in_another_time, pool.name, seconds)
    take_patiently(rmids)
    freed = time.monotonic()
    rmids.free(1)
    other.say("take")
    assert other.hear() == "take"
    assert REST_S <= time.monotonic() - freed < REST_S + 10
    freed = time.monotonic()
    other.say("free")
    assert other.hear() == "free"
    take_patiently(rmids)
    assert REST_S <= time.monotonic() - freed < REST_S + 10
    other.say("end")


def come_and_go_in_another_time(talk, name, seconds, times):
    move_clock(seconds)
    for _ in range(times):
        ssm.Pool.attach(name).close()


def test_rmids_of_processes_in_another_time(pool, children):
    """Each attached process has one, although all that are free were freed a thousand seconds in the future."""
    need_time_namespaces()
    times = 2 * pool.holder_slots
    children.run(come_and_go_in_another_time, pool.name, 1000, times)
    with ssm.Pool.attach(pool.name) as other:
        assert all(use.rmid > 0 for use in other.usage())
    assert pool.check() == []
