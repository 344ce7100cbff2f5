# /// script
# requires-python = ">=3.11"
# dependencies = ["numpy", "torch", "transformers>=5", "safetensors", "gguf", "llama-cpp-python"]
# ///
"""Record what independent engines compute for our fixtures; the tests compare with it.

    python scripts/record_oracles.py      # fixtures/oracle/{transformers,llama-cpp,greedy}

Hugging Face transformers in float32 with eager attention gives the activations of every site and the logits.
llama.cpp gives logits and greedy tokens of each GGUF form (one thread, F32 KV cache, no flash attention, no
repacking). transformers on the weights that a GGUF or APR file holds, dequantised, gives its answer in float
arithmetic. What each tensor is: fixtures/oracle/README.md.
"""

import argparse
import ctypes
import json
import pathlib
import struct
import sys
from collections.abc import Iterator

import gguf
import numpy as np
from gguf import quants
from record_quant_oracles import FIXTURES, Q, save, versions

STEPS = 32
ANSWER_STEPS = 80
TRACE_TOKENS = 14
# The first prompt of a model is also the traced one. Models with goldens.json are asked its questions instead.
PYGMY_PROMPTS = ["The quick brown fox jumps over the lazy dog.", "def f(x):\n    return x + 12", "你好, naïve été 🙂 3"]


def load_model(folder: pathlib.Path):
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    return model.eval()


def trace(model, ids: list[int]) -> dict[str, np.ndarray]:
    """Every site of one forward pass, `[tokens, width]`; heads lie side by side in a row."""
    import torch

    found, handles, turns = {}, [], {}
    keep = lambda name, value: found.__setitem__(name, value.detach().clone())
    after = lambda module, name: handles.append(module.register_forward_hook(
        lambda _m, _i, out: keep(name, out[0] if isinstance(out, tuple) else out)))
    before = lambda module, name: handles.append(module.register_forward_pre_hook(
        lambda _m, inputs: keep(name, inputs[0])))
    base, config = model.model, model.config

    def parted(module, names: list[str], widths: list[int]) -> None:
        """One product whose rows are several sites."""
        handles.append(module.register_forward_hook(lambda _m, _i, out: [
            keep(name, part) for name, part in zip(names, out.split(widths, -1))] and None))

    after(base.embed_tokens, "embed")
    after(base.norm, "final_norm")
    # A family with two rotations names the kind of layer behind the positions.
    handles.append(base.rotary_emb.register_forward_hook(
        lambda _m, inputs, out: turns.__setitem__(inputs[2] if len(inputs) > 2 else None, out)))
    for index, layer in enumerate(base.layers):
        at = f"layers.{index}."
        attention, mlp = layer.self_attn, layer.mlp
        after(layer.input_layernorm, at + "attn_norm")
        if hasattr(attention, "qkv_proj"):
            width, kv = attention.o_proj.in_features, config.num_key_value_heads * attention.head_dim
            parted(attention.qkv_proj, [at + "q", at + "k", at + "v"], [width, kv, kv])
        else:
            for site, module in [("q", attention.q_proj), ("k", attention.k_proj), ("v", attention.v_proj)]:
                after(module, at + site)
        if hasattr(attention, "q_norm"):
            after(attention.q_norm, at + "q_norm")
            after(attention.k_norm, at + "k_norm")
        handles.append(attention.register_forward_hook(lambda _m, _i, out, at=at: keep(at + "attn_scores", out[1])))
        before(attention.o_proj, at + "attn_out")
        after(attention.o_proj, at + "o_proj")
        # In families that normalise what a block gives, the norm in front of the next one is called otherwise.
        norm = getattr(layer, "pre_feedforward_layernorm", None)
        if norm is not None:
            after(layer.post_attention_layernorm, at + "attn_post_norm")
            after(layer.post_feedforward_layernorm, at + "ffn_post_norm")
        norm = norm or layer.post_attention_layernorm
        before(norm, at + "attn_residual")
        after(norm, at + "ffn_norm")
        if hasattr(mlp, "gate_up_proj"):
            parted(mlp.gate_up_proj, [at + "gate", at + "up"], [config.intermediate_size] * 2)
        else:
            after(mlp.gate_proj, at + "gate")
            after(mlp.up_proj, at + "up")
        before(mlp.down_proj, at + "swiglu")
        after(mlp.down_proj, at + "down")
        after(layer, at + "ffn_residual")
    with torch.no_grad():
        found["logits"] = model(torch.tensor([ids]), use_cache=False).logits
    for handle in handles:
        handle.remove()
    for index, layer in enumerate(base.layers):
        rotate(layer.self_attn, found, turns, f"layers.{index}.", len(ids), config)
    return {name: value[0].to(torch.float32).numpy() for name, value in found.items()}


