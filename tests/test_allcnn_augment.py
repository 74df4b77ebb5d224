"""Augmentation against plain NumPy that is given the corners, sides and centres that were drawn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from allcnn.training.recipe import Lange, crop, cutout, flip

FILL = np.array([7, 11, 13], np.uint8)


def draw_images(n=6, side=16, seed=0):
    # From 20 up, so that a filled pixel is known by its value.
    rng = np.random.default_rng(seed)
    return rng.integers(20, 256, (n, side, side, 3), np.uint8)


def crop_by_corners(images, corners, fill):
    """Paste each image into its own canvas, pixel by pixel."""
    n, side = images.shape[:2]
    pad = side // 8
    cropped = np.tile(fill, (n, side, side, 1))
    for i, y, x in np.ndindex(n, side, side):
        row, column = y + corners[i, 0] - pad, x + corners[i, 1] - pad
        if 0 <= row < side and 0 <= column < side:
            cropped[i, y, x] = images[i, row, column]
    return cropped


def cut_by_centres(images, centres, fill):
    cut, half = images.copy(), images.shape[1] // 4
    for image, (y, x) in zip(cut, centres, strict=True):
        image[max(y - half, 0) : y + half, max(x - half, 0) : x + half] = fill
    return cut


@pytest.fixture(params=range(3))
def key(request):
    return jax.random.key(request.param)


def test_crop_is_exact_for_the_corners_drawn(key):
    images = draw_images()
    corners = np.asarray(jax.random.randint(key, (6, 2), 0, 5))
    found = crop(key, images, FILL)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, crop_by_corners(images, corners, FILL))


def test_flip_mirrors_left_to_right_and_only_some(key):
    images = draw_images(n=40)
    mirrored = np.asarray(jax.random.bernoulli(key, 0.5, (40, 1, 1, 1))).ravel()
    found = np.asarray(flip(key, images))
    assert found.dtype == np.uint8
    assert 0 < mirrored.sum() < 40
    for image, original, turned in zip(found, images, mirrored, strict=True):
        np.testing.assert_array_equal(image, np.fliplr(original) if turned else original)


def test_cutout_is_exact_for_the_centres_drawn(key):
    images = draw_images()
    centres = np.asarray(jax.random.randint(key, (6, 2), 0, 16))
    found = cutout(key, images, FILL)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, cut_by_centres(images, centres, FILL))


def test_augment_crops_then_flips_then_cuts(key):
    images = draw_images()
    crop_key, flip_key, cut_key = jax.random.split(key, 3)
    corners = np.asarray(jax.random.randint(crop_key, (6, 2), 0, 5))
    mirrored = np.asarray(jax.random.bernoulli(flip_key, 0.5, (6, 1, 1, 1)))
    centres = np.asarray(jax.random.randint(cut_key, (6, 2), 0, 16))
    cropped = crop_by_corners(images, corners, FILL)
    turned = np.where(mirrored, cropped[:, :, ::-1], cropped)
    found = Lange().augment(key, images, FILL)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, cut_by_centres(turned, centres, FILL))


@pytest.mark.parametrize("work", [crop, cutout, Lange().augment])
def test_jitted_equals_eager(work, key):
    images = draw_images()
    np.testing.assert_array_equal(jax.jit(work)(key, images, FILL), work(key, images, FILL))


@pytest.mark.parametrize("changed", [0, 3, 5])
def test_no_example_leaks_into_another(key, changed):
    images = draw_images()
    others = images.copy()
    others[changed] = draw_images(n=1, seed=1)[0]
    before, after = (
        np.asarray(Lange().augment(key, images, FILL)),
        np.asarray(Lange().augment(key, others, FILL)),
    )
    kept = np.arange(6) != changed
    np.testing.assert_array_equal(before[kept], after[kept])
    assert (before[changed] != after[changed]).any()


def test_half_of_the_images_are_mirrored():
    n = 4000
    images = np.zeros((n, 2, 2, 1), np.uint8)
    images[:, :, 0] = 1
    mirrored = np.asarray(flip(jax.random.key(0), images))[:, 0, 1, 0].sum()
    # Binomial: five standard errors of n/2.
    assert abs(mirrored - n / 2) < 5 * np.sqrt(n / 4)


def test_every_corner_is_equally_likely():
    n, side = 4050, 32
    images = np.zeros((n, side, side, 1), np.uint8)
    images[:, 16, 16] = 1
    marked = np.argwhere(np.asarray(crop(jax.random.key(0), images, np.zeros(1, np.uint8))))
    counts = np.zeros((9, 9), int)
    np.add.at(counts, (marked[:, 1] - 12, marked[:, 2] - 12), 1)
    # All 9 x 9 shifts of up to four pixels; each is binomial with p = 1/81.
    assert counts.sum() == n
    assert np.abs(counts - n / 81).max() < 5 * np.sqrt(n / 81 * (1 - 1 / 81))


def test_the_square_is_16_of_32_and_may_hang_over_the_edge():
    n, side = 3000, 32
    images = np.ones((n, side, side, 1), np.uint8)
    blank = np.asarray(cutout(jax.random.key(0), images, np.zeros(1, np.uint8)))[..., 0] == 0
    rows, columns = blank.any(2).sum(1), blank.any(1).sum(1)
    # One rectangle an image: its area is the product of its sides.
    np.testing.assert_array_equal(blank.sum((1, 2)), rows * columns)
    # A centre c leaves min(c + 8, 32) - max(c - 8, 0) rows: 8 at the edge, 16 where c is 8 to 24.
    assert set(rows) == set(columns) == set(range(8, 17))
    whole = (rows == 16).sum()
    p = 17 / 32
    assert abs(whole - n * p) < 5 * np.sqrt(n * p * (1 - p))


@pytest.mark.parametrize("side", [12, 32])
def test_every_pixel_is_an_original_one_or_the_fill(side):
    images = np.full((50, side, side, 3), 200, np.uint8)
    found = np.asarray(Lange().augment(jax.random.key(3), jnp.asarray(images), FILL))
    assert found.shape == images.shape
    original = (found == 200).all(-1)
    assert (original | (found == FILL).all(-1)).all()
    assert 0 < original.sum() < original.size
