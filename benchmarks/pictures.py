"""How fast are 32×32 pictures augmented and normalised? dlrun's way against the usual one, on one core.

The usual way is what albumentations' documentation shows: a Dataset that calls `Compose([…, Normalize, ToTensorV2])`
for each sample, and torch's DataLoader (no workers) that collates them. dlrun's is what its trainer iterates over.
Both end in normalised floats (B, 3, H, W), from pictures that lie in memory; both are given the same recipe of
conf/augment.

    python benchmarks/pictures.py [--recipes standard affine strong] [--size 32] [--rounds 9]
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import albumentations
import cv2
import numpy as np
import torch
from measure import arguments, interleaved, ratio, report
from omegaconf import OmegaConf
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dlrun.data.augment import Augment
from dlrun.data.loader import Batches
from dlrun.data.prepare import preparation
from dlrun.data.source import PixelSplit
from dlrun.spec import DataSpec

CONF = Path(__file__).resolve().parent.parent / "conf" / "augment"
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


class PerSample(Dataset[tuple[Tensor, int]]):
    """The Dataset that most people write."""

    def __init__(self, images: np.ndarray, targets: list[int], transforms: list[Any]):
        self.images, self.targets = images, targets
        tail = [albumentations.Normalize(MEAN, STD), albumentations.ToTensorV2()]
        self.compose = albumentations.Compose([*transforms, *tail])

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.compose(image=self.images[index])["image"], self.targets[index]


def main() -> None:
    words = arguments(__doc__)
    words.add_argument("--recipes", nargs="+", default=["standard", "affine", "strong"], help="of conf/augment")
    words.add_argument("--size", type=int, default=32)
    words.add_argument("--batch-size", type=int, default=128)
    words.add_argument("--batches", type=int, default=8, help="in each measurement")
    options = words.parse_args()
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(0)
    cases = {}
    for recipe in options.recipes:
        cases |= _cases(recipe, options.size, options.batch_size, options.batches)
    taken = interleaved(cases, options.rounds)
    rows = []
    for recipe in options.recipes:
        usual, ours = (float(np.median(taken[f"{recipe}, {way}"])) for way in ("usual", "dlrun"))
        times = 1 / ratio(taken, f"{recipe}, dlrun", f"{recipe}, usual")
        rows.append((recipe, 1 / usual, 1 / ours, times))
    header = ("augment", "usual, images/s", "dlrun, images/s", "times")
    report("pictures", header, rows, size=options.size, batch_size=options.batch_size)


def _cases(recipe: str, size: int, batch_size: int, batches: int) -> dict[str, Callable[[], float]]:
    """Seconds per image, the usual way and dlrun's."""
    transforms: Any = OmegaConf.to_container(OmegaConf.load(CONF / f"{recipe}.yaml")["transforms"])
    number = batch_size * batches
    images = np.random.default_rng(0).integers(0, 256, (number, size, size, 3), dtype=np.uint8)
    targets = [index % 10 for index in range(number)]
    built = Augment(transforms, seed=0).compose.transforms
    usual = DataLoader(PerSample(images, targets, list(built)), batch_size, shuffle=True)
    spec = DataSpec("image", (3, size, size), tuple("0123456789"), MEAN, STD)
    device = torch.device("cpu")
    ours = Batches(
        PixelSplit(torch.from_numpy(images), torch.tensor(targets)),
        batch_size,
        preparation(spec, device),
        device,
        shuffle_seed=0,
        augment=Augment(transforms, seed=0),
    )
    epochs = iter(range(10**9))
    return {
        f"{recipe}, usual": lambda: _seconds(usual, number),
        f"{recipe}, dlrun": lambda: _seconds(ours.epoch(next(epochs)), number),
    }


def _seconds(batches: Iterable[Any], number: int) -> float:
    start = time.perf_counter()
    seen = sum(len(inputs) for inputs, _ in batches)
    taken = time.perf_counter() - start
    assert seen == number
    return taken / number


if __name__ == "__main__":
    main()
