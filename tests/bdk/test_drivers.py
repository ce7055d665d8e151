"""Both drivers before servers that tell the truth: every question, the wallet, the watcher, and whole lives of a channel."""

from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from escrow.core.events import OutpointSeen, Phase, TipSeen
from escrow.core.script import p2wpkh
from escrow.core.transaction import Tx, TxIn, parse
from escrow.shell import esplora, far, lines
from escrow.shell.checked import ComparedChain
from escrow.shell.kernel import KernelChain
from escrow.shell.recovery import recover
from escrow.shell.regtest import FAUCET_SCRIPT, Regtest
from escrow.shell.wallet import KeyWallet
from escrow.shell.watcher import Watcher
from tests.bdk.servers import KINDS, Electrum, Esplora, Status, serving
from tests.bdk.worlds import World, driver, play, world
from tests.escrow.pair import Pair
from tests.escrow.test_devchain import MemoryJournal
from tests.escrow.test_failures import double_spend
from wire.keys import SecretKey
from wire.network import MAIN, REGTEST, SIGNET
from wire.ports import NOT_SEEN, ChainFault, OutInfo, OutPoint, Rejected, TxOut

KEY = SecretKey(b"\x31" * 32)
SCRIPT = p2wpkh(KEY.public)

both = pytest.mark.parametrize("kind", KINDS)


async def the_same(here: World, *outpoints: OutPoint) -> None:
    """The driver answers what the chain itself answers."""
    assert await here.chain.instance() == await here.own.instance()
    assert await here.chain.tip() == await here.own.tip()
    for one in outpoints:
        assert await here.chain.outpoint(one) == await here.own.outpoint(one)
        assert await here.chain.tx(one.txid) == await here.own.tx(one.txid)
    for script in (SCRIPT, FAUCET_SCRIPT):
        assert await here.chain.coins_of(script) == await here.own.coins_of(script)
    assert await here.chain.history_of(SCRIPT, 0) == await here.own.history_of(SCRIPT, 0)


def reorganise(chain: Regtest, depth: int) -> None:
    pair = Pair.__new__(Pair)
    pair.chain, pair.blind = chain, True
    pair.letters = deque()
    pair.reorganise(depth)


@both
async def test_every_answer_is_the_chains_own(tmp_path: Path, kind: str) -> None:
    async with world(kind, tmp_path) as here:
        nowhere = OutPoint(b"\x05" * 32, 0)
        await the_same(here, nowhere)
        made = await here.own.faucet(SCRIPT, 900_000)
        seen = [OutPoint(made, vout) for vout in range(3)]
        assert await here.chain.outpoint(seen[0]) == OutInfo(900_000, SCRIPT, None, None)
        assert await here.chain.outpoint(seen[2]) is None
        await the_same(here, nowhere, *seen)
        await here.own.mine(1)
        await the_same(here, nowhere, *seen)
        wallet = await KeyWallet.open(KEY, here.chain, MemoryJournal(), REGTEST)
        raw = await wallet.fund([TxOut(300_000, SCRIPT)])
        spending = await here.chain.submit(raw)
        seen += [OutPoint(spending, vout) for vout in range(2)]
        info = await here.chain.outpoint(seen[0])
        assert info is not None
        assert info.spent_by is not None
        assert (info.spent_by.raw, info.spent_by.height) == (raw, None)
        await the_same(here, *seen)
        await here.own.mine(3)
        info = await here.chain.outpoint(seen[0])
        assert info is not None
        assert info.spent_by is not None
        assert info.spent_by.height == (await here.own.tip()).height - 2
        await the_same(here, *seen)
        async with driver(here.server) as late:  # one that was not there when it happened
            assert await late.outpoint(seen[0]) == info
        for depth in (3, 5):  # the spender waits again, and then what it spends does
            await here.own.call(lambda chain, depth=depth: reorganise(chain, depth))  # type: ignore[misc]
            await the_same(here, *seen)
        assert (await here.own.tx(made)).height is None  # type: ignore[union-attr]


