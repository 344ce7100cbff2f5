# /// script
# requires-python = ">=3.11"
# dependencies = ["numpy"]
# ///
"""Makes a model with the shapes of a published one and random weights, for measuring speed.

    python scripts/make_random_model.py --shape qwen2.5-0.5b --out FOLDER
    apr quantize FOLDER --type Q4_K_M -o model.gguf

Speed, size and rounding of such a model are those of the real one; what it writes means nothing. Every tensor has a generator
of its own, keyed by the seed and its name, so a tensor is the same in every run and whatever else is made. Weights are normal
with a deviation of 0.02; gains lie around one and biases around zero with 0.1, so that leaving one out shows. The tokenizer
is byte-level BPE with as many tokens and merges as the published one has, made up: all pairs of bytes, then triples.
"""

import argparse
import hashlib
import json
import pathlib
import struct

import numpy as np

SHAPES = {
    "qwen2.5-0.5b": dict(hidden_size=896, intermediate_size=4864, num_hidden_layers=24, num_attention_heads=14,
                         num_key_value_heads=2),
    "qwen2.5-1.5b": dict(hidden_size=1536, intermediate_size=8960, num_hidden_layers=28, num_attention_heads=12,
                         num_key_value_heads=2),
}
VOCAB = 151_936
BASE_TOKENS = 151_643
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
         r"|\s+(?!\S)|\s+")
TEMPLATE = ("{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
            "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")


def config(shape: dict, dtype: str) -> dict:
    return shape | dict(
        model_type="qwen2", architectures=["Qwen2ForCausalLM"], vocab_size=VOCAB, rms_norm_eps=1e-6, rope_theta=1e6,
        max_position_embeddings=32_768, tie_word_embeddings=True, hidden_act="silu", torch_dtype=dtype,
        bos_token_id=BASE_TOKENS, eos_token_id=BASE_TOKENS + 2)


def tensors(shape: dict) -> dict[str, tuple[int, ...]]:
    """Names and shapes, in the order of the file."""
    hidden, inner = shape["hidden_size"], shape["intermediate_size"]
    kv = hidden // shape["num_attention_heads"] * shape["num_key_value_heads"]
    named = {"model.embed_tokens.weight": (VOCAB, hidden)}
    for layer in range(shape["num_hidden_layers"]):
        parts = {
            "input_layernorm.weight": (hidden,), "post_attention_layernorm.weight": (hidden,),
            "self_attn.q_proj.weight": (hidden, hidden), "self_attn.q_proj.bias": (hidden,),
            "self_attn.k_proj.weight": (kv, hidden), "self_attn.k_proj.bias": (kv,),
            "self_attn.v_proj.weight": (kv, hidden), "self_attn.v_proj.bias": (kv,),
            "self_attn.o_proj.weight": (hidden, hidden), "mlp.gate_proj.weight": (inner, hidden),
            "mlp.up_proj.weight": (inner, hidden), "mlp.down_proj.weight": (hidden, inner),
        }
        named |= {f"model.layers.{layer}.{name}": dims for name, dims in parts.items()}
    return named | {"model.norm.weight": (hidden,)}


def values(name: str, dims: tuple[int, ...], seed: int) -> np.ndarray:
    key = hashlib.sha256(f"{seed} {name}".encode()).digest()[:16]
    generator = np.random.Generator(np.random.Philox(key=int.from_bytes(key, "little")))
    normal = generator.standard_normal(dims, dtype=np.float32)
    if len(dims) == 2:
        return normal * np.float32(0.02)
    return normal * np.float32(0.1) + np.float32("norm" in name)


def stored(numbers: np.ndarray, dtype: str) -> bytes:
    if dtype == "float16":
        return numbers.astype(np.float16).tobytes()
    bits = numbers.view(np.uint32)
    # To the nearest, ties to even.
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16).tobytes()


def save_weights(path: pathlib.Path, shape: dict, dtype: str, seed: int) -> None:
    named, header, end = tensors(shape), {}, 0
    for name, dims in named.items():
        begin, end = end, end + 2 * int(np.prod(dims))
        kind = "F16" if dtype == "float16" else "BF16"
        header[name] = {"dtype": kind, "shape": dims, "data_offsets": [begin, end]}
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(head)) + head)
        for name, dims in named.items():
            file.write(stored(values(name, dims, seed), dtype))


def byte_letters() -> list[str]:
    """The letters that stand for bytes in byte-level BPE: printable ones for themselves, the rest moved up."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def tokenizer() -> dict:
    letters = byte_letters()
    pairs = [(a, b) for a in letters for b in letters]
    triples = ((a + b, c) for a, b in pairs for c in letters)
    merges = pairs + [next(triples) for _ in range(BASE_TOKENS - 256 - len(pairs))]
    vocab = {token: id for id, token in enumerate([*letters, *(a + b for a, b in merges)])}
    names = SPECIAL + [f"<|reserved_{n}|>" for n in range(VOCAB - BASE_TOKENS - len(SPECIAL))]
    added = [dict(id=BASE_TOKENS + n, content=name, single_word=False, lstrip=False, rstrip=False, normalized=False,
                  special=True) for n, name in enumerate(names)]
    pieces = dict(type="ByteLevel", add_prefix_space=False, trim_offsets=False, use_regex=False)
    split = dict(type="Split", pattern={"Regex": SPLIT}, behavior="Isolated", invert=False)
    return dict(
        version="1.0", truncation=None, padding=None, added_tokens=added, normalizer={"type": "NFC"},
        pre_tokenizer=dict(type="Sequence", pretokenizers=[split, pieces]), post_processor=pieces, decoder=pieces,
        model=dict(type="BPE", dropout=None, unk_token=None, continuing_subword_prefix="", end_of_word_suffix="",
                   fuse_unk=False, byte_fallback=False, ignore_merges=False, vocab=vocab,
                   merges=[f"{a} {b}" for a, b in merges]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True, help="a folder, made if need be")
    parser.add_argument("--dtype", choices=["bfloat16", "float16"], default="bfloat16")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    shape = SHAPES[arguments.shape]
    arguments.out.mkdir(parents=True, exist_ok=True)
    files = {
        "config.json": config(shape, arguments.dtype),
        "tokenizer.json": tokenizer(),
        "tokenizer_config.json": dict(
            tokenizer_class="Qwen2Tokenizer", bos_token=None, eos_token=SPECIAL[2], pad_token=SPECIAL[0],
            model_max_length=32_768, chat_template=TEMPLATE),
    }
    for name, content in files.items():
        (arguments.out / name).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    save_weights(arguments.out / "model.safetensors", shape, arguments.dtype, arguments.seed)


if __name__ == "__main__":
    main()
