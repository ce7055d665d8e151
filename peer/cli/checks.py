"""What can be wrong on this machine, looked at one thing at a time, and how to mend it."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from typing import Any, Final

from peer.config import Settings, load_settings
from wire.errors import BitwrkError, LocalFault
from wire.limits import STORE_QUOTA_BYTES

FINE: Final = "fine"
WARNING: Final = "warning"
FAULT: Final = "fault"

_PYTHON: Final = (3, 11)
_DISK_LEAST_BYTES: Final = 256 << 20
_BLENDER_S: Final = 30
_CHAIN_S: Final = 5
_FAR_S: Final = 15
# Distribution and module of what a node cannot do without.
_LIBRARIES: Final = (
    ("trio", "trio"),
    ("libp2p", "libp2p"),
    ("coincurve", "coincurve"),
    ("msgpack", "msgpack"),
    ("blake3", "blake3"),
    ("zstandard", "zstandard"),
    ("pyfastcdc", "pyfastcdc"),
    ("py-bitcoinkernel", "pbk"),
    ("fastapi", "fastapi"),
    ("hypercorn", "hypercorn"),
    ("httpx", "httpx"),
    ("numpy", "numpy"),
    ("cryptography", "cryptography"),
    ("prometheus-client", "prometheus_client"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at: how it is, in words, and what to do about it."""

    name: str
    state: str
    said: str
    mend: str = ""


def examine(folder: Path) -> list[Finding]:
    """Look at everything that the node in ``folder`` needs."""
    found = [_python(), _libraries(), *_home(folder), _disk(folder)]
    try:
        settings = load_settings(folder)
    except LocalFault as fault:
        found.append(Finding(name="settings", state=FAULT, said=fault.sentence, mend="mend config.toml"))
        return [*found, _sandbox(needed=False)]
    found.append(Finding(name="settings", state=FINE, said=f"network {settings.network.name}, chain {settings.chain.kind}"))
    status = _status(folder)
    found += [_node(status), *(_ports(settings) if status is None else ()), _chain(settings), _clock(status)]
    needs_blender = any(offer.worker == "blender" for offer in settings.sell)
    needs_sandbox = needs_blender or any(offer.command is not None for offer in settings.sell)
    return [*found, _sandbox(needed=needs_sandbox), _blender(settings, needed=needs_blender)]


def _python() -> Finding:
    said = f"Python {sys.version.split()[0]} on {sys.platform}"
    if sys.version_info < _PYTHON:
        return Finding(name="python", state=FAULT, said=said, mend="use Python 3.11 or later")
    if sys.platform != "linux":
        return Finding(name="python", state=WARNING, said=said, mend="selling work of strangers needs Linux; buying does not")
    return Finding(name="python", state=FINE, said=said)


def _libraries() -> Finding:
    missing = [name for name, module in _LIBRARIES if util.find_spec(module) is None]
    if missing:
        said = f"missing: {', '.join(missing)}"
        return Finding(name="libraries", state=FAULT, said=said, mend="install BitWrk again, with everything it requires")
    said = ", ".join(f"{name} {metadata.version(name)}" for name in ("libp2p", "trio", "coincurve", "py-bitcoinkernel"))
    return Finding(name="libraries", state=FINE, said=said)


def _home(folder: Path) -> Iterator[Finding]:
    from peer.home import Home

    if not folder.exists():
        yield Finding(name="home", state=WARNING, said=f"{folder} is not there yet", mend="it is made when the node starts")
        return
    try:
        home = Home.at(folder)
    except LocalFault as fault:
        yield Finding(name="home", state=FAULT, said=fault.sentence, mend="mend the folder, or choose another with --home")
        return
    yield Finding(name="home", state=FINE, said=str(folder))
    if not home.has_key():
        yield Finding(
            name="key", state=WARNING, said="there is no key yet", mend="it is made when the node starts; back it up then"
        )
        return
    try:
        from wire.account import account_of

        yield Finding(name="key", state=FINE, said=f"account {account_of(home.load_key().public)}")
    except BitwrkError as fault:
        yield Finding(name="key", state=FAULT, said=fault.sentence, mend="a key that was open to others must be treated as lost")


def _disk(folder: Path) -> Finding:
    place = next(one for one in (folder, *folder.parents) if one.exists())
    free = shutil.disk_usage(place).free
    said = f"{free / (1 << 30):.1f} GiB free at {place}"
    if free < _DISK_LEAST_BYTES:
        return Finding(name="disk", state=FAULT, said=said, mend="make room: the journal must be able to grow")
    if free < STORE_QUOTA_BYTES:
        mend = f"the store of content may grow to {STORE_QUOTA_BYTES >> 30} GiB"
        return Finding(name="disk", state=WARNING, said=said, mend=mend)
    return Finding(name="disk", state=FINE, said=said)


def _status(folder: Path) -> dict[str, Any] | None:
    """What the running node says of itself, or None when none runs."""
    from peer.client import LocalNode

    try:
        with LocalNode.at(folder) as node:
            status: dict[str, Any] = node.read("status")
            return status
    except BitwrkError:
        return None


def _node(status: dict[str, Any] | None) -> Finding:
    if status is None:
        return Finding(name="node", state=FINE, said="no node is running in this home")
    said = f"running with {status['peers']} peers at {', '.join(status['addresses']) or 'no address'}"
    if not status["peers"]:
        return Finding(
            name="node", state=WARNING, said=said, mend="give it peers to begin with: --bootstrap, or bootstrap in config.toml"
        )
    return Finding(name="node", state=FINE, said=said)


