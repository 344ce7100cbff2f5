"""The `golden` fixture's network: the qwen2 forward pass over a flat list of tokens of many rows, so that no row is
padded to the length of another; and the round trips of K-quants that it is hardened against."""

import math

import torch
import torch.nn.functional as F

CONFIG = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "hidden_size": 256,
    "intermediate_size": 768,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "rope_theta": 10000.0,
    "rms_norm_eps": 1e-6,
    "hidden_act": "silu",
    "tie_word_embeddings": True,
    "attention_dropout": 0.0,
    "initializer_range": 0.02,
    "use_sliding_window": False,
    "use_cache": True,
    "torch_dtype": "bfloat16",
}
VOCAB_ROWS = 1024  # rows of the embedding; the tokenizer has 1000 entries, the rest is padding, as in Qwen2
HEAD_DIM = 64


def fake_q4_k(w):
    """The round trip of Q4_K: 4 bits per weight, scale and minimum of each 32 in 6 bits, one scale per 256."""
    blocks = w.reshape(-1, 8, 32)
    low = blocks.amin(-1).clamp(max=0.0)
    scale = (blocks.amax(-1) - low) / 15.0
    d, dmin = scale.amax(-1, keepdim=True) / 63.0 + 1e-12, (-low).amax(-1, keepdim=True) / 63.0 + 1e-12
    scale = ((scale / d).round() * d).unsqueeze(-1)
    low = ((-low / dmin).round() * dmin).unsqueeze(-1)
    quants = ((blocks + low) / (scale + 1e-12)).round().clamp(0, 15)
    return (quants * scale - low).reshape(w.shape)


def fake_q6_k(w):
    """The round trip of Q6_K, near enough: 6 bits, symmetric, a scale for each 16."""
    blocks = w.reshape(-1, 16)
    scale = blocks.abs().amax(-1, keepdim=True) / 31.0 + 1e-12
    return ((blocks / scale).round().clamp(-32, 31) * scale).reshape(w.shape)


def rms_norm(x, weight):
    x32 = x.float()
    return x32 * torch.rsqrt(x32.pow(2).mean(-1, keepdim=True) + CONFIG["rms_norm_eps"]) * weight


