# /// script
# requires-python = ">=3.11"
# dependencies = ["numpy", "torch", "transformers>=5", "tokenizers", "safetensors", "gguf", "llama-cpp-python", "sentencepiece"]
# ///
"""Does apr read what strangers write, and give the same tokens as they do?

    cargo build --release
    python scripts/check_strangers.py --llama-cpp LLAMA_CPP_SOURCE

Models are made by transformers' `save_pretrained`, GGUF forms of them by llama.cpp's converter and quantiser, in a
scratch folder. Their makers continue prompts greedily for 32 tokens; `apr run --json --raw -n 32` on each CPU backend
must read the same prompt tokens and give the same 32. Any difference is an error; the table says what was compared.

Two engines round differently, so a best token that leads by less than their rounding decides nothing. The models are
therefore made to know a few sentences by heart, and a prompt is used only if its maker's best token leads by a share of the
logits' spread at every step (MARGINS). The choice is made from the maker's own logits, before apr is asked; how many
prompts were passed over is printed.
LLAMA_CPP_SOURCE is a checkout, or `vendor/llama.cpp` of the source distribution of llama-cpp-python.
"""

import argparse
import dataclasses
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
from make_fixtures import LLAMA3_SPLIT, QWEN2_SPLIT, convert, quantise, training_text, write_json
from record_oracles import LlamaCpp, greedy
from record_quant_oracles import versions

STEPS = 32
PROMPTS = 4
CANDIDATES = 400
# Least lead of the best token, in standard deviations of a row of logits. Measured on random weights of these shapes,
# llama.cpp's logits are off by 0.002 of it from exact ones with F16 weights, and, because it rounds activations to 8
# bits, by up to 0.1 (one standard deviation of the difference) with blocks. Float engines agree to about 1e-5.
MARGINS = {"float": 1e-3, "F16": 2e-2, "blocks": 1.0}
SENTENCES = 4
# Rounding of activations that the sentences must survive, as a share of them.
ROUNDING = 0.2
VOCAB = 384
BACKENDS = ("scalar", "simd")
# No string here is one that engines know as an end of text, and no id is declared as one: nothing ends early.
BOS, PAD = "<|first|>", "<|filler|>"
WIDE = dict(hidden_size=256, intermediate_size=512, num_hidden_layers=4, num_attention_heads=4,
            num_key_value_heads=2, vocab_size=VOCAB, max_position_embeddings=256, rms_norm_eps=1e-5)
# 288 is no multiple of 256: K-quants fall back to other blocks there.
RAGGED = WIDE | dict(hidden_size=288, intermediate_size=416, num_attention_heads=6, num_key_value_heads=3)


@dataclasses.dataclass
class Maker:
    """A model to be saved by transformers. `begins`: the tokenizer puts BOS in front of every text."""

    name: str
    kind: str
    settings: dict
    tied: bool
    dtype: str
    shard: str | None = None
    begins: bool = False
    forms: tuple[str, ...] = ("F16", "Q8_0", "Q4_K_M", "Q5_K_M", "Q6_K", "Q4_0")


MAKERS = [
    Maker("qwen2-tied", "qwen2", WIDE | dict(rope_theta=1e6), True, "bfloat16"),
    Maker("qwen2-untied", "qwen2", WIDE | dict(rope_theta=1e6), False, "float32", shard="2MB"),
    Maker("llama-tied", "llama", WIDE | dict(rope_theta=1e4), True, "float16", begins=True),
    Maker("llama-untied", "llama", WIDE | dict(rope_theta=5e5, rope_scaling={
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64}), False, "bfloat16", shard="1MB", begins=True),
    Maker("qwen2-ragged", "qwen2", RAGGED | dict(rope_theta=1e4), True, "float32"),
    Maker("llama-ragged", "llama", RAGGED | dict(rope_theta=1e4), False, "float16", begins=True),
]


