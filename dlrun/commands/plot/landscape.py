"""dlrun plot landscape run=DIR|last: the loss around the trained weights

  dlrun plot landscape run=last
  dlrun plot landscape run=last steps=41 span=0.5 samples=1000 split=val seed=3

  steps=N                   (21; odd) places along each of two directions: steps × steps losses
  span=X                    (1) how far to both sides; 1 is as far as each filter is long
  samples=N                 (256) that the loss is of, drawn by the seed;  split=train|val|test (train), not augmented
  seed=N                    (0) of the directions and the samples
  max_time=SECONDS          (120) what would take longer isn't begun: the first loss is timed, and said
  checkpoint=best|last (best)  out=FILE.png  data.root= data.file=  device=  plugins=[…]

Two random directions, in which each filter has the norm of the network's own (Li et al. 2018); biases, and what norms
scale and shift by, stay, and so do batch norm's running statistics: the loss in the middle is that of the evaluation on
the same samples. Cross-entropy, in the run's precision. Leaves DIR/plots/landscape.png, and .json with all losses.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from dlrun.commands.opening import opened
from dlrun.commands.picture import leave, model_name, place
from dlrun.data.source import ArraySplit
from dlrun.errors import UserError
from dlrun.loading import Checkpoint, LoadedRun, SplitName, is_int8
from dlrun.registry import Count, Index, Positive
from dlrun.viz.network.landscape import Landscape, landscape
from dlrun.viz.network.pictures.landscape import contours

SAMPLES_IN_MEMORY = 5_000


@dataclass(frozen=True, kw_only=True)
class Options:
    checkpoint: Checkpoint = "best"
    steps: Count = 21
    span: Positive = 1.0
    split: SplitName = "train"
    samples: Count = 256
    seed: Index = 0
    max_time: Positive = 120.0
    out: Path | None = None


def run(words: Sequence[str]) -> int:
    """Compute, draw and write; returns the exit code. Raises UserError, also if it would take too long."""
    loaded, options, _ = opened(words, Options, "plot landscape")
    path = place(options.out, loaded.folder.path / "plots" / "landscape.png")
    if options.steps % 2 == 0 or options.steps < 3:
        raise UserError(f"steps: expected an odd number from 3 on, so that one is in the middle, got {options.steps}")
    if not math.isfinite(options.span):
        raise UserError(f"span: expected a finite number > 0, got {options.span}")
    if is_int8(loaded.config):
        raise UserError(
            "plot landscape: an int8 run's weights are whole numbers that can't be moved a little; "
            f"draw its parent: run={loaded.folder.path.parent.parent}"
        )
    found, count = _computed(loaded, options)
    if not math.isfinite(found.centre):
        raise UserError("plot landscape: the loss of the trained weights isn't finite")
    lost = int(np.size(found.loss) - np.isfinite(found.loss).sum())
    norms = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in loaded.network.modules())
    notes = ["batch norm's running statistics stay those of the trained weights"] if norms else []
    notes += [f"{lost} of {found.loss.size} losses aren't finite (grey)"] if lost else []
    title = "\n".join(
        [
            f"{model_name(loaded)} on {loaded.config.dataset.name}: loss around the trained weights (star)",
            f"two filter-normalised directions, seed {options.seed}; {count:,} samples of the {options.split} split",
            *notes,
        ]
    )
    content = {
        "model": model_name(loaded),
        "split": options.split,
        "samples": count,
        "seed": options.seed,
        "span": options.span,
        "places": found.places.tolist(),
        "loss": found.loss.tolist(),
        "centre": found.centre,
        "notes": notes,
        "seconds": found.seconds,
    }
    code = leave(path, lambda: contours(title, found.places, found.loss), content, loaded)
    print(f"{found.loss.size} losses in {found.seconds:.1f} s; {found.centre:.4g} in the middle")
    return code


def _computed(loaded: LoadedRun, options: Options) -> tuple[Landscape, int]:
    split = loaded.split(options.split)
    drawn = np.random.default_rng(options.seed).permutation(len(split))[: options.samples]
    if len(drawn) > SAMPLES_IN_MEMORY:
        raise UserError(f"samples: expected at most {SAMPLES_IN_MEMORY:,}, which are kept in memory, got {len(drawn)}")
    chosen = torch.from_numpy(np.sort(drawn))
    kept = ArraySplit(split.fetch(chosen).cpu(), split.targets[chosen])  # read and decoded once
    judge = loaded.evaluator()

    def begun(seconds: float, points: int) -> None:
        print(f"{points} losses of {len(kept):,} samples: about {max(1, math.ceil(seconds * points))} s", flush=True)
        if seconds * points > options.max_time:
            steps = int(math.sqrt(options.max_time / seconds) - 1) // 2 * 2 + 1
            fits = f"steps={steps}, fewer samples, or " if steps >= 3 else "fewer samples, or "
            raise UserError(
                f"max_time: that would take {seconds * points:,.0f} s, and {options.max_time:g} are allowed; "
                f"set {fits}max_time={math.ceil(1.3 * seconds * points)}"
            )

    def shown(points: Sequence[tuple[int, int]]) -> Sequence[tuple[int, int]]:
        off = None if loaded.config.trainer.enable_progress_bar else True  # None is by the terminal
        return tqdm(points, unit=" losses", disable=off, leave=False)  # type: ignore[return-value]

    with closing(loaded.batches(options.split, kept)) as batches:
        batches.limit = None  # of the training's evaluation; here `samples` says how many
        name = f"{options.split}/loss"
        found = landscape(
            judge.model,
            lambda: judge.evaluate(batches, options.split)[name],
            options.steps,
            options.span,
            options.seed,
            begun,
            shown,
        )
    return found, len(kept)
