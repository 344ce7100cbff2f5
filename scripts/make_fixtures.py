# /// script
# requires-python = ">=3.11"
# dependencies = ["numpy", "torch", "transformers>=5", "tokenizers", "safetensors", "gguf", "llama-cpp-python", "sentencepiece"]
# ///
"""Make the carried model files and list them: seeded pygmies, GGUF forms by llama.cpp, the manifest.

    python scripts/make_fixtures.py pygmy                                  # fixtures/pygmy/*
    python scripts/make_fixtures.py gguf --llama-cpp LLAMA_CPP_SOURCE      # fixtures/gguf/*
    python scripts/make_fixtures.py manifest                               # fixtures/manifest.yaml

A pygmy is a random model of a real family in a few hundred kilobytes. Each weight comes from Philox keyed by
SHA-256 of seed, model and tensor name, so one tensor never depends on another. GGUF files are a stranger's work on
purpose: llama.cpp's converter writes F16, its quantiser the rest. The converter knows pre-tokenizers by a hash of
what a tokenizer does to a test string; ours is Qwen2's expression with another vocabulary, so that one answer is given.
Families that are published with SentencePiece alone are converted with this tokenizer all the same.
LLAMA_CPP_SOURCE is a checkout, or `vendor/llama.cpp` of the source distribution of llama-cpp-python.
"""

import argparse
import copy
import functools
import hashlib
import json
import pathlib
import subprocess
import sys

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent / "fixtures"
SEED = "apr-pygmy-1"
VOCAB = 320
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3_SPLIT = QWEN2_SPLIT.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
CHATML = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)

# name -> (configuration, stored dtype, largest shard). What each stands for is in fixtures/pygmy/README.md.
LLAMA3_SCALING = {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                  "original_max_position_embeddings": 64}
# Strong enough that both sets and the factor on attention show within 14 positions.
LONGROPE = {"type": "longrope", "short_factor": [1.0, 1.05, 1.1, 1.2, 1.3, 1.5],
            "long_factor": [1.05, 1.3, 1.9, 3.0, 4.6, 6.8]}
PYGMIES = {
    "qwen2-tied": (dict(model_type="qwen2", hidden_size=224, intermediate_size=96, num_hidden_layers=2,
                        num_attention_heads=7, num_key_value_heads=1, rms_norm_eps=1e-6, rope_theta=1000000.0,
                        tie_word_embeddings=True), "bfloat16", None),
    "llama3-gqa": (dict(model_type="llama", hidden_size=64, intermediate_size=96, num_hidden_layers=2,
                        num_attention_heads=4, num_key_value_heads=2, rms_norm_eps=1e-5, rope_theta=500000.0,
                        rope_scaling=LLAMA3_SCALING, tie_word_embeddings=False), "float16", "60KB"),
    "mistral": (dict(model_type="mistral", hidden_size=256, intermediate_size=256, num_hidden_layers=2,
                     num_attention_heads=4, num_key_value_heads=2, head_dim=32, rms_norm_eps=1e-5,
                     rope_theta=10000.0, sliding_window=None, tie_word_embeddings=False), "bfloat16", None),
    "llama-mha": (dict(model_type="llama", hidden_size=64, intermediate_size=96, num_hidden_layers=2,
                       num_attention_heads=4, num_key_value_heads=4, rms_norm_eps=1e-5, rope_theta=10000.0,
                       tie_word_embeddings=False), "float32", None),
    "qwen3": (dict(model_type="qwen3", hidden_size=64, intermediate_size=96, num_hidden_layers=2,
                   num_attention_heads=6, num_key_value_heads=2, head_dim=16, rms_norm_eps=1e-6, rope_theta=1000000.0,
                   tie_word_embeddings=True), "bfloat16", None),
    "phi3": (dict(model_type="phi3", hidden_size=64, intermediate_size=96, num_hidden_layers=2,
                  num_attention_heads=4, num_key_value_heads=2, rms_norm_eps=1e-5, rope_theta=10000.0,
                  sliding_window=6, tie_word_embeddings=False), "bfloat16", None),
    "longrope": (dict(model_type="phi3", hidden_size=96, intermediate_size=64, num_hidden_layers=2,
                       num_attention_heads=6, num_key_value_heads=2, rms_norm_eps=1e-5, rope_theta=10000.0,
                       rope_scaling=LONGROPE, partial_rotary_factor=0.75, original_max_position_embeddings=12,
                       sliding_window=None, tie_word_embeddings=False), "bfloat16", None),
    "gemma2": (dict(model_type="gemma2", hidden_size=64, intermediate_size=96, num_hidden_layers=3,
                    num_attention_heads=4, num_key_value_heads=1, head_dim=24, query_pre_attn_scalar=24,
                    rms_norm_eps=1e-6, rope_theta=10000.0, sliding_window=6, attn_logit_softcapping=2.0,
                    final_logit_softcapping=1.5, tie_word_embeddings=True), "bfloat16", None),
    "gemma2-wide": (dict(model_type="gemma2", hidden_size=64, intermediate_size=64, num_hidden_layers=2,
                         num_attention_heads=2, num_key_value_heads=1, head_dim=24, query_pre_attn_scalar=8,
                         rms_norm_eps=1e-6, rope_theta=10000.0, sliding_window=5, attn_logit_softcapping=None,
                         final_logit_softcapping=None, tie_word_embeddings=True), "bfloat16", None),
    "gemma3": (dict(model_type="gemma3_text", hidden_size=64, intermediate_size=64, num_hidden_layers=7,
                    num_attention_heads=2, num_key_value_heads=1, head_dim=24, query_pre_attn_scalar=24,
                    rms_norm_eps=1e-6, rope_theta=1000000.0, rope_local_base_freq=100.0,
                    rope_scaling={"rope_type": "linear", "factor": 8.0}, sliding_window=5, sliding_window_pattern=6,
                    tie_word_embeddings=True), "bfloat16", None),
}
# These keep the configuration as Hugging Face Hub models have it (flat `rope_theta`, `torch_dtype`);
# the others keep what transformers 5 saves (`rope_parameters`, `dtype`).
CLASSIC_CONFIG = ("llama3-gqa", "llama-mha", "longrope", "gemma3")

