"""The GPUs of this machine and who has which, without torch, whose import costs seconds and CUDA a context."""

from __future__ import annotations

import logging
import os
import subprocess
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

from dlrun.errors import UserError

log = logging.getLogger("dlrun")

VISIBLE = "CUDA_VISIBLE_DEVICES"
QUERY = ["nvidia-smi", "--query-gpu=index,uuid,memory.used,memory.total", "--format=csv,noheader,nounits"]
PATIENCE = 60  # seconds: without its persistence daemon the driver takes some for each GPU


@dataclass(frozen=True)
class Gpu:
    """One device; a part of one (MIG) has no number and tells nothing of its memory."""

    uuid: str  # what CUDA_VISIBLE_DEVICES takes, in whatever order CUDA numbers the devices
    index: int | None = None  # as nvidia-smi counts
    used: float = 0  # MiB
    total: float = 0  # MiB

    @property
    def load(self) -> float:
        return self.used / self.total if self.total else 0.0

    def __str__(self) -> str:
        return self.uuid if self.index is None else str(self.index)


def visible_gpus() -> list[Gpu]:
    """The GPUs that a process started from here may use, by CUDA_VISIBLE_DEVICES; none if there is no driver."""
    gpus, visible = list(_installed()), os.environ.get(VISIBLE)
    if visible is None:
        return gpus
    found: list[Gpu] = []
    for name in filter(None, map(str.strip, visible.split(","))):
        gpu = _named(name, gpus)
        if gpu is None:  # CUDA's rule: what isn't there hides all after it
            break
        found.append(gpu)
    return found


def chosen_gpus(devices: int | Sequence[int | str] | Literal["auto"]) -> list[Gpu]:
    """What `hydra.launcher.devices` means here: all, the least used N, or those named; the least used first.

    Raises UserError for more than there are and for what isn't there.
    """
    if devices == 0:
        return []
    there = sorted(visible_gpus(), key=lambda gpu: gpu.load)
    numbers = sorted(map(str, there))
    have = f"there are {len(there)} GPUs" + (f" ({', '.join(numbers)})" if there else "")
    if os.environ.get(VISIBLE) is not None:
        have += f", with {VISIBLE}={os.environ[VISIBLE]}"
    if devices == "auto":
        return there
    if isinstance(devices, int):
        if devices > len(there):
            raise UserError(f"hydra.launcher.devices: expected at most {len(there)}, got {devices}; {have}")
        return there[:devices]
    named = [_named(str(device), there) for device in devices]
    for device, gpu in zip(devices, named, strict=True):
        if gpu is None:
            raise UserError(f"hydra.launcher.devices: no GPU {device}; {have}")
    gpus = [gpu for gpu in there if gpu in named]
    if len(gpus) < len(named):
        raise UserError(f"hydra.launcher.devices: expected each GPU once, got {list(devices)}")
    return gpus


def _named(name: str, gpus: Sequence[Gpu]) -> Gpu | None:
    """By number, or by the beginning of a UUID; None if that is none or several."""
    if name.isdecimal():
        matching = [gpu for gpu in gpus if gpu.index == int(name)]
    else:
        matching = [gpu for gpu in gpus if gpu.uuid.startswith(name)]
        if name.startswith("MIG-") and not matching:
            return Gpu(name)
    return matching[0] if len(matching) == 1 else None


@cache
def _installed() -> list[Gpu]:
    """As this process first found them."""
    try:
        answer = subprocess.run(QUERY, capture_output=True, text=True, timeout=PATIENCE, check=False)
    except FileNotFoundError:
        return []
    except (OSError, subprocess.TimeoutExpired) as error:
        log.warning("no GPU is used: nvidia-smi doesn't answer (%s)", error)
        return []
    if answer.returncode != 0:  # on a machine without GPUs that is set up like the others, say
        lines = (answer.stdout + answer.stderr).split("\n")
        log.warning("no GPU is used: nvidia-smi says: %s", lines[0] or f"exit code {answer.returncode}")
        return []
    rows = [line.split(",") for line in answer.stdout.splitlines() if line.count(",") == 3]
    return [Gpu(uuid.strip(), int(index), _number(used), _number(total)) for index, uuid, used, total in rows]


def _number(text: str) -> float:
    """0 for what a device doesn't tell, as "[N/A]"."""
    try:
        return float(text)
    except ValueError:
        return 0.0


class Places:
    """Where jobs go: each place is one GPU, or as many as a job has processes, and takes some jobs at a time."""

    def __init__(self, gpus: Sequence[Gpu], per_job: int, jobs_per_device: int):
        whole = len(gpus) // per_job * per_job
        self.all = [tuple(gpus[start : start + per_job]) for start in range(0, whole, per_job)]
        self.room = jobs_per_device
        self.jobs: Counter[tuple[Gpu, ...]] = Counter()

    @property
    def total(self) -> int:
        """How many jobs there is room for."""
        return len(self.all) * self.room

    @property
    def free(self) -> bool:
        return any(self.jobs[place] < self.room for place in self.all)

    def take(self) -> tuple[Gpu, ...]:
        """The place with the fewest jobs, of those the one that was the least used when the sweep began."""
        place = min(self.all, key=lambda place: self.jobs[place])
        if self.jobs[place] >= self.room:
            raise RuntimeError("more jobs at a time than the devices have room for")
        self.jobs[place] += 1
        return place

    def give_back(self, place: tuple[Gpu, ...]) -> None:
        """That a job has ended; one without a GPU has none to give."""
        if place:
            self.jobs[place] -= 1
