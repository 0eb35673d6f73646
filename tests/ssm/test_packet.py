# SPDX-License-Identifier: Apache-2.0
"""Packets: the buffer, the window into the block, tags and handles; what is given back, when, and once."""

import gc
import io
import itertools
import struct
import sys
import weakref

import numpy as np
import pytest

import ssm

HEADROOM, TAILROOM = 32, 16  # of the pools here; 256-byte blocks hold 208 bytes, 2048-byte blocks 2000


@pytest.fixture
def pool(make_pool):
    return make_pool(cache=0)


def free(pool):
    """Free blocks of the class of 256 bytes; the pools here have no private caches."""
    return sum(pool.free_blocks(256))


# ---- the buffer -------------------------------------------------------------------------------


def test_length_is_what_was_asked_for(pool):
    for size in (1, 7, 100, 208, 209, 2000):
        with pool.alloc(size) as packet:
            assert len(packet) == packet.nbytes == size
            assert len(memoryview(packet)) == len(bytes(packet)) == size


def test_what_is_written_is_read(pool):
    with pool.alloc(10) as packet:
        packet[0:5] = b"hello"
        packet[5:10] = memoryview(b"world")
        assert bytes(packet) == b"helloworld"
        packet[0] = ord("J")
        assert packet[0] == ord("J")
        assert packet[-1] == ord("d")
        packet[-1] = 0xFF
        assert packet[9] == 0xFF
        assert bytes(packet[1:4]) == b"ell"
        packet[2:2] = b""
        assert bytes(packet[0:5]) == b"Jello"


@pytest.mark.parametrize("kind", [bytearray, memoryview, lambda b: np.frombuffer(b, "u1")])
def test_assignment_from_any_buffer(pool, kind):
    source = kind(b"12345678")
    with pool.alloc(8) as packet:
        packet[0:8] = source
        assert bytes(packet) == b"12345678"
        packet[:4] = bytes(4)
        assert bytes(packet) == b"\0\0\0\0" + b"5678"


def test_assignment_does_not_change_the_length(pool):
    with pool.alloc(8) as packet:
        packet[:] = b"ABCDEFGH"
        for part in (slice(0, 4), slice(0, 100), slice(8, 8), slice(6, 2)):
            room = len(range(*part.indices(8)))
            with pytest.raises(ValueError, match=r"."):
                packet[part] = b"x" * (room + 1)
        with pytest.raises(ValueError, match=r"."):
            packet[0:4] = b"123"
        assert bytes(packet) == b"ABCDEFGH"


def test_index_out_of_range(pool):
    with pool.alloc(4) as packet:
        for index in (4, -5, 1 << 40, -(1 << 40), 1 << 70):
            with pytest.raises(IndexError):
                packet[index]
            with pytest.raises(IndexError):
                packet[index] = 0


@pytest.mark.parametrize("value", [256, -1, 1 << 70])
def test_item_out_of_range(pool, value):
    with pool.alloc(4) as packet:
        packet[1] = 9
        with pytest.raises((ValueError, OverflowError)):
            packet[1] = value
        assert packet[1] == 9


def test_wrong_types(pool):
    with pool.alloc(4) as packet:
        with pytest.raises(TypeError):
            packet["a"]
        with pytest.raises(TypeError):
            packet[0] = "a"
        with pytest.raises(TypeError):
            packet[0:2] = "ab"
        with pytest.raises(TypeError):
            packet[0:2] = None
        with pytest.raises(TypeError):
            del packet[0]


def test_buffer_protocol(pool):
    with pool.alloc(16) as packet:
        view = memoryview(packet)
        assert not view.readonly
        assert (view.format, view.itemsize, view.ndim, view.shape, view.strides) == ("B", 1, 1, (16,), (1,))
        assert view.c_contiguous
        view[:] = bytes(range(16))
        assert struct.unpack_from("<I", packet, 4) == (0x07060504,)
        struct.pack_into(">H", packet, 0, 0xABCD)
        assert bytes(packet[0:2]) == b"\xab\xcd"
        assert io.BytesIO(bytes(16)).readinto(packet) == 16
        assert bytes(packet) == bytes(16)
        assert view.tobytes() == bytes(16)
        view.release()


