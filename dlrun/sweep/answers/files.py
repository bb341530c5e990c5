"""The answers as files: results.csv, a row per job; results.md, a row per configuration. Fractions, not per cent."""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from dlrun.sweep.answers.cells import escaped, markdown_table, mean_sd, value_at
from dlrun.sweep.answers.configurations import Configuration, Ranking
from dlrun.sweep.answers.results import Outcome, Results
from dlrun.wording import NOTHING, duration, number_text, value_text

if TYPE_CHECKING:
    from dlrun.sweep.answers.pictures import Picture

FACTS = ("epochs", "seconds", "samples_per_second", "parameters", "error")


def csv_text(results: Results) -> str:
    """A row per job, in the order of their numbers; what isn't known is empty."""
    tests = sorted({name for outcome in results.outcomes for name in outcome.test})
    metrics = [o.name for o in results.objectives]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["number", "folder", "state", *results.swept, *metrics, "best_epoch", *tests, *FACTS])
    for outcome in results.outcomes:
        row = [outcome.job.number, outcome.job.folder, outcome.state]
        row += [value_text(outcome.values[key]) if key in outcome.values else None for key in results.swept]
        row += [outcome.objectives.get(name) for name in metrics] + [outcome.best_epoch]
        row += [outcome.test.get(name) for name in tests] + [getattr(outcome, name) for name in FACTS]
        writer.writerow(row)
    return text.getvalue()


def markdown(results: Results, ranking: Ranking, pictures: Sequence[Picture]) -> str:
    """The whole report."""
    parts = [_header(results), _ranking(results, ranking), _incomplete(results, ranking), _lost(results)]
    parts += [_listed(results, "pruned", "Pruned"), _missing(results), _repeats(ranking), _pictures(pictures)]
    return "\n".join(line for part in parts for line in part)


def _header(results: Results) -> Iterator[str]:
    sweep = results.sweep
    yield f"# Sweep {escaped(results.folder.name)}"
    yield ""
    yield f"    {shlex.join(map(str, sweep['command']))}"
    yield ""
    states = {
        state: results.count(state) for state in ("done", "failed", "pruned", "running", "interrupted", "pending")
    }
    said = ", ".join(f"{n:,} {state}" for state, n in states.items() if n or state in ("done", "failed", "pruned"))
    took = f", {duration(sweep['seconds'])}" if sweep.get("seconds") else ""
    now = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    yield f"{len(results.outcomes):,} jobs: {said}. Begun {sweep['created']}{took}; reported {now}."
    yield ""


def _ranking(results: Results, ranking: Ranking) -> Iterator[str]:
    objectives = results.objectives
    names = ", ".join(f"`{o.name}` ({o.mode})" for o in objectives)
    if len(objectives) > 1:
        yield "## Pareto front"
        yield ""
        yield f"By {names}: rank 1 is what no other configuration beats; the others aren't ranked."
    else:
        yield "## Configurations"
        yield ""
        split = objectives[0].name.partition("/")[0]
        yield f"Ranked by the mean of {names} over seeds, at each run's best epoch."
        if split != "test":
            yield f"What is chosen is chosen by {split}; `{objectives[0].test}` beside it is not for choosing."
    yield "± is the standard deviation of single runs (n - 1); the interval is that of the mean, 95 % by Student's t."
    single = [c for _, c in ranking.ranked if len(c.outcomes) == 1]
    if single:
        which = "Each configuration" if len(single) == len(ranking.ranked) else f"{len(single):,} of the configurations"
        has = "has" if len(single) in (1, len(ranking.ranked)) else "have"
        yield f"{which} {has} one seed: no deviation, no interval."
    yield ""
    if not ranking.ranked:
        yield "No configuration has all of its seeds done: nothing is ranked."
        yield ""
        return
    rows = [[_place(rank, results), *_row(results, c)] for rank, c in ranking.ranked]
    yield from markdown_table(["rank", *_head(results)], rows, 1 + len(results.parameters))
    yield ""


def _place(rank: int, results: Results) -> str:
    return str(rank) if rank == 1 or len(results.objectives) == 1 else ""


def _head(results: Results) -> list[str]:
    head = list(results.parameters)
    for objective in results.objectives:
        head += [objective.name, "95 % interval"]
    return [*head, "n", _test(results), "best epoch", "seconds", "jobs"]


