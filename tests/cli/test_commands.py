"""The commands: exit codes, sentences, and what they import."""

import json
import os
import re
import subprocess
import sys
import types
from collections.abc import Sequence
from pathlib import Path

import pytest
import trio
import trio.to_thread

from peer.cli.app import run
from peer.config import VERSION, DemoOptions, Settings
from peer.home import Home
from peer.offer import Offer
from tests.api.node import TOKEN, FakeNode, served
from wire.account import account_of, to_wif
from wire.errors import InvariantBroken, LocalFault, Refused
from wire.keys import SecretKey

KEY = SecretKey(bytes(range(1, 33)))
ROOT = Path(__file__).parents[2]


def bitwrk(*arguments: str, given: bytes | None = None, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "peer.cli", *arguments],
        input=given,
        capture_output=True,
        check=False,
        timeout=60,
        cwd=ROOT,
        env={**os.environ, **environment},
    )


def one_sentence(done: subprocess.CompletedProcess[bytes], *words: str, code: int = 1) -> None:
    told = done.stderr.decode()
    assert done.returncode == code, told
    assert told.startswith("bitwrk: ")
    assert told.count("\n") == 1
    assert "Traceback" not in told
    for word in words:
        assert word in told


def test_version_and_help() -> None:
    assert bitwrk("--version").stdout.decode() == f"bitwrk {VERSION}\n"
    told = bitwrk("--help")
    assert told.returncode == 0
    for name in ("node", "sell", "buy", "key", "status", "orders", "trades", "channels", "peers", "close", "devchain", "demo"):
        assert re.search(rf"^  {name} ", told.stdout.decode(), re.MULTILINE), name


HEAVY = ("libp2p", "trio", "fastapi", "starlette", "hypercorn", "httpx", "numpy", "pbk", "textual", "asyncio")


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["key", "show"], ["key", "export"], ["node", "--help"], ["buy", "--help"]]
)
def test_what_only_talks_imports_nothing_heavy(tmp_path: Path, arguments: Sequence[str]) -> None:
    Home.at(tmp_path / "h").import_key(to_wif(KEY))
    program = (
        "import sys\n"
        "from peer.cli.app import run\n"
        f"code = run({list(arguments)!r})\n"
        f"heavy = sorted(set({HEAVY!r}) & set(sys.modules))\n"
        "print('\\n', code, heavy)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        check=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        env={**os.environ, "BITWRK_HOME": str(tmp_path / "h")},
    )
    assert done.stdout.splitlines()[-1] == " 0 []"


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["buy"],
        ["buy", "a", "b"],
        ["sell"],
        ["sell", "--worker", "rays", "--command", "cat"],
        ["sell", "--command", "cat"],
        ["sell", "--worker", "echo", "--blender", "blender"],
        ["sell", "--worker", "echo", "--share", "/usr"],
        ["sell", "--worker", "rays", "--ask", "26"],
        ["orders", "place", "buy", "foobar"],
        ["orders", "place", "sell", "foobar"],
        ["orders", "place", "lend", "foobar"],
        ["orders", "cancel"],
        ["mandates", "grant", "buy", "foobar"],
        ["mandates", "grant", "buy", "foobar", "340"],
        ["mandates", "grant", "buy", "foobar", "sat 1", "--trades", "0"],
        ["mandates", "grant", "buy", "foobar", "sat 1", "--minutes", "0"],
        ["mandates", "revoke"],
        ["workers", "register", "one", "foobar"],
        ["sell", "--worker", "rays", "--ask", "uBTC 26", "--slots", "0"],
        ["sell", "--worker", "rays", "--ask", "uBTC 26", "--article", ""],
        ["buy", "a", "b", "-o", "c", "--bid", "much"],
        ["node", "--api-port", "many"],
        ["devchain", "--port", "70000"],
        ["demo", "--sellers", "0"],
        ["demo", "--tiles", "0"],
        ["key"],
        [],
    ],
)
def test_command_lines_that_make_no_sense_are_2(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 2
    told = capfd.readouterr()
    assert "Traceback" not in told.err
    assert told.err or told.out


# --- the key -----------------------------------------------------------------------------------------------


def test_key_import_show_export(tmp_path: Path) -> None:
    home = str(tmp_path / "h")
    wif = to_wif(KEY)
    imported = bitwrk("key", "import", "--home", home, "--json", given=wif.encode())
    assert json.loads(imported.stdout)["account"] == account_of(KEY.public)
    shown = bitwrk("key", "show", "--home", home)
    assert account_of(KEY.public) in shown.stdout.decode()
    assert wif not in (shown.stdout + shown.stderr + imported.stdout + imported.stderr).decode()
    assert bitwrk("key", "export", "--home", home).stdout.decode() == wif + "\n"
    one_sentence(bitwrk("key", "import", "--home", home, given=wif.encode()), "never overwritten")


def test_key_show_makes_a_key_and_says_so(tmp_path: Path) -> None:
    first = bitwrk("key", "show", "--json", BITWRK_HOME=str(tmp_path / "h"))
    assert b"made a new key" in first.stderr
    again = bitwrk("key", "show", "--json", BITWRK_HOME=str(tmp_path / "h"))
    assert again.stderr == b""
    assert json.loads(first.stdout) == json.loads(again.stdout)


def test_key_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "wif").write_text(to_wif(KEY))
    assert bitwrk("key", "import", str(tmp_path / "wif"), "--home", str(tmp_path / "h")).returncode == 0
    one_sentence(bitwrk("key", "import", str(tmp_path / "none"), "--home", str(tmp_path / "i")), "cannot be read", "none")
    (tmp_path / "wif").write_bytes(b"\xff\xff")
    one_sentence(bitwrk("key", "import", str(tmp_path / "wif"), "--home", str(tmp_path / "i")), "no key")
    one_sentence(bitwrk("key", "import", "--home", str(tmp_path / "i"), given=b"nonsense"))


