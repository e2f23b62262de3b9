"""Seeded corruptions of images: noise, blur, contrast, occlusion (after Hendrycks and Dietterich, 2019)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]


def _add_noise(image: Image, share: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Gaussian noise whose standard deviation is this share of the full scale."""
    return np.asarray(image + rng.normal(0, 255 * share, image.shape), dtype=np.float64)


def _blur(image: Image, share: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """A Gaussian of this share of a quarter of the shorter side."""
    del rng
    sigma = share * min(image.shape[:2]) / 4
    # A replica imports this module with its task, and scipy is 20 MB that it never needs.
    from scipy.ndimage import gaussian_filter

    blurred = gaussian_filter(image.astype(np.float64), (sigma, sigma, 0)[: image.ndim])
    return np.asarray(blurred, dtype=np.float64)


def _lower_contrast(image: Image, share: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Pulled towards the mean; of four times this share of the contrast nothing is left."""
    del rng
    mean = image.mean()
    return np.asarray(mean + (image - mean) * max(0.0, 1 - 4 * share), dtype=np.float64)


def _occlude(image: Image, share: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """A black square over this share of the area."""
    height, width = image.shape[:2]
    side = max(1, round((share * height * width) ** 0.5))
    top = int(rng.integers(max(1, height - side + 1)))
    left = int(rng.integers(max(1, width - side + 1)))
    covered = image.astype(np.float64)
    covered[top : top + side, left : left + side] = 0
    return covered


_BY_KIND: dict[str, Callable[[Image, float, np.random.Generator], NDArray[np.float64]]] = {
    "noise": _add_noise,
    "blur": _blur,
    "contrast": _lower_contrast,
    "occlusion": _occlude,
}

IMAGE_KINDS = tuple(_BY_KIND)


def corrupt_image(image: Image, kind: str, share: float, rng: np.random.Generator) -> Image:
    """An altered copy of an image of (height, width) or (height, width, 3) bytes."""
    altered = _BY_KIND[kind](image, share, rng)
    return np.clip(np.rint(altered), 0, 255).astype(np.uint8)
