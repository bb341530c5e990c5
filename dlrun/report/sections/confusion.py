"""Which class was taken for which, as a map of all pairs and a list of the most frequent mistakes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from dlrun.report import charts, wording
from dlrun.report.charts import Chart
from dlrun.report.page import fragment
from dlrun.report.record import Record

MOST = 150  # classes in a map; of more, those with the most mistakes
NUMBERED = 12  # classes, up to which the counts stand in their cells
NAMED = 26  # names at an axis
LONGEST = 14  # characters of them
PAIRS = 15

Cells = dict[tuple[int, int], int]  # (truth, guess) → samples


def body(record: Record) -> Markup | None:
    source, cells, names = _read(record)
    if not cells:
        return None
    chosen = _chosen(cells, len(names))
    return fragment(
        "run/confusion.html.j2",
        chart=_chart(cells, names, chosen),
        source=source,
        left_out=len(names) - len(chosen),
        right=sum(n for (truth, guess), n in cells.items() if truth == guess),
        samples=sum(cells.values()),
        pairs=_pairs(cells, names),
    )


def _read(record: Record) -> tuple[Mapping[str, Any], Cells, list[str]]:
    """What the run's own test left, else what `dlrun eval` did."""
    own = record.json("plots", "confusion.json")
    if own.get("cells"):
        names = [str(name) for name in own["class_names"]]
        cells = {(int(t), int(g)): int(n) for t, g, n in own["cells"] if n}
        return own, _within(cells, len(names)), names
    found = record.evaluation()
    rows, names = found.get("confusion_matrix") or [], [str(name) for name in found.get("class_names") or []]
    cells = {(t, g): int(n) for t, row in enumerate(rows) for g, n in enumerate(row) if n}
    return found, _within(cells, len(names)), names


def _within(cells: Cells, classes: int) -> Cells:
    if any(not 0 <= place < classes for pair in cells for place in pair):
        raise ValueError("a class without a name")
    return cells


def _chosen(cells: Cells, classes: int) -> list[int]:
    """The classes of the map, in their order."""
    if classes <= MOST:
        return list(range(classes))
    mistakes: Counter[int] = Counter()
    for (truth, guess), n in cells.items():
        if truth != guess:
            mistakes.update({truth: n, guess: n})
    return sorted(place for place, _ in mistakes.most_common(MOST))


def _chart(cells: Cells, names: Sequence[str], chosen: Sequence[int]) -> Chart:
    """Two maps in one: what is right in blue, what is wrong in orange, each as a share of its true class."""
    support: Counter[int] = Counter()
    for (truth, _), n in cells.items():
        support[truth] += n
    at = {place: i for i, place in enumerate(chosen)}
    maps: dict[bool, list[list[float | None]]] = {kind: [[None] * len(at) for _ in at] for kind in (True, False)}
    words, counts = [[""] * len(at) for _ in at], [[""] * len(at) for _ in at]
    for (truth, guess), n in cells.items():
        if truth in at and guess in at:
            y, x = at[truth], at[guess]
            share = n / support[truth]
            maps[truth == guess][y][x] = 100 * share
            counts[y][x] = str(n)
            taken = "right" if truth == guess else f"taken for {charts.text(names[guess], 60)}"
            words[y][x] = (
                f"{charts.text(names[truth], 60)}<br>{taken}<br>{n:,} of {support[truth]:,} ({100 * share:.1f} %)"
            )
    wrong = max((value for row in maps[False] for value in row if value is not None), default=1.0)
    data = [
        _map(maps[False], "wrong", ("var(--wrong-0)", "var(--wrong-1)"), wrong, words),
        _map(maps[True], "right", ("var(--right-0)", "var(--right-1)"), 100, words),
    ]
    if len(at) <= NUMBERED:
        data = [
            trace | {"text": counts, "texttemplate": "%{text}", "textfont": {"color": charts.INK}} for trace in data
        ]
    every = -(-len(at) // NAMED)
    places = list(range(0, len(at), every))
    ticks: dict[str, Any] = {
        "tickvals": places,
        "ticktext": [charts.text(names[chosen[i]], LONGEST) for i in places],
        "showgrid": False,
    }
    ticks |= {"constrain": "domain", "zeroline": False, "ticklen": 2, "ticklabeloverflow": "allow"}
    layout = {
        "xaxis": charts.axis("guess", side="top", tickangle=-60 if _is_long(ticks["ticktext"]) else 0, **ticks),
        "yaxis": charts.axis("true class", autorange="reversed", scaleanchor="x", **ticks),
    }
    return Chart("confusion-map", "", data, layout, caption="", square=True)


def _map(
    values: list[list[float | None]], name: str, colours: tuple[str, str], most: float, words: list[list[str]]
) -> dict[str, Any]:
    return {
        "type": "heatmap",
        "name": name,
        "z": values,
        "zmin": 0,
        "zmax": most,
        "colorscale": [[0, colours[0]], [1, colours[1]]],
        "showscale": False,
        "hovertext": words,
        "hovertemplate": "%{hovertext}<extra></extra>",
        "hoverongaps": False,
        "xgap": 1 if len(values) <= 40 else 0,
        "ygap": 1 if len(values) <= 40 else 0,
    }


def _is_long(labels: Sequence[str]) -> bool:
    return len(labels) * max(map(len, labels), default=0) > 40


def _pairs(cells: Cells, names: Sequence[str]) -> list[list[Any]]:
    support: Counter[int] = Counter()
    for (truth, _), n in cells.items():
        support[truth] += n
    wrong = sorted(
        ((n, pair) for pair, n in cells.items() if pair[0] != pair[1]), key=lambda found: (-found[0], found[1])
    )
    return [
        [
            names[t],
            names[g],
            {"text": f"{n:,}", "sort": n},
            {"text": wording.percent(n / support[t], 1), "sort": n / support[t]},
        ]
        for n, (t, g) in wrong[:PAIRS]
    ]
