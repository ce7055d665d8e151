"""The roads between hosts: relay streams that carry frames, and lines that carry letters.

Both keep order while they stand and lose what is on its way when they break. A relay stream is a pair of directed ``Wire``; a
letter line follows the courier's rules: it is opened when somebody has something to say, ``PeerUp`` comes before its first
letter, ``PeerDown`` when something of it was lost, and a letter waits at most a minute for a line.
"""

from collections import deque
from random import Random
from typing import TYPE_CHECKING, Final

from orderbook.core.events import FrameIn, NeighbourDown, NeighbourUp, SendFrame
from peer.core.events import LetterArrived, PeerDown, PeerUp
from simulations.world.eventlog import Kind
from simulations.world.host import Host
from simulations.world.latency import FIXED, Delay
from simulations.world.plan import Roads as RoadPlan
from wire.keys import PeerId
from wire.limits import LETTER_LIFE_S
from wire.moments import MILLISECOND, SECOND

if TYPE_CHECKING:
    from simulations.world.world import World

_TRIPS_TO_CONNECT: Final = 5  # TCP, noise and the multiplexer
_RETRY_FIRST_US: Final = 250 * MILLISECOND
_RETRY_MAX_US: Final = 8 * SECOND
_OVERHEAD_BYTES: Final = 60


class Wire:
    """One direction of a relay stream; ``delay_us`` is set when the delay of a pair never changes."""

    __slots__ = ("delay_us", "last", "open", "source", "target")

    def __init__(self, source: Host, target: Host, delay_us: int | None) -> None:
        self.source, self.target, self.delay_us = source, target, delay_us
        self.open = True
        self.last = 0


class Line:
    """What is between two hosts for letters. ``serial`` changes whenever the line breaks."""

    def __init__(self, low: Host, high: Host) -> None:
        self.ends = (low, high)
        self.boxes: dict[int, deque[tuple[int, bytes]]] = {low.number: deque(), high.number: deque()}
        self.up = False
        self.opening = False
        self.serial = 0
        self.pause_us = 0
        self.last = {low.number: 0, high.number: 0}

    def other(self, host: Host) -> Host:
        """The far end."""
        return self.ends[1] if host is self.ends[0] else self.ends[0]


