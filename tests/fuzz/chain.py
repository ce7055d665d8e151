"""A whole chain under random spends: what our waiting room says of each, and what the kernel says of a block that holds it.

Scripts are one thing; the rules around them are another: lock times, relative locks by height and by time, amounts, outputs that
are spent or missing, young block rewards. Whatever the room lets in a block must hold, and what it calls invalid no block may.
"""

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

from escrow.core.amounts import enforced_from_sat
from escrow.core.contract import Branch, Contract, contract_of
from escrow.core.script import p2wsh
from escrow.core.spends import claim, claim_fee_sat, complete, refund, sign_spend, sign_state, state
from escrow.core.transaction import SEQUENCE_FINAL, Tx, TxIn
from escrow.shell.ledger import COINBASE_MATURITY
from escrow.shell.regtest import ANYONE, FAUCET_SCRIPT, Regtest
from tests.escrow.judges import Refusal
from tests.escrow.pair import BUYER, SELLER, build_funding
from tests.escrow.scenarios import ARBITER, KEY, LOCK, terms_at
from tests.fuzz.opinions import Disagreement
from wire.network import REGTEST
from wire.ports import OutPoint, Rejected, TxOut

POLICY = {Refusal.DUST.value, Refusal.CHEAP.value, "min relay fee not met", "version", "tx-size"}
"""What the room refuses and consensus does not mind."""

LIES = ("nothing", "nothing", "lock time", "sequence", "version", "amount", "gone", "twice")
START_S, BLOCK_S = 1_600_000_000, 600
ESCROWS_AT_ONCE, POOL = 6, 24


@dataclass(frozen=True)
class Held:
    """Something on the chain that can be spent."""

    kind: str
    contract: Contract | None
    outpoint: OutPoint
    output: TxOut
    height: int