def _test(results: Results) -> str:
    """The test metric that stands beside the first objective."""
    known = {name for outcome in results.outcomes for name in outcome.test}
    wanted = results.objectives[0].test
    return wanted if wanted in known or not known else "test/acc" if "test/acc" in known else min(known)


def _row(results: Results, configuration: Configuration) -> list[str]:
    row = [value_at(configuration.values, key) for key in results.parameters]
    for objective in results.objectives:
        found = configuration.sample(objective.name)
        interval = None if found is None else found.interval
        row += [
            mean_sd(found),
            NOTHING if interval is None else f"{number_text(interval[0])} to {number_text(interval[1])}",
        ]
    epoch, seconds = configuration.figures("best_epoch"), configuration.figures("seconds")
    row += [str(len(configuration.done(results.objectives[0].name))), mean_sd(configuration.figures(_test(results)))]
    row += ["–" if epoch is None else f"{epoch.mean:.4g}", "–" if seconds is None else f"{seconds.mean:.1f}"]
    return [*row, " ".join(outcome.job.folder for outcome in configuration.outcomes)]


def _incomplete(results: Results, ranking: Ranking) -> Iterator[str]:
    if not ranking.incomplete:
        return
    yield "## Not ranked"
    yield ""
    yield "Not all of their seeds are done, and those that are may be the lucky ones: the figures are of these alone."
    yield ""
    rows = [[c.lacks(results.objectives), *_row(results, c)] for c in ranking.incomplete]
    yield from markdown_table(["lacks", *_head(results)], rows, 1 + len(results.parameters))
    yield ""


def _lost(results: Results) -> Iterator[str]:
    failed = [outcome for outcome in results.outcomes if outcome.state == "failed"]
    yield "## Failures"
    yield ""
    if not failed:
        yield "None."
    else:
        rows = [[str(o.job.number), o.job.folder, *_values(results, o), o.error or ""] for o in failed]
        yield from markdown_table(["job", "folder", *results.swept, "error"], rows, 99)
    yield ""


def _listed(results: Results, state: str, title: str) -> Iterator[str]:
    chosen = [outcome for outcome in results.outcomes if outcome.state == state]
    if not chosen:
        return
    yield f"## {title}"
    yield ""
    names = [o.name for o in results.objectives]
    rows = [
        [
            str(o.job.number),
            o.job.folder,
            *_values(results, o),
            *(number_text(o.objectives.get(n)) for n in names),
            str(o.epochs),
        ]
        for o in chosen
    ]
    head = ["job", "folder", *results.swept, *(f"{name} by then" for name in names), "epochs"]
    yield from markdown_table(head, rows, 2 + len(results.swept))
    yield ""


def _missing(results: Results) -> Iterator[str]:
    chosen = [o for o in results.outcomes if o.state in ("running", "interrupted", "pending")]
    if not chosen:
        return
    yield "## Missing"
    yield ""
    rows = [[str(o.job.number), o.job.folder, *_values(results, o), o.state] for o in chosen]
    yield from markdown_table(["job", "folder", *results.swept, "state"], rows, 99)
    yield ""


def _values(results: Results, outcome: Outcome) -> list[str]:
    return [value_at(outcome.values, key) for key in results.swept]


def _repeats(ranking: Ranking) -> Iterator[str]:
    everything = [*(c for _, c in ranking.ranked), *ranking.incomplete, *ranking.without]
    again = [(c, o) for c in everything for o in c.repeats]
    if again:
        yield "## Repeated"
        yield ""
        yield "Same configuration, same seed as another job: they count once."
        yield ""
        for configuration, outcome in again:
            of = next(o for o in configuration.outcomes if o.job.config.get("seed") == outcome.job.config.get("seed"))
            yield f"- job {outcome.job.number} ({outcome.state}) repeats job {of.job.number} ({of.state})"
        yield ""


def _pictures(pictures: Sequence[Picture]) -> Iterator[str]:
    yield "## Pictures"
    yield ""
    if not pictures:
        yield "None yet, since the sweep was stopped: `dlrun sweep report` draws them."
        yield ""
    for picture in pictures:
        if picture.left_out is None:
            yield f"![{picture.title}](plots/{picture.name}.png)"
            yield ""
    for picture in pictures:
        if picture.left_out is not None:
            yield f"- {picture.title}: left out, {escaped(picture.left_out)}"
    yield ""
