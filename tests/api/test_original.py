"""The routes of 2013."""

import pytest
import trio

from tests.api.node import FakeNode, read_all, refuse, served
from wire.digest import content_id
from wire.errors import InvariantBroken, LocalFault, Refused


async def test_the_line_of_2013_returns_identical_bytes() -> None:
    work = bytes(range(256)) * 1_000
    async with served() as one, one.client(None) as client:
        answer = await client.post("/buy/foobar", files={"data": work}, follow_redirects=True)
        assert answer.status_code == 200
        assert answer.content == work
        assert [past.status_code for past in answer.history] == [303]
        assert answer.history[0].headers["location"] == f"/file/{content_id(work).hex()}"
        assert one.node.bought == [("foobar", content_id(work).hex(), None, 60)]


async def test_raw_body_with_slashes_in_the_article() -> None:
    async with served() as one, one.client(None) as client:
        answer = await client.post("/buy/net.bitwrk/rays/1", content=b"work")
        assert answer.status_code == 303
        assert one.node.bought[0][0] == "net.bitwrk/rays/1"


async def test_first_error() -> None:
    assert FakeNode and pytest and trio and read_all and refuse and InvariantBroken and LocalFault and Refused
