"""Dual-branch dynamics of nonlinear networks trained by SGD: the theory's predictions beside every method's training.

    python experiments/nonlinear_dynamics.py --out runs/nonlinear

The parts are the files in nonlinear/; docs/dynamics.md walks through their figures. In 32-bit floats, as training is;
the preset paper takes about ten minutes on two cores.
"""

import dataclasses
import sys

from nonlinear import alignment, causes, collapse, filters, growth, ranks, threshold
from nonlinear.designs import Sizes, table

from rdm_jax._checks import choose
from rdm_jax.commandline import Options
from rdm_jax.experiment import Experiment, main

PARTS = (
    *(part.PART for part in (ranks, filters, growth, threshold, alignment, collapse)),
    causes.RANKS,
    causes.CHANGED,
    causes.MEMORY,
    causes.GROWTH,
)


@dataclasses.dataclass(frozen=True)
class NonlinearOptions(Options):
    """Dual-branch dynamics of nonlinear networks: the theory's predictions beside every method's training."""

    only: tuple[str, ...] = ()
    """Run these parts only."""
    designs: tuple[str, ...] = tuple(table(16))
    """Look at these designs only (the parts collapse and causes have their own)."""
    modes: int = 16
    """Factors of the data, and width of the features, d."""
    batch: int = 512
    """Samples of a batch."""
    probe: int = 2048
    """Samples of the probe set."""
    seeds: int = 3
    """Runs of every design: data, weights and batches."""
    steps: int = 600
    """Steps of SGD."""
    every: int = 15
    """Steps between probes."""

    def __post_init__(self) -> None:
        """Refuse sizes that make no sense."""
        super().__post_init__()
        for name in self.designs:
            choose(name, table(self.modes), "--designs")
        self.require_at_least(modes=4, batch=2 * self.modes, probe=self.batch, seeds=2, every=1)
        if self.steps < 2 * self.every or self.steps % self.every:
            raise ValueError(
                f"--steps must be a multiple of --every, at least twice it; got {self.steps}, {self.every}"
            )

    @property
    def sizes(self) -> Sizes:
        """What the runs depend on."""
        return Sizes(self.modes, 2 * self.modes, self.batch, self.probe, self.seeds, self.steps, self.every, self.seed)


PRESETS = {
    "paper": NonlinearOptions(),
    "small": NonlinearOptions(
        preset="small", designs=("SimSiam", "RDM-SimSiam online", "RDM-SimSiam target", "SymSimSiam"), steps=300
    ),
    "smoke": NonlinearOptions(
        preset="smoke",
        only=("ranks", "filters", "growth", "threshold", "alignment"),
        designs=("RDM-SimSiam online",),
        modes=4,
        batch=32,
        probe=64,
        seeds=2,
        steps=8,
        every=2,
    ),
}
EXPERIMENT = Experiment(
    name="nonlinear_dynamics",
    title="Nonlinear dual-branch dynamics, predicted and measured",
    about="Every method trains a perceptron by SGD on data whose view noise is known; beside what is measured stands "
    "what the theory of the Rank Differential Mechanism predicts from the measured state.",
    parts=PARTS,
    quick=True,
)

if __name__ == "__main__":
    sys.exit(main(EXPERIMENT, PRESETS))
