"""The page on recovery, run word for word but for the port: everything but the key is lost, and every satoshi comes back."""

import json
from pathlib import Path

import pytest

from tests.e2e.pages import ROOT, blocks_of, followed

pytestmark = pytest.mark.e2e

GIVEN_SAT = 1_000_000


async def test_a_reader_loses_everything_but_the_key_and_gets_every_satoshi_back(tmp_path: Path) -> None:
    blocks = blocks_of(ROOT / "docs/tutorials/recovery.md", "recovery")
    assert len(blocks) == 4
    async with followed("".join(blocks), tmp_path, "losing") as said:
        assert "can be taken back by the key alone from height" in said
        assert "was taken back; it is a coin of the account" in said
        report = json.loads((tmp_path / "losing/report.json").read_text())
        (escrow,) = report["escrows"]
        assert (escrow["standing"], escrow["confirmed"], escrow["to_seller_sat"]) == ("refunded", True, 0)
        lost = GIVEN_SAT - report["balance_sat"]
        # A funding with a memo, of one input and change, and the refund, at one satoshi for each virtual byte.
        assert 204 + 160 - 6 <= lost <= 204 + 160
        assert (report["network"], report["money"]) == ("regtest", "play")
