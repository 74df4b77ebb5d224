"""Every way to convolve against float64 windows, gradients by the definition of a derivative."""

import functools
import itertools

import jax
import numpy as np
import pytest

from allcnn import backend
from allcnn.networks import convolution
from tests.oracles import conv64

GRADIENTS = ("xla", "ours")
SHAPES = [
    (side, kernel, stride, padding)
    for side, kernel, stride, padding in itertools.product(
        (7, 8), (1, 3), (1, 2, 3), ("SAME", "VALID")
    )
    if (side, kernel) != (7, 1)  # which is (8, 1) once more
] + [(8, 5, 1, "SAME"), (8, 5, 2, "SAME"), (8, 5, 1, "VALID")]


def draw(side, kernel, inputs=2, outputs=3, n=2):
    rng = np.random.default_rng(side)
    images = rng.standard_normal((n, side, side, inputs)).astype(np.float32)
    return images, rng.standard_normal((kernel, kernel, inputs, outputs)).astype(np.float32)


def kernel_gradient64(images, kernel, stride, padding, gradient):
    """Weigh the gradient by the output of each unit kernel: convolution is linear in it."""
    k, _, inputs, outputs = kernel.shape
    size = k * k * inputs
    units = conv64(images, np.eye(size).reshape(k, k, inputs, size), stride, padding)
    return np.einsum("nyxo,nyxu->uo", gradient, units).reshape(k, k, inputs, outputs)


def image_gradient64(images, kernel, stride, padding, gradient):
    """Weigh the gradient by the output of each unit image: convolution is linear in it too."""
    pixels = images[0].size
    units = conv64(np.eye(pixels).reshape(pixels, *images.shape[1:]), kernel, stride, padding)
    return np.einsum("nyxo,uyxo->nu", gradient, units).reshape(images.shape)


def assert_close(found, wanted):
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("gradients", GRADIENTS)
@pytest.mark.parametrize("inputs", [2, 9])  # below and above where the kernel's gradient changes
@pytest.mark.parametrize(("side", "kernel", "stride", "padding"), SHAPES)
def test_output_and_gradients_match_float64(
    gradients, inputs, side, kernel, stride, padding, monkeypatch
):
    images, weights = draw(side, kernel, inputs)

    @backend.jit
    def run(images, weights, gradient):
        def convolve(images, weights):
            return convolution.convolve(images, weights, stride, padding)

        output, pullback = jax.vjp(convolve, images, weights)
        return output, *pullback(gradient)

    wanted = conv64(images, weights, stride, padding)
    gradient = np.random.default_rng(1).standard_normal(wanted.shape).astype(np.float32)
    monkeypatch.setattr(convolution, "on_cpu", lambda: gradients == "ours")
    output, image_gradient, kernel_gradient = run(images, weights, gradient)
    assert_close(output, wanted)
    assert_close(image_gradient, image_gradient64(images, weights, stride, padding, gradient))
    assert_close(kernel_gradient, kernel_gradient64(images, weights, stride, padding, gradient))


@pytest.mark.parametrize("inputs", [3, 16])
@pytest.mark.parametrize("stride", [1, 2])
def test_both_ways_agree_at_the_sizes_of_real_networks(inputs, stride, monkeypatch):
    images, weights = draw(32, 3, inputs, 16, n=8)
    shape = jax.eval_shape(lambda x, k: convolution.convolve(x, k, stride, "SAME"), images, weights)
    gradient = np.random.default_rng(1).standard_normal(shape.shape).astype(np.float32)

    def gradients(way):
        monkeypatch.setattr(convolution, "on_cpu", lambda: way == "ours")
        convolve = functools.partial(convolution.convolve, stride=stride, padding="SAME")
        return backend.jit(lambda x, k, g: jax.vjp(convolve, x, k)[1](g))(images, weights, gradient)

    for ours, xla in zip(gradients("ours"), gradients("xla"), strict=True):
        assert_close(ours, np.asarray(xla))


@pytest.mark.parametrize(("name", "ours"), [("cpu", True), ("gpu", False), ("tpu", False)])
def test_accelerators_leave_everything_to_xla(monkeypatch, name, ours):
    monkeypatch.setattr(jax, "default_backend", lambda: name)
    images, weights = draw(7, 3)
    program = jax.make_jaxpr(lambda x, k: convolution.convolve(x, k, 2, "SAME"))(images, weights)
    assert ("custom_vjp" in str(program)) is ours
