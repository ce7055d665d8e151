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
HALF_OPEN_MAX: Final = 256
HANDSHAKE_TIMEOUT_S: Final = 10
INBOUND_STREAMS_PER_PEER_MAX: Final = 128
STREAM_WINDOW_BYTES: Final = 1 << 20
STREAM_WINDOW_MAX_BYTES: Final = 4 << 20
STREAM_BUFFER_MAX_BYTES: Final = 16 << 20
MUX_FRAME_MAX_BYTES: Final = 1 << 18
MUX_PACKET_BYTES: Final = 65_519  # what one noise packet carries
MUX_QUEUE_FRAMES: Final = 32
MUX_CONTROL_FRAMES: Final = 512
KEEPALIVE_S: Final = 15
SILENCE_MAX_S: Final = 45
LETTER_LIFE_S: Final = 60
COURIER_PEERS_MAX: Final = 1_024
KNOWN_PEERS_MAX: Final = 4_096
GOSSIP_RPC_MAX_BYTES: Final = 1 << 20
GOSSIP_STREAMS_PER_PEER_MAX: Final = 4
GOSSIP_ITEMS_PER_S: Final = 200  # messages, ids and control entries from one forwarder
GOSSIP_ITEMS_MAX: Final = 2_000
GOSSIP_BYTES_PER_S: Final = 1 << 20
GOSSIP_BYTES_MAX: Final = 8 << 20
GOSSIP_OUTBOX: Final = 8  # what we want to publish and cannot yet
GOSSIP_QUEUE_RPCS: Final = 32  # waiting for one peer of the topic

