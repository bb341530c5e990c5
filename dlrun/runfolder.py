"""Every path inside one run, and the summary that tells how it went."""

from __future__ import annotations

import json
import os
import secrets
import string
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from dlrun import __version__, slurm
from dlrun.atomic import atomic_write, create, remove_partial
from dlrun.errors import UserError
from dlrun.locks import hold, release
from dlrun.passwords import masked_in_added

FORMAT = 1  # of summary.json
DEEPEST = 300  # levels of a YAML that libyaml is trusted with
LARGEST_DIFF = 1_000_000  # bytes of uncommitted.diff
CUT_OFF = "# cut off here"  # begins its last line, if there is more
UNTRACKED = 20  # names of such files and folders


class RunFolder:
    """The folder of one run: `RunFolder(path)` only names the paths, `claim` and `reopen` make it this process's."""

    def __init__(self, path: Path):
        self.path = path
        self.config = path / "config.yaml"
        self.log = path / "dlrun.log"
        self.metrics = path / "metrics.csv"
        self.progress = path / "progress.json"  # only while it is trained
        self.summary = path / "summary.json"
        self.uncommitted = path / "uncommitted.diff"  # what the code differs from its commit by
        self.bad_batch = path / "nonfinite_batch.json"
        self.lock = path / ".lock"
        self.plots = path / "plots"
        self.checkpoints = path / "checkpoints"
        self.best = self.checkpoints / "best.pt"
        self.last = self.checkpoints / "last.pt"
        self.previous = self.checkpoints / "previous.pt"  # the one before last
        self.initial = self.checkpoints / "initial.pt"  # what a compressed run begins with
        self.int8 = self.checkpoints / "int8.onnx"  # what answers for a quantised run

    def claim(self, run_id: str, command: Sequence[str]) -> None:
        """Begin a run here: a folder that already holds one is refused. `command` makes the same run again."""
        begun = {"format": FORMAT, "run_id": run_id, "status": "running", "command": list(command), "started": _now()}
        begun["slurm_job"] = slurm.job()
        try:
            create(self.summary, json.dumps(begun).encode())
        except FileExistsError:
            raise UserError(f"hydra.run.dir: {self.path} already holds a run; choose another folder") from None
        hold(self.lock)
        self.checkpoints.mkdir(exist_ok=True)

    def reopen(self) -> None:
        """Take over a run that has ended, however it ended. Raises UserError while its process lives."""
        hold(self.lock)
        for folder in (self.path, self.checkpoints, self.plots):
            remove_partial(folder)
        self.checkpoints.mkdir(exist_ok=True)

    def release(self) -> None:
        """The run is over: another process may resume it."""
        release(self.lock)

    def write_config(self, config: Mapping[str, Any]) -> None:
        with atomic_write(self.config) as file:
            file.write(yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True).encode())

    def read_config(self) -> dict[str, Any]:
        """The resolved config as plain values: nothing in it is interpolated or executed. Raises UserError."""
        try:
            config = read_yaml(self.config.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UserError(f"{self.path} has no config.yaml: nothing to go on with") from None
        except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
            raise UserError(f"{self.config} can't be read: {' '.join(str(error).split())}") from None
        if not isinstance(config, dict):
            raise UserError(f"{self.config}: expected a mapping, got {type(config).__name__}")
        return config

    def update_summary(self, **changes: Any) -> dict[str, Any]:
        """Replace `changes` in summary.json, atomically; returns the whole of it."""
        summary = self.read_summary() | changes
        with atomic_write(self.summary) as file:
            file.write(json.dumps(finite(summary), indent=2, ensure_ascii=False).encode() + b"\n")
        return summary

    def keep_git_state(self) -> dict[str, Any] | None:
        """What `git_state` says; if it is dirty, the changes to tracked files are in uncommitted.diff from now on.

        Of what git doesn't track, and isn't told to ignore, the names are in `untracked`, if there are any.
        """
        state = git_state()
        changes = uncommitted_changes() if state is not None and state["dirty"] else None
        with suppress(OSError):  # a full disk is said where it matters
            if changes is None:
                self.uncommitted.unlink(missing_ok=True)  # of the part of the run before this one
            else:
                with atomic_write(self.uncommitted) as file:
                    file.write(changes)
        if state is not None and (names := untracked(self.path)):
            state["untracked"] = names
        return state

    def read_summary(self) -> dict[str, Any]:
        """summary.json. Raises UserError if there is none, or what is there isn't one."""
        try:
            summary = json.loads(self.summary.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UserError(f"no run in {self.path}: it has no summary.json") from None
        except (OSError, ValueError, RecursionError) as error:
            raise UserError(f"{self.summary} can't be read: {error}") from None
        if not isinstance(summary, dict) or "run_id" not in summary:
            raise UserError(f"{self.summary} isn't the summary of a run")
        return summary


class FollowedFolder(RunFolder):
    """The folder of a run that another process writes: nothing that this one has to say gets there."""

    def write_config(self, config: Mapping[str, Any]) -> None: ...

    def update_summary(self, **changes: Any) -> dict[str, Any]:
        return changes

    def keep_git_state(self) -> dict[str, Any] | None:
        return None


def read_yaml(text: str) -> Any:
    """`yaml.safe_load`, by libyaml where there is one: of 1,000 configs, seconds against a minute.

    libyaml's reader crashes on what is nested some ten thousand levels deep; Python's own raises RecursionError.
    """
    indented = max((len(line) - len(line.lstrip(" ")) for line in text.splitlines()), default=0)
    levels = indented + sum(map(text.count, ("[", "{", "- ", "? ")))  # as many as that at most
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader) if levels < DEEPEST else yaml.SafeLoader
    return yaml.load(text, Loader=loader)


def new_run_id() -> str:
    """Eight random characters, as W&B's own ids have: one in 2.8 million million."""
    return "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(8))


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="milliseconds")


