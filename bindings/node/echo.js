// SPDX-License-Identifier: Apache-2.0

// Takes each packet of ring "in", writes its bytes in capitals, and puts it into ring "out". When "in" is shut down, it puts a
// packet of its own there, which says how many they were. An example of how Node.js uses ssm.h, by koffi:
//
//	npm install && SSM_LIBRARY=/usr/lib/libssm.so node echo.js POOL
"use strict";

const { promisify } = require("node:util");
const koffi = require("koffi");

const FOREVER = -1n;
const AS_IT_IS = 0xffffffff;
const E_SHUTDOWN = 4102;

koffi.opaque("ssm_pool");
koffi.opaque("ssm_ring");
const RingOptions = koffi.struct("ssm_ring_options", {
  size: "size_t",
  capacity: "uint32_t",
  flags: "uint32_t",
  as_it_is: "uint32_t",
  alive_for_ns: "uint64_t",
  content: "const char *",
  existing: "uint32_t",
});
koffi.struct("ssm_packet", {
  data: "void *",
  length: "uint64_t",
  headroom: "uint64_t",
  tailroom: "uint64_t",
  block_size: "uint64_t",
});
const library = koffi.load(process.env.SSM_LIBRARY || "libssm.so");
const strerror = library.func("const char *ssm_strerror(int error)");
const attach = library.func("int ssm_attach_name(const char *name, void *options, int64_t timeout, _Out_ ssm_pool **pool)");
const leave = library.func("int ssm_close_name(const char *name, ssm_pool *pool)");
const openRing = library.func("int ssm_ring_open(ssm_pool *pool, const char *name, ssm_ring_options *options, _Out_ ssm_ring **ring)");
const closeRing = library.func("void ssm_ring_close(ssm_ring *ring)");
const alloc = library.func("int ssm_alloc(ssm_pool *pool, uint64_t size, int64_t timeout, _Out_ uint64_t *handle)");
const view = library.func("int ssm_packet_view(ssm_pool *pool, uint64_t handle, _Out_ ssm_packet *packet)");
const get = library.func("int ssm_ring_get(ssm_ring *ring, _Out_ uint64_t *handles, uint32_t count, int64_t timeout)");
const put = library.func("int ssm_ring_put(ssm_ring *ring, uint64_t *handles, uint32_t count, uint32_t flags, int64_t timeout)");

function check(result) {
  if (result < 0) throw new Error(strerror(result));
  return result;
}

// A call that may wait does so in a thread of koffi's, and the event loop goes on.
const wait = (call, ...rest) => promisify(call.async)(...rest);

function open(pool, name) {
  const ring = [null];
  check(openRing(pool, name, { size: koffi.sizeof(RingOptions), as_it_is: AS_IT_IS }, ring));
  return ring[0];
}

// The memory is the pool's, until the packet is put: use no view of it after that.
function bytesOf(pool, handle) {
  const packet = {};
  check(view(pool, handle, packet));
  return Buffer.from(koffi.view(packet.data, Number(packet.length)));
}

async function echo(pool, from, to) {
  const handle = new BigUint64Array(1);
  for (let count = 0; ; count++) {
    const got = await wait(get, from, handle, 1, FOREVER);
    if (got === -E_SHUTDOWN) return count;
    check(got);
    const bytes = bytesOf(pool, handle[0]);
    bytes.write(bytes.toString("latin1").toUpperCase(), "latin1");
    check(await wait(put, to, handle, 1, 0, FOREVER));
  }
}

async function run(name) {
  const pool = [null];
  check(attach(name, null, 0n, pool));
  const from = open(pool[0], "in");
  const to = open(pool[0], "out");
  const text = `${await echo(pool[0], from, to)} packets`;
  const handle = new BigUint64Array(1);
  check(await wait(alloc, pool[0], text.length, FOREVER, handle));
  bytesOf(pool[0], handle[0]).write(text);
  check(await wait(put, to, handle, 1, 0, FOREVER));
  closeRing(from);
  closeRing(to);
  check(leave(name, pool[0]));
}

if (process.argv.length !== 3) {
  console.error("usage: node echo.js POOL");
  process.exitCode = 2;
} else {
  run(process.argv[2]).catch((error) => {
    console.error(`${process.argv[2]}: ${error.message}`);
    process.exitCode = 1;
  });
}
