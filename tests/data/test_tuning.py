from __future__ import annotations

import logging
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from multiprocessing import active_children
from pathlib import Path

import pytest
import torch

from dlrun.data import tuning
from dlrun.data.augment import Augment
from dlrun.data.image_folder import FileSplit
from dlrun.data.loader import Batches
from dlrun.data.source import ArraySplit, PixelSplit
from dlrun.data.tuning import Staff, Tuner
from dlrun.data.workers import Workers
from dlrun.errors import UserError

CPU = torch.device("cpu")
MAIN = os.getpid()


def training(tuner: Tuner, wait: Callable[[int], float], step: float, batches: int, per_epoch: int = 21) -> int:
    """Train with a clock of our own: `wait(number of processes)` and `step` in seconds; returns how many it took."""
    now = 0.0
    tuner.clock = lambda: now

    def fetched() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        nonlocal now
        for _ in range(per_epoch):
            now += wait(tuner.workers.number)
            yield torch.zeros(32), torch.zeros(32)

    for seen in range(0, batches, per_epoch):
        for number, _ in enumerate(tuner.watched(fetched())):
            now += step
            if tuner.done:
                return seen + number
        now += 1000  # an evaluation, which is none of its business
    return batches


def ideal(fetch: float, step: float) -> Callable[[int], float]:
    """What is waited for, with a core for each process."""
    return lambda number: fetch if number == 0 else max(fetch / number - step, 0)


@pytest.mark.parametrize(
    ("wait", "step", "most", "tried", "chosen"),
    [
        (ideal(0.001, 0.1), 0.1, 8, [0], 0),  # no more to win than 1 %
        (ideal(0.1, 0.1), 0.1, 8, [0, 1], 1),  # 1 hides it all
        (ideal(0.4, 0.1), 0.1, 8, [0, 1, 2, 4], 4),
        (ideal(0.35, 0.1), 0.1, 8, [0, 1, 2, 4], 4),
        (ideal(9, 0.1), 0.1, 4, [0, 1, 2, 4], 4),
        (ideal(9, 0.1), 0.1, 6, [0, 1, 2, 4, 6], 6),
        (ideal(9, 0.001), 0.001, 8, [0, 1, 2, 4, 8], 8),  # 1 is no better than 0, and yet
        (lambda number: 0.3 if number < 2 else 0.15, 0.01, 16, [0, 1, 2, 4], 2),  # a disk that gives no more
        (lambda number: 0.3, 0.01, 16, [0, 1, 2], 0),
        (lambda number: 0.3 + 0.1 * number, 0.1, 16, [0, 1, 2], 0),  # they take more from the training than they give
        (ideal(9, 0.1), 0.1, 1, [0, 1], 0),  # 1.1 % more
        (ideal(0.2, 0.1), 0.1, 1, [0, 1], 1),
    ],
)
def test_the_smallest_number_with_the_most_samples_per_second(wait, step, most, tried, chosen):
    tuner = Tuner(Workers(), most)
    training(tuner, wait, step, 10_000)
    assert list(tuner.rates) == tried
    assert (tuner.done, tuner.workers.number, tuner.workers.fallback) == (True, chosen, None)
    for number, rate in tuner.rates.items():
        assert rate == pytest.approx(32 / (wait(number) + step), rel=0.01)


def test_how_long_a_number_is_tried():
    """3 s without processes, but at least 10 batches, and the first few before: at 5 ms a batch are 600, at 1 s 10."""
    for seconds, batches in ((0.005, 600), (1, 10)):
        tuner = Tuner(Workers(), 8)
        took = training(tuner, lambda number: 0, seconds, 10_000, per_epoch=10_000)
        assert batches <= took <= batches + 10


@pytest.mark.parametrize(("disturbed", "chosen"), [(range(15, 70), 0), (range(0), 2)])
def test_a_small_gain_is_looked_at_twice(disturbed, chosen):
    """Somebody else wants the core while 0 is measured for the first time: then 2 only seem to help."""
    asked = 0

    def wait(number: int) -> float:
        nonlocal asked
        asked += 1
        own = {0: 0.1, 1: 0.1, 2: 0.1 if disturbed else 0.08}[number]
        return own + 0.03 * (asked in disturbed)

    tuner = Tuner(Workers(), 2)
    training(tuner, wait, 0.01, 10_000)
    assert list(tuner.rates) == [0, 1, 2]
    assert (tuner.done, tuner.workers.number) == (True, chosen)


def test_what_is_said(caplog):
    caplog.set_level(logging.INFO, logger="dlrun")
    training(Tuner(Workers(), 2), ideal(0.1, 0.01), 0.01, 10_000, per_epoch=10_000)
    training(Tuner(Workers(), 2), ideal(0.001, 0.099), 0.099, 10_000, per_epoch=10_000)
    assert [record.message for record in caplog.records] == [
        "data.num_workers=auto: 0 gives 291, 1 gives 320, 2 give 640 samples/s: 2",
        "data.num_workers=auto: 0 gives 320 samples/s, 1% of the time is waiting for data: 0",
    ]


class Noted(ArraySplit):
    """Numbers that are their own index; `happens` in a loader process, with the batch's first number."""

    def __init__(self, happens: Callable[[int], None]):
        super().__init__(torch.arange(300), torch.arange(300))
        self.happens = happens

    def fetch(self, indices):
        if os.getpid() != MAIN:
            self.happens(int(indices[0]))
        return super().fetch(indices)