def test_two_views_show_the_same_bytes(pool):
    with pool.alloc(4) as packet, memoryview(packet) as a, memoryview(packet) as b:
        a[0] = 77
        assert b[0] == packet[0] == 77


def test_payload_starts_on_a_cache_line_when_headroom_allows(make_pool):
    pool = make_pool(headroom=64)
    with pool.alloc(1) as a, pool.alloc(1) as b:
        for packet in (a, b):
            assert packet.asarray().ctypes.data % 64 == 0


def test_blocks_do_not_overlap(pool):
    packets = [pool.alloc(208) for _ in range(64)] + [pool.alloc(2000) for _ in range(16)]
    for k, packet in enumerate(packets):
        packet[:] = bytes([k]) * len(packet)
    for k, packet in enumerate(packets):
        assert bytes(packet) == bytes([k]) * len(packet)
    spans = sorted((p.asarray().ctypes.data, len(p)) for p in packets)
    for (start, length), (following, _) in itertools.pairwise(spans):
        assert start + length <= following
    for packet in packets:
        packet.free()


def test_the_whole_block_can_be_used_and_nothing_else(pool):
    """Headroom and tailroom of one packet filled to the brim leave its neighbours alone."""
    packets = [pool.alloc(208) for _ in range(3)]
    for packet in packets:
        packet[:] = b"n" * 208
    middle = packets[1]
    middle.prepend(middle.headroom)[:] = b"h" * HEADROOM
    middle.append(middle.tailroom)[:] = b"t" * TAILROOM
    assert len(middle) == 256
    for other in (packets[0], packets[2]):
        assert bytes(other) == b"n" * 208
    for packet in packets:
        packet.free()
    assert pool.check() == []


# ---- numpy ------------------------------------------------------------------------------------


def test_array_is_no_copy(pool):
    with pool.alloc(12) as packet:
        array = packet.asarray()
        assert array.dtype == np.uint8
        assert array.shape == (12,)
        assert array.flags.writeable
        array[3] = 200
        assert packet[3] == 200
        packet[4] = 201
        assert array[4] == 201
        assert not array.flags.owndata


@pytest.mark.parametrize(
    ("dtype", "shape"),
    [("<u4", None), ("u4", (6,)), ("f8", (3,)), ("u2", (3, 4)), ("i1", (2, 3, 4)), ("u1", 24)],
)
def test_array_of_any_type_and_shape(pool, dtype, shape):
    with pool.alloc(24) as packet:
        packet[:] = bytes(range(24))
        expected = np.frombuffer(bytes(range(24)), dtype)
        if shape is not None:
            expected = expected.reshape(shape)
        array = packet.asarray(dtype, shape) if shape is not None else packet.asarray(dtype=dtype)
        assert array.dtype == expected.dtype
        np.testing.assert_array_equal(array, expected)
        array[...] = 0
        assert bytes(packet) == bytes(24)


def test_array_of_a_structure(pool):
    header = np.dtype([("kind", "u1"), ("length", ">u2"), ("number", "<u4")])
    with pool.alloc(header.itemsize * 2) as packet:
        array = packet.asarray(header)
        array["number"] = [5, 6]
        array["length"] = 0x0102
        assert bytes(packet[1:3]) == b"\x01\x02"
        assert array[1]["number"] == 6


def test_array_that_does_not_fit(pool):
    with pool.alloc(10) as packet:
        for dtype, shape in (("u4", None), ("u1", (11,)), ("u1", (3, 4)), ("f8", (2,))):
            with pytest.raises(ValueError, match=r"."):
                packet.asarray(dtype, shape)
        with pytest.raises(TypeError):
            packet.asarray("nonsense")


def test_array_of_objects_is_refused(pool):
    """Pointers from shared memory would be anybody's."""
    with pool.alloc(16) as packet, pytest.raises((ValueError, TypeError)):
        packet.asarray(object)


# ---- the window -------------------------------------------------------------------------------


def test_rooms_of_a_fresh_packet(pool):
    with pool.alloc(100) as packet:
        assert packet.headroom == HEADROOM
        assert packet.tailroom == 256 - HEADROOM - 100
        assert packet.block_size == 256
        assert packet.headroom + len(packet) + packet.tailroom == packet.block_size


