# /// script
# requires-python = ">=3.11"
# dependencies = ["numpy", "torch", "transformers>=5", "safetensors", "gguf", "llama-cpp-python"]
# ///
"""Record how independent engines continue the published models; the gates of `contracts/real.yaml` compare with it.

    python scripts/fetch_real_models.py
    python scripts/record_real_oracles.py                # fixtures/oracle/real/<id>.json
    python scripts/record_real_oracles.py smollm2-135m   # one of them

Two engines read the same GGUF file. transformers dequantises it and computes in f32, with eager attention; llama.cpp
keeps the blocks and rounds activations to 8 bits (f32 cache, no flash attention, no repacking). Each continues eight
prompts greedily and gives, at every step, the twenty likeliest tokens with their log-probabilities. `noise` is what
the rounding of activations costs: the RMS and the largest distance between the two engines over the tokens that both
list, at the steps whose contexts are equal. A llama.cpp that was not built by pip is given by LLAMA_CPP_LIB_PATH, the
folder of its libraries.
"""

import argparse
import ctypes
import json
import os
import pathlib
import sys
from collections.abc import Callable

import numpy as np
from fetch_real_models import MODELS, folder, state_of
from record_oracles import FIXTURES, LlamaCpp
from record_quant_oracles import versions

STEPS = 16
TOP = 20
CONTEXT = 128
PROMPTS = [
    {"text": "The capital of France is Paris. The capital of Germany is Berlin. The capital of Italy is"},
    {"text": "def fibonacci(n):\n    if n < 2:\n        return n\n    return fibonacci("},
    {"text": "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11,"},
    {"text": "It was a bright cold day in April, and the clocks were striking"},
    {"text": "Die Donau ist der zweitlängste Fluss in Europa. Sie entspringt im"},
    {"text": "#include <stdio.h>\n\nint main(void) {\n    for (int i = 0; i < 10; i++) {\n        printf("},
    {"messages": [{"role": "user", "content": "What is 2+2? Answer with one number."}]},
    {"messages": [{"role": "system", "content": "You are a helpful assistant."},
                  {"role": "user", "content": "Name three primary colours."}]},
]


def load_backends() -> None:
    """Let a llama.cpp that loads its backends at run time find the one for this processor."""
    place = os.environ.get("LLAMA_CPP_LIB_PATH")
    library = pathlib.Path(place or ".") / "libggml.so"
    if place and library.exists():
        load = ctypes.CDLL(str(library)).ggml_backend_load_all_from_path
        load.argtypes = [ctypes.c_char_p]
        load(place.encode())


def ggml_version() -> str:
    """Of the library that computes: the Python package around it may be of another version."""
    import llama_cpp.llama_cpp as api

    place = pathlib.Path(os.environ.get("LLAMA_CPP_LIB_PATH") or pathlib.Path(api.__file__).parent / "lib")
    version = ctypes.CDLL(str(place / "libggml-base.so")).ggml_version
    version.restype = ctypes.c_char_p
    return version().decode()


def log_softmax(row: np.ndarray) -> np.ndarray:
    row = row.astype(np.float64)
    row = row - row.max()
    return row - np.log(np.exp(row).sum())


def top_of(row: np.ndarray) -> list[list]:
    """The likeliest tokens with their log-probabilities to six digits, the likeliest first."""
    chances = log_softmax(row)
    order = np.argsort(-chances, kind="stable")[:TOP]
    return [[int(token), float(f"{chances[token]:.6g}")] for token in order]


def continued(step: Callable[[list[int]], np.ndarray], ids: list[int]) -> dict:
    """The greedy tokens behind `ids`, and the likeliest tokens of each step."""
    found, tops = [], []
    for _ in range(STEPS):
        tops.append(top_of(step(ids + found)))
        found.append(tops[-1][0][0])
    return {"ids": found, "top": tops}


def load_transformers(path: pathlib.Path):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32,
                                                 attn_implementation="eager")
    return tokenizer, model.eval()


def torch_stepper(model) -> Callable[[list[int]], np.ndarray]:
    """Logits behind the last token; the keys and values of the tokens before are kept in f32."""
    import torch

    done, cache = 0, None

    def step(ids: list[int]) -> np.ndarray:
        nonlocal done, cache
        with torch.no_grad():
            out = model(torch.tensor([ids[done:]]), past_key_values=cache, use_cache=True)
        done, cache = len(ids), out.past_key_values
        return out.logits[0, -1].float().numpy()

    return step


