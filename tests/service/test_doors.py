"""The doors of the local API that change something: who may use them, and what bodies they take."""

import json
from typing import Any

import httpx
import pytest

import peer.api.gate
from tests.api.node import TOKEN, FakeNode, read_all, send_without_end, served
from wire.errors import Refused
from wire.limits import API_FORM_MAX_BYTES

WORK = "ab" * 32
BUY: dict[str, Any] = {"side": "buy", "article": "foobar", "price": "uBTC 340", "work": WORK, "wait": 5}
SELL: dict[str, Any] = {"side": "sell", "article": "foobar", "worker": "echo:foobar", "price": "uBTC 26", "slots": 2}
MANDATE: dict[str, Any] = {"side": "buy", "article": "foobar", "price": "uBTC 340", "trades": 3, "minutes": 20}
WORKER: dict[str, Any] = {"id": "one", "article": "foobar", "pushurl": "http://127.0.0.1:9/work"}
JSON_DOORS = [("/v1/orders", BUY), ("/v1/orders", SELL), ("/v1/mandates", MANDATE), ("/v1/workers", WORKER)]
FORM_DOORS = [("/registerworker", WORKER), ("/unregisterworker", {"id": "one"})]
DELETES = ["/v1/orders/a1", "/v1/mandates/b1", "/v1/workers/one"]
READS = ["/v1/mandates", "/v1/metrics", "/v1/events", "/v1/orders", "/v1/workers"]
ALL = [("POST", path) for path, _ in [*JSON_DOORS[1:], *FORM_DOORS]] + [("POST", "/v1/files")]
ALL += [("DELETE", path) for path in DELETES] + [("GET", path) for path in READS]


def refused(answer: httpx.Response, status: int, code: str) -> str:
    assert (answer.status_code, answer.headers["x-bitwrk-error"]) == (status, code), answer.text
    return answer.text


# --- what they do ---------------------------------------------------------------------------------------------------------
async def test_orders_are_placed_and_cancelled() -> None:
    async with served() as one, one.client() as client:
        placed = await client.post("/v1/orders", json=BUY)
        assert (placed.status_code, placed.json()) == (201, {"id": "a1"})
        assert (await client.post("/v1/orders", json={**BUY, "price": None, "work": WORK.upper()})).status_code == 201
        assert (await client.post("/v1/orders", json={"side": "buy", "article": "foobar", "work": WORK})).status_code == 201
        assert (await client.post("/v1/orders", json=SELL)).json() == {"id": "a2"}
        assert (await client.post("/v1/orders", json={**SELL, "price": "sat 0", "slots": 1})).status_code == 201
        assert (await client.delete("/v1/orders/a1")).json() == {"id": "a1", "cancelled": True}
        assert one.node.asked == [
            ("buy", "foobar", WORK, 34_000_000, 5),
            ("buy", "foobar", WORK, None, 5),
            ("buy", "foobar", WORK, None, 60),
            ("sell", "foobar", "echo:foobar", 2_600_000, 2),
            ("sell", "foobar", "echo:foobar", 0, 1),
            ("cancel", "a1"),
        ]


async def test_mandates_are_granted_and_revoked() -> None:
    async with served() as one, one.client() as client:
        assert (await client.get("/v1/mandates")).json() == [{"mandate": 1}]
        granted = await client.post("/v1/mandates", json=MANDATE)
        assert (granted.status_code, granted.json()) == (201, {"id": "b1"})
        plain = {"side": "sell", "article": "foobar", "price": "sat 20"}
        assert (await client.post("/v1/mandates", json=plain)).status_code == 201
        assert (await client.delete("/v1/mandates/b1")).json() == {"id": "b1", "revoked": True}
        assert one.node.asked == [
            ("grant", "buy", "foobar", 34_000_000, 3, 20),
            ("grant", "sell", "foobar", 20_000, None, None),
            ("revoke", "b1"),
        ]


async def test_workers_register_as_in_2013_and_in_json() -> None:
    fields = {"id": "one", "article": "foobar", "pushurl": "http://127.0.0.1:9/work"}
    async with served() as one, one.client() as known, one.client(None) as stranger:
        assert (await known.post("/v1/workers", json=WORKER)).json() == {"name": "one"}
        answers = [
            await known.post("/registerworker", data=fields),
            await stranger.post("/registerworker", params={"token": TOKEN}, data=fields),
            await known.post("/registerworker", files={name: (None, value) for name, value in fields.items()}),
        ]
        assert [(answer.status_code, answer.text) for answer in answers] == [(200, "registered\n")] * 3
        assert (await stranger.post("/unregisterworker", params={"token": TOKEN}, data={"id": "one"})).status_code == 200
        assert (await known.delete("/v1/workers/one")).json() == {"id": "one", "registered": False}
        assert one.node.asked == [("register", *fields.values())] * 4 + [("unregister", "one")] * 2


