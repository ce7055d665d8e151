"""Why there was no match, in a stable word for programs and a sentence for people."""

from typing import Final

from orderbook.core.auction import Entry, forbidden
from orderbook.core.events import Cleared, Missed
from orderbook.core.line import Line
from orderbook.core.messages import Side, account_hash_of
from wire.money import show_msat

CLOCK_SKEWED: Final = "clock-skewed"
SENTENCES: Final = {
    "not-ready": "the order book is still being compared with the neighbours'",
    "alone": "no other node that follows this order book is connected",
    CLOCK_SKEWED: "this machine's clock is too far from its neighbours', so it does not trade",
    "not-in-book": "our order was not in the book in time for this epoch",
    "no-answer": "the seller we were matched with did not answer in time",
    "no-proposal": "the buyer we were matched with did not propose in time",
    "no-confirmation": "the buyer we accepted did not confirm in time",
    "refused": "the party we were matched with declined",
    "different-view": "the party we were matched with computed another match, also after comparing books",
    "view-changed": "after comparing books this match is no longer ours",
    "withdrawn": "we no longer want as much as the match would take",
    "late": "the auction was cleared too late to agree on a match",
    "too-many-prices": "one owner can keep orders at eight prices on one side of one book; this is one more",
}


def unmatched(view: Cleared, line: Line) -> tuple[str, str]:
    """Code and sentence for a line whose order is in no fill of ``view``."""
    if view.refusal:
        return view.refusal, SENTENCES.get(view.refusal, view.refusal)
    standing = line.standing
    ours, theirs = (view.buys, view.sells) if line.side is Side.BUY else (view.sells, view.buys)
    if standing is None or all(one.id != standing.id for one in ours):
        return "not-in-book", SENTENCES["not-in-book"]
    others = [one.price_msat for one in theirs if one.owner != standing.order.owner]
    price = show_msat(line.price_msat)
    shunned = _shunned(line.side, next(one for one in ours if one.id == standing.id), theirs)
    if shunned:
        return "avoided", shunned
    if line.side is Side.BUY:
        if not others:
            return "no-seller", "nobody is selling this"
        if min(others) > line.price_msat:
            return "price", f"the cheapest seller asks {show_msat(min(others))}, which is more than our {price}"
        return "outbid", f"other buyers bid more than our {price}, or as much and were drawn first"
    if not others:
        return "no-buyer", "nobody is buying this"
    if max(others) < line.price_msat:
        return "price", f"the best buyer bids {show_msat(max(others))}, which is less than our {price}"
    return "outbid", f"other sellers asked less than our {price}, or as much and were drawn first"


def _shunned(side: Side, mine: Entry, theirs: tuple[Entry, ...]) -> str:
    """What to say when an avoid list stands between us and everybody whose price would do; empty when one does not."""
    buying = side is Side.BUY
    fitting = [
        one
        for one in theirs
        if one.owner != mine.owner and (one.price_msat <= mine.price_msat if buying else one.price_msat >= mine.price_msat)
    ]
    if not fitting or not all(forbidden(mine, one) if buying else forbidden(one, mine) for one in fitting):
        return ""
    ours = [account_hash_of(one.owner) in mine.avoid for one in fitting]
    whom = "every seller at our price" if buying else "every buyer at our price"
    if all(ours):
        return f"{whom} is on our avoid list for a while, because an earlier trade with him went wrong"
    if not any(ours):
        return f"{whom} has our account on his avoid list"
    return f"{whom} is on our avoid list for a while, or has our account on his"


def missed(line: Line, epoch: int, code: str, sentence: str) -> Missed:
    """The effect that tells why ``line`` got nothing in ``epoch``."""
    return Missed(book=line.book, side=line.side, price_msat=line.price_msat, epoch=epoch, code=code, sentence=sentence)
