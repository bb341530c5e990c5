from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from dlrun.data.decode import jpeg_size, read_picture
from dlrun.errors import UserError

HEIGHT, WIDTH = 240, 320


@pytest.fixture(scope="module")
def photograph() -> Image.Image:
    """Slow waves and a fine grating, in colour."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    waves = [120 + 80 * np.sin(x / 40) + 30 * (x % 3 == 0), 120 + 100 * np.cos(y / 30), (x + y) / 3]
    return Image.fromarray(np.stack(waves, axis=-1).astype(np.uint8))


def read(path, height: int, width: int) -> np.ndarray:
    pixels = np.empty((height, width, 3), np.uint8)
    read_picture(path, pixels)
    return pixels.astype(int)


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


KINDS = {
    "baseline": {},
    "progressive": {"progressive": True},
    "every pixel's colour": {"subsampling": 0},
    "restart markers": {"restart_marker_blocks": 4},
    "RGB inside": {"keep_rgb": True},
    "large header": {"icc_profile": bytes(200_000), "comment": b"\xff\xc0" * 100},
    "turned": {"exif": exif(6)},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("size", "factor"),
    [
        ((240, 320), 1),
        ((121, 160), 1),
        ((120, 161), 1),
        ((120, 160), 2),
        ((61, 20), 2),
        ((60, 80), 4),
        ((30, 40), 8),
        ((7, 9), 8),
        ((300, 100), 1),
    ],
)
def test_a_jpeg_is_decoded_and_resized_as_pillow_does_it(tmp_path, photograph, kind, size, factor):
    """At the fraction at which it is still as large as what is wanted; and as it was stored, whatever EXIF says."""
    path = tmp_path / "x.jpg"
    photograph.save(path, quality=90, **KINDS[kind])
    with Image.open(path) as image:
        image.draft("RGB", (WIDTH // factor, HEIGHT // factor))
        assert image.size == (WIDTH // factor, HEIGHT // factor)
        expected = np.asarray(image.resize(size[::-1], Image.Resampling.BILINEAR)).astype(int)
    # Another build of libjpeg may round its DCT otherwise.
    assert np.abs(read(path, *size) - expected).max() <= 3
    assert np.abs(read(path, *size) - expected).mean() < 0.1


@pytest.mark.parametrize(
    ("suffix", "mode"),
    [
        *((".png", mode) for mode in ("RGB", "L", "P", "RGBA", "LA")),
        *((".jpg", mode) for mode in ("RGB", "L", "CMYK")),
        *((".webp", mode) for mode in ("RGB", "RGBA")),
    ],
)
def test_nothing_is_turned(tmp_path, photograph, suffix, mode):
    image, options = photograph.convert(mode), {".webp": {"lossless": True}}.get(suffix, {})
    image.save(tmp_path / f"plain{suffix}", **options)
    image.save(tmp_path / f"turned{suffix}", exif=exif(6), **options)
    turned = read(tmp_path / f"turned{suffix}", 24, 32)
    assert np.array_equal(turned, read(tmp_path / f"plain{suffix}", 24, 32))
    with Image.open(tmp_path / f"plain{suffix}") as image:
        expected = np.asarray(image.convert("RGB").resize((32, 24), Image.Resampling.BILINEAR)).astype(int)
    if suffix == ".jpg":  # decoded at an eighth
        assert np.abs(turned - expected).mean() < 2
    else:
        assert np.abs(turned - expected).max() <= 1


def test_a_tiff_is_turned_by_pillow(tmp_path, photograph):
    """There it is no remark of a camera's, but how the rows are stored."""
    photograph.save(tmp_path / "plain.tif")
    photograph.save(tmp_path / "turned.tif", exif=exif(3))
    assert np.array_equal(read(tmp_path / "turned.tif", 24, 32), read(tmp_path / "plain.tif", 24, 32)[::-1, ::-1])


def test_a_fine_grating_becomes_its_mean(tmp_path):
    """White and black columns in turn: by two pixels of seven, some would stay black."""
    columns = np.zeros((70, 70, 3), np.uint8)
    columns[:, ::2] = 254
    Image.fromarray(columns).save(tmp_path / "x.png")
    assert np.abs(read(tmp_path / "x.png", 10, 10)[:, 1:-1] - 127).max() <= 6


@pytest.mark.parametrize("kind", KINDS)
def test_the_size_is_in_the_header(photograph, kind):
    for image in (photograph, photograph.convert("L")):
        if image.mode == "L" and kind == "RGB inside":
            continue
        file = io.BytesIO()
        image.save(file, "JPEG", **KINDS[kind])
        content = file.getvalue()
        assert jpeg_size(content) == (HEIGHT, WIDTH)
        start = content.rindex(b"\xff\xc2" if kind == "progressive" else b"\xff\xc0")
        assert start > 0
        assert jpeg_size(content[:start]) is None
        padded = content[:start] + b"\xff\xff\xff" + content[start:]
        assert jpeg_size(padded) == (HEIGHT, WIDTH)
        assert np.asarray(Image.open(io.BytesIO(padded))).shape[:2] == (HEIGHT, WIDTH)
        twelve_bits = content[: start + 4] + b"\x0c" + content[start + 5 :]
        assert jpeg_size(twelve_bits) is None


def test_no_size_of_what_is_left_to_pillow(photograph):
    for format, mode in (("JPEG", "CMYK"), ("PNG", "RGB"), ("GIF", "P"), ("TIFF", "RGB")):
        file = io.BytesIO()
        photograph.convert(mode).save(file, format)
        assert jpeg_size(file.getvalue()) is None
    for content in (b"", b"\xff", b"\xff\xd8", b"\xff\xd8\xff", b"\xff\xd8\xff\xe0\0\0" * 10, b"\xff\xd8" + bytes(99)):
        assert jpeg_size(content) is None


def test_what_stands_behind_a_picture_is_no_matter(tmp_path, photograph):
    photograph.save(tmp_path / "x.jpg")
    expected = read(tmp_path / "x.jpg", 60, 80)
    content = (tmp_path / "x.jpg").read_bytes()
    for length in (10, 100_000):
        (tmp_path / "y.jpg").write_bytes(content + bytes(length))
        assert np.abs(read(tmp_path / "y.jpg", 60, 80) - expected).max() <= 2


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_cut_off_anywhere_is_refused(tmp_path, photograph, progressive):
    photograph.save(tmp_path / "x.jpg", progressive=progressive)
    content = (tmp_path / "x.jpg").read_bytes()
    for length in [*range(0, len(content) - 2, 97), len(content) - 3]:
        (tmp_path / "x.jpg").write_bytes(content[:length])
        with pytest.raises(UserError, match=rf"^data: can't read the image {tmp_path}/x.jpg \("):
            read(tmp_path / "x.jpg", 60, 80)
