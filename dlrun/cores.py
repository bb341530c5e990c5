"""How many of the machine's cores this process may use."""

from __future__ import annotations

import math
import os
from pathlib import Path

from dlrun.torchrun import local_size

CGROUP, OWN_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
SHARE = "DLRUN_CORES"  # in the environment: what the local launcher leaves to each of the jobs that run side by side


def cores() -> int:
    """How many this process may use: by its affinity and, in a container or among a sweep's jobs, by its share."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    here = math.ceil(min(allowed, _of_groups())) // local_size()  # of each process that torchrun started
    return max(math.ceil(min(here, _of_jobs())), 1)


def _of_jobs() -> float:
    share = os.environ.get(SHARE, "")
    return int(share) if share.isdecimal() else math.inf


def _of_groups() -> float:
    """Cores' worth of time that the control groups leave to this process; infinite without a limit."""
    try:
        groups = [line.split(":", 2) for line in OWN_GROUPS.read_text().splitlines()]
    except OSError:
        return math.inf
    shares = [math.inf]
    for _, controllers, path in groups:
        # Version 2 has a single tree; a container sees its own group as the root of it.
        root = CGROUP if controllers == "" else CGROUP / controllers
        own = root / path.lstrip("/")
        shares += [_quota(folder) for folder in (own, *own.parents) if folder.is_relative_to(root)]
    return min(shares)


def _quota(folder: Path) -> float:
    """Cores that one control group may use."""
    for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        try:
            quota, period = " ".join((folder / name).read_text() for name in names).split()
        except (OSError, ValueError):
            continue
        if quota not in ("max", "-1"):
            return int(quota) / int(period)
    return math.inf
