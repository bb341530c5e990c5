from __future__ import annotations

import csv
import os
import pickle
import random
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import CommandLine
from torch import nn

from dlrun import checkpoint
from dlrun.checkpoint import DamagedError
from dlrun.errors import UserError


def state(**changes):
    """A whole checkpoint of a model that has taken one step."""
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(5, 3)).square().sum().backward()
    optimizer.step()
    whole = {
        "model": model.state_dict(),
        "ema": None,
        "optimizer": optimizer.state_dict(),
        "scheduler": {"best": 0.5, "bad": 3},
        "scaler": {},
        "random": checkpoint.random_state(),
        "progress": {"epoch": 2, "best": {"val/acc": 0.5, "epoch": 1}, "lr": [1e-3], "name": "Größe"},
        "config": {"seed": 0, "model": {"name": "mlp", "hidden_sizes": [4]}, "notes": None, "on": True},
        "spec": {"shape": (3,), "class_names": ("a", "b")},
        "run_id": "abcd1234",
        "data": {"train": "0123"},
        "machine": {"device": "cpu", "trainer.num_threads": 1},
    }
    return whole | changes


def same(left, right) -> bool:
    if isinstance(left, dict):
        return type(left) is type(right) and left.keys() == right.keys() and all(same(left[k], right[k]) for k in left)
    if isinstance(left, list | tuple):
        return type(left) is type(right) and len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, torch.Tensor):
        return left.dtype == right.dtype and torch.equal(left, right)
    return type(left) is type(right) and left == right


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """One checkpoint file, its bytes, and what is in it."""
    path, whole = tmp_path_factory.mktemp("run") / "best.pt", state()
    checkpoint.save(path, whole)
    return path, path.read_bytes(), whole


def test_round_trip(saved):
    path, _, whole = saved
    assert same(checkpoint.load(path), {"format": 2, **whole})
    assert [p.name for p in path.parent.iterdir()] == ["best.pt"]


def test_plain_torch_reads_it_without_executing_anything(saved):
    path, _, whole = saved
    assert torch.serialization.get_unsafe_globals_in_checkpoint(path) == []
    assert same(torch.load(path, weights_only=True), {"format": 2, **whole})


@pytest.mark.parametrize("changes", [{"extra": 1}, {"format": 2}])
def test_only_what_belongs_is_saved(tmp_path, changes):
    with pytest.raises(AssertionError):
        checkpoint.save(tmp_path / "best.pt", state(**changes))
    assert list(tmp_path.iterdir()) == []


def refused(path) -> str:
    with pytest.raises(UserError) as caught:
        checkpoint.load(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


class Malicious:
    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol 4")
@pytest.mark.parametrize("write", [torch.save, lambda whole, path: path.write_bytes(pickle.dumps(whole))])
def test_code_in_a_checkpoint_is_not_run(tmp_path, write):
    path, trap = tmp_path / "best.pt", tmp_path / "trap"
    write({"format": 2, **state(model=Malicious(trap))}, path)
    refused(path)
    assert not trap.exists()
    with path.open("rb") as file:  # the trap would have worked
        torch.load(file, weights_only=False) if write is torch.save else pickle.load(file)
    assert trap.exists()


@pytest.mark.parametrize("kept", [0, 1, 10, 1000, 0.5, -30, -1])
def test_truncated(saved, tmp_path, kept):
    _, whole, _ = saved
    path = tmp_path / "best.pt"
    path.write_bytes(whole[: int(kept * len(whole)) if isinstance(kept, float) else kept])
    refused(path)


def test_a_flipped_bit_in_a_weight(saved, tmp_path):
    _, whole, content = saved
    weight = content["model"]["0.weight"].numpy().tobytes()
    assert whole.count(weight) == 1
    place = whole.index(weight) + 2
    path = tmp_path / "best.pt"
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    refused(path)


def test_every_byte_changed(tmp_path):
    """One bit of each byte, and all eight of the archive's directory: the same state is loaded, or none."""
    whole = state(optimizer={}, random={})
    path = tmp_path / "last.pt"
    checkpoint.save(path, whole)
    content, refusals = path.read_bytes(), 0
    with zipfile.ZipFile(path) as archive:
        directory = archive.start_dir
    changes = [(place, place % 8) for place in range(directory)]
    changes += [(place, bit) for place in range(directory, len(content)) for bit in range(8)]
    with path.open("r+b", buffering=0) as file:
        for place, bit in changes:
            os.pwrite(file.fileno(), bytes([content[place] ^ 1 << bit]), place)
            try:
                assert same(checkpoint.load(path), {"format": 2, **whole}), (place, bit)
            except DamagedError:
                refusals += 1
            os.pwrite(file.fileno(), content[place : place + 1], place)
    assert refusals > len(changes) / 3  # the rest is padding between the records, and their dates


def test_cut_off_anywhere(saved, tmp_path):
    _, whole, _ = saved
    path = tmp_path / "last.pt"
    path.write_bytes(whole)
    for kept in range(len(whole) - 1, -1, -101):
        os.truncate(path, kept)
        with pytest.raises(DamagedError):
            checkpoint.load(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([1, 2], "isn't a checkpoint of dlrun"),
        ({"model": {}}, "isn't a checkpoint of dlrun"),
        (nn.Linear(2, 2).state_dict(), "isn't a checkpoint of dlrun"),
        (nn.Linear(2, 2), "needs code to load"),
        ({"format": 3, **state()}, "has format 3, this dlrun reads up to 2; upgrade dlrun"),
    ],
)
def test_something_else_saved_by_torch(tmp_path, content, said):
    torch.save(content, tmp_path / "best.pt")
    assert said in refused(tmp_path / "best.pt")


