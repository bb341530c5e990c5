"""What a run's folder says at this moment. Files are only read, and none of them is waited for."""

from __future__ import annotations

import json
import os
import re
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from dlrun.history import History, read
from dlrun.locks import look
from dlrun.runfolder import RunFolder, read_yaml

TAIL = 32_768  # bytes of the log


@dataclass(frozen=True)
class Observation:
    """Of one moment; what can't be read is empty, and named in `unreadable`."""

    path: Path
    summary: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    history: History = field(default_factory=History)
    beat: dict[str, Any] = field(default_factory=dict)  # progress.json
    log: list[str] = field(default_factory=list)  # its last lines
    checkpoint_age: float | None = None  # seconds since last.pt was written
    idle: float | None = None  # seconds since any file changed; None of an empty folder
    held: bool | None = None  # whether a process has the run; None where that can't be told
    owner: str = ""  # which, in the words of the lock file
    owned_here: bool = False  # whether that process is, or was, one of this machine
    unreadable: tuple[str, ...] = ()

    def option(self, key: str) -> Any:
        """Of the config, by its dotted key; None where it isn't said."""
        found: Any = self.config
        for part in key.split("."):
            found = found.get(part) if isinstance(found, dict) else None
        return found


class Observer:
    """Looks at one folder again and again, and reads again what has changed."""

    def __init__(self, path: Path):
        self.folder = RunFolder(path)
        self.known: dict[Path, tuple[Any, Any]] = {}  # file → what told it from others, what was in it
        self.seen: tuple[Any, float] | None = None  # the newest state of all files, and when it was new here

    def look(self) -> Observation:
        folder = self.folder
        # Before the summary: a run says how it ended, and then gives its lock back.
        held = look(folder.lock)
        unreadable: list[str] = []

        def content(path: Path, read: Callable[[str], Any], nothing: Any) -> Any:
            try:
                return self._content(path, read)
            except FileNotFoundError:
                return nothing
            except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
                unreadable.append(f"{path.name} can't be read: {' '.join(str(error).split())}")
                return nothing

        owner = str(content(folder.lock, str.strip, ""))
        return Observation(
            path=folder.path,
            held=held,
            summary=content(folder.summary, _mapping_of(json.loads), {}),
            config=content(folder.config, _mapping_of(read_yaml), {}),
            history=self._history(),
            beat=content(folder.progress, _mapping_of(json.loads), {}),
            log=content(folder.log, _lines, []),
            checkpoint_age=_age(folder.last),
            idle=self._idle(),
            owner=owner,
            owned_here=re.fullmatch(rf"process \d+ on {re.escape(socket.gethostname())}", owner) is not None,
            unreadable=tuple(unreadable),
        )

    def _content(self, path: Path, read: Callable[[str], Any]) -> Any:
        """What `read` makes of the file's text, of the last TAIL bytes if it is the log; remembered while it stays.

        It is opened before anybody asks how old it is: over NFS that fetches what another machine wrote, where its age
        alone may be a minute behind.
        """
        with path.open("rb") as file:
            state = os.fstat(file.fileno())
            mark = (state.st_ino, state.st_size, state.st_mtime_ns)
            if path not in self.known or self.known[path][0] != mark:
                if path == self.folder.log:
                    file.seek(max(state.st_size - TAIL, 0))
                self.known[path] = (mark, read(file.read().decode(errors="replace")))
        return self.known[path][1]

    def _history(self) -> History:
        try:
            history: History = self._content(self.folder.metrics, lambda _: read(self.folder.metrics))
        except OSError:
            return History()
        return history

    def _idle(self) -> float | None:
        """By this machine's clock from the moment that it saw a change; before one, by the files' own times."""
        folder, states = self.folder, []
        for path in (folder.summary, folder.metrics, folder.progress, folder.log, folder.last, folder.checkpoints):
            try:
                state = path.stat()
            except OSError:
                continue
            states.append((str(path), state.st_ino, state.st_size, state.st_mtime_ns))
        if not states:
            return None
        now = time.monotonic()
        if self.seen is None:
            newest = max(state[3] for state in states) / 1e9
            self.seen = (states, now - max(time.time() - newest, 0.0))
        elif self.seen[0] != states:
            self.seen = (states, now)
        return now - self.seen[1]


def _mapping_of(read: Callable[[str], Any]) -> Callable[[str], dict[str, Any]]:
    def mapping(text: str) -> dict[str, Any]:
        found = read(text)
        if not isinstance(found, dict):
            raise ValueError(f"expected a mapping, got {type(found).__name__}")
        return found

    return mapping


def _lines(text: str) -> list[str]:
    """Of a log, for a terminal: nothing in them moves its cursor or colours it. Of the date only the time is left."""
    lines = re.sub(r"\x1b\[[0-9;?]*[ -/]*[@-~]", "", text).splitlines()
    short = (re.sub(r"^[0-9-]{10} ([0-9:]{8}),[0-9]+ (?:INFO +)?", r"\1  ", line.expandtabs(4)) for line in lines)
    return ["".join(c for c in line if c.isprintable()) for line in short if line.strip()]


def _age(path: Path) -> float | None:
    try:
        return max(time.time() - path.stat().st_mtime, 0.0)
    except OSError:
        return None
