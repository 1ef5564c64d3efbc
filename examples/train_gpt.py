"""A character GPT trained by a loop of your own, then text from it.

    python examples/train_gpt.py [text file] [steps]

The command `minigrad train` does the same with a progress line, checkpoints and options.
"""

import sys
import time

import minigrad
from minigrad.data import CharTokenizer, TextData, bigram_loss, default_text, read_text
from minigrad.models import GPT, GPTConfig
from minigrad.optim import AdamW, ChainedOptimizer, Muon, clip_grad_norm_, lr_scheduler
from minigrad.train import evaluate


def main(path: str | None = None, steps: int = 600) -> float:
    minigrad.manual_seed(1337)
    text = read_text(path) if path else default_text()
    tokenizer = CharTokenizer.from_text(text)
    data = TextData(tokenizer.encode(text), block_size=64, batch_size=8, seed=1337)

    model = GPT(GPTConfig(tokenizer.vocab_size, block_size=64, n_layer=2, n_head=2, n_embd=64))
    # Muon for the matrices of the blocks, AdamW for the embedding and the norms.
    blocks = [p for p in model.h.parameters() if p.ndim == 2]
    others = [model.wte.weight, *(p for p in model.parameters() if p.ndim == 1)]
    optimizer = ChainedOptimizer([Muon(blocks, lr=0.02), AdamW(others, lr=6e-3, betas=(0.9, 0.99))])
    schedule = lr_scheduler.WarmupStableDecayLR(optimizer, steps // 10, steps, steps // 2)
    print(model)

    start = time.perf_counter()
    for step in range(steps):
        x, y = data.batch(step)
        loss = model.loss(x, y)
        optimizer.zero_grad()
        loss.backward()
        norm = clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 0 or step == steps - 1:
            lr = schedule.get_last_lr()[0]
            print(f"step {step:4d}  loss {loss:.3f}  gradient norm {norm:.2f}  lr {lr:.1e}")
    seconds = time.perf_counter() - start

    val_loss = evaluate(model, data.validation())
    print(
        f"validation {val_loss:.3f} nats per character; a table of pairs has "
        f"{bigram_loss(data, tokenizer.vocab_size):.3f}"
    )
    print(f"{seconds / steps * 1000:.1f} ms per step")

    prompt = text[:20]
    tokens = model.generate(tokenizer.encode(prompt), 200, temperature=0.5, seed=0)
    print(repr(prompt + tokenizer.decode(tokens)))
    return val_loss


if __name__ == "__main__":
    main(*sys.argv[1:2], *map(int, sys.argv[2:]))
