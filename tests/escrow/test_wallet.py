"""The wallet: which coins pay, and that no payment is made twice or lost, whatever the chain does in between."""

import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from escrow.core.amounts import fee_sat
from escrow.core.building import payment, sweep
from escrow.core.script import address_of, p2wpkh, p2wsh
from escrow.core.selection import CHANGE_VBYTES, INPUT_VBYTES, choose
from escrow.shell.kernel import KernelChain
from escrow.shell.wallet import PAYMENT_TABLE, WALLET_TABLE, KeyWallet
from tests.escrow.test_devchain import MemoryJournal
from wire.errors import Refused
from wire.keys import SecretKey
from wire.network import REGTEST
from wire.ports import NOT_SEEN, ChainFault, OutPoint, Rejected, TxOut

KEY, OTHER = SecretKey(b"\x31" * 32), SecretKey(b"\x32" * 32)
THERE = address_of(p2wpkh(OTHER.public), "bcrt")


def coins_of(values: list[int]) -> list[tuple[OutPoint, int]]:
    return [(OutPoint(bytes([place]) * 32, 0), value) for place, value in enumerate(values)]


@settings(max_examples=200)
@given(
    st.lists(st.integers(1, 20_000), min_size=1, max_size=9),
    st.integers(300, 60_000),
    st.sampled_from([1_000, 5_000, 20_000]),
)
def test_coins_are_enough_and_an_exact_match_is_found_when_there_is_one(values: list[int], target: int, rate: int) -> None:
    cost, change = fee_sat(INPUT_VBYTES, rate), fee_sat(CHANGE_VBYTES, rate)
    worth = [value - cost for value in values if value > cost]
    chosen = choose(coins_of(values), target, rate)
    totals = [sum(some) for size in range(1, len(worth) + 1) for some in itertools.combinations(worth, size)]
    if chosen is None:
        assert all(total < target for total in totals)
        return
    assert len({outpoint for outpoint, _ in chosen}) == len(chosen)
    total = sum(value - cost for _, value in chosen)
    assert total >= target
    exact = [one for one in totals if target <= one <= target + change + cost]
    if exact:
        assert total == min(exact)
    elif any(one >= target + change + 294 for one in worth):
        assert len(chosen) == 1


@settings(max_examples=60)
@given(
    st.lists(st.integers(500, 50_000), min_size=1, max_size=8),
    st.lists(st.integers(330, 20_000), min_size=1, max_size=3),
    st.booleans(),
    st.sampled_from([1_000, 7_777]),
)
def test_a_payment_pays_what_was_asked_and_a_fair_fee(values: list[int], wanted: list[int], notes: bool, rate: int) -> None:
    outputs = [TxOut(value, p2wsh(bytes([place]))) for place, value in enumerate(wanted)]
    try:
        built = payment(KEY, coins_of(values), outputs, [bytes(40)] if notes else [], rate)
    except Refused:
        return  # which of them are too poor, the test above knows
    known = dict(coins_of(values))
    fee = sum(known[one.outpoint] for one in built.inputs) - sum(one.value_sat for one in built.outputs)
    assert list(built.outputs[: len(outputs)]) == outputs
    needed = fee_sat(built.vsize, rate)
    change = fee_sat(CHANGE_VBYTES, rate)
    assert (
        needed <= fee <= needed + fee_sat(4 + len(built.inputs), rate) + max(294 + change, change + fee_sat(INPUT_VBYTES, rate))
    )


def test_everything_means_everything_that_is_worth_its_fee() -> None:
    built = sweep(KEY, coins_of([10_000, 60, 500, 68]), p2wpkh(OTHER.public), 1_000)
    assert [one.outpoint for one in built.inputs] == [OutPoint(bytes([place]) * 32, 0) for place in (0, 2)]
    (only,) = built.outputs
    assert 10_500 - only.value_sat in range(built.vsize, built.vsize + 4)
    for values in ([], [60], [400]):
        with pytest.raises(Refused) as caught:
            sweep(KEY, coins_of(values), p2wpkh(OTHER.public), 1_000)
        assert caught.value.code == "no-funds"


class Shaky:
    """A real chain behind a door that can stick: before or after it has done what was asked, or by forgetting it."""

    def __init__(self, chain: KernelChain) -> None:
        self._chain = chain
        self.fault = ""
        self.submitted = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._chain, name)

    async def submit(self, raw: bytes) -> bytes:
        self.submitted += 1
        if self.fault == "before":
            raise ChainFault("chain-down", "it does not answer")
        if self.fault == "forgets":
            raise Rejected(NOT_SEEN, "taken and not known")
        if self.fault == "refuses":
            raise Rejected("rejected", "no")
        txid = await self._chain.submit(raw)
        if self.fault == "after":
            raise ChainFault("chain-down", "the answer was lost")
        return txid


