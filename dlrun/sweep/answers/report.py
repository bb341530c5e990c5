"""The answers of a sweep, at its end and at any time: results.csv, results.md, plots/*.png, and a table to read."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlrun.atomic import atomic_write
from dlrun.errors import UserError
from dlrun.options import read
from dlrun.sweep.answers.configurations import Ranking, configurations, rank
from dlrun.sweep.answers.files import csv_text, markdown
from dlrun.sweep.answers.pictures import draw_all
from dlrun.sweep.answers.results import Results, gather
from dlrun.sweep.answers.terminal import table
from dlrun.sweep.folder import SweepFolder
from dlrun.wording import value_text

log = logging.getLogger("dlrun")


@dataclass(frozen=True, kw_only=True)
class Options:
    pass


def run(folder: SweepFolder, words: Sequence[str]) -> int:
    """The command; returns its exit code. Raises UserError."""
    read(words, Options, "sweep report")
    report(folder.path)
    return 0


def report(path: Path, draw: bool = True) -> dict[str, Any]:
    """Write results.csv, results.md and, if `draw`, plots/, and print the table. Raises UserError if it can't.

    Returns what there is to say of the winner: its values, `best/METRIC` and `best/METRIC/sd`; nothing of a front.
    """
    results = gather(path)
    if not results.outcomes:
        raise UserError(f"{path}: the sweep has no jobs yet")
    ranking = rank(configurations(results), results.objectives)
    try:
        _put(results.folder.results_csv, csv_text(results))
        pictures = draw_all(results, ranking) if draw else []
        _put(results.folder.results_md, markdown(results, ranking, pictures))
    except OSError as error:
        raise UserError(f"can't write into {path} ({error.strerror})") from error
    print(table(results, ranking))
    return _winner(results, ranking)


def _winner(results: Results, ranking: Ranking) -> dict[str, Any]:
    if len(results.objectives) > 1 or not ranking.winners:
        return {}
    winner, objective = ranking.winners[0], results.objectives[0]
    said: dict[str, Any] = {
        f"best/{key}": value if isinstance(value, int | float) else value_text(value)
        for key, value in winner.values.items()
    }
    samples = {objective.name: winner.sample(objective.name), objective.test: winner.figures(objective.test)}
    for name, found in samples.items():
        if found is not None:
            said |= {f"best/{name}": found.mean, f"best/{name}/sd": found.sd}
    return said


def _put(path: Path, text: str) -> None:
    with atomic_write(path) as file:
        file.write(text.encode(errors="backslashreplace"))