def test_broken_homes_are_one_sentence(tmp_path: Path) -> None:
    one_sentence(bitwrk("key", "export", "--home", str(tmp_path / "h")), "no key")
    (tmp_path / "file").touch()
    one_sentence(bitwrk("key", "show", "--home", str(tmp_path / "file")), "not a folder")
    one_sentence(bitwrk("key", "show", "--home", str(tmp_path / "file" / "h")), "cannot be made")
    home = Home.at(tmp_path / "h")
    home.key()
    home.key_path.chmod(0o644)
    one_sentence(bitwrk("key", "show", "--home", str(home.folder)), "chmod 600")
    one_sentence(bitwrk("status", "--home", str(home.folder)), "no node runs in")


def test_bad_settings_are_one_sentence(tmp_path: Path) -> None:
    home = str(tmp_path)
    one_sentence(bitwrk("node", "--home", home, "--network", "moon"), "--network", "moon")
    one_sentence(bitwrk("node", "--home", home, "--api-port", "-1"), "--api-port")
    one_sentence(bitwrk("node", "--home", home, "--bootstrap", "x", "--bootstrap", "y"), "--bootstrap", "'x'")
    (tmp_path / "config.toml").write_text("apiport = 1\n")
    one_sentence(bitwrk("node", "--home", home), "config.toml", "apiport")


