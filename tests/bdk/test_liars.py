"""Servers that lie, leave out, talk rubbish, stall and vanish: named, not believed, and over when it is over."""

import datetime
import itertools
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from escrow.core.events import Phase
from escrow.core.script import p2wpkh
from escrow.core.transaction import Tx, TxIn, parse, show_id
from escrow.shell import lines
from escrow.shell.checked import CheckedChain, ComparedChain
from escrow.shell.electrum import ElectrumChain
from escrow.shell.kernel import KernelChain
from escrow.shell.lines import Histories
from escrow.shell.wallet import KeyWallet
from tests.bdk.servers import KINDS, Electrum, Esplora, Raw, Server, Stall, Status, serving
from tests.bdk.worlds import World, driver, play, world
from tests.escrow.pair import Pair
from tests.escrow.test_devchain import MemoryJournal
from wire.keys import SecretKey
from wire.limits import FAR_THREADS_MAX
from wire.network import REGTEST
from wire.ports import ChainFault, OutPoint, Rejected, TxOut

KEY = SecretKey(b"\x31" * 32)
SCRIPT = p2wpkh(KEY.public)
OTHER = Tx(inputs=(TxIn(outpoint=OutPoint(b"\x01" * 32, 0), witness=(b"s", KEY.public)),), outputs=(TxOut(9_000, SCRIPT),))

both = pytest.mark.parametrize("kind", KINDS)


class Told:
    """A question of a server, in either protocol, by what it is about."""

    def __init__(self, question: str) -> None:
        parts = question.strip("/").split("/")
        electrum = {
            "blockchain.headers.subscribe": "tip",
            "blockchain.block.header": "block",
            "blockchain.transaction.get": "raw",
            "blockchain.scripthash.get_history": "history",
            "blockchain.estimatefee": "fee",
            "blockchain.transaction.broadcast": "send",
            "server.version": "greeting",
        }
        match parts:
            case ["blocks", "tip", "height"]:
                self.about = "tip"
            case ["blocks", "tip", "hash"]:
                self.about = "hash"
            case ["block-height", _]:
                self.about = "block"
            case ["tx", _, "raw"]:
                self.about = "raw"
            case ["tx", _, "outspend", _]:
                self.about = "spent"
            case ["tx", _]:
                self.about = "tx"
            case ["address", *_]:
                self.about = "history"
            case ["fee-estimates"]:
                self.about = "fee"
            case ["tx"]:
                self.about = "send"
            case _:
                self.about = electrum.get(question, question)


def bends(about: str, change: Callable[[Any], Any]) -> Callable[[str, Any, Any], Any]:
    """Change the answers about one thing only; nothing that is no error."""

    def bend(question: str, arguments: Any, truth: Any) -> Any:
        return change(truth) if Told(question).about == about and not isinstance(truth, Status) else truth

    return bend


async def ask_all(chain: Any, here: OutPoint) -> list[Any]:
    """Every question once; faults and refusals are answers."""
    found: list[Any] = []
    for name, arguments in (
        ("tip", ()),
        ("feerate", ()),
        ("tx", (here.txid,)),
        ("outpoint", (here,)),
        ("coins_of", (SCRIPT,)),
        ("history_of", (SCRIPT, 0)),
        ("submit", (OTHER.serialise(),)),
    ):
        try:
            found.append(await getattr(chain, name)(*arguments))
        except (ChainFault, Rejected) as error:
            found.append(error)
    return found


async def spent_coin(here: World) -> OutPoint:
    """An output of ours that a confirmed transaction of ours spends."""
    made = await here.own.faucet(SCRIPT, 900_000)
    await here.own.mine(1)
    wallet = await KeyWallet.open(KEY, here.own, MemoryJournal(), REGTEST)
    await here.own.submit(await wallet.fund([TxOut(300_000, SCRIPT)]))
    await here.own.mine(1)
    return OutPoint(made, 0)


def at_height(height: Any) -> Callable[[Any], Any]:
    """Every height in an answer is another."""

    def change(truth: Any) -> Any:
        match truth:
            case list():
                return [change(one) for one in truth]
            case dict():
                told = {name: change(value) if isinstance(value, dict) else value for name, value in truth.items()}
                return told | {name: height for name in ("height", "block_height") if name in told}
            case _:
                return truth

    return change


def backwards(truth: Any) -> Any:
    """The first of a history happened last, and everything else at the beginning."""
    return at_height(truth[-1]["height"])(truth[:1]) + at_height(1)(truth[1:])


