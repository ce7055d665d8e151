"""What the drivers of far servers do without their library: names, kept transactions, coins, broadcasts, histories."""

import sys
from pathlib import Path

import pytest
import trio

from escrow.core.recovery import touches
from escrow.core.script import p2wpkh
from escrow.core.transaction import Tx, TxIn, read_id, show_id
from escrow.shell import far
from escrow.shell.bdk import Library, Refusal
from escrow.shell.far import GENESIS, Kept, Line, broadcast, coins_in, feerate_of, history_in, instance_of, spender_of
from escrow.shell.kernel import KernelChain
from escrow.shell.lines import Histories, script_hash
from escrow.shell.regtest import FAUCET_SCRIPT, Regtest
from tests.bdk.ledgers import history
from tests.bdk.servers import Electrum, Raw, Status, serving
from wire.account import sha256d
from wire.errors import LocalFault
from wire.keys import SecretKey
from wire.network import MAIN, NETWORKS, REGTEST, SIGNET
from wire.ports import NOT_SEEN, ChainFault, OutPoint, Rejected, TxOut

KEY = SecretKey(b"\x31" * 32)
SCRIPT = p2wpkh(KEY.public)
MADE = Tx(inputs=(TxIn(outpoint=OutPoint(b"\x01" * 32, 0), witness=(b"s", KEY.public)),), outputs=(TxOut(9_000, SCRIPT),))
RAW = MADE.serialise()

# Time, bits and nonce of first blocks, which all hold one transaction; chainparams.cpp of Bitcoin Core.
_ROOT = "4a5e1e4baab89f3a32518a88c31bc87f618f76673e2cc77ab2127b7afdeda33b"
FIRST = {
    "main": (1_231_006_505, 0x1D00FFFF, 2_083_236_893),
    "signet": (1_598_918_400, 0x1E0377AE, 52_613_770),
    "regtest": (1_296_688_602, 0x207FFFFF, 2),
}


@pytest.mark.parametrize("name", GENESIS)
def test_the_first_blocks_are_what_their_headers_hash_to(name: str) -> None:
    numbers = b"".join(one.to_bytes(4, "little") for one in FIRST[name])
    header = (1).to_bytes(4, "little") + bytes(32) + read_id(_ROOT) + numbers
    assert show_id(sha256d(header)) == GENESIS[name]


def test_every_network_has_its_first_block() -> None:
    assert {one.bitcoin for one in NETWORKS.values()} == set(GENESIS)


def test_a_chain_is_named_as_elsewhere_and_another_network_is_refused(chain: Regtest) -> None:
    assert instance_of(SIGNET, read_id(GENESIS["signet"]), b"") == read_id(GENESIS["signet"])
    first = chain.block_hash(1)
    assert instance_of(REGTEST, chain.block_hash(0), first) != instance_of(REGTEST, chain.block_hash(0), chain.block_hash(2))
    for network, genesis, place in ((MAIN, GENESIS["signet"], "signet"), (SIGNET, "07" * 32, "nobody here knows")):
        with pytest.raises(ChainFault, match=place) as caught:
            instance_of(network, read_id(genesis), b"")
        assert caught.value.code == "wrong-network"


async def test_without_the_library_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bdkpython", None)
    with pytest.raises(LocalFault, match=r"bitwrk\[bdk\]") as caught:
        await Library.load("nowhere")
    assert caught.value.code == "no-bdk"


@pytest.mark.parametrize(
    ("told", "wanted"),
    [(-1e8, 1_000), (0, 1_000), (1_000.0001, 1_001), (2_500, 2_500), (49_999.5, 50_000), (1e30, 50_000)],
)
def test_rates_are_whole_and_within_the_clamp(told: float, wanted: int) -> None:
    assert feerate_of(REGTEST, told) == wanted


@pytest.mark.parametrize("told", [float("nan"), float("inf"), -float("inf")])
def test_a_rate_that_is_no_number_is_named(told: float) -> None:
    with pytest.raises(ChainFault):
        feerate_of(REGTEST, told)


# --- transactions and histories ------------------------------------------------------------------------------------


def test_transactions_are_kept_under_their_own_hash_and_within_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(far, "FAR_KEPT_MAX_BYTES", 3 * len(RAW))
    kept, made = Kept(), [Tx(inputs=MADE.inputs, outputs=(TxOut(9_000 + number, SCRIPT),)) for number in range(5)]
    for one in made[:3]:
        assert kept.keep(one.txid, one.serialise()) == one
    kept.keep(made[0].txid, made[0].serialise())  # a second time it takes no room
    assert kept.get(made[0].txid) == made[0]
    kept.keep(made[3].txid, made[3].serialise())
    assert [kept.get(one.txid) is not None for one in made] == [True, False, True, True, False]
    for raw, code in ((made[1].serialise(), "chain-lies"), (RAW[:-1], "chain-garbled"), (b"", "chain-garbled")):
        with pytest.raises(ChainFault) as caught:
            kept.keep(made[4].txid, raw)
        assert caught.value.code == code
    assert kept.get(made[4].txid) is None


