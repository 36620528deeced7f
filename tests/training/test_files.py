"""The probe of saved files: the numbers are those of the arrays in memory, and what is wrong is said by name."""

import json
import re
import zipfile

import jax
import numpy as np
import pytest

from rdm_jax import __main__
from rdm_jax.methods import get
from rdm_jax.training import LossKind, files, measure, probe, rank_errors
from rdm_jax.training._arrays import open_rows
from rdm_jax.training._told import _slope

SAMPLES, WIDTH = 61, 5  # prime: blocks are of different lengths
NAMES = ("online", "target", "features")


@pytest.fixture(scope="module")
def arrays():
    """Two noisy views whose second differs, a filter that does not commute, a mean; float16 holds them exactly."""
    rng = np.random.default_rng(0)
    content = rng.normal(size=(SAMPLES, WIDTH)) * [3, 2, 1.5, 1, 0.5] + [1, 0, 0, 0, 0.3]
    z = np.stack([content + 0.3 * rng.normal(size=content.shape) for _ in range(2)])
    mixing = np.diag([1, 0.8, 0.5, 0.3, 0.2]) + 0.1 * rng.normal(size=(WIDTH, WIDTH))
    branches = {"online": z @ mixing, "target": z * [1, 1.1, 1, 0.9, 1], "features": z, "layer": np.tanh(z[..., :3])}
    return {name: rows.astype(np.float16) for name, rows in branches.items()}


@pytest.fixture
def folder(arrays, tmp_path):
    for name, views in arrays.items():
        for view, rows in zip(("1", "2"), views, strict=True):
            np.save(tmp_path / f"{name}{view}.npy", rows)
    return tmp_path


def opened(folder, names, views):
    return {name: [open_rows(str(folder / f"{name}{view}.npy")) for view in "12"[:views]] for name in names}


def same(found, expected):
    """All but the sign of eigenvectors; ``atol`` for the mean over rows, in float32, of numbers about 1."""
    found, expected = (record._replace(vectors=abs(record.vectors)) for record in (found, expected))
    paths = jax.tree_util.tree_leaves_with_path(expected)
    assert len(paths) >= 38
    for (path, there), here in zip(paths, jax.tree.leaves(found), strict=True):
        np.testing.assert_allclose(here, there, rtol=2e-4, atol=2e-5, err_msg=jax.tree_util.keystr(path))


@pytest.mark.parametrize("block", [4, 17, 60, 4096])
def test_two_views_are_those_of_the_arrays_in_blocks_of_any_size(folder, arrays, block):
    branches = {name: arrays[name] for name in NAMES}
    expected = probe(**branches, stages={"layer": arrays["layer"]}, method=get("linear"), kind=LossKind("cosine"))
    assert np.isfinite(expected.predicted.rank_difference) and np.isfinite(expected.theta).all()
    same(files.probe_files(opened(folder, NAMES, 2), opened(folder, ["layer"], 2), block=block), expected)


def test_one_view_is_that_of_the_array_and_view_noise_is_unknown(folder, arrays):
    found = files.probe_files(opened(folder, NAMES[:2], 1), {}, block=20)
    same(found, probe(arrays["online"][0], arrays["target"][0]))
    assert np.isnan(found.entropy_rate) and np.isnan(found.predicted.rank_difference) and found.errors.online > 0


def test_a_method_and_its_epoch_enter_the_prediction(folder, arrays):
    method = get("dino", teacher_temperature=(0.04, 0.4, 10))
    found = [files.probe_files(opened(folder, NAMES[:2], 1), {}, method, epoch=epoch) for epoch in (0.0, 10.0)]
    first, last = (record.predicted.target_gains for record in found)  # in proportion to 1 / temperature
    np.testing.assert_allclose(first[:4], 10 * last[:4], rtol=1e-5)


def test_standard_errors_count_both_views_of_a_sample_as_one(folder, arrays):
    found = files.probe_files(opened(folder, NAMES, 2), {}, block=20).errors
    expected = by_hand(*(arrays[name].astype(np.float64) for name in NAMES))
    np.testing.assert_allclose(found, expected, rtol=1e-3)  # float32, and logarithms of eigenvalues
    apart = by_hand(*(arrays[name].astype(np.float64).reshape(1, -1, WIDTH) for name in NAMES))
    assert found.online > 1.2 * apart[0]


