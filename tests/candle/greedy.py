#!/usr/bin/env python3
"""Greedy tokens of GGUF files beside those of llama.cpp: the first 32 behind each of ten prompts.

    pip install numpy llama-cpp-python
    cargo bench --no-run --bench cpu_model
    python3 tests/candle/greedy.py --bench target/release/deps/cpu_model-* SmolLM2-135M-Instruct.Q4_1.gguf gemma.gguf

Both sides round activations to bytes, in their own ways, so that logits differ a little and close decisions fall otherwise. The
reference is the same file with all weights widened to f32 and no activation rounded. The script feeds the reference's own
greedy tokens to all three and measures how far the logits of either side are from the reference's: the root mean square over all
tokens of the vocabulary, over that of the reference's logits less their mean. A file passes when

- ours are no farther from the reference than 1.25 times theirs, and
- wherever the two sides' tokens differ for the first time, the reference has the two tokens no farther apart than three times
  what the two sides' rounding does to the distance of two logits (root mean square, added in squares).

With `--transformers`, the reference is itself held to transformers' reading of the file (pip install torch transformers gguf).
"""

import argparse
import base64
import json
import pathlib
import subprocess
import sys

import numpy

PROMPTS = [
    "The capital of France is",
    "Monday, Tuesday, Wednesday, Thursday,",
    "Once upon a time, in a small village by the sea,",
    "def fibonacci(n):",
    "Water boils at a temperature of",
    "The three primary colours are",
    "To make a cup of tea, first",
    "In 1969, humans landed on the Moon for the first time.",
    "Dear Sir or Madam, I am writing to",
    "The quick brown fox jumps over the lazy dog. The lazy dog",
]
COUNT = 32
FARTHER = 1.25


class Ours:
    def __init__(self, bench, path, dtype, threads):
        command = [bench, path, "--dtype", dtype, "--follow", "yes", "--threads", str(threads)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if not self.process.stdout.readline():
            sys.exit(f"{bench} does not open {path}")

    def ask(self, *words):
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline()

    def greedy(self, prompt):
        return [token for token, _, _ in json.loads(self.ask("greedy", COUNT, *prompt))]

    def logits(self, prompt, answer):
        """The logits that each token of the answer is chosen from."""
        line = self.ask("logits", COUNT, *prompt, *answer[:-1])
        return numpy.frombuffer(base64.b64decode(line), "<f4").reshape(COUNT, -1)

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class Theirs:
    def __init__(self, path, threads):
        from llama_cpp import Llama

        self.model = Llama(model_path=path, n_ctx=512, n_threads=threads, n_threads_batch=threads, logits_all=False, verbose=False)

    def tokens(self, text):
        return self.model.tokenize(text.encode(), add_bos=True, special=False)

    def follow(self, prompt, choose):
        """Reads the prompt and then the token that `choose` answers for each vector of logits."""
        self.model.reset()
        next = prompt
        for step in range(COUNT):
            self.model.eval(next)
            row = numpy.ctypeslib.as_array(self.model._ctx.get_logits_ith(-1), (self.model.n_vocab(),)).copy()
            next = [choose(step, row)]

    def greedy(self, prompt):
        found = []
        self.follow(prompt, lambda _, row: found.append(int(row.argmax())) or found[-1])
        return found

    def logits(self, prompt, answer):
        rows = []
        self.follow(prompt, lambda step, row: rows.append(row) or answer[step])
        return numpy.stack(rows)


def rms(values):
    return float(numpy.sqrt(numpy.mean(numpy.square(values, dtype=numpy.float64))))


def centred(logits):
    """Less the mean of each vector: a constant changes no decision."""
    return logits - logits.mean(axis=1, keepdims=True)


def held_to_transformers(path, prompts, wanted):
    """How far the reference's logits are from those of transformers, as a share."""
    import torch
    from transformers import AutoModelForCausalLM

    path = pathlib.Path(path).absolute()
    model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32).eval()
    off = []
    for (prompt, answer), reference in zip(prompts, wanted):
        with torch.inference_mode():
            logits = model(torch.tensor([[*prompt, *answer[:-1]]])).logits[0, -COUNT:].numpy()
        off.append(rms(logits - reference) / rms(centred(reference)))
    return max(off)


def compare(bench, path, threads, transformers):
    """True when the file passes."""
    ours, reference = (Ours(bench, path, dtype, threads) for dtype in ("auto", "f32"))
    theirs = Theirs(path, threads)
    prompts = [theirs.tokens(text) for text in PROMPTS]
    answers = [reference.greedy(prompt) for prompt in prompts]
    wanted = [reference.logits(*pair) for pair in zip(prompts, answers)]
    size = rms(numpy.concatenate([centred(rows) for rows in wanted]))
    far = {}
    for name, side in (("ours", ours), ("llama.cpp's", theirs)):
        off = [centred(side.logits(*pair)) - centred(rows) for pair, rows in zip(zip(prompts, answers), wanted)]
        far[name] = rms(numpy.concatenate(off))
        print(f"  {name} logits are {far[name] / size:.3%} from those in f32 (root mean square)")
    if transformers:
        off = held_to_transformers(path, list(zip(prompts, answers)), wanted)
        print(f"  those in f32 are {off:.5%} from transformers' at most")
    # The distance of two logits: two errors on either side.
    most = 3 * (2 * sum(f * f for f in far.values())) ** 0.5
    good = far["ours"] <= FARTHER * far["llama.cpp's"]
    equal = {"llama.cpp": 0, "f32": 0}
    for text, prompt, answer in zip(PROMPTS, prompts, answers):
        mine, other = ours.greedy(prompt), theirs.greedy(prompt)
        equal["f32"] += mine == answer
        if mine == other:
            equal["llama.cpp"] += 1
            print(f"  equal         {text!r}")
            continue
        step = next(i for i in range(COUNT) if mine[i] != other[i])
        # What both have read by then, and what the reference makes of it.
        row = reference.logits(prompt, [*mine[:step], *[mine[step]] * (COUNT - step)])[step]
        apart = abs(float(row[mine[step]] - row[other[step]]))
        good &= apart <= most
        verdict = "explained" if apart <= most else "NOT EXPLAINED"
        print(f"  {verdict:13} {text!r}: at token {step} ours {mine[step]}, theirs {other[step]}, {apart:.3f} apart in f32; rounding: {most:.3f}")
    print(f"  of {len(PROMPTS)} answers {equal['llama.cpp']} equal llama.cpp's, and {equal['f32']} those in f32")
    ours.close()
    reference.close()
    return good


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--bench", required=True, help="the built bench cpu_model")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--transformers", action="store_true", help="hold the reference to transformers too")
    options = parser.parse_args()
    results = []
    for path in options.models:
        print(path)
        results.append(compare(options.bench, path, options.threads, options.transformers))
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    main()
