"""The directory's policy, moment by moment, and its driver."""

import itertools
from collections.abc import Sequence

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from dht.core.directory import Directory, article_key
from dht.core.events import (
    Announce,
    Event,
    Failed,
    Find,
    Found,
    Joined,
    Left,
    Meet,
    Part,
    PeerDown,
    PeerUp,
    Provide,
    Provided,
    Seek,
    Stop,
    Tick,
)
from dht.shell.directory import DirectoryService
from wire.digest import context, digest
from wire.effects import Count
from wire.keys import PeerId
from wire.limits import (
    ARTICLE_MAX_CHARS,
    BOOKS_MAX,
    MESH_ROUND_S,
    MESH_STEP_S,
    NEIGHBOURS_EASY,
    NEIGHBOURS_MAX,
    NEIGHBOURS_MIN,
    PROVIDE_INTERVAL_S,
    REANNOUNCE_S,
)
from wire.moments import SECOND, Instant, after
from wire.ports import PeerUnreachable

ARTICLE = "net.bitwrk/rays/1"
KEY = article_key("regtest", ARTICLE)
NOW = Instant(1_000 * SECOND)


def peer(number: int) -> PeerId:
    return PeerId(number.to_bytes(39, "big"))


ME = peer(0)


def directory() -> Directory:
    return Directory(ME, "regtest")


def seconds(moment: Instant | None) -> float | None:
    return None if moment is None else (moment - NOW) / SECOND


def test_the_key_of_an_article_is_fixed_by_network_and_name() -> None:
    assert digest(context("regtest", "article"), ARTICLE.encode()) == KEY
    assert article_key("main", ARTICLE) != KEY != article_key("regtest", ARTICLE + "x")


def test_announcing_happens_at_once_and_again_after_a_rest() -> None:
    one = directory()
    assert one.next_deadline() is None
    assert one.handle(Announce(article=ARTICLE), NOW) == (Provide(key=KEY),)
    assert one.handle(Announce(article=ARTICLE), NOW) == ()
    one.handle(Provided(key=KEY), NOW)
    assert seconds(one.next_deadline()) == REANNOUNCE_S
    assert one.handle(Tick(), after(NOW, REANNOUNCE_S * SECOND - 1)) == ()
    assert one.handle(Tick(), after(NOW, REANNOUNCE_S * SECOND)) == (Provide(key=KEY),)


def test_announcements_are_spaced_and_the_most_overdue_goes_first() -> None:
    one = directory()
    articles = [f"a/{number}" for number in range(5)]
    provided: list[bytes] = []
    for number, article in enumerate(articles):
        provided += [
            effect.key for effect in one.handle(Announce(article=article), Instant(NOW + number)) if isinstance(effect, Provide)
        ]
    now = NOW
    moments = [now]
    while len(provided) < 5:
        due = one.next_deadline()
        assert due is not None
        assert due > now
        now = due
        effects = one.handle(Tick(), now)
        assert len(effects) == 1
        provided += [effect.key for effect in effects if isinstance(effect, Provide)]
        moments.append(now)
    assert provided == [article_key("regtest", article) for article in articles]
    assert all(later - earlier >= PROVIDE_INTERVAL_S * SECOND for earlier, later in itertools.pairwise(moments))


def test_a_failed_announcement_is_tried_again_soon() -> None:
    one = directory()
    one.handle(Announce(article=ARTICLE), NOW)
    assert one.handle(Failed(key=KEY, announcing=True), NOW) == (Count(code="announce-failed"),)
    assert seconds(one.next_deadline()) == PROVIDE_INTERVAL_S
    assert one.handle(Tick(), after(NOW, PROVIDE_INTERVAL_S * SECOND)) == (Provide(key=KEY),)


