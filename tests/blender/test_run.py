"""A whole frame against a stand-in for the node: real HTTP, real images, real hanging up."""

import json
import select
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest

from blender.bitwrk.core import openexr, run, tiling, work
from blender.bitwrk.core.budget import Budget
from blender.bitwrk.core.frame import Frame, State
from blender.bitwrk.core.node import NodeClient, NodeError, Purchase
from peer.workers.blender.openexr import Window
from peer.workers.blender.pixels import crop, pixels, seal
from peer.workers.blender.work import read_result, read_work
from tests.blender.picture import picture

TOKEN = "secret-token"
ARTICLE = "net.bitwrk/blender/1/4.5/2G"
MAKER = {"bitwrkBlender": "4.5.15", "bitwrkBuild": "abc", "bitwrkKernel": "avx2"}


class FakeNode:
    """Answers like a node. ``answer`` may be replaced: work bytes to a refusal, image bytes, or None to wait for the hang-up."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.files: dict[str, bytes] = {}
        self.trades: list[dict[str, Any]] = []
        self.queries: list[dict[str, list[str]]] = []
        self.waiting = 0
        self.most_waiting = 0
        self.hung_up = threading.Semaphore(0)
        self.arrived = threading.Semaphore(0)
        self.lock = threading.Lock()
        self.price_msat = 700
        self.answer: Any = self.render
        node = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                return

            def allowed(self) -> bool:
                return self.headers.get("Authorization") == f"Bearer {TOKEN}"

            def say(self, status: int, body: bytes, **headers: str) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name.replace("_", "-"), value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def refuse(self, status: int, code: str) -> None:
                body = json.dumps({"error": code, "reason": f"because of {code}"}).encode()
                self.say(status, body, X_BitWrk_Error=code)

            def do_GET(self) -> None:
                if not self.allowed():
                    self.refuse(401, "token-wrong")
                elif self.path == "/v1/trades":
                    self.say(200, json.dumps(node.trades).encode())
                elif self.path.startswith("/file/"):
                    self.say(200, node.files[self.path[6:]])
                else:
                    self.refuse(404, "not-found")

            def do_POST(self) -> None:
                if not self.allowed():
                    self.refuse(401, "token-wrong")
                    return
                if self.path.startswith("/v1/books"):
                    self.say(200, b"[]")
                    return
                data = self.rfile.read(int(self.headers["Content-Length"]))
                node.buy(self, data)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()
        (home / "api.json").write_text(json.dumps({"port": self.server.server_port, "pid": 1}))
        token = home / "api-token"
        token.write_text(TOKEN + "\n")
        token.chmod(0o600)

    def buy(self, handler: Any, data: bytes) -> None:
        with self.lock:
            self.queries.append(parse_qs(urlsplit(handler.path).query))
            self.waiting += 1
            self.most_waiting = max(self.most_waiting, self.waiting)
        self.arrived.release()
        try:
            answer = self.answer(data)
            if answer is None:
                select.select([handler.connection], [], [], 20)
                self.hung_up.release()
                handler.close_connection = True
            elif isinstance(answer, tuple):
                handler.refuse(*answer)
            else:
                with self.lock:
                    name = f"{len(self.files):064x}"
                    self.files[name] = answer
                    if "price" in self.queries[-1]:
                        line = {"deal": name, "unit": 0, "role": "buyer", "article": ARTICLE, "phase": "finished"}
                        self.trades.append({**line, "price_msat": self.price_msat, "result": name})
                handler.say(303, b"", Location=f"/file/{name}")
        finally:
            with self.lock:
                self.waiting -= 1

    @staticmethod
    def render(data: bytes) -> bytes:
        asked = read_work(data)
        values, channels = picture(asked.layer, asked.image_width, asked.image_height, asked.frame)
        display = Window(0, 0, asked.image_width, asked.image_height)
        return seal(crop(values, display, asked.tile), channels, asked.tile, display, {**MAKER, "bitwrkFrame": str(asked.frame)})

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[FakeNode]:
    made = FakeNode(tmp_path)
    yield made
    made.close()


@pytest.fixture
def scene(tmp_path: Path) -> str:
    path = tmp_path / "scene.blend"
    path.write_bytes(b"BLENDER-v405" + bytes(300_000))
    return str(path)


class Clock:
    """Goes a long way with every look, so that no test waits for a retry."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 0.1
        return self.now