NUMBERS = itertools.count()
# What is changed, what is asked then, and the codes that may come of it.
Lie = tuple[str, Callable[[Any], Any], str]
NAMED = ("chain-lies", "chain-garbled", "chain-moves", "chain-refused", "chain-down")
LIES: dict[str, dict[str, Lie]] = {
    "esplora": {
        "another transaction": ("raw", lambda _: OTHER.serialise(), "outpoint"),
        "no transaction": ("raw", lambda _: b"rubbish", "outpoint"),
        "half a transaction": ("raw", lambda truth: truth[:-7], "outpoint"),
        "heights beyond all chains": ("tx", at_height(600_000_000), "outpoint"),
        "heights below zero": ("tx", at_height(-4), "outpoint"),
        "confirmed nowhere": ("tx", at_height(None), "outpoint"),
        "heights in words": ("tx", at_height("seven"), "outpoint"),
        "spent before it was made": ("spent", at_height(1), "outpoint"),
        "spent by one that does not": ("spent", lambda truth: truth | {"txid": "07" * 32}, "outpoint"),
        "spent by nobody": ("spent", lambda truth: {"spent": True}, "outpoint"),
        "spent in words": ("spent", lambda truth: {"spent": "yes"}, "outpoint"),
        "a tip in words": ("tip", lambda _: "high", "tip"),
        "a tip below zero": ("tip", lambda _: "-7", "tip"),
        "a tip beyond all chains": ("tip", lambda _: "4000000000", "tip"),
        "half a hash": ("block", lambda truth: truth[:20], "tip"),
        "a hash that always changes": ("hash", lambda _: f"{next(NUMBERS):064x}", "outpoint"),
        "fees in words": ("fee", lambda _: {"2": "much"}, "feerate"),
        "fees for no target": ("fee", lambda _: {"soon": 2.0}, "feerate"),
        "a history of nothing": ("history", lambda _: [{}], "coins_of"),
        "a history of what is not there": ("history", lambda truth: [one | {"txid": "07" * 32} for one in truth[:1]], "coins_of"),
        "a history that is an object": ("history", lambda _: {}, "history_of"),
        "heights in a history": ("history", at_height(-4), "history_of"),
    },
    "electrum": {
        "another transaction": ("raw", lambda _: OTHER.serialise().hex(), "outpoint"),
        "no transaction": ("raw", lambda _: "rubbish", "outpoint"),
        "half a transaction": ("raw", lambda truth: truth[:-14], "outpoint"),
        "no text": ("raw", lambda _: 7, "outpoint"),
        "heights beyond all chains": ("history", at_height(600_000_000), "outpoint"),
        "heights below zero": ("history", at_height(-4), "outpoint"),
        "heights in words": ("history", at_height("seven"), "outpoint"),
        "no heights": ("history", at_height(None), "outpoint"),
        "heights of another order": ("history", backwards, "outpoint"),
        "a spender that is not there": ("history", lambda truth: [*truth, truth[0] | {"tx_hash": "07" * 32}], "outpoint"),
        "half an id": ("history", lambda truth: [truth[0] | {"tx_hash": "07"}], "outpoint"),
        "an id of another kind": ("history", lambda truth: [truth[0] | {"tx_hash": 7}], "outpoint"),
        "a history that is an object": ("history", lambda _: {}, "outpoint"),
        "a history of words": ("history", lambda _: ["x"], "coins_of"),
        "a tip in words": ("tip", lambda truth: truth | {"height": "high"}, "tip"),
        "a tip below zero": ("tip", lambda truth: truth | {"height": -7}, "tip"),
        "a tip beyond all chains": ("tip", lambda truth: truth | {"height": 600_000_000}, "tip"),
        "half a header": ("tip", lambda truth: truth | {"hex": truth["hex"][:20]}, "tip"),
        "no header": ("tip", lambda _: None, "tip"),
        "fees in words": ("fee", lambda _: "much", "feerate"),
        "another greeting": ("greeting", lambda _: Raw(b"SSH-2.0-none\r\n"), "outpoint"),
    },
}


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, told in LIES.items() for name in told])
async def test_what_can_be_seen_to_be_wrong_is_named(tmp_path: Path, kind: str, name: str) -> None:
    async with world(kind, tmp_path) as here:
        spent = await spent_coin(here)
        about, change, method = LIES[kind][name]
        arguments: tuple[Any, ...] = {"outpoint": (spent,), "coins_of": (SCRIPT,), "history_of": (SCRIPT, 0)}.get(method, ())
        here.server.bend = bends(about, change)
        with pytest.raises(ChainFault) as caught:
            await getattr(here.chain, method)(*arguments)
        assert caught.value.code in NAMED
        assert about in here.server.asked or any(Told(one).about == about for one in here.server.asked)
        here.server.bend = lambda question, arguments, truth: truth
        told, true = [await getattr(one, method)(*arguments) for one in (here.chain, here.own)]
        assert told == true or method == "feerate"


