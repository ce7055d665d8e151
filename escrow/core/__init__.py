"""The rules of the escrow: scripts, transactions, letters and the two channel machines. Pure; imports only the cellar."""
