"""The failure table of docs/spec/escrow.md once more, before bcoin."""

import pytest

from tests.bcoin.judge import BcoinJudge
from tests.escrow.judges import Stage
from tests.escrow.scenarios import Scenario, walks

WALKS = list(walks())


@pytest.mark.parametrize(("scenario", "arbiter"), [walk[1:] for walk in WALKS], ids=[walk[0] for walk in WALKS])
def test_path(bcoin: BcoinJudge, verdicts: list[tuple[str, str]], scenario: Scenario, arbiter: bool) -> None:
    stage = Stage(bcoin)
    scenario.walk(stage, arbiter)
    verdicts += stage.verdicts