def course(
    node: FakeNode, scene: str, *, price: int = 1_000, maximum: int = 100_000, tiles: int = 12, at_once: int = 4
) -> run.Run:
    shown = work.Picture(300_012, "Scene", "ViewLayer", 64, 48, 5)
    cut = tiling.cut(0, 0, 64, 48, *tiling.grid(64, 48, 64 * 48 // tiles))
    order = run.Order(ARTICLE, shown, scene, price, 30.0, at_once)
    return run.Run(NodeClient(str(node.home)), order, Frame(cut), Budget(maximum, ARTICLE), Clock())


def play(made: run.Run) -> dict[int, bytes]:
    """To the end, with the maximum looked at after every step."""
    found: dict[int, bytes] = {}
    made.start()
    end = time.monotonic() + 60
    while not made.frame.over:
        assert time.monotonic() < end
        for delivery in made.step(0.05):
            found[delivery.index] = delivery.data
        assert made.budget.committed <= made.budget.maximum
    made.close()
    return found


def test_a_frame_is_bought_tile_by_tile(node: FakeNode, scene: str) -> None:
    made = course(node, scene)
    found = play(made)
    values, _ = picture("ViewLayer", 64, 48, 5)
    merged = np.zeros_like(values)
    for data in found.values():
        image = read_result(data)
        window = image.data
        merged[:, window.top : window.top + window.height, window.left : window.left + window.width] = pixels(image)
    assert np.array_equal(merged, values)
    assert made.frame.failure == ""
    assert made.makers == {("abc", "avx2"): 12}
    assert node.most_waiting <= 4
    assert all((query["price"], query["wait"], query["once"]) == (["msat 1000"], ["30"], ["1"]) for query in node.queries)
    made.budget.observe(node.trades)
    assert made.budget.spent == 12 * 700
    assert "Tile 12 of 12" in made.words()


def test_free_work_is_asked_for_without_a_price(node: FakeNode, scene: str) -> None:
    made = course(node, scene, price=0, maximum=0)
    assert len(play(made)) == 12
    assert all("price" not in query for query in node.queries)


def test_the_maximum_ends_the_frame(node: FakeNode, scene: str) -> None:
    """What was saved on the first tiles is spent on more of them; and then it is over."""
    made = course(node, scene, maximum=5_000)
    found = play(made)
    assert made.frame.failure.startswith("the maximum of sat 5 is reached: sat 4.2 spent, 6 tiles left")
    assert len(found) == 6
    assert sum(line["price_msat"] for line in node.trades) <= 5_000


def test_trades_of_before_are_not_ours(node: FakeNode, scene: str) -> None:
    old = {"deal": "old", "unit": 0, "role": "buyer", "article": ARTICLE, "phase": "finished", "price_msat": 10**9, "result": "x"}
    node.trades.append(old)
    assert len(play(course(node, scene, maximum=12_000))) == 12


def test_cancelling_hangs_up(node: FakeNode, scene: str) -> None:
    node.answer = lambda data: None
    made = course(node, scene)
    made.start()
    made.step(0.01)
    for _ in range(4):
        assert node.arrived.acquire(timeout=20)
    made.cancel()
    assert made.frame.over
    assert made.frame.count(State.CANCELLED) == 12
    for _ in range(4):
        assert node.hung_up.acquire(timeout=20)
    made.close()
    assert not [thread for thread in made._threads if thread.is_alive()]


def test_refusals_are_tried_three_times(node: FakeNode, scene: str) -> None:
    node.answer = lambda data: (504, "no-match")
    made = course(node, scene, at_once=1)
    assert play(made) == {}
    assert made.frame.failure == "a tile failed 3 times: because of no-match"
    # Other tiles are tried while one waits for its next try.
    assert 3 <= len(node.queries) <= 36
    assert made.budget.committed == 0


def test_a_tile_that_fails_once_comes_the_second_time(node: FakeNode, scene: str) -> None:
    seen: list[bytes] = []

    def sometimes(data: bytes) -> Any:
        tail = data[-12:]
        with node.lock:
            first = tail not in seen
            seen.append(tail)
        return (502, "work-failed") if first else node.render(data)

    node.answer = sometimes
    made = course(node, scene)
    assert len(play(made)) == 12
    assert len(node.queries) == 24


@pytest.mark.parametrize(("status", "code"), [(402, "no-funds"), (400, "bad-article"), (413, "too-large")])
def test_hopeless_refusals_end_it_at_once(node: FakeNode, scene: str, status: int, code: str) -> None:
    node.answer = lambda data: (status, code)
    made = course(node, scene, at_once=1)
    play(made)
    assert made.frame.failure == f"because of {code}"
    assert len(node.queries) == 1


def test_what_was_locked_before_a_failure_is_counted_before_more_is_ordered(node: FakeNode, scene: str) -> None:
    def locked(data: bytes) -> Any:
        with node.lock:
            line = {"deal": f"lost {len(node.trades)}", "unit": 0, "role": "buyer", "article": ARTICLE, "phase": "committed"}
            node.trades.append({**line, "price_msat": 1_000, "result": None})
        return (502, "work-failed")

    node.answer = locked
    made = course(node, scene, at_once=1, maximum=2_500)
    play(made)
    assert "the maximum of sat 2.5 is reached: sat 2 spent" in made.frame.failure
    assert len(node.trades) == 2


def test_a_bid_nobody_can_account_for_stays_spent(node: FakeNode, scene: str, monkeypatch: pytest.MonkeyPatch) -> None:
    node.answer = lambda data: (502, "work-failed")
    made = course(node, scene, at_once=1, maximum=2_500)
    made.start()

    def deaf(name: str, timeout: float = 5.0) -> Any:
        raise NodeError("broken", "the node hung up")

    monkeypatch.setattr(made._node, "listing", deaf)
    end = time.monotonic() + 60
    while not made.frame.over:
        assert time.monotonic() < end
        made.step(0.05)
    made.close()
    assert len(node.queries) == 2
    assert made.budget.spent == 2_000


def test_bad_images_are_not_shown_and_paid_only_three_times(node: FakeNode, scene: str) -> None:
    node.answer = lambda data: b"\x76\x2f\x31\x01 not really"
    made = course(node, scene, at_once=1, tiles=1)
    assert play(made) == {}
    assert "cannot be used" in made.frame.failure
    assert len(node.trades) == 3


def test_the_tile_of_another_place_is_not_shown(node: FakeNode, scene: str) -> None:
    first = work.Picture(300_012, "Scene", "ViewLayer", 64, 48, 5)
    wrong = node.render(work.head(first) + Path(scene).read_bytes() + work.tail(first, tiling.Tile(0, 0, 3, 3)))
    node.answer = lambda data: wrong
    made = course(node, scene, at_once=1)
    assert play(made) == {}
    with pytest.raises(openexr.BadImage):
        work.check_result(first, tiling.Tile(0, 0, 16, 16), wrong)


def test_a_node_that_dies_is_told_in_words(node: FakeNode, scene: str) -> None:
    def die(data: bytes) -> Any:
        raise ConnectionAbortedError

    node.server.handle_error = lambda *_: None  # type: ignore[method-assign]
    node.answer = die
    made = course(node, scene, at_once=1, tiles=1)
    play(made)
    assert "the node hung up" in made.frame.failure


# --- the way to the node --------------------------------------------------------------------------------------------------
def test_the_token_must_be_ours_alone(node: FakeNode) -> None:
    client = NodeClient(str(node.home))
    assert client.listing("trades") == []
    (node.home / "api-token").chmod(0o644)
    with pytest.raises(NodeError, match="may be read by others"):
        client.listing("trades")


def test_a_wrong_token(node: FakeNode) -> None:
    (node.home / "api-token").write_text("other")
    with pytest.raises(NodeError) as caught:
        NodeClient(str(node.home)).listing("trades")
    assert caught.value.code == "token-wrong"


def test_no_node(tmp_path: Path) -> None:
    with pytest.raises(NodeError, match="no node runs"):
        NodeClient(str(tmp_path)).listing("status")
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    (tmp_path / "api.json").write_text(json.dumps({"port": port, "pid": 1}))
    with pytest.raises(NodeError, match="does not answer"):
        NodeClient(str(tmp_path)).listing("status")


@pytest.mark.parametrize("text", ["", "[]", '{"port": "80"}', '{"port": 0}', '{"port": 70000}', "\x00\xff"])
def test_a_damaged_announcement(tmp_path: Path, text: str) -> None:
    (tmp_path / "api.json").write_text(text)
    with pytest.raises(NodeError, match="damaged"):
        NodeClient(str(tmp_path)).port()


def test_an_order_cancelled_before_it_began(node: FakeNode, scene: str) -> None:
    purchase = Purchase()
    purchase.cancel()
    with pytest.raises(NodeError) as caught:
        NodeClient(str(node.home)).buy(ARTICLE, b"", scene, b"", "", 1.0, purchase, 5.0)
    assert caught.value.code == "cancelled"
    assert node.queries == []


def test_only_this_machine_is_ever_asked() -> None:
    from blender.bitwrk.core import node as module

    assert module.HOST == "127.0.0.1"
