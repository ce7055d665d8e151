"""The wallet's routes: what they let in, what they pass on, and how refusals read."""

from typing import Any

import pytest

from tests.api.node import FakeNode, served
from wire.errors import Refused
from wire.ports import ChainFault

PAYMENT: dict[str, Any] = {"request": "rent", "address": "bcrt1qx", "amount": "sat 25000", "feerate": 2_000}


async def test_what_is_asked_reaches_the_wallet() -> None:
    node = FakeNode()
    async with served(node) as one, one.client() as client:
        for path in ("", "/history", "/history?from_height=7", "/fees", "/escrows/ab"):
            assert (await client.get("/v1/wallet" + path)).json()["money"] == "play"
        sent = await client.post("/v1/wallet/send", json=PAYMENT)
        assert sent.status_code == 201
        everything = {"request": "all", "address": "bcrt1qx"}
        assert (await client.post("/v1/wallet/send", json=everything)).status_code == 201
        quote = {"address": "bcrt1qx", "amount": "mBTC 0.25"}
        assert (await client.post("/v1/wallet/quote", json=quote)).status_code == 200
        asked = await client.post("/v1/wallet/recall", json={"peers": ["16Ux"]})
        assert asked.json() == {"asked": ["16Ux"]}
    assert node.asked == [
        ("holdings",),
        ("history", None),
        ("history", 7),
        ("fees",),
        ("escrow", "ab"),
        ("send", "rent", "bcrt1qx", 25_000, 2_000),
        ("send", "all", "bcrt1qx", None, None),
        ("quote", "bcrt1qx", 25_000, None),
        ("recall", "16Ux"),
    ]


@pytest.mark.parametrize(
    "changed",
    [
        {"amount": "sat 0"},
        {"amount": "msat 1500"},
        {"amount": "25000"},
        {"amount": 25_000},
        {"request": ""},
        {"request": "x" * 65},
        {"request": "two words"},
        {"address": "b" * 101},
        {"feerate": 1.5},
        {"fee": 1},
    ],
)
async def test_a_payment_that_is_not_one_never_reaches_it(changed: dict[str, Any]) -> None:
    node = FakeNode()
    async with served(node) as one, one.client() as client:
        answer = await client.post("/v1/wallet/send", json=PAYMENT | changed)
        assert answer.status_code == 400
    assert node.asked == []


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Refused("no-funds", "poor"), 402),
        (Refused("dust", "small"), 400),
        (Refused("over-cap", "much"), 403),
        (Refused("request-reused", "again"), 409),
        (Refused("wrong-network", "elsewhere"), 400),
        (ChainFault("chain-down", "away"), 503),
    ],
)
async def test_refusals_have_names_and_statuses(error: Exception, status: int) -> None:
    node = FakeNode()
    node.refusal = error
    async with served(node) as one, one.client() as client:
        answer = await client.post("/v1/wallet/send", json=PAYMENT)
        assert (answer.status_code, answer.json()["error"]) == (status, getattr(error, "code", None))


async def test_without_the_token_there_is_no_wallet() -> None:
    node = FakeNode()
    async with served(node) as one, one.client(None) as client:
        assert (await client.get("/v1/wallet")).status_code == 401
        assert (await client.post("/v1/wallet/send", json=PAYMENT)).status_code == 401
    assert node.asked == []
