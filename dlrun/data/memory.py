"""How much memory this process may still take."""

from __future__ import annotations

import os
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup")


def available_memory() -> int:
    """Bytes that can be had without swapping, and within the limits that a container or a batch system sets."""
    return min(_of_machine(), *_of_groups())


def _of_machine() -> int:
    try:
        return _fields(Path("/proc/meminfo").read_text())["MemAvailable:"] * 1024
    except (OSError, KeyError):  # not Linux: all there is
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _of_groups() -> list[int]:
    """What is left in each of the control groups that this process is in, from the innermost outwards."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    left = []
    for line in lines:
        _, controllers, own = line.split(":", 2)
        if controllers == "":
            left += _upwards(GROUPS, own, "memory.max", "memory.current", "")
        elif "memory" in controllers.split(","):  # version 1, beside which version 2 has no memory
            left += _upwards(GROUPS / "memory", own, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_")
    return left


def _upwards(top: Path, own: str, limit: str, usage: str, prefix: str) -> list[int]:
    """Of each group that has a limit: that, less what it holds beside files' contents, which give way."""
    left, group = [], top / own.lstrip("/")
    while group.is_relative_to(top):
        try:
            stat = _fields((group / "memory.stat").read_text())
            used = int((group / usage).read_text()) - stat[f"{prefix}active_file"] - stat[f"{prefix}inactive_file"]
            left.append(max(int((group / limit).read_text()) - used, 0))
        except (OSError, KeyError, ValueError):  # it has no limit ("max"), or is outside of what a container sees
            pass
        group = group.parent
    return left


def _fields(table: str) -> dict[str, int]:
    """`name number …` on each line."""
    return {words[0]: int(words[1]) for line in table.splitlines() if len(words := line.split()) > 1}
