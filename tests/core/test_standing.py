"""What we remember of others: penalties that decay, strikes that grow, and what goes wrong together."""

from peer.core.standing import BAN_AT, HALF_LIFE_US, STRIKE_FIRST_US, STRIKE_MOST_US, STRIKE_TOGETHER_US, Standing
from wire.account import hash160
from wire.keys import SecretKey, public_of
from wire.moments import SECOND, Instant

PEER = SecretKey(bytes(range(1, 33))).peer_id
ACCOUNT = hash160(public_of(PEER))


def test_a_strike_avoids_for_a_while_and_the_next_one_for_twice_as_long() -> None:
    standing = Standing()
    now = Instant(1_000 * SECOND)
    for count in range(9):
        length = min(STRIKE_MOST_US, STRIKE_FIRST_US << count)
        standing.strike(PEER, "silent", now)
        assert standing.avoided(Instant(now + length - 1)) == (ACCOUNT,)
        assert standing.avoided(Instant(now + length)) == ()
        now = Instant(now + length)


def test_what_goes_wrong_together_is_one_strike() -> None:
    standing = Standing()
    now = Instant(1_000 * SECOND)
    for step in range(8):
        standing.strike(PEER, "silent", Instant(now + step * (STRIKE_TOGETHER_US // 8)))
    assert standing.avoided(Instant(now + STRIKE_FIRST_US)) == ()
    standing.strike(PEER, "silent again", Instant(now + STRIKE_TOGETHER_US))
    assert standing.avoided(Instant(now + STRIKE_FIRST_US)) == (ACCOUNT,)
    record = standing.of(PEER)
    assert record is not None
    assert (record.strikes, record.sentence) == (2, "silent again")


def test_the_very_first_moments_count_too() -> None:
    standing = Standing()
    standing.strike(PEER, "silent", Instant(0))
    assert standing.avoided(Instant(1)) == (ACCOUNT,)


def test_old_strikes_are_forgotten() -> None:
    standing = Standing()
    standing.strike(PEER, "silent", Instant(0))
    later = Instant(STRIKE_FIRST_US + STRIKE_MOST_US)
    standing.strike(PEER, "silent", later)
    assert standing.avoided(Instant(later + STRIKE_FIRST_US)) == ()


def test_penalties_decay_by_halves_and_ban_at_a_hundred() -> None:
    standing = Standing()
    assert not standing.blame(PEER, BAN_AT - 1, "rude", Instant(0))
    assert standing.blame(PEER, 1, "rude", Instant(0))
    assert standing.banned(PEER, Instant(HALF_LIFE_US - 1))
    assert not standing.banned(PEER, Instant(HALF_LIFE_US))