def test_no_file_a_folder_and_a_text(tmp_path):
    assert refused(tmp_path / "best.pt") == f"no checkpoint {tmp_path / 'best.pt'}"
    assert "is damaged" in refused(tmp_path)
    (tmp_path / "best.pt").write_text("epoch,loss\n1,0.5\n")
    assert "is damaged" in refused(tmp_path / "best.pt")


def draws():
    """From every global generator; an odd number of normals, so that one is left over in each."""
    numbers = [random.random(), random.gauss(0, 1), random.getrandbits(70), *np.random.rand(3), np.random.randn()]
    return [*numbers, *torch.randn(3).tolist(), *torch.nn.functional.dropout(torch.ones(20)).tolist()]


def test_random_state(tmp_path):
    whole = state()
    random.seed(1), np.random.seed(2), torch.manual_seed(3)
    draws()
    checkpoint.save(tmp_path / "last.pt", whole | {"random": checkpoint.random_state()})
    expected = [draws(), draws()]
    assert expected[0] != expected[1]
    random.seed(4), np.random.seed(5), torch.manual_seed(6)
    checkpoint.restore_random_state(checkpoint.load(tmp_path / "last.pt")["random"])
    assert [draws(), draws()] == expected


# ---- a run that is resumed from damaged files, malicious ones, and old ones

QUICK = ["tracking=none", "model=perceptron", "data=breast_cancer", "augment=none", "trainer.monitor=val/loss"]
QUICK += ["scheduler=none"]


def rows(folder: Path) -> list[dict[str, str]]:
    """metrics.csv without its times."""
    with (folder / "metrics.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if k not in ("seconds", "samples_per_second", "data_wait")} for row in found]


def weights(folder: Path, name: str = "last") -> dict[str, torch.Tensor]:
    return checkpoint.load(folder / f"checkpoints/{name}.pt")["model"]


@pytest.fixture
def two_of_four_epochs(dlrun: CommandLine) -> tuple[Path, Path]:
    """A run of four epochs, and one of two that is to become the same."""
    assert dlrun(*QUICK, "trainer.max_epochs=4", "hydra.run.dir=whole").code == 0
    assert dlrun(*QUICK, "trainer.max_epochs=2", "hydra.run.dir=half").code == 0
    return dlrun.folder / "whole", dlrun.folder / "half"


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size * 2 // 3)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    weight = torch.load(path, weights_only=True)["model"]["1.weight"].numpy().tobytes()
    content[content.index(weight) + 5] ^= 64
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [cut, flip, empty])
def test_a_damaged_checkpoint_costs_the_way_from_the_one_before(dlrun, two_of_four_epochs, damage):
    whole, half = two_of_four_epochs
    damage(half / "checkpoints/last.pt")
    result = dlrun("resume", "run=half", "trainer.max_epochs=4")
    assert result.code == 0, result.err
    assert "last.pt is damaged" in result.out
    assert "going back to previous.pt, of step " in result.out
    assert rows(half) == rows(whole)
    for name in ("last", "best"):
        assert same(weights(half, name), weights(whole, name))


def test_damaged_last_and_previous_leave_the_best(dlrun, two_of_four_epochs):
    whole, half = two_of_four_epochs
    cut(half / "checkpoints/last.pt")
    cut(half / "checkpoints/previous.pt")
    result = dlrun("resume", "run=half", "trainer.max_epochs=4")
    assert result.code == 0, result.err
    assert "going back to best.pt, of step 14" in result.out
    assert rows(half) == rows(whole)
    assert same(weights(half), weights(whole))


def test_a_damaged_best_is_made_up_for_or_told(dlrun, two_of_four_epochs):
    whole, half = two_of_four_epochs
    flip(half / "checkpoints/best.pt")  # of the last epoch, so the state is at hand
    assert dlrun("resume", "run=half", "trainer.max_epochs=4").code == 0
    assert same(weights(half, "best"), weights(whole, "best"))


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "dlrun.log"}


