"""``bitwrk-sim``: run a scenario, sweep it over seeds, compare with published values, list what there is.

0 is success, 1 a refusal, a fault or an expectation that does not hold, 2 a command line that makes no sense, 3 an invariant that
broke: then the seed is in the sentence, and the same command shows it again. Heavy libraries are imported by the commands alone.
"""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from wire.errors import InvariantBroken, named_in

app = typer.Typer(
    name="bitwrk-sim",
    help="The network simulator: the product's own cores in virtual time, and array models for a million nodes.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

ScenarioName = Annotated[str, typer.Argument(help="The name of a scenario, or a path ending in .toml.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="All chance of a run comes from this number.")]
Out = Annotated[Path | None, typer.Option("--out", help="Write manifest, tables (CSV) and figures into this folder.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of words.")]


@app.command()
def run(scenario: ScenarioName, seed: Seed = 1, out: Out = None, as_json: AsJson = False) -> None:
    """Run SCENARIO once."""
    outcome = _run_once(scenario, seed, quiet=as_json)
    files = [str(path) for path in outcome.write(out)] if out else []
    if as_json:
        typer.echo(json.dumps({**outcome.as_json(), "files": files}, indent=2, sort_keys=True))
        return
    _tell(outcome)
    for path in files:
        typer.echo(f"wrote {path}")


@app.command()
def compare(scenario: ScenarioName, seed: Seed = 1, out: Out = None, as_json: AsJson = False) -> None:
    """Run SCENARIO and fail unless what it measures is what its file expects."""
    outcome = _run_once(scenario, seed, quiet=as_json)
    if out:
        outcome.write(out)
    judged = outcome.judged()
    if as_json:
        typer.echo(json.dumps(outcome.as_json(), indent=2, sort_keys=True))
    else:
        _tell_judged(judged)
    if not all(line["holds"] for line in judged.values()):
        raise typer.Exit(1)


@app.command()
def sweep(
    scenario: ScenarioName,
    seeds: Annotated[str, typer.Option("--seeds", metavar="A..B", help="First and last seed.")] = "1..10",
    processes: Annotated[int, typer.Option("--processes", min=0, help="How many at once; 0 means one for each core.")] = 0,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Run SCENARIO with many seeds on all cores; means with 95 % intervals."""
    from simulations.lab.sweeping import read_seeds, sweep_seeds

    found = sweep_seeds(scenario, read_seeds(seeds), processes or os.cpu_count() or 1, _bar(scenario, quiet=as_json))
    if out:
        found.write(out)
    if as_json:
        typer.echo(json.dumps(found.as_json(), indent=2, sort_keys=True))
    else:
        for name, (mean, half) in sorted(found.means().items()):
            typer.echo(f"{name:32} {mean:>16,.6g} ± {half:,.3g}")
        for seed, sentence in found.failures.items():
            typer.echo(f"seed {seed}: {sentence}", err=True)
    if found.failures:
        raise typer.Exit(3)


@app.command("list")
def list_scenarios(as_json: AsJson = False) -> None:
    """List the scenarios that come with the simulator."""
    from simulations.lab.scenario import available, load

    found = [load(name) for name in available()]
    if as_json:
        typer.echo(json.dumps([{"name": one.name, "kind": one.kind, "about": one.about} for one in found], indent=2))
        return
    for one in found:
        typer.echo(f"{one.name:16} {one.kind:10} {one.about}")


def _run_once(name: str, seed: int, *, quiet: bool) -> Any:
    from simulations.lab.running import run as run_scenario
    from simulations.lab.scenario import load

    scenario = load(name)
    with _bar(name, quiet=quiet) as progress:
        return run_scenario(scenario, seed, progress)


def _bar(name: str, *, quiet: bool) -> Any:
    from simulations.lab.progress import bar

    return bar(name, visible=not quiet and sys.stderr.isatty())


def _tell(outcome: Any) -> None:
    typer.echo(f"{outcome.scenario.name}, seed {outcome.seed}, {outcome.cpu_s:.1f} s of processor time")
    typer.echo(f"event log {outcome.event_log_hash}")
    for name, value in sorted(outcome.measures.items()):
        typer.echo(f"  {name:32} {value:,.6g}")
    _tell_judged(outcome.judged())


def _tell_judged(judged: dict[str, dict[str, Any]]) -> None:
    for name, line in judged.items():
        measured = "nothing" if line["measured"] is None else f"{line['measured']:,.6g}"
        typer.echo(f"{'holds' if line['holds'] else 'FAILS'}  {name}: {measured}, expected {line['expected']} ({line['source']})")


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """The entry point."""
    try:
        app(args=list(sys.argv[1:] if arguments is None else arguments), prog_name="bitwrk-sim", standalone_mode=True)
    except Exception as error:
        named = named_in(error)
        if named is None:
            raise
        typer.echo(f"bitwrk-sim: {named.sentence}", err=True)
        sys.exit(3 if isinstance(named, InvariantBroken) else 1)
    sys.exit(0)


if __name__ == "__main__":
    main()
