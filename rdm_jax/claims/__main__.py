"""``python -m rdm_jax.claims FILE...`` verifies statements of your own; `main` also serves `proofs_numeric`."""

import contextlib
import dataclasses
import difflib
import signal
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from rdm_jax import reporting
from rdm_jax.claims import report, runner
from rdm_jax.claims.verify import Budget

EXIT = {"holds": 0, "observed": 0, "fails": 1, "undecided": 3}
BAD_USAGE = 2
_MARK = "results.json"
_TITLES = {"proofs_numeric": "Rank Differential Mechanism: the statements, verified numerically"}


@dataclasses.dataclass(frozen=True)
class Options:
    """Check, attack, ablate and certify statements; leave a table, JSON, figures and an HTML report."""

    only: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...")] = ()
    """Verify these statements only."""
    list: bool = False
    """List the statements and stop."""
    explain: str | None = None
    """Print one statement in full, with its assumptions and what is not checked, and stop."""
    instances: int = Budget.instances
    """Random instances of each statement."""
    starts: int = Budget.starts
    """Restarts of every search."""
    certified: int = Budget.certified
    """Instances of each statement that are certified in ball arithmetic."""
    seed: int = 0
    """The same seed gives the same numbers on the same machine."""
    workers: int = dataclasses.field(default_factory=runner.default_workers)
    """Worker processes."""
    out: Path | None = None
    """Where to write; a new folder, or one that an earlier run wrote (default: results/...)."""


class UsageError(Exception):
    """A bad option; the message says what to change."""


class _Terminated(BaseException):
    """SIGTERM arrived."""


def _choose(available: Mapping[str, Path], names: tuple[str, ...]) -> dict[str, Path]:
    for name in names:
        if name not in available:
            folded = {known.lower(): known for known in available}
            near = difflib.get_close_matches(name.lower(), folded, n=1, cutoff=0.3)
            hint = f"; did you mean {folded[near[0]]}?" if near else "."
            raise UsageError(f"no statement named {name!r}{hint} There are {', '.join(available)}.")
    return {name: path for name, path in available.items() if not names or name in names}


def _prepare(options: Options, module: str) -> Path:
    for name in ("instances", "starts", "certified", "workers"):
        if getattr(options, name) < 1:
            raise UsageError(f"--{name} must be at least 1, got {getattr(options, name)}")
    suffix = "-".join(("", *options.only))
    out = options.out or Path("results") / f"{module}{suffix}"
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file: --out must name a folder")
    if out.is_dir() and any(out.iterdir()) and not (out / _MARK).is_file():
        raise UsageError(f"{out} holds something else than a report: name a new folder with --out")
    (out / "figures").mkdir(parents=True, exist_ok=True)
    return out


def _explain(console: Console, path: Path) -> None:
    statement = runner.load_statement(path)
    console.print(f"[bold]{statement.name}[/] {statement.title}\n")
    said = [("", statement.text), ("Source. ", statement.source)]
    for claim in statement.claims:
        said.append((f"Claim {claim.name}. ", claim.statement))
        said += [(f"  Assumes {h.name}: ", h.text) for h in claim.hypotheses]
        said += [(f"  Ablated by {a.name}: ", a.text) for a in claim.ablations]
    said += [(f"Order {o.name}. ", f"{o.statement} (slope {o.slope:g})") for o in statement.orders]
    said += [(f"Law {law.name}. ", law.statement) for law in statement.laws]
    said.append(("Not checked. ", statement.not_checked))
    for label, text in said:
        filled = textwrap.fill(label + " ".join(text.split()), min(console.width, 100), subsequent_indent="    ")
        console.print(filled, markup=False, highlight=False)


def _titles(files: Mapping[str, Path]) -> dict[str, str]:
    return {name: runner.load_statement(path).title for name, path in files.items()}


def _follow(events: Any, files: Mapping[str, Path], console: Console, records: dict[str, Any]) -> None:
    """Take in events as they come: a bar and a line a worker on a terminal, a line a statement elsewhere."""
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        overall = progress.add_task("", total=len(files))
        lines: dict[int, Any] = {}
        for event in events:
            if event.worker not in lines:
                lines[event.worker] = progress.add_task("", total=None)
            progress.update(lines[event.worker], description=f"[dim]{event.text[:60]:<60}[/]")
            if event.record is not None:
                records[event.statement] = event.record
                row = report.VERDICT_STYLE[event.record["verdict"]]
                verdict = f"[{row}]{event.record['verdict']}[/]"
                progress.console.print(
                    f"{event.statement:<4} {verdict} ({event.record['seconds']:.1f} s)", highlight=False
                )
                progress.update(overall, advance=1)
            progress.update(overall, description=f"[bold]{f'{len(records)} of {len(files)} statements':<60}[/]")


