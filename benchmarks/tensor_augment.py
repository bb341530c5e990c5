"""How fast is `augment.backend=tensor`? The standard chain at 32×32 against the usual one, picture by picture.

The usual one is what most loops have: `A.Compose([*chain, Normalize, ToTensorV2])` for each sample and a collate. All
take turns in one process; the ratio is of images per second. With a GPU there are its images per second too, and what
share of a small CNN's training step the augmentation is.

    python benchmarks/tensor_augment.py [--threads 1] [--rounds 9] [--batch 128]
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from measure import arguments, interleaved, ratio, report
from torch import Tensor, nn
from torch.utils.data import default_collate

from dlrun.allocator import keep_freed_memory
from dlrun.data.prepare import preparation
from dlrun.data.tensor_augment import TensorAugment
from dlrun.spec import DataSpec

CONF = Path(__file__).resolve().parent.parent / "conf" / "augment"
SHAPE = (32, 32, 3)
SPEC = DataSpec("image", (3, 32, 32), tuple("0123456789"), mean=(0.491, 0.482, 0.447), std=(0.247, 0.243, 0.262))
CPU = torch.device("cpu")

Chain = list[dict[str, Any]]


def usual(chain: Chain, pixels: Tensor) -> Callable[[], Tensor]:
    """A batch as a data set with albumentations in its `__getitem__` makes it."""
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    import albumentations as A
    import cv2

    cv2.setNumThreads(0)
    made = [getattr(A, name)(**options, strict=True) for entry in chain for name, options in entry.items()]
    compose = A.Compose([*made, A.Normalize(SPEC.mean, SPEC.std), A.ToTensorV2()])
    images = pixels.numpy()
    return lambda: default_collate([compose(image=image)["image"] for image in images])


def batched(chain: Chain, pixels: Tensor, device: torch.device = CPU) -> Callable[[], Tensor]:
    """A batch by dlrun's tensor backend, in the layout that its CNN takes."""
    augment = TensorAugment(chain, 0, SHAPE, device, preparation(SPEC, device, channels_last=True))
    position = 0

    def step() -> Tensor:
        nonlocal position
        position += len(pixels)
        return augment(pixels, 0, position)

    return step


def seconds(make: Callable[[], Tensor], times: int) -> float:
    """Per image."""
    began = time.perf_counter()
    for _ in range(times):
        images = make()
    if images.is_cuda:
        torch.cuda.synchronize()
    return (time.perf_counter() - began) / (times * len(images))


def chains() -> dict[str, Chain]:
    standard = yaml.safe_load((CONF / "standard.yaml").read_text())["transforms"]
    crop = [
        {"Pad": {"padding": 2, "border_mode": 4}},
        {"RandomCrop": {"height": 32, "width": 32}},
        {"HorizontalFlip": {"p": 0.5}},
    ]
    return {
        "standard": standard,
        "standard without affine": [entry for entry in standard if "Affine" not in entry],
        "affine alone, always": [{"Affine": {**entry["Affine"], "p": 1.0}} for entry in standard if "Affine" in entry],
        "pad, crop, flip": crop,
    }


def step_share(chain: Chain, device: torch.device, batch: int, rounds: int) -> tuple[float, float]:
    """Milliseconds of a small CNN's training step on the GPU, without augmentation and with it."""
    pixels = torch.randint(0, 256, (batch, *SHAPE), dtype=torch.uint8, device=device)
    targets = torch.randint(0, 10, (batch,), device=device)
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 32), (32, 64), (64, 128)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2)]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10))
    model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)

    def train(make: Callable[[], Tensor]) -> float:
        began = time.perf_counter()
        for _ in range(50):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(make()), targets).backward()
            optimizer.step()
        torch.cuda.synchronize()
        return (time.perf_counter() - began) * 20  # ms per step

    prepare = preparation(SPEC, device, channels_last=True)
    cases = {"plain": partial(train, lambda: prepare(pixels)), "tensor": partial(train, batched(chain, pixels, device))}
    taken = interleaved(cases, rounds)
    return statistics.median(taken["plain"]), statistics.median(taken["tensor"])


def main() -> None:
    words = arguments(__doc__)
    words.add_argument("--batch", type=int, default=128)
    args = words.parse_args()
    torch.set_num_threads(args.threads)
    keep_freed_memory()  # as dlrun does on a CPU, here for both
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (args.batch, *SHAPE), dtype=np.uint8))
    rows: list[tuple[Any, ...]] = []
    for name, chain in chains().items():
        cases = {
            "usual": partial(seconds, usual(chain, pixels), 2),
            "tensor": partial(seconds, batched(chain, pixels), 20),
        }
        taken = interleaved(cases, args.rounds)
        speeds = [1 / statistics.median(taken[case]) for case in cases]
        rows.append((name, *speeds, 1 / ratio(taken, "tensor", "usual")))
    header: tuple[str, ...] = ("chain", "usual images/s", "tensor images/s", "ratio")
    facts: dict[str, Any] = {"batch": args.batch, "size": "32x32"}
    if torch.cuda.is_available():
        gpu = torch.device("cuda")
        header = (*header, "GPU images/s", "GPU step ms", "with augmentation")
        for place, chain in enumerate(chains().values()):
            there = pixels.to(gpu)
            speed = 1 / interleaved({"gpu": partial(seconds, batched(chain, there, gpu), 50)}, args.rounds)["gpu"][0]
            rows[place] = (*rows[place], speed, *step_share(chain, gpu, args.batch, args.rounds))
    report("tensor_augment", header, rows, **facts)


if __name__ == "__main__":
    main()