def test_coins_and_spenders_come_out_of_a_history_as_the_ledger_has_them(chain: Regtest) -> None:
    for value_sat in (50_000, 60_000):
        chain.faucet(SCRIPT, value_sat)
        chain.mine()
    chain.mine(1, SCRIPT)
    chain.faucet(SCRIPT, 70_000)  # it waits
    for script in (SCRIPT, FAUCET_SCRIPT):
        lines = history(chain, script)
        assert coins_in(script, lines) == chain.coins_of(script)
        for tx, _ in lines:
            for vout, output in enumerate(tx.outputs):
                here = OutPoint(tx.txid, vout)
                found = chain.outpoint(here)
                assert found is not None
                if output.script == script:
                    assert spender_of(here, lines) == found.spent_by
    lines = history(chain, SCRIPT)
    assert history_in(SCRIPT, chain.height - 1, lines) == chain.history_of(SCRIPT, chain.height - 1)
    strange = [(MADE, 3), (Tx(inputs=MADE.inputs, outputs=(TxOut(1_000, FAUCET_SCRIPT),)), 2)]
    assert [one.height for one in history_in(FAUCET_SCRIPT, 0, [*strange])] == [2]
    assert touches(MADE, SCRIPT)


def test_a_confirmed_spender_counts_before_a_waiting_one() -> None:
    here = MADE.inputs[0].outpoint
    rival = Tx(inputs=MADE.inputs, outputs=(TxOut(8_000, SCRIPT),))
    found = spender_of(here, [(rival, None), (MADE, 7)])
    assert found is not None
    assert (found.raw, found.height) == (RAW, 7)
    assert spender_of(OutPoint(bytes(32), 0), [(MADE, 7)]) is None


# --- broadcasts ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "known", "wanted"),
    [
        (None, True, ""),
        (None, False, NOT_SEEN),
        ("txn-already-known", True, ""),
        ("Transaction already in block chain", True, ""),
        ("bad-txns-inputs-missingorspent", False, "missing-inputs"),
        ("Missing inputs", False, "missing-inputs"),
        ("min relay fee not met", False, "rejected"),
    ],
)
async def test_a_broadcast_counts_when_the_transaction_is_seen(
    monkeypatch: pytest.MonkeyPatch, words: str | None, known: bool, wanted: str
) -> None:
    monkeypatch.setattr(far, "_SEEN_PAUSE_S", 0.0)

    async def send() -> None:
        await trio.lowlevel.checkpoint()
        if words is not None:
            raise Refusal(400, words)

    async def look(txid: bytes) -> bool:
        await trio.lowlevel.checkpoint()
        assert txid == MADE.txid
        return known

    if not wanted:
        assert await broadcast(RAW, send, look) == MADE.txid
        return
    with pytest.raises(Rejected) as caught:
        await broadcast(RAW, send, look)
    assert caught.value.code == wanted
    assert words is None or words in caught.value.sentence


# --- one question in Electrum's protocol ---------------------------------------------------------------------------


def test_a_scripts_name_is_that_of_the_protocol() -> None:
    """From the protocol's documentation: the output of the first block, paid to a key's hash."""
    script = bytes.fromhex("76a91462e907b15cbf27d5425399ebf6f0fb50ebb88f1888ac")
    assert script_hash(script) == "8b01df4e368ea28f8dc0423bcf7a4923e3a12d307c875e47a0cfbf90b5c39161"


async def test_histories_are_asked_over_one_connection_that_is_made_again(tmp_path: Path) -> None:
    async with KernelChain.open(tmp_path, REGTEST, 110) as own, trio.open_nursery() as nursery:
        server = Electrum(own)
        await server.open(nursery)
        asking = Histories(server.url)
        assert await asking.history(SCRIPT) == []
        made = await own.faucet(SCRIPT, 50_000)
        assert await asking.history(SCRIPT) == [Line(made, None)]
        await own.mine(1)
        assert await asking.history(SCRIPT) == [Line(made, 111)]
        assert server.asked.count("server.version") == 1
        server.vanish()
        await server.open(nursery)
        assert await asking.history(SCRIPT) == [Line(made, 111)]
        assert server.asked.count("server.version") == 2
        server.vanish()
        for _ in range(2):
            with pytest.raises(ChainFault) as caught:
                await asking.history(SCRIPT)
            assert caught.value.code == "chain-down"
        await asking.close()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "answer",
    [None, {}, "x", 7, [None], [{}], [{"tx_hash": "07" * 32}], [{"tx_hash": "07" * 32, "height": True}],
     [{"tx_hash": "07" * 32, "height": -2}], [{"tx_hash": "x", "height": 1}], Raw(b"\xff\n"), Raw(b"[" * 9_000 + b"\n"),
     Raw(b"[]\n"), Raw(b"\n")],
    ids=repr,
)  # fmt: skip
async def test_an_answer_of_another_shape_is_named_and_the_next_is_heard(tmp_path: Path, answer: object) -> None:
    async with KernelChain.open(tmp_path, REGTEST, 2) as own:
        server = Electrum(own)
        async with serving(server):
            asking = Histories(server.url)
            server.bend = lambda question, arguments, truth: truth if question == "server.version" else answer
            with pytest.raises(ChainFault) as caught:
                await asking.history(SCRIPT)
            assert caught.value.code == "chain-garbled"
            server.bend = lambda question, arguments, truth: Status(1, "excessive resource usage")
            with pytest.raises((Refusal, ChainFault)):
                await asking.history(SCRIPT)
            server.bend = lambda question, arguments, truth: truth
            assert await asking.history(SCRIPT) == []
            await asking.close()