RUBBISH: dict[str, Any] = {
    "nothing": Raw(b""),
    "no protocol": Raw(b"\x00\xff\xfe\x00" * 40 + b"\n"),
    "a page": Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>\n"),
    "half an answer": Raw(b'HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{"id"'),
    "null": None,
    "a number": 7,
    "a text": "x",
    "a list": [],
    "an object": {},
    "forbidden": Status(403, "go away"),
    "not there": Status(404, "not found"),
    "broken": Status(502, "bad gateway"),
}


@both
@pytest.mark.parametrize("name", RUBBISH)
async def test_rubbish_to_every_question_never_gets_through(tmp_path: Path, kind: str, name: str, impatient: None) -> None:
    """Each question ends with a named fault, or with an answer that says that something is not there."""
    async with world(kind, tmp_path) as here:
        spent = await spent_coin(here)
        here.server.bend = lambda question, arguments, truth: RUBBISH[name]
        for told in await ask_all(here.chain, spent):
            if isinstance(told, ChainFault):
                assert told.code in NAMED
                assert len(told.sentence) < 400
            else:
                least = REGTEST.feerate_min_sat_per_kvb
                assert isinstance(told, Rejected) or told in (None, [], least, 50_000)
        here.server.bend = lambda question, arguments, truth: truth
        await well_again(here, spent)


async def well_again(here: World, spent: OutPoint) -> None:
    """Ask until the threads that were left behind have ended; then every answer is true."""
    with trio.fail_after(60):
        while True:
            try:
                told, tip = await here.chain.outpoint(spent), await here.chain.tip()
                break
            except ChainFault:
                continue
    assert told == await here.own.outpoint(spent)
    assert tip == await here.own.tip()


@both
async def test_a_server_that_stalls_is_given_up_and_comes_back(tmp_path: Path, kind: str, impatient: None) -> None:
    """More questions than there are threads are left hanging; none of them keeps a thread for good."""
    async with world(kind, tmp_path) as here:
        spent = await spent_coin(here)
        here.server.bend = lambda question, arguments, truth: Stall
        faults: list[ChainFault] = []

        async def ask(method: str, *arguments: Any) -> None:
            with pytest.raises(ChainFault) as caught:
                await getattr(here.chain, method)(*arguments)
            faults.append(caught.value)

        async with trio.open_nursery() as nursery:
            for _ in range(FAR_THREADS_MAX + 2):
                nursery.start_soon(ask, "tip")
                nursery.start_soon(ask, "outpoint", spent)
        assert {one.code for one in faults} == {"chain-down"}
        assert len(faults) == 2 * (FAR_THREADS_MAX + 2)
        here.server.bend = lambda question, arguments, truth: truth
        await well_again(here, spent)


@both
async def test_a_server_that_vanishes_is_found_again(tmp_path: Path, kind: str) -> None:
    async with KernelChain.open(tmp_path, REGTEST, 130) as own:
        server = KINDS[kind](own)
        async with trio.open_nursery() as nursery:
            await server.open(nursery)
            async with driver(server) as far:
                here = World(own, server, far)
                spent = await spent_coin(here)
                for _ in range(2):
                    assert await here.chain.outpoint(spent) == await own.outpoint(spent)
                    server.vanish()
                    for told in await ask_all(here.chain, spent):
                        assert isinstance(told, ChainFault)
                        assert told.code == "chain-down"
                    await server.open(nursery)
                    await own.mine(1)
                    assert await here.chain.tip() == await own.tip()
                server.vanish()
                await server.open(nursery)  # it was away while nobody asked
                assert await here.chain.outpoint(spent) == await own.outpoint(spent)
                assert await here.chain.tip() == await own.tip()
            nursery.cancel_scope.cancel()


async def test_a_line_without_end_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "FAR_LINE_MAX_BYTES", 1_000)
    async with world("electrum", tmp_path) as here:
        spent = await spent_coin(here)
        here.server.bend = bends("history", lambda _: Raw(b'{"id":' + b" " * 5_000))
        with pytest.raises(ChainFault, match="more than 1000 bytes") as caught:
            await here.chain.outpoint(spent)
        assert caught.value.code == "chain-garbled"
        here.server.bend = bends("history", lambda _: Raw(b'{"id": 0}\n' * 100))
        with pytest.raises(ChainFault, match="no answer"):
            await here.chain.outpoint(spent)


# --- what a single server can hide, and two cannot -----------------------------------------------------------------


def hide(server: Server, name: str) -> None:
    """The server knows nothing of a transaction any more."""

    def bend(question: str, arguments: Any, truth: Any) -> Any:
        if name in question:
            return Status(404, "Transaction not found")
        if question == "blockchain.transaction.get" and arguments[0] == name:
            return Status(2, "No such mempool or blockchain transaction")
        if isinstance(truth, list):
            return [one for one in truth if name not in (one.get("tx_hash"), one.get("txid"))]
        if isinstance(truth, dict) and truth.get("txid") == name:
            return {"spent": False}
        return truth

    server.bend = bend


