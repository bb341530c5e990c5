"""Checkpoints on their way to disk: never in the training's way, never half, and never silently missing."""

from __future__ import annotations

import os
import resource
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import Process
from test_checkpoint import same

from dlrun import checkpoint
from dlrun.runfolder import RunFolder
from dlrun.writer import CheckpointWriter, copied

CONSTANT = {"config": {"seed": 0}, "spec": {"shape": (3,)}, "run_id": "abcd1234", "data": {"train": "0123"}}
NOBODY = 65534


def state(number: int, size: int = 5000) -> dict[str, Any]:
    """Of a training that has taken `number` steps: every number in it says so."""
    moments = {"step": torch.tensor(float(number)), "exp_avg": torch.full((7,), number, dtype=torch.float64)}
    return {
        "model": {"weight": torch.full((size,), float(number)), "bias": torch.full((2, 3), number)},
        "ema": None,
        "optimizer": {"state": {0: moments}, "param_groups": [{"lr": 0.1, "betas": (0.9, 0.99), "params": [0]}]},
        "scheduler": {},
        "scaler": {},
        "random": {"python": [3, [number], None]},
        "progress": {"epoch": number, "step": number},
    }


def number(path: Path) -> int:
    """Which state a file holds; it is whole, and all of one moment."""
    found = checkpoint.load(path)
    step = found["progress"]["step"]
    assert same(found, {"format": checkpoint.FORMAT, **state(step, len(found["model"]["weight"])), **CONSTANT})
    return int(step)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    (tmp_path / "checkpoints").mkdir()
    return RunFolder(tmp_path)