# GGUF forms to carry: F32, BF16 and F16 are the converter's, the others are quantised from F16.
FORMS = {
    "golden": ["F16", "Q8_0", "Q4_K_M"],
    "qwen2-tied": ["F16", "Q8_0", "Q4_K_M"],
    "llama3-gqa": ["F16", "Q8_0"],
    "mistral": ["F16", "Q8_0", "Q4_K_M", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K_M", "Q5_K_M", "Q6_K"],
    "llama-mha": ["F16", "F32", "BF16", "Q8_0"],
    "qwen3": ["F16", "Q8_0"],
    "longrope": ["F16", "Q8_0"],
    "gemma2": ["F16", "Q8_0"],
    "gemma3": ["F16", "Q8_0"],
}
FTYPES = {"Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "Q5_0": 8, "Q5_1": 9, "Q2_K": 10, "Q3_K_M": 12, "Q4_K_M": 15,
          "Q5_K_M": 17, "Q6_K": 18}


def rng(*name: str) -> np.random.Generator:
    key = hashlib.sha256("/".join((SEED, *name)).encode()).digest()[:16]
    return np.random.Generator(np.random.Philox(key=np.frombuffer(key, np.uint64)))


def training_text() -> list[str]:
    """Seeded sentences for the tokenizer: words of a made-up language with a little code and arithmetic."""
    r = rng("text")
    words = ["the", "and", "two", "sum", "of", "is", "model", "token", "what", "that", "return", "print", "for", "in",
             "answer", "number", "quick", "brown", "fox", "jumps", "over", "lazy", "dog", "你好", "été", "naïve"]
    lines = [" ".join(r.choice(words, r.integers(3, 9))) + "." for _ in range(400)]
    return lines + [f"{a} + {b} = {a + b}" for a in range(12) for b in range(12)] + ["def f(x):\n    return x\n"] * 40


def make_tokenizer(folder: pathlib.Path) -> None:
    """Byte-level BPE of 320 entries with Qwen2's normaliser and pre-tokenizer; special tokens last."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(QWEN2_SPLIT), behavior="isolated", invert=False),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    tokenizer.decoder = decoders.ByteLevel(add_prefix_space=False, use_regex=False)
    trainer = trainers.BpeTrainer(vocab_size=VOCAB - len(SPECIALS), show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(training_text(), trainer)
    tokenizer.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in SPECIALS])
    assert tokenizer.get_vocab_size() == VOCAB
    tokenizer.save(str(folder / "tokenizer.json"))
    added = {str(tokenizer.token_to_id(t)): {"content": t, "lstrip": False, "normalized": False, "rstrip": False,
                                             "single_word": False, "special": True} for t in SPECIALS}
    config = {"add_bos_token": False, "add_prefix_space": False, "added_tokens_decoder": added, "bos_token": None,
              "chat_template": CHATML, "clean_up_tokenization_spaces": False, "eos_token": "<|im_end|>",
              "model_max_length": 256, "pad_token": "<|endoftext|>", "tokenizer_class": "Qwen2Tokenizer",
              "unk_token": None}
    write_json(folder / "tokenizer_config.json", config)


def write_json(path: pathlib.Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def weight(model: str, name: str, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """A random tensor, large enough that attention is not uniform and logits are not flat.

    Norms are near one (Gemma stores them less one) and biases are not zero, so that leaving out either shows. A 16-bit model's weights are rounded
    to BF16 and F16 both: its GGUF form in F16 then holds the very same numbers.
    """
    r = rng(model, name)
    if "norm" in name:
        values = (0 if model.startswith("gemma") else 1) + r.normal(0, 0.1, shape)
    elif name.endswith("bias"):
        values = r.normal(0, 0.1, shape)
    elif "embed" in name:
        values = r.normal(0, 0.1, shape)
    else:
        gain = 1.6 if "q_proj" in name or "k_proj" in name else 1.0
        values = r.normal(0, gain / np.sqrt(shape[-1]), shape)
    values = values.astype(np.float32)
    if dtype == "float32":
        return values
    bits = values.astype(np.float16).astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)


def make_pygmy(name: str, folder: pathlib.Path) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    spec, dtype, shard = PYGMIES[name]
    ids = {"bos_token_id": None, "eos_token_id": VOCAB - 1, "pad_token_id": VOCAB - 3}
    settings = {k: v for k, v in spec.items() if not k.startswith("rope_") and k != "model_type"}
    config = AutoConfig.for_model(spec["model_type"], vocab_size=VOCAB, max_position_embeddings=256,
                                  **rope_settings(name, spec), **settings, **ids)
    model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
    with torch.no_grad():
        for key, tensor in model.named_parameters():
            tensor.copy_(torch.from_numpy(weight(name, key, tuple(tensor.shape), dtype)))
    model.generation_config.eos_token_id = VOCAB - 1
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder, **({"max_shard_size": shard} if shard else {}))
    if name in CLASSIC_CONFIG:
        activation = "hidden_activation" if hasattr(config, "hidden_activation") else "hidden_act"
        classic = {"architectures": [type(model).__name__], **spec, **ids, "vocab_size": VOCAB,
                   activation: getattr(config, activation), "max_position_embeddings": 256, "attention_bias": False,
                   "torch_dtype": dtype}
        write_json(folder / "config.json", classic)
    make_tokenizer(folder)
    for path in folder.iterdir():
        path.chmod(0o644)


def rope_settings(name: str, spec: dict) -> dict:
    """What a configuration is given for the rotation: models with a classic one are read as they will be again."""
    if name in CLASSIC_CONFIG and spec["model_type"] != "llama":
        # The library writes into what it is given.
        return copy.deepcopy({k: v for k, v in spec.items() if k.startswith("rope_")})
    return {"rope_parameters": dict(spec.get("rope_scaling", {"rope_type": "default"}), rope_theta=spec["rope_theta"])}


CONVERT = """
import sys
sys.path.insert(0, sys.argv[1]); pre = sys.argv[2]; sys.argv = ["convert_hf_to_gguf.py"] + sys.argv[3:]
import convert_hf_to_gguf, conversion.base, conversion.gemma, conversion.phi
for family in (conversion.phi.Phi3MiniModel, conversion.gemma.Gemma2Model):
    family.set_vocab = lambda self: self._set_vocab_gpt2()
conversion.base.TextModel.get_vocab_base_pre = lambda self, tokenizer: pre
convert_hf_to_gguf.main()
"""


def make_gguf(name: str, forms: list[str], source: pathlib.Path, out: pathlib.Path, llama_cpp: pathlib.Path) -> None:
    """Every form of one model; F16 comes first because the quantised ones start from it."""
    out.mkdir(parents=True, exist_ok=True)
    for form in forms:
        target = out / f"{name}-{form}.gguf"
        if form in ("F32", "BF16", "F16"):
            convert(name, form, source, target, llama_cpp)
        else:
            quantise(out / f"{name}-F16.gguf", target, form)
        print(f"{target.name}  {target.stat().st_size} bytes  {tensor_types(target)}")


@functools.cache
def silent_llama():
    """llama.cpp without its log; the callback must live as long as the library."""
    import ctypes

    import llama_cpp.llama_cpp as llama

    silent_llama.callback = llama.llama_log_callback(lambda *_: None)
    llama.llama_log_set(silent_llama.callback, ctypes.c_void_p(0))
    return llama


def quantise(base: pathlib.Path, target: pathlib.Path, form: str) -> None:
    """By llama.cpp's quantiser, in one thread, without importance matrix."""
    import ctypes

    llama = silent_llama()
    params = llama.llama_model_quantize_default_params()
    params.nthread, params.ftype = 1, FTYPES[form]
    if llama.llama_model_quantize(str(base).encode(), str(target).encode(), ctypes.byref(params)):
        sys.exit(f"quantising {base} to {form} failed")


def convert(name: str, form: str, source: pathlib.Path, target: pathlib.Path, llama_cpp: pathlib.Path,
            pre: str = "qwen2") -> None:
    command = [sys.executable, "-c", CONVERT, str(llama_cpp), pre, str(source), "--outtype", form.lower(),
               "--outfile", str(target), "--model-name", name]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"conversion of {source} failed:\n{done.stderr}")


