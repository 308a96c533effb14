// Asks the YAML language server, as an editor does, what it thinks of scenario files, and compares.
//
// usage: node editors.mjs SERVER FILE...
// A file that says `# schema-error: yes` must get an error on one of the lines that its .stderr file names;
// one that says `# schema-error: no` is not asked about; any other file must get no error.
// Then it is asked at places of a scenario that is being written: what it completes there, and what it says about a key.
import { spawn } from "node:child_process";
import { readFileSync, statSync } from "node:fs";
import { basename, resolve } from "node:path";
import { pathToFileURL } from "node:url";

const [server, ...files] = process.argv.slice(2);
const child = spawn(process.execPath, [server, "--stdio"], { stdio: ["pipe", "pipe", "inherit"] });
const waiting = new Map();
const answers = new Map();
let buffer = Buffer.alloc(0);
let next = 1;

function write(message) {
  const body = Buffer.from(JSON.stringify({ jsonrpc: "2.0", ...message }));
  child.stdin.write(`Content-Length: ${body.length}\r\n\r\n`);
  child.stdin.write(body);
}

function request(method, params) {
  const id = next++;
  write({ id, method, params });
  return new Promise((done) => waiting.set(id, done));
}

function receive(message) {
  if (message.method === "textDocument/publishDiagnostics") {
    answers.get(message.params.uri)?.(message.params.diagnostics);
  } else if (message.method === "workspace/configuration") {
    const schema = pathToFileURL(resolve("schemas/scenario.schema.json")).href;
    const settings = { validate: true, schemaStore: { enable: false }, schemas: { [schema]: "**/bad/*.yaml" } };
    write({ id: message.id, result: message.params.items.map((item) => (item.section === "yaml" ? settings : null)) });
  } else if (message.method && message.id !== undefined) {
    write({ id: message.id, result: null });
  } else if (waiting.has(message.id)) {
    waiting.get(message.id)(message.result);
    waiting.delete(message.id);
  }
}

child.stdout.on("data", (chunk) => {
  buffer = Buffer.concat([buffer, chunk]);
  for (;;) {
    const head = buffer.indexOf("\r\n\r\n");
    if (head < 0) return;
    const length = Number(/Content-Length: (\d+)/i.exec(buffer.subarray(0, head).toString())[1]);
    if (buffer.length < head + 4 + length) return;
    receive(JSON.parse(buffer.subarray(head + 4, head + 4 + length).toString()));
    buffer = buffer.subarray(head + 4 + length);
  }
});
child.on("exit", (code) => code && process.exit(code));

await request("initialize", {
  processId: process.pid,
  rootUri: pathToFileURL(process.cwd()).href,
  capabilities: { workspace: { configuration: true }, textDocument: { publishDiagnostics: {} } },
});
write({ method: "initialized", params: {} });

async function diagnose(file, text) {
  const uri = pathToFileURL(resolve(file)).href;
  const answer = new Promise((done) => answers.set(uri, done));
  const limit = new Promise((_, fail) => setTimeout(() => fail(new Error(`no answer about ${file}`)), 60_000).unref());
  write({ method: "textDocument/didOpen", params: { textDocument: { uri, languageId: "yaml", version: 1, text } } });
  return Promise.race([answer, limit]);
}

function expectedLines(file) {
  const rendered = readFileSync(`${file}.stderr`, "utf8");
  const places = rendered.matchAll(/--> (\S+?):(\d+):\d+/g);
  return [...places].filter(([, path]) => basename(path) === basename(file)).map(([, , line]) => Number(line));
}

