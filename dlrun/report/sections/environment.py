"""What the run ran on: machine, versions, the commit of the code and what wasn't committed."""

from __future__ import annotations

from markupsafe import Markup

from dlrun.errors import shortened
from dlrun.passwords import masked_in
from dlrun.report.page import fragment
from dlrun.report.record import Record

MACHINE = {"device": "device", "gpu": "GPU", "threads": "threads", "processes": "processes", "cpu": "processor"}
LINES = 4000  # of a diff: more is looked at in the file
LONGEST = 500  # characters of one
KINDS = (("diff ", "file"), ("@@", "place"), ("+++", "file"), ("---", "file"), ("+", "added"), ("-", "removed"))


def body(record: Record) -> Markup | None:
    machine = record.part("machine")
    rows = [[words, str(machine[key])] for key, words in MACHINE.items() if machine.get(key) is not None]
    rows += [[str(name), str(version)] for name, version in record.part("versions").items()]
    if record.summary.get("slurm_job"):
        rows.append(["SLURM job", str(record.summary["slurm_job"])])
    git = record.part("git")
    lines, more = _diff(record)
    if not rows and not git:
        return None
    return fragment(
        "run/environment.html.j2",
        rows=rows,
        commit=git.get("commit"),
        dirty=bool(git.get("dirty")),
        lines=lines,
        more=more,
        added=sum(kind == "added" for kind, _ in lines),
        removed=sum(kind == "removed" for kind, _ in lines),
    )


def _diff(record: Record) -> tuple[list[tuple[str, str]], int]:
    """Its lines, each with its kind, and how many more there are."""
    try:
        text = record.folder.uncommitted.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return [], 0
    lines = text.splitlines()
    shown = [
        (next((kind for start, kind in KINDS if line.startswith(start)), ""), shortened(masked_in(line), LONGEST))
        for line in lines[:LINES]
    ]
    return shown, max(0, len(lines) - LINES)
