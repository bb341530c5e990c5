"""From the config to the data of a training: splits, and the batches that are drawn from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from dlrun.config import Config
from dlrun.cores import cores
from dlrun.data.augment import Augment
from dlrun.data.loader import Batches
from dlrun.data.prepare import Mix
from dlrun.data.source import DataOptions, Source, Split, Splits, limited
from dlrun.data.tensor_augment import TensorAugment
from dlrun.data.tuning import Staff, costly
from dlrun.errors import UserError, memory_for
from dlrun.registry import datasets
from dlrun.spec import DataSpec

Prepare = Callable[[Tensor], Tensor]


@dataclass
class Inputs:
    """The splits of a run, and their batches."""

    splits: Splits
    train: Batches
    val: Batches
    test: Batches

    def share(self, rank: int, size: int) -> None:
        """From here on this process has its part of each batch, as number `rank` of `size`."""
        for batches in (self.train, self.val, self.test):
            batches.share = rank, size

    def close(self) -> None:
        """End the loader processes."""
        for batches in (self.train, self.val, self.test):
            batches.close()


def build_source(config: Config, known: DataSpec | None = None, whole: bool = False) -> Source:
    """The dataset, described but not yet read where that can wait; `known` and `whole` as DataOptions has them."""
    data = config.data
    common = DataOptions(Path(data.root), data.val_fraction, data.split_seed, data.limit, known, whole)
    source: Source = datasets.build(config.dataset.name, config.dataset.options, common)
    return source


def read_split(config: Config, source: Source, name: str) -> Split:
    """One split. Raises UserError for data that can't be read, and if there is none."""
    with memory_for("data"):
        split = limited(getattr(source.load(), name), config.data.limit, config.data.split_seed)
    if len(split) == 0:
        raise UserError(f"data: the {name} split of {config.dataset.name} is empty")
    return split


def build_batches(config: Config, split: Split, name: str, device: torch.device, prepare: Prepare) -> Batches:
    """The batches of one split for evaluation: none is augmented."""
    number = config.data.num_workers
    if number == "auto":  # nothing is measured for one pass: reading a picture takes longer than judging it
        number = cores() if costly(split, None) and len(split) > _eval_size(config) else 0
    staff = Staff(number, device)
    split, workers = staff.assign(split)
    batches = Batches(split, _eval_size(config), prepare, device, workers=workers)
    _cut_off(batches, name, config)
    return batches


def build_inputs(config: Config, source: Source, device: torch.device, prepare: Prepare) -> Inputs:
    """Read the data and say how it is drawn. Raises UserError for whatever can't be honoured."""
    augment, mix = _augment(config, source.spec, device, prepare), _mix(config, source.spec)
    with memory_for("data"):
        splits = _limit_and_check(source.load(), config)
    return Inputs(splits, *_batches(config, splits, device, prepare, augment, mix))


def _augment(config: Config, spec: DataSpec, device: torch.device, prepare: Prepare) -> Augment | TensorAugment | None:
    if not config.augment.transforms or config.trainer.overfit_batches is not None:
        return None
    if spec.modality != "image":
        raise UserError(
            f"augment: transforms are for images, and {config.dataset.name} is {spec.modality}; set augment=none"
        )
    channels, height, width = spec.shape
    if config.augment.backend == "tensor":
        return TensorAugment(config.augment.transforms, config.seed, (height, width, channels), device, prepare)
    augment = Augment(config.augment.transforms, config.seed)
    augment.check_shape((height, width, channels))
    return augment


def _mix(config: Config, spec: DataSpec) -> Mix | None:
    augment = config.augment
    if (not augment.mixup and not augment.cutmix) or config.trainer.overfit_batches is not None:
        return None
    if spec.modality == "text":
        raise UserError(
            f"augment.{'mixup' if augment.mixup else 'cutmix'}: words can't be blended; "
            f"set it to 0 for {config.dataset.name}"
        )
    if augment.cutmix and spec.modality != "image":
        raise UserError(
            f"augment.cutmix: is for images, and {config.dataset.name} is {spec.modality}; "
            "set it to 0 or take augment.mixup"
        )
    return Mix(augment.mixup, augment.cutmix, spec.num_outputs, config.seed)


def _limit_and_check(splits: Splits, config: Config) -> Splits:
    limit, seed = config.data.limit, config.data.split_seed
    splits = Splits(*(limited(split, limit, seed) for split in (splits.train, splits.val, splits.test)))
    for name in ("train", "val", "test"):
        if len(getattr(splits, name)) == 0:
            raise UserError(f"data: the {name} split of {config.dataset.name} is empty")
    if len(splits.train.targets.unique()) < 2:
        raise UserError(
            f"data: all {len(splits.train)} training samples have one class; there is nothing to tell apart"
        )
    return splits


def _batches(
    config: Config,
    splits: Splits,
    device: torch.device,
    prepare: Prepare,
    augment: Augment | TensorAugment | None,
    mix: Mix | None,
) -> tuple[Batches, Batches, Batches]:
    data, options = config.data, config.trainer
    eval_size = _eval_size(config)
    overfit = options.overfit_batches is not None
    staff = Staff(data.num_workers, device, measures=not options.fast_dev_run)
    on_host = augment if isinstance(augment, Augment) else None
    split, workers = staff.assign(splits.train, on_host)
    train = Batches(
        split,
        data.batch_size,
        prepare,
        device,
        shuffle_seed=None if overfit else config.seed,
        augment=on_host,
        device_augment=augment if isinstance(augment, TensorAugment) else None,
        mix=mix,
        workers=workers,
        tuner=staff.tuner if workers is staff.workers else None,
    )
    if overfit:  # the same few batches are trained on and validated on
        train.limit = _batch_limit(options.overfit_batches, len(train), "overfit_batches")
        seen = min(train.limit * data.batch_size, len(splits.train))
        splits = Splits(splits.train, splits.train.subset(range(seen)), splits.test)
    split, workers = staff.assign(splits.val)
    val = Batches(split, eval_size, prepare, device, workers=workers)
    split, workers = staff.assign(splits.test)
    test = Batches(split, eval_size, prepare, device, workers=workers)
    for name, batches in (("train", train), ("val", val), ("test", test)):
        _cut_off(batches, name, config)
    return train, val, test


def _eval_size(config: Config) -> int:
    """Samples at a time in evaluation: there are no gradients to keep, so there is room for more."""
    return config.data.eval_batch_size or 4 * config.data.batch_size


def _cut_off(batches: Batches, name: str, config: Config) -> None:
    option = f"limit_{name}_batches"
    limit = int(config.trainer.fast_dev_run) or getattr(config.trainer, option)
    if limit is not None:
        batches.limit = min(_batch_limit(limit, len(batches), option), len(batches))


def _batch_limit(limit: float | None, batches: int, option: str) -> int:
    assert limit is not None
    count = limit if isinstance(limit, int) else int(limit * batches)
    if count == 0:
        raise UserError(f"trainer.{option}: {limit} of {batches} batches is none; raise it")
    return int(count)