async def test_getting_never_registers() -> None:
    async with served() as one, one.client() as client:
        for path in ("/registerworker", "/unregisterworker"):
            answer = await client.get(path, params={"id": "one", "article": "foobar", "pushurl": "http://127.0.0.1:9/"})
            refused(answer, 405, "wrong-method")
        assert one.node.asked == []


async def test_a_purchase_without_a_price_may_use_a_mandate_and_one_with_a_price_may_not() -> None:
    async with served() as one, one.client() as known, one.client(None) as stranger:
        await stranger.post("/buy/foobar", content=b"x")
        await known.post("/buy/foobar", content=b"x")
        await known.post("/buy/foobar", content=b"x", params={"price": "uBTC 1"})
        assert one.node.mandated == [True, True, False]


async def test_files_are_stored_raw_and_as_multipart() -> None:
    async with served() as one, one.client() as client:
        raw = await client.post("/v1/files", content=b"some work")
        assert raw.status_code == 201
        many = await client.post("/v1/files", files={"other": b"no", "data": b"some work"})
        assert many.json() == raw.json()
        assert one.node.files[raw.json()["id"]] == b"some work"
        assert (await client.get("/file/" + raw.json()["id"])).content == b"some work"


async def test_figures_and_events_pass_through() -> None:
    async with served() as one, one.client() as client:
        told = await client.get("/v1/metrics")
        assert told.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert "bitwrk_peers 1.0" in told.text
        await one.node.happenings_in.send({"id": 8, "kind": "peer"})
        for last in ("7", "nonsense"):
            stream = await one.raw()
            await stream.send_all(one.head("GET /v1/events", f"Authorization: Bearer {TOKEN}", f"Last-Event-ID: {last}"))
            got = b""
            while (b'id: 8\ndata: {"id":8,"kind":"peer"}\n\n' if last == "7" else b": here\n\n") not in got:
                got += await stream.receive_some(65_536)
            await stream.aclose()
            await one.node.events_closed.wait()
        assert [one for one in one.node.asked if one[0] == "events"] == [("events", 7), ("events", None)]


async def test_bodies_stand_in_the_openapi_document() -> None:
    async with served() as one, one.client() as client:
        document = (await client.get("/v1/openapi.json")).json()
        shapes = document["components"]["schemas"]
        assert {"BuyOrder", "SellOrder", "NewMandate", "NewWorker"} <= set(shapes)
        assert set(shapes["NewMandate"]["properties"]) == set(MANDATE)
        for path, method in (("/v1/orders", "post"), ("/v1/orders/{order}", "delete"), ("/v1/files", "post")):
            assert method in document["paths"][path]


# --- who may use them -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("method", "path"), ALL)
async def test_they_need_the_token(method: str, path: str) -> None:
    async with served() as one, one.client(None) as stranger, one.client("wrong") as liar:
        refused(await stranger.request(method, path), 401, "token-missing")
        refused(await liar.request(method, path), 401, "token-wrong")
        wrong = await stranger.request(method, path, params={"token": "wrong"})
        refused(wrong, 401, "token-wrong" if path.endswith("registerworker") else "token-missing")
        right = await stranger.request(method, path, params={"token": TOKEN})
        assert (right.status_code == 401) != path.endswith("registerworker")
        assert one.node.asked == []


async def test_two_tokens_in_a_query_or_a_flood_of_fields_are_refused() -> None:
    async with served() as one, one.client(None) as client:
        refused(await client.post(f"/registerworker?token={TOKEN}&token=x"), 401, "token-wrong")
        refused(await client.post("/registerworker?" + "a=b&" * 100), 400, "bad-request")


@pytest.mark.parametrize(("method", "path"), ALL)
@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"host": "evil.example:1"}, "host-refused"),
        ({"origin": "http://evil.example"}, "origin-refused"),
        ({"origin": "null"}, "origin-refused"),
        ({"sec-fetch-site": "cross-site"}, "origin-refused"),
    ],
)
async def test_foreign_pages_and_names_are_refused_even_with_the_token(
    method: str, path: str, headers: dict[str, str], code: str
) -> None:
    async with served() as one, one.client() as client:
        refused(await client.request(method, path, headers=headers), 403, code)
        refused(await client.request(method, path, headers=headers, params={"token": TOKEN}), 403, code)
        assert one.node.asked == []


