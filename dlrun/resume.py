"""`dlrun resume`: from a run folder to the run that goes on in it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from dlrun.changes import changed, check_plugins
from dlrun.distributed import Ranks, agreed, begin, telling
from dlrun.drawing import draw_missing
from dlrun.errors import UserError
from dlrun.logs import configure, silence
from dlrun.runfolder import RunFolder
from dlrun.runs import find, refuse_sweep

log = logging.getLogger("dlrun")


def run(words: Sequence[str]) -> int:
    """`dlrun resume run=DIR|last [KEY=VALUE …]`; returns the exit code. Raises UserError, RunFailed."""
    given = [word.partition("=")[2] for word in words if word.startswith("run=")]
    if len(given) != 1 or not given[0]:
        raise UserError("resume: say which run: dlrun resume run=DIR (or run=last)")
    ranks = begin()
    with telling(ranks):
        path = agreed(ranks, lambda: find(given[0]))
        resume(path, [word for word in words if not word.startswith("run=")], ranks)
    return 0


def resume(path: Path, overrides: Sequence[str], ranks: Ranks | None = None) -> None:
    """Go on with the run in `path`. Raises UserError if that can't be, RunFailed as `train`."""
    folder = RunFolder(path)
    refuse_sweep(path, "resume")
    summary, before = agreed(ranks, lambda: (folder.read_summary(), folder.read_config()))
    config = changed(before, overrides)
    check_plugins(before, overrides)
    method = (config.get("compression") or {}).get("method", "")
    if method.startswith("quantize"):
        raise UserError(f"run: {path} was quantised ({method}), which trains nothing; resume its parent")
    if method and ranks is not None:
        raise UserError(f"run: {path} was compressed, and is resumed in one process, not in {ranks.size}")
    follows = ranks is not None and not ranks.leads
    try:
        agreed(ranks, folder.reopen)
    except OSError as error:
        raise UserError(f"run: can't write to {path} ({error.strerror})") from error
    try:
        silence() if follows else configure(folder)
        if summary["status"] in ("finished", "stopped_early") and config == before:
            limit = "trainer.max_epochs (or trainer.max_steps)"
            if summary["status"] == "stopped_early":
                limit = "trainer.max_time" if summary.get("out_of_time") else "trainer.patience"
            if method == "qat" and not folder.int8.exists():
                _finish(path, overrides)
                return
            draw_missing(folder, config)
            log.info("nothing left to do: %s is at the end of its %s; with more of that it goes on", path, limit)
            return
        from dlrun.restoration import Resumption
        from dlrun.train import Job, train

        logging.captureWarnings(True)
        names = {
            group: options["name"]
            for group, options in config.items()
            if isinstance(options, dict) and "name" in options
        }
        command = ["dlrun", "resume", f"run={path}", *overrides]
        train(config, Job(path, summary["run_id"], names, resumes=Resumption(before, command), ranks=ranks))
        if method == "qat":
            _finish(path, overrides)
    finally:
        if not follows:
            folder.release()


def _finish(path: Path, overrides: Sequence[str]) -> None:
    """What compress would have done after the training."""
    from dlrun.quantizing import finish

    finish(path, [word for word in overrides if word.startswith(("plugins=", "tracking"))])