def test_the_four_edges(pool):
    with pool.alloc(4) as packet:
        packet[:] = b"data"
        added = packet.prepend(4)
        assert isinstance(added, memoryview)
        assert len(added) == 4
        added[:] = b"head"
        packet.append(4)[:] = b"tail"
        assert bytes(packet) == b"headdatatail"
        assert packet.headroom == HEADROOM - 4
        assert bytes(packet.trim_front(2)) == b"he"
        assert bytes(packet.trim_back(1)) == b"l"
        assert bytes(packet) == b"addatatai"
        assert packet.headroom == HEADROOM - 2
        packet.truncate(3)
        assert bytes(packet) == b"add"
        assert packet.tailroom == 256 - packet.headroom - 3
        assert len(packet.prepend(0)) == len(packet.append(0)) == 0
        assert len(packet.trim_front(0)) == len(packet.trim_back(0)) == 0
        packet.truncate(3)
        assert bytes(packet) == b"add"


def test_the_window_may_become_empty(pool):
    with pool.alloc(8) as packet:
        packet[:] = b"12345678"
        packet.trim_back(8)
        assert len(packet) == 0
        assert bytes(packet) == b""
        assert memoryview(packet).nbytes == 0
        packet.append(8)
        assert bytes(packet) == b"12345678"  # the bytes were still there
        packet.truncate(0)
        assert len(packet) == 0


@pytest.mark.parametrize(
    ("edge", "amount"),
    [
        ("prepend", HEADROOM + 1),
        ("append", 256 - HEADROOM - 100 + 1),
        ("trim_front", 101),
        ("trim_back", 101),
        ("truncate", 101),
        ("prepend", -1),
        ("append", -1),
        ("trim_front", -1),
        ("trim_back", -1),
        ("truncate", -1),
        ("prepend", (1 << 64) - 1),
        ("append", (1 << 64) - 16),
        ("append", 1 << 63),
        ("trim_front", 1 << 63),
        ("append", 1 << 80),
    ],
)
def test_no_room_changes_nothing(pool, edge, amount):
    with pool.alloc(100) as packet:
        packet[:] = b"x" * 100
        with pytest.raises((ValueError, OverflowError)):
            getattr(packet, edge)(amount)
        assert (packet.headroom, len(packet), packet.tailroom) == (HEADROOM, 100, 256 - HEADROOM - 100)
        assert bytes(packet) == b"x" * 100
    assert pool.check() == []


def test_the_window_travels_with_the_packet(pool):
    ring = pool.ring("r", capacity=4)
    packet = pool.alloc(6)
    packet[:] = b"..data"
    packet.trim_front(2)
    packet.append(3)[:] = b"end"
    packet.tag = 42
    ring.put(packet)
    with ring.get() as got:
        assert bytes(got) == b"dataend"
        assert got.tag == 42
        assert got.headroom == HEADROOM + 2


def test_a_new_packet_has_a_fresh_window_and_tag(pool):
    packet = pool.alloc(50)
    packet.prepend(10)
    packet.trim_back(5)
    packet.tag = 99
    packet.free()
    packets = [pool.alloc(50) for _ in range(64)]  # the block of before is among them
    assert {(p.headroom, len(p), p.tag) for p in packets} == {(HEADROOM, 50, 0)}
    for packet in packets:
        packet.free()


# ---- tags -------------------------------------------------------------------------------------


@pytest.mark.parametrize("tag", [0, 1, 1 << 32, (1 << 63), (1 << 64) - 1])
def test_tag_has_64_bits(pool, tag):
    with pool.alloc(1) as packet:
        packet.tag = tag
        assert packet.tag == tag


@pytest.mark.parametrize(("tag", "error"), [(-1, OverflowError), (1 << 64, OverflowError), ("a", TypeError)])
def test_tag_out_of_range(pool, tag, error):
    with pool.alloc(1) as packet:
        packet.tag = 7
        with pytest.raises((error, ValueError)):
            packet.tag = tag
        assert packet.tag == 7


# ---- handles ----------------------------------------------------------------------------------


def test_handle_names_the_packet(pool):
    packet = pool.alloc(5)
    packet[:] = b"abcde"
    assert isinstance(packet.handle, int)
    assert 0 < packet.handle < 1 << 64
    with pool.packet(packet.handle) as same:
        assert same.handle == packet.handle
        assert bytes(same) == b"abcde"
        same[0] = ord("A")
        assert packet[0] == ord("A")
    assert bytes(packet) == b"Abcde"  # the first reference is still there
    packet.free()


