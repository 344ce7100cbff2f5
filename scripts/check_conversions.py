# /// script
# requires-python = ">=3.11"
# dependencies = ["numpy", "torch", "transformers>=5", "tokenizers", "safetensors", "gguf", "llama-cpp-python", "sentencepiece"]
# ///
"""Do strangers read what apr converts, and is it the same model?

    cargo build --release
    python scripts/check_conversions.py --llama-cpp LLAMA_CPP_SOURCE

Models are made as in `check_strangers.py`, and one of every further family; GGUF forms of them by llama.cpp's converter and
quantiser. apr converts the same originals, and each result is given to the programs it is meant for:

- GGUF: the `gguf` package must read it and find the dtype and the bytes that llama.cpp gave every tensor; llama.cpp must
  read the same prompt tokens and answer with the same 32 greedy tokens as on its own file;
- SafeTensors, from SafeTensors through GGUF and APR: the `safetensors` package must find the bytes of the original, and
  `from_pretrained` of transformers the same ids, the same logits and the same 32 greedy tokens;
- SafeTensors, from the files of llama.cpp: the values must be those of the `gguf` package's own dequantisers, and, from its
  F16 file, `from_pretrained` must find the same model, although the configuration was made from GGUF keys;
- APR: read back by apr alone, which checks its checksums; the weights must still be the original's.

Any difference is an error; the table says what was compared.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
from check_strangers import MAKERS, PROMPTS, STEPS, WIDE, Maker, cached_steps, candidate_prompts, save_model
from make_fixtures import convert, quantise
from record_oracles import LlamaCpp, greedy
from record_quant_oracles import versions

PLAIN = ("F32", "F16", "BF16")
FORMS = (*PLAIN, "Q8_0", "Q4_0", "Q4_K_M", "Q5_K_M", "Q6_K")
# What a row of logits may be off by, in its standard deviations: a configuration may say numbers in single precision.
LOGITS = 1e-4
# How far tensors may differ that converters compute instead of copying: these divide frequencies made in single precision.
COMPUTED = {"rope_freqs.weight": 1e-5}
CARRIED = ("gemma3",)

FAMILIES = [
    Maker("qwen3", "qwen3", WIDE | dict(rope_theta=1e6, head_dim=48), True, "bfloat16"),
    # llama.cpp demands tokens of a model that is called after this family, which these do not have.
    Maker("fused", "phi3", WIDE | dict(rope_theta=1e4, original_max_position_embeddings=256, sliding_window=200), False,
          "bfloat16"),
    Maker("longrope", "phi3", WIDE | dict(rope_theta=1e4, original_max_position_embeddings=64, rope_scaling={
        "rope_type": "longrope", "short_factor": [1 + n / 64 for n in range(32)],
        "long_factor": [1 + n / 16 for n in range(32)]}), False, "float16"),
    Maker("gemma2", "gemma2", WIDE | dict(rope_theta=1e4, head_dim=48, query_pre_attn_scalar=48, sliding_window=8), True,
          "bfloat16"),
    # The carried one: llama.cpp's converter cuts the embedding of others to the tokens that the tokenizer has.
    Maker("gemma3", "gemma3_text", dict(num_hidden_layers=7), True, "bfloat16"),
]


class Table:
    """What was compared, and what differed."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, ...]] = []
        self.wrong: list[str] = []

    def add(self, model: str, what: str, reader: str, equal: int, total: int, problems: list[str]) -> None:
        if total == 0:
            problems = [*problems, "nothing was compared"]
        if equal != total and not problems:
            problems = [f"only {equal} of {total} equal"]
        self.wrong += [f"{model} {what}, {reader}: {problem}" for problem in problems]
        self.rows.append((model, what, reader, f"{equal} of {total}"))
        print("  ".join(self.rows[-1]), flush=True)


def apr(program: pathlib.Path, *args: object) -> None:
    done = subprocess.run([program, *map(str, args), "--quiet"], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"apr {' '.join(map(str, args))}: exit {done.returncode}\n{done.stderr}")


