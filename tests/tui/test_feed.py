"""The feed: what it reads, when, and how it gets over a node that is gone, busy or strange."""

import asyncio
from collections.abc import Awaitable, Callable

import httpx
import pytest

from tests.tui.fake import FakeNode
from tui import feed
from tui.feed import CHANGED_BY, LISTINGS, Feed, Snapshot
from tui.link import Link
from wire.errors import LocalFault

PATIENCE_S = 20


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rhythm of a minute in a second."""
    monkeypatch.setattr(feed, "POLL_S", 0.2)
    monkeypatch.setattr(feed, "GAP_S", 0.01)
    monkeypatch.setattr(feed, "RETRY_FIRST_S", 0.1)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is read but what events say has changed."""
    monkeypatch.setattr(feed, "POLL_S", 3_600)


class Heard:
    """A feed under test and all that it told."""

    def __init__(self, node: FakeNode, find: Callable[[], Link] | None = None) -> None:
        self.told: list[Snapshot] = []
        self._changed = asyncio.Condition()
        self._news = asyncio.Event()
        self.feed = Feed(find or node.find, self._hear)

    def _hear(self, snapshot: Snapshot) -> None:
        self.told.append(snapshot)
        self._news.set()

    async def until(self, holds: Callable[[Snapshot], object]) -> Snapshot:
        """Wait for a state of which ``holds`` is true."""
        async with asyncio.timeout(PATIENCE_S):
            while not holds(self.feed.latest):
                self._news.clear()
                await self._news.wait()
        return self.feed.latest


def following(test: Callable[[FakeNode, Heard], Awaitable[None]]) -> None:
    """Run ``test`` beside a feed that follows a made-up node."""

    async def run() -> None:
        node = FakeNode()
        heard = Heard(node)
        task = asyncio.create_task(heard.feed.run())
        try:
            await test(node, heard)
            assert not task.done()
        finally:
            task.cancel()
            await asyncio.wait([task], timeout=PATIENCE_S)
            assert task.cancelled()

    asyncio.run(run())


def test_everything_is_read_at_first_and_told_as_one_state() -> None:
    async def test(node: FakeNode, heard: Heard) -> None:
        node.lists["peers"] = [{"account": "1abc"}]
        state = await heard.until(lambda one: one.connected)
        assert len(heard.told) == 1
        assert node.reads[: len(LISTINGS)] == list(LISTINGS)
        assert state.peers == ({"account": "1abc"},)
        assert (state.notice, state.heard, state.real_money) == ("", True, False)
        assert heard.feed.link is not None

    following(test)


@pytest.mark.parametrize("kind", [*CHANGED_BY, "a kind of the future"])
@pytest.mark.usefixtures("patient")
def test_an_event_makes_just_what_it_may_have_changed_read_again(kind: str) -> None:
    async def test(node: FakeNode, heard: Heard) -> None:
        await heard.until(lambda one: one.connected)
        node.reads.clear()
        node.lists["status"] = node.lists["status"] | {"balance_sat": 7}
        for name in LISTINGS[1:]:
            node.lists[name] = [{"id": "new"}]
        node.happen(kind=kind)
        wanted = CHANGED_BY.get(kind, LISTINGS)
        state = await heard.until(lambda one: any(getattr(one, name) for name in LISTINGS[1:]) or one.status["balance_sat"] == 7)
        assert set(node.reads) == set(wanted)
        for name in LISTINGS[1:]:
            assert bool(getattr(state, name)) == (name in wanted)

    following(test)


def test_even_without_events_everything_is_read_now_and_then() -> None:
    async def test(node: FakeNode, heard: Heard) -> None:
        await heard.until(lambda one: one.connected)
        node.lists["workers"] = [{"name": "rays"}]
        state = await heard.until(lambda one: one.workers)
        assert state.workers == ({"name": "rays"},)

    following(test)


def test_an_unchanged_node_is_told_once() -> None:
    async def test(node: FakeNode, heard: Heard) -> None:
        await heard.until(lambda one: one.connected)
        for _ in range(3):
            node.happen(kind="trade")
            await node.until_read("status")
        assert len(heard.told) == 1

    following(test)


def test_a_node_that_goes_is_told_with_its_last_state_and_found_again() -> None:
    async def test(node: FakeNode, heard: Heard) -> None:
        node.lists["peers"] = [{"account": "1abc"}]
        await heard.until(lambda one: one.connected)
        node.die()
        state = await heard.until(lambda one: not one.connected)
        assert "the connection" in state.notice or "no node answers" in state.notice
        assert state.peers == ({"account": "1abc"},)
        with pytest.raises(LocalFault):
            _ = heard.feed.link
        state = await heard.until(lambda one: "no node answers" in one.notice)
        assert state.retry_s > 0
        node.live()
        assert (await heard.until(lambda one: one.connected)).notice == ""

    following(test)


def test_pauses_grow_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "RETRY_FIRST_S", 0.01)
    monkeypatch.setattr(feed, "RETRY_MAX_S", 0.05)

    async def test(node: FakeNode, heard: Heard) -> None:
        node.die()
        await heard.until(lambda one: one.retry_s == 0.05)
        assert [one.retry_s for one in heard.told] == [0.01, 0.02, 0.04, 0.05]
        node.live()
        await heard.until(lambda one: one.connected)
        node.die()
        assert (await heard.until(lambda one: not one.connected)).retry_s == 0.01

    following(test)


def test_the_owner_need_not_wait_for_the_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "RETRY_FIRST_S", 3_600)

    async def test(node: FakeNode, heard: Heard) -> None:
        node.die()
        await heard.until(lambda one: one.retry_s)
        node.live()
        heard.feed.poke()
        await heard.until(lambda one: one.connected)

    following(test)


