from __future__ import annotations

import pickle
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from dlrun import checkpoint
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