def by_hand(online, target, features):
    """sqrt(mean psi^2 / n) with psi from the eigensystem of NumPy, in float64."""
    psi = []
    for views in (online, target, features):
        moment = np.einsum("vni,vnj->ij", views, views) / views.shape[0] / views.shape[1]
        values, vectors = np.linalg.eigh(moment)
        shares = values / values.sum()
        entropy = -np.sum(shares * np.log(shares))
        along = (views @ vectors) ** 2
        psi.append(-np.exp(entropy) * (along @ (np.log(shares) + entropy) / values.sum()).mean(0))
    ranked = [*psi, psi[1] - psi[0]]
    return [np.sqrt(np.mean(one**2) / len(one)) for one in ranked]


@pytest.mark.parametrize("dtype", ["float32", "float64", "int16", ">f4"])
@pytest.mark.parametrize("kind", ["npy", "by columns", "npz", "packed", "packed by columns"])
def test_every_kind_of_file_gives_its_rows(tmp_path, dtype, kind):
    rows = np.arange(22.0).reshape(11, 2).astype(dtype)
    ordered = np.asfortranarray(rows) if "by columns" in kind else rows
    name = str(tmp_path / ("z.npy" if kind in ("npy", "by columns") else "z.npz"))
    if name.endswith("npy"):
        np.save(name, ordered)
    else:
        (np.savez if kind == "npz" else np.savez_compressed)(name, other=np.zeros(3), z=ordered)
        name += ":z"
    blocks = list(open_rows(name).blocks(4))
    assert [len(block) for block in blocks] == [3, 4, 4] and {block.dtype for block in blocks} == {np.dtype("float32")}
    np.testing.assert_array_equal(np.concatenate(blocks), np.asarray(rows, np.float32))


def test_the_only_array_of_an_archive_needs_no_key(tmp_path):
    np.savez(tmp_path / "z.npz", np.eye(3))
    assert open_rows(str(tmp_path / "z.npz")).shape == (3, 3)


# The command line.


def call(capsys, *words):
    code = __main__.main(["probe", *map(str, words)])
    said = capsys.readouterr()
    return code, said.out, said.err


def options(folder, views=2, names=NAMES):
    words = []
    for name in names:
        words += [f"--{name}", folder / f"{name}1.npy"]
        words += [f"--{name}-second", folder / f"{name}2.npy"] if views == 2 else []
    return words


def test_two_views_are_reported_and_kept(folder, arrays, capsys):
    stages = [f"layer={folder / f'layer{view}.npy'}" for view in "12"]
    code, said, complaint = call(capsys, *options(folder), "--stages", *stages, "--out", folder / "new")
    assert (code, complaint) == (0, "")
    assert max(map(len, said.splitlines())) <= 80
    kept = json.loads((folder / "new" / "probe.json").read_text())
    record = kept["record"]
    branches = {name: arrays[name] for name in NAMES}
    expected = probe(**branches, stages={"layer": arrays["layer"]}, method=get("linear"), kind=LossKind("cosine"))
    ranks = [record[name]["rank"] for name in NAMES]
    np.testing.assert_allclose(ranks, [getattr(expected, name).rank for name in NAMES], rtol=1e-4)
    assert kept["config"]["online"] == str(folder / "online1.npy") and kept["run"]["packages"]["jax"]
    assert "vectors" not in record and len(record["gains"]) == WIDTH
    shown = [said.split(f"\n  {name} ")[1].split("±")[0] for name in NAMES]
    np.testing.assert_allclose(list(map(float, shown)), ranks, rtol=1e-3)
    assert f"difference      {expected.rank_difference:+.4g} ±" in said
    assert "learned linear predictor (Wiener" in said and "log lambda" in said
    assert f"dH/dt = {expected.entropy_rate:+.3g}" in said
    assert f"{1 - expected.signal.sum() / expected.features.eigenvalues.sum():.1%} of the features'" in said
    for name in ("spectra.png", "filter.png"):
        assert (folder / "new" / name).read_bytes()[1:4] == b"PNG"
    assert sorted(path.name for path in (folder / "new").iterdir()) == ["filter.png", "probe.json", "spectra.png"]


