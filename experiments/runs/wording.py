"""What the scores of a design say, in sentences for somebody who has not read the theory."""

from runs.reading import Design
from runs.scoring import Score

from rdm_jax.training import diagnose

CLOSE = 0.3  # relative error up to which a size counts as predicted
FLAT = 0.15  # variation of theta up to which a filter counts as the Wiener filter


def said(design: Design, found: dict[str, Score], ladder: dict[str, float]) -> list[str]:
    """Mechanism, size, rates, direction, and the state that the features ended in."""
    sentences = [mechanism(found), size(design, found), rates(found, ladder), direction(found), outcome(found)]
    states = [str(diagnose(run.probes)) for run in design.runs[:1]]
    told = "" if len(design.runs) == 1 else f"Seed {design.runs[0].config['seed']}: "
    return [sentence for sentence in sentences if sentence] + [told + state for state in states]


def mechanism(found: dict[str, Score]) -> str:
    """Whether the target has the higher rank."""
    difference, error = found["rank difference"], found.get("rank difference: standard error")
    share = found["rank difference: positive"].measured
    pieces = [] if difference.spread is None else [f"± {difference.spread:.1g} over the seeds"]
    pieces += [f"standard error over samples {error.measured:.2g}"] if error else []
    told = f" ({', '.join(pieces)})" if pieces else ""
    holds = "holds" if share > 0.95 else "does not hold" if share < 0.5 else "holds in part"
    return (
        f"The mechanism {holds}: the target's effective rank is the higher one at {share:.0%} of the probes after "
        f"the warm-up; at the end the difference is {difference.measured:+.2g}{told}."
    )


def size(design: Design, found: dict[str, Score]) -> str:
    """Whether the rank difference is the predicted one."""
    if "rank difference: relative error" not in found and found["rank difference"].predicted is not None:
        return "Both branches are alike, as predicted."
    if "rank difference: relative error" not in found:
        return "The method's response is not known, and so no rank difference is predicted."
    error, sign = found["rank difference: relative error"], found["rank difference: sign"]
    if design.built_in:
        return (
            "The filter is fixed, so that its rank difference is built in and no evidence for the theory "
            f"(predicted to within {error.measured:.1%})."
        )
    close = error.measured < CLOSE and error.measured < (error.chance or 0)
    return (
        f"Its sign is as predicted from the measured features at {sign.measured:.0%} of the probes (shuffled modes: "
        f"{sign.chance:.0%}), and its size {'is' if close else 'is not'} predicted: relative error "
        f"{error.measured:.0%} (shuffled modes: {error.chance:.0%})."
    )


def rates(found: dict[str, Score], ladder: dict[str, float]) -> str:
    """Whether the growth rates of the modes are the predicted ones, and where they part."""
    if "rank correlation" not in found:
        return "Too few modes could be followed for their growth to be judged."
    score = found["rank correlation"]
    better = score.measured > (score.chance or 0)
    text = (
        f"Which modes grow is predicted {'better than' if better else 'no better than'} by chance (rank correlation "
        f"{score.measured:.2f}; shuffled modes: {score.chance:.2f})."
    )
    known = {step: value for step, value in ladder.items() if value == value}
    if len(known) < 3:
        return text
    lost = min(known, key=lambda step: known[step])
    why = {
        "predicted -> free": "between the mean-field theory and the loss's own gradient in the features",
        "free -> flow": "where the gradient passes through the network, whose parameters move all modes together",
        "flow -> measured": "between the gradient flow and what a few noisy steps of the optimiser did",
    }[lost]
    return f"{text} Most of it is lost {why} (rank correlation {known[lost]:.2f} there)."


def direction(found: dict[str, Score]) -> str:
    """Whether the effective rank moves as the Wiener threshold says."""
    if "sign, next probe" not in found:
        return ""
    parts = []
    for name, when in (("sign, next steps", "over the next few steps"), ("sign, next probe", "until the next probe")):
        if name in found:
            hits, frequent = found[name], found[f"{name}: frequent"]
            parts.append(
                f"{hits.measured:.0%} {when} (shuffled modes: {hits.chance:.0%}; always the more frequent sign: "
                f"{frequent.measured:.0%})"
            )
    text = "The effective rank moves the way that the Wiener threshold (S1) says at " + ", and at ".join(parts) + "."
    if "variation of theta" not in found or found["variation of theta"].measured > FLAT:
        return text
    return (
        f"{text} The filter is nearly the Wiener filter (theta varies by {found['variation of theta'].measured:.0%} "
        "about its mean), so that theory has the rank nearly stand still and its sign says little."
    )


def outcome(found: dict[str, Score]) -> str:
    """What the features are worth."""
    if "kNN" not in found:
        return ""
    knn, untrained = found["kNN"].measured, found["kNN, untrained"].measured
    return f"kNN on the backbone: {knn:.1%}, untrained {untrained:.1%}."
