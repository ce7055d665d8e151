"""Memory of what others signed, so that two signatures for one order become a proof that everybody can check."""

from typing import Final

from orderbook.core.messages import EquivocationProof, Match, Side, conflict, order_of
from wire.canon import pack
from wire.limits import AGREEMENTS_PER_EPOCH_MAX, ORDER_RETAIN_EPOCHS

_PER_ORDER_MAX: Final = 64


class Witness:
    """The matches that counterparties signed lately, by signer, role and order. Bounded; the oldest order goes first."""

    def __init__(self) -> None:
        self._signed: dict[tuple[bytes, Side, bytes], list[tuple[Match, bytes]]] = {}

    def add(self, signer: bytes, side: Side, match: Match, signature: bytes) -> EquivocationProof | None:
        """Remember a verified signature; returns a proof if it contradicts an earlier one."""
        kept = self._signed.setdefault((signer, side, order_of(match, side)), [])
        for earlier, earlier_signature in kept:
            if conflict(earlier, match, side):
                return proof_of(signer, side, (earlier, earlier_signature), (match, signature))
        if len(kept) < _PER_ORDER_MAX and all(earlier != match for earlier, _ in kept):
            kept.append((match, signature))
        if len(self._signed) > AGREEMENTS_PER_EPOCH_MAX:
            del self._signed[next(iter(self._signed))]
        return None

    def forget(self, epoch: int) -> None:
        """Drop what no order in the books can contradict any more."""
        for key in [key for key, kept in self._signed.items() if kept and kept[-1][0].epoch + ORDER_RETAIN_EPOCHS < epoch]:
            del self._signed[key]


def proof_of(signer: bytes, side: Side, one: tuple[Match, bytes], other: tuple[Match, bytes]) -> EquivocationProof:
    """The proof made of two contradicting signed matches, the same whichever is named first."""
    (first, first_signature), (second, second_signature) = sorted((one, other), key=lambda signed: pack(signed[0]))
    return EquivocationProof(
        signer=signer,
        side=side,
        first=first,
        first_signature=first_signature,
        second=second,
        second_signature=second_signature,
    )