def make_tokenizer(maker: Maker, folder: pathlib.Path) -> None:
    """Byte-level BPE with the family's pre-tokenizer, without any token that ends a text."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    llama = maker.kind == "llama"
    tokenizer = Tokenizer(models.BPE(ignore_merges=llama))
    if not llama:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(LLAMA3_SPLIT if llama else QWEN2_SPLIT), behavior="isolated", invert=False),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    tokenizer.decoder = decoders.ByteLevel(add_prefix_space=False, use_regex=False)
    trainer = trainers.BpeTrainer(vocab_size=VOCAB - 2, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(training_text(), trainer)
    tokenizer.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in (BOS, PAD)])
    if maker.begins:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, tokenizer.token_to_id(BOS))])
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(folder / "tokenizer_config.json", {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": BOS if maker.begins else None, "eos_token": None,
        "pad_token": PAD, "unk_token": None, "model_max_length": 256, "clean_up_tokenization_spaces": False,
        "add_bos_token": maker.begins})


def save_model(maker: Maker, folder: pathlib.Path):
    """Makes and saves a model with its tokenizer; returns it in float32, computing with what was saved."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    settings = dict(maker.settings)
    rope = dict(settings.pop("rope_scaling", {"rope_type": "default"}), rope_theta=settings.pop("rope_theta"))
    config = AutoConfig.for_model(maker.kind, rope_parameters=rope, tie_word_embeddings=maker.tied,
                                  bos_token_id=VOCAB - 2 if maker.begins else None, eos_token_id=None,
                                  pad_token_id=VOCAB - 1, **settings)
    folder.mkdir(parents=True)
    make_tokenizer(maker, folder)
    torch.manual_seed(int.from_bytes(maker.name.encode(), "big") % 2**31)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            tensor.copy_(random_values(name, tensor))
    teach(model, AutoTokenizer.from_pretrained(folder))
    model.generation_config.eos_token_id = None
    shards = {"max_shard_size": maker.shard} if maker.shard else {}
    model.to(getattr(torch, maker.dtype)).save_pretrained(folder, **shards)
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def random_values(name: str, tensor):
    """Weights large enough that attention is not uniform; biases and norms that are missed when left out."""
    import torch

    noise = torch.randn(tensor.shape)
    if "norm" in name:
        return 1 + 0.1 * noise
    if name.endswith("bias"):
        return 0.1 * noise
    if "embed" in name:
        return 0.5 * noise
    return noise / tensor.shape[-1] ** 0.5


def teach(model, tokenizer) -> None:
    """Makes the sentences known by heart: the last matrix of the last layer is the least-squares answer to what the
    random layers before it see at each place, so every one of them takes part in every token."""
    import torch

    torch.set_num_threads(1)
    down = model.model.layers[-1].mlp.down_proj
    seen, wanted = [], []
    hook = down.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0][0, :-1]))
    with torch.no_grad():
        for text in sentences():
            ids = torch.tensor(tokenizer(text)["input_ids"])
            model(ids[None])
            wanted.append(model.lm_head.weight[ids[1:]])
        hook.remove()
        seen, wanted = torch.cat(seen), torch.cat(wanted)
        wanted = 4 * wanted / wanted.std()
        assert len(seen) <= down.in_features, f"{len(seen)} places to know by heart, {down.in_features} is the most"
        square = seen.T @ seen
        noise = ROUNDING**2 * square.diagonal().mean() * torch.eye(len(square))
        down.weight.copy_(torch.linalg.solve(square + noise, seen.T @ wanted).T)


def random_words(seed: int, count: int) -> str:
    r = np.random.default_rng(seed)
    words = ["the", "sum", "of", "model", "token", "what", "is", "12", "+", "7", "=", "def f(x):\n    return", "naïve",
             "你好", "🙂", "brown fox", "jumps", "lazy dog", "été", "number", "I've", "print(", ")"]
    return " ".join(r.choice(words, count))


def sentences() -> list[str]:
    return [random_words(seed, 30) for seed in range(SENTENCES)]


def candidate_prompts() -> list[str]:
    """Beginnings of the sentences and texts that were never taught, in turns."""
    begun = [" ".join(text.split(" ")[:words]) for words in (3, 4, 5, 6, 8, 10) for text in sentences()]
    other = [random_words(1000 + seed, 3 + seed % 8) for seed in range(CANDIDATES - len(begun))]
    turns = [text for pair in zip(begun, other) for text in pair]
    return turns + other[len(begun):]


@dataclasses.dataclass
class Run:
    """A prompt and its maker's continuation."""

    text: str
    prompt: list[int]
    tokens: list[int]
    lead: float


class Undecided(Exception):
    """The best token leads by too little."""


def continue_prompts(step, tokenise, margin: float) -> tuple[list[Run], int]:
    """The first prompts whose maker decides clearly at every step, and how many were passed over."""
    kept, passed = [], 0
    for text in candidate_prompts():
        ids = tokenise(text)
        lead = np.inf
        stepper = step()

        def watched(seen: list[int]) -> np.ndarray:
            nonlocal lead
            row = stepper(seen)
            second, first = np.sort(row)[-2:]
            lead = min(lead, float((first - second) / row.std()))
            if lead < margin:
                raise Undecided
            return row

        try:
            done = greedy(watched, {"ids": ids}, set())
        except Undecided:
            passed += 1
            continue
        kept.append(Run(text, ids, done["ids"], lead))
        if len(kept) == PROMPTS:
            break
    return kept, passed


def cached_steps(model):
    """transformers with its own cache, as `generate` uses it."""
    import torch

    def begin():
        cache, done = None, 0

        def step(ids: list[int]) -> np.ndarray:
            nonlocal cache, done
            with torch.no_grad():
                out = model(torch.tensor([ids[done:]]), past_key_values=cache, use_cache=True)
            cache, done = out.past_key_values, len(ids)
            return out.logits[0, -1].numpy()

        return step

    return begin


