"""Dual-branch dynamics without nonlinearities: what the theory predicts beside what is simulated.

    python experiments/linear_dynamics.py --out runs/linear

The parts are the files in linear/. In 64-bit floats; a few minutes on two
cores for the preset paper, most of it compilation.
"""

import dataclasses
import sys

from linear import alignment, collapse, filters, gaps, growth, losses, ranks, threshold
from linear.designs import FAMILIES, RECORDS, Sizes

from rdm_jax._checks import choose
from rdm_jax.commandline import Options
from rdm_jax.experiment import Experiment, main

PARTS = (*ranks.PARTS, filters.PART, growth.PART, collapse.PART, alignment.PART, losses.PART, threshold.PART, gaps.PART)


@dataclasses.dataclass(frozen=True)
class LinearOptions(Options):
    """Dual-branch dynamics without nonlinearities: what the theory predicts beside what is simulated."""

    only: tuple[str, ...] = ()
    """Run these parts only."""
    designs: tuple[str, ...] = ()
    """Look at these designs only (default: all)."""
    modes: int = 8
    """Width of the features, d."""
    samples: int = 2048
    """Samples of every simulation, n; at least 4 times the modes."""
    seeds: int = 5
    """Draws of the samples."""
    steps: int = 400
    """Discrete steps of every simulation."""
    refinements: int = 3
    """Step lengths and numbers of samples, each 3 times the one before, at which the error is measured."""
    grid: int = 48
    """Points on each side of a phase diagram."""

    def __post_init__(self) -> None:
        """Refuse sizes that make no sense."""
        super().__post_init__()
        for name in self.designs:
            choose(name, FAMILIES, "--designs")
        self.require_at_least(modes=3, samples=4 * self.modes, seeds=2, refinements=2, grid=4)
        if self.steps < RECORDS or self.steps % RECORDS:
            raise ValueError(f"--steps must be a multiple of {RECORDS}, the number of records; got {self.steps}")

    @property
    def sizes(self) -> Sizes:
        """What the simulations depend on."""
        return Sizes(self.modes, self.samples, self.seeds, self.steps, self.steps // RECORDS, self.seed)


PRESETS = {
    "paper": LinearOptions(),
    "small": LinearOptions(preset="small", samples=512, seeds=3, steps=200, grid=24),
    "smoke": LinearOptions(
        preset="smoke",
        designs=("learned", "linear"),
        modes=4,
        samples=64,
        seeds=2,
        steps=100,
        refinements=2,
        grid=6,
    ),
}
EXPERIMENT = Experiment(
    name="linear_dynamics",
    title="Dual-branch dynamics, predicted and simulated",
    about="Free features and linear branches descend their losses; beside each run stands what the theory of the Rank "
    "Differential Mechanism predicts for it.",
    parts=PARTS,
    float64=True,
    quick=True,
)

if __name__ == "__main__":
    sys.exit(main(EXPERIMENT, PRESETS))
