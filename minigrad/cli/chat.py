r"""Talk with a model. It continues a text, so it sees your messages in a template,
with its answers between them:

  --template '{message}\n'             (the default) your line, then the model's, to an empty line
  --template 'you: {message}\nbot: '   for a model trained on such dialogues; it stops where
                                       "\nyou:" would begin

A published model brings its own template.

Ctrl-C stops an answer, Ctrl-D or /quit ends the conversation. Every message is one line;
the commands are:
  /help   /reset   /retry   /save FILE   /temperature X   /quit

examples:
  minigrad chat --model runs/gpt
  minigrad chat --model runs/dialogues --template 'you: {message}\nbot: '
  printf 'hello\nhow are you\n' | minigrad chat --model runs/gpt --seed 1
"""

from __future__ import annotations

import contextlib
import secrets
import signal
import sys
from argparse import ArgumentTypeError, Namespace
from collections.abc import Iterator
from pathlib import Path

from minigrad.cli.generate import SAMPLING, plain_warnings, sampling, warn_of_length
from minigrad.cli.options import (
    ESCAPED,
    FILE,
    SWITCH,
    Command,
    Option,
    number,
    one_line,
    refuse,
    whole,
)
from minigrad.cli.run_folder import LOADED, load_asked
from minigrad.errors import DataError, MinigradError
from minigrad.files.formats import savable_ending
from minigrad.models import Conversation
from minigrad.text import Tokenizer
from minigrad.text.published import PublishedTokenizer
from minigrad.train import Interruption

HELP = """\
/reset           start again: the model forgets everything
/retry           take the last answer back and let the model answer again
/save FILE       write the conversation, as the model sees it, to a new file
/temperature X   below 1: more predictable; above 1: wilder; 0: always the likeliest
/quit, /exit     end, as Ctrl-D does
/help            this
Ctrl-C stops an answer."""

OPTIONS = (
    *LOADED,
    Option("template", ESCAPED, None, r"what the model sees (default: '{message}\n')"),
    Option("tokens", whole(1), 200, "the longest answer, in tokens"),
    Option("cache", FILE, None, "a .mgrd file that keeps what was computed, for the next time"),
    Option("jit", SWITCH, False, "compile the model to C, for long answers (default: do not)"),
    *SAMPLING,
)


def run(options: Namespace) -> int:
    """Talk until the input ends."""
    if options.cache is not None:
        savable_ending("chat", options.cache)
        if not (folder := Path(options.cache).parent).is_dir():
            refuse("chat", f"--cache: there is no folder {folder}", "make it, or name another")
    model, tokenizer = load_asked(options)
    own = isinstance(tokenizer, PublishedTokenizer) and tokenizer.template is not None
    if not own or options.template is not None:
        options.template = checked_template(options.template, tokenizer)
    if options.stop is None:
        options.stop = [] if options.template is None else [ending(options.template)]
    if sys.stdin is not None:
        sys.stdin.reconfigure(errors="replace")  # type: ignore[union-attr]
    seed = secrets.randbits(32) if options.seed is None else options.seed
    talk = Conversation(model, tokenizer, seed=seed)
    if options.cache is not None and Path(options.cache).exists():
        talk.load_cache(options.cache)
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        return conversation(Chat(talk, options))
    finally:  # Ctrl-C among the ways to end
        signal.signal(signal.SIGTERM, before)
        if options.cache is not None and talk.seen:
            talk.save_cache(options.cache)


def conversation(chat: Chat) -> int:
    """React to every line of the input; return the exit code."""
    for line in messages():
        try:
            code = chat.react(line)
            if code is not None:
                return code
        except (MinigradError, OSError) as error:
            print(one_line(error), file=sys.stderr, flush=True)
    return 0


def checked_template(template: str | None, tokenizer: Tokenizer) -> str:
    """Return the template; by default the message in a line of its own, if the model knows line
    ends. Raises ConfigError, DataError.
    """
    if template is None:
        with contextlib.suppress(DataError):
            tokenizer.encode("\n")
            return "{message}\n"
        return "{message}"
    if template.count("{message}") != 1:
        problem = f"--template {template!r} must have {{message}} in it, once"
        refuse("chat", problem, r"for example 'you: {message}\nbot: '")
    if rest := template.replace("{message}", ""):
        tokenizer.encode(rest)
    return template


def ending(template: str) -> str:
    """Return where an answer ends: where the next message would begin, or at an empty line if a
    message has nothing before it.
    """
    return "\n" + (template.partition("{message}")[0].strip() or "\n")


