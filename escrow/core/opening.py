"""How channels begin and come back: terms for a new one, the seller's answer to an offer, and rows from the journal."""

import dataclasses
from collections.abc import Iterable, Mapping

from escrow.core.amounts import capacity_least_sat
from escrow.core.buyer import BuyerChannel
from escrow.core.contract import BadTerms, Terms, channel_id, contract_of
from escrow.core.events import Effect, Letter, LetterIn, Phase
from escrow.core.memo import nonce_of
from escrow.core.messages import Declined, Letters, Open, opened_digest, read_letter
from escrow.core.seller import SellerChannel
from escrow.core.state import ChannelRow, PastLock, Role
from wire.canon import unpack
from wire.effects import Blame, Count
from wire.errors import Misbehaved, Refused
from wire.keys import SecretKey, public_of, verify
from wire.limits import CHANNEL_CAPACITY_MAX_SAT, CREDIT_MAX_SAT
from wire.moments import Instant
from wire.network import Network

AnyChannel = BuyerChannel | SellerChannel


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SellerPolicy:
    """What a seller agrees to. ``instance`` is his chain; arbiters are refused unless listed, and perhaps one is required."""

    instance: bytes
    capacity_max_sat: int = CHANNEL_CAPACITY_MAX_SAT
    credit_max_sat: int = CREDIT_MAX_SAT
    arbiters: frozenset[bytes] = frozenset()
    arbiter_required: bool = False


def new_row(role: Role, phase: Phase, terms: Terms, open_signature: bytes, opened_signature: bytes | None) -> ChannelRow:
    """A channel of which nothing has happened yet."""
    return ChannelRow(
        role=role,
        phase=phase,
        terms=terms,
        open_signature=open_signature,
        opened_signature=opened_signature,
        funding=None,
        funding_raw=b"",
        paid_msat=0,
        revealed_msat=0,
        last=None,
        queue=(),
        settled_msat=0,
        settled_signature=None,
        closing=False,
        close_raw=b"",
        end_raw=b"",
        end_feerate_sat_per_kvb=0,
        ending=None,
    )


def propose_terms(
    key: SecretKey,
    seller: bytes,
    network: Network,
    instance: bytes,
    *,
    height: int,
    feerate_sat_per_kvb: int,
    capacity_sat: int,
    counter: int,
    arbiter: bytes | None = None,
    credit_sat: int = 0,
) -> Terms:
    """Terms for a new channel of the holder of ``key`` with ``seller``.

    ``counter`` makes channels of one pair differ and must never be used twice, not even after a lost disk; with key and seller it
    gives the nonce again (``escrow.core.memo``). An arbiter may rule from halfway to the refund.
    """
    feerate = max(network.feerate_min_sat_per_kvb, min(feerate_sat_per_kvb, network.feerate_max_sat_per_kvb))
    return Terms(
        version=1,
        instance=instance,
        buyer=key.public,
        seller=seller,
        nonce=nonce_of(key, network, instance, seller, counter),
        capacity_sat=capacity_sat,
        arbiter=arbiter,
        ruling_height=0 if arbiter is None else height + network.refund_blocks // 2,
        refund_height=height + network.refund_blocks,
        claim_delay_blocks=network.claim_delay_blocks,
        feerate_sat_per_kvb=feerate,
        credit_sat=credit_sat,
    )


def open_channel(key: SecretKey, network: Network, terms: Terms, now: Instant) -> tuple[BuyerChannel, tuple[Effect, ...]]:
    """Offer a channel on ``terms`` to its seller. Raises ``BadTerms`` and ``Refused("capacity-low", …)``."""
    if terms.buyer != key.public:
        raise BadTerms("not-mine", "only the buyer opens a channel")
    least = capacity_least_sat(terms.feerate_sat_per_kvb, arbiter=terms.arbiter is not None)
    if terms.capacity_sat < least:
        raise Refused("capacity-low", f"a channel of {terms.capacity_sat} sat would be eaten by fees; use at least {least} sat")
    contract_of(network.name, terms)
    signature = key.sign(channel_id(network.name, terms))
    row = new_row(Role.BUYER, Phase.OFFERED, terms, signature, None)
    channel = BuyerChannel(key, network, row)
    return channel, channel.begin(now, "offered to the seller")


