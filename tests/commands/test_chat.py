"""`minigrad chat`, through a pipe and through a terminal."""

import fcntl
import os
import pty
import re
import select
import signal
import subprocess
import termios
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minigrad
from minigrad.cli.chat import OPTIONS, Chat
from minigrad.errors import ConfigError, IndexRangeError
from minigrad.models import GPT, Conversation, GPTConfig
from minigrad.text import CharTokenizer, Tokenizer
from minigrad.text.published import PublishedTokenizer
from tests.commands.home import ENVIRONMENT, command, good, refused, run

TEMPLATE = r"you: {message}\nbot: "
CHAT = ("chat", "--model", "bot", "--template", TEMPLATE, "--temperature", "0")


def test_messages_from_a_pipe_are_answered_line_by_line_up_to_where_the_next_message_would_begin(
    home: Path,
) -> None:
    assert (
        good(*CHAT, folder=home, given="hi\nhow are you\n\nbye\n") == "hello\nwell\nsee you soon\n"
    )


def test_compiled_answers_are_the_same(home: Path) -> None:
    given = "hi\nhow are you\n\nbye\n"
    assert good(*CHAT, "--jit", folder=home, given=given) == "hello\nwell\nsee you soon\n"


def test_without_a_template_the_model_goes_on_with_the_text_up_to_an_empty_line(home: Path) -> None:
    output = good(
        "chat", "--model", "bot", "--temperature", "0", folder=home, given="you: how are you\n"
    )
    assert output == "bot: well\nyou: bye\nbot: see you soon\n"


def test_commands_save_reset_retry_and_set_the_temperature(home: Path) -> None:
    (home / "talk.txt").unlink(missing_ok=True)
    given = "/temperature 0\nhi\n/retry\n/save talk.txt\n/reset\nbye\n/save talk.txt\n/help\n"
    output = good("chat", "--model", "bot", "--template", TEMPLATE, folder=home, given=given)
    assert output.startswith(
        "hello\nhello\n(saved in talk.txt)\nsee you soon\n(saved in talk.txt)\n/reset"
    )
    assert (home / "talk.txt").read_text() == "you: bye\nbot: see you soon\n"


def test_an_answer_of_nothing_is_a_line_with_a_word_on_stderr(home: Path) -> None:
    done = run(*CHAT, "--stop", "h", folder=home, given="hi\n")
    assert (done.returncode, done.stdout) == (0, "\n")
    assert done.stderr == "(an empty answer; /retry asks for another)\n"


@pytest.mark.parametrize("word", ["/quit", "/exit", " /quit ", "/exit now"])
def test_quit_and_exit_end_the_conversation(home: Path, word: str) -> None:
    assert good(*CHAT, folder=home, given=f"hi\n{word}\nhow are you\n") == "hello\n"


def test_the_ways_to_end_are_told_by_help(home: Path) -> None:
    assert "/quit" in good("chat", "--help", folder=home) and "/quit, /exit" in good(
        *CHAT, folder=home, given="/help\n"
    )


def test_the_conversation_is_one_text_in_the_models_form(home: Path) -> None:
    (home / "whole.txt").unlink(missing_ok=True)
    good(*CHAT, folder=home, given="hi\nhow are you\n/save whole.txt\n")
    assert (home / "whole.txt").read_text() == "you: hi\nbot: hello\nyou: how are you\nbot: well"


def test_a_mistake_in_a_conversation_costs_a_line_and_not_the_conversation(home: Path) -> None:
    (home / "there.txt").write_text("precious")
    given = (
        "hü\n/nonsense\n/retry\n/temperature -1\n/save\n/save there.txt\n/save "
        "no/such/folder.txt\nhi\n"
    )
    done = run(*CHAT, folder=home, given=given)
    assert (
        done.returncode == 0
        and done.stdout == "hello\n"
        and (home / "there.txt").read_text() == "precious"
    )
    said = done.stderr.splitlines()
    wanted = [
        "'ü'",
        "unknown command /nonsense",
        "no answer to take back",
        "'-1'",
        "name of a file",
        "there.txt exists",
        "No such file",
    ]
    assert len(said) == len(wanted) and all(
        word in line for word, line in zip(wanted, said, strict=True)
    ), said


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--template", "you: "), "must have {message}"),
        (("--template", "ü{message}"), "'ü'"),
        (("--template", ""), "empty text"),
        (("--model", "nowhere"), "nowhere"),
        (("--tokens", "0"), "--tokens"),
        (("--temperature", "-1"), "--temperature"),
        (("--cache", "c.bin"), "c.bin: the ending '.bin' is not that of a format"),
        (("--cache", "no/such/c.mgrd"), "there is no folder no/such"),
    ],
)
def test_bad_options_get_one_line(home: Path, options: tuple[str, ...], expected: str) -> None:
    assert expected in refused("chat", "--model", "bot", *options, folder=home)


