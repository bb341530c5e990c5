from __future__ import annotations

import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dlrun.data.source import DataOptions, fingerprint
from dlrun.errors import UserError
from dlrun.registry import datasets

SIZE = (6, 10)  # height, width


@pytest.fixture
def root(tmp_path):
    """Twenty little pictures in two classes, each of one grey of its own: cats 0 to 9, dogs 100 to 109."""
    for first, name in ((100, "dog"), (0, "cat")):
        for i in range(10):
            save(tmp_path, f"train/{name}/{i}.png", Image.new("RGB", (8, 8), (first + i,) * 3))
    return tmp_path


def save(root: Path, name: str, image: Image.Image, **options) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return path


def source(root: Path, size: tuple[int, int] = SIZE, **options):
    made = datasets.build("image_folder", {"image_size": list(size), **options}, DataOptions(root, 0.25, 0))
    assert made.spec.shape == (3, *size)
    return made


def greys(split) -> list[int]:
    """What grey each picture of the split has, all over."""
    pixels = split.fetch(torch.arange(len(split)))
    assert pixels.shape == (len(split), *SIZE, 3)
    assert pixels.dtype == torch.uint8
    assert (pixels == pixels[:, :1, :1, :1]).all()
    return pixels[:, 0, 0, 0].tolist()


CATS, DOGS = set(range(10)), set(range(100, 110))


def test_splits_are_carved_where_there_are_none(root):
    made = source(root, test_fraction=0.2)
    assert made.spec.class_names == ("cat", "dog")
    splits = made.load()
    parts = {name: greys(split) for name, split in vars(splits).items()}
    assert {name: len(part) for name, part in parts.items()} == {"train": 12, "val": 4, "test": 4}
    assert sorted([*parts["train"], *parts["val"], *parts["test"]]) == sorted(CATS | DOGS)
    for name, part in parts.items():
        assert getattr(splits, name).targets.tolist() == [grey >= 100 for grey in part]
        assert len(CATS & set(part)) == len(DOGS & set(part))


def test_splits_that_are_there_are_taken(root):
    for split, grey in (("val", 50), ("test", 60)):
        for name in ("cat", "dog"):
            save(root, f"{split}/{name}/sub/x.png", Image.new("RGB", (8, 8), (grey,) * 3))  # at any depth
    splits = source(root).load()
    assert (set(greys(splits.train)), greys(splits.val), greys(splits.test)) == (CATS | DOGS, [50, 50], [60, 60])
    assert splits.val.targets.tolist() == [0, 1]
    for path in (root / "val").rglob("*.png"):
        path.unlink()
        path.with_suffix(".txt").write_text("notes lie beside pictures, and are no pictures")
    with pytest.raises(UserError, match=r"^data\.root: no pictures in .*val.cat \(looked for \.bmp, \.gif, \.jpeg, "):
        source(root).load()
    for folder in sorted((root / "val").rglob("*"), reverse=True):
        folder.unlink() if folder.is_file() else folder.rmdir()
    (root / "val").rmdir()
    splits = source(root).load()
    assert (len(splits.train), len(splits.val), greys(splits.test)) == (15, 5, [60, 60])


RED, BLUE = (200, 30, 60), (10, 40, 220)


def palette() -> Image.Image:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, *RED])
    return image


