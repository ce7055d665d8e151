"""A channel written down for other wallets: everything its owner needs to get his money out without this program.

**Worth as much as the account.** A branch's secret is the account's secret plus a number that the other party knows: whoever is
given one, and that number, has the account. So an export is for its owner's own wallet and nobody else.
"""

from collections.abc import Sequence
from typing import Any

from escrow.core.contract import Branch, contract_of
from escrow.core.descriptor import conditional_descriptor, escrow_descriptor
from escrow.core.spends import complete, state
from escrow.core.state import ChannelRow, PastLock, Role
from escrow.core.transaction import read_outpoint, show_id
from wire.account import to_wif
from wire.errors import Refused
from wire.keys import SecretKey
from wire.network import Network
from wire.ports import OutPoint

WARNING = (
    "each WIF below is worth the whole account: it is the account's secret plus a number that the other party knows; "
    "give it to nobody"
)


def export(key: SecretKey, network: Network, row: ChannelRow, locks: Sequence[PastLock]) -> dict[str, Any]:
    """The channel as plain values. Raises ``Refused`` when it was never funded."""
    if row.funding is None:
        raise Refused("not-funded", "this channel has no money on the chain, so there is nothing to recover")
    contract, funding = contract_of(network.name, row.terms), read_outpoint(row.funding)
    told: dict[str, Any] = {
        "warning": WARNING,
        "channel": contract.channel.hex(),
        "role": row.role.value,
        "network": network.bitcoin,
        "phase": row.phase.value,
        "txid": show_id(funding.txid),
        "vout": funding.vout,
        "capacity_sat": row.terms.capacity_sat,
        "address_script": contract.funding.script.hex(),
        "witness_script": contract.witness_script.hex(),
        "descriptor": escrow_descriptor(contract),
        "refund_height": row.terms.refund_height,
        "ruling_height": row.terms.ruling_height or None,
    }
    if row.role is Role.BUYER:
        refund = contract.secret(key, Branch.REFUND)
        lapse = contract.secret(key, Branch.LAPSE)
        told["refund"] = {
            "descriptor": escrow_descriptor(contract, refund),
            "wif": to_wif(refund, test=not network.real_money),
            "how": f"import the descriptor; from height {row.terms.refund_height} on the wallet can spend the output "
            f"{show_id(funding.txid)}:{funding.vout} with that lock time",
        }
        told["lapses"] = [
            {
                "descriptor": conditional_descriptor(contract, one.lock, lapse),
                "how": f"if the seller publishes the state of payment {one.sequence} and does not claim it, the wallet can "
                f"spend its first output {row.terms.claim_delay_blocks} blocks later",
            }
            for one in sorted(locks, key=lambda one: -one.sequence)
        ]
    else:
        told["closes"] = _closes(key, row, funding, network)
    return told


def _closes(key: SecretKey, row: ChannelRow, funding: OutPoint, network: Network) -> list[dict[str, Any]]:
    contract = contract_of(network.name, row.terms)
    coop = contract.secret(key, Branch.COOPERATE)
    until = (row.terms.ruling_height or row.terms.refund_height) - 1
    found = []
    if row.settled_signature is not None:
        unsigned = state(contract, funding, row.settled_msat, None)
        how = f"broadcast it before height {until}; it pays {row.settled_msat // 1_000} sat to the account"
        found.append({"raw": complete(contract, unsigned, row.settled_signature, coop).serialise().hex(), "how": how})
    if row.last is not None and row.last.key is not None:
        unsigned = state(contract, funding, row.last.paid_msat, row.last.lock)
        claim = contract.secret(key, Branch.CLAIM)
        found.append(
            {
                "raw": complete(contract, unsigned, row.last.signature, coop).serialise().hex(),
                "descriptor": conditional_descriptor(contract, row.last.lock, claim),
                "preimage": row.last.key.hex(),
                "how": f"broadcast it before height {until}; its first output, {row.last.paid_msat // 1_000} sat, is the "
                f"account's with the preimage, for {row.terms.claim_delay_blocks} blocks before the buyer may take it",
            }
        )
    return found
