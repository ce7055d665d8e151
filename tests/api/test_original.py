"""The routes of 2013: buy, fetch, id, version; and every way in which a body can be wrong."""

from collections.abc import AsyncIterator

import pytest
import trio

import peer.api.body
from peer.api.service import STATUS, status_of
from peer.config import VERSION
from tests.api.node import TOKEN, FakeNode, read_all, send_without_end, served
from wire.digest import content_id
from wire.errors import BitwrkError, InvariantBroken, LocalFault, Refused
from wire.limits import API_WAIT_MAX_S, ARTICLE_MAX_CHARS, BODY_MAX_BYTES

WORK = bytes(range(256)) * 1_000


async def pieces(*given: bytes) -> AsyncIterator[bytes]:
    for one in given:
        yield one


async def test_the_line_of_2013_returns_identical_bytes() -> None:
    async with served() as one, one.client(None) as client:
        answer = await client.post("/buy/foobar", files={"data": WORK}, follow_redirects=True)
        assert answer.status_code == 200
        assert answer.content == WORK
        assert [past.status_code for past in answer.history] == [303]
        assert answer.history[0].headers["location"] == f"/file/{content_id(WORK).hex()}"
        assert answer.headers["content-length"] == str(len(WORK))
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert one.node.bought == [("foobar", content_id(WORK).hex(), None, 60)]


async def test_raw_body_and_an_article_with_slashes() -> None:
    async with served() as one, one.client(None) as client:
        answer = await client.post("/buy/net.bitwrk/rays/1", content=WORK)
        assert answer.status_code == 303
        assert one.node.bought[0][0] == "net.bitwrk/rays/1"
        assert one.node.files[content_id(WORK).hex()] == WORK


async def test_chunked_body() -> None:
    async with served() as one, one.client(None) as client:
        answer = await client.post("/buy/foobar", content=pieces(b"ab", b"c" * 100_000, b"d"))
        assert answer.status_code == 303
        assert one.node.bought[0][1] == content_id(b"ab" + b"c" * 100_000 + b"d").hex()


async def test_empty_body_is_work_like_any_other() -> None:
    async with served() as one, one.client(None) as client:
        assert (await client.post("/buy/foobar")).headers["location"] == f"/file/{content_id(b'').hex()}"


async def test_multipart_takes_the_first_part_named_data() -> None:
    form = [("note", ("n", b"x" * 70_000)), ("data", ("d", WORK)), ("data", ("e", b"second")), ("more", ("m", b"tail"))]
    async with served() as one, one.client(None) as client:
        assert (await client.post("/buy/foobar", files=form)).status_code == 303
        assert one.node.bought[0][1] == content_id(WORK).hex()


@pytest.mark.parametrize("step", [1, 2, 7, 64])
async def test_multipart_cut_anywhere(step: int) -> None:
    body = b'--b\r\nContent-Disposition: form-data; name="data"; filename="b"\r\nX-Y: z\r\n\r\nwo\r\n--rk\r\n--b--\r\n'
    cut = [body[start : start + step] for start in range(0, len(body), step)]
    async with served() as one, one.client(None) as client:
        answer = await client.post(
            "/buy/foobar", content=pieces(*cut), headers={"content-type": "multipart/form-data; boundary=b"}
        )
        assert answer.status_code == 303
        assert one.node.bought[0][1] == content_id(b"wo\r\n--rk").hex()


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data", b"--b\r\n"),
        ("multipart/form-data; boundary=" + "b" * 300, b"--b\r\n"),
        ("multipart/form-data; boundary=b", b"no boundary here"),
        ("multipart/form-data; boundary=b", b""),
        ("multipart/form-data; boundary=b", b'--b\r\nContent-Disposition: form-data; name="data"\r\n\r\nunfinished'),
        ("multipart/form-data; boundary=b", b'--b\r\nContent-Disposition: form-data; name="date"\r\n\r\nx\r\n--b--\r\n'),
        ("multipart/form-data; boundary=b", b"--b\r\n" + b"".join(b"A%d: b\r\n" % n for n in range(100)) + b"\r\nx\r\n--b--\r\n"),
    ],
)
async def test_bad_multipart(kind: str, body: bytes) -> None:
    async with served() as one, one.client(None) as client:
        answer = await client.post("/buy/foobar", content=body, headers={"content-type": kind})
        assert answer.status_code == 400
        assert answer.headers["x-bitwrk-error"] == "bad-multipart"
        assert one.node.bought == []


