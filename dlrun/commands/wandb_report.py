"""dlrun wandb-report [run=DIR|last | runs=GLOB | project=NAME] [KEY=VALUE …]: a ready report or workspace in W&B

  dlrun wandb-report run=last                                 a report on a run: curves, results, confusion, pictures
  dlrun wandb-report run=multirun/2026-11-23/07-38-12         on a sweep: what matters, what it costs, too
  dlrun wandb-report 'runs=outputs/2026-11-2*/*'              on many runs
  dlrun wandb-report project=dlrun group=07-38-12             on a group of a project, or all of it; looks at no folder
  dlrun wandb-report project=dlrun kind=workspace             a saved view of the project instead
  dlrun wandb-report run=last out=report.json                 nothing is sent: the definition is written
  dlrun wandb-report definition=report.json                   and sent, later and elsewhere

  run=DIR|last        a run's folder, or a sweep's
  runs=GLOB           folders of runs, of sweeps, of days: as dlrun report takes them; several with commas
  project= entity=    where in W&B; of runs here, what their configs say holds otherwise. entity: yours, if none is said
  group=NAME          the runs of a sweep, by the name of its folder
  kind=report|workspace       (report)
  title=TEXT          otherwise it says what it is of
  out=FILE            write the definition as JSON; needs no account
  definition=FILE     send one that was written; with project= and entity= elsewhere

Sent, it is W&B's own to edit, and its address is printed; each time it is a new one. Runs that are offline have to be
uploaded before it shows them (the end of each says how). Needs the package wandb-workspaces: pip install
'dlrun[workspaces]'.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dlrun.errors import UserError
from dlrun.options import read
from dlrun.runfolder import RunFolder
from dlrun.runs import find
from dlrun.wandb_report.subject import Subject, of_project, of_runs, of_sweep

if TYPE_CHECKING:
    from dlrun.wandb_report.definition import Definition


@dataclass(frozen=True, kw_only=True)
class Options:
    run: str | None = None
    runs: str | None = None
    project: str | None = None
    entity: str | None = None
    group: str | None = None
    kind: Literal["report", "workspace"] = "report"
    title: str | None = None
    out: Path | None = None
    definition: Path | None = None


def run(words: Sequence[str]) -> int:
    """Make it, and send it or write it; returns the exit code. Raises UserError."""
    options, _ = read(words, Options, "wandb-report")
    _check(options)
    subject = _subject(options)
    for package in ("wandb", "wandb_workspaces"):
        if (spec := find_spec(package)) is None or spec.origin is None:  # a folder of that name isn't it
            raise UserError("wandb-report needs the package wandb-workspaces: pip install 'dlrun[workspaces]'")
    made = _definition(options, subject)
    if options.out is not None:
        made.write(options.out)
        print(f"written {options.out}")
        print(f"to send it: dlrun wandb-report definition={options.out}")
        return 0
    from dlrun.wandb_report.sending import send

    print(f"saved {send(made, options.project, options.entity)}")
    return 0


def _check(options: Options) -> None:
    """Raises UserError for options that contradict each other, or leave open what it is about."""
    sources = [name for name in ("run", "runs", "definition") if getattr(options, name) is not None]
    if len(sources) > 1:
        raise UserError(f"{sources[1]}: say it or {sources[0]}, not both")
    if not sources and not options.project:
        raise UserError("wandb-report: say of what: run=DIR|last, runs=GLOB, or project=NAME; see its --help")
    if options.group is not None and sources:
        raise UserError(f"group: goes with project=NAME; {sources[0]} says already which runs")
    if options.group == "":
        raise UserError("group: expected a name, got nothing")
    if options.definition is not None:
        defaults = {field.name: field.default for field in fields(Options)}
        idle = [name for name in ("kind", "title", "out") if getattr(options, name) != defaults[name]]
        if idle:
            raise UserError(f"{idle[0]}: a definition is sent as it is; leave it out")


def _subject(options: Options) -> Subject | None:
    """None for what is defined already."""
    if options.definition is not None:
        return None
    if options.run is not None:
        folder = find(options.run)
        if (folder / "sweep.json").exists():
            return of_sweep(folder, options.project, options.entity)
        return of_runs([folder], options.project, options.entity)
    if options.runs is not None:
        from dlrun.report.comparison.finding import folders

        found = [path for path in folders([options.runs]) if RunFolder(path).summary.exists()]
        if not found:
            raise UserError(f"runs: no run in {options.runs}")
        return of_runs(found, options.project, options.entity)
    assert options.project is not None
    return of_project(options.project, options.entity, options.group)


def _definition(options: Options, subject: Subject | None) -> Definition:
    from dlrun.wandb_report import definition

    if subject is None:
        assert options.definition is not None
        return definition.read(options.definition)
    make = definition.report if options.kind == "report" else definition.workspace
    return make(subject, options.title if options.title is not None else subject.title)
