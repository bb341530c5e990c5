"""The machine as a training finds it: random numbers, threads, the device, and the memory of its CPU."""

from __future__ import annotations

import random

import numpy as np
import torch

from dlrun.allocator import keep_freed_memory
from dlrun.errors import UserError
from dlrun.torchrun import local_size

DEFAULT_THREADS = torch.get_num_threads()  # before any run of this process has changed it


def settle(name: str, num_threads: int | None) -> torch.device:
    """The device that `name` stands for, with what a run on it needs of this process: threads, and malloc's manners."""
    torch.set_num_threads(num_threads or DEFAULT_THREADS)
    device = choose_device(name)
    if device.type == "cpu":
        keep_freed_memory()
    return device


def take_own_gpu(name: str, rank: int) -> None:
    """Of several processes here each works on a GPU of its own, number `rank`, if `name` (as `device`) means one.

    Before anything else touches a device. Raises UserError.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "mps" or (name == "auto" and not count and torch.backends.mps.is_available()):
        raise UserError(f"device: several processes need cpu or cuda, got '{name}'")
    if name == "cpu" or not count:
        return
    if local_size() > count:
        raise UserError(f"{local_size()} processes, but {count} GPU{'s' if count > 1 else ''}: one each; or device=cpu")
    torch.cuda.set_device(rank)


def seed_everything(seed: int, deterministic: bool = False) -> None:
    """Seed every global generator. `deterministic` also refuses operations that have no repeatable form."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    if deterministic != torch.are_deterministic_algorithms_enabled():  # else it would import torch's whole compiler
        torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.benchmark = not deterministic


def choose_device(name: str) -> torch.device:
    """`auto` is the best there is; a device that isn't there is refused."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(device for device, available in there.items() if available))
    if not there[name]:
        available = ", ".join(device for device, yes in there.items() if yes)
        raise UserError(f"device: '{name}' isn't available on this machine; available: {available}")
    return torch.device(name)
