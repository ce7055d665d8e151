"""From a silent party to our own order: the desk's no-show, standing, and the avoid list of what we want."""

from orderbook.core.events import NoShow
from orderbook.core.messages import Side
from peer.core.brain import Brain
from peer.core.events import SellAsked, Tick
from peer.core.standing import STRIKE_FIRST_US
from tests.core.test_standing import ACCOUNT, PEER
from tests.orderbook.world import at, key
from wire.effects import Count
from wire.moments import SECOND, Instant
from wire.network import REGTEST


def test_the_second_silence_puts_a_party_on_the_avoid_list_of_our_orders_for_a_while() -> None:
    brain = Brain(key=key(1), network=REGTEST, instance=None, run=b"run")
    brain.handle(SellAsked(order=1, worker="w", article="a", ask_msat=0, slots=2), at())
    line = next(iter(brain.desk._pen.lines.values()))
    assert (line.side, line.wanted) == (Side.SELL, 4)

    def avoided() -> tuple[bytes, ...]:
        return line.avoid

    assert avoided() == ()
    silence = NoShow(peer=PEER, code="no-proposal", sentence="silent")
    assert Count(code="silent-no-proposal") in brain.handle(silence, at())
    assert avoided() == ()
    second = Instant(at() + 2 * SECOND)
    assert Count(code="strike-no-show") in brain.handle(silence, second)
    assert avoided() == (ACCOUNT,)
    brain.handle(Tick(), Instant(second + STRIKE_FIRST_US - 1))
    assert avoided() == (ACCOUNT,)
    brain.handle(Tick(), Instant(second + STRIKE_FIRST_US))
    assert avoided() == ()


def test_an_order_depends_on_the_run_that_writes_it() -> None:
    assert len({Brain(key=key(1), network=REGTEST, instance=None, run=run).desk._pen._run for run in (b"one", b"two")}) == 2
