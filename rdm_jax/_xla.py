"""Options of XLA's CPU compiler for many small problems, where compiling takes longer than running.

They must be in the environment before jax starts its backend; so nothing here imports jax.
"""

from importlib.metadata import version


def quick_flags() -> str:
    """``XLA_FLAGS`` that compile faster, to slower code: no constant folding, no unrolling, one thread.

    Hypotheses and masks that hold by construction would be folded to constants element by element.
    """
    flags = [
        "--xla_cpu_parallel_codegen_split_count=1",
        "--xla_disable_hlo_passes=constant_folding",
        "--xla_backend_optimization_level=1",
        "--xla_backend_extra_options=xla_cpu_disable_loop_unrolling",
    ]
    # XLA ends the process over an option that it does not know, as newer ones do not know this one.
    if tuple(map(int, version("jaxlib").split(".")[:2])) < (0, 11):
        flags.append("--xla_cpu_use_fusion_emitters=false")
    return " ".join(flags)