@both
async def test_what_leaves_the_chain_is_gone(tmp_path: Path, kind: str) -> None:
    """Transactions are kept by the driver; where they stand is not."""
    async with world(kind, tmp_path) as here:
        made = await here.own.faucet(SCRIPT, 900_000)
        await here.own.mine(1)
        await the_same(here, OutPoint(made, 0))

        def forget(chain: Regtest) -> None:
            reorganise(chain, 1)
            chain._mempool.entries.clear()
            chain._mempool.spends.clear()

        await here.own.call(forget)
        assert await here.chain.outpoint(OutPoint(made, 0)) is None
        assert await here.chain.tx(made) is None
        await the_same(here, OutPoint(made, 0))


@both
async def test_a_wallet_pays_and_survives_a_restart(tmp_path: Path, kind: str) -> None:
    journal = MemoryJournal()
    async with world(kind, tmp_path) as here:
        wallet = await KeyWallet.open(KEY, here.chain, journal, REGTEST)
        for _ in range(3):
            await here.own.faucet(SCRIPT, 1_000_000)
        assert await wallet.balance_sat() == 0
        await here.own.mine(1)
        assert await wallet.balance_sat() == 3_000_000
        raw = await wallet.fund([TxOut(600_000, b"\x00\x20" + bytes([number]) * 32) for number in range(2)])
        again = await KeyWallet.open(KEY, here.chain, journal, REGTEST)
        assert again.pending() == (raw,)
        txid = await here.chain.submit(raw)
        change = parse(raw).outputs[2].value_sat
        assert await wallet.balance_sat() == 1_000_000 + change
        chained = parse(await wallet.fund([TxOut(1_500_000, SCRIPT)]))
        assert OutPoint(txid, 2) in [one.outpoint for one in chained.inputs]
        await here.chain.submit(chained.serialise())
        await here.own.mine(1)
        here_and_there = await KeyWallet.open(KEY, here.own, MemoryJournal(), REGTEST)
        assert await wallet.balance_sat() == await here_and_there.balance_sat() > 0
        found = await recover(KEY, REGTEST, here.chain, [])
        assert sum(one.output.value_sat for one in found.coins) == await wallet.balance_sat()


@both
async def test_rewards_are_told_from_other_coins_and_long_histories_are_read_whole(tmp_path: Path, kind: str) -> None:
    async with world(kind, tmp_path) as here:
        await here.own.mine(2, SCRIPT)
        for _ in range(60):  # more than two pages of Esplora's
            await here.own.faucet(SCRIPT, 10_000)
            await here.own.mine(1)
        coins = await here.chain.coins_of(SCRIPT)
        assert coins == await here.own.coins_of(SCRIPT)
        assert [one.coinbase for one in coins] == [True] * 2 + [False] * 60
        since = (await here.own.tip()).height - 9
        recent = await here.chain.history_of(SCRIPT, since)
        assert recent == await here.own.history_of(SCRIPT, since)
        assert len(recent) == 10
        wallet = await KeyWallet.open(KEY, here.chain, MemoryJournal(), REGTEST)
        assert await wallet.balance_sat() == 600_000  # rewards are too young


