"""Batch norm by products against float64, gradients by finite differences, and against Flax."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from allcnn import backend
from allcnn.networks import batch_norm

WAYS = ("xla", "products")
MOMENTUM, EPSILON = 0.9, 1e-5


def draw(shape=(3, 2, 2, 3), offset=2.0):
    rng = np.random.default_rng(0)
    x, gradient = offset + 3 * rng.standard_normal(shape), rng.standard_normal(shape)
    scale, bias = rng.uniform(0.5, 2, shape[-1]), rng.standard_normal(shape[-1])
    return [np.float32(values) for values in (x, scale, bias, gradient)]


def norm64(x, scale, bias):
    """Normalise each channel by itself, by NumPy's own mean and standard deviation."""
    channels = [
        scale[c] * (x[..., c] - np.mean(x[..., c])) / np.sqrt(np.var(x[..., c]) + EPSILON) + bias[c]
        for c in range(x.shape[-1])
    ]
    return np.stack(channels, axis=-1)


def gradients64(x, scale, bias, gradient, step=1e-5):
    """Central differences of the weighted output, one number at a time."""
    inputs = [np.array(values, np.float64) for values in (x, scale, bias)]
    slopes = [np.zeros_like(values) for values in inputs]
    for values, found in zip(inputs, slopes, strict=True):
        for index in np.ndindex(values.shape):
            kept, sums = values[index], []
            for shift in (step, -step):
                values[index] = kept + shift
                sums.append((norm64(*inputs) * gradient).sum())
            values[index] = kept
            found[index] = (sums[0] - sums[1]) / (2 * step)
    return slopes


def begun(channels):
    return nnx.BatchNorm(channels, momentum=MOMENTUM, epsilon=EPSILON, rngs=nnx.Rngs(0))


def run(way, x, scale, bias, gradient):
    """Return the output, the gradients, and the running statistics that began at 1 and 2."""
    ones = jnp.ones(x.shape[-1], jnp.float32)
    graph = nnx.split(begun(x.shape[-1]))[0]

    @backend.jit
    def differentiate(x, scale, bias, gradient):
        def normalise(x, scale, bias):
            state = {"scale": scale, "bias": bias, "mean": ones, "var": 2 * ones}
            norm = nnx.merge(graph, state)
            output = batch_norm.batch_norm(norm, x, train=True)
            return output, (norm.mean[...], norm.var[...])

        output, pullback, running = jax.vjp(normalise, x, scale, bias, has_aux=True)
        return output, pullback(gradient), running

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch_norm, "on_cpu", lambda: way == "products")
        return differentiate(x, scale, bias, gradient)


def assert_close(found, wanted, tolerance=1e-5):
    wanted = np.asarray(wanted)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance * np.abs(wanted).max())


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("shape", [(3, 2, 2, 3), (4, 1, 1, 2), (1, 3, 2, 1)])
def test_output_gradients_and_statistics_match_float64(way, shape):
    x, scale, bias, gradient = draw(shape)
    output, gradients, (mean, variance) = run(way, x, scale, bias, gradient)
    wide = np.float64(x)
    assert_close(output, norm64(wide, scale, bias))
    for found, wanted in zip(gradients, gradients64(x, scale, bias, gradient), strict=True):
        assert_close(found, wanted)
    assert_close(mean, 0.9 * 1 + 0.1 * wide.mean((0, 1, 2)))
    assert_close(variance, 0.9 * 2 + 0.1 * wide.var((0, 1, 2)))


@pytest.mark.parametrize("offset", [0.0, 30.0])
def test_both_ways_agree_at_the_sizes_of_real_networks(offset):
    values = draw((32, 32, 32, 16), offset)
    ours, flax = (run(way, *values) for way in WAYS)
    # At ten standard deviations the variance, a difference of squares, loses two digits either way.
    assert_close(ours[0], flax[0], 1e-5 if offset == 0 else 1e-3)
    for found, wanted in zip(jax.tree.leaves(ours[1:]), jax.tree.leaves(flax[1:]), strict=True):
        assert_close(found, wanted, 1e-5 if offset == 0 else 1e-3)


def test_a_channel_that_never_changes_is_its_bias_and_passes_no_infinity():
    _, scale, bias, gradient = draw()
    x = np.full(gradient.shape, 7, np.float32)
    output, gradients, _ = run("products", x, scale, bias, gradient)
    np.testing.assert_allclose(output, np.broadcast_to(bias, x.shape), rtol=1e-6)
    assert all(np.isfinite(found).all() for found in gradients)


def test_running_statistics_are_used_and_kept_in_evaluation():
    x, scale, bias, _ = draw()
    norm = begun(3)
    norm.scale[...], norm.bias[...] = scale, bias
    mean, variance = np.float32([1, 2, 3]), np.float32([4, 5, 6])
    norm.mean[...], norm.var[...] = mean, variance
    output = batch_norm.batch_norm(norm, x, train=False)
    assert_close(output, (x - mean) / np.sqrt(variance + EPSILON) * scale + bias)
    np.testing.assert_array_equal(norm.mean[...], mean)
    np.testing.assert_array_equal(norm.var[...], variance)


@pytest.mark.parametrize(("name", "ours"), [("cpu", True), ("gpu", False), ("tpu", False)])
def test_accelerators_leave_everything_to_flax(monkeypatch, name, ours):
    monkeypatch.setattr(jax, "default_backend", lambda: name)
    program = jax.make_jaxpr(lambda x: batch_norm.batch_norm(begun(3), x, train=True))(draw()[0])
    assert ("custom_vjp" in str(program)) is ours
