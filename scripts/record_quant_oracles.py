# /// script
# requires-python = ">=3.11"
# dependencies = ["numpy", "gguf", "llama-cpp-python"]
# ///
"""Record what others say a quantised block means: fixtures/oracle/quant, one SafeTensors file per block type.

    python scripts/record_quant_oracles.py

The `gguf` Python package (numpy) dequantises every type and quantises the simple ones; ggml's reference C code
(libggml-base, loaded with ctypes) quantises the K types and dequantises all. Where both answer, their bits are
compared here and the outcome is kept in the file's metadata. The tensors: fixtures/oracle/README.md.
"""

import argparse
import ctypes
import hashlib
import importlib.metadata
import importlib.util
import json
import pathlib

import numpy as np
from gguf import quants
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType as Q

FIXTURES = pathlib.Path(__file__).resolve().parent.parent / "fixtures"
SEED = "apr-quant-oracle-1"
# Byte offsets of the f16 fields of each block.
F16_FIELDS = {
    "Q8_0": [0], "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2],
    "Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208],
}
Q8_K_SIZE = (256, 292)
# Blocks with chosen scales: zeros, least and greatest subnormal, least normal, one, greatest finite; both signs.
EDGE_SCALES = [0x0000, 0x8000, 0x0001, 0x8001, 0x03FF, 0x83FF, 0x0400, 0x8400, 0x3C00, 0xBC00, 0x7BFF, 0xFBFF]


def rng(name: str) -> np.random.Generator:
    """A generator that depends on the name alone, so adding a type moves no other."""
    key = hashlib.sha256(f"{SEED}/{name}".encode()).digest()[:16]
    return np.random.Generator(np.random.Philox(key=np.frombuffer(key, np.uint64)))


def finite_f16_bits(r: np.random.Generator, n: int) -> np.ndarray:
    bits = r.integers(0, 1 << 16, n, dtype=np.uint16)
    return np.where((bits & 0x7C00) == 0x7C00, bits ^ np.uint16(0x4000), bits).astype(np.uint16)


