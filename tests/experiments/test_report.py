"""The report of training runs, on runs whose answers are known; tests/smoke runs it on a real one."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import report
from runs import reading, scoring, wording

from rdm_jax.reporting import plain

WIDTH, PROBES, STEPS = 6, 11, 100


def erank(spectrum):
    shares = spectrum / spectrum.sum()
    return float(np.exp(-np.sum(shares * np.log(shares))))


def stage(spectrum):
    return {"eigenvalues": spectrum, "rank": erank(spectrum), "centered_rank": 1.0, "null": WIDTH, "varying": 1.0}


def write_run(folder, seed=0, right=True, **options):
    """A run whose online branch is the filter g, predicted as g or, if not right, as 1/g; modes grow as predicted."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    config = {
        "method": "simsiam",
        "side": "online",
        "filter": None,
        "seed": seed,
        "epochs": 2,
        "batch_size": 8,
        **options,
    }
    (folder / "config.json").write_text(json.dumps(config))
    lines = []
    for step in np.linspace(0, STEPS, PROBES).astype(int):
        spectrum = np.sort(rng.gamma(2.0, size=WIDTH) + 0.1)[::-1]
        gains = spectrum**0.5
        expected = gains if right else 1 / gains
        ends = {"online": gains**2 * spectrum, "features": spectrum, "target": spectrum, "target_features": spectrum}
        probe = {name: stage(np.sort(values)[::-1]) for name, values in ends.items()}
        growth = rng.normal(size=WIDTH)
        probe |= {
            "stages": {"backbone": stage(spectrum)},
            "rank_difference": erank(spectrum) - probe["online"]["rank"],
            "predicted": {
                "online_gains": expected,
                "target_gains": np.ones(WIDTH),
                "rank_difference": erank(spectrum) - erank(expected**2 * spectrum),
            },
            "errors": {"rank_difference": 0.1},
            **{"gains": gains, "low_pass": 1.0, "alignment": np.ones(WIDTH), "theta": 1 / gains, "isotropy": 1.0},
            **{"rates": growth, "entropy_rate": 0.5},
        }
        lines.append({"kind": "probe", "step": int(step), **plain(probe)})
        if step < STEPS:
            pair = {"spectrum": spectrum, "kept": np.ones(WIDTH), "predicted": growth, "measured": 0.01 * growth}
            pair |= {
                "free": growth,
                "flow": growth,
                "measured_entropy_rate": float(scoring.entropy_speed(spectrum, growth)),
            }
            lines.append({"kind": "growth", "step": int(step) + 5, "since": int(step), **plain(pair)})
    lines.append({"kind": "train", "step": STEPS, "accuracy": 0.3})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    scores = {"untrained": {"knn": 0.2, "linear": None}, "trained": {"knn": 0.4, "linear": 0.5}}
    (folder / "results.json").write_text(json.dumps({"scores": scores}))
    return folder


def test_a_right_prediction_scores_full_marks(tmp_path):
    (design,) = reading.read([write_run(tmp_path / str(seed), seed) for seed in (1, 0)])
    assert [run.config["seed"] for run in design.runs] == [0, 1]
    found = scoring.scores(design, 0)
    assert found["rank difference: relative error"].measured < 1e-4
    assert found["rank difference: relative error"].chance > 0.1
    assert found["rank difference: sign"].measured == 1
    assert found["filter"].measured == pytest.approx(1) and found["rank correlation"].measured == pytest.approx(1)
    assert found["sign, next steps"].measured == 1
    assert found["kNN"].measured == 0.4 and found["kNN"].spread == 0
    told = " ".join(wording.said(design, found, scoring.climbed(design)))
    assert "The mechanism holds" in told and "its size is predicted" in told and "better than by chance" in told


def test_a_wrong_prediction_is_called_wrong(tmp_path):
    (design,) = reading.read([write_run(tmp_path / "run", right=False)])
    found = scoring.scores(design, 0)
    assert found["rank difference: sign"].measured < 0.5 and found["filter"].measured == pytest.approx(-1)
    assert found["kNN"].spread is None
    assert "its size is not predicted" in " ".join(wording.said(design, found, scoring.climbed(design)))


def test_the_mean_age_of_a_moving_average_is_that_of_its_weights():
    keep = np.asarray(jax.vmap(scoring.ema_schedule(0.8, 1.0, 6))(jnp.arange(6)), float)
    shares = np.array([1.0])  # of the initial weights, then of those after each step
    for rate in keep:
        shares = np.append(rate * shares, 1 - rate)
    expected = np.sum(shares * (6 - np.arange(7)))
    assert scoring.mean_ages(0.8, 1.0, 6)[-1] == pytest.approx(expected)


def test_a_lagging_target_is_predicted_from_the_rank_that_it_had(tmp_path):
    folder = write_run(tmp_path / "run", method="byol")
    ages = scoring.mean_ages(0.99, 1.0, STEPS)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        if line["kind"] == "probe":
            line["features"]["rank"] = float(np.exp(line["step"] / STEPS))
            line["target_features"]["rank"] = float(np.exp((line["step"] - ages[line["step"]]) / STEPS))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (design,) = reading.read([folder])
    found = scoring.lag(design)
    assert found["lag"].measured < 0.01 < found["lag: without it"].measured


def test_designs_are_told_apart_by_what_differs(tmp_path):
    folders = [
        write_run(tmp_path / "a"),
        write_run(tmp_path / "b", batch_size=16),
        write_run(tmp_path / "c", method="rdm_simsiam", side="target", filter="log"),
    ]
    names = ["SimSiam batch_size=8", "SimSiam batch_size=16", "RDM-SimSiam target log"]
    designs = reading.read(folders)
    assert [design.name for design in designs] == names
    assert [design.built_in for design in designs] == [False, False, True]


def test_the_report_is_one_page_that_needs_nothing_else(tmp_path, capsys):
    folders = [write_run(tmp_path / str(seed), seed) for seed in (0, 1)] + [
        write_run(tmp_path / "wrong", right=False, width=4)
    ]
    assert (
        report.main(
            report.EXPERIMENT, {"paper": report.ReportOptions()}, [*map(str, folders), "--out", str(tmp_path / "out")]
        )
        == 0
    )
    page = (tmp_path / "out" / "report.html").read_text()
    assert "The mechanism holds" in page and page.count("<img") == 3
    assert "http://" not in page and "https://" not in page and "<script" not in page
    for kind in ("png", "pdf"):
        assert len(list((tmp_path / "out" / "figures").glob(f"*.{kind}"))) == 3
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    header, rows = results["parts"]["designs"]["grid"].values()
    assert dict(zip(header, rows[0], strict=True))["seeds"] == "2"
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 100


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: (folder / "config.json").unlink(), "holds no run: config.json is missing"),
        (lambda folder: (folder / "metrics.jsonl").write_text(""), "fewer than two probes"),
        (lambda folder: (folder / "results.json").write_text("{"), "is damaged"),
    ],
)
def test_what_can_not_be_read_is_named(tmp_path, spoil, said):
    folder = write_run(tmp_path / "run")
    spoil(folder)
    command = [sys.executable, report.__file__, str(folder), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and said in done.stderr and str(folder) in done.stderr
    assert not (tmp_path / "out").exists()


def test_the_same_seed_twice_and_no_run_at_all_are_refused(tmp_path):
    with pytest.raises(ValueError, match="the seed of another run"):
        reading.read([write_run(tmp_path / "a"), write_run(tmp_path / "b")])
    with pytest.raises(ValueError, match="name the folders"):
        reading.read([])
