"""How many cores a process may use, held against files as the kernel writes them."""

from __future__ import annotations

import os

import pytest

from dlrun import cores as machine
from dlrun.cores import cores


@pytest.mark.parametrize(
    ("files", "share"),
    [
        ({"cpu.max": "max 100000"}, None),
        ({"cpu.max": "50000 100000"}, 1),
        ({"cpu.max": "150000 100000"}, 2),
        ({"a/cpu.max": "100000 100000", "a/b/cpu.max": "max 100000"}, 1),  # a limit of the group above
        ({"cpu,cpuacct/a/b/cpu.cfs_quota_us": "100000", "cpu,cpuacct/a/b/cpu.cfs_period_us": "100000"}, 1),
        ({"cpu,cpuacct/a/b/cpu.cfs_quota_us": "-1", "cpu,cpuacct/a/b/cpu.cfs_period_us": "100000"}, None),
        ({}, None),
    ],
)
def test_cores(files, share, tmp_path, monkeypatch):
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    (tmp_path / "self").write_text("4:cpu,cpuacct:/a/b\n1:name=systemd:/\n0::/a/b\n")
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    monkeypatch.setattr(machine, "OWN_GROUPS", tmp_path / "self")
    there = len(os.sched_getaffinity(0))
    assert cores() == (there if share is None else min(share, there))


def test_share_of_a_job(monkeypatch):
    """data.num_workers=auto tries no more processes than a job of a sweep has cores."""
    there = cores()
    for share, expected in (("1", 1), ("100000", there), ("", there)):
        monkeypatch.setenv("DLRUN_CORES", share)
        assert cores() == expected
