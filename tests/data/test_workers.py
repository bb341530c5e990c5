from __future__ import annotations

import ctypes
import gc
import os
import resource
import signal
import subprocess
import sys
import time
from multiprocessing import active_children
from pathlib import Path

import numpy as np
import pytest
import torch

from dlrun.data.loader import Batches
from dlrun.data.source import ArraySplit
from dlrun.data.workers import Workers
from dlrun.errors import TrainingError, UserError

CPU = torch.device("cpu")


class Failing(ArraySplit):
    """Numbers that are their own index; something happens when its sample 7 is read."""

    def __init__(self, happens):
        super().__init__(torch.arange(24), torch.arange(24))
        self.happens = happens

    def fetch(self, indices):
        if 7 in indices.tolist():
            self.happens()
        return super().fetch(indices)


def batches(happens, size: int, workers: int) -> Batches:
    return Batches(Failing(happens), size, lambda batch: batch, CPU, workers=Workers(workers))


def drawn(happens, workers: int, into: list[list[int]]) -> None:
    for inputs, _ in batches(happens, 3, workers).epoch(0):
        into.append(inputs.tolist())


def outcome(happens, workers: int) -> tuple[list[list[int]], Exception]:
    """The batches that came, and what ended them."""
    came: list[list[int]] = []
    with pytest.raises(Exception) as caught:  # noqa: PT011
        drawn(happens, workers, came)
    assert active_children() == []
    return came, caught.value


class OwnError(Exception):
    """One that takes more than a message, as many libraries have them."""

    def __init__(self, path: str, code: int):
        super().__init__(f"{path}: {code}")


def users_error():
    raise UserError("data: can't read the image 7.jpg (truncated)")


def division():
    return 1 // 0


def no_memory():
    np.empty(1 << 60, np.uint8)


def no_file():
    open("/no/such/file")  # noqa: SIM115


def not_text():
    b"\xff".decode()


def stop():
    next(iter(()))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_users_error_arrives_as_it_is(workers):
    came, error = outcome(users_error, workers)
    assert (type(error), str(error)) == (UserError, "data: can't read the image 7.jpg (truncated)")
    assert came == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize("happens", [division, no_memory, no_file, not_text, stop])
def test_an_exception_is_the_same_in_a_worker(happens):
    came, error = outcome(happens, 2)
    expected_came, expected = outcome(happens, 0)
    assert came == expected_came == [[0, 1, 2], [3, 4, 5]]
    assert type(error) is type(expected)
    if happens is not stop:
        assert str(error) == str(expected)
        assert getattr(error, "errno", None) == getattr(expected, "errno", None)
        (note,) = error.__notes__  # what a log shows under the traceback
        assert f"in {happens.__name__}" in note
        assert "Traceback (most recent call last)" in note


def test_an_exception_that_cant_travel():
    def happens():
        raise OwnError("a.jpg", 5)

    _, error = outcome(happens, 1)
    assert (type(error), str(error)) == (RuntimeError, "OwnError: a.jpg: 5")
    assert "in happens" in error.__notes__[0]


def killed():
    os.kill(os.getpid(), signal.SIGKILL)


def segmentation_fault():
    ctypes.string_at(1)


def bus_error():
    os.kill(os.getpid(), signal.SIGBUS)


def left():
    os._exit(3)


def by_number():
    os.kill(os.getpid(), signal.SIGRTMIN + 3)


@pytest.mark.parametrize(
    ("happens", "said"),
    [
        (killed, "ended by SIGKILL: most likely the memory ran out; fewer data.num_workers or a smaller data.batch_s"),
        (segmentation_fault, "ended by SIGSEGV: code that isn't Python crashed while it read or augmented the data; "),
        (bus_error, "ended by SIGBUS: shared memory is full or a file it read was cut off; fewer data.num_workers or"),
        (left, "ended with exit code 3: something that reads or augments the data left Python; data.num_workers=0 s"),
        (by_number, f"ended by signal {signal.SIGRTMIN + 3}: somebody or something sent it (dlrun resume goes on from"),
    ],
)
def test_a_worker_that_dies(happens, said):
    _, error = outcome(happens, 2)
    assert type(error) is TrainingError
    message = str(error)
    assert message.startswith("data: loader process ")
    assert said in message
    assert "(dlrun resume goes on from the last checkpoint, " in message
    assert "\n" not in message


def test_workers_that_are_killed_from_outside_while_the_main_process_does_something_else():
    pids = []
    with pytest.raises(TrainingError, match=r"^data: loader process(es)? [\d, ]+ ended by SIGKILL: ") as caught:  # noqa: PT012
        for _ in batches(lambda: time.sleep(60), 1, 2).epoch(0):
            if not pids:
                pids = [process.pid for process in active_children()]
                for pid in pids:
                    os.kill(pid, signal.SIGKILL)
                until_gone(pids)
                sum(range(100_000))  # no handler raises anything here
    assert len(pids) == 2
    assert any(str(pid) in str(caught.value) for pid in pids)
    assert active_children() == []


def no_shared_memory():
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def test_full_shared_memory_is_no_endless_wait(monkeypatch):
    monkeypatch.setattr("dlrun.data.slabs.SMALL", 0)  # else these few numbers would need none
    came, error = outcome(no_shared_memory, 2)
    assert type(error) is TrainingError
    assert str(error).startswith("data: no shared memory for a batch (File too large (27)): shared memory is full or ")
    assert came == [[0, 1, 2], [3, 4, 5]]


