#!/usr/bin/env python3
"""Load generators from elsewhere against `sagebench serve`, and what they report beside what is true.

    python3 tests/real/clients.py target/release/sagebench [--streams 16,128] [--only openai,aiperf] [--folder DIR]
                                  [--python guidellm=PYTHON]

Each client has a virtual environment of its own in the folder (default: target/clients), which is made from PyPI the first
time, unless `--python` names one that has it. The server answers every request after 50 ms, and then with a token every 10 ms;
every request asks for 128 tokens. A table of what was reported goes to the standard output. A client that fails, loses
requests, or counts other tokens makes the script end with status 1.
"""

import argparse
import asyncio
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import time

TTFT, TBT, TOKENS, ROUNDS = 50.0, 10.0, 128, 4
E2E = TTFT + (TOKENS - 1) * TBT
SCENARIO = f"""
version: 1
backends: {{ mock: {{ kind: mock, model: calibrated, ttft: {TTFT:.0f}ms, tbt: {TBT:.0f}ms }} }}
workloads: {{ any: {{ prompt: {{ kind: synthetic, tokens: 64 }}, output: {{ tokens: {TOKENS} }}, load: {{ kind: closed, concurrency: 1, requests: 1 }} }} }}
"""
COLUMNS = ["ttft_p50", "ttft_p99", "itl_mean", "itl_p99", "e2e_p50", "e2e_p99", "tokens"]
PACKAGES = {"openai": ["openai==3.57.0"], "aiperf": ["aiperf==0.13.0"], "guidellm": ["guidellm==0.8.1"]}


class Failed(Exception):
    """A client did not do what it was asked for."""


def environment(name, folder):
    """The Python of a client's own environment."""
    place = folder / name
    python = place / "bin" / "python"
    if not (place / "complete").exists():
        subprocess.run([sys.executable, "-m", "venv", place], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PACKAGES[name]], check=True)
        (place / "complete").touch()
    return python


def serve(binary, folder):
    """The server and its URL."""
    scenario = folder / "serve.yaml"
    scenario.write_text(SCENARIO)
    server = subprocess.Popen(
        [binary, "serve", scenario, "--listen", "127.0.0.1:0"],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=keep_on(cores()[1]),
    )
    for line in server.stderr:
        if found := re.search(r"(http://\S+)/v1", line):
            return server, found[1]
    raise Failed("the server did not start")


def quantile(values, q):
    """The smallest value that a share `q` of them does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * q // 1).__int__() - 1)]


def keep_on(cores):
    """Keeps the process that calls it on these cores."""
    return lambda: os.sched_setaffinity(0, cores)


def cores():
    """Those of the clients, and the server's own."""
    own = sorted(os.sched_getaffinity(0))
    return (own[:-1], own[-1:]) if len(own) > 1 else (own, own)


def call(command, folder, log, expected=(0,)):
    """Runs a client; its output goes to a file."""
    with open(folder / log, "w") as out:
        done = subprocess.run(
            command, cwd=folder, stdout=out, stderr=subprocess.STDOUT, preexec_fn=keep_on(cores()[0])
        )
        status = done.returncode
    if status not in expected:
        tail = (folder / log).read_text()[-1500:]
        raise Failed(f"{command[0]} ended with status {status}:\n{tail}")


def sagebench(binary, url, streams, folder):
    """This program as a client."""
    out = folder / "out"
    scenario = folder / "client.yaml"
    scenario.write_text(f"""
version: 1
backends: {{ server: {{ kind: openai, base_url: "{url}/v1" }} }}
workloads:
  calibration:
    prompt: {{ kind: synthetic, tokens: 64 }}
    output: {{ tokens: {TOKENS} }}
    load: {{ kind: closed, concurrency: {streams}, requests: {streams * ROUNDS} }}
""")
    # 5: it says itself that it was late.
    call([binary, "apply", scenario, "--output", out, "--quiet"], folder, "log", expected=(0, 5))
    found = json.loads((out / "calibration_metrics.json").read_text())
    if found["failed_requests"] or found["successful_requests"] != streams * ROUNDS:
        raise Failed(f"{found['failed_requests']} requests failed")
    return {
        "remark": "" if found["valid"] else " (INVALID, it says)",
        "ttft_p50": found["p50_ttft_ms"], "ttft_p99": found["p99_ttft_ms"],
        "itl_mean": found["avg_tbt_ms"], "itl_p99": found["p99_tbt_ms"],
        "e2e_p50": found["p50_e2e_ms"], "e2e_p99": found["p99_e2e_ms"],
        "tokens": found["avg_output_tokens"],
    }