def rotate(attention, found: dict, turns: dict, at: str, tokens: int, config) -> None:
    """Add the rotated queries and keys of a layer; heads of its other sites go side by side."""
    rows = lambda value: value.transpose(1, 2).reshape(1, tokens, -1)
    heads = lambda value: value.view(1, tokens, -1, attention.head_dim).transpose(1, 2)
    for site in ("q_norm", "k_norm"):
        if at + site in found:
            value = found[at + site]
            # Some families normalise before, others after they turn tokens and heads round.
            assert value.shape[1] != value.shape[2]
            found[at + site] = rows(value if value.shape[2] == tokens else value.transpose(1, 2))
    q, k = (heads(found.get(f"{at}{site}_norm", found[at + site])) for site in ("q", "k"))
    module = sys.modules[type(attention).__module__]
    turn = turns.get(None) or turns[attention.layer_type]
    q, k = module.apply_rotary_pos_emb(q, k, *turn)
    check_scores(q, k, found[at + "attn_scores"], at, attention, config)
    for site, value in [("rope_q", q), ("rope_k", k)]:
        found[at + site] = rows(value)
    found[at + "attn_scores"] = rows(found[at + "attn_scores"])


def check_scores(q, k, scores, at: str, attention, config) -> None:
    """The rotation is applied here a second time, so its result must explain the probabilities that the model used."""
    import torch

    k = k.repeat_interleave(q.shape[1] // k.shape[1], 1)
    again = q @ k.transpose(2, 3) * attention.scaling
    # Gemma 3 kept the attribute of Gemma 2 and does not use it.
    cap = getattr(attention, "attn_logit_softcapping", None)
    if cap is not None and config.model_type == "gemma2":
        again = torch.tanh(again / cap) * cap
    tokens = q.shape[2]
    hidden = torch.ones(tokens, tokens, dtype=torch.bool).triu(1)
    window = getattr(attention, "sliding_window", config.sliding_window if config.model_type == "phi3" else None)
    if window:
        hidden |= torch.ones(tokens, tokens, dtype=torch.bool).tril(-window)
    again = torch.softmax(again.masked_fill(hidden, float("-inf")), -1)
    worst = (again - scores).abs().max().item()
    assert worst < 1e-5, f"{at}attn_scores differ by {worst}"


def logits_of(model, ids: list[int]) -> np.ndarray:
    import torch

    with torch.no_grad():
        return model(torch.tensor([ids]), use_cache=False).logits[0].numpy()


def greedy(step, prompt: dict, eos: set[int]) -> dict:
    """Tokens of the largest logit, with the gap to the second at each: 32, or an answer up to its end."""
    ids, out, gaps = prompt["ids"], [], []
    asked = "asked" in prompt
    while len(out) < (ANSWER_STEPS if asked else STEPS) and not (asked and eos & set(out)):
        logits = step(ids + out)
        second, first = np.sort(logits)[-2:]
        gaps.append(float(f"{first - second:.4g}"))
        out.append(int(logits.argmax()))
    stop = next((n for n, token in enumerate(out) if token in eos), None)
    return {"ids": out, "gaps": gaps, "eos_at": stop}


class LlamaCpp:
    """A GGUF file in llama.cpp: one thread, F32 KV cache, no flash attention, weights as the file has them."""

    silent = None

    def __init__(self, path: pathlib.Path, context: int = 256):
        import llama_cpp.llama_cpp as api

        self.api = api
        # The library keeps calling it when this object is gone.
        LlamaCpp.silent = LlamaCpp.silent or api.llama_log_callback(lambda *_: None)
        api.llama_log_set(LlamaCpp.silent, ctypes.c_void_p(0))
        api.llama_backend_init()
        params = api.llama_model_default_params()
        params.use_extra_bufts, params.n_gpu_layers = False, 0
        self.model = api.llama_model_load_from_file(str(path).encode(), params)
        assert self.model, f"llama.cpp cannot load {path}"
        self.vocab = api.llama_model_get_vocab(self.model)
        self.width = api.llama_vocab_n_tokens(self.vocab)
        params = api.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = params.n_outputs_max = context
        params.n_threads = params.n_threads_batch = 1
        params.type_k = params.type_v = 0
        params.flash_attn_type = 0
        self.context = api.llama_init_from_model(self.model, params)
        assert self.context, f"no context for {path}"

    def logits(self, ids: list[int], start: int = 0) -> np.ndarray:
        """Logits at every position of `ids`, which continue a context of `start` tokens."""
        api = self.api
        if start == 0:
            api.llama_memory_clear(api.llama_get_memory(self.context), True)
        batch = api.llama_batch_init(len(ids), 0, 1)
        batch.n_tokens = len(ids)
        for n, token in enumerate(ids):
            batch.token[n], batch.pos[n], batch.n_seq_id[n], batch.logits[n] = token, start + n, 1, True
            batch.seq_id[n][0] = 0
        assert api.llama_decode(self.context, batch) == 0
        api.llama_batch_free(batch)
        rows = api.llama_get_logits(self.context)
        return np.ctypeslib.as_array(rows, (len(ids), self.width)).copy()

    def stepper(self):
        """For `greedy`: the prompt in one batch, then token by token, as a user of llama.cpp gets it."""
        done = 0

        def step(ids: list[int]) -> np.ndarray:
            nonlocal done
            row = self.logits(ids[done:], done)[-1]
            done = len(ids)
            return row

        return step

    def tokenise(self, text: str, add_special: bool = False) -> list[int]:
        data, room = text.encode(), (ctypes.c_int32 * 512)()
        n = self.api.llama_tokenize(self.vocab, data, len(data), room, 512, add_special, True)
        return list(room[:n])

    def close(self) -> None:
        self.api.llama_free(self.context)
        self.api.llama_model_free(self.model)


GGUF_NAMES = {"attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
              "attn_v": "self_attn.v_proj", "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm",
              "attn_output": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm",
              "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
              "attn_qkv": "self_attn.qkv_proj"}
# Where a family means something else by a name.
GGUF_NAMES_OF = {
    "phi3": {"ffn_up": "mlp.gate_up_proj"},
    "gemma": {"post_attention_norm": "post_attention_layernorm", "ffn_norm": "pre_feedforward_layernorm",
              "post_ffw_norm": "post_feedforward_layernorm"},
}
GGUF_TOP = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight",
            "output.weight": "lm_head.weight"}


