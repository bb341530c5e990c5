"""Searches whose trainings are a closed form: everything else of them, the folder, the study, the bases, is real."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dlrun.compose import compose, parse_arguments
from dlrun.locks import release
from dlrun.sweep.folder import FrozenJob, SweepFolder
from dlrun.sweep.search.reaching import reach, storage_of
from dlrun.sweep.search.starting import begin_search, search_of
from dlrun.sweep.search.study import Search

NARROW = ("tracking=none", "hydra/sweeper=optuna", "sweep.check=config")
TWO = ("optimizer.lr=tag(log,interval(1e-4,1e-1))", "optimizer.weight_decay=interval(0,1)")


def begin(path: Path, *words: str) -> Search:
    """The source of `dlrun -m WORDS` in the folder `path`, begun and not run."""
    args = parse_arguments(["-m", *NARROW, *words, f"hydra.sweep.dir={path}"])
    begin_search(args, compose(args), SweepFolder(path), named=True)
    return again(path)


def again(path: Path) -> Search:
    """The source as another process would make it, after the one before has died."""
    release(SweepFolder(path).lock)
    return search_of(SweepFolder(path))


def peak(config: dict[str, Any]) -> float:
    """Best at lr 1e-2 and weight decay 0.3."""
    optimizer = config["optimizer"]
    return -((math.log10(optimizer["lr"]) + 2) ** 2) - (optimizer["weight_decay"] - 0.3) ** 2


def train(search: Search, job: FrozenJob, value: float | None) -> None:
    """What a run leaves, whether or not anybody tells the study."""
    run = search.folder.run(job)
    run.path.mkdir(parents=True, exist_ok=True)
    best = {} if value is None else {"epoch": 1, "val/acc": value}
    summary = {"run_id": job.run_id, "status": "finished", "best": best}
    run.summary.write_text(json.dumps(summary))


def finish(search: Search, score: Callable[[dict[str, Any]], float | None] = peak, most: int = 1000) -> int:
    """Run jobs one after the other until there are none, or `most` are done; returns how many."""
    done = 0
    while done < most and (job := search.next()) is not None:
        train(search, job, score(job.config))
        search.ended(job, "done", search.folder.run(job).read_summary())
        done += 1
    return done


def drawn(search: Search) -> list[tuple[int, dict[str, Any]]]:
    return [(trial.number, trial.params) for trial in search.study.get_trials(deepcopy=False)]


def study_of(folder: SweepFolder) -> Any:
    """The study of a search that was begun, to look at."""
    return reach(storage_of(folder), folder.read()["study"]["name"])
