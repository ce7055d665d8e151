"""The node's figures in Prometheus' text format, read when they are asked for."""

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from peer.core.brain import Brain
from peer.core.deal import Phase
from peer.node.propagation import Propagation
from peer.node.views import Views

Figures = Mapping[str, float]


class Metrics(Collector):
    """Collects one scrape. ``gauges`` are figures of the composition by name; ``counters`` what was dropped or noticed, by code;
    ``totals`` other counts by name.
    """

    def __init__(
        self,
        brain: Brain,
        views: Views,
        gauges: Callable[[], Figures],
        totals: Callable[[], Figures],
        counters: Callable[[], Figures],
        propagation: Propagation,
    ) -> None:
        self._brain = brain
        self._views = views
        self._gauges = gauges
        self._totals = totals
        self._counters = counters
        self._propagation = propagation
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def text(self) -> bytes:
        """The answer to a scrape."""
        return generate_latest(self._registry)

    def collect(self) -> Iterable[Metric]:
        """Every metric."""
        yield from self._market()
        yield from self._spread()
        yield from self._units()
        yield from self._money()
        yield from self._work()
        for name, value in sorted(self._gauges().items()):
            yield GaugeMetricFamily(f"bitwrk_{name}", _HELP.get(name, name.replace("_", " ")), value=value)
        for name, value in sorted(self._totals().items()):
            yield CounterMetricFamily(f"bitwrk_{name}", _HELP.get(name, name.replace("_", " ")), value=value)
        codes = self._counters()
        noticed = CounterMetricFamily("bitwrk_noticed", "What was dropped or noticed, by code.", labels=["code"])
        for code, value in sorted(codes.items()):
            noticed.add_metric([code], value)
        yield noticed
        text = "Roots of a book and epoch compared with a neighbour's, by result."
        compared = CounterMetricFamily("bitwrk_roots_compared", text, labels=["result"])
        for result in ("equal", "differ"):
            compared.add_metric([result], codes.get(f"roots-{result}", 0))
        yield compared

    def _market(self) -> Iterable[Metric]:
        orders = GaugeMetricFamily("bitwrk_orders", "Own orders by side and state.", labels=["side", "state"])
        lines = self._views.orders()
        for side, state in sorted({(line["side"], line["state"]) for line in lines}):
            orders.add_metric([side, state], sum((line["side"], line["state"]) == (side, state) for line in lines))
        yield orders
        mandates = GaugeMetricFamily("bitwrk_mandates", "Mandates by side.", labels=["side"])
        for side in ("buy", "sell"):
            mandates.add_metric([side], sum(line["side"] == side for line in self._views.mandates()))
        yield mandates

    def _spread(self) -> Iterable[Metric]:
        """How orders of others came: see ``peer.node.propagation``."""
        age, slack = self._propagation.age, self._propagation.slack
        text = "From the appearance of an order, cancellation or proof to its admission here, as its way tells."
        yield HistogramMetricFamily("bitwrk_propagation_seconds", text, buckets=age.buckets(), sum_value=age.sum_s)
        text = "How long before the freeze of the epoch they name messages were admitted, of those in time."
        yield HistogramMetricFamily("bitwrk_before_freeze_seconds", text, buckets=slack.buckets(), sum_value=slack.sum_s)
        text = "Messages admitted after the freeze of the epoch they name."
        yield CounterMetricFamily("bitwrk_after_freeze", text, value=self._propagation.late)

    def _units(self) -> Iterable[Metric]:
        trades = GaugeMetricFamily("bitwrk_trades", "Units in memory by role and phase.", labels=["role", "phase"])
        for role, ledger in (("buyer", self._brain.buying.ledger), ("seller", self._brain.selling.ledger)):
            found = [unit.phase for unit in ledger.units.values()]
            for phase in Phase:
                trades.add_metric([role, phase.value], found.count(phase))
        yield trades
        ended = CounterMetricFamily(
            "bitwrk_units", "Units that ended, by role, phase and reason.", labels=["role", "phase", "code"]
        )
        for labels, count in sorted(self._views.ended.items()):
            ended.add_metric(list(labels), count)
        yield ended
        for (role, msat), word in zip(sorted(self._views.paid_msat.items()), ("spent", "earned"), strict=True):
            text = f"Millisatoshi {word} as {role.value} for units that are finished."
            yield CounterMetricFamily(f"bitwrk_{word}_msat", text, value=msat)

    def _money(self) -> Iterable[Metric]:
        yield GaugeMetricFamily("bitwrk_exposure_sat", "Own satoshi in escrow.", value=self._brain.purse.exposure_sat())
        channels = GaugeMetricFamily("bitwrk_channels", "Channels by role and phase.", labels=["role", "phase"])
        lines = self._brain.purse.statement()
        for role, phase in sorted({(line["role"], line["phase"]) for line in lines}):
            channels.add_metric([role, phase], sum((line["role"], line["phase"]) == (role, phase) for line in lines))
        yield channels

    def _work(self) -> Iterable[Metric]:
        names = ["worker", "article"]
        slots = GaugeMetricFamily("bitwrk_worker_slots", "Works a worker does at once.", labels=names)
        busy = GaugeMetricFamily("bitwrk_worker_busy", "Works it does now.", labels=names)
        done = CounterMetricFamily("bitwrk_worker_done", "Works it has done.", labels=names)
        failed = CounterMetricFamily("bitwrk_worker_failed", "Works it has failed at, by reason.", labels=[*names, "code"])
        for line in self._views.workers():
            labels = [line["name"], line["article"]]
            slots.add_metric(labels, line["slots"])
            busy.add_metric(labels, line["busy"])
            done.add_metric(labels, line["done"])
            for code, count in sorted(line["failed"].items()):
                failed.add_metric([*labels, code], count)
        yield from (slots, busy, done, failed)


_HELP = {
    "balance_sat": "Spendable satoshi on the chain.",
    "peers": "Connected nodes.",
    "neighbours": "Nodes that orders are exchanged with.",
    "inbox_events": "Events that wait for the node.",
    "requests_waiting": "Requests of local programs that are not answered yet.",
    "tasks": "Transfers and computations under way.",
    "listeners": "Programs that listen to events.",
    "draining": "1 while the node finishes what it has begun and takes on nothing new.",
    "clock_skewed": "1 while the clock is too far from the neighbours' to trade.",
    "events_handled": "Events handled.",
    "events_dropped": "Events dropped because the inbox was full.",
    "journal_commits": "Commits asked of the journal.",
    "journal_rows": "Rows written to the journal.",
    "journal_groups": "Transactions of the journal.",
}
