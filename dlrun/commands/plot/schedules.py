"""dlrun plot schedules [scheduler=cosine,step,…] [KEY=VALUE …]

The learning rate of every optimizer step, as a training with these words would have it, without training: of the
schedulers that are named, or of all there are. Goes to plots/schedules.png, with its numbers in plots/schedules.json.

  scheduler=cosine,step     which; all if not said
  trainer.max_epochs=100 optimizer.lr=0.1 experiment=… and so on: as for a training
  scheduler.warmup_epochs=5 scheduler.gamma=0.9,0.95
                            for those of the schedulers that have this option; a line for each of several values
  data=… data.batch_size=…  say how many steps an epoch has, if the data is here; nothing is downloaded
  steps_per_epoch=N         says it without any data
  loss=FILE|a,b,c           what plateau is told: losses, one for each evaluation; or the column that trainer.monitor
                            names of a run's metrics.csv (the file, the run's folder, or last). If not said, a loss that
                            falls from 2 to 0.5 in the first third of the training, and then stays
  layout=panels             a panel each, on shared axes; or overlaid: all in one
  scale=linear              of the learning rate; or log
  out=FILE.png
"""

from __future__ import annotations

import inspect
import logging
import math
from argparse import Namespace
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any, Literal

import torch

from dlrun import history
from dlrun.build import build_clock, build_schedule, mode_of
from dlrun.commands.picture import HERE, leave, place
from dlrun.commands.words import divided
from dlrun.compose import compose, config_loader, parse_overrides, plain
from dlrun.config import AugmentConfig, Config, SchedulerConfig, parse
from dlrun.data.prepare import preparation
from dlrun.errors import UserError, choices
from dlrun.inputs import build_inputs, build_source
from dlrun.logs import configure_terminal
from dlrun.plugins import load_plugins
from dlrun.registry import Count, optimizers, schedules, tasks
from dlrun.runfolder import RunFolder
from dlrun.runs import find
from dlrun.schedules import Clock, Schedule, course
from dlrun.viz import schedules as viz

log = logging.getLogger("dlrun")

LONGEST = 5_000_000  # steps: each is a number in memory, for each schedule


@dataclass(frozen=True, kw_only=True)
class Options:
    scheduler: list[str] = field(default_factory=list)
    loss: str | None = None
    steps_per_epoch: Count | None = None
    layout: Literal["panels", "overlaid"] = "panels"
    scale: Literal["linear", "log"] = "linear"
    out: Path | None = None


@dataclass(frozen=True)
class Variant:
    """One line: a scheduler with one of the values of each of its options."""

    name: str
    config: Config
    said: str  # the values of options that have several


def run(words: Sequence[str]) -> int:
    """Draw them, write the picture and the numbers."""
    configure_terminal()
    options, args = divided(words, Options, "plot schedules")
    path = place(options.out, HERE / "schedules.png")
    variants = _variants(options.scheduler or _all(args), args)
    config = variants[0].config
    batches = _batches(config, options.steps_per_epoch)
    clock = build_clock(config, batches)
    if clock.total_steps > LONGEST:
        raise UserError(
            f"{clock.total_steps:,} steps are too many to draw; say steps_per_epoch=10, or a smaller trainer.max_epochs"
        )
    watched, mode = _watched(options.loss, config, clock)
    lines, numbers = zip(*(_line(variant, batches, watched, mode) for variant in variants), strict=True)
    told = _evaluated(watched, clock)
    by = next((line.title for line in lines if line.watches), "nothing here")
    curve = viz.Watched(
        _monitor(options.loss, config), by, [step for _, step, _ in told], [value for *_, value in told]
    )
    content = {
        "total_steps": clock.total_steps,
        "steps_per_epoch": clock.steps_per_epoch,
        "lr": _rate(config),
        "schedules": numbers,
        "watched": {"name": curve.name, "mode": mode, "epochs": [e for e, *_ in told], "values": list(curve.values)},
    }
    return leave(
        path,
        lambda: viz.draw(
            *(lines, clock.total_steps, clock.steps_per_epoch, curve),
            overlaid=options.layout == "overlaid",
            logarithmic=options.scale == "log",
        ),
        content,
    )


