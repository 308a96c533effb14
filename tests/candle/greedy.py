#!/usr/bin/env python3
"""Greedy tokens of GGUF files beside those of llama.cpp: the first 32 behind each of ten prompts.

    pip install numpy llama-cpp-python
    cargo bench --no-run --bench cpu_model
    python3 tests/candle/greedy.py --bench target/release/deps/cpu_model-* SmolLM2-135M-Instruct.Q4_1.gguf gemma.gguf

Both sides round activations to bytes, in their own ways, so that logits differ a little. The script measures by how much: at
every step that both took alike, it compares the margin between our likeliest and second likeliest token on both sides. Where
tokens differ for the first time, both sides have read the same tokens; the difference is explained when the two margins, ours
for our token and theirs for theirs, add up to no more than those margins differ at other steps of the same file (three standard
deviations). Anything else fails.
"""

import argparse
import json
import math
import subprocess
import sys

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


class Theirs:
    def __init__(self, path, threads):
        from llama_cpp import Llama

        self.model = Llama(model_path=path, n_ctx=512, n_threads=threads, n_threads_batch=threads, logits_all=False, verbose=False)

    def tokens(self, text):
        return self.model.tokenize(text.encode(), add_bos=True, special=False)

    def greedy(self, prompt):
        """The likeliest tokens, and the logits that each was chosen from."""
        import numpy

        self.model.reset()
        found, logits, next = [], [], prompt
        for _ in range(COUNT):
            self.model.eval(next)
            row = numpy.ctypeslib.as_array(self.model._ctx.get_logits_ith(-1), (self.model.n_vocab(),)).copy()
            found.append(int(row.argmax()))
            logits.append(row)
            next = [found[-1]]
        return found, logits


def compare(bench, path, threads):
    """True when every prompt's tokens are the same or their first difference is explained."""
    ours = subprocess.Popen(
        [bench, path, "--dtype", "auto", "--follow", "yes", "--threads", str(threads)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )
    if not ours.stdout.readline():
        sys.exit(f"{bench} does not open {path}")
    theirs = Theirs(path, threads)
    differences, apart = [], []
    for text in PROMPTS:
        prompt = theirs.tokens(text)
        ours.stdin.write(" ".join(map(str, ["greedy", COUNT, *prompt])) + "\n")
        ours.stdin.flush()
        mine = json.loads(ours.stdout.readline())
        tokens, logits = theirs.greedy(prompt)
        for step, (a, b, margin) in enumerate(mine):
            other = float(logits[step][a] - logits[step][b])
            if a != tokens[step]:
                behind = float(logits[step][tokens[step]] - logits[step][a])
                apart.append((text, step, a, b, margin, tokens[step], behind))
                break
            differences.append(margin - other)
        else:
            print(f"  equal          {text!r}")
    ours.stdin.close()
    ours.wait()
    spread = math.sqrt(sum(d * d for d in differences) / len(differences))
    print(f"  margins of {len(differences)} equal steps differ by {spread:.3f} (root mean square), {max(map(abs, differences)):.3f} at most")
    good = True
    for text, step, a, b, margin, other, behind in apart:
        explained = other == b and margin + behind <= 3 * spread
        good &= explained
        verdict = "explained" if explained else "NOT EXPLAINED"
        print(f"  {verdict:14} {text!r}: at token {step} ours {a} (second {b}, {margin:.3f} below), theirs {other} ({a} is {behind:.3f} below)")
    return good


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--bench", required=True, help="the built bench cpu_model")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    results = []
    for path in options.models:
        print(path)
        results.append(compare(options.bench, path, options.threads))
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    main()
