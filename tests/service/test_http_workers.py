"""Workers over HTTP: asked, answering, failing, silent, hung up on; and what the market is told of them."""

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

import peer.workers.http
from peer.core.events import SellAsked, SellStopped, SlotsChanged
from peer.node.feed import Feed
from peer.node.registry import Registry, Worker
from peer.workers.http import HttpWorker, check_push_url, check_worker_name, worker_client
from peer.workers.process import WorkFailed
from tests.service.handyman import Handyman, answer_of, handyman
from wire.errors import Refused
from wire.limits import HTTP_WORKER_BLOCK_S, HTTP_WORKER_IDLE_WAIT_S, HTTP_WORKERS_MAX


@asynccontextmanager
async def employed(man: Handyman) -> AsyncIterator[tuple[HttpWorker, list[str]]]:
    """A worker of the node for ``man``, and the states it went through."""
    states: list[str] = []
    async with worker_client() as client, trio.open_nursery() as nursery:
        worker = HttpWorker("one", "foobar", man.url, client=client, nursery=nursery, changed=lambda: states.append(worker.state))
        yield worker, states
        nursery.cancel_scope.cancel()


async def failure(worker: HttpWorker, work: bytes = b"work", time_s: float = 30) -> WorkFailed:
    with pytest.raises(WorkFailed) as caught:
        await worker.run(work, time_s=time_s)
    return caught.value


async def test_it_posts_the_work_and_takes_the_answer() -> None:
    async with handyman() as man, employed(man) as (worker, states):
        work = bytes(range(256)) * 2_000
        assert await worker.run(work, time_s=30) == b"done: " + work
        assert man.works == [work]
        assert man.heads[0].startswith(b"POST /work HTTP/1.1\r\n")
        assert b"application/octet-stream" in man.heads[0]
        assert states == ["working", "silent"]
        assert worker.slots == 0
        assert (worker.statistics().done, worker.statistics().failed) == (1, ())


async def test_registering_again_makes_it_idle_and_only_that() -> None:
    async with handyman() as man, employed(man) as (worker, states):
        await worker.run(b"a")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(worker.run, b"b")
            await trio.testing.wait_all_tasks_blocked()
            assert man.works == [b"a"]
            assert worker.statistics().waiting == 1
            worker.register(man.url)
        assert man.works == [b"a", b"b"]
        assert states == ["working", "silent", "idle", "working", "silent"]


async def test_registering_before_its_answer_is_read_counts() -> None:
    async with handyman() as man, employed(man) as (worker, _):
        man.hold()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(worker.run, b"a")
            await man.asked.wait()
            worker.register(man.url)
            assert worker.state == "working"
            man.go.set()
        assert worker.state == "idle"


async def test_one_that_never_registers_again_is_given_up(mock_clock: trio.testing.MockClock) -> None:
    async with handyman() as man, employed(man) as (worker, _):
        await worker.run(b"a")
        failures: list[WorkFailed] = []

        async def again() -> None:
            failures.append(await failure(worker))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(again)
            await trio.testing.wait_all_tasks_blocked()
            mock_clock.jump(HTTP_WORKER_IDLE_WAIT_S - 0.1)
            await trio.testing.wait_all_tasks_blocked()
            assert failures == []
            mock_clock.jump(0.2)
        assert failures[0].code == "worker-silent"


FAILURES = [
    (answer_of(500, b"sorry"), "worker-failed", False),
    (answer_of(404, b"who?"), "bad-answer", True),
    (answer_of(204, b""), "bad-answer", True),
    (answer_of(302, b"", "Location: http://127.0.0.1:1/"), "bad-answer", True),
    (b"nonsense\r\n\r\n", "worker-gone", True),
    (b"", "worker-gone", True),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort", "worker-gone", True),
]


@pytest.mark.parametrize(("said", "code", "idle"), FAILURES)
async def test_failures_block_it_for_a_while(said: bytes, code: str, idle: bool, mock_clock: trio.testing.MockClock) -> None:
    async with handyman() as man, employed(man) as (worker, states):
        man.answer = lambda _: said
        assert (await failure(worker)).code == code
        assert states == ["working", "blocked"]
        assert worker.slots == 0
        assert dict(worker.statistics().failed) == {code: 1}
        assert worker.statistics().last_words
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(HTTP_WORKER_BLOCK_S - 0.1)
        await trio.testing.wait_all_tasks_blocked()
        assert worker.state == "blocked"
        mock_clock.jump(0.2)
        await trio.testing.wait_all_tasks_blocked()
        assert worker.state == ("idle" if idle else "silent")
        worker.register(man.url)
        assert worker.state == "idle"
        man.answer = lambda work: answer_of(200, work)
        assert await worker.run(b"again") == b"again"


