"""Funding: how many channels one transaction takes, and that a lost disk brings no nonce back."""

from typing import Any

import pytest
import trio
import trio.testing

from escrow.core.events import FundingWanted, Submit, TipSeen
from peer.core.events import ChannelBound, ChannelWanted, FundingBuilt
from peer.core.purse import Purse
from peer.node.funding import Funding, in_memos
from wire.keys import SecretKey
from wire.moments import SECOND, Instant
from wire.network import REGTEST
from wire.ports import NOT_SEEN, ChainFault, Rejected, TxOut

KEY = SecretKey(b"\x41" * 32)
SELLERS = [SecretKey(bytes([number]) * 32) for number in range(1, 5)]
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
    for seller in SELLERS:
        want = ChannelWanted(deal=bytes(32), peer=seller.peer_id, amount_msat=5_000_000, unit_msat=5_000_000)
        assert any(isinstance(one, ChannelBound) for one in purse.want(want, lambda _: 1 << 40, now))
    return [one.row.terms.nonce for one in purse.channels.values()]


def test_no_nonce_comes_twice_not_even_after_a_lost_disk() -> None:
    """All four of one second, and then an empty purse a second later: eight channels, eight nonces."""
    early, late = Instant(1_760_000_000 * SECOND), Instant(1_760_000_004 * SECOND)
    found = nonces(Purse(KEY, REGTEST, INSTANCE), early) + nonces(Purse(KEY, REGTEST, INSTANCE), late)
    assert len({one[:4] for one in found}) == len(set(found)) == 8


class Chain:
    """Answers broadcasts from a list."""

    def __init__(self, *answers: Exception | None) -> None:
        self.answers = list(answers)
        self.times: list[float] = []

    async def submit(self, raw: bytes) -> bytes:
        await trio.lowlevel.checkpoint()
        self.times.append(trio.current_time())
        answer = self.answers.pop(0)
        if answer is not None:
            raise answer
        return raw


async def broadcast(*answers: Exception | None) -> tuple[list[float], list[Any]]:
    chain, told = Chain(*answers), []

    def notice(kind: str, **facts: Any) -> None:
        told.append((kind, facts))

    async def tell(event: Any) -> None:
        raise AssertionError(event)

    async with trio.open_nursery() as nursery:
        funding = Funding(nursery, chain, Wallet(), tell, 80, notice=notice)  # type: ignore[arg-type]
        begun = trio.current_time()
        for _ in range(2):
            funding.submit(Submit(raw=b"\x01" * 32, purpose="claim"))
    assert chain.answers == []
    return [at - begun for at in chain.times], told


async def test_a_broadcast_is_repeated_until_the_chain_has_seen_it(autojump_clock: trio.testing.MockClock) -> None:
    away, unseen = ChainFault("chain-down", "away"), Rejected(NOT_SEEN, "taken and unknown")
    times, told = await broadcast(*[away] * 8, unseen, None)
    assert times == [0, 1, 3, 7, 15, 31, 63, 123, 183, 243]
    assert told == []


async def test_what_the_chain_refuses_the_owner_hears(autojump_clock: trio.testing.MockClock) -> None:
    times, told = await broadcast(ChainFault("chain-down", "away"), Rejected("rejected", "bad-txns"))
    assert len(times) == 2
    assert told == [("chain", {"what": "refused", "purpose": "claim", "code": "rejected", "reason": "bad-txns"})]


@pytest.mark.parametrize(("at_stake", "code"), [(50_000, None), (50_001, "over-cap")])
async def test_nothing_is_funded_over_the_cap(at_stake: int, code: str | None, autojump_clock: trio.testing.MockClock) -> None:
    wallet, told = Wallet(), []

    async def tell(event: Any) -> None:
        await trio.lowlevel.checkpoint()
        told.append(event)

    async with trio.open_nursery() as nursery:
        chain: Any = None
        funding = Funding(nursery, chain, wallet, tell, 80, cap_sat=50_000, exposure_sat=lambda: at_stake)
        funding.want(wanted(1, 40))
    assert getattr(told[0], "code", None) == code
    assert len(wallet.asked) == (1 if code is None else 0)
