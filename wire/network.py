"""What differs between networks, as frozen tables: money, clock of the market, safety margins.

A network's ``name`` is inside every hash and signature (``wire.digest``), so nothing said on one is valid on another.
"""

from typing import Final

from wire.canon import record
from wire.errors import Refused
from wire.moments import MILLISECOND, Instant


@record
class EpochClock:
    """The rhythm of one network's call auctions, see MARKET, Epochs. All in milliseconds."""

    length_ms: int
    freeze_ms: int
    accept_by_ms: int

    def epoch(self, now: Instant) -> int:
        """The epoch that ``now`` falls in."""
        return now // (self.length_ms * MILLISECOND)

    def start(self, epoch: int) -> Instant:
        """The first moment of ``epoch``."""
        return Instant(epoch * self.length_ms * MILLISECOND)

    def freeze(self, epoch: int) -> Instant:
        """The moment after which nothing more counts for ``epoch``."""
        return Instant(self.start(epoch) + self.freeze_ms * MILLISECOND)

    def accept_by(self, epoch: int) -> Instant:
        """The last moment at which a Match of ``epoch`` may be signed."""
        return Instant(self.start(epoch) + self.accept_by_ms * MILLISECOND)


@record
class Network:
    """One network. ``hrp``, ``coin_type`` belong to the Bitcoin network that settles; blocks are counts of blocks. Nodes
    there relay a memo of up to ``memo_max_bytes``: Bitcoin Core before version 30 at most 80.
    """

    name: str
    bitcoin: str
    hrp: str
    real_money: bool
    clock: EpochClock
    refund_blocks: int
    margin_blocks: int
    claim_delay_blocks: int
    confirmations: int
    feerate_min_sat_per_kvb: int
    feerate_max_sat_per_kvb: int
    stamp_bits: int
    memo_max_bytes: int


_FAST: Final = EpochClock(length_ms=2_000, freeze_ms=600, accept_by_ms=1_900)
_PUBLIC: Final = EpochClock(length_ms=10_000, freeze_ms=2_000, accept_by_ms=9_500)

REGTEST: Final = Network(
    name="regtest",
    bitcoin="regtest",
    hrp="bcrt",
    real_money=False,
    clock=_FAST,
    refund_blocks=432,
    margin_blocks=10,
    claim_delay_blocks=10,
    confirmations=1,
    feerate_min_sat_per_kvb=1_000,
    feerate_max_sat_per_kvb=50_000,
    stamp_bits=8,
    memo_max_bytes=10_000,
)
SIGNET: Final = Network(
    name="signet",
    bitcoin="signet",
    hrp="tb",
    real_money=False,
    clock=_PUBLIC,
    refund_blocks=1_008,
    margin_blocks=144,
    claim_delay_blocks=144,
    confirmations=1,
    feerate_min_sat_per_kvb=1_000,
    feerate_max_sat_per_kvb=100_000,
    stamp_bits=12,
    memo_max_bytes=80,
)
MAIN: Final = Network(
    name="main",
    bitcoin="main",
    hrp="bc",
    real_money=True,
    clock=_PUBLIC,
    refund_blocks=1_008,
    margin_blocks=144,
    claim_delay_blocks=144,
    confirmations=1,
    feerate_min_sat_per_kvb=1_000,
    feerate_max_sat_per_kvb=200_000,
    stamp_bits=16,
    memo_max_bytes=80,
)

NETWORKS: Final = {one.name: one for one in (REGTEST, SIGNET, MAIN)}


def network_named(name: str) -> Network:
    """The network called ``name``. Raises ``Refused`` with the names there are."""
    try:
        return NETWORKS[name]
    except KeyError:
        known = ", ".join(sorted(NETWORKS))
        raise Refused("unknown-network", f"there is no network {name!r}; choose one of {known}") from None
