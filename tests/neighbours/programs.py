# SPDX-License-Identifier: Apache-2.0
"""What is run of each neighbour: its own tests where its package has them, and otherwise what its users write.

python -m tests.neighbours.programs NAME
"""

from __future__ import annotations

import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from tests.neighbours.in_place import put_in_place

if __name__ == "__main__":
    put_in_place()

import asyncio
import multiprocessing as mp
import os
import unittest
from types import SimpleNamespace

import numpy as np
import pytest

PATIENCE = 20  # times as long as a test of others waits


def be_patient() -> None:
    """Let three of its tests wait longer: they give a worker that is spawned half a second, to start or to end."""
    import aiomultiprocess.tests.pool as tests

    join = tests.PoolWorker.join
    tests.PoolWorker.join = lambda worker, timeout=None: join(worker, timeout and PATIENCE * timeout)
    slow: Any = SimpleNamespace(**vars(asyncio))
    slow.sleep = lambda seconds: asyncio.sleep(PATIENCE * seconds)
    tests.asyncio = slow


def aiomultiprocess() -> None:
    """Its own tests, unchanged but for how long they wait."""
    import aiomultiprocess.tests

    be_patient()
    suite = unittest.defaultTestLoader.loadTestsFromModule(aiomultiprocess.tests)
    result = unittest.TextTestRunner(verbosity=1).run(suite)
    assert result.testsRun > 20
    assert result.wasSuccessful()


# ---- mpire: its package has no tests ------------------------------------------------------------------


def square(x: int) -> int:
    return x * x


def of_array(x: Any) -> Any:
    return x.sum()


def fails_at_7(x: int) -> int:
    if x == 7:
        raise ValueError("seven")
    return x


def with_state(worker: int, shared: Any, state: dict[str, int], x: int) -> tuple[int, int, int]:
    state["calls"] = state.get("calls", 0) + 1
    return worker, shared[0], x


def mpire() -> None:
    """Maps of every kind, state of workers, exceptions, and workers that stay."""
    from mpire import WorkerPool

    for method in ("fork", "spawn", "forkserver"):
        with WorkerPool(n_jobs=2, start_method=method) as pool:
            assert pool.map(square, range(1000)) == [x * x for x in range(1000)]
            assert sorted(pool.imap_unordered(square, range(200), chunk_size=7)) == [
                x * x for x in range(200)
            ]
            assert list(pool.imap(square, range(200))) == [x * x for x in range(200)]
            assert pool.apply(square, 12) == 144
            results = [pool.apply_async(square, i) for i in range(50)]
            assert [result.get(timeout=60) for result in results] == [x * x for x in range(50)]
            arrays = np.arange(400_000.0).reshape(100, 4000)
            assert np.allclose(pool.map(of_array, list(arrays)), arrays.sum(1))
    with WorkerPool(n_jobs=2) as pool, pytest.raises(ValueError, match="seven"):
        pool.map(fails_at_7, range(100))
    with WorkerPool(n_jobs=2, pass_worker_id=True, shared_objects=[41], use_worker_state=True) as pool:
        got = pool.map(with_state, [(i,) for i in range(100)], chunk_size=1)
        assert [x for _, _, x in got] == list(range(100))
        assert {shared for _, shared, _ in got} == {41}
    with WorkerPool(n_jobs=2, keep_alive=True) as pool:
        for _ in range(3):
            assert pool.map(square, range(10)) == [x * x for x in range(10)]


# ---- torch ----------------------------------------------------------------------------------------------


class Images:
    """A data set; what torch calls one has a length and items."""

    def __len__(self) -> int:
        return 400

    def __getitem__(self, i: int) -> Any:
        if i < 0 or i >= 400:
            raise IndexError(i)
        return np.full((3, 64, 64), i % 256, "u1"), i


def torch_loader() -> None:
    """DataLoader: workers by fork and spawn, in order, twice, and a worker's error."""
    from torch.utils.data import DataLoader

    for method in ("fork", "spawn"):
        for persistent in (False, True):
            loader = DataLoader(
                Images(),
                batch_size=16,
                num_workers=2,
                multiprocessing_context=method,
                persistent_workers=persistent,
            )
            for _ in range(2):
                seen = []
                for images, numbers in loader:
                    assert images.shape[1:] == (3, 64, 64)
                    assert (images[:, 0, 0, 0].numpy() == numbers.numpy() % 256).all()
                    seen += numbers.tolist()
                assert seen == list(range(400))
    loader = DataLoader(Images(), sampler=[1, 2, 999], num_workers=1)
    with pytest.raises(IndexError, match="999"):
        list(loader)


