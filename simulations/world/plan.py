"""What a world is made of, as plain values: a scenario file is exactly this. Times in seconds, delays in milliseconds."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Roads:
    """How messages travel. ``frame_loss`` loses single relay frames without a word, but never the first of a stream, its
    greeting; ``breaks_per_hour`` and ``letter_loss`` break whole lines, as a lost connection does. ``uplink_mbps`` 0 means
    without bound.
    """

    model: str = "classes"
    least_ms: float = 40.0
    most_ms: float = 130.0
    frame_loss: float = 0.0
    frame_repeat: float = 0.0
    letter_loss: float = 0.0
    breaks_per_hour: float = 0.0
    uplink_mbps: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Churn:
    """Sessions are Weibull (``shape``, ``scale_min`` in minutes), pauses uniform. ``crashes_per_hour`` kill at any moment, also
    between the journal's commit and what follows it; ``torn`` is the share of crashes that do.
    """

    shape: float = 0.0
    scale_min: float = 0.0
    pause_least_s: float = 5.0
    pause_most_s: float = 60.0
    crashes_per_hour: float = 0.0
    torn: float = 0.5
    partition_at_s: float = 0.0
    partition_s: float = 0.0
    partition_share: float = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Trade:
    """Who wants what. Prices are drawn uniformly; ``jobs_per_minute`` is per buyer, each of ``units_least`` to ``units_most``."""

    buyers: float = 0.5
    bid_least_msat: int = 20_000_000
    bid_most_msat: int = 40_000_000
    ask_least_msat: int = 15_000_000
    ask_most_msat: int = 35_000_000
    price_step_msat: int = 100_000
    jobs_per_minute: float = 1.0
    units_least: int = 1
    units_most: int = 4
    slots: int = 2
    patience_s: float = 60.0
    work_least_s: float = 2.0
    work_most_s: float = 10.0
    work_bytes: int = 65_536
    result_bytes: int = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class Mischief:
    """Numbers of adversaries. ``flood_per_s`` orders leave each flooder, ``flood_false`` of them (a share) are false."""

    silent_sellers: int = 0
    silent_buyers: int = 0
    keyless_sellers: int = 0
    equivocators: int = 0
    flooders: int = 0
    flood_per_s: float = 20.0
    flood_false: float = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """The simulated chain: blocks come at a fixed pace; each account begins with ``coins`` of ``coin_sat``."""

    block_s: float = 20.0
    look_ms: float = 250.0
    coins: int = 4
    coin_sat: int = 20_000_000
    feerate_sat_per_kvb: int = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One world. With ``deals`` every node is a whole brain, without it market and desk only.

    ``clock`` is ``fast`` (epochs of 2 s) or ``public`` (10 s). People act for ``seconds``; then ``quiet_s`` follow in which
    nothing new is asked, nodes come back and channels are closed, after which every deal must have ended.
    """

    nodes: int = 20
    articles: int = 1
    seconds: float = 60.0
    quiet_s: float = 30.0
    arrive_s: float = 5.0
    deals: bool = False
    clock: str = "fast"
    stamp_bits: int = 0
    skew_ms: float = 0.0
    roads: Roads = field(default_factory=Roads)
    churn: Churn = field(default_factory=Churn)
    trade: Trade = field(default_factory=Trade)
    mischief: Mischief = field(default_factory=Mischief)
    chain: Chain = field(default_factory=Chain)
