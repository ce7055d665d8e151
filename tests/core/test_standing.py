"""What we remember of others: penalties that decay, strikes that grow, and what goes wrong together."""

from peer.core.standing import (
    BAN_AT,
    HALF_LIFE_US,
    SILENCE_TOGETHER_US,
    STRIKE_FIRST_US,
    STRIKE_MOST_US,
    STRIKE_TOGETHER_US,
    Standing,
)
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


def test_the_first_silence_is_remembered_and_the_second_is_a_strike() -> None:
    standing = Standing()
    now = Instant(1_000 * SECOND)
    assert not standing.silent(PEER, "silent", now)
    assert not standing.silent(PEER, "silent", Instant(now + SILENCE_TOGETHER_US - 1))  # of the same auction
    assert standing.avoided(now) == ()
    record = standing.of(PEER)
    assert record is not None
    assert (record.strikes, record.points, record.silent_at, record.sentence) == (0, 0, now, "silent")
    second = Instant(now + SILENCE_TOGETHER_US)
    assert standing.silent(PEER, "silent again", second)
    assert standing.avoided(Instant(second + STRIKE_FIRST_US - 1)) == (ACCOUNT,)
    assert standing.avoided(Instant(second + STRIKE_FIRST_US)) == ()
    third = Instant(second + STRIKE_FIRST_US)
    assert standing.silent(PEER, "silent again", third)
    assert standing.avoided(Instant(third + 2 * STRIKE_FIRST_US - 1)) == (ACCOUNT,)


def test_a_silence_long_ago_is_forgotten() -> None:
    standing = Standing()
    assert not standing.silent(PEER, "silent", Instant(0))
    assert not standing.silent(PEER, "silent", Instant(STRIKE_MOST_US))
    assert standing.silent(PEER, "silent", Instant(2 * STRIKE_MOST_US - 1))


def test_a_silence_soon_after_strikes_is_one() -> None:
    standing = Standing()
    standing.strike(PEER, "bad work", Instant(STRIKE_MOST_US))
    until = STRIKE_MOST_US + STRIKE_FIRST_US
    assert standing.silent(PEER, "silent", Instant(until + STRIKE_MOST_US - 1))
    standing = Standing()
    standing.strike(PEER, "bad work", Instant(STRIKE_MOST_US))
    assert not standing.silent(PEER, "silent", Instant(until + STRIKE_MOST_US))


def test_silence_costs_no_standing_and_penalties_survive_it() -> None:
    standing = Standing()
    standing.blame(PEER, BAN_AT - 1, "rude", Instant(SECOND))
    for count in range(1, 30):
        standing.silent(PEER, "silent", Instant(count * 2 * SECOND))
    assert not standing.banned(PEER, Instant(60 * SECOND))
    assert standing.blame(PEER, 1, "rude", Instant(60 * SECOND))