def compare_gguf(model: str, form: str, ours: pathlib.Path, theirs: pathlib.Path, table: Table) -> None:
    """Both files in the gguf package: names, dtypes, shapes and bytes of every tensor."""
    import gguf

    found = {tensor.name: tensor for tensor in gguf.GGUFReader(ours).tensors}
    problems, equal = [], 0
    expected = gguf.GGUFReader(theirs).tensors
    for tensor in expected:
        other = found.pop(tensor.name, None)
        if other is None:
            problems.append(f"{tensor.name} is missing")
        elif (other.tensor_type, list(other.shape)) != (tensor.tensor_type, list(tensor.shape)):
            problems.append(f"{tensor.name} is {other.tensor_type.name}, not {tensor.tensor_type.name}")
        elif tensor.name in COMPUTED and np.allclose(other.data, tensor.data, rtol=COMPUTED[tensor.name], atol=0):
            equal += 1
        elif other.data.tobytes() != tensor.data.tobytes():
            problems.append(f"{tensor.name} has other bytes")
        else:
            equal += 1
    problems += [f"{name} is too much" for name in found]
    table.add(model, f"GGUF {form}", "gguf package, tensors", equal, len(expected), problems)


def answers(path: pathlib.Path, begins: bool) -> list[tuple[list[int], list[int]]]:
    """Prompt tokens and greedy tokens of llama.cpp."""
    peer = LlamaCpp(path)
    done = []
    for text in candidate_prompts()[:PROMPTS]:
        ids = peer.tokenise(text, begins)
        done.append((ids, greedy(peer.stepper(), {"ids": ids}, set())["ids"]))
    peer.close()
    return done


def compare_answers(model: str, form: str, ours: pathlib.Path, theirs: pathlib.Path, begins: bool, table: Table) -> None:
    pairs = list(zip(answers(ours, begins), answers(theirs, begins), strict=True))
    problems = [f"prompt read as {a[0]}, not {b[0]}" for a, b in pairs if a[0] != b[0]]
    equal = sum(x == y for a, b in pairs for x, y in zip(a[1], b[1], strict=True))
    table.add(model, f"GGUF {form}", "llama.cpp, greedy tokens", equal, len(pairs) * STEPS, problems)


def stored(folder: pathlib.Path) -> dict[str, np.ndarray]:
    """All tensors of a Hugging Face directory, as bytes with dtype and shape, by the safetensors package."""
    from safetensors import safe_open

    tensors = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in file.keys():
                tensors[name] = file.get_tensor(name)
    return tensors


def same_bits(a, b) -> bool:
    import torch

    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a.view(torch.uint8), b.view(torch.uint8))


def compare_journey(maker: Maker, original: pathlib.Path, program: pathlib.Path, scratch: pathlib.Path, table: Table) -> None:
    """SafeTensors to GGUF to APR and back: the safetensors package and transformers see the original."""
    gguf, middle, back = scratch / "way.gguf", scratch / "way.apr", scratch / "back"
    apr(program, "convert", original, "-o", gguf, "--force")
    apr(program, "import", gguf, "-o", middle, "--force")
    apr(program, "validate", middle)
    apr(program, "export", middle, "--format", "safetensors", "-o", back, "--force")
    expected, found = stored(original), stored(back)
    problems = [f"{name} stands on one side only" for name in expected.keys() ^ found.keys()]
    equal = [name for name in expected.keys() & found.keys() if same_bits(expected[name], found[name])]
    problems += [f"{name} has other bytes" for name in expected.keys() & found.keys() - set(equal)]
    table.add(maker.name, "SafeTensors, round trip", "safetensors package, tensors", len(equal), len(expected), problems)
    compare_transformers(maker, "SafeTensors, round trip", original, back, table)


