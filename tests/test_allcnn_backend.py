"""What the backend decides: options of the compiler, and where they must not reach."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from allcnn import backend
from allcnn.networks import convolution


@pytest.fixture(autouse=True)
def fresh():
    """Forget what was found out, before and after."""
    backend.compiler_options.cache_clear()
    yield
    backend.compiler_options.cache_clear()


def test_this_version_of_xla_knows_the_option():
    assert backend.compiler_options() == backend._YNNPACK


def test_a_version_that_does_not_know_the_option_is_told_nothing(monkeypatch):
    monkeypatch.setattr(backend, "_YNNPACK", {"xla_cpu_no_such_option": "1"})
    assert backend.compiler_options() == {}


@pytest.mark.parametrize(
    ("name", "options"), [("gpu", {"xla_gpu_deterministic_ops": True}), ("tpu", {})]
)
def test_gpus_are_told_to_repeat_themselves_to_the_bit(monkeypatch, name, options):
    monkeypatch.setattr(jax, "default_backend", lambda: name)
    assert backend.compiler_options() == options


@pytest.mark.parametrize(("name", "wanted"), [("gpu", True), ("tpu", True), ("cpu", False)])
def test_accelerators_multiply_float32_in_all_its_bits(monkeypatch, name, wanted):
    monkeypatch.setattr(backend, "on_cpu", lambda: name == "cpu")
    monkeypatch.setattr(convolution, "on_cpu", lambda: False)
    traced = []

    @backend.jit
    def work(x, kernel):
        def product(x, kernel):
            return convolution.convolve(x @ x, kernel, 1, "SAME")

        traced.append(str(jax.make_jaxpr(product)(x, kernel)))
        return product(x, kernel)

    work(jnp.ones((1, 4, 2, 2)), jnp.ones((3, 3, 2, 2)))
    assert traced[0].count("precision=(Precision.HIGHEST, Precision.HIGHEST)") == 2 * wanted


def test_options_reach_the_program_and_functions_work_within_others(monkeypatch):
    programs = []
    original = jax.jit

    def jit(function, **how):
        programs.append((function.__name__, how))
        return original(function, **how)

    monkeypatch.setattr(jax, "jit", jit)

    @functools.partial(backend.jit, static_argnames="power")
    def raised(x, power):
        """Raise to a power."""
        return x**power

    assert raised.__doc__ == "Raise to a power."
    assert raised(jnp.arange(3), 2).tolist() == [0, 1, 4]
    assert raised(jnp.arange(3), power=3).tolist() == [0, 1, 8]
    outer = original(lambda x: raised(x, 2) + 1)
    np.testing.assert_array_equal(outer(jnp.arange(3)), [1, 2, 5])
    options = {"compiler_options": backend._YNNPACK, "static_argnames": "power"}
    assert [how for name, how in programs if name == "raised"] == [options]
