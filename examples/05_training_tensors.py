# SPDX-License-Identifier: Apache-2.0
"""Tensors from loader processes to a training loop, next to torch's own DataLoader.

    python 05_training_tensors.py [STEPS]

Loaders fill batches where they lie in the pool; the training loop wraps each as a tensor, without a copy. DataLoader
makes a shared memory file for each tensor and sends it through a queue. Needs torch; says so where it is missing.
"""

import multiprocessing
import sys
import time
from collections.abc import Iterator

import numpy as np

import ssm

try:
    import torch
except ModuleNotFoundError:
    torch = None

BATCH, FEATURES = 256, 1024  # 1 MiB of float32
LOADERS = 1


def samples() -> np.ndarray:
    """Stands for a data set in memory; the last feature of each row is the mean of the others."""
    data = np.random.default_rng(0).random((4 * BATCH, FEATURES), dtype="f4")
    data[:, -1] = data[:, :-1].mean(axis=1)
    return data


def fill(batch: np.ndarray, data: np.ndarray, number: int) -> None:
    first = number % 4 * BATCH
    batch[:] = data[first : first + BATCH]


def load(ring: ssm.Ring, steps: int, first: int) -> None:
    data = samples()
    for number in range(first, steps, LOADERS):
        packet = ring.pool.alloc(4 * BATCH * FEATURES, timeout=None)
        fill(packet.asarray("f4", (BATCH, FEATURES)), data, number)
        ring.put(packet)


def batches_of_ssm(steps: int) -> Iterator["torch.Tensor"]:
    spawn = multiprocessing.get_context("spawn")
    with ssm.Pool.create("training", classes={(1 << 20) + 4096: 16}, ephemeral=True) as pool:
        ring = pool.ring("batches", capacity=8)
        loaders = [spawn.Process(target=load, args=(ring, steps, first)) for first in range(LOADERS)]
        for loader in loaders:
            loader.start()
        for _ in range(steps):
            packet = ring.get()
            yield torch.from_numpy(packet.asarray("f4", (BATCH, FEATURES)))
        for loader in loaders:
            loader.join()


def batches_of_torch(steps: int) -> Iterator["torch.Tensor"]:
    data = samples()

    class Batches(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return steps

        def __getitem__(self, number: int) -> "torch.Tensor":
            batch = np.empty((BATCH, FEATURES), "f4")
            fill(batch, data, number)
            return torch.from_numpy(batch)

    yield from torch.utils.data.DataLoader(Batches(), batch_size=None, num_workers=LOADERS)


def train(batches: Iterator["torch.Tensor"]) -> tuple[float, float]:
    """Returns the last loss, and steps per second from the first batch on: start-up is not what is measured."""
    torch.manual_seed(0)
    model = torch.nn.Linear(FEATURES - 1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    steps, start = 0, 0.0
    for batch in batches:
        if steps == 0:
            start = time.perf_counter()
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(model(batch[:, :-1]).squeeze(1), batch[:, -1])
        loss.backward()
        optimizer.step()
        steps += 1
    return loss.item(), (steps - 1) / (time.perf_counter() - start)


def main(steps: int) -> None:
    if torch is None:
        print("skipped: torch is not installed (pip install torch)")
        return
    torch.set_num_threads(1)
    for name, batches in (("ssm", batches_of_ssm), ("DataLoader", batches_of_torch)):
        loss, rate = train(batches(steps))
        print(f"{name:<12} {rate:>8,.0f} steps/s of {BATCH} x {FEATURES}, last loss {loss:.4f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100)