def test_too_few_files_to_start_all_workers():
    """Each takes three of them; what was started before they run out mustn't stay."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/dev/fd")) + 12, limits[1]))
    try:
        _, error = outcome(division, 8)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert type(error) is TrainingError
    assert str(error).startswith("data.num_workers: can't start 8 processes (Too many open files); lower it (dlrun r")
    del error
    gc.collect()


def test_an_epoch_left_in_the_middle_leaves_nobody():
    for inputs, _ in batches(division, 3, 2).epoch(0):
        assert len(active_children()) == 2
        if 3 in inputs:
            break
    assert active_children() == []


def test_processes_stay_from_epoch_to_epoch_and_for_all_splits():
    workers = Workers(2)
    train, val = (Batches(Failing(int), size, lambda batch: batch, CPU, workers=workers) for size in (3, 4))
    seen = set()
    for epoch in range(3):
        for one, other in zip(train.epoch(epoch, start=2), val.epoch(0), strict=True):  # both at once, too
            assert one[0][0] - 6 == 3 * other[0][0] / 4
            seen.add(frozenset(process.pid for process in active_children()))
        assert [inputs[0] for inputs, _ in val.epoch(0)] == [0, 4, 8, 12, 16, 20]
    assert len(seen) == 1
    assert len(*seen) == 2
    workers.close()
    assert active_children() == []
    assert [inputs[0] for inputs, _ in val.epoch(0)] == [0, 4, 8, 12, 16, 20]  # new ones, since they are needed
    assert len(active_children()) == 2
    del train, val, workers, one, other
    assert active_children() == []  # nobody is left who knows them


def test_no_more_processes_than_batches():
    for _ in (made := batches(int, 12, 8)).epoch(0):
        assert len(active_children()) == 2
    made.workers.close()


def test_batches_that_are_kept_stay_what_they_are():
    """They lie in memory that is used again, as soon as nobody looks at it any more."""
    inputs = torch.arange(48 * 30_000).view(48, 30_000)
    made = Batches(ArraySplit(inputs, inputs[:, 0]), 4, lambda batch: batch, CPU, workers=Workers(2))
    for _ in range(3):
        kept = list(made.epoch(0))
        assert torch.equal(torch.cat([batch for batch, _ in kept]), inputs)
        assert torch.equal(torch.cat([targets for _, targets in kept]), inputs[:, 0])
    views = [batch[1:, :2].T for batch, _ in made.epoch(0)]
    del kept
    for _ in made.epoch(1):
        pass
    assert all(torch.equal(view.T, inputs[4 * i + 1 : 4 * i + 4, :2]) for i, view in enumerate(views))


def test_an_epoch_that_was_left_is_not_mixed_with_the_next():
    made = batches(int, 2, 2)
    for epoch in range(5):
        inputs, _ = next(made.epoch(epoch, start=epoch))
        assert inputs.tolist() == [2 * epoch, 2 * epoch + 1]
    assert [inputs.tolist() for inputs, _ in made.epoch(7)] == [[2 * i, 2 * i + 1] for i in range(12)]


def test_a_worker_that_hangs_is_not_waited_for():
    for inputs, _ in batches(lambda: time.sleep(1000), 3, 1).epoch(0):
        if 3 in inputs:
            break
    assert active_children() == []


SCRIPT = """
import os, signal, sys, time
from multiprocessing import active_children
import torch
from dlrun.data.loader import Batches
from dlrun.data.source import ArraySplit
from dlrun.data.workers import Workers

class Slow(ArraySplit):
    def fetch(self, indices):
        time.sleep(0.02)
        return super().fetch(indices)

received = []
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
    signal.signal(number, lambda number, frame: received.append(number))
numbers = torch.arange(10_000)
made = Batches(Slow(numbers, numbers), 2, lambda batch: batch, torch.device("cpu"), workers=Workers(2))
more, expected = 20, 0
for inputs, _ in made.epoch(0):
    assert inputs.tolist() == [expected, expected + 1]
    if expected == 0:
        print(*(process.pid for process in active_children()), flush=True)
    expected += 2
    more -= len(received) == 3
    if more == 0:
        break
made.workers.close()
assert active_children() == []
unfinished = made.epoch(1)
next(unfinished)
print(*sorted(received), *(process.pid for process in active_children()), flush=True)
if sys.argv[1:] == ["fail"]:
    raise ValueError("a bug, with the epoch still open")
"""


@pytest.fixture
def script():
    """Starts it in a process group of its own; yields a function that does, and ends what is left."""
    started = []

    def start(*words: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", SCRIPT, *words]
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, start_new_session=True)
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def until_gone(pids: list[int]) -> None:
    """Returns when none of them runs any more; pytest's own time limit ends a wait in vain."""
    while any(runs(pid) for pid in pids):
        time.sleep(0.05)


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("ends", ["well", "fail"])
def test_signals_to_the_whole_group(script, ends):
    process = script(ends)
    workers = [int(word) for word in process.stdout.readline().split()]
    assert len(workers) == 2
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    for number in numbers:
        os.killpg(process.pid, number)
    output, errors = process.communicate(timeout=60)  # deaf as they are, the last two end with the main process
    assert process.returncode == (1 if ends == "fail" else 0), errors
    assert ("ValueError: a bug" in errors) == (ends == "fail")
    received, last = output.split()[:3], [int(word) for word in output.split()[3:]]
    assert received == [str(int(number)) for number in sorted(numbers)]
    assert len(last) == 2
    assert not any(map(runs, workers + last))


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_workers_follow_a_main_process_that_is_killed(script):
    process = script()
    workers = [int(word) for word in process.stdout.readline().split()]
    assert len(workers) == 2
    assert all(map(runs, workers))
    process.kill()
    process.wait()
    until_gone(workers)