# --- what they take -------------------------------------------------------------------------------------------------------
def without(body: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in body.items() if key != name}


BAD_BODIES = [
    ("/v1/orders", {**BUY, "side": "lend"}, "side"),
    ("/v1/orders", without(BUY, "side"), "side"),
    ("/v1/orders", without(BUY, "work"), "work"),
    ("/v1/orders", {**BUY, "work": "../../etc/passwd"}, "work"),
    ("/v1/orders", {**BUY, "work": WORK[:-1]}, "work"),
    ("/v1/orders", {**BUY, "article": ""}, "article"),
    ("/v1/orders", {**BUY, "article": "a b"}, "article"),
    ("/v1/orders", {**BUY, "article": "a" * 129}, "article"),
    ("/v1/orders", {**BUY, "wait": 0}, "wait"),
    ("/v1/orders", {**BUY, "wait": 1e9}, "wait"),
    ("/v1/orders", {**BUY, "wait": "soon"}, "wait"),
    ("/v1/orders", {**BUY, "price": 340}, "price"),
    ("/v1/orders", {**BUY, "prise": "uBTC 1"}, "prise"),
    ("/v1/orders", {**SELL, "slots": 0}, "slots"),
    ("/v1/orders", {**SELL, "slots": 65}, "slots"),
    ("/v1/orders", {**SELL, "slots": 1.5}, "slots"),
    ("/v1/orders", {**SELL, "slots": True}, "slots"),
    ("/v1/orders", without(SELL, "worker"), "worker"),
    ("/v1/mandates", {**MANDATE, "side": "both"}, "side"),
    ("/v1/mandates", {**MANDATE, "trades": 0}, "trades"),
    ("/v1/mandates", {**MANDATE, "trades": -1}, "trades"),
    ("/v1/mandates", {**MANDATE, "trades": 10**9}, "trades"),
    ("/v1/mandates", {**MANDATE, "minutes": 0}, "minutes"),
    ("/v1/mandates", {**MANDATE, "minutes": 10**7}, "minutes"),
    ("/v1/mandates", {**MANDATE, "price": None}, "price"),
    ("/v1/mandates", {**MANDATE, "limit": 1}, "limit"),
    ("/v1/workers", {**WORKER, "id": ""}, "id"),
    ("/v1/workers", {**WORKER, "id": "x" * 65}, "id"),
    ("/v1/workers", {**WORKER, "pushurl": "http://127.0.0.1/" + "x" * 300}, "pushurl"),
    ("/v1/workers", without(WORKER, "pushurl"), "pushurl"),
]


@pytest.mark.parametrize(("path", "body", "field"), BAD_BODIES)
async def test_bodies_that_make_no_sense_are_refused_by_the_name_of_the_field(path: str, body: Any, field: str) -> None:
    async with served() as one, one.client() as client:
        said = json.loads(refused(await client.post(path, json=body), 400, "bad-request"))["reason"]
        assert field in said
        assert len(said) <= 500
        assert one.node.asked == []


@pytest.mark.parametrize("price", ["340", "1 BTC", "uBTC -3", "BTC 99999999999999", "msat 0.5", "BTC 1000000"])
@pytest.mark.parametrize(("path", "body"), [("/v1/orders", BUY), ("/v1/orders", SELL), ("/v1/mandates", MANDATE)])
async def test_prices_that_are_none_are_refused(path: str, body: dict[str, Any], price: str) -> None:
    async with served() as one, one.client() as client:
        refused(await client.post(path, json={**body, "price": price}), 400, "bad-amount")


@pytest.mark.parametrize("path", ["/v1/orders", "/v1/mandates", "/v1/workers"])
@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"null", b"[]", b'"text"', b"{" * 10_000, b"\xff\xfe", b'{"side": NaN}', b'{"a":' * 5_000, b"--boundary"],
)
async def test_what_is_no_json_is_refused(path: str, body: bytes) -> None:
    async with served() as one, one.client() as client:
        answer = await client.post(path, content=body, headers={"content-type": "application/json"})
        refused(answer, 400, "bad-request")
        assert one.node.asked == []