def test_a_second_reference_keeps_the_block(pool):
    before = free(pool)
    packet = pool.alloc(5)
    same = pool.packet(packet.handle)
    packet.free()
    assert free(pool) == before - 1
    same[0:2] = b"ok"
    assert bytes(same[0:2]) == b"ok"
    same.free()
    assert free(pool) == before


def test_stale_handle_after_free(pool):
    packet = pool.alloc(5)
    handle = packet.handle
    packet.free()
    with pytest.raises(ssm.StaleHandle):
        pool.packet(handle)
    others = [pool.alloc(5) for _ in range(64)]  # the same block again, under another generation
    assert handle not in {p.handle for p in others}
    with pytest.raises(ssm.StaleHandle):
        pool.packet(handle)
    for other in others:
        other.free()


def test_handles_of_nothing(pool):
    packet = pool.alloc(1)
    mine = packet.handle
    for handle in (0, 1, (1 << 64) - 1, mine + 1, mine ^ (1 << 32), mine | 0xFFFFFFFF):
        with pytest.raises(ssm.StaleHandle):
            pool.packet(handle)
    for handle in (-1, 1 << 64):
        with pytest.raises((ssm.StaleHandle, OverflowError, ValueError)):
            pool.packet(handle)
    with pytest.raises(TypeError):
        pool.packet("handle")
    packet.free()
    assert pool.check() == []


def test_handle_of_another_attachment_is_stale(pool):
    """Only who holds the packet may have it."""
    packet = pool.alloc(1)
    with ssm.Pool.attach(pool.name) as other, pytest.raises(ssm.StaleHandle):
        other.packet(packet.handle)
    packet.free()


# ---- giving back ------------------------------------------------------------------------------

USES = {
    "len": lambda p: len(p),
    "bytes": lambda p: bytes(p),
    "memoryview": lambda p: memoryview(p),
    "getitem": lambda p: p[0],
    "getslice": lambda p: p[0:1],
    "setitem": lambda p: p.__setitem__(0, 1),
    "setslice": lambda p: p.__setitem__(slice(0, 1), b"x"),
    "asarray": lambda p: p.asarray(),
    "prepend": lambda p: p.prepend(1),
    "append": lambda p: p.append(1),
    "trim_front": lambda p: p.trim_front(1),
    "trim_back": lambda p: p.trim_back(1),
    "truncate": lambda p: p.truncate(1),
    "headroom": lambda p: p.headroom,
    "tailroom": lambda p: p.tailroom,
    "nbytes": lambda p: p.nbytes,
    "tag": lambda p: p.tag,
    "set tag": lambda p: setattr(p, "tag", 1),
    "free": lambda p: p.free(),
    "with": lambda p: p.__enter__(),
}


@pytest.mark.parametrize("use", USES)
def test_a_freed_packet_is_stale(pool, use):
    packet = pool.alloc(8)
    packet.free()
    with pytest.raises(ssm.StaleHandle):
        USES[use](packet)
    assert pool.check() == []


@pytest.mark.parametrize("use", USES)
def test_a_sent_packet_is_stale(pool, use):
    ring = pool.ring("r", capacity=4)
    packet = pool.alloc(8)
    ring.put(packet)
    with pytest.raises(ssm.StaleHandle):
        USES[use](packet)
    with pytest.raises(ssm.StaleHandle):
        ring.put(packet)
    ring.get().free()
    assert pool.check() == []


def test_freeing_twice_frees_once(pool):
    packet = pool.alloc(8)
    packet.free()
    other = pool.alloc(8)  # likely the same block
    before = free(pool)
    with pytest.raises(ssm.StaleHandle):
        packet.free()
    other[0:5] = b"still"
    assert bytes(other[0:5]) == b"still"
    assert free(pool) == before
    other.free()


def test_with_frees(pool):
    before = free(pool)
    with pool.alloc(8) as packet:
        assert free(pool) == before - 1
    assert free(pool) == before
    with pytest.raises(ssm.StaleHandle):
        len(packet)