def test_a_home_without_a_node_is_told_in_its_own_words() -> None:
    def find() -> Link:
        raise LocalFault("no-node", "no node runs in /somewhere")

    async def run() -> None:
        heard = Heard(FakeNode(), find)
        task = asyncio.create_task(heard.feed.run())
        state = await heard.until(lambda one: one.retry_s)
        assert (state.connected, state.heard, state.notice) == (False, False, "no node runs in /somewhere")
        assert not state.real_money
        task.cancel()

    asyncio.run(run())


def test_it_ends_even_when_the_node_goes_at_the_same_moment() -> None:
    async def test(node: FakeNode, heard: Heard) -> None:
        await heard.until(lambda one: one.connected)
        await node.until_read("status")
        node.die()

    following(test)


@pytest.mark.parametrize("fault", [httpx.ConnectError, httpx.ReadTimeout, httpx.ReadError, httpx.RemoteProtocolError])
def test_every_fault_of_the_connection_has_a_sentence(fault: type[httpx.TransportError]) -> None:
    async def test(node: FakeNode, heard: Heard) -> None:
        await heard.until(lambda one: one.connected)
        node.fault = fault
        state = await heard.until(lambda one: not one.connected)
        assert "the node" in state.notice or "no node" in state.notice

    following(test)


def test_a_refusal_is_shown_and_what_is_known_stays() -> None:
    async def test(node: FakeNode, heard: Heard) -> None:
        node.lists["peers"] = [{"account": "1abc"}]
        await heard.until(lambda one: one.connected)
        node.refusals["trades"] = (503, "busy", "too many\x1b[2J requests at once")
        state = await heard.until(lambda one: one.notice)
        assert state.connected
        assert state.peers
        assert state.notice == "too many\N{REPLACEMENT CHARACTER}[2J requests at once"
        node.refusals.clear()
        await heard.until(lambda one: not one.notice)

    following(test)


def test_a_listing_that_the_node_lacks_is_empty() -> None:
    async def test(node: FakeNode, heard: Heard) -> None:
        node.refusals["mandates"] = (404, "not-found", "there is nothing at this address")
        node.refusals["status"] = (404, "not-found", "there is nothing at this address")
        state = await heard.until(lambda one: one.connected)
        assert (state.mandates, state.status) == ((), {})
        assert state.real_money, "money of an unknown kind is taken for real"

    following(test)


@pytest.mark.parametrize("raw", [b"<html>", b"[[[", b"\xff\xfe", b"[" * 100_000])
def test_a_stranger_on_the_port_is_named(raw: bytes) -> None:
    async def test(node: FakeNode, heard: Heard) -> None:
        node.raw["status"] = raw
        state = await heard.until(lambda one: one.retry_s)
        assert "is no BitWrk node" in state.notice

    following(test)


@pytest.mark.parametrize("raw", [b"null", b"7", b'"text"', b'{"a": [1]}', b'[1, "two", null, [3]]'])
def test_json_of_another_shape_is_an_empty_listing(raw: bytes) -> None:
    async def test(node: FakeNode, heard: Heard) -> None:
        for name in LISTINGS[1:]:
            node.raw[name] = raw
        state = await heard.until(lambda one: one.connected)
        assert all(getattr(state, name) == () for name in LISTINGS[1:])

    following(test)


def test_strange_lines_among_the_events_are_passed_over() -> None:
    async def test(node: FakeNode, heard: Heard) -> None:
        await heard.until(lambda one: one.connected)
        node.lists["peers"] = [{"account": "1abc"}]
        node.say(b": here\n\n")
        node.say(b"event: nothing\nid: 7\ndata: [1, 2]\n\n")
        node.say(b"data: " + b"9" * 100_000 + b"\n\n")
        node.happen(kind="peer")
        await heard.until(lambda one: one.peers)
        assert heard.feed.latest.connected
        node.say(b"data: {broken\n\n")
        state = await heard.until(lambda one: not one.connected)
        assert "is no BitWrk node" in state.notice

    following(test)


def test_what_strangers_say_is_clean_on_arrival() -> None:
    async def test(node: FakeNode, heard: Heard) -> None:
        node.lists["trades"] = [{"reason": "\x1b]0;owned\x07 \u202eevil", "deal": "ab"}]
        state = await heard.until(lambda one: one.connected)
        assert state.trades[0]["reason"].isprintable()
        assert "\u202e" not in state.trades[0]["reason"]

    following(test)


def test_prices_of_earlier_auctions_are_remembered_while_the_book_is_followed() -> None:
    async def test(node: FakeNode, heard: Heard) -> None:
        await heard.until(lambda one: one.connected)
        for epoch, price in ((5, 26_000), (5, 26_000), (6, None), (7, 31_000)):
            node.lists["books"] = [{"book": "b", "epoch": epoch, "price_msat": price}, {"book": "c", "epoch": None}]
            node.happen(kind="book")
            await heard.until(lambda one, epoch=epoch: one.books and one.books[0]["epoch"] == epoch)  # type: ignore[misc]
        assert heard.feed.latest.prices == {"b": (26_000, None, 31_000)}
        node.lists["books"] = []
        node.happen(kind="book")
        assert (await heard.until(lambda one: not one.books)).prices == {}

    following(test)


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ({"notice": "a private chain"}, "a private chain"),
        ({"clock_skewed": True, "notice": "other"}, "clock"),
        ({"draining": True}, "about to stop"),
    ],
)
def test_what_the_node_says_is_wrong_is_shown(said: dict[str, object], shown: str) -> None:
    async def test(node: FakeNode, heard: Heard) -> None:
        node.lists["status"] |= said
        assert shown in (await heard.until(lambda one: one.connected)).notice

    following(test)