def tensor_types(path: pathlib.Path) -> dict[str, int]:
    import gguf

    counts: dict[str, int] = {}
    for tensor in gguf.GGUFReader(path).tensors:
        counts[tensor.tensor_type.name] = counts.get(tensor.tensor_type.name, 0) + 1
    return counts


OWN = "MIT OR Apache-2.0"
# First match wins: (path prefix, origin).
ORIGINS = [
    ("golden/", "scripts/train_golden.py"),
    ("pygmy/", "scripts/make_fixtures.py pygmy"),
    ("gguf/", "scripts/make_fixtures.py gguf (converter and quantiser of llama.cpp, as in llama-cpp-python 0.3.36)"),
    ("oracle/quant/", "scripts/record_quant_oracles.py (gguf 0.19.0, ggml 0.25.3)"),
    ("oracle/real/", "scripts/record_real_oracles.py (transformers, llama.cpp; versions inside)"),
    ("oracle/", "scripts/record_oracles.py (transformers, llama.cpp; versions inside)"),
    ("apr-interop/", "written by the public apr-cli 0.72.3 (commit 9c34b9a91) from a random model; see its README"),
    ("hostile/", "generated by the tests; see its README"),
]


def make_manifest(root: pathlib.Path, limit: int) -> None:
    """List every file under `root`; one that no rule explains, or that is too large, is an error."""
    lines = ["# Every carried file. Written by `python scripts/make_fixtures.py manifest`; do not edit.", "files:"]
    total = 0
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        name = path.relative_to(root).as_posix()
        if name == "manifest.yaml":
            continue
        origin = next((o for prefix, o in ORIGINS if name.startswith(prefix)), None)
        if path.name == "README.md" and not name.startswith(("apr-interop/", "golden/")):
            origin = "written by hand"
        data = path.read_bytes()
        if origin is None:
            sys.exit(f"{name}: nobody knows where this file comes from; add a rule to ORIGINS")
        if len(data) > limit:
            sys.exit(f"{name}: {len(data)} bytes, the limit is {limit}")
        total += len(data)
        lines += [f"  - path: {json.dumps(name, ensure_ascii=False)}", f"    sha256: {hashlib.sha256(data).hexdigest()}",
                  f"    size: {len(data)}", f"    origin: {json.dumps(origin)}", f"    licence: {json.dumps(OWN)}"]
    (root / "manifest.yaml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{len(lines[2:]) // 5} files, {total} bytes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=pathlib.Path, default=ROOT, help="the fixtures folder")
    commands = parser.add_subparsers(dest="command", required=True)
    pygmy = commands.add_parser("pygmy", help="random models as Hugging Face directories")
    pygmy.add_argument("--only", choices=list(PYGMIES))
    gguf = commands.add_parser("gguf", help="GGUF forms, by llama.cpp's converter and quantiser")
    gguf.add_argument("--llama-cpp", type=pathlib.Path, required=True, help="source tree with convert_hf_to_gguf.py")
    gguf.add_argument("--only", choices=list(FORMS))
    manifest = commands.add_parser("manifest", help="sha256, size, origin and licence of every carried file")
    manifest.add_argument("--limit", type=int, default=8_000_000, help="largest file allowed, in bytes")
    args = parser.parse_args()
    if args.command == "pygmy":
        for name in [args.only] if args.only else PYGMIES:
            make_pygmy(name, args.root / "pygmy" / name)
    elif args.command == "gguf":
        for name in [args.only] if args.only else FORMS:
            source = args.root / "golden" if name == "golden" else args.root / "pygmy" / name
            if not source.is_dir():
                print(f"{name}: no {source}, left out")
                continue
            make_gguf(name, FORMS[name], source, args.root / "gguf", args.llama_cpp.resolve())
    else:
        make_manifest(args.root, args.limit)


if __name__ == "__main__":
    main()
