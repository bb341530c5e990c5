"""Real and synthetic data that come with scikit-learn: no download."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge

from dlrun.data.source import ArraySplit, DataOptions, PixelSplit, Source, Splits, pixel_statistics
from dlrun.errors import OptionError, UserError
from dlrun.registry import Count, Positive, Seed, Share, Size, datasets
from dlrun.spec import DataSpec


@datasets.register("digits")
def digits(common: DataOptions, *, image_size: Size | None = None, test_fraction: Share = 0.2) -> Source:
    """scikit-learn's 1,797 real handwritten digits, 8×8 (Alpaydin & Kaynak 1998): the embedded default."""
    rows = _rows("digits.csv.gz")  # (N, 65): grey levels, 0 to 16, and the digit
    # ×15 makes bytes of the usual range of them, without loss.
    pixels = torch.from_numpy((rows[:, :-1] * 15).astype(np.uint8)).view(-1, 8, 8, 1)
    everything = PixelSplit(pixels, torch.from_numpy(rows[:, -1]).long(), size=image_size)
    splits = common.carve(everything, test_fraction)
    known = common.known
    mean, std = (known.mean, known.std) if known else pixel_statistics(splits.train.inputs)  # type: ignore[attr-defined]
    names = tuple(str(digit) for digit in range(10))
    return Source(DataSpec("image", (1, *(image_size or (8, 8))), names, mean, std), lambda: splits)


@datasets.register("breast_cancer")
def breast_cancer(common: DataOptions, *, test_fraction: Share = 0.2) -> Source:
    """569 real tumours, 30 measured features, malignant or benign (Wolberg et al. 1995)."""
    rows = _rows("breast_cancer.csv", header=1)  # (N, 31): the features, and 1 for benign
    return _table(common, rows[:, :-1], rows[:, -1], ("malignant", "benign"), test_fraction)


@datasets.register("blobs")
def blobs(
    common: DataOptions,
    *,
    size: Count = 2000,
    features: Count = 20,
    informative: Count = 10,
    num_classes: Annotated[int, Ge(2)] = 4,
    class_sep: Positive = 1.0,
    data_seed: Seed = 0,
    test_fraction: Share = 0.2,
) -> Source:
    """Synthetic table: scikit-learn's `make_classification`, clusters on the corners of a hypercube."""
    from sklearn.datasets import make_classification

    if informative > features:
        raise OptionError("informative", f"expected at most data.features={features}, got {informative}")
    if num_classes > size:
        raise OptionError("num_classes", f"expected at most data.size={size}, got {num_classes}")
    if num_classes * 2 > 2**informative:
        raise OptionError("num_classes", f"expected at most {2**informative // 2} with data.informative={informative}")
    inputs, targets = make_classification(
        n_samples=size,
        n_features=features,
        n_informative=informative,
        n_redundant=0,
        n_classes=num_classes,
        class_sep=class_sep,
        random_state=data_seed,
    )
    names = tuple(f"class {label}" for label in range(num_classes))
    return _table(common, inputs, targets, names, test_fraction)


def _rows(name: str, header: int = 0) -> np.ndarray:
    """A table that lies in scikit-learn's package: importing it, for its own functions, would take a second."""
    found = find_spec("sklearn")
    if found is None or found.origin is None:
        raise UserError("data: this data set comes with scikit-learn; pip install scikit-learn")
    path = Path(found.origin).parent / "datasets" / "data" / name
    if not path.exists():
        raise UserError(f"data: {path} is missing; pip install --force-reinstall scikit-learn")
    return np.loadtxt(path, delimiter=",", skiprows=header)


def _table(
    common: DataOptions, inputs: np.ndarray, targets: np.ndarray, names: tuple[str, ...], test_fraction: float
) -> Source:
    """A table standardised with the train split's mean and standard deviation, or those of a trained run's."""
    raw = ArraySplit(torch.from_numpy(inputs).double(), torch.from_numpy(targets).long())
    splits = common.carve(raw, test_fraction)
    assert isinstance(splits.train, ArraySplit)
    if common.known is None:
        mean = splits.train.inputs.mean(0)
        std = splits.train.inputs.std(0, correction=0).clamp_min(1e-12)
    else:
        mean, std = (torch.tensor(numbers, dtype=torch.float64) for numbers in (common.known.mean, common.known.std))

    def standardised(split: ArraySplit) -> ArraySplit:
        return ArraySplit(((split.inputs - mean) / std).float(), split.targets)

    spec = DataSpec("tabular", (inputs.shape[1],), names, tuple(mean.tolist()), tuple(std.tolist()))
    train, val, test = (standardised(s) for s in (splits.train, splits.val, splits.test))  # type: ignore[arg-type]
    return Source(spec, lambda: Splits(train, val, test))
