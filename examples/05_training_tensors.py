# SPDX-License-Identifier: Apache-2.0
"""Tensors from a loader process to a training loop, next to torch's own: python 05_training_tensors.py [STEPS]

The loader's batches are copied into the pool once; the training loop, a sink, wraps each as a tensor where it lies.
DataLoader makes a shared memory file for each tensor and sends it through a queue. Needs torch; says so without it.
"""

import sys
import time

import numpy as np

import ssm

try:
    import torch
except ModuleNotFoundError:
    sys.exit(print("skipped: torch is not installed (pip install torch)"))


def load(steps=100):
    data = np.random.default_rng(0).random((4, 256, 1024), dtype="f4")  # batches of 1 MiB
    yield from (data[number % 4] for number in range(steps))


class Train:
    def __init__(self):
        torch.manual_seed(0)
        self.model = torch.nn.Linear(1023, 1)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1e-3)
        self.times = []

    def __call__(self, batch):
        batch = torch.as_tensor(batch)
        self.optimizer.zero_grad()
        self.loss = torch.nn.functional.mse_loss(self.model(batch[:, :-1]).squeeze(1), batch[:, -1])
        self.loss.backward()
        self.optimizer.step()
        self.times.append(time.perf_counter())

    def close(self):
        seconds = self.times[-1] - self.times[0]  # without the start
        return f"{(len(self.times) - 1) / seconds:>8,.0f} steps/s, last loss {self.loss.item():.4f}"


if __name__ == "__main__":
    report = ssm.Pipeline("training").chain(load, Train).run(*map(int, sys.argv[1:]))
    assert report.exact, report
    print("ssm         ", *report.results["Train"])
    train, batches = Train(), [*load(*map(int, sys.argv[1:]))]
    for batch in torch.utils.data.DataLoader(batches, batch_size=None, num_workers=1):
        train(batch)
    print("DataLoader  ", train.close())
