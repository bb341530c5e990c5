"""The answers as pictures, each a file of its own that says with colours which people tell apart whatever they see."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from dlrun.sweep.answers.configurations import Ranking
from dlrun.sweep.answers.results import Results
from dlrun.viz.pictures import put

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Picture:
    """One that was drawn, or that wasn't."""

    name: str  # of the file, without .png
    title: str
    left_out: str | None = None


@dataclass
class Subject:
    """What is drawn, and what one picture has found out for the next."""

    results: Results
    ranking: Ranking
    importances: dict[str, float] | str | None = field(default=None)  # str: why there are none


Draw = Callable[[Subject], "Figure"]


def draw_all(results: Results, ranking: Ranking) -> list[Picture]:
    """Write plots/*.png, and remove those of an earlier report that make no sense any more. Raises nothing."""
    from dlrun.sweep.answers.pictures import curves, front, heat_map, history, importance, parallel

    kinds: list[tuple[str, str, Draw]] = [
        ("heat_map", "Heat map", heat_map.draw),
        ("parallel_coordinates", "Parallel coordinates", parallel.draw),
        ("importance", "Parameter importance", importance.draw),
        ("history", "Optimisation history", history.draw),
        ("learning_curves", "Learning curves", curves.draw),
    ]
    if len(results.objectives) > 1:
        kinds.insert(0, ("pareto_front", "Pareto front", front.draw))
    subject = Subject(results, ranking)
    plots = results.folder.plots
    return [Picture(name, title, put(plots / f"{name}.png", partial(draw, subject))) for name, title, draw in kinds]
