"""What do loader processes cost, and what do they bring? Three questions, each a table.

- passing: µs for a batch from a process to this one, against torch's DataLoader;
- epoch: ms to get an epoch of 8 small batches going, with processes that stay and with new ones each time;
- training: samples/s of a tiny model on augmented pictures with 0, 1, 2 processes and with `data.num_workers=auto`.

    python benchmarks/workers.py [--rounds 9] [--threads 1] [--only passing|epoch|training]
"""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from measure import arguments, interleaved, ratio, report
from torch import nn
from torch.utils.data import DataLoader

from dlrun.data.augment import Augment
from dlrun.data.loader import Batches
from dlrun.data.source import PixelSplit
from dlrun.data.tuning import Tuner
from dlrun.data.workers import Workers

CPU = torch.device("cpu")
SHAPES = {"128×32×32×3": (128, 32, 32, 3), "128×224×224×3": (128, 224, 224, 3)}
EXPENSIVE = [
    {"Affine": {"scale": [0.8, 1.2], "rotate": [-20, 20], "p": 1}},
    {"RandomBrightnessContrast": {"p": 1}},
    {"GaussianBlur": {"p": 1}},
]


class Ready:
    """Batches that cost nothing but a copy: what is left is their way."""

    def __init__(self, shape: tuple[int, ...]):
        self.batch = torch.randint(0, 256, shape, dtype=torch.uint8), torch.arange(shape[0])

    def fetch(self, key: Any) -> tuple[torch.Tensor, torch.Tensor]:
        inputs, targets = self.batch
        return inputs.clone(), targets.clone()

    __getitem__ = fetch


def per_batch(batches: Iterable[Any], count: int) -> float:
    """µs per batch, without what it takes until the first one is there."""
    running = iter(batches)
    next(running)
    began = time.perf_counter()
    for inputs, _ in running:
        int(inputs[-1, -1, -1, -1])
    return (time.perf_counter() - began) / (count - 1) * 1e6


def passing(rounds: int) -> None:
    rows = []
    for name, shape in SHAPES.items():
        source, count = Ready(shape), 40
        keys = [(0, number) for number in range(count)]
        for number in (1, 2):
            kept = Workers(number)
            kept.add(source)
            torchs = DataLoader(source, batch_size=None, sampler=keys, num_workers=number, persistent_workers=True)  # type: ignore[arg-type, var-annotated]
            cases: dict[str, Callable[[], float]] = {
                "dlrun": lambda kept=kept, source=source, keys=keys: per_batch(kept.fetched(source, keys), len(keys)),  # type: ignore[misc]
                "DataLoader": lambda torchs=torchs, keys=keys: per_batch(torchs, len(keys)),  # type: ignore[misc]
            }
            taken = interleaved(cases, rounds)
            medians = [statistics.median(taken[case]) for case in cases]
            rows.append((name, number, *medians, ratio(taken, "dlrun", "DataLoader")))
            kept.close()
    report("workers: passing a batch", ("batch", "processes", "dlrun µs", "DataLoader µs", "dlrun/DataLoader"), rows)


def epoch(rounds: int) -> None:
    source, keys = Ready((32, 8, 8, 1)), [(0, number) for number in range(8)]
    kept, renewed = Workers(2), Workers(2)
    for workers in (kept, renewed):
        workers.add(source)

    def timed(batches: Callable[[], Iterable[Any]]) -> Callable[[], float]:
        def case() -> float:
            began = time.perf_counter()
            for _ in batches():
                pass
            renewed.close()
            return (time.perf_counter() - began) * 1e3

        return case

    torchs, stays = ({"batch_size": None, "sampler": keys, "num_workers": 2}, {"persistent_workers": True})
    persistent = DataLoader(source, **torchs, **stays)  # type: ignore[arg-type, var-annotated]
    cases = {
        "processes that stay": timed(lambda: kept.fetched(source, keys)),
        "new ones each epoch": timed(lambda: renewed.fetched(source, keys)),
        "DataLoader, persistent_workers": timed(lambda: persistent),
        "DataLoader": timed(lambda: DataLoader(source, **torchs)),  # type: ignore[arg-type]
    }
    taken = interleaved(cases, rounds)
    rows = [(case, statistics.median(taken[case]), ratio(taken, case, "DataLoader")) for case in cases]
    report("workers: an epoch of 8 small batches, 2 processes", ("", "ms", "to DataLoader"), rows)
    kept.close()


def training(rounds: int) -> None:
    pixels = torch.randint(0, 256, (1024, 48, 48, 3), dtype=torch.uint8)
    split, augment = PixelSplit(pixels, torch.arange(1024) % 10), Augment(EXPENSIVE, 0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 23 * 23, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)

    def prepare(batch: torch.Tensor) -> torch.Tensor:
        return batch.permute(0, 3, 1, 2).float() / 255

    def epoch_of(batches: Batches) -> float:
        began = time.perf_counter()
        for inputs, targets in batches.epoch(0):
            optimizer.zero_grad()
            F.cross_entropy(model(inputs), targets).backward()
            optimizer.step()
        return len(split) / (time.perf_counter() - began)

    def made(number: int, tuner: Tuner | None = None, workers: Workers | None = None) -> Batches:
        workers = workers or Workers(number)
        return Batches(split, 64, prepare, CPU, shuffle_seed=0, augment=augment, workers=workers, tuner=tuner)

    auto = Workers()
    tuner = Tuner(auto)
    tuned, began = made(0, tuner, auto), time.perf_counter()
    while not tuner.done:
        epoch_of(tuned)
    seconds = time.perf_counter() - began
    all_of_them = {"0": made(0), "1": made(1), "2": made(2), f"auto: {auto.number}": tuned}
    cases = {name: (lambda batches=batches: epoch_of(batches)) for name, batches in all_of_them.items()}  # type: ignore[misc]
    taken = interleaved(cases, rounds)
    rows = [(name, statistics.median(taken[name]), ratio(taken, name, "0")) for name in cases]
    header = ("data.num_workers", "samples/s", "to 0")
    report("workers: training on augmented pictures", header, rows, tuned=tuner.rates, seconds_until_tuned=seconds)
    for batches in all_of_them.values():
        batches.workers.close()


if __name__ == "__main__":
    words = arguments(__doc__)
    questions = {"passing": passing, "epoch": epoch, "training": training}
    words.add_argument("--only", choices=questions, help="one of the questions")
    given = words.parse_args()
    torch.set_num_threads(given.threads)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for name, question in questions.items():
        if given.only in (None, name):
            question(given.rounds)