# --- running things ----------------------------------------------------------------------------------------


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What the commands hand over, instead of running it."""
    handed: list[object] = []
    node, demo = types.ModuleType("peer.node.run"), types.ModuleType("peer.demo.run")

    def run_node(settings: Settings, offers: Sequence[Offer]) -> None:
        handed.append((settings, tuple(offers)))

    def run_demo(options: DemoOptions) -> None:
        handed.append(options)

    vars(node)["run_node"], vars(demo)["run_demo"] = run_node, run_demo
    monkeypatch.setitem(sys.modules, "peer.node.run", node)
    monkeypatch.setitem(sys.modules, "peer.demo.run", demo)
    return handed


def test_node_hands_its_settings_over(tmp_path: Path, ran: list[object]) -> None:
    assert run(["node", "--home", str(tmp_path), "--api-port", "0", "--listen", "127.0.0.1:4001", "--chain", "none"]) == 0
    ((settings, offers),) = ran  # type: ignore[misc]
    assert (settings.home, settings.api_port, settings.listen, settings.chain.kind) == (tmp_path, 0, ("127.0.0.1", 4001), "none")  # type: ignore[has-type]
    assert offers == ()  # type: ignore[has-type]


def test_sell_hands_its_offer_over(tmp_path: Path, ran: list[object]) -> None:
    line = ["sell", "--home", str(tmp_path), "--worker", "echo", "--ask", "uBTC 26", "--slots", "3", "--article", "foobar"]
    assert run(line) == 0
    assert ran[0][1] == (Offer(worker="echo", article="foobar", ask_msat=2_600_000, slots=3),)  # type: ignore[index]


def test_demo_hands_its_options_over(ran: list[object]) -> None:
    assert run(["demo"]) == 0
    assert run(["demo", "--sellers", "2", "--tiles", "30", "--kill-one", "--check", "--out", "there"]) == 0
    assert ran == [
        DemoOptions(sellers=3, tiles=24, kill_one=False, check=False, out=Path("demo-out")),
        DemoOptions(sellers=2, tiles=30, kill_one=True, check=True, out=Path("there")),
    ]


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (LocalFault("port-in-use", "port 1 is in use"), 1, "bitwrk: port 1 is in use\n"),
        (Refused("no-match", "nobody offers that"), 1, "bitwrk: nobody offers that\n"),
        (
            ExceptionGroup("", [ValueError(), ExceptionGroup("", [LocalFault("x", "it is the disk")])]),
            1,
            "bitwrk: it is the disk\n",
        ),
        (KeyboardInterrupt(), 130, ""),
        (BaseExceptionGroup("", [KeyboardInterrupt()]), 130, ""),
        (SystemExit(3), 3, ""),
    ],
)
def test_errors_become_sentences(
    error: BaseException, code: int, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    node = types.ModuleType("peer.node.run")

    def run_node(*_: object) -> None:
        raise error

    vars(node)["run_node"] = run_node
    monkeypatch.setitem(sys.modules, "peer.node.run", node)
    assert run(["node", "--home", str(tmp_path)]) == code
    assert capfd.readouterr().err == told


@pytest.mark.parametrize(
    "error", [ZeroDivisionError(), InvariantBroken("sum", "money appeared"), ExceptionGroup("", [ValueError()])]
)
def test_mistakes_are_not_hidden(error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node = types.ModuleType("peer.node.run")

    def run_node(*_: object) -> None:
        raise error

    vars(node)["run_node"] = run_node
    monkeypatch.setitem(sys.modules, "peer.node.run", node)
    with pytest.raises(type(error)):
        run(["node", "--home", str(tmp_path)])


# --- asking the running node -------------------------------------------------------------------------------


async def _with_node(
    tmp_path: Path, node: FakeNode, *lines: Sequence[str], given: bytes | None = None
) -> list[subprocess.CompletedProcess[bytes]]:
    """Run command lines in processes of their own against ``node``."""
    home = Home.at(tmp_path / "home")
    if not home.token_path.exists():
        home._create_private(home.token_path, TOKEN)
    async with served(node) as one:
        with home.announce(one.port):
            return [
                await trio.to_thread.run_sync(lambda line=line: bitwrk(*line, "--home", str(home.folder), given=given))  # type: ignore[misc]
                for line in lines
            ]


async def test_buy_writes_the_result(tmp_path: Path) -> None:
    work = os.urandom(300_000)
    (tmp_path / "work").write_bytes(work)
    node = FakeNode()
    line = [
        "buy",
        "net.bitwrk/rays/1",
        str(tmp_path / "work"),
        "-o",
        str(tmp_path / "out"),
        "--bid",
        "uBTC 340",
        "--wait",
        "7",
        "--json",
    ]
    (done,) = await _with_node(tmp_path, node, line)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out").read_bytes() == work
    assert json.loads(done.stdout)["bytes"] == len(work)
    assert [(bought[0], *bought[2:]) for bought in node.bought] == [("net.bitwrk/rays/1", 34_000_000, 7)]


async def test_buy_in_a_pipe_for_nothing(tmp_path: Path) -> None:
    node = FakeNode()
    (done,) = await _with_node(tmp_path, node, ["buy", "foobar", "-", "-o", "-"], given=b"some work")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"some work", b"")
    assert node.bought[0][2] is None


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def test_buy_that_fails_writes_nothing(tmp_path: Path) -> None:
    node = FakeNode()
    node.refusal = Refused("no-match", "nobody offered foobar within 60 s")
    (tmp_path / "work").write_bytes(b"w")
    (tmp_path / "folder").mkdir()
    out = str(tmp_path / "out")
    refused, missing = await _with_node(
        tmp_path,
        node,
        ["buy", "foobar", str(tmp_path / "work"), "-o", out],
        ["buy", "foobar", str(tmp_path / "nowhere"), "-o", out],
    )
    one_sentence(refused, "nobody offered foobar within 60 s")
    one_sentence(missing, "nowhere cannot be read")
    assert _names(tmp_path) == ["folder", "home", "work"]
    node.refusal = None
    (unwritable,) = await _with_node(tmp_path, node, ["buy", "foobar", str(tmp_path / "work"), "-o", str(tmp_path / "folder")])
    one_sentence(unwritable, "cannot be written", "/file/")
    assert _names(tmp_path) == ["folder", "home", "work"]


async def test_listings(tmp_path: Path) -> None:
    node = FakeNode()
    node.peers = lambda: []  # type: ignore[method-assign]
    node.trades = lambda: [{"a": 1, "b": None}, {"a": "x\x1b[31m", "c": [1]}]  # type: ignore[method-assign]
    node.channels = lambda: [{"id": "ab" * 32, "account": "1G4ZvN7a4hDW13okq9yJDZTNpL3DK33AMF", "at": ["/ip4/" + "1" * 50]}]  # type: ignore[method-assign]
    (channels,) = await _with_node(tmp_path, node, ["channels"])
    assert channels.stdout.decode().split() == [
        "id", "account", "at", "ababababab…ababab", "1G4ZvN7a4hDW13okq9yJDZTNpL3DK33AMF", "/ip4/" + "1" * 50,
    ]  # fmt: skip
    status, orders, peers, trades, raw, close = await _with_node(
        tmp_path,
        node,
        ["status"],
        ["orders", "--json"],
        ["peers"],
        ["trades"],
        ["trades", "--json"],
        ["close", "--reason", "enough"],
    )
    assert status.stdout.decode() == "state  well\n"
    assert json.loads(orders.stdout) == [{"side": "buy"}]
    assert peers.stdout.decode() == "no peers\n"
    assert trades.stdout.decode().splitlines() == ["a       b  c", "1       -  -", "x\N{REPLACEMENT CHARACTER}[31m  -  [1]"]
    assert json.loads(raw.stdout)[1]["a"] == "x\x1b[31m"
    assert "enough" in close.stdout.decode()
    assert node.closed_for == ["enough"]


def test_asking_without_a_node(tmp_path: Path) -> None:
    for name in ("status", "orders", "trades", "channels", "peers", "close"):
        one_sentence(bitwrk(name, "--home", str(tmp_path / "none")), "no node runs in", "bitwrk node")
    assert not (tmp_path / "none").exists()


def test_output_into_a_closed_pipe_is_quiet(tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m peer.cli key show --home {tmp_path / 'h'} 2>{tmp_path / 'err'} | true"],
        check=False,
        timeout=60,
        cwd=ROOT,
    )
    assert done.returncode == 0
    assert "Traceback" not in (tmp_path / "err").read_text()
    assert "BrokenPipe" not in (tmp_path / "err").read_text()
