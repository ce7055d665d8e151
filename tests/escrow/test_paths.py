"""The failure table of docs/spec/escrow.md, row by row, before libbitcoinkernel: what must pass does, what must not does not."""

import re
from pathlib import Path

import pytest

from escrow.shell.regtest import Regtest
from tests.escrow.judges import KernelJudge, Stage
from tests.escrow.scenarios import ELSEWHERE, SCENARIOS, Scenario, walks

ROOT = Path(__file__).parents[2]
WALKS = list(walks())


@pytest.mark.parametrize(("scenario", "arbiter"), [walk[1:] for walk in WALKS], ids=[walk[0] for walk in WALKS])
def test_path(chain: Regtest, scenario: Scenario, arbiter: bool) -> None:
    stage = Stage(KernelJudge(chain))
    scenario.walk(stage, arbiter)
    assert stage.verdicts


def rows() -> list[str]:
    """The first column of the table."""
    page = (ROOT / "docs/spec/escrow.md").read_text()
    lines = page.split("## 7. ")[1].split("\n## ")[0].splitlines()
    cells = [line.split("|")[1].strip() for line in lines if line.startswith("|")]
    return cells[2:]


def test_every_row_of_the_table_is_walked_and_no_other() -> None:
    walked = {one.row for one in SCENARIOS}
    assert not walked & ELSEWHERE.keys()
    assert sorted(walked | ELSEWHERE.keys()) == sorted(rows())
    names = [name for name, _, _ in WALKS]
    assert len(set(names)) == len(names)


def test_rows_without_a_transaction_are_walked_by_these_tests() -> None:
    for tests in ELSEWHERE.values():
        for one in tests:
            path, name = one.split("::")
            assert re.search(rf"^(async )?def {name}\(", (ROOT / "tests" / path).read_text(), re.MULTILINE), one
