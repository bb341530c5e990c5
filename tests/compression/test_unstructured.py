"""The zeros are those of NumPy's threshold, and of torch.nn.utils.prune."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import prune as reference

from dlrun.compression.unstructured import prune, weights, zeros_of
from dlrun.errors import UserError
from dlrun.registry import models
from dlrun.spec import DataSpec

SPECS = {
    "image": DataSpec("image", (1, 8, 8), tuple("abc")),
    "text": DataSpec("text", (10,), tuple("abc"), vocab_size=40),
}


@pytest.mark.parametrize("amount", [0.1, 0.5, 0.93])
@pytest.mark.parametrize(
    ("name", "modality"), [("cnn", "image"), ("mlp", "text"), ("lstm", "text"), ("transformer", "image")]
)
def test_the_threshold_is_the_global_one(name, modality, amount):
    model = models.build(name, {}, SPECS[modality])
    before = {n: p.detach().numpy().copy() for n, p in model.named_parameters()}
    chosen = [n for n, _ in weights(model)]
    sizes = np.sort(np.concatenate([np.abs(before[n]).ravel() for n in chosen]))
    count = round(amount * len(sizes))
    threshold = sizes[count - 1]
    prune(model, amount)
    ties = int((sizes == threshold).sum())  # which of equals go is open
    for n, p in model.named_parameters():
        after = p.detach().numpy()
        if n not in chosen:
            np.testing.assert_array_equal(after, before[n])
            continue
        small, large = np.abs(before[n]) < threshold, np.abs(before[n]) > threshold
        assert not after[small].any()
        np.testing.assert_array_equal(after[large], before[n][large])
    assert ties < 5
    found = zeros_of(model)
    assert found.weights == count / len(sizes)
    assert set(found.layers) == set(chosen)


def test_as_torch_does_it():
    model = models.build("cnn", {}, SPECS["image"])
    theirs = copy.deepcopy(model)
    layers = [(m, "weight") for m in theirs.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    reference.global_unstructured(layers, reference.L1Unstructured, amount=0.37)
    for module, name in layers:
        reference.remove(module, name)
    prune(model, 0.37)
    state = theirs.state_dict()
    zeros = [int((tensor == 0).sum()) for tensors in (model.state_dict(), state) for tensor in tensors.values()]
    assert sum(zeros[: len(state)]) == sum(zeros[len(state) :])
    differ = sum(int((tensor != state[name]).sum()) for name, tensor in model.state_dict().items())
    assert differ <= 2  # of two weights of one size either can go


def test_every_weight_and_nothing_else():
    names = {name for name, _ in weights(models.build("transformer", {"num_layers": 1}, SPECS["text"]))}
    inside = {f"layers.0.{part}.weight" for part in ("qkv", "out", "feed_forward.0", "feed_forward.3")}
    assert names == {"embedding.weight", "head.weight", *inside}
    assert {n for n, _ in weights(models.build("rnn", {}, SPECS["text"]))} == {
        *("embedding.weight", "recurrent.weight_ih_l0", "recurrent.weight_hh_l0", "head.weight")
    }


def test_again_is_of_what_is_left():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 50))
    prune(model, 0.5)
    prune(model, 0.5, again=True)
    assert zeros_of(model).weights == 0.75
    with pytest.raises(UserError, match="removes none of 250 weights"):
        prune(model, 1e-3, again=True)


def test_equal_weights_are_counted_exactly():
    model = nn.Sequential(nn.Linear(10, 10))
    nn.init.ones_(model[0].weight)
    prune(model, 0.3)
    assert zeros_of(model).weights == 0.3
