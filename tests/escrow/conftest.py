"""One regtest chain for all tests of a module: opening one costs more than a trade."""

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest

from escrow.shell.regtest import Regtest
from tests.escrow.pair import SHORT, Pair
from wire.network import REGTEST, Network

_counter = count()


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Regtest]:
    regtest = Regtest(tmp_path_factory.mktemp("chain"), REGTEST)
    regtest.mine(130)
    yield regtest
    regtest.close()


@pytest.fixture
def pair(chain: Regtest) -> Callable[..., Pair]:
    def make(network: Network = SHORT, **terms: Any) -> Pair:
        return Pair(chain, next(_counter), network, **terms)

    return make
