"""The specification says what the code does: letters, tables, sizes and methods are compared."""

import dataclasses
from pathlib import Path

import pytest

from escrow.core import amounts
from escrow.core.buyer import BUYER_TABLE
from escrow.core.contract import Branch, Terms
from escrow.core.drawing import draw
from escrow.core.events import How, Phase
from escrow.core.messages import Letters
from escrow.core.seller import SELLER_TABLE
from escrow.shell.dev_methods import METHODS
from wire import limits
from wire.network import NETWORKS

TEXT = (Path(__file__).parent.parent.parent / "docs" / "spec" / "escrow.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("table", [BUYER_TABLE, SELLER_TABLE], ids=["buyer", "seller"])
def test_tables_are_printed_as_they_run(table: object) -> None:
    assert draw(table) in TEXT  # type: ignore[arg-type]


def test_letters_are_printed_with_their_fields() -> None:
    for tag, kind in Letters.members.items():
        fields = ", ".join(one.name for one in dataclasses.fields(kind))
        assert f"| {tag} | {kind.__name__} | {fields} |" in TEXT


def test_terms_methods_branches_and_phases_are_named() -> None:
    words = " ".join(TEXT.split())
    for field in dataclasses.fields(Terms):
        assert field.name in words
    for name in (*METHODS, *(one.value.decode() for one in Branch)):
        assert f"`{name}" in words
    for phase in Phase:
        assert phase.value in words
    assert {how.value for how in How} == {"declined", "unfunded", "settled", "claimed", "lapsed", "refunded", "ruled"}


def test_numbers_are_the_codes_own() -> None:
    words = " ".join(TEXT.split())
    assert f"close {amounts.CLOSE_PLAIN_VBYTES} vB (arbiter form {amounts.CLOSE_ARBITER_VBYTES})" in words
    assert f"claim {amounts.CLAIM_VBYTES}, lapse {amounts.LAPSE_VBYTES}, refund {amounts.REFUND_VBYTES}" in words
    for network in NETWORKS.values():
        row = f"| {network.name} | {network.refund_blocks:,} | {network.margin_blocks} | {network.claim_delay_blocks} |"
        assert row in TEXT
    for number in (
        limits.ESCROW_LETTER_MAX_BYTES,
        limits.PAYMENTS_WAITING_MAX,
        limits.PAYMENTS_PER_CHANNEL_MAX,
        limits.TX_MAX_BYTES,
        limits.WATCHED_MAX,
        limits.CHAIN_LOOKBACK_BLOCKS,
        limits.CHANNEL_CAPACITY_MAX_SAT,
        limits.CREDIT_MAX_SAT,
    ):
        assert f"{number:,}" in TEXT
    for seconds in (limits.CHANNEL_ANSWER_WAIT_S, limits.CHANNEL_FUND_WAIT_S, limits.CHANNEL_CLOSE_WAIT_S):
        assert f"{seconds} s" in TEXT