def prompts_of(tokenizer, peer: LlamaCpp) -> list[dict]:
    """The prompts with their ids, on which both tokenizers must agree."""
    prompts = []
    for prompt in PROMPTS:
        text = prompt.get("text")
        if text is None:
            if tokenizer.chat_template is None:
                continue
            text = tokenizer.apply_chat_template(prompt["messages"], tokenize=False, add_generation_prompt=True)
        begins = tokenizer.bos_token is not None and text.startswith(tokenizer.bos_token)
        ids = peer.tokenise(text, add_special=not begins)
        theirs = tokenizer(text, add_special_tokens=False)["input_ids"]
        own_begin = ids[: len(ids) - len(theirs)]
        if own_begin + theirs != ids or len(own_begin) > 1:
            print(f"  transformers splits {text!r} into {theirs}, llama.cpp into {ids}", file=sys.stderr)
        prompts.append({**prompt, "text": text, "ids": ids})
    return prompts


def noise_between(exact: list[dict], rounded: list[dict]) -> dict:
    """How far the log-probabilities of the two engines are apart, as far as they continue alike."""
    apart, steps = [], 0
    for a, b in zip(exact, rounded):
        for n, (one, other) in enumerate(zip(a["top"], b["top"])):
            if a["ids"][:n] != b["ids"][:n]:
                break
            steps += 1
            other = dict(map(tuple, other))
            apart += [value - other[token] for token, value in one if token in other]
    apart = np.array(apart)
    return {"rms": float(f"{np.sqrt((apart**2).mean()):.4g}"), "max": float(f"{np.abs(apart).max():.4g}"),
            "values": len(apart), "steps": steps}


def record(name: str, path: pathlib.Path) -> dict:
    load_backends()
    peer = LlamaCpp(path, CONTEXT)
    tokenizer, model = load_transformers(path)
    prompts = prompts_of(tokenizer, peer)
    exact = [continued(torch_stepper(model), prompt["ids"]) for prompt in prompts]
    rounded = [continued(peer.stepper(), prompt["ids"]) for prompt in prompts]
    peer.close()
    runs = [{"engine": "transformers", "arithmetic": "f32 on dequantised weights, f32 cache", "outputs": exact},
            {"engine": "llama.cpp", "arithmetic": "blocks, activations rounded to 8 bits, f32 cache",
             "outputs": rounded}]
    known = versions("torch", "transformers", "numpy", "gguf") | {"ggml": ggml_version()}
    return {"model": name, "sha256": MODELS[name].sha256, "steps": STEPS,
            "command": f"python scripts/record_real_oracles.py {name}", "versions": known,
            "noise": noise_between(exact, rounded), "prompts": prompts, "runs": runs}


def write(path: pathlib.Path, recording: dict) -> None:
    """One line per prompt and per output, so that a difference is a readable one."""
    line = lambda value: json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    runs = recording.pop("runs")
    prompts = recording.pop("prompts")
    parts = [f"  {line(key)}: {line(value)}" for key, value in recording.items()]
    parts.append('  "prompts": [\n    ' + ",\n    ".join(map(line, prompts)) + "\n  ]")
    blocks = []
    for run in runs:
        outputs = run.pop("outputs")
        blocks.append(f'    {line(run)[:-1]},"outputs":[\n      ' + ",\n      ".join(map(line, outputs)) + "\n    ]}")
    parts.append('  "runs": [\n' + ",\n".join(blocks) + "\n  ]")
    text = "{\n" + ",\n".join(parts) + "\n}\n"
    json.loads(text)
    path.write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ids", nargs="*", metavar="ID", help=f"models, all when absent: {', '.join(MODELS)}")
    args = parser.parse_args()
    if unknown := [name for name in args.ids if name not in MODELS]:
        parser.error(f"no model is called {', '.join(unknown)}; expected {', '.join(MODELS)}")
    out = FIXTURES / "oracle" / "real"
    out.mkdir(parents=True, exist_ok=True)
    for name in args.ids or MODELS:
        path = folder() / f"{name}.gguf"
        state = state_of(path, MODELS[name])
        if state != "here":
            sys.exit(f"{path}: {state}; python scripts/fetch_real_models.py {name}")
        recording = record(name, path)
        alike = [a["ids"] == b["ids"] for a, b in zip(*(run["outputs"] for run in recording["runs"]))]
        print(f"{name}: {sum(alike)} of {len(alike)} prompts continued alike; noise {recording['noise']}")
        write(out / f"{name}.json", recording)


if __name__ == "__main__":
    main()
