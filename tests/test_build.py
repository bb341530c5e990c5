from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from dlrun.build import Run, build
from dlrun.config import parse
from dlrun.data.order import shuffled
from dlrun.errors import UserError
from dlrun.machine import choose_device

# 1,797 digits: 360 for the test, 144 for validation, 1,293 to train on, in 21 batches of 64 (the last of 13).
MLP = ("model=mlp", "model.hidden_sizes=[8]")
CNN = ("model=cnn", "model.channels=[4]", "model.hidden_size=8")
LSTM = ("model=lstm", "model.hidden_size=4", "data=fake", "data.modality=text")


@pytest.fixture
def built(compose_config):
    """built("seed=1") is the run that `dlrun seed=1` would train, with a small MLP if no model is said."""

    def made(*overrides: str) -> Run:
        model = () if any(word.startswith("model=") for word in overrides) else MLP
        return build(parse(compose_config(*model, "tracking=none", "device=cpu", *overrides)))

    return made


@pytest.fixture
def machine(monkeypatch):
    """machine(cuda, mps) has these accelerators, for as long as nobody computes on them."""

    def has(cuda: bool, mps: bool) -> None:
        monkeypatch.setattr("torch.cuda.is_available", lambda: cuda)
        monkeypatch.setattr("torch.backends.mps.is_available", lambda: mps)

    return has


@pytest.mark.parametrize(
    ("cuda", "mps", "asked", "expected"),
    [
        (True, True, "auto", "cuda"),
        (False, True, "auto", "mps"),
        (False, False, "auto", "cpu"),
        (True, True, "cpu", "cpu"),
        (True, False, "cuda", "cuda"),
        (True, True, "mps", "mps"),
    ],
)
def test_device(machine, cuda, mps, asked, expected):
    machine(cuda, mps)
    assert choose_device(asked) == torch.device(expected)


@pytest.mark.parametrize(("cuda", "asked", "available"), [(False, "cuda", "cpu"), (True, "mps", "cuda, cpu")])
def test_a_device_that_isnt_there_is_refused(machine, cuda, asked, available):
    machine(cuda, False)
    with pytest.raises(UserError) as caught:
        choose_device(asked)
    assert str(caught.value) == f"device: '{asked}' isn't available on this machine; available: {available}"


def sizes(run: Run) -> tuple[int, int, int]:
    return len(run.parts["train_batches"]), len(run.parts["val_batches"]), len(run.inputs.test)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], (21, 1, 2)),  # evaluation in batches of 4 × 64
        (["data.eval_batch_size=50"], (21, 3, 8)),
        (["trainer.limit_train_batches=3"], (3, 1, 2)),
        (["trainer.limit_train_batches=1"], (1, 1, 2)),  # one batch …
        (["trainer.limit_train_batches=1.0"], (21, 1, 2)),  # … and all of them
        (["trainer.limit_train_batches=0.5"], (10, 1, 2)),
        (["trainer.limit_train_batches=1000"], (21, 1, 2)),
        (["data.eval_batch_size=50", "trainer.limit_val_batches=2", "trainer.limit_test_batches=0.25"], (21, 2, 2)),
        (["trainer.overfit_batches=2"], (2, 1, 2)),
        (["trainer.overfit_batches=0.25", "data.eval_batch_size=64"], (5, 5, 6)),
        (["trainer.fast_dev_run=true"], (1, 1, 1)),
        (["trainer.fast_dev_run=3", "data.eval_batch_size=50"], (3, 3, 3)),
        (["trainer.fast_dev_run=2", "trainer.limit_train_batches=10"], (2, 1, 2)),
        (["data.limit=100"], (2, 1, 1)),
    ],
)
def test_limits(built, overrides, expected):
    assert sizes(built(*overrides)) == expected


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("limit_train_batches=0.01", "trainer.limit_train_batches: 0.01 of 21 batches is none; raise it"),
        ("limit_val_batches=0.5", "trainer.limit_val_batches: 0.5 of 1 batches is none; raise it"),
        ("overfit_batches=0.04", "trainer.overfit_batches: 0.04 of 21 batches is none; raise it"),
    ],
)
def test_a_limit_that_leaves_nothing(built, option, message):
    with pytest.raises(UserError) as caught:
        built(f"trainer.{option}")
    assert str(caught.value) == message


def test_overfitting_sees_the_same_few_batches_as_they_are(built):
    run = built("trainer.overfit_batches=2", "augment=strong")
    train, val = run.parts["train_batches"], run.parts["val_batches"]
    first, again = list(train.epoch(0)), list(train.epoch(1))
    for (inputs, targets), other in zip(first, again, strict=True):
        assert torch.equal(inputs, other[0])
        assert torch.equal(targets, other[1])
    seen = torch.cat([inputs for inputs, _ in first])
    ((validated, targets),) = val.epoch(0)
    assert torch.equal(validated, seen)
    assert torch.equal(targets, torch.cat([targets for _, targets in first]))
    raw = run.inputs.splits.train.fetch(torch.arange(128)).double().permute(0, 3, 1, 2) / 255  # not augmented
    assert torch.allclose(seen.double(), (raw - run.spec.mean[0]) / run.spec.std[0], atol=1e-6)
    assert targets.ndim == 1  # nor mixed


