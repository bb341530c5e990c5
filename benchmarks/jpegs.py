"""How fast do JPEG files become batches of 224×224, augmented and normalised? Images per second and core.

Usual: each sample decoded by Pillow or OpenCV, albumentations' Compose with Resize, the transforms of conf/augment,
Normalize and ToTensorV2, and torch's collate. dlrun: its image_folder, and the same with each of its caches when they
are full. All from files that the operating system has in memory, in one thread. The pictures are crops of two
photographs, 500×375 as they are, and 1600×1200 enlarged, with a camera's noise added.

    python benchmarks/jpegs.py [--rounds 9] [--batch 64] [--augment standard]
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from measure import arguments, interleaved, ratio, report
from PIL import Image

from dlrun.conffolder import conf_folder
from dlrun.data.augment import Augment
from dlrun.data.image_folder import image_folder
from dlrun.data.prepare import preparation
from dlrun.data.source import DataOptions, Source

SIDE = 224
SIZES = ((375, 500), (1200, 1600))  # height, width
QUALITY = 90  # bytes per pixel come out as from a camera: 63 kB and 0.6 MB


def write_photographs(root: Path, size: tuple[int, int], number: int) -> None:
    """`number` JPEG files in two classes below root/train, and two each below val and test."""
    import cv2
    from sklearn.datasets import load_sample_images

    random = np.random.default_rng(0)
    photographs = load_sample_images().images  # (427, 640, 3) each
    for split, count in (("train", number), ("val", 4), ("test", 4)):
        for i in range(count):
            folder = root / split / ("china", "flower")[i % 2]
            folder.mkdir(parents=True, exist_ok=True)
            top, left = random.integers(427 - 375 + 1), random.integers(640 - 500 + 1)
            crop = photographs[i % 2][top : top + 375, left : left + 500]
            if size != (375, 500):
                crop = cv2.resize(crop, size[::-1], interpolation=cv2.INTER_CUBIC)
                crop = (crop + random.normal(0, 4, crop.shape)).clip(0, 255).astype(np.uint8)
            Image.fromarray(crop).save(folder / f"{i:04}.jpg", quality=QUALITY)


def usual(paths: list[Path], transforms: list[Any], pillow: bool) -> Callable[[], float]:
    """A loop over the samples as most people write it."""
    import albumentations
    import cv2
    from albumentations.pytorch import ToTensorV2
    from torch.utils.data import default_collate

    cv2.setNumThreads(0)
    built = [getattr(albumentations, name)(**options) for entry in transforms for name, options in entry.items()]
    normalised = [albumentations.Normalize(), ToTensorV2()]
    compose = albumentations.Compose([albumentations.Resize(SIDE, SIDE), *built, *normalised])

    def sample(path: Path) -> torch.Tensor:
        if pillow:
            image = np.array(Image.open(path).convert("RGB"))
        else:
            image = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
        return compose(image=image)["image"]

    def batch() -> float:
        began = time.perf_counter()
        images = default_collate([sample(path) for path in paths])
        seconds = time.perf_counter() - began
        assert images.shape == (len(paths), 3, SIDE, SIDE)
        return seconds / len(paths)

    return batch


def ours(source: Source, transforms: list[Any]) -> Callable[[], float]:
    """What a training does: fetch, augment, prepare."""
    split = source.load().train
    augment, prepare = Augment(transforms, seed=0), preparation(source.spec, torch.device("cpu"))
    indices = torch.arange(len(split))
    epoch = 0

    def batch() -> float:
        nonlocal epoch
        epoch += 1
        began = time.perf_counter()
        images = prepare(torch.from_numpy(augment(split.fetch(indices).numpy(), epoch, 0)))
        seconds = time.perf_counter() - began
        assert images.shape == (len(split), 3, SIDE, SIDE)
        return seconds / len(split)

    return batch


def main() -> None:
    words = arguments(__doc__)
    words.add_argument("--batch", type=int, default=64, help="files, all of them one batch")
    words.add_argument("--augment", default="standard", help="one of conf/augment")
    args = words.parse_args()
    torch.set_num_threads(args.threads)
    transforms = yaml.safe_load((conf_folder() / "augment" / f"{args.augment}.yaml").read_text())["transforms"]
    rows: list[tuple[Any, ...]] = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        for size in SIZES:
            root = Path(folder, f"{size[1]}x{size[0]}")
            write_photographs(root, size, args.batch)
            paths = sorted((root / "train").rglob("*.jpg"))
            common = DataOptions(root, 0.1, 0)
            cases = {
                "usual, Pillow": usual(paths, transforms, pillow=True),
                "usual, OpenCV": usual(paths, transforms, pillow=False),
                "dlrun": ours(image_folder(common), transforms),
                "dlrun, cache=ram": ours(image_folder(common, cache="ram"), transforms),
                "dlrun, cache=disk": ours(image_folder(common, cache="disk"), transforms),
            }
            taken = interleaved(cases, args.rounds)
            rows += [
                (
                    f"{root.name} {name}",
                    1 / statistics.median(taken[name]),
                    ratio(taken, "usual, Pillow", name),
                    ratio(taken, "usual, OpenCV", name),
                )
                for name in cases
            ]
    header = ("files, case", "images/s", "× usual, Pillow", "× usual, OpenCV")
    report("jpegs", header, rows, batch=args.batch, augment=args.augment, side=SIDE)


if __name__ == "__main__":
    main()
