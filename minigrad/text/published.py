"""Tokenizers of published models: from the vocabulary of a GGUF file, or from a folder with a
tokenizer.json; with their special tokens and their chat template. By the optional `tokenizers` and
`jinja2` libraries.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from minigrad.dtypes import Array
from minigrad.errors import ConfigError, FormatError, needs
from minigrad.files.header import shortened
from minigrad.text.base import encoding, well_formed
from minigrad.text.library import TokenizerFile, library

if TYPE_CHECKING:
    from typing_extensions import Self

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s"
_WORDS += r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA_3 = ("llama-bpe", "llama3", "llama-v3")
# The patterns by which the text is cut before merging, one after the other, by the name that a GGUF
# file gives them.
_CUTS = {
    **dict.fromkeys(("gpt-2", "phi-2"), (_GPT2,)),
    "default": (r"[\p{P}$+<=>^~|]+", _GPT2, r"\p{N}+", "[0-9]{3}"),  # llama.cpp's, without a name
    **dict.fromkeys(("smollm", "starcoder", "refact", "command-r", "codeshell"), (r"\p{N}", _GPT2)),
    **dict.fromkeys(_LLAMA_3, (_WORDS % r"\p{N}{1,3}",)),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen"), (_WORDS % r"\p{N}",)),
}
# Control tokens that end an answer, as in llama.cpp, whatever eos is.
_ENDS = re.compile(r"<\|(eot_id|eom_id|im_end|end|endoftext|end_of_text)\|>|<end_of_turn>")
_CALL = "models.load"
_UNKNOWN, _CONTROL, _USER = 2, 3, 4  # types of tokens in a GGUF file
_SPACE = "▁"
_GENERATION = re.compile(r"(\{%[-+]?\s*)(end)?generation(\s*[-+]?%\})")


class PublishedTokenizer(TokenizerFile):
    """The tokenizer of a published model. Special tokens in a text are recognised.

    content: a tokenizer of the `tokenizers` library, or the text of a tokenizer.json.   bos, eos:
        the special tokens that begin a text and end an answer; eos may be several.   template: the
        chat template for jinja2, None without one.
    first: True if a text begins with bos.   special: True if the library puts its own special
        tokens around a text, as BERT's does.   names: those of special tokens in a template, such
        as {"pad_token": "<pad>"}; bos_token and eos_token need not be among them.
    """

    kind = "published"
    fields = ("content", "bos", "eos", "template", "first", "special", "names")

    def __init__(
        self,
        content: Any,
        *,
        bos: str | None = None,
        eos: Iterable[str | None] = (),
        template: str | None = None,
        first: bool = False,
        special: bool = False,
        names: Mapping[str, str] | None = None,
    ) -> None:
        made = hasattr(content, "to_str")
        self._tokenizer = content if made else TokenizerFile(content)._tokenizer
        # An empty text would end any answer at once
        self.bos, self.eos = bos or None, tuple(text for text in dict.fromkeys(eos) if text)
        self.template, self.first, self.special = template, first and bool(bos), special
        own = {"bos_token": self.bos, "eos_token": next(iter(self.eos), None), **(names or {})}
        self.names = {name: text for name, text in own.items() if text}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Return the tokenizer whose `state()` this is, also one of before it had `names`."""
        return super().from_state({"names": None, **state})

    @property
    def content(self) -> str:  # type: ignore[override]
        """The tokenizer.json of this tokenizer."""
        return str(self._tokenizer.to_str())

    def rows(self, added: bool = True) -> int:
        """Return how many rows of an embedding the tokens need: the largest token + 1.

        added: count those too that were added to the vocabulary.
        """
        return 1 + max(self._tokenizer.get_vocab(added).values(), default=-1)

    def encode_prompt(self, text: str) -> Array:
        """Return the tokens of a whole text: with the special tokens that the model expects. There
        is one bos where the text has it already, as that of a chat template may.
        """
        text = well_formed(text, "encode_prompt")
        if self.special:
            with encoding("encode_prompt"):
                tokens = self._tokenizer.encode(text).ids
            doubled = tokens[:2] == [self._tokenizer.token_to_id(self.bos or "")] * 2
            return np.asarray(tokens[doubled:], np.int32)
        begun = not self.first or self.bos is None or text.startswith(self.bos)
        return self.encode(text if begun else f"{self.bos}{text}")

    def encode_sentences(self, texts: Sequence[str], longest: int) -> list[Array]:
        """Return the tokens of whole texts, each cut to `longest` tokens."""
        clean = [well_formed(text, "encode_sentences") for text in texts]
        # The library's own truncation is a setting, which other threads would see
        with encoding("encode_sentences"):
            rows = self._tokenizer.encode_batch(clean, add_special_tokens=False)
            room = max(longest - self._tokenizer.num_special_tokens_to_add(False), 0)
            for row in rows:
                row.truncate(room)
            return [np.asarray(self._tokenizer.post_process(row).ids, np.int32) for row in rows]

    def chat(
        self, messages: Iterable[Mapping[str, Any]], *, answer: bool = True, **variables: Any
    ) -> str:
        """Return a conversation as the model expects it: the file's template gives the text that
        transformers' `apply_chat_template` does.

        messages: dicts of "role" ("system", "user", "assistant") and "content".   answer: end where
            the model's answer begins.   variables: what else the template takes, such as
            enable_thinking=False for Qwen 3, or tools=[...].
        The template runs in jinja2's sandbox. Raises ConfigError if there is none, if it has no
        such variable, or if it refuses.
        """
        if self.template is None:
            raise ConfigError("chat", "the model has no chat template", hint="give --template")
        for name in variables:
            if not re.search(rf"\b{re.escape(name)}\b", self.template):
                raise ConfigError("chat", f"the model's chat template reads no {name!r}", got=name)
        turns = [*messages]
        if bad := [turn for turn in turns if not isinstance(turn, Mapping)]:
            problem = f"a message must be a dict with role and content, got {shortened(bad[0])}"
            raise ConfigError("chat", problem, got=bad[0])
        # As in transformers, None is as good as absent
        turns = [{key: x for key, x in turn.items() if x is not None} for turn in turns]
        values: dict[str, Any] = {"tools": None, "documents": None, **self.names}
        values |= {"messages": turns, "add_generation_prompt": answer, **variables}
        # As in transformers, a block that marks what the model wrote is a scope
        template = _GENERATION.sub(r"\1\2with\3", self.template)
        sandbox = _sandbox()
        try:
            return str(sandbox.from_string(template).render(values))
        except Exception as error:  # a template may do anything, and is not ours
            problem = f"the model's chat template fails: {error}"
            raise ConfigError("chat", problem, got=self.template[:200]) from None


