"""What outlives a trade: evidence, disputes, proofs of fraud and bonds, as one part of the brain.

Nothing here decides about a trade; it hears what trades, chain and peers say, and keeps what proves it. The parts are
``Logbook``, ``Court``, ``Appeals``, ``Proofs`` and ``Bonds``.
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from escrow.core.events import OutpointSeen, Revealed, TipSeen
from escrow.core.opening import AnyChannel
from peer.core.appeals import Appeals
from peer.core.arbiter import Court
from peer.core.bonds import BOND_LETTER_MAX_BYTES, BONDS, Bonds
from peer.core.bundle import Bundle, PaymentPart
from peer.core.court import COURT, COURT_LETTER_MAX_BYTES, Appeal
from peer.core.events import ReadBack, RevealWanted
from peer.core.ledger import Ledger
from peer.core.letters import Countersigned, DealLetter, Lane, Offer, Receipt
from peer.core.logbook import Logbook
from peer.core.proofs import PROOF_LETTER_MAX_BYTES, PROOFS, Proofs
from wire.effects import Count, Save
from wire.errors import Ignore
from wire.keys import PeerId, SecretKey
from wire.moments import Instant
from wire.money import MSAT_PER_SAT
from wire.network import Network
from wire.ports import OutPoint

Channels = Callable[[], Mapping[bytes, AnyChannel]]


class Justice:
    """``channels`` are the purse's; ``serving`` and ``automatic`` are about our own court."""

    TABLES: ClassVar[tuple[str, ...]] = (*Logbook.TABLES, *Court.TABLES, *Appeals.TABLES, *Proofs.TABLES, *Bonds.TABLES)

    def __init__(
        self,
        key: SecretKey,
        network: Network,
        instance: bytes | None,
        ledgers: tuple[Ledger, Ledger],
        channels: Channels,
        *,
        serving: bool,
        automatic: bool,
    ) -> None:
        self._channels = channels
        self.logbook = Logbook(key, network, *ledgers)
        self.court = Court(key, network, instance, serving=serving, automatic=automatic)
        self.appeals = Appeals(key, channels, self._evidence)
        self.proofs = Proofs(network)
        self.bonds = Bonds(key, network, instance, self.proofs.against)

    def load(self, rows: Mapping[str, Mapping[bytes, bytes]]) -> None:
        """Take over the rows that the journal kept."""
        self.logbook.load(rows)
        for part in (self.court, self.appeals, self.proofs, self.bonds):
            part.load(rows[part.TABLES[0]])

    def resume(self) -> list[Any]:
        """After a restart."""
        return [*self.court.resume(), *self.bonds.resume()]

    def drain(self) -> tuple[Save, ...]:
        """The rows that changed since the last call."""
        self.logbook.forget_old()
        parts = (self.logbook, self.court, self.appeals, self.proofs, self.bonds)
        return tuple(row for part in parts for row in part.drain())

    def _evidence(self, name: bytes) -> list[Bundle]:
        """What was paid through a channel of ours, for its arbiter."""
        held = self._channels().get(name)
        return [] if held is None else self.logbook.paid_through(held.row.terms)

    # --- trades -------------------------------------------------------------------------------------------------------
    def revealed(self, effect: Revealed) -> list[Any]:
        """Buyer: a key that was paid for is here, and with it the evidence of the unit, or of all units of the batch."""
        held = self._channels().get(effect.channel)
        if held is None or not effect.signature:
            return []
        payment = PaymentPart(paid_sat=effect.paid_msat // MSAT_PER_SAT, signature=effect.signature)
        proofs = self.logbook.paid(effect.ref, effect.key, held.row, payment)
        return [told for proof in proofs for told in self.proofs.publish(proof)]

    def gave(self, effect: RevealWanted) -> None:
        """Seller: the key was given for a payment that is locked to it."""
        held = self._channels().get(effect.channel)
        last = None if held is None else held.row.last
        if held is not None and last is not None and last.ref == effect.unit and last.key is not None:
            payment = PaymentPart(paid_sat=last.paid_msat // MSAT_PER_SAT, signature=last.signature)
            self.logbook.paid(effect.unit, effect.key, held.row, payment)

    def decrypted(self, unit: bytes, now: Instant) -> list[Any]:
        """Buyer: the result is open: a line for the log, or a ciphertext to be shown."""
        return [*self.logbook.taken(unit, now), *self.logbook.recall(unit)]

    def read_back(self, event: ReadBack) -> list[Any]:
        """Buyer: the ciphertext that the key does not open, if it is so."""
        proof = None if event.cipher is None else self.logbook.recalled(event.unit, event.cipher)
        return [Count(code="no-proof-made")] if proof is None else self.proofs.publish(proof)

    def of_a_deal(self, peer: PeerId, letter: DealLetter) -> list[Any] | None:
        """What a letter of the deal lane means for evidence; None when it is for buying or selling."""
        if isinstance(letter, Receipt | Countersigned):
            return self.logbook.hear(peer, letter)
        if isinstance(letter, Offer) and (proof := self.logbook.contradiction(peer, letter)):
            return self.proofs.publish(proof)
        return None

    # --- letters, peers and the chain ---------------------------------------------------------------------------------
    def letter(self, peer: PeerId, lane: Lane, payload: bytes, now: Instant) -> list[Any]:
        """A letter of our own lanes. Raises ``Ignore`` or ``Misbehaved``."""
        match lane:
            case Lane.COURT:
                said = COURT.unpack(payload, COURT_LETTER_MAX_BYTES)
                return self.court.hear(peer, said, now) if isinstance(said, Appeal) else self.appeals.hear(peer, said)
            case Lane.PROOF:
                return self.proofs.hear(peer, PROOFS.unpack(payload, PROOF_LETTER_MAX_BYTES), now)
            case Lane.BOND:
                return self.bonds.hear(peer, BONDS.unpack(payload, BOND_LETTER_MAX_BYTES))
            case _:
                raise Ignore("wrong-lane", "a letter of another lane")

    def peer_up(self, peer: PeerId) -> list[Any]:
        """Letters to the peer travel again: say what is owed."""
        return [effect for part in (self.logbook, self.court, self.appeals, self.bonds) for effect in part.peer_up(peer)]

    def tip_seen(self, event: TipSeen) -> list[Any]:
        """A new best block."""
        return [effect for part in (self.bonds, self.court, self.appeals) for effect in part.tip_seen(event)]

    def outpoint_seen(self, event: OutpointSeen) -> list[Any]:
        """News of an output."""
        return [*self.bonds.outpoint_seen(event), *self.court.outpoint_seen(event)]

    def watches(self, outpoint: OutPoint) -> bool:
        """Whether anybody here wants to know of an output."""
        return self.bonds.watches(outpoint) or self.court.watches(outpoint)
