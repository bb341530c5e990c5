"""The machine as this one describes itself, as made-up files do, and where there are none."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path

from dlrun.benching.machine import description


def test_this_machine_is_described_in_plain_values() -> None:
    found = description()
    assert json.loads(json.dumps(found)) == found
    assert found["cpu"]
    assert found["logical_cores"] == os.cpu_count()
    assert found["versions"]["python"] == platform.python_version()
    assert {"torch", "numpy", "dlrun"} <= found["versions"].keys()
    if Path("/proc/meminfo").exists():
        pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        assert abs(found["memory_bytes"] - pages) < 0.01 * pages


def test_what_linux_says(tmp_path: Path) -> None:
    core = "processor : {}\nmodel name : Vendor 9000\nflags : fpu sse4_2 avx2 avx512_vnni hypervisor\n\n"
    files = {
        "proc/cpuinfo": core.format(0) + core.format(1),
        "proc/meminfo": "MemTotal:       16000 kB\nMemFree: 5 kB\n",
        "sys/fs/cgroup/cpu.max": "150000 100000\n",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave\n",
    }
    for number in range(4):  # two cores of two threads each
        siblings = f"sys/devices/system/cpu/cpu{number}/topology/thread_siblings_list"
        files[siblings] = f"{number % 2},{number % 2 + 2}\n"
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    found = description(tmp_path)
    assert found["cpu"] == "Vendor 9000"
    assert found["flags"] == ["sse4_2", "avx2", "avx512_vnni"]
    assert found["hypervisor"] is True
    assert found["physical_cores"] == 2
    assert found["memory_bytes"] == 16000 * 1024
    assert found["cpu_quota"] == 1.5
    assert found["governor"] == "powersave"


def test_without_any_of_the_files(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("nonsense")
    found = description(tmp_path)
    assert found["cpu"] == (platform.processor() or platform.machine())
    assert found["flags"] == []
    for unknown in ("physical_cores", "memory_bytes", "cpu_quota", "governor"):
        assert found[unknown] is None