# --- order book --------------------------------------------------------------------------------------------
ORDER_MAX_BYTES: Final = 1_024
ORDER_LIFE_MAX_EPOCHS: Final = 60
ORDER_LIFE_DEFAULT_EPOCHS: Final = 5
ORDER_RETAIN_EPOCHS: Final = 60
BATCH_MAX_BYTES: Final = 65_000
BATCH_MAX_ORDERS: Final = 512
BATCH_MAX_NAMES: Final = 1_900
NAMES_TOLD_MAX: Final = 32  # times that names were told, for which their ages are remembered: longer than anyone waits for them
BATCH_WINDOW_MIN_MS: Final = 10
BATCH_WINDOW_MAX_MS: Final = 50
BATCH_AGE_MAX_MS: Final = 65_535  # stands for "not known, or older"
VERIFY_AT_ONCE_MAX: Final = 48  # signatures
VERIFY_SLICE: Final = 512
VERIFY_TOGETHER_MIN: Final = 96  # thrice the signatures less four times the authors; less is cheaper one by one
VERIFY_LINGER_S: Final = 0.02  # for a slice to fill up
VERIFY_PATIENCE_S: Final = 0.005  # that others may go first before each slice
BOOKS_MAX: Final = 4_096
BOOK_MESSAGES_MAX: Final = 200_000
MARKET_MESSAGES_MAX: Final = 300_000  # of all books together, about 2.3 kB each: 0.7 GB
OWNER_ORDERS_MAX: Final = 8  # of one owner, side and slot with one first epoch
OWNER_CLOSES_MAX: Final = 128  # of one owner naming one epoch
OWNER_PROOFS_MAX: Final = 8  # about one signer with one epoch
NEIGHBOURS_MIN: Final = 6
NEIGHBOURS_MAX: Final = 12
NEIGHBOURS_EASY: Final = 7  # with more than these, one is let go in every round of the mesh
MESH_ROUND_S: Final = 60
MESH_STEP_S: Final = 5  # between two articles' rounds at one node
RELAY_OUTBOX_MESSAGES: Final = 20_000
RELAY_KNOWN_IDS: Final = 65_536
NAMES_FROM: Final = 16  # messages that wait for one neighbour: those that we only pass on are named to him, and not sent
NAMED_PATIENCE_MS: Final = 1_000  # for whoever named a message and was asked for it; then another is asked
NAMED_ASKS_MAX: Final = 3
NAMED_WANTED_MAX: Final = 20_000
RECONCILE_ROUNDS_MAX: Final = 256
RECONCILE_BARREN_ROUNDS_MAX: Final = 32  # rounds one after another that bring no id to light
RECONCILE_FRAME_BYTES: Final = 60_000
RECONCILE_NEED_MAX: Final = BOOK_MESSAGES_MAX
RECONCILE_INTERVAL_MS: Final = 4_000
RECONCILE_REST_MS: Final = 500  # from one comparison to the next that a difference calls for
RECONCILE_BUSY_PER_S: Final = 256  # messages that have come into it since the last comparison
RECONCILE_BUSY_REST_MS: Final = 30_000
RECONCILE_TIMEOUT_MS: Final = 3_000
RECONCILE_SESSIONS_MAX: Final = 32  # that we keep open with one neighbour; further books wait their turn
RECONCILE_WARM_NEIGHBOURS: Final = 3  # compared with shortly before a freeze, of each book
RECONCILE_WINDOW_IDS: Final = 2_048  # of one session, asked for or waiting for verification
RECONCILE_BYTES_PER_S: Final = 256 << 10  # reconciliation messages with one neighbour, both directions
RECONCILE_BYTES_MAX: Final = 16 << 20
RECONCILE_ROUNDS_PER_S: Final = 4_096
RECONCILE_ROUNDS_BURST: Final = 16_384
RELAY_CHECKS_MAX: Final = 20_000
RELAY_QUEUE_FRAMES: Final = 4_096
RELAY_QUEUE_BYTES: Final = 32 << 20
RELAY_TOKENS_PER_S: Final = 4_000
RELAY_TOKENS_MAX: Final = 40_000
PULLS_PER_TOKEN: Final = 16  # ids: to look a message up is cheaper than to judge one
BRIDGE_INTERVAL_MS: Final = 600  # between two batches of ours on the topic
BRIDGE_BATCH_MAX_BYTES: Final = 1 << 16
BRIDGE_OUTBOX_MESSAGES: Final = 4_096
BRIDGE_TOKENS_PER_S: Final = 1_000  # messages that the topic may bring, from everybody together
BRIDGE_TOKENS_MAX: Final = 10_000
AGREEMENTS_PER_EPOCH_MAX: Final = 4_096
AUCTION_DEPTH: Final = 4
AUCTION_ORDERS_MAX: Final = 1 << 32  # on one side; sums of their units stay exact
AUCTION_COLUMNS_MIN: Final = 2_000  # orders from which the auction over columns is the faster

# --- market data -------------------------------------------------------------------------------------------
TAPE_BOOKS_MAX: Final = 64  # books with a history; the one that has not traded for longest gives way
TAPE_SLOTS_MAX: Final = 512  # time slots of one length that are kept, counted back from the latest
TAPE_EPOCHS_MAX: Final = 256  # auctions that price advice looks back at
TAPE_WRITE_S: Final = 5  # a kill loses this much of the history at most
DEPTH_LEVELS_MAX: Final = 256  # prices of one side that are told at once