async def test_wrong_methods() -> None:
    async with served() as one, one.client() as client:
        for method, path in [
            ("GET", "/buy/foobar"),
            ("PUT", "/buy/foobar"),
            ("POST", "/file/" + "0" * 64),
            ("DELETE", "/id"),
            ("POST", "/v1/status"),
            ("GET", "/v1/channels/close"),
        ]:
            answer = await client.request(method, path)
            assert answer.status_code == 405, (method, path)
            assert answer.headers["x-bitwrk-error"] == "wrong-method"
            assert answer.headers["allow"]


async def test_unknown_and_malformed_files_are_404() -> None:
    async with served() as one, one.client(None) as client:
        for name in (
            "0" * 64,
            "0" * 63,
            "0" * 65,
            "g" * 64,
            "..%2f..%2fetc%2fpasswd",
            "",
            "%00",
            "\N{ARABIC-INDIC DIGIT ONE}" * 64,
        ):
            answer = await client.get(f"/file/{name}")
            assert answer.status_code == 404, name
            assert answer.text.endswith("\n")
        assert (await client.get("/nowhere")).status_code == 404


async def test_file_names_are_read_in_either_case() -> None:
    async with served() as one, one.client(None) as client:
        place = (await client.post("/buy/foobar", content=b"w")).headers["location"]
        assert (await client.get("/file/" + place.removeprefix("/file/").upper())).content == b"w"


async def test_id_and_version() -> None:
    async with served() as one, one.client(None) as client:
        assert (await client.get("/id")).text == "BitWrk Client"
        assert (await client.get("/version")).text == VERSION


def test_every_code_has_its_status() -> None:
    assert STATUS["no-match"] == 504
    assert STATUS["no-funds"] == 402
    assert STATUS["busy"] == STATUS["inbox-full"] == 503
    assert status_of(Refused("never-heard-of", "")) == 502
    assert status_of(LocalFault("disk-full", "")) == 500
    assert status_of(InvariantBroken("sum", "")) == 500


@pytest.mark.parametrize(
    ("refusal", "status"),
    [
        (Refused("no-match", "nobody offered foobar"), 504),
        (Refused("no-funds", "the wallet is empty"), 402),
        (Refused("bad-article", "no such article"), 400),
        (Refused("busy", "too much to do"), 503),
        (Refused("inbox-full", "too much to do"), 503),
        (Refused("something-else", "it did not work"), 502),
        (LocalFault("disk-full", "the disk is full"), 500),
        (ExceptionGroup("a nursery's", [Refused("no-match", "nobody offered foobar")]), 504),
    ],
)
async def test_refusals_come_with_their_reason_in_words(refusal: Exception, status: int) -> None:
    node = FakeNode()
    node.refusal = refusal
    sentence = str(refusal.exceptions[0] if isinstance(refusal, ExceptionGroup) else refusal)
    async with served(node) as one, one.client(None) as client:
        answer = await client.post("/buy/foobar", content=b"w")
        assert (answer.status_code, answer.text) == (status, sentence + "\n")
        asked = await client.post("/buy/foobar", content=b"w", headers={"accept": "application/json"})
        assert asked.status_code == status
        assert asked.json()["reason"] == sentence
        assert asked.json()["error"] == asked.headers["x-bitwrk-error"]