def _sandbox() -> Any:
    """What jinja2 renders a chat template in, with the functions that transformers gives it."""
    with needs("chat", "templates need jinja2", "'minigrad[models]'"):
        from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(problem: str) -> None:
        raise ValueError(problem)

    def to_json(value: Any, ensure_ascii: bool = False, **layout: Any) -> str:
        # A template must not give `default`, which is called without the checks of its calls
        return json.JSONEncoder(ensure_ascii=ensure_ascii, default=None, **layout).encode(value)

    sandbox = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    sandbox.add_extension("jinja2.ext.loopcontrols")
    sandbox.filters["tojson"] = to_json
    sandbox.globals["raise_exception"] = refuse
    sandbox.globals["strftime_now"] = lambda layout: datetime.now().strftime(layout)
    return sandbox


def tokenizer_of_gguf(meta: Mapping[str, Any]) -> PublishedTokenizer:
    """Return the tokenizer that the meta of a GGUF file describes: byte-level BPE ("gpt2") or
    SentencePiece's BPE with byte fallback ("llama").

    Raises FormatError for damaged meta or another kind, MissingDependencyError without the
    `tokenizers` library.
    """
    own: dict[str, Any] = {k.removeprefix("tokenizer.ggml."): v for k, v in meta.items()}
    pieces, types, kind = own.get("tokens", []), own.get("token_type", []), own.get("model", "")
    check(isinstance(pieces, list) and pieces, "vocabulary", "the file has no vocabulary")
    makers = {"gpt2": _byte_level, "llama": _sentence_piece}
    supported("tokenizers of the kind", kind, makers)
    problem = f"{len(types)} types for {len(pieces)} tokens"
    check(len(types) in (0, len(pieces)), "vocabulary", problem)
    tokenizer, added = makers[kind](library(_CALL), own, pieces), library(_CALL).AddedToken
    for n, special in ((_CONTROL, True), (_USER, False)):
        tokenizer.add_tokens([added(p, special=special, normalized=False) for p in _typed(own, n)])

    def piece(number: Any) -> str | None:
        return pieces[number] if type(number) is int and 0 <= number < len(pieces) else None

    numbers = [own.get(f"{name}_token_id") for name in ("bos", "eos", "eot", "eom")]
    bos, *eos = map(piece, [*numbers, *np.ravel(own.get("eos_token_ids", [])).tolist()])
    eos += [text for text in _typed(own, _CONTROL) if _ENDS.fullmatch(text)]
    named = {"unk_token": "unknown_token_id", "pad_token": "padding_token_id"}
    options: Any = {"names": {name: piece(own.get(key)) for name, key in named.items()}}
    options["template"] = _text(own.get("tokenizer.chat_template"))
    first = own.get("add_bos_token", kind == "llama" or own.get("pre") in _LLAMA_3) is True
    return PublishedTokenizer(tokenizer, bos=bos, eos=eos, first=first, **options)


