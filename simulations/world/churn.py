"""Hosts that come and go, processes that are killed, lines that break, and a world that falls in two."""

from random import Random
from typing import TYPE_CHECKING

from simulations.world.dice import dice
from simulations.world.eventlog import Kind
from simulations.world.host import Host
from wire.moments import SECOND

if TYPE_CHECKING:
    from simulations.world.run import Stage

_TORN_WITHIN_US = 5 * SECOND


class Fates:
    """What befalls each host, drawn from dice of its own."""

    def __init__(self, stage: "Stage") -> None:
        self._stage, self._world = stage, stage.world
        self._plan, self._roads = stage.plan.churn, stage.plan.roads
        self._dice: dict[int, Random] = {
            host.number: dice(stage.world.seed, "fate", host.number) for host in stage.world.everyone
        }
        self.crashes = 0

    def begin(self, host: Host) -> None:
        """The host's first start: its sessions, crashes and broken lines are planned from here on."""
        if host.life > 1:
            return
        self._plan_session(host)
        if self._plan.crashes_per_hour:
            self._world.timeline.after(self._wait_us(host, self._plan.crashes_per_hour), self._crash, host)
        if self._roads.breaks_per_hour:
            self._world.timeline.after(self._wait_us(host, self._roads.breaks_per_hour), self._break, host)

    def divide(self) -> None:
        """Plan the partition, if there is one."""
        if self._plan.partition_s:
            at_us = round(self._plan.partition_at_s * SECOND)
            self._world.timeline.after(at_us, self._cut, True)
            self._world.timeline.after(at_us + round(self._plan.partition_s * SECOND), self._cut, False)

    def _cut(self, apart: bool, _: None) -> None:
        border = round(self._plan.partition_share * len(self._world.everyone))
        self._world.log.add(self._world.timeline.now, border, Kind.CUT, bytes([apart]))
        self._world.roads.divide({host.number: 1 for host in self._world.everyone[:border]} if apart else {})

    def _wait_us(self, host: Host, per_hour: float) -> int:
        return max(1, round(self._dice[host.number].expovariate(per_hour) * 3_600 * SECOND))

    def _plan_session(self, host: Host) -> None:
        if self._plan.scale_min and self._plan.shape:
            lasts_min = self._dice[host.number].weibullvariate(self._plan.scale_min, self._plan.shape)
            self._world.timeline.after(max(SECOND, round(lasts_min * 60 * SECOND)), self._leave, host)

    def _leave(self, host: Host, _: None) -> None:
        if not self._stage.over:
            self._fall(host)
            self._plan_session(host)

    def _crash(self, host: Host, _: None) -> None:
        if self._stage.over:
            return
        self._world.timeline.after(self._wait_us(host, self._plan.crashes_per_hour), self._crash, host)
        if not host.alive:
            return
        if self._dice[host.number].random() < self._plan.torn:
            host.dies_after_save = True
            self._world.timeline.after(_TORN_WITHIN_US, self._end_of_luck, host, host.life)
        else:
            self._fall(host)

    def _end_of_luck(self, host: Host, life: int) -> None:
        """By now it has died in the middle of something, or dies for no reason; then it comes back."""
        if host.life != life:
            return
        if host.alive:
            self._world.crash(host)
        self.crashes += 1
        self._world.timeline.after(self._pause_us(host), self._return, host)

    def _fall(self, host: Host) -> None:
        if host.alive:
            self.crashes += 1
            self._world.crash(host)
            self._world.timeline.after(self._pause_us(host), self._return, host)

    def _pause_us(self, host: Host) -> int:
        return round(self._dice[host.number].uniform(self._plan.pause_least_s, self._plan.pause_most_s) * SECOND)

    def _return(self, host: Host, _: None) -> None:
        self._world.start(host)

    def _break(self, host: Host, _: None) -> None:
        if self._stage.over:
            return
        self._world.timeline.after(self._wait_us(host, self._roads.breaks_per_hour), self._break, host)
        if host.alive:
            self._world.roads.break_one(host)
