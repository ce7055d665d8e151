"""The development chain over loopback HTTP, with the driver, the wallet and the watcher that nodes use."""

import json
import math
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from escrow.core.events import OutpointSeen, TipSeen
from escrow.core.memo import data_in
from escrow.core.script import p2wpkh
from escrow.core.transaction import Tx, TxIn, parse, show_id
from escrow.shell.core_rpc import CoreChain, RpcRefused
from escrow.shell.dev_methods import METHODS
from escrow.shell.devchain import bind_loopback, serve_devchain
from escrow.shell.kernel import KernelChain
from escrow.shell.regtest import FAUCET_SCRIPT
from escrow.shell.wallet import WALLET_TABLE, KeyWallet
from escrow.shell.watcher import Watcher
from wire.effects import Save
from wire.errors import LocalFault, Refused
from wire.keys import SecretKey
from wire.limits import RPC_BATCH_MAX, RPC_BODY_MAX_BYTES
from wire.network import REGTEST, SIGNET
from wire.ports import ChainFault, OutPoint, Rejected, TxOut

KEY = SecretKey(b"\x31" * 32)
SCRIPT = p2wpkh(KEY.public)


class MemoryJournal:
    """A journal that forgets at the end of the test."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[bytes, bytes]] = {}

    async def commit(self, rows: Sequence[Save]) -> None:
        await trio.lowlevel.checkpoint()
        for row in rows:
            table = self.rows.setdefault(row.table, {})
            if row.value is None:
                table.pop(row.key, None)
            else:
                table[row.key] = row.value

    async def load(self, table: str) -> Mapping[bytes, bytes]:
        await trio.lowlevel.checkpoint()
        return dict(self.rows.get(table, {}))


@asynccontextmanager
async def devchain(home: Path, interval_ms: int = 0) -> AsyncIterator[int]:
    async with trio.open_nursery() as nursery:
        port: int = await nursery.start(partial(serve_devchain, home, 0, block_interval_ms=interval_ms))
        yield port
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def core(home: Path, interval_ms: int = 0) -> AsyncIterator[CoreChain]:
    async with devchain(home, interval_ms) as port, CoreChain.open(f"http://127.0.0.1:{port}", REGTEST) as chain:
        yield chain


async def test_a_wallet_pays_over_http_and_survives_a_restart(tmp_path: Path) -> None:
    journal = MemoryJournal()
    async with core(tmp_path) as chain:
        wallet = await KeyWallet.open(KEY, chain, journal, REGTEST)
        with pytest.raises(Refused) as poor:
            await wallet.fund([TxOut(1_000, SCRIPT)])
        assert poor.value.code == "no-funds"
        for _ in range(3):
            await chain.faucet(SCRIPT, 1_000_000)
        assert await wallet.balance_sat() == 0
        await chain.mine(1)
        assert await wallet.balance_sat() == 3_000_000

        outputs = [TxOut(600_000, b"\x00\x20" + bytes([number]) * 32) for number in range(2)]
        raw = await wallet.fund(outputs)
        built = parse(raw)
        assert list(built.outputs[:2]) == outputs
        assert all(one.script == b"" and len(one.witness) == 2 for one in built.inputs)
        assert len(built.inputs) == 2
        assert await wallet.balance_sat() == 1_000_000
        again = await KeyWallet.open(KEY, chain, journal, REGTEST)
        assert await again.balance_sat() == 1_000_000
        assert again.pending() == (raw,)

        txid = await chain.submit(raw)
        assert await chain.submit(raw) == txid
        fee = 2_000_000 - sum(one.value_sat for one in built.outputs)
        assert fee == math.ceil(built.vsize) or 0 < fee - built.vsize <= 2
        change = built.outputs[2].value_sat
        assert await wallet.balance_sat() == 1_000_000 + change
        chained = parse(await wallet.fund([TxOut(1_500_000, SCRIPT)]))
        assert OutPoint(txid, 2) in [one.outpoint for one in chained.inputs]
        await wallet.release(chained.serialise())
        await chain.mine(1)
        assert await wallet.balance_sat() == 1_000_000 + change
        assert journal.rows[WALLET_TABLE] == {}


async def test_a_wallet_unlocks_what_was_built_for_nobody(tmp_path: Path) -> None:
    journal = MemoryJournal()
    async with core(tmp_path) as chain:
        for _ in range(2):
            await chain.faucet(SCRIPT, 500_000)
        await chain.mine(1)
        wallet = await KeyWallet.open(KEY, chain, journal, REGTEST)
        kept, lost = [await wallet.fund([TxOut(400_000, SCRIPT)]) for _ in range(2)]
        assert await wallet.balance_sat() == 0
        wallet = await KeyWallet.open(KEY, chain, journal, REGTEST)
        assert await wallet.release_unsent([kept]) == 1
        assert wallet.pending() == (kept,)
        assert await wallet.balance_sat() == 500_000
        with pytest.raises(Rejected):
            await wallet.send("one", wallet.address, 400_000, feerate=10)
        assert await wallet.balance_sat() == 500_000
        assert lost != kept


async def test_a_spend_by_someone_else_frees_the_row(tmp_path: Path) -> None:
    journal = MemoryJournal()
    async with core(tmp_path) as chain:
        await chain.faucet(SCRIPT, 500_000)
        await chain.mine(1)
        here = await KeyWallet.open(KEY, chain, journal, REGTEST)
        there = await KeyWallet.open(KEY, chain, MemoryJournal(), REGTEST)
        await here.fund([TxOut(100_000, SCRIPT)])
        await chain.submit(await there.fund([TxOut(200_000, SCRIPT)]))
        await chain.mine(1)
        assert await here.balance_sat() == await there.balance_sat() > 499_000
        assert here.pending() == ()


async def test_the_driver_finds_spenders_and_follows_reorganisations(tmp_path: Path) -> None:
    async with core(tmp_path) as chain:
        journal = MemoryJournal()
        await chain.faucet(SCRIPT, 900_000)
        await chain.mine(1)
        wallet = await KeyWallet.open(KEY, chain, journal, REGTEST)
        paid = await chain.submit(await wallet.fund([TxOut(300_000, SCRIPT)]))
        here = OutPoint(paid, 0)
        waiting = await chain.outpoint(here)
        assert waiting is not None
        assert (waiting.value_sat, waiting.script, waiting.height, waiting.spent_by) == (300_000, SCRIPT, None, None)
        assert await chain.outpoint(OutPoint(paid, 7)) is None
        await chain.mine(1)
        height = (await chain.tip()).height
        made = await chain.outpoint(here)
        assert made is not None
        assert made.height == height
        spend = Tx(inputs=parse(await wallet.fund([TxOut(850_000, SCRIPT)])).inputs, outputs=())
        assert here in [one.outpoint for one in spend.inputs]
        raw = wallet.pending()[0]
        spender = await chain.submit(raw)
        seen = await chain.outpoint(here)
        assert seen is not None
        assert seen.spent_by is not None
        assert (seen.height, seen.spent_by.height, seen.spent_by.raw) == (height, None, raw)
        await chain.mine(3)
        seen = await chain.outpoint(here)
        assert seen is not None
        assert seen.spent_by is not None
        assert (seen.spent_by.height, seen.spent_by.raw) == (height + 1, raw)
        info = await chain.tx(spender)
        assert info is not None
        assert info.height == height + 1
        late = CoreChain(chain._client, chain._url, REGTEST)
        assert await late.outpoint(here) == seen
        assert await late.outpoint(OutPoint(b"\x05" * 32, 0)) is None
        assert await late.tx(b"\x05" * 32) is None


async def test_refusals_have_reasons(tmp_path: Path) -> None:
    async with core(tmp_path) as chain:
        await chain.faucet(SCRIPT, 900_000)
        await chain.mine(1)
        wallet = await KeyWallet.open(KEY, chain, MemoryJournal(), REGTEST)
        good = parse(await wallet.fund([TxOut(300_000, SCRIPT)]))
        cheated = Tx(inputs=good.inputs, outputs=(TxOut(310_000, SCRIPT), *good.outputs[1:]))
        with pytest.raises(Rejected, match=r"min relay fee|belowout|script-verify"):
            await chain.submit(cheated.serialise())
        less = Tx(inputs=good.inputs, outputs=(TxOut(290_000, SCRIPT), *good.outputs[1:]))
        with pytest.raises(Rejected, match="mandatory-script-verify-flag-failed"):
            await chain.submit(less.serialise())
        with pytest.raises(Rejected, match="announces more"):
            await chain.submit(good.serialise()[:50])
        with pytest.raises(Refused, match="are needed"):
            await wallet.fund([TxOut(2_000_000, SCRIPT)])
        for call in (
            ("getblockhash", 5_000),
            ("getblockhash", "x"),
            ("getblock", "00" * 32),
            ("getblock", "zz"),
            ("getrawtransaction", "00" * 32),
            ("gettxout", "00"),
            ("gettxspendingprevout", ["x"]),
            ("scantxoutset", "abort", []),
            ("scantxoutset", "start", ["combo(x)"]),
            ("generatetoaddress", 1, "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"),
            ("generatetoaddress", 1_000_000, ""),
            ("devfaucet", wallet.address, 10**12),
            ("sendrawtransaction", "zz"),
            ("estimatesmartfee", True),
            ("stop",),
        ):
            with pytest.raises(RpcRefused):
                await chain.call(*call)


async def test_the_dialect_agrees_with_itself(tmp_path: Path) -> None:
    async with core(tmp_path) as chain:
        await chain.faucet(SCRIPT, 123_456)
        (txid,) = await chain.call("getrawmempool")
        assert await chain.call("getblockcount") == 120
        await chain.call("generatetoaddress", 1, "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080")
        best = await chain.call("getblockhash", 121)
        header, block = await chain.call("getblockheader", best), await chain.call("getblock", best, 2)
        assert header["previousblockhash"] == await chain.call("getblockhash", 120)
        assert header["confirmations"] == 1
        assert [one["txid"] for one in block["tx"]] == (await chain.call("getblock", best))["tx"]
        assert txid in (await chain.call("getblock", best))["tx"]
        assert (await chain.call("getblock", best, 0)).startswith(await chain.call("getblockheader", best, False))
        told = await chain.call("getrawtransaction", txid, True)
        assert told["blockhash"] == best
        assert await chain.call("getrawtransaction", txid) == told["hex"]
        coinbase = await chain.call("gettxout", block["tx"][0]["txid"], 0)
        assert coinbase["coinbase"] is True
        assert coinbase["confirmations"] == 1
        address = "addr(bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080)"
        scan = await chain.call("scantxoutset", "start", [address, {"desc": f"raw({SCRIPT.hex()})"}])
        assert [one["coinbase"] for one in scan["unspents"]] == [True, False]
        assert await chain.feerate() == REGTEST.feerate_min_sat_per_kvb
        assert set(METHODS) == {
            "getblockcount", "getblockchaininfo", "getblockhash", "getblockheader", "getblock", "sendrawtransaction",
            "getrawmempool", "getrawtransaction", "gettxout", "gettxspendingprevout", "scantxoutset", "estimatesmartfee",
            "generatetoaddress", "devfaucet",
        }  # fmt: skip


async def test_blocks_come_by_themselves_while_something_waits(tmp_path: Path) -> None:
    async with core(tmp_path, interval_ms=20) as chain:
        txid = await chain.faucet(SCRIPT, 50_000)
        seen: list[int | None] = []
        done = trio.Event()

        async def deliver(event: TipSeen | OutpointSeen) -> None:
            await trio.lowlevel.checkpoint()
            if isinstance(event, OutpointSeen):
                seen.append(None if event.info is None else event.info.height)
                if seen[-1] is not None:
                    done.set()

        watcher = Watcher(chain, interval_ms=10)
        watcher.watch(OutPoint(txid, 0))
        async with trio.open_nursery() as nursery:
            await nursery.start(watcher.run, deliver)
            await done.wait()
            nursery.cancel_scope.cancel()
        assert seen[-1] == 121
        assert (await chain.tip()).height == 121


async def test_two_chains_have_two_names_and_one_keeps_its_own(tmp_path: Path) -> None:
    async with core(tmp_path / "a") as one, core(tmp_path / "b") as other:
        first = await one.instance()
        await one.mine(1)
        assert first != await other.instance()
        wrong = CoreChain(one._client, one._url, SIGNET)
        with pytest.raises(ChainFault, match="regtest"):
            await wrong.instance()
    async with core(tmp_path / "a") as again:
        assert await again.instance() == first
        assert (await again.tip()).height == 121
    async with KernelChain.open(tmp_path / "a") as inside:
        assert await inside.instance() == first


async def test_what_is_not_ours_to_use_says_so(tmp_path: Path) -> None:
    async with devchain(tmp_path) as port:
        with pytest.raises(LocalFault, match=f"port {port}"):
            bind_loopback(port)
        with pytest.raises(LocalFault, match="another program"):
            async with KernelChain.open(tmp_path):
                pass
    async with CoreChain.open(f"http://u:p@127.0.0.1:{port}", REGTEST) as gone:
        with pytest.raises(ChainFault, match="does not answer") as fault:
            await gone.tip()
    assert "u:p" not in fault.value.sentence


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({"Host": "example.com"}, b'{"method":"getblockcount"}', 403),
        ({"Host": "127.0.0.1:1"}, b'{"method":"getblockcount"}', 403),
        ({"Origin": "http://127.0.0.1"}, b'{"method":"getblockcount"}', 403),
        ({}, b"not json", 500),
        ({}, b"[" * 100_000, 500),
        ({}, b"[]", 500),
        ({}, json.dumps([{"method": "getblockcount"}] * (RPC_BATCH_MAX + 1)).encode(), 500),
        ({}, b"7", 500),
        ({}, b'{"method":7}', 500),
        ({}, b'{"method":"__class__"}', 500),
        ({}, b'{"method":"getblockcount","params":{"a":1}}', 500),
        ({}, b'{"method":"getblockcount","params":[1,2]}', 500),
        ({}, b'{"method":"getblockcount"}', 200),
    ],
)
async def test_the_door_is_narrow(tmp_path: Path, headers: dict[str, str], body: bytes, status: int) -> None:
    async with devchain(tmp_path) as port, httpx.AsyncClient(trust_env=False) as client:
        url = f"http://127.0.0.1:{port}/"
        answer = await client.post(url, content=body, headers=headers)
        assert answer.status_code == status
        assert (answer.json()["error"] is None) == (status == 200)
        assert (await client.get(url)).status_code == 405


async def _status(port: int, header: str, pieces: list[bytes]) -> int:
    """The status of a request whose body is never finished."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(f"POST / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{header}\r\n\r\n".encode())
        for piece in pieces:
            await stream.send_all(piece)
        answer = b""
        while b"\r\n" not in answer:
            answer += await stream.receive_some(4_096)
        return int(answer.split()[1])


