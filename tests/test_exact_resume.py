"""A run that is stopped and resumed is the run that wasn't, to the bit: with each part that has a state, at each place.

Not the full product. Each model family runs on each kind of data it takes, each optimizer, scheduler and option once,
with everything else that has a state switched on around it; and stops are spread so that each place is met by several.
"""

from __future__ import annotations

import functools
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import CommandLine
from equality import differences, rows

import dlrun.train
from dlrun.data.pydocs import paragraphs
from dlrun.evaluator import Evaluator
from dlrun.registry import models, optimizers, schedules
from dlrun.trainer import Trainer

CODES = {signal.SIGTERM: 143, signal.SIGUSR1: 143, signal.SIGINT: 130}

SHORT = ["tracking=none", "trainer.enable_progress_bar=false", "data.limit=200", "data.eval_batch_size=50"]
# 7 batches are 4 optimizer steps an epoch: the last window is half as large.
STATEFUL = [*SHORT, "trainer.accumulate_grad_batches=2", "data.batch_size=32", "trainer.ema_decay=0.8"]
MLP = ["model=mlp", "model.hidden_sizes=[16]", "augment.mixup=0.3"]

Place = int | str  # after that optimizer step, or in `evaluation N` (of epoch N), or in the `test`


@dataclass
class Stops:
    """Signals that come at chosen places, each once."""

    to_come: list[tuple[Place, signal.Signals]] = field(default_factory=list)
    epoch: int = 0  # that is being evaluated

    def at(self, place: Place) -> None:
        if self.to_come and self.to_come[0][0] == place:
            signal.raise_signal(self.to_come.pop(0)[1])


@pytest.fixture
def stops(monkeypatch: pytest.MonkeyPatch) -> Stops:
    stops, update, end_epoch = Stops(), Trainer._update, Trainer._end_epoch
    forward, test = Evaluator._forward, dlrun.train.evaluate_best

    def updated(trainer: Trainer, *args: Any) -> None:
        update(trainer, *args)
        stops.at(trainer.progress.step + 1)

    def ended(trainer: Trainer) -> None:
        stops.epoch = trainer.progress.epoch + 1
        end_epoch(trainer)

    def evaluated(*args: Any) -> Any:
        stops.at(f"evaluation {stops.epoch}")
        return forward(*args)

    def tested(*args: Any) -> Any:
        stops.at("test")
        return test(*args)

    monkeypatch.setattr(Trainer, "_update", updated)
    monkeypatch.setattr(Trainer, "_end_epoch", ended)
    monkeypatch.setattr(Evaluator, "_forward", evaluated)
    monkeypatch.setattr(dlrun.train, "evaluate_best", tested)
    return stops


Whole = Callable[..., Path]


@pytest.fixture(scope="module")
def wholes() -> dict[tuple[str, ...], Path]:
    return {}


@pytest.fixture
def whole(dlrun: CommandLine, tmp_path_factory: pytest.TempPathFactory, wholes: dict[tuple[str, ...], Path]) -> Whole:
    """The run of some words that is never stopped; made once."""

    def made(*words: str) -> Path:
        if words not in wholes:
            path = tmp_path_factory.mktemp("whole") / "run"
            result = dlrun(*words, f"hydra.run.dir={path}")
            assert result.code == 0, result.err + result.out
            wholes[words] = path
        return wholes[words]

    return made


@pytest.fixture
def check(dlrun: CommandLine, stops: Stops, whole: Whole) -> Callable[..., Path]:
    """Run `words` with stops, resume until the run is over, and hold it against the one that wasn't stopped."""

    def checked(
        words: Sequence[str],
        places: Sequence[Place],
        *resumed_with: str,
        numbers: Sequence[signal.Signals] = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT),
    ) -> Path:
        reference = whole(*words)
        stops.to_come = [(place, numbers[i % len(numbers)]) for i, place in enumerate(places)]
        command = [*words, "hydra.run.dir=run"]
        while stops.to_come:
            number = stops.to_come[0][1]
            result = dlrun(*command)
            assert result.code == CODES[number], (places, stops.to_come, result.err, result.out)
            command = ["resume", "run=run", *resumed_with]
        result = dlrun(*command)
        assert result.code == 0, result.err + result.out
        assert differences(reference, dlrun.folder / "run") == []
        return dlrun.folder / "run"

    return checked