def _refusal(letter: Open, network: Network, policy: SellerPolicy, height: int) -> tuple[str, str] | None:
    """Why the seller does not want these terms, or None."""
    terms = letter.terms
    arbiter = terms.arbiter is not None
    deadline = terms.ruling_height or terms.refund_height
    if terms.instance != policy.instance:
        return "other-chain", "this channel would be on another chain than ours"
    if terms.capacity_sat > policy.capacity_max_sat:
        return "capacity-high", f"channels of more than {policy.capacity_max_sat} sat are not taken"
    if not network.feerate_min_sat_per_kvb <= terms.feerate_sat_per_kvb <= network.feerate_max_sat_per_kvb:
        return "feerate", "the fee rate is outside what this network uses"
    if terms.capacity_sat < capacity_least_sat(terms.feerate_sat_per_kvb, arbiter=arbiter):
        return "capacity-low", "the channel is so small that fees would eat it"
    if terms.credit_sat > policy.credit_max_sat:
        return "credit", f"no more than {policy.credit_max_sat} sat of credit are given"
    if terms.arbiter is not None and terms.arbiter not in policy.arbiters:
        return "arbiter", "this arbiter is not accepted here"
    if terms.arbiter is None and policy.arbiter_required:
        return "no-arbiter", "channels without an arbiter are not taken here"
    if terms.claim_delay_blocks < network.claim_delay_blocks:
        return "claim-delay", f"less than {network.claim_delay_blocks} blocks to claim are too few"
    if deadline < height + 4 * network.margin_blocks:
        return "too-short", "the escrow would run out too soon"
    return None


def answer_open(
    key: SecretKey, network: Network, policy: SellerPolicy, event: LetterIn, *, height: int, now: Instant
) -> tuple[SellerChannel | None, tuple[Effect, ...]]:
    """The seller's answer to a letter for a channel he does not have: a channel and ``Opened``, or a reason why not.

    Only ``Open`` starts a channel; any other letter is counted. Nothing in the letter raises.
    """
    try:
        letter = read_letter(event.payload)
        if not isinstance(letter, Open):
            return None, (Count(code="unknown-channel"),)
        channel = _check_open(key, network, letter, event.peer)
    except Misbehaved as error:
        blame = Blame(peer=event.peer, code=error.code, sentence=error.sentence, penalty=error.penalty)
        return None, (Count(code=error.code), blame)
    refusal = _refusal(letter, network, policy, height)
    if refusal is not None:
        declined = Declined(channel=letter.channel, code=refusal[0], sentence=refusal[1])
        return None, (Count(code=f"declined-{refusal[0]}"), Letter(peer=event.peer, payload=Letters.pack(declined)))
    signature = key.sign(opened_digest(network.name, channel))
    row = new_row(Role.SELLER, Phase.AGREED, letter.terms, letter.signature, signature)
    machine = SellerChannel(key, network, row)
    return machine, machine.begin(now, "agreed; waiting for the funding")


def _check_open(key: SecretKey, network: Network, letter: Open, peer: bytes) -> bytes:
    terms = letter.terms
    if terms.buyer != public_of(peer):
        raise Misbehaved("not-the-buyer", "a channel was offered in someone else's name", penalty=50)
    if terms.seller != key.public:
        raise Misbehaved("not-the-seller", "a channel was offered to someone else")
    channel = channel_id(network.name, terms)
    if channel != letter.channel:
        raise Misbehaved("wrong-channel", "the channel's name does not follow from its terms")
    if not verify(terms.buyer, channel, letter.signature):
        raise Misbehaved("wrong-signature", "the buyer's signature under the terms is wrong", penalty=50)
    try:
        contract_of(network.name, terms)
    except BadTerms as error:
        raise Misbehaved(error.code, error.sentence) from None
    return channel


def restore(
    key: SecretKey, network: Network, rows: Mapping[bytes, bytes], locks: Iterable[bytes] = ()
) -> dict[bytes, AnyChannel]:
    """The channels in the rows of table ``channel``, by id; ``locks`` are the values of table ``channel_lock``.

    Call ``resume(now)`` on each before anything else.
    """
    past: dict[bytes, list[PastLock]] = {}
    for raw in locks:
        one = unpack(PastLock, raw)
        past.setdefault(one.channel, []).append(one)
    channels: dict[bytes, AnyChannel] = {}
    for channel in sorted(rows):
        row = unpack(ChannelRow, rows[channel])
        if row.role is Role.BUYER:
            channels[channel] = BuyerChannel(key, network, row, past.get(channel, ()))
        else:
            channels[channel] = SellerChannel(key, network, row)
    return channels
