"""The answers as pictures, each a file of its own that says with colours which people tell apart whatever they see."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dlrun.atomic import atomic_write
from dlrun.errors import printable
from dlrun.sweep.answers.configurations import Ranking
from dlrun.sweep.answers.results import Results

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger("dlrun")

DPI = 130


class LeftOut(Exception):
    """Why a picture would say nothing."""


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
    return [_drawn(subject, name, title, draw) for name, title, draw in kinds]


def _drawn(subject: Subject, name: str, title: str, draw: Draw) -> Picture:
    """A picture that can't be drawn never costs more than itself."""
    from dlrun.sweep.answers.pictures.style import written_in

    path = subject.results.folder.plots / f"{name}.png"
    try:
        with written_in():
            figure = draw(subject)
            path.parent.mkdir(exist_ok=True)
            with atomic_write(path) as file:
                figure.savefig(file, format="png", dpi=DPI)
        return Picture(name, title)
    except LeftOut as reason:
        path.unlink(missing_ok=True)
        return Picture(name, title, str(reason))
    except Exception as error:
        log.debug("picture %s", name, exc_info=True)
        path.unlink(missing_ok=True)
        return Picture(name, title, printable(f"it couldn't be drawn ({type(error).__name__}: {error})"))