def add_one(tensors: Any, results: Any) -> None:
    for tensor in iter(tensors.get, None):
        tensor += 1
        results.put((tensor.sum().item(), tensor))
    results.put(None)
    tensors.get()  # until the tensors were looked at


def torch_queue() -> None:
    """torch.multiprocessing: tensors in shared memory, changed where they lie."""
    import torch
    import torch.multiprocessing as tmp

    for method in ("fork", "spawn"):
        context = tmp.get_context(method)
        tensors, results = context.Queue(), context.Queue()
        child = context.Process(target=add_one, args=(tensors, results))
        child.start()
        sent = [torch.full((100, 100), float(i)) for i in range(10)]
        for tensor in sent:
            tensors.put(tensor)
        tensors.put(None)
        for i, (total, tensor) in enumerate(iter(results.get, None)):
            assert total == 10_000 * (i + 1)
            assert (tensor == i + 1).all()
            assert (sent[i] == i + 1).all()  # the same memory
        tensors.put("done")
        child.join(60)
        assert child.exitcode == 0


# ---- stable-baselines3 ----------------------------------------------------------------------------------


def make_env() -> Any:
    import gymnasium

    return gymnasium.make("CartPole-v1")


def subproc_vec_env() -> None:
    """SubprocVecEnv: the same steps as DummyVecEnv, by fork and spawn; attributes; an algorithm that learns in it."""
    from stable_baselines3 import PPO
    from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

    for method in ("fork", "spawn"):
        ours, dummy = SubprocVecEnv([make_env] * 2, start_method=method), DummyVecEnv([make_env] * 2)
        for each in (ours, dummy):
            each.seed(7)
        assert np.array_equal(ours.reset(), dummy.reset())
        random = np.random.default_rng(1)
        for _ in range(300):
            actions = random.integers(0, 2, 2)
            for one, other in zip(ours.step(actions)[:3], dummy.step(actions)[:3], strict=True):
                assert np.allclose(one, other)
        assert len(ours.get_attr("spec")) == 2
        assert ours.env_method("get_wrapper_attr", "gravity", indices=[1]) == [9.8]
        ours.close()
    learns = SubprocVecEnv([make_env] * 2, start_method="fork")
    PPO("MlpPolicy", learns, n_steps=64, batch_size=64, device="cpu").learn(512)
    learns.close()


# ---- concurrent.futures -----------------------------------------------------------------------------------


def dies(_: int) -> None:
    os._exit(3)


def starts(into: str) -> None:
    os.environ["NEIGHBOUR"] = into


def ask(_: int) -> str:
    return os.environ["NEIGHBOUR"]


class NotPicklable:
    def __reduce__(self) -> Any:
        raise TypeError("this one cannot be pickled")


def executor() -> None:
    """ProcessPoolExecutor: map, submit, chunks, errors, initializers, workers that die, and cancel."""
    for method in ("fork", "spawn", "forkserver"):
        context = mp.get_context(method)
        with ProcessPoolExecutor(2, mp_context=context) as pool:
            assert list(pool.map(square, range(500), chunksize=7)) == [x * x for x in range(500)]
            futures = {pool.submit(square, i): i for i in range(100)}
            assert all(
                future.result() == futures[future] ** 2 for future in as_completed(futures, timeout=60)
            )
            assert np.array_equal(pool.submit(np.ones, 1_000_000).result(60), np.ones(1_000_000))
            error = pool.submit(fails_at_7, 7).exception(60)
            assert isinstance(error, ValueError)
        with ProcessPoolExecutor(1, mp_context=context, initializer=starts, initargs=("here",)) as pool:
            assert list(pool.map(ask, range(3))) == ["here"] * 3
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            broken = pool.submit(dies, 0)
            assert isinstance(broken.exception(60), BrokenProcessPool)
    pool = ProcessPoolExecutor(1, mp_context=mp.get_context("fork"))
    futures_ = [pool.submit(square, i) for i in range(1000)]
    pool.shutdown(cancel_futures=True)
    assert all(future.cancelled() or future.done() for future in futures_)


PROGRAMS = {
    each.__name__: each
    for each in (aiomultiprocess, mpire, torch_loader, torch_queue, subproc_vec_env, executor)
}

if __name__ == "__main__":
    PROGRAMS[sys.argv[1]]()
