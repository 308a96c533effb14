#!/usr/bin/env python3
"""The CPU backend beside Hugging Face transformers and llama.cpp, on the same checkpoints, interleaved round by round.

    pip install numpy gguf safetensors torch transformers llama-cpp-python   # what is missing is left out
    cargo bench --no-run --bench cpu_model
    python3 benches/compare_cpu.py --bench target/release/deps/cpu_model-* gpt2 smollm2-135m path/to/model.gguf

Ratios are ours over theirs within one round; told are the median and an interval that holds the median with at least 95 %,
by order statistics (of fewer than six rounds from the smallest to the largest, with the probability that the head line tells).
Names are those of `cpu_model`; for them llama.cpp reads GGUF files of the same weights, written once.
"""

import argparse
import json
import math
import pathlib
import statistics
import subprocess
import sys
import time

PROMPT, DECODED = 256, 32
MEASURES = ["prefill", "prefill_10", "decode", "decode_10"]


def token(index):
    return index * 7919 % 40_000


# -- the others: each is a process that answers a line of measurements with a line of JSON ----------------------------------------


def transformers_worker(path, dtype, threads):
    import torch
    from transformers import AutoModelForCausalLM, DynamicCache

    torch.set_num_threads(threads)
    model = AutoModelForCausalLM.from_pretrained(path, dtype=getattr(torch, dtype)).eval()
    prompts = torch.tensor([[token(i + s) for i in range(PROMPT)] for s in range(10)])
    caches = {}

    def prefill(batch):
        caches[batch] = DynamicCache(config=model.config)
        model(prompts[:batch], past_key_values=caches[batch], use_cache=True, logits_to_keep=1)

    def decode(batch):
        if batch not in caches:
            prefill(batch)
        surplus = caches[batch].get_seq_length() - PROMPT
        if surplus > 0:
            caches[batch].crop(-surplus)
        start = time.perf_counter()
        for i in range(PROMPT, PROMPT + DECODED):
            ids = torch.tensor([[token(i + s)] for s in range(batch)])
            model(ids, past_key_values=caches[batch], use_cache=True)
        return time.perf_counter() - start

    with torch.inference_mode():
        answer(prefill, decode)


def llama_worker(path, _, threads):
    import llama_cpp as lc

    quiet = lc.llama_log_callback(lambda *_: None)
    lc.llama_log_set(quiet, None)
    lc.llama_backend_init()
    model = lc.llama_model_load_from_file(path.encode(), lc.llama_model_default_params())
    assert model, f"llama.cpp does not read {path}"
    params = lc.llama_context_default_params()
    params.n_ctx, params.n_batch, params.n_ubatch, params.n_seq_max = 10 * 512, 10 * PROMPT, 512, 10
    params.n_threads = params.n_threads_batch = threads
    context = lc.llama_init_from_model(model, params)
    memory = lc.llama_get_memory(context)
    batch_of = lc.llama_batch_init(10 * PROMPT, 0, 1)

    def run(rows):
        """Rows are (token, position, sequence, whether its logits are wanted)."""
        batch_of.n_tokens = len(rows)
        for i, (id, position, sequence, wanted) in enumerate(rows):
            batch_of.token[i], batch_of.pos[i], batch_of.logits[i] = id, position, wanted
            batch_of.n_seq_id[i], batch_of.seq_id[i][0] = 1, sequence
        assert lc.llama_decode(context, batch_of) == 0
        lc.llama_synchronize(context)

    def prefill(batch):
        lc.llama_memory_clear(memory, True)
        run([(token(i + s), i, s, i == PROMPT - 1) for s in range(batch) for i in range(PROMPT)])

    def decode(batch):
        prefill(batch)
        start = time.perf_counter()
        for i in range(PROMPT, PROMPT + DECODED):
            run([(token(i + s), i, s, True) for s in range(batch)])
        return time.perf_counter() - start

    answer(prefill, decode)