def test_looking_starts_after_a_second_and_slows_to_half_a_minute() -> None:
    one = directory()
    assert one.handle(Seek(article=ARTICLE), NOW) == (Find(key=KEY),)
    now, pauses = NOW, []
    for _ in range(7):
        one.handle(Found(key=KEY, peers=()), now)
        due = one.next_deadline()
        assert due is not None
        pauses.append((due - now) // SECOND)
        now = due
        assert one.handle(Tick(), now) == (Find(key=KEY),)
    assert pauses == [1, 2, 4, 8, 16, 30, 30]


def test_a_new_connection_starts_the_looking_over_but_not_more_often_than_every_few_seconds() -> None:
    one = directory()
    one.handle(Seek(article=ARTICLE), NOW)
    now = NOW
    for _ in range(6):
        one.handle(Found(key=KEY, peers=()), now)
        now = one.next_deadline() or now
        one.handle(Tick(), now)
    one.handle(Found(key=KEY, peers=()), now)
    one.handle(PeerUp(peer=peer(1)), now)
    due = one.next_deadline()
    assert due == after(now, SECOND)
    one.handle(Tick(), due)
    one.handle(Found(key=KEY, peers=()), due)
    one.handle(PeerUp(peer=peer(2)), due)
    assert one.next_deadline() == after(due, SECOND)  # the first pause, not a hurry
    one.handle(Tick(), after(due, SECOND))
    one.handle(Found(key=KEY, peers=()), after(due, SECOND))
    one.handle(PeerUp(peer=peer(3)), after(due, SECOND))
    assert one.next_deadline() == after(due, 3 * SECOND)


def test_growth_renews_the_record_while_the_network_is_small() -> None:
    one = directory()
    one.handle(Announce(article=ARTICLE), NOW)
    one.handle(Provided(key=KEY), NOW)
    now = after(NOW, 100 * SECOND)
    one.handle(PeerUp(peer=peer(1)), now)
    assert one.next_deadline() == after(now, 2 * SECOND)
    one.handle(Tick(), after(now, 2 * SECOND))
    one.handle(Provided(key=KEY), after(now, 2 * SECOND))
    for number in range(2, 40):
        now = after(now, 6 * SECOND)
        one.handle(PeerUp(peer=peer(number)), now)
        one.handle(Tick(), after(now, 2 * SECOND))
        one.handle(Provided(key=KEY), after(now, 2 * SECOND))
    due = one.next_deadline()
    assert due is not None
    assert due - now > 300 * SECOND


def test_found_candidates_are_met_as_many_as_are_missing() -> None:
    one = directory()
    one.handle(Seek(article=ARTICLE), NOW)
    effects = one.handle(Found(key=KEY, peers=(ME, *(peer(number) for number in range(1, 15)))), NOW)
    met = [effect.peer for effect in effects if isinstance(effect, Meet)]
    assert len(met) == NEIGHBOURS_MIN
    assert ME not in met
    for who in met[:-1]:
        assert one.handle(Joined(peer=who, article=ARTICLE), NOW) == ()
    (another,) = one.handle(Left(peer=met[-1], article=ARTICLE), NOW)
    assert isinstance(another, Meet)
    assert another.peer not in met
    one.handle(Joined(peer=another.peer, article=ARTICLE), NOW)
    (view,) = one.articles()
    assert view.neighbours == tuple(sorted([*met[:-1], another.peer]))
    assert (view.article, view.announced, view.sought) == (ARTICLE, False, True)


def test_a_lost_neighbour_is_replaced_and_looked_for() -> None:
    one = directory()
    one.handle(Seek(article=ARTICLE), NOW)
    peers = tuple(peer(number) for number in range(1, NEIGHBOURS_MIN + 1))
    for effect in one.handle(Found(key=KEY, peers=peers), NOW):
        assert isinstance(effect, Meet)
        one.handle(Joined(peer=effect.peer, article=ARTICLE), NOW)
    now = after(NOW, 60 * SECOND)
    one.handle(Tick(), now)
    one.handle(Found(key=KEY, peers=peers), now)
    assert one.next_deadline() == after(now, MESH_ROUND_S * SECOND)
    one.handle(PeerDown(peer=peers[0]), now)
    assert one.next_deadline() == after(now, SECOND)
    effects = one.handle(Tick(), after(now, 2 * SECOND))
    assert set(effects) == {Find(key=KEY), Meet(peer=peers[0], article=ARTICLE)}


def met(one: Directory, count: int, *, begin: int = 1, moment: Instant = NOW) -> None:
    """Neighbours whom we asked ourselves, as many as ``choose`` wants at a time."""
    found = tuple(peer(number) for number in range(begin, begin + count))
    for effect in one.handle(Found(key=KEY, peers=found), moment):
        if isinstance(effect, Meet):
            one.handle(Joined(peer=effect.peer, article=ARTICLE), moment)


def test_the_newest_neighbour_replaces_one_from_outside_never_one_that_was_chosen() -> None:
    one = directory()
    one.handle(Seek(article=ARTICLE), NOW)
    met(one, 6)
    chosen = one.articles()[0].neighbours
    assert len(chosen) == NEIGHBOURS_MIN
    strangers = [peer(number) for number in range(100, 106)]
    for stranger in strangers:
        assert one.handle(Joined(peer=stranger, article=ARTICLE), NOW) == ()
    assert len(one.articles()[0].neighbours) == NEIGHBOURS_MAX
    for number in range(200, 230):
        newest = peer(number)
        (parted,) = one.handle(Joined(peer=newest, article=ARTICLE), NOW)
        assert isinstance(parted, Part)
        assert parted.peer not in chosen
        assert parted.peer != newest
        one.handle(Left(peer=parted.peer, article=ARTICLE), NOW)
        assert len(one.articles()[0].neighbours) == NEIGHBOURS_MAX
    assert set(chosen) <= set(one.articles()[0].neighbours)


def test_nobody_is_let_go_whom_another_article_needs() -> None:
    one = directory()
    for article in (ARTICLE, "other/1"):
        one.handle(Seek(article=article), NOW)
    for number in range(NEIGHBOURS_MAX):
        one.handle(Joined(peer=peer(number), article=ARTICLE), NOW)
    for number in range(NEIGHBOURS_MIN):
        one.handle(Joined(peer=peer(number), article="other/1"), NOW)
    for number in range(50, 90):
        for effect in one.handle(Joined(peer=peer(number), article=ARTICLE), NOW):
            assert isinstance(effect, Part)
            assert effect.peer >= peer(NEIGHBOURS_MIN)
            one.handle(Left(peer=effect.peer, article=ARTICLE), NOW)


def test_every_round_one_more_is_asked_and_one_of_many_let_go() -> None:
    one = directory()
    one.handle(Seek(article=ARTICLE), NOW)
    met(one, 40)
    assert len(one.articles()[0].neighbours) == NEIGHBOURS_MIN
    asked: set[PeerId] = set()
    let_go = 0
    moment = NOW
    for _ in range(60):
        moment = after(moment, MESH_ROUND_S * SECOND)
        assert one.next_deadline() is not None
        found = Found(key=KEY, peers=tuple(peer(number) for number in range(1, 41)))
        for effect in one.handle(found, moment):
            if isinstance(effect, Meet):
                asked.add(effect.peer)
                one.handle(Joined(peer=effect.peer, article=ARTICLE), moment)
            elif isinstance(effect, Part):
                let_go += 1
                one.handle(Left(peer=effect.peer, article=ARTICLE), moment)
        assert NEIGHBOURS_MIN <= len(one.articles()[0].neighbours) <= NEIGHBOURS_EASY + 1
    assert len(asked) > 20
    assert let_go > 20


def test_rounds_of_many_articles_are_spread() -> None:
    one = directory()
    for number in range(10):
        one.handle(Seek(article=f"a/{number}"), NOW)
        key = article_key("regtest", f"a/{number}")
        for effect in one.handle(Found(key=key, peers=tuple(peer(10 * number + each) for each in range(1, 10))), NOW):
            assert isinstance(effect, Meet)
            one.handle(Joined(peer=effect.peer, article=effect.article), NOW)
    moment = after(NOW, MESH_ROUND_S * SECOND)
    stepped: list[str] = []
    for _ in range(10):
        meets = [effect for effect in one.handle(Tick(), moment) if isinstance(effect, Meet)]
        assert len(meets) == 1
        stepped.append(meets[0].article)
        one.handle(Left(peer=meets[0].peer, article=meets[0].article), moment)
        assert not [effect for effect in one.handle(Tick(), moment) if isinstance(effect, Meet)]
        moment = after(moment, MESH_STEP_S * SECOND)
    assert len(set(stepped)) == 10


def test_stopping_forgets() -> None:
    one = directory()
    one.handle(Seek(article=ARTICLE), NOW)
    one.handle(Announce(article=ARTICLE), NOW)
    assert one.handle(Stop(article=ARTICLE), NOW) == ()
    assert one.next_deadline() is None
    late: list[Event] = [Found(key=KEY, peers=(peer(1),)), Provided(key=KEY), Joined(peer=peer(1), article=ARTICLE)]
    for event in late:
        assert one.handle(event, NOW) == ()
    assert one.articles() == ()


def test_articles_are_bounded() -> None:
    one = directory()
    for number in range(BOOKS_MAX):
        one.handle(Seek(article=f"a/{number}"), NOW)
    assert one.handle(Seek(article="one more"), NOW) == (Count(code="articles-over-bound"),)
    assert directory().handle(Seek(article="x" * (ARTICLE_MAX_CHARS + 1)), NOW) == (Count(code="articles-over-bound"),)
    assert directory().handle(Announce(article=""), NOW) == (Count(code="articles-over-bound"),)


PEERS = st.integers(0, 20).map(peer)
ARTICLES = st.sampled_from(["a", "b", "c"])
KEYS = ARTICLES.map(lambda article: article_key("regtest", article)) | st.just(bytes(32))
EVENTS = st.one_of(
    ARTICLES.map(lambda article: Announce(article=article)),
    ARTICLES.map(lambda article: Seek(article=article)),
    ARTICLES.map(lambda article: Stop(article=article)),
    KEYS.map(lambda key: Provided(key=key)),
    st.builds(lambda key, peers: Found(key=key, peers=tuple(peers)), KEYS, st.lists(PEERS, max_size=8)),
    st.builds(lambda key, announcing: Failed(key=key, announcing=announcing), KEYS, st.booleans()),
    PEERS.map(lambda who: PeerUp(peer=who)),
    PEERS.map(lambda who: PeerDown(peer=who)),
    st.builds(lambda who, article: Joined(peer=who, article=article), PEERS, ARTICLES),
    st.builds(lambda who, article: Left(peer=who, article=article), PEERS, ARTICLES),
    st.just(Tick()),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(EVENTS, st.integers(0, 20 * SECOND)), max_size=60))