def _all(args: Namespace) -> list[str]:
    """The files of conf/scheduler, and of the user's own folder."""
    return sorted(config_loader(args).get_group_options("scheduler"))


def _variants(names: Sequence[str], args: Namespace) -> list[Variant]:
    """The config of each line. Raises UserError for a scheduler or an option that none of them has."""
    own, rest = _of_the_scheduler(args.overrides)
    kinds = {name: _composed(args, rest, name, []) for name in dict.fromkeys(names)}
    load_plugins(next(iter(kinds.values()))["plugins"])
    known = {name: _options(config["scheduler"].get("name", name)) for name, config in kinds.items()}
    for key, _ in own:
        option = key.partition(".")[2]
        having = [name for name in kinds if option.partition(".")[0] in known[name]]
        if not having:
            raise UserError(f"{key}: unknown option{choices(option, set().union(*known.values()))}")
        if len(having) < len(kinds):
            log.info("%s: of %s; the others have no such option", key, ", ".join(having))
    found = []
    for name in kinds:
        mine = [(key, texts) for key, texts in own if key.split(".")[1] in known[name]]
        for values in product(*(texts for _, texts in mine)):
            said = [f"++{key}={text}" for (key, _), text in zip(mine, values, strict=True)]
            composed = _composed(args, rest, name, said) if said else kinds[name]
            config = parse(_without_strangers(composed, known[name]))
            differs = [f"{k.partition('.')[2]}={v}" for (k, vs), v in zip(mine, values, strict=True) if len(vs) > 1]
            found.append(Variant(name, config, ", ".join(differs)))
    return found


def _of_the_scheduler(words: Sequence[str]) -> tuple[list[tuple[str, list[str]]], list[str]]:
    """The keys of scheduler options, each with all its values, and the other words."""
    own, rest = [], []
    for word, override in zip(words, parse_overrides(words), strict=True):
        key = override.key_or_group
        if not key.startswith("scheduler."):
            if override.is_sweep_override():
                raise UserError(f"{key}: takes one value here; several are for scheduler and its options")
            rest.append(word)
        elif override.is_delete() or (override.is_sweep_override() and not override.is_discrete_sweep()):
            raise UserError(f"{key}: expected a value or several, a,b,c, got '{word}'")
        else:
            several = override.is_sweep_override()
            own.append((key, list(override.sweep_string_iterator()) if several else [word.partition("=")[2]]))
    return own, rest


def _composed(args: Namespace, rest: Sequence[str], name: str, said: Sequence[str]) -> dict[str, Any]:
    mine = copy(args)
    quoted = name.replace("\\", r"\\").replace("'", r"\'")  # a file may be called anything
    mine.overrides = [*rest, f"scheduler='{quoted}'", *said]
    return plain(compose(mine))


def _options(builder: str) -> set[str]:
    """What `scheduler.…` can say of one."""
    parameters = inspect.signature(schedules[builder]).parameters.values()
    own = {p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}
    return own | set(SchedulerConfig.__dataclass_fields__)


def _without_strangers(config: dict[str, Any], known: set[str]) -> dict[str, Any]:
    """A recipe has options for its own scheduler, which another one can't read."""
    mine = {key: value for key, value in config["scheduler"].items() if key in known or key == "name"}
    return {**config, "scheduler": mine}


def _batches(config: Config, steps_per_epoch: int | None) -> int:
    """Of an epoch. Raises UserError if the data would have to be downloaded first."""
    accumulate = config.trainer.accumulate_grad_batches
    if steps_per_epoch is not None:
        return steps_per_epoch * accumulate
    options = config.dataset.options
    still = replace(
        config,
        augment=AugmentConfig(transforms=[]),
        data=replace(config.data, num_workers=0),
        dataset=replace(config.dataset, options=options | ({"download": False} if "download" in options else {})),
    )
    name, batch_size = config.dataset.name, config.data.batch_size
    cpu = torch.device("cpu")
    try:
        source = build_source(still)
        inputs = build_inputs(still, source, cpu, preparation(source.spec, cpu))
    except UserError as error:
        advice = f"say steps_per_epoch=N (training samples / {batch_size * accumulate})"
        raise UserError(f"how many steps an epoch has isn't known without the data; {advice}. {error}") from None
    samples = len(inputs.splits.train)
    log.info("%s: %s training samples, %d a batch: %d batches an epoch", name, f"{samples:,}", batch_size,
             len(inputs.train))  # fmt: skip
    return len(inputs.train)


