"""What there is to say of a run, in words: a name and a text for each thing that is known."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from dlrun.history import better_end
from dlrun.watch.curves import value_text
from dlrun.watch.observation import Observation
from dlrun.watch.pace import Pace
from dlrun.watch.status import Status
from dlrun.wording import duration, is_number

Fact = tuple[str, str]


def facts(seen: Observation, status: Status, pace: Pace) -> list[Fact]:
    """In the order of their importance."""
    return [(name, text) for name, text in _all(seen, status, pace) if text]


def _all(seen: Observation, status: Status, pace: Pace) -> Iterator[Fact]:
    going = status.word in ("running", "silent")
    yield "progress", progress(pace)
    if going:
        yield "time left", f"about {duration(pace.left)}, {pace.basis}" if pace.left is not None else "not known yet"
        yield "this epoch", _now(seen.beat)
    yield "speed", _speed(seen, going)
    yield "took", _took(seen, going)
    yield "best", best(seen)
    test = seen.summary.get("test")
    yield "test", _values(test) if isinstance(test, dict) else ""
    if going or status.word in ("failed", "killed", "preempted"):
        age = seen.checkpoint_age
        yield "checkpoint", "none yet" if age is None else f"last.pt is {duration(age)} old"
    yield "not finite", _not_finite(seen)
    if status.word != "unknown":
        yield "damaged", "; ".join(seen.unreadable)


def title(seen: Observation) -> str:
    """`cnn on digits`."""
    model, data = seen.option("model.name"), seen.option("data.name")
    parameters = seen.summary.get("parameters")
    size = f", {parameters:,} parameters" if isinstance(parameters, int) and is_number(parameters) else ""
    return f"{model} on {data}{size}" if model and data else ""


def progress(pace: Pace) -> str:
    """`epoch 12 of 20, step 252 of 420, 60 %`: the epochs are those that are over."""
    epoch = f"epoch {pace.epoch:,}" + (f" of {pace.epochs:,}" if pace.epochs else "")
    step = f"step {pace.step:,}" + (f" of {pace.steps:,}" if pace.steps else "")
    return f"{epoch}, {step}" + (f", {100 * pace.share:.0f} %" if pace.share is not None else "")


def best(seen: Observation) -> str:
    """The run's own word if it has one, else the best row; of equal ones the last, as the run has it."""
    monitor = str(seen.option("trainer.monitor") or "val/acc")
    name = monitor.rpartition("/")[2]
    said = seen.summary.get("best")
    if (
        seen.summary.get("status") != "running"
        and isinstance(said, dict)
        and all(is_number(said.get(name)) for name in (monitor, "epoch"))
    ):
        return f"{monitor} {value_text(name, said[monitor])} in epoch {said['epoch']:.0f}"
    row = seen.history.best(monitor, better_end(monitor, seen.option("trainer.mode")))
    if row is None:
        return ""
    return f"{monitor} {value_text(name, seen.history.column(monitor)[row])} in epoch {seen.history.epochs[row]}"


def _not_finite(seen: Observation) -> str:
    """`train/loss 2, val/loss 3 of 11 epochs`: of what there is nothing to draw."""
    found = []
    for name, column in seen.history.columns.items():
        count = sum(value is not None and not math.isfinite(value) for value in column)
        found += [f"{name} {count:,}"] if count else []
    return f"{', '.join(found)} of {len(seen.history):,} epochs" if found else ""


def _now(beat: dict[str, Any]) -> str:
    known = {
        name: value for name, value in beat.items() if name in ("train/loss", "train/acc", "lr", "train/grad_norm")
    }
    return _values(known)


def _values(values: dict[str, Any]) -> str:
    shown = []
    for name, value in values.items():
        if isinstance(value, float) or is_number(value):  # NaN is worth a word, too
            shown.append(f"{name} {value_text(name.rpartition('/')[2], float(value))}")
    return "  ".join(shown)


def _speed(seen: Observation, going: bool) -> str:
    rates, waits = seen.history.column("samples_per_second"), seen.history.column("data_wait")
    parts = []
    rate = rates[-1] if rates else seen.summary.get("samples_per_second")
    if is_number(rate):
        parts.append(f"{rate:,.0f} samples/s")
    if waits and waits[-1] is not None and math.isfinite(waits[-1]):
        parts.append(f"{100 * waits[-1]:.0f} % waiting for data")
    steps = seen.beat.get("steps_per_second")
    if going and is_number(steps):
        parts.append(f"{steps:,.1f} steps/s")
    return ", ".join(parts)


def _took(seen: Observation, going: bool) -> str:
    """Of a run that goes on, the training up to its last epoch."""
    seconds = seen.summary.get("seconds")
    if not going and is_number(seconds):
        return duration(float(seconds))
    column = [value for value in seen.history.column("seconds") if value is not None and math.isfinite(value)]
    return f"{duration(column[-1])} of training" if column else ""
