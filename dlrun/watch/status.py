"""Whether a run is trained at this moment, and how it ended if it isn't."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dlrun.watch.observation import Observation
from dlrun.wording import duration

PATIENCE = 120.0  # seconds without any change, before that is said
Word = Literal["running", "silent", "killed", "finished", "stopped early", "pruned", "failed", "preempted", "unknown"]
WORDS: dict[str, Word] = {
    "finished": "finished",
    "stopped_early": "stopped early",
    "pruned": "pruned",
    "failed": "failed",
    "preempted": "preempted",
}


@dataclass(frozen=True)
class Status:
    word: Word
    more: str = ""  # what else there is to say
    advice: str = ""
    over: bool = False  # nothing will change any more, unless somebody goes on with it


def judge(seen: Observation, seconds_per_epoch: float | None = None) -> Status:
    """By the summary, the lock, and how long nothing has changed, where a lock of another machine isn't seen here."""
    said = str(seen.summary.get("status"))
    if seen.idle is None:
        return Status("unknown", "its folder is gone", over=True)
    if said in WORDS:
        return _ended(seen, WORDS[said])
    if said != "running" and seen.held is not True:
        nothing = "its summary.json doesn't say" if seen.summary else "it has no summary.json"
        return Status("unknown", "; ".join(seen.unreadable) or nothing, over=False)
    if seen.held:
        return Status("running", seen.owner)
    if seen.held is False and seen.owned_here:
        gone = f"its process is gone ({seen.owner})"
        return Status("killed", gone, f"to go on: dlrun resume run={seen.path}", over=True)
    whose = seen.owner or "its process"
    if seen.idle > max(PATIENCE, 3 * (seconds_per_epoch or 0.0)):
        return Status("silent", f"nothing has changed for {duration(seen.idle)}; {whose} may be gone")
    return Status("running", f"{whose} isn't seen from here; a file changed {duration(seen.idle)} ago")


def _ended(seen: Observation, word: Word) -> Status:
    """It may still be at it, if it is being resumed, or tells its trackers."""
    error, resumable = seen.summary.get("error"), word in ("failed", "preempted") and seen.checkpoint_age is not None
    more = {"failed": f"{error}", "preempted": f"by {error}"}.get(word, "") if error else ""
    if word == "stopped early":
        monitor, patience = seen.option("trainer.monitor"), seen.option("trainer.patience")
        why = f"no better {monitor} for {patience} evaluations" if patience else ""
        more = "trainer.max_time is up" if seen.summary.get("out_of_time") else why
    if seen.held:
        return Status(word, f"{more}; its process is still at work" if more else "its process is still at work")
    return Status(word, more, f"to go on: dlrun resume run={seen.path}" if resumable else "", over=True)
