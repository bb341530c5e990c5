"""Who is called when, how often and with what; and what is made of the nanoseconds."""

from __future__ import annotations

import gc
import statistics
from collections import Counter

import pytest
import torch

from dlrun.benching.latency import FEWEST, ROUNDS, Effort, Subject, figures, measure, rotated


class Bench:
    """Subjects that take as long as they are told to, by a clock of their own; and a record of every call."""

    def __init__(self, **nanoseconds: int):
        self.now, self.calls = 0, []  # (name, input)
        self.synchronized = 0
        self.subjects = {name: self.subject(name, each) for name, each in nanoseconds.items()}

    def subject(self, name: str, nanoseconds: int) -> Subject:
        def call(number: int) -> None:
            self.calls.append((name, number))
            self.now += nanoseconds

        return Subject(call, [0, 1, 2, 3])

    def measure(self, **effort: float) -> dict[str, list[int]]:
        def synchronize() -> None:
            self.synchronized += 1

        timings = measure(self.subjects, Effort(**effort), synchronize, lambda: self.now)
        assert all(timing.error is None for timing in timings.values())
        return {name: timing.nanoseconds for name, timing in timings.items()}


def test_every_subject_is_called_equally_often_with_every_input_in_turn() -> None:
    bench = Bench(a=1000, b=1000, c=1000)
    taken = bench.measure(calls=100, seconds=5e-4)
    assert {name: len(each) for name, each in taken.items()} == dict.fromkeys("abc", 100)
    assert all(set(each) == {1000} for each in taken.values())
    counts = Counter(name for name, _ in bench.calls)
    # Each input once to warm up, and a call that doesn't count before each of the turns.
    assert counts == dict.fromkeys("abc", 4 + 100 + ROUNDS)
    for name in "abc":
        inputs = [number for who, number in bench.calls if who == name]
        assert inputs == [i % 4 for i in range(len(inputs))]
    assert bench.synchronized == 2 * len(bench.calls), "before and after each call"


def test_turns_alternate_and_each_goes_first_equally_often() -> None:
    bench = Bench(a=1000, b=1000, c=1000)
    bench.measure(calls=120, seconds=5e-4)
    turns = [name for name, _ in bench.calls[12 :: 120 // ROUNDS + 1]]
    rounds = [tuple(turns[i : i + 3]) for i in range(0, len(turns), 3)]
    assert len(rounds) == ROUNDS
    assert all(sorted(order) == ["a", "b", "c"] for order in rounds)
    assert rounds[:6] == [tuple(rotated("abc", i)) for i in range(6)]
    assert rounds[:6] == [tuple(word) for word in ("abc", "cba", "bca", "acb", "cab", "bac")]


@pytest.mark.parametrize(
    ("nanoseconds", "calls"),
    [
        (1_000_000, 1000),  # a tenth of the ten seconds is more than 100 calls
        (50_000_000, 100),  # 100 calls, 5 s
        (400_000_000, 25),  # ten seconds come first
        (60_000_000_000, FEWEST),
    ],
)
def test_at_least_100_calls_or_ten_seconds(nanoseconds: int, calls: int) -> None:
    assert len(Bench(a=nanoseconds).measure()["a"]) == calls


def test_fast_and_slow_subjects_are_spread_over_the_same_stretch() -> None:
    bench = Bench(fast=1_000_000, slow=50_000_000)
    bench.measure()
    last = {name: i for i, (name, _) in enumerate(bench.calls)}
    assert abs(last["fast"] - last["slow"]) <= 1000 / ROUNDS + 2, "they end in the same round"


def test_a_warm_up_that_misleads_costs_no_calls() -> None:
    """The first calls may compile, or be lucky: what was planned by them is made up for."""
    bench = Bench(a=1000)
    durations = iter([10**9] * 4)
    call = bench.subjects["a"].call

    def slow_at_first(number: int) -> None:
        call(number)
        bench.now += next(durations, 0)

    bench.subjects["a"] = Subject(slow_at_first, [0, 1, 2, 3])
    assert len(bench.measure(calls=100, seconds=0.1)["a"]) == 10_000  # a tenth of the seconds


def test_one_that_raises_is_told_and_the_others_go_on() -> None:
    bench = Bench(a=1000, b=1000)

    def broken(number: int) -> None:
        raise RuntimeError("no")

    subjects = {**bench.subjects, "broken": Subject(broken, [0])}
    timings = measure(subjects, Effort(10, 1e-4), clock=lambda: bench.now)
    assert isinstance(timings["broken"].error, RuntimeError)
    assert timings["broken"].nanoseconds == []
    assert len(timings["a"].nanoseconds) == len(timings["b"].nanoseconds) == 10


def test_no_garbage_collection_and_no_gradients_while_timing() -> None:
    seen = []
    subject = Subject(lambda _: seen.append((gc.isenabled(), torch.is_inference_mode_enabled())), [0])
    measure({"a": subject}, Effort(5, 1e-6))
    assert set(seen) == {(False, True)}
    assert gc.isenabled()


def test_percentiles_and_throughput() -> None:
    milliseconds = [((i * 37) % 101) ** 1.5 for i in range(101)]  # in no order
    found = figures([round(ms * 1e6) for ms in milliseconds], 8)
    hundredths = statistics.quantiles(milliseconds, n=100, method="inclusive")
    assert found["p50_ms"] == pytest.approx(hundredths[49], rel=1e-6)
    assert found["p90_ms"] == pytest.approx(hundredths[89], rel=1e-6)
    assert found["p99_ms"] == pytest.approx(hundredths[98], rel=1e-6)
    assert found["mean_ms"] == pytest.approx(statistics.fmean(milliseconds), rel=1e-6)
    assert found["calls"] == 101
    # Batch over time: 101 batches of 8 in all of that time.
    assert found["samples_per_second"] == pytest.approx(8 * 101 / (sum(milliseconds) / 1000), rel=1e-6)
    assert figures([4_000_000] * 5, 64)["samples_per_second"] == pytest.approx(16_000)
