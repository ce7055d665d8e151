"""Addresses: what the owner writes, what we announce, and which peers we know how to reach.

A full address is a multiaddr with the peer in it, ``/ip4/192.0.2.7/tcp/4820/p2p/16Uiu2HA…``. Only TCP over IP or
DNS names is dialled; other transports in a peer's list are passed over.
"""

import errno
import ipaddress
import socket
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Final

from multiaddr import Multiaddr

from wire.errors import LocalFault, Refused
from wire.keys import BadKey, PeerId, read_peer, show_peer
from wire.limits import ADDRESSES_PER_PEER_MAX, KNOWN_PEERS_MAX

_ADDRESS_MAX_CHARS: Final = 512
_EVERYWHERE: Final = "0.0.0.0"  # noqa: S104 - what an owner writes to be reached on every interface


class BadAddress(Refused):
    """The text is not an address of a peer."""


def split_address(text: str) -> tuple[PeerId, str]:
    """The peer and its plain transport address in a full address. Raises ``BadAddress``."""
    transport, marker, peer = text.strip().rpartition("/p2p/")
    if not marker or not is_dialable(transport):
        raise BadAddress("bad-address", f"{text!r} is not an address like /ip4/192.0.2.7/tcp/4820/p2p/16Uiu2HA…")
    try:
        return read_peer(peer), transport
    except BadKey:
        raise BadAddress("bad-address", f"{text!r} does not end in the id of a peer of this kind") from None


def is_dialable(transport: str) -> bool:
    """Whether ``transport`` is IP or DNS and TCP and nothing else."""
    if len(transport) > _ADDRESS_MAX_CHARS:
        return False
    try:
        names = [protocol.name for protocol in Multiaddr(transport).protocols()]
    except Exception:
        return False
    return len(names) == 2 and names[0] in ("ip4", "ip6", "dns", "dns4", "dns6") and names[1] == "tcp"


def listen_multiaddr(text: str) -> str:
    """A listen address as people write it, ``127.0.0.1:4820`` or ``[::1]:4820``, or a multiaddr. Raises ``LocalFault``."""
    if text.startswith("/"):
        if is_dialable(text):
            return text
    else:
        host, _, port = text.rpartition(":")
        try:
            address = ipaddress.ip_address(host.strip("[]") or _EVERYWHERE)
            if 0 <= int(port) < 65536:
                return f"/ip{address.version}/{address}/tcp/{int(port)}"
        except ValueError:
            pass
    raise LocalFault("bad-listen", f"{text!r} is not an address to listen on; write for example 127.0.0.1:4820")


def check_free(listen: str) -> None:
    """Raise ``LocalFault`` when somebody already listens there.

    libp2p listens with SO_REUSEPORT, so two nodes on one port would not be refused but share the callers between them.
    """
    parts = listen.split("/")
    family = socket.AF_INET6 if parts[1] == "ip6" else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((parts[2], int(parts[4])))
            probe.listen(1)
        except OSError as error:
            why = "another program already listens there" if error.errno == errno.EADDRINUSE else (error.strerror or str(error))
            raise LocalFault("port-in-use", f"the node cannot listen on {parts[2]} port {parts[4]}: {why}") from None


def announced(listening: Sequence[str]) -> tuple[str, ...]:
    """``listening`` with "every interface" replaced by the addresses this machine has."""
    found: list[str] = []
    for one in listening:
        parts = one.split("/")
        if parts[2] == _EVERYWHERE:
            found += [f"/ip4/{host}/tcp/{parts[4]}" for host in (*_outward_hosts(), "127.0.0.1")]
        elif parts[2] == "::":
            found.append(f"/ip6/::1/tcp/{parts[4]}")
        else:
            found.append(one)
    return tuple(dict.fromkeys(found))[:ADDRESSES_PER_PEER_MAX]


def _outward_hosts() -> tuple[str, ...]:
    # Connecting a datagram socket sends nothing; it makes the kernel choose the interface that leads outward.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
            host = str(probe.getsockname()[0])
        except OSError:
            return ()
    return () if host.startswith("127.") or host == _EVERYWHERE else (host,)


def _is_loopback(transport: str) -> bool:
    return transport.startswith(("/ip4/127.", "/ip6/::1/"))


class AddressBook:
    """Which peers we know how to reach: bounded per peer and in number, the longest unused forgotten first."""

    def __init__(self) -> None:
        self._known: OrderedDict[PeerId, tuple[str, ...]] = OrderedDict()
        self._proven: dict[PeerId, str] = {}

    def remember(self, peer: PeerId, transports: Iterable[str]) -> None:
        """Add transport addresses, newest first; a trailing ``/p2p/`` of the peer itself is cut off."""
        suffix = "/p2p/" + show_peer(peer)
        fresh = [one.removesuffix(suffix) for one in transports]
        fresh = [one for one in fresh if is_dialable(one)]
        if fresh:
            merged = tuple(dict.fromkeys((*fresh, *self._known.get(peer, ()))))[:ADDRESSES_PER_PEER_MAX]
            self._known[peer] = merged
            self._known.move_to_end(peer)
            while len(self._known) > KNOWN_PEERS_MAX:
                self.forget(next(iter(self._known)))

    def prove(self, peer: PeerId, transport: str) -> None:
        """The peer itself answered there. What strangers say about it cannot push this address out."""
        self.remember(peer, [transport])
        self._proven[peer] = transport

    def of(self, peer: PeerId) -> tuple[str, ...]:
        """Addresses to try in order: the proven one, then the newest; loopback last, as a stranger's is rarely ours."""
        proven = self._proven.get(peer)
        others = sorted((one for one in self._known.get(peer, ()) if one != proven), key=_is_loopback)
        return tuple(others) if proven is None else (proven, *others)[:ADDRESSES_PER_PEER_MAX]

    def forget(self, peer: PeerId) -> None:
        """Drop all addresses of a peer."""
        self._known.pop(peer, None)
        self._proven.pop(peer, None)

    def __len__(self) -> int:
        return len(self._known)
