// A bcoin node on regtest, in memory, without peers, its JSON-RPC on loopback. It lives as long as its standard input.
//
// bcoin answers sendrawtransaction with a txid before it has looked at the transaction, so one method is added: `offer` waits
// for the verdict of its mempool and returns the reason of a refusal, or the empty string.
'use strict';

const { FullNode, TX } = require('bcoin');

const node = new FullNode({
  network: 'regtest',
  memory: true,
  workers: false,
  listen: false,
  httpHost: '127.0.0.1',
  httpPort: Number(process.argv[2]),
  apiKey: process.env.BITWRK_BCOIN_KEY,
  indexTX: true,
  requireStandard: true,
  replaceByFee: true,
  logLevel: 'none',
});

node.rpc.add('offer', async (args) => {
  try {
    const missing = await node.mempool.addTX(TX.fromRaw(Buffer.from(args[0], 'hex')));
    return missing ? 'missing-inputs' : '';
  } catch (error) {
    if (error.type !== 'VerifyError') throw error;
    return error.reason;
  }
});

(async () => {
  await node.open();
  console.log('ready');
  process.stdin.resume();
  process.stdin.on('end', () => process.exit(0));
})().catch((error) => {
  console.error(error);
  process.exit(1);
});
