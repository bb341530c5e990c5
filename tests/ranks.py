"""Several processes of one training, as torchrun would start them, but forked: they needn't import torch."""

from __future__ import annotations

from pathlib import Path

from processes import Dlrun
from torch.distributed import TCPStore


class Torchrun:
    """`dlrun WORDS` in `folder`, in `size` processes; what they tell each other goes through this one."""

    def __init__(self, size: int, folder: Path, *words: str):
        self.store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        shared = {"WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size), "TORCHELASTIC_USE_AGENT_STORE": "True"}
        shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(self.store.port)}
        self.ranks = [
            Dlrun(folder, *words, environment={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)})
            for rank in range(size)
        ]

    def wait(self) -> list[int]:
        """Exit codes, by rank."""
        return [rank.wait() for rank in self.ranks]

    def kill(self) -> None:
        for rank in self.ranks:
            rank.kill()
