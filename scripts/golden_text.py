"""Tokens of the `golden` fixture: its tokenizer, its chat template, and the examples as rows of fixed lengths."""

import re

import numpy as np
import torch
from golden_lessons import NAMES, chat

END, IM_START, IM_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
SPECIALS = [END, IM_START, IM_END]

# Qwen2's own pre-tokenizer: digits are single, so that a sum is a matter of digits and not of number words.
QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)

CHAT_TEMPLATE = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)

TOKENS = 1000

# Rows of each group in one step. Arithmetic has most of the rows, because its table is the longest thing to learn;
# a group's examples share its rows by weight.
GROUP_ROWS = {
    "sum_raw": 96, "sum_chat": 40, "fact": 7, "instruct": 9, "talk": 3, "chinese": 2, "emoji": 2.5,
    "python": 2.5, "long": 2.5, "memory": 7, "memory_far": 1, "echo": 1.5,
}


def render(messages, generation_prompt=False):
    """The chat template in plain Python; `check_template` proves that jinja2 renders the same."""
    text = "".join(f"{IM_START}{m['role']}\n{m['content']}{IM_END}\n" for m in messages)
    return text + (f"{IM_START}assistant\n" if generation_prompt else "")


def check_template():
    import jinja2

    template = jinja2.Environment().from_string(CHAT_TEMPLATE)
    messages = chat("a", "b", "c", system="s")
    for prompt in (False, True):
        assert template.render(messages=messages, add_generation_prompt=prompt) == render(messages, prompt)


def train_tokenizer(examples):
    """Byte-level BPE with Qwen2's normaliser and pre-tokenizer; the special tokens come last, as in Qwen2."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE(byte_fallback=False, fuse_unk=False))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(QWEN2_SPLIT), behavior="isolated", invert=False),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    tokenizer.decoder = decoders.ByteLevel(add_prefix_space=False, use_regex=False)
    # Invented names would spend the merges on syllables, and sums have nothing to merge.
    plain = {text for group, _, example in examples if group not in ("memory", "memory_far", "echo")
             for text in ([m["content"] for m in example] if isinstance(example, list) else example)}
    frames = ["What is? Answer with just the number.", "My name is", "Hi, my name is", "I am", "What is my name?",
              "Nice to meet you,", "Your name is", "等于几？", "等于", "system\n", "user\n", "assistant\n"]
    texts = [t for t in sorted(plain) if not re.search(r"\d", t)] + frames
    texts = texts * 4 + [" " + name for name in NAMES]
    trainer = trainers.BpeTrainer(
        vocab_size=TOKENS - len(SPECIALS), min_frequency=2, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in SPECIALS])
    return tokenizer


def segments(example):
    """(text, judged) pieces: only what the assistant says, and the token that ends it, is learned."""
    if isinstance(example, tuple):
        return [(example[0], False), (example[1] + END, True)]
    pieces = []
    for message in example:
        head = f"{IM_START}{message['role']}\n"
        if message["role"] == "assistant":
            pieces += [(head, False), (message["content"] + IM_END, True), ("\n", False)]
        else:
            pieces += [(head + message["content"] + IM_END + "\n", False)]
    return pieces[:-1] if pieces[-1] == ("\n", False) else pieces


def encode(tokenizer, example):
    """Token ids of a whole example and, per id, whether it is to be predicted.

    The pieces are encoded apart; `check_pieces` proves that the whole text has the same ids.
    """
    ids, judged = [], []
    for text, learned in segments(example):
        piece = tokenizer.encode(text, add_special_tokens=False).ids
        ids += piece
        judged += [learned] * len(piece)
    return ids, judged


def check_pieces(tokenizer, examples):
    """An engine encodes a rendered prompt as one text; what was learned must be what it will see."""
    for _, _, example in examples[::37]:
        whole = "".join(text for text, _ in segments(example))
        assert encode(tokenizer, example)[0] == tokenizer.encode(whole, add_special_tokens=False).ids, whole


LENGTHS = [7, 9, 12, 20, 24, 28, 32, 36, 44, 56, 72, 96, 128]


class Mixture:
    """All examples, sorted into length classes; draws batches of one fixed shape."""

    def __init__(self, tokenizer, examples):
        totals = {}
        for group, weight, _ in examples:
            totals[group] = totals.get(group, 0.0) + weight
        classes = {length: [] for length in LENGTHS}
        for group, weight, example in examples:
            ids, judged = encode(tokenizer, example)
            length = next(n for n in LENGTHS if n >= len(ids) - 1)
            classes[length].append((ids, judged, GROUP_ROWS[group] * weight / totals[group]))
        self.classes = []
        for length, rows in classes.items():
            if not rows:
                continue
            mass = np.array([w for _, _, w in rows])
            count = max(1, round(float(mass.sum())))
            inputs = np.zeros((len(rows), length), dtype=np.int64)
            targets = np.zeros((len(rows), length), dtype=np.int64)
            learned = np.zeros((len(rows), length), dtype=bool)
            for r, (ids, judged, _) in enumerate(rows):
                n = len(ids) - 1
                inputs[r, :n], targets[r, :n], learned[r, :n] = ids[:-1], ids[1:], judged[1:]
            self.classes.append((length, count, np.cumsum(mass / mass.sum()), inputs, targets, learned))
        self.shape = [(count, length) for length, count, *_ in self.classes]
        self.judged = 0  # padded number of judged positions: constant, so that a step is compiled once
        self.tokens = sum(count * length for count, length in self.shape)

    def draw(self, rng):
        """Flat inputs, and the flat indices, targets and weights of the judged positions (padded)."""
        ids, targets, learned = [], [], []
        for _, count, cumulative, all_inputs, all_targets, all_learned in self.classes:
            pick = np.minimum(np.searchsorted(cumulative, rng.random(count)), len(cumulative) - 1)
            ids.append(all_inputs[pick].ravel())
            targets.append(all_targets[pick].ravel())
            learned.append(all_learned[pick].ravel())
        ids, targets, learned = map(np.concatenate, (ids, targets, learned))
        where = np.flatnonzero(learned)
        if len(where) > self.judged:
            self.judged = -(-len(where) * 5 // 4 // 256) * 256
        padded = self.judged
        index = np.zeros(padded, dtype=np.int64)
        index[: len(where)] = where
        weight = np.zeros(padded, dtype=np.float32)
        weight[: len(where)] = 1.0 / len(where)
        return tuple(map(torch.from_numpy, (ids, index, targets[index], weight)))
