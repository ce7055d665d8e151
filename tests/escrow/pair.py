"""Two parties, a channel between them and a real chain under both, driven by hand and without any clock but ours."""

import dataclasses
import hashlib
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

from escrow.core.amounts import fee_sat
from escrow.core.events import (
    CloseAsked,
    Closed,
    Effect,
    Event,
    FundingBuilt,
    FundingWanted,
    Letter,
    LetterIn,
    Locked,
    OutpointSeen,
    Pay,
    PayFailed,
    PhaseChanged,
    Ready,
    Reveal,
    Revealed,
    Submit,
    Tick,
    TipSeen,
    Unwatch,
    Watch,
)
from escrow.core.opening import AnyChannel, SellerPolicy, answer_open, open_channel, propose_terms, restore
from escrow.core.script import p2wsh
from escrow.core.state import CHANNEL_TABLE, LOCK_TABLE
from escrow.core.transaction import Tx, TxIn
from escrow.shell.ledger import COINBASE_MATURITY
from escrow.shell.mining import build_block
from escrow.shell.regtest import ANYONE, FAUCET_SCRIPT, Regtest
from wire.account import sha256d
from wire.effects import Blame, Count, Save
from wire.keys import SecretKey
from wire.moments import Instant
from wire.network import REGTEST, Network
from wire.ports import OutInfo, OutPoint, Rejected, TxOut

SHORT = dataclasses.replace(REGTEST, refund_blocks=60, margin_blocks=5, claim_delay_blocks=6)
BUYER, SELLER = SecretKey(b"\x11" * 32), SecretKey(b"\x22" * 32)
INSTANCE = b"\x07" * 32
START = Instant(1_700_000_000_000_000)


