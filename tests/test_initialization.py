"""A model that starts from data sees the training pictures, once, and keeps what it has learned."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from command_line import CommandLine
from torch import nn

from dlrun import checkpoint
from dlrun.build import build
from dlrun.config import parse
from dlrun.data.source import ArraySplit
from dlrun.initialization import NUMBERS, initialize_from_data
from dlrun.models.whitening import Whitening

WORDS = ["model=speednet", "model.widths=[4,8]", "data=digits", "tracking=none", "trainer.num_threads=1"]
SHORT = ["trainer.max_steps=3", "augment=none"]


class Wanting(nn.Linear):
    """Notes what it is shown."""

    def initialize_from(self, inputs: torch.Tensor) -> None:
        self.seen = inputs


def test_samples_are_prepared_and_spread_over_the_split() -> None:
    model = nn.Sequential(Wanting(4, 4), nn.ReLU(), nn.Sequential(Wanting(4, 4)))
    split = ArraySplit(torch.arange(10.0).repeat_interleave(4).view(10, 4), torch.arange(10))
    initialize_from_data(model, split, lambda batch: batch * 2)
    assert torch.equal(model[0].seen[:, 0], 2 * torch.arange(10.0))
    assert torch.equal(model[2][0].seen, model[0].seen)


def test_of_large_samples_few_are_read() -> None:
    model, wide = Wanting(1, 1), torch.zeros(1).expand(NUMBERS // 3)
    split = ArraySplit(torch.arange(11.0)[:, None] + wide, torch.arange(11))
    initialize_from_data(model, split, lambda batch: batch)
    assert model.seen[:, 0].tolist() == [0, 5, 10]


def test_what_was_taken_from_elsewhere_stays() -> None:
    model = nn.Sequential(Wanting(4, 4), Wanting(4, 4))
    split = ArraySplit(torch.zeros(3, 4), torch.arange(3))
    initialize_from_data(model, split, lambda batch: batch, taken=["1.bias"])
    assert hasattr(model[0], "seen")
    assert not hasattr(model[1], "seen")


def test_a_run_begins_with_its_own_pictures(compose_config: Callable[..., dict[str, Any]]) -> None:
    run = build(parse(compose_config(*WORDS, *SHORT)))
    pixels = torch.as_tensor(run.inputs.splits.train.inputs).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(given).view(1, -1, 1, 1) for given in (run.spec.mean, run.spec.std))
    expected = Whitening(1, 2)
    expected.initialize_from((pixels - mean) / std)
    torch.testing.assert_close(run.parts["weights"].first.weight.abs(), expected.weight.abs(), rtol=1e-3, atol=1e-3)


def test_it_is_in_the_checkpoint_and_fine_tuning_keeps_it(dlrun: CommandLine) -> None:
    assert dlrun(*WORDS, *SHORT).code == 0
    first = dlrun.runs()[-1]
    assert dlrun(*WORDS, *SHORT, "data.limit=100", f"init_from={first}").code == 0
    saved = [checkpoint.load(Path(folder, "checkpoints/last.pt"))["model"]["first.weight"] for folder in dlrun.runs()]
    assert torch.equal(*saved)
    assert dlrun(*WORDS, *SHORT, "data.limit=100").code == 0
    other = checkpoint.load(Path(dlrun.runs()[-1], "checkpoints/last.pt"))["model"]["first.weight"]
    assert not torch.allclose(other, saved[0], atol=1e-3)  # another hundred pictures, other directions
