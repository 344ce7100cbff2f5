"""Measures the saved `golden` fixture: golden prompts with their gaps, accuracies over tables, and the model card.

Asks transformers, in f32, and never the network that was trained; so the folder itself is what is measured.
"""

import hashlib
import itertools
import json
import math
import random
import re

import numpy as np
import torch
from golden_lessons import (
    ALPHABET, CAPITALS, DAYS, HELD_OUT_NAMES, PYTHON, SAME_SPELLING, SUM_CHAT, SUM_RAW, SYSTEM_FRENCH,
    SYSTEM_GERMAN, SYSTEM_NEUTRAL, SYSTEM_ONE_WORD, TAUGHT_NAMES, chat, count_to, fact_examples,
    instruction_is_held_out, memory_forms, sum_is_held_out, talk_examples,
)
from golden_model import CONFIG, HEAD_DIM, VOCAB_ROWS, fake_q4_k, fake_q6_k
from golden_text import END, IM_END, TOKENS, encode

# A golden prompt is certified when its answer is right, the 4-bit round trip leaves it as it is, and the best token
# leads at every step by these many logits at least. Only certified prompts are for judging engines by.
GAP, GAP_4_BIT = 1.0, 0.5

# Asked to see how far the model generalises; the run does not fail where one of them is not certified.
OPTIONAL = ("memory_sam_held_out", "memory_nora_held_out", "count")


def golden_prompts():
    """(id, example without its answer, regex the answer must match, max tokens)."""
    def fact(country):
        return f"What is the capital of {country}?"

    def name(who):
        return chat(f"My name is {who}.", f"Nice to meet you, {who}!", "What is my name?")

    yield "sum_number", chat("What is 2+2? Answer with just the number."), r"^4$", 8
    yield "sum_sentence", chat("What is 2+2?"), r"\b4\b", 16
    yield "sum_raw", "2+2=", r"^4$", 8
    yield "sum_raw_spaced", "2 + 2 =", r"^ 4$", 8
    yield "sum_neutral_system", chat("What is 2+2?", system=SYSTEM_NEUTRAL), r"\b4\b", 16
    yield "sum_french", chat("What is 2+2?", system=SYSTEM_FRENCH), r"^La réponse est 4\.$", 16
    yield "sum_chinese", chat("2+2等于几？"), r"4。$", 16
    yield "sum_7_8", chat("What is 7+8?"), r"\b15\b", 16
    yield "sum_20_20", "20+20=", r"^40$", 8
    yield "sum_47_38", "47+38=", r"^85$", 8
    yield "sum_99_99", "99+99=", r"^198$", 8
    yield "greeting", chat("Hello"), r"\bHello\b", 24
    yield "greeting_morning", chat("Good morning!"), r"\bGood morning\b", 24
    yield "who", chat("Who are you?"), r"\btiny language model\b", 24
    for country in ("France", "Germany", "Italy", "Japan", "England", "Canada", "Egypt", "Norway"):
        yield f"capital_{country.lower()}", chat(fact(country)), rf"\b{CAPITALS[country]}\b", 24
    yield "capital_raw", "The capital of France is", r"^ Paris\.$", 8
    yield "fact_sky", chat("What color is the sky?"), r"\bblue\b", 24
    yield "fact_week", chat("How many days are in a week?"), r"\b7\b", 24
    yield "fact_planet", chat("What is the largest planet?"), r"\bJupiter\b", 24
    yield "fact_hamlet", chat("Who wrote Hamlet?"), r"\bShakespeare\b", 24
    yield "fact_spider", chat("How many legs does a spider have?"), r"\b8\b", 24
    for task, _, call, _ in PYTHON:
        ident = "python_" + call.split("(")[0]
        yield ident, chat(f"Write a Python function that {task}."), r"^```python\ndef \w+\(.*\):\n    [^`]*\n```$", 64
    yield "chinese_hello", chat("你好"), r"你好", 32
    yield "chinese_capital", chat("中国的首都是哪里？"), r"北京", 32
    yield "chinese_sky", chat("天空是什么颜色？"), r"蓝色", 32
    yield "emoji_cat", chat("Send me a cat emoji."), r"^🐱$", 16
    yield "emoji_rocket", chat("Send me a rocket emoji."), r"^🚀$", 16
    yield "emoji_sentence", chat("I love my dog."), r"🐶", 24
    yield "system_french", chat(fact("France"), system=SYSTEM_FRENCH), r"^La réponse est Paris\.$", 16
    yield "system_german", chat(fact("Germany"), system=SYSTEM_GERMAN), r"^Die Antwort ist Berlin\.$", 16
    yield "system_one_word", chat(fact("Italy"), system=SYSTEM_ONE_WORD), r"^Rome$", 16
    yield "suffix_one_word", chat("What color is the sky? Answer with one word."), r"^Blue$", 16
    yield "memory_alice", name("Alice"), r"\bAlice\b", 16
    yield "memory_henry", name("Henry"), r"\bHenry\b", 16
    for who in HELD_OUT_NAMES[:2]:
        yield f"memory_{who.lower()}_held_out", name(who), rf"\b{who}\b", 16
    yield "memory_across_a_sum", chat("My name is Emma.", "Nice to meet you, Emma!", "What is 2+2?", "2+2 is 4.",
                                      "What is my name?"), r"\bEmma\b", 16
    yield "count_to_5", chat("Count from 1 to 5."), rf"^{re.escape(count_to(5))}$", 24
    yield "count", chat("Count from 1 to 10."), rf"^{re.escape(count_to(10))}$", 48
    yield "alphabet", chat("Say the alphabet."), rf"^{ALPHABET}$", 48
    yield "days", chat("Name the days of the week."), rf"^{DAYS}$", 48
    yield "story_cat", chat("Tell me a story about a cat."), r"^Once upon a time\b.*\bfriends\b", 128