# --- content -----------------------------------------------------------------------------------------------
CHUNK_MIN_BYTES: Final = 4_096
CHUNK_AVERAGE_BYTES: Final = 16_384
CHUNK_MAX_BYTES: Final = 131_072
CONTENT_MAX_BYTES: Final = 512 << 20
MANIFEST_MAX_CHUNKS: Final = 65_536
WISH_LIST_MAX: Final = 64
TRANSFERS_MAX: Final = 32
STORE_QUOTA_BYTES: Final = 4 << 30
CHUNK_NORMALISATION: Final = 3  # FastCDC's level 3: 17.8 kB on average, hardly a chunk above 32 kB
MANIFEST_PAGE_MIN: Final = 32  # entries; fewer than this never end a page
MANIFEST_PAGE_MAX: Final = 512
MANIFEST_PAGE_MAX_BYTES: Final = 32_768
TRANSFER_WINDOW_CHUNKS: Final = 128
TRANSFER_WINDOW_BYTES: Final = 4 << 20
TRANSFER_READ_CHUNKS: Final = 16
TRANSFER_STALL_S: Final = 30
TRANSFERS_PER_PEER_MAX: Final = 8
FETCH_ATTEMPTS_MAX: Final = 8
FETCH_RETRY_FIRST_MS: Final = 200  # doubled with every attempt
FETCH_RETRY_MOST_MS: Final = 5_000
GRANTS_MAX: Final = 65_536
STORE_BLOCK_BYTES: Final = 1 << 20
STORE_ROW_BYTES: Final = 256  # charged to the quota for every stored thing besides its bytes

# --- trades ------------------------------------------------------------------------------------------------
DEALS_OPEN_MAX: Final = 1_024
UNITS_PER_DEAL_MAX: Final = 1_024
JOBS_WAITING_MAX: Final = 4_096
UNIT_ATTEMPTS_MAX: Final = 8
CHANNELS_MAX: Final = 256
CHANNEL_CAPACITY_MIN_FEE_MULTIPLE: Final = 20
CHANNEL_CAPACITY_MAX_SAT: Final = 2_000_000
FIRST_EXPOSURE_MAX_SAT: Final = 500_000  # in channels with a seller we have bought nothing from
EXPOSURE_STEP_SAT: Final = 100_000  # more with every finished unit
EXPOSURE_LEVEL_MAX: Final = 64
UNITS_IN_FLIGHT_FIRST: Final = 4  # unpaid work for a buyer we have sold nothing to
BATCH_UNITS_MAX: Final = 16
BATCHES_UNPAID_MAX: Final = 8  # that a seller remembers in a channel
GATHER_WAIT_S: Final = 2  # a seller who does not put units under one key in this time is paid singly
RECEIPTS_MAX: Final = 4_096  # units whose evidence is kept; the oldest gives way
RECEIPTS_WITH_CIPHERTEXT_MAX: Final = 16  # the oldest loses its ciphertext, not its other evidence
EVIDENCE_CIPHER_MAX_BYTES: Final = 512 << 10  # a ciphertext that travels inside a proof
EVIDENCE_MAX_BYTES: Final = 528 << 10
FRAUD_MAX_BYTES: Final = EVIDENCE_MAX_BYTES
FRAUDS_MAX: Final = 64  # proofs that are kept, one for an account; the oldest gives way
FRAUD_IDS_MAX: Final = 16
FRAUD_ASKS_MAX: Final = 4  # proofs that one neighbour is asked for at once
FRAUD_ASKED_MAX: Final = 2  # neighbours that are asked for one proof at once
FRAUD_ANSWER_S: Final = 30  # then somebody else may be asked
FRAUD_PER_NEIGHBOUR_MAX: Final = 64  # letters about proofs at once, and one a second
APPEAL_BUNDLES_MAX: Final = 8
STATEMENT_MAX_BYTES: Final = 480
APPEALS_AT_ONCE_MAX: Final = 16  # of one account, and one a second
CASES_MAX: Final = 64  # of an arbiter; decided ones make room
APPEALS_MAX: Final = 256  # of a party
ARBITERS_MAX: Final = 16
BONDS_OWN_MAX: Final = 8
BONDS_KNOWN_MAX: Final = 256  # of others; the oldest gives way
BOND_LEAST_SAT: Final = 10_000
BOND_BLOCKS_MAX: Final = 52_560  # a year
BONDED_EXPOSURE_MAX_SAT: Final = 20_000_000
MANDATES_MAX: Final = 256
MANDATE_TRADES_MAX: Final = 1_000_000
MANDATE_MINUTES_MAX: Final = 527_040  # a leap year
STALLS_MAX: Final = 128
DRAIN_MAX_S: Final = 60  # a stopping seller waits so long for what its workers have begun