# --- what is said twice, and what cannot be said


class Counting(GPT):
    """A GPT that knows how many positions it has computed."""

    positions = 0

    def forward(self, tokens: Any, **rest: Any) -> Any:
        self.positions += np.size(tokens)
        return super().forward(tokens, **rest)


def chat(tokenizer: Tokenizer, template: str | None, vocab_size: int) -> tuple[Chat, Counting]:
    minigrad.manual_seed(0)
    model = Counting(GPTConfig(vocab_size, block_size=256, n_layer=2, n_head=2, n_embd=16))
    options = {option.name: option.default for option in OPTIONS}
    options |= {"template": template, "tokens": 5, "stop": [], "temperature": 0}
    return Chat(Conversation(model, tokenizer), Namespace(**options)), model


def test_a_message_that_the_model_cannot_take_is_taken_back(capsys: Any) -> None:
    talk, _ = chat(CharTokenizer("abcdef"), "{message}", vocab_size=5)  # it has no f
    talk.react("abc")
    held = talk.talk.tokens[:]
    for _ in range(2):
        with pytest.raises(IndexRangeError, match="5 is outside"):
            talk.react("fa")
        assert talk.talk.tokens == held
    talk.react("/retry")
    assert talk.talk.tokens == held
    talk.react("ed")
    said = capsys.readouterr().out.splitlines()
    assert talk.talk.text == f"abc{said[0]}ed{said[-1]}"


def of_llama(template: str) -> PublishedTokenizer:
    """A tokenizer that puts a space before a text and after special tokens."""
    for package in ("tokenizers", "jinja2"):
        pytest.importorskip(package)
    from tests.text.test_published_tokenizer import sentence_piece

    made = sentence_piece()
    made.template = template
    return made


IN_TURN = "{% for m in messages %}<s>[{{ m.role }}] {{ m.content }}</s>{% endfor %}<s>"


def test_a_turn_by_the_models_template_is_all_that_is_computed(capsys: Any) -> None:
    tokenizer = of_llama(IN_TURN)
    talk, model = chat(tokenizer, None, tokenizer.vocab_size)
    computed = []
    for _ in range(4):
        model.positions = 0
        talk.react("ab ab")
        computed.append(model.positions)
    assert computed[1] == computed[2] == computed[3] < len(talk.talk.tokens) / 2
    said = capsys.readouterr().out.splitlines()
    messages = [{"role": "user", "content": "ab ab"}]
    fresh, _ = chat(tokenizer, None, tokenizer.vocab_size)
    fresh.talk.add(tokenizer.chat(messages))
    assert "".join(fresh.talk.answer(5, temperature=0)) == said[0]


def test_a_message_that_the_template_refuses_is_taken_back(capsys: Any) -> None:
    bad = "{% if messages[-1].content == 'b' %}{{ raise_exception('no b') }}{% endif %}"
    talk, model = chat(tokenizer := of_llama(bad + IN_TURN), None, tokenizer.vocab_size)
    plain, same = chat(tokenizer, None, tokenizer.vocab_size)
    for message in ("a", "b", "b", "ab"):
        if message == "b":
            with pytest.raises(ConfigError, match="no b"):
                talk.react(message)
        else:
            talk.react(message)
            plain.react(message)
    assert talk.talk.tokens == plain.talk.tokens and model.positions == same.positions
    talk.react("/retry")
    assert talk.talk.tokens == plain.talk.tokens