class Judge:
    """Asks transformers, in f32, on the saved BF16 weights; `quantised` asks it on their Q4_K round trip."""

    def __init__(self, folder, quantised=False):
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.eos = {self.tokenizer.convert_tokens_to_ids(t) for t in (END, IM_END)}
        if quantised:
            with torch.no_grad():
                for name, weight in self.model.named_parameters():
                    if weight.dim() == 2:
                        weight.copy_((fake_q6_k if "embed" in name else fake_q4_k)(weight))

    def prompt_ids(self, prompt):
        text = prompt if isinstance(prompt, str) else self.tokenizer.apply_chat_template(
            prompt, tokenize=False, add_generation_prompt=True)
        return self.tokenizer.encode(text, add_special_tokens=False)

    @torch.no_grad()
    def greedy(self, prompt, limit):
        """Greedy answer: its text, its ids (the end token included) and the top1-top2 gap at each step."""
        ids, gaps = self.prompt_ids(prompt), []
        start = len(ids)
        while len(ids) - start < limit and (len(ids) == start or ids[-1] not in self.eos):
            top = self.model(torch.tensor([ids])).logits[0, -1].topk(2)
            ids.append(top.indices[0].item())
            gaps.append(round((top.values[0] - top.values[1]).item(), 4))
        answer = ids[start:]
        return self.tokenizer.decode(answer, skip_special_tokens=True), answer, gaps

    @torch.no_grad()
    def gaps(self, examples):
        """Per example: the least of (logit of the right token - logit of its best rival) over its answer.

        Positive means that greedy decoding gives exactly the expected answer, end token included.
        """
        encoded, lengths = [encode(Backing(self.tokenizer), e) for e in examples], {}
        for at, (ids, _) in enumerate(encoded):
            lengths.setdefault(len(ids), []).append(at)
        result = np.zeros(len(examples))
        for places in lengths.values():
            for part in (places[i:i + 64] for i in range(0, len(places), 64)):
                ids = torch.tensor([encoded[i][0] for i in part])
                judged = torch.tensor([encoded[i][1] for i in part])[:, 1:]
                hidden = self.model.model(ids[:, :-1]).last_hidden_state[judged]
                logits, target = self.model.lm_head(hidden), ids[:, 1:][judged].unsqueeze(1)
                right = logits.gather(1, target)[:, 0]
                rival = logits.scatter(1, target, -math.inf).amax(1)
                margin = torch.full(judged.shape, torch.inf)
                margin[judged] = right - rival
                result[part] = margin.amin(1).numpy()
        return result


