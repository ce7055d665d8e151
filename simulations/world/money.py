"""Wallets, funding and watching over the simulated chain: what a node's shells of the escrow do, in virtual time."""

from typing import TYPE_CHECKING, Final

from escrow.core.amounts import fee_sat
from escrow.core.events import FundingWanted, OutpointSeen, Submit, TipSeen, Unwatch, Watch
from escrow.core.script import p2wpkh
from escrow.core.transaction import Tx, TxIn
from peer.core.events import FundingBuilt, FundingFailed
from simulations.world.chain import SimulatedChain
from simulations.world.eventlog import Kind
from simulations.world.host import Host
from wire.moments import MILLISECOND, SECOND
from wire.ports import OutInfo, OutPoint, Rejected, TxOut

if TYPE_CHECKING:
    from simulations.world.world import World

_GATHER_US: Final = 50 * MILLISECOND
_RETRY_US: Final = SECOND
_ATTEMPTS: Final = 5
_BASE_VBYTES, _INPUT_VBYTES, _OUTPUT_VBYTES = 11, 68, 43
_WITNESS: Final = (b"\x30" * 72, b"\x02" * 33)


class Money:
    """The chain, and every host's dealings with it."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._plan = world.plan.chain
        self.chain = SimulatedChain()
        self._wanted: dict[int, dict[bytes, TxOut]] = {}
        self._under_way: dict[int, set[bytes]] = {}
        self._told: dict[int, dict[OutPoint, OutInfo | str | None]] = {}
        self._heights: dict[int, int] = {}
        self._looking: set[int] = set()
        world.performers[FundingWanted] = self._want
        world.performers[Submit] = self._submit
        world.performers[Watch] = self._watch
        world.performers[Unwatch] = self._unwatch
        world.on_start.append(self._started)

    def issue(self, host: Host) -> None:
        """The coins a host begins with."""
        for number in range(self._plan.coins):
            self.chain.issue(host.number << 16 | number, TxOut(self._plan.coin_sat, p2wpkh(host.key.public)))

    def begin(self) -> None:
        """Blocks come from now on."""
        self._world.timeline.after(round(self._plan.block_s * SECOND), self._block)

    def _block(self, _: object, __: object) -> None:
        self.mine()
        self._world.timeline.after(round(self._plan.block_s * SECOND), self._block)

    def mine(self) -> None:
        """One block, now."""
        self.chain.mine()
        self._world.log.add(self._world.timeline.now, 0, Kind.BLOCK, self.chain.height.to_bytes(4, "big"))
        self._news()

    def _started(self, host: Host) -> None:
        """A new process knows nothing of the chain: it looks at once."""
        self._under_way[host.number] = set()
        self._heights.pop(host.number, None)
        self._told.setdefault(host.number, {})
        self._look((host, host.life), None)

    # --- looking ----------------------------------------------------------------------------------------------------

    def _news(self) -> None:
        """Everybody looks within his interval."""
        for host in self._world.everyone:
            if host.alive:
                self._soon(host)

    def _soon(self, host: Host) -> None:
        if host.number not in self._looking:
            self._looking.add(host.number)
            look_us = round(self._plan.look_ms * MILLISECOND)
            self._world.timeline.after(look_us * (1 + host.number % 7) // 8, self._look, (host, host.life))

    def _look(self, of: tuple[Host, int], _: object) -> None:
        host, life = of
        self._looking.discard(host.number)
        if not host.alive:
            return
        if host.life != life:
            self._soon(host)
            return
        height = self.chain.height
        if self._heights.get(host.number) != height:
            self._heights[host.number] = height
            tip = TipSeen(height=height, feerate_sat_per_kvb=self._plan.feerate_sat_per_kvb)
            self._world.give(host, Kind.CHAIN, height.to_bytes(4, "big"), tip)
        told = self._told[host.number]
        for outpoint in sorted(told, key=lambda one: (one.txid, one.vout)):
            info = self.chain.outpoint(outpoint)
            if outpoint in told and told[outpoint] != info:
                told[outpoint] = info
                self._world.give(host, Kind.CHAIN, outpoint.txid, OutpointSeen(outpoint=outpoint, info=info))

    def _watch(self, host: Host, effect: Watch) -> None:
        self._told[host.number][effect.outpoint] = "never told"
        self._soon(host)

    def _unwatch(self, host: Host, effect: Unwatch) -> None:
        self._told[host.number].pop(effect.outpoint, None)

    def forget(self, host: Host) -> None:
        """The process is gone, and with it what it watched."""
        self._told[host.number] = {}
        self._wanted.pop(host.number, None)

    # --- spending ---------------------------------------------------------------------------------------------------

    def _want(self, host: Host, effect: FundingWanted) -> None:
        if effect.channel in self._under_way[host.number]:
            return
        self._under_way[host.number].add(effect.channel)
        wanted = self._wanted.setdefault(host.number, {})
        if not wanted:
            self._world.timeline.after(_GATHER_US, self._gather, host, host.life)
        wanted[effect.channel] = effect.output

    def _gather(self, host: Host, life: int) -> None:
        wanted = self._wanted.pop(host.number, {})
        if not host.alive or host.life != life:
            return
        channels = sorted(wanted)
        raw = self._fund(host, [wanted[channel] for channel in channels])
        for vout, channel in enumerate(channels):
            if raw is None:
                self._under_way[host.number].discard(channel)
                failed = FundingFailed(channel=channel, code="no-funds", sentence="the wallet holds too little for this")
                self._world.give(host, Kind.CHAIN, channel, failed)
            else:
                self._world.give(host, Kind.CHAIN, channel, FundingBuilt(channel=channel, raw=raw, vout=vout))

    def _fund(self, host: Host, outputs: list[TxOut]) -> bytes | None:
        """A transaction paying the outputs from the host's coins, change last; None when they do not suffice.

        Its inputs are locked by being spent: the funding is broadcast by the channel in the same moment.
        """
        script = p2wpkh(host.key.public)
        needed = sum(one.value_sat for one in outputs)
        inputs: list[TxIn] = []
        total = 0
        for outpoint, coin in self.chain.coins_of(script):
            inputs.append(TxIn(outpoint=outpoint, witness=_WITNESS))
            total += coin.output.value_sat
            vbytes = _BASE_VBYTES + _INPUT_VBYTES * len(inputs) + _OUTPUT_VBYTES * (len(outputs) + 1)
            change = total - needed - fee_sat(vbytes, self._plan.feerate_sat_per_kvb)
            if change >= 1_000:
                return Tx(inputs=tuple(inputs), outputs=(*outputs, TxOut(change, script))).serialise()
        return None

    def _submit(self, host: Host, effect: Submit) -> None:
        self._try((host, host.life, effect), 0)

    def _try(self, of: tuple[Host, int, Submit], attempts: int) -> None:
        host, life, effect = of
        if not host.alive or host.life != life:
            return
        known = len(self.chain.transactions)
        try:
            self.chain.submit(effect.raw)
        except Rejected:
            self.chain.refused += 1
            if attempts + 1 < _ATTEMPTS:
                self._world.timeline.after(_RETRY_US, self._try, of, attempts + 1)
        else:
            if len(self.chain.transactions) != known:
                self._news()
