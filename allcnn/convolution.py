"""2-D convolution whose gradients are written as is fastest on the backend.

On the CPU they are plain convolutions of images and kernels laid out like the forward one's. XLA
derives others, which take twice as long where a stride is involved, and a hundred times as long
within a loop (https://github.com/jax-ml/jax/issues/12868).
"""

import functools
from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from allcnn.backend import on_cpu

Gradients = Literal["xla", "ours"]
Padding = Literal["SAME", "VALID"]
Pads = Sequence[tuple[int, int]]

_FEW_INPUTS = 8
_LAYOUT = ("NHWC", "HWIO", "NHWC")


def convolve(
    images: Float[Array, "n h w c"],
    kernel: Float[Array, "kh kw c o"],
    stride: int,
    padding: Padding,
    gradients: Gradients | None = None,
) -> Float[Array, "n h2 w2 o"]:
    """Convolve; ``gradients`` says how they are computed, by default as the backend is fastest."""
    if (gradients or ("ours" if on_cpu() else "xla")) == "xla":
        return _forward(images, kernel, stride, padding)
    return _convolve(images, kernel, stride, padding)


def _forward(images: Array, kernel: Array, stride: int, padding: Padding | Pads) -> Array:
    strides = (stride, stride)
    return jax.lax.conv_general_dilated(images, kernel, strides, padding, dimension_numbers=_LAYOUT)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _convolve(images: Array, kernel: Array, stride: int, padding: Padding) -> Array:
    return _forward(images, kernel, stride, padding)


def _convolve_fwd(
    images: Array, kernel: Array, stride: int, padding: Padding
) -> tuple[Array, tuple[Array, Array]]:
    return _forward(images, kernel, stride, padding), (images, kernel)


def _convolve_bwd(
    stride: int, padding: Padding, kept: tuple[Array, Array], gradient: Array
) -> tuple[Array, Array]:
    images, kernel = kept
    pads = jax.lax.padtype_to_pads(images.shape[1:3], kernel.shape[:2], (stride, stride), padding)
    by_kernel = _by_patches if images.shape[-1] < _FEW_INPUTS else _by_convolution
    return (
        _image_gradient(gradient, kernel, images.shape, stride, pads),
        by_kernel(images, gradient, kernel.shape, stride, pads),
    )


_convolve.defvjp(_convolve_fwd, _convolve_bwd)


def _image_gradient(
    gradient: Array, kernel: Array, shape: tuple[int, ...], stride: int, pads: Pads
) -> Array:
    """Convolve, for each phase of the stride, with the kernel positions that meet such pixels."""
    _, height, width, channels = shape
    (top, _), (left, _) = pads
    rows, columns = -(-(top + height) // stride), -(-(left + width) // stride)

    def phase(y: int, x: int) -> Array:
        part = kernel[y::stride, x::stride][::-1, ::-1].swapaxes(2, 3)
        if not part.size:
            return jnp.zeros((len(gradient), rows, columns, channels), gradient.dtype)
        before = part.shape[0] - 1, part.shape[1] - 1
        after = rows - gradient.shape[1], columns - gradient.shape[2]
        return _forward(gradient, part, 1, list(zip(before, after, strict=True)))

    lines = [jnp.stack([phase(y, x) for x in range(stride)], axis=3) for y in range(stride)]
    woven = jnp.stack(lines, axis=2).reshape(-1, rows * stride, columns * stride, channels)
    return woven[:, top : top + height, left : left + width]


def _by_convolution(
    images: Array, gradient: Array, kernel: tuple[int, ...], stride: int, pads: Pads
) -> Array:
    """Convolve the images with the gradient: examples are summed over as if they were channels."""
    (kh, kw), (rows, columns) = kernel[:2], gradient.shape[1:3]
    reach = (rows - 1) * stride + kh, (columns - 1) * stride + kw
    (top, _), (left, _) = pads
    # A strided convolution may leave the last pixels out.
    after = reach[0] - top - images.shape[1], reach[1] - left - images.shape[2]
    product = jax.lax.conv_general_dilated(
        images.transpose(3, 1, 2, 0),
        gradient.transpose(1, 2, 0, 3),
        (1, 1),
        [(top, after[0]), (left, after[1])],
        rhs_dilation=(stride, stride),
        dimension_numbers=_LAYOUT,
    )
    return product.transpose(1, 2, 0, 3)


def _by_patches(
    images: Array, gradient: Array, kernel: tuple[int, ...], stride: int, pads: Pads
) -> Array:
    """Multiply the gradient with the pixels that each output meets, gathered side by side."""
    (kh, kw), (rows, columns) = kernel[:2], gradient.shape[1:3]
    padded = jnp.pad(images, ((0, 0), *pads, (0, 0)))
    views = [
        padded[
            :,
            y : y + (rows - 1) * stride + 1 : stride,
            x : x + (columns - 1) * stride + 1 : stride,
        ]
        for y in range(kh)
        for x in range(kw)
    ]
    flat = gradient.reshape(-1, gradient.shape[-1])
    patches = jnp.concatenate(views, axis=-1).reshape(len(flat), -1)
    return (patches.T @ flat).reshape(kernel)