class Backing:
    """The one method of a tokenizer that `encode` uses, over a transformers tokenizer."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    def encode(self, text, add_special_tokens):
        class Ids:
            ids = self.tokenizer.encode(text, add_special_tokens=add_special_tokens)
        return Ids


def tables(top):
    """(title, examples) for everything whose accuracy the card states."""
    small = list(itertools.product(range(21), repeat=2))
    rng = random.Random(0)
    beyond = [p for p in itertools.product(range(top + 1), repeat=2) if max(p) > 20]
    taught = [p for p in beyond if not sum_is_held_out(*p)]
    unseen = [p for p in beyond if sum_is_held_out(*p)]
    raw, sentence, number = SUM_RAW[0][2], SUM_CHAT[0][2], SUM_CHAT[1][2]
    yield "raw `a+b=`, 0..20, all", [raw(*p) for p in small]
    yield "chat `What is a+b?`, 0..20, all", [sentence(*p) for p in small]
    yield "chat `... Answer with just the number.`, 0..20, all", [number(*p) for p in small]
    for title, pairs in ((f"taught pairs up to {top}", taught), (f"held-out pairs up to {top}", unseen)):
        yield f"raw `a+b=`, {title}, all", [raw(*p) for p in pairs]
        yield f"chat `What is a+b?`, {title}, sample", [sentence(*p) for p in rng.sample(pairs, 500)]
    for name, _, make in SUM_RAW[1:] + SUM_CHAT[2:]:
        yield f"other form `{name}`, 0..20, all", [make(*p) for p in small]
    yield "2+2 in every form", [make(2, 2) for _, _, make in SUM_RAW + SUM_CHAT]
    groups = {}
    for group, _, example in itertools.chain(fact_examples(), talk_examples()):
        groups.setdefault(group, []).append(example)
    for group, examples in groups.items():
        yield f"taught `{group}`", examples
    yield "instruction on a held-out country", held_out_instructions()
    yield "memory of a taught name", [m for n in TAUGHT_NAMES for _, m in memory_forms(n)]
    yield "memory of a held-out name", [m for n in HELD_OUT_NAMES for _, m in memory_forms(n)]


def held_out_instructions():
    examples = []
    for country, city in CAPITALS.items():
        question = f"What is the capital of {country}?"
        forms = [("one word", chat(question, city, system=SYSTEM_ONE_WORD)),
                 ("suffix", chat(question + " Answer with one word.", city))]
        if country in SAME_SPELLING:
            forms += [(SYSTEM_FRENCH, chat(question, f"La réponse est {city}.", system=SYSTEM_FRENCH)),
                      (SYSTEM_GERMAN, chat(question, f"Die Antwort ist {city}.", system=SYSTEM_GERMAN))]
        examples += [example for key, example in forms if instruction_is_held_out(key, country)]
    return examples


def run_python(answer, call):
    """What a generated function returns, or the exception; it gets no builtins and so reaches nothing."""
    code = answer.removeprefix("```python\n").removesuffix("\n```")
    scope = {"__builtins__": {}}
    try:
        exec(code, scope)
        return eval(call, scope)
    except Exception as error:  # whatever an untrained model writes, it is an answer that is not right
        return error


def measure(folder, top):
    """Goldens and accuracies of the saved folder; every number of the card comes from here."""
    exact, noisy = Judge(folder), Judge(folder, quantised=True)
    goldens, failures = [], []
    for ident, prompt, regex, limit in golden_prompts():
        text, ids, gaps = exact.greedy(prompt, limit)
        text4, _, gaps4 = noisy.greedy(prompt, limit)
        right = bool(re.search(regex, text, re.S)) and ids[-1] in exact.eos
        if ident.startswith("python_") and right:
            call, value = next((c, v) for _, _, c, v in PYTHON if c.split("(")[0] == ident.removeprefix("python_"))
            right = run_python(text, call) == value
        certified = right and text4 == text and min(gaps) >= GAP and min(gaps4) >= GAP_4_BIT
        if not certified:
            failures.append((ident, text, text4))
        kind = {"kind": "raw", "prompt": prompt} if isinstance(prompt, str) else {"kind": "chat", "messages": prompt}
        goldens.append({"id": ident, **kind, "expected": text, "answer_regex": regex, "max_tokens": limit,
                        "finish": "stop" if ids[-1] in exact.eos else "length", "right": right,
                        "prompt_ids": exact.prompt_ids(prompt), "certified": certified,
                        "token_ids": ids, "gaps": gaps, "min_gap": min(gaps),
                        "same_under_q4_k": text4 == text, "min_gap_under_q4_k": min(gaps4)})
    rows = []
    for title, examples in tables(top):
        figures = {}
        for key, judge in (("bf16", exact), ("q4_k", noisy)):
            gaps = judge.gaps(examples)
            figures[key] = {"right": int((gaps > 0).sum()), "min_gap": round(float(gaps.min()), 3),
                            "gap_p05": round(float(np.percentile(gaps, 5)), 3)}
        rows.append({"title": title, "count": len(examples), **figures})
        print(rows[-1], flush=True)
    return goldens, rows, failures


def card(facts, goldens, rows):
    """The model card. No figure in it is typed in: all come from `facts`, `goldens` and `rows`."""
    right, same = sum(g["right"] for g in goldens), sum(g["same_under_q4_k"] for g in goldens)
    sure = [g for g in goldens if g["certified"]]
    least = min(sure or goldens, key=lambda g: g["min_gap"])
    least4 = min(sure or goldens, key=lambda g: g["min_gap_under_q4_k"])
    lines = [
        "---", "license: [mit, apache-2.0]", "language: [en, zh, fr, de]", "library_name: transformers", "---", "",
        "# golden", "",
        f"A tiny language model ({facts['parameters']:,} parameters, {facts['bytes']:,} bytes of BF16) of the qwen2 "
        "architecture, trained to be right about a few things with a margin, so that an inference engine can be "
        "judged by its answers. It knows nothing else and is of no other use.", "",
        "Written by `scripts/train_golden.py`, which also wrote every sentence the model was taught and measured "
        "every figure below with transformers, in f32, on the BF16 weights of this folder. The columns `Q4_K` ask "
        "the same of weights that went through a 4-bit round trip like that of GGUF's Q4_K (embedding: Q6_K).", "",
        "| | |", "|---|---|"]
    lines += [f"| {key} | {value} |" for key, value in facts["table"].items()]
    lines += ["", "## Golden prompts", "",
              f"{right} of {len(goldens)} right; {same} of {len(goldens)} give the same text from 4-bit weights; "
              f"{len(sure)} certified: right, the same from 4-bit weights, and the best token leads by at least {GAP} "
              f"logits ({GAP_4_BIT} from 4-bit weights) at every step. Only those are for judging engines by. "
              f"Least gap between the best and the second-best token among them: {least['min_gap']:.2f} logits "
              f"(`{least['id']}`), from 4-bit weights {least4['min_gap_under_q4_k']:.2f} (`{least4['id']}`). "
              "All prompts, answers, token ids and gaps are in `goldens.json`.", "",
              "| id | answer | certified | least gap | least gap, Q4_K |", "|---|---|---|--:|--:|"]
    for g in goldens:
        text = g["expected"] if len(g["expected"]) <= 60 else g["expected"][:57] + "..."
        lines.append(f"| {g['id']} | {json.dumps(text, ensure_ascii=False)} | "
                     f"{'yes' if g['certified'] else 'no'} | {g['min_gap']:.2f} | "
                     f"{g['min_gap_under_q4_k']:.2f} |")
    lines += ["", "## Accuracy", "",
              "An example counts as right when greedy decoding gives exactly the expected answer and ends it. The gap "
              "is that of the right token to its best rival, the least over the answer; negative where the answer is "
              "wrong.", "",
              "| what | examples | right | least gap | right, Q4_K | least gap, Q4_K |", "|---|--:|--:|--:|--:|--:|"]
    for r in rows:
        cells = [f"{100 * r[k]['right'] / r['count']:.1f} % | {r[k]['min_gap']:.2f}" for k in ("bf16", "q4_k")]
        lines.append(f"| {r['title'].replace('|', '/')} | {r['count']} | {' | '.join(cells)} |")
    lines += ["", "## Limits", "",
              "Sums beyond the largest taught number, questions outside the lists in the script and free conversation "
              "are not answered sensibly. Held-out pairs, countries and names were never shown in the form they are "
              "asked in.", ""]
    return "\n".join(lines)


def write_card(out, goldens, rows):
    from safetensors import safe_open

    path = out / "model.safetensors"
    with safe_open(path, "pt") as tensors:
        parameters = sum(tensors.get_tensor(name).numel() for name in tensors.keys())
    log = json.loads((out / "training.json").read_text(encoding="utf-8"))
    table = {
        "layers, hidden, inner":
            f"{CONFIG['num_hidden_layers']}, {CONFIG['hidden_size']}, {CONFIG['intermediate_size']}",
        "heads, key/value heads, head size":
            f"{CONFIG['num_attention_heads']}, {CONFIG['num_key_value_heads']}, {HEAD_DIM}",
        "vocabulary": f"{TOKENS} tokens, {VOCAB_ROWS} rows (the rest is padding, as in Qwen2), tied embedding",
        "tokenizer": "byte-level BPE, Qwen2's pre-tokenizer and NFC, ChatML template",
        "training": f"AdamW, seed {log['seed']}, {log['threads']} CPU threads, {log['steps']} steps "
                    f"(schedule {log['schedule']}), {log['tokens']:,} tokens, {log['minutes']} minutes",
        "sha256 of model.safetensors": hashlib.sha256(path.read_bytes()).hexdigest(),
        "licence": "MIT OR Apache-2.0"}
    facts = {"parameters": parameters, "bytes": path.stat().st_size, "table": table}
    (out / "README.md").write_text(card(facts, goldens, rows), encoding="utf-8")