class Roads:
    """All wires and lines of a world."""

    def __init__(self, world: "World", plan: RoadPlan, delay: Delay, dice: Random) -> None:
        self._world, self._plan, self._delay, self._dice = world, plan, delay, dice
        self._time = world.timeline
        self._lines: dict[tuple[int, int], Line] = {}
        self.side: dict[int, int] = {}
        self.lost = 0
        self.breaks = 0

        self._even = not (plan.frame_loss or plan.frame_repeat or plan.uplink_mbps)

    # --- frames ---------------------------------------------------------------------------------------------------

    def frame(self, host: Host, effect: SendFrame) -> None:
        """Send a relay frame. Most of a run is this, so roads without loss and uplinks are short."""
        wire, frame = host.neighbours.get(effect.peer), effect.frame
        if wire is None:
            return
        host.sent_frames += 1
        host.sent_bytes += len(frame) + _OVERHEAD_BYTES
        if self._even and wire.delay_us is not None:
            when = self._time.now + wire.delay_us
            when = max(when, wire.last)
            wire.last = when
            self._time.at(when, self._frame_arrives, wire, frame)
            return
        plan = self._plan
        if plan.frame_loss and wire.last and self._dice.random() < plan.frame_loss:
            self.lost += 1
            return
        when = self._leaves(host, len(frame)) + self._delay(host.number, wire.target.number)
        when = max(when, wire.last)
        wire.last = when
        self._time.at(when, self._frame_arrives, wire, frame)
        if plan.frame_repeat and self._dice.random() < plan.frame_repeat:
            self._time.at(when, self._frame_arrives, wire, frame)

    def _leaves(self, host: Host, size_bytes: int) -> int:
        """When the last byte of a message is on its way."""
        if not self._plan.uplink_mbps:
            return self._time.now
        begin = max(self._time.now, host.uplink_free)
        host.uplink_free = begin + round((size_bytes + _OVERHEAD_BYTES) * 8 / self._plan.uplink_mbps)
        return host.uplink_free

    def _frame_arrives(self, wire: Wire, frame: bytes) -> None:
        if wire.open:
            self._world.give(wire.target, Kind.FRAME, frame, FrameIn(peer=wire.source.peer_id, frame=frame))

    # --- neighbours -----------------------------------------------------------------------------------------------

    def meet(self, host: Host, peer: PeerId, article: str) -> None:
        """Open a relay stream; the directory hears whether it stands."""
        other = self._world.hosts.get(peer)
        if other is None or other is host:
            return
        trip = self._delay(host.number, other.number)
        self._time.after(_TRIPS_TO_CONNECT * trip, self._met, (host, other, host.life), article)

    def _met(self, pair: tuple[Host, Host, int], article: str) -> None:
        host, other, life = pair
        if not host.alive or host.life != life or other.peer_id in host.neighbours:
            return
        if not self.reachable(host, other):
            if article:
                self._world.directories.failed(host, other.peer_id, article)
            return
        for here, there in ((host, other), (other, host)):
            here.neighbours[there.peer_id] = Wire(here, there, self._fixed_us(here, there))
        for here, there in ((host, other), (other, host)):
            self._world.give(here, Kind.NEIGHBOUR_UP, there.peer_id, NeighbourUp(peer=there.peer_id))

    def _fixed_us(self, one: Host, other: Host) -> int | None:
        return self._delay(one.number, other.number) if self._plan.model in FIXED else None

    def part(self, host: Host, other: Host) -> None:
        """The relay stream between two hosts is gone."""
        for here, there in ((host, other), (other, host)):
            wire = here.neighbours.pop(there.peer_id, None)
            if wire is not None:
                wire.open = False
                self._time.at(self._time.now, self._parted, (here, here.life), there)

    def _parted(self, here: tuple[Host, int], there: Host) -> None:
        host, life = here
        if host.life == life and there.peer_id not in host.neighbours:
            self._world.give(host, Kind.NEIGHBOUR_DOWN, there.peer_id, NeighbourDown(peer=there.peer_id))

    def reachable(self, one: Host, other: Host) -> bool:
        """Whether the two can be connected at the moment."""
        if not one.alive or not other.alive:
            return False
        if one.peer_id in other.banned or other.peer_id in one.banned:
            return False
        return self.side.get(one.number, 0) == self.side.get(other.number, 0)

    # --- letters --------------------------------------------------------------------------------------------------

    def post(self, host: Host, peer: PeerId, letter: bytes) -> None:
        """Send a letter, over a line that is opened if need be."""
        other = self._world.hosts.get(peer)
        if other is None or other is host:
            return
        line = self._line(host, other)
        line.boxes[host.number].append((self._time.now + LETTER_LIFE_S * SECOND, letter))
        if line.up:
            self._flush(line, host)
        elif not line.opening:
            self._dial(line)

    def _line(self, one: Host, other: Host) -> Line:
        low, high = (one, other) if one.number < other.number else (other, one)
        name = (low.number, high.number)
        line = self._lines.get(name)
        if line is None:
            line = self._lines[name] = Line(low, high)
        return line

    def _dial(self, line: Line) -> None:
        line.opening = True
        trip = self._delay(line.ends[0].number, line.ends[1].number)
        self._time.after(line.pause_us + _TRIPS_TO_CONNECT * trip, self._dialled, line, line.serial)

    def _dialled(self, line: Line, _: int) -> None:
        line.opening = False
        if line.up:
            return
        for box in line.boxes.values():
            while box and box[0][0] <= self._time.now:
                box.popleft()
        if not any(line.boxes.values()):
            line.pause_us = 0
            return
        if not self.reachable(*line.ends):
            line.pause_us = min(_RETRY_MAX_US, 2 * line.pause_us or _RETRY_FIRST_US)
            self._dial(line)
            return
        line.up, line.pause_us = True, 0
        for here in line.ends:
            there = line.other(here)
            self._world.give(here, Kind.PEER_UP, there.peer_id, PeerUp(peer=there.peer_id))
        for here in line.ends:
            self._flush(line, here)

    def _flush(self, line: Line, host: Host) -> None:
        box, other = line.boxes[host.number], line.other(host)
        while box and line.up:
            _, letter = box.popleft()
            if self._plan.letter_loss and self._dice.random() < self._plan.letter_loss:
                self.lost += 1
                self.cut(line)
                return
            host.sent_bytes += len(letter) + _OVERHEAD_BYTES
            when = self._leaves(host, len(letter)) + self._delay(host.number, other.number)
            when = line.last[host.number] = max(when, line.last[host.number])
            self._time.at(when, self._letter_arrives, (line, line.serial, host), letter)

    def _letter_arrives(self, way: tuple[Line, int, Host], letter: bytes) -> None:
        line, serial, source = way
        if line.serial == serial:
            event = LetterArrived(peer=source.peer_id, letter=letter)
            self._world.give(line.other(source), Kind.LETTER, letter, event)

    def cut(self, line: Line) -> None:
        """The line breaks: what is on its way is lost, and both ends hear of it."""
        if not line.up:
            return
        line.up = False
        line.serial += 1
        self.breaks += 1
        for here in line.ends:
            self._time.at(self._time.now, self._fell, (here, here.life), line.other(here))
        if any(line.boxes.values()) and not line.opening:
            line.pause_us = _RETRY_FIRST_US
            self._dial(line)

    def _fell(self, here: tuple[Host, int], there: Host) -> None:
        host, life = here
        if host.life == life:
            self._world.give(host, Kind.PEER_DOWN, there.peer_id, PeerDown(peer=there.peer_id))

    # --- what befalls all roads of a host ---------------------------------------------------------------------------

    def lines_of(self, host: Host) -> list[Line]:
        """The lines that end here."""
        return [line for name, line in sorted(self._lines.items()) if host.number in name]

    def sever(self, host: Host) -> None:
        """The host's process is gone: so are its streams and lines, and what it had not sent yet."""
        for peer in sorted(host.neighbours):
            self.part(host, self._world.hosts[peer])
        for line in self.lines_of(host):
            line.boxes[host.number].clear()
            self.cut(line)

    def forsake(self, host: Host, other: Host) -> None:
        """End all roads between two hosts."""
        if other.peer_id in host.neighbours:
            self.part(host, other)
        self.cut(self._line(host, other))

    def divide(self, side: dict[int, int]) -> None:
        """Part the world: hosts on different sides cannot reach each other. An empty map makes it whole again."""
        self.side = side
        for host in self._world.everyone:
            for peer in sorted(host.neighbours):
                if not self.reachable(host, self._world.hosts[peer]):
                    self.part(host, self._world.hosts[peer])
        for _, line in sorted(self._lines.items()):
            if line.up and not self.reachable(*line.ends):
                self.cut(line)

    def break_one(self, host: Host) -> None:
        """Break one road of the host, drawn by lot."""
        lines = [line for line in self.lines_of(host) if line.up]
        choices: list[Host | Line] = [self._world.hosts[peer] for peer in sorted(host.neighbours)]
        choices += lines
        if choices:
            chosen = self._dice.choice(choices)
            self.part(host, chosen) if isinstance(chosen, Host) else self.cut(chosen)