def batches(happens: Callable[[int], None], workers: Workers, tuner: Tuner | None = None) -> Batches:
    return Batches(Noted(happens), 3, lambda batch: batch, CPU, shuffle_seed=0, workers=workers, tuner=tuner)


def numbers(epoch) -> list[list[int]]:
    return [inputs.tolist() for inputs, _ in epoch]


@pytest.mark.parametrize("seed", range(4))
def test_a_change_in_the_middle_loses_nothing(seed):
    """At random places, of batches that take random times."""
    chance, workers = random.Random(seed), Workers()
    made, plain = batches(lambda first: time.sleep(first % 7 / 5000), workers), batches(lambda _: None, Workers())
    for epoch in range(3):
        came, most, workers.number = [], 0, 2
        for inputs, targets in made.epoch(epoch, start=epoch):
            assert torch.equal(inputs, targets)
            came.append(inputs.tolist())
            if chance.random() < 0.2:
                workers.number = chance.randrange(4)
            most = max(most, len(active_children()))
        assert came == numbers(plain.epoch(epoch, start=epoch))
        assert 1 <= most <= 3
    made.workers.close()
    assert active_children() == []


def killed(_):
    os.kill(os.getpid(), signal.SIGKILL)


def left(first):
    if first > 100:
        os._exit(3)


def slow(_):
    time.sleep(0.02)


@pytest.mark.parametrize(("happens", "cause"), [(killed, "ended by SIGKILL: most likely"), (left, "exit code 3")])
def test_a_trial_that_fails_costs_no_batch(happens, cause, monkeypatch, caplog):
    caplog.set_level(logging.INFO, logger="dlrun")
    monkeypatch.setattr(tuning, "SECONDS", 0)
    workers = Workers()
    tuner = Tuner(workers, 4)
    made, plain = batches(happens, workers, tuner), batches(slow, Workers())
    came = [numbers(made.epoch(epoch)) for epoch in range(2)]
    assert came == [numbers(plain.epoch(epoch)) for epoch in range(2)]
    assert (tuner.done, workers.number, active_children()) == (True, 0, [])
    failed, said = caplog.messages
    assert failed.startswith("data.num_workers=auto: ")
    assert cause in failed
    assert said.startswith("data.num_workers=auto: 0 gives ")
    assert said.endswith(": 0")


def test_no_shared_memory_in_a_trial(monkeypatch, caplog):
    import resource

    monkeypatch.setattr("dlrun.data.slabs.SMALL", 0)
    monkeypatch.setattr(tuning, "SECONDS", 0)
    workers = Workers()
    made = batches(lambda _: resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)), workers, Tuner(workers, 4))
    assert numbers(made.epoch(0)) == numbers(batches(slow, Workers()).epoch(0))
    assert workers.number == 0
    assert "data: no shared memory for a batch (File too large (27))" in caplog.text


def test_what_is_wrong_with_the_data_is_no_failed_trial(monkeypatch):
    def unreadable(_):
        raise UserError("data: can't read the image 7.jpg")

    monkeypatch.setattr(tuning, "SECONDS", 0)
    workers = Workers()
    with pytest.raises(UserError, match=r"can't read the image 7.jpg"):
        numbers(batches(unreadable, workers, Tuner(workers, 4)).epoch(0))
    assert active_children() == []


class Sleepy(ArraySplit):
    def fetch(self, indices):
        time.sleep(0.03)
        return super().fetch(indices)


def test_processes_for_data_that_takes_long(monkeypatch):
    """Sleeping needs no core: 2 processes are twice as fast as 1 on any machine, and 1 as fast as none."""
    monkeypatch.setattr(tuning, "SECONDS", 0.3)
    workers = Workers()
    tuner = Tuner(workers, 2)
    split = Sleepy(torch.arange(400), torch.arange(400))
    made = Batches(split, 2, lambda batch: batch, CPU, workers=workers, tuner=tuner)
    assert numbers(made.epoch(0)) == [[2 * i, 2 * i + 1] for i in range(200)]
    assert (tuner.done, workers.number, list(tuner.rates)) == (True, 2, [0, 1, 2])


def test_who_fetches_what():
    pixels, labels = torch.zeros(4, 8, 8, 3, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64)
    in_memory, files = PixelSplit(pixels, labels), FileSplit(Path(), [], labels, (8, 8))
    resized, flip = PixelSplit(pixels, labels, size=(16, 16)), Augment([{"HorizontalFlip": {}}], 0)
    auto, two, none = Staff("auto", CPU), Staff(2, CPU), Staff("auto", CPU, measures=False)
    for split, augment, takes_work in (
        (in_memory, None, False),
        (in_memory, flip, True),
        (resized, None, True),
        (files, None, True),
        (ArraySplit(pixels, labels), None, False),
    ):
        assert (auto.assign(split, augment)[1] is auto.workers) == takes_work
        assert two.assign(split, augment)[1] is two.workers  # whoever gives a number means it
    assert (auto.workers.number, two.workers.number, none.workers.number) == (0, 2, 0)
    assert auto.tuner is not None
    assert (two.tuner, none.tuner) == (None, None)
