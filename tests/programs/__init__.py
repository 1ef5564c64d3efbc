"""Eight programs as a PyTorch user writes them by heart: `torch` is minigrad's name here."""
