// Submits a workflow and waits for its outcome, with nothing but public NATS libraries.
//
//     node submit.mjs URL WORKFLOW ARGUMENTS_AS_JSON
//
// Prints the outcome as JSON. Exit code 0: there is one; 1: none came in time, or the request was
// not accepted; 2: wrong usage.

import { randomUUID } from "node:crypto";
import { decode } from "@msgpack/msgpack";
import { jetstream } from "@nats-io/jetstream";
import { connect, headers } from "@nats-io/transport-node";

const OUTCOME_WITHIN = 30_000; // ms

// Bodies are msgpack, or JSON. No msgpack map begins with the byte of "{".
function decodeBody(message) {
  return message.data[0] === "{".charCodeAt(0) ? message.json() : decode(message.data);
}

async function submit(connection, workflow, args) {
  // The id makes the request idempotent: published twice, it is still one run.
  const run = randomUUID();

  // Subscribed before the request is published, and known to the server: no outcome can be missed.
  // The server repeats it there once it is stored, and only if it counts.
  const outcomes = connection.subscribe(`cb.journal.${run}.done`, { max: 1, timeout: OUTCOME_WITHIN });
  await connection.flush();

  const h = headers();
  h.set("Content-Type", "application/json");
  h.set("Nats-Msg-Id", run);
  h.set("Cb-Run", run);
  // The acknowledgement is the acceptance: from here on the request is stored.
  await jetstream(connection).publish(`cb.request.${workflow}`, args, { headers: h });

  for await (const message of outcomes) {
    return decodeBody(message);
  }
}

const [url, workflow, args] = process.argv.slice(2);
if (args === undefined) {
  console.error("usage: node submit.mjs URL WORKFLOW ARGUMENTS_AS_JSON");
  process.exit(2);
}
const connection = await connect({ servers: url, name: "submit.mjs" });
try {
  console.log(JSON.stringify(await submit(connection, workflow, args)));
} catch (error) {
  console.error(`${workflow}: ${error.message}`);
  process.exitCode = 1;
} finally {
  await connection.close();
}
