"""Every bound of the house, in one table. Reaching one is an event somebody sees, never a silent loss.

Names carry their unit last. A room reads its bounds from here and declares none of its own.
"""

from typing import Final

# --- amounts -----------------------------------------------------------------------------------------------
PRICE_MAX_MSAT: Final = 1 << 40
QUANTITY_MAX: Final = 1 << 16
SUPPLY_MAX_SAT: Final = 21_000_000 * 100_000_000

# --- names -------------------------------------------------------------------------------------------------
ARTICLE_MAX_CHARS: Final = 128
REASON_MAX_CHARS: Final = 240
AVOID_MAX: Final = 8
OWNER_SLOTS: Final = 8

# --- frames and streams ------------------------------------------------------------------------------------
FRAME_MAX_BYTES: Final = 1 << 20
STREAM_WRITE_BYTES: Final = 65_507  # one yamux frame in one noise packet
STREAM_READ_BYTES: Final = 1 << 18
FRAME_TIMEOUT_S: Final = 30
DIAL_TIMEOUT_S: Final = 5
PEERS_MAX: Final = 256
PEER_OUTBOX_FRAMES: Final = 4_096
ADDRESSES_PER_PEER_MAX: Final = 16
HALF_OPEN_PER_ADDRESS_MAX: Final = 64

# --- order book --------------------------------------------------------------------------------------------
ORDER_MAX_BYTES: Final = 1_024
ORDER_LIFE_MAX_EPOCHS: Final = 60
ORDER_LIFE_DEFAULT_EPOCHS: Final = 5
ORDER_RETAIN_EPOCHS: Final = 60
BATCH_MAX_BYTES: Final = 65_000
BATCH_MAX_ORDERS: Final = 512
BATCH_WINDOW_MS: Final = 50
VERIFY_BATCH_MIN: Final = 64
BOOKS_MAX: Final = 1_024
BOOK_MESSAGES_MAX: Final = 200_000
NEIGHBOURS_MIN: Final = 6
NEIGHBOURS_MAX: Final = 12
RELAY_OUTBOX_MESSAGES: Final = 20_000
RELAY_KNOWN_IDS: Final = 65_536
RECONCILE_ROUNDS_MAX: Final = 32
AUCTION_DEPTH: Final = 4

# --- content -----------------------------------------------------------------------------------------------
CHUNK_MIN_BYTES: Final = 4_096
CHUNK_AVERAGE_BYTES: Final = 16_384
CHUNK_MAX_BYTES: Final = 131_072
CONTENT_MAX_BYTES: Final = 512 << 20
MANIFEST_MAX_CHUNKS: Final = 65_536
WISH_LIST_MAX: Final = 64
TRANSFERS_MAX: Final = 32
STORE_QUOTA_BYTES: Final = 4 << 30

# --- trades ------------------------------------------------------------------------------------------------
DEALS_OPEN_MAX: Final = 1_024
UNITS_PER_DEAL_MAX: Final = 1_024
JOBS_WAITING_MAX: Final = 4_096
UNIT_ATTEMPTS_MAX: Final = 8
CHANNELS_MAX: Final = 256
CHANNEL_CAPACITY_MIN_FEE_MULTIPLE: Final = 20
FIRST_EXPOSURE_MAX_SAT: Final = 2_000_000

# --- workers -----------------------------------------------------------------------------------------------
WORKERS_MAX: Final = 64
WORK_TIME_MAX_S: Final = 300
WORK_MEMORY_MAX_BYTES: Final = 2 << 30
RESULT_MAX_BYTES: Final = 256 << 20

# --- local API ---------------------------------------------------------------------------------------------
BODY_MAX_BYTES: Final = CONTENT_MAX_BYTES
API_REQUESTS_MAX: Final = 1_024

# --- queues and journal ------------------------------------------------------------------------------------
INBOX_EVENTS: Final = 8_192
JOURNAL_QUEUE: Final = 4_096
SEQUENCE_BLOCK: Final = 1_000

# --- discovery ---------------------------------------------------------------------------------------------
PROVIDE_INTERVAL_S: Final = 2
PROVIDERS_MAX: Final = 20
