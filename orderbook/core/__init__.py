"""The market without a wire: messages, books, the auction, gossip, reconciliation and agreement, all pure."""
