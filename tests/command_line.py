"""The command line in this process: what `dlrun WORDS` prints and exits with, without the time to import torch."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dlrun.cli import COMMANDS, main

PRINTS = ("--help", "-h", "--version", "--cfg", "--info", "--hydra-help", "--shell-completion", "-sc")


def undrawn(words: Sequence[str]) -> list[str]:
    """`words`, and that a run draws no pictures, unless they say something of it: most tests don't look at any."""
    trains = not words or words[0] == "train" or (words[0] not in COMMANDS and not words[0].isalpha())
    if not trains or any(word in PRINTS or word.startswith("plots=") for word in words):
        return list(words)
    overrides = [i for i, word in enumerate(words) if "=" in word and not word.startswith("-")]
    place = overrides[0] if overrides else len(words)
    return [*words[:place], "plots=false", *words[place:]]


@dataclass
class Result:
    code: int
    out: str
    err: str


class CommandLine:
    """Runs commands in an empty folder, `folder`."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
        monkeypatch.chdir(folder)
        monkeypatch.syspath_prepend(folder)
        sys.modules.pop("my_models", None)  # another test's plugin
        self.folder, self.monkeypatch, self.capsys = folder, monkeypatch, capsys

    def __call__(self, *words: str) -> Result:
        self.monkeypatch.setattr(sys, "argv", ["dlrun", *undrawn(words)])
        self.capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        printed = self.capsys.readouterr()
        return Result(int(ended.value.code or 0), printed.out, printed.err)

    def runs(self, top: str = "outputs") -> list[Path]:
        """Folders of runs, the oldest first."""
        found = (self.folder / top).glob("**/summary.json")
        return sorted((path.parent for path in found), key=lambda p: p.stat().st_mtime)

    def summary(self, top: str = "outputs") -> dict[str, Any]:
        """The newest run's summary."""
        return dict(json.loads((self.runs(top)[-1] / "summary.json").read_text()))
