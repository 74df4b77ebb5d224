"""What the backend decides: the only place that asks which one runs."""

import functools
from collections.abc import Callable
from typing import Any, Final, TypeVar

import jax

Result = TypeVar("Result")

_YNNPACK: Final = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"}
"""Products and convolutions by YNNPACK, which took half of Eigen's time for All-CNN-C."""


def on_cpu() -> bool:
    """Return whether computations run on the CPU unless told otherwise."""
    return jax.default_backend() == "cpu"


@functools.cache
def compiler_options() -> dict[str, str]:
    """Return what XLA should be told to make convolutions fast; nothing where it knows better.

    The option is an experimental one of XLA, so that a later version may not know it.
    """
    if not on_cpu():
        return {}
    try:
        jax.jit(lambda: 0, compiler_options=_YNNPACK).lower().compile()
    except jax.errors.JaxRuntimeError:
        return {}
    return dict(_YNNPACK)


def jit(function: Callable[..., Result], **how: Any) -> Callable[..., Result]:
    """Return ``jax.jit(function, **how)`` with those options, made when it is first called.

    Finding out earlier would start the backend on import. Within another jitted function it is the
    function itself: options are for whole programs.
    """

    @functools.cache
    def jitted() -> Any:
        return jax.jit(function, compiler_options=compiler_options(), **how)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Result:
        traced = any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves((args, kwargs)))
        result: Result = (function if traced else jitted())(*args, **kwargs)
        return result

    return call
