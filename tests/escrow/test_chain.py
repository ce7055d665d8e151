"""The embedded chain and its mirrors: what the kernel decides, and that ledger, mempool, follower and watcher follow it."""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
import trio.testing

from escrow.core.events import OutpointSeen, TipSeen
from escrow.core.script import Op, assemble, p2wpkh, p2wsh
from escrow.core.transaction import SEQUENCE_FINAL, Tx, TxIn, parse, parse_block
from escrow.shell.consensus import Consensus
from escrow.shell.core_rpc import CoreChain
from escrow.shell.devchain import _one
from escrow.shell.kernel import KernelChain
from escrow.shell.ledger import COINBASE_OUTPOINT, Ledger
from escrow.shell.mining import build_block, subsidy_sat
from escrow.shell.regtest import ANYONE, FAUCET_SCRIPT, Regtest
from escrow.shell.waiting import WaitingRoom
from escrow.shell.watcher import Watcher
from tests.escrow.pair import build_funding
from wire.account import sha256d
from wire.errors import LocalFault, Refused
from wire.limits import MEMPOOL_ANCESTORS_MAX, MEMPOOL_MAX_TRANSACTIONS, WATCHED_MAX
from wire.network import REGTEST
from wire.ports import ChainFault, OutInfo, OutPoint, Rejected, Tip, TxInfo, TxOut

SCRIPT = p2wpkh(b"\x02" + b"\x11" * 32)


@pytest.fixture
def own(tmp_path: Path) -> Any:
    """A chain for one test."""
    regtest = Regtest(tmp_path / "own", REGTEST)
    regtest.mine(110)
    yield regtest
    regtest.close()


def replay(chain: Regtest) -> Ledger:
    """What a fresh start would read from the blocks."""
    ledger = Ledger()
    for height in range(chain.height + 1):
        ledger.connect(chain.block(height), height)
    return ledger


def branch(chain: Regtest, depth: int, blocks: int, body: tuple[Tx, ...] = (), tag: bytes = b"\x09") -> None:
    """Offer ``blocks`` blocks that leave the chain ``depth`` below its tip."""
    height = chain.height - depth
    previous, time_s = chain.block_hash(height), chain.median_time(chain.height)
    for step in range(1, blocks + 1):
        raw = build_block(
            height=height + step,
            previous=previous,
            time_s=time_s + step,
            script=FAUCET_SCRIPT,
            body=body if step == 1 else (),
            fees_sat=0,
            tag=tag,
        )
        chain.add_block(raw)
        previous = block_id(raw)


def block_id(raw: bytes) -> bytes:

    return sha256d(raw[:80])


def spend(chain: Regtest, source: OutPoint, *, value: int, fee: int, sequence: int = 0xFFFFFFFD) -> Tx:
    spending = TxIn(outpoint=source, sequence=sequence, witness=(ANYONE,))
    return Tx(inputs=(spending,), outputs=(TxOut(value - fee, FAUCET_SCRIPT),))


def coin(chain: Regtest) -> tuple[OutPoint, int]:
    funding = parse(build_funding(chain, []))
    source = funding.inputs[0].outpoint
    info = chain.outpoint(source)
    assert info is not None
    return source, info.value_sat


# --- the kernel's verdict ----------------------------------------------------------------------------------------


def test_a_block_with_a_bad_script_is_refused_although_the_kernel_says_true(own: Regtest) -> None:
    source, value = coin(own)
    bad = Tx(inputs=(TxIn(outpoint=source, witness=(b"\x00", ANYONE)),), outputs=(TxOut(value, SCRIPT),))
    before = replay(own)
    with pytest.raises(Rejected, match="invalid block"):
        own.mine_exactly([bad], 0)
    assert (own.height, own._ledger.coins) == (110, before.coins)
    with pytest.raises(Rejected, match=r"invalid|malformed"):
        own.mine_exactly([spend(own, source, value=value, fee=-1)], 0)
    with pytest.raises(Rejected, match=r"invalid|malformed"):
        own.mine_exactly([], 1)
    own.mine_exactly([spend(own, source, value=value, fee=0)], 0)
    assert own.height == 111


@pytest.mark.parametrize("place", [4, 36, 72, 80, 100])
def test_a_block_with_a_changed_byte_is_refused(own: Regtest, place: int) -> None:
    raw = bytearray(
        build_block(
            height=111,
            previous=own.block_hash(110),
            time_s=own.median_time(110) + 1,
            script=SCRIPT,
            body=(),
            fees_sat=0,
        )
    )
    raw[place] ^= 1 if place != 72 else 0x40
    with pytest.raises(Rejected):
        own.add_block(bytes(raw))
    assert own.height == 110


