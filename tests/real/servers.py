#!/usr/bin/env python3
"""Real servers with a real model, driven by a scenario, and what came back held against what must be.

    python3 tests/real/servers.py target/release/sagebench MODEL.gguf [--python PYTHON] [--folder DIR]

With a Python that has `llama-cpp-python[server]`, llama.cpp's server is started with the model. This program's own `serve`
computes the same model by `kind: candle`, and is driven the same way. Any difference makes the script end with status 1.
"""

import argparse
import json
import pathlib
import re
import socket
import subprocess
import sys
import time
import urllib.request

PROMPT, ANSWER = 48, 16
SCENARIO = """
version: 1
backends:
  texts: {{ kind: {kind}, base_url: "{url}/v1", endpoint: completions{tokenizer}, wait_ready: 60s }}
  chats: {{ kind: {kind}, base_url: "{url}/v1", endpoint: chat{tokenizer}, wait_ready: 60s }}
backend: [texts, chats]
defaults:
  prompt: {{ kind: synthetic, tokens: {prompt} }}
  timeout: 5m
workloads:
  streamed: {{ output: {{ max_tokens: {answer}, temperature: 0 }}, load: {{ kind: closed, concurrency: 2, requests: 6 }} }}
  whole: {{ output: {{ max_tokens: {answer}, temperature: 0, stream: false }}, load: {{ kind: closed, concurrency: 1, requests: 4 }} }}
validity: {{ lag: "off", busy: "off" }}
"""
SERVE = """
version: 1
backends: {{ cpu: {{ kind: candle, model: {model}, kv: {{ tokens: 4096 }} }} }}
workloads: {{ any: {{ prompt: {{ kind: synthetic, tokens: 8 }}, output: {{ tokens: 1 }}, load: {{ kind: closed, concurrency: 1, requests: 1 }} }} }}
"""


def llamacpp(python, model, folder):
    """llama.cpp's server. One request interrupts another one, unless it is told not to."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = open(folder / "llamacpp.log", "w")
    command = [python, "-m", "llama_cpp.server", "--model", model, "--host", "127.0.0.1", "--port", str(port),
               "--n_ctx", "2048", "--interrupt_requests", "False"]
    server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    return server, f"http://127.0.0.1:{port}"


def own(binary, model, folder):
    """This program's `serve`, which computes the model."""
    scenario = folder / "serve.yaml"
    scenario.write_text(SERVE.format(model=json.dumps(str(model))))
    server = subprocess.Popen([binary, "serve", scenario, "--listen", "127.0.0.1:0"], stderr=subprocess.PIPE, text=True)
    for line in server.stderr:
        if found := re.search(r"(http://\S+)/v1", line):
            return server, found[1]
    sys.exit("`serve` did not start")


def wait(url):
    """Until the server lists its model, whose id comes back."""
    for _ in range(600):
        try:
            with urllib.request.urlopen(url + "/v1/models", timeout=5) as answer:
                return json.load(answer)["data"][0]["id"]
        except OSError:
            time.sleep(0.1)
    sys.exit(f"nothing answers at {url}")


def drive(binary, name, url, kind, tokenizer, folder):
    """Applies the scenario, and says what is not as it must be."""
    model = wait(url)
    folder = folder / name
    folder.mkdir(exist_ok=True)
    tokenizer = f", tokenizer: {json.dumps(str(tokenizer))}" if tokenizer else ""
    (folder / "scenario.yaml").write_text(
        SCENARIO.format(url=url, kind=kind, tokenizer=tokenizer, prompt=PROMPT, answer=ANSWER))
    done = subprocess.run([binary, "apply", folder / "scenario.yaml", "--output", folder / "out", "--quiet"],
                          capture_output=True, text=True)
    wrong = [] if done.returncode == 0 else [f"ended with status {done.returncode}: {done.stderr}"]
    run = json.loads((folder / "out" / "run.json").read_text())
    for backend in run["backends"]:
        if backend["server"]["model"] != model:
            wrong.append(f"the model of {backend['name']} is {backend['server']['model']}, and the server's is {model}")
        if not backend["server"]["exact_prompts"]:
            wrong.append(f"prompts of {backend['name']} are not exact")
    records = [json.loads(line) for line in open(folder / "out" / "requests.jsonl")]
    if len(records) != 20:
        wrong.append(f"{len(records)} records, not 20")
    added = set()
    for record in records:
        which = f"{record['backend']} {record['workload']} {record['index']}"
        if record["outcome"] != "success":
            wrong.append(f"{which}: {record['outcome']}: {record.get('message')}")
            continue
        if not 1 <= record["output_tokens"] <= ANSWER:
            wrong.append(f"{which}: {record['output_tokens']} tokens")
        if not 0 < record["ttft_ms"] <= record["e2e_ms"]:
            wrong.append(f"{which}: TTFT {record['ttft_ms']} of {record['e2e_ms']} ms")
        if record["token_source"] == "usage":
            more = record["prompt_tokens"] - PROMPT
            if record["backend"] == "chats":
                added.add(more)
            elif more != 0:
                wrong.append(f"{which}: {record['prompt_tokens']} prompt tokens")
        elif record["workload"] == "whole":
            wrong.append(f"{which}: tokens counted by {record['token_source']}")
    # What a chat template adds is the same around every prompt.
    if len(added) != 1 or min(added) <= 0:
        wrong.append(f"the chat template adds {sorted(added)} tokens")
    tokens = sum(record["output_tokens"] for record in records)
    print(f"{name}: {len(records)} requests, {tokens} tokens, the chat template adds {sorted(added)}")
    return [f"{name}: {what}" for what in wrong]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sagebench", type=pathlib.Path)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--python", type=pathlib.Path)
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path("target/servers"))
    asked = parser.parse_args()
    folder = asked.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    binary, model = asked.sagebench.resolve(), asked.model.resolve()
    wrong = []
    servers = [("serve", lambda: own(binary, model, folder), "vllm", None)]
    if asked.python:
        servers.append(("llamacpp", lambda: llamacpp(asked.python, model, folder), "openai", model))
    for name, start, kind, tokenizer in servers:
        server, url = start()
        try:
            wrong += drive(binary, name, url, kind, tokenizer, folder)
        finally:
            server.terminate()
            server.wait()
    for what in wrong:
        print(what, file=sys.stderr)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
