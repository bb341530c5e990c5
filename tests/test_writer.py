"""Checkpoints on their way to disk: never in the training's way, never half, and never silently missing."""

from __future__ import annotations

import ctypes
import json
import os
import resource
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import Process
from test_checkpoint import same

from dlrun import checkpoint
from dlrun.cli import main
from dlrun.runfolder import RunFolder
from dlrun.writer import CheckpointWriter, copied

CONSTANT = {"config": {"seed": 0}, "spec": {"shape": (3,)}, "run_id": "abcd1234", "data": {"train": "0123"}} | {
    "machine": {}
}
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


# ---- a whole run on a disk that fills up

FILLING = """
import json
import os
import resource
from pathlib import Path

from torch import nn

from dlrun.registry import models


class Filling(nn.Linear):
    passes = 0

    def forward(self, x):
        self.passes += self.training
        full, room = (int(os.environ.get(name, 1000)) for name in ("FULL_AT", "ROOM_AT"))
        if self.training and full <= self.passes < room:
            fill(first=self.passes == full)  # each time: a write that ends gives room back
        if self.training and self.passes == room:
            make_room()
        return super().forward(x)


def fill(first):
    if not os.path.ismount("."):
        if not first:
            return
        (metrics,) = Path("outputs").glob("*/*/metrics.csv")
        limit = metrics.stat().st_size + 20  # a row fits in part
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        return
    with open("filler", "ab", buffering=0) as file:
        try:
            while file.write(bytes(100)):
                pass
        except OSError:
            pass


def make_room():
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    Path("filler").unlink(missing_ok=True)


@models.register("filling")
def filling(spec):
    "A perceptron that fills the disk, and may make room again."
    return Filling(*spec.shape, spec.num_outputs)
"""
WORDS = ["data=breast_cancer", "tracking=none", "augment=none", "trainer.max_epochs=4", "plugins=[filling]"]
WORDS += ["model=perceptron", "model.name=filling", "trainer.checkpoint_every_n_steps=1", "scheduler=none"]
WORDS += ["trainer.monitor=val/loss"]  # which improves in every epoch; that is always saved


def under_a_limit(folder: Path, environment: dict[str, str], words: list[str]) -> None:
    os.chdir(folder)
    os.environ.update(environment)
    sys.dont_write_bytecode = True
    sys.argv = ["dlrun", *words]
    main()


def mount_tmpfs(path: Path) -> None:
    """For this process alone, in namespaces of its own; where that isn't allowed there is no mount."""
    libc, user, group = ctypes.CDLL(None, use_errno=True), os.geteuid(), os.getegid()
    new_mounts, new_user, private = 0x20000, 0x10000000, (1 << 18) | (1 << 14)
    if libc.unshare(new_mounts if user == 0 else new_mounts | new_user) != 0:
        return
    if user != 0:
        for name, text in (("uid_map", f"{user} {user} 1"), ("setgroups", "deny"), ("gid_map", f"{group} {group} 1")):
            Path("/proc/self", name).write_text(text)
    libc.mount(b"none", b"/", None, private, None)
    libc.mount(b"tmpfs", str(path).encode(), b"tmpfs", 0, b"size=1m")


def on_a_small_disk(folder: Path, environment: dict[str, str], words: list[str]) -> None:
    """On a tmpfs of 1 MB, if this process may mount one; what is on it in the end is copied to `folder`."""
    disk = folder / "disk"
    disk.mkdir()
    mount_tmpfs(disk)
    shutil.copy(folder / "filling.py", disk)
    try:
        under_a_limit(disk, environment, words)
    finally:
        shutil.copytree(disk / "outputs", folder / "outputs")


@pytest.fixture
def filling(tmp_path: Path) -> Path:
    (tmp_path / "filling.py").write_text(FILLING)
    return tmp_path


def results(top: Path) -> tuple[RunFolder, dict[str, Any], list[list[str]]]:
    """The only run under `top`, its summary, and the rows of metrics.csv, all of them whole."""
    (path,) = top.glob("outputs/*/*/summary.json")
    folder = RunFolder(path.parent)
    header, *rows = (line.split(",") for line in folder.metrics.read_text().removesuffix("\n").split("\n"))
    assert {len(row) for row in rows} <= {len(header)}
    assert [row[0] for row in rows] == [str(1 + i) for i in range(len(rows))]
    return folder, folder.read_summary(), rows