async def test_a_price_needs_the_token() -> None:
    async with served() as one, one.client(None) as stranger, one.client() as owner:
        refused = await stranger.post("/buy/foobar?price=sat+0", content=b"w")
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"] == "Bearer"
        assert one.node.bought == []
        assert (await owner.post("/buy/foobar", params={"price": "uBTC 340", "wait": "2.5"}, content=b"w")).status_code == 303
        assert one.node.bought == [("foobar", content_id(b"w").hex(), 34_000_000, 2.5)]


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("price=340", "bad-amount"),
        ("price=", "bad-amount"),
        ("price=uBTC+-1", "bad-amount"),
        ("wait=0", "bad-wait"),
        ("wait=-1", "bad-wait"),
        ("wait=nan", "bad-wait"),
        ("wait=inf", "bad-wait"),
        (f"wait={API_WAIT_MAX_S + 1}", "bad-wait"),
        ("wait=soon", "bad-request"),
    ],
)
async def test_bad_queries(query: str, code: str) -> None:
    async with served() as one, one.client() as client:
        answer = await client.post(f"/buy/foobar?{query}", content=b"w")
        assert answer.status_code == 400
        assert answer.headers["x-bitwrk-error"] == code
        assert one.node.bought == []


@pytest.mark.parametrize("article", ["", "a" * (ARTICLE_MAX_CHARS + 1), "a%20b", "a%0ab", "%C3%A4", "a%00"])
async def test_bad_articles(article: str) -> None:
    async with served() as one, one.client() as client:
        answer = await client.post(f"/buy/{article}", content=b"w")
        assert (answer.status_code, answer.headers["x-bitwrk-error"]) in ((400, "bad-article"), (404, "not-found"))
        assert one.node.bought == []


# --- bodies over the limit ---------------------------------------------------------------------------------


async def test_an_announced_excess_is_refused_before_a_byte_of_it_is_sent() -> None:
    async with served() as one:
        stream = await one.raw()
        await stream.send_all(one.head("POST /buy/foobar", f"Content-Length: {BODY_MAX_BYTES + 1}"))
        got = bytearray()
        while b"MiB" not in got:
            piece = await stream.receive_some(65_536)
            assert piece
            got += piece
        assert got.startswith(b"HTTP/1.1 413")
        assert not one.node.put_started.is_set()
        await stream.aclose()


@pytest.mark.parametrize("length", ["9" * 30, "-1", "1x", "\u00b2"])
async def test_absurd_lengths(length: str) -> None:
    async with served() as one:
        stream = await one.raw()
        await stream.send_all(
            one.head("POST /buy/foobar", "Content-Length: ").replace(b": \r\n\r\n", b": " + length.encode() + b"\r\n\r\n")
        )
        assert (await read_all(stream))[9:12] in (b"400", b"413")
        assert not one.node.put_started.is_set()
        await stream.aclose()


async def test_an_unannounced_excess_is_refused_while_it_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer.api.body, "BODY_MAX_BYTES", 1 << 20)
    async with served() as one:
        head = one.head("POST /buy/foobar", "Transfer-Encoding: chunked")
        answer = await send_without_end(one, head, b"10000\r\n" + bytes(65_536) + b"\r\n")
        assert answer.startswith(b"HTTP/1.1 413")
        await one.node.put_ended.wait()
        assert one.node.put_bytes <= 1 << 20
        assert isinstance(one.node.put_failed, Refused)
        assert one.node.bought == []


async def test_an_unannounced_excess_in_a_form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer.api.body, "BODY_MAX_BYTES", 1 << 20)
    async with served() as one:
        head = one.head("POST /buy/foobar", "Transfer-Encoding: chunked", "Content-Type: multipart/form-data; boundary=b")
        start = b'--b\r\nContent-Disposition: form-data; name="data"\r\n\r\n'
        answer = await send_without_end(one, head + b"%x\r\n%s\r\n" % (len(start), start), b"10000\r\n" + bytes(65_536) + b"\r\n")
        assert answer.startswith(b"HTTP/1.1 413")
        assert one.node.put_bytes <= (1 << 20) + 16_384


