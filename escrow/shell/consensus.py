"""Bitcoin Core's own validation in this process: libbitcoinkernel running regtest. The only door to ``pbk``.

What the library does not say plainly is settled here. ``process_block`` returns True for a block with an invalid script: a
block counts as accepted only when it became the tip, and the reason comes from the ``block_checked`` callback, whose state may
be read only inside it. Callbacks must not raise, so they only note what happened. The folder is locked by its owner.
"""

import gc
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from escrow.core.transaction import Tx
from wire.errors import LocalFault, require
from wire.ports import Rejected, TxOut


@dataclass(frozen=True, slots=True)
class Connected:
    """A block became part of the best chain, or stopped being it."""

    raw: bytes
    height: int
    connected: bool


def verify_input(transaction: Tx, index: int, spent: Sequence[TxOut]) -> bool:
    """Whether consensus accepts input ``index`` of ``transaction``; ``spent`` are the outputs that all its inputs spend."""
    import pbk
    from pbk.script import PrecomputedTransactionData

    # The library asserts this itself, by ending the process.
    require(len(spent) == len(transaction.inputs), "spent-outputs", "one spent output goes with each input")
    parsed = pbk.Transaction(transaction.serialise())
    outputs = [pbk.TransactionOutput(pbk.ScriptPubkey(one.script), one.value_sat) for one in spent]
    data = PrecomputedTransactionData(parsed, outputs)
    script = pbk.ScriptPubkey(spent[index].script)
    return bool(script.verify(spent[index].value_sat, parsed, data, index, pbk.ScriptVerificationFlags.ALL))


class Consensus:
    """One regtest chain in a folder of its own. Not for several threads at once."""

    def __init__(self, folder: Path) -> None:
        import pbk

        self._pbk: Any = pbk
        self._events: list[Connected] = []
        self._verdict = ""
        callbacks = pbk.ValidationInterfaceCallbacks(
            block_checked=self._checked, block_connected=self._connected, block_disconnected=self._disconnected
        )
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._manager: Any = pbk.load_chainman(folder, pbk.ChainType.REGTEST, callbacks)
        except (RuntimeError, OSError) as error:
            raise LocalFault(
                "chain-folder",
                f"the chain in {folder} cannot be opened: another program has it open, or it is damaged ({error})",
            ) from None
        self._callbacks = callbacks
        self._chain: Any = self._manager.get_active_chain()
        self._events.clear()

    def _checked(self, _: Any, block: Any, state: Any) -> None:
        mode = state.validation_mode.name.lower()
        if mode != "valid":
            self._verdict = f"{mode}, {state.block_validation_result.name.lower()}"

    def _connected(self, _: Any, block: Any, entry: Any) -> None:
        self._events.append(Connected(bytes(block), int(entry.height), True))

    def _disconnected(self, _: Any, block: Any, entry: Any) -> None:
        self._events.append(Connected(bytes(block), int(entry.height), False))

    @property
    def height(self) -> int:
        """Height of the best block."""
        return int(self._chain.height)

    def block_hash(self, height: int) -> bytes:
        """32 bytes, internal order, of the best chain's block at ``height``."""
        return bytes(self._chain.block_tree_entries[height].block_hash)

    def block(self, height: int) -> bytes:
        """The serialised block at ``height`` of the best chain."""
        return bytes(self._manager.blocks[self._chain.block_tree_entries[height]])

    def process(self, raw: bytes) -> list[Connected]:
        """Offer a block; what it changed in the best chain, in order. Empty for a valid block on a shorter branch.

        Raises ``Rejected`` when the block, or the branch that it makes the longest, is invalid. What such a branch took
        off the chain the kernel has put back by then, so there is nothing to tell.
        """
        self._events, self._verdict = [], ""
        before = self.block_hash(self.height)
        try:
            self._manager.process_block(self._pbk.Block(raw))
        except (self._pbk.KernelException, RuntimeError, ValueError) as error:
            raise Rejected("bad-block", f"malformed block: {error}, {self._verdict}") from None
        moved = self.block_hash(self.height) != before
        if not moved and self._verdict:
            raise Rejected("bad-block", f"invalid block: {self._verdict}")
        events, self._events = self._events, []
        return events

    def close(self) -> None:
        """Give the folder back."""
        self._chain = None
        self._manager = None
        self._callbacks = None
        gc.collect()