def test_whatever_happens_it_neither_fails_nor_floods(history: Sequence[tuple[Event, int]]) -> None:
    one, twin, now = directory(), directory(), NOW
    last_provide: Instant | None = None
    for event, pause in history:
        now = after(now, pause)
        effects = one.handle(event, now)
        assert effects == twin.handle(event, now)
        for effect in effects:
            if isinstance(effect, Provide):
                assert last_provide is None or now - last_provide >= PROVIDE_INTERVAL_S * SECOND
                last_provide = now
            assert not (isinstance(effect, Meet) and effect.peer == ME and not _joined_by_test(history))
        # A tick at the deadline always moves the deadline on, so a driver never spins.
        due = one.next_deadline()
        assert due is None or due > now
        for view in one.articles():
            assert len(view.neighbours) <= 21


def _joined_by_test(history: Sequence[tuple[Event, int]]) -> bool:
    return any(isinstance(event, Joined) and event.peer == ME for event, _ in history)


class Board:
    """A DHT on a board."""

    def __init__(self) -> None:
        self.records: dict[bytes, list[PeerId]] = {}
        self.broken = False
        self.provides: list[float] = []

    def of(self, me: PeerId) -> "Face":
        return Face(self, me)


class Face:
    def __init__(self, board: Board, me: PeerId) -> None:
        self.board, self.me = board, me

    async def provide(self, key: bytes) -> None:
        await trio.sleep(0.1)
        if self.board.broken:
            raise PeerUnreachable("no-provider-holder", "nobody")
        self.board.provides.append(trio.current_time())
        self.board.records.setdefault(key, []).append(self.me)

    async def find(self, key: bytes, most: int) -> Sequence[PeerId]:
        await trio.sleep(0.1)
        if self.board.broken:
            raise PeerUnreachable("no-provider-holder", "nobody")
        return [one for one in self.board.records.get(key, []) if one != self.me][:most]


