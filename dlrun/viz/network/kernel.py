"""What a convolution with one kernel does to an input: nothing but sums of products."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

# A bright square on a dark ground: even areas, edges and corners.
MATRIX = [[10.0 if 2 <= row <= 5 and 2 <= column <= 5 else 0.0 for column in range(8)] for row in range(8)]
KERNELS = {
    "edge": [[-1, -1, -1], [-1, 8, -1], [-1, -1, -1]],
    "laplace": [[0, 1, 0], [1, -4, 1], [0, 1, 0]],
    "sobel_x": [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]],
    "sobel_y": [[-1, -2, -1], [0, 0, 0], [1, 2, 1]],
    "sharpen": [[0, -1, 0], [-1, 5, -1], [0, -1, 0]],
    "emboss": [[-2, -1, 0], [-1, 1, 1], [0, 1, 2]],
    "identity": [[0, 0, 0], [0, 1, 0], [0, 0, 0]],
}


@dataclass(frozen=True)
class Applied:
    """`output` = the cross-correlation of `given` (H, W) with `kernel` (h, w), which is what nn.Conv2d computes.

    `convolved` is the convolution of mathematics, whose kernel is turned by 180°: the same for a kernel that doesn't
    change by that.
    """

    given: np.ndarray
    kernel: np.ndarray
    padding: tuple[int, int]
    stride: int
    output: np.ndarray
    convolved: np.ndarray

    @property
    def turns(self) -> bool:
        """Whether turning the kernel by 180° changes it."""
        return not np.array_equal(self.kernel, self.kernel[::-1, ::-1])


def applied(given: np.ndarray, kernel: np.ndarray, padding: tuple[int, int], stride: int) -> Applied:
    """Zeros of `padding` (rows, columns) on each side, then a sum for each place, `stride` apart; in float64."""

    def correlated(weights: np.ndarray) -> np.ndarray:
        x, w = (torch.from_numpy(np.array(a, dtype=np.float64))[None, None] for a in (given, weights))
        return F.conv2d(x, w, stride=stride, padding=padding)[0, 0].numpy()

    return Applied(given, kernel, padding, stride, correlated(kernel), correlated(kernel[::-1, ::-1]))
