"""What the owner may decide: ``config.toml`` in the home, overridden by the command line.

``TABLE`` below is the whole of it: one row per setting with its command-line option, its default and what it is for. The file
knows exactly these keys; anything else is named and refused, because a misspelt key that is silently ignored is a wish silently
broken.
"""

import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from peer.offer import Offer, read_offer
from wire.errors import LocalFault, Refused
from wire.keys import BadKey, Public, public_of, read_peer
from wire.limits import ARBITERS_MAX, SUPPLY_MAX_SAT
from wire.network import Network, network_named

VERSION: Final = "0.1.0"
HOME_VARIABLE: Final = "BITWRK_HOME"
CONFIG_FILE: Final = "config.toml"
API_PORT: Final = 8081
_BOOTSTRAP_MAX: Final = 64
_LOOPBACK_LISTEN: Final = ("127.0.0.1", 0)
_PUBLIC_LISTEN: Final = ("0.0.0.0", 0)  # noqa: S104 - a public network is for strangers

_BOOTSTRAP: Final = re.compile(
    r"/(ip4/[0-9.]{7,15}|ip6/[0-9a-fA-F:.]{2,45}|dns[46]?/[A-Za-z0-9._-]{1,253})/tcp/\d{1,5}/p2p/[1-9A-HJ-NP-Za-km-z]{20,80}"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainChoice:
    """Which chain settles: ``kind`` is ``kernel``, ``none`` or one of ``FAR_CHAINS``; ``url`` belongs to these and may hold a
    password.
    """

    kind: str
    url: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything a node is told before it starts. ``listen`` is host and port; port 0 means any free one. ``court`` makes it an
    arbiter, ``automatic`` one that rules by itself where no judgement is needed; the command says so, not the file.
    """

    home: Path
    network: Network
    api_port: int
    listen: tuple[str, int]
    bootstrap: tuple[str, ...]
    chain: ChainChoice
    arbiters: tuple[Public, ...]
    chain_second: ChainChoice | None
    allow_mainnet: bool
    mainnet_cap_sat: int
    memo: bool
    log_level: str
    log_format: str
    sell: tuple[Offer, ...]
    gossipsub: bool
    court: bool = False
    automatic: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOptions:
    """How the demonstration is to be run."""

    sellers: int
    tiles: int
    kill_one: bool
    check: bool
    out: Path


class _BadValue(Exception):
    """A value is not what its setting takes; the text says what it takes."""


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise _BadValue("it takes a text in quotes")
    return value


def _port(value: object) -> int:
    if type(value) is not int or not 0 <= value <= 65_535:
        raise _BadValue("it takes a port from 0 to 65535; 0 means any free one")
    return value


def _network(value: object) -> Network:
    try:
        return network_named(_text(value))
    except Refused as refused:
        raise _BadValue(refused.sentence) from None


def _listen(value: object) -> tuple[str, int]:
    text = _text(value)
    found = re.fullmatch(r"(\d{1,3}(?:\.\d{1,3}){3}|\[[0-9a-fA-F:.]{2,45}\]):(\d{1,5})", text)
    if found is None or int(found.group(2)) > 65_535:
        raise _BadValue("it takes an address and a port such as '0.0.0.0:4001' or '[::]:4001'; port 0 means any free one")
    host = found.group(1).strip("[]")
    if ":" not in host and any(int(part) > 255 for part in host.split(".")):
        raise _BadValue(f"{host} is not an address")
    return host, int(found.group(2))


def _bootstrap(value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple):
        raise _BadValue("it takes a list of addresses")
    if len(value) > _BOOTSTRAP_MAX:
        raise _BadValue(f"it takes at most {_BOOTSTRAP_MAX} addresses")
    for one in value:
        if not isinstance(one, str) or _BOOTSTRAP.fullmatch(one) is None:
            raise _BadValue(f"{one!r} is not an address such as '/ip4/192.0.2.7/tcp/4001/p2p/16Uiu2HA…'")
    return tuple(dict.fromkeys(value))


FAR_CHAINS: Final = {
    "core": (("http", "https"), "core:http://user:password@host:port"),
    "esplora": (("http", "https"), "esplora:https://host/path"),
    "electrum": (("ssl", "tcp"), "electrum:ssl://host:port"),
}
"""Chains behind a server: the schemes of its address, and an example."""
_FAR_EXAMPLES: Final = " or ".join(f"'{example}'" for _, example in FAR_CHAINS.values())


def read_chain(text: str) -> ChainChoice:
    """The chain that a setting names. Raises ``LocalFault``, whose sentence does not repeat it: it may hold a password."""
    if text in ("kernel", "none"):
        return ChainChoice(kind=text)
    kind, _, url = text.partition(":")
    if kind in FAR_CHAINS and _is_address(kind, url):
        return ChainChoice(kind=kind, url=url)
    raise LocalFault("bad-chain", f"it takes 'kernel', 'none', {_FAR_EXAMPLES}")


def _is_address(kind: str, url: str) -> bool:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    if parts.scheme not in FAR_CHAINS[kind][0] or not parts.hostname:
        return False
    match kind:
        case "core":
            return port is not None
        case "esplora":
            return "@" not in parts.netloc and not parts.query and not parts.fragment
        case _:
            return port is not None and "@" not in parts.netloc and parts[2:] == ("", "", "")


def _chain(value: object) -> ChainChoice:
    try:
        return read_chain(_text(value))
    except LocalFault as fault:
        raise _BadValue(fault.sentence) from None


def _second(value: object) -> ChainChoice:
    choice = _chain(value)
    if choice.kind in ("kernel", "none"):
        raise _BadValue(f"it takes {_FAR_EXAMPLES}")
    return choice


def _switch(value: object) -> bool:
    if not isinstance(value, bool):
        raise _BadValue("it takes true or false")
    return value


def _bridge(value: object) -> bool:
    if not isinstance(value, dict) or value.keys() - {"gossipsub"}:
        raise _BadValue("it takes a table: [bridge] with gossipsub = true or false")
    return _switch(value.get("gossipsub", False))


def _satoshi(value: object) -> int:
    if type(value) is not int or not 0 <= value <= SUPPLY_MAX_SAT:
        raise _BadValue("it takes a whole number of satoshi")
    return value


def _offers(value: object) -> tuple[Offer, ...]:
    if not isinstance(value, list | tuple):
        raise _BadValue("it takes tables: [[sell]]")
    try:
        return tuple(read_offer(one) for one in value)
    except Refused as refused:
        raise _BadValue(refused.sentence) from None


def _arbiters(value: object) -> tuple[Public, ...]:
    if not isinstance(value, list | tuple) or len(value) > ARBITERS_MAX:
        raise _BadValue(f"it takes a list of at most {ARBITERS_MAX} peer ids")
    try:
        return tuple(dict.fromkeys(public_of(read_peer(_text(one))) for one in value))
    except BadKey as bad:
        raise _BadValue(bad.sentence) from None


def _format(value: object) -> str:
    if value not in ("text", "json"):
        raise _BadValue("it takes 'text' or 'json'")
    return str(value)


def _level(value: object) -> str:
    if value not in ("debug", "info", "warning", "error"):
        raise _BadValue("it takes 'debug', 'info', 'warning' or 'error'")
    return str(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One row of ``TABLE``. ``option`` is None for what only the file may say; ``default`` is written as in the file."""

    name: str
    option: str | None
    default: object
    read: Callable[[object], object]
    purpose: str


TABLE: Final = (
    Setting(name="network", option="--network", default="regtest", read=_network, purpose="regtest (play money), signet or main"),
    Setting(name="api_port", option="--api-port", default=API_PORT, read=_port, purpose="port of the local API on 127.0.0.1"),
    Setting(
        name="listen",
        option="--listen",
        default=None,
        read=_listen,
        purpose="where other nodes may connect; by default 127.0.0.1:0 on regtest and 0.0.0.0:0 elsewhere",
    ),
    Setting(name="bootstrap", option="--bootstrap", default=(), read=_bootstrap, purpose="addresses of nodes to join through"),
    Setting(
        name="chain",
        option="--chain",
        default="kernel",
        read=_chain,
        purpose="kernel (a regtest chain in process), core:http://user:password@host:port (bitcoind or devchain), "
        "esplora:https://host/path or electrum:ssl://host:port (servers of others; both need the extra bdk), or none",
    ),
    Setting(
        name="arbiters",
        option=None,
        default=(),
        read=_arbiters,
        purpose="peer ids of arbiters you accept; paid books name the first of them",
    ),
    Setting(
        name="chain_second",
        option=None,
        default=None,
        read=_second,
        purpose="a second chain, as for chain, that must agree with the first before anything is believed",
    ),
    Setting(
        name="allow_mainnet", option=None, default=False, read=_switch, purpose="must be true before the network main is used"
    ),
    Setting(
        name="mainnet_cap_sat",
        option=None,
        default=0,
        read=_satoshi,
        purpose="the most satoshi that may be at stake at once on the network main",
    ),
    Setting(
        name="memo",
        option=None,
        default=True,
        read=_switch,
        purpose="write into each funding what only your key reads, so that escrows are found again without the disk",
    ),
    Setting(name="log_level", option="--log-level", default="info", read=_level, purpose="debug, info, warning or error"),
    Setting(name="log_format", option="--log-format", default="text", read=_format, purpose="text, or json: one object a line"),
    Setting(
        name="bridge",
        option="--gossipsub",
        default={},
        read=_bridge,
        purpose="gossipsub = true carries orders to and from a GossipSub topic as well, for other stacks of libp2p",
    ),
    Setting(
        name="sell", option=None, default=(), read=_offers, purpose="what bitwrk sell puts up when its command line says nothing"
    ),
)


def home_folder(chosen: Path | None) -> Path:
    """The home: ``chosen``, else the folder in ``BITWRK_HOME``, else ``~/.bitwrk``. Always absolute."""
    if chosen is None:
        named = os.environ.get(HOME_VARIABLE)
        chosen = Path(named) if named else Path("~/.bitwrk")
    try:
        return Path(os.path.abspath(chosen.expanduser()))  # noqa: PTH100 - resolve() would follow links, absolute() keeps '..'
    except RuntimeError:
        raise LocalFault(
            "no-home", f"there is no home folder for you on this machine; name one with --home or {HOME_VARIABLE}"
        ) from None


def _read_file(path: Path) -> dict[str, object]:
    try:
        with path.open("rb") as opened:
            return tomllib.load(opened)
    except FileNotFoundError:
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise LocalFault("bad-config", f"{path} is not valid TOML: {error}") from None
    except OSError as error:
        raise LocalFault("bad-config", f"{path} cannot be read: {error.strerror}") from None


def load_settings(home: Path, overrides: Mapping[str, object] | None = None) -> Settings:
    """The settings of one home: defaults, then its ``config.toml``, then ``overrides`` (None or empty: not given).

    Raises ``LocalFault`` naming the file and the key, or the option, that is wrong.
    """
    path = home / CONFIG_FILE
    written = _read_file(path)
    known = {setting.name for setting in TABLE}
    for name in sorted(written):
        if name not in known:
            raise LocalFault("bad-config", f"{path}: there is no setting {name!r}; known are {', '.join(sorted(known))}")
    given = {name: value for name, value in (overrides or {}).items() if value not in (None, (), [])}
    values: dict[str, object] = {}
    for setting in TABLE:
        if setting.name in given:
            source, value = setting.option or setting.name, given[setting.name]
        elif setting.name in written:
            source, value = f"{path}: {setting.name}", written[setting.name]
        else:
            source, value = setting.name, setting.default
        try:
            values[setting.name] = None if value is None else setting.read(value)
        except _BadValue as bad:
            raise LocalFault("bad-config", f"{source}: {bad}") from None
    return _checked(home, path, values)


def _checked(home: Path, path: Path, values: Mapping[str, object]) -> Settings:
    """The rules between settings."""
    network, chain = values["network"], values["chain"]
    allow, cap = values["allow_mainnet"], values["mainnet_cap_sat"]
    listen = values["listen"]
    if not (isinstance(network, Network) and isinstance(chain, ChainChoice) and isinstance(cap, int)):
        raise TypeError("a setting's reader returned another type")
    if network.real_money and not allow:
        raise LocalFault(
            "mainnet", f"the network {network.name} moves real money; write allow_mainnet = true in {path} if you mean it"
        )
    if network.real_money and cap == 0:
        raise LocalFault("mainnet", f"{path}: mainnet_cap_sat must say how many satoshi may be at stake at once")
    if network.name != "regtest" and chain.kind == "kernel":
        raise LocalFault("no-chain", f"the kernel chain is regtest only; give --chain for the network {network.name}")
    if values["chain_second"] is not None and chain.kind in ("kernel", "none"):
        raise LocalFault("bad-config", f"{path}: chain_second goes with a chain that others can see, too; name one with chain")
    if listen is None:
        listen = _PUBLIC_LISTEN if network.name != "regtest" else _LOOPBACK_LISTEN
    return Settings(
        home=home,
        network=network,
        chain=chain,
        chain_second=values["chain_second"],  # type: ignore[arg-type]
        allow_mainnet=bool(allow),
        mainnet_cap_sat=cap,
        memo=bool(values["memo"]),
        listen=listen,  # type: ignore[arg-type]  # its reader returns host and port
        api_port=values["api_port"],  # type: ignore[arg-type]
        arbiters=values["arbiters"],  # type: ignore[arg-type]
        bootstrap=values["bootstrap"],  # type: ignore[arg-type]
        log_level=values["log_level"],  # type: ignore[arg-type]
        log_format=values["log_format"],  # type: ignore[arg-type]
        sell=values["sell"],  # type: ignore[arg-type]
        gossipsub=bool(values["bridge"]),
    )