def gguf_weights(path: pathlib.Path) -> Iterator[tuple[str, np.ndarray]]:
    """Names and values of a GGUF file, dequantised by the `gguf` package."""
    for tensor in gguf.GGUFReader(path).tensors:
        shape = [int(n) for n in reversed(tensor.shape)]
        yield tensor.name, quants.dequantize(tensor.data, tensor.tensor_type).reshape(shape)


def apr_weights(path: pathlib.Path) -> Iterator[tuple[str, np.ndarray]]:
    """Names and values of an APR v2 file: F32, one scale with i8 values, or GGML Q8_0 under code 8."""
    data = path.read_bytes()
    (count,), (index, start) = struct.unpack_from("<I", data, 8), struct.unpack_from("<QQ", data, 24)
    for _ in range(count):
        (length,) = struct.unpack_from("<H", data, index)
        name, index = data[index + 2 : index + 2 + length].decode(), index + 2 + length
        dtype, ndim = data[index], data[index + 1]
        *shape, offset, size = struct.unpack_from(f"<{ndim + 2}Q", data, index + 2)
        index += 2 + 8 * (ndim + 2)
        body = data[start + offset : start + offset + size]
        if dtype == 0:
            values = np.frombuffer(body, np.float32)
        elif dtype == 129:
            values = np.frombuffer(body[4:], np.int8).astype(np.float32) * np.frombuffer(body[:4], np.float32)
        else:
            assert dtype == 8 and size == (np.prod(shape) + 31) // 32 * 34, f"{name}: dtype {dtype}"
            values = quants.dequantize(np.frombuffer(body, np.uint8).reshape(-1, 34), Q.Q8_0)
        yield name, values.reshape(shape)