@both
async def test_a_history_longer_than_anybody_reads_is_refused(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with world(kind, tmp_path) as here:
        for module in (esplora, lines):
            monkeypatch.setattr(module, "FAR_HISTORY_MAX", 20)
        await here.chain.coins_of(SCRIPT)
        with pytest.raises(ChainFault) as caught:
            await here.chain.coins_of(FAUCET_SCRIPT)
        assert caught.value.code == "chain-history"


@both
async def test_broadcasts_are_taken_or_refused_by_name(tmp_path: Path, kind: str) -> None:
    async with world(kind, tmp_path) as here:
        await here.own.faucet(SCRIPT, 900_000)
        await here.own.mine(1)
        wallet = await KeyWallet.open(KEY, here.chain, MemoryJournal(), REGTEST)
        good = parse(await wallet.fund([TxOut(300_000, SCRIPT)]))

        async def refusal(raw: bytes) -> Rejected:
            with pytest.raises(Rejected) as caught:
                await here.chain.submit(raw)
            return caught.value

        nothing = TxIn(outpoint=OutPoint(b"\x05" * 32, 0), witness=(b"s", b"k"))
        nowhere = Tx(inputs=(nothing,), outputs=good.outputs)
        missing = await refusal(nowhere.serialise())
        assert missing.code == "missing-inputs"
        less = Tx(inputs=good.inputs, outputs=(TxOut(290_000, SCRIPT), *good.outputs[1:]))
        wrong = await refusal(less.serialise())
        assert wrong.code == "rejected"
        assert "mandatory-script-verify-flag-failed" in wrong.sentence
        assert (await refusal(good.serialise()[:50])).code not in ("rejected", NOT_SEEN)
        assert await here.own.tx(good.txid) is None
        for _ in range(2):  # the second time it waits already
            assert await here.chain.submit(good.serialise()) == good.txid
        await here.own.mine(1)
        assert await here.chain.submit(good.serialise()) == good.txid
        assert (await here.chain.tx(good.txid)) == await here.own.tx(good.txid)


@both
async def test_what_a_server_says_it_took_is_looked_for(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(far, "_SEEN_PAUSE_S", 0.0)
    async with world(kind, tmp_path) as here:
        await here.own.faucet(SCRIPT, 900_000)
        await here.own.mine(1)
        wallet = await KeyWallet.open(KEY, here.chain, MemoryJournal(), REGTEST)
        raw = await wallet.fund([TxOut(300_000, SCRIPT)])

        def swallow(question: str, arguments: Any, truth: Any) -> Any:
            return {"/tx": "00" * 32, "blockchain.transaction.broadcast": "00" * 32}.get(question, truth)

        await here.own.call(lambda chain: setattr(chain, "submit", lambda _: bytes(32)))
        here.server.bend = swallow
        with pytest.raises(Rejected) as caught:
            await here.chain.submit(raw)
        assert caught.value.code == NOT_SEEN


@both
async def test_a_server_in_trouble_has_not_judged_a_transaction(tmp_path: Path, kind: str) -> None:
    async with world(kind, tmp_path) as here:
        await here.own.faucet(SCRIPT, 900_000)
        await here.own.mine(1)
        wallet = await KeyWallet.open(KEY, here.chain, MemoryJournal(), REGTEST)
        raw = await wallet.fund([TxOut(300_000, SCRIPT)])

        def trouble(question: str, arguments: Any, truth: Any) -> Any:
            return Status(502, "excessive resource usage") if question in ("/tx", "blockchain.transaction.broadcast") else truth

        here.server.bend = trouble
        with pytest.raises(ChainFault) as caught:
            await here.chain.submit(raw)
        assert caught.value.code == "chain-refused"


FEES: list[tuple[dict[str, float], float, int]] = [
    ({}, -1, 1_000),
    ({"1": 9.0}, -1, 1_000),
    ({"1": 9.0, "2": 4.0001}, 0.000040001, 4_001),
    ({"3": 2.5, "144": 1.0}, 0.000025, 2_500),
    ({"2": 0.1}, 0.000001, 1_000),
    ({"2": 1e9}, 10.0, 50_000),
    ({"2": -5.0}, -5.0, 1_000),
]


@both
@pytest.mark.parametrize(("rates", "rate", "wanted"), FEES)
async def test_estimates_become_rates_within_the_clamp(
    tmp_path: Path, kind: str, rates: dict[str, float], rate: float, wanted: int
) -> None:
    async with world(kind, tmp_path) as here:
        told = {"/fee-estimates": rates, "blockchain.estimatefee": rate}
        here.server.bend = lambda question, arguments, truth: told.get(question, truth)
        assert await here.far.feerate() == wanted


@both
async def test_a_server_of_another_network_is_named(tmp_path: Path, kind: str) -> None:
    async with world(kind, tmp_path) as here:
        for network in (SIGNET, MAIN):
            async with driver(here.server, network) as wrong:
                with pytest.raises(ChainFault, match="on regtest, the settings say") as caught:
                    await wrong.instance()
                assert caught.value.code == "wrong-network"


@both
async def test_the_watcher_tells_what_changes(tmp_path: Path, kind: str) -> None:
    told: list[TipSeen | OutpointSeen] = []

    async def deliver(event: TipSeen | OutpointSeen) -> None:
        await trio.lowlevel.checkpoint()
        told.append(event)

    async with world(kind, tmp_path) as here:
        txid = await here.own.faucet(SCRIPT, 50_000)
        raw = (await here.own.tx(txid)).raw  # type: ignore[union-attr]

        def forget(chain: Regtest) -> None:
            chain._mempool.entries.clear()
            chain._mempool.spends.clear()

        await here.own.call(forget)
        watcher = Watcher(here.chain)
        watcher.watch(OutPoint(txid, 0))
        await watcher.look(deliver)
        await here.own.submit(raw)
        await watcher.look(deliver)
        await here.own.mine(1)
        await watcher.look(deliver)
        await watcher.look(deliver)
        await here.own.call(lambda chain: reorganise(chain, 1))
        await watcher.look(deliver)
        last = (await here.own.tip()).height
    heights = [one.height for one in told if isinstance(one, TipSeen)]
    infos = [one.info for one in told if isinstance(one, OutpointSeen)]
    waits, stands = OutInfo(50_000, SCRIPT, None, None), OutInfo(50_000, SCRIPT, last - 1, None)
    assert heights == [last - 2, last - 1, last]
    assert infos == [None, waits, stands, waits]


# --- whole lives of a channel --------------------------------------------------------------------------------------


def paid_and_closed(pair: Pair) -> None:
    pair.ready().pay(0).pay(1)
    pair.close(pair.buyer).mine(7)
    end = pair.check_end()
    assert end.to_seller_sat == 5_201
    assert pair.buyer.machine.phase is Phase.BURIED


def refunded(pair: Pair) -> None:
    pair.ready().pay(0)
    pair.seller.alive = False
    pair.mine_to(pair.terms.refund_height + 1)
    assert pair.buyer.end.to_seller_sat == 0
    assert pair.buyer.end.to_buyer_sat > pair.terms.capacity_sat - 200


def reorganised(pair: Pair) -> None:
    """The funding's block goes and comes back; then the close's does."""
    pair.ready().pay(0)
    pair.reorganise(1)
    assert [one.height for one in pair.buyer.watched.values()] == [None]
    pair.mine().pay(1)
    pair.close(pair.buyer).mine()
    pair.reorganise(1).mine(7)
    assert pair.check_end().to_seller_sat == 5_201


def replaced(pair: Pair) -> None:
    """Another transaction takes the funding's coin on the longer branch: no channel, nothing more is paid; then it is undone."""
    pair.ready().pay(0)
    pair.reorganise(1, (double_spend(pair),))
    assert (pair.buyer.machine.phase, pair.seller.machine.phase) == (Phase.FUNDED, Phase.FUNDED)
    pair.pay(1)
    pair.reorganise(2, (parse(pair.buyer.machine.row.funding_raw),))
    assert pair.buyer.machine.phase is Phase.OPEN
    pair.close(pair.buyer).mine(7)
    pair.check_end()


def forgotten(pair: Pair) -> None:
    """The servers' node forgets what waits, and whoever needs it there brings it again."""
    pair.ready().pay(0)
    pair.close(pair.buyer)
    pair.chain._mempool.entries.clear()
    pair.chain._mempool.spends.clear()
    pair.run().wait(3_600).mine(7)
    assert pair.check_end().to_seller_sat == 2_600


@both
@pytest.mark.parametrize("life", [paid_and_closed, refunded, reorganised, replaced, forgotten], ids=lambda life: life.__name__)
async def test_a_channel_lives_its_life(tmp_path: Path, kind: str, life: Callable[[Pair], None]) -> None:
    async with world(kind, tmp_path) as here:
        pair = await play(here.own, here.chain, life)
        assert pair.rejected == []
        assert here.server.asked


async def test_both_kinds_together_are_compared(tmp_path: Path) -> None:
    async with KernelChain.open(tmp_path, REGTEST, 130) as own:
        servers = Esplora(own), Electrum(own)
        async with serving(*servers), driver(servers[0]) as one, driver(servers[1]) as other:
            await play(own, ComparedChain(one, other, REGTEST), paid_and_closed)
        assert all(one.asked for one in servers)
