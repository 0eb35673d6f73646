# SPDX-License-Identifier: Apache-2.0
"""A packet pool for processes, in POSIX shared memory.

One process creates a named pool, others attach by name. A process takes a packet buffer from the pool, fills it
in place, and hands it to another process through a ring that lives in the same pool. Nothing is copied, nothing
is pickled, no server runs; processes may be killed at any instruction.

>>> import os, ssm
>>> with ssm.Pool.create(f"doc-{os.getpid()}", classes={2048: 64}) as pool:
...     ring = pool.ring("frames", capacity=16)
...     packet = pool.alloc(5)
...     packet[0:5] = b"hello"
...     ring.put(packet)
...     with ring.get() as packet:  # in any process
...         print(bytes(packet))
...     pool.unlink()
True
b'hello'
"""

import sys
from typing import TYPE_CHECKING, Any

if sys.platform != "linux":
    raise ImportError("ssm needs Linux: open-file-description locks and futexes carry its crash safety.")

try:
    from ssm import registered as _registered  # noqa: F401  # pyright: ignore[reportUnusedImport]
    from ssm._core import Packet, PacketBatch, Pid
    from ssm.acl import Acl
    from ssm.board import Board
    from ssm.errors import (
        ConsumersGone,
        CorruptionError,
        HoldersExhausted,
        LayoutMismatch,
        MessageMismatch,
        MetadataExhausted,
        PacketTooLarge,
        PoolAbandoned,
        PoolExhausted,
        PoolMismatch,
        ProducersGone,
        QueueExhausted,
        QuotaExceeded,
        RecordMismatch,
        RingBusy,
        RingEmpty,
        RingFull,
        RingMismatch,
        RingOrphaned,
        RingShutDown,
        RpcError,
        ServiceMismatch,
        SSMError,
        StaleHandle,
    )
    from ssm.options import CreateArguments
    from ssm.pipe import Connection, Pipe
    from ssm.pool import Pool, list_pools
    from ssm.queue import JoinableQueue, Queue, SimpleQueue
    from ssm.ready import wait
    from ssm.ring import Ring
    from ssm.rpc import Rpc
    from ssm.semaphore import SemaphoreService
    from ssm.service import AddressService, IdService, PidService, RmidService
    from ssm.slow import slow_wait
    from ssm.stats import (
        ArenaStats,
        ClassStats,
        Holder,
        Owner,
        PoolStats,
        Reaped,
        RingStats,
        ServiceStats,
        ShardStats,
        Usage,
    )
    from ssm.topic import Subscription, Topic
    from ssm.tracing import trace
except ImportError as _error:
    from ssm import installed as _installed

    raise _installed.explain(_error) from None

if TYPE_CHECKING:
    from ssm.pipeline import Pipeline, PipelineError, PipelineRefused

__version__: str

__all__ = [
    "Acl",
    "AddressService",
    "ArenaStats",
    "Board",
    "ClassStats",
    "Connection",
    "ConsumersGone",
    "CorruptionError",
    "CreateArguments",
    "Holder",
    "HoldersExhausted",
    "IdService",
    "JoinableQueue",
    "LayoutMismatch",
    "MessageMismatch",
    "MetadataExhausted",
    "Owner",
    "Packet",
    "PacketBatch",
    "PacketTooLarge",
    "Pid",
    "PidService",
    "Pipe",
    "Pipeline",
    "PipelineError",
    "PipelineRefused",
    "Pool",
    "PoolAbandoned",
    "PoolExhausted",
    "PoolMismatch",
    "PoolStats",
    "ProducersGone",
    "Queue",
    "QueueExhausted",
    "QuotaExceeded",
    "Reaped",
    "RecordMismatch",
    "Ring",
    "RingBusy",
    "RingEmpty",
    "RingFull",
    "RingMismatch",
    "RingOrphaned",
    "RingShutDown",
    "RingStats",
    "RmidService",
    "Rpc",
    "RpcError",
    "SSMError",
    "SemaphoreService",
    "ServiceMismatch",
    "ServiceStats",
    "ShardStats",
    "SimpleQueue",
    "StaleHandle",
    "Subscription",
    "Topic",
    "Usage",
    "list_pools",
    "slow_wait",
    "trace",
    "wait",
]


def __getattr__(name: str) -> Any:
    """Look up what takes longer than the rest of the import: the version, and pipelines."""
    if name == "__version__":
        from importlib.metadata import version

        return version("ssm-pool")
    if name in {"Pipeline", "PipelineError", "PipelineRefused"}:
        from ssm import pipeline

        return getattr(pipeline, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
