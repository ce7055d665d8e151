"""How a channel reads the chain: the funding output, the conditional output and the height, compared with its phase.

``_look`` is level-triggered: it asks what is true now, never what has changed, so news may be repeated, come late or be taken
back by a reorganisation, and the channel still ends up where the chain says it is.
"""

from collections.abc import Iterable

from escrow.core.channel import Channel
from escrow.core.events import Closed, How, OutpointSeen, Phase, TipSeen, Unwatch
from escrow.core.spends import Spend, SpendKind, classify, key_shown
from escrow.core.state import Ending
from escrow.core.transaction import BadTransaction, Tx, parse
from wire.effects import Blame, Count
from wire.errors import require
from wire.ports import OutInfo, OutPoint, TxInfo

CHAIN_PHASES = (
    Phase.FUNDED,
    Phase.OPEN,
    Phase.CLOSING,
    Phase.CLAIMING,
    Phase.REFUNDING,
    Phase.CLOSED,
    Phase.BURIED,
)
"""Where a look may lead: anywhere that an escrow with a known output can stand."""

_HOW = {SpendKind.SETTLED: How.SETTLED, SpendKind.REFUNDED: How.REFUNDED, SpendKind.RULED: How.RULED}
_NO_MONEY = (How.DECLINED, How.UNFUNDED)