# --- workers -----------------------------------------------------------------------------------------------
WORKERS_MAX: Final = 64
WORK_TIME_MAX_S: Final = 300
WORK_MEMORY_MAX_BYTES: Final = 2 << 30
RESULT_MAX_BYTES: Final = 256 << 20
WORKER_MEMORY_DEFAULT_BYTES: Final = 1 << 30  # address space; the interpreter with numpy takes a tenth of it
WORKER_OPEN_FILES_MAX: Final = 64
WORKER_LOG_MAX_BYTES: Final = 64 << 10  # also the largest file a worker can write
WORKER_NICENESS: Final = 10  # computing gives way to trading
HTTP_WORKERS_MAX: Final = 64
HTTP_WORKER_NAME_MAX_CHARS: Final = 64
HTTP_WORKER_URL_MAX_CHARS: Final = 255
HTTP_WORKER_CONNECT_S: Final = 10
HTTP_WORKER_IDLE_WAIT_S: Final = 20  # from its last result to its next registration, while a unit waits for it
HTTP_WORKER_BLOCK_S: Final = 20  # nothing is sold through a worker for so long after a failure
RAYS_SPHERES_MAX: Final = 128
RAYS_TEXTURE_MAX_SIDE: Final = 1_024
RAYS_IMAGE_MAX_SIDE: Final = 16_384
RAYS_SAMPLES_MAX: Final = 4_096
RAYS_BOUNCES_MAX: Final = 16
RAYS_TILES_MAX: Final = 4_096
RAYS_COST_MAX_SEGMENTS: Final = 1 << 28  # pixels x samples x bounces of one work

# --- sandboxes and what runs in them -------------------------------------------------------------------------
SANDBOX_TEMP_MAX_BYTES: Final = 1 << 30  # all files together; they are kept in memory
SANDBOX_FILES_MAX: Final = 1_024
SANDBOX_MEMORY_MAX_BYTES: Final = 256 << 30
SANDBOX_PATROL_MS: Final = 100  # how often the memory of all processes inside is added up
SANDBOX_IDLE_S: Final = 120  # a scene that nobody asks for is let go after this
SANDBOX_START_S: Final = 60
COMMAND_MEMORY_DEFAULT_BYTES: Final = 2 << 30
COMMAND_PROCESSES_MAX: Final = 64
BLENDER_MEMORY_DEFAULT_BYTES: Final = 8 << 30
BLENDER_PROCESSES_MAX: Final = 512  # threads count
BLENDER_SCENE_MAX_BYTES: Final = CONTENT_MAX_BYTES - 4_096
BLENDER_SIDE_MAX: Final = 65_536
BLENDER_TILE_MAX_PIXELS: Final = 1 << 24
BLENDER_CHANNELS_MAX: Final = 256
BLENDER_LINE_MAX_BYTES: Final = 16_384  # one line of talk between a node and its Blender

# --- local API ---------------------------------------------------------------------------------------------
BODY_MAX_BYTES: Final = CONTENT_MAX_BYTES
API_REQUESTS_MAX: Final = 1_024
API_CONNECTIONS_MAX: Final = 2_048
API_BODY_IDLE_S: Final = 30  # a client that sends nothing for so long in the middle of its body is given up
API_IDLE_CONNECTION_S: Final = 15
API_LINGER_BYTES: Final = 4 << 20  # read and thrown away after an early refusal, so that the client gets to read it
API_LINGER_S: Final = 1
API_HEARTBEAT_S: Final = 15
API_STOP_GRACE_S: Final = 2
API_WAIT_DEFAULT_S: Final = 60
API_WAIT_MAX_S: Final = 86_400
API_FORM_MAX_BYTES: Final = 64 << 10  # every body but work
API_EVENTS_KEPT: Final = 1_000
API_BOOK_MESSAGES_MAX: Final = 10_000  # of one book, in one answer
API_EVENTS_BEHIND_MAX: Final = 1_000  # a listener that is further behind is let go

