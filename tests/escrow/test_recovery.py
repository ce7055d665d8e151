"""Everything but the key is lost: what the chain alone gives back, and that it is every satoshi."""

import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from escrow.core.contract import Branch, Contract, contract_of
from escrow.core.memo import note_of
from escrow.core.opening import propose_terms
from escrow.core.recovery import Standing, touches
from escrow.core.script import p2wpkh
from escrow.core.spends import claim, claim_fee_sat, complete, sign_state, state
from escrow.core.transaction import Tx, TxIn, parse, sha256
from escrow.shell.core_rpc import CoreChain
from escrow.shell.kernel import KernelChain
from escrow.shell.recovery import Recovered, escrows_since, recover
from escrow.shell.wallet import KeyWallet
from tests.escrow.pair import SHORT
from tests.escrow.test_devchain import MemoryJournal, core
from wire.keys import SecretKey
from wire.ports import ChainFault, OutPoint, TxOut

BUYER = SecretKey(b"\x61" * 32)
SELLERS = [SecretKey(bytes([number]) * 32) for number in range(0x71, 0x76)]
KEY = b"\x44" * 32
CAPACITY = 100_000


@asynccontextmanager
async def opened(kind: str, folder: Path) -> AsyncIterator[Any]:
    if kind == "core":
        async with core(folder) as far:
            yield far
    else:
        async with KernelChain.open(folder) as own:
            yield own


async def contracts(chain: Any) -> list[Contract]:
    instance, height = await chain.instance(), (await chain.tip()).height
    return [
        contract_of(
            SHORT.name,
            propose_terms(
                BUYER,
                seller.public,
                SHORT,
                instance,
                height=height,
                feerate_sat_per_kvb=1_000,
                capacity_sat=CAPACITY,
                counter=1_760_000_000 + number,
                arbiter=SELLERS[-1].public if number == 1 else None,
            ),
        )
        for number, seller in enumerate(SELLERS[:4])
    ]


def closed(contract: Contract, funding: OutPoint, seller: SecretKey, paid_msat: int, lock: bytes | None) -> Tx:
    signature = sign_state(contract, contract.secret(BUYER, Branch.COOPERATE), funding, paid_msat, lock)
    unsigned = state(contract, funding, paid_msat, lock)
    return complete(contract, unsigned, signature, contract.secret(seller, Branch.COOPERATE))


async def looked(chain: Any, key: SecretKey = BUYER, since: int = 115, **options: Any) -> Recovered:
    return await recover(key, SHORT, chain, await escrows_since(key, SHORT, chain, since), **options)


async def standings(chain: Any, **options: Any) -> list[Standing]:
    found = await looked(chain, **options)
    return [one.standing for one in found.escrows]


@pytest.mark.parametrize("kind", ["kernel", "core"])
async def test_every_satoshi_comes_back_by_the_key_alone(kind: str, tmp_path: Path) -> None:
    async with opened(kind, tmp_path) as chain:
        wallet = await KeyWallet.open(BUYER, chain, MemoryJournal(), SHORT)
        await chain.faucet(p2wpkh(BUYER.public), 1_000_000)
        await chain.mine(1)
        agreed = await contracts(chain)
        raw = await wallet.fund([one.funding for one in agreed], [note_of(BUYER, SHORT, one.terms) for one in agreed])
        txid = await chain.submit(raw)
        fees = 1_000_000 - sum(one.value_sat for one in parse(raw).outputs)
        await chain.mine(1)
        places = [OutPoint(txid, vout) for vout in range(4)]
        assert await standings(chain) == [Standing.WAITING] * 4

        # One seller closes, one publishes a locked state and claims it, two are silent; one of them has an arbiter.
        settled = closed(agreed[2], places[2], SELLERS[2], 30_000_000, None)
        locked = closed(agreed[3], places[3], SELLERS[3], 40_000_000, sha256(KEY))
        for one in (settled, locked):
            await chain.submit(one.serialise())
        await chain.mine(1)
        assert await standings(chain) == [Standing.WAITING] * 2 + [Standing.SETTLED, Standing.LOCKED]
        taking = claim(agreed[3], locked, sha256(KEY), KEY, SELLERS[3], claim_fee_sat(agreed[3], 1_000, with_parent=False))
        assert taking is not None
        await chain.submit(taking.serialise())
        await chain.mine(1)
        assert await standings(chain) == [Standing.WAITING] * 2 + [Standing.SETTLED, Standing.CLAIMED]

        height = (await chain.tip()).height
        await chain.mine(agreed[0].terms.refund_height - 1 - height)
        assert await standings(chain) == [Standing.WAITING] * 2 + [Standing.SETTLED, Standing.CLAIMED]
        await chain.mine(1)
        assert (await standings(chain, take=False))[:2] == [Standing.DUE] * 2
        taken = await looked(chain)
        assert [len(taken.sent), taken.refused] == [2, ()]
        assert (await standings(chain))[:2] == [Standing.REFUNDING] * 2
        await chain.mine(1)
        last = await looked(chain)
        assert [one.standing for one in last.escrows] == [Standing.REFUNDED] * 2 + [Standing.SETTLED, Standing.CLAIMED]
        refunds = sum(CAPACITY - (one.to_buyer_sat or 0) for one in last.escrows[:2])
        states = sum(one.close_fee_sat for one in agreed[2:])
        have = sum(one.output.value_sat for one in last.coins)
        assert have == 1_000_000 - fees - 30_000 - 40_000 - states - refunds
        assert await wallet.balance_sat() == have
        assert 0 < refunds < 400

        # Another key finds nothing of it; and who reads only later blocks finds the coins, not the escrows.
        assert (await looked(chain, SELLERS[0])).escrows == ()
        late = await looked(chain, since=last.height + 1)
        assert (late.escrows, late.coins) == ((), last.coins)


