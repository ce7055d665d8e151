"""A buyer who lost his disk gets his channels back from the seller, who has every reason to help: he is paid by them.

The buyer believes nothing that he has not signed himself: his own signature is under the terms and under every balance. A
seller who shows an older state than the latest gives away his own money; the only thing he can hide is a channel, and that one
the buyer finds again by its memo. What comes back is closed at once, because nobody knows what was under way.
"""

import dataclasses

from escrow.core.amounts import DUST_P2WPKH_SAT
from escrow.core.buyer import BuyerChannel
from escrow.core.contract import BadTerms, Contract, channel_id, contract_of
from escrow.core.events import Effect, Phase, PhaseChanged
from escrow.core.messages import Held, Latest, opened_digest
from escrow.core.opening import new_row
from escrow.core.seller import SellerChannel
from escrow.core.spends import OverCapacity, is_signed
from escrow.core.state import CHANNEL_TABLE, LOCK_TABLE, ChannelRow, Commitment, PastLock, Role, lock_key
from escrow.core.transaction import outpoint_bytes, sha256
from wire.canon import pack
from wire.effects import Save
from wire.errors import Misbehaved
from wire.keys import SecretKey, public_of, verify
from wire.moments import Instant
from wire.money import MSAT_PER_SAT
from wire.network import Network
from wire.ports import OutPoint

_SETTLED_LEAST_MSAT = DUST_P2WPKH_SAT * MSAT_PER_SAT


def held(channel: SellerChannel) -> Held | None:
    """What the seller tells the buyer of a channel that is not over; None when there is nothing to tell."""
    row, funding = channel.row, channel.funding
    if funding is None or row.opened_signature is None or channel.phase in (Phase.CLOSED, Phase.BURIED):
        return None
    last = None
    if row.last is not None:
        last = Latest(**{one.name: getattr(row.last, one.name) for one in dataclasses.fields(Latest)})
        before = row.settled_signature if row.settled_msat == last.paid_msat - last.amount_msat else None
        last = dataclasses.replace(last, settled=before)
    return Held(
        channel=channel.channel,
        terms=row.terms,
        signature=row.open_signature,
        opened=row.opened_signature,
        txid=funding.txid,
        vout=funding.vout,
        last=last,
    )


def take_back(
    key: SecretKey, network: Network, instance: bytes, letter: Held, peer: bytes, now: Instant
) -> tuple[BuyerChannel, tuple[Effect, ...]]:
    """The channel in ``letter``, which came from ``peer``, as the buyer's again, about to be closed. Raises ``Misbehaved``."""
    contract = _checked(key, network, instance, letter, peer)
    funding = OutPoint(letter.txid, letter.vout)
    last = None if letter.last is None else _last(contract, funding, letter.last)
    row = new_row(Role.BUYER, Phase.FUNDED, letter.terms, letter.signature, letter.opened)
    row = dataclasses.replace(row, funding=outpoint_bytes(funding), closing=True, last=last)
    if last is not None:
        revealed = last.paid_msat if last.key is not None else last.paid_msat - last.amount_msat
        row = dataclasses.replace(row, paid_msat=last.paid_msat, revealed_msat=revealed)
    return _restored(key, network, row, now)


def _restored(key: SecretKey, network: Network, row: ChannelRow, now: Instant) -> tuple[BuyerChannel, tuple[Effect, ...]]:
    saved: list[Effect] = []
    past: tuple[PastLock, ...] = ()
    if row.last is not None:
        name = channel_id(network.name, row.terms)
        past = (PastLock(channel=name, sequence=row.last.sequence, ref=row.last.ref, lock=row.last.lock, key=row.last.key),)
        saved.append(Save(table=LOCK_TABLE, key=lock_key(name, row.last.sequence), value=pack(past[0])))
    channel = BuyerChannel(key, network, row, past)
    saved.append(Save(table=CHANNEL_TABLE, key=channel.channel, value=pack(row)))
    saved.append(PhaseChanged(channel=channel.channel, phase=row.phase, sentence="the seller told what he holds; it is closed"))
    return channel, (*saved, *channel.resume(now))


def _checked(key: SecretKey, network: Network, instance: bytes, letter: Held, peer: bytes) -> Contract:
    terms = letter.terms
    if (terms.buyer, terms.seller) != (key.public, public_of(peer)):
        raise Misbehaved("not-a-party", "a channel was handed back that is not between the two of us", penalty=20)
    if terms.instance != instance:
        raise Misbehaved("other-chain", "a channel was handed back that is on another chain")
    name = channel_id(network.name, terms)
    if name != letter.channel:
        raise Misbehaved("wrong-channel", "the channel's name does not follow from its terms")
    if not verify(terms.buyer, name, letter.signature):
        raise Misbehaved("never-mine", "the terms that were handed back do not carry our own signature", penalty=50)
    if not verify(terms.seller, opened_digest(network.name, name), letter.opened):
        raise Misbehaved("wrong-signature", "the seller's signature under the terms is wrong", penalty=50)
    try:
        return contract_of(network.name, terms)
    except BadTerms as error:
        raise Misbehaved(error.code, error.sentence) from None


def _last(contract: Contract, funding: OutPoint, told: Latest) -> Commitment:
    revealed = told.paid_msat - told.amount_msat
    try:
        mine = revealed >= 0 and is_signed(contract, funding, told.paid_msat, told.lock, told.signature)
        if told.settled is not None:
            mine = mine and is_signed(contract, funding, revealed, None, told.settled)
        elif told.key is None:
            mine = mine and revealed < _SETTLED_LEAST_MSAT
    except OverCapacity:
        mine = False
    if not mine:
        raise Misbehaved("never-mine", "the balance that was handed back does not carry our own signature", penalty=50)
    if told.key is not None and sha256(told.key) != told.lock:
        raise Misbehaved("wrong-key", "the key that was handed back does not open the lock that was paid for", penalty=50)
    return Commitment(**{one.name: getattr(told, one.name) for one in dataclasses.fields(Commitment)})