def answer(prefill, decode):
    print("{}", flush=True)
    for line in sys.stdin:
        rates = {}
        for name in line.split():
            batch = 10 if name.endswith("_10") else 1
            if name.startswith("prefill"):
                start = time.perf_counter()
                prefill(batch)
                rates[name] = batch * PROMPT / (time.perf_counter() - start)
            else:
                rates[name] = batch * DECODED / decode(batch)
        print(json.dumps(rates), flush=True)


# -- GGUF files of the checkpoints that cpu_model writes ---------------------------------------------------------------------------

GPT2 = {
    "wte": "token_embd", "wpe": "position_embd", "ln_f": "output_norm", "ln_1": "attn_norm", "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output", "ln_2": "ffn_norm", "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down",
}
LLAMA = {
    "embed_tokens": "token_embd", "norm": "output_norm", "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def write_gguf(folder, kind, out):
    """Weights of a folder as GGUF; False where llama.cpp lacks the architecture."""
    import gguf
    import numpy
    from safetensors.numpy import load_file

    config = json.loads((folder / "config.json").read_text())
    architecture = config["model_type"]
    if architecture not in ("gpt2", "llama", "qwen2"):
        return False
    names = GPT2 if architecture == "gpt2" else LLAMA
    get = lambda *fields: next(config[f] for f in fields if config.get(f) is not None)
    writer = gguf.GGUFWriter(out, architecture)
    heads = get("n_head", "num_attention_heads")
    writer.add_context_length(get("n_positions", "max_position_embeddings"))
    writer.add_embedding_length(get("n_embd", "hidden_size"))
    writer.add_block_count(get("n_layer", "num_hidden_layers"))
    config.setdefault("intermediate_size", 4 * get("n_embd", "hidden_size"))
    writer.add_feed_forward_length(get("n_inner", "intermediate_size"))
    writer.add_head_count(heads)
    writer.add_tokenizer_model("none")
    writer.add_vocab_size(config["vocab_size"])
    if architecture == "gpt2":
        writer.add_layer_norm_eps(config.get("layer_norm_epsilon", 1e-5))
    else:
        writer.add_head_count_kv(config["num_key_value_heads"])
        writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
        writer.add_rope_freq_base(config["rope_theta"])
        writer.add_rope_dimension_count(config["hidden_size"] // heads)
    types = {"f32": "F32", "bf16": "F16", "q8_0": "Q8_0", "q4_0": "Q4_0"}
    wanted = gguf.GGMLQuantizationType[types[kind]]
    for name, data in load_file(folder / "model.safetensors").items():
        if architecture == "gpt2" and ".c_" in name and name.endswith("weight"):
            data = data.T
        path, end = name.removeprefix("model.").rsplit(".", 1)
        layer = path.split(".")[1] if path.startswith(("h.", "layers.")) else None
        inner = path.split(".", 2)[2] if layer else path
        if architecture == "llama" and inner in ("self_attn.q_proj", "self_attn.k_proj"):
            # llama.cpp turns neighbouring pairs.
            count = heads if inner.endswith("q_proj") else config["num_key_value_heads"]
            data = data.reshape(count, 2, data.shape[0] // count // 2, *data.shape[1:]).swapaxes(1, 2).reshape(data.shape)
        target = f"blk.{layer}.{names[inner]}.{end}" if layer else f"{names[inner]}.{end}"
        data = numpy.ascontiguousarray(data, numpy.float32)
        if data.ndim == 2 and inner != "wpe" and wanted.name != "F32":
            writer.add_tensor(target, gguf.quants.quantize(data, wanted), raw_dtype=wanted)
        else:
            writer.add_tensor(target, data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return True


# -- the comparison ----------------------------------------------------------------------------------------------------------------


class Peer:
    def __init__(self, name, command):
        self.name = name
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        first = self.process.stdout.readline()
        if not first:
            raise RuntimeError(f"{name} did not start")
        self.opened = json.loads(first)

    def measure(self, names):
        self.process.stdin.write(" ".join(names) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def outer(n):
    """How many of n sorted values lie outside of an interval on either side, and the probability that it holds the median."""
    below = lambda k: sum(math.comb(n, i) for i in range(k + 1)) / 2**n
    low = 0
    while below(low + 1) <= 0.025:
        low += 1
    return low, 1 - 2 * below(low)


def interval(values):
    """The median, and order statistics around it."""
    values, (low, _) = sorted(values), outer(len(values))
    return statistics.median(values), values[low], values[len(values) - 1 - low]


def installed(module):
    import importlib.util

    return importlib.util.find_spec(module) is not None


def cases(options):
    """(name, what ours opens, its dtype, what transformers opens and its dtype, what llama.cpp opens)."""
    for model in options.models:
        if model.endswith(".gguf"):
            yield pathlib.Path(model).stem, model, "auto", None, model
            continue
        folder = options.dir / model
        if not (folder / "model.safetensors").exists():
            # It writes the checkpoint before it asks for a line.
            Peer(model, [options.bench, model, "--dtype", "f32", "--follow", "yes", "--dir", str(options.dir)]).close()
        for dtype in options.dtype.split(","):
            gguf = folder / f"{dtype}.gguf"
            if "llama.cpp" in options.peers and installed("gguf") and not gguf.exists() and not write_gguf(folder, dtype, gguf):
                gguf = None
            gguf = str(gguf) if gguf and gguf.exists() else None
            hf = {"f32": "float32", "bf16": "bfloat16"}.get(dtype)
            ours = (gguf, "auto") if dtype.startswith("q") and gguf else (str(folder), dtype)
            yield f"{model} {dtype}", *ours, hf and (str(folder), hf), gguf


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["gpt2", "smollm2-135m"])
    parser.add_argument("--bench", required=True, help="the built bench cpu_model")
    parser.add_argument("--dir", type=pathlib.Path, default=pathlib.Path("target/cpu_model"))
    parser.add_argument("--dtype", default="f32,bf16,q8_0,q4_0", help="of named models; llama.cpp has f16 where we have bf16")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--measure", default=",".join(MEASURES))
    parser.add_argument("--peers", default="transformers,llama.cpp")
    parser.add_argument("--only-write", action="store_true", help="write what is missing and measure nothing")
    options = parser.parse_args()
    names, threads = options.measure.split(","), str(options.threads)
    print(f"{options.threads} threads, {options.rounds} rounds; prompts of {PROMPT}, {DECODED} tokens decoded behind them; "
          f"intervals hold the median with {outer(options.rounds)[1]:.1%}")
    print("| model | measure | ours tok/s | to transformers | to llama.cpp |\n|---|---|---|---|---|", flush=True)
    for name, ours, dtype, hf, gguf in cases(options):
        if options.only_write:
            continue
        worker = [sys.executable, __file__, "--worker"]
        peers = [Peer("ours", [options.bench, ours, "--dtype", dtype, "--follow", "yes", "--threads", threads])]
        if hf and "transformers" in options.peers and installed("transformers") and installed("torch"):
            peers.append(Peer("transformers", [*worker, "transformers", *hf, threads]))
        if gguf and "llama.cpp" in options.peers and installed("llama_cpp"):
            peers.append(Peer("llama.cpp", [*worker, "llama.cpp", gguf, "-", threads]))
        # A round that does not count warms all of them up.
        rounds = [{peer.name: peer.measure(names) for peer in peers} for _ in range(options.rounds + 1)][1:]
        for measure in names:
            median = statistics.median(r["ours"][measure] for r in rounds)
            cells = [name, measure, f"{median:.1f}"]
            for peer in ["transformers", "llama.cpp"]:
                if peer in rounds[0]:
                    middle, low, high = interval([r["ours"][measure] / r[peer][measure] for r in rounds])
                    theirs = statistics.median(r[peer][measure] for r in rounds)
                    cells.append(f"{middle:.2f} [{low:.2f}, {high:.2f}] of {theirs:.1f}")
                else:
                    cells.append("-")
            print("| " + " | ".join(cells) + " |", flush=True)
        for peer in peers:
            peer.close()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        kind, path, dtype, threads = sys.argv[2:]
        {"transformers": transformers_worker, "llama.cpp": llama_worker}[kind](path, dtype, int(threads))
    else:
        main()
