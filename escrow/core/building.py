"""Signed transactions out of an account's coins: payments with change, fundings with a memo, and sweeps of everything."""

from collections.abc import Sequence
from typing import Final

from escrow.core.amounts import DUST_P2WPKH_SAT, dust_sat, fee_sat
from escrow.core.memo import data_output, sealed
from escrow.core.script import p2wpkh, p2wpkh_code
from escrow.core.selection import INPUT_VBYTES, Coins, choose
from escrow.core.spends import sign_spend
from escrow.core.transaction import Tx, TxIn, prefixed
from wire.errors import Refused
from wire.keys import SecretKey
from wire.limits import WALLET_INPUTS_MAX
from wire.ports import TxOut

_SIGNATURE_MOST: Final = bytes(72)
_OVERHEAD_VBYTES: Final = 11
_MANY_VBYTES: Final = 2  # for the longer count of more than 252 inputs


def payment(key: SecretKey, coins: Coins, outputs: Sequence[TxOut], notes: Sequence[bytes], feerate_sat_per_kvb: int) -> Tx:
    """Pays ``outputs`` from index 0; then a memo if there are notes, then change if there is any. Raises ``Refused``."""
    script = p2wpkh(key.public)
    for one in outputs:
        least = dust_sat(one.script)
        if one.value_sat < least:
            raise Refused("dust", f"{one.value_sat} sat are less than the {least} that nodes relay to such an address")
    room = [data_output(b"".join(notes))] if any(notes) else []
    wanted = sum(one.value_sat for one in outputs)
    fixed = _OVERHEAD_VBYTES + _MANY_VBYTES + sum(8 + len(prefixed(one.script)) for one in (*outputs, *room))
    chosen = choose(coins, wanted + fee_sat(fixed, feerate_sat_per_kvb), feerate_sat_per_kvb)
    if chosen is None:
        have = sum(value for _, value in coins)
        raise Refused("no-funds", f"{wanted} sat and fees are needed, the wallet has {have} to spend")
    total = sum(value for _, value in chosen)
    changed = _draft(key, chosen, (*outputs, *room, TxOut(0, script)))
    rest = total - wanted - fee_sat(changed.vsize, feerate_sat_per_kvb)
    change = [TxOut(rest, script)] if rest >= DUST_P2WPKH_SAT else []
    memo = [sealed(key, chosen[0][0], (*outputs, *change), notes)] if room else []
    return _signed(key, chosen, (*outputs, *memo, *change))


def sweep(key: SecretKey, coins: Coins, script: bytes, feerate_sat_per_kvb: int) -> Tx:
    """Pays everything worth its own input to ``script``, the largest coins where there are too many. Raises ``Refused``."""
    cost = fee_sat(INPUT_VBYTES, feerate_sat_per_kvb)
    worth = sorted((one for one in coins if one[1] > cost), key=lambda one: -one[1])[:WALLET_INPUTS_MAX]
    total = sum(value for _, value in worth)
    fee = fee_sat(_draft(key, worth, (TxOut(0, script),)).vsize, feerate_sat_per_kvb) if worth else 0
    if total - fee < dust_sat(script):
        raise Refused("no-funds", f"after the fee nothing is left of {total} sat")
    return _signed(key, worth, (TxOut(total - fee, script),))


def _draft(key: SecretKey, chosen: Coins, outputs: Sequence[TxOut]) -> Tx:
    witness = (_SIGNATURE_MOST, key.public)
    inputs = tuple(TxIn(outpoint=outpoint, witness=witness) for outpoint, _ in chosen)
    return Tx(inputs=inputs, outputs=tuple(outputs))


def _signed(key: SecretKey, chosen: Coins, outputs: Sequence[TxOut]) -> Tx:
    transaction = _draft(key, chosen, outputs)
    code = p2wpkh_code(key.public)
    for index, (_, value_sat) in enumerate(chosen):
        signature = sign_spend(key, transaction.digest(index, code, value_sat))
        transaction = transaction.with_witness(index, (signature, key.public))
    return transaction
