"""A Llama-type model in a page: RMSNorm, rotary positions, grouped queries, SwiGLU; trained on
characters, then writing from its caches.

python examples/tiny_llama.py [text file] [steps]
"""

import sys

import numpy as np

import minigrad
from minigrad import functional as F, nn
from minigrad.data import CharTokenizer, TextData, bigram_loss, default_text, read_text
from minigrad.optim import AdamW, ChainedOptimizer, Muon, clip_grad_norm_, lr_scheduler
from minigrad.train import evaluate


class Llama(nn.Module):
    """tokens (B, T) -> logits (B, T, V). There is no table of positions: attention turns q and k by
    theirs.
    """

    def __init__(self, vocab_size, n_layer=2, n_embd=64, n_head=4, n_kv_head=2):
        self.tokens = nn.Embedding(vocab_size, n_embd)
        self.layers = nn.ModuleList(
            nn.TransformerBlock(
                n_embd,
                n_head,
                n_kv_head=n_kv_head,
                norm="rms",
                mlp="swiglu",
                rope="half",
                bias=False,
            )
            for _ in range(n_layer)
        )
        self.norm = nn.RMSNorm(n_embd)
        self.head = nn.Linear(n_embd, vocab_size, bias=False)

    def forward(self, tokens, caches=None):
        x = self.tokens(minigrad.as_tensor(tokens))
        for layer, cache in zip(self.layers, caches or [None] * len(self.layers), strict=True):
            x = layer(x, cache=cache)
        return self.head(self.norm(x))

    def loss(self, x, y):
        return F.cross_entropy(self(x), y, axis=-1)

    def write(self, prompt, count, capacity=256):
        """Greedy: the prompt goes through once, then one token at a time; the caches hold the keys
        and values of all before.
        """
        caches, new = [nn.KVCache(capacity) for _ in self.layers], prompt
        for _ in range(count):
            with minigrad.no_grad():
                new = [int(self(np.array([new]), caches).numpy()[0, -1].argmax())]
            yield new[0]


def main(path: str = "", steps: int = 600) -> float:
    minigrad.manual_seed(1337)
    text = read_text(path) if path else default_text()
    tokenizer = CharTokenizer.from_text(text)
    data = TextData(tokenizer.encode(text), block_size=64, batch_size=12)
    model = Llama(tokenizer.vocab_size)
    matrices = [p for p in model.layers.parameters() if p.ndim == 2]
    others = [p for p in model.parameters() if all(p is not q for q in matrices)]
    optimizer = ChainedOptimizer([Muon(matrices, lr=0.02), AdamW(others, lr=6e-3)])
    schedule = lr_scheduler.WarmupStableDecayLR(optimizer, steps // 10, steps, steps // 2)
    for step in range(steps):
        loss = model.loss(*data.batch(step))
        optimizer.zero_grad()
        loss.backward()
        clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            print(f"step {step:4d}  loss {loss.item():.3f}", flush=True)
    val_loss = evaluate(model, data.validation())
    print(
        f"validation {val_loss:.3f} nats per character; a table of pairs has "
        f"{bigram_loss(data, tokenizer.vocab_size):.3f}"
    )
    print(repr(text[:20] + tokenizer.decode(model.write(tokenizer.encode(text[:20]), 100))))
    return val_loss


if __name__ == "__main__":
    main(*sys.argv[1:2], *map(int, sys.argv[2:]))
