"""Real Blenders, and a market of real processes that they render through."""

import json
import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import trio

from blender import build
from peer.demo.cluster import Cluster, Node, open_cluster

ROOT: Final = Path(__file__).resolve().parents[2]
CHECKS: Final = ROOT / "blender" / "checks"
POCKET_SAT: Final = 50_000_000
ASK: Final = "uBTC 26"
BID: Final = "uBTC 40"
BID_MSAT: Final = 4_000_000
STARTING_S: Final = 60


@dataclass(frozen=True)
class Blender:
    """One Blender: its program, or a Python with the module bpy; and a home of its own, where its settings go."""

    program: str
    home: Path

    def run(self, script: str, *arguments: str, auto_run: bool = False) -> "subprocess.CompletedProcess[str]":
        """Run one of our scripts in it."""
        path = str(CHECKS / script)
        if self.is_module:
            line = [self.program, path, "--", *arguments]
        else:
            scripts = "--enable-autoexec" if auto_run else "--disable-autoexec"
            quiet = ["--background", "--factory-startup", scripts, "-noaudio"]
            line = [self.program, *quiet, "--python", path, "--", *arguments]
        environment = {**os.environ, "HOME": str(self.home), "BLENDER_USER_RESOURCES": str(self.home / "blender")}
        return subprocess.run(line, capture_output=True, text=True, timeout=240, check=False, env=environment)

    @property
    def is_module(self) -> bool:
        return Path(self.program).name.startswith("python")

    def scene(self, folder: Path, width: int = 64, height: int = 48, samples: int = 4) -> Path:
        """The scene of the tests, with textures beside it."""
        folder.mkdir(parents=True, exist_ok=True)
        done = self.run("scene.py", str(folder), str(width), str(height), str(samples))
        assert done.returncode == 0, done.stderr
        return folder / "scene.blend"

    def render(self, scene: Path, out: Path) -> None:
        """Render here, by Cycles."""
        done = self.run("render.py", json.dumps({"scene": str(scene), "out": str(out), "engine": "CYCLES"}))
        assert done.returncode == 0, done.stdout[-2_000:] + done.stderr[-2_000:]

    def buy(self, scene: Path, out: Path, home: Path, **settings: Any) -> "subprocess.CompletedProcess[str]":
        """Install the add-on from its archive and render by it."""
        legacy, extension = build.build(self.home / "dist")
        told = {
            "scene": str(scene),
            "out": str(out),
            "engine": "BITWRK_RENDER",
            "legacy": not self.is_module,
            "zip": str(extension if self.is_module else legacy),
            "home": str(home),
            "settings": {"price": BID, "tiles": 12, **settings},
        }
        return self.run("render.py", json.dumps(told))


@dataclass
class Market:
    """Two sellers, a buyer with money, and the way to ask them."""

    cluster: Cluster
    client: httpx.AsyncClient
    sellers: list[Node]
    buyer: Node

    async def trades(self) -> list[dict[str, Any]]:
        """The buyer's."""
        found: list[dict[str, Any]] = await self.buyer.get(self.client, "trades")
        return found


@asynccontextmanager
async def open_market(folder: Path, blender: Blender) -> AsyncIterator[Market]:
    """A chain, two sellers with this Blender and a buyer, each a process of its own."""
    async with open_cluster(folder) as cluster, httpx.AsyncClient(timeout=60) as client:
        cluster.chain.program.start()
        await cluster.chain.ready(client)
        sellers: list[Node] = []
        for name in ("ada", "bert"):
            command = ("sell", "--worker", "blender", "--blender", blender.program, "--ask", ASK, "--slots", "1")
            seller = cluster.node(name, command, sellers[0].address if sellers else None)
            seller.program.start()
            await seller.ready(client)
            sellers.append(seller)
        buyer = cluster.node("buyer", ("node",), sellers[0].address)
        buyer.program.start()
        status = await buyer.ready(client)
        await cluster.chain.call(client, "devfaucet", status["address"], POCKET_SAT)
        market = Market(cluster, client, sellers, buyer)
        article = (await sellers[0].get(client, "orders"))[0]["article"]
        base, headers = buyer.reach()
        with trio.fail_after(STARTING_S):
            while True:
                answer = await client.post(f"{base}/v1/books", headers=headers, params={"article": article})
                books = [one for one in answer.json() if one["article"] == article and not one["free"]]
                account = await buyer.get(client, "account")
                if books and books[0].get("sellers", 0) >= len(sellers) and account["balance_sat"] >= POCKET_SAT:
                    break
                await trio.sleep(0.2)
        yield market
