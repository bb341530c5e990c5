"""MNIST, Fashion-MNIST, CIFAR-10 and CIFAR-100: torchvision's datasets, held in memory as bytes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dlrun.data.source import DataOptions, PixelSplit, Source, Splits
from dlrun.errors import UserError
from dlrun.locks import one_at_a_time
from dlrun.registry import Size, datasets
from dlrun.spec import DataSpec

DIGITS = tuple(str(digit) for digit in range(10))
CLOTHES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
# fmt: off
CIFAR100 = (
    "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle", "bottle", "bowl", "boy",
    "bridge", "bus", "butterfly", "camel", "can", "castle", "caterpillar", "cattle", "chair", "chimpanzee", "clock",
    "cloud", "cockroach", "couch", "crab", "crocodile", "cup", "dinosaur", "dolphin", "elephant", "flatfish", "forest",
    "fox", "girl", "hamster", "house", "kangaroo", "keyboard", "lamp", "lawn_mower", "leopard", "lion", "lizard",
    "lobster", "man", "maple_tree", "motorcycle", "mountain", "mouse", "mushroom", "oak_tree", "orange", "orchid",
    "otter", "palm_tree", "pear", "pickup_truck", "pine_tree", "plain", "plate", "poppy", "porcupine", "possum",
    "rabbit", "raccoon", "ray", "road", "rocket", "rose", "sea", "seal", "shark", "shrew", "skunk", "skyscraper",
    "snail", "snake", "spider", "squirrel", "streetcar", "sunflower", "sweet_pepper", "table", "tank", "telephone",
    "television", "tiger", "tractor", "train", "trout", "tulip", "turtle", "wardrobe", "whale", "willow_tree", "wolf",
    "woman", "worm",
)
# fmt: on


@datasets.register("mnist")
def mnist(common: DataOptions, *, image_size: Size | None = None, download: bool = True) -> Source:
    """70,000 handwritten digits, 28×28 grey (LeCun et al. 1998); downloaded once."""
    spec = DataSpec("image", (1, 28, 28), DIGITS, (0.1307,), (0.3081,))
    return _torchvision("MNIST", spec, common, image_size, download, "MNIST/raw/*-ubyte.gz")


@datasets.register("fashion_mnist")
def fashion_mnist(common: DataOptions, *, image_size: Size | None = None, download: bool = True) -> Source:
    """70,000 pictures of clothes, 28×28 grey (Xiao et al. 2017); downloaded once."""
    spec = DataSpec("image", (1, 28, 28), CLOTHES, (0.2860,), (0.3530,))
    return _torchvision("FashionMNIST", spec, common, image_size, download, "FashionMNIST/raw/*-ubyte.gz")


@datasets.register("cifar10")
def cifar10(common: DataOptions, *, image_size: Size | None = None, download: bool = True) -> Source:
    """60,000 colour pictures, 32×32, 10 classes (Krizhevsky 2009); downloaded once."""
    spec = DataSpec("image", (3, 32, 32), CIFAR10, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
    return _torchvision("CIFAR10", spec, common, image_size, download, "cifar-10-python.tar.gz")


@datasets.register("cifar100")
def cifar100(common: DataOptions, *, image_size: Size | None = None, download: bool = True) -> Source:
    """60,000 colour pictures, 32×32, 100 classes (Krizhevsky 2009); downloaded once."""
    spec = DataSpec("image", (3, 32, 32), CIFAR100, (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762))
    return _torchvision("CIFAR100", spec, common, image_size, download, "cifar-100-python.tar.gz")


def _torchvision(
    name: str, spec: DataSpec, common: DataOptions, image_size: list[int] | None, download: bool, archive: str
) -> Source:
    if image_size is not None:
        spec = replace(spec, shape=(spec.shape[0], *image_size))

    def load() -> Splits:
        from torchvision import datasets as vision

        make = getattr(vision, name)
        train, test = (
            _in_memory(_present_or_downloaded(make, common.root, part, download, archive), image_size)
            for part in (True, False)
        )
        return replace(common.carve(train), test=test)

    return Source(spec, load)


def _present_or_downloaded(make: Callable[..., Any], root: Path, train: bool, download: bool, archive: str) -> Any:
    """torchvision's dataset; it checks its checksums. Raises UserError with what to put where."""
    from urllib.error import URLError

    by_hand = f"put {archive} into {root}, or take data that needs none: digits, pydocs, breast_cancer, blobs, fake"
    try:
        return make(root, train=train, download=False)
    except RuntimeError as error:
        if not str(error).startswith("Dataset"):  # "Dataset not found or corrupted"; else what torch says on reading it
            raise _damaged(make, root, error) from error
        if not download:
            raise UserError(
                f"data.root: no complete {make.__name__} in {root} and data.download=false; {by_hand}"
            ) from None
    except Exception as error:
        raise _damaged(make, root, error) from error
    before = {folder for folder in (root, *root.parents, *root.rglob("*")) if folder.is_dir()}
    with one_at_a_time(root):
        try:
            return make(root, train=train, download=True)
        except (URLError, RuntimeError, OSError) as error:
            _remove_empty(root, before)
            reason = " ".join(str(error).split())
            raise UserError(f"data: can't download {make.__name__} ({reason}); {by_hand}") from error
        except Exception as error:  # what tarfile, pickle and zlib raise on a damaged archive
            raise _damaged(make, root, error) from error


def _damaged(make: Callable[..., Any], root: Path, error: Exception) -> UserError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return UserError(f"data.root: {make.__name__} in {root} is damaged ({reason}); delete it and run again")


def _remove_empty(folder: Path, before: set[Path]) -> None:
    """The folders that a download made before it failed, and none that was there `before`."""
    made = {*folder.rglob("*"), folder, *folder.parents} - before
    for empty in sorted(made, key=lambda path: len(path.parts), reverse=True):
        if empty.is_dir() and not any(empty.iterdir()):
            empty.rmdir()


def _in_memory(dataset: Any, image_size: list[int] | None) -> PixelSplit:
    pixels = torch.from_numpy(np.asarray(dataset.data))
    if pixels.ndim == 3:  # grey images have no channel axis
        pixels = pixels.unsqueeze(-1)
    return PixelSplit(pixels, torch.as_tensor(dataset.targets, dtype=torch.int64), image_size)
