"""Theory beside training: what was predicted from each probe of training runs, and what came, in one page.

    python experiments/report.py runs/byol runs/simsiam --out runs/report

Takes folders that resnet_cifar.py has left. Runs that differ in nothing but the seed are judged together. The page
opens from disk and needs no network; the parts are in runs/.
"""

import dataclasses
import sys
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Any

import tyro
from runs import pictures, reading, scoring, wording
from runs.scoring import Score

from rdm_jax.commandline import Options
from rdm_jax.experiment import Experiment, Finding, Grid, Outcome, Part, Tell, main

Scores = dict[str, Score]

COLUMNS = (
    "design",
    "seeds",
    "rank difference",
    "predicted",
    "low-pass index",
    "sign of d erank/dt (chance)",
    "growth rates (chance)",
    "effective rank",
    "kNN",
    "linear",
)
FINDINGS = {  # the name of the score: how the report says it
    "rank difference": "rank difference at the end",
    "rank difference: sign": "  share of probes with the predicted sign",
    "rank difference: relative error": "  relative error of the prediction",
    "filter": "order of the online filter's gains: rank correlation",
    "low-pass index": "  low-pass index at the end",
    "rank correlation": "growth rates of the modes: rank correlation",
    "beyond": "  beyond the order of the eigenvalues",
    "explained variance": "  variance explained, one scale factor",
    "growing modes": "  modes that grow relative to the spectrum: right sign",
    "sign, next steps": "right sign of d erank/dt, next steps",
    "sign, next probe": "right sign of d erank/dt, until the next probe",
    "sign, next probe: frequent": "  share of the more frequent sign",
    "sign, next probe: explained": "  variance of d erank/dt explained",
    "variation of theta": "  theta's standard deviation over its mean",
    "lag": "rank of the moving average's features, from its lag: relative error",
    "lag: without it": "  without the lag",
    "effective rank": "effective rank of the features at the end",
    "isotropy of the view noise": "isotropy of the view noise (1: isotropic)",
    "kNN": "kNN accuracy",
    "kNN, untrained": "  of the untrained network",
    "linear probe": "linear probe",
}


@dataclasses.dataclass(frozen=True)
class ReportOptions(Options):
    """What theory predicted from each probe of training runs beside what came: one page, figures and JSON."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """Folders of training runs (of resnet_cifar.py)."""
    pdf: bool = True
    """Also leave each figure as PDF."""


def parts(options: ReportOptions) -> Sequence[Part]:
    """The designs side by side, then one part for each."""
    designs = reading.read(options.runs)
    scores = cache(lambda number: scoring.scores(designs[number], options.seed))  # for the table and for its own part
    together = Part(
        "designs",
        "All designs side by side",
        "Mean over the seeds with their standard deviation as a bar. From left: rank difference at the end, with the "
        "prediction; how often theory has the right sign of d erank/dt until the next probe; rank correlation of "
        "predicted and measured growth rates, both with what one shuffling of the modes in 20 exceeds; kNN accuracy on "
        "the backbone, with that of the untrained network.",
        partial(compare, designs, scores),
        pictures.draw_compared,
        (7.2, 1.3 + 0.3 * len(designs)),
    )
    own = [
        Part(
            slug(i, design.name),
            design.name,
            pictures.CAPTION,
            partial(compute, design, partial(scores, i)),
            pictures.draw,
            pictures.SIZE,
        )
        for i, design in enumerate(designs)
    ]
    return [together, *own]


def compare(designs: Sequence[reading.Design], scores: Callable[[int], Scores], options: Any, tell: Tell) -> Outcome:
    """The table of all designs."""
    found = []
    for number, design in enumerate(designs):
        tell(design.name, number / len(designs))
        found.append(scores(number))
    rows = [row(design, score) for design, score in zip(designs, found, strict=True)]
    remarks = [
        "With a fixed filter, or none, the rank difference is built in (*), and its prediction is no evidence."
    ] * any(design.built_in for design in designs)
    names = [starred(design) for design in designs]
    return Outcome(pictures.compared(names, found), [], remarks, Grid(COLUMNS, rows))


def row(design: reading.Design, found: Scores) -> list[str]:
    """Of the table."""
    difference = found["rank difference"]
    cells = [
        with_spread(difference, "+.2f"),
        "" if difference.predicted is None else f"{difference.predicted:+.2f}",
        f"{found['low-pass index'].measured:+.2f}" if "low-pass index" in found else "",
        with_chance(found.get("sign, next probe"), ".0%"),
        with_chance(found.get("rank correlation"), ".2f"),
        with_spread(found.get("effective rank"), ".2f"),
        with_spread(found.get("kNN"), ".1%"),
        with_spread(found.get("linear probe"), ".1%"),
    ]
    return [starred(design), str(len(design.runs)), *cells]


def compute(design: reading.Design, scores: Callable[[], Scores], options: Any, tell: Tell) -> Outcome:
    """The page of a design."""
    tell("scores", 0.2)
    found, ladder = scores(), scoring.climbed(design)
    findings = [
        Finding(text, found[name].measured, found[name].predicted, found[name].chance, found[name].spread)
        for name, text in FINDINGS.items()
        if name in found
    ]
    return Outcome(pictures.gathered(design, ladder), findings, wording.said(design, found, ladder))


def starred(design: reading.Design) -> str:
    """Its name, with a star if its rank difference is built in."""
    return design.name + "\N{NO-BREAK SPACE}*" * design.built_in


def with_spread(score: Score | None, form: str) -> str:
    """A mean and its standard deviation."""
    if score is None:
        return ""
    if score.spread is None:
        return f"{score.measured:{form}}"
    spread = 100 * score.spread if form.endswith("%") else score.spread
    return f"{score.measured:{form}} ± {spread:.1g}".replace(" ", "\N{NO-BREAK SPACE}")


def with_chance(score: Score | None, form: str) -> str:
    """A score and what shuffled modes reach."""
    return "" if score is None else f"{score.measured:{form}} ({score.chance:{form}})"


def slug(number: int, name: str) -> str:
    """A name for files and links."""
    return f"{number + 1:02d}-" + "-".join("".join(c if c.isalnum() else " " for c in name.lower()).split())


EXPERIMENT = Experiment(
    name="report",
    title="Theory beside training",
    about="At every probe of a training run the theory of the Rank Differential Mechanism predicts, from the measured "
    "spectra and view noise, the rank difference of the branches, which modes grow, and which way the effective rank "
    "goes. Here that stands beside what came.",
    parts=parts,
)

if __name__ == "__main__":
    sys.exit(main(EXPERIMENT, {"paper": ReportOptions()}))