class SightedChannel(Channel):
    """A channel that knows the chain; the two roles say what they do about what is seen."""

    _spend: Spend | None = None

    # --- for the two roles -------------------------------------------------------------------------------------

    def _locks(self) -> Iterable[bytes]:
        raise NotImplementedError

    def _while_absent(self) -> None:
        """The funding is not on the chain."""
        raise NotImplementedError

    def _while_unspent(self) -> None:
        """The escrow is on the chain and whole."""
        raise NotImplementedError

    def _while_claimable(self, spend: Spend, info: OutInfo) -> None:
        """The conditional output is on the chain and nobody took it."""
        raise NotImplementedError

    def _raise_fee(self) -> None:
        """Our own spend of the escrow waits; perhaps because the going rate rose."""

    def _learn(self, lock: bytes, key: bytes) -> None:
        """A claim on the chain shows ``key``."""

    def _ended(self) -> None:
        """The channel has just ended."""

    def _tell_again(self) -> None:
        if self.row.ending is not None:
            self._tell_closed(self.row.ending)

    # --- the look at the chain ---------------------------------------------------------------------------------

    def _on_outpoint(self, event: OutpointSeen) -> None:
        if event.outpoint not in self._watching:
            self._effects.append(Count(code="unwatched-outpoint"))
            return
        self._seen[event.outpoint] = event.info
        self._look()

    def _on_tip(self, event: TipSeen) -> None:
        news = event.height != self._height
        self._height = event.height
        if event.feerate_sat_per_kvb is not None:
            self._feerate = event.feerate_sat_per_kvb
        self._look()
        if news:
            self._resubmit()

    def _look(self) -> None:
        funding = self.funding
        if funding is None or funding not in self._seen or self._height is None:
            return
        info = self._seen[funding]
        if info is None:
            self._see_absent()
        elif (info.value_sat, info.script) != (self.contract.funding.value_sat, self.contract.funding.script):
            self._see_wrong(info)
        elif info.spent_by is None:
            self._see_unspent()
        else:
            self._see_spent(info.spent_by)

    def _see_absent(self) -> None:
        if self.row.ending is not None and self.row.ending.how in _NO_MONEY:
            return
        self._change(ending=None)
        self._enter(Phase.FUNDED, "the funding is not on the chain any more; waiting for it to come back")
        self._while_absent()

    def _see_wrong(self, info: OutInfo) -> None:
        if self.row.ending is None:
            sentence = f"the output named as funding holds {info.value_sat} sat or another script, not what was agreed"
            blame = Blame(peer=self.peer, code="wrong-funding", sentence=sentence, penalty=50)
            self._effects += [Count(code="wrong-funding"), blame]
            self._end_without_money(How.UNFUNDED, sentence)

    def _see_unspent(self) -> None:
        if self.phase in (Phase.FUNDED, Phase.CLOSED) and (self.row.ending is None or self.row.ending.how in _NO_MONEY):
            self._change(ending=None, closing=self.row.closing or self.phase is Phase.CLOSED)
            if self.row.close_raw:
                self._enter(Phase.CLOSING, "the funding is on the chain again, the close not yet")
            else:
                self._enter(Phase.OPEN, "the funding is on the chain")
            self._wait_until = None
        elif self.phase in (Phase.CLAIMING, Phase.CLOSED):
            self._change(ending=None)
            self._enter(Phase.CLOSING, "the transaction that spent the escrow is not on the chain any more")
        if not self._told_ready and self.phase is Phase.OPEN:
            self._told_ready = True
            self._tell_ready()
        self._while_unspent()

    def _tell_ready(self) -> None:
        raise NotImplementedError

    def _parsed(self, spender: TxInfo) -> Tx | None:
        try:
            return parse(spender.raw)
        except BadTransaction:
            self._effects.append(Count(code="bad-chain-data"))
            return None

    def _see_spent(self, spender: TxInfo) -> None:
        transaction, funding = self._parsed(spender), self.funding
        if transaction is None or funding is None:
            return
        if self._spend is None or self._spend.transaction != transaction:
            self._spend = classify(self.contract, transaction, funding, self._locks())
        spend = self._spend
        if spend.kind is SpendKind.CONDITIONAL:
            self._see_conditional(spend)
        elif self._deep(spender.height):
            self._end(_HOW[spend.kind], spend.transaction.txid, spend.to_seller_sat, spend.to_buyer_sat, spender.height or 0)
        else:
            self._change(ending=None, closing=True)
            waits = Phase.REFUNDING if self.phase is Phase.REFUNDING and spend.kind is SpendKind.REFUNDED else Phase.CLOSING
            self._enter(waits, "a transaction that ends the channel waits for its block")
            if spender.height is None and spender.raw == self.row.end_raw:
                self._raise_fee()

    def _see_conditional(self, spend: Spend) -> None:
        source = OutPoint(spend.transaction.txid, 0)
        info = self._seen.get(source)
        spender = None if info is None else info.spent_by
        if spender is None or not self._deep(spender.height):
            self._change(ending=None, closing=True)
            self._enter(Phase.CLAIMING, "the seller's balance is on the chain, locked to a key")
        self._watch(source)
        if info is None:
            return
        if spender is None:
            self._while_claimable(spend, info)
            return
        taking = self._parsed(spender)
        if taking is None:
            return
        key = None if spend.lock is None else key_shown(taking, source, spend.lock)
        if spend.lock is not None and key is not None:
            self._learn(spend.lock, key)
        if spender.height is None and spender.raw == self.row.end_raw:
            self._while_claimable(spend, info)  # ours waits; perhaps it waits because the going rate rose
        if self._deep(spender.height):
            alone = len(taking.inputs) == 1
            taken = sum(one.value_sat for one in taking.outputs) if alone else info.value_sat
            by_seller = any(one.outpoint == source and len(one.witness) == 4 for one in taking.inputs)
            to_seller = spend.to_seller_sat + (taken if by_seller else 0)
            to_buyer = spend.to_buyer_sat + (0 if by_seller else taken)
            how = How.CLAIMED if by_seller else How.LAPSED
            self._end(how, spend.transaction.txid, to_seller, to_buyer, spender.height or 0)

    # --- the end -----------------------------------------------------------------------------------------------

    def _end(self, how: How, txid: bytes, to_seller_sat: int, to_buyer_sat: int, height: int) -> None:
        fees_sat = self.row.terms.capacity_sat - to_seller_sat - to_buyer_sat
        require(fees_sat >= 0, "money-made", "a channel paid out more than it held")
        ending = Ending(
            how=how, txid=txid, to_seller_sat=to_seller_sat, to_buyer_sat=to_buyer_sat, fees_sat=fees_sat, height=height
        )
        if self.row.ending != ending:
            self._change(ending=ending, closing=True)
            self._enter(Phase.CLOSED, f"closed on the chain: {how.value}")
            self._wait_until = None
            self._tell_closed(ending)
            self._ended()
        if (self._height or 0) >= height + self.network.margin_blocks:
            self._bury()

    def _end_without_money(self, how: How, sentence: str) -> None:
        ending = Ending(how=how, txid=None, to_seller_sat=0, to_buyer_sat=0, fees_sat=0, height=0)
        self._change(ending=ending, closing=True)
        self._enter(Phase.CLOSED, sentence)
        self._wait_until = None
        self._tell_closed(ending)
        self._ended()

    def _tell_closed(self, ending: Ending) -> None:
        self._effects.append(
            Closed(
                channel=self.channel,
                how=ending.how,
                txid=ending.txid,
                to_seller_sat=ending.to_seller_sat,
                to_buyer_sat=ending.to_buyer_sat,
                fees_sat=ending.fees_sat,
            )
        )

    def _bury(self) -> None:
        self._enter(Phase.BURIED, "the end is deep enough in the chain")
        for outpoint in sorted(self._watching, key=lambda one: (one.txid, one.vout)):
            self._effects.append(Unwatch(outpoint=outpoint))
        self._watching.clear()
        self._seen.clear()
