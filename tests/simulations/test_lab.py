"""The laboratory and its command: scenario files, manifests, sweeps, comparison, exit codes, and a quick --help."""

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from simulations.cli import app
from simulations.lab.outcome import code_hash
from simulations.lab.running import run
from simulations.lab.scenario import Expectation, available, load
from simulations.lab.sweeping import mean_and_half, read_seeds
from wire.errors import Refused

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "simulator.md"
TINY = """
kind = "broadcast"
[plan]
nodes = 300
sizes = [1000, 20000]
uplink_least_mbps = 50
uplink_most_mbps = 150
[expect.delivered_1000]
value = 1
within = 0.0
source = "a test"
"""


def written(folder: Path, text: str) -> str:
    path = folder / "one.toml"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("name", available())
def test_every_scenario_can_be_read_and_is_in_the_document(name: str) -> None:
    scenario = load(name)
    assert scenario.name == name
    assert scenario.about
    assert f"`{name}`" in DOCUMENT.read_text()
    assert all(one.source for one in scenario.expect.values())


@pytest.mark.parametrize(
    "text",
    [
        "kind = 'world'\nnodes = 3",
        "kind = 'dream'",
        "kind = 'world'\n[plan]\nnods = 3",
        "kind = 'world'\n[plan]\nnodes = 'three'",
        "kind = 'world'\n[plan]\ndeals = 1",
        "kind = 'world'\n[plan.roads]\nspeed = 3",
        "kind = 'broadcast'\n[plan]\nsizes = ['large']",
        "kind = ",
    ],
)
def test_a_mistake_in_a_scenario_is_named(text: str, tmp_path: Path) -> None:
    with pytest.raises(Refused) as refusal:
        load(written(tmp_path, text))
    assert refusal.value.code == "bad-scenario"
    with pytest.raises(Refused, match="there are"):
        load("no-such-thing")


def test_expectations_hold_within_their_tolerance_only() -> None:
    assert Expectation(value=100, tolerance=0.1).holds(109)
    assert not Expectation(value=100, tolerance=0.1).holds(111)
    assert Expectation(value=4, within=1).holds(3)
    assert not Expectation(value=4, within=1).holds(2.9)
    assert not Expectation(most=6).holds(7)
    assert not Expectation(least=0.95).holds(0.9)
    assert not Expectation(value=4).holds(4.1)


def test_a_run_leaves_a_manifest_tables_and_its_scenario(tmp_path: Path) -> None:
    outcome = run(load(written(tmp_path, TINY)), 3)
    outcome.draw = None
    files = outcome.write(tmp_path / "out")
    manifest = json.loads(files[0].read_text())
    assert manifest["seed"] == 3
    assert manifest["code_hash"] == code_hash()
    assert manifest["event_log_hash"] == run(load(written(tmp_path, TINY)), 3).event_log_hash
    assert manifest["expectations"]["delivered_1000"]["holds"] is True
    assert manifest["libraries"]["numpy"]
    assert files[1].read_text() == TINY
    rows = list(csv.DictReader((tmp_path / "out" / "arrivals.csv").read_text().splitlines()))
    assert {row["size_bytes"] for row in rows} == {"1000", "20000"}


def test_figures_are_drawn_small(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    files = run(load(written(tmp_path, TINY)), 1).write(tmp_path / "out")
    pictures = [path for path in files if path.suffix == ".png"]
    assert pictures
    assert all(path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size < 200_000 for path in pictures)


def test_commands_answer_with_their_exit_codes(tmp_path: Path) -> None:
    runner = CliRunner()
    name = written(tmp_path, TINY)
    assert runner.invoke(app, ["compare", name]).exit_code == 0
    failing = written(tmp_path, TINY.replace("value = 1\n", "value = 2\n"))
    told = runner.invoke(app, ["compare", failing])
    assert told.exit_code == 1
    assert "FAILS" in told.output
    listed = json.loads(runner.invoke(app, ["list", "--json"]).output)
    assert {one["name"] for one in listed} == set(available())
    said = subprocess.run(
        [sys.executable, "-m", "simulations.cli", "run", "nothing"], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert said.returncode == 1
    assert said.stderr.startswith("bitwrk-sim: there is no scenario")


def test_a_sweep_uses_processes_and_gives_the_runs_own_hashes(tmp_path: Path) -> None:
    name = written(tmp_path, TINY)
    out = tmp_path / "sweep"
    told = CliRunner().invoke(app, ["sweep", name, "--seeds", "2..4", "--processes", "2", "--out", str(out), "--json"])
    assert told.exit_code == 0
    found = json.loads(told.output)
    assert found["event_log_hashes"]["3"] == run(load(name), 3).event_log_hash
    assert len(set(found["event_log_hashes"].values())) == 3
    assert found["means"]["delivered_1000"] == {"mean": 1.0, "half_interval": 0.0}
    assert len((out / "sweep.csv").read_text().splitlines()) == 4


def test_seeds_and_intervals() -> None:
    assert list(read_seeds("3..5")) == [3, 4, 5]
    for text in ("5..3", "x", "1-3", "0..99999"):
        with pytest.raises(Refused):
            read_seeds(text)
    mean, half = mean_and_half([1.0, 2.0, 3.0])
    assert (mean, round(half, 3)) == (2.0, 2.484)
    assert mean_and_half([7.0]) == (7.0, 0.0)


def test_help_is_quick_and_imports_nothing_heavy() -> None:
    """Half a second of processor time is the bound; it is counted by the child itself."""
    code = (
        "import sys, time\n"
        "from simulations.cli import main\n"
        "try:\n    main(['--help'])\n"
        "except SystemExit:\n    pass\n"
        "heavy = {'libp2p', 'numpy', 'matplotlib', 'trio', 'coincurve'} & set(sys.modules)\n"
        "print('heavy', sorted(heavy)); print('cpu', time.process_time())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert "heavy []" in done.stdout
    found = re.search(r"cpu ([\d.]+)", done.stdout)
    assert found is not None
    assert float(found[1]) < 0.5