def test_one_view_says_that_view_noise_is_unknown(folder, capsys):
    long = folder / ("long" * 30)
    long.mkdir()
    (folder / "online1.npy").rename(long / "online1.npy")
    words = ["--online", long / "online1.npy", "--target", folder / "target1.npy"]
    code, said, _ = call(capsys, *words)
    assert code == 0 and max(map(len, said.splitlines())) <= 80
    assert re.search("view noise +unknown from one view", said) and "Give --online-second" in " ".join(said.split())
    assert "dH/dt" not in said and "predicted" not in said and "learned linear" not in said
    code, said, _ = call(capsys, *words, "--method", "rdm_simsiam")
    assert code == 0 and re.search("predicted +rank difference .* for rdm_simsiam", said)


def test_theta_that_falls_with_lambda_is_more_low_pass_than_wiener():
    """S1: dH/dt and the correlation have opposite signs, whatever the spectra."""
    rng = np.random.default_rng(1)
    for _ in range(5):
        z = rng.normal(size=(200, 4)) * [3, 2, 1, 0.5] + 0.8 * rng.normal(size=(2, 200, 4))
        record = probe(z * rng.uniform(0.3, 1, 4), z)
        line = {"features": {"eigenvalues": record.features.eigenvalues}, "theta": record.theta, "gains": record.gains}
        assert np.sign(_slope(line)) == -np.sign(record.entropy_rate)


def damaged(folder, name, change):
    rows = np.load(folder / "online1.npy").astype(np.float64)
    path = folder / name
    if change in ("truncated", "truncated archive"):
        with path.open("wb") as file:
            (np.save if change == "truncated" else np.savez)(file, rows)
        path.write_bytes(path.read_bytes()[:-40])
    elif change == "text":
        path.write_text("1.0 2.0\n")
    elif change == "empty":
        path.write_bytes(b"")
    elif change == "objects":
        np.save(path, np.array([[{}, 1]] * SAMPLES, object), allow_pickle=True)
    elif change == "strings":
        np.save(path, rows.astype(str))
    elif change == "complex":
        np.save(path, rows * 1j)
    else:
        np.save(path, change(rows))
    return path


def put(value):
    def change(rows):
        rows[40, 2] = value
        return rows

    return change


BAD_FILES = {
    "rows": (lambda rows: rows[:60], "bad.npy has 60 rows, and .*online1.npy 61: all files must hold the same samples"),
    "columns": (lambda rows: rows[:, :4], "bad.npy has 4 columns, and .*online1.npy 5: .*give layers of other widths"),
    "NaN": (put(np.nan), "bad.npy holds NaN or inf, first in row 40: drop such rows"),
    "inf": (put(-np.inf), "bad.npy holds NaN or inf, first in row 40: drop such rows"),
    "beyond float32": (put(1e60), "bad.npy goes beyond float32 in row 40: divide it by a constant"),
    "large": (lambda rows: rows * 1e25, "bad.npy: entries so large that float32 can't square them: rescale all"),
    "small": (lambda rows: rows * 1e-30, "bad.npy: entries so small that float32 can't square them: rescale all"),
    "one sample": (lambda rows: rows[:1], r"bad.npy has shape \(1, 5\): save one view in each file, \(n, d\) with n"),
    "no feature": (lambda rows: rows[:, :0], r"bad.npy has shape \(61, 0\): save one view in each"),
    "both views": (lambda rows: np.stack([rows, rows]), r"bad.npy has shape \(2, 61, 5\): save one view in each"),
    "constant": (lambda rows: rows * 0 + rows[:1], "bad.npy is the same in every row: there is no spectrum"),
    "zero": (lambda rows: rows * 0, "bad.npy is all zero: there is no spectrum"),
    "truncated": ("truncated", r"bad.npy can't be read \(it ends too early\): save it anew"),
    "truncated archive": ("truncated archive", r"bad.npy can't be read \(.*\): save it anew"),
    "text": ("text", r"bad.npy can't be read \(the magic string is not correct.*\): save it anew with np.save"),
    "empty": ("empty", r"bad.npy can't be read \(.*\): save it anew with np.save"),
    "objects": ("objects", r"bad.npy holds pickled Python objects where real numbers are needed: save it with"),
    "strings": ("strings", r"bad.npy holds <U\d+ where real numbers are needed"),
    "complex": ("complex", r"bad.npy holds complex128 where real numbers are needed"),
}


