"""One process per run folder, as long as it lives, and not a moment longer."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from processes import Dlrun, Process

from dlrun.errors import UserError
from dlrun.locks import hold, is_held, release

LONG = ["tracking=none", "model=perceptron", "data=breast_cancer", "augment=none", "scheduler=none"]
LONG += ["trainer.max_epochs=1000000"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """start(Dlrun, "model=mlp") or start(Process, function, …); nothing outlives the test."""
    begun: list[Process] = []

    def started(kind: type[Process], *arguments: Any) -> Process:
        begun.append(kind(tmp_path, *arguments) if kind is Dlrun else kind(*arguments))
        return begun[-1]

    yield started
    for process in begun:
        process.kill()


def test_a_run_that_is_trained_is_not_resumed_by_another_process(start: Callable[..., Any], tmp_path: Path) -> None:
    last, log = tmp_path / "run/checkpoints/last.pt", tmp_path / "run/dlrun.log"
    first = start(Dlrun, *LONG, "hydra.run.dir=run")
    first.until(last.exists)
    words = ["resume", "run=run", "trainer.max_epochs=2000000"]

    def refused(owner: Dlrun) -> None:
        result = start(Dlrun, *words)
        assert result.wait() == 2
        assert result.output.startswith(f"dlrun: run is being trained by process {owner.pid} on ")
        assert result.output.endswith("; one at a time\n")
        assert result.output.count("\n") == 1

    refused(first)
    first.send(signal.SIGKILL)
    assert first.wait() == 128 + signal.SIGKILL
    second = start(Dlrun, *words)
    second.until_printed("resume: goes on after step")
    said = second.output
    refused(second)
    assert second.process.is_alive()
    second.send(signal.SIGKILL)
    second.wait()
    assert "Traceback" not in said + log.read_text()
    third = start(Dlrun, *words)
    third.until_printed("resume: goes on after step")


def holding_with_children(path: Path, pids: Path) -> None:
    """As a training with loader workers, forked when the lock was held already."""
    hold(path)
    children = []
    for _ in range(2):
        child = os.fork()
        if child == 0:
            time.sleep(600)
            os._exit(0)
        children.append(child)
    pids.with_suffix(".partial").write_text(" ".join(map(str, children)))
    pids.with_suffix(".partial").rename(pids)
    time.sleep(600)


def test_workers_that_outlive_their_process_hold_nothing(start: Callable[..., Any], tmp_path: Path) -> None:
    lock, pids = tmp_path / ".lock", tmp_path / "pids"
    process = start(Process, holding_with_children, lock, pids)
    process.until(pids.exists)
    with pytest.raises(UserError, match=f"is being trained by process {process.pid} on"):
        hold(lock)
    process.send(signal.SIGKILL)
    process.process.join()
    children = [int(pid) for pid in pids.read_text().split()]
    try:
        for child in children:
            os.kill(child, 0)  # it lives
        hold(lock)
        release(lock)
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)


def trying(path: Path) -> None:
    try:
        hold(path)
        print("held")
    except UserError as error:
        print(error)


def test_a_lock_is_given_back(start: Callable[..., Any], tmp_path: Path) -> None:
    lock, answers = tmp_path / ".lock", []
    for step in (lambda: None, lambda: hold(lock), lambda: hold(lock), lambda: release(lock), lambda: release(lock)):
        step()
        process = start(Process, trying, lock)
        assert process.wait() == 0
        answers.append(process.output == "held\n")
    assert answers == [True, False, False, True, True]


def test_a_lock_where_nothing_can_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        hold(tmp_path / "nowhere" / ".lock")


def ask(lock: Path) -> None:
    os._exit(10 + is_held(lock))


def test_whoever_asks_takes_nothing_away(start: Callable[..., Any], tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    assert not is_held(lock)
    hold(lock)
    assert is_held(lock)
    for _ in range(2):  # asking here, or there, didn't give it back
        assert start(Process, ask, lock).wait() == 11
    release(lock)
    assert start(Process, ask, lock).wait() == 10


def test_where_there_are_no_locks_nobody_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = tmp_path / ".lock"
    lock.touch()

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.lockf", refuse)
    hold(lock)
    assert not is_held(lock)
