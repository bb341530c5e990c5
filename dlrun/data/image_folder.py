"""Pictures of any size in folders, a folder per class; read when a batch needs them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from dlrun.data.cache import PictureCache, check_room, picture_cache
from dlrun.data.decode import check_picture, read_picture
from dlrun.data.source import DataOptions, Source, Splits, check_classes, digest
from dlrun.errors import UserError, choices
from dlrun.registry import Share, Size, datasets
from dlrun.spec import DataSpec

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
# What models pretrained on ImageNet were normalised with; close enough for any photographs.
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


READ = 64 * 2**20  # bytes of pictures that a fingerprint looks at: 0.1 s once they are in the cache


@dataclass
class FileSplit:
    """Pictures on disk, decoded and resized to (height, width) when fetched, and kept if there is a cache for them."""

    folder: Path
    paths: list[Path]  # below the folder
    targets: Tensor
    size: tuple[int, int]
    cache: PictureCache | None = None  # of the same pictures

    def __len__(self) -> int:
        return len(self.paths)

    def fetch(self, indices: Tensor) -> Tensor:
        slab = np.empty((len(indices), *self.size, 3), np.uint8)
        for index, pixels in zip(indices.tolist(), slab, strict=True):
            self._read(index, pixels)
        return torch.from_numpy(slab)  # (B, H, W, 3) uint8

    def show(self, index: int) -> np.ndarray:
        return self.fetch(torch.tensor([index]))[0].numpy()

    def subset(self, indices: Sequence[int] | np.ndarray) -> FileSplit:
        chosen = np.asarray(indices, dtype=np.int64)
        return replace(
            self,
            paths=[self.paths[i] for i in chosen],
            targets=self.targets[torch.from_numpy(chosen)],
            cache=None if self.cache is None else self.cache.subset(chosen),
        )

    def fingerprint(self) -> str:
        """From names, sizes and classes, and from what is in the files, as far as READ bytes go: in all of a small set,
        in files that are spread over a large one. A copy of the folder elsewhere is the same data.
        """
        try:
            sizes = [path.stat().st_size for path in self.paths]
            stride = max(-(-sum(sizes) // READ), 1)
            contents = [path.read_bytes() for path in self.paths[::stride]]
        except OSError as error:
            raise UserError(f"data: can't read the image {error.filename} ({error.strerror})") from error
        names = [os.fsencode(path.relative_to(self.folder).as_posix()) for path in self.paths]
        return digest(b"\0".join(names), torch.tensor(sizes), self.targets, *contents)

    def _read(self, index: int, pixels: np.ndarray) -> None:
        if self.cache is None:
            read_picture(self.paths[index], pixels)
        elif not self.cache.get(index, pixels):
            self.cache.put(index, pixels, read_picture(self.paths[index], pixels))


@datasets.register("image_folder")
def image_folder(
    common: DataOptions,
    *,
    image_size: Size = [224, 224],
    cache: Literal["none", "ram", "disk"] = "none",
    test_fraction: Share = 0.2,
) -> Source:
    """Your own pictures: root/train/<class>/*.jpg, and root/val, root/test where they are; any size.

    Every picture is resized to `image_size` [height, width]. Where there is no root/test, `test_fraction` of the
    training pictures is held out for it, and `data.val_fraction` for a missing root/val. What is decoded is kept by
    `cache` in memory for this run, but for the test split, which is read once; or on disk for later runs too.
    """
    size = (image_size[0], image_size[1])
    root, known = common.root, common.known
    class_names = _classes(root) if known is None else list(known.class_names)
    spec = DataSpec("image", (3, *size), tuple(class_names), *IMAGENET)
    if known is not None and not any((root / name).is_dir() for name in ("train", "val", "test")):
        raise UserError(f"data.root: no folder train, val or test in {root}")

    def read(folder: Path) -> FileSplit:
        split = _scan(folder, class_names, size, known is not None)
        kept = None if cache == "none" or not split.paths else picture_cache(cache, folder, split.paths, size)
        return replace(split, cache=kept)

    def load() -> Splits:
        train, val, test = (read(root / name) if (root / name).is_dir() else None for name in ("train", "val", "test"))
        if train is None:  # that of a trained run needn't be here
            train = FileSplit(root / "train", [], torch.empty(0, dtype=torch.int64), size)
        splits = common.carve(train, test_fraction if test is None else None, val)
        splits = splits if test is None else replace(splits, test=test)
        return splits if cache == "none" else _with_room(splits, cache, common.limit)

    return Source(spec, load)


def _classes(root: Path) -> list[str]:
    """The folders of the training pictures."""
    folder = root / "train"
    if not folder.is_dir():
        raise UserError(f"data.root: no folder {folder}; pictures are looked for in {folder}/<class>/*.jpg")
    class_names = sorted(entry.name for entry in folder.iterdir() if _is_class(entry))
    check_classes(class_names, f"data.root: {folder}")
    return class_names


def _with_room(splits: Splits, kind: Literal["ram", "disk"], limit: int | None) -> Splits:
    """The splits, if what will be kept of them has room; memory isn't spent on the test split, which is read once."""
    parts = {name: split for name, split in vars(splits).items() if isinstance(split, FileSplit)}
    if kind == "ram":
        parts["test"] = replace(parts["test"], cache=None)
    check_room(kind, [(part.cache, min(len(part), limit or len(part))) for part in parts.values() if part.cache])
    return replace(splits, **parts)


def _scan(folder: Path, class_names: list[str], size: tuple[int, int], trained: bool) -> FileSplit:
    """All pictures below folder/<class>, sorted; header and end of each are looked at: a wrong file shows now.

    A class without pictures is refused, but where the classes are those of a `trained` run.
    """
    strangers = sorted(entry.name for entry in folder.iterdir() if _is_class(entry) and entry.name not in class_names)
    if strangers:
        whose = f"the run doesn't know{choices(strangers[0], class_names)}"
        whose = whose if trained else f"{folder.parent / 'train'} doesn't have"
        raise UserError(f"data.root: {folder / strangers[0]} is a class that {whose}")
    paths, targets = [], []
    for label, name in enumerate(class_names):
        found = sorted(p for p in (folder / name).rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        if not found and not trained:
            raise UserError(f"data.root: no pictures in {folder / name} (looked for {', '.join(sorted(SUFFIXES))})")
        paths += found
        targets += [label] * len(found)
    for path in paths:
        check_picture(path)
    return FileSplit(folder, paths, torch.tensor(targets, dtype=torch.int64), size)


def _is_class(folder: Path) -> bool:
    return folder.is_dir() and not folder.name.startswith(".")  # .ipynb_checkpoints is none