def finite(value: Any) -> Any:
    """JSON has no NaN: what isn't finite becomes null."""
    if isinstance(value, Mapping):
        return {key: finite(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value


def versions() -> dict[str, str]:
    """What a result depends on beside the config; asks for metadata, imports none of them."""
    import platform  # like what git_state needs, not for a command that only looks into a folder
    from importlib import metadata

    found = {"dlrun": __version__, "python": platform.python_version(), "platform": platform.platform()}
    for name in ("torch", "torchvision", "hydra-core", "albumentations", "numpy", "wandb"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _git(*words: str) -> str | None:
    """What git says; None where there is no git, no repository, or no answer in 5 s."""
    import subprocess

    env = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    try:
        said = subprocess.run(["git", *words], capture_output=True, timeout=5, check=True, env=env).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return said.decode(errors="replace").strip()


def git_state() -> dict[str, Any] | None:
    """Commit and uncommitted changes of the working directory; None where there is no repository."""
    commit = _git("rev-parse", "HEAD")
    changes = None if commit is None else _git("status", "--porcelain", "--untracked-files=no")
    return None if changes is None else {"commit": commit, "dirty": bool(changes)}


def untracked(run: Path) -> list[str]:
    """Files and folders/ that git neither tracks nor ignores, from the top of the repository; not that of the run."""
    top, said = _git("rev-parse", "--show-toplevel"), _git("status", "--porcelain", "-z", "--untracked-files=normal")
    if top is None or said is None:
        return []
    names = (entry[3:] for entry in said.split("\0") if entry.startswith("?? "))
    others = (name for name in names if not run.resolve().is_relative_to(Path(top, name).resolve()))
    return list(islice(others, UNTRACKED))


def uncommitted_changes() -> bytes | None:
    """`git diff HEAD` of the working directory's repository, its first megabyte; None if git can't say in 5 s.

    `git apply` takes it, whatever the user's own options for diffs are, and files that aren't text are in it, too.
    Passwords of addresses that it adds are left out: a report of the run has it, too.
    """
    import subprocess
    from threading import Timer

    # nobody's program but git; as `git apply` takes it, and without --no-relative, which is git 2.28's
    words = ["git", "-c", "diff.relative=false", "diff", "HEAD", "--no-color", "--no-ext-diff", "--no-textconv"]
    words += ["--binary", "--src-prefix=a/", "--dst-prefix=b/"]
    none, pipe, env = subprocess.DEVNULL, subprocess.PIPE, {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    try:
        with subprocess.Popen(words, stdin=none, stdout=pipe, stderr=none, env=env) as process:
            assert process.stdout is not None
            timer = Timer(5, process.kill)
            timer.start()
            found = process.stdout.read(LARGEST_DIFF + 1)
            timer.cancel()
            if len(found) > LARGEST_DIFF:
                process.kill()
    except OSError:
        return None
    if len(found) > LARGEST_DIFF:
        whole_lines = found[: found.rfind(b"\n", 0, LARGEST_DIFF - 100) + 1]
        return masked_in_added(whole_lines) + f"{CUT_OFF}: there are more than {LARGEST_DIFF:,} bytes\n".encode()
    return masked_in_added(found) if process.returncode == 0 else None