def _rate(config: Config) -> float:
    """optimizer.lr, or what the optimizer takes if nobody says."""
    options = config.optimizer.options
    default = inspect.signature(optimizers[config.optimizer.name]).parameters.get("lr")
    rate = options.get("lr", None if default is None else default.default)
    if isinstance(rate, bool) or not isinstance(rate, int | float):
        raise UserError(f"optimizer.lr: expected a number > 0, got {rate!r}")
    return float(rate)


def _watched(loss: str | None, config: Config, clock: Clock) -> tuple[dict[int, float], Literal["min", "max"]]:
    """Epoch → what a schedule would be told after it, and which way is better."""
    epochs, every = math.ceil(clock.total_steps / clock.steps_per_epoch), config.trainer.check_val_every_n_epoch
    evaluated = [epoch for epoch in range(1, epochs + 1) if epoch % every == 0 or epoch == epochs]
    if loss is None:
        return {e: 0.5 + 1.5 * math.exp(-15 * e / epochs) if 3 * e < epochs else 0.5 for e in evaluated}, "min"
    values = _numbers(loss)
    if values is not None:
        return dict(zip(evaluated, values, strict=False)), "min"
    file = Path(loss) if Path(loss).is_file() else RunFolder(find(loss)).metrics
    monitor, rows = config.trainer.monitor, history.read(file)
    found = {e: v for e, v in zip(rows.epochs, rows.column(monitor), strict=True) if v is not None and e <= epochs}
    if not found:
        raise UserError(f"loss: {file} has no values of trainer.monitor={monitor}{choices(monitor, rows.columns)}")
    mode = mode_of(monitor, config.trainer.mode, tasks[config.task.name])  # type: ignore[arg-type]
    return found, mode


def _numbers(text: str) -> list[float] | None:
    try:
        return [float(part) for part in text.strip("[]").split(",")]
    except ValueError:
        return None


def _monitor(loss: str | None, config: Config) -> str:
    if loss is None:
        return "a made-up loss"
    return "loss, as given" if _numbers(loss) is not None else config.trainer.monitor


def _evaluated(watched: Mapping[int, float], clock: Clock) -> list[tuple[int, int, float]]:
    """Epoch, steps taken by then, value."""
    return [(e, min(e * clock.steps_per_epoch, clock.total_steps), v) for e, v in sorted(watched.items())]


def _line(variant: Variant, batches: int, watched: Mapping[int, float], mode: str) -> tuple[viz.Line, dict[str, Any]]:
    config = variant.config
    clock, rate = build_clock(config, batches), _rate(config)
    schedule = build_schedule(config, clock, rate, mode)
    watches = type(schedule).observe is not Schedule.observe
    epochs = math.ceil(clock.total_steps / clock.steps_per_epoch)
    if watches and max(watched) < epochs:
        log.warning("%s is drawn as far as the loss goes: %d of %d epochs", variant.name, max(watched), epochs)
        clock = replace(clock, total_steps=max(watched) * clock.steps_per_epoch)
    rates = course(schedule, clock, rate, watched)
    if math.inf in rates:
        log.warning("%s grows beyond all numbers at step %d", variant.name, rates.index(math.inf) + 1)
    steps = viz.kept(rates)
    drawn = [rates[step] for step in steps]
    options = {**config.scheduler.options, **_shared(config.schedule)}
    detail = ", ".join(f"{key}={_short(value)}" for key, value in options.items()) or "no options"
    title = f"{variant.name} {variant.said}".rstrip()
    line = viz.Line(title, detail, steps, drawn, clock.warmup_steps, watches)
    content = {"name": variant.name, "scheduler": config.scheduler.name, "options": options,
               "warmup_steps": clock.warmup_steps, "steps": steps, "lr": drawn}  # fmt: skip
    return line, content


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _shared(schedule: SchedulerConfig) -> dict[str, Any]:
    """Those of the options of every schedule that say something."""
    return {key: value for key, value in vars(schedule).items() if value}
