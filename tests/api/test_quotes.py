"""Articles, depth and prices over the local API: what is asked, and how every bad question is refused."""

import pytest

from orderbook.core.timeslots import SLOTS_S
from peer.api.v1 import SLOTS
from tests.api.node import FakeNode, served
from wire.errors import Refused
from wire.limits import TAPE_SLOTS_MAX

BOOK = "b1" * 32
DOORS = ["/v1/articles", f"/v1/books/{BOOK}/depth", f"/v1/books/{BOOK}/prices"]


async def test_questions_are_passed_on_with_their_defaults() -> None:
    async with served() as one, one.client() as client:
        assert [line["free"] for line in (await client.get("/v1/articles")).json()] == [False, True]
        assert (await client.get(DOORS[1])).json()["book"] == BOOK
        await client.get(DOORS[1], params={"levels": 3})
        assert (await client.get(DOORS[2])).json()["slots"][0]["units"] == 3
        given: dict[str, str | int] = {"slot": "1m", "series": "agreed", "from_us": 5, "to_us": 9, "limit": 2}
        assert (await client.get(DOORS[2], params=given)).status_code == 200
        assert one.node.asked == [
            ("depth", BOOK, 20),
            ("depth", BOOK, 3),
            ("prices", BOOK, "1h", "matched", None, None, TAPE_SLOTS_MAX),
            ("prices", BOOK, "1m", "agreed", 5, 9, 2),
        ]


@pytest.mark.parametrize("path", DOORS)
async def test_they_need_the_token_and_only_answer_get(path: str) -> None:
    async with served() as one, one.client(None) as stranger, one.client() as known:
        assert (await stranger.get(path)).headers["x-bitwrk-error"] == "token-missing"
        assert (await known.post(path)).headers["x-bitwrk-error"] == "wrong-method"
        assert one.node.asked == []


@pytest.mark.parametrize("name", ["from_us", "to_us", "limit"])
@pytest.mark.parametrize("value", ["", "much", "1.5", "0x10", "1e3", "9" * 5_000])
async def test_a_number_that_is_none_is_named(name: str, value: str) -> None:
    async with served() as one, one.client() as client:
        answer = await client.get(DOORS[2], params={name: value})
        assert (answer.status_code, answer.headers["x-bitwrk-error"]) == (400, "bad-request")
        assert name in answer.json()["reason"]
        assert one.node.asked == []


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("bad-slot", 400),
        ("bad-series", 400),
        ("bad-range", 400),
        ("bad-limit", 400),
        ("bad-levels", 400),
        ("unknown-book", 404),
        ("no-auction", 409),
    ],
)
async def test_what_the_node_refuses_has_its_status(code: str, status: int) -> None:
    node = FakeNode()
    node.refusal = Refused(code, "why")
    async with served(node) as one, one.client() as client:
        for path in DOORS[1:]:
            answer = await client.get(path)
            assert (answer.status_code, answer.json()) == (status, {"error": code, "reason": "why"})


def test_the_document_names_the_lengths_there_are() -> None:
    assert SLOTS.replace(" or ", ", ").split(", ") == list(SLOTS_S)
