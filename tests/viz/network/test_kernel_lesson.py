"""One kernel on an input, against scipy's correlation and convolution."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import convolve2d, correlate2d

from dlrun.viz.network.kernel import KERNELS, MATRIX, applied
from dlrun.viz.network.pictures.kernel import in_numbers, on_picture


@pytest.mark.parametrize("name", sorted(KERNELS))
def test_it_is_scipy_s(name: str) -> None:
    kernel = np.array(KERNELS[name], dtype=float)
    given = np.random.default_rng(0).integers(0, 255, (7, 9)).astype(float)
    for padding, mode in (((0, 0), "valid"), ((1, 1), "same")):
        done = applied(given, kernel, padding, 1)
        np.testing.assert_allclose(done.output, correlate2d(given, kernel, mode))
        np.testing.assert_allclose(done.convolved, convolve2d(given, kernel, mode))
        assert done.turns == (not np.allclose(done.output, done.convolved))
    np.testing.assert_allclose(applied(given, kernel, (0, 0), 2).output, correlate2d(given, kernel, "valid")[::2, ::2])


def test_a_kernel_of_one_number_multiplies() -> None:
    done = applied(np.array([[1.0, 2.0]]), np.array([[5.0]]), (0, 0), 1)
    assert done.output.tolist() == done.convolved.tolist() == [[5, 10]]
    assert [text.get_text() for text in in_numbers("five times", done).axes[2].texts] == ["5", "10"]


def test_the_lesson_says_all_its_numbers() -> None:
    done = applied(np.array(MATRIX), np.array(KERNELS["edge"], dtype=float), (0, 0), 1)
    assert done.output[2].tolist() == [-30, 30, 0, 0, 30, -30]  # nothing inside, much at an edge
    figure = in_numbers("edges", done)
    assert [axis.get_title() for axis in figure.axes] == ["input (8×8)", "kernel (3×3)", "output (6×6)"]
    for axis, part in zip(figure.axes, (done.given, done.kernel, done.output), strict=True):
        said = [float(text.get_text().replace("−", "-")) for text in axis.texts]
        assert said == part.ravel().tolist()
    framed = figure.axes[2].patches[0]
    assert (framed.get_x() + 0.5, framed.get_y() + 0.5) == (1, 1)  # type: ignore[attr-defined]
    assert figure.get_supxlabel().endswith("= 50")
    assert figure.get_supxlabel().count("·") == 9


def test_zeros_around_it_are_shown() -> None:
    done = applied(np.ones((3, 4)), np.ones((3, 5)), (1, 2), 1)
    figure = in_numbers("same", done)
    assert figure.axes[0].get_title() == "input (5×8)"
    assert [float(text.get_text()) for text in figure.axes[2].texts] == correlate2d(
        np.ones((3, 4)), np.ones((3, 5)), "same"
    ).ravel().tolist()


def test_on_a_picture() -> None:
    given = np.random.default_rng(0).integers(0, 256, (40, 50)).astype(float)
    done = applied(given, np.array(KERNELS["sobel_x"], dtype=float), (0, 0), 1)
    figure = on_picture("a picture", done)
    images = [axis.images[0] for axis in figure.axes if axis.images]
    np.testing.assert_array_equal(images[0].get_array(), given)
    np.testing.assert_array_equal(images[2].get_array(), done.output)
    assert {"grey, 0 to 255", "sum of products"} <= {axis.get_ylabel() for axis in figure.axes}


def test_the_scales_are_no_higher_than_a_wide_picture() -> None:
    figure = on_picture("a panorama", applied(np.eye(60, 180), np.ones((3, 3)), (0, 0), 1))
    figure.draw_without_rendering()  # type: ignore[no-untyped-call]
    scales = [axis for axis in figure.axes if axis.get_ylabel()]
    assert len(scales) == 2
    for scale in scales:
        assert scale.get_position().height < 1.2 * figure.axes[0].get_position().height
