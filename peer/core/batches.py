"""Several results under one key: how a seller seals their keys, and how the buyer opens them.

Each result was encrypted under a key of its own before anybody knew that it would be paid for together with others. To sell
several at once the seller chooses one more key, the batch's, and hides the key of each result behind it: ``seal = key XOR
pad``, where the pad is a digest of the batch's key and the unit's name. The buyer pays for the lock of the batch's key; that
one key, by letter or from the chain, opens all seals. A pad says nothing about its key, so a unit that is paid for alone after
all gives nothing of the others away.

That the seals are right shows only when they are open. The seller signed them together with the lock, and his offers name the
lock of each result, so the signed batch, the signed offer and the key prove a lie to anybody; what it can cost is one batch,
and how much that may be is ``peer.core.exposure``'s to say.
"""

from collections.abc import Sequence
from typing import Final

from peer.core.deal import Role
from peer.core.keys import lock_of
from peer.core.letters import BatchBody, SealedKey
from wire.canon import Public33, Signature64, pack, record
from wire.digest import context, digest
from wire.envelope import id_of
from wire.keys import SecretKey
from wire.network import Network

BATCH_TABLE: Final = "batch"
BATCH_PURPOSE: Final = "batch"
_SEAL: Final = "batch-seal"


@record
class HeldBatch:
    """One batch as one party keeps it (journal table ``batch``, key ``batch_ref``), until its deals are forgotten."""

    role: Role
    other: Public33
    body: BatchBody
    signature: Signature64


def batch_ref(network: Network, body: BatchBody) -> bytes:
    """32 bytes that name a batch: what its seller signs, and the reference of its payment in the channel."""
    return id_of(network.name, BATCH_PURPOSE, pack(body))


def batch_key(key: SecretKey, channel: bytes, units: Sequence[tuple[bytes, bytes]]) -> bytes:
    """The seller's key for these units (names and locks): the same set gives the same key again, and no other does."""
    return key.derive("batch", channel, *(unit + lock for unit, lock in units))


def sealed(network: Network, secret: bytes, unit: bytes, key: bytes) -> bytes:
    """``key`` behind the batch's key, and the other way round."""
    pad = digest(context(network.name, _SEAL), secret, unit)
    return (int.from_bytes(key, "big") ^ int.from_bytes(pad, "big")).to_bytes(32, "big")


def make_batch(
    key: SecretKey, network: Network, channel: bytes, units: Sequence[tuple[bytes, bytes, bytes]], amount_msat: int
) -> BatchBody:
    """The batch of these units: names, locks and keys."""
    secret = batch_key(key, channel, [(unit, lock) for unit, lock, _ in units])
    seals = tuple(SealedKey(unit=unit, seal=sealed(network, secret, unit, own)) for unit, _, own in units)
    return BatchBody(channel=channel, lock=lock_of(secret), amount_msat=amount_msat, units=seals)
