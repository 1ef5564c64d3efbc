"""Published models beside what else runs them: a GGUF file in minigrad, llama.cpp and transformers,
and sentence embeddings in minigrad and sentence-transformers.

    python tools/bench_models.py FILE.gguf [--minilm FOLDER] [--threads 1 2] [--prompt 512]
    [--tokens 64] [--rounds 5] [--llama-python PYTHON] [--torch-python PYTHON] [--write]

Measured are the seconds to load (imports included), tokens per second of a prompt and of greedy
decoding after it, and peak memory; and milliseconds for one sentence and for 32, of 7 to 80 words.
Each contender lives in a process of its own, of the interpreter that has its packages, and their
turns are interleaved; medians of the rounds are given, and ratios round by round. A contender that
is not installed is left out. --write puts the tables into docs/performance.md, which has them for
processors with AVX-512 and for others.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from bench import machine
from pages import PERFORMANCE

ROOT = Path(__file__).resolve().parents[1]
Turn = Callable[[], list[float]]
SENTENCES = 32


def minigrad(options: argparse.Namespace, int8: bool) -> Turn:
    """The prompt op by op, then compiled steps for groups of tokens."""
    from minigrad.models.decoding import use_int8
    from minigrad.models.published import load

    model, _ = load(options.file)
    if int8:
        use_int8(model)
    prompt = prompt_of(options)

    def turn() -> list[float]:
        tokens = model.generate(prompt, options.tokens + 1, temperature=0, jit=True)
        started = time.perf_counter()
        next(tokens)
        prefill = time.perf_counter() - started
        started = time.perf_counter()
        assert len(list(tokens)) == options.tokens
        return [prefill, time.perf_counter() - started]

    return turn


def llama(options: argparse.Namespace) -> Turn:
    """llama.cpp, by llama-cpp-python."""
    from llama_cpp import Llama

    threads, room = options.threads[0], options.prompt + options.tokens + 8
    model = Llama(
        options.file,
        n_ctx=room,
        n_batch=options.prompt,
        n_threads=threads,
        n_threads_batch=threads,
        verbose=False,
    )
    prompt = prompt_of(options)

    def turn() -> list[float]:
        model.reset()
        started = time.perf_counter()
        model.eval(prompt)
        prefill = time.perf_counter() - started
        started = time.perf_counter()
        for _ in range(options.tokens):
            model.eval([int(model.sample(temp=0.0))])
        return [prefill, time.perf_counter() - started]

    return turn


def transformers(options: argparse.Namespace) -> Turn:
    """PyTorch in float32, the weights dequantised when they are loaded."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(options.threads[0])
    file = Path(options.file).resolve()
    model = AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, dtype=torch.float32
    ).eval()
    prompt = torch.tensor([prompt_of(options)])

    @torch.inference_mode()
    def turn() -> list[float]:
        started = time.perf_counter()
        out = model(prompt, use_cache=True, logits_to_keep=1)
        prefill = time.perf_counter() - started
        started = time.perf_counter()
        for _ in range(options.tokens):
            new = out.logits[:, -1:].argmax(-1)
            out = model(new, past_key_values=out.past_key_values, use_cache=True)
        return [prefill, time.perf_counter() - started]

    return turn


def prompt_of(options: argparse.Namespace) -> list[int]:
    """Tokens that any vocabulary has."""
    return np.random.default_rng(0).integers(0, 1000, options.prompt).tolist()


