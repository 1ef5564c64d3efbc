"""Random programs, as text that can be run: what eager gives is held against what a replay gives.

A program grows line by line: a template is filled with names and axes at random and kept if it runs
    and stays within bounds. Parameters (p0, ...)
require gradients, states (s0, ...) are assigned to; the arguments a and b are others at each call,
some of them transposed or with gaps.
"""

import re
import warnings
from dataclasses import dataclass, field, replace

import numpy as np

import minigrad
from minigrad import Tensor, cat, functional, no_grad, where
from minigrad.errors import CaptureError, MinigradError

CALLS = 4
EPS = float(np.finfo(np.float32).eps)
_LARGEST, _SIZE = 100.0, 6000  # of a number in a program, and of its tensors

VIEWS = """
    {x}.transpose({i}, {j})  {x}.flip({i})  {x}[1:]  {x}[::2]  {x}[..., ::-1]  {x}[..., :2]
    {x}[:, 1]  {x}[None]  {x}[-1]  {x}.squeeze()  {x}.unsqueeze(-1)  {x}.unsqueeze({i})
    {x}.expand(3, *{x}.shape)  {x}.reshape(-1)  {x}.detach()  {x}.reshape({x}.shape[::-1])
    {x}.reshape({x}.shape[0], -1)  {x}.transpose({i}, {j}).reshape({x}.shape)  written({x})
"""
PAIRS = """
    {x} + {y}  {x} - {y}  {x} * {y}  {x} / ({y} * {y} + 1)  minigrad.maximum({x}, {y})
    {x} + {y}.transpose({i}, {j})  {x} + {y}.flip({i})  {x} + {y}.softmax({i})  cat([{x}, {y}], {i})
    {x} @ {y}  {x} @ {y}.transpose(-1, -2)  {x}.transpose(-1, -2) @ {y}
    where({x} > {y}, {x}, {y} * 2)  where(({x} > 0) & ({y} < 1), {x}, 0)  {x}[:, None] * {y}
    functional.scaled_dot_product_attention({x}, {y}, {y})
    functional.scaled_dot_product_attention({x}, {x}, {x}, is_causal=True)
    functional.scaled_dot_product_attention({x}[:, None], {y}[:, None], {y}[:, None]).squeeze(1)
"""
SUMS = """
    {x}.sum({i})  {x}.sum({i}, keepdim=True)  {x}.mean({i}, keepdim=True)  {x}.mean(({i}, {j}))
    {x}.max({i})  {x}.max(-1, keepdim=True)  {x}.min({i}, keepdim=True)  {x}.var({i})
    {x}.logsumexp({i})  {x}.sum()  {x}.cumsum({i})
"""
ROWS = """
    {x}.softmax({i})  {x}.log_softmax(-1)  functional.gelu({x})  functional.gelu({x}, "tanh")
    {x} * {p} + {q}  functional.layer_norm({x}, {x}.shape[-1], {p}, {q})
    functional.layer_norm({x}, {x}.shape[-1])
    {x} + functional.layer_norm({x}, {x}.shape[-1], {p}, {q})
    functional.rms_norm({x}, {x}.shape[-1], {p})  functional.linear({x}, {W}, {r})
    functional.linear({x}, {W})  {x} @ {W}.transpose(0, 1)  {x}.tanh()  {x}.sigmoid()  {x}.relu()
    ({x} * {x} + 1).sqrt()  {x} * 0.5 - 1  ({x} * 0.1).exp()  {x}.sin()  {x}.abs()
    ({x} * {x} + 1).log()  {x}.clip(-0.5, 0.5)  -{x}  {x}.double().tanh().float()
    {x}.argmax({i}).float()  {x}.tril()
    functional.cross_entropy({x}.reshape(-1, {x}.shape[-1]), \
{x}.reshape(-1, {x}.shape[-1]).argmax(-1).detach() * 0)
    functional.linear({x}[:, 0], {W}).tanh()  {x}[:, [0, 0]]  minigrad.stack([{x}, {x} * 2], {i})
"""
EFFECTS = """
    {s}.assign({s} * 0.5 + {x} * 0.25)  {s}.assign({x})  {s}.assign({x}.mean())
    {s}.assign({x}[None])  {s}.assign({s}.flip(0))  {s}.assign({s} + {x}.mean(0, keepdim=True))
    {s}[1:] = {x}[1:] * 0.5  {s}[..., 0] = 0.5  {s}.assign({s}.transpose({i}, {j}))
    {s}[{s} > 0] = 0.25  {s}[:, 1:] = {s}[:, :-1]  {s}.transpose({i}, {j})[0].add_({x}.mean())
    {s}[1:].mul_(0.5)
"""
FAMILIES = [
    re.split(r"\s{2,}", family.strip())
    for family in (VIEWS, VIEWS, PAIRS, PAIRS, PAIRS, SUMS, ROWS, ROWS, EFFECTS)
]