def compare_transformers(maker: Maker, what: str, original: pathlib.Path, ours: pathlib.Path, table: Table) -> None:
    """The same ids, logits and greedy tokens in transformers."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    runs, rows = [], []
    for folder in (original, ours):
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32", attn_implementation="eager").eval()
        ids = [tokenizer(text)["input_ids"] for text in candidate_prompts()[:PROMPTS]]
        runs.append([(prompt, greedy(cached_steps(model)(), {"ids": prompt}, set())["ids"]) for prompt in ids])
        with torch.no_grad():
            rows.append([model(torch.tensor([prompt])).logits[0].numpy() for prompt in ids])
    problems = [f"prompt read as {b[0]}, not {a[0]}" for a, b in zip(*runs, strict=True) if a[0] != b[0]]
    equal = sum(x == y for a, b in zip(*runs, strict=True) for x, y in zip(a[1], b[1], strict=True))
    table.add(maker.name, what, "transformers, greedy tokens", equal, PROMPTS * STEPS, problems)
    close, total = 0, 0
    if not problems:
        for a, b in zip(*rows, strict=True):
            total += len(a)
            close += int((np.abs(a - b).max(axis=1) <= LOGITS * a.std(axis=1)).sum())
    table.add(maker.name, what, "transformers, rows of logits", close, total, [])


def halves(values: np.ndarray, heads: int) -> np.ndarray:
    """Rows of each head from adjacent pairs to halves."""
    rows = values.shape[0]
    return values.reshape(heads, rows // heads // 2, 2, -1).swapaxes(1, 2).reshape(values.shape)


def compare_values(maker: Maker, blocks: pathlib.Path, program: pathlib.Path, scratch: pathlib.Path, table: Table) -> None:
    """Blocks of llama.cpp as SafeTensors: the values of the gguf package's own dequantisers."""
    import gguf

    folder = scratch / "values"
    apr(program, "export", blocks, "--format", "safetensors", "-o", folder, "--force")
    found = stored(folder)
    reader = gguf.GGUFReader(blocks)
    kind = maker.kind.removesuffix("_text")
    arch = next(arch for arch, name in gguf.MODEL_ARCH_NAMES.items() if name == kind)
    names = gguf.get_tensor_name_map(arch, maker.settings["num_hidden_layers"])
    equal, total, problems = 0, 0, []
    for name, values in found.items():
        stem, _, end = name.rpartition(".")
        theirs = next(t for t in reader.tensors if t.name == f"{names.get_name(stem)}.{end}")
        expected = gguf.dequantize(theirs.data, theirs.tensor_type).reshape(values.shape)
        if kind.startswith("gemma") and "norm" in stem:
            # Hugging Face stores these gains less one.
            expected = expected - np.float32(1)
        heads = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}.get(stem.rsplit(".", 1)[-1])
        if heads and maker.kind == "llama":
            expected = halves(expected, maker.settings[heads])
        total += 1
        if np.array_equal(values.float().numpy(), expected):
            equal += 1
        else:
            problems.append(f"{name} has other values")
    table.add(maker.name, f"SafeTensors of {blocks.stem.rsplit('-', 1)[-1]}", "gguf package, values", equal, total, problems)


def check(maker: Maker, scratch: pathlib.Path, llama_cpp: pathlib.Path, program: pathlib.Path, table: Table) -> None:
    if maker.name in CARRIED:
        original = pathlib.Path(__file__).resolve().parent.parent / "fixtures/pygmy" / maker.name
    else:
        original = scratch / maker.name
        save_model(maker, original)
    base = scratch / f"{maker.name}-F16.gguf"
    for form in FORMS:
        ours, theirs = scratch / f"ours-{maker.name}-{form}.gguf", scratch / f"{maker.name}-{form}.gguf"
        if form in PLAIN:
            convert(maker.name, form, original, theirs, llama_cpp, "llama-bpe" if maker.kind == "llama" else "qwen2")
            apr(program, "convert", original, "-o", ours, "--dtype", form.lower())
        else:
            quantise(base, theirs, form)
            apr(program, "quantize", base, "-o", ours, "--type", form.lower())
        compare_gguf(maker.name, form, ours, theirs, table)
        compare_answers(maker.name, form, ours, theirs, maker.begins, table)
    for form in ("F16", "Q8_0", "Q4_K_M"):
        compare_values(maker, scratch / f"{maker.name}-{form}.gguf", program, scratch, table)
    # The one comes back with the configuration that it carries, the other with one made from its keys.
    for path, folder in ((scratch / f"ours-{maker.name}-F16.gguf", "carried"), (base, "made")):
        apr(program, "export", path, "--format", "safetensors", "-o", scratch / folder, "--force")
    compare_transformers(maker, "SafeTensors of llama.cpp's F16", scratch / "carried", scratch / "made", table)
    compare_journey(maker, original, program, scratch, table)


def main() -> None:
    root = pathlib.Path(__file__).resolve().parent.parent
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llama-cpp", type=pathlib.Path, required=True, help="source tree with convert_hf_to_gguf.py")
    parser.add_argument("--apr", type=pathlib.Path, default=root / "target/release/apr", help="the executable")
    makers = [*MAKERS, *FAMILIES]
    parser.add_argument("--only", choices=[maker.name for maker in makers], help="one model")
    args = parser.parse_args()
    print(json.dumps(versions("torch", "transformers", "tokenizers", "safetensors", "gguf", "llama-cpp-python")))
    table = Table()
    with tempfile.TemporaryDirectory() as temporary:
        for maker in makers:
            if args.only in (None, maker.name):
                check(maker, pathlib.Path(temporary), args.llama_cpp.resolve(), args.apr.resolve(), table)
    if table.wrong or not table.rows:
        sys.exit("\n".join(["", *table.wrong, f"{len(table.wrong)} differences in {len(table.rows)} rows"]))
    print(f"\nno difference in {len(table.rows)} rows")


if __name__ == "__main__":
    main()