@pytest.mark.parametrize(
    ("name", "image", "expected", "off"),
    [
        ("rgb.png", Image.new("RGB", (3, 40), RED), RED, 0),
        ("rgb.jpg", Image.new("RGB", (33, 9), RED), RED, 3),
        ("UPPER.JPEG", Image.new("RGB", (700, 500), RED), RED, 3),
        ("grey.png", Image.new("L", (5, 5), 77), (77, 77, 77), 0),
        ("grey.jpg", Image.new("L", (16, 16), 77), (77, 77, 77), 1),
        ("black_and_white.png", Image.new("1", (5, 5), 1), (255, 255, 255), 0),
        ("palette.png", palette(), RED, 0),
        ("palette.gif", palette(), RED, 0),
        ("see_through.png", Image.new("RGBA", (5, 5), (*RED, 128)), RED, 0),
        ("cmyk.jpg", Image.new("CMYK", (16, 16), (55, 225, 195, 0)), (200, 30, 60), 3),  # 255 minus each, without black
        ("cmyk.tif", Image.new("CMYK", (5, 5), (55, 225, 195, 0)), (200, 30, 60), 0),
        ("grey16.png", Image.fromarray(np.full((5, 5), 77 * 257, np.uint16)), (77, 77, 77), 1),  # of 65535
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_kind_of_picture_becomes_rgb(root, name, image, expected, off):
    for folder in ("test/cat", "test/dog"):
        save(root, f"{folder}/{name}", image)
    pixels = source(root).load().test.fetch(torch.tensor([0, 1]))
    assert pixels.shape == (2, *SIZE, 3)
    assert (pixels.int() - torch.tensor(expected)).abs().max() <= off


def test_height_is_height_and_width_is_width(root):
    halves = Image.new("RGB", (200, 100), RED)
    halves.paste(BLUE, (100, 0, 200, 100))
    for name in ("cat", "dog"):
        save(root, f"test/{name}/x.png", halves)
    pixels = source(root, (4, 20)).load().test.show(0)
    assert pixels.shape == (4, 20, 3)
    assert (pixels[:, :9] == RED).all()
    assert (pixels[:, 11:] == BLUE).all()


def test_resized_as_pillow_does_it_and_large_jpegs_nearly_so(root):
    y, x = np.mgrid[0:240, 0:320]
    photo = np.stack([120 + 100 * np.sin(x / 40), 120 + 100 * np.cos(y / 30), (x + y) / 3], axis=-1)
    photo = Image.fromarray(photo.astype(np.uint8))
    for name in ("cat", "dog"):
        save(root, f"test/{name}/exact.png", photo)
        save(root, f"test/{name}/large.jpg", photo, quality=95)  # decoded at a quarter of its size
    exact, large, *_ = source(root, (30, 40)).load().test.fetch(torch.arange(4)).numpy().astype(int)
    expected = np.asarray(photo.resize((40, 30), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(exact - expected).max() <= 1
    assert np.abs(large - expected).max() < 16
    assert np.abs(large - expected).mean() < 2


def damaged(path: Path, suffix: str, keep: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path.with_suffix(suffix))
    content = path.with_suffix(suffix).read_bytes()
    path.with_suffix(suffix).write_bytes(content[: int(len(content) * keep)])


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_truncated_picture_is_found_before_training(root, suffix):
    damaged(root / "train/cat/zzz", suffix, 0.7)
    path = root / f"train/cat/zzz{suffix}"
    with pytest.raises(UserError, match=rf"^data: can't read the image {path} \(.*truncated"):
        source(root).load()


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp", ".gif", ".tif", ".ppm"])
@pytest.mark.parametrize("keep", [0.0, 0.02, 0.3, 0.8])
def test_a_damaged_file_is_always_a_users_error(root, suffix, keep):
    damaged(root / "train/cat/zzz", suffix, keep)

    def read_all():
        for split in vars(source(root).load()).values():
            split.fetch(torch.arange(len(split)))

    with pytest.raises(UserError, match=rf"^data: can't read the image {root}/train/cat/zzz{suffix} \(") as caught:
        read_all()
    assert "\n" not in str(caught.value)


def test_a_text_named_jpg_is_refused_before_training(root):
    path = root / "train/dog/readme.jpg"
    path.write_text("no picture at all")
    with pytest.raises(UserError, match=rf"^data: can't read the image {path} \("):
        source(root).load()


def test_a_picture_of_20000_by_20000_is_refused_before_training(root):
    """Pillow takes it for an attack on the memory."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 20000, 20000, 8, 2, 0, 0, 0))
    path = root / "train/dog/huge.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b""))
    with pytest.raises(UserError, match=rf"^data: can't read the image {path} \("):
        source(root).load()


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_class_that_train_doesnt_have(root, split):
    for name in ("cat", "dog", "horse"):
        save(root, f"{split}/{name}/x.png", Image.new("L", (8, 8)))
    with pytest.raises(
        UserError, match=rf"^data\.root: {root}/{split}/horse is a class that {root}/train doesn't have"
    ):
        source(root).load()


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_class_without_pictures(root, split):
    for name in ("cat", "dog"):
        save(root, f"{split}/{name}/x.png", Image.new("L", (8, 8)))
    (root / split / "dog").rename(root / "dogs")
    (root / split / "dog").mkdir()
    (root / split / "dog" / "notes.txt").write_text("none yet")
    with pytest.raises(UserError, match=rf"^data\.root: no pictures in {root}/{split}/dog \(looked for "):
        source(root).load()


def test_no_train_folder_and_one_class_are_refused_without_loading(root):
    with pytest.raises(UserError, match=rf"^data\.root: no folder {root}/cat/train; pictures are looked for in .*jpg$"):
        source(root / "cat")
    (root / "train" / "dog").rename(root / "dogs")
    with pytest.raises(UserError, match=rf"^data\.root: {root}/train: needs at least two classes, found \['cat'\]"):
        source(root)


def prints(root: Path, **options) -> list[str]:
    return [fingerprint(split) for split in vars(source(root, **options).load()).values()]


def test_a_copied_folder_has_the_same_fingerprint(root, tmp_path_factory, monkeypatch):
    save(root, "train/cat/Käse und Brot.png", Image.new("RGB", (8, 8)))
    expected = prints(root)
    assert len(set(expected)) == 3
    there = tmp_path_factory.mktemp("another disk") / "pets"
    shutil.copytree(root, there, copy_function=shutil.copyfile)  # with times of its own
    assert prints(there) == expected
    monkeypatch.chdir(there.parent)
    assert prints(Path("pets")) == expected
    splits = vars(source(root).load()).values()
    monkeypatch.setattr(Image, "open", None)  # no picture is looked at
    assert [fingerprint(split) for split in splits] == expected


def _flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-18] ^= 1  # of what is drawn, not of the header or the end mark
    path.write_bytes(content)


@pytest.mark.parametrize(
    "change",
    [
        lambda cats: (cats / "3.png").rename(cats / "3x.png"),  # in the same place of the order
        lambda cats: (cats / "3.png").rename(cats / "zzz.png"),
        lambda cats: (cats / "3.png").write_bytes((cats / "4.png").read_bytes() + b"\0"),
        lambda cats: _flip_a_bit(cats / "3.png"),
        lambda cats: (cats / "3.png").unlink(),
        lambda cats: shutil.copy(cats / "3.png", cats / "new.png"),
        lambda cats: (cats / "3.png").rename(cats.parent / "dog" / "3x.png"),
        lambda cats: cats.rename(cats.with_name("kitten")),
    ],
    ids=["renamed", "moved to the end", "replaced", "as large", "removed", "added", "another class", "class renamed"],
)
def test_a_changed_folder_has_another_fingerprint(root, change):
    for name in ("cat", "dog"):
        save(root, f"val/{name}/x.png", Image.new("RGB", (8, 8)))
        save(root, f"test/{name}/x.png", Image.new("RGB", (8, 8)))
    before = prints(root)
    change(root / "train/cat")
    if not (root / "train/cat").exists():
        for split in ("val", "test"):
            (root / split / "cat").rename(root / split / "kitten")
    assert prints(root)[0] != before[0]


def test_a_fingerprint_of_files_that_are_gone(root):
    split = source(root).load().train
    split.paths[2].unlink()
    with pytest.raises(
        UserError, match=rf"^data: can't read the image {split.paths[2]} \(No such file or directory\)$"
    ):
        fingerprint(split)