def check(good: Any, code: str, problem: str, got: Any = None, wanted: Any = None) -> None:
    """Raise FormatError unless good."""
    if not good:
        raise FormatError(_CALL, problem, code=code, got=got, wanted=wanted)


def supported(what: str, got: Any, wanted: Collection[Any]) -> None:
    """Raise FormatError for files with a setting `got` that is not one of those wanted."""
    problem = f"{what} {shortened(got)} are not supported"
    good = not isinstance(got, np.ndarray) and got in [*wanted]
    check(good, "unsupported", problem, got, [*wanted])


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _typed(own: Mapping[str, Any], number: int) -> list[str]:
    """The tokens of a type."""
    return [own["tokens"][i] for i in np.flatnonzero(np.asarray(own.get("token_type")) == number)]


def _byte_level(library: Any, own: Mapping[str, Any], pieces: list[str]) -> Any:
    """Byte-level BPE, as GPT-2's, with the merges of the file and its way to cut the text."""
    cut, merges = own.get("pre", "default"), own.get("merges", "")
    supported("tokenizers that cut a text before merging in the way", cut, _CUTS)
    check(isinstance(merges, list), "vocabulary", "the file has no merges")
    pairs = [tuple(pair.split(" ")) for pair in merges]
    tokenizer = _bpe(library, pieces, pairs, ignore_merges=cut in _LLAMA_3)
    pre, level = library.pre_tokenizers, library.pre_tokenizers.ByteLevel(False, use_regex=False)
    cutters = [pre.Split(library.Regex(pattern), "isolated") for pattern in _CUTS[cut]]
    tokenizer.pre_tokenizer = pre.Sequence([*cutters, level])
    tokenizer.decoder = library.decoders.ByteLevel()
    if "qwen" in cut:
        tokenizer.normalizer = library.normalizers.NFC()
    return tokenizer


def _sentence_piece(library: Any, own: Mapping[str, Any], pieces: list[str]) -> Any:
    """SentencePiece's BPE: of two neighbours, those are merged first whose piece has the highest
    score; what is in no piece becomes bytes.
    """
    scores, known = own.get("scores", []), set(pieces)
    check(len(scores) == len(pieces), "vocabulary", "the file has no score for each token")
    merges = [
        (piece[:at], piece[at:])
        for _, piece in sorted(zip(scores, pieces, strict=True), key=lambda pair: -pair[0])
        for at in range(1, min(len(piece), 64))
        if piece[:at] in known and piece[at:] in known
    ]
    unknown = next(iter(_typed(own, _UNKNOWN)), None)
    tokenizer = _bpe(library, pieces, merges, byte_fallback=True, fuse_unk=True, unk_token=unknown)
    normal, undo, prefix = library.normalizers, library.decoders, own.get("add_space_prefix", True)
    begin = [normal.Prepend(_SPACE)] if prefix else []
    tokenizer.normalizer = normal.Sequence([*begin, normal.Replace(" ", _SPACE)])
    end = undo.Strip(" ", len(begin), 0)
    steps = [undo.Replace(_SPACE, " "), undo.ByteFallback(), undo.Fuse(), end]
    tokenizer.decoder = undo.Sequence(steps)
    return tokenizer


