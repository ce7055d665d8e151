"""The routes of disputes, and the commands over them."""

import httpx

from tests.api.node import FakeNode, served
from wire.errors import Refused

NAME = "c1" * 32


async def test_appeals_and_rulings_reach_the_node() -> None:
    node = FakeNode()
    async with served(node) as one, one.client() as client:
        assert (await client.get("/v1/cases")).json()[0]["case"] == NAME
        assert (await client.get("/v1/appeals")).json()[0]["channel"] == NAME
        asked = await client.post(f"/v1/channels/{NAME}/appeal", params={"statement": "he is gone"})
        assert asked.json()["phase"] == "asked"
        await client.post(f"/v1/channels/{NAME}/appeal", params={"to_seller_sat": 7})
        ruled = await client.post(f"/v1/cases/{NAME}/ruling", params={"to_seller_sat": 7, "reason": "as shown"})
        assert ruled.json()["phase"] == "ruled"
    assert node.asked == [
        ("appeal", NAME, None, "he is gone"),
        ("appeal", NAME, 7, ""),
        ("rule", NAME, 7, "as shown"),
    ]


async def test_bonds_are_locked_and_released() -> None:
    node = FakeNode()
    async with served(node) as one, one.client() as client:
        made = await client.post("/v1/bonds", params={"value_sat": 50_000, "blocks": 10})
        assert (made.status_code, made.json()["bond"]) == (201, "b1" * 32)
        freed = await client.post(f"/v1/bonds/{made.json()['bond']}/release")
        assert freed.json()["bond"] == "b1" * 32
        assert (await client.get("/v1/bonds")).json()[1]["phase"] == "seen"
        assert (await client.get("/v1/frauds")).json() == [{"account": "1…"}]
    assert node.asked == [("lock", 50_000, 10), ("release", "b1" * 32)]


async def test_what_makes_no_sense_is_refused() -> None:
    async with served() as one, one.client() as client:
        for path in (f"/v1/cases/{NAME}/ruling", f"/v1/cases/{NAME}/ruling?to_seller_sat=-1"):
            answer: httpx.Response = await client.post(path)
            assert (answer.status_code, answer.json()["error"]) == (400, "bad-request")
    async with served() as one, one.client(token=None) as client:
        assert (await client.post(f"/v1/cases/{NAME}/ruling?to_seller_sat=1")).status_code == 401


async def test_refusals_have_their_status() -> None:
    node = FakeNode()
    async with served(node) as one, one.client() as client:
        for code, status in (("already-ruled", 409), ("too-early", 409), ("unknown-case", 404), ("no-arbiter", 409)):
            node.refusal = Refused(code, "because")
            answer = await client.post(f"/v1/cases/{NAME}/ruling?to_seller_sat=1")
            assert (answer.status_code, answer.json()["error"]) == (status, code)
