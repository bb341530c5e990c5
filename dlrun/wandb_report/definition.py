"""A report or a workspace as W&B has it, in a file that can be sent later, by whoever has an account.

Needs the package wandb-workspaces (0.4). Its objects become what is sent when they are saved: `_to_model` is that step.
Its way back, `_from_model`, loses the size of tables and the width of a report, so that what is read is sent as it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws
from pydantic import ValidationError
from wandb_workspaces.reports.v2.internal import Spec as ReportSpec
from wandb_workspaces.workspaces.internal import WorkspaceViewspec

from dlrun.atomic import atomic_write
from dlrun.errors import UserError
from dlrun.wandb_report.panels import best, columns, sections
from dlrun.wandb_report.subject import Subject

FORMAT = 1
Kind = Literal["report", "workspace"]
LONGEST_TITLE = 128  # characters, of a report's


@dataclass(frozen=True)
class Definition:
    """What is sent. `spec` is W&B's own, an object of JSON."""

    kind: Kind
    project: str
    entity: str | None  # None is whoever sends it
    title: str
    description: str
    spec: Mapping[str, Any]

    def write(self, path: Path) -> None:
        """Raises UserError if it can't be."""
        content = {"format": FORMAT, "made_by": "dlrun wandb-report", **self.__dict__}
        try:
            with atomic_write(path) as file:
                file.write(json.dumps(content, indent=1, ensure_ascii=False).encode(errors="backslashreplace") + b"\n")
        except OSError as error:
            raise UserError(f"out: can't write {path} ({error.strerror})") from error

    def check(self) -> None:
        """Raises UserError if W&B's package doesn't know it for one of its own."""
        try:
            (ReportSpec if self.kind == "report" else WorkspaceViewspec).model_validate(dict(self.spec))
        except (ValidationError, ValueError) as error:
            raise UserError(f"definition: not one of W&B's {self.kind}s ({str(error).splitlines()[0]})") from error


def read(path: Path) -> Definition:
    """Raises UserError if the file isn't one of these."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"definition: {path} can't be read ({error})") from None
    if not isinstance(content, dict) or content.get("made_by") != "dlrun wandb-report":
        raise UserError(f"definition: {path} isn't by dlrun wandb-report")
    if content.get("format") != FORMAT or content.get("kind") not in ("report", "workspace"):
        raise UserError(f"definition: {path} is of another version of dlrun")
    names = ("kind", "project", "entity", "title", "description", "spec")
    if missing := [name for name in names if name not in content]:
        raise UserError(f"definition: {path} has no {missing[0]}")
    found = Definition(**{name: content[name] for name in names})
    found.check()
    return found


def report(subject: Subject, title: str) -> Definition:
    """A section for each question, each with the runs that it is about. Raises UserError for a title W&B refuses."""
    if not 0 < len(title) <= LONGEST_TITLE:
        raise UserError(f"title: expected 1 to {LONGEST_TITLE} characters, got {len(title)}")
    blocks: list[Any] = [wr.TableOfContents()]
    for heading, panels in sections(subject):
        results = heading == "Results"
        # A set of runs without a project is of the report's: with one, W&B would be asked for it here and now.
        runset = wr.Runset(
            name=subject.title,
            order=[wr.OrderBy(wr.SummaryMetric(best(subject)), ascending=subject.minimize)],
            pinned_columns=columns(subject),
            lock_columns=True,
        )
        blocks += [wr.H2(heading), wr.PanelGrid(runsets=[runset], panels=panels, hide_run_sets=not results)]
    text = _about(subject)
    made = wr.Report(
        project=subject.project,
        entity=subject.entity or "",
        title=title,
        description=text,
        blocks=blocks,
        width="fluid",
    )
    model: Any = made._to_model()  # type: ignore[no-untyped-call]
    spec = model.spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    for block in spec["blocks"]:
        for runset in block.get("metadata", {}).get("runSets", []):
            _filtered(runset, subject)
    return Definition("report", subject.project, subject.entity, title, text, spec)


def workspace(subject: Subject, title: str) -> Definition:
    """A saved view of a project, with the same panels. Raises UserError for a title W&B refuses."""
    try:
        made = ws.Workspace(
            entity=subject.entity or "",
            project=subject.project,
            name=title,
            sections=[ws.Section(name=name, panels=panels, is_open=True) for name, panels in sections(subject)],
            settings=ws.WorkspaceSettings(x_axis="epoch", max_runs=20),
            runset_settings=ws.RunsetSettings(
                order=[ws.Ordering(ws.Summary(best(subject)), ascending=subject.minimize)],
                pinned_columns=columns(subject),
            ),
        )
    except ValidationError as error:  # it takes no emoji, and no other symbols
        raise UserError(f"title: W&B refuses '{title}' ({error.errors()[0]['msg']})") from error
    model: Any = made._to_model()  # type: ignore[no-untyped-call]
    spec = model.spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    _filtered(spec["section"]["runSets"][0], subject)
    return Definition("workspace", subject.project, subject.entity, title, "", spec)


def _filtered(runset: dict[str, Any], subject: Subject) -> None:
    """Say which runs, in W&B's own form: the package's way there parses a text, in which a name's = becomes ==."""
    key, op, value = ("group", "=", subject.group) if subject.group else ("name", "IN", list(subject.run_ids))
    one = {"key": {"section": "run", "name": key}, "op": op, "value": value, "disabled": False}
    runset["filters"] = {"filterFormat": "filterV2", "filters": [one] if value else []}


def _about(subject: Subject) -> str:
    first = "lowest" if subject.minimize else "highest"
    order = "" if subject.single else f", in the order of {best(subject)}, the {first} first"
    return f"{subject.title}{order}. Made by dlrun wandb-report."
