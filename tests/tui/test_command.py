"""The command that opens the dashboard: what it loads, and what it says when it cannot."""

import subprocess
import sys
from pathlib import Path

import pytest

from peer.home import Home

ROOT = Path(__file__).parents[2]


def bitwrk(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "peer.cli", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
        cwd=ROOT,
    )


def test_help_is_quick_and_loads_neither_the_network_nor_the_screens() -> None:
    program = (
        "import sys, time\n"
        "from peer.cli.app import run\n"
        "code = run(['tui', '--help'])\n"
        "heavy = {'libp2p', 'trio', 'textual', 'httpx', 'asyncio', 'numpy', 'fastapi', 'pbk'}\n"
        "print('\\n', code, sorted(heavy & set(sys.modules)), time.process_time() < 0.5)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True, cwd=ROOT, timeout=60)
    assert done.stdout.splitlines()[-1] == " 0 [] True"
    for option in ("--home", "--screen", "--picture", "--size"):
        assert option in done.stdout


def test_the_dashboard_itself_never_loads_the_node() -> None:
    program = (
        "import sys, tui.app, tui.picture\n"
        "print(sorted({'libp2p', 'trio', 'fastapi', 'numpy', 'pbk', 'sqlite3'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True, cwd=ROOT, timeout=60)
    assert done.stdout == "[]\n"


def test_without_a_terminal_it_says_so() -> None:
    done = bitwrk("tui")
    assert done.returncode == 1
    assert done.stderr == "bitwrk: the dashboard needs a terminal; to draw a screen into a file use --picture\n"


def test_a_picture_needs_a_node(tmp_path: Path) -> None:
    home = str(tmp_path / "home")
    done = bitwrk("tui", "--home", home, "--picture", str(tmp_path / "x.svg"))
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "no node runs in" in done.stderr
    assert not (tmp_path / "x.svg").exists()
    Home.at(tmp_path / "home").token()
    assert "no node runs in" in bitwrk("tui", "--home", home, "--picture", str(tmp_path / "x.svg")).stderr


@pytest.mark.parametrize(
    ("line", "word"),
    [(("--screen", "kitchen"), "choose one of"), (("--size", "big"), "columns and rows"), (("--size", "0x0"), "columns")],
)
def test_a_line_that_makes_no_sense(line: tuple[str, str], word: str) -> None:
    done = bitwrk("tui", *line)
    assert done.returncode == 2
    assert word in done.stderr
