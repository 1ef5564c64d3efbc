"""A character LSTM that carries its state from piece to piece of a text."""

import minigrad as torch
from minigrad import nn

TEXT = "she sells sea shells on the sea shore. " * 30


class CharLSTM(nn.Module):
    def __init__(self, vocab_size, hidden_size=48, num_layers=1):
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, 16)
        self.lstm = nn.LSTM(16, hidden_size, num_layers, batch_first=True)
        self.fc = nn.Linear(hidden_size, vocab_size)

    def forward(self, x, hidden=None):
        out, hidden = self.lstm(self.embedding(x), hidden)
        return self.fc(out), hidden


def main():
    torch.manual_seed(0)
    chars = sorted(set(TEXT))
    char_to_ix = {c: i for i, c in enumerate(chars)}
    data = torch.tensor([char_to_ix[c] for c in TEXT])
    model = CharLSTM(len(chars))
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    seq_len, losses = 25, []
    for epoch in range(4):
        hidden = None
        for i in range(0, len(data) - seq_len - 1, seq_len):
            x = data[i : i + seq_len].unsqueeze(0)
            y = data[i + 1 : i + seq_len + 1].unsqueeze(0)
            if hidden is not None:
                hidden = tuple(h.detach() for h in hidden)
            optimizer.zero_grad()
            output, hidden = model(x, hidden)
            loss = criterion(output.view(-1, len(chars)), y.view(-1))
            loss.backward()
            torch.optim.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
            losses.append(loss.item())

    model.eval()
    with torch.no_grad():
        x, hidden, text = torch.tensor([[char_to_ix["s"]]]), None, "s"
        for _ in range(40):
            output, hidden = model(x, hidden)
            probs = torch.softmax(output[0, -1] / 0.3, dim=0)
            ix = torch.multinomial(probs, 1).item()
            text += chars[ix]
            x = torch.tensor([[ix]])
    print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}  {text!r}")
    return losses, text


if __name__ == "__main__":
    main()