OPENAI = f"""
import asyncio, json, sys, time
from openai import AsyncOpenAI

async def user(client, requests, seen):
    for _ in range(requests):
        begun, last, tokens = time.perf_counter(), None, 0
        stream = await client.chat.completions.create(
            model="calibrated", messages=[{{"role": "user", "content": "word " * 64}}], max_tokens={TOKENS}, stream=True,
            stream_options={{"include_usage": True}}, extra_body={{"ignore_eos": True}})
        async for chunk in stream:
            if chunk.usage:
                tokens = chunk.usage.completion_tokens
            if chunk.choices and chunk.choices[0].delta.content:
                now = time.perf_counter()
                if last is None:
                    seen["ttft"].append((now - begun) * 1e3)
                else:
                    seen["itl"].append((now - last) * 1e3)
                last = now
        seen["e2e"].append((last - begun) * 1e3)
        seen["tokens"].append(tokens)

async def main(url, streams):
    client = AsyncOpenAI(base_url=url + "/v1", api_key="none", max_retries=0)
    seen = {{"ttft": [], "itl": [], "e2e": [], "tokens": []}}
    await asyncio.gather(*(user(client, {ROUNDS}, seen) for _ in range(streams)))
    json.dump(seen, open("seen.json", "w"))

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


def openai(python, url, streams, folder):
    """A plain script with OpenAI's own client."""
    (folder / "load.py").write_text(OPENAI)
    call([python, "load.py", url, str(streams)], folder, "log")
    seen = json.loads((folder / "seen.json").read_text())
    if len(seen["e2e"]) != streams * ROUNDS:
        raise Failed(f"{len(seen['e2e'])} of {streams * ROUNDS} requests were answered")
    return {
        "ttft_p50": quantile(seen["ttft"], 0.5), "ttft_p99": quantile(seen["ttft"], 0.99),
        "itl_mean": statistics.fmean(seen["itl"]), "itl_p99": quantile(seen["itl"], 0.99),
        "e2e_p50": quantile(seen["e2e"], 0.5), "e2e_p99": quantile(seen["e2e"], 0.99),
        "tokens": statistics.fmean(seen["tokens"]),
    }


def aiperf(python, url, streams, folder):
    """NVIDIA's AIPerf."""
    call([
        python.parent / "aiperf", "profile", "--model", "calibrated", "--url", url, "--endpoint-type", "chat", "--streaming",
        "--concurrency", str(streams), "--request-count", str(streams * ROUNDS), "--synthetic-input-tokens-mean", "64",
        "--output-tokens-mean", str(TOKENS), "--extra-inputs", "ignore_eos:true", "--tokenizer", str(folder.parent.parent / "model"),
        "--use-server-token-count", "--artifact-dir", "artifacts", "--ui", "none",
    ], folder, "log")
    found = json.loads(next(folder.glob("artifacts/**/profile_export_aiperf.json")).read_text())
    number = lambda name, statistic: found[name][statistic]
    if number("request_count", "avg") != streams * ROUNDS:
        raise Failed(f"{number('request_count', 'avg')} of {streams * ROUNDS} requests were answered")
    return {
        "ttft_p50": number("time_to_first_token", "p50"), "ttft_p99": number("time_to_first_token", "p99"),
        "itl_mean": number("inter_token_latency", "avg"), "itl_p99": number("inter_token_latency", "p99"),
        "e2e_p50": number("request_latency", "p50"), "e2e_p99": number("request_latency", "p99"),
        "tokens": number("output_sequence_length", "avg"),
    }


