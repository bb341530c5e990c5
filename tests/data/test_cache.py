from __future__ import annotations

import logging
import multiprocessing
import os
import re
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dlrun.data.image_folder import FileSplit, image_folder
from dlrun.data.loader import Batches
from dlrun.data.memory import available_memory
from dlrun.data.source import DataOptions
from dlrun.data.workers import Workers
from dlrun.errors import UserError

CPU = torch.device("cpu")
EVERYTHING = torch.arange(12)
LENGTH = 5 * 7 * 3 + 8  # of a record


@pytest.fixture(autouse=True)
def kept(tmp_path, monkeypatch) -> Path:
    """Where the files of `cache=disk` go."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "dlrun" / "pictures"


@pytest.fixture
def root(tmp_path) -> Path:
    """Twelve pictures of noise to train with, and two of each other split."""
    for split, number in (("train", 12), ("val", 2), ("test", 2)):
        for i in range(number):
            write(tmp_path / "pets" / split / ("cat", "dog")[i % 2] / f"{i:02}.{('jpg', 'png')[i // 2 % 2]}", i)
    return tmp_path / "pets"


def write(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)


def train(root: Path, cache: str, size: tuple[int, int] = (5, 7), limit: int | None = None) -> FileSplit:
    split = image_folder(DataOptions(root, 0.25, 0, limit), image_size=list(size), cache=cache).load().train
    assert isinstance(split, FileSplit)
    return split


def remove_pictures(split: FileSplit) -> None:
    for path in split.paths:
        path.unlink()


both = pytest.mark.parametrize("cache", ["ram", "disk"])


@both
def test_the_same_pixels_from_a_file_and_from_the_cache(root, cache):
    expected, split = train(root, "none").fetch(EVERYTHING), train(root, cache)
    one_by_one = torch.cat([split.fetch(torch.tensor([i])) for i in range(6)])
    assert torch.equal(one_by_one, expected[:6])
    assert torch.equal(split.fetch(EVERYTHING), expected)  # half of them from the cache
    remove_pictures(split)
    assert torch.equal(split.fetch(EVERYTHING), expected)
    assert torch.equal(split.fetch(EVERYTHING.flip(0)), expected.flip(0))
    for i in range(12):
        assert np.array_equal(split.show(i), expected[i].numpy())
    part = split.subset([7, 2]).subset([1, 0])
    assert torch.equal(part.fetch(torch.tensor([0, 1])), expected[[2, 7]])


@both
@pytest.mark.parametrize("workers", [1, 2])
def test_what_one_process_decodes_all_have(root, cache, workers):
    plain, split = train(root, "none"), train(root, cache)

    def epoch(of: FileSplit, number: int, workers: int) -> torch.Tensor:
        batches = Batches(of, 5, lambda batch: batch, CPU, shuffle_seed=3, workers=Workers(workers))
        return torch.cat([inputs for inputs, _ in batches.epoch(number)])

    expected = [epoch(plain, number, 0) for number in range(2)]
    assert torch.equal(epoch(split, 0, workers), expected[0])
    remove_pictures(split)
    assert torch.equal(epoch(split, 1, workers), expected[1])
    assert torch.equal(epoch(split, 1, 0), expected[1])


def fetch_elsewhere(split: FileSplit, indices: torch.Tensor) -> None:
    split.fetch(indices)


@both
def test_a_process_that_is_no_fork_has_it_too(root, cache):
    split = train(root, cache)
    expected = split.fetch(EVERYTHING[:3])
    for path in split.paths[:3]:
        path.unlink()
    process = multiprocessing.get_context("spawn").Process(target=fetch_elsewhere, args=(split, EVERYTHING))
    process.start()
    process.join()
    assert process.exitcode == 0  # what was here it found, and what it decoded is here
    remove_pictures(split.subset(range(3, 12)))
    assert torch.equal(split.fetch(EVERYTHING)[:3], expected)


def test_a_later_run_finds_it(root, kept, monkeypatch):
    expected = train(root, "none").fetch(EVERYTHING)
    assert torch.equal(train(root, "disk").fetch(EVERYTHING), expected)
    sizes = {path.name: path.stat().st_size for path in kept.iterdir()}
    assert sorted(name.rpartition("-")[0] for name in sizes) == ["pets-test-5x7", "pets-train-5x7", "pets-val-5x7"]
    monkeypatch.chdir(root.parent)
    again = train(Path("pets"), "disk")  # by another way to the same folder
    remove_pictures(again)
    assert torch.equal(again.fetch(EVERYTHING), expected)
    assert len(list(kept.iterdir())) == 3


def test_another_size_and_another_folder_have_their_own(root, kept, tmp_path):
    train(root, "disk").fetch(EVERYTHING)
    assert torch.equal(train(root, "disk", (7, 5)).fetch(EVERYTHING), train(root, "none", (7, 5)).fetch(EVERYTHING))
    shutil.copytree(root, tmp_path / "other" / "pets")
    for i, path in enumerate(train(tmp_path / "other" / "pets", "none").paths):
        write(path, 100 + i)
    split = train(tmp_path / "other" / "pets", "disk")
    assert torch.equal(split.fetch(EVERYTHING), train(tmp_path / "other" / "pets", "none").fetch(EVERYTHING))
    assert len(list(kept.iterdir())) == 9


@pytest.mark.parametrize("change", ["time", "size", "a new name", "one more", "one less"])
def test_a_file_that_changed_is_decoded_again(root, change):
    cats = root / "train" / "cat"
    split = train(root, "disk")
    split.fetch(EVERYTHING)
    if change == "time":
        write(cats / "a.bmp", 50)
        write(cats / "b.bmp", 51)
        train(root, "disk").fetch(torch.arange(14))
        time = (cats / "a.bmp").stat().st_mtime_ns + 1
        (cats / "a.bmp").write_bytes((cats / "b.bmp").read_bytes())  # as many bytes
        os.utime(cats / "a.bmp", ns=(time, time))
    elif change == "size":
        stat = (cats / "00.jpg").stat()
        write(cats / "00.jpg", 60)
        assert (cats / "00.jpg").stat().st_size != stat.st_size
        os.utime(cats / "00.jpg", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    elif change == "a new name":  # the first is the last, each of the others stands in another's place
        (cats / "00.jpg").rename(cats / "zz.jpg")
    elif change == "one more":
        write(cats / "000.png", 70)
    else:
        (cats / "00.jpg").unlink()
    plain, changed = train(root, "none"), train(root, "disk")
    everything = torch.arange(len(plain))
    assert torch.equal(changed.fetch(everything), plain.fetch(everything))
    assert torch.equal(changed.fetch(everything), plain.fetch(everything))


@both
def test_what_a_file_became_after_the_start_is_not_kept(root, cache):
    split = train(root, cache)
    before, content, stat = train(root, "none").fetch(EVERYTHING), split.paths[0].read_bytes(), split.paths[0].stat()
    write(split.paths[0], 99)
    assert not torch.equal(split.fetch(EVERYTHING)[0], before[0])
    split.paths[0].write_bytes(content)
    os.utime(split.paths[0], ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert torch.equal(split.fetch(EVERYTHING), before)


def _nothing(content: bytearray) -> None:
    content.clear()


def _cut(content: bytearray) -> None:
    del content[LENGTH * 3 + 20 :]


def _zeros(content: bytearray) -> None:
    content[LENGTH + 10 : LENGTH * 4 + 50] = bytes(LENGTH * 3 + 40)


def _half_written(content: bytearray) -> None:
    content[LENGTH : LENGTH + 60] = bytes(range(60))


def _checksum_alone(content: bytearray) -> None:
    content[LENGTH : LENGTH * 2 - 8] = bytes(LENGTH - 8)


def _swapped(content: bytearray) -> None:
    content[:LENGTH], content[LENGTH : LENGTH * 2] = content[LENGTH : LENGTH * 2], content[:LENGTH]


def _a_bit(content: bytearray) -> None:
    content[LENGTH * 2 + LENGTH // 2] ^= 4


def _too_long(content: bytearray) -> None:
    content += bytes(1000)


damages = [_nothing, _cut, _zeros, _half_written, _checksum_alone, _swapped, _a_bit, _too_long]


@pytest.mark.parametrize("damage", damages, ids=lambda damage: damage.__name__.strip("_"))
def test_what_a_kill_or_a_power_cut_leaves_is_decoded_again(root, kept, damage):
    expected = train(root, "none").fetch(EVERYTHING)
    train(root, "disk").fetch(EVERYTHING)
    (path,) = kept.glob("pets-train-*")
    whole = path.read_bytes()
    assert len(whole) == 12 * LENGTH
    content = bytearray(whole)
    damage(content)
    path.write_bytes(content)
    assert torch.equal(train(root, "disk").fetch(EVERYTHING), expected)
    assert path.read_bytes() == whole


@pytest.fixture
def said(tmp_path) -> Iterator[Path]:
    """What dlrun logs, in this process and in its forks."""
    handler = logging.FileHandler(tmp_path / "log")
    logging.getLogger("dlrun").addHandler(handler)
    yield tmp_path / "log"
    logging.getLogger("dlrun").removeHandler(handler)
    handler.close()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_disk_that_is_full_is_said_once(root, kept, said, workers):
    """A limit on the size of files stands for it: the kernel writes a part of what it is given, then nothing."""
    expected, split = train(root, "none").fetch(EVERYTHING), train(root, "disk")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    (path,) = kept.glob("pets-train-*")
    batches = Batches(split, 2, lambda batch: batch, CPU, workers=Workers(workers))
    resource.setrlimit(resource.RLIMIT_FSIZE, (LENGTH * 3 + 20, before[1]))
    try:
        for _ in range(2):
            assert torch.equal(torch.cat([inputs for inputs, _ in batches.epoch(0)]), expected)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    lines = said.read_text().splitlines()
    assert set(lines) <= {
        f"data.cache: can't write to {path} ({reason}); the pictures not in it are decoded each time"
        for reason in ("No space left on device", "File too large")
    }
    assert 1 <= len(lines) <= max(workers, 1)  # two that fail in the same microsecond both say it
    assert torch.equal(train(root, "disk").fetch(EVERYTHING), expected)


@both
def test_what_has_no_room_is_refused_before_it_begins(root, cache):
    """Twelve pictures of 2 TB."""
    message = (
        rf"^data\.cache: '{cache}' needs \d+\.\d GB for the decoded pictures, and \d+\.\d GB are free .*; .*data.lim"
    )
    with pytest.raises(UserError, match=message) as caught:
        train(root, cache, (816_000, 816_000))
    needed = float(re.search(r"needs ([\d.]+) GB", str(caught.value))[1])
    pictures = {"ram": 14, "disk": 16}[cache]  # the test split is read once, and memory isn't spent on it
    assert needed == pytest.approx(pictures * 816_000**2 * 3 / 1e9, rel=0.01)


def test_a_limit_needs_less(root):
    side = int((available_memory() / 3 / 6) ** 0.5)  # a picture is a sixth of what is free
    with pytest.raises(UserError, match=r"^data\.cache: 'ram' needs "):
        train(root, "ram", (side, side))
    assert len(train(root, "ram", (side, side), limit=1)) == 12  # cut off later


def test_a_cache_that_cant_be_made(root, kept):
    kept.parent.mkdir(parents=True)
    kept.write_text("no folder")
    with pytest.raises(UserError, match=rf"^data\.cache: can't write {kept}.*XDG_CACHE_HOME"):
        train(root, "disk")