class World:
    """One run; the same seed does the same."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.random = Random(f"chain/{seed}")
        self._clock_s = START_S
        self.chain = Regtest(folder, REGTEST, self._clock)
        self.chain.mine(130)
        self.held: list[Held] = []
        self.counts: Counter[tuple[str, str]] = Counter()

    def close(self) -> None:
        """Give the folder back."""
        self.chain.close()

    def _clock(self) -> float:
        self._clock_s += BLOCK_S
        return self._clock_s

    def step(self) -> None:
        """One spend, or what is needed for some. Raises ``Disagreement``."""
        random = self.random
        if sum(one.kind == "escrow" for one in self.held) < POOL:
            self._fund()
        if random.random() < 0.2:
            self.chain.mine(random.randrange(1, 3))
        if random.random() < 0.1:
            self._balance()
            return
        held = self._pick()
        kind, transaction = self._spend(held)
        self._ask(kind, transaction, held)

    # --- what there is ------------------------------------------------------------------------------------------

    def _fund(self) -> None:
        random, height = self.random, self.chain.height
        contracts = [
            contract_of(
                "regtest",
                terms_at(
                    height,
                    random.random() < 0.5,
                    nonce=random.randbytes(32),
                    refund_height=height + random.randrange(9, 30),
                    claim_delay_blocks=random.randrange(1, 8),
                ),
            )
            for _ in range(ESCROWS_AT_ONCE)
        ]
        txid = self.chain.submit(build_funding(self.chain, [one.funding for one in contracts]))
        self.chain.mine()
        for vout, one in enumerate(contracts):
            self.held.append(Held("escrow", one, OutPoint(txid, vout), one.funding, self.chain.height))

    def _pick(self) -> Held:
        random = self.random
        if random.random() < 0.15:
            young = self.chain.height - COINBASE_MATURITY
            found = [one for one in self.chain.coins_of(FAUCET_SCRIPT) if one.coinbase and abs(one.height - young) < 4]
            coin = random.choice(found)
            return Held("reward", None, coin.outpoint, coin.output, coin.height)
        return random.choice(self.held)

    # --- spends -------------------------------------------------------------------------------------------------

    def _spend(self, held: Held) -> tuple[str, Tx]:
        """A spend of it, perhaps with one lie in it, signed as it then is."""
        random, one = self.random, held.contract
        fee = random.choice((0, 100, 300, 300, 300, 1_000))
        spending = TxIn(outpoint=held.outpoint)
        unsigned = Tx(inputs=(spending,), outputs=(TxOut(max(1, held.output.value_sat - fee), FAUCET_SCRIPT),))
        if one is None:
            return held.kind, self._lie(unsigned, held).with_witness(0, (ANYONE,))
        if held.kind == "locked":
            kind = random.choice(("claim", "lapse"))
        else:
            kind = random.choice(("settled", "locked", "refund", "refund", *(["ruling"] if one.terms.arbiter else [])))
        if kind in ("settled", "locked"):
            unsigned = state(
                one, held.outpoint, random.choice((0, 329_999, 330_000, 20_000_000)), LOCK if kind == "locked" else None
            )
        elif kind in ("refund", "ruling"):
            height = one.terms.refund_height if kind == "refund" else one.terms.ruling_height
            unsigned = replace(unsigned, lock_time=height)
        elif kind == "lapse":
            unsigned = replace(unsigned, inputs=(replace(spending, sequence=one.terms.claim_delay_blocks),))
        return kind, self._sign(kind, one, self._lie(unsigned, held))

    def _sign(self, kind: str, one: Contract, unsigned: Tx) -> Tx:
        script = one.conditional_script(LOCK) if kind in ("claim", "lapse") else one.witness_script
        value = self._value(unsigned)

        def pen(key: object, branch: Branch | None) -> bytes:
            secret = ARBITER if branch is None else one.secret(key, branch)  # type: ignore[arg-type]
            return sign_spend(secret, unsigned.digest(0, script, value))

        match kind:
            case "settled" | "locked":
                witness = one.cooperative_witness(pen(BUYER, Branch.COOPERATE), pen(SELLER, Branch.COOPERATE))
            case "ruling":
                witness = one.ruling_witness(pen(None, None), pen(self.random.choice((BUYER, SELLER)), Branch.RULE))
            case "refund":
                witness = one.refund_witness(pen(BUYER, Branch.REFUND))
            case "claim":
                witness = one.claim_witness(LOCK, KEY, pen(SELLER, Branch.CLAIM))
            case _:
                witness = one.lapse_witness(LOCK, pen(BUYER, Branch.LAPSE))
        return unsigned.with_witness(0, witness)

    def _value(self, unsigned: Tx) -> int:
        info = self.chain.outpoint(unsigned.inputs[0].outpoint)
        return 0 if info is None else info.value_sat

    def _lie(self, unsigned: Tx, held: Held) -> Tx:
        random, chain, spending = self.random, self.chain, unsigned.inputs[0]
        match random.choice(LIES):
            case "lock time":
                moment = chain.median_time(chain.height)
                locks = (0, chain.height - 1, chain.height, chain.height + 1, moment - 1, moment, moment + 1, 0xFFFFFFFF)
                return replace(unsigned, lock_time=random.choice(locks))
            case "sequence":
                age = chain.height + 1 - held.height
                since = chain.median_time(chain.height) - chain.median_time(max(held.height - 1, 0))
                units = [*(max(0, age + more) for more in (-1, 0, 1, 2)), *(1 << 22 | since // 512 + more for more in (0, 1))]
                sequence = random.choice((*units, SEQUENCE_FINAL, SEQUENCE_FINAL - 1, 1 << 31, 1 << 31 | 5, 0x1_0000 | age))
                return replace(unsigned, inputs=(replace(spending, sequence=sequence),))
            case "version":
                return replace(unsigned, version=random.choice((1, 1, 3, 0, -1, 4)))
            case "amount":
                more = random.choice((-held.output.value_sat, 1, held.output.value_sat, 22_000_000 * 100_000_000))
                first = replace(unsigned.outputs[0], value_sat=unsigned.outputs[0].value_sat + more)
                return replace(unsigned, outputs=(first, *unsigned.outputs[1:]))
            case "gone":
                away = replace(spending, outpoint=random.choice((OutPoint(bytes(32), 0), OutPoint(held.outpoint.txid, 99))))
                return replace(unsigned, inputs=(away,)) if random.random() < 0.5 else unsigned
            case "twice":
                return replace(unsigned, inputs=(spending, spending)) if random.random() < 0.5 else unsigned
            case _:
                return unsigned

    # --- verdicts -----------------------------------------------------------------------------------------------

    def _ask(self, kind: str, transaction: Tx, held: Held) -> None:
        word = ""
        try:
            self.chain.submit(transaction.serialise())
        except Rejected as refused:
            word = refused.code
        height, mined, why = self.chain.height, True, ""
        try:
            self.chain.mine_exactly([transaction], 0)
        except Rejected as refused:
            mined, why = False, refused.sentence
        if mined != (word == "") and word not in POLICY:
            raise Disagreement(
                f"{kind} at {height}: the room says {word or 'yes'!r}, a block {why or 'holds it'!r}: {transaction}"
            )
        self.counts[kind, "accepted" if mined else "refused"] += 1
        if word in POLICY:
            self.counts["(policy alone)" if mined else "(policy first)", "refused"] += 1
        if mined and held in self.held:
            self.held.remove(held)
            first = transaction.outputs[0]
            if held.contract is not None and first.script == p2wsh(held.contract.conditional_script(LOCK)):
                self.held.append(Held("locked", held.contract, OutPoint(transaction.txid, 0), first, self.chain.height))

    def _balance(self) -> None:
        """A balance near the least that is enforced: the core says whether its claim is worth the fee, the chain the rest."""
        random, feerate = self.random, self.random.choice((1_000, 1_001, 2_500, 10_000))
        terms = terms_at(self.chain.height, random.random() < 0.5, nonce=random.randbytes(32), feerate_sat_per_kvb=feerate)
        one = contract_of("regtest", terms)
        self.chain.submit(build_funding(self.chain, [one.funding]))
        paying = self.chain.mempool_ids()[-1]
        paid_sat = enforced_from_sat(feerate) + random.choice((-150, -2, -1, 0, 1, 300))
        coop = [one.secret(key, Branch.COOPERATE) for key in (BUYER, SELLER)]
        funding = OutPoint(paying, 0)
        der = sign_state(one, coop[0], funding, paid_sat * 1_000, LOCK)
        close = complete(one, state(one, funding, paid_sat * 1_000, LOCK), der, coop[1])
        self.chain.submit(close.serialise())
        worth = paid_sat >= enforced_from_sat(feerate)
        taking = claim(one, close, LOCK, KEY, SELLER, claim_fee_sat(one, feerate, with_parent=False)) if paid_sat >= 330 else None
        if worth != (taking is not None):
            raise Disagreement(
                f"a balance of {paid_sat} sat at {feerate}: enforced {worth}, and there is a claim: {taking is not None}"
            )
        if taking is not None:
            self.chain.submit(taking.serialise())
        early = refund(one, funding, BUYER, feerate)
        try:
            self.chain.submit(early.serialise())
        except Rejected:
            pass
        else:
            raise Disagreement("a refund waits before its time")
        self.chain.mine()
        if self.chain.mempool_ids():
            raise Disagreement("the kernel left a state or its claim out")
        self.counts["balance", "accepted" if worth else "refused"] += 1