def _bpe(library: Any, pieces: list[str], merges: list[Any], **options: Any) -> Any:
    numbers = {piece: i for i, piece in enumerate(pieces)}
    check(len(numbers) == len(pieces), "vocabulary", "a token is there twice")
    try:
        return library.Tokenizer(library.models.BPE(numbers, merges, **options))
    except Exception as error:  # the library raises nothing more particular
        check(False, "vocabulary", f"the merges do not fit the vocabulary: {error}")


def tokenizer_of_folder(folder: Path) -> PublishedTokenizer:
    """Return the tokenizer of a model's folder: tokenizer.json, with tokenizer_config.json,
    special_tokens_map.json, chat_template.jinja and the end tokens of generation_config.json where
    they are there. Raises DataError or FormatError for other contents.
    """
    tokenizer = TokenizerFile.read(folder / "tokenizer.json")._tokenizer
    tokenizer.no_truncation()
    tokenizer.no_padding()
    config = read_json(folder / "tokenizer_config.json", optional=True)
    if "added_tokens_decoder" in config:
        _add_tokens(tokenizer, config["added_tokens_decoder"])
    else:
        config |= read_json(folder / "special_tokens_map.json", optional=True)

    def text(found: Any) -> str | None:
        return _text(found.get("content") if isinstance(found, dict) else found)

    names = {name: text(found) for name, found in config.items() if name.endswith("_token")}
    made = read_json(folder / "generation_config.json", optional=True)
    ends = (made or read_json(folder / "config.json", optional=True)).get("eos_token_id")
    numbers = [n for n in (ends if isinstance(ends, list) else [ends]) if type(n) is int]
    texts = (tokenizer.decode([n], skip_special_tokens=False) for n in numbers)
    eos = [names.get("eos_token"), *(text for text in texts if "\ufffd" not in text)]
    first, special = config.get("add_bos_token") is True, tokenizer.num_special_tokens_to_add(False)
    options: Any = {"first": first, "special": special > 0, "names": names}
    options |= {"bos": names.get("bos_token"), "template": _template(folder, config)}
    return PublishedTokenizer(tokenizer, eos=eos, **options)


def _template(folder: Path, config: Mapping[str, Any]) -> str | None:
    """The chat template in a folder: of several, the one named default."""
    written, found = folder / "chat_template.jinja", config.get("chat_template")
    if written.is_file():
        return written.read_text("utf-8")
    if isinstance(found, list):
        named = [each for each in found if isinstance(each, dict) and each.get("name") == "default"]
        found = named[0].get("template") if named else None
    return _text(found)


def _add_tokens(tokenizer: Any, tokens: Any) -> None:
    """Add the tokens of a tokenizer_config.json; it decides how tokens that are there already take
    the space around them.
    """
    added = library(_CALL).AddedToken
    try:
        tokenizer.add_tokens([added(**tokens[number]) for number in sorted(tokens, key=int)])
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        check(False, "vocabulary", f"added_tokens_decoder is damaged: {error}", tokens)


def read_json(path: Path, kind: type = dict, optional: bool = False) -> Any:
    """Return what is in a JSON file, a dict or a list; an empty one if it is optional and not
    there. Raises FormatError for another content, and for more than 16 MB.
    """
    if optional and not path.is_file():
        return kind()
    size, found = path.stat().st_size, None
    with contextlib.suppress(ValueError, RecursionError):
        found = json.loads(path.read_text(encoding="utf-8")) if size <= 16 << 20 else None
    problem = f"{path} is not a JSON {kind.__name__} of at most 16 MB"
    check(isinstance(found, kind), "json", problem, size, kind)
    return found