@pytest.mark.parametrize(
    ("overrides", "steps", "per_epoch", "warmup", "epochs"),
    [
        ([], 420, 21, 0, 20),
        (["trainer.max_epochs=5", "trainer.accumulate_grad_batches=4"], 30, 6, 0, 5),  # ⌈21 / 4⌉ steps each
        (["trainer.max_epochs=5", "trainer.accumulate_grad_batches=100"], 5, 1, 0, 5),
        (["trainer.max_steps=50"], 50, 21, 0, 3),  # whichever comes first
        (["trainer.max_steps=1000"], 420, 21, 0, 20),
        (["trainer.max_steps=1000", "trainer.max_epochs=null"], 1000, 21, 0, 48),
        (["scheduler.warmup_steps=30"], 420, 21, 30, 20),
        (["scheduler.warmup_epochs=2"], 420, 21, 42, 20),
        (["scheduler.warmup_epochs=0.5", "trainer.accumulate_grad_batches=4"], 120, 6, 3, 20),
        (["trainer.limit_train_batches=0.5", "trainer.max_epochs=3"], 30, 10, 0, 3),
        (["trainer.overfit_batches=2", "trainer.max_epochs=3"], 6, 2, 0, 3),
        (["trainer.fast_dev_run=3", "trainer.accumulate_grad_batches=2"], 2, 2, 0, 1),
        (["trainer.fast_dev_run=3", "scheduler.warmup_steps=30"], 3, 3, 0, 1),
    ],
)
def test_clock(built, overrides, steps, per_epoch, warmup, epochs):
    run = built("scheduler=cosine", *overrides)
    clock = run.parts["schedule"].clock
    assert (clock.total_steps, clock.steps_per_epoch, clock.warmup_steps) == (steps, per_epoch, warmup)
    assert (run.limits.max_steps, run.limits.max_epochs) == (steps, epochs)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["scheduler.warmup_steps=420"],
            r"^scheduler\.warmup_steps: 420 steps of warm-up, but the training has only 420$",
        ),
        (
            ["scheduler.warmup_epochs=2.5", "trainer.max_epochs=2"],
            r"^scheduler\.warmup_epochs: 52 steps of warm-up, but the training has only 42$",
        ),
        (
            ["trainer.monitor=val/accuracy"],
            r"^trainer\.monitor: unknown metric 'val/accuracy'; did you mean 'val/acc'\? "
            r"\(choose from train/acc, train/loss, val/acc, val/loss\)$",
        ),
        (["trainer.monitor=test/acc"], r"^trainer\.monitor: unknown metric 'test/acc'"),  # test is looked at once
        # for images alone, or for all but texts
        (
            ["data=breast_cancer", "augment=light"],
            r"^augment: transforms are for images, and breast_cancer is tabular; set augment=none$",
        ),
        (
            [*LSTM, "augment=light"],
            r"^augment: transforms are for images, and fake is text; set augment=none$",
        ),
        (
            [*LSTM, "augment.mixup=0.2"],
            r"^augment\.mixup: words can't be blended; set it to 0 for fake$",
        ),
        (
            [*LSTM, "augment.cutmix=1"],
            r"^augment\.cutmix: words can't be blended; set it to 0 for fake$",
        ),
        (
            ["data=breast_cancer", "augment.cutmix=1"],
            r"^augment\.cutmix: is for images, and breast_cancer is tabular; set it to 0 or take augment\.mixup$",
        ),
        (
            ["data=breast_cancer", "trainer.channels_last=true"],
            r"^trainer\.channels_last: is for images, and the data is tabular; set it to auto$",
        ),
        # told before the data is read
        (
            ["augment.transforms=[{CenterCrop: {height: 4, width: 4}}]", "augment.backend=albumentations"],
            r"^augment: the transforms turn a \(8, 8, 1\) uint8 image into \(4, 4, 1\)",
        ),
        (
            ["augment.transforms=[{RandomCrop: {height: 4, width: 4}}]"],
            r"^augment: the transforms turn a \(8, 8, 1\) image into \(4, 4, 1\)",
        ),
        (
            ["augment.transforms=[{CenterCrop: {height: 4, width: 4}}]"],
            r"^augment\.transforms\.0: unknown transform 'CenterCrop' \(choose from Affine, ",
        ),
        (
            ["data=breast_cancer", "augment=tensor"],
            r"^augment: transforms are for images, and breast_cancer is tabular; set augment=none$",
        ),
        # names and options of what is built
        (["model.name=mpl"], r"^unknown model 'mpl'; did you mean 'mlp'\?"),
        (["optimizer.lr=abc"], r"^optimizer\.lr: expected a number > 0, got 'abc'$"),
        (["+optimizer.lrr=1"], r"^optimizer\.lrr: unknown option; did you mean 'lr'\?"),
        (
            ["scheduler=cosine", "scheduler.min_lr=1"],
            r"^scheduler\.min_lr: expected at most optimizer\.lr=0\.003, got 1$",
        ),
        (["task.class_weights=[1,2]"], r"^task\.class_weights: expected 10 weights, got 2$"),
        (["data.limit=1"], r"^data: all 1 training samples have one class"),
        (["seed=18446744073709551616"], r"^seed: "),  # 2^64: torch takes no more
    ],
)
def test_what_cant_be_honoured_is_refused(built, overrides, message):
    with pytest.raises(UserError, match=message):
        built(*overrides)