class Table:
    """What was compared, and what differed."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, ...]] = []
        self.wrong: list[str] = []

    def compare(self, apr: pathlib.Path, model: str, maker: str, weights: pathlib.Path, runs: list[Run], passed: int):
        if len(runs) < PROMPTS:
            self.wrong.append(f"{model} {weights.name}: only {len(runs)} of {PROMPTS} prompts decide anything")
        for backend in BACKENDS:
            equal = 0
            for run in runs:
                problem = differs(apr, weights, backend, run)
                if problem:
                    self.wrong.append(f"{model} {weights.name} on {backend}: {problem}")
                else:
                    equal += len(run.tokens)
            lead = min((run.lead for run in runs), default=0.0)
            total = sum(len(run.tokens) for run in runs)
            self.rows.append((model, weights.name, maker, backend, f"{equal} of {total}", f"{lead:.3f}", str(passed)))
            print("  ".join(self.rows[-1]), flush=True)

    def print(self) -> None:
        head = ("model", "weights", "maker", "backend", "equal tokens", "least lead", "passed over")
        widths = [max(len(row[n]) for row in [head, *self.rows]) for n in range(len(head))]
        for row in [head, *self.rows]:
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())


def differs(apr: pathlib.Path, weights: pathlib.Path, backend: str, run: Run) -> str | None:
    """What apr says otherwise than the maker of `run`; `None` when it says the same."""
    command = [apr, "run", weights, "--json", "--raw", "-n", str(len(run.tokens)), "--backend", backend, "--prompt", run.text]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return f"exit {done.returncode}: {done.stderr.strip()}"
    answer = json.loads(done.stdout)
    if answer["prompt_tokens"] != run.prompt:
        return f"prompt {run.text!r} read as {answer['prompt_tokens']}, not {run.prompt}"
    if answer["tokens"] != run.tokens:
        pairs = zip(answer["tokens"] + [None] * len(run.tokens), run.tokens)
        at, (ours, theirs) = next((n, pair) for n, pair in enumerate(pairs) if pair[0] != pair[1])
        return f"token {at} after {run.text!r} is {ours}, not {theirs} (least lead {run.lead:.3f})"
    return None


def check_reading(maker: Maker, scratch: pathlib.Path, llama_cpp: pathlib.Path, apr: pathlib.Path, table: Table) -> None:
    """SafeTensors by transformers, GGUF by llama.cpp: apr's tokens against theirs."""
    from transformers import AutoTokenizer

    folder = scratch / maker.name
    model = save_model(maker, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    runs, passed = continue_prompts(cached_steps(model), lambda text: tokenizer(text)["input_ids"], MARGINS["float"])
    table.compare(apr, maker.name, "transformers", folder, runs, passed)
    base = scratch / f"{maker.name}-F16.gguf"
    convert(maker.name, "F16", folder, base, llama_cpp, "llama-bpe" if maker.kind == "llama" else "qwen2")
    for form in maker.forms:
        path = scratch / f"{maker.name}-{form}.gguf"
        if form != "F16":
            quantise(base, path, form)
        peer = LlamaCpp(path)
        tokenise = lambda text: peer.tokenise(text, maker.begins)
        runs, passed = continue_prompts(peer.stepper, tokenise, MARGINS["F16" if form == "F16" else "blocks"])
        peer.close()
        table.compare(apr, maker.name, "llama.cpp", path, runs, passed)


def main() -> None:
    root = pathlib.Path(__file__).resolve().parent.parent
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llama-cpp", type=pathlib.Path, required=True, help="source tree with convert_hf_to_gguf.py")
    parser.add_argument("--apr", type=pathlib.Path, default=root / "target/release/apr", help="the executable")
    parser.add_argument("--only", choices=[maker.name for maker in MAKERS], help="one model")
    parser.add_argument("--keep", type=pathlib.Path, help="an empty folder for the models instead of a temporary one")
    args = parser.parse_args()
    print(json.dumps(versions("torch", "transformers", "tokenizers", "safetensors", "gguf", "llama-cpp-python")))
    table = Table()
    with tempfile.TemporaryDirectory() as temporary:
        scratch = args.keep or pathlib.Path(temporary)
        for maker in MAKERS:
            if args.only in (None, maker.name):
                check_reading(maker, scratch, args.llama_cpp.resolve(), args.apr.resolve(), table)
    print()
    table.print()
    if table.wrong or not table.rows:
        sys.exit("\n".join(["", *table.wrong, f"{len(table.wrong)} differences in {len(table.rows)} rows"]))
    print(f"\nno difference in {len(table.rows)} rows")


if __name__ == "__main__":
    main()
