"""An experiment is a list of parts. Each computes numbers, states findings and draws a figure from the numbers alone.

``main`` runs them and leaves, part by part, ``results.json``, ``figures/*.png`` and one self-contained ``report.html``:

    def compute(options, tell): ...; return Outcome({"time": times, "rank": ranks}, [Finding("rank at the end", 3.1)])
    def draw(figure, data): figure.subplots().plot(data["time"], data["rank"])

    sys.exit(main(Experiment("name", "Title", "What it is about.", parts), {"paper": Options()}))
"""

import contextlib
import dataclasses
import html
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from matplotlib.figure import Figure
from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from rdm_jax import commandline, plotting, reporting
from rdm_jax._checks import choose
from rdm_jax._xla import quick_flags
from rdm_jax.commandline import Options
from rdm_jax.reporting import plain

__all__ = ["Experiment", "Finding", "Grid", "Outcome", "Part", "PartError", "Tell", "main", "summary"]

_RESULTS = "results.json"
_EXPLAINED = {
    "spread": "±: standard deviation over the seeds.",
    "chance": "Chance: what the number reaches when modes are shuffled; one shuffling in 20 does better.",
}
_PACKAGES = ("rdm_jax", "jax", "jaxlib", "numpy", "diffrax", "flax", "optax", "matplotlib")

Tell = Callable[[str, float], None]  # what is being done, and the share of the part that is finished


class Finding(NamedTuple):
    """One number that a part stands for: ``measured``, beside what theory predicts and what chance reaches, if known.

    ``quantity`` says in a few words, with the unit if there is one, what it is. ``spread``: the standard deviation over
    seeds. ``chance``: the same number for shuffled modes, which one shuffling in 20 exceeds.
    """

    quantity: str
    measured: float | None
    predicted: float | None = None
    chance: float | None = None
    spread: float | None = None