def test_rewards_halve(own: Regtest) -> None:
    assert [subsidy_sat(height) for height in (1, 149, 150, 300, 150 * 64)] == [
        50 * 10**8,
        50 * 10**8,
        25 * 10**8,
        125 * 10**7,
        0,
    ]
    own.mine(50)
    assert own.height == 160


def test_the_chain_is_read_again_after_a_restart(tmp_path: Path) -> None:
    chain = Regtest(tmp_path, REGTEST)
    chain.mine(105)
    chain.submit(build_funding(chain, [TxOut(5_000, SCRIPT)]))
    chain.mine(2)
    state = (chain.height, chain.block_hash(107), dict(chain._ledger.coins), dict(chain._ledger.spent))
    chain.close()
    again = Regtest(tmp_path, REGTEST)
    assert (again.height, again.block_hash(107), again._ledger.coins, again._ledger.spent) == state
    again.mine()
    again.close()


def test_a_folder_has_one_owner(tmp_path: Path) -> None:
    chain = Consensus(tmp_path)
    code = f"from pathlib import Path; from escrow.shell.consensus import Consensus; Consensus(Path({str(tmp_path)!r}))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert "LocalFault" in other.stderr
    assert "another program has it open" in other.stderr
    chain.close()
    Consensus(tmp_path).close()
    with pytest.raises(LocalFault):
        Consensus(Path("/proc/none"))


# --- reorganisations ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_the_mirror_follows_a_reorganisation(own: Regtest, depth: int) -> None:
    source, value = coin(own)
    first = spend(own, source, value=value, fee=500)
    own.submit(first.serialise())
    own.mine(depth)
    branch(own, depth, depth)
    assert own.transaction(first.txid) == TxInfo(first.serialise(), 111)  # as long, so nothing changed
    branch(own, depth, depth + 1, tag=b"\x0a")
    fresh = replay(own)
    assert (own._ledger.coins, own._ledger.spent, own._ledger._times) == (fresh.coins, fresh.spent, fresh._times)
    assert own._ledger.transactions.keys() == fresh.transactions.keys()
    assert own.mempool_ids() == [first.txid]
    assert own.transaction(first.txid) == TxInfo(first.serialise(), None)
    own.mine()
    assert own.outpoint(source) == OutInfo(value, FAUCET_SCRIPT, 1, TxInfo(first.serialise(), own.height))


def test_what_a_reorganisation_makes_impossible_leaves_the_mempool(own: Regtest) -> None:
    source, value = coin(own)
    first, rival = spend(own, source, value=value, fee=500), spend(own, source, value=value, fee=700)
    child = spend(own, OutPoint(first.txid, 0), value=value - 500, fee=400)
    own.submit(first.serialise())
    own.mine()
    own.submit(child.serialise())
    branch(own, 1, 2, (rival,))
    assert own.mempool_ids() == []
    assert own.transaction(child.txid) is None
    info = own.outpoint(source)
    assert info is not None
    assert info.spent_by == TxInfo(rival.serialise(), 111)


def test_a_block_reward_that_is_too_young_after_a_reorganisation(own: Regtest) -> None:
    mature = next(one for one in own.coins_of(FAUCET_SCRIPT) if one.height == 11)
    taking = spend(own, mature.outpoint, value=mature.output.value_sat, fee=500)
    own.submit(taking.serialise())
    younger = next(one for one in own.coins_of(FAUCET_SCRIPT) if one.height == 12)
    with pytest.raises(Rejected, match="too early"):
        own.submit(spend(own, younger.outpoint, value=younger.output.value_sat, fee=500).serialise())


def test_an_invalid_longer_branch_changes_nothing(own: Regtest) -> None:
    source, value = coin(own)
    first = spend(own, source, value=value, fee=500)
    own.submit(first.serialise())
    own.mine()
    bad = Tx(inputs=(TxIn(outpoint=source, witness=(b"\x00", ANYONE)),), outputs=(TxOut(value, SCRIPT),))
    with pytest.raises(Rejected):
        branch(own, 1, 2, (bad,))
    fresh = replay(own)
    assert own.transaction(first.txid) == TxInfo(first.serialise(), 111)
    assert (own.height, own._ledger.coins, own._ledger.spent) == (111, fresh.coins, fresh.spent)
    own.mine()


