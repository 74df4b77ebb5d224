"""The schedule's known answers, and three steps of the optimiser written out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from allcnn.settings.run import RunConfig
from allcnn.training.recipe import Lange


@pytest.mark.parametrize(
    ("epochs", "steps", "drops"),
    [(350, 390, (200, 250, 300)), (7, 3, (4, 5, 6)), (70, 10, (40, 50, 60))],
)
def test_the_rate_falls_to_a_tenth_after_each_milestone(epochs, steps, drops):
    rate = Lange().learning_rate(RunConfig.of(epochs=epochs), steps)
    wanted = 0.1
    assert rate(jnp.int32(0)) == pytest.approx(0.1)
    for epoch in drops:
        assert rate(jnp.int32(epoch * steps - 1)) == pytest.approx(wanted)
        wanted /= 10
        assert rate(jnp.int32(epoch * steps)) == pytest.approx(wanted)
    assert rate(jnp.int32(epochs * steps - 1)) == pytest.approx(1e-4)


def test_milestones_that_coincide_count_each():
    # One epoch of two steps: 200/350 and 250/350 of it are step 1, 300/350 is step 2.
    rate = Lange().learning_rate(RunConfig.of(epochs=1, learning_rate=1.0), 2)
    assert [float(rate(jnp.int32(step))) for step in range(2)] == pytest.approx([1, 0.01])


def by_hand(params, gradients, decay, rate):
    """SGD as the docstring of the recipe has it, in float64, one parameter at a time."""
    params = {name: np.float64(value) for name, value in params.items()}
    traces = {name: np.zeros_like(value) for name, value in params.items()}
    for gradient in gradients:
        total = {name: np.float64(value) for name, value in gradient.items()}
        total["kernel"] = total["kernel"] + decay * params["kernel"]
        norm = np.sqrt(sum((value**2).sum() for value in total.values()))
        for name, value in total.items():
            clipped = value * min(1, 2 / norm)
            traces[name] = 0.9 * traces[name] + clipped
            params[name] = params[name] - rate * (clipped + 0.9 * traces[name])
    return params


def run(params, gradients, decay):
    transform = Lange().optimiser(RunConfig.of(epochs=100, weight_decay=decay), 1)
    params = {"conv1": {"conv": {"kernel": params["kernel"]}, "norm": {"scale": params["scale"]}}}
    state = transform.init(params)
    for gradient in gradients:
        tree = {
            "conv1": {"conv": {"kernel": gradient["kernel"]}, "norm": {"scale": gradient["scale"]}}
        }
        updates, state = transform.update(tree, state, params)
        params = jax.tree.map(jnp.add, params, updates)
    return {"kernel": params["conv1"]["conv"]["kernel"], "scale": params["conv1"]["norm"]["scale"]}


@pytest.mark.parametrize("size", [0.1, 10.0], ids=["below the clip", "clipped"])
@pytest.mark.parametrize("decay", [0.0, 0.05, 3.0])
def test_three_steps_match_those_by_hand(size, decay):
    rng = np.random.default_rng(0)

    def draw(scale):
        shapes = {"kernel": (3, 3, 2, 2), "scale": (2,)}
        return {
            name: jnp.asarray(scale * rng.standard_normal(shape), jnp.float32)
            for name, shape in shapes.items()
        }

    params, gradients = draw(1.0), [draw(size) for _ in range(3)]
    found, wanted = run(params, gradients, decay), by_hand(params, gradients, decay, 0.1)
    for name in wanted:
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-5, atol=1e-6)


def test_only_kernels_decay():
    # Without a gradient, only the L2 term moves anything: 0.1 x (1 + 0.9) x 0.01 of the kernel.
    params = {"kernel": jnp.ones(1), "scale": jnp.ones(1)}
    zeros = jax.tree.map(jnp.zeros_like, params)
    found = run(params, [zeros], 0.01)
    assert float(found["kernel"][0]) == pytest.approx(1 - 0.1 * 1.9 * 0.01)
    assert float(found["scale"][0]) == 1


def test_the_decay_is_clipped_with_the_gradient():
    # 100 x the kernel of norm 1, far above 2: clipped first, it would move the kernel by 19.
    params = {"kernel": jnp.ones(1), "scale": jnp.ones(1)}
    zeros = jax.tree.map(jnp.zeros_like, params)
    assert float(run(params, [zeros], 100.0)["kernel"][0]) == pytest.approx(1 - 0.1 * 1.9 * 2)
