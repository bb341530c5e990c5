"""Options of the launchers on submitit, with the names and defaults of Hydra's plugin for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from dlrun.registry import Count, Index, Positive


@dataclass(frozen=True, kw_only=True)
class Options:
    """What both have."""

    submitit_folder: str | None = None
    timeout_min: Count = 60
    cpus_per_task: Count | None = None
    gpus_per_node: Index | None = None
    tasks_per_node: Count = 1
    mem_gb: Positive | None = None
    nodes: Count = 1
    name: str = "dlrun"
    stderr_to_stdout: bool = False


@dataclass(frozen=True, kw_only=True)
class LocalOptions(Options):
    """hydra/launcher=submitit_local"""

    jobs: Count = 1


@dataclass(frozen=True, kw_only=True)
class SlurmOptions(Options):
    """hydra/launcher=submitit_slurm"""

    partition: str | None = None
    qos: str | None = None
    comment: str | None = None
    constraint: str | None = None
    exclude: str | None = None
    gres: str | None = None
    cpus_per_gpu: Count | None = None
    gpus_per_task: Count | None = None
    mem_per_gpu: str | None = None
    mem_per_cpu: str | None = None
    account: str | None = None
    signal_delay_s: Index = 120
    max_num_timeout: Index = 0
    additional_parameters: dict[str, Any] = field(default_factory=dict)
    array_parallelism: Count = 256
    setup: list[str] | None = None
    srun_args: list[str] | None = None