# --- the waiting room --------------------------------------------------------------------------------------------


def test_replacement_by_fee(own: Regtest) -> None:
    source, value = coin(own)
    first = spend(own, source, value=value, fee=500)
    child = spend(own, OutPoint(first.txid, 0), value=value - 500, fee=2_000)
    own.submit(first.serialise())
    own.submit(child.serialise())
    for fee in (400, 501, 2_500):
        with pytest.raises(Rejected) as refused:
            own.submit(spend(own, source, value=value, fee=fee).serialise())
        assert refused.value.code == "insufficient fee"
    assert own.mempool_ids() == [first.txid, child.txid]
    winner = spend(own, source, value=value, fee=2_700)
    own.submit(winner.serialise())
    assert own.mempool_ids() == [winner.txid]
    both = Tx(
        inputs=(
            TxIn(outpoint=source, witness=(ANYONE,)),
            TxIn(outpoint=OutPoint(winner.txid, 0), witness=(ANYONE,)),
        ),
        outputs=(TxOut(value, FAUCET_SCRIPT),),
    )
    with pytest.raises(Rejected) as refused:
        own.submit(both.serialise())
    assert refused.value.code == "bad-txns-spends-conflicting-tx"


def test_long_families_wait_outside(own: Regtest) -> None:
    source, value = coin(own)
    for _ in range(MEMPOOL_ANCESTORS_MAX):
        one = spend(own, source, value=value, fee=200)
        own.submit(one.serialise())
        source, value = OutPoint(one.txid, 0), value - 200
    with pytest.raises(Rejected) as refused:
        own.submit(spend(own, source, value=value, fee=200).serialise())
    assert refused.value.code == "too-long-mempool-chain"
    own.mine()
    assert own.mempool_ids() == []
    own.submit(spend(own, source, value=value, fee=200).serialise())


def test_shapes_that_may_not_wait(own: Regtest) -> None:
    source, value = coin(own)
    good = spend(own, source, value=value, fee=500)
    twice = dataclasses.replace(good, inputs=good.inputs * 2)
    shapes = {
        "bad-txns-inputs-duplicate": twice,
        "bad-txns-empty": dataclasses.replace(good, outputs=()),
        "version": dataclasses.replace(good, version=4),
        "tx-size": dataclasses.replace(good, outputs=(TxOut(1, b"\x6a"),)),
        "bad-txns-vout-range": dataclasses.replace(good, outputs=(TxOut(-1, FAUCET_SCRIPT),)),
        "bad-txns-in-belowout": spend(own, source, value=value, fee=-1),
        "min relay fee not met": spend(own, source, value=value, fee=50),
        "bad-txns-inputs-missingorspent": spend(own, OutPoint(bytes(32), 0), value=value, fee=500),
        "non-final": dataclasses.replace(good, lock_time=own.height + 1),
        "dust": dataclasses.replace(good, outputs=(TxOut(329, FAUCET_SCRIPT), TxOut(value - 900, FAUCET_SCRIPT))),
    }
    for code, shape in shapes.items():
        with pytest.raises(Rejected) as refused:
            own.submit(shape.serialise())
        assert refused.value.code == code
    with pytest.raises(Rejected):
        own.submit(b"nonsense")
    moment = dataclasses.replace(good, lock_time=own.median_time(own.height))
    with pytest.raises(Rejected, match="non-final"):
        own.submit(moment.serialise())
    ended = dataclasses.replace(moment, lock_time=own.median_time(own.height) - 1)
    own.submit(ended.serialise())
    later = spend(own, OutPoint(ended.txid, 0), value=value - 500, fee=500, sequence=(1 << 22) | 1)
    with pytest.raises(Rejected, match="non-BIP68-final"):
        own.submit(later.serialise())
    final = spend(own, OutPoint(ended.txid, 0), value=value - 500, fee=500, sequence=SEQUENCE_FINAL)
    own.submit(dataclasses.replace(final, lock_time=own.height + 50).serialise())
    own.mine()
    assert own.mempool_ids() == []


def test_data_outputs_are_no_dust(own: Regtest) -> None:
    source, value = coin(own)
    note = assemble(Op.RETURN, b"a note")
    one = Tx(inputs=(TxIn(outpoint=source, witness=(ANYONE,)),), outputs=(TxOut(0, note), TxOut(value - 500, p2wsh(ANYONE))))
    own.submit(one.serialise())
    own.mine()
    assert own.outpoint(OutPoint(one.txid, 0)) == OutInfo(0, note, own.height, None)
    assert own.outpoint(OutPoint(one.txid, 2)) is None


