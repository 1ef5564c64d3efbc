"""`minigrad chat`: a conversation in the terminal, or through a pipe, one line per message."""

from __future__ import annotations

import argparse
import contextlib
import secrets
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

from minigrad.cli.arguments import Commands, number, one_line, path, unescaped, whole
from minigrad.cli.generate import add_sampling_options, sampling
from minigrad.cli.run_folder import load_model
from minigrad.errors import ConfigError, DataError, MinigradError
from minigrad.models import Conversation
from minigrad.text import Tokenizer
from minigrad.train import Interruption

DESCRIPTION = r"""Talk with a model. It goes on with a text, so what it sees is your messages put into a template, its answers between them:

  --template '{message}\n'                 (the default)  your line, then the model goes on, up to an empty line
  --template 'you: {message}\nbot: '       for a model trained on dialogues of that form; it stops where "\nyou:" would begin

Ctrl-C stops an answer, Ctrl-D or /quit ends the conversation. Every message is one line; in a conversation there are:
  /help   /reset   /retry   /save FILE   /temperature X   /quit"""

EXAMPLES = r"""
examples:
  minigrad chat --model runs/gpt
  minigrad chat --model runs/dialogues --template 'you: {message}\nbot: '
  printf 'hello\nhow are you\n' | minigrad chat --model runs/gpt --seed 1
"""

HELP = """\
/reset           begin anew: the model forgets all of it
/retry           take the last answer back and let the model answer again
/save FILE       write the conversation, as the model sees it, to a new file
/temperature X   below 1: more predictable; above 1: wilder; 0: always the likeliest
/quit, /exit     end, as Ctrl-D does
/help            this
Ctrl-C stops an answer."""


def add_to(commands: Commands) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "chat", help="talk with a trained model", description=DESCRIPTION, epilog=EXAMPLES
    )
    parser.add_argument(
        "--model",
        metavar="DIR",
        type=path,
        required=True,
        help="the folder of the run, or a .mgrd file from it",
    )
    parser.option(
        "--template",
        "TEXT",
        unescaped,
        None,
        "how a message is put before the model, with {message} for it, "
        r"\n for a line end (default: '{message}\n')",
    )
    parser.option("--tokens", "N", whole(1), 200, "the longest answer, in tokens")
    add_sampling_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Talk until the input ends."""
    model, tokenizer = load_model(options.model)
    options.template = checked_template(options.template, tokenizer)
    if options.stop is None:
        options.stop = [ending(options.template)]
    if sys.stdin is not None:
        sys.stdin.reconfigure(errors="replace")  # type: ignore[union-attr]
    seed = secrets.randbits(32) if options.seed is None else options.seed
    chat = Chat(Conversation(model, tokenizer, seed=seed), options)
    for line in messages():
        try:
            code = chat.react(line)
            if code is not None:
                return code
        except (MinigradError, OSError) as error:
            print(one_line(error), file=sys.stderr, flush=True)
    return 0


def checked_template(template: str | None, tokenizer: Tokenizer) -> str:
    """The template, or the default: the message in a line of its own, if the model knows line ends.
    Raises ConfigError, DataError.
    """
    if template is None:
        with contextlib.suppress(DataError):
            tokenizer.encode("\n")
            return "{message}\n"
        return "{message}"
    if template.count("{message}") != 1:
        problem = f"--template {template!r} must have {{message}} in it, once"
        hint = r"e.g. 'you: {message}\nbot: '"
        raise ConfigError("chat", problem, got=template, wanted="{message}", hint=hint)
    rest = template.replace("{message}", "")
    if rest:
        tokenizer.encode(rest)
    return template


def ending(template: str) -> str:
    """Where an answer ends: where the next message would begin, or at an empty line if a message
    has nothing before it.
    """
    return "\n" + (template.partition("{message}")[0].strip() or "\n")


def messages() -> Iterator[str]:
    """The lines of the input, without their ends; asked for one by one where the input is a
    terminal.
    """
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
    """A conversation, how it is led, and where the last answer began."""

    def __init__(self, talk: Conversation, options: argparse.Namespace) -> None:
        self.talk, self.options = talk, options
        self._answer_at, self._saved = 0, set[Path]()

    def react(self, line: str) -> int | None:
        """Answer a message or do what a command says; the exit code if it is time to go, else None."""
        name, _, rest = line.strip().partition(" ")
        if not name.startswith("/"):
            return self._say(line) if line.strip() else None
        if name in ("/quit", "/exit"):
            return 0
        if name == "/retry":
            return self._retry()
        if name == "/help":
            print(HELP)
        elif name == "/reset":
            self.talk.take_back(0)
            self._answer_at = 0
        elif name == "/save":
            self._save(rest.strip())
        elif name == "/temperature":
            self._set_temperature(rest.strip())
        else:
            raise ConfigError(
                "chat", f"there is no {name}", got=name, hint="/help shows what there is"
            )
        return None

    def _say(self, message: str) -> int | None:
        text = self.options.template.replace("{message}", message)
        if self.talk.tokens and not self.talk.text.endswith("\n") and "\n" in self.options.template:
            text = "\n" + text
        self.talk.add(text)
        self._answer_at = len(self.talk.tokens)
        return self._answer()

    def _retry(self) -> int | None:
        if not self._answer_at:
            raise ConfigError("chat", "there is no answer to take back", hint="say something first")
        self.talk.take_back(self._answer_at)
        return self._answer()

    def _answer(self) -> int | None:
        """Print the answer as it is made. The first signal ends it after a token, so that the
        caches stay whole.
        """
        answer = self.talk.answer(
            self.options.tokens, stop=self.options.stop, **sampling(self.options)
        )
        piece = ""
        with Interruption() as interruption, contextlib.closing(answer):
            for piece in answer:
                print(piece, end="", flush=True)
                if interruption:
                    break
        if not piece.endswith("\n"):
            print(flush=True)
        return interruption.exit_code if interruption.number == signal.SIGTERM else None

    def _save(self, name: str) -> None:
        if not name:
            raise ConfigError("chat", "/save needs the name of a file", hint="/save talk.txt")
        place = Path(name)
        if place.exists() and place not in self._saved:
            raise ConfigError("chat", f"{name} exists already", got=name, hint="name another file")
        place.write_text(self.talk.text, encoding="utf-8")
        self._saved.add(place)
        print(f"(saved in {name})")

    def _set_temperature(self, text: str) -> None:
        try:
            self.options.temperature = number(0)(text)
        except argparse.ArgumentTypeError as error:
            raise ConfigError(
                "chat", f"/temperature: {error}", got=text, hint="/temperature 0.5"
            ) from None