let wrong = 0;
let asked = 0;
for (const file of files.filter((file) => statSync(file).isFile())) {
  const text = readFileSync(file, "utf8").replace(/^\ufeff/, "");
  // A broken file that has no line to say so (an empty one) is not asked about either.
  if (/^# schema-error: no/m.test(text) || (file.includes("bad/") && !text.startsWith("# schema-error"))) continue;
  asked += 1;
  const found = (await diagnose(file, text)).map((d) => `${d.range.start.line + 1}: ${d.message}`);
  const broken = /^# schema-error: yes/m.test(text);
  const right = broken
    ? expectedLines(file).some((line) => found.some((entry) => entry.startsWith(`${line}: `)))
    : found.length === 0;
  if (!right) {
    wrong += 1;
    console.log(`${file}: ${broken ? `no error on line ${expectedLines(file)}` : "errors in a valid file"}; the editor says ${JSON.stringify(found)}`);
  }
}
// `|` is where the cursor stands. Where a union stands its completions must be all of its kinds, in the schema's words.
const schema = JSON.parse(readFileSync("schemas/scenario.schema.json", "utf8"));
const head = "version: 1\nbackends:\n  m: { kind: mock, ttft: 1ms, tbt: 1ms }\nworkloads:\n  w:\n";
const kinds = (union) => (schema.$defs[union].anyOf ?? []).map((one) => one.properties?.kind?.const).filter(Boolean);
const values = (name) => schema.$defs[name].anyOf.flatMap((one) => one.enum ?? []);
const completions = [
  ["version: 1\nbackends:\n  m:\n    kind: |", kinds("Backend")],
  ["version: 1\nbackends:\n  m:\n    kind: candle\n    speculative:\n      kind: |", kinds("Drafting")],
  ["version: 1\nbackends:\n  m:\n    kind: mock\n    ttft:\n      kind: |", kinds("Time")],
  ["version: 1\nbackends:\n  m:\n    kind: mock\n    faults:\n      - action:\n          kind: |", kinds("FaultAction")],
  [`${head}    prompt:\n      kind: |`, kinds("Prompt")],
  [`${head}    prompt:\n      kind: synthetic\n      tokens:\n        kind: |`, kinds("Tokens")],
  [`${head}    prompt:\n      kind: sessions\n      turns:\n        kind: |`, kinds("Turns")],
  [`${head}    prompt:\n      kind: mix\n      parts:\n        - prompt:\n            kind: |`, kinds("MixedPrompt")],
  [`${head}    load:\n      kind: |`, kinds("Load")],
  [`${head}    load:\n      kind: open\n      arrival:\n        kind: |`, kinds("Arrival")],
  [`${head}    expect:\n      - kind: |`, kinds("Check")],
  ["version: 1\nbackends:\n  m:\n    kind: mock\n    preset: |", values("Preset")],
  [`${head}    load:\n      kind: closed\n      |`, ["concurrency", "think_time", "ramp_up", "requests", "sessions", "duration"]],
  ["version: 1\ngates:\n  |", ["confidence", "inconclusive", "rules"]],
  ["version: 1\n|", ["workloads", "backends", "seed", "hooks", "metrics", "slo", "reports"]],
];
// The first character behind `|` is what the mouse rests on; the text must be shown, and where there are some, the examples.
const hovers = [
  ["version: 1\n|seed: 3\n", "Seeds every draw"],
  ["version: 1\nbackends:\n  m: { kind: mock, |ttft: 1ms, tbt: 1ms }\n", "time from admission to the first token"],
  ["version: 1\nbackends:\n  m:\n    kind: mock\n    kv:\n      |block_tokens: 16\n", "Tokens in one block"],
  [`${head}    |prompt: { kind: synthetic, tokens: 5 }\n`, "Where prompts come from"],
  [`${head}    prompt: { kind: synthetic, |tokens: 5 }\n`, "before any chat template"],
  [`${head}    load: { kind: open, |rate: 8/s }\n`, "Mean arrival rate"],
  [`${head}    load: { |kind: closed, concurrency: 2 }\n`, "A fixed number of users"],
  [`${head}    expect:\n      - { kind: json, |allow_fence: true }\n`, "fenced code block"],
  [`${head}    |slo: [ttft <= 500ms]\n`, "tpot <= 30ms"],
  [`${head}    |matrix:\n      - { load.concurrency: [1, 2] }\n`, "load.concurrency"],
  ["version: 1\ngates:\n  |confidence: 95%\n", "How sure a verdict"],
  ["version: 1\nbaselines:\n  main: { |missing: skip, path: a.json }\n", "first night"],
  [`${head}    |cache: keep\n`, "Whatever it knows"],
];

function place(text) {
  const before = text.slice(0, text.indexOf("|")).split("\n");
  return { line: before.length - 1, character: before.at(-1).length };
}

let number = 0;
async function ask(method, marked) {
  const uri = pathToFileURL(resolve(`tests/bad/being-written-${number++}.yaml`)).href;
  const text = marked.replace("|", "");
  write({ method: "textDocument/didOpen", params: { textDocument: { uri, languageId: "yaml", version: 1, text } } });
  return request(method, { textDocument: { uri }, position: place(marked) });
}

for (const [text, wanted] of completions) {
  const answer = await ask("textDocument/completion", text);
  const labels = (answer.items ?? answer).map((item) => item.label);
  const missing = wanted.filter((label) => !labels.includes(label));
  if (missing.length > 0 || wanted.length === 0) {
    wrong += 1;
    console.log(`no completion ${missing} in\n${text}\nbut ${labels}`);
  }
}
for (const [text, wanted] of hovers) {
  const answer = await ask("textDocument/hover", text);
  const said = answer?.contents?.value ?? "";
  if (!said.replaceAll("\\", "").replaceAll("&lt;", "<").includes(wanted)) {
    wrong += 1;
    console.log(`no ${JSON.stringify(wanted)} over\n${text}\nbut ${JSON.stringify(said)}`);
  }
}
console.log(`editor: ${asked} files asked about, ${completions.length} completions, ${hovers.length} hovers, ${wrong} wrong`);
child.kill();
process.exitCode = wrong === 0 ? 0 : 1;
