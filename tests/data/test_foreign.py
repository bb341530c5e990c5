"""Foreign samples against Pillow and NumPy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dlrun.data import tokens
from dlrun.data.foreign import raw_batch, reader
from dlrun.data.source import PixelSplit
from dlrun.errors import UserError
from dlrun.spec import PAD, UNKNOWN, DataSpec

HEIGHT, WIDTH = 24, 32
NAMES = ("a", "b")


def spec(channels: int = 3, size: tuple[int, int] = (HEIGHT, WIDTH)) -> DataSpec:
    return DataSpec("image", (channels, *size), NAMES, (0.5,) * channels, (0.5,) * channels)


def raw(spec: DataSpec, samples: Any) -> np.ndarray:
    read = reader(spec)
    return raw_batch(read, read.listed(samples)).numpy()


@pytest.fixture(scope="module")
def photograph() -> Image.Image:
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    waves = [120 + 80 * np.sin(x / 4), 120 + 100 * np.cos(y / 3), (x + y) * 3]
    return Image.fromarray(np.stack(waves, axis=-1).astype(np.uint8))


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "LA", "1", "CMYK", "I;16"])
def test_every_kind_of_picture_gets_the_run_s_colours(tmp_path: Path, photograph: Image.Image, mode: str) -> None:
    path = tmp_path / ("x.tif" if mode == "CMYK" else "x.png")
    if mode == "I;16":
        grey = photograph.convert("L")
        image = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
        expected = {3: grey.convert("RGB"), 1: grey}
    else:
        image = photograph.convert(mode)
        expected = {3: image.convert("RGB"), 1: image.convert("RGB").convert("L")}
    image.save(path)
    for channels, reference in expected.items():
        wanted = np.asarray(reference).reshape(1, HEIGHT, WIDTH, channels)
        for sample in (path, str(path), [path], Image.open(path)):
            assert np.array_equal(raw(spec(channels), sample), wanted)


def test_arrays_are_pictures_too(photograph: Image.Image) -> None:
    colours, grey = np.asarray(photograph), np.asarray(photograph.convert("L"))
    opaque = np.dstack([colours, np.full((HEIGHT, WIDTH, 1), 7, np.uint8)])
    for same in (colours, colours[None], [colours], opaque, torch.tensor(colours), colours[:, ::-1][:, ::-1]):
        assert np.array_equal(raw(spec(), same), colours[None])
    for same in (grey, grey[..., None], np.dstack([grey, grey * 0]), torch.tensor(grey)):
        assert np.array_equal(raw(spec(1), same), grey[None, ..., None])
        assert np.array_equal(raw(spec(), same), np.dstack([grey] * 3)[None])
    assert np.array_equal(raw(spec(1), colours), grey[None, ..., None])  # Pillow's luma, to the bit


def test_other_sizes_are_resized_as_pillow_does_it(photograph: Image.Image) -> None:
    for size in ((12, 16), (7, 40), (48, 64)):
        expected = np.asarray(photograph.resize(size[::-1], Image.Resampling.BILINEAR)).astype(int)
        for sample in (photograph, np.asarray(photograph)):
            assert np.abs(raw(spec(size=size), sample)[0].astype(int) - expected).max() <= 1


def test_a_grey_array_is_resized_as_a_split_of_such_does_it() -> None:
    pixels = torch.randint(0, 256, (5, 8, 8, 1), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for size in ((16, 12), (5, 5), (8, 8)):
        split = PixelSplit(pixels, torch.zeros(5), size)
        expected = split.fetch(torch.arange(5)).numpy().astype(int)
        assert np.abs(raw(spec(1, size), list(pixels.numpy())).astype(int) - expected).max() <= 1


def test_a_camera_s_orientation_is_left_as_in_training(tmp_path: Path, photograph: Image.Image) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    photograph.save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(raw(spec(), tmp_path / "turned.png")[0], np.asarray(photograph))


def test_more_channels_come_as_arrays(photograph: Image.Image) -> None:
    five = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 5), np.uint8)
    assert np.array_equal(raw(spec(5), five), five[None])
    with pytest.raises(UserError, match=r"expected a uint8 array \(H, W, 5\), got array \(24, 32, 3\)"):
        raw(spec(5), np.asarray(photograph))


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        (np.zeros((8, 8)), "expected uint8 pixels, 0 to 255, got array (8, 8, 3) of float64"),
        (np.zeros((3, 8, 8), np.uint8), "with 1 to 4 channels, got array (3, 8, 8) of uint8"),
        (np.zeros((0, 8, 3), np.uint8), "expected uint8 pixels, 0 to 255, got array (0, 8, 3) of uint8"),
        ([3], "expected a path, an image or a uint8 array (H, W, C), got int 3"),
        (3, "expected paths, images or uint8 arrays (H, W, C), got int 3"),
        (b"x.png", "expected paths, images or uint8 arrays"),
        ([], "expected at least one sample, got none"),
        ("nowhere.png", "can't read the image nowhere.png"),
    ],
)
def test_what_is_no_picture_is_refused(sample: Any, message: str) -> None:
    with pytest.raises(UserError) as error:
        raw(spec(), sample)
    assert message in str(error.value)


def test_a_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("1", (2000, 2000)).save(tmp_path / "x.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(UserError, match="decompression bomb"):
        raw(spec(), tmp_path / "x.png")


def texts_spec(length: int = 5) -> DataSpec:
    learned = tokens.learn(["the cat sat on the mat", "the dog ran"], 50, length)
    return DataSpec("text", (length,), NAMES, vocab_size=learned.get_vocab_size(), tokenizer=learned.to_str())


def test_texts_are_words_of_the_run_s_vocabulary() -> None:
    from tokenizers import Tokenizer

    made = texts_spec()
    known = Tokenizer.from_str(made.tokenizer).get_vocab()
    batch = raw(made, ["The CAT ran", "the dog sat on the mat again", "🙂", ""])
    wanted = [
        [known["the"], known["cat"], known["ran"], PAD, PAD],
        [known[word] for word in ("the", "dog", "sat", "on", "the")],
        [UNKNOWN, PAD, PAD, PAD, PAD],
        [UNKNOWN, PAD, PAD, PAD, PAD],
    ]
    assert batch.tolist() == wanted
    assert raw(made, "the cat").tolist() == [wanted[0][:2]]  # no longer than it has to be


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ([3], "sample 0: expected a text, got int 3"),
        (["the", Path("cat.txt")], "sample 1: expected a text, got PosixPath"),
        (["caf\udce9"], "sample 0: isn't UTF-8 text"),
        (["a\0b"], "sample 0: isn't UTF-8 text"),
        (b"the", "expected texts, got bytes"),
    ],
)
def test_what_is_no_text_is_refused(samples: Any, message: str) -> None:
    with pytest.raises(UserError) as error:
        raw(texts_spec(), samples)
    assert message in str(error.value)


def test_a_run_without_words_reads_no_texts() -> None:
    with pytest.raises(UserError, match="has no vocabulary"):
        reader(DataSpec("text", (5,), NAMES, vocab_size=9))
    with pytest.raises(UserError, match="the run's vocabulary can't be read"):
        reader(DataSpec("text", (5,), NAMES, vocab_size=9, tokenizer="{}"))


def test_rows_are_standardised() -> None:
    mean, std = (1.0, 2.0, 3.0), (2.0, 0.5, 1e-3)
    made = DataSpec("tabular", (3,), NAMES, mean, std)
    rows = np.random.default_rng(0).normal(size=(4, 3)) * 100
    expected = ((rows - mean) / np.array(std)).astype(np.float32)
    for same in (rows, rows.tolist(), [tuple(row) for row in rows], list(rows), torch.tensor(rows)):
        assert np.array_equal(raw(made, same), expected)
    for one in (rows[0], rows[0].tolist(), torch.tensor(rows[0])):
        assert np.array_equal(raw(made, one), expected[:1])
    plain = DataSpec("tabular", (3,), NAMES)
    assert np.array_equal(raw(plain, rows), rows.astype(np.float32))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([1.0, 2.0], "expected 3 numbers, got 2"),
        ([1.0, "2", 3.0], "value 2: expected a finite number, got '2'"),
        ([1.0, float("nan"), 3.0], "value 2: expected a finite number, got nan"),
        ([1.0, 2.0, float("inf")], "value 3: expected a finite number, got inf"),
        ([1e39, 2.0, 3.0], "value 1: expected a finite number, got 1e+39"),
        ([1.0, 2.0, 1e38], "value 3: 1e+38 is too far from what the run was trained on"),
        ([1.0, None, 3.0], "value 2: expected a finite number, got None"),
        ([10**400, 2.0, 3.0], "value 1: expected a finite number, got 1000"),
        ([[1.0], [2.0], [3.0]], "expected 3 numbers, got 1"),
        ("1,2,3", "expected rows of numbers, got str '1,2,3'"),
        ({"a": 1}, "expected rows of numbers, got dict"),
        ([{"a": 1}], "expected 3 numbers, got dict"),
    ],
)
def test_what_is_no_row_is_refused(row: Any, message: str) -> None:
    with pytest.raises(UserError) as error:
        raw(DataSpec("tabular", (3,), NAMES, (0.0,) * 3, (1e-3,) * 3), row)
    assert message in str(error.value)