Check = Callable[..., Path]

FLIPS = "augment.transforms=[{HorizontalFlip:{alternate:true}},{Affine:{rotate:9}},{CoarseDropout:{}}]"
TENSOR = ["augment=tensor", FLIPS]
IMAGE = ["data=digits", "augment=affine", "augment.mixup=0.3"]
TEXT = ["data=pydocs", "data.max_length=16", "data.vocab_size=300"]
TABLE = ["data=blobs", "augment.mixup=0.3"]
SMALL = {
    "perceptron": [],
    "mlp": ["model.hidden_sizes=[16]"],
    "cnn": ["model.channels=[4,8]", "model.hidden_size=8"],
    "speednet": ["model.widths=[4,8]"],
    "rnn": ["model.hidden_size=8", "model.embedding_dim=8"],
    "lstm": ["model.hidden_size=8", "model.embedding_dim=8"],
    "transformer": ["model.d_model=8", "model.d_ff=16", "model.num_heads=2"],
}
PAIRS = [
    (model, data)
    for model in SMALL
    for data in ("image", "text", "table")
    if (data != "table" or model in ("mlp", "perceptron")) and (data == "image" or model != "speednet")
]


parsed_once = functools.cache(paragraphs)  # a second each time


@pytest.mark.parametrize(("model", "data"), PAIRS)
def test_models(check: Check, model: str, data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dlrun.data.text.paragraphs", parsed_once)
    assert set(SMALL) == set(models.names()) - {"torchvision", "timm"}
    words = [*STATEFUL, f"model={model}", *SMALL[model], *{"image": IMAGE, "text": TEXT, "table": TABLE}[data]]
    check([*words, "trainer.max_epochs=2"], [2, 5])


OPTIMIZERS = ["sgd", "adam", "adamw", "nadam", "radam", "rmsprop", "adagrad", "adadelta", "adafactor", "muon"]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers(check: Check, name: str) -> None:
    assert sorted(OPTIMIZERS) == optimizers.names()
    path = check([*STATEFUL, *MLP, f"optimizer={name}", "trainer.max_epochs=2"], [3, 4])
    saved = torch.load(path / "checkpoints/last.pt", weights_only=True)["optimizer"]
    parts = saved.get("parts", [saved])  # muon is two
    assert all(part["state"] for part in parts), "there was a state to forget"


SCHEDULERS = {
    "none": [],
    "step": ["scheduler.step_size=1"],
    "multistep": ["scheduler.milestones=[1,2]"],
    "exponential": [],
    "cosine": [],
    "plateau": ["scheduler.patience=0", "scheduler.threshold=0.5", "scheduler.cooldown=1"],
    "onecycle": [],
    "linear": [],
    "polynomial": [],
    "warm_restarts": ["scheduler.first_epochs=1"],
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_schedulers(check: Check, name: str) -> None:
    assert sorted(SCHEDULERS) == schedules.names()
    words = [*STATEFUL, *MLP, f"scheduler={name}", *SCHEDULERS[name], "scheduler.warmup_steps=3"]
    path = check([*words, "trainer.max_epochs=4"], [2, 9])
    assert (len({row["lr"] for row in rows(path)}) > 1) == (name != "none")


# 4 steps an epoch, 12 in all.
@pytest.mark.parametrize(
    "places",
    [
        [1],
        [6],
        [4],  # trained, not evaluated
        ["evaluation 2"],
        [12],
        ["evaluation 3"],
        ["test"],
        [5, 6],
        ["evaluation 1", "evaluation 1", 12, "test", "test"],
        list(range(1, 13)),
    ],
    ids=str,
)
def test_places(check: Check, places: list[Place]) -> None:
    check([*STATEFUL, *MLP, "trainer.max_epochs=3"], places)


@pytest.mark.parametrize("number", CODES)
def test_signals(check: Check, number: signal.Signals) -> None:
    check([*STATEFUL, *MLP, "trainer.max_epochs=3"], [7, "evaluation 3"], numbers=[number])


@pytest.mark.parametrize(("before", "after"), [(0, 2), (2, 0), (2, 2)])
def test_workers(check: Check, before: int, after: int) -> None:
    words = [*STATEFUL, "model=cnn", *SMALL["cnn"], *IMAGE, "trainer.max_epochs=3", f"data.num_workers={before}"]
    check(words, [6, "evaluation 2"], f"data.num_workers={after}")


OPTIONS: dict[str, tuple[list[str], list[Place]]] = {
    "cutmix": (["augment=light", "augment.mixup=0", "augment.cutmix=0.5"], [3, 6]),
    "standard augmentation": (["augment=standard"], [3, 6]),
    "augmentation on the device": ([*TENSOR, "augment.mixup=0.3"], [3, 6]),
    "clipping and l1": (["trainer.gradient_clip_val=0.1", "optimizer.l1=0.01"], [3, 6]),
    "bf16": (["precision=bf16"], [3, 6]),
    "bf16 weights, copied": (["precision=bf16_weights"], [3, 6]),
    "bf16 weights, rounded by chance": (["precision=bf16_weights", "precision.update=stochastic"], [3, 6]),
    "biases of their own": (["optimizer.bias_lr_scale=8", "optimizer.bias_weight_decay=0.1"], [3, 6]),
    "a layer that stops": (["trainer.freeze={1: 1, 4.bias: 0}"], [3, 5, 10]),
    "muon and sgd": (["optimizer=muon", "optimizer.others=sgd", "optimizer.normalize=true"], [3, 6]),
    "a layer that stops, in bf16": (["trainer.freeze={1: 1}", "precision=bf16_weights"], [3, 5, 10]),
    "evaluated every second epoch": (["trainer.check_val_every_n_epoch=2", "trainer.max_epochs=4"], [4, 5, 8, 13]),
    "max_steps within an epoch": (["trainer.max_steps=10"], [9]),
    "max_steps within an epoch, stopped there": (["trainer.max_steps=10"], [10]),
    "overfit_batches": (["trainer.overfit_batches=3"], [1, 3]),
    "limit_train_batches": (["trainer.limit_train_batches=0.5"], [1, 3]),
    "non-finite steps left out": (["trainer.on_nonfinite=skip"], [3, 6]),
    "with checkpoints in between": (["trainer.checkpoint_every_n_steps=2"], [3, 7]),
    "monitor with a minimum": (["trainer.monitor=val/loss", "trainer.patience=3", "trainer.min_delta=0.01"], [3, 9]),
}


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16_weights"])
def test_compiled(check: Check, precision: str) -> None:
    """The same code again, whatever was compiled and run before."""
    words = ["trainer.compile=true", f"precision={precision}", "trainer.max_epochs=3"]
    check([*STATEFUL, *MLP, *words], [1, 3, 6])


@pytest.mark.parametrize("name", OPTIONS)
def test_options(check: Check, name: str) -> None:
    words, places = OPTIONS[name]
    check([*STATEFUL, *MLP, "trainer.max_epochs=3", *words], places)


def test_scaler(check: Check) -> None:
    """fp16: the scale and its growth."""
    path = check([*STATEFUL, *MLP, "trainer.max_epochs=3", "precision=fp16"], [3, 4, 9])
    assert torch.load(path / "checkpoints/last.pt", weights_only=True)["scaler"]["_growth_tracker"] > 0


@pytest.mark.parametrize("places", [[10], [9, "evaluation 3"], [4, 8, 12]], ids=str)
def test_patience(check: Check, places: list[Place]) -> None:
    """Nothing improves with a learning rate of nothing: two epochs after the first one it is over."""
    words = [*STATEFUL, *MLP, "optimizer.lr=1e-30", "optimizer.weight_decay=0", "trainer.patience=2"]
    path = check([*words, "trainer.max_epochs=6"], places)
    assert [row["epoch"] for row in rows(path)] == ["1", "2", "3"]


def test_a_run_is_extended_as_if_it_had_been_begun_so(dlrun: CommandLine, whole: Whole) -> None:
    words = [*STATEFUL, *MLP, "scheduler=step", "scheduler.step_size=1"]
    reference = whole(*words, "trainer.max_epochs=4")
    assert dlrun(*words, "trainer.max_epochs=2", "hydra.run.dir=run").code == 0
    result = dlrun("resume", "run=run", "trainer.max_epochs=4")
    assert result.code == 0, result.err
    assert differences(reference, dlrun.folder / "run") == []


def test_a_run_that_ended_within_an_epoch_is_extended_with_a_word_about_it(dlrun: CommandLine) -> None:
    assert dlrun(*STATEFUL, *MLP, "scheduler=none", "trainer.max_steps=6", "hydra.run.dir=run").code == 0
    result = dlrun("resume", "run=run", "trainer.max_steps=12")
    assert result.code == 0
    assert "after 2 of its 4 steps" in result.out
    assert [row["step"] for row in rows(dlrun.folder / "run")] == ["4", "6", "10", "12"]


def test_more_patience_is_as_if_it_had_been_there_from_the_start(dlrun: CommandLine, whole: Whole) -> None:
    words = [*STATEFUL, *MLP, "optimizer.lr=1e-30", "optimizer.weight_decay=0", "trainer.max_epochs=6"]
    reference = whole(*words, "trainer.patience=3")
    assert dlrun(*words, "trainer.patience=2", "hydra.run.dir=run").code == 0
    assert dlrun("resume", "run=run", "trainer.patience=3").code == 0
    assert differences(reference, dlrun.folder / "run") == []


def torchs_own(name: str, total: int) -> list[float]:
    """The learning rates that torch's own schedulers give over `total` steps, and what they end in."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1e-3)
    schedulers = torch.optim.lr_scheduler
    scheduler = {
        "onecycle": lambda: schedulers.OneCycleLR(optimizer, 1e-3, total_steps=total, pct_start=0.15),
        "cosine": lambda: schedulers.CosineAnnealingLR(optimizer, total),
        "linear": lambda: schedulers.LinearLR(optimizer, 1.0, 0.0, total),
        "polynomial": lambda: schedulers.PolynomialLR(optimizer, total, 2.0),
    }[name]()
    rates = []
    for _ in range(total - 1 if name == "onecycle" else total):
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return [*rates, scheduler.get_last_lr()[0]]


@pytest.mark.parametrize("name", ["onecycle", "cosine", "linear", "polynomial"])
@pytest.mark.parametrize("total", [8, 16])
def test_a_schedule_that_ends_is_extended_as_the_user_says(dlrun: CommandLine, name: str, total: int) -> None:
    """From 2 epochs of 4 steps to 4: on at the end that was reached, or along the longer schedule from there on."""
    words = [*STATEFUL, *MLP, f"scheduler={name}", "optimizer.lr=1e-3", "trainer.max_epochs=2", "hydra.run.dir=run"]
    assert dlrun(*words).code == 0
    refused = dlrun("resume", "run=run", "trainer.max_epochs=4")
    assert refused.code == 2
    assert refused.err.count("\n") == 1
    assert "scheduler.total_steps=8" in refused.err
    assert "scheduler.total_steps=16" in refused.err
    result = dlrun("resume", "run=run", "trainer.max_epochs=4", f"scheduler.total_steps={total}")
    assert result.code == 0, result.err
    first, then = torchs_own(name, 8), torchs_own(name, total)
    expected = [first[3], first[7], *([then[11], then[15]] if total == 16 else [then[-1], then[-1]])]
    found = [float(row["lr"]) for row in rows(dlrun.folder / "run")]
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-12)