def put_weights(model, path: pathlib.Path) -> None:
    """Replace the model's weights by those of a GGUF or APR file.

    GGUF files of the llama family keep the rows of q and k with the two halves of each head interleaved, those of Gemma
    the gains of norms with the one that transformers adds.
    """
    import torch

    kind = model.config.model_type
    names = GGUF_NAMES | GGUF_NAMES_OF.get("gemma" if kind.startswith("gemma") else kind, {})
    interleaved = path.suffix == ".gguf" and kind in ("llama", "mistral")
    less = 1.0 if path.suffix == ".gguf" and kind.startswith("gemma") else 0.0
    state = model.state_dict()
    seen = set()
    for name, values in gguf_weights(path) if path.suffix == ".gguf" else apr_weights(path):
        if name.startswith(("rope_freqs", "rope_factors")):
            continue
        if name not in state and name not in GGUF_TOP:
            _, layer, part, ending = name.split(".")
            if interleaved and part in ("attn_q", "attn_k"):
                width = model.model.layers[0].self_attn.head_dim
                heads = values.reshape(-1, width // 2, 2, *values.shape[1:])
                values = heads.swapaxes(1, 2).reshape(values.shape)
            name = f"model.layers.{layer}.{names[part]}.{ending}"
        name = GGUF_TOP.get(name, name)
        if name.endswith("norm.weight"):
            values = values - np.float32(less)
        state[name].copy_(torch.from_numpy(np.array(values, np.float32)))
        seen.add(name)
    missing = set(state) - seen - ({"lm_head.weight"} if model.config.tie_word_embeddings else set())
    assert not missing, f"{path.name} lacks {missing}"


def nmse(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.astype(np.float64), b.astype(np.float64)
    return float(f"{((a - b) ** 2).sum() / (b**2).sum():.3g}")


def prompts_of(folder: pathlib.Path, tokenizer) -> list[dict]:
    """Text and ids; the questions of goldens.json carry their id as `asked`. A list of messages is a conversation."""
    file = folder / "goldens.json"
    questions = [{"text": text} for text in PYGMY_PROMPTS]
    if file.exists():
        goldens = json.loads(file.read_text(encoding="utf-8"))["goldens"]
        keep = ("messages", "prompt", "prompt_ids")
        questions = [{"asked": g["id"], **{k: g[k] for k in keep if k in g}} for g in goldens]
    for item in questions:
        if "messages" in item:
            item["text"] = tokenizer.apply_chat_template(item["messages"], tokenize=False, add_generation_prompt=True)
        elif "prompt" in item:
            item["text"] = item.pop("prompt")
        item["ids"] = tokenizer(item["text"], add_special_tokens=False)["input_ids"]
        assert item["ids"] == item.pop("prompt_ids", item["ids"]), f"goldens.json has other ids for {item['asked']}"
    return questions


class Recording:
    """What the engines answer for one model and every file that holds its weights."""

    def __init__(self, root: pathlib.Path, name: str, folder: pathlib.Path):
        from transformers import AutoTokenizer

        self.root, self.name, self.out = root, name, root / "oracle"
        self.model = load_model(folder)
        self.prompts = prompts_of(folder, AutoTokenizer.from_pretrained(folder))
        eos = self.model.generation_config.eos_token_id
        self.eos = set(eos if isinstance(eos, list) else [eos]) - {None}
        self.known = versions("torch", "transformers", "tokenizers", "numpy", "llama-cpp-python", "gguf")
        self.known |= {"attention": "eager", "arithmetic": "float32"}
        self.ids = self.prompts[0]["ids"][:TRACE_TOKENS]
        self.sites = trace(self.model, self.ids)
        self.save("transformers", folder, self.sites)
        rope = self.model.config.rope_parameters
        if rope.get("rope_type") == "longrope":
            short = self.ids[: rope["original_max_position_embeddings"]]
            self.save("transformers", folder.with_name(f"{name}-short"), trace(self.model, short), short)
        self.runs: list[dict] = []
        self.continue_prompts(folder)

    def save(self, part: str, weights: pathlib.Path, tensors: dict[str, np.ndarray], ids: list[int] | None = None,
             **notes: str) -> None:
        notes |= self.known | {"weights": weights.relative_to(self.root).as_posix()}
        tensors = {"tokens": np.array(ids or self.ids, np.int32), **tensors}
        save(self.out / part / f"{weights.stem}.safetensors", tensors, notes)

    def add_run(self, engine: str, weights: pathlib.Path, noise: float, outputs: list[dict]) -> None:
        name = weights.relative_to(self.root).as_posix()
        self.runs.append({"engine": engine, "weights": name, "noise": noise, "outputs": outputs})

    def continue_prompts(self, weights: pathlib.Path) -> list[dict]:
        """Greedy tokens by transformers with the weights the model has now."""
        step = lambda seen: logits_of(self.model, seen)[-1]
        outputs = [greedy(step, p, self.eos) for p in self.prompts]
        self.add_run("transformers", weights, 0.0, outputs)
        return outputs

    def gguf(self, path: pathlib.Path) -> None:
        peer = LlamaCpp(path)
        theirs = [peer.logits(p["ids"]) for p in self.prompts]
        wrong = [p["text"] for p in self.prompts if peer.tokenise(p["text"]) != p["ids"]]
        assert not wrong, f"{path.name}: llama.cpp splits {wrong} into other tokens"
        outputs = [greedy(peer.stepper(), p, self.eos) for p in self.prompts]
        peer.close()
        put_weights(self.model, path)
        exact = [logits_of(self.model, p["ids"]) for p in self.prompts]
        noise = max(float(np.sqrt(((a - b) ** 2).mean(-1).max())) for a, b in zip(theirs, exact))
        noise = float(f"{noise:.3g}")
        self.add_run("llama.cpp", path, noise, outputs)
        in_floats = self.continue_prompts(path)
        theirs, exact = theirs[0][: len(self.ids)], exact[0][: len(self.ids)]
        distance, rounding = nmse(theirs, exact), nmse(exact, self.sites["logits"])
        self.save("llama-cpp", path, {"logits.llama_cpp": theirs, "logits.transformers": exact},
                  nmse_of_activations=str(distance), nmse_of_weights=str(rounding))
        print(f"{path.stem:20} nmse of activations {distance:.2g}, of weights {rounding:.2g};",
              common(outputs, in_floats, noise))

    def apr(self, path: pathlib.Path) -> None:
        put_weights(self.model, path)
        logits = logits_of(self.model, self.ids)
        self.save("transformers", path, {"logits": logits})
        same = [a["ids"] == b["ids"] for a, b in zip(self.continue_prompts(path), self.runs[0]["outputs"])]
        print(f"{path.stem:20} nmse of weights {nmse(logits, self.sites['logits']):.2g}; tokens of the source: {same}")


def common(theirs: list[dict], exact: list[dict], noise: float) -> str:
    """How far the two engines agree on each prompt, and by how many noises the disputed tokens lay apart."""
    found = []
    for a, b in zip(theirs, exact):
        n = next((n for n, (x, y) in enumerate(zip(a["ids"], b["ids"])) if x != y), None)
        found.append("all" if n is None else f"{n} (gap {b['gaps'][n] / noise:.2g} noises)")
    parted = [n for n in found if n != "all"]
    return f"{len(found) - len(parted)} of {len(found)} alike; the others up to {', '.join(parted) or '-'}"


def write_greedy(path: pathlib.Path, recording: Recording) -> None:
    """One line per prompt and per output, so that a difference is a readable one."""
    line = lambda value: json.dumps(value, ensure_ascii=False)
    head = {"model": recording.name, "steps": STEPS, "command": "scripts/record_oracles.py",
            "versions": recording.known}
    parts = [f"  {line(key)}: {line(value)}" for key, value in head.items()]
    parts.append('  "prompts": [\n    ' + ",\n    ".join(map(line, recording.prompts)) + "\n  ]")
    blocks = []
    for run in recording.runs:
        outputs = run.pop("outputs")
        blocks.append(f'    {line(run)[:-1]}, "outputs": [\n      ' + ",\n      ".join(map(line, outputs)) + "\n    ]}")
    parts.append('  "runs": [\n' + ",\n".join(blocks) + "\n  ]")
    path.write_text("{\n" + ",\n".join(parts) + "\n}\n", encoding="utf-8")
    json.loads(path.read_text(encoding="utf-8"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=pathlib.Path, default=FIXTURES, help="the fixtures folder")
    parser.add_argument("--only", help="one model: golden, apr-interop or a pygmy")
    args = parser.parse_args()
    root = args.root.resolve()
    for part in ("transformers", "llama-cpp", "greedy"):
        (root / "oracle" / part).mkdir(parents=True, exist_ok=True)
    for folder in [root / "golden", root / "apr-interop", *sorted(p for p in (root / "pygmy").iterdir() if p.is_dir())]:
        name = folder.name
        if not folder.is_dir() or args.only not in (None, name):
            continue
        recording = Recording(root, name, folder)
        for path in [*sorted((root / "gguf").glob(f"{name}-[A-Z]*.gguf")), *sorted(folder.glob("*.gguf"))]:
            recording.gguf(path)
        for path in sorted(folder.glob("*.apr")):
            recording.apr(path)
        write_greedy(root / "oracle" / "greedy" / f"{name}.json", recording)


if __name__ == "__main__":
    main()
