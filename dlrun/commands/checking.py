"""An exported file, loaded again and held against the net that it was made from, on the run's own data."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dlrun.data.loader import Batches
from dlrun.errors import UserError
from dlrun.exporting import parity
from dlrun.exporting.runtime import Runner, open_artifact
from dlrun.inputs import build_batches
from dlrun.loading import LoadedRun
from dlrun.registry import precisions

log = logging.getLogger("dlrun")

Raw = Callable[[Tensor], Tensor]  # of a raw batch


def check(
    run: LoadedRun, path: Path, gives: Raw, takes: Raw, tolerance: float, measure: parity.Measure
) -> tuple[parity.Parity, dict[str, float] | None]:
    """The file against the net, which get of a raw batch what `takes` and `gives` make of it; and the file's metrics on
    the test split. Without the data both get random inputs, and there are no metrics.
    """
    file = open_artifact(path, threads=torch.get_num_threads())
    batches, text = _test_split(run), run.spec.modality == "text"

    def compared(samples: Tensor, of: str) -> parity.Parity:
        pairs = ((gives(part), takes(part)) for part in parity.cut(samples, text))
        with torch.backends.cudnn.flags(allow_tf32=False):
            return parity.compare(run.network, file, pairs, tolerance, measure, of)

    if batches is None:
        return compared(parity.random_samples(run.spec, sum(parity.SIZES)).to(run.device), "random"), None
    with closing(batches):
        checked = compared(_first(batches, run.spec.shape[0] if text else None), "test")
        if checked.error is not None:
            return checked, None
        batches.prepare = takes
        return checked, _evaluate(run, file, batches)


def _test_split(run: LoadedRun) -> Batches | None:
    """Raw batches; None, and a word, if the data is gone."""
    try:
        return build_batches(run.config, run.split("test"), "test", run.device, lambda raw: raw)
    except UserError as error:
        log.warning("checked on random inputs, and not on the test split: %s", error)
        return None


def _first(batches: Batches, longest: int | None) -> Tensor:
    """As many raw samples as the comparison makes use of, texts padded to the `longest`."""
    parts: list[Tensor] = []
    for raw, _ in batches.epoch(0):
        parts.append(raw if longest is None else F.pad(raw, (0, longest - raw.shape[1])))
        if sum(map(len, parts)) >= parity.enough():
            break
    return torch.cat(parts)[: parity.enough()]


def _evaluate(run: LoadedRun, file: Runner, batches: Batches) -> dict[str, float]:
    """As the training does, but that it is one view of each sample, in the file's own precision."""
    single: Any = precisions.build("fp32", {}, run.device)
    judge: Any = replace(run.evaluator(), model=file, precision=single, tta="none")
    found: dict[str, float] = judge.evaluate(batches, "test")
    return {name.partition("/")[2]: value for name, value in found.items()}