def clock() -> Instant:
    return Instant(int(trio.current_time() * SECOND))


async def test_the_driver_finds_a_seller_soon_after_it_announced(autojump_clock: trio.testing.MockClock) -> None:
    board = Board()
    met: list[tuple[PeerId, str, float]] = []
    buyer = DirectoryService(
        Directory(peer(1), "regtest"),
        board.of(peer(1)),
        lambda who, article: met.append((who, article, trio.current_time())),
        clock=clock,
    )
    seller = DirectoryService(Directory(peer(2), "regtest"), board.of(peer(2)), lambda *_: None, clock=clock)
    buyer.tell(Seek(article=ARTICLE))  # told before it runs
    async with trio.open_nursery() as nursery:
        await nursery.start(buyer.run)
        await nursery.start(seller.run)
        await trio.sleep(100)
        assert met == []
        seller.tell(Announce(article=ARTICLE))
        buyer.tell(PeerUp(peer=peer(2)))
        announced = trio.current_time()
        await trio.sleep(5)
        assert [one[:2] for one in met] == [(peer(2), ARTICLE)]
        assert met[0][2] - announced < 2.5
        buyer.tell(Joined(peer=peer(2), article=ARTICLE))
        assert seller.statistics()["announced"] == 1
        assert buyer.statistics()["meet"] == 1
        nursery.cancel_scope.cancel()