@dataclass(frozen=True)
class Program:
    """states: name -> (shape, whether it requires a gradient).   gradients: "none", or what becomes
    of those in .grad: "leave", "clear", "add".
    """

    seed: int
    arguments: tuple[tuple[tuple[int, ...], str], ...]
    gradients: str
    states: dict = field(default_factory=dict)
    lines: tuple[str, ...] = ()
    results: tuple[str, ...] = ()

    def __str__(self) -> str:
        text = "\n".join([*self.lines, *self.results])
        used = [
            name
            for name, (_, wants) in self.states.items()
            if wants and re.search(rf"\b{name}\b", text)
        ]
        before = [f"{p}.grad = None" for p in used] if self.gradients == "leave" else []
        after = []
        if self.gradients != "none":
            terms = (
                f"(v * v * 0.5 + v).mean() for v in ({', '.join(self.results)},) if v.requires_grad"
            )
            after = [f"loss = sum({terms}) + Tensor(0.0)", "loss.backward()"]
        if self.gradients == "clear":
            update = "with no_grad(): {p}.assign({p} - 0.05 * {p}.grad)\n        {p}.grad = None"
            after += [f"if {p}.grad is not None:\n        {update.format(p=p)}" for p in used]
        results = ", ".join(
            f"{v}.detach()" if i % 2 and self.gradients == "none" else v
            for i, v in enumerate(self.results)
        )
        return (
            "\n    ".join(["def step(a, b):", *before, *self.lines, *after, f"return {results},"])
            + "\n"
        )

    def describe(self) -> str:
        """The program with what it is run on."""
        return f"{self}# arguments {self.arguments}, states {self.states}, seed {self.seed}"


def array(shape, *seed):
    return np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)


def argument(shape, kind, *seed):
    """A tensor whose memory is in order ("plain"), transposed, or has gaps."""
    if kind == "transposed":
        return Tensor(array(shape[::-1], *seed).T)
    if kind == "gaps":
        return Tensor(array((*shape[:-1], 2 * shape[-1]), *seed)[..., ::2])
    return Tensor(array(shape, *seed), requires_grad=kind == "wanted")


def written(x):
    """x, its first row doubled, by a buffer that is changed through views of it."""
    buffer, x = Tensor.zeros(*x.shape), x.detach()
    before = buffer + x
    buffer[:1].add_(x[:1])
    buffer.transpose(0, -1).add_(x.transpose(0, -1))
    before.reshape(-1).mul_(0.0)
    return buffer + before


def namespace(program, noise=0.0):
    names = {
        "written": written,
        "Tensor": Tensor,
        "minigrad": minigrad,
        "functional": functional,
        "cat": cat,
        "where": where,
        "no_grad": no_grad,
    }
    for number, (name, (shape, wants)) in enumerate(program.states.items()):
        names[name] = Tensor(moved(array(shape, program.seed, number), noise), requires_grad=wants)
    return names


def moved(a, noise):
    return (a * (1 + noise * array(a.shape, 99))).astype(np.float32)