async def test_a_chain_that_lies_about_a_block_is_named(tmp_path: Path) -> None:
    """A block without one of its transactions is no block: nothing is missed without a word."""
    async with core(tmp_path) as chain:
        await chain.faucet(p2wpkh(BUYER.public), 50_000)
        await chain.mine(1)
        tip = await chain.tip()
        whole = bytes.fromhex(await chain.call("getblock", tip.block[::-1].hex(), 0))
        assert len(await chain.history_of(p2wpkh(BUYER.public), 0)) == 1
        honest = chain.batch

        async def lying(*calls: tuple[Any, ...]) -> list[Any]:
            told = await honest(*calls)
            short = (whole[:80] + b"\x01" + _first(whole)).hex()
            return [
                short if call[:2] == ("getblock", tip.block[::-1].hex()) else one for call, one in zip(calls, told, strict=True)
            ]

        chain.batch = lying  # type: ignore[method-assign]
        with pytest.raises(ChainFault) as caught:
            await chain.history_of(p2wpkh(BUYER.public), 0)
        assert caught.value.code == "chain-garbled"


def _first(raw: bytes) -> bytes:
    """The first transaction of a block."""
    for end in range(81 + 60, len(raw) + 1):
        try:
            parse(raw[81:end])
        except Exception:
            continue
        return raw[81:end]
    raise AssertionError("no transaction")


async def test_a_reorganisation_while_blocks_are_read_is_read_again(tmp_path: Path) -> None:
    async with core(tmp_path) as chain:
        honest, moves = chain.batch, [2]

        async def moving(*calls: tuple[Any, ...]) -> list[Any]:
            told = await honest(*calls)
            if ("getblockhash", 110) in calls and moves[0]:
                moves[0] -= 1
                told[calls.index(("getblockhash", 110))] = told[0]  # as if another branch stood there when it was asked
            return told

        chain.batch = moving  # type: ignore[method-assign]
        assert await chain.history_of(p2wpkh(BUYER.public), 100) == []
        moves[0] = 3
        with pytest.raises(ChainFault) as caught:
            await chain.history_of(p2wpkh(BUYER.public), 100)
        assert caught.value.code == "chain-moves"


def test_what_touches_an_account() -> None:
    mine, key = p2wpkh(BUYER.public), SELLERS[0].public
    spend = TxIn(outpoint=OutPoint(bytes(32), 0), witness=(b"", BUYER.public))
    other = TxOut(1, p2wpkh(key))
    assert touches(Tx(inputs=(spend,), outputs=(other,)), mine)
    assert touches(Tx(inputs=(dataclasses.replace(spend, witness=(b"", key)),), outputs=(TxOut(1, mine),)), mine)
    assert not touches(Tx(inputs=(dataclasses.replace(spend, witness=(b"", key)),), outputs=(other,)), mine)
    assert not touches(Tx(inputs=(dataclasses.replace(spend, witness=(BUYER.public,)),), outputs=(other,)), mine)


async def test_a_chain_that_is_away_is_named(tmp_path: Path) -> None:
    async with CoreChain.open("http://127.0.0.1:9", SHORT) as chain:
        with pytest.raises(ChainFault):
            await looked(chain)
    await trio.lowlevel.checkpoint()
