"""dlrun find-lr [model=cnn data=digits …] [OPTION=VALUE …]

A learning-rate range test (Smith 2017): the training that the words describe, with a learning rate that grows at every
step until the loss explodes, and what to train with. The trainer's own steps, on the run's own batches, with its
optimizer, precision, clipping and accumulation; the scheduler isn't asked. The weights are discarded, there is no run
folder, and nothing is tracked. The data's epochs begin again as often as it takes. Goes to plots/lr_range.png, with its
numbers in plots/lr_range.json.

  model=… data=… optimizer=… seed=… experiment=… and so on: as for a training
  steps=100 start=1e-7 end=10   learning rates from start to end, each the same multiple of the one before
  smoothing=0.9                 of the loss, by averages with this share of what was before; 0 is none
  out=FILE.png

Suggested is where the smoothed loss falls fastest, before it is lowest. Beside it: the middle of its longest fall, as
fastai has it (valley), and a tenth of where it is lowest. The first tenth of the steps and the last five don't count.
Exit code 1 if there is nothing to suggest: a loss that never falls, or isn't a number from the start.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Le, Lt

from dlrun.build import Run, build
from dlrun.commands.picture import HERE, leave, place
from dlrun.commands.words import divided
from dlrun.compose import compose, plain
from dlrun.config import Config, parse
from dlrun.errors import UserError, shortened
from dlrun.logs import configure_terminal
from dlrun.lr_range import Suggestion, Sweep, exponential, suggested, sweep_rates
from dlrun.plugins import load_plugins
from dlrun.registry import Positive
from dlrun.schedules import Schedule
from dlrun.viz import lr_range as viz

log = logging.getLogger("dlrun")

ENDINGS = {
    "done": "ended as asked, at {rate:.2g}",
    "diverged": "stopped at {rate:.2g}, where the loss was four times its lowest",
    "nonfinite": "stopped at {rate:.2g}, where the loss or its gradient wasn't finite",
}


@dataclass(frozen=True, kw_only=True)
class Options:
    steps: Annotated[int, Ge(20), Le(100_000)] = 100
    start: Positive = 1e-7
    end: Positive = 10.0
    smoothing: Annotated[float, Ge(0), Lt(1)] = 0.9
    out: Path | None = None

    def __post_init__(self) -> None:
        if self.start >= self.end:
            raise UserError(f"end: expected a number > start={self.start:g}, got {self.end:g}")


def run(words: Sequence[str]) -> int:
    """Test, draw, and print what to train with."""
    configure_terminal()
    options, args = divided(words, Options, "find-lr")
    path = place(options.out, HERE / "lr_range.png")
    config = parse(plain(compose(args)))
    load_plugins(config.plugins)
    built = build(config)
    lr = float(config.optimizer.options.get("lr", built.parts["optimizer"].param_groups[0]["lr"]))
    meaning = _meaning(config.scheduler.name, built)
    accumulate = config.trainer.accumulate_grad_batches
    title = shortened(
        f"{config.model.name} on {config.dataset.name}, {config.optimizer.name}, batches of {config.data.batch_size}"
        f"{f' × {accumulate}' if accumulate > 1 else ''}, {config.precision.name}, seed {config.seed}",
        90,
    )
    log.info("%s: %d learning rates from %.2g to %.2g", title, options.steps, options.start, options.end)
    with closing(built.inputs):
        rates = exponential(options.start, options.end, options.steps)
        sweep = sweep_rates(built.parts, built.limits, lr, rates, options.smoothing)
    found = suggested(sweep)
    ending = ENDINGS[sweep.ending].format(rate=rates[min(len(sweep.losses), len(rates) - 1)])
    marks = {"steepest": found.steepest, "valley": found.valley, "minimum / 10": found.minimum_tenth}
    known = {name: rate for name, rate in marks.items() if rate is not None}
    drawn = rates[: len(sweep.losses)]
    words_to_copy = [] if found.steepest is None else _words(config, found.steepest / lr)
    code = leave(
        path,
        lambda: viz.draw(drawn, sweep.losses, sweep.smoothed(), known, ending, title),
        {**_facts(config, options, sweep, found), "copy": words_to_copy},
    )
    print(ending)
    if found.why_none is not None:
        print(f"nothing to suggest: {found.why_none}")
        return 1
    print("   ".join(f"{name} {rate:.2g}" for name, rate in known.items()))
    if found.doubt is not None:
        print(found.doubt)
    print(f"\n  {' '.join(words_to_copy)}\n\n{meaning}")
    return code


def _words(config: Config, factor: float) -> list[str]:
    """Every learning rate that the optimizer has, in the proportion in which it was tested."""
    rates = {key: value for key, value in config.optimizer.options.items() if key == "lr" or key.endswith("_lr")}
    return [f"optimizer.{key}={value * factor:.2g}" for key, value in rates.items() if value]


def _meaning(name: str, built: Run) -> str:
    """What optimizer.lr is to the schedule of the training."""
    schedule, steps = built.parts["schedule"], built.limits.max_steps
    factors = [schedule.factor(step) for step in range(steps)]
    peak = max(range(steps), key=factors.__getitem__)
    first, last = factors[0] / factors[peak], factors[-1] / factors[peak]
    up = f"begins at {first:.2g} of it and is there at step {peak + 1:,} of {steps:,}" if peak else "begins with it"
    if last == 1:
        stays = "stays there" if type(schedule).observe is Schedule.observe else "stays there until nothing improves"
        return f"scheduler={name} {up}, and {stays}: a third of that is the safer choice"
    down = f"comes down to {last:.2g} of it"
    advice = "" if peak else "; without a warm-up (scheduler.warmup_epochs=1, say) half of that is safer"
    return f"scheduler={name} {up}, and {down}{advice}"


def _facts(config: Config, options: Options, sweep: Sweep, found: Suggestion) -> dict[str, Any]:
    count = len(sweep.losses)
    return {
        "model": config.model.name,
        "data": config.dataset.name,
        "optimizer": config.optimizer.name,
        "batch_size": config.data.batch_size,
        "accumulate_grad_batches": config.trainer.accumulate_grad_batches,
        "precision": config.precision.name,
        "seed": config.seed,
        **{key: getattr(options, key) for key in ("steps", "start", "end", "smoothing")},
        "ending": sweep.ending,
        **asdict(found),
        "lr": list(sweep.rates[:count]),
        "loss": sweep.losses,
        "smoothed": sweep.smoothed(),
    }
