"""The command that makes the same run again, and the state of the code that it was made with."""

from __future__ import annotations

import shlex
from pathlib import Path

from markupsafe import Markup

from dlrun.report.page import fragment
from dlrun.report.record import Record
from dlrun.runfolder import CUT_OFF

TOP = '"$(git rev-parse --show-toplevel)"'  # below it, git apply leaves out what lies elsewhere, and says nothing
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
    diff = record.folder.uncommitted
    if diff.exists():
        apply = f"git -C {TOP} apply {shlex.quote(str(diff.resolve()))}"
        lines.append(_cut_off(diff) or apply)
    untracked = git.get("untracked")
    return fragment(
        "run/reproduction.html.j2",
        text="\n".join([*lines, shlex.join(kept), *(shlex.join(command) for command in _longer(record))]),
        threads=record.part("machine").get("threads"),
        untracked=[str(name) for name in untracked] if isinstance(untracked, list) else [],
        elsewhere=len(kept) < len(words),
        resumed=bool(record.summary.get("resumed")),
        seed=record.config.get("seed"),
    )


def _longer(record: Record) -> list[list[str]]:
    """Those of its resumes that said more than which run: they may have made it longer. To go on changes nothing."""
    parts = record.summary.get("resumed")
    commands = [part.get("command") for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []
    said = [[str(word) for word in command] for command in commands if isinstance(command, list)]
    new = [["run=last" if word.startswith("run=") else word for word in words] for words in said]
    return [words for words in new if len(words) > len(["dlrun", "resume", "run=last"])]


def _cut_off(diff: Path) -> str | None:
    """What to say of changes that aren't all there: git applies none of them."""
    try:
        last = diff.read_text(encoding="utf-8", errors="replace").splitlines()[-1:]
    except OSError:
        return None
    return "# and its changes, of which the folder has a part only" if last and last[0].startswith(CUT_OFF) else None