def guidellm(python, url, streams, folder):
    """GuideLLM."""
    spec = {
        "backend": {"kind": "openai_http", "target": url, "model": "calibrated", "request_format": "/v1/chat/completions"},
        "profile": {"kind": "concurrent", "streams": [streams]},
        "constraints": [{"kind": "max_requests", "count": streams * ROUNDS}],
        "tokenizer": {"kind": "huggingface_auto", "model": str(folder.parent.parent / "model")},
        "data": [{"kind": "synthetic_text", "prompt_tokens": 64, "output_tokens": TOKENS}],
        "outputs": [{"kind": "json", "path": str(folder / "seen.json")}],
    }
    (folder / "config.json").write_text(json.dumps({"spec": spec}))
    call([python.parent / "guidellm", "run", "--config", "config.json", "--disable-console"], folder, "log")
    found = json.loads((folder / "seen.json").read_text())["benchmarks"][0]["metrics"]
    if found["request_totals"]["successful"] != streams * ROUNDS:
        raise Failed(f"{found['request_totals']} of {streams * ROUNDS} requests")
    seen = lambda name: found[name]["successful"]
    percentile = lambda name, q, scale=1: seen(name)["percentiles"][q] * scale
    return {
        "ttft_p50": percentile("time_to_first_token_ms", "p50"), "ttft_p99": percentile("time_to_first_token_ms", "p99"),
        "itl_mean": seen("inter_token_latency_ms")["mean"], "itl_p99": percentile("inter_token_latency_ms", "p99"),
        "e2e_p50": percentile("request_latency", "p50", 1e3), "e2e_p99": percentile("request_latency", "p99", 1e3),
        "tokens": seen("output_token_count")["mean"],
    }


CLIENTS = {"sagebench": sagebench, "openai": openai, "aiperf": aiperf, "guidellm": guidellm}


def row(client, streams, found):
    cells = [client + found.get("remark", ""), str(streams), *(f"{found[name]:.2f}" for name in COLUMNS)]
    return "| " + " | ".join(cells) + " |"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sagebench", type=pathlib.Path)
    parser.add_argument("--streams", default="16,128")
    parser.add_argument("--only", default=",".join(CLIENTS))
    parser.add_argument("--python", action="append", default=[], metavar="CLIENT=PYTHON")
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path("target/clients"))
    asked = parser.parse_args()
    folder = asked.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    binary = asked.sagebench.resolve()
    pythons = {name: pathlib.Path(python) for name, python in (pair.split("=", 1) for pair in asked.python)}
    wanted = asked.only.split(",")
    if not (folder / "model").exists():
        # Clients that cut prompts with a tokenizer get one that needs no download.
        made = [binary, "model", "random", "--like", "gpt2", "--tiny", "--out", folder / "model"]
        subprocess.run(made, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        named = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>"}
        (folder / "model" / "tokenizer_config.json").write_text(json.dumps(named))
    tools = {name: binary if name == "sagebench" else pythons.get(name) or environment(name, folder) for name in wanted}
    print("| client | streams | TTFT p50 | TTFT p99 | ITL mean | ITL p99 | E2E p50 | E2E p99 | tokens |")
    print("|---|---|---|---|---|---|---|---|---|")
    truth = dict(zip(COLUMNS, [TTFT, TTFT, TBT, TBT, E2E, E2E, TOKENS]))
    failures = []
    for streams in map(int, asked.streams.split(",")):
        print(row("the truth", streams, truth), flush=True)
        for name in wanted:
            # A fresh server for each: nothing is left over from another.
            server, url = serve(binary, folder)
            try:
                run = folder / "runs" / f"{name}-{streams}-{int(time.time())}"
                run.mkdir(parents=True)
                found = CLIENTS[name](tools[name], url, streams, run)
                print(row(name, streams, found), flush=True)
                if found["tokens"] != TOKENS:
                    failures.append(f"{name} at {streams} streams counts {found['tokens']} tokens, not {TOKENS}")
            except Failed as failed:
                failures.append(f"{name} at {streams} streams: {failed}")
            finally:
                server.terminate()
                server.wait()
    for failure in failures:
        print(failure, file=sys.stderr)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
