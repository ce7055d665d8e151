"""What the documents say is held to the code."""

import re
from pathlib import Path
from typing import Any

import pytest

from orderbook.core.messages import GOSSIP
from peer.core.appeals import APPEAL_STEPS
from peer.core.arbiter import CASE_STEPS
from peer.core.bonds import BOND_STEPS, BONDS
from peer.core.court import COURT
from peer.core.deal import TRANSITIONS
from peer.core.fraud import FRAUD
from peer.core.letters import DEAL
from peer.core.proofs import PROOFS
from wire.canon import Choice

ROOT = Path(__file__).parents[2]
DOCS = sorted([ROOT / "README.md", *ROOT.glob("docs/**/*.md")])
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(?:#[^)]*)?\)")


def drawing_of(table: Any) -> str:
    """A table of phases and steps as the specification shows it."""
    lines = []
    for phase, row in table.items():
        steps = ", ".join(f"{step.value} → {to.value}" for step, to in row.items())
        lines.append(f"| {phase.value} | {steps or '(final)'} |")
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("name", "mark", "table"),
    [
        ("trade", "table", TRANSITIONS),
        ("arbiter", "cases", CASE_STEPS),
        ("arbiter", "appeals", APPEAL_STEPS),
        ("bonds", "bonds", BOND_STEPS),
    ],
    ids=["units", "cases", "appeals", "bonds"],
)
def test_the_drawing_is_the_table(name: str, mark: str, table: Any) -> None:
    page = (ROOT / f"docs/spec/{name}.md").read_text()
    shown = page.split(f"<!-- {mark}:begin -->")[1].split(f"<!-- {mark}:end -->")[0].strip()
    assert shown == drawing_of(table), "write this between the marks:\n" + drawing_of(table)


@pytest.mark.parametrize(
    ("name", "letters"),
    [("arbiter", COURT), ("receipts", PROOFS), ("receipts", FRAUD), ("bonds", BONDS)],
    ids=["court", "proofs", "fraud", "bonds"],
)
def test_letters_about_evidence_are_in_the_specification(name: str, letters: Choice) -> None:
    page = (ROOT / f"docs/spec/{name}.md").read_text()
    for tag, kind in letters.members.items():
        assert f"| {tag} | {kind.__name__} |" in page


@pytest.mark.parametrize("page", DOCS, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text()):
        if not re.match(r"[a-z]+:", target):
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} points at {target}, which is not there"


def test_every_deal_letter_is_in_the_specification() -> None:
    page = (ROOT / "docs/spec/trade.md").read_text()
    for tag, kind in DEAL.members.items():
        assert f"| {tag} | {kind.__name__} |" in page


def test_every_gossiped_message_is_in_the_specification() -> None:
    page = (ROOT / "docs/spec/orderbook.md").read_text()
    for kind in GOSSIP.members.values():
        assert kind.__name__.removeprefix("Sealed") in page


def test_every_room_has_its_page() -> None:
    pages = {page.stem for page in (ROOT / "docs/spec").glob("*.md")}
    assert {"wire", "trade", "orderbook", "escrow", "content", "network", "rays"} <= pages