async def test_registering_does_not_lift_the_block(mock_clock: trio.testing.MockClock) -> None:
    async with handyman() as man, employed(man) as (worker, _):
        man.answer = lambda _: answer_of(500, b"")
        await failure(worker)
        worker.register(man.url)
        assert worker.state == "blocked"
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(HTTP_WORKER_BLOCK_S)
        await trio.testing.wait_all_tasks_blocked()
        assert worker.state == "idle"


async def test_nobody_listening_is_a_failure() -> None:
    async with handyman() as man, employed(man) as (worker, _):
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        worker.register(f"http://127.0.0.1:{listener.socket.getsockname()[1]}/")
        await listener.aclose()
        assert (await failure(worker)).code == "worker-gone"


async def test_a_result_that_is_too_long_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer.workers.http, "RESULT_MAX_BYTES", 1_000)
    async with handyman() as man, employed(man) as (worker, _):
        man.answer = lambda _: answer_of(200, bytes(1_000))
        assert len(await worker.run(b"")) == 1_000
        worker.register(man.url)
        man.answer = lambda _: answer_of(200, bytes(1_001))
        assert (await failure(worker)).code == "oversize-result"


async def test_a_result_without_an_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer.workers.http, "RESULT_MAX_BYTES", 1_000)

    async def endless(stream: trio.SocketStream) -> None:
        try:
            await stream.receive_some(65_536)
            await stream.send_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            while True:
                await stream.send_all(b"4000\r\n" + bytes(0x4000) + b"\r\n")
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            ended.set()

    ended = trio.Event()
    async with handyman() as man, employed(man) as (worker, _), trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, endless, [listener])
        worker.register(f"http://127.0.0.1:{listener.socket.getsockname()[1]}/")
        assert (await failure(worker)).code == "oversize-result"
        await ended.wait()
        nursery.cancel_scope.cancel()


async def test_work_that_takes_too_long_is_hung_up_on(mock_clock: trio.testing.MockClock) -> None:
    async with handyman() as man, employed(man) as (worker, _):
        man.hold()
        failures: list[WorkFailed] = []

        async def ask() -> None:
            failures.append(await failure(worker, time_s=7))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await man.asked.wait()
            mock_clock.jump(7.1)
            await man.hung_up.wait()
        assert failures[0].code == "time-limit"
        assert worker.state == "blocked"


async def test_giving_up_closes_the_connection() -> None:
    async with handyman() as man, employed(man) as (worker, states):
        man.hold()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(worker.run, b"a")
            await man.asked.wait()
            nursery.cancel_scope.cancel()
        await man.hung_up.wait()
        assert states == ["working", "blocked"]
        assert worker.statistics().cancelled == 1


# --- addresses and names --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:9000/work",
        "http://localhost/work",
        "http://10.1.2.3:80/",
        "http://172.31.255.255/x?y=z",
        "https://192.168.0.7:8443/work",
        "http://[::1]:9000/",
        "http://[fd00::1]/",
    ],
)
def test_workers_of_this_machine_and_its_network_are_taken(url: str) -> None:
    assert check_push_url(url) == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "work",
        "ftp://127.0.0.1/",
        "file:///etc/passwd",
        "http://",
        "http://8.8.8.8/",
        "http://172.32.0.1/",
        "http://169.254.169.254/latest/",
        "http://0.0.0.0/",
        "http://100.64.0.1/",
        "http://[::ffff:127.0.0.1]/",
        "http://[::ffff:8.8.8.8]/",
        "http://[fe80::1]/",
        "http://[2001:db8::1]/",
        "http://worker.local/",
        "http://localhost.evil.example/",
        "http://127.0.0.1.evil.example/",
        "http://127.1/",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://user@127.0.0.1/",
        "http://user:secret@127.0.0.1/",
        "http://127.0.0.1:0/",
        "http://127.0.0.1:99999/",
        "http://127.0.0.1:x/",
        "http://[::1/",
        "http://127.0.0.1/\r\nHost: evil",
        "http://127.0.0.1/\N{SNOWMAN}",
        "http://127.0.0.1/" + "x" * 300,
    ],
)
def test_others_are_refused(url: str) -> None:
    with pytest.raises(Refused) as caught:
        check_push_url(url)
    assert caught.value.code == "bad-url"