def test_the_faucet_gives_and_runs_dry(own: Regtest) -> None:
    given = 11
    for _ in range(given):
        own.faucet(SCRIPT, 49 * 10**8)
    with pytest.raises(Refused) as dry:
        own.faucet(SCRIPT, 49 * 10**8)
    assert dry.value.code == "faucet-dry"
    own.mine()
    assert sum(one.output.value_sat for one in own.coins_of(SCRIPT)) == given * 49 * 10**8
    own.faucet(SCRIPT, 1_000)


def test_genesis_cannot_be_spent_and_unknown_blocks_are_named(own: Regtest) -> None:
    _, body = parse_block(own.block(0))
    assert own.outpoint(OutPoint(body[0].txid, 0)) is None
    assert body[0].inputs[0].outpoint == COINBASE_OUTPOINT
    for height in (-1, 111):
        with pytest.raises(Refused):
            own.block_hash(height)
    with pytest.raises(Refused):
        own.height_of(bytes(32))


# --- the driver's eyes -------------------------------------------------------------------------------------------


def over(chain: Regtest, *, old: bool = False) -> tuple[httpx.AsyncClient, CoreChain]:
    """The RPC driver on a chain in this process, so that it can be reorganised; perhaps one without newer methods."""

    def answer(asked: Any) -> Any:
        if old and asked["method"] == "gettxspendingprevout":
            return {"result": None, "error": {"code": -32601, "message": "Method not found"}, "id": asked["id"]}
        return _one(chain, asked)

    def handler(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=[answer(one) for one in json.loads(request.content)])

    client = httpx.AsyncClient(transport=httpx.MockTransport(handler))
    return client, CoreChain(client, "http://127.0.0.1:1", REGTEST)


@pytest.mark.parametrize("old", [False, True], ids=["node", "old node"])
async def test_the_driver_sees_what_the_embedded_chain_sees(own: Regtest, old: bool) -> None:
    """One script of events; after each the RPC driver and the chain itself must tell the same."""
    client, driver = over(own, old=old)
    source, value = coin(own)
    first = spend(own, source, value=value, fee=500)
    second = spend(own, OutPoint(first.txid, 0), value=value - 500, fee=500)
    rival = spend(own, source, value=value, fee=900)
    watched = [source, OutPoint(first.txid, 0), OutPoint(second.txid, 0), OutPoint(rival.txid, 0), OutPoint(first.txid, 3)]
    steps: list[tuple[str, Callable[[], Any]]] = [
        ("nothing", lambda: None),
        ("waits", lambda: own.submit(first.serialise())),
        ("child waits", lambda: own.submit(second.serialise())),
        ("both confirmed", own.mine),
        ("deeper", lambda: own.mine(2)),
        ("reorganised, waits again", lambda: branch(own, 3, 4)),
        ("confirmed again", own.mine),
        ("rival", lambda: branch(own, 1, 2, (rival,), tag=b"\x0b")),
        ("deep reorganisation", lambda: branch(own, 6, 7, (first,), tag=b"\x0c")),
    ]
    async with client:
        for name, step in steps:
            step()
            for outpoint in watched:
                assert await driver.outpoint(outpoint) == own.outpoint(outpoint), (name, watched.index(outpoint))
            assert await driver.tip() == Tip(own.height, own.block_hash(own.height))
            for transaction in (first, second, rival):
                assert await driver.tx(transaction.txid) == own.transaction(transaction.txid)


class FullRoom:
    """A node where more waits than anybody wants to read."""

    async def sure(self, method: str, *parameters: Any) -> Any:
        await trio.lowlevel.checkpoint()
        return ["00" * 32] * (MEMPOOL_MAX_TRANSACTIONS + 1)

    async def batch(self, *calls: tuple[Any, ...]) -> list[Any]:
        raise NotImplementedError


async def test_a_large_mempool_is_not_read() -> None:
    with pytest.raises(ChainFault) as refused:
        await WaitingRoom(FullRoom()).spender(OutPoint(bytes(32), 0))
    assert refused.value.code == "chain-old"


