"""A chain that lies, leaves out, contradicts itself, talks rubbish or is away: named, not believed, and over when it is over."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
import trio.testing

from escrow.core.events import Phase
from escrow.core.script import p2wpkh, p2wsh
from escrow.core.transaction import Tx, TxIn
from escrow.shell.checked import CheckedChain, ComparedChain
from escrow.shell.core_rpc import CoreChain
from escrow.shell.ledger import Coin
from escrow.shell.recovery import recover
from escrow.shell.regtest import FAUCET_SCRIPT
from escrow.shell.wallet import KeyWallet
from escrow.shell.watcher import Watcher
from tests.escrow.pair import Pair
from tests.escrow.test_devchain import MemoryJournal
from wire.keys import SecretKey
from wire.network import REGTEST
from wire.ports import ChainFault, OutInfo, OutPoint, Rejected, Tip, TxInfo, TxOut

Make = Callable[..., Pair]
KEY = SecretKey(b"\x41" * 32)
SCRIPT = p2wpkh(KEY.public)
MADE = Tx(inputs=(TxIn(outpoint=OutPoint(b"\x01" * 32, 0), witness=(b"s", KEY.public)),), outputs=(TxOut(9_000, SCRIPT),))
HERE = OutPoint(MADE.txid, 0)
SPENT = Tx(inputs=(TxIn(outpoint=HERE, witness=(b"s", KEY.public)),), outputs=(TxOut(8_000, SCRIPT),))
TRUE = OutInfo(9_000, SCRIPT, 5, TxInfo(SPENT.serialise(), 6))


class Told:
    """A chain that says what it is told to say."""

    def __init__(self) -> None:
        self.says: dict[str, Any] = {
            "instance": b"\x07" * 32,
            "tip": Tip(7, b"\x08" * 32),
            "feerate": 1_000,
            "submit": MADE.txid,
            "tx": TxInfo(MADE.serialise(), 5),
            "outpoint": TRUE,
            "coins_of": [Coin(HERE, TxOut(9_000, SCRIPT), 5, coinbase=False)],
            "history_of": [TxInfo(MADE.serialise(), 5)],
        }
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Any:
        async def answer(*_: Any) -> Any:
            await trio.lowlevel.checkpoint()
            self.asked.append(name)
            said = self.says[name]
            if isinstance(said, Exception):
                raise said
            return said() if callable(said) else said

        return answer


async def ask(chain: Any, name: str) -> Any:
    arguments: dict[str, tuple[Any, ...]] = {
        "submit": (MADE.serialise(),),
        "tx": (MADE.txid,),
        "outpoint": (HERE,),
        "coins_of": (SCRIPT,),
        "history_of": (SCRIPT, 0),
    }
    return await getattr(chain, name)(*arguments.get(name, ()))


def spent(**fields: Any) -> OutInfo:
    return dataclasses.replace(TRUE, **fields)


LIES: dict[str, tuple[str, Any]] = {
    "a height below zero": ("tip", Tip(-1, b"\x08" * 32)),
    "a height that is a moment": ("tip", Tip(600_000_000, b"\x08" * 32)),
    "half a hash": ("tip", Tip(7, b"\x08")),
    "another name": ("submit", bytes(32)),
    "another transaction": ("tx", TxInfo(SPENT.serialise(), 5)),
    "no transaction": ("tx", TxInfo(b"rubbish", 5)),
    "a transaction at no height": ("tx", TxInfo(MADE.serialise(), -3)),
    "more money than there is": ("outpoint", spent(value_sat=1 << 62)),
    "less than none": ("outpoint", spent(value_sat=-1)),
    "another value": ("outpoint", spent(value_sat=9_001)),
    "another script": ("outpoint", spent(script=p2wsh(b"theirs"))),
    "a script too long": ("outpoint", spent(script=bytes(10_001))),
    "an output in the future of the chain": ("outpoint", spent(height=1 << 40)),
    "a spender that does not spend it": ("outpoint", spent(spent_by=TxInfo(MADE.serialise(), 6))),
    "a spender that is nothing": ("outpoint", spent(spent_by=TxInfo(b"", 6))),
    "spent before it was made": ("outpoint", spent(spent_by=TxInfo(SPENT.serialise(), 4))),
    "spent in a block and not made in one": ("outpoint", spent(height=None)),
    "somebody else's coin": ("coins_of", [Coin(HERE, TxOut(9_000, p2wsh(b"x")), 5, coinbase=False)]),
    "a coin twice": ("coins_of", [Coin(HERE, TxOut(9_000, SCRIPT), 5, coinbase=False)] * 2),
    "a coin of nothing": ("coins_of", [Coin(HERE, TxOut(0, SCRIPT), 5, coinbase=False)]),
}


async def test_the_truth_passes() -> None:
    told = Told()
    chain = CheckedChain(told, REGTEST)
    for name, said in told.says.items():
        assert await ask(chain, name) == said


@pytest.mark.parametrize("name", LIES)
async def test_every_lie_that_can_be_seen_is_named(name: str) -> None:
    told = Told()
    chain = CheckedChain(told, REGTEST)
    await chain.submit(MADE.serialise())
    method, said = LIES[name]
    truth, told.says[method] = told.says[method], said
    with pytest.raises(ChainFault) as caught:
        await ask(chain, method)
    assert caught.value.code in ("chain-lies", "chain-garbled")
    told.says[method] = truth
    assert await ask(chain, method) == truth


@pytest.mark.parametrize("rubbish", [None, 7, "x", [], {}, [None], (1, 2)])
@pytest.mark.parametrize("method", ["instance", "tip", "coins_of", "outpoint", "tx"])
async def test_a_driver_that_slips_is_named(method: str, rubbish: Any) -> None:
    told = Told()

    def slip() -> Any:
        raise KeyError(repr(rubbish))

    told.says[method] = slip
    with pytest.raises(ChainFault) as caught:
        await ask(CheckedChain(told, REGTEST), method)
    assert caught.value.code == "chain-garbled"


async def test_a_chain_that_becomes_another_is_named() -> None:
    told = Told()
    chain = CheckedChain(told, REGTEST)
    await chain.instance()
    told.says["instance"] = b"\x09" * 32
    with pytest.raises(ChainFault, match="another chain"):
        await chain.instance()


RESULTS: list[Any] = [None, True, -1, 1.5, "", "zz", "00" * 32, [], [{}], {}, {"blocks": "x"}, {"unspents": [{}]}, {"value": 1}]


@pytest.mark.parametrize("result", RESULTS, ids=repr)
async def test_rubbish_over_the_wire_never_gets_through(result: Any) -> None:
    """Whatever a server answers to everything, each question ends with an answer of the right kind or a named fault."""

    def answer(request: httpx.Request) -> httpx.Response:
        asked = json.loads(request.content)
        return httpx.Response(200, json=[{"id": one["id"], "result": result} for one in asked])

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
        chain = CheckedChain(CoreChain(client, "http://chain", REGTEST), REGTEST)
        for name in Told().says:
            try:
                told = await ask(chain, name)
            except (ChainFault, Rejected):
                continue
            assert name in ("feerate", "tx", "outpoint", "coins_of", "submit", "history_of")
            assert told is None or name in ("feerate", "submit") or told == []
            if name == "feerate":
                assert told == REGTEST.feerate_min_sat_per_kvb


@pytest.mark.parametrize("status", [200, 401, 500])
@pytest.mark.parametrize("body", [b"", b"<html>", b"null", b"[]", b'{"error": 1}', b"\xff\xfe"])
async def test_what_is_no_rpc_at_all_is_named(status: int, body: bytes) -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(status, content=body))
    async with httpx.AsyncClient(transport=transport) as client:
        chain = CheckedChain(CoreChain(client, "http://chain", REGTEST), REGTEST)
        for name in Told().says:
            with pytest.raises(ChainFault):
                await ask(chain, name)


async def test_a_server_that_does_not_answer_in_time_is_named() -> None:
    def late(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("late", request=request)

    async with httpx.AsyncClient(transport=httpx.MockTransport(late)) as client:
        with pytest.raises(ChainFault) as caught:
            await CheckedChain(CoreChain(client, "http://chain", REGTEST), REGTEST).tip()
    assert caught.value.code == "chain-down"


# --- two servers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("liar", [0, 1])
@pytest.mark.parametrize(
    ("method", "omission"),
    [
        ("outpoint", None),
        ("outpoint", spent(spent_by=None)),
        ("outpoint", spent(spent_by=TxInfo(SPENT.serialise(), None))),
        ("outpoint", spent(height=4)),
        ("coins_of", []),
        ("tip", Tip(6, b"\x09" * 32)),
        ("tip", Tip(7, b"\x09" * 32)),
    ],
)
async def test_what_one_server_leaves_out_the_other_tells(liar: int, method: str, omission: Any) -> None:
    both = [Told(), Told()]
    chain = ComparedChain(both[0], both[1], REGTEST)
    assert await ask(chain, method) == both[0].says[method]
    both[liar].says[method] = omission
    with pytest.raises(ChainFault) as caught:
        await ask(chain, method)
    assert caught.value.code == "chains-disagree"
    both[1 - liar].says[method] = omission
    assert await ask(chain, method) == omission  # two that agree are believed


async def test_what_waits_is_heard_from_whoever_knows_it() -> None:
    one, other = Told(), Told()
    chain = ComparedChain(one, other, REGTEST)
    waiting = OutInfo(9_000, SCRIPT, None, None)
    one.says["outpoint"], other.says["outpoint"] = None, waiting
    assert await ask(chain, "outpoint") == waiting
    taken = spent(spent_by=TxInfo(SPENT.serialise(), None))
    one.says["outpoint"], other.says["outpoint"] = spent(spent_by=None), taken
    assert await ask(chain, "outpoint") == taken


async def test_one_of_two_servers_is_enough_to_broadcast() -> None:
    one, other = Told(), Told()
    chain = ComparedChain(one, other, REGTEST)
    one.says["submit"] = ChainFault("chain-down", "away")
    assert await ask(chain, "submit") == MADE.txid
    one.says["submit"], other.says["submit"] = MADE.txid, Rejected("rejected", "no")
    assert await ask(chain, "submit") == MADE.txid
    one.says["submit"] = Rejected("rejected", "no")
    with pytest.raises(Rejected):
        await ask(chain, "submit")


async def test_two_chains_that_are_not_one_are_named() -> None:
    one, other = Told(), Told()
    other.says["instance"] = b"\x09" * 32
    with pytest.raises(ChainFault) as caught:
        await ComparedChain(one, other, REGTEST).instance()
    assert caught.value.code == "chains-disagree"


# --- who uses it -------------------------------------------------------------------------------------------------


async def test_wallet_watcher_and_recovery_believe_nothing_while_it_lies_and_go_on_after(tmp_path: Path) -> None:
    told = Told()
    told.says["outpoint"] = spent(spent_by=None)
    chain = CheckedChain(told, REGTEST)
    journal = MemoryJournal()
    wallet = await KeyWallet.open(KEY, chain, journal, REGTEST)
    assert await wallet.balance_sat() == 9_000
    told.says["tip"] = Tip(8, b"\x09" * 32)
    truth, told.says["coins_of"] = told.says["coins_of"], [Coin(HERE, TxOut(9_000, p2wsh(b"x")), 5, coinbase=False)]
    for call in (wallet.fund([TxOut(1_000, SCRIPT)]), wallet.balance_sat(), wallet.send("x", wallet.address, 1_000)):
        with pytest.raises(ChainFault):
            await call
    assert journal.rows == {}
    assert "submit" not in told.asked
    told.says["coins_of"] = truth
    assert await wallet.balance_sat() == 9_000

    events: list[Any] = []

    async def deliver(event: Any) -> None:
        await trio.lowlevel.checkpoint()
        events.append(event)

    watcher = Watcher(chain)
    watcher.watch(HERE)
    await watcher.look(deliver)
    told.says["outpoint"] = spent(value_sat=1 << 60)
    count = len(events)
    with pytest.raises(ChainFault):
        await watcher.look(deliver)
    assert len(events) == count
    told.says["outpoint"] = TRUE
    await watcher.look(deliver)
    assert events[-1].info == TRUE

    told.says["tip"] = ChainFault("chain-down", "away")
    with pytest.raises(ChainFault):
        await recover(KEY, REGTEST, chain, [])


async def test_a_fault_is_told_when_it_begins_and_when_it_ends(autojump_clock: trio.testing.MockClock) -> None:
    told, said = Told(), list[tuple[str, str]]()
    watcher = Watcher(CheckedChain(told, REGTEST), still_s=100)
    watcher.on_fault = lambda code, sentence: said.append((code, sentence))

    async def deliver(event: Any) -> None:
        await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        await nursery.start(watcher.run, deliver)
        await trio.sleep(5)
        assert said == []
        told.says["tip"] = ChainFault("chain-down", "it does not answer")
        await trio.sleep(5)
        assert said == [("chain-down", "it does not answer")]
        told.says["tip"] = Tip(-1, bytes(32))
        await trio.sleep(5)
        assert [code for code, _ in said] == ["chain-down", "chain-lies"]
        told.says["tip"] = Tip(8, bytes(32))
        await trio.sleep(50)
        assert [code for code, _ in said] == ["chain-down", "chain-lies", ""]
        await trio.sleep(100)
        assert said[-1][0] == "chain-still"
        assert "no new block" in watcher.statistics().fault
        told.says["tip"] = Tip(9, bytes(32))
        await trio.sleep(5)
        assert said[-1] == ("", "")
        nursery.cancel_scope.cancel()


# --- the machines under omissions --------------------------------------------------------------------------------


class Veil:
    """Between a real chain and the two parties: what it hides, they do not see."""

    def __init__(self, world: Pair) -> None:
        self._chain = world.chain
        self.hides: Callable[[OutPoint, OutInfo | None], OutInfo | None] = lambda _, info: info
        self.frozen: int | None = None
        world.chain = self  # type: ignore[assignment]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._chain, name)

    @property
    def height(self) -> int:
        return self._chain.height if self.frozen is None else self.frozen

    def outpoint(self, outpoint: OutPoint) -> OutInfo | None:
        info = self._chain.outpoint(outpoint)
        faucets = info is not None and info.script == FAUCET_SCRIPT  # what fundings are built from
        return info if faucets else self.hides(outpoint, info)


def test_a_hidden_funding_starts_nothing_and_gives_no_key(pair: Make) -> None:
    world = pair()
    veil = Veil(world)
    veil.hides = lambda _, info: None
    world.open().run().mine(3)
    assert (world.buyer.machine.phase, world.seller.machine.phase) == (Phase.FUNDED, Phase.FUNDED)
    world.pay(0)
    assert world.buyer.machine.row.last is None
    assert world.seller.machine.row.last is None
    veil.hides = lambda _, info: info
    world.run().mine()
    assert world.buyer.machine.row.revealed_msat == 2_600_500
    world.close(world.buyer).mine()
    assert world.check_end().to_seller_sat == 2_600


def test_an_unconfirmed_answer_about_a_confirmed_funding_gives_no_key(pair: Make) -> None:
    world = pair()
    veil = Veil(world)
    veil.hides = lambda _, info: None if info is None else dataclasses.replace(info, height=None)
    world.open().run().mine(2)
    world.pay(0)
    assert world.buyer.machine.row.revealed_msat == 0
    veil.hides = lambda _, info: info
    world.run().mine()
    assert world.buyer.machine.row.revealed_msat == 2_600_500


def test_a_hidden_spend_delays_the_end_and_changes_nothing(pair: Make) -> None:
    world = pair().ready().pay(0)
    veil = Veil(world)
    veil.hides = lambda _, info: None if info is None else dataclasses.replace(info, spent_by=None)
    world.close(world.buyer).mine(3)
    assert Phase.CLOSED not in (world.buyer.machine.phase, world.seller.machine.phase)
    assert world.buyer.machine.row.ending is None
    veil.hides = lambda _, info: info
    world.run().mine()
    assert world.check_end().to_seller_sat == 2_600


def test_a_frozen_tip_refunds_nothing_early_and_everything_once_it_moves(pair: Make) -> None:
    world = pair().ready().pay(0)
    world.seller.alive = False
    veil = Veil(world)
    veil.frozen = veil._chain.height
    for _ in range(world.terms.refund_height - veil._chain.height + 1):
        veil._chain.mine()
    world.run()
    assert world.buyer.machine.phase is Phase.OPEN
    assert world.buyer.machine.row.end_raw == b""
    veil.frozen = None
    world.run()
    veil._chain.mine()
    world.run()
    assert world.buyer.end.to_seller_sat == 0
    assert world.buyer.end.to_buyer_sat > world.terms.capacity_sat - 200


@pytest.mark.parametrize("rounds", [1, 4])
def test_a_chain_that_says_now_this_and_now_that_makes_nobody_sign_twice(pair: Make, rounds: int) -> None:
    """The funding flickers: seen, hidden, seen. The balance is what was paid, and it ends as it would have."""
    world = pair().ready().pay(0)
    veil = Veil(world)
    before = world.buyer.machine.row.last
    for _ in range(rounds):
        veil.hides = lambda _, info: None
        world.run()
        assert world.buyer.machine.phase.value == "funded"
        veil.hides = lambda _, info: info
        world.run()
        assert world.buyer.machine.phase.value == "open"
    assert world.buyer.machine.row.last == before
    world.pay(1)
    world.close(world.buyer).mine()
    assert world.check_end().to_seller_sat == 5_201