def embedder(encode: Callable[[list[str]], Any]) -> Turn:
    """A turn that embeds one sentence, then all of them."""
    text = (ROOT / "docs/compiler.md").read_text(encoding="utf-8").replace("\n", " ")
    sentences = [part for part in text.split(". ") if 40 < len(part) < 400][:SENTENCES]
    sentences.sort(key=len)
    assert len(sentences) == SENTENCES

    def turn() -> list[float]:
        started = time.perf_counter()
        for _ in range(5):
            encode(sentences[SENTENCES // 2 :][:1])
        one = (time.perf_counter() - started) / 5
        started = time.perf_counter()
        encode(sentences)
        return [one, time.perf_counter() - started]

    return turn


def minilm(options: argparse.Namespace, jit: bool) -> Turn:
    """minigrad's embeddings."""
    from minigrad.models import Bert, load

    model, tokenizer = load(options.minilm)
    assert isinstance(model, Bert)
    return embedder(lambda texts: model.embed(tokenizer, texts, jit=jit))


def sentence_transformers(options: argparse.Namespace) -> Turn:
    """The same by sentence-transformers."""
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(options.threads[0])
    model = SentenceTransformer(options.minilm, device="cpu")
    return embedder(lambda texts: model.encode(texts, batch_size=SENTENCES))


# A contender's function, and the option that names its interpreter
Contenders = dict[str, tuple[Callable[[argparse.Namespace], Turn], str]]
Measured = dict[str, tuple[float, Any]]
DECODERS: Contenders = {
    "minigrad, int8 products": (lambda options: minigrad(options, True), ""),
    "minigrad, float32": (lambda options: minigrad(options, False), ""),
    "llama.cpp": (llama, "llama_python"),
    "transformers, float32": (transformers, "torch_python"),
}
EMBEDDERS: Contenders = {
    "minigrad, compiled": (lambda options: minilm(options, True), ""),
    "minigrad": (lambda options: minilm(options, False), ""),
    "sentence-transformers": (sentence_transformers, "torch_python"),
}


def work(options: argparse.Namespace) -> None:
    """A contender's process: a turn for each line of input."""
    started = time.perf_counter()
    turn = (DECODERS | EMBEDDERS)[options.contender][0](options)
    loaded = time.perf_counter() - started
    for _ in range(3):
        turn()  # compiles
    print(loaded, flush=True)
    for _ in sys.stdin:
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        print(json.dumps([*turn(), memory]), flush=True)


def measure(options: argparse.Namespace, contenders: Contenders, threads: int) -> Measured:
    """Each contender on so many threads: the seconds to load, and a row per round: two times, and
    the memory.
    """
    names = "MINIGRAD_THREADS", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **dict.fromkeys(names, str(threads))}
    words = [__file__, *sys.argv[1:], "--threads", str(threads), "--contender"]
    processes, loaded = dict[str, Any](), dict[str, float]()
    for name, (_, python) in contenders.items():  # one after the other: loading is timed
        processes[name] = process = subprocess.Popen(
            [getattr(options, python, None) or sys.executable, *words, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        assert process.stdout is not None
        if line := process.stdout.readline():
            loaded[name] = float(line)
    found: dict[str, list[list[float]]] = {name: [] for name in loaded}
    for _ in range(options.rounds):
        for name, rows in found.items():
            time.sleep(0.5)  # threads of the last one may spin for a while
            print(file=processes[name].stdin, flush=True)
            rows.append(json.loads(processes[name].stdout.readline()))
    for p in processes.values():
        p.communicate()
    return {name: (loaded[name], np.array(rows)) for name, rows in found.items()}


def ratios(found: Measured, threads: int, first: str, second: str) -> list[str]:
    """How many times as fast the first contender is as those that are not minigrad, in words."""
    (_, (_, rows)), *others = found.items()
    lines = []
    for name, (_, theirs) in others:
        if not name.startswith("minigrad"):
            low, middle, high = np.quantile(theirs / rows, (0.25, 0.5, 0.75), axis=0)
            a, b = (f"{middle[i]:.2f} ({low[i]:.2f} to {high[i]:.2f})" for i in (0, 1))
            lines.append(f"- threads {threads}, {name}: {first} {a}, {second} {b}")
    return lines


def table(
    options: argparse.Namespace,
    contenders: Contenders,
    names: tuple[str, str],
    unit: str,
    cells: Callable[[float, float], str],
) -> list[str]:
    """A row per contender and number of threads, and how many times as fast the first one is.

    names, unit: of the two times, which `cells` writes down.
    """
    first, second = names
    lines = [
        f"| threads | | load, s | {first}, {unit} | {second}, {unit} | peak memory, MB |",
        "|---|---|---|---|---|---|",
    ]
    said = ["How many times as fast as the others the first row is, with quartiles:", ""]
    for threads in options.threads:
        found = measure(options, contenders, threads)
        for name, (load, rows) in found.items():
            one, other, memory = np.median(rows, axis=0)
            lines.append(
                f"| {threads} | {name} | {load:.2f} | {cells(one, other)} | {memory:.0f} |"
            )
        said += ratios(found, threads, first, second)
    return [*lines, "", *said]


def decoding(options: argparse.Namespace) -> list[str]:
    """The table of a GGUF file."""
    return [
        f"### {Path(options.file).stem}, a prompt of {options.prompt} tokens, then "
        f"{options.tokens} more",
        "",
        *table(
            options,
            DECODERS,
            ("prompt", "decoding"),
            "tokens/s",
            lambda one, other: f"{options.prompt / one:.0f} | {options.tokens / other:.0f}",
        ),
    ]


def embedding(options: argparse.Namespace) -> list[str]:
    """The table of an encoder."""
    return [
        "### all-MiniLM-L6-v2, sentences of 7 to 80 words",
        "",
        *table(
            options,
            EMBEDDERS,
            ("one sentence", f"{SENTENCES} sentences"),
            "ms",
            lambda one, other: f"{1e3 * one:.1f} | {1e3 * other:.0f}",
        ),
    ]


def main() -> None:
    """Run from the command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file")
    parser.add_argument("--minilm", help="the folder of all-MiniLM-L6-v2")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--llama-python", help="an interpreter with llama-cpp-python")
    parser.add_argument("--torch-python", help="one with transformers and sentence-transformers")
    parser.add_argument("--write", action="store_true", help="into docs/performance.md")
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contender:
        return work(options)
    wide = np._core._multiarray_umath.__cpu_features__.get("AVX512F", False)
    title = f"## Published models, {'AVX-512' if wide else 'no AVX-512'}"
    lines = [title, "", f"`tools/bench_models.py`, {options.rounds} rounds.  "]
    lines += [*machine(os.cpu_count() or 1).splitlines(), "", *decoding(options)]
    if options.minilm:
        lines += ["", *embedding(options)]
    print("\n".join(lines))
    if options.write:
        PERFORMANCE.write("bench_models_avx512" if wide else "bench_models", lines)
    return None


if __name__ == "__main__":
    main()
