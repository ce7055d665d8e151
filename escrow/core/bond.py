"""Bonds: coins that an account has locked until a height, where everybody can see them and nobody else can touch them.

    bond   wsh(and_v(v:pk(K),after(until)))     K = P + H(until)·G, P the account's key

The key is a public tweak of the account's, so the output shows whose bond it is to whoever knows the account, and the account's
key and the height alone are enough to find it and to spend it. A bond is nobody's security: nobody can take it. It shows that
the account gave up the use of these coins for so long.
"""

from escrow.core.amounts import DUST_P2WPKH_SAT, fee_sat
from escrow.core.contract import HEIGHT_MAX
from escrow.core.descriptor import with_checksum
from escrow.core.script import Op, assemble, p2wpkh, p2wsh
from escrow.core.transaction import SIGHASH_ALL, Tx, TxIn
from wire.digest import context, digest
from wire.errors import Refused
from wire.keys import SecretKey, tweak_public
from wire.ports import OutPoint, TxOut

RELEASE_VBYTES = 122


class BadBond(Refused):
    """These coins cannot be locked or released like that."""


def _tweak(network: str, until_height: int) -> bytes:
    if not 0 < until_height <= HEIGHT_MAX:
        raise BadBond("bad-height", f"a bond ends at a height from 1 to {HEIGHT_MAX}")
    return digest(context(network, "bond/key"), until_height.to_bytes(4, "big"))


def bond_script(network: str, account: bytes, until_height: int) -> bytes:
    """The witness script of a bond. Raises ``BadBond``."""
    key = tweak_public(account, _tweak(network, until_height))
    return assemble(key, Op.CHECKSIGVERIFY, until_height, Op.CHECKLOCKTIMEVERIFY)


def bond_output(network: str, account: bytes, value_sat: int, until_height: int) -> TxOut:
    """The output that holds a bond."""
    return TxOut(value_sat, p2wsh(bond_script(network, account, until_height)))


def bond_descriptor(network: str, account: bytes, until_height: int) -> str:
    """The bond for other wallets, with its key in hex."""
    key = tweak_public(account, _tweak(network, until_height))
    return with_checksum(f"wsh(and_v(v:pk({key.hex()}),after({until_height})))")


def release(network: str, key: SecretKey, outpoint: OutPoint, value_sat: int, until_height: int, feerate_sat_per_kvb: int) -> Tx:
    """The account takes its bond back, to its own key; valid in blocks above ``until_height``. Raises ``BadBond``."""
    rest_sat = value_sat - fee_sat(RELEASE_VBYTES, feerate_sat_per_kvb)
    if rest_sat < DUST_P2WPKH_SAT:
        raise BadBond("bond-dust", "at this fee rate the bond is worth less than its release costs")
    unsigned = Tx(inputs=(TxIn(outpoint=outpoint),), outputs=(TxOut(rest_sat, p2wpkh(key.public)),), lock_time=until_height)
    script = bond_script(network, key.public, until_height)
    signature = key.tweaked(_tweak(network, until_height)).sign_ecdsa(unsigned.digest(0, script, value_sat))
    return unsigned.with_witness(0, (signature + bytes([SIGHASH_ALL]), script))