@pytest.fixture
async def chain(tmp_path: Path) -> AsyncIterator[Shaky]:
    async with KernelChain.open(tmp_path) as own:
        shaky = Shaky(own)
        for _ in range(3):
            await own.faucet(p2wpkh(KEY.public), 100_000)
        await own.mine(1)
        yield shaky


async def wallet_on(chain: Any, journal: MemoryJournal) -> KeyWallet:
    return await KeyWallet.open(KEY, chain, journal, REGTEST)


async def arrived(chain: Shaky) -> int:
    await chain.mine(1)
    return sum(one.output.value_sat for one in await chain.coins_of(p2wpkh(OTHER.public)))


@pytest.mark.parametrize("fault", ["before", "after", "forgets"])
@pytest.mark.parametrize("restart", [False, True])
async def test_a_payment_asked_for_again_is_the_same_payment(chain: Shaky, fault: str, restart: bool) -> None:
    journal = MemoryJournal()
    wallet = await wallet_on(chain, journal)
    chain.fault = fault
    first = await wallet.send("rent", THERE, 30_000)
    assert not first.seen
    if restart:
        wallet = await wallet_on(chain, journal)
        await wallet.release_unsent([])
    chain.fault = ""
    again = await wallet.send("rent", THERE, 30_000)
    assert again.seen
    assert again.txid == first.txid
    assert await arrived(chain) == 30_000
    assert (await wallet.send("rent", THERE, 30_000)).txid == first.txid
    assert await arrived(chain) == 30_000
    with pytest.raises(Refused) as caught:
        await wallet.send("rent", THERE, 31_000)
    assert caught.value.code == "request-reused"
    assert (await wallet.send("other", THERE, 30_000)).txid != first.txid
    assert await arrived(chain) == 60_000


async def test_a_payment_that_was_not_seen_is_broadcast_by_itself(chain: Shaky) -> None:
    wallet = await wallet_on(chain, MemoryJournal())
    chain.fault = "before"
    await wallet.send("rent", THERE, 30_000)
    await wallet.tend()
    chain.fault = "refuses"
    await wallet.tend()
    chain.fault = ""
    await wallet.tend()
    count = chain.submitted
    await wallet.tend()
    assert chain.submitted == count
    assert await arrived(chain) == 30_000


async def test_what_the_chain_refuses_at_once_leaves_no_trace(chain: Shaky) -> None:
    journal = MemoryJournal()
    wallet = await wallet_on(chain, journal)
    chain.fault = "refuses"
    with pytest.raises(Rejected):
        await wallet.send("rent", THERE, 30_000)
    assert journal.rows[PAYMENT_TABLE] == journal.rows[WALLET_TABLE] == {}
    assert await wallet.balance_sat() == 300_000
    chain.fault = ""
    await wallet.send("rent", THERE, 40_000)
    assert await arrived(chain) == 40_000


@pytest.mark.parametrize(
    ("address", "value", "code"),
    [
        (THERE, 293, "dust"),
        (THERE, 1_000_000, "no-funds"),
        ("bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4", 1_000, "wrong-network"),
        (THERE[:-1] + ("q" if THERE[-1] != "q" else "p"), 1_000, "bad-checksum"),
        ("nowhere", 1_000, "bad-address"),
    ],
)
async def test_a_payment_that_cannot_be_is_named_and_nothing_is_kept(chain: Shaky, address: str, value: int, code: str) -> None:
    journal = MemoryJournal()
    wallet = await wallet_on(chain, journal)
    for call in (wallet.send("x", address, value), wallet.quote(address, value)):
        with pytest.raises(Refused) as caught:
            await call
        assert caught.value.code == code
    assert not journal.rows.get(PAYMENT_TABLE)
    assert chain.submitted == 0


async def test_holdings_by_state_and_a_withdrawal_of_all_of_it(chain: Shaky) -> None:
    wallet = await wallet_on(chain, MemoryJournal())
    await wallet.fund([TxOut(50_000, p2wsh(b"x"))])
    found = await wallet.holdings()
    assert (found.confirmed_sat, found.locked_sat, found.waiting_sat, found.young_sat) == (200_000, 100_000, 0, 0)
    await chain.submit(wallet.pending()[0])
    found = await wallet.holdings()
    assert (found.confirmed_sat, found.locked_sat) == (200_000, 100_000)
    assert 49_000 < found.waiting_sat == found.spendable_sat - 200_000 < 50_000
    await chain.mine(1, p2wpkh(KEY.public))
    found = await wallet.holdings()
    assert (found.waiting_sat, found.locked_sat) == (0, 0)
    assert found.young_sat > 0
    quote = await wallet.quote(THERE, None)
    assert quote.value_sat + quote.fee_sat == found.spendable_sat
    sent = await wallet.send("all", THERE, None)
    assert (sent.value_sat, sent.fee_sat, sent.seen) == (quote.value_sat, quote.fee_sat, True)
    assert await arrived(chain) == quote.value_sat
    assert (await wallet.send("all", THERE, None)).txid == sent.txid
    assert (await wallet.holdings()).spendable_sat == 0
