"""A picture's file → uint8 RGB pixels of a given size. OpenCV decodes JPEG, Pillow all else.

A picture stands as it was stored: an orientation in its EXIF data is not applied, whoever decodes it (as in
torchvision's ImageFolder; of a TIFF it is part of the format, and Pillow heeds it). Nor is transparency: the colours
below it are taken.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from dlrun.errors import UserError

# Pillow raises any of these on a damaged file.
DAMAGED = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
TAIL = 64  # bytes at a file's end among which the end mark is looked for; cameras write something behind it


def read_picture(path: Path, pixels: np.ndarray) -> os.stat_result:
    """Decode the file at `path` into `pixels` (H, W, 3) uint8, resized to fit; what the file was when it was read.

    Raises UserError, with the file's name, if it isn't a whole picture.
    """
    height, width = pixels.shape[:2]
    try:
        with open(path, "rb", buffering=0) as file:
            state = os.fstat(file.fileno())
            content = file.read()
        image = _jpeg(content, height, width)
        if image is None:
            image = _any(path, height, width)
        _resize(image, pixels)
    except DAMAGED as error:
        raise UserError(f"data: can't read the image {path} ({error})") from error
    return state


def fit_picture(image: Image.Image, pixels: np.ndarray) -> None:
    """Fill `pixels` (H, W, 3) uint8 with a picture that Pillow holds, as `read_picture` does with a file of it.

    Raises UserError if it can't be decoded: Pillow opens a file without reading all of it.
    """
    try:
        _resize(np.array(_eight_bits(image).convert("RGB")), pixels)
    except DAMAGED as error:
        raise UserError(f"data: can't read the image {image!r} ({error})") from error


def fit_pixels(image: np.ndarray, pixels: np.ndarray) -> None:
    """Fill `pixels` (H, W, C) uint8 with those of `image` (any height, any width, C) uint8."""
    _resize(np.array(image), pixels)  # a copy: torch takes no read-only or backward memory


def grey(pixels: np.ndarray) -> np.ndarray:
    """RGB (…, 3) uint8 → luma (…, 1) uint8 by ITU-R BT.601, to the bit as Pillow does it; of grey, the same grey."""
    red, green, blue = (pixels[..., channel].astype(np.uint32) for channel in range(3))
    return ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16).astype(np.uint8)[..., None]


def check_picture(path: Path) -> None:
    """Raise UserError unless the file has a picture's header and its end, or can be decoded without.

    Takes 50 µs for a JPEG or a PNG: the mark that ends it is looked for, not more.
    """
    try:
        with Image.open(path) as image:
            kind, (width, height) = image.format, image.size
        mark = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}.get(kind or "")
        if mark is not None and mark in _tail(path):
            return
    except DAMAGED as error:
        raise UserError(f"data: can't read the image {path} ({error})") from error
    read_picture(path, np.empty((min(height, 8), min(width, 8), 3), np.uint8))


def jpeg_size(content: bytes) -> tuple[int, int] | None:
    """(height, width) of a JPEG with 8 bits of one or three colours, by its frame header (ITU T.81, B.2.2).

    None for whatever else: another format, CMYK, 12 bits, lossless or arithmetic coding, a header that is cut off.
    """
    place = 2
    if content[:2] != b"\xff\xd8":
        return None
    while place + 10 <= len(content) and content[place] == 0xFF:
        marker = content[place + 1]
        if marker == 0xFF:  # any number of them may stand before a marker
            place += 1
        elif 0xC0 <= marker <= 0xC2:  # baseline, extended, progressive, all Huffman-coded
            height, width = (
                int.from_bytes(content[place + 5 : place + 7]),
                int.from_bytes(content[place + 7 : place + 9]),
            )
            plain = content[place + 4] == 8 and content[place + 9] in (1, 3) and height > 0 and width > 0
            return (height, width) if plain else None
        elif marker in (0xD8, 0xD9, 0xDA) or (0xC3 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            return None
        else:
            place += 2 + int.from_bytes(content[place + 2 : place + 4])
    return None


def _jpeg(content: bytes, height: int, width: int) -> np.ndarray | None:
    """Pixels (≥ height, ≥ width, 3 if it has them) of a whole, plain JPEG, if Pillow wouldn't find it too large."""
    size = jpeg_size(content)
    if size is None or size[0] * size[1] > (Image.MAX_IMAGE_PIXELS or 0) or b"\xff\xd9" not in content[-TAIL:]:
        return None
    cv2 = opencv()
    # 2, 4 or 8 pixels as one, by a smaller inverse DCT: their mean, for less than the time of all of them
    factor = next((f for f in (8, 4, 2) if size[0] // f >= height and size[1] // f >= width), 1)
    reduced = {1: 0, 2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4, 8: cv2.IMREAD_REDUCED_COLOR_8}
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION | reduced[factor] & ~cv2.IMREAD_COLOR
    decoded: np.ndarray | None = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    return decoded


def _any(path: Path, height: int, width: int) -> np.ndarray:
    """Pixels (H, W, 3) of whatever Pillow reads."""
    with Image.open(path) as image:
        image.draft("RGB", (width, height))  # a JPEG, in CMYK say, is reduced as above
        return np.array(_eight_bits(image).convert("RGB"))


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit grey as 8-bit; `convert` would make everything above 255 white."""
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray((np.asarray(image).clip(0, 65535) / 257).round().astype(np.uint8))


def _resize(image: np.ndarray, pixels: np.ndarray) -> None:
    """Fill `pixels` by bilinear interpolation that takes the mean of more where a picture shrinks, so nothing aliases.

    It is Pillow's BILINEAR, but for a rounding in one value of 500, in a seventh of the time. OpenCV has no such thing:
    its bilinear aliases (30 dB from the mean of the area where this has 36, on a photograph of 500×375 at 224×224), and
    its INTER_AREA takes as long as decoding does.
    """
    channels_last = torch.from_numpy(image)[None].permute(0, 3, 1, 2)  # (1, C, H, W)
    resized = F.interpolate(channels_last, pixels.shape[:2], mode="bilinear", antialias=True)
    pixels[...] = resized[0].permute(1, 2, 0).numpy()


def _tail(path: Path) -> bytes:
    with open(path, "rb", buffering=0) as file:
        file.seek(max(os.fstat(file.fileno()).st_size - TAIL, 0))
        return file.read()


@cache
def opencv() -> ModuleType:
    """OpenCV, imported when the first picture is read; it starts no threads: loader processes are the threads."""
    import cv2

    cv2.setNumThreads(0)
    return cv2