def generate(seed, length):
    """A program of about so many lines."""
    rng = np.random.default_rng(seed)
    C = int(rng.choice([1, 3, 5, 8, 33]))
    shapes = [(*map(int, rng.choice([1, 2, 3, 5, 8, 70], rng.integers(1, 3))), C) for _ in range(2)]
    gradients = str(rng.choice(["none", "leave", "clear", "add", "add"]))
    kinds = ["plain", "plain", "transposed", "gaps", *["wanted"] * (gradients != "none")]
    program = Program(seed, tuple((s, str(rng.choice(kinds))) for s in shapes), gradients)
    names = {
        **namespace(program),
        **{n: argument(s, k, seed, 0) for n, (s, k) in zip("ab", program.arguments, strict=True)},
    }
    values = ["a", "b"]
    for _ in range(length * 4):
        name, line, states = _line(rng, program, names, values)
        grown = replace(program, lines=(*program.lines, line), states=states)
        scope = {**namespace(grown), **names}
        before = scope[name].data.copy() if name in states else None
        if _runs(line, scope, name):
            program, names = grown, scope
            values += [name] if name not in values else []
        elif name in names:
            names[name].data[...] = before
        if len(program.lines) == length:
            break
    text = "\n".join(program.lines)
    unread = [v for v in values if v[0] == "v" and len(re.findall(rf"\b{v}\b", text)) == 1]
    program = replace(program, results=tuple(unread[-6:] or ["a"]))
    try:
        run(program)
    except MinigradError:  # a line changes what backward needs
        program = replace(program, gradients="none")
    return program


def _line(rng, program, names, values):
    """A new line, the name of what it makes or changes, and the states with those that it wants."""
    template = str(rng.choice(FAMILIES[rng.integers(len(FAMILIES))]))
    # What came last is chosen more often: chains are what a compiler fuses.
    x, y = (values[-1 - min(int(rng.exponential(3)), len(values) - 1)] for _ in range(2))
    shape, states = names[x].shape, dict(program.states)
    i, j = (int(n) for n in rng.integers(-1, max(len(shape), 1), 2))
    parts = {"x": x, "y": y, "i": i, "j": j}
    for key, size in (("p", shape[-1:]), ("q", shape[-1:]), ("r", (4,)), ("W", (4, *shape[-1:]))):
        if "{" + key + "}" in template:
            parts[key] = f"p{len(states)}"
            states[parts[key]] = size, program.gradients != "none"
    if "{s}" not in template:
        name = f"v{len(program.lines)}"
        return name, f"{name} = {template.format(**parts)}", states
    found = [s for s in states if s[0] == "s"]
    name = str(rng.choice(found)) if found and rng.random() < 0.5 else f"s{len(states)}"
    states.setdefault(name, (shape, False))
    return name, f"with no_grad(): {template.format(s=name, **parts)}", states


def _runs(line, scope, name):
    """Whether a line does, and what it makes stays within bounds."""
    try:
        with np.errstate(all="ignore"):
            exec(line, scope)
    except (MinigradError, ValueError, IndexError, TypeError):
        return False
    made = scope[name]
    return (
        0 < made.data.size <= _SIZE
        and made.ndim < 5
        and made.dtype == np.float32
        and float(np.abs(made.data).max()) < _LARGEST
    )


def run(program, backend=None, noise=0.0):
    """For each call the results, gradients and states; with jit if there is a back end."""
    names = namespace(program, noise)
    exec(compile(str(program), f"<program {program.seed}>", "exec"), names)
    step = (
        names["step"]
        if backend is None
        else minigrad.jit(names["step"], backend=backend, threads=2 if backend == "c" else None)
    )
    with np.errstate(all="ignore"):
        return [_call(program, call, step, names, noise) for call in range(CALLS)]


def _call(program, call, step, names, noise):
    given = [argument(s, k, program.seed, call, n) for n, (s, k) in enumerate(program.arguments)]
    for t in given if noise else []:
        t.data[...] = moved(t.data, noise)
    found = {f"result {i}": t for i, t in enumerate(step(*given))}
    found |= {f"{n}.grad": t.grad for n, t in zip("ab", given, strict=True)} | {
        n: names[n] for n in program.states
    }
    found |= {f"{n}.grad": names[n].grad for n in program.states}
    return {n: None if t is None else np.array(t.data) for n, t in found.items()}


