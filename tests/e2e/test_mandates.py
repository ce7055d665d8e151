"""Permission without being asked, between real processes: mandates, registered workers, orders that nobody waits for."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from peer.demo.cluster import Node
from tests.e2e.street import Street, open_street
from tests.service.handyman import answer_of, handyman

pytestmark = pytest.mark.e2e

ARTICLE = "foobar"


async def ask(street: Street, node: Node, method: str, path: str, body: Any = None) -> httpx.Response:
    base, headers = node.reach()
    return await street.client.request(method, base + path, headers=headers, json=body)


async def rich(street: Street, buyer: Node) -> None:
    status = await buyer.get(street.client, "status")
    await street.rpc("devfaucet", status["address"], 5_000_000)
    await street.until(buyer, "account", lambda account: account["balance_sat"] == 5_000_000)


async def test_a_registered_worker_is_sold_under_a_mandate_and_bought_under_one(tmp_path: Path) -> None:
    async with open_street(tmp_path) as street, handyman() as man:
        await street.chain()
        seller = await street.node("seller", "node")
        buyer = await street.node("buyer", "node", bootstrap=seller)
        await rich(street, buyer)
        base, headers = seller.reach()
        token = headers["Authorization"].removeprefix("Bearer ")

        # As in 2013, with the token in the address.
        fields = {"id": "blender-1", "article": ARTICLE, "pushurl": man.url}
        answer = await street.client.post(f"{base}/registerworker", params={"token": token}, data=fields)
        assert (answer.status_code, answer.text) == (200, "registered\n")
        (stall,) = await seller.get(street.client, "orders")
        assert (stall["mandated"], stall["quantity"], stall["price_msat"]) == (True, 0, None)

        granted = await ask(
            street, seller, "POST", "/v1/mandates", {"side": "sell", "article": ARTICLE, "price": "uBTC 26", "trades": 2}
        )
        assert granted.status_code == 201
        (stall,) = await seller.get(street.client, "orders")
        assert (stall["quantity"], stall["price_msat"]) == (1, 2_600_000)
        spend = {"side": "buy", "article": ARTICLE, "price": "uBTC 340", "trades": 1, "minutes": 60}
        assert (await ask(street, buyer, "POST", "/v1/mandates", spend)).status_code == 201

        # No token and no price: the mandate pays, once.
        answer = await street.buy(buyer, ARTICLE, b"work")
        assert (answer.status_code, answer.content) == (200, b"done: work")
        (trade,) = await buyer.get(street.client, "trades")
        assert (trade["free"], trade["phase"]) == (False, "finished")
        assert await buyer.get(street.client, "mandates") == []
        (left,) = await seller.get(street.client, "mandates")
        assert left["trades_left"] == 1

        # The worker has not registered again, so nothing of it is for sale; and without a mandate nothing is spent.
        (stall,) = await seller.get(street.client, "orders")
        assert stall["quantity"] == 0
        refused = await street.buy(buyer, ARTICLE, b"more", wait="3")
        assert refused.status_code == httpx.codes.GATEWAY_TIMEOUT
        assert len(await buyer.get(street.client, "trades")) == 1

        # A restart keeps the seller's mandate; the worker comes back by itself.
        process = seller.program.process
        assert process is not None
        seller.program.kill()
        (seller.home / "api.json").unlink(missing_ok=True)
        seller.program.arguments = (*seller.program.arguments, "--bootstrap", buyer.address)
        seller.program.start()
        await seller.ready(street.client)
        assert await seller.get(street.client, "mandates") == [left]
        assert (await ask(street, seller, "POST", "/v1/workers", fields)).status_code == 201
        answer = await street.buy(buyer, ARTICLE, b"again", price="uBTC 340", wait="60")
        assert (answer.status_code, answer.content) == (200, b"done: again")
        assert await seller.get(street.client, "mandates") == []
        finished = [one for one in await seller.get(street.client, "trades") if one["phase"] in ("revealed", "finished")]
        assert len(finished) == 2


async def test_a_worker_that_fails_lets_another_seller_do_it(tmp_path: Path) -> None:
    async with open_street(tmp_path) as street, handyman() as man:
        seller = await street.node("seller", "node", chain=False)
        buyer = await street.node("buyer", "node", bootstrap=seller, chain=False)
        man.answer = lambda _: answer_of(500, b"sorry")
        await ask(street, seller, "POST", "/v1/workers", {"id": "bad", "article": ARTICLE, "pushurl": man.url})
        order = {"side": "sell", "article": ARTICLE, "worker": "bad", "price": None, "slots": 1}
        assert (await ask(street, seller, "POST", "/v1/orders", order)).status_code == 201
        stored = await street.client.post(f"{buyer.reach()[0]}/v1/files", headers=buyer.reach()[1], content=b"work")
        work = stored.json()["id"]
        bought = await ask(street, buyer, "POST", "/v1/orders", {"side": "buy", "article": ARTICLE, "work": work, "wait": 90})
        number = bought.json()["id"]

        def failed(trades: list[dict[str, Any]]) -> bool:
            return any((one["order"], one["phase"], one["code"]) == (number, "work-rejected", "worker-failed") for one in trades)

        await street.until(buyer, "trades", failed)
        (worker,) = await seller.get(street.client, "workers")
        assert (worker["state"], worker["failed"]) == ("blocked", {"worker-failed": 1})
        (waiting,) = await buyer.get(street.client, "orders")
        assert (waiting["id"], waiting["state"], waiting["attempts"]) == (number, "waiting", 1)

        other = await street.node("other", "sell", "--worker", "echo", "--ask", "sat 0", bootstrap=buyer, chain=False)
        done = await street.until(buyer, "orders", lambda orders: [one for one in orders if one["state"] == "done"])
        assert done[0]["id"] == number
        result = await street.client.get(f"{buyer.reach()[0]}/file/{done[0]['result']}")
        assert result.content == b"work"
        (trade,) = [one for one in await buyer.get(street.client, "trades") if one["phase"] == "finished"]
        assert (trade["account"], trade["order"]) == (other.account, number)


async def test_orders_are_cancelled_and_say_so_to_whoever_waits(tmp_path: Path) -> None:
    async with open_street(tmp_path) as street:
        node = await street.node("node", "sell", "--worker", "echo", "--ask", "sat 0", chain=False)
        (stall,) = await node.get(street.client, "orders")
        assert (await ask(street, node, "DELETE", f"/v1/orders/{stall['id']}")).status_code == 200
        (stall,) = await node.get(street.client, "orders")
        assert (stall["open"], stall["quantity"]) == (False, 0)
        assert (await ask(street, node, "DELETE", f"/v1/orders/{stall['id']}")).headers["x-bitwrk-error"] == "unknown-order"
        again = {"side": "sell", "article": ARTICLE, "worker": "echo:foobar", "price": "sat 20"}
        assert (await ask(street, node, "POST", "/v1/orders", again)).headers["x-bitwrk-error"] == "no-chain"
        assert (await ask(street, node, "POST", "/v1/orders", {**again, "price": None})).status_code == 201
        assert (await ask(street, node, "POST", "/v1/orders", {**again, "slots": 2})).headers["x-bitwrk-error"] == "bad-slots"
        other = {**again, "worker": "rays"}
        assert (await ask(street, node, "POST", "/v1/orders", other)).headers["x-bitwrk-error"] == "unknown-worker"

        answers: list[httpx.Response] = []

        async def wait_for_it() -> None:
            answers.append(await street.buy(node, "nobody-sells-this", b"work"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait_for_it)
            buys = await street.until(node, "orders", lambda orders: [one for one in orders if one["side"] == "buy"])
            assert (await ask(street, node, "DELETE", f"/v1/orders/{buys[0]['id']}")).status_code == 200
        assert (answers[0].status_code, answers[0].headers["x-bitwrk-error"]) == (409, "cancelled")
        missing = {"side": "buy", "article": ARTICLE, "work": "00" * 32}
        assert (await ask(street, node, "POST", "/v1/orders", missing)).headers["x-bitwrk-error"] == "unknown-file"


async def test_events_tell_the_story_of_a_trade(tmp_path: Path) -> None:
    async with open_street(tmp_path) as street:
        seller = await street.node("seller", "sell", "--worker", "echo", "--ask", "sat 0", chain=False)
        buyer = await street.node("buyer", "node", chain=False)
        base, headers = buyer.reach()
        heard: list[dict[str, Any]] = []
        finished = trio.Event()

        async def listen() -> None:
            async with street.client.stream("GET", f"{base}/v1/events", headers=headers, timeout=None) as answer:
                async for line in answer.aiter_lines():
                    if line.startswith("data: "):
                        heard.append(json.loads(line.removeprefix("data: ")))
                        if heard[-1].get("phase") == "finished":
                            finished.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            seller.program.kill()
            (seller.home / "api.json").unlink(missing_ok=True)
            seller.program.arguments = (*seller.program.arguments, "--bootstrap", buyer.address)
            seller.program.start()
            await seller.ready(street.client)
            assert (await street.buy(buyer, ARTICLE, b"work")).status_code == 200
            with trio.fail_after(30):
                await finished.wait()
            process = buyer.program.process
            assert process is not None
            process.terminate()
            assert await trio.to_thread.run_sync(process.wait) == 0
        ids = [one["id"] for one in heard]
        assert ids == sorted(set(ids))
        phases = [one["phase"] for one in heard if one["kind"] == "trade"]
        assert phases[0] in ("accepted", "funded")
        assert phases[-1] == "finished"
        assert all(one["reason"] for one in heard if one["kind"] == "trade")
        kinds = {(one["kind"], one.get("what")) for one in heard}
        assert {("peer", "up"), ("order", "placed"), ("book", "cleared"), ("node", "draining")} <= kinds
