"""Funding: how many channels one transaction takes, and that a lost disk brings no nonce back."""

from typing import Any

import trio
import trio.testing

from escrow.core.events import FundingWanted, TipSeen
from peer.core.events import ChannelBound, ChannelWanted, FundingBuilt
from peer.core.purse import Purse
from peer.node.funding import Funding, in_memos
from wire.keys import SecretKey
from wire.moments import SECOND, Instant
from wire.network import REGTEST
from wire.ports import TxOut

KEY = SecretKey(b"\x41" * 32)
SELLERS = [SecretKey(bytes([number]) * 32) for number in range(1, 4)]
INSTANCE = b"\x07" * 32


def wanted(number: int, size: int) -> FundingWanted:
    return FundingWanted(channel=bytes([number]) * 32, output=TxOut(1_000 + number, bytes(34)), note=bytes(size))


def test_as_many_channels_as_their_notes_have_room() -> None:
    many = [wanted(number, size) for number, size in enumerate([40, 40, 40, 75, 40, 75, 75])]
    assert [[len(one.note) for one in group] for group in in_memos(many, 80)] == [[40, 40], [40], [75], [40], [75], [75]]
    assert [len(group) for group in in_memos(many, 10_000)] == [7]
    assert [len(group) for group in in_memos(many, 0)] == [7]
    assert in_memos([], 80) == []


class Wallet:
    """Builds nothing, and tells what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[list[int], list[int]]] = []

    async def balance_sat(self) -> int:
        raise NotImplementedError

    async def release(self, raw: bytes) -> None:
        raise NotImplementedError

    async def fund(self, outputs: Any, notes: Any = ()) -> bytes:
        await trio.lowlevel.checkpoint()
        self.asked.append(([one.value_sat for one in outputs], [len(one) for one in notes]))
        return bytes([len(self.asked)])


async def funded(room: int, autojump_clock: trio.testing.MockClock) -> tuple[Wallet, list[Any]]:
    wallet, told = Wallet(), []

    async def tell(event: Any) -> None:
        await trio.lowlevel.checkpoint()
        told.append(event)

    async with trio.open_nursery() as nursery:
        chain: Any = None
        funding = Funding(nursery, chain, wallet, tell, room)
        for number in (3, 1, 2, 1):
            funding.want(wanted(number, 40))
    return wallet, told


async def test_channels_of_one_moment_share_transactions(autojump_clock: trio.testing.MockClock) -> None:
    wallet, told = await funded(80, autojump_clock)
    assert wallet.asked == [([1_001, 1_002], [40, 40]), ([1_003], [40])]
    built = [(b"\x01", 1, 0), (b"\x01", 2, 1), (b"\x02", 3, 0)]
    assert told == [FundingBuilt(channel=bytes([number]) * 32, raw=raw, vout=vout) for raw, number, vout in built]
    wallet, _ = await funded(0, autojump_clock)
    assert wallet.asked == [([1_001, 1_002, 1_003], [])]


def nonces(purse: Purse, now: Instant) -> list[bytes]:
    purse.tip_seen(TipSeen(height=200, feerate_sat_per_kvb=1_000), now)
    for seller in (*SELLERS, SELLERS[0]):
        want = ChannelWanted(deal=bytes(32), peer=seller.peer_id, amount_msat=1_900_000_000, unit_msat=1_900_000_000)
        assert any(isinstance(one, ChannelBound) for one in purse.want(want, lambda _: 1 << 40, now))
    return [one.row.terms.nonce for one in purse.channels.values()]


def test_no_nonce_comes_twice_not_even_after_a_lost_disk() -> None:
    """All four of one second, and then an empty purse a second later: eight channels, eight nonces."""
    early, late = Instant(1_760_000_000 * SECOND), Instant(1_760_000_004 * SECOND)
    found = nonces(Purse(KEY, REGTEST, INSTANCE), early) + nonces(Purse(KEY, REGTEST, INSTANCE), late)
    assert len({one[:4] for one in found}) == len(set(found)) == 8
