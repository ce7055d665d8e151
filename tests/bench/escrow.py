"""The channel's rate: one unit after the other through both real machines, against the signatures that nobody can spare.

Measured in turns with its ceiling in one run, so that a busy computer slows both.
"""

import hashlib
import time
from typing import Any, Final

from escrow.core.events import (
    FundingBuilt,
    FundingWanted,
    Letter,
    LetterIn,
    Locked,
    OutpointSeen,
    Pay,
    Reveal,
    TipSeen,
    Watch,
)
from escrow.core.opening import SellerPolicy, answer_open, open_channel, propose_terms
from escrow.core.script import p2wpkh
from escrow.core.transaction import Tx, TxIn
from wire.effects import Save
from wire.keys import SecretKey, verify_ecdsa
from wire.moments import Instant
from wire.network import REGTEST
from wire.ports import OutInfo, OutPoint, TxOut

BUYER: Final = SecretKey(b"\x61" * 32)
SELLER: Final = SecretKey(b"\x62" * 32)
INSTANCE: Final = b"\x07" * 32
HEIGHT: Final = 100
PRICE_MSAT: Final = 1_000_500
CAPACITY_SAT: Final = 2_000_000
UNITS: Final = 100
ROUNDS: Final = 9
SIGNATURES: Final = 3
RATIO_MIN: Final = 0.6


class Session:
    """Both ends of one open channel in this process. ``journal`` takes every row, as a store would."""

    def __init__(self) -> None:
        self.now = Instant(1_700_000_000_000_000)
        self.journal: list[Save] = []
        self.keys: dict[bytes, bytes] = {}
        self.units = 0
        self.funding = Tx(inputs=(TxIn(outpoint=OutPoint(bytes(32), 0), script=b"\x51"),), outputs=())
        terms = propose_terms(
            BUYER,
            SELLER.public,
            REGTEST,
            INSTANCE,
            height=HEIGHT,
            feerate_sat_per_kvb=REGTEST.feerate_min_sat_per_kvb,
            capacity_sat=CAPACITY_SAT,
            counter=0,
        )
        self.seller: Any = None
        self.buyer, effects = open_channel(BUYER, REGTEST, terms, self.now)
        self.give(self.buyer, TipSeen(height=HEIGHT))
        self.perform(self.buyer, effects)

    def give(self, channel: Any, event: Any) -> None:
        """Tell one end something, and do what it asks."""
        self.perform(channel, channel.handle(event, self.now))

    def perform(self, channel: Any, effects: tuple[Any, ...]) -> None:
        """The journal first, then everything else; the chain shows whatever is watched as confirmed."""
        self.journal.extend(one for one in effects if isinstance(one, Save))
        for effect in effects:
            match effect:
                case Letter():
                    self._deliver(channel, effect)
                case Locked():
                    self.give(channel, Reveal(ref=effect.ref, key=self.keys[effect.lock]))
                case FundingWanted():
                    change = TxOut(100_000, p2wpkh(BUYER.public))
                    self.funding = Tx(inputs=self.funding.inputs, outputs=(effect.output, change))
                    self.give(channel, FundingBuilt(raw=self.funding.serialise(), vout=0))
                case Watch():
                    output = self.funding.outputs[effect.outpoint.vout]
                    info = OutInfo(output.value_sat, output.script, HEIGHT, None)
                    self.give(channel, OutpointSeen(outpoint=effect.outpoint, info=info))
                case _:
                    pass

    def _deliver(self, sender: Any, letter: Letter) -> None:
        event = LetterIn(peer=(BUYER if sender is self.buyer else SELLER).peer_id, payload=letter.payload)
        if sender is not self.buyer:
            self.give(self.buyer, event)
        elif self.seller is not None:
            self.give(self.seller, event)
        else:
            policy = SellerPolicy(instance=INSTANCE)
            self.seller, effects = answer_open(SELLER, REGTEST, policy, event, height=HEIGHT, now=self.now)
            self.seller.handle(TipSeen(height=HEIGHT), self.now)
            self.perform(self.seller, effects)

    def unit(self) -> None:
        """One result is paid for and opened."""
        self.units += 1
        key = self.units.to_bytes(32, "big")
        lock = hashlib.sha256(key).digest()
        self.keys[lock] = key
        self.give(self.buyer, Pay(ref=b"%034d" % self.units, lock=lock, amount_msat=PRICE_MSAT))


def ceiling(number: int) -> None:
    """What no machine can do without: three signatures and three verifications."""
    for at in range(SIGNATURES):
        digest = hashlib.sha256(bytes([at]) + number.to_bytes(4, "big")).digest()
        if not verify_ecdsa(BUYER.public, digest, BUYER.sign_ecdsa(digest)):
            raise AssertionError("a signature of our own does not verify")


def seconds_of(units: int = UNITS, rounds: int = ROUNDS) -> tuple[float, float]:
    """Best seconds for ``units`` of the ceiling and of the machines, measured in turns."""
    best_ceiling = best_machines = float("inf")
    for _ in range(rounds):
        session = Session()
        session.unit()
        began = time.process_time()
        for number in range(units):
            ceiling(number)
        between = time.process_time()
        for _ in range(units):
            session.unit()
        ended = time.process_time()
        if {session.seller.row.revealed_msat, session.buyer.row.revealed_msat} != {(units + 1) * PRICE_MSAT}:
            raise AssertionError("not every unit was paid and opened")
        best_ceiling = min(best_ceiling, between - began)
        best_machines = min(best_machines, ended - between)
    return best_ceiling, best_machines


def figures() -> list[dict[str, Any]]:
    """One figure: channel updates as a ratio to their ceiling."""
    best_ceiling, best_machines = seconds_of()
    rate, most = UNITS / best_machines, UNITS / best_ceiling
    return [
        {
            "name": "escrow.updates_vs_ceiling",
            "value": round(rate / most, 3),
            "unit": "ratio",
            "baseline": f"{SIGNATURES} ECDSA signatures and {SIGNATURES} verifications, {most:,.0f}/s in the same run",
            "higher_is_better": True,
            "bound": RATIO_MIN,
            "remark": f"{rate:,.0f} updates per second and core, both sides in one process, every row kept in a list",
        }
    ]