class Grid(NamedTuple):
    """A table of its own, beside the findings: titles of the columns, and rows of as many cells, all plain text."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


class Outcome(NamedTuple):
    """What a part computed: ``data`` for its figure (arrays, numbers, text, nested), findings, remarks in sentences."""

    data: Mapping[str, Any]
    findings: Sequence[Finding]
    remarks: Sequence[str] = ()
    grid: Grid | None = None


class Part(NamedTuple):
    """A part of an experiment: its name (also of its figure's file), a title, how to read the figure, and what to run.

    ``draw(figure, data)`` gets the data as read back from JSON: lists, and None for what was not finite.
    """

    name: str
    title: str
    caption: str
    compute: Callable[[Any, Tell], Outcome]
    draw: Callable[[Figure, Mapping[str, Any]], None]
    size: tuple[float, float] = (6.4, 4.0)


class Experiment(NamedTuple):
    """Parts under one title; ``about`` says in a sentence or two what they are about.

    ``parts``: may also be a function of the options, which raises ValueError for what it can't use. ``float64``: run in
    64 bits. ``quick``: compile faster, to slower programs, on a CPU: for many small problems.
    """

    name: str
    title: str
    about: str
    parts: Sequence[Part] | Callable[[Any], Sequence[Part]]
    float64: bool = False
    quick: bool = False


class PartError(RuntimeError):
    """A part failed for a reason that its user can act on; the message says which."""


def main(experiment: Experiment, presets: Mapping[str, Options], arguments: Sequence[str] | None = None) -> int:
    """Run an experiment as a command line.

    Args:
        experiment: what to run.
        presets: its options by name, the first being the default. If they have a field ``only``, a tuple of names of
            parts, the others are left out; if they have a field ``pdf`` that is true, figures are left as PDF as well.
        arguments: the words of the command line; None: those of the process.

    Returns:
        The exit code. 0: done; 1: a part failed; 2: bad usage; 128 + n: stopped by signal n, with the parts that were
        finished.

    >>> main(Experiment("try", "Title", "About.", []), {"smoke": Options(preset="smoke")}, ["--print-config"])
    {
     "preset": "smoke",
     "out": null,
     "seed": 0
    }
    0
    """
    options = commandline.read(presets, f"python experiments/{experiment.name}.py", arguments)
    if options.print_config:
        print(reporting.dumps(_config(options)), end="")
        return 0
    try:
        made = experiment.parts(options) if callable(experiment.parts) else experiment.parts
        parts = _chosen(made, getattr(options, "only", ()))
        folder = commandline.prepare(options.out, experiment.name)
        (folder / "figures").mkdir()
    except (commandline.UsageError, ValueError) as error:
        commandline.complain(error)
        return commandline.BAD_USAGE
    if experiment.quick:  # before jax starts its backend, which reads them; the user's come last and win
        os.environ["XLA_FLAGS"] = f"{quick_flags()} {os.environ.get('XLA_FLAGS', '')}"
    console = Console(width=None if sys.stdout.isatty() else 100)
    results = _results(experiment, options)
    stopped = _run(parts, options, folder, results, console, experiment.float64)
    reporting.write(folder / "report.html", _page(results, folder))
    return _close(results, folder, console, stopped)


def summary(results: Mapping[str, Any]) -> Table:
    """The closing table: a line for each finding.

    Args:
        results: as ``results.json`` holds them.

    Returns:
        A table for rich, which fits 80 columns.

    >>> part = {"title": "Ranks", "findings": [plain(Finding("rank", 3.0, 2.5))]}
    >>> [column.header for column in summary({"parts": {"ranks": part}}).columns]
    ['', 'measured', 'predicted']
    """
    found = [finding for part in results["parts"].values() for finding in part["findings"]]
    columns = _columns(found)
    out = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    out.add_column("", overflow="fold")
    for name in columns:
        out.add_column(name, justify="right", no_wrap=True)
    for part in results["parts"].values():
        out.add_row(f"[bold]{part['title']}[/]", *[""] * len(columns))
        for finding in part["findings"]:
            out.add_row(f"  {finding['quantity']}", *(_cell(finding, name) for name in columns))
    return out


def _chosen(parts: Sequence[Part], only: Sequence[str]) -> Sequence[Part]:
    names = [part.name for part in parts]
    for name in only:
        try:
            choose(name, names, "--only")
        except ValueError as error:
            raise commandline.UsageError(error) from error
    return [part for part in parts if not only or part.name in only]


def _config(options: Options) -> dict[str, Any]:
    config = dataclasses.asdict(options)
    del config["print_config"]
    return plain(config, digits=17)


def _results(experiment: Experiment, options: Options) -> dict[str, Any]:
    return {
        "experiment": experiment.name,
        "title": experiment.title,
        "about": experiment.about,
        "config": _config(options),
        "run": reporting.provenance(_PACKAGES),
        "parts": {},
    }


def _run(
    parts: Sequence[Part],
    options: Options,
    folder: Path,
    results: dict[str, Any],
    console: Console,
    float64: bool,
) -> commandline.Stopped | None:
    """Finish part after part, saving each; what stopped it, if anything did."""
    try:
        with (
            commandline.signals(),
            jax.enable_x64(True) if float64 else contextlib.nullcontext(),
            commandline.progress(console) as progress,
        ):
            overall = progress.add_task("", total=len(parts))
            for number, part in enumerate(parts, 1):
                progress.update(overall, description=f"part {number} of {len(parts)}")
                results["parts"][part.name] = _follow(part, options, folder, progress)
                reporting.write(folder / _RESULTS, reporting.dumps(results))
                progress.advance(overall)
    except commandline.Stopped as stopped:
        return stopped
    return None


def _follow(part: Part, options: Options, folder: Path, progress: Progress) -> dict[str, Any]:
    """Finish a part with a progress line of its own."""
    line = progress.add_task(part.title, total=1.0)

    def tell(doing: str, share: float) -> None:
        progress.update(line, description=f"{part.title}: {doing}", completed=share)

    try:
        return _finish(part, options, folder, tell)
    finally:
        progress.remove_task(line)


def _close(results: Mapping[str, Any], folder: Path, console: Console, stopped: commandline.Stopped | None) -> int:
    """Print the closing table and what went wrong; the exit code."""
    console.print(summary(results))
    lines = [f"{name} failed: {part['error']}" for name, part in results["parts"].items() if "error" in part]
    code = commandline.FAILED if lines else 0
    if stopped is not None:
        lines.append("Interrupted: the report holds what was finished.")
        code = stopped.code
    for line in [*lines, f"Report: {folder / 'report.html'}"]:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    return code


def _finish(part: Part, options: Options, folder: Path, tell: Tell) -> dict[str, Any]:
    """Compute a part and draw it from what JSON keeps of it."""
    record: dict[str, Any] = {"title": part.title, "caption": part.caption}
    try:
        outcome = part.compute(options, tell)
    except RuntimeError as error:  # of a part, of an integration, or out of memory
        return record | {"findings": [], "remarks": [], "error": str(error)}
    record |= plain({"findings": list(outcome.findings), "remarks": outcome.remarks, "data": outcome.data})
    if outcome.grid is not None:
        record["grid"] = plain(outcome.grid)
    kept = json.loads(reporting.dumps(record))["data"]
    for format in ("png", "pdf") if getattr(options, "pdf", False) else ("png",):
        image = plotting.render(part.draw, kept, size=part.size, format=format)
        reporting.write(folder / "figures" / f"{part.name}.{format}", image)
    return record


def _columns(findings: Sequence[Mapping[str, Any]]) -> list[str]:
    wanted = ("measured", "predicted", "chance")
    return [name for name in wanted if any(finding[name] is not None for finding in findings)]


def _cell(finding: Mapping[str, Any], column: str) -> str:
    value = finding[column]
    if value is None:
        return ""
    spread = (
        f"\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}{finding['spread']:.1g}"
        if column == "measured" and finding["spread"] is not None
        else ""
    )
    return f"{value + 0.0:.3g}{spread}"  # + 0.0: no negative zero


def _page(results: Mapping[str, Any], folder: Path) -> str:
    sections = "".join(_section(name, part, folder) for name, part in results["parts"].items())
    notes = f"{reporting.facts(results['run'])}; {_options(results['config'])}."
    return reporting.page(results["title"], results["about"], notes, sections)


def _options(config: Mapping[str, Any]) -> str:
    """The options that say something, in one line."""
    said = {name: value for name, value in config.items() if name != "out" and value not in (None, [])}
    return ", ".join(f"{n} {' '.join(map(str, v)) if isinstance(v, list) else v}" for n, v in said.items())


def _section(name: str, part: Mapping[str, Any], folder: Path) -> str:
    pieces = [reporting.tag("h2", html.escape(part["title"]))]
    if "error" in part:
        pieces.append(reporting.tag("p", html.escape(part["error"]), class_="reasons"))
    else:
        pieces.append(reporting.figure((folder / "figures" / f"{name}.png").read_bytes(), part["caption"]))
    if part["findings"]:
        columns = _columns(part["findings"])
        rows = ([html.escape(f["quantity"]), *(_cell(f, column) for column in columns)] for f in part["findings"])
        pieces.append(reporting.table(["", *columns], rows))
    used = [text for name, text in _EXPLAINED.items() if any(f[name] is not None for f in part["findings"])]
    if used:
        pieces.append(reporting.tag("p", reporting.tag("small", " ".join(used))))
    pieces += [reporting.tag("p", html.escape(remark)) for remark in part["remarks"]]
    if "grid" in part:
        cells = [[html.escape(cell) for cell in row] for row in (part["grid"]["header"], *part["grid"]["rows"])]
        pieces.append(reporting.table(cells[0], cells[1:]))
    return reporting.tag("section", "".join(pieces), id=name)
