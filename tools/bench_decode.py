"""Generation with and without the KV cache: milliseconds per token at several places of the context, greedy, batch 1.

    python tools/bench_decode.py [--n-layer 4] [--n-embd 128] [--n-head 4] [--block-size 256]

Without the cache every token runs the whole text so far through the model; with it, only itself.
"""

import argparse
import statistics
import time

import minigrad
from minigrad.models import GPT, GPTConfig


def token_times(model: GPT, n_tokens: int, use_cache: bool) -> tuple[list[int], list[float]]:
    """The tokens that follow token 0, and the milliseconds that each took."""
    tokens, times = [], []
    stream = model.generate([0], n_tokens, temperature=0.0, use_cache=use_cache)
    began = time.perf_counter()
    for token in stream:
        now = time.perf_counter()
        tokens.append(int(token))
        times.append((now - began) * 1000)
        began = now
    return tokens, times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("n-layer", 4), ("n-head", 4), ("n-embd", 128), ("block-size", 256), ("vocab-size", 103)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    minigrad.manual_seed(0)
    model = GPT(GPTConfig(**vars(options)))
    model.eval()
    T = options.block_size
    token_times(model, 8, use_cache=True)  # the first calls set up buffers
    runs = [(token_times(model, T - 1, use_cache=True), token_times(model, T - 1, use_cache=False)) for _ in range(3)]
    (fast_tokens, _), (slow_tokens, _) = runs[0]
    # The best of three interleaved runs for each position: what disturbs the machine only ever adds.
    fast, slow = ([min(times) for times in zip(*(run[i][1] for run in runs), strict=True)] for i in (0, 1))
    print(f"{options.n_layer} layers, {options.n_head} heads, {options.n_embd} wide, context {T}, one sequence")
    print(f"{'position':>8} {'with cache':>12} {'without':>12} {'ratio':>7}      (ms per token, best of 3, median of 9 around the position)")
    for at in (10, T // 4, T // 2, T - 6):
        with_cache, without = (statistics.median(times[at - 4 : at + 5]) for times in (fast, slow))
        print(f"{at:>8} {with_cache:>12.3f} {without:>12.3f} {without / with_cache:>7.1f}")
    print("same tokens" if fast_tokens == slow_tokens else "DIFFERENT tokens")


if __name__ == "__main__":
    main()
