"""Pictures of any size in folders, a folder per class; read when a batch needs them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dlrun.data.source import DataOptions, Source, Split, Splits, check_classes, digest
from dlrun.errors import UserError
from dlrun.registry import Share, Size, datasets
from dlrun.spec import DataSpec

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
# What models pretrained on ImageNet were normalised with; close enough for any photographs.
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


READ = 64 * 2**20  # bytes of pictures that a fingerprint looks at: 0.1 s once they are in the cache


@dataclass
class FileSplit:
    """Pictures on disk, decoded and resized to (height, width) when fetched."""

    folder: Path
    paths: list[Path]  # below the folder
    targets: Tensor
    size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.paths)

    def fetch(self, indices: Tensor) -> Tensor:
        return torch.from_numpy(np.stack([self.show(i) for i in indices.tolist()]))  # (B, H, W, 3) uint8

    def subset(self, indices: Sequence[int] | np.ndarray) -> FileSplit:
        chosen = np.asarray(indices, dtype=np.int64)
        return replace(self, paths=[self.paths[i] for i in chosen], targets=self.targets[torch.from_numpy(chosen)])

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

    def show(self, index: int) -> np.ndarray:
        path = self.paths[index]
        try:
            with Image.open(path) as image:
                height, width = self.size
                image.draft("RGB", (width, height))  # a JPEG far larger than the target is decoded at a fraction
                resized = _eight_bits(image).convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
        # PIL raises any of these on a damaged file.
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise UserError(f"data: can't read the image {path} ({error})") from error
        return np.asarray(resized)


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit grey as 8-bit; `convert` would make everything above 255 white."""
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray((np.asarray(image).clip(0, 65535) / 257).round().astype(np.uint8))


@datasets.register("image_folder")
def image_folder(
    common: DataOptions,
    *,
    image_size: Size = [224, 224],
    test_fraction: Share = 0.2,
) -> Source:
    """Your own pictures: root/train/<class>/*.jpg, and root/val, root/test where they are; any size.

    Every picture is resized to `image_size` [height, width]. Where there is no root/test, `test_fraction` of the
    training pictures is held out for it, and `data.val_fraction` for a missing root/val.
    """
    size = (image_size[0], image_size[1])
    root = common.root
    train_folder = root / "train"
    if not train_folder.is_dir():
        raise UserError(f"data.root: no folder {train_folder}; pictures are looked for in {train_folder}/<class>/*.jpg")
    class_names = sorted(entry.name for entry in train_folder.iterdir() if _is_class(entry))
    check_classes(class_names, f"data.root: {train_folder}")
    spec = DataSpec("image", (3, *size), tuple(class_names), *IMAGENET)

    def load() -> Splits:
        train = _scan(train_folder, class_names, size)
        val: Split | None = _scan(root / "val", class_names, size) if (root / "val").is_dir() else None
        if not (root / "test").is_dir():
            return common.carve(train, test_fraction, val)
        carved = common.carve(train, None, val)
        return Splits(carved.train, carved.val, _scan(root / "test", class_names, size))

    return Source(spec, load)


def _scan(folder: Path, class_names: list[str], size: tuple[int, int]) -> FileSplit:
    """All pictures below folder/<class>, sorted; the header of each is read, so that a wrong file shows now."""
    strangers = sorted(entry.name for entry in folder.iterdir() if _is_class(entry) and entry.name not in class_names)
    if strangers:
        raise UserError(f"data.root: {folder / strangers[0]} is a class that {folder.parent / 'train'} doesn't have")
    paths, targets = [], []
    for label, name in enumerate(class_names):
        found = sorted(p for p in (folder / name).rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        if not found:
            raise UserError(f"data.root: no pictures in {folder / name} (looked for {', '.join(sorted(SUFFIXES))})")
        paths += found
        targets += [label] * len(found)
    for path in paths:
        try:
            Image.open(path).close()
        except (OSError, Image.DecompressionBombError) as error:
            raise UserError(f"data: can't read the image {path} ({error})") from error
    split = FileSplit(folder, paths, torch.tensor(targets), size)
    for index, path in enumerate(paths):
        if not _has_its_end(path):
            split.show(index)  # decodes it, and says so if it is cut off
    return split


def _is_class(folder: Path) -> bool:
    return folder.is_dir() and not folder.name.startswith(".")  # .ipynb_checkpoints is none


def _has_its_end(path: Path) -> bool:
    """Whether the mark that ends a JPEG or a PNG is in its place: a few bytes read, not a picture decoded."""
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - 64, 0))
        tail = file.read()
    return {".png": b"IEND"}.get(path.suffix.lower(), b"\xff\xd9") in tail
