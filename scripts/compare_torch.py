# /// script
# requires-python = ">=3.11"
# dependencies = ["torch", "transformers>=5"]
# ///
"""How fast is apr beside torch on the same SafeTensors weights, on the processor, in the same minutes?

    python scripts/make_random_model.py --shape qwen2.5-0.5b --out half      # bfloat16
    python scripts/compare_torch.py half --apr target/release/apr --threads 2

Both read a long prompt and decode greedily behind a short one, in turns A B B A; torch through transformers' model of the
family, in the dtype of the weights, without gradients and with its own cache, told to compute the logits of the last position
only; apr by `apr bench --json`. The medians and their quartiles are printed, and the median of the ratios of neighbours.

Answers come first: transformers with the weights widened to float32 and `apr run` continue some texts by the same tokens, or
nothing is measured and the exit code is 1.
"""

import argparse
import gc
import itertools
import json
import pathlib
import statistics
import subprocess
import time

import torch
from transformers import AutoModelForCausalLM

TEXTS = ("The quick brown fox jumps over", "2+2=", "Once upon a time")
STEPS = 8


class Torch:
    """A model of transformers."""

    def __init__(self, folder: pathlib.Path, dtype: str | torch.dtype):
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()

    @torch.inference_mode()
    def logits(self, ids: list[int], cache=None):
        """Logits of the last position, and the cache."""
        out = self.model(torch.tensor([ids]), past_key_values=cache, use_cache=True, logits_to_keep=1)
        return out.logits[0, -1].float(), out.past_key_values

    def decode(self, ids: list[int], steps: int) -> tuple[list[int], float]:
        """Greedy tokens behind a prompt, and the seconds that all but the first took."""
        logits, cache = self.logits(ids)
        tokens = [int(logits.argmax())]
        start = time.perf_counter()
        while len(tokens) < steps:
            logits, cache = self.logits(tokens[-1:], cache)
            tokens.append(int(logits.argmax()))
        return tokens, time.perf_counter() - start

    def speeds(self, prompt: int, first: int, steps: int) -> dict[str, float]:
        """Tokens per second."""
        vocab = self.model.config.vocab_size
        start = time.perf_counter()
        self.logits(ids(prompt, vocab))
        prefill = prompt / (time.perf_counter() - start)
        return dict(prefill=prefill, decode=(steps - 1) / self.decode(ids(first, vocab), steps)[1])


def ids(count: int, vocab: int) -> list[int]:
    """Tokens from all over the vocabulary."""
    return [(7919 * n + 31) % vocab for n in range(count)]


def run(arguments, *rest: str) -> dict:
    command = [arguments.apr, rest[0], arguments.model, "--json", "--threads", str(arguments.threads), *rest[1:]]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def same_tokens(arguments) -> bool:
    exact = Torch(arguments.model, torch.float32)
    ends = exact.model.generation_config.eos_token_id
    ends = {ends} if isinstance(ends, int) else set(ends or ())
    equal = 0
    for text in TEXTS:
        answer = run(arguments, "run", "--raw", "-n", str(STEPS), "--cache-type", "f32", "--prompt", text)
        expected, _ = exact.decode(answer["prompt_tokens"], STEPS)
        expected = list(itertools.takewhile(lambda token: token not in ends, expected))
        if answer["tokens"] != expected:
            print(f"{text!r}: apr {answer['tokens']}, torch {expected}")
            return False
        equal += len(expected)
    print(f"{equal} tokens behind {len(TEXTS)} texts are the same as those of torch in float32", flush=True)
    return equal > 0


def spread(values: list[float]) -> str:
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"{middle:.4g} ({low:.4g}-{high:.4g})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=pathlib.Path, help="a folder as `save_pretrained` writes it")
    parser.add_argument("--apr", type=pathlib.Path, default=pathlib.Path("target/release/apr"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=4, help="of A B B A")
    parser.add_argument("--prompt-tokens", type=int, default=512)
    parser.add_argument("--first-tokens", type=int, default=128)
    parser.add_argument("--tokens", type=int, default=64)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if not same_tokens(arguments):
        raise SystemExit("the answers differ, or there are none: nothing was measured")
    gc.collect()
    theirs = Torch(arguments.model, "auto")
    counts = (arguments.prompt_tokens, arguments.first_tokens, arguments.tokens)
    theirs.speeds(*counts)
    names = ("--prompt-tokens", "--first-tokens", "--tokens")
    options = [word for name, count in zip(names, counts) for word in (name, str(count))]

    def ours() -> dict[str, float]:
        told = run(arguments, "bench", "--samples", "2", *options)
        return {phase: told[phase]["tokens_per_second"] for phase in ("prefill", "decode")}

    pairs = []
    for _ in range(arguments.rounds):
        a, b, c, d = ours(), theirs.speeds(*counts), theirs.speeds(*counts), ours()
        pairs += [(a, b), (d, c)]
    print(f"torch {torch.__version__}, {theirs.model.dtype}, {arguments.threads} threads, {len(pairs)} pairs")
    for phase in ("prefill", "decode"):
        own, other = ([side[phase] for side in sides] for sides in zip(*pairs))
        ratios = [a / b for a, b in zip(own, other)]
        print(f"{phase}, tokens/s: apr {spread(own)}, torch {spread(other)}; apr / torch {spread(ratios)}")


if __name__ == "__main__":
    main()
