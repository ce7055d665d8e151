"""The line of 2013: work goes in at a local API without a token and comes back the same, done by another process."""

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import trio

from tests.e2e.street import open_street

pytestmark = pytest.mark.e2e


async def test_curl_of_2013_gets_identical_bytes(tmp_path: Path) -> None:
    async with open_street(tmp_path) as street:
        seller = await street.node("seller", "sell", "--worker", "echo", "--ask", "sat 0", chain=False)
        buyer = await street.node("buyer", "node", bootstrap=seller, chain=False)
        sent = tmp_path / "FILE"
        sent.write_bytes(os.urandom(300_000))
        base, _ = buyer.reach()
        line = ["curl", "-s", "-F", f"data=@{sent}", "-L", f"{base}/buy/foobar"]
        answer = await trio.run_process(line, capture_stdout=True, check=True)
        assert answer.stdout == sent.read_bytes()
        (trade,) = [one for one in await buyer.get(street.client, "trades") if one["phase"] == "finished"]
        assert (trade["price_msat"], trade["free"], trade["account"]) == (0, True, seller.account)


async def test_a_client_that_hangs_up_cancels_its_order(tmp_path: Path) -> None:
    async with open_street(tmp_path) as street:
        buyer = await street.node("buyer", "node", chain=False)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(street.buy, buyer, "nobody-sells-this", b"work")
            waiting = await street.until(buyer, "orders", lambda orders: [one for one in orders if one["waiting"]])
            assert waiting[0]["article"] == "nobody-sells-this"
            nursery.cancel_scope.cancel()
        await street.until(buyer, "orders", lambda orders: orders == [])


async def test_no_seller_is_a_504_with_the_reason_in_words(tmp_path: Path) -> None:
    async with open_street(tmp_path) as street:
        buyer = await street.node("buyer", "node", chain=False)
        answer = await street.buy(buyer, "nobody-sells-this", b"work", wait="3")
        assert answer.status_code == httpx.codes.GATEWAY_TIMEOUT
        assert "no seller was found in time" in answer.text


async def test_a_node_ends_politely_and_its_home_serves_again(tmp_path: Path) -> None:
    async with open_street(tmp_path) as street:
        node = await street.node("node", "node", chain=False)
        process = node.program.process
        assert process is not None
        process.terminate()
        assert await trio.to_thread.run_sync(process.wait) == 0
        assert not (node.home / "api.json").exists()
        account = node.account
        node.program.start()
        assert (await node.ready(street.client))["account"] == account


async def test_a_bootstrap_that_does_not_answer_is_one_sentence(tmp_path: Path) -> None:
    async with open_street(tmp_path) as street:
        nobody = "/ip4/127.0.0.1/tcp/9/p2p/16Uiu2HAmRyZyGVUz7cP7YxFdrm9q9dRmRVaxwjNca6ZKKcnGesM1"
        alone = street.cluster.node("alone", ("node",), nobody)
        arguments = [*alone.program.arguments, "--chain", "none"]
        ended = await trio.run_process(
            [sys.executable, "-m", "peer.cli", *arguments],
            capture_stderr=True,
            stdout=subprocess.DEVNULL,
            check=False,
        )
        said = [line for line in ended.stderr.decode().splitlines() if " INFO " not in line]
        assert ended.returncode == 1
        assert len(said) == 1
        assert "no peer to begin with answers" in said[0]
