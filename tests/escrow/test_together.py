"""Two parties with wallets and watchers of their own, one development chain over HTTP, and nothing simulated but the road."""

import time
from functools import partial
from pathlib import Path
from typing import Any

import trio

from escrow.core.amounts import capacity_sat
from escrow.core.events import (
    CloseAsked,
    Closed,
    FundingBuilt,
    FundingWanted,
    How,
    Letter,
    LetterIn,
    Locked,
    Pay,
    Ready,
    Reveal,
    Revealed,
    Submit,
    Unwatch,
    Watch,
)
from escrow.core.opening import SellerPolicy, answer_open, open_channel, propose_terms
from escrow.core.transaction import sha256
from escrow.shell.core_rpc import CoreChain
from escrow.shell.devchain import serve_devchain
from escrow.shell.wallet import KeyWallet
from escrow.shell.watcher import Watcher
from tests.escrow.test_devchain import MemoryJournal
from wire.effects import Save
from wire.keys import SecretKey
from wire.moments import Instant
from wire.network import REGTEST
from wire.ports import OutPoint


class Side:
    """The smallest driver there can be: one queue of events, effects performed as they come."""

    def __init__(self, key: SecretKey, chain: CoreChain, wallet: KeyWallet, keys: dict[bytes, bytes]) -> None:
        self.key, self.chain, self.wallet, self.keys = key, chain, wallet, keys
        self.journal = MemoryJournal()
        self.watcher = Watcher(chain, interval_ms=20)
        self.send, self.receive = trio.open_memory_channel[Any](1_000)
        self.channel: Any = None
        self.policy: SellerPolicy | None = None
        self.other: Side
        self.told: list[Any] = []
        self.news = trio.Event()

    async def run(self) -> None:
        async for event in self.receive:
            if self.channel is None and isinstance(event, LetterIn) and self.policy is not None:
                height = (await self.chain.tip()).height
                self.channel, effects = answer_open(self.key, REGTEST, self.policy, event, height=height, now=_now())
            else:
                effects = self.channel.handle(event, _now()) if self.channel is not None else ()
            await self.perform(effects)

    async def perform(self, effects: tuple[Any, ...]) -> None:
        await self.journal.commit([one for one in effects if isinstance(one, Save)])
        for effect in effects:
            match effect:
                case Letter():
                    await self.other.send.send(LetterIn(peer=self.key.peer_id, payload=effect.payload))
                case FundingWanted():
                    raw = await self.wallet.fund([effect.output])
                    await self.send.send(FundingBuilt(raw=raw, vout=0))
                case Submit():
                    await self.chain.submit(effect.raw)
                case Watch():
                    self.watcher.watch(effect.outpoint)
                case Unwatch():
                    self.watcher.unwatch(effect.outpoint)
                case Locked():
                    await self.send.send(Reveal(ref=effect.ref, key=self.keys[effect.lock]))
                case _:
                    self.told.append(effect)
                    self.news.set()

    async def until(self, kind: type[Any], count: int = 1) -> list[Any]:
        while len(found := [one for one in self.told if isinstance(one, kind)]) < count:
            self.news = trio.Event()
            await self.news.wait()
        return found


def _now() -> Instant:
    return Instant(time.time_ns() // 1_000)


async def test_a_session_from_faucet_to_close(tmp_path: Path) -> None:
    buyer_key, seller_key = SecretKey(b"\x51" * 32), SecretKey(b"\x52" * 32)
    keys = {sha256(number.to_bytes(32, "big")): number.to_bytes(32, "big") for number in range(40)}
    async with trio.open_nursery() as nursery:
        port: int = await nursery.start(partial(serve_devchain, tmp_path, 0, block_interval_ms=50))
        url = f"http://127.0.0.1:{port}"
        async with CoreChain.open(url, REGTEST) as one, CoreChain.open(url, REGTEST) as two:
            wallet = await KeyWallet.open(buyer_key, one, MemoryJournal(), REGTEST)
            earnings = await KeyWallet.open(seller_key, two, MemoryJournal(), REGTEST)
            await one.faucet(b"\x00\x14" + bytes(20), 5_000)
            await one.call("devfaucet", wallet.address, 1_000_000)
            await one.mine(1)
            buyer, seller = Side(buyer_key, one, wallet, {}), Side(seller_key, two, earnings, keys)
            buyer.other, seller.other = seller, buyer
            instance = await one.instance()
            seller.policy = SellerPolicy(instance=await two.instance())
            for side in (buyer, seller):
                nursery.start_soon(side.run)
                nursery.start_soon(side.watcher.run, side.send.send)
            terms = propose_terms(
                buyer_key,
                seller_key.public,
                REGTEST,
                instance,
                height=(await one.tip()).height,
                feerate_sat_per_kvb=await one.feerate(),
                capacity_sat=capacity_sat(len(keys) * 2_600_000, 1_000),
                counter=0,
            )
            buyer.channel, effects = open_channel(buyer_key, REGTEST, terms, _now())
            await buyer.perform(effects)
            await buyer.until(Ready)
            for number, lock in enumerate(keys):
                await buyer.send.send(Pay(ref=b"%d" % number, lock=lock, amount_msat=2_600_000))
            revealed = await buyer.until(Revealed, len(keys))
            assert [one.key for one in revealed] == list(keys.values())
            await buyer.send.send(CloseAsked(reason="all done"))
            (end,) = await buyer.until(Closed)
            assert end.how is How.SETTLED
            assert (end.to_seller_sat, end.to_buyer_sat + end.fees_sat) == (104_000, terms.capacity_sat - 104_000)
            assert await seller.until(Closed) == [end]
            assert await earnings.balance_sat() == 104_000
            info = await two.outpoint(OutPoint(end.txid, 0))
            assert info is not None
            assert info.height is not None
            assert await wallet.balance_sat() > 1_000_000 - 104_000 - 2_000
        nursery.cancel_scope.cancel()