async def test_a_body_is_refused_before_it_is_read_whole(tmp_path: Path) -> None:
    async with devchain(tmp_path) as port:
        assert await _status(port, f"Content-Length: {RPC_BODY_MAX_BYTES + 1}", []) == 413
        chunk = b"8000\r\n" + b"x" * 0x8000 + b"\r\n"
        assert await _status(port, "Transfer-Encoding: chunked", [chunk] * (RPC_BODY_MAX_BYTES // 0x8000 + 1)) == 413
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(f"POST / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 9\r\n\r\n[".encode())
        async with CoreChain.open(f"http://127.0.0.1:{port}", REGTEST) as chain:
            assert (await chain.tip()).height == 120


async def test_a_chain_that_answers_nonsense_is_a_fault() -> None:
    answers: list[Any] = ["x", [], [{"id": 99}], {"error": None}, 7]
    given = iter(answers)

    def handler(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=next(given))

    async with httpx.AsyncClient(transport=httpx.MockTransport(handler)) as client:
        chain = CoreChain(client, "http://127.0.0.1:1", REGTEST)
        for _ in answers:
            with pytest.raises(ChainFault, match="unanswered"):
                await chain.tip()


async def test_a_txid_is_not_acceptance() -> None:
    """Some nodes answer a broadcast with the txid before they look at the transaction."""
    raw = Tx(inputs=(TxIn(outpoint=OutPoint(bytes(32), 0)),), outputs=(TxOut(1, b""),)).serialise()

    def handler(request: httpx.Request) -> httpx.Response:
        results = []
        for one in json.loads(request.content):
            result = show_id(parse(raw).txid) if one["method"] == "sendrawtransaction" else None
            results.append({"id": one["id"], "result": result, "error": None})
        return httpx.Response(200, json=results)

    async with httpx.AsyncClient(transport=httpx.MockTransport(handler)) as client:
        with pytest.raises(Rejected) as refused:
            await CoreChain(client, "http://127.0.0.1:1", REGTEST).submit(raw)
    assert refused.value.code == "not-seen"


async def test_a_funding_says_to_its_owner_what_it_funds(tmp_path: Path) -> None:
    """With and without change; also when the transaction is looked for again, where a data output is no coin."""
    notes = [b"\x01" * 40, b"\x02" * 75]
    outputs = [TxOut(100_000, b"\x00\x20" + bytes([number]) * 32) for number in range(2)]
    async with core(tmp_path) as chain:
        wallet = await KeyWallet.open(KEY, chain, MemoryJournal(), REGTEST)
        for value in (500_000, 200_600):
            await chain.faucet(SCRIPT, value)
            await chain.mine(1)
            built = parse(await wallet.fund(outputs, notes))
            assert list(built.outputs[:2]) == outputs
            assert len(data_in(built.outputs[2]) or b"") == 115
            assert [one.script for one in built.outputs[3:]] == ([SCRIPT] if value == 500_000 else [])
            assert value - sum(one.value_sat for one in built.outputs) >= built.vsize
            await chain.submit(built.serialise())
            await chain.mine(1)
            await wallet.balance_sat()
            assert wallet.pending() == ()
            rest = await wallet.balance_sat()
            if rest:
                await chain.submit(await wallet.fund([TxOut(rest - 130, FAUCET_SCRIPT)]))
                await chain.mine(1)