# --- queues and journal ------------------------------------------------------------------------------------
INBOX_EVENTS: Final = 8_192
JOURNAL_QUEUE: Final = 4_096
SEQUENCE_BLOCK: Final = 1_000

# --- discovery ---------------------------------------------------------------------------------------------
PROVIDE_INTERVAL_S: Final = 2
PROVIDERS_MAX: Final = 20
PROVIDER_LIFE_S: Final = 1_800
PROVIDER_KEYS_MAX: Final = 16_384
REANNOUNCE_S: Final = 600
LOOKUP_TIMEOUT_S: Final = 15
KAD_STREAMS_PER_PEER_MAX: Final = 8
KAD_STREAM_TIMEOUT_S: Final = 30
CANDIDATES_PER_ARTICLE_MAX: Final = 64
CANDIDATE_LIFE_S: Final = 1_800
SEEK_FIRST_S: Final = 1
SEEK_MAX_S: Final = 30

# --- escrow and chain --------------------------------------------------------------------------------------
TX_MAX_BYTES: Final = 400_000  # a standard transaction weighs no more
ESCROW_LETTER_MAX_BYTES: Final = 1_024
PAYMENTS_WAITING_MAX: Final = 64
PAYMENTS_PER_CHANNEL_MAX: Final = 16_384
PAYMENT_REF_MAX_BYTES: Final = 64
LETTER_RESEND_S: Final = 5
LETTER_RESEND_MAX_S: Final = 60
CHANNEL_ANSWER_WAIT_S: Final = 30
CHANNEL_FUND_WAIT_S: Final = 120
CHANNEL_CLOSE_WAIT_S: Final = 10
CREDIT_MAX_SAT: Final = 1_000
CHAIN_LOOKBACK_BLOCKS: Final = 2_016
RECOVERY_LOOK_BLOCKS: Final = 4_032  # read by default when escrows are looked for on a public chain: four weeks
WATCH_INTERVAL_MS: Final = 250
WATCHED_MAX: Final = 2_048
CHECKED_TRANSACTIONS_MAX: Final = 4_096  # by which a chain's answers are checked
SCRIPT_MAX_BYTES: Final = 10_000
CHAIN_STILL_S: Final = 10_800  # a public chain without a block for so long is said to stand still
SUBMIT_PAUSE_MAX_S: Final = 60
MEMPOOL_MAX_TRANSACTIONS: Final = 5_000
MEMPOOL_ANCESTORS_MAX: Final = 25
WALLET_INPUTS_MAX: Final = 256
SELECTION_STEPS_MAX: Final = 20_000  # of the search for coins that need no change
PAYMENTS_REMEMBERED_MAX: Final = 1_000  # by the name their asker gave them
REQUEST_NAME_MAX_CHARS: Final = 64
ADDRESS_MAX_CHARS: Final = 100
RECALLED_PEERS_MAX: Final = 256
HISTORY_DEFAULT_BLOCKS: Final = 144  # read by default for a history on a public chain: a day
RPC_BODY_MAX_BYTES: Final = 1 << 20
RPC_BATCH_MAX: Final = 256
RPC_BLOCKS_MAX: Final = 2_000
RPC_TIMEOUT_S: Final = 30
FAR_TIMEOUT_S: Final = 30  # for one question to an Esplora or Electrum server
FAR_READ_TIMEOUT_S: Final = 10  # after which bdkpython gives up a silent connection by itself
FAR_THREADS_MAX: Final = 4
FAR_HISTORY_MAX: Final = 4_096  # transactions of one script
FAR_KEPT_MAX_BYTES: Final = 32 << 20  # of transactions that were fetched
FAR_LINE_MAX_BYTES: Final = 4 << 20
FAR_WATCH_INTERVAL_MS: Final = 5_000  # between looks at a server of someone else