@pytest.mark.parametrize("name", ["", "a b", "a/b", "x" * 65, "\N{SNOWMAN}", "a\n"])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(Refused) as caught:
        check_worker_name(name)
    assert caught.value.code == "bad-worker"


# --- the registry ---------------------------------------------------------------------------------------------------------
class Office:
    """A registry whose market is a list."""

    def __init__(self, nursery: trio.Nursery, client: Any, own: dict[str, Worker] | None = None) -> None:
        self.told: list[Any] = []
        self.full = False
        self.workers = own or {}
        self.feed = Feed(1)
        self.registry = Registry(
            workers=self.workers,
            nursery=nursery,
            client=client,
            numbers=itertools.count(100),
            tell=self.tell,
            tell_nowait=self.tell_nowait,
            feed=self.feed,
        )

    async def tell(self, event: Any) -> None:
        await trio.lowlevel.checkpoint()
        self.told.append(event)

    def tell_nowait(self, event: Any) -> bool:
        if not self.full:
            self.told.append(event)
        return not self.full


@asynccontextmanager
async def office() -> AsyncIterator[Office]:
    async with worker_client() as client, trio.open_nursery() as nursery:
        yield Office(nursery, client)
        nursery.cancel_scope.cancel()


async def test_the_market_hears_of_a_worker_when_it_comes_works_and_goes() -> None:
    async with handyman() as man, office() as place:
        worker = await place.registry.register("one", "foobar", man.url)
        assert place.told == [SellAsked(order=100, article="foobar", worker="one", ask_msat=None, slots=1, ahead=False)]
        assert place.workers["one"] is worker
        await worker.run(b"a")
        assert await place.registry.register("one", "foobar", man.url) is worker
        await place.registry.unregister("one")
        assert place.told[1:] == [
            SlotsChanged(worker="one", slots=0),
            SlotsChanged(worker="one", slots=1),
            SellStopped(worker="one", gone=True),
        ]
        assert place.workers == {}
        assert [event["state"] for event in place.feed.kept()] == ["idle", "working", "silent", "idle", "unregistered"]
        with pytest.raises(Refused) as caught:
            await place.registry.unregister("one")
        assert caught.value.code == "unknown-worker"


async def test_a_worker_that_registers_twice_at_once_is_one_worker() -> None:
    async with handyman() as man, office() as place:
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(place.registry.register, "one", "foobar", man.url)
        assert place.told == [SellAsked(order=100, article="foobar", worker="one", ask_msat=None, slots=1, ahead=False)]
        assert [event["state"] for event in place.feed.kept()] == ["idle"]


async def test_news_that_find_the_inbox_full_are_told_later() -> None:
    async with handyman() as man, office() as place:
        worker = await place.registry.register("one", "foobar", man.url)
        place.full = True
        await worker.run(b"a")
        await trio.testing.wait_all_tasks_blocked()
        assert place.told[1:] == [SlotsChanged(worker="one", slots=0)]


async def test_a_known_name_for_another_article_is_another_worker() -> None:
    async with handyman() as man, office() as place:
        first = await place.registry.register("one", "foobar", man.url)
        second = await place.registry.register("one", "snafu", man.url)
        assert first is not second
        assert [type(event).__name__ for event in place.told] == ["SellAsked", "SellStopped", "SellAsked"]


async def test_a_worker_that_is_unregistered_at_work_is_hung_up_on_and_not_heard_of_again() -> None:
    async with handyman() as man, office() as place:
        worker = await place.registry.register("one", "foobar", man.url)
        man.hold()
        failures: list[WorkFailed] = []

        async def ask() -> None:
            failures.append(await failure(worker))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await man.asked.wait()
            await place.registry.unregister("one")
        await man.hung_up.wait()
        assert failures[0].code == "worker-gone"
        assert isinstance(place.told[-1], SellStopped)


async def test_names_of_the_nodes_own_workers_are_taken_and_there_is_a_bound() -> None:
    async with handyman() as man, office() as place:
        place.workers["echo"] = await place.registry.register("x", "foobar", man.url)
        for name, article, code in (
            ("echo", "foobar", "name-taken"),
            ("y", "no article", "bad-article"),
            ("a b", "foobar", "bad-worker"),
        ):
            with pytest.raises(Refused) as caught:
                await place.registry.register(name, article, man.url)
            assert caught.value.code == code
        for number in range(1, HTTP_WORKERS_MAX):
            await place.registry.register(f"w{number}", "foobar", man.url)
        with pytest.raises(Refused) as caught:
            await place.registry.register("one-more", "foobar", man.url)
        assert caught.value.code == "workers-full"
