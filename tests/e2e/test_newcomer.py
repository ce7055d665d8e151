"""The README's way from nothing to a trade, run word for word but for the ports."""

from pathlib import Path

import pytest

from tests.e2e.pages import ROOT, blocks_of, followed

pytestmark = pytest.mark.e2e


async def test_the_readmes_way_from_nothing_to_a_trade(tmp_path: Path) -> None:
    (block,) = blocks_of(ROOT / "README.md", "newcomer")
    commands = "\n".join(line for line in block.splitlines() if line != "make install")  # the set-up has been done already
    async with followed(commands, tmp_path, "trying") as said:
        assert "finished" in said
        assert "net.bitwrk/rays/1" in said
        assert (tmp_path / "trying/picture.png").read_bytes()[:4] == b"\x89PNG"
        assert "finished" in (tmp_path / "trying/dashboard.svg").read_text()
