"""The command that makes the same run again, and the state of the code that it was made with."""

from __future__ import annotations

import shlex

from markupsafe import Markup

from dlrun.report.page import fragment
from dlrun.report.record import Record

FOLDER = "hydra.run.dir="  # of the run that there is: it would be refused


def body(record: Record) -> Markup | None:
    command = record.summary.get("command")
    if not isinstance(command, list) or not command:
        return None
    words = [str(word) for word in command]
    kept = [word for word in words if not word.startswith(FOLDER)]
    git = record.part("git")
    lines = []
    if git.get("commit"):
        lines.append(shlex.join(["git", "checkout", str(git["commit"])]))
    diff = record.folder.path / "uncommitted.diff"
    if diff.exists():
        lines.append(shlex.join(["git", "apply", str(diff)]))
    return fragment(
        "run/reproduction.html.j2",
        text="\n".join([*lines, shlex.join(kept)]),
        elsewhere=len(kept) < len(words),
        resumed=bool(record.summary.get("resumed")),
        seed=record.config.get("seed"),
    )
