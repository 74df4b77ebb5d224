"""Every way to convolve against float64 windows, gradients by the definition of a derivative."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from allcnn import convolution
from tests.oracles import conv64

METHODS = ("xla", "views", "patches")
SHAPES = [
    (side, kernel, stride, padding)
    for side, kernel, stride, padding in itertools.product(
        (7, 8), (1, 3), (1, 2), ("SAME", "VALID")
    )
    if (side, kernel) != (7, 1)
]


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


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("side", "kernel", "stride", "padding"), SHAPES)
def test_output_and_gradients_match_float64(method, side, kernel, stride, padding):
    images, weights = draw(side, kernel)

    @jax.jit
    def run(images, weights, gradient):
        def convolve(images, weights):
            return convolution.convolve(images, weights, stride, padding, method)

        output, pullback = jax.vjp(convolve, images, weights)
        return output, *pullback(gradient)

    wanted = conv64(images, weights, stride, padding)
    gradient = np.random.default_rng(1).standard_normal(wanted.shape).astype(np.float32)
    output, image_gradient, kernel_gradient = run(images, weights, gradient)
    assert_close(output, wanted)
    assert_close(image_gradient, image_gradient64(images, weights, stride, padding, gradient))
    assert_close(kernel_gradient, kernel_gradient64(images, weights, stride, padding, gradient))


def chosen(monkeypatch, inputs):
    """Return the method that is used where none is named."""
    methods = []

    def spy(images, kernel, stride, padding, method):
        methods.append(method)
        return images

    monkeypatch.setattr(convolution, "_convolve", spy)
    images, weights = draw(7, 3, inputs=inputs)
    convolution.convolve(jnp.asarray(images), jnp.asarray(weights), 1, "SAME")
    return methods or ["xla"]


@pytest.mark.parametrize(
    ("inputs", "method"), [(1, "patches"), (3, "patches"), (16, "xla"), (96, "views")]
)
def test_the_cpu_chooses_by_input_channels(monkeypatch, inputs, method):
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    assert chosen(monkeypatch, inputs) == [method]


@pytest.mark.parametrize("backend", ["gpu", "tpu"])
@pytest.mark.parametrize("inputs", [3, 96])
def test_accelerators_leave_everything_to_xla(monkeypatch, backend, inputs):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    assert chosen(monkeypatch, inputs) == ["xla"]