async def test_the_driver_bears_a_broken_dht_and_recovers(autojump_clock: trio.testing.MockClock) -> None:
    board = Board()
    board.broken = True
    one = DirectoryService(Directory(peer(1), "regtest"), board.of(peer(1)), lambda *_: None, clock=clock)
    async with trio.open_nursery() as nursery:
        await nursery.start(one.run)
        one.tell(Announce(article=ARTICLE))
        one.tell(Seek(article=ARTICLE))
        await trio.sleep(60)
        assert one.statistics()["announce-failed"] >= 3
        assert one.statistics()["look-failed"] >= 3
        board.broken = False
        await trio.sleep(40)
        assert board.records == {KEY: [peer(1)]}
        assert one.statistics()["looked"] >= 1
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("count", [3])
async def test_the_driver_spaces_announcements(count: int, autojump_clock: trio.testing.MockClock) -> None:
    board = Board()
    one = DirectoryService(Directory(peer(1), "regtest"), board.of(peer(1)), lambda *_: None, clock=clock)
    async with trio.open_nursery() as nursery:
        await nursery.start(one.run)
        for number in range(count):
            one.tell(Announce(article=f"a/{number}"))
        await trio.sleep(20)
        assert len(board.provides) == count
        gaps = [later - earlier for earlier, later in itertools.pairwise(board.provides)]
        assert min(gaps) >= PROVIDE_INTERVAL_S - 0.01
        nursery.cancel_scope.cancel()