def _ports(settings: Settings) -> Iterator[Finding]:
    def look(name: str, host: str, port: int, mend: str) -> Finding:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                if os.name == "posix":
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((host, port))
        except OSError as error:
            reason = (error.strerror or "unknown").lower()
            return Finding(name=name, state=FAULT, said=f"port {port} of {host} cannot be had: {reason}", mend=mend)
        return Finding(name=name, state=FINE, said=f"{host}, " + (f"port {port}" if port else "any free port"))

    yield look("api port", "127.0.0.1", settings.api_port, "end what uses it, or choose another with --api-port")
    yield look("listen port", *settings.listen, "end what uses it, or choose another with --listen")


def _chain(settings: Settings) -> Finding:
    choice = settings.chain
    if choice.kind == "none":
        return Finding(name="chain", state=FINE, said="none: this node trades in free books only")
    if choice.kind == "kernel":
        mend = "for paid trades with others give them one chain, such as --chain core:http://…"
        return Finding(name="chain", state=WARNING, said="a private development chain in the node, play money", mend=mend)
    if found := _far_library(settings):
        return found
    if choice.kind in ("esplora", "electrum"):
        return _far(settings)
    import httpx

    mend = "start bitcoind or bitwrk devchain, and see to the address, user and password in chain"
    body = {"jsonrpc": "1.0", "id": 1, "method": "getblockchaininfo", "params": []}
    try:
        answer = httpx.post(choice.url, json=body, timeout=_CHAIN_S, trust_env=False)
        told = answer.json()["result"]
        said = f"{told['chain']} at height {told['blocks']}"
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return Finding(name="chain", state=FAULT, said=f"it does not answer: {type(error).__name__}", mend=mend)
    except (ValueError, KeyError, TypeError):
        return Finding(name="chain", state=FAULT, said=f"it answers {answer.status_code} and nothing of use", mend=mend)
    wanted = {"regtest": "regtest", "signet": "signet", "main": "main"}[settings.network.bitcoin]
    if told["chain"] != wanted:
        return Finding(name="chain", state=FAULT, said=said, mend=f"the network {settings.network.name} settles on {wanted}")
    return Finding(name="chain", state=FINE, said=said)


def _far_library(settings: Settings) -> Finding | None:
    """Chains that need a library which is an extra: said before anybody is asked anything."""
    from escrow.shell.bdk import MEND, present

    kinds = {one.kind for one in (settings.chain, settings.chain_second) if one} & {"esplora", "electrum"}
    if not kinds or present():
        return None
    said = f"a chain of the kind {min(kinds)} needs the library bdkpython, which is not installed"
    return Finding(name="chain", state=FAULT, said=said, mend=MEND)


def _far(settings: Settings) -> Finding:
    """A chain behind a server of someone else."""
    import trio

    from peer.node.money import open_far

    async def height() -> int:
        with trio.fail_after(_FAR_S):
            async with open_far(settings.chain, settings.network) as chain:
                await chain.instance()
                return (await chain.tip()).height

    mend = "see to the address in chain, or name another server"
    try:
        said = f"{settings.network.bitcoin} at height {trio.run(height)}"
    except (BitwrkError, trio.TooSlowError) as error:
        said = error.sentence if isinstance(error, BitwrkError) else f"no answer in {_FAR_S} s"
        return Finding(name="chain", state=FAULT, said=said, mend=mend)
    if settings.chain_second is None:
        mend = "a server of someone else can lie by silence: name a second one with chain_second"
        return Finding(name="chain", state=WARNING, said=said, mend=mend)
    return Finding(name="chain", state=FINE, said=said)


def _clock(status: dict[str, Any] | None) -> Finding:
    if status is None or not status["neighbours"]:
        return Finding(name="clock", state=FINE, said="not compared yet: that needs a running node with neighbours")
    if status["clock_offset_us"] is None:
        return Finding(name="clock", state=FINE, said="close enough to the neighbours'")
    said = (
        f"{abs(status['clock_offset_us']) / 1e6:.2f} s {'behind' if status['clock_offset_us'] > 0 else 'ahead of'} the neighbours"
    )
    if status["clock_skewed"]:
        return Finding(name="clock", state=FAULT, said=said, mend="set the clock, for example with NTP; the node does not trade")
    return Finding(name="clock", state=FINE, said=said)


def _sandbox(*, needed: bool) -> Finding:
    from peer.workers.sandbox import check_sandbox

    def look() -> str:
        check_sandbox()
        return "bubblewrap works"

    return _program("sandbox", look, needed=needed, what="the work of commands and of Blender")


def _blender(settings: Settings, *, needed: bool) -> Finding:
    path = next((offer.blender for offer in settings.sell if offer.blender is not None), Path("blender"))

    def version() -> str:
        found = shutil.which(path)
        if found is None:
            raise LocalFault(
                "no-blender", f"there is no program {str(path)!r}; install it, for example with: apt-get install blender"
            )
        if Path(found).name.startswith("python"):
            return f"{found} is to have the module bpy"
        done = subprocess.run([found, "--version"], capture_output=True, text=True, timeout=_BLENDER_S, check=True)
        return done.stdout.strip().splitlines()[0]

    return _program("blender", version, needed=needed, what="Blender's work")


def _program(name: str, look: Callable[[], str], *, needed: bool, what: str) -> Finding:
    """A program that only some sellers need: without it their offers fail, and others do not care."""
    try:
        return Finding(name=name, state=FINE, said=look())
    except LocalFault as fault:
        said, _, mend = fault.sentence.partition("; ")
    except (OSError, subprocess.SubprocessError, IndexError) as error:
        said, mend = f"it does not run: {type(error).__name__}", "install it again"
    return Finding(name=name, state=FAULT if needed else WARNING, said=said, mend=mend or f"it is needed to sell {what}")
