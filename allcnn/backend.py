"""Choices that depend on the backend; no other module asks which one runs."""

import functools
from collections.abc import Callable
from typing import Any, Final, TypeVar

import jax

Result = TypeVar("Result")

_YNNPACK: Final[dict[str, str | bool]] = {
    "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"
}
"""Products and convolutions by YNNPACK, which took half of Eigen's time for All-CNN-C."""

_DETERMINISTIC: Final[dict[str, str | bool]] = {"xla_gpu_deterministic_ops": True}
"""No atomic sums, and no algorithm that an earlier measurement chose: the same bits every time."""


def on_cpu() -> bool:
    """Return whether computations run on the CPU by default."""
    return jax.default_backend() == "cpu"


@functools.cache
def compiler_options() -> dict[str, str | bool]:
    """Return XLA's options for fast convolutions on the CPU, reproducible ones on a GPU.

    There are none where this version of XLA does not know them.
    """
    options: dict[str, dict[str, str | bool]] = {"cpu": _YNNPACK, "gpu": _DETERMINISTIC}
    wanted = options.get(jax.default_backend(), {})
    try:
        jax.jit(lambda: 0, compiler_options=wanted).lower().compile()
    except jax.errors.JaxRuntimeError:
        return {}
    return dict(wanted)


def jit(function: Callable[..., Result], **how: Any) -> Callable[..., Result]:
    """Return ``jax.jit(function, **how)`` with those options, made when it is first called.

    Accelerators multiply float32 in all its bits, as the CPU does, instead of in TF32 or bfloat16.
    Finding out earlier would start the backend on import. Within another jitted function it is the
    function itself: options are for whole programs.
    """

    @functools.cache
    def jitted() -> Any:
        return jax.jit(function, compiler_options=compiler_options(), **how)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Result:
        traced = any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves((args, kwargs)))
        if traced:
            return function(*args, **kwargs)
        with jax.default_matmul_precision(None if on_cpu() else "highest"):
            result: Result = jitted()(*args, **kwargs)
        return result

    return call
