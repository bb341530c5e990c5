"""dlrun plot augment [data=cifar10] [augment=standard] [OPTION=VALUE …]

Pictures of the training split as they are, and below each what training sees of it in one epoch after the other, to the
pixel: flips, shifts, colours, cutout, by albumentations or in tensors, mixup and CutMix too, at the place that each has
in the epoch's order. Normalisation is taken back for the eye. Goes to plots/augment.png, with what is in it in
plots/augment.json.

  data=… augment=… augment.mixup=0.2 data.batch_size=… seed=… and so on: as for a training. A blend depends on the
                            whole batch, all else on seed, epoch and position alone
  columns=8                 samples: those that come first in the first of the epochs, as many classes as there are
  rows=4                    epochs
  epoch=1                   the first of them, as the terminal counts
  out=FILE.png

Of texts and of tables there is nothing to see: training doesn't change a word of them.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge, Le
from torch import Tensor

from dlrun.commands.picture import HERE, leave, place
from dlrun.commands.words import divided
from dlrun.compose import compose, plain
from dlrun.config import Config, parse
from dlrun.data.loader import Batches
from dlrun.data.prepare import preparation
from dlrun.errors import UserError
from dlrun.inputs import build_inputs, build_source
from dlrun.logs import configure_terminal
from dlrun.machine import seed_everything
from dlrun.plugins import load_plugins
from dlrun.registry import Count
from dlrun.spec import DataSpec
from dlrun.viz import augmentation as viz

log = logging.getLogger("dlrun")

Few = Annotated[int, Ge(1), Le(40)]
BLENDED = 2  # classes that are named below a blend, and shares below this aren't worth a word:
LEAST = 0.005


@dataclass(frozen=True, kw_only=True)
class Options:
    columns: Few = 8
    rows: Few = 4
    epoch: Count = 1
    out: Path | None = None


def run(words: Sequence[str]) -> int:
    """Draw originals and what training sees of them, and write down what is in the picture."""
    configure_terminal()
    options, args = divided(words, Options, "plot augment")
    path = place(options.out, HERE / "augment.png")
    composed = plain(compose(args))
    config = parse(composed)
    load_plugins(config.plugins)
    # One process, on the CPU: what is drawn doesn't depend on either.
    config = replace(config, data=replace(config.data, num_workers=0))
    seed_everything(config.seed)
    device = torch.device("cpu")
    source = build_source(config)
    spec = source.spec
    _refuse_what_is_no_picture(config, spec)
    prepare = preparation(spec, device)
    with closing(build_inputs(config, source, device, prepare)) as inputs:
        chosen = _chosen(inputs.train, options.epoch - 1, options.columns)
        columns, numbers = [], []
        for index in chosen:
            column, content = _column(inputs.train, index, options, spec, prepare)
            columns.append(column)
            numbers.append(content)
    said = _said(config)
    if said == "nothing":
        log.warning(
            "nothing is augmented: training sees the pictures as they are (see augment=… and dlrun list augment)"
        )
    rows = [f"epoch {options.epoch + row}" for row in range(options.rows)]
    title = f"{config.dataset.name}, seed {config.seed}: {said}"
    content = {"data": config.dataset.name, "seed": config.seed, "augment": composed["augment"], "samples": numbers}
    return leave(path, lambda: viz.draw(columns, rows, title), content)


def _refuse_what_is_no_picture(config: Config, spec: DataSpec) -> None:
    name = config.dataset.name
    if spec.modality == "text":
        raise UserError(f"plot augment: {name} is text, of which training changes nothing; there is nothing to see")
    if spec.modality == "tabular":
        raise UserError(f"plot augment: {name} is a table, whose rows are no pictures; take image data")


def _said(config: Config) -> str:
    """What is done to the pictures."""
    augment = config.augment
    if config.trainer.overfit_batches is not None:
        return "nothing"
    names = [next(iter(entry)) for entry in augment.transforms]
    names += [f"{key}={getattr(augment, key):g}" for key in ("mixup", "cutmix") if getattr(augment, key)]
    return ", ".join(names) + (f" ({augment.backend})" if augment.transforms else "") if names else "nothing"


def _chosen(batches: Batches, epoch: int, count: int) -> list[int]:
    """The samples that come first in `epoch`: the first of each class, then the next, in the epoch's order."""
    order = batches.order(epoch).tolist()
    seen: dict[int, int] = {}
    rounds = []
    for position, index in enumerate(order):
        label = int(batches.split.targets[index])
        seen[label] = seen.get(label, 0) + 1
        rounds.append((seen[label], position))
    return [order[position] for _, position in sorted(sorted(rounds)[:count], key=lambda pair: pair[1])]


def _column(
    batches: Batches, index: int, options: Options, spec: DataSpec, prepare: Any
) -> tuple[viz.Column, dict[str, Any]]:
    truth = spec.class_names[int(batches.split.targets[index])]
    raw = batches.split.fetch(torch.tensor([index]))
    column = viz.Column(truth, looked_at(prepare(raw)[0], spec))
    places = []
    for epoch in range(options.epoch - 1, options.epoch - 1 + options.rows):
        position = next(iter((batches.order(epoch) == index).nonzero().flatten().tolist()), None)
        if position is None:  # the last batch would have been of one sample, or a limit cut the epoch
            column.seen.append(viz.Seen(None))
            places.append({"epoch": epoch + 1, "position": None})
            continue
        inputs, target = seen(batches, epoch, position)
        shares = _shares(target, spec)
        words = "\n".join(f"{share:.0%} {_short(name)}" for name, share in list(shares.items())[:BLENDED])
        column.seen.append(viz.Seen(looked_at(inputs, spec), words if len(shares) > 1 else ""))
        places.append({"epoch": epoch + 1, "position": position} | ({"shares": shares} if shares else {}))
    return column, {"index": index, "class": truth, "seen": places}


def seen(batches: Batches, epoch: int, position: int) -> tuple[Tensor, Tensor]:
    """What training gets at `position` of `epoch`: the model's input of that sample, and its target."""
    if batches.mix is None and not hasattr(batches.split, "arrange"):
        batches = replace(batches, batch_size=1, limit=None)  # the order is the same, and nothing else is read
    number, offset = divmod(position, batches.batch_size)
    inputs, targets = next(iter(batches.epoch(epoch, start=number)))
    return inputs[offset], targets[offset]


def looked_at(inputs: Tensor, spec: DataSpec) -> np.ndarray[Any, Any]:
    """A model's input (C, H, W) as pixels (H, W, C) in [0, 1]; of other than one or three channels the first."""
    mean, std = (torch.tensor(values, dtype=torch.float64).view(-1, 1, 1) for values in (spec.mean, spec.std))
    pixels = (inputs.double() * std + mean).clamp(0, 1)
    if len(pixels) != 3:
        pixels = pixels[:1]
    return pixels.permute(1, 2, 0).numpy()


def _shares(target: Tensor, spec: DataSpec) -> dict[str, float]:
    """Of a blend: class → its share, the largest first."""
    if target.ndim == 0:
        return {}
    found = {spec.class_names[i]: share for i, share in enumerate(target.tolist()) if share >= LEAST}
    return dict(sorted(found.items(), key=lambda pair: -pair[1]))


def _short(name: str) -> str:
    return viz.label(name, 12)
