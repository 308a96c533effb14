#!/usr/bin/env python3
"""Writes the reference logits of the decoder's tests with Hugging Face transformers on the CPU.

    pip install torch transformers
    python3 tests/candle/reference.py            # rewrites tests/candle/*.json
    python3 tests/candle/reference.py NAME OUT   # one family, all positions in full precision, to OUT

Weights are not stored: both sides compute them from the tensor's name. Element i of a tensor is
`mean + scale * (2 u - 1)` in f32, with u the upper 24 bits of splitmix64(fnv1a(name) + i) over 2^24.
"""

import json
import pathlib
import sys

import numpy
import torch
import transformers

HERE = pathlib.Path(__file__).parent
SMALL = dict(vocab_size=80, hidden_size=64, num_attention_heads=4, max_position_embeddings=128)
GATED = dict(SMALL, intermediate_size=96, num_hidden_layers=2, num_key_value_heads=2)

FAMILIES = {
    "gpt2": dict(model_type="gpt2", vocab_size=80, n_embd=64, n_head=4, n_layer=2, n_positions=128),
    "opt": dict(SMALL, model_type="opt", ffn_dim=96, num_hidden_layers=2, word_embed_proj_dim=64),
    "llama": dict(
        GATED, model_type="llama", tie_word_embeddings=False, rope_theta=500.0, attention_bias=True, mlp_bias=True,
        rope_scaling=dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                          original_max_position_embeddings=64),
    ),
    "smollm2": dict(
        GATED, model_type="llama", tie_word_embeddings=True, num_attention_heads=6, hidden_size=96,
        rope_scaling=dict(rope_type="linear", factor=2.0),
    ),
    "mistral": dict(GATED, model_type="mistral", tie_word_embeddings=False, sliding_window=8),
    "qwen2": dict(
        GATED, model_type="qwen2", tie_word_embeddings=True, use_sliding_window=True, sliding_window=8,
        max_window_layers=1,
    ),
    "qwen3": dict(GATED, model_type="qwen3", tie_word_embeddings=False, head_dim=32),
    "gemma3": dict(
        GATED, model_type="gemma3_text", tie_word_embeddings=True, head_dim=24, num_hidden_layers=3,
        sliding_window=8, layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        query_pre_attn_scalar=20, rope_theta=5000.0, rope_local_base_freq=100.0,
    ),
}


def numbers(name, shape, mean, scale):
    fnv = 0xCBF29CE484222325
    for byte in name.encode():
        fnv = ((fnv ^ byte) * 0x100000001B3) % 2**64
    with numpy.errstate(over="ignore"):
        z = numpy.uint64(fnv) + numpy.arange(numpy.prod(shape), dtype=numpy.uint64)
        z = z + numpy.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> numpy.uint64(30))) * numpy.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> numpy.uint64(27))) * numpy.uint64(0x94D049BB133111EB)
        z = z ^ (z >> numpy.uint64(31))
    u = (z >> numpy.uint64(40)).astype(numpy.float32) / numpy.float32(2**24)
    unit = numpy.float32(2) * u - numpy.float32(1)
    return (numpy.float32(mean) + numpy.float32(scale) * unit).reshape(shape)


def law(name, shape, family):
    """Mean and scale of a tensor: weights keep the size of activations, norms are near one."""
    if len(shape) == 1:
        norm = any(part in name for part in ("norm", "ln_")) and name.endswith("weight")
        return (0.0 if family == "gemma3" else 1.0, 0.25) if norm else (0.0, 0.25)
    if "embed" in name or "wte" in name or "wpe" in name:
        return 0.0, 0.125 if family == "gemma3" else 0.5
    return 0.0, round(float(numpy.sqrt(3.0 / max(shape[-1], 64))), 3)


def build(family):
    config = FAMILIES[family]
    model_type = config["model_type"]
    hf = transformers.AutoConfig.for_model(**{k: v for k, v in config.items() if k != "model_type"},
                                           model_type=model_type)
    model = transformers.AutoModelForCausalLM.from_config(hf, attn_implementation="eager").float().eval()
    tensors = []
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            shape = list(parameter.shape)
            mean, scale = law(name, shape, family)
            tensors.append([name, shape, mean, scale])
            parameter.copy_(torch.from_numpy(numbers(name, shape, mean, scale)))
    return config, model, tensors


def tokens(length, seed):
    return [(seed * 31 + i * i * 7 + i * 13) % 80 for i in range(length)]


def reference(family, digits):
    config, model, tensors = build(family)
    cases = []
    for length, seed in ((40, 1), (17, 2), (5, 3)):
        prompt = tokens(length, seed)
        with torch.no_grad():
            logits = model(torch.tensor([prompt])).logits[0].numpy()
            greedy = list(prompt)
            for _ in range(12):
                greedy.append(int(model(torch.tensor([greedy])).logits[0, -1].argmax()))
        keep = range(length) if digits is None else sorted({0, 6, 7, 8, 9, 23, length - 1} & set(range(length)))
        rows = {str(i): [float(x) if digits is None else float(f"{x:.{digits}g}") for x in logits[i]] for i in keep}
        cases.append(dict(prompt=prompt, logits=rows, greedy=greedy[length:]))
    return dict(config=config, tensors=tensors, cases=cases)


def main():
    if len(sys.argv) == 3:
        pathlib.Path(sys.argv[2]).write_text(json.dumps(reference(sys.argv[1], None)))
        return
    for family in FAMILIES:
        text = json.dumps(reference(family, 8), separators=(",", ":"))
        (HERE / f"{family}.json").write_text(text + "\n")
        print(family, len(text))


main()