class Terminal:
    """`minigrad chat` in a terminal."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.leader, follower = pty.openpty()
        self.process = subprocess.Popen(
            command(*CHAT, *options),
            stdin=follower,
            stdout=follower,
            stderr=follower,
            env=ENVIRONMENT,
            cwd=folder,
            preexec_fn=self._own_terminal,
        )
        os.close(follower)
        self.seen, self.rest = "", ""

    @staticmethod
    def _own_terminal() -> None:
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    def until(self, pattern: str, again: str = "") -> None:
        """Read until the output after what the last call was satisfied with matches; `again` is
        typed while nothing comes.
        """
        end = time.monotonic() + 300
        while not (found := re.search(pattern, self.rest)):
            assert time.monotonic() < end, (pattern, self.seen, self.rest)
            if select.select([self.leader], [], [], 0.5)[0]:
                self.rest += os.read(self.leader, 65536).decode()
            else:
                self.type(again)
        self.seen, self.rest = self.seen + self.rest[: found.end()], self.rest[found.end() :]

    def type(self, text: str) -> None:
        os.write(self.leader, text.encode())


def test_in_a_terminal_ctrl_c_stops_the_answer_and_ctrl_d_ends(home: Path) -> None:
    terminal = Terminal(home, "--tokens", "1000000", "--stop", "never")
    terminal.until(r"Ctrl-D ends\)\s+.*> ")
    terminal.type("hi\n")
    terminal.until(r"hello")
    terminal.type("\x03")
    terminal.until(r"> ")
    # Python's readline overlooks a signal in the moment between its prompt and its first look at
    # the keyboard.
    terminal.until(r"\(/quit or Ctrl-D ends\)\s+.*> ", again="\x03")
    terminal.type("/reset\n")
    terminal.until(r"> ")
    terminal.type("\x04")
    assert terminal.process.wait(30) == 0
    assert "Traceback" not in terminal.seen
    os.close(terminal.leader)


def test_sigterm_ends_an_answer_and_the_conversation(home: Path) -> None:
    call = command(*CHAT, "--tokens", "1000000", "--stop", "never")
    with subprocess.Popen(
        call,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=ENVIRONMENT,
        cwd=home,
    ) as process:
        assert process.stdin and process.stdout and process.stderr
        process.stdin.write(b"hi\n")
        process.stdin.flush()
        assert process.stdout.read(5) == b"hello"
        process.send_signal(signal.SIGTERM)
        process.stdin.close()
        process.stdout.read()
        assert process.wait(30) == 128 + signal.SIGTERM and process.stderr.read() == b""


def test_a_closed_input_is_the_end_of_it(home: Path) -> None:
    shell = ["sh", "-c", 'exec "$@" <&-', "sh", *command(*CHAT)]
    done = subprocess.run(shell, capture_output=True, env=ENVIRONMENT, cwd=home, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_a_cache_file_is_written_at_the_end_and_read_the_next_time(home: Path) -> None:
    file = home / "talk.mgrd"
    file.unlink(missing_ok=True)
    given = "hi\nhow are you\n"
    assert good(*CHAT, "--cache", "talk.mgrd", folder=home, given="\n") == ""
    assert not file.exists()
    for _ in range(2):
        output = good(*CHAT, "--cache", "talk.mgrd", folder=home, given=given)
        assert output == "hello\nwell\n"
        assert "tokens" in minigrad.load(file)
    held = minigrad.load(file)
    minigrad.save(file, {**held, "tokens": held["tokens"][::-1].copy()})
    for _ in range(2):  # whatever is said, another model's file stays as it is
        before = file.read_bytes()
        said = refused(*CHAT, "--cache", "talk.mgrd", folder=home)
        assert "talk.mgrd" in said and file.read_bytes() == before
        file.write_bytes(before[:-9])


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_cache_file_is_written_when_a_signal_comes_between_two_messages(
    home: Path, number: int, code: int
) -> None:
    file = home / "stopped.mgrd"
    file.unlink(missing_ok=True)
    words = command(*CHAT, "--cache", "stopped.mgrd")
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=ENVIRONMENT, cwd=home
    ) as talk:
        assert talk.stdin is not None and talk.stdout is not None
        talk.stdin.write(b"hi\n")
        talk.stdin.flush()
        assert talk.stdout.readline() == b"hello\n"
        talk.send_signal(number)
        assert talk.wait(60) == code
    assert "tokens" in minigrad.load(file)
