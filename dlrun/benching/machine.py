"""The machine that figures were taken on: what of it makes them larger or smaller. What can't be known is null."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from dlrun import __version__

# Instructions that decide how fast float32, bfloat16 and int8 are; Arm's are called Features.
FLAGS = (
    *("sse4_2", "fma", "f16c", "avx", "avx2", "avx_vnni"),
    *("avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_tile", "amx_int8", "amx_bf16", "amx_fp16"),
    *("asimd", "asimdhp", "asimddp", "sve", "sve2", "i8mm", "bf16"),
)
LIBRARIES = ("torch", "torchvision", "numpy", "onnx", "onnxruntime", "onnxruntime-gpu", "torchao", "torch-pruning")
ENVIRONMENT = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "KMP_AFFINITY", "LD_PRELOAD")


def description(root: Path = Path("/")) -> dict[str, Any]:
    """Processor, memory, system, GPU and library versions as plain values; sizes in bytes. `root` is that of Linux."""
    info = _fields(root / "proc/cpuinfo")
    return {
        "cpu": info.get("model name") or info.get("Model") or platform.processor() or platform.machine(),
        "architecture": platform.machine(),
        "flags": [flag for flag in FLAGS if flag in (info.get("flags") or info.get("Features") or "").split()],
        "logical_cores": os.cpu_count(),
        "physical_cores": _physical_cores(root / "sys/devices/system/cpu"),
        "usable_cores": _usable_cores(),
        "cpu_quota": _quota(root / "sys/fs/cgroup/cpu.max"),
        "governor": _read(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "hypervisor": "hypervisor" in (info.get("flags") or "").split(),
        "memory_bytes": _kilobytes(_fields(root / "proc/meminfo").get("MemTotal")),
        "load_average": _load(),
        "system": platform.platform(),
        "gpu": _gpu(),
        "versions": {"dlrun": __version__, "python": platform.python_version(), **_versions()},
        "environment": {name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
    }


def _read(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return None


def _fields(path: Path) -> dict[str, str]:
    """`name : value` lines; of a name that comes once per core, the first."""
    found: dict[str, str] = {}
    for line in (_read(path) or "").splitlines():
        name, _, value = line.partition(":")
        found.setdefault(name.strip(), value.strip())
    return found


def _kilobytes(value: str | None) -> int | None:
    number = (value or "").partition(" ")[0]
    return int(number) * 1024 if number.isdigit() else None


def _physical_cores(folder: Path) -> int | None:
    """Cores by their siblings: two hyper-threads name the same ones."""
    siblings = {_read(path) for path in folder.glob("cpu[0-9]*/topology/thread_siblings_list")} - {None}
    return len(siblings) or None


def _usable_cores() -> int | None:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _quota(path: Path) -> float | None:
    """Cores' worth of time that a container may use; None if there is no limit, or none that can be read."""
    quota, _, period = (_read(path) or "").partition(" ")
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() and int(period) else None


def _load() -> list[float] | None:
    """Processes that wanted to run: on average over 1, 5 and 15 minutes."""
    try:
        return [round(load, 2) for load in os.getloadavg()]
    except (OSError, AttributeError):
        return None


def _gpu() -> dict[str, Any] | None:
    if not torch.cuda.is_available():
        return None
    properties = torch.cuda.get_device_properties(0)
    return {
        "name": properties.name,
        "memory_bytes": properties.total_memory,
        "compute_capability": f"{properties.major}.{properties.minor}",
        "cuda": torch.version.cuda,
        "cudnn": _or_none(torch.backends.cudnn.version),
    }


def _or_none(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except (RuntimeError, AttributeError):
        return None


def _versions() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