class Golden(torch.nn.Module):
    """Weights are kept in fused form (qkv, gate and up); `to_hf` gives them their public names."""

    def __init__(self, seed):
        super().__init__()
        hidden, inner, layers = CONFIG["hidden_size"], CONFIG["intermediate_size"], CONFIG["num_hidden_layers"]
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape, std):
            return torch.nn.Parameter(torch.randn(*shape, generator=generator) * std)

        self.layers = layers
        self.heads, self.kv_heads = CONFIG["num_attention_heads"], CONFIG["num_key_value_heads"]
        self.embed = normal(VOCAB_ROWS, hidden, std=0.05)
        rows = (self.heads + 2 * self.kv_heads) * HEAD_DIM
        self.qkv = torch.nn.ParameterList(normal(rows, hidden, std=0.06) for _ in range(layers))
        # Biases start away from zero: a runtime that forgets them must be seen to be wrong.
        self.qkv_bias = torch.nn.ParameterList(normal(rows, std=0.3) for _ in range(layers))
        out_std = 0.06 / math.sqrt(2 * layers)
        self.out = torch.nn.ParameterList(normal(hidden, hidden, std=out_std) for _ in range(layers))
        self.gate_up = torch.nn.ParameterList(normal(2 * inner, hidden, std=0.06) for _ in range(layers))
        self.down = torch.nn.ParameterList(normal(hidden, inner, std=out_std) for _ in range(layers))
        self.norms = torch.nn.ParameterList(
            torch.nn.Parameter(torch.ones(hidden)) for _ in range(2 * layers + 1))

    def matrices(self):
        return [*self.qkv, *self.out, *self.gate_up, *self.down]

    def effective(self, quantised):
        """The weights a step sees: as they are, or after the round trip, with the gradient straight through."""
        if not quantised:
            return [self.embed, *self.matrices()]
        through = lambda w, f: w + (f(w) - w).detach()
        return [through(self.embed, fake_q6_k), *(through(w, fake_q4_k) for w in self.matrices())]

    def forward(self, ids, index, shape, quantised=False):
        """Logits [len(index), vocabulary] at the flat positions `index` of rows `shape` = [(rows, length)]."""
        embed, *mats = self.effective(quantised)
        n = self.layers
        qkv, out, gate_up, down = mats[:n], mats[n:2 * n], mats[2 * n:3 * n], mats[3 * n:]
        cos, sin = rope_table(shape)
        x = F.embedding(ids, embed)
        for i in range(n):
            x = x + self.attention(rms_norm(x, self.norms[2 * i]), qkv[i], self.qkv_bias[i], out[i], cos, sin, shape)
            gate, up = F.linear(rms_norm(x, self.norms[2 * i + 1]), gate_up[i]).chunk(2, -1)
            x = x + F.linear(F.silu(gate) * up, down[i])
        x = rms_norm(x[index], self.norms[2 * n])
        return F.linear(x, embed).float()

    def attention(self, x, qkv, bias, out, cos, sin, shape):
        heads, kv = self.heads, self.kv_heads
        mixed = F.linear(x, qkv, bias.to(x.dtype)).view(-1, heads + 2 * kv, HEAD_DIM)
        q, k, v = mixed.split([heads, kv, kv], 1)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        k, v = (t.repeat_interleave(heads // kv, 1) for t in (k, v))
        parts, at = [], 0
        for rows, length in shape:
            piece = slice(at, at + rows * length)
            qq, kk, vv = (t[piece].view(rows, length, heads, HEAD_DIM).transpose(1, 2) for t in (q, k, v))
            y = F.scaled_dot_product_attention(qq, kk, vv, is_causal=True)
            parts.append(y.transpose(1, 2).reshape(rows * length, heads * HEAD_DIM))
            at += rows * length
        return F.linear(torch.cat(parts), out)

    def to_hf(self):
        """BF16 tensors under the names transformers gives them."""
        q, kv = self.heads * HEAD_DIM, self.kv_heads * HEAD_DIM
        tensors = {"model.embed_tokens.weight": self.embed, "model.norm.weight": self.norms[2 * self.layers]}
        for i in range(self.layers):
            at = f"model.layers.{i}."
            for name, (w, b) in zip("qkv", zip(self.qkv[i].split([q, kv, kv]), self.qkv_bias[i].split([q, kv, kv]))):
                tensors[f"{at}self_attn.{name}_proj.weight"] = w
                tensors[f"{at}self_attn.{name}_proj.bias"] = b
            gate, up = self.gate_up[i].chunk(2)
            tensors[at + "self_attn.o_proj.weight"] = self.out[i]
            tensors[at + "mlp.gate_proj.weight"] = gate
            tensors[at + "mlp.up_proj.weight"] = up
            tensors[at + "mlp.down_proj.weight"] = self.down[i]
            tensors[at + "input_layernorm.weight"] = self.norms[2 * i]
            tensors[at + "post_attention_layernorm.weight"] = self.norms[2 * i + 1]
        return {k: v.detach().to(torch.bfloat16).contiguous().clone() for k, v in tensors.items()}


ROPE = {}


def rope_table(shape):
    key = tuple(shape)
    if key not in ROPE:
        position = torch.cat([torch.arange(length).repeat(rows) for rows, length in shape]).float()
        frequency = CONFIG["rope_theta"] ** (-torch.arange(0, HEAD_DIM, 2).float() / HEAD_DIM)
        angle = torch.outer(position, frequency).repeat(1, 2).unsqueeze(1)
        ROPE[key] = angle.cos(), angle.sin()
    return ROPE[key]


def rotate(x, cos, sin):
    first, second = x.chunk(2, -1)
    return (x * cos + torch.cat([-second, first], -1) * sin).to(x.dtype)
