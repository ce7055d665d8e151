"""What parties and their arbiter say to each other: the lane of letters, and what an appeal has to show before anybody reads it.

An appeal carries the channel that both parties signed, what the party asks for, a statement in words and evidence. The
channel's id is the name of the case: an escrow is ruled on once.
"""

from typing import Annotated, Final

from escrow.core.contract import Contract
from escrow.core.messages import Der, opened_digest
from peer.core.bundle import Bundle, ChannelPart, NotProven, check, contract_of_part, proves_bad_result
from wire.canon import U63, Choice, Hash32, Size, record
from wire.keys import verify
from wire.limits import APPEAL_BUNDLES_MAX, EVIDENCE_MAX_BYTES, STATEMENT_MAX_BYTES
from wire.network import Network

COURT_LETTER_MAX_BYTES: Final = EVIDENCE_MAX_BYTES + 32_768

Statement = Annotated[str, Size(0, STATEMENT_MAX_BYTES)]
Code = Annotated[str, Size(1, 40)]


@record
class Appeal:
    """Party: rule on this channel. ``to_seller_sat`` is what the seller should have in this party's eyes."""

    channel: ChannelPart
    to_seller_sat: U63
    statement: Statement
    bundles: Annotated[tuple[Bundle, ...], Size(0, APPEAL_BUNDLES_MAX)]


@record
class Heard:
    """Arbiter: the case stands like this. ``refused`` when there will be no ruling."""

    channel: Hash32
    refused: bool
    code: Code
    sentence: Statement


@record
class Summons:
    """Arbiter: the other party has appealed. Answer with an appeal of your own."""

    channel: Hash32
    to_seller_sat: U63
    statement: Statement


@record
class Ruling:
    """Arbiter: the money is divided like this; my half of the transaction. What is missing to the capacity is the fee."""

    channel: Hash32
    to_seller_sat: U63
    to_buyer_sat: U63
    signature: Der
    reason: Statement


COURT: Final = Choice("court", {1: Appeal, 2: Heard, 3: Summons, 4: Ruling})

CourtLetter = Appeal | Heard | Summons | Ruling


def clip(text: str) -> str:
    """``text`` as far as a letter holds it."""
    return text.encode()[:STATEMENT_MAX_BYTES].decode(errors="ignore")


def check_appeal(network: Network, appeal: Appeal) -> Contract:
    """The contract that the appeal is about; both parties' signatures and all evidence were checked. Raises ``NotProven``."""
    contract = contract_of_part(network, appeal.channel)
    terms, part = contract.terms, appeal.channel
    if not verify(terms.buyer, contract.channel, part.open_signature):
        raise NotProven("wrong-open", "the buyer did not sign the terms of this channel")
    if not verify(terms.seller, opened_digest(network.name, contract.channel), part.opened_signature):
        raise NotProven("wrong-opened", "the seller did not sign the terms of this channel")
    for bundle in appeal.bundles:
        if bundle.channel != part:
            raise NotProven("other-channel", "the evidence is about another channel")
        check(bundle)
    return contract


def proven_sat(bundles: tuple[Bundle, ...]) -> int:
    """The highest balance that checked bundles show the buyer to have signed for a result that was not shown to be bad."""
    good = [one.payment.paid_sat for one in bundles if one.payment is not None and not proves_bad_result(one)]
    return max(good, default=0)
