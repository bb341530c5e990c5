"""albumentations' transforms on one picture, without what wraps them: the same draws, the same pixels, less Python.

`Compose` and `BasicTransform.__call__` carry dictionaries of targets (masks, boxes, key points) through checks at every
transform, and on a small picture that takes as long as many a transform itself. Here a transform is a function of the
picture; what it draws and what it does to the pixels stays the library's own code. What isn't a plain transform of a
picture (nested transforms, classes with a `__call__` of their own, transforms that need more than a picture) is called
as it stands.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dlrun.data.shortcuts import shortcut

Step = Callable[[np.ndarray], np.ndarray]  # contiguous (H, W, C) → contiguous (H, W, C); may change what it is given


def step(transform: Any) -> Step:
    """What `transform(image=…)["image"]` does, its probability included, as a function of the image alone."""
    if not is_plain(transform):
        return lambda image: transform(image=image)["image"]  # type: ignore[no-any-return]
    whole, short = _wholly(transform), shortcut(transform)

    def maybe(image: np.ndarray) -> np.ndarray:
        p = transform.p
        # The very draw of BasicTransform.should_apply: none where there is no doubt.
        if p <= 0 or (p < 1 and transform.py_random.random() >= p):
            return image
        if short is not None and image.ndim == 3 and image.shape[2] <= 4 and image.dtype == np.uint8:
            return short(image)
        return whole(image)

    return maybe


def is_plain(transform: Any) -> bool:
    """Whether applying `transform` to a picture is nothing but its draws and `apply`."""
    from albumentations import BasicTransform

    kind = type(transform)
    untouched = ("__call__", "should_apply", "apply_with_params")
    return (
        issubclass(kind, BasicTransform)
        and all(getattr(kind, name) is getattr(BasicTransform, name) for name in untouched)
        and transform._key2func.get("image") == transform.apply
        and not transform.targets_as_params
        and not transform.deterministic
        and not transform.replay_mode
    )


def _wholly(transform: Any) -> Step:
    """The transform once it is sure to be applied: BasicTransform.__call__ and apply_with_params for one picture."""

    def apply(image: np.ndarray) -> np.ndarray:
        data = {"image": image}
        params = transform.update_transform_params(params=transform.get_params(), data=data)
        params.update(transform.get_params_dependent_on_data(params=params, data=data))
        result = transform.apply(image, **params)
        return np.ascontiguousarray(result) if isinstance(result, np.ndarray) else result

    return apply
