"""The seller's machine: settings for several offers, the doctor, the service's unit, the commands."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.to_thread

from peer.cli import checks
from peer.cli.app import run
from peer.cli.checks import FAULT, FINE, WARNING, Finding, examine
from peer.config import load_settings
from peer.home import Home
from peer.offer import Offer
from tests.api.node import TOKEN, FakeNode, Served, served
from wire import limits
from wire.errors import LocalFault, Refused

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "packaging" / "bitwrk-sell.service"


# --- several offers -------------------------------------------------------------------------------------------------------
def test_a_settings_file_may_hold_several_offers(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(
        """
        log_format = "json"
        [[sell]]
        worker = "rays"
        ask = "uBTC 26"
        slots = 2
        [[sell]]
        worker = "blender"
        blender = "/opt/blender/blender"
        [[sell]]
        command = "/usr/bin/sort {in} -o {out}"
        article = "org.example/sort/1"
        ask = "sat 0"
        share = ["/srv/data"]
        """
    )
    settings = load_settings(tmp_path)
    assert settings.log_format == "json"
    assert settings.sell == (
        Offer(worker="rays", article=None, ask_msat=2_600_000, slots=2),
        Offer(worker="blender", article=None, ask_msat=None, blender=Path("/opt/blender/blender")),
        Offer(
            worker=None,
            command="/usr/bin/sort {in} -o {out}",
            article="org.example/sort/1",
            ask_msat=0,
            share=(Path("/srv/data"),),
        ),
    )


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("sell = 3", "[[sell]]"),
        ("sell = [3]", "[[sell]]"),
        ("[[sell]]\n", "worker or a command"),
        ('[[sell]]\nworker = "rays"\ncommand = "cat"', "not both"),
        ('[[sell]]\ncommand = "cat"', "article"),
        ('[[sell]]\nworker = "rays"\nask = "26"', "amount"),
        ('[[sell]]\nworker = "rays"\nask = "BTC 100000"', "at most"),
        ('[[sell]]\nworker = "rays"\nslots = 0', "slots"),
        ('[[sell]]\nworker = "rays"\nslots = true', "slots"),
        ('[[sell]]\nworker = "rays"\nslots = "2"', "slots"),
        ('[[sell]]\nworker = "rays"\nprice = "sat 1"', "price"),
        ('[[sell]]\nworker = "rays"\narticle = ""', "article"),
        ('[[sell]]\nworker = "rays"\nshare = ["/x"]', "command"),
        ('[[sell]]\nworker = "rays"\nblender = "/x"', "Blender"),
        ('[[sell]]\ncommand = "cat"\narticle = "x"\nshare = [1]', "folders"),
        ('log_format = "xml"', "json"),
    ],
)
def test_offers_that_make_no_sense_are_named_with_their_file(tmp_path: Path, text: str, word: str) -> None:
    (tmp_path / "config.toml").write_text(text)
    with pytest.raises(LocalFault) as caught:
        load_settings(tmp_path)
    assert "config.toml" in caught.value.sentence
    assert word in caught.value.sentence


def test_selling_nothing_makes_no_sense(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["sell", "--home", str(tmp_path / "h")]) == 2
    assert "config.toml" in capfd.readouterr().err


# --- the doctor -----------------------------------------------------------------------------------------------------------
def by_name(found: list[Finding]) -> dict[str, Finding]:
    assert len({one.name for one in found}) == len(found)
    assert all(one.mend for one in found if one.state != FINE), "whatever is wrong can be mended"
    return {one.name: one for one in found}


def test_a_good_machine_is_well(tmp_path: Path) -> None:
    home = Home.at(tmp_path / "h")
    home.key()
    (home.folder / "config.toml").write_text("api_port = 0\n")
    found = by_name(examine(home.folder))
    assert not [one for one in found.values() if one.state == FAULT]
    for name in ("python", "libraries", "home", "key", "settings", "api port", "listen port"):
        assert found[name].state == FINE, found[name]
    assert found["chain"].state == WARNING
    assert {"disk", "clock", "node", "sandbox", "blender"} <= set(found)


def spoil_key(folder: Path) -> None:
    (folder / "privatekey.wif").chmod(0o644)


def spoil_settings(folder: Path) -> None:
    (folder / "config.toml").write_text("nonsense = 1\n")


def spoil_chain(folder: Path) -> None:
    (folder / "config.toml").write_text('api_port = 0\nchain = "core:http://user:secret@127.0.0.1:9"\n')


@pytest.mark.parametrize(("spoil", "name"), [(spoil_key, "key"), (spoil_settings, "settings"), (spoil_chain, "chain")])
def test_what_is_wrong_is_found(tmp_path: Path, spoil: Callable[[Path], None], name: str) -> None:
    home = Home.at(tmp_path / "h")
    home.key()
    (home.folder / "config.toml").write_text("api_port = 0\n")
    spoil(home.folder)
    found = by_name(examine(home.folder))
    assert [one.name for one in found.values() if one.state == FAULT] == [name]
    assert "secret" not in found[name].said + found[name].mend


def test_a_port_in_use_is_found(tmp_path: Path) -> None:
    home = Home.at(tmp_path / "h")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        (home.folder / "config.toml").write_text(f"api_port = {taken.getsockname()[1]}\n")
        assert by_name(examine(home.folder))["api port"].state == FAULT


def test_what_only_some_sellers_need_is_a_fault_for_them_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peer.workers.sandbox._TOOLS_PATH", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    home = Home.at(tmp_path / "h")
    config = home.folder / "config.toml"
    for offers, sandbox, blender in (
        ("", WARNING, WARNING),
        ('[[sell]]\nworker = "rays"\n', WARNING, WARNING),
        ('[[sell]]\ncommand = "cat"\narticle = "x"\n', FAULT, WARNING),
        ('[[sell]]\nworker = "blender"\n', FAULT, FAULT),
    ):
        config.write_text("api_port = 0\n" + offers)
        found = by_name(examine(home.folder))
        assert (found["sandbox"].state, found["blender"].state) == (sandbox, blender)
    assert "apt-get install bubblewrap" in found["sandbox"].mend + found["sandbox"].said


@pytest.mark.parametrize(("free", "state"), [(0, FAULT), (1 << 30, WARNING), (1 << 40, FINE)])
def test_disk_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, state: str) -> None:
    monkeypatch.setattr(checks.shutil, "disk_usage", lambda place: shutil._ntuple_diskusage(1 << 41, 0, free))  # type: ignore[attr-defined]
    assert by_name(examine(tmp_path / "not" / "there"))["disk"].state == state


def test_a_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "_LIBRARIES", (("trio", "trio"), ("not-there", "not_there_at_all")))
    found = by_name(examine(tmp_path / "h"))["libraries"]
    assert (found.state, found.said) == (FAULT, "missing: not-there")


@pytest.mark.parametrize(
    "text",
    [
        'chain = "esplora:http://127.0.0.1:9"',
        'chain = "electrum:tcp://127.0.0.1:9"',
        'chain = "core:http://127.0.0.1:9"\nchain_second = "electrum:tcp://127.0.0.1:9"',
    ],
)
def test_a_chain_whose_library_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr("escrow.shell.bdk.MODULE", "not_there_at_all")
    home = Home.at(tmp_path / "h")
    home.key()
    (home.folder / "config.toml").write_text(f"api_port = 0\n{text}\n")
    found = by_name(examine(home.folder))["chain"]
    assert found.state == FAULT
    assert "bdkpython" in found.said
    assert "bitwrk[bdk]" in found.mend


@pytest.mark.parametrize(
    ("status", "state", "word"),
    [
        (None, FINE, "not compared"),
        ({"neighbours": [], "clock_offset_us": None, "clock_skewed": False}, FINE, "not compared"),
        ({"neighbours": ["a"], "clock_offset_us": None, "clock_skewed": False}, FINE, "close enough"),
        ({"neighbours": ["a"], "clock_offset_us": 30_000, "clock_skewed": False}, FINE, "0.03 s behind"),
        ({"neighbours": ["a"], "clock_offset_us": -5_000_000, "clock_skewed": True}, FAULT, "5.00 s ahead"),
    ],
)
def test_the_clock_is_judged_by_the_neighbours(status: dict[str, Any] | None, state: str, word: str) -> None:
    found = checks._clock(status)
    assert found.state == state
    assert word in found.said


def test_the_doctors_answer_and_exit_code(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    home = Home.at(tmp_path / "h")
    (home.folder / "config.toml").write_text("api_port = 0\n")
    assert run(["doctor", "--home", str(home.folder), "--json"]) == 0
    told = json.loads(capfd.readouterr().out)
    assert told["well"]
    assert {"name", "state", "said", "mend"} == set(told["checks"][0])
    spoil_settings(home.folder)
    assert run(["doctor", "--home", str(home.folder)]) == 1
    said = capfd.readouterr().out
    assert re.search(r"^fault +settings +.*nonsense", said, re.MULTILINE)


# --- the service's unit ---------------------------------------------------------------------------------------------------
def settings_of(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines() if re.match(r"[A-Za-z]+=", line))


def test_the_unit_says_what_the_node_does() -> None:
    unit = settings_of(UNIT.read_text())
    assert unit["Type"] == "notify"
    assert unit["ExecStart"].endswith("bitwrk sell")
    assert int(unit["WatchdogSec"]) > 0
    assert int(unit["TimeoutStopSec"]) > limits.DRAIN_MAX_S + 10
    assert "Restart" in unit
    assert "AF_NETLINK" in unit["RestrictAddressFamilies"], "bubblewrap sets up a loopback interface"
    for denied in ("RestrictNamespaces", "ProtectHostname", "ProtectKernelTunables", "PrivateUsers", "MemoryDenyWriteExecute"):
        assert denied not in unit, f"{denied} would keep bubblewrap or a worker from running"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed here")
def test_systemd_takes_the_unit() -> None:
    done = subprocess.run(["systemd-analyze", "verify", str(UNIT)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


# --- commands -------------------------------------------------------------------------------------------------------------
async def against(one: Served, tmp_path: Path, *arguments: str) -> int:
    """Run a command against a served node, in a thread, as its own process would."""
    home = Home.at(tmp_path / "h")
    if not home.token_path.exists():
        home._create_private(home.token_path, TOKEN)
    home.api_path.write_text(json.dumps({"port": one.port, "pid": os.getpid()}))
    home.api_path.chmod(0o600)
    return await trio.to_thread.run_sync(run, [*arguments, "--home", str(home.folder), "--json"])


async def test_the_commands_ask_the_node(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    work = tmp_path / "work"
    work.write_bytes(b"some work")
    lines: list[list[str]] = [
        ["orders"],
        ["orders", "place", "buy", "foobar", "--work", str(work), "--price", "uBTC 340", "--wait", "5"],
        ["orders", "place", "buy", "foobar", "--work", str(work)],
        ["orders", "place", "sell", "foobar", "--worker", "echo:foobar", "--price", "sat 20", "--slots", "2"],
        ["orders", "cancel", "a1"],
        ["mandates"],
        ["mandates", "grant", "buy", "foobar", "uBTC 340", "--trades", "3", "--minutes", "20"],
        ["mandates", "grant", "sell", "foobar", "sat 20"],
        ["mandates", "revoke", "b1"],
        ["workers"],
        ["workers", "register", "one", "foobar", "http://127.0.0.1:9/work"],
        ["workers", "unregister", "one"],
    ]
    async with served() as one:
        for line in lines:
            assert await against(one, tmp_path, *line) == 0, line
        content = next(iter(one.node.files))
        assert one.node.asked == [
            ("buy", "foobar", content, 34_000_000, 5),
            ("buy", "foobar", content, None, 60),
            ("sell", "foobar", "echo:foobar", 20_000, 2),
            ("cancel", "a1"),
            ("grant", "buy", "foobar", 34_000_000, 3, 20),
            ("grant", "sell", "foobar", 20_000, None, None),
            ("revoke", "b1"),
            ("register", "one", "foobar", "http://127.0.0.1:9/work"),
            ("unregister", "one"),
        ]
    told = capfd.readouterr().out
    decoder = json.JSONDecoder()
    answers, place = [], 0
    while place < len(told.rstrip()):
        answer, place = decoder.raw_decode(told, place)
        answers.append(answer)
        place += 1
    assert len(answers) == len(lines)
    assert answers[1] == {"id": "a1", "side": "buy", "article": "foobar"}


async def test_what_the_node_refuses_is_one_sentence(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    node = FakeNode()
    node.refusal = Refused("mandates-full", "there are enough mandates")
    async with served(node) as one:
        assert await against(one, tmp_path, "mandates", "grant", "buy", "foobar", "sat 1") == 1
        assert await against(one, tmp_path, "orders", "place", "buy", "foobar", "--work", str(tmp_path / "nothing")) == 1
    said = capfd.readouterr().err
    assert "bitwrk: there are enough mandates\n" in said
    assert "cannot be read" in said


def test_commands_answer_at_once_and_import_nothing_heavy() -> None:
    program = (
        "import sys, time\n"
        "from peer.cli.app import run\n"
        "lines = ['--help'], ['orders', '--help'], ['mandates', 'grant', '--help'], ['sell', '--help'], ['doctor', '--help']\n"
        "codes = [run(line) for line in lines]\n"
        "heavy = {'libp2p', 'trio', 'fastapi', 'httpx', 'numpy', 'pbk', 'prometheus_client', 'textual'}\n"
        "heavy = sorted(heavy & set(sys.modules))\n"
        "print('\\n', codes, heavy, time.process_time() < 0.5)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.splitlines()[-1] == " [0, 0, 0, 0, 0] [] True"
