"""A sample of ``make matrix`` in every test run: all reorganisations, and every so many-th kill of every script."""

from itertools import count

import pytest

from escrow.shell.regtest import Regtest
from tests.matrix.cases import kills_of, reorgs_of, run
from tests.matrix.scripts import SCRIPTS

STRIDE = 11
_counter = count(50_000)


@pytest.mark.parametrize("name", SCRIPTS)
def test_kills_at_boundaries(chain: Regtest, name: str) -> None:
    cases = kills_of(name, chain, next(_counter))
    assert {case.victim for case in cases} == {"buyer", "seller"}
    assert {case.cut for case in cases} >= {None, 0, 1, 2}
    for case in cases[list(SCRIPTS).index(name) :: STRIDE]:
        try:
            run(chain, case, next(_counter))
        except AssertionError as error:
            raise AssertionError(str(case)) from error


@pytest.mark.parametrize("name", SCRIPTS)
def test_reorganisations_under_every_step_on_the_chain(chain: Regtest, name: str) -> None:
    cases = reorgs_of(name)
    assert len(cases) == 9 * len(SCRIPTS[name].steps)
    for case in cases:
        try:
            run(chain, case, next(_counter))
        except AssertionError as error:
            raise AssertionError(str(case)) from error