@pytest.mark.parametrize("run", [under_a_limit, on_a_small_disk])
def test_a_disk_that_fills_up_costs_what_comes_after_it_and_nothing_else(
    run: Callable[..., None], filling: Path
) -> None:
    process = Process(run, filling, {"FULL_AT": "18"}, WORDS)
    assert process.wait() == 1, process.output
    said, output = "the checkpoint couldn't be saved: [Errno", process.output
    assert said in output
    assert output.index(said) < output.index("epoch 4/4")  # not in the end alone, and it goes on
    assert "File too large" in output or "No space left on device" in output
    assert "Traceback" not in output
    folder, summary, rows = results(filling)
    assert summary["status"] == "running"  # it couldn't be written; who asks is told by the exit code
    assert "summary.json couldn't be written" in output
    assert len(rows) == 2 or run is on_a_small_disk  # where they find room in what the file has of its last block
    last, previous = (checkpoint.load(path)["progress"]["step"] for path in (folder.last, folder.previous))
    assert 1 <= previous <= last <= 18
    assert not list(folder.path.rglob("*.partial"))

    resumed = Process(under_a_limit, filling, {}, ["resume", f"run={folder.path}", "plugins=[filling]"])
    assert resumed.wait() == 0, resumed.output
    _, summary, rows = results(filling)
    assert (summary["status"], len(rows), summary["steps"]) == ("finished", 4, 28)


@pytest.mark.parametrize("run", [under_a_limit, on_a_small_disk])
def test_a_disk_that_has_room_again_has_everything(run: Callable[..., None], filling: Path) -> None:
    process = Process(run, filling, {"FULL_AT": "18", "ROOM_AT": "23"}, WORDS)
    assert process.wait() == 0, process.output
    assert "the checkpoint couldn't be saved: [Errno" in process.output
    folder, summary, rows = results(filling)
    assert (summary["status"], summary["error"], len(rows)) == ("finished", None, 4)
    assert checkpoint.load(folder.last)["progress"]["step"] == 28
    assert checkpoint.load(folder.best)["progress"]["epoch"] == summary["best"]["epoch"]
    if run is under_a_limit:
        assert "metrics.csv couldn't be written: [Errno 27] File too large; its rows are kept" in process.output


@pytest.mark.parametrize("tracking", ["tensorboard", "[wandb,tensorboard]"])
def test_trackers_on_a_full_disk_cost_no_run(filling: Path, tracking: str) -> None:
    offline = ["tracking.wandb.mode=offline"] if "wandb" in tracking else []
    words = [*WORDS[:1], f"tracking={tracking}", *offline, *WORDS[2:], "trainer.log_every_n_steps=1"]
    process = Process(under_a_limit, filling, {"FULL_AT": "11", "ROOM_AT": "23"}, words)
    assert process.wait() == 0, process.output
    _, summary, rows = results(filling)
    assert (summary["status"], len(rows)) == ("finished", 4)
    assert process.output.count("TensorBoard failed; the run goes on without it") <= 1


@pytest.mark.parametrize("size", [0, 600, 1500])
def test_a_disk_that_is_full_before_it_begins(filling: Path, size: int) -> None:
    """Files of `size` bytes still fit: none at all, summary.json, and the first that Hydra writes."""
    process = Process(with_files_of, filling, size, WORDS)
    assert process.wait() == 2, process.output
    assert process.output.startswith("dlrun: hydra.run.dir: can't write to outputs/")
    assert process.output.endswith("(File too large)\n")
    assert process.output.count("\n") == 1
    assert [path.name for path in filling.iterdir()] == ["filling.py"]


def with_files_of(folder: Path, size: int, words: list[str]) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    under_a_limit(folder, {}, words)


def test_a_bad_batch_that_cannot_be_noted_is_told(folder: RunFolder, caplog: pytest.LogCaptureFixture) -> None:
    writer = CheckpointWriter(folder, CONSTANT)
    (folder.bad_batch / "in the way").mkdir(parents=True)
    writer.keep_batch({"indices": [[1, 2]]})
    assert "nonfinite_batch.json couldn't be written: [Errno 21] Is a directory" in caplog.text
    shutil.rmtree(folder.bad_batch)
    writer.keep_batch({"indices": [[1, 2]]})
    assert json.loads(folder.bad_batch.read_text()) == {"indices": [[1, 2]]}