@pytest.mark.parametrize("liar", [0, 1])
async def test_what_one_server_leaves_out_the_other_tells(tmp_path: Path, liar: int) -> None:
    async with KernelChain.open(tmp_path, REGTEST, 130) as own:
        servers = [Esplora(own), Electrum(own)]
        async with serving(*servers), driver(servers[0]) as one, driver(servers[1]) as other:
            spent = await spent_coin(World(own, servers[0], one))
            info = await own.outpoint(spent)
            assert info is not None
            assert info.spent_by is not None
            spender = show_id(parse(info.spent_by.raw).txid)
            chain = ComparedChain(one, other, REGTEST)
            assert await chain.outpoint(spent) == info
            for hidden in (spender, show_id(spent.txid)):
                hide(servers[liar], hidden)
                alone = CheckedChain((one, other)[liar], REGTEST)
                assert (await alone.outpoint(spent)) != info  # a single server is believed
                calls = [chain.outpoint(spent), *([chain.coins_of(SCRIPT)] if hidden == spender else [])]
                for call in calls:
                    with pytest.raises(ChainFault) as caught:
                        await call
                    assert caught.value.code == "chains-disagree"
                servers[liar].bend = lambda question, arguments, truth: truth
                assert await chain.outpoint(spent) == info
            for back in (1, 5):
                old = (await own.tip()).height - back
                block = await own.call(lambda regtest, old=old: regtest.block(old)[:80].hex())  # type: ignore[misc]
                servers[liar].bend = bends(
                    "tip",
                    lambda truth, old=old, block=block: {"hex": block, "height": old} if liar else str(old),  # type: ignore[misc]
                )
                with pytest.raises(ChainFault) as caught:
                    await chain.tip()
                assert caught.value.code == "chains-disagree"


@both
async def test_a_tip_that_goes_back_loses_nothing(tmp_path: Path, kind: str) -> None:
    """It may be a reorganisation, so it is told; the channel is what it was as soon as the tip is."""
    async with world(kind, tmp_path) as here:

        def life(pair: Pair) -> None:
            pair.ready().pay(0)
            old = pair.chain.height - 3
            block = pair.chain.block(old)[:80].hex()
            here.server.bend = bends("tip", lambda _: str(old) if kind == "esplora" else {"hex": block, "height": old})
            pair.run()
            assert pair.chain.height == old
            pair.pay(1)
            here.server.bend = lambda question, arguments, truth: truth
            pair.run().mine()
            pair.close(pair.buyer).mine(7)
            assert pair.check_end().to_seller_sat == 5_201

        await play(here.own, here.chain, life)


@both
async def test_a_hidden_funding_gives_no_key(tmp_path: Path, kind: str) -> None:
    async with world(kind, tmp_path) as here:

        def life(pair: Pair) -> None:
            pair.open().run()
            (outpoint,) = pair.seller.watched
            hide(here.server, show_id(outpoint.txid))
            pair.mine(3)
            assert pair.seller.machine.phase is Phase.FUNDED
            pair.pay(0)
            assert pair.seller.machine.row.last is None
            here.server.bend = lambda question, arguments, truth: truth
            pair.run().mine()
            assert pair.buyer.machine.row.revealed_msat == 2_600_500

        await play(here.own, here.chain, life)


# --- whom one speaks with ------------------------------------------------------------------------------------------


def certificate(folder: Path) -> ssl.SSLContext:
    """A server's certificate that nobody vouches for."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    built = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    built = built.serial_number(7).not_valid_before(now - datetime.timedelta(1)).not_valid_after(now + datetime.timedelta(9))
    made = built.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False).sign(
        key, hashes.SHA256()
    )
    encoding = serialization.Encoding.PEM
    secret = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "server.pem").write_bytes(secret + made.public_bytes(encoding))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    return context


async def test_a_server_that_nobody_vouches_for_is_refused(tmp_path: Path) -> None:
    context = certificate(tmp_path)
    shown: list[str] = []

    async def talk(stream: trio.SocketStream) -> None:
        secured = trio.SSLStream(stream, context, server_side=True)
        try:
            await secured.do_handshake()
            shown.append("a client was content with it")
        except trio.BrokenResourceError:
            shown.append("refused")
        finally:
            await trio.aclose_forcefully(secured)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, talk, 0)
        port = listeners[0].socket.getsockname()[1]
        async with ElectrumChain.open(f"ssl://localhost:{port}", REGTEST) as chain:
            with pytest.raises(ChainFault) as caught:
                await chain.tip()
            assert caught.value.code in ("chain-down", "chain-garbled")
        with pytest.raises(ChainFault, match="certificate"):
            await Histories(f"ssl://localhost:{port}").history(SCRIPT)
        nursery.cancel_scope.cancel()
    assert shown
    assert set(shown) == {"refused"}