class FakeChain:
    """A chain whose every answer the test sets."""

    def __init__(self) -> None:
        self.tip_now = Tip(5, b"\x01" * 32)
        self.outs: dict[OutPoint, OutInfo | None] = {}
        self.down = False
        self.asked = 0

    async def instance(self) -> bytes:
        raise NotImplementedError

    async def tip(self) -> Tip:
        await trio.lowlevel.checkpoint()
        if self.down:
            raise ChainFault("chain-down", "the chain does not answer")
        return self.tip_now

    async def feerate(self) -> int:
        return 1_234

    async def submit(self, raw: bytes) -> bytes:
        raise NotImplementedError

    async def tx(self, txid: bytes) -> TxInfo | None:
        raise NotImplementedError

    async def outpoint(self, outpoint: OutPoint) -> OutInfo | None:
        await trio.lowlevel.checkpoint()
        self.asked += 1
        return self.outs.get(outpoint)


async def test_the_watcher_tells_changes_and_nothing_else() -> None:
    chain, here = FakeChain(), OutPoint(b"\x02" * 32, 0)
    watcher, told = Watcher(chain), []

    async def deliver(event: TipSeen | OutpointSeen) -> None:
        await trio.lowlevel.checkpoint()
        told.append(event)

    async def look() -> list[TipSeen | OutpointSeen]:
        told.clear()
        await watcher.look(deliver)
        return list(told)

    assert await look() == [TipSeen(height=5, feerate_sat_per_kvb=1_234)]
    assert await look() == []
    watcher.watch(here)
    assert await look() == [OutpointSeen(outpoint=here, info=None)]
    assert await look() == []
    waiting, confirmed = OutInfo(1, b"", None, None), OutInfo(1, b"", 6, None)
    for tip, info in ((5, waiting), (6, confirmed), (6, waiting), (6, None)):
        chain.tip_now = Tip(tip, bytes([tip]) * 32)
        chain.outs[here] = info
        events = await look()
        assert events[-1] == OutpointSeen(outpoint=here, info=info)
        assert [type(one) for one in events[:-1]] == ([TipSeen] if events[0] != events[-1] else [])
        assert await look() == []
    chain.tip_now = Tip(6, b"\x77" * 32)
    assert await look() == [TipSeen(height=6, feerate_sat_per_kvb=1_234)]
    watcher.watch(here)
    assert await look() == [OutpointSeen(outpoint=here, info=None)]
    watcher.unwatch(here)
    chain.outs[here] = waiting
    assert await look() == []
    assert watcher.statistics().watched == 0


async def test_the_watcher_survives_a_chain_that_is_away(autojump_clock: trio.testing.MockClock) -> None:
    chain, here = FakeChain(), OutPoint(b"\x02" * 32, 0)
    chain.down = True
    watcher = Watcher(chain)
    got = trio.Event()

    async def deliver(event: TipSeen | OutpointSeen) -> None:
        await trio.lowlevel.checkpoint()
        if isinstance(event, OutpointSeen):
            got.set()

    async with trio.open_nursery() as nursery:
        await nursery.start(watcher.run, deliver)
        await trio.sleep(5)
        assert watcher.statistics().faults >= 5
        assert "does not answer" in watcher.statistics().fault
        chain.down = False
        await trio.sleep(1)
        assert watcher.statistics().fault == ""
        begun = trio.current_time()
        watcher.watch(here)
        await got.wait()
        assert trio.current_time() == begun  # a new watch does not wait for the next round
        nursery.cancel_scope.cancel()
    for number in range(WATCHED_MAX - 1):
        watcher.watch(OutPoint(number.to_bytes(32, "big"), 1))
    watcher.watch(here)
    with pytest.raises(LocalFault) as full:
        watcher.watch(OutPoint(b"\x09" * 32, 9))
    assert full.value.code == "watch-full"


async def test_the_embedded_chain_answers_like_a_chain(tmp_path: Path) -> None:
    async with KernelChain.open(tmp_path, first_blocks=0) as empty:
        with pytest.raises(Refused) as nameless:
            await empty.instance()
        assert nameless.value.code == "empty-chain"
        await empty.mine(101)
        txid = await empty.faucet(SCRIPT, 7_000)
        info = await empty.tx(txid)
        assert info is not None
        assert await empty.submit(info.raw) == txid
        assert await empty.mine_waiting() is True
        assert await empty.mine_waiting() is False
        assert [one.output for one in await empty.coins_of(SCRIPT)] == [TxOut(7_000, SCRIPT)]
        assert await empty.outpoint(OutPoint(txid, 0)) == OutInfo(7_000, SCRIPT, 102, None)
        assert await empty.feerate() == 1_000
        waits: list[Callable[[], Awaitable[Any]]] = [empty.tip, empty.instance, empty.tip]
        async with trio.open_nursery() as nursery:
            for one in waits * 20:
                nursery.start_soon(one)