class Gate:
    """Holds up every write until it is opened, and counts how many are on their way at once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.opened, self.begun, self.inside, self.most = threading.Event(), threading.Event(), 0, 0
        save = checkpoint.save

        def held(*arguments: Any, **named: Any) -> None:
            self.inside += 1
            self.most = max(self.most, self.inside)
            self.begun.set()
            assert self.opened.wait(60)
            save(*arguments, **named)
            self.inside -= 1

        monkeypatch.setattr(checkpoint, "save", held)


def test_what_is_written_is_the_state_when_it_was_put(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, writer, current = Gate(monkeypatch), CheckpointWriter(folder, CONSTANT), state(1)
    writer.put(current)
    assert gate.begun.wait(60)
    assert writer.busy
    assert not folder.last.exists()
    for tensor in (*current["model"].values(), *current["optimizer"]["state"][0].values()):
        tensor.add_(1)  # the training goes on
    current["optimizer"]["param_groups"][0]["lr"] = 5.0
    current["progress"]["step"] = 2
    current["random"]["python"][1][0] = 2
    gate.opened.set()
    assert writer.close() is None
    assert not writer.busy
    assert number(folder.last) == 1


def test_one_write_at_a_time(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, writer = Gate(monkeypatch), CheckpointWriter(folder, CONSTANT)
    gate.opened.set()
    for step in range(1, 30):
        writer.put(state(step), best=step % 3 == 0)
        assert gate.inside <= 1
    assert writer.close() is None
    assert gate.most == 1
    assert [number(path) for path in (folder.last, folder.previous, folder.best)] == [29, 28, 27]


def test_put_waits_for_the_write_in_flight(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, writer = Gate(monkeypatch), CheckpointWriter(folder, CONSTANT)
    writer.put(state(1))
    second = threading.Thread(target=writer.put, args=(state(2),))
    second.start()
    second.join(0.2)
    assert second.is_alive()
    gate.opened.set()
    second.join(60)
    assert not second.is_alive()
    assert writer.close() is None
    assert (number(folder.previous), number(folder.last)) == (1, 2)


def test_last_previous_and_best(folder: RunFolder) -> None:
    writer = CheckpointWriter(folder, CONSTANT)
    assert writer.latest() is None
    seen = []
    for step, best in [(1, True), (2, False), (3, True), (4, False), (5, False)]:
        writer.put(state(step), best)
        newest = writer.latest()
        assert newest is not None
        assert newest["progress"]["step"] == step
        previous = number(folder.previous) if folder.previous.exists() else None
        seen.append((number(folder.last), previous, number(folder.best)))
    assert seen == [(1, None, 1), (2, 1, 1), (3, 2, 3), (4, 3, 3), (5, 4, 3)]
    assert sorted(path.name for path in folder.checkpoints.iterdir()) == ["best.pt", "last.pt", "previous.pt"]


def test_memory_is_used_again(folder: RunFolder) -> None:
    def places(value: Any) -> list[int]:
        if isinstance(value, torch.Tensor):
            return [value.data_ptr()]
        return [place for v in value.values() for place in places(v)] if isinstance(value, dict) else []

    writer, used = CheckpointWriter(folder, CONSTANT), []
    for step in range(1, 4):
        writer.put(state(step))
        writer.wait()
        used.append(places(writer._copy))
        assert number(folder.last) == step
    assert used[0] == used[1] == used[2]
    assert len(set(used[0])) == 4


def test_copies_of_what_changes_shape_and_kind() -> None:
    first = {"a": torch.ones(3), "b": [torch.ones(2), 5, (torch.zeros(1), "x")], "c": {"d": None}}
    memory = copied(first)
    for value in (
        {"a": torch.ones(4), "b": [torch.ones(2, dtype=torch.int32)], "c": None},
        {"a": None, "b": {"x": torch.ones(1)}, "c": [1, 2], "e": torch.tensor(7.0, requires_grad=True)},
        {"a": torch.arange(6).reshape(2, 3).T, "b": [torch.ones(2), 6, (torch.ones(1), "y")], "c": {"d": 1}},
    ):
        found = copied(value, memory)
        assert same(found, value)
    assert not found["a"].requires_grad


def test_a_best_that_could_not_be_written_is_made_up_for(folder: RunFolder, caplog: pytest.LogCaptureFixture) -> None:
    writer = CheckpointWriter(folder, CONSTANT)
    writer.put(state(1), best=True)
    writer.wait()
    folder.best.unlink()
    (folder.best / "in the way").mkdir(parents=True)
    writer.put(state(2), best=True)
    writer.wait()
    assert isinstance(writer.error, OSError)
    assert "couldn't be saved" in caplog.text
    assert number(folder.last) == 2  # this much went well
    writer.put(state(3))
    writer.wait()
    assert writer.error is not None
    assert number(folder.last) == 3
    shutil.rmtree(folder.best)
    writer.put(state(4))
    assert writer.close() is None
    assert [number(path) for path in (folder.last, folder.previous, folder.best)] == [4, 3, 2]


def test_a_newer_best_takes_the_place_of_one_that_could_not_be_written(folder: RunFolder) -> None:
    writer = CheckpointWriter(folder, CONSTANT)
    (folder.best / "in the way").mkdir(parents=True)
    writer.put(state(1), best=True)
    writer.wait()
    shutil.rmtree(folder.best)
    for step, best in ((2, True), (3, False)):
        writer.put(state(step), best)
    assert writer.close() is None
    assert (number(folder.last), number(folder.best)) == (3, 2)


@pytest.mark.parametrize("mended", [True, False])
def test_close_tries_once_more_and_tells(folder: RunFolder, mended: bool) -> None:
    shutil.rmtree(folder.checkpoints)
    folder.checkpoints.write_text("a file")
    writer = CheckpointWriter(folder, CONSTANT)
    for step in (1, 2):
        writer.put(state(step), best=step == 1)
    writer.wait()
    assert isinstance(writer.error, NotADirectoryError)
    if mended:
        folder.checkpoints.unlink()
        folder.checkpoints.mkdir()
        assert writer.close() is None
        assert (number(folder.last), number(folder.best)) == (2, 1)
    else:
        assert isinstance(writer.close(), NotADirectoryError)
        assert folder.checkpoints.read_text() == "a file"


# ---- limits of the system


def within_a_file_size(path: Path) -> None:
    writer = CheckpointWriter(RunFolder(path), CONSTANT)
    writer.put(state(1), best=True)
    writer.wait()
    whole = writer.folder.last.stat().st_size
    for limit in (0, 100, whole // 2, whole - 1):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        writer.put(state(2, size=6000), best=True)
        print(f"{limit}: {writer.close()}")
        assert (number(writer.folder.last), number(writer.folder.best)) == (1, 1)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    writer.put(state(3))
    print(writer.close())


def test_a_file_size_limit(folder: RunFolder) -> None:
    process = Process(within_a_file_size, folder.path)
    assert process.wait() == 0, process.output
    assert process.output.count("File too large") >= 4
    assert process.output.endswith("None\n")
    assert [number(path) for path in (folder.last, folder.previous, folder.best)] == [3, 1, 2]
    assert len(list(folder.checkpoints.iterdir())) == 3  # nothing half-written


@pytest.fixture
def everybodys() -> Iterator[Path]:
    """A folder that a process without rights can come to; pytest's own are closed to others."""
    path = Path(tempfile.mkdtemp())
    path.chmod(0o755)
    (path / "checkpoints").mkdir(mode=0o755)
    if os.geteuid() == 0:
        for place in (path, path / "checkpoints"):
            os.chown(place, NOBODY, NOBODY)
    yield path
    (path / "checkpoints").chmod(0o755)
    shutil.rmtree(path)


def without_rights() -> None:
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)


def into_a_read_only_folder(path: Path) -> None:
    without_rights()
    writer = CheckpointWriter(RunFolder(path), CONSTANT)
    writer.put(state(1))
    print(writer.close())
    (path / "checkpoints").chmod(0o555)
    writer.put(state(2), best=True)
    print(writer.close())
    assert number(writer.folder.last) == 1
    (path / "checkpoints").chmod(0o755)
    print(writer.close())


def test_a_read_only_folder(everybodys: Path) -> None:
    process = Process(into_a_read_only_folder, everybodys)
    assert process.wait() == 0, process.output
    said = process.output.splitlines()
    assert (said[0], said[-1]) == ("None", "None"), said
    assert "Permission denied" in said[-2]
    folder = RunFolder(everybodys)
    assert [number(path) for path in (folder.last, folder.previous, folder.best)] == [2, 1, 2]


def at_the_lowest_priority(path: Path) -> None:
    without_rights()
    os.nice(19)  # a thread can't have more than that without rights
    writer = CheckpointWriter(RunFolder(path), CONSTANT)
    writer.put(state(1))
    print(writer.close())


def test_a_process_of_the_lowest_priority_saves_too(everybodys: Path) -> None:
    process = Process(at_the_lowest_priority, everybodys)
    assert process.wait() == 0, process.output
    assert process.output == "None\n"
    assert number(RunFolder(everybodys).last) == 1
