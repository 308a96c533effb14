// Asks the YAML language server, as an editor does, what it thinks of scenario files, and compares.
//
// usage: node editors.mjs SERVER FILE...
// A file that says `# schema-error: yes` must get an error on one of the lines that its .stderr file names;
// one that says `# schema-error: no` is not asked about; any other file must get no error.
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
console.log(`editor: ${asked} files asked about, ${wrong} wrong`);
child.kill();
process.exitCode = wrong === 0 ? 0 : 1;