def test_with_allows_the_packet_to_leave_before(pool):
    """Freed or sent inside the block: the end of the block has nothing left to do."""
    ring = pool.ring("r", capacity=4)
    with pool.alloc(8) as packet:
        packet.free()
    with pool.alloc(8) as packet:
        ring.put(packet)
    with ring.get() as packet:
        pass
    assert pool.check() == []


def test_with_frees_when_the_block_raises(pool):
    before = free(pool)
    with pytest.raises(ZeroDivisionError), pool.alloc(8):
        _ = 1 / 0
    assert free(pool) == before


def test_the_last_reference_frees(pool):
    before = free(pool)
    packet = pool.alloc(8)
    again = packet
    del packet
    assert free(pool) == before - 1
    del again
    gc.collect()
    assert free(pool) == before


def test_a_cycle_is_collected(pool):
    before = free(pool)
    box = [pool.alloc(8)]
    box.append(box)
    del box
    gc.collect()
    assert free(pool) == before


def test_packets_are_not_kept_alive_by_the_pool(pool):
    packet = pool.alloc(8)
    handle = packet.handle
    del packet
    gc.collect()
    with pytest.raises(ssm.StaleHandle):
        pool.packet(handle)


def test_a_packet_keeps_its_pool_alive(make_pool, new_name):
    pool = ssm.Pool.create(new_name(), classes={256: 4}, headroom=0, tailroom=0)
    pool.unlink()
    packet = pool.alloc(4)
    packet[:] = b"abcd"
    closer = pool.close
    del pool
    gc.collect()
    assert bytes(packet) == b"abcd"
    packet.free()
    closer()


# ---- views that outlive the packet ------------------------------------------------------------


def views_of(packet):
    return {
        "memoryview": memoryview(packet),
        "slice": memoryview(packet)[2:6],
        "cast": memoryview(packet).cast("H"),
        "array": packet.asarray(),
        "array of words": packet.asarray("u2"),
        "slice of an array": packet.asarray()[3:],
        "added bytes": packet.append(2),
    }


@pytest.mark.parametrize(
    "kind", ["memoryview", "slice", "cast", "array", "array of words", "slice of an array", "added bytes"]
)
@pytest.mark.parametrize("how", ["free", "del", "with"])
def test_view_outlives_the_packet(pool, kind, how):
    before = free(pool)
    packet = pool.alloc(8)
    packet[:] = b"ABCDEFGH"
    view = views_of(packet).pop(kind)
    expected = bytes(view)
    if how == "free":
        packet.free()
    elif how == "with":
        with packet:
            pass
    packet = None
    gc.collect()
    assert free(pool) == before - 1, "the block went while a view was there"
    others = [pool.alloc(208) for _ in range(free(pool))]
    for other in others:
        other[:] = b"\xee" * 208
    assert bytes(view) == expected
    for other in others:
        other.free()
    del view
    gc.collect()
    assert free(pool) == before


def test_the_last_of_several_views_gives_the_block_back(pool):
    before = free(pool)
    packet = pool.alloc(8)
    views = [memoryview(packet), packet.asarray(), memoryview(packet)[1:]]
    packet.free()
    while views:
        assert free(pool) == before - 1
        views.pop()
    assert free(pool) == before


def test_a_released_view_lets_go(pool):
    before = free(pool)
    packet = pool.alloc(8)
    view = memoryview(packet)
    packet.free()
    view.release()
    assert free(pool) == before
    with pytest.raises(ValueError, match="released"):
        view[0]


def test_view_outlives_a_put(pool):
    """The receiver frees; the sender's view still pins the block."""
    ring = pool.ring("r", capacity=4)
    before = free(pool)
    packet = pool.alloc(8)
    packet[:] = b"ABCDEFGH"
    view = memoryview(packet)
    ring.put(packet)
    got = ring.get()
    assert bytes(got) == b"ABCDEFGH"
    got.free()
    assert free(pool) == before - 1
    assert bytes(view) == b"ABCDEFGH"
    view.release()
    assert free(pool) == before


def test_a_view_is_writable_after_the_packet(pool):
    packet = pool.alloc(4)
    view = memoryview(packet)
    packet.free()
    view[:] = b"abcd"
    assert bytes(view) == b"abcd"
    view.release()
    assert pool.check() == []