def test_mixing_tables_and_pictures(built):
    table = built("data=breast_cancer", "augment.mixup=0.2")
    inputs, targets = next(table.parts["train_batches"].epoch(0))
    assert (inputs.shape, targets.shape) == ((64, 30), (64, 2))
    assert next(table.parts["val_batches"].epoch(0))[1].ndim == 1  # never in evaluation
    pictures = built("augment.cutmix=1")
    inputs, targets = next(pictures.parts["train_batches"].epoch(0))
    assert (inputs.shape, targets.shape) == ((64, 1, 8, 8), (64, 10))


def test_only_training_is_augmented(built):
    run = built("augment=affine")
    for name, augmented in (("train_batches", True), ("val_batches", False)):
        batches = run.parts[name]
        indices = shuffled(1293, 0, 0) if augmented else torch.arange(144)
        seen = torch.cat([inputs for inputs, _ in batches.epoch(0)])
        raw = batches.split.fetch(indices).double().permute(0, 3, 1, 2) / 255
        plain = (raw - run.spec.mean[0]) / run.spec.std[0]
        same = ((seen.double() - plain).abs() < 1e-6).all(dim=(1, 2, 3))
        assert (same.double().mean() < 0.5) if augmented else same.all()


def weights(run: Run) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in run.parts["weights"].parameters()])


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 2])
def test_a_seed_decides_on_everything_and_0_is_one(built, seed):
    first = built(f"seed={seed}")
    drawn = [random.random(), np.random.rand(), torch.rand(()).item()]
    random.seed(99), np.random.seed(99), torch.manual_seed(99)
    again = built(f"seed={seed}")
    assert torch.equal(weights(first), weights(again))
    assert [random.random(), np.random.rand(), torch.rand(()).item()] == drawn
    batches = [list(run.parts["train_batches"].epoch(0)) for run in (first, again)]
    assert all(torch.equal(one[0], other[0]) for one, other in zip(*batches, strict=True))
    other = built(f"seed={seed + 1}")
    assert not torch.equal(weights(other), weights(first))
    assert not torch.equal(next(other.parts["train_batches"].epoch(0))[0], batches[0][0][0])
    # Of the test split data.split_seed decides.
    assert torch.equal(other.inputs.splits.test.inputs, first.inputs.splits.test.inputs)
    resplit = built(f"seed={seed}", "data.split_seed=1")
    assert torch.equal(weights(resplit), weights(first))
    assert not torch.equal(resplit.inputs.splits.test.inputs, first.inputs.splits.test.inputs)


COLOURS = ("data=fake", "data.shape=[3,8,8]", "data.size=200")


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([*CNN], True),
        ([*CNN, "trainer.channels_last=false"], False),
        ([], False),  # an MLP has no convolutions
        ([*CNN, "trainer.channels_last=true"], True),
    ],
)
def test_channels_last(built, overrides, expected):
    run = built(*COLOURS, *overrides)
    inputs, _ = next(run.parts["train_batches"].epoch(0))
    assert inputs.shape == (64, 3, 8, 8)
    tensors = [inputs, *(weight for weight in run.parts["weights"].parameters() if weight.ndim == 4)]
    assert len(tensors) == (2 if overrides[:1] == ["model=cnn"] else 1)
    for tensor in tensors:
        assert tensor.is_contiguous(memory_format=torch.channels_last) == expected
        assert tensor.is_contiguous() != expected


def test_epochs_and_evaluations_are_handed_on(built):
    limits = built("trainer.patience=3", "trainer.check_val_every_n_epoch=2", "trainer.monitor=val/loss").limits
    assert (limits.patience, limits.eval_every, limits.monitor) == (3, 2, "val/loss")
    fast = built("trainer.patience=3", "trainer.fast_dev_run=true").limits
    assert (fast.patience, fast.log_every) == (None, 1)


@pytest.mark.parametrize("update", ["master", "stochastic"])
def test_l1_is_refused_where_bf16_gradients_would_lose_it(built, update):
    words = ["precision=bf16_weights", f"precision.update={update}"]
    with pytest.raises(UserError, match=r"optimizer\.l1: 0\.1 would be lost in .*; set it to 0 or take precision=bf16"):
        built(*words, "optimizer.l1=0.1")
    run = built(*words, "trainer.ema_decay=0.9")
    assert {p.dtype for p in run.parts["weights"].parameters()} == {torch.bfloat16, torch.float32}
    assert all(average.dtype == torch.float32 for average in run.parts["ema"].average)
