# /// script
# requires-python = ">=3.10"
# dependencies = [
#     "numpy",
#     "jinja2",
#     "safetensors",
#     "tokenizers>=0.21",
#     "torch>=2.6",
#     "transformers>=4.48",
# ]
# ///
"""Trains the `golden` fixture: a tiny qwen2-architecture model that really answers.

Everything the model reads is written by this folder's golden_lessons.py, so the fixture carries no foreign text.
The run is seeded and uses the CPU alone; `--steps` gives the same schedule everywhere, `--minutes` bounds it by
the clock.

The folder written holds model.safetensors (BF16), config.json, generation_config.json, tokenizer.json,
tokenizer_config.json, training.json (what the run did), goldens.json (prompts with their greedy answers and gaps)
and README.md (the model card). Every figure in the last two is measured at the end, by transformers in f32 on the
saved BF16 weights.
"""

import argparse
import json
import math
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from golden_lessons import all_examples
from golden_measure import OPTIONAL, measure, write_card
from golden_model import CONFIG, VOCAB_ROWS, Golden
from golden_text import CHAT_TEMPLATE, END, IM_END, SPECIALS, Mixture, check_pieces, check_template, train_tokenizer

STEPS = 1615
# From here on every other step sees weights that went through the round trip of Q4_K, so that the answers survive it.
NOISE_FROM = 0.6


def learning_rate(progress, peak):
    """Warm-up over the first hundredth, then a cosine to zero."""
    return peak * min(1.0, progress / 0.01 + 0.01) * 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))


def train(args, model, mixture):
    """Makes `--steps` steps, or as many as fit into `--minutes`; returns how many it made."""
    rng = np.random.default_rng(args.seed)
    decayed, plain = [model.embed, *model.matrices()], [*model.qkv_bias, *model.norms]
    optimiser = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}],
        lr=args.lr, betas=(0.9, 0.98), fused=True)
    run = torch.compile(model, dynamic=False) if args.compile else model
    start = last = time.time()
    step, progress, average = 0, 0.0, None
    while progress < 1.0:
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(progress, args.lr)
        ids, index, target, weight = mixture.draw(rng)
        noisy = progress >= NOISE_FROM and step % 2 == 0
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=args.bf16):
            logits = run(ids, index, mixture.shape, noisy)
        loss = (F.cross_entropy(logits, target, reduction="none") * weight).sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        average = loss.item() if average is None else 0.95 * average + 0.05 * loss.item()
        step += 1
        progress = (time.time() - start) / (60 * args.minutes) if args.minutes else step / args.steps
        if time.time() - last > args.report_every or step == 20:
            last = time.time()
            print(f"step {step} progress {progress:.3f} loss {average:.5f} {last - start:.0f} s "
                  f"{step * mixture.tokens / (last - start):.0f} tokens/s", flush=True)
    return step, time.time() - start


def save(folder, model, tokenizer):
    """The Hugging Face directory."""
    from safetensors.torch import save_file

    ids = {token: tokenizer.token_to_id(token) for token in SPECIALS}
    save_file(model.to_hf(), folder / "model.safetensors", metadata={"format": "pt"})
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(folder / "config.json", CONFIG | {
        "vocab_size": VOCAB_ROWS, "bos_token_id": ids[END], "eos_token_id": ids[IM_END], "pad_token_id": ids[END]})
    write_json(folder / "generation_config.json", {
        "bos_token_id": ids[END], "pad_token_id": ids[END], "do_sample": False,
        "eos_token_id": [ids[IM_END], ids[END]]})
    write_json(folder / "tokenizer_config.json", {
        "add_bos_token": False, "add_prefix_space": False, "bos_token": None, "eos_token": IM_END,
        "pad_token": END, "unk_token": None, "clean_up_tokenization_spaces": False, "errors": "replace",
        "model_max_length": CONFIG["max_position_embeddings"], "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer", "chat_template": CHAT_TEMPLATE,
        "added_tokens_decoder": {str(ids[t]): {
            "content": t, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False,
            "special": True} for t in SPECIALS}})


def write_json(path, value):
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("golden"), help="folder to write")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=STEPS, help="default: %(default)s")
    parser.add_argument("--lr", type=float, default=2e-3, help="peak learning rate (default: %(default)s)")
    parser.add_argument("--minutes", type=float, help="bound by the clock instead of --steps")
    parser.add_argument("--top", type=int, default=99, help="largest addend taught (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--report-every", type=float, default=60.0, help="seconds between lines of progress")
    parser.add_argument("--no-compile", dest="compile", action="store_false", help="no torch.compile")
    parser.add_argument("--f32", dest="bf16", action="store_false", help="no BF16 autocast")
    parser.add_argument("--smoke", action="store_true", help="a minute of training, to see that all parts work")
    parser.add_argument("--measure-only", action="store_true", help="measure OUT as it is, and write the card anew")
    args = parser.parse_args()
    if args.smoke:
        args.steps, args.compile = 60, False
    return args


def keep_memory():
    """Restarts with an allocator that keeps what it was given: page faults would cost most of the time."""
    wanted = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "100000000000", "MALLOC_TOP_PAD_": "268435456"}
    if any(os.environ.get(k) != v for k, v in wanted.items()):
        os.environ.update(wanted)
        os.execv(sys.executable, [sys.executable, *sys.argv])


def main():
    args = arguments()
    keep_memory()
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    check_template()
    examples = list(all_examples(args.seed, args.top, invented=1500))
    if not args.measure_only:
        tokenizer, model = train_tokenizer(examples), Golden(args.seed)
        check_pieces(tokenizer, examples)
        mixture = Mixture(tokenizer, examples)
        print(f"rows x length {mixture.shape}, {mixture.tokens} tokens a step", flush=True)
        steps, seconds = train(args, model, mixture)
        save(args.out, model, tokenizer)
        write_json(args.out / "training.json", {
            "seed": args.seed, "threads": args.threads, "steps": steps, "tokens": steps * mixture.tokens,
            "minutes": round(seconds / 60, 1), "schedule": "by the clock" if args.minutes else "by steps"})
    goldens, rows, failures = measure(args.out, args.top)
    table_sums = {r["title"]: r for r in rows if "`a+b=`" in r["title"] or "What is a+b?" in r["title"]}
    write_json(args.out / "goldens.json", {
        "made_by": "transformers, f32, greedy, on the BF16 weights", "goldens": goldens, "sums": table_sums})
    write_card(args.out, goldens, rows)
    for ident, text, text4 in failures:
        print(f"not certified: {ident}: {text!r}, from 4-bit weights {text4!r}")
    needed = [ident for ident, *_ in failures if ident not in OPTIONAL]
    return 1 if needed and not args.smoke else 0


if __name__ == "__main__":
    sys.exit(main())
