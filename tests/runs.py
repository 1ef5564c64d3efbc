"""A small run that several test files start from."""

TEXT = "It was the best of times, it was the worst of times, naïve as we were.\n" * 40
SMALL = [
    *("train", "--text", "text.txt", "--n-layer", "1", "--n-head", "2", "--n-embd", "16"),
    *("--block-size", "16", "--batch-size", "4", "--eval-interval", "10", "--sample", "0"),
    *("--dropout", "0.2", "--seed", "5"),
]
