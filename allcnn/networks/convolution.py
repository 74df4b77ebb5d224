"""2-D convolution whose gradients are written as is fastest on the backend.

On the CPU they are plain convolutions of images and kernels laid out like the forward one's. XLA
derives others, which take twice as long where a stride is involved, and a hundred times as long
within a loop (https://github.com/jax-ml/jax/issues/12868).
"""

import functools
from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from allcnn.backend import on_cpu

Padding = Literal["SAME", "VALID"]
Pads = Sequence[tuple[int, int]]

_FEW_INPUTS = 8
"""Channels below which patches are gathered: the colours of the first layer's images."""

_LAYOUT = ("NHWC", "HWIO", "NHWC")


def convolve(
    images: Float[Array, "n h w c"],
    kernel: Float[Array, "kh kw c o"],
    stride: int,
    padding: Padding,
) -> Float[Array, "n h2 w2 o"]:
    """Convolve, with gradients as the backend computes them fastest."""
    return (_convolve if on_cpu() else _forward)(images, kernel, stride, padding)


def _forward(images: Array, kernel: Array, stride: int, padding: Padding | Pads) -> Array:
    strides = (stride, stride)
    return jax.lax.conv_general_dilated(images, kernel, strides, padding, dimension_numbers=_LAYOUT)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _convolve(images: Array, kernel: Array, stride: int, padding: Padding) -> Array:
    return _forward(images, kernel, stride, padding)


def _convolve_fwd(
    images: Array, kernel: Array, stride: int, padding: Padding
) -> tuple[Array, tuple[Array, Array, Array | None]]:
    if images.shape[-1] >= _FEW_INPUTS:
        return _forward(images, kernel, stride, padding), (images, kernel, None)
    # Small enough to keep, and both products with them are faster than convolutions.
    patches = _patches(images, kernel.shape, stride, _pads(images, kernel, stride, padding))
    return patches @ kernel.reshape(-1, kernel.shape[-1]), (images, kernel, patches)


def _convolve_bwd(
    stride: int, padding: Padding, kept: tuple[Array, Array, Array | None], gradient: Array
) -> tuple[Array, Array]:
    # Else neighbouring computations become part of the transposes, which slows both.
    (images, kernel, patches), gradient = _as_computed((kept, gradient))
    pads = _pads(images, kernel, stride, padding)
    return (
        _image_gradient(gradient, kernel, images.shape, stride, pads),
        _kernel_gradient(images, gradient, kernel.shape, stride, pads)
        if patches is None
        else _by_patches(patches, gradient, kernel.shape),
    )


_convolve.defvjp(_convolve_fwd, _convolve_bwd)


def _as_computed(tree: Any) -> Any:
    """Have XLA compute arrays as they are, instead of within what uses them."""
    return jax.lax.optimization_barrier(tree)  # type: ignore[no-untyped-call]


def _pads(images: Array, kernel: Array, stride: int, padding: Padding) -> Pads:
    strides = (stride, stride)
    return jax.lax.padtype_to_pads(images.shape[1:3], kernel.shape[:2], strides, padding)


def _image_gradient(
    gradient: Array, kernel: Array, shape: tuple[int, ...], stride: int, pads: Pads
) -> Array:
    """Convolve, for each phase of the stride, with the kernel positions that meet such pixels."""
    _, height, width, channels = shape
    # Whole strides of padding are never computed, so that stride 1 leaves nothing to cut off.
    (first, top), (at, left) = (divmod(before, stride) for before, _ in pads)
    rows, columns = -(-(top + height) // stride), -(-(left + width) // stride)

    def phase(y: int, x: int) -> Array:
        part = kernel[y::stride, x::stride][::-1, ::-1].swapaxes(2, 3)
        if not part.size:
            return jnp.zeros((len(gradient), rows, columns, channels), gradient.dtype)
        before = part.shape[0] - 1 - first, part.shape[1] - 1 - at
        after = first + rows - gradient.shape[1], at + columns - gradient.shape[2]
        return _forward(gradient, part, 1, list(zip(before, after, strict=True)))

    lines = [jnp.stack([phase(y, x) for x in range(stride)], axis=3) for y in range(stride)]
    woven = jnp.stack(lines, axis=2).reshape(-1, rows * stride, columns * stride, channels)
    return woven[:, top : top + height, left : left + width]


def _kernel_gradient(
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


def _patches(images: Array, kernel: tuple[int, ...], stride: int, pads: Pads) -> Array:
    """Gather the pixels that each output meets side by side: (n, rows, columns, kh kw c)."""
    padded = jnp.pad(images, ((0, 0), *pads, (0, 0)))

    def gather(x: Array, axis: int) -> Array:
        size = kernel[axis - 1]
        ends = range(x.shape[axis] - size + 1, x.shape[axis] + 1)
        views = [jax.lax.slice_in_dim(x, i, end, stride, axis) for i, end in enumerate(ends)]
        return jnp.concatenate(views, axis=-1)

    # Columns first, by themselves: that copies pieces kw times as long.
    return gather(_as_computed(gather(padded, 2)), 1)


def _by_patches(patches: Array, gradient: Array, kernel: tuple[int, ...]) -> Array:
    """Multiply the gradient with the pixels that each output met."""
    flat = gradient.reshape(-1, gradient.shape[-1])
    return (patches.reshape(len(flat), -1).T @ flat).reshape(kernel)
