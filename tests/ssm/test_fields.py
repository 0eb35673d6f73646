# SPDX-License-Identifier: Apache-2.0
"""Each figure of the statistics has one name and one meaning, and each command shows it, or it says here why not."""

import ast
import dataclasses
import io
import itertools
import json
import re
import typing
from pathlib import Path

import pytest

import ssm
from ssm import cli, stats
from ssm.commands import metrics, top

ROOT = Path(__file__).parent.parent.parent

RECORDS = (
    stats.PoolStats,
    stats.ClassStats,
    stats.ShardStats,
    stats.ArenaStats,
    stats.RingStats,
    stats.ServiceStats,
)

# What a command does not show, and why not. A new figure is shown by all of them or gets a line here.
NOT_SHOWN = {
    "stat": {
        "ShardStats.frees": "the rest of allocs and free",
        "RingStats.id": "the order of the lines",
        "RingStats.holder": "see ssm holders",
        "RingStats.redeliver": "as it was made",
        "RingStats.unlinked": "a word behind its name",
        "RingStats.serial": "the order of the lines",
        "ServiceStats.ranges": "in the call that opens it, where it means something",
        "PoolStats.collections": "of a process; the one that asks never allocates",
        "PoolStats.copied": "likewise, and it has no queue",
    },
    "top": {
        "ShardStats.free": "in the sum of its class",
        "ShardStats.frees": "the rest of allocs and free",
        "ShardStats.steals": "a matter of tuning: see ssm stat",
        "ClassStats.large_waiters": "among the waiters",
        "ShardStats.allocs": "as a rate",
        "ArenaStats.available": "see ssm stat",
        "ArenaStats.free": "the rest of packets and held",
        "RingStats.puts": "as a rate",
        "RingStats.gets": "as a rate",
        "RingStats.id": "the order of the lines",
        "RingStats.holder": "see ssm holders",
        "RingStats.acl": "how it was made and set: see ssm stat, as for the next four",
        "RingStats.producers": "",
        "RingStats.consumers": "",
        "RingStats.redeliver": "",
        "RingStats.overflow": "",
        "RingStats.redelivered": "see ssm stat",
        "RingStats.unlinked": "a word behind its name",
        "RingStats.serial": "the order of the lines",
        "PoolStats.generation": "see ssm stat",
        "PoolStats.collections": "of a process; the one that asks never allocates",
        "PoolStats.copied": "likewise, and it has no queue",
        **{f"ServiceStats.{each.name}": "see ssm stat" for each in dataclasses.fields(stats.ServiceStats)},
    },
    "metrics": {
        "ShardStats.free": "in the sum of its class",
        "ShardStats.frees": "the rest of allocs and free",
        "ArenaStats.free": "the rest of packets and held",
        "RingStats.id": "it names the ring, it is no figure",
        "RingStats.holder": "likewise",
        "RingStats.serial": "it names the ring, it is no figure",
        "RingStats.unlinked": "such a ring is not shown, for another one may have its name",
        "RingStats.acl": "words are no figures, as are the next four",
        "RingStats.producers": "",
        "RingStats.consumers": "",
        "RingStats.redeliver": "",
        "RingStats.overflow": "",
        "ServiceStats.kind": "how it was made is no figure, as are the next four",
        "ServiceStats.reclaim": "",
        "ServiceStats.first": "",
        "ServiceStats.last": "",
        "ServiceStats.ranges": "",
        "PoolStats.size": "it never changes",
        "PoolStats.generation": "it never changes",
        "PoolStats.collections": "of a process; the one that asks never allocates",
        "PoolStats.copied": "likewise, and it has no queue",
    },
}
WORDS = {  # fields whose values are words or numbers with a meaning: one that no other field has
    "RingStats.producers": "one",
    "RingStats.consumers": "many",
    "RingStats.overflow": "overwrite",
    "RingStats.acl": ssm.Acl.FLOWPEER,
    "RingStats.redeliver": True,
    "RingStats.unlinked": False,
    "ServiceStats.kind": "ids",
    "ServiceStats.reclaim": True,
}


def filled(record, numbers, seen):
    """An instance in which each field has a value that no other has; seen: {"Record.field": value}."""
    hints, values = typing.get_type_hints(record, vars(ssm.stats) | {"Acl": ssm.Acl}), {}
    for field in dataclasses.fields(record):
        name = f"{record.__name__}.{field.name}"
        parts = [part for part in RECORDS if part.__name__ in str(field.type)]
        if record is stats.ArenaStats and parts:
            values[field.name] = ()  # they are counted in with its own figures
        elif parts:
            part = filled(parts[0], numbers, seen)
            values[field.name] = (part,) if str(field.type).startswith("tuple") else part
        elif name in WORDS:
            seen[name] = values[field.name] = WORDS[name]
        else:
            number = next(numbers)
            seen[name] = values[field.name] = number if hints[field.name] is int else f"n{number}"
            assert hints[field.name] in (int, str), f"{name}: give it a value in WORDS"
    return record(**values)