def random_blocks(name: str, n: int) -> np.ndarray:
    """Valid blocks: random bytes, then finite scales, then the edge scales, then all-zero and all-one payloads."""
    size = Q8_K_SIZE[1] if name == "Q8_K" else GGML_QUANT_SIZES[Q[name]][1]
    r = rng(f"{name}/blocks")
    blocks = r.integers(0, 256, (n, size), dtype=np.uint8)
    blocks[0], blocks[1] = 0, 0xFF
    if name == "Q8_K":
        blocks[:, :4] = r.normal(0, 1, n).astype(np.float32).view(np.uint8).reshape(n, 4)
        q = blocks[:, 4:260].view(np.int8).astype(np.int64).reshape(n, 16, 16).sum(-1)
        blocks[:, 260:] = q.astype(np.int16).view(np.uint8).reshape(n, 32)
        return blocks
    for place, offset in enumerate(F16_FIELDS[name]):
        bits = finite_f16_bits(r, n)
        edges = np.array(EDGE_SCALES, np.uint16)
        bits[2 : 2 + len(edges)] = np.roll(edges, 5 * place)
        # Half of the rest carry scales of the size real weights have.
        usual = slice(2 + len(edges), 2 + len(edges) + n // 2)
        bits[usual] = r.normal(0, 0.01, n)[usual].astype(np.float16).view(np.uint16)
        bits[0], bits[1] = 0x0000, 0x2E66
        blocks[:, offset : offset + 2] = bits.view(np.uint8).reshape(n, 2)
    return blocks


def quant_rows(name: str, width: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Rows for the quantisers, each with the kind of trouble it stands for."""
    r = rng(f"{name}/rows")
    ramp = np.arange(width, dtype=np.float32)
    makers = {
        "normal": lambda: r.normal(0, 1, width),
        "weight-like": lambda: r.normal(0, 0.02, width),
        "uniform": lambda: r.uniform(-1, 1, width),
        "positive": lambda: r.uniform(0.5, 1, width),
        "negative": lambda: -r.uniform(0.5, 1, width),
        "cosine": lambda: 0.1 + 2 * np.cos(ramp + r.integers(0, 1000)),
        "outlier": lambda: np.where(ramp == r.integers(0, width), r.choice([-40, 40]), r.normal(0, 0.1, width)),
        "sparse": lambda: np.where(r.random(width) < 0.9, 0, r.normal(0, 1, width)),
        "grid": lambda: r.integers(-127, 128, width) * 0.25,
        "halves": lambda: r.integers(-254, 255, width) * 0.5,
        "two-sided-tie": lambda: np.where(ramp % 2 == 0, 1.5, -1.5),
        "huge": lambda: r.normal(0, 1e5, width),
        "tiny": lambda: r.normal(0, 1e-6, width),
        "below-f16": lambda: r.normal(0, 1e-12, width),
        "zeros": lambda: np.zeros(width),
        "minus-zeros": lambda: -np.zeros(width),
        "constant": lambda: np.full(width, 0.75),
        "minus-constant": lambda: np.full(width, -3.0),
    }
    rows, kinds = [], []
    for index, (_, make) in enumerate(makers.items()):
        for _ in range(6 if index < 4 else 3 if index < 11 else 2):
            rows.append(np.asarray(make(), dtype=np.float32))
            kinds.append(index)
    return np.stack(rows), np.array(kinds, np.uint8), list(makers)


def save(path: pathlib.Path, tensors: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    """A SafeTensors file whose bytes depend on its content alone (the package's own writer shuffles the metadata)."""
    names = {"float32": "F32", "uint8": "U8", "int32": "I32", "uint16": "BF16"}
    header, offset, chunks = {"__metadata__": dict(sorted(metadata.items()))}, 0, []
    for name, tensor in sorted(tensors.items(), key=lambda item: (-item[1].dtype.itemsize, item[0])):
        data = np.ascontiguousarray(tensor).tobytes()
        header[name] = {"dtype": names[tensor.dtype.name], "shape": list(tensor.shape),
                        "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
        chunks.append(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(chunks))


class Ggml:
    """ggml's reference quantiser and dequantiser, through its C interface."""

    def __init__(self):
        package = pathlib.Path(importlib.util.find_spec("llama_cpp").submodule_search_locations[0])
        self.lib = ctypes.CDLL(str(package / "lib" / "libggml-base.so"))
        self.lib.ggml_quantize_chunk.restype = ctypes.c_size_t
        self.lib.ggml_quantize_chunk.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p] + [
            ctypes.c_int64
        ] * 3 + [ctypes.c_void_p]

    def quantise(self, name: str, rows: np.ndarray, size: int) -> np.ndarray:
        out = np.zeros((rows.shape[0], size), np.uint8)
        rows = np.ascontiguousarray(rows)
        if name == "Q8_K":
            self._rows("quantize_row_q8_K_ref", rows, out, rows.size)
        else:
            n = self.lib.ggml_quantize_chunk(Q[name].value, rows.ctypes.data, out.ctypes.data, 0, *rows.shape, None)
            assert n == out.size, (name, n, out.size)
        return out

    def dequantise(self, name: str, blocks: np.ndarray, width: int) -> np.ndarray:
        out = np.zeros((blocks.shape[0], width), np.float32)
        letters = name.lower().replace("_k", "_K")
        self._rows(f"dequantize_row_{letters}", np.ascontiguousarray(blocks), out, out.size)
        return out

    def _rows(self, symbol: str, source: np.ndarray, out: np.ndarray, count: int) -> None:
        call = getattr(self.lib, symbol)
        call.argtypes, call.restype = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64], None
        call(source.ctypes.data, out.ctypes.data, count)


def same_bits(a: np.ndarray, b: np.ndarray) -> int:
    """How many elements differ as bit patterns."""
    return int((a.view(np.uint8) != b.view(np.uint8)).reshape(*a.shape, -1).any(-1).sum())


def block_type(name: str, ggml: Ggml) -> tuple[dict, dict]:
    width, size = Q8_K_SIZE if name == "Q8_K" else GGML_QUANT_SIZES[Q[name]]
    blocks = random_blocks(name, 64)
    from_ggml = ggml.dequantise(name, blocks, width)
    notes = {}
    if name == "Q8_K":
        expected = from_ggml
        notes["dequant"] = "ggml (the gguf package has no Q8_K)"
    else:
        expected = quants.dequantize(blocks, Q[name])
        notes["dequant"] = f"gguf; differs from ggml in {same_bits(expected, from_ggml)} of {expected.size} values"
    assert np.isfinite(expected).all(), name
    rows, kinds, names = quant_rows(name, width)
    theirs = ggml.quantise(name, rows, size)
    tensors = {"dequant.blocks": blocks, "dequant.expected": expected, "quant.input": rows, "quant.kind": kinds}
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            ours = np.ascontiguousarray(quants.quantize(rows, Q[name])) if name != "Q8_K" else None
    except NotImplementedError:
        ours = None
    tensors["quant.expected"] = theirs if ours is None else ours
    if ours is None:
        notes["quant"] = "ggml reference"
    else:
        wrong = (ours != theirs).any(-1)
        notes["quant"] = f"gguf; differs from ggml in {int(wrong.sum())} of {len(rows)} rows"
        if wrong.any():
            tensors["quant.expected_ggml"] = theirs
            notes["quant_differs"] = json.dumps(sorted({names[k] for k in kinds[wrong]}))
    return tensors, notes | {"kinds": json.dumps(names)}


def halves(name: str) -> tuple[dict, dict]:
    """F16 over every finite or infinite bit pattern, BF16 over a sample with every class; one value per block."""
    r = rng(f"{name}/bits")
    if name == "F16":
        bits = np.arange(1 << 16, dtype=np.uint16)
        bits = bits[(bits & 0x7FFF) <= 0x7C00]
    else:
        bits = r.integers(0, 1 << 16, 4096, dtype=np.uint16)
        bits[:8] = [0, 0x8000, 1, 0x8001, 0x7F80, 0xFF80, 0x7F7F, 0x0080]
        bits = bits[(bits & 0x7FFF) <= 0x7F80]
    expected = quants.dequantize(bits.view(np.uint8).reshape(-1, 2), Q[name]).reshape(-1, 1)
    # Around every rounding border: a half-way point between two neighbours, and one ulp to each side of it.
    base = finite_f16_bits(r, 512).view(np.float16).astype(np.float32).view(np.uint32)
    half = np.uint32(1 << 12) if name == "F16" else np.uint32(1 << 15)
    near = np.concatenate([base | half, (base | half) + np.uint32(1), (base | half) - np.uint32(1)]).view(np.float32)
    edges = [0.0, -0.0, 65504, 65519.996, 65520, -65520, 1e9, -1e9, 2**-24, 2**-25, 2**-25 * 1.0001, -(2**-26),
             3 * 2**-25, 6.1e-5, 1e-45, -1e-45, 3.4028235e38, 3.3961776e38, np.inf, -np.inf]
    rows = np.concatenate([near, r.normal(0, 1, 512), np.array(edges)]).astype(np.float32).reshape(-1, 1)
    with np.errstate(over="ignore"):
        packed = np.ascontiguousarray(quants.quantize(rows, Q[name])).view(np.uint8).reshape(-1, 2)
    notes = {"dequant": "gguf", "quant": "gguf; NaN is left out", "kinds": json.dumps(["value"])}
    blocks = bits.view(np.uint8).reshape(-1, 2)
    return {"dequant.blocks": blocks, "dequant.expected": expected, "quant.input": rows, "quant.expected": packed,
            "quant.kind": np.zeros(len(rows), np.uint8)}, notes


def versions(*packages: str) -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in packages}


def record_quant(out: pathlib.Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    ggml = Ggml()
    known = versions("gguf", "numpy", "llama-cpp-python") | {"seed": SEED}
    for name in ["F16", "BF16", *F16_FIELDS, "Q8_K"]:
        tensors, notes = halves(name) if name in ("F16", "BF16") else block_type(name, ggml)
        path = out / f"{name.lower()}.safetensors"
        save(path, tensors, notes | known)
        print(f"{path.name:20} {path.stat().st_size:7} bytes  {notes['dequant']} | {notes['quant']}"
              f" {notes.get('quant_differs', '')}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, default=FIXTURES / "oracle" / "quant", help="folder for the files")
    record_quant(parser.parse_args().out)


if __name__ == "__main__":
    main()