def test_when_all_are_damaged_it_is_one_line_and_nothing_changes(dlrun, two_of_four_epochs):
    _, half = two_of_four_epochs
    for path in (half / "checkpoints").iterdir():
        cut(path)
    before = contents(half)
    result = dlrun("resume", "run=half", "trainer.max_epochs=4")
    assert result.code == 2
    names = ", ".join(f"half/checkpoints/{name}.pt" for name in ("last", "previous", "best"))
    assert result.err == f"dlrun: every checkpoint of this run is damaged: {names}\n"
    assert contents(half) == before


@pytest.mark.filterwarnings("ignore:Detected pickle protocol 4")
@pytest.mark.parametrize("name", ["last", "best"])
def test_a_strangers_checkpoint_runs_nothing(dlrun, two_of_four_epochs, name):
    _, half = two_of_four_epochs
    trap, path = dlrun.folder / "trap", half / f"checkpoints/{name}.pt"
    torch.save({**checkpoint.load(path), "model": Malicious(trap)}, path)
    before = contents(half)
    result = dlrun("resume", "run=half", "trainer.max_epochs=4")
    assert not trap.exists()
    if name == "last":
        assert (result.code, result.err.count("\n")) == (2, 1)
        assert "last.pt is refused: it needs code to load" in result.err
        assert contents(half) == before


def test_a_strangers_config_runs_nothing(dlrun, two_of_four_epochs):
    _, half = two_of_four_epochs
    config = (half / "config.yaml").read_text()
    for tag in ("!!python/object/apply:os.system [touch trap]", "!!python/name:os.system"):
        (half / "config.yaml").write_text(config.replace("notes: null", f"notes: {tag}"))
        before = contents(half)
        result = dlrun("resume", "run=half", "trainer.max_epochs=4")
        assert (result.code, result.err.count("\n")) == (2, 1)
        assert "half/config.yaml can't be read: could not determine a constructor for the tag" in result.err
        assert not (dlrun.folder / "trap").exists()
        assert contents(half) == before


def test_a_strangers_config_reads_nothing_from_the_environment(dlrun, two_of_four_epochs):
    _, half = two_of_four_epochs
    dlrun.monkeypatch.setenv("SECRET", "unmistakable")
    config = (half / "config.yaml").read_text()
    (half / "config.yaml").write_text(config.replace("notes: null", "notes: ${oc.env:SECRET}"))
    result = dlrun("resume", "run=half", "trainer.max_epochs=4", "tags=['${oc.env:SECRET}']")
    assert result.code == 0, result.err
    state = checkpoint.load(half / "checkpoints/last.pt")
    assert (state["config"]["notes"], state["config"]["tags"]) == ("${oc.env:SECRET}", ["${oc.env:SECRET}"])
    assert not any(b"unmistakable" in content for content in contents(dlrun.folder).values())


def test_a_newer_checkpoint_is_refused(dlrun, two_of_four_epochs):
    _, half = two_of_four_epochs
    path = half / "checkpoints/last.pt"
    torch.save({**torch.load(path, weights_only=True), "format": 3}, path)
    result = dlrun("resume", "run=half", "trainer.max_epochs=4")
    said = "dlrun: half/checkpoints/last.pt has format 3, this dlrun reads up to 2; upgrade dlrun\n"
    assert (result.code, result.err) == (2, said)


def test_a_run_of_the_version_before_goes_on(dlrun):
    """tests/files/format1 is what 0.1.0 left when SIGTERM came after step 11 of 28."""
    shutil.copytree(Path(__file__).parent / "files/format1", dlrun.folder / "old")
    assert torch.load("old/checkpoints/last.pt", weights_only=True)["format"] == 1
    result = dlrun("resume", "run=old")
    assert result.code == 0, result.err
    assert "goes on after step 11 of 28 (epoch 2, batch 5)" in result.out
    words = ["model=perceptron", "data=breast_cancer", "tracking=none", "augment=none", "trainer.max_epochs=4"]
    assert dlrun(*words, "scheduler=step", "scheduler.step_size=2", "hydra.run.dir=new").code == 0
    old, new = dlrun.folder / "old", dlrun.folder / "new"
    assert torch.load("old/checkpoints/last.pt", weights_only=True)["format"] == 2
    assert [row["step"] for row in rows(old)] == ["7", "14", "21", "28"]
    assert weights(old).keys() == weights(new).keys()
    for name in ("last", "best"):  # the first part may have been trained on another processor
        torch.testing.assert_close(weights(old, name), weights(new, name), rtol=1e-4, atol=1e-6)
    for one, other in zip(rows(old), rows(new), strict=True):
        # Format 1 didn't keep the losses of an epoch that was stopped in the middle, nor norms of the gradient.
        lost = {"1": ("grad_norm",), "2": ("train/", "grad_norm")}.get(one["epoch"], ())
        known = [key for key in other if not key.startswith(lost)]
        assert [float(one[key]) for key in known] == pytest.approx([float(other[key]) for key in known], rel=1e-4)
