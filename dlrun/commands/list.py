"""`dlrun list`: everything that can be chosen, one line each, from the registries and the config folders."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from dlrun.conffolder import conf_folder
from dlrun.errors import UserError, choices
from dlrun.plugins import load_plugins
from dlrun.registry import REGISTRIES


def run(words: Sequence[str]) -> int:
    """Print the groups named in `words`, or all of them; `format=json` for scripts."""
    words = list(words)
    folders = [conf_folder()]
    while "--config-dir" in words:
        place = words.index("--config-dir")
        folder = Path("".join(words[place + 1 : place + 2]))
        if not folder.is_dir():
            raise UserError(f"--config-dir: no folder '{folder}'")
        folders.append(folder)
        del words[place : place + 2]
    options = dict(word.split("=", 1) for word in words if "=" in word)
    names = [word for word in words if "=" not in word]
    plugins = [p for p in options.pop("plugins", "").strip("[]").split(",") if p]
    form = options.pop("format", "text")
    if options:
        raise UserError(f"unknown option '{next(iter(options))}'{choices(next(iter(options)), ['format', 'plugins'])}")
    if form not in ("text", "json"):
        raise UserError(f"format: expected 'text' or 'json', got '{form}'")
    everything = catalogue(plugins, folders)
    for name in names:
        if name not in everything:
            raise UserError(f"unknown group '{name}'{choices(name, everything)}")
    chosen = {name: everything[name] for name in names or everything}
    if form == "json":
        print(json.dumps(chosen, indent=2, ensure_ascii=False))
        return 0
    width = max((len(name) for group in chosen.values() for name in group), default=0)
    for group, entries in chosen.items():
        print(group)
        for name, summary in entries.items():
            print(f"  {name:<{width}}  {summary}")
    return 0


def catalogue(plugins: Sequence[str], folders: Sequence[Path]) -> dict[str, dict[str, str]]:
    """Group → name → what it is. Imports the plugins, which may be slow; nothing else of weight."""
    load_plugins(plugins)
    found = {group: registry.summaries() for group, registry in REGISTRIES.items()}
    # What is config alone, with no builder behind it, is described by the first line of its file.
    for group in ("augment", "trainer", "tracking", "experiment", "debug"):
        paths = [path for folder in folders for path in sorted((folder / group).glob("*.yaml"))]
        found[group] = {path.stem: _first_comment(path) for path in paths}
    return found


def _first_comment(path: Path) -> str:
    lines = path.read_text().splitlines()
    return next((line.lstrip("# ") for line in lines if line.startswith("#") and "@package" not in line), "")