def test_the_window_moves_under_a_view(pool):
    """A view shows the bytes it was made of, whatever becomes of the window."""
    with pool.alloc(8) as packet:
        packet[:] = b"ABCDEFGH"
        view = memoryview(packet)
        packet.trim_front(4)
        packet.truncate(1)
        assert bytes(view) == b"ABCDEFGH"
        view[4] = ord("e")
        assert bytes(packet) == b"e"
        view.release()


# ---- sizes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [2001, 1 << 20, 1 << 32, (1 << 63) - 1, (1 << 64) - 1, (1 << 64) - HEADROOM])
def test_too_large(pool, size):
    for attempt in (lambda: pool.alloc(size), lambda: pool.alloc(size, timeout=5)):
        with pytest.raises((ssm.PacketTooLarge, OverflowError)):
            attempt()
    assert issubclass(ssm.PacketTooLarge, ValueError)
    assert issubclass(ssm.PacketTooLarge, ssm.SSMError)
    assert free(pool) == 64


def test_the_message_says_what_is_the_largest(pool):
    with pytest.raises(ssm.PacketTooLarge, match=r"2001.*2000"):
        pool.alloc(2001)


@pytest.mark.parametrize("size", [-1, -(1 << 63), -(1 << 70)])
def test_negative_sizes(pool, size):
    with pytest.raises((ValueError, OverflowError)):
        pool.alloc(size)


@pytest.mark.parametrize("size", [None, "10", 1.5, b"1"])
def test_sizes_of_the_wrong_type(pool, size):
    with pytest.raises(TypeError):
        pool.alloc(size)


@pytest.mark.parametrize("timeout", ["1", b"", object()])
def test_timeouts_of_the_wrong_type(pool, timeout):
    with pytest.raises(TypeError):
        pool.alloc(1, timeout=timeout)


@pytest.mark.parametrize("timeout", [-1, -0.5, float("nan")])
def test_timeouts_out_of_range(pool, timeout):
    with pytest.raises(ValueError, match=r"."):
        pool.alloc(1, timeout=timeout)
    assert free(pool) == 64


def test_numpy_integers_will_do(pool):
    with pool.alloc(np.int64(10)) as packet:
        assert len(packet) == 10
        packet[np.uint8(3)] = np.uint8(7)
        assert packet[3] == 7


# ---- the object -------------------------------------------------------------------------------


def test_repr_says_what_it_is(pool):
    packet = pool.alloc(100)
    assert "100" in repr(packet)
    packet.free()
    assert repr(packet)  # a finished packet has one too


def test_errors_leave_no_references_behind(pool):
    """The same failing calls many times: no reference to the arguments is left."""
    token = object()
    before = sys.getrefcount(token)
    packet = pool.alloc(8)
    for _ in range(100):
        with pytest.raises(TypeError):
            packet[0] = token
        with pytest.raises(TypeError):
            packet[0:1] = token
        with pytest.raises(TypeError):
            pool.alloc(token)
        with pytest.raises(TypeError):
            pool.packet(token)
    assert sys.getrefcount(token) <= before + 1
    packet.free()


def test_packets_do_not_accumulate(pool):
    """Ten thousand packets later there are no more objects than before."""
    for _ in range(100):
        pool.alloc(8).free()
    gc.collect()
    before = len(gc.get_objects())
    blocks = sys.getallocatedblocks()
    for _ in range(10_000):
        pool.alloc(8).free()
        _ = pool.alloc(8)
    del _
    gc.collect()
    assert len(gc.get_objects()) <= before + 100
    assert sys.getallocatedblocks() <= blocks + 1000


def test_no_new_attributes(pool):
    with pool.alloc(1) as packet:
        with pytest.raises(AttributeError):
            packet.nonsense = 1
        for name in ("handle", "headroom", "tailroom", "block_size", "nbytes"):
            with pytest.raises(AttributeError):
                setattr(packet, name, 1)


def test_packets_are_made_by_pools_only():
    with pytest.raises(TypeError):
        ssm.Packet()


def test_a_packet_can_be_a_key_in_a_weak_map_or_says_no(pool):
    """Whichever: it must not crash."""
    packet = pool.alloc(1)
    try:
        reference = weakref.ref(packet)
    except TypeError:
        packet.free()
        return
    packet.free()
    del packet
    gc.collect()
    assert reference() is None