def _assemble(title: str, options: Options, files: Mapping[str, Path], records: Mapping[str, Any]) -> dict[str, Any]:
    def not_run(name: str) -> dict[str, Any]:
        return {**runner.broken_record(name, "", ""), "verdict": "not run"}

    kept = [dict(records[name]) if name in records else not_run(name) for name in files]
    config = {name: getattr(options, name) for name in ("instances", "starts", "certified", "seed")}
    for record in kept:
        record.pop("seconds")
    return {"title": title, "config": config, "run": reporting.provenance(report.PACKAGES), "statements": kept}


def _save(out: Path, results: dict[str, Any], seconds: dict[str, float]) -> None:
    names = [record["name"] for record in results["statements"] if record["caption"]]
    images = {name: (out / "figures" / f"{name}.png").read_bytes() for name in names}
    reporting.write(out / _MARK, reporting.dumps(results))
    reporting.write(out / "timings.json", reporting.dumps(seconds))
    reporting.write(out / "report.html", report.page(results, seconds, images))


def _raise_terminated(*_: Any) -> None:
    raise _Terminated


def _verify(module: str, options: Options, files: Mapping[str, Path], out: Path, console: Console) -> int:
    budget = Budget(options.instances, options.starts, options.certified)
    records: dict[str, Any] = {}
    code = None
    signal.signal(signal.SIGTERM, _raise_terminated)
    events = runner.run(
        files.items(), budget=budget, seed=options.seed, figures=out / "figures", workers=options.workers
    )
    try:
        with contextlib.closing(events):
            _follow(events, files, console, records)
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    except _Terminated:
        code = 128 + signal.SIGTERM
    seconds = {name: record["seconds"] for name, record in records.items()}
    results = _assemble(_TITLES.get(module, module), options, files, records)
    _save(out, results, seconds)
    console.print(report.table(results["statements"], seconds))
    console.print(report.outcome(results["statements"]))
    for record in results["statements"]:
        reasons = [f"{c['name']}: {r}" for c in record["claims"] + record["orders"] for r in c["reasons"]]
        for reason in [*reasons, *record.get("error", "").splitlines()[:1]]:
            console.print(f"  {record['name']}: {reason}", markup=False, soft_wrap=True)
    if code is not None:
        console.print("Interrupted: the report holds what was finished.")
    console.print(f"Report: {out / 'report.html'}", soft_wrap=True)
    verdicts = [record["verdict"] for record in results["statements"]]
    return code if code is not None else max((EXIT[v] for v in verdicts), key=lambda c: (c == 1, c), default=0)


def main(files: Mapping[str, Path], module: str, arguments: list[str] | None = None) -> int:
    """The command line ``python -m module`` over a set of statement files; returns the exit code.

    0: all hold (an empirical law is observed, whatever its frequency); 1: a statement fails; 2: bad usage;
    3: undecided; 128 + n: stopped by signal n, with a partial report.
    """
    options = tyro.cli(Options, args=arguments, prog=f"python -m {module}")
    console = Console(width=None if sys.stdout.isatty() else 100)
    try:
        if options.explain:
            _explain(console, _choose(files, (options.explain,))[options.explain])
            return 0
        chosen = _choose(files, options.only)
        if options.list:
            for name, words in _titles(chosen).items():
                console.print(f"{name:<4} {words}", highlight=False)
            return 0
        return _verify(module, options, chosen, _prepare(options, module), console)
    except (UsageError, runner.StatementError) as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_USAGE


def own(arguments: list[str]) -> int:
    """Statement files first, then options; returns the exit code of `main`."""
    files = [argument for argument in arguments if argument.endswith(".py")]
    options = [argument for argument in arguments if not argument.endswith(".py")]
    try:
        if not files and not {"-h", "--help"} & set(options):
            raise UsageError("name a statement file: python -m rdm_jax.claims FILE.py ... [options]")
        named = {runner.load_statement(path).name: Path(path) for path in files}
        if len(named) < len(files):
            raise UsageError(f"two of the files define a statement of the same name: {', '.join(files)}")
    except (UsageError, runner.StatementError) as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_USAGE
    return main(named, "rdm_jax.claims", options)


if __name__ == "__main__":
    sys.exit(own(sys.argv[1:]))
