"""Label-preserving augmentation of uint8 images, as pure functions of a key.

Images are square. Distances scale with them: at 32 pixels the crop pads 4, Cutout blanks 16 x 16.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key, UInt8

Images = UInt8[Array, "n h w c"]
Fill = UInt8[Array, " c"]


def augment(key: Key[Array, ""], images: Images, fill: Fill) -> Images:
    """Crop, flip and cut out, each example with its own randomness; ``fill`` is a blank pixel."""
    crop_key, flip_key, cut_key = jax.random.split(key, 3)
    return cutout(cut_key, flip(flip_key, crop(crop_key, images, fill)), fill)


def crop(key: Key[Array, ""], images: Images, fill: Fill) -> Images:
    """Shift each image by up to an eighth of its side either way, padding with ``fill``."""
    n, h, w, c = images.shape
    pad = h // 8
    padded = jnp.broadcast_to(fill, (n, h + 2 * pad, w + 2 * pad, c))
    padded = padded.at[:, pad : pad + h, pad : pad + w].set(images)
    corners = jax.random.randint(key, (n, 2), 0, 2 * pad + 1)
    return jax.vmap(
        lambda image, corner: jax.lax.dynamic_slice(image, (corner[0], corner[1], 0), (h, w, c))
    )(padded, corners)


def flip(key: Key[Array, ""], images: Images) -> Images:
    """Mirror each image left to right with probability one half."""
    mirrored = jax.random.bernoulli(key, 0.5, (len(images), 1, 1, 1))
    return jnp.where(mirrored, images[:, :, ::-1], images)


def cutout(key: Key[Array, ""], images: Images, fill: Fill) -> Images:
    """Blank a square of half the side around a random pixel (DeVries and Taylor 2017).

    The square's centre lies anywhere in the image, so part of the square may fall outside.
    """
    n, h, w, _ = images.shape
    half = h // 4
    centres = jax.random.randint(key, (n, 2), 0, h)
    inside = _within(jnp.arange(h), centres[:, :1], half)[:, :, None]
    inside &= _within(jnp.arange(w), centres[:, 1:], half)[:, None, :]
    return jnp.where(inside[..., None], fill[None, None, None], images)


def _within(positions: Array, centre: Array, half: int) -> Array:
    return (positions[None, :] >= centre - half) & (positions[None, :] < centre + half)