@pytest.mark.parametrize(("change", "message"), BAD_FILES.values(), ids=BAD_FILES.keys())
def test_a_bad_file_gets_a_sentence_and_leaves_nothing(folder, capsys, change, message):
    path = damaged(folder, "bad.npy", change)
    words = ["--online", folder / "online1.npy", "--target", path, "--out", folder / "new"]
    code, said, complaint = call(capsys, *words)
    assert (code, said) == (2, "")
    assert re.fullmatch(f"error: .*{message}.*\n", complaint)
    assert not [entry for entry in folder.iterdir() if "new" in entry.name]


def test_a_damaged_archive_is_noticed(folder, capsys):
    path = folder / "z.npz"
    np.savez(path, z=np.load(folder / "target1.npy"))
    whole = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo("z.npy").header_offset
    whole[start + 250] ^= 1
    path.write_bytes(whole)
    code, _, complaint = call(capsys, "--online", folder / "online1.npy", "--target", path)
    assert code == 2 and re.search("z.npz .*CRC.*: save it anew", complaint)


BAD_WORDS = {
    "absent": (["--target", "{0}/absent.npy"], "there is no file .*absent.npy: check its name"),
    "folder": (["--target", "{0}"], "there is no file"),
    "key": (["--target", "{0}/two.npz:on"], r"two.npz holds the arrays one, two: name one of them, as in .*:one"),
    "no key": (["--target", "{0}/two.npz"], r"two.npz holds the arrays one, two: name one of them"),
    "key of no archive": (["--target", "{0}/plain.npz:one"], "plain.npz is no archive, and has no array one"),
    "half of the views": (["--online-second", "{0}/online2.npy"], "--online-second is given without --target-second"),
    "other half": (["--target-second", "{0}/target2.npy"], "--target-second is given without --online-second"),
    "features' view": (["--features-second", "{0}/online2.npy"], "--features-second has no --features"),
    "stage": (["--stages", "{0}/layer1.npy"], "--stages must be NAME=FILE, got '.*layer1.npy'"),
    "stage thrice": (["--stages", *3 * ["a={0}/layer1.npy"]], "--stages names a more than twice"),
    "stage's views": (["--stages", "a={0}/layer1.npy", "a={0}/target1.npy"], "the views of a, differ in their columns"),
    "method": (["--method", "simsam"], "method must be one of .*did you mean 'simsiam'"),
    "out": (["--out", "{0}"], "exists and is not empty: name a new folder with --out"),
    "out is a file": (["--out", "{0}/online1.npy"], "online1.npy is a file: --out must name a folder"),
}


@pytest.mark.parametrize(("words", "message"), BAD_WORDS.values(), ids=BAD_WORDS.keys())
def test_bad_usage_gets_a_sentence(folder, capsys, words, message):
    np.savez(folder / "two.npz", one=np.eye(3), two=np.eye(3))
    (folder / "plain.npz").write_bytes((folder / "online1.npy").read_bytes())
    before = sorted(folder.iterdir())
    given = ["--online", folder / "online1.npy", *([] if "--target" in words else ["--target", folder / "target1.npy"])]
    code, said, complaint = call(capsys, *given, *(word.format(folder) for word in words))
    assert (code, said) == (2, "") and re.fullmatch(f"error: .*{message}.*\n", complaint)
    assert sorted(folder.iterdir()) == before


def test_another_command_is_refused(capsys):
    assert __main__.main(["prob"]) == 2 and "there is no command 'prob'" in capsys.readouterr().err
    assert __main__.main([]) == 2 and "call python -m rdm_jax probe" in capsys.readouterr().err
    assert __main__.main(["--help"]) == 0 and "--online FILE" in capsys.readouterr().out


def test_rank_errors_of_the_arrays_are_the_same(arrays):
    p, t, z = (arrays[name] for name in NAMES)
    found = rank_errors(p, t, z, measure(p, t, features=z))
    np.testing.assert_allclose(found, by_hand(*(one.astype(np.float64) for one in (p, t, z))), rtol=1e-3)