@pytest.mark.parametrize("path", ["/v1/orders", "/v1/mandates", "/v1/workers"])
async def test_json_has_to_say_that_it_is_json(path: str) -> None:
    body = json.dumps(dict(JSON_DOORS)[path]).encode()
    async with served() as one, one.client() as client:
        refused(await client.post(path, content=body, headers={"content-type": "text/plain"}), 400, "bad-request")
        assert one.node.asked == []


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/x-www-form-urlencoded", b""),
        ("application/x-www-form-urlencoded", b"id=one&article=foobar"),
        ("application/x-www-form-urlencoded", b"id=&article=&pushurl="),
        ("application/x-www-form-urlencoded", b"&" * 1_000),
        ("application/json", b'{"id": "one"}'),
        ("multipart/form-data; boundary=b", b"--b\r\nContent-Dispo"),
        ("multipart/form-data; boundary=b", b"nonsense"),
        ("multipart/form-data", b"--b--"),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="id"; filename="f"\r\n\r\nx\r\n--b--\r\n',
        ),
    ],
)
async def test_forms_that_make_no_sense_are_refused(content_type: str, body: bytes) -> None:
    async with served() as one, one.client() as client:
        answer = await client.post("/registerworker", content=body, headers={"content-type": content_type})
        refused(answer, 400, "bad-request")
        assert one.node.asked == []


@pytest.mark.parametrize(
    "path", ["/v1/orders", "/v1/mandates", "/v1/workers", "/registerworker", "/v1/books", "/v1/channels/close"]
)
async def test_oversize_bodies_are_refused_when_announced_and_when_not(path: str) -> None:
    async with served() as one:
        announced = one.head(
            f"POST {path}",
            f"Authorization: Bearer {TOKEN}",
            "Content-Type: application/json",
            f"Content-Length: {API_FORM_MAX_BYTES + 1}",
        )
        stream = await one.raw()
        await stream.send_all(announced)
        answer = await read_all(stream)
        assert answer.startswith(b"HTTP/1.1 413"), answer[:80]
        assert b"too-large" in answer
        await stream.aclose()
        if path in ("/v1/books", "/v1/channels/close"):
            return  # these never read a body, so nobody counts it
        chunked = one.head(
            f"POST {path}",
            f"Authorization: Bearer {TOKEN}",
            "Content-Type: application/x-www-form-urlencoded" if path == "/registerworker" else "Content-Type: application/json",
            "Transfer-Encoding: chunked",
        )
        answer = await send_without_end(one, chunked, b"4000\r\n" + b" " * 0x4000 + b"\r\n")
        assert answer.startswith(b"HTTP/1.1 413"), answer[:80]
        assert b"too-large" in answer
        assert one.node.asked == []


@pytest.mark.parametrize("path", ["/v1/orders", "/registerworker"])
async def test_a_body_that_stalls_is_given_up(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer.api.gate, "API_BODY_IDLE_S", 0.05)
    kind = "application/json" if path.startswith("/v1") else "application/x-www-form-urlencoded"
    async with served() as one:
        stream = await one.raw()
        head = one.head(f"POST {path}", f"Authorization: Bearer {TOKEN}", f"Content-Type: {kind}", "Content-Length: 10")
        await stream.send_all(head + b"{")
        answer = await read_all(stream)
        assert answer.startswith(b"HTTP/1.1 408")
        assert b"slow-body" in answer
        await stream.aclose()


@pytest.mark.parametrize("path", ["/v1/orders", "/registerworker", "/v1/files"])
async def test_a_client_that_hangs_up_in_its_body_harms_nobody(path: str) -> None:
    async with served() as one, one.client() as client:
        stream = await one.raw()
        head = one.head(f"POST {path}", f"Authorization: Bearer {TOKEN}", "Content-Type: application/json", "Content-Length: 10")
        await stream.send_all(head + b"{")
        await stream.aclose()
        assert (await client.get("/id")).status_code == 200
        assert one.node.asked == []


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("unknown-file", 404),
        ("unknown-order", 404),
        ("mandates-full", 409),
        ("no-chain", 409),
        ("bad-url", 400),
        ("shutting-down", 503),
    ],
)
async def test_refusals_of_the_node_keep_their_names(code: str, status: int) -> None:
    node = FakeNode()
    node.refusal = Refused(code, "for a reason")
    async with served(node) as one, one.client() as client:
        for path, body in JSON_DOORS:
            told = json.loads(refused(await client.post(path, json=body), status, code))
            assert told == {"error": code, "reason": "for a reason"}
        for path in DELETES:
            refused(await client.delete(path), status, code)
        said = refused(await client.post("/registerworker", data=WORKER, headers={"accept": "text/plain"}), status, code)
        assert said == "for a reason\n"


@pytest.mark.parametrize("name", ["..", "a%2Fb", "%00", "a" * 5_000, "a1?x=y"])
async def test_strange_names_are_only_names(name: str) -> None:
    async with served() as one, one.client() as client:
        for path in ("/v1/orders/", "/v1/mandates/", "/v1/workers/"):
            assert (await client.delete(path + name)).status_code in (200, 404)