def lock_of(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def build_funding(chain: Regtest, outputs: list[TxOut]) -> bytes:
    """A transaction from a mature faucet coin, not broadcast."""
    fee = fee_sat(400, 1_000)
    for coin in chain.coins_of(FAUCET_SCRIPT):
        seen = chain.outpoint(coin.outpoint)
        old = not coin.coinbase or chain.height + 1 - coin.height >= COINBASE_MATURITY
        change = coin.output.value_sat - sum(one.value_sat for one in outputs) - fee
        if old and change > 1_000 and seen is not None and seen.spent_by is None:
            spending = TxIn(outpoint=coin.outpoint, witness=(ANYONE,))
            return Tx(inputs=(spending,), outputs=(*outputs, TxOut(change, FAUCET_SCRIPT))).serialise()
    raise AssertionError("no coin")


@dataclasses.dataclass
class Party:
    """One side: its key, its journal, its channel and what it was told."""

    name: str
    key: SecretKey
    network: Network
    channel: AnyChannel | None = None
    rows: dict[str, dict[bytes, bytes]] = dataclasses.field(default_factory=lambda: {CHANNEL_TABLE: {}, LOCK_TABLE: {}})
    watched: dict[OutPoint, Any] = dataclasses.field(default_factory=dict)
    height: int | None = None
    told: list[Effect] = dataclasses.field(default_factory=list)
    counts: Counter[str] = dataclasses.field(default_factory=Counter)
    keys: dict[bytes, tuple[bytes, bytes]] = dataclasses.field(default_factory=dict)
    reveals: bool = True
    alive: bool = True
    handled: int = 0
    lives: int = 1
    crash_at: int | None = None
    crash_before_commit: bool = False
    crash_after_effects: int = 0
    performed: list[int] = dataclasses.field(default_factory=list)

    def of(self, kind: type[Any]) -> list[Any]:
        return [one for one in self.told if isinstance(one, kind)]

    @property
    def end(self) -> Closed:
        closed: Closed = self.of(Closed)[-1]
        return closed

    @property
    def machine(self) -> Any:
        assert self.channel is not None
        return self.channel


class Pair:
    """Both parties and the road between them."""

    def __init__(self, chain: Regtest, counter: int, network: Network = SHORT, **terms: Any) -> None:
        self.chain, self.network, self.now = chain, network, START
        self.buyer, self.seller = Party("buyer", BUYER, network), Party("seller", SELLER, network)
        self.letters: deque[tuple[Party, bytes]] = deque()
        self.lose: Callable[[Party, bytes], bool] = lambda to, payload: False
        self.policy = SellerPolicy(instance=INSTANCE, arbiters=frozenset([terms["arbiter"]] if terms.get("arbiter") else []))
        self.rejected: list[tuple[str, str]] = []
        self.sent: list[tuple[Party, bytes]] = []
        self.fund = True
        self.blind = False
        fields: dict[str, Any] = {"capacity_sat": 100_000, "feerate_sat_per_kvb": 1_000, "height": chain.height}
        fields.update(terms)
        self.terms = propose_terms(BUYER, SELLER.public, network, INSTANCE, counter=counter, **fields)

    def open(self) -> "Pair":
        self.buyer.channel, effects = open_channel(BUYER, self.network, self.terms, self.now)
        self.perform(self.buyer, effects)
        return self

    def other(self, party: Party) -> Party:
        return self.seller if party is self.buyer else self.buyer

    # --- what a driver does ------------------------------------------------------------------------------------

    def give(self, party: Party, event: Event) -> None:
        if not party.alive:
            return
        if party.channel is None:
            if isinstance(event, LetterIn):
                party.channel, effects = answer_open(
                    party.key, self.network, self.policy, event, height=self.chain.height, now=self.now
                )
                self.perform(party, effects)
            return
        self.perform(party, party.channel.handle(event, self.now))

    def perform(self, party: Party, effects: tuple[Effect, ...]) -> None:
        party.handled += 1
        dies = party.crash_at == party.handled
        if dies and party.crash_before_commit:
            self.restart(party)
            return
        for effect in effects:
            if isinstance(effect, Save):
                if effect.value is None:
                    party.rows[effect.table].pop(effect.key, None)
                else:
                    party.rows[effect.table][effect.key] = effect.value
        life, left = party.lives, party.crash_after_effects
        others = [one for one in effects if not isinstance(one, Save)]
        party.performed.append(len(others))
        for effect in others:
            if dies and left == 0:
                break
            left -= 1
            if party.lives == life:  # what a dead process still wanted to do is lost
                self.act(party, effect)
        if dies and party.lives == life:
            self.restart(party)

    def act(self, party: Party, effect: Effect) -> None:
        match effect:
            case Save():
                pass
            case Letter():
                to = self.other(party)
                self.sent.append((to, effect.payload))
                if not self.lose(to, effect.payload):
                    self.letters.append((to, effect.payload))
            case Submit():
                try:
                    self.chain.submit(effect.raw)
                except Rejected as error:
                    self.rejected.append((effect.purpose, error.code))
            case Watch():
                party.watched[effect.outpoint] = "never told"
            case Unwatch():
                party.watched.pop(effect.outpoint, None)
            case FundingWanted():
                if self.fund:
                    raw = build_funding(self.chain, [effect.output])
                    self.give(party, FundingBuilt(raw=raw, vout=0))
            case Count():
                party.counts[effect.code] += effect.amount
            case _:
                party.told.append(effect)
                if isinstance(effect, Locked) and party.reveals and effect.lock in party.keys:
                    ref, key = party.keys[effect.lock]
                    self.give(party, Reveal(ref=ref, key=key))

    def restart(self, party: Party) -> None:
        """The process was killed and comes back with its journal; the connection breaks, so both sides resume."""
        party.lives += 1
        self.letters.clear()
        party.watched.clear()
        party.height = None
        rows, locks = party.rows[CHANNEL_TABLE], party.rows[LOCK_TABLE]
        party.channel = restore(party.key, self.network, rows, locks.values()).get(self.machine_id(party))
        for one in (party, self.other(party)):
            if one.channel is not None and (one is party or one.alive):
                self.perform(one, one.channel.resume(self.now))

    def machine_id(self, party: Party) -> bytes:
        return next(iter(party.rows[CHANNEL_TABLE]), b"")

    # --- the world goes on -------------------------------------------------------------------------------------

    def look(self) -> bool:
        """Tell both what changed on the chain; whether anything did."""
        news = False
        if self.blind:
            return False
        for party in (self.buyer, self.seller):
            if not party.alive or party.channel is None:
                continue
            if party.height != self.chain.height:
                party.height, news = self.chain.height, True
                self.give(party, TipSeen(height=self.chain.height))
            for outpoint in list(party.watched):
                info: OutInfo | None = self.chain.outpoint(outpoint)
                if outpoint in party.watched and party.watched[outpoint] != info:
                    party.watched[outpoint], news = info, True
                    self.give(party, OutpointSeen(outpoint=outpoint, info=info))
        return news

    def run(self) -> "Pair":
        """Until nothing moves."""
        for _ in range(10_000):
            while self.letters:
                to, payload = self.letters.popleft()
                self.give(to, LetterIn(peer=self.other(to).key.peer_id, payload=payload))
            if not self.look() and not self.letters:
                return self
        raise AssertionError("it never becomes quiet")

    def mine(self, count: int = 1) -> "Pair":
        for _ in range(count):
            self.chain.mine()
            self.run()
        return self

    def mine_to(self, height: int) -> "Pair":
        while self.chain.height < height:
            self.mine()
        return self

    def wait(self, seconds: int) -> "Pair":
        """Let time pass, ticking at every deadline on the way."""
        end = self.now + seconds * 1_000_000
        while True:
            due = [(one.channel.next_deadline(), one) for one in (self.buyer, self.seller) if one.channel and one.alive]
            soon = [(at, one.name, one) for at, one in due if at is not None and at <= end]
            if not soon:
                break
            at, _, party = min(soon, key=lambda one: one[:2])
            self.now = Instant(max(at, self.now))
            self.give(party, Tick())
            self.run()
        self.now = Instant(end)
        return self

    def reorganise(self, depth: int, body: tuple[Tx, ...] = ()) -> "Pair":
        """Replace the last ``depth`` blocks by one more, the first of which holds ``body`` and the others nothing."""
        height = self.chain.height - depth
        previous = self.chain.block_hash(height)
        time_s = self.chain.median_time(self.chain.height)
        for step in range(1, depth + 2):
            raw = build_block(
                height=height + step,
                previous=previous,
                time_s=time_s + step,
                script=FAUCET_SCRIPT,
                body=body if step == 1 else (),
                fees_sat=0,
                tag=previous[:4],
            )
            self.chain.add_block(raw)
            previous = sha256d(raw[:80])
        assert self.chain.block_hash(self.chain.height) == previous
        return self.run()

    def lose_mempool(self) -> "Pair":
        """The node was started again and forgot what waits."""
        self.chain._mempool.entries.clear()
        self.chain._mempool.spends.clear()
        return self.run()

    # --- what people do ----------------------------------------------------------------------------------------

    def key(self, number: int) -> bytes:
        return hashlib.sha256(self.terms.nonce + number.to_bytes(4, "big")).digest()

    def offer(self, number: int) -> Pay:
        """The seller finished work ``number`` and named its lock."""
        key, ref = self.key(number), b"unit %d" % number
        self.seller.keys[lock_of(key)] = (ref, key)
        return Pay(ref=ref, lock=lock_of(key), amount_msat=2_600_500)

    def pay(self, number: int, amount_msat: int = 2_600_500) -> "Pair":
        self.give(self.buyer, dataclasses.replace(self.offer(number), amount_msat=amount_msat))
        return self.run()

    def close(self, party: Party) -> "Pair":
        self.give(party, CloseAsked(reason="finished"))
        return self.run()

    def ready(self) -> "Pair":
        """Opened, funded and confirmed."""
        return self.open().run().mine()

    def check_end(self) -> Closed:
        """Both sides saw the same end, read from the chain, and no satoshi is missing."""
        end = self.buyer.end
        assert end.to_seller_sat + end.to_buyer_sat + end.fees_sat == self.terms.capacity_sat
        assert min(end.to_seller_sat, end.to_buyer_sat, end.fees_sat) >= 0
        if self.seller.alive:
            assert self.seller.end == end
        return end


__all__ = ["BUYER", "SELLER", "SHORT", "Blame", "Pair", "Party", "PayFailed", "PhaseChanged", "Ready", "Revealed", "p2wsh"]