def messages() -> Iterator[str]:
    """Yield the lines of the input without their ends; a terminal gets a prompt for each."""
    if sys.stdin is None:  # closed by the caller (`<&-`): the end of the input
        return
    if not sys.stdin.isatty():
        yield from (line.rstrip("\r\n") for line in sys.stdin)
        return
    with contextlib.suppress(ImportError):  # editing and a history of lines, where Python has it
        import readline  # noqa: F401
    print("(/help shows the commands, /quit or Ctrl-D ends)")
    while True:
        try:
            yield input("> ")
        except KeyboardInterrupt:
            print("  (/quit or Ctrl-D ends)")
        except EOFError:
            print()
            return


class Chat:
    """A conversation, its options, and where the last answer began."""

    def __init__(self, talk: Conversation, options: Namespace) -> None:
        self.talk, self.options = talk, options
        self._answer_at, self._saved = 0, set[Path]()
        self._messages: list[dict[str, str]] = []  # where the model has a chat template of its own

    def react(self, line: str) -> int | None:
        """Answer a message or run a command; return the exit code if it ends the conversation."""
        name, _, rest = line.strip().partition(" ")
        rest = rest.strip()
        if not name.startswith("/"):
            return self._say(line) if name else None
        if name in ("/quit", "/exit"):
            return 0
        if name == "/retry":
            return self._retry()
        if name == "/help":
            print(HELP)
        elif name == "/reset":
            self.talk.take_back(0)
            self._answer_at, self._messages = 0, []
        elif name == "/save":
            self._save(rest)
        elif name == "/temperature":
            try:
                self.options.temperature = number(0).parse(rest)
            except ArgumentTypeError as error:
                refuse("chat", f"/temperature: {error}", "/temperature 0.5")
        else:
            refuse("chat", f"unknown command {name}", "/help lists the commands")
        return None

    def _say(self, message: str) -> int | None:
        """Add a message and answer it. A message that cannot be answered is taken back."""
        before = self.talk.tokens[:], self._messages[:], self._answer_at
        try:
            if self.options.template is None:
                self._say_in_turn(message)
            else:
                self._say_by_template(message)
            self._answer_at = len(self.talk.tokens)
            warn_of_length("chat", self._answer_at - len(before[0]), self.talk.model)
            return self._answer()
        except MinigradError:
            tokens, self._messages, self._answer_at = before
            self.talk.rewrite(tokens)
            raise

    def _say_by_template(self, message: str) -> None:
        text = self.options.template.replace("{message}", message)
        if self.talk.tokens and not self.talk.text.endswith("\n") and "\n" in self.options.template:
            text = "\n" + text
        self.talk.add(text)

    def _say_in_turn(self, message: str) -> None:
        """Add a message by the model's own template. What the model has computed is kept up to
        where the template now says something else: compared are tokens, since the text of some
        special tokens has spaces around them that are not encoded again.
        """
        tokenizer = self.talk.tokenizer
        assert isinstance(tokenizer, PublishedTokenizer)
        if self._messages:
            answer = tokenizer.decode(self.talk.tokens[self._answer_at :])
            self._messages.append({"role": "assistant", "content": answer})
        self._messages.append({"role": "user", "content": message})
        tokens = tokenizer.encode_prompt(tokenizer.chat(self._messages))
        self.talk.rewrite(tokens.tolist())

    def _retry(self) -> int | None:
        if not self._answer_at:
            refuse("chat", "there is no answer to take back", "say something first")
        self.talk.take_back(self._answer_at)
        return self._answer()

    @plain_warnings("chat")
    def _answer(self) -> int | None:
        """Print the answer as it is made. The first signal ends it after a token, so that the
        caches stay whole.
        """
        how = {**sampling(self.options), "stop": self.options.stop, "jit": self.options.jit}
        answer = self.talk.answer(self.options.tokens, **how)
        piece, empty = "", True
        with Interruption() as interruption, contextlib.closing(answer):
            for piece in answer:
                print(piece, end="", flush=True)
                empty = empty and not piece.strip()
                if interruption:
                    break
        if not piece.endswith("\n"):
            print(flush=True)
        if empty and not interruption:
            print("(an empty answer; /retry asks for another)", file=sys.stderr, flush=True)
        return None if interruption.number in (0, signal.SIGINT) else interruption.exit_code

    def _save(self, name: str) -> None:
        if not name:
            refuse("chat", "/save needs the name of a file", "/save talk.txt")
        place = Path(name)
        if place.exists() and place not in self._saved:
            refuse("chat", f"{name} exists already", "name another file")
        place.write_text(self.talk.text, encoding="utf-8")
        self._saved.add(place)
        print(f"(saved in {name})")


COMMAND = Command("chat", OPTIONS, run, "talk with a trained model", __doc__)
