"""The end of a sweep as a person reads it: the ten best configurations and what failed, as wide as the terminal is."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence

from dlrun.sweep.answers.cells import mean_sd, short_text, short_value
from dlrun.sweep.answers.configurations import Configuration, Ranking
from dlrun.sweep.answers.results import Results
from dlrun.wording import aligned, duration, fitted, is_fraction, width

MOST = 10  # rows of each kind
NARROWEST = 8  # columns that a swept value keeps
NAMES = 12  # and its key


def table(results: Results, ranking: Ranking, columns: int | None = None) -> str:
    """At most `columns` wide; the terminal's own width, or 100 if there is none, if not said."""
    columns = columns or shutil.get_terminal_size((100, 24)).columns
    blocks = [list(_best(results, ranking, columns)), list(_unranked(results, ranking, columns))]
    blocks += [list(_failures(results, columns)), list(_left(results, columns)), [_where(results)]]
    return "\n\n".join("\n".join(block) for block in blocks if block)


def _best(results: Results, ranking: Ranking, columns: int) -> Iterator[str]:
    if not ranking.ranked:
        yield fitted("no configuration has all of its seeds done: nothing is ranked", columns)
        return
    if len(results.objectives) == 1:
        chosen, more = ranking.ranked[:MOST], len(ranking.ranked) - MOST
    else:
        front = [(place, c) for place, c in ranking.ranked if place == 1]
        chosen, more = front[:MOST], len(front) - MOST
        yield fitted(f"Pareto front: {len(front)} of {len(ranking.ranked)} configurations", columns)
    yield from _fitting(results, chosen, columns)
    if more > 0:
        yield f"… and {more:,} more"


def _fitting(results: Results, chosen: Sequence[tuple[int, Configuration]], columns: int) -> list[str]:
    """First values and keys get shorter, then columns go: seconds, epoch, test, n; then parameters, from the right."""
    optional = ["n", "test", "epoch", "seconds"]
    shown = list(results.parameters)
    while True:
        for most in (60, 40, 30, 24, 20, 16, NAMES, NARROWEST):
            lines = _lines(results, chosen, shown, optional, most)
            if max(map(width, lines)) <= columns:
                return lines
        if optional:
            optional.pop()
        elif shown:
            shown.pop()
        else:
            return [fitted(line, columns) for line in lines]


def _lines(
    results: Results,
    chosen: Sequence[tuple[int, Configuration]],
    shown: Sequence[str],
    optional: Sequence[str],
    most: int,
) -> list[str]:
    hidden = len(results.parameters) - len(shown)
    keys = [fitted(key if most > NAMES else key.rpartition(".")[2], max(most, NAMES)) for key in shown]
    names = [objective.name for objective in results.objectives]
    test = results.objectives[0].test
    head = ["rank", *keys, *(["…"] if hidden else []), *names]
    head += [test if column == "test" else column for column in optional]
    rows = [head]
    for place, c in chosen:
        row = [str(place), *(fitted(short_value(c.values, key), most) for key in shown), *(["…"] if hidden else [])]
        row += [mean_sd(c.sample(name), is_fraction(name)) for name in names]
        epoch, seconds = c.figures("best_epoch"), c.figures("seconds")
        cells = {
            "n": str(len(c.done(names[0]))),
            "test": mean_sd(c.figures(test), is_fraction(test)),
            "epoch": "–" if epoch is None else f"{epoch.mean:.3g}",
            "seconds": "–" if seconds is None else f"{seconds.mean:.1f}",
        }
        rows.append(row + [cells[column] for column in optional])
    return aligned(rows, 1 + len(keys) + bool(hidden))


def _unranked(results: Results, ranking: Ranking, columns: int) -> Iterator[str]:
    if not ranking.incomplete:
        return
    yield fitted("not ranked, since not all seeds are done:", columns)
    name = results.objectives[0].name
    for c in ranking.incomplete[:MOST]:
        found = mean_sd(c.sample(name), is_fraction(name))
        end = f"  {name} {found} ({c.lacks(results.objectives)})"
        yield fitted(f"  {fitted(short_text(c.values), max(columns - width(end) - 2, NAMES))}{end}", columns)
    if len(ranking.incomplete) > MOST:
        yield f"  … and {len(ranking.incomplete) - MOST:,} more"


def _failures(results: Results, columns: int) -> Iterator[str]:
    failed = [outcome for outcome in results.outcomes if outcome.state == "failed"]
    if not failed:
        return
    yield f"{len(failed):,} of {len(results.outcomes):,} jobs failed:"
    for o in failed[:MOST]:
        where = f"  {fitted(o.job.folder, max(columns // 3, NAMES))}  "
        yield where + fitted(o.error or "", max(columns - width(where), NAMES))
    if len(failed) > MOST:
        yield f"  … and {len(failed) - MOST:,} more"


def _left(results: Results, columns: int) -> Iterator[str]:
    counts = Counter(outcome.state for outcome in results.outcomes)
    left = {state: counts[state] for state in ("running", "interrupted", "pending") if counts[state]}
    if left:
        which = ", ".join(f"{number:,} {state}" for state, number in left.items())
        yield fitted(f"{sum(left.values()):,} of {len(results.outcomes):,} jobs are left: {which}", columns)


def _where(results: Results) -> str:
    took = results.sweep.get("seconds")
    return f"report {os.path.relpath(results.folder.results_md)}" + (f"   ({duration(took)})" if took else "")
