"""Is this config one that can be trained? Asked of many at a time, before any of them is.

What `build` would build is built here part by part, and each part only once for all configs that have it in common: a
thousand learning rates need one data set and one model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dlrun.build import build, build_clock, build_model, build_optimizer, build_schedule, channels_last, mode_of
from dlrun.config import Config, parse
from dlrun.data.prepare import preparation
from dlrun.errors import UserError
from dlrun.freezing import Freezing
from dlrun.inputs import build_inputs, build_source
from dlrun.machine import settle
from dlrun.plugins import load_plugins
from dlrun.precision import Precision
from dlrun.registry import precisions, tasks
from dlrun.spec import DataSpec
from dlrun.tracking.tensorboard import check_installed
from dlrun.transfer import transfer
from dlrun.tta import checked

Depth = Literal["config", "build", "batch"]


@dataclass(frozen=True)
class _Data:
    spec: DataSpec
    batches: int  # of an epoch
    counts: Tensor  # training samples per class


class Rehearsal:
    """Checks configs, `depth` deep: `config` types and names them, `build` builds, `batch` trains on a first batch.

    `elsewhere`: they will be trained on another machine, so that this one's devices say nothing.
    """

    def __init__(self, depth: Depth = "build", elsewhere: bool = False):
        self.depth, self.elsewhere = depth, elsewhere
        self._done: dict[tuple[str, str], Any] = {}
        self._model: tuple[str, nn.Module] | None = None  # the last one alone: they can be large

    def check(self, config: Mapping[str, Any]) -> str:
        """Raises UserError for a config that can't be trained. Returns the name of the metric's better end."""
        typed = parse(config)
        if typed.tracking.tensorboard is not None and not self.elsewhere:
            check_installed()
        self._once("plugins", config["plugins"], lambda: load_plugins(typed.plugins))
        builder: Any = tasks[typed.task.name]
        if self.depth == "config" and hasattr(builder, "metrics"):
            return mode_of(typed.trainer.monitor, typed.trainer.mode, builder)
        parts = {
            key: value for key, value in config.items() if key not in ("seed", "tags", "notes", "tracking", "plots")
        }
        mode: str = self._once("all", parts, lambda: self._build(typed, config))
        if self.depth == "batch":
            self._once("batch", parts, lambda: _first_batch(typed))
        return mode

    def _build(self, config: Config, plain: Mapping[str, Any]) -> str:
        options, optimizing = config.trainer, plain["optimizer"]
        device = torch.device("cpu") if self.elsewhere else settle(config.device, None)
        trainer = {name: value for name, value in plain["trainer"].items() if "batches" in name or name in SAMPLES}
        drawn = {"data": plain["data"], "augment": plain["augment"], "trainer": trainer}
        data: _Data = self._once("data", drawn, lambda: _data(config, device))
        task = self._once(
            "task", [plain["task"], drawn], lambda: tasks.build(*_named(config.task), data.spec, data.counts)
        )
        mode = mode_of(options.monitor, options.mode, task)
        checked(options.tta, data.spec)
        clock = build_clock(config, data.batches)
        named = ("fp32", {}) if self.elsewhere else _named(config.precision)
        precision: Precision = self._once("precision", named, lambda: precisions.build(*named, device))
        shape = [plain[key] for key in ("model", "init_from")]
        shape += [plain.get("compression"), drawn, options.channels_last, options.freeze]
        rate: float = self._once(
            "optimizer",
            [shape, optimizing, plain["precision"]],
            lambda: self._rate(config, data.spec, json.dumps(shape, default=str), precision),
        )
        build_schedule(config, clock, rate, mode)
        return mode

    def _rate(self, config: Config, spec: DataSpec, shape: str, precision: Precision) -> float:
        """Build the model and its optimizer; returns the learning rate that it begins with."""
        if self._model is None or self._model[0] != shape:
            self._model = None
            model = build_model(config, spec)
            if config.init_from is not None:
                transfer(model, Path(config.init_from).expanduser(), spec)
            channels_last(config.trainer.channels_last, model, spec)
            self._model = (shape, model)
        model = self._model[1]
        for parameter in model.parameters():
            parameter.requires_grad_(True)
        if config.trainer.freeze is not None:
            Freezing(model, config.trainer.freeze).begin_epoch(0)
        optimizer = build_optimizer(config, model, precision)
        return float(optimizer.param_groups[0]["lr"])

    def _once(self, stage: str, parts: Any, make: Any) -> Any:
        place = (stage, json.dumps(parts, sort_keys=True, default=str))
        if place not in self._done:
            self._done[place] = make()
        return self._done[place]


# What else of the trainer's options decides which samples are drawn.
SAMPLES = ("fast_dev_run",)


def _named(part: Any) -> tuple[str, dict[str, Any]]:
    return part.name, part.options


def _data(config: Config, device: torch.device) -> _Data:
    """Read the data and forget them again, but for what the rest is built from."""
    source = build_source(config)
    spec = source.spec
    inputs = build_inputs(config, source, device, preparation(spec, device, False))
    try:
        counts = torch.bincount(inputs.splits.train.targets, minlength=spec.num_outputs)
        return _Data(spec, len(inputs.train), counts)
    finally:
        inputs.close()


def _first_batch(config: Config) -> None:
    """Forward and backward. Raises UserError for whatever a model has to say against its data."""
    run = build(config)
    try:
        parts = run.parts
        inputs, targets = next(parts["train_batches"].epoch(0))
        with parts["precision"].autocast():
            loss = parts["task"].loss(parts["model"](inputs), targets)
        loss.backward()
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"the first batch fails: {type(error).__name__}: {error}") from error
    finally:
        run.inputs.close()