def differing():
    """A PoolStats full of values that differ, and where each stands."""
    seen = {}
    return filled(stats.PoolStats, itertools.count(10_007, 13), seen), seen


def tell(patch, told):
    """Pools tell that; the fixture that looks for late wake-ups is not told."""
    patch.setattr(ssm.Pool, "stats", lambda self: told)
    patch.setattr(ssm.Pool, "close", ssm.Pool.close.__wrapped__)


def is_in(text, value):
    words = (
        [f"{value:,}", str(value), f"{value:#x}", str(float(value))] if type(value) is int else [str(value)]
    )
    if isinstance(value, ssm.Acl):
        words = [value.name]
    return any(re.search(rf"(?<![\w.]){re.escape(word)}(?![\w.])", text) for word in words)


def text_of_stat(pool, capsys):
    assert cli.main(["stat", pool.name]) == 0
    return capsys.readouterr().out


def text_of_top(pool, capsys):
    rich = pytest.importorskip("rich.console")
    out = io.StringIO()
    rich.Console(file=out, width=400).print(top.screen(top.Watch(pool).look()))
    return out.getvalue()


def text_of_metrics(pool, capsys):
    prometheus = pytest.importorskip("prometheus_client")
    registry = prometheus.CollectorRegistry()
    registry.register(metrics._Collector([pool.name]))
    return prometheus.generate_latest(registry).decode()


@pytest.mark.parametrize("command", NOT_SHOWN)
def test_each_figure_is_shown(pool, capsys, monkeypatch, command):
    told, seen = differing()
    with monkeypatch.context() as patch:
        tell(patch, told)
        text = {"stat": text_of_stat, "top": text_of_top, "metrics": text_of_metrics}[command](pool, capsys)
    shown = {name for name, value in seen.items() if is_in(text, value)}
    assert set(seen) - shown - set(NOT_SHOWN[command]) == set(), f"not shown by ssm {command}"
    words = set(WORDS) | {"RingStats.redeliver"}
    assert (shown & set(NOT_SHOWN[command])) - words == set(), "shown after all"
    assert set(NOT_SHOWN[command]) - set(seen) == set(), "no such field"


def test_json_has_each_figure(pool, capsys, monkeypatch):
    told, seen = differing()
    with monkeypatch.context() as patch:
        tell(patch, told)
        assert cli.main(["stat", "--json", pool.name]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads(json.dumps(dataclasses.asdict(told)))
    for name, value in seen.items():
        assert f'"{name.partition(".")[2]}": {json.dumps(value)}' in json.dumps(found), name


def test_each_field_says_what_it_means():
    """The reference is made of ssm/stats.py: a field without a sentence behind it would not be in it."""
    assert "automodule:: ssm.stats" in (ROOT / "docs/reference/python.md").read_text()
    tree = ast.parse((ROOT / "ssm/stats.py").read_text())
    fields = 0
    for record in (node for node in tree.body if isinstance(node, ast.ClassDef)):
        for field, behind in zip(record.body, [*record.body[1:], None], strict=True):
            if isinstance(field, ast.AnnAssign):
                fields += 1
                meaning = getattr(getattr(behind, "value", None), "value", None)
                assert isinstance(meaning, str), f"{record.name}.{ast.unparse(field.target)} has no meaning"
    assert fields > 70


def test_the_core_tells_each_field(make_pool):
    """A name that only the core or only ssm/stats.py has is a TypeError."""
    pool = make_pool(arena=1 << 20)
    ring, ids, packet = pool.ring("r"), pool.ids("i", 0, 9), pool.alloc(8)
    ids.allocate_id()
    told = pool.stats()
    assert told.arena is not None
    assert (told.rings[0].name, told.services[0].kind) == ("r", "ids")
    assert {holder.kind for holder in pool.holders()} == {"process", "ring"}
    assert pool.usage()[0].blocks
    assert pool.reap() == (0, 0)
    assert ids.owned()[0][1].alive
    assert set(pool._peek_packet(packet.handle, 3)) == {
        "length",
        "headroom",
        "block_size",
        "tag",
        "next",
        "data",
    }
    assert ring.capacity == told.rings[0].capacity
    figures = pool._shard_stats(0, 0)
    for wrong in ({**figures, "new": 1}, {key: figures[key] for key in list(figures)[1:]}):
        with pytest.raises(TypeError):
            stats.ShardStats(**wrong)


def test_limits_are_those_of_the_core(make_pool):
    for name, limit in (("holders", ssm._core.HOLDER_MAX), ("cache", ssm._core.CACHE_MAX)):
        with pytest.raises(ValueError, match=f" .. {limit}, not {limit + 1}"):
            make_pool(**{name: limit + 1})
