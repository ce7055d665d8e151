"""Our driver for nodes like Bitcoin Core, before a node that is not Core."""

import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from escrow.core.events import OutpointSeen, TipSeen
from escrow.core.script import p2wpkh
from escrow.core.transaction import Tx, parse, read_id, show_id
from escrow.shell.core_rpc import CoreChain
from escrow.shell.wallet import KeyWallet
from escrow.shell.watcher import Watcher
from tests.bcoin.judge import HRP, BcoinJudge
from tests.escrow.judges import Stage, output, spend_of_anyone
from tests.escrow.scenarios import LOCK, PAID_MSAT, funded
from tests.escrow.test_devchain import MemoryJournal
from wire.keys import SecretKey
from wire.network import REGTEST, SIGNET, Network
from wire.ports import ChainFault, OutInfo, OutPoint, Rejected, Tip, TxInfo, TxOut

SCRIPT = p2wpkh(SecretKey(b"\x31" * 32).public)
BCOIN = dataclasses.replace(REGTEST, hrp=HRP)


@asynccontextmanager
async def driver(bcoin: BcoinJudge, network: Network = BCOIN, key: str = "") -> AsyncIterator[CoreChain]:
    host = bcoin.url.removeprefix("http://")
    async with CoreChain.open(f"http://x:{key or bcoin.key}@{host}", network) as chain:
        yield chain


async def test_tip_instance_and_feerate(bcoin: BcoinJudge) -> None:
    async with driver(bcoin) as chain:
        tip = await chain.tip()
        assert tip == Tip(bcoin.height, read_id(bcoin.call("getblockhash", bcoin.height)))
        assert await chain.feerate() == REGTEST.feerate_min_sat_per_kvb
        await chain.mine(1, SCRIPT)
        assert (await chain.tip()).height == tip.height + 1
        instance = await chain.instance()
    async with driver(bcoin) as again:
        assert await again.instance() == instance
    async with driver(bcoin, SIGNET) as wrong:
        with pytest.raises(ChainFault, match="the node is on regtest"):
            await wrong.instance()
    async with driver(bcoin, key="wrong") as locked:
        with pytest.raises(ChainFault):
            await locked.tip()


async def test_a_txid_in_the_answer_is_not_acceptance(bcoin: BcoinJudge) -> None:
    """bcoin answers with a txid whatever it thinks of the transaction."""
    escrow = funded(Stage(bcoin), arbiter=True)
    good = escrow.closed(PAID_MSAT, LOCK)
    bad = dataclasses.replace(good, outputs=good.outputs[:1])
    assert bcoin.call("sendrawtransaction", bad.serialise().hex()) == show_id(bad.txid)
    async with driver(bcoin) as chain:
        with pytest.raises(Rejected) as refused:
            await chain.submit(bad.serialise())
        assert refused.value.code == "not-seen"
        assert await chain.tx(bad.txid) is None
        for _ in range(2):
            assert await chain.submit(good.serialise()) == good.txid
        assert bcoin.waits(good.txid)
        bcoin.mine()
        assert await chain.submit(good.serialise()) == good.txid
        with pytest.raises(Rejected):
            await chain.submit(good.serialise()[:-1])


async def test_outputs_and_their_spenders(bcoin: BcoinJudge) -> None:
    stage = Stage(bcoin)
    contract = funded(stage, arbiter=False).contract
    paying = bcoin.pay([contract.funding])
    escrow = dataclasses.replace(funded(stage, arbiter=False), contract=contract, funding=output(paying))
    close = escrow.closed(PAID_MSAT, LOCK)
    taking = escrow.claim(close)
    here, there, nowhere = escrow.funding, output(close), OutPoint(paying.txid, 9)
    async with driver(bcoin) as chain:

        async def seen() -> list[OutInfo | None]:
            return [await chain.outpoint(one) for one in (here, there, nowhere)]

        held, locked = contract.funding, close.outputs[0]

        def info(output: TxOut, height: int | None, spender: Tx | None, at: int | None = None) -> OutInfo:
            spent_by = None if spender is None else TxInfo(spender.serialise(), at)
            return OutInfo(output.value_sat, output.script, height, spent_by)

        assert await seen() == [None, None, None]
        await chain.submit(paying.serialise())
        assert await seen() == [info(held, None, None), None, None]
        bcoin.mine()
        funded_at = bcoin.height
        assert await seen() == [info(held, funded_at, None), None, None]
        await chain.submit(close.serialise())
        assert await seen() == [info(held, funded_at, close), info(locked, None, None), None]
        await chain.submit(taking.serialise())
        assert await seen() == [info(held, funded_at, close), info(locked, None, taking), None]
        assert await chain.tx(taking.txid) == TxInfo(taking.serialise(), None)
        bcoin.mine()
        closed_at = bcoin.height
        ended = [info(held, funded_at, close, closed_at), info(locked, closed_at, taking, closed_at), None]
        assert await seen() == ended
        assert await chain.tx(taking.txid) == TxInfo(taking.serialise(), closed_at)
    async with driver(bcoin) as fresh:  # one that was not there when it happened
        assert [await fresh.outpoint(one) for one in (here, there, nowhere)] == ended


async def test_a_reorganisation_is_seen(bcoin: BcoinJudge) -> None:
    paying = bcoin.pay([TxOut(50_000, SCRIPT)])
    async with driver(bcoin) as chain:
        await chain.submit(paying.serialise())
        bcoin.mine()
        assert (await chain.outpoint(output(paying))) == OutInfo(50_000, SCRIPT, bcoin.height, None)
        bcoin.call("invalidateblock", bcoin.call("getbestblockhash"))
        assert bcoin.offer_block(spend_of_anyone(paying, 1_000)) == ""
        bcoin.mine()
        assert await chain.outpoint(output(paying)) is None
        assert await chain.tx(paying.txid) is None


async def test_the_watcher_follows(bcoin: BcoinJudge) -> None:
    paying = bcoin.pay([TxOut(50_000, SCRIPT)])
    told: list[TipSeen | OutpointSeen] = []

    async def deliver(event: TipSeen | OutpointSeen) -> None:
        await trio.lowlevel.checkpoint()
        told.append(event)

    async with driver(bcoin) as chain:
        watcher = Watcher(chain)
        watcher.watch(output(paying))
        await watcher.look(deliver)
        bcoin.offer(paying)
        await watcher.look(deliver)
        bcoin.mine()
        await watcher.look(deliver)
    heights = [one.height for one in told if isinstance(one, TipSeen)]
    infos = [one.info for one in told if isinstance(one, OutpointSeen)]
    assert heights == [bcoin.height - 1, bcoin.height]
    assert infos == [None, OutInfo(50_000, SCRIPT, None, None), OutInfo(50_000, SCRIPT, bcoin.height, None)]


async def test_a_wallet_needs_a_scan_that_bcoin_does_not_have(bcoin: BcoinJudge) -> None:
    async with driver(bcoin) as chain:
        wallet = await KeyWallet.open(SecretKey(b"\x31" * 32), chain, MemoryJournal(), BCOIN)
        with pytest.raises(ChainFault, match="scantxoutset"):
            await wallet.balance_sat()
        assert parse((await chain.tx(funded(Stage(bcoin), arbiter=True).funding.txid)).raw)  # type: ignore[union-attr]
