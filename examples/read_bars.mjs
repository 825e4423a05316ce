// Minute bars in Node with no package at all: XREADGROUP over a plain socket (RESP is simple enough).
// node read_bars.mjs 127.0.0.1 16379 my_client       (password: environment variable REDIS_PASSWORD)
// With the npm package "redis" the same is client.xReadGroup(group, id, { key, id: ">" }, { COUNT: 500, BLOCK: 2000 }).
import net from "node:net";

const [host = "127.0.0.1", port = "16379", client = "plain_node"] = process.argv.slice(2);
const STREAM = "minute_bar_stream", GROUP = `minute_bar_consumers:${client}`;
const socket = net.connect({ host, port: Number(port) });
let buffer = Buffer.alloc(0);
const waiting = [];

socket.on("data", (data) => {
  buffer = Buffer.concat([buffer, data]);
  for (let reply; waiting.length && (reply = parse(0)); ) {
    buffer = buffer.subarray(reply.end);
    const { resolve, reject } = waiting.shift();
    reply.value instanceof Error ? reject(reply.value) : resolve(reply.value);
  }
});
socket.on("error", (error) => { console.error(`no Redis at ${host}:${port}: ${error.message}`); process.exit(1); });

function parse(at) { // one RESP2 value, or null while it has not arrived as a whole
  const eol = buffer.indexOf("\r\n", at);
  if (eol < 0) return null;
  const head = buffer.toString("utf8", at + 1, eol), end = eol + 2;
  switch (String.fromCharCode(buffer[at])) {
    case "+": return { value: head, end };
    case "-": return { value: new Error(head), end };
    case ":": return { value: Number(head), end };
    case "$": {
      const length = Number(head);
      if (length < 0) return { value: null, end };
      return buffer.length < end + length + 2 ? null : { value: buffer.toString("utf8", end, end + length), end: end + length + 2 };
    }
    case "*": {
      const values = [];
      let next = end;
      for (let i = 0; i < Number(head); i++) {
        const item = parse(next);
        if (!item) return null;
        values.push(item.value);
        next = item.end;
      }
      return { value: Number(head) < 0 ? null : values, end: next };
    }
    default: throw new Error(`unexpected reply of Redis: ${head}`);
  }
}

function call(...args) {
  const parts = args.map((arg) => `$${Buffer.byteLength(String(arg))}\r\n${arg}\r\n`);
  socket.write(`*${args.length}\r\n${parts.join("")}`);
  return new Promise((resolve, reject) => waiting.push({ resolve, reject }));
}

if (process.env.REDIS_PASSWORD) await call("AUTH", process.env.REDIS_PASSWORD);
await call("XGROUP", "CREATE", STREAM, GROUP, "0", "MKSTREAM").catch((error) => {
  if (!error.message.includes("BUSYGROUP")) throw error;
});
let position = "0"; // first what an earlier life left unacknowledged, then ">"
for (;;) {
  const reply = await call("XREADGROUP", "GROUP", GROUP, client, "COUNT", 500, "BLOCK", 2000, "STREAMS", STREAM, position);
  const entries = reply?.[0]?.[1] ?? [];
  if (!entries.length) { position = ">"; continue; }
  for (const [, fields] of entries) {
    if (!fields) continue; // trimmed before it was acknowledged
    const bar = Object.fromEntries(fields.flatMap((name, i) => (i % 2 ? [] : [[name, fields[i + 1]]])));
    console.log(bar.symbol, bar.frame, bar.close, bar.vol, "revision", bar.revision);
  }
  await call("XACK", STREAM, GROUP, ...entries.map(([id]) => id));
  if (position !== ">") position = entries.at(-1)[0];
}
