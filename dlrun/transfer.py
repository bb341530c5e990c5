"""`init_from`: a model begins with weights trained elsewhere, and the log tells what fitted and what didn't."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dlrun.errors import UserError
from dlrun.spec import DataSpec
from dlrun.weights import read

LISTED = 6  # names in a line, and then a count
WRAPPERS = ("module.", "_orig_mod.", "model.")  # what DataParallel, torch.compile and Lightning put before every name


@dataclass(frozen=True)
class Mismatch:
    """A tensor of the model that stays as it was initialised; `there` is None where the file has none of its name."""

    name: str
    here: torch.Size
    there: torch.Size | None

    def __str__(self) -> str:
        there = "not there" if self.there is None else f"{_shape(self.there)} there"
        return f"{self.name} ({_shape(self.here)} here, {there})"


@dataclass(frozen=True)
class Transfer:
    """What came of it. As a string, the lines for the log."""

    source: str
    taken: list[str]
    left: list[Mismatch]
    unused: list[str]  # names in the file that the model doesn't have
    share: float  # of the model's parameters that were taken
    warnings: list[str]

    def __str__(self) -> str:
        share = 1 if self.share == 1 else min(self.share, 0.999)
        tensors = f"{len(self.taken)} of {len(self.taken) + len(self.left)} tensors"
        lines = [f"init_from: {tensors} ({100 * share:.3g} % of the parameters) from {self.source}"]
        if self.left:
            lines.append(f"  left as initialised: {_listed(map(str, self.left))}")
        if self.unused:
            lines.append(f"  not used: {_listed(self.unused)}")
        return "\n".join([*lines, *(f"  warning: {warning}" for warning in self.warnings)])


def transfer(model: nn.Module, path: Path, spec: DataSpec) -> Transfer:
    """Give `model` every tensor of `path` that has a name and a shape of its own; the others stay as they are.

    `path` is whatever `weights.read` reads; `spec` is of the data that the model is for. Raises UserError if nothing
    fits, or there is nothing to read.
    """
    weights = read(path)
    wanted = {name: tensor for name, tensor in model.state_dict().items() if isinstance(tensor, Tensor)}
    given = _unwrapped(weights.tensors, wanted)
    fits = [name for name in wanted if name in given and given[name].shape == wanted[name].shape]
    parameters = dict(model.named_parameters(remove_duplicate=False))
    if not parameters.keys() & fits:  # batch norm's counters always do
        raise UserError(
            f"init_from: nothing in {weights.file} fits this model; "
            f"it has {_sample(given)}, and the model {_sample(wanted)}"
        )
    with torch.no_grad():
        for name in fits:
            wanted[name].copy_(given[name])
    places = {wanted[name].data_ptr() for name in fits}
    taken = [name for name in wanted if name in fits or wanted[name].data_ptr() in places]  # a tied one by either name
    left = [n for n in wanted if n not in taken]
    counts = {id(p): p.numel() for p in parameters.values()}  # a tied one once
    said = [] if weights.spec is None else _other_meanings(weights.spec, spec)
    odd = [name for name in fits if not wanted[name].isfinite().all()]
    return Transfer(
        source=f"{weights.file}{' (its averaged weights)' if weights.averaged else ''}",
        taken=taken,
        left=[Mismatch(n, wanted[n].shape, given[n].shape if n in given else None) for n in left],
        unused=[name for name in given if name not in wanted],
        share=sum(counts[i] for i in {id(parameters[n]) for n in taken if n in parameters}) / sum(counts.values()),
        warnings=[*said, f"not all of it is finite: {_listed(odd)}"] if odd else said,
    )


def _unwrapped(given: dict[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    for _ in range(3):  # one wrapper in another
        for prefix in WRAPPERS:
            if not given.keys() & wanted.keys() and all(name.startswith(prefix) for name in given):
                given = {name.removeprefix(prefix): tensor for name, tensor in given.items()}
    return given


def _other_meanings(there: Mapping[str, Any], spec: DataSpec) -> list[str]:
    """What makes weights mean something else although they fit."""
    here = spec.plain()
    said = []
    names = [tuple(data.get("class_names", ())) for data in (here, there)]
    if len(names[0]) == len(names[1]) and names[0] != names[1]:
        said.append(f"the classes are others or in another order: {_listed(names[0])} here, {_listed(names[1])} there")
    if here["vocab_size"] == there.get("vocab_size") and here["tokenizer"] != there.get("tokenizer"):
        said.append("the vocabulary is another one: a token's embedding is that of another word")
    if any(tuple(here[key]) != tuple(there.get(key, ())) for key in ("mean", "std")):
        said.append("the inputs are normalised with another mean or standard deviation")
    return said


def _sample(tensors: Mapping[str, Tensor]) -> str:
    return _listed([f"{name} ({_shape(tensor.shape)})" for name, tensor in tensors.items()], 3)


def _listed(words: Iterable[str], most: int = LISTED) -> str:
    words = list(words)
    rest = f" and {len(words) - most} more" if len(words) > most else ""
    return ", ".join(words[:most]) + rest


def _shape(shape: torch.Size) -> str:
    return "×".join(map(str, shape)) or "a number"