async def test_a_client_that_sends_first_and_reads_later_sees_the_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer.api.body, "BODY_MAX_BYTES", 1 << 20)
    async with served() as one, one.client(None) as client:
        answer = await client.post("/buy/foobar", content=bytes(3 << 20))
        assert answer.status_code == 413


async def test_exactly_the_limit_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer.api.body, "BODY_MAX_BYTES", 1 << 18)
    async with served() as one, one.client(None) as client:
        assert (await client.post("/buy/foobar", content=bytes(1 << 18))).status_code == 303
        assert (await client.post("/buy/foobar", files={"data": bytes(1 << 18)})).status_code == 303
        assert (await client.post("/buy/foobar", content=bytes((1 << 18) + 1))).status_code == 413
        assert (await client.post("/buy/foobar", content=pieces(bytes((1 << 18) + 1)))).status_code == 413


async def test_a_body_that_stalls_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer.api.body, "API_BODY_IDLE_S", 0.05)
    monkeypatch.setattr("peer.api.gate.API_LINGER_S", 0.05)
    async with served() as one:
        stream = await one.raw()
        await stream.send_all(one.head("POST /buy/foobar", "Content-Length: 10") + b"half")
        assert (await read_all(stream)).startswith(b"HTTP/1.1 408")
        assert one.node.bought == []
        await stream.aclose()


async def test_a_slow_body_is_waited_for() -> None:
    async with served() as one:
        stream = await one.raw()
        await stream.send_all(one.head("POST /buy/foobar", "Content-Length: 4", "Connection: close"))
        await one.node.put_started.wait()
        for byte in b"work":
            await stream.send_all(bytes([byte]))
            await trio.testing.wait_all_tasks_blocked()
        assert f"/file/{content_id(b'work').hex()}".encode() in await read_all(stream)
        await stream.aclose()


# --- hanging up --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "header", ["X: y", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__"]
)
async def test_hanging_up_cancels_the_purchase(header: str) -> None:
    node = FakeNode()
    node.hold = True
    async with served(node) as one:
        stream = await one.raw()
        await stream.send_all(one.head("POST /buy/foobar", "Content-Length: 4", header) + b"work")
        await node.waiting.wait()
        assert not node.cancelled.is_set()
        await stream.aclose()
        with trio.fail_after(1):
            await node.cancelled.wait()


async def test_hanging_up_in_the_middle_of_the_body_leaves_no_work_behind() -> None:
    async with served() as one:
        stream = await one.raw()
        await stream.send_all(one.head("POST /buy/foobar", "Content-Length: 10") + b"half")
        await one.node.put_started.wait()
        await stream.aclose()
        await one.node.put_ended.wait()
        assert one.node.put_failed is not None
        assert one.node.files == {}
        assert one.node.bought == []


async def test_hanging_up_while_downloading_closes_the_source() -> None:
    node = FakeNode()
    node.endless_file = "a" * 64
    async with served(node) as one:
        stream = await one.raw()
        await stream.send_all(one.head("GET /file/" + "a" * 64))
        assert (await stream.receive_some(100)).startswith(b"HTTP/1.1 200")
        await stream.aclose()
        await node.file_closed.wait()


async def test_many_at_once() -> None:
    async with served() as one, one.client(None) as client, trio.open_nursery() as nursery:

        async def trade(number: int) -> None:
            work = b"%d" % number * 1_000
            answer = await client.post("/buy/foobar", content=work, follow_redirects=True)
            assert answer.content == work

        for number in range(50):
            nursery.start_soon(trade, number)


async def test_the_token_is_not_needed_but_a_wrong_one_is_refused() -> None:
    async with served() as one, one.client("not-" + TOKEN) as client:
        assert (await client.get("/id")).status_code == 401


def test_named_errors_are_what_the_table_is_about() -> None:
    assert all(isinstance(code, str) and 400 <= status < 600 for code, status in STATUS.items())
    assert status_of(BitwrkError("no-match", "")) == 504