def differences(program, backend):
    """What a replay gives that eager does not; "refused: ..." where it says so; nothing where all
    is well.
    """
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            got = run(program, backend)
        except CaptureError as error:
            return f"refused: {error}"
        except Exception as error:
            return f"{type(error).__name__}: {error}"
    wanted = run(program)
    for warning in said:
        text = str(warning.message)
        if re.search("failed", text) or (
            "differs" in text
            and not any(_moves(program, call, n, w) > 1e-5 for call, n, w in _arrays(wanted))
        ):
            return text
    for call, (g, w) in enumerate(zip(got, wanted, strict=True)):
        scale = max(
            (float(np.abs(a).max(initial=0)) for a in w.values() if a is not None), default=0.0
        )
        for name in w:
            a, b = g[name], w[name]
            if (a is None) != (b is None) or (
                a is not None and (a.shape, a.dtype) != (b.shape, b.dtype)
            ):
                return (
                    f"call {call}: {name} is {a if a is None else a.shape}, not "
                    f"{b if b is None else b.shape}"
                )
            if a is None or np.array_equal(a, b, equal_nan=True):
                continue
            if backend == "numpy":
                return f"call {call}: {name} is not eager to the bit, by {np.abs(a - b).max()}"
            if not np.allclose(a, b, rtol=0, atol=256 * EPS * scale, equal_nan=True):
                apart = float(np.abs(a - b).max())
                if not apart <= 30 * _moves(program, call, name, b) * float(np.abs(b).max()):
                    return f"call {call}: {name} differs by {apart:.3g}"
    return ""


def _arrays(calls):
    return [
        (call, name, a)
        for call, found in enumerate(calls)
        for name, a in found.items()
        if a is not None
    ]


def _moves(program, call, name, wanted):
    """How far an array moves, relative to its largest number, when arguments and states move by a
    rounding: far where sums cancel, and at ties.
    """
    others = [run(program, noise=noise * EPS)[call][name] for noise in (4, -4, 12)]
    return max(float(np.abs(o - wanted).max(initial=0)) for o in others) / float(
        np.abs(wanted).max(initial=1e-30)
    )


def smaller(program, backend, deadline):
    """The program without what the difference does not need. deadline: () -> bool, whether time is
    up.
    """
    kind = differences(program, backend)[:8]
    change = True
    while change and not deadline():
        change = False
        for candidate in _candidates(program):
            if deadline():
                break
            try:
                same = differences(candidate, backend)[:8] == kind
            except Exception:  # it does not run eagerly
                continue
            if same:
                program, change = candidate, True
                break
    return replace(
        program,
        states={n: s for n, s in program.states.items() if re.search(rf"\b{n}\b", str(program))},
    )


def _candidates(program):
    for i in range(len(program.results)):
        if len(program.results) > 1:
            yield replace(program, results=program.results[:i] + program.results[i + 1 :])
    if program.gradients != "none":
        yield replace(program, gradients="none")
    for i, (shape, kind) in enumerate(program.arguments):
        if kind != "plain":
            yield replace(
                program,
                arguments=(*program.arguments[:i], (shape, "plain"), *program.arguments[i + 1 :]),
            )
    for i in reversed(range(len(program.lines))):
        rest = program.lines[:i], program.lines[i + 1 :]
        yield replace(program, lines=(*rest[0], *rest[1]))
        name, _, text = program.lines[i].partition(" = ")
        for other in dict.fromkeys(re.findall(r"\b[abvsp]\d*\b", text)):
            lines, results = (
                [re.sub(rf"\b{name}\b", other, x) for x in rest[1]],
                [re.sub(rf"\b{name}\b", other, r) for r in program.results],
            )
            yield replace(program, lines=(*rest[0], *lines), results=tuple(dict.fromkeys(results)))
