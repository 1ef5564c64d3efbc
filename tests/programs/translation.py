"""An encoder and a decoder with cross-attention: sequences of digits, written backwards."""

import math

import minigrad as torch
import minigrad.nn as nn

VOCAB, LENGTH, DIM, HEADS = 10, 6, 32, 4
BOS = VOCAB


class MultiHeadAttention(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(dim, dim)
        self.k_proj = nn.Linear(dim, dim)
        self.v_proj = nn.Linear(dim, dim)
        self.out_proj = nn.Linear(dim, dim)

    def forward(self, query, memory, mask=None):
        B, T, C = query.shape
        S = memory.shape[1]
        q = self.q_proj(query).view(B, T, self.heads, -1).transpose(1, 2)
        k = self.k_proj(memory).view(B, S, self.heads, -1).transpose(1, 2)
        v = self.v_proj(memory).view(B, S, self.heads, -1).transpose(1, 2)
        scores = torch.matmul(q, k.transpose(-2, -1)) / math.sqrt(C // self.heads)
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf"))
        weights = torch.softmax(scores, dim=-1)
        out = torch.matmul(weights, v).transpose(1, 2).reshape(B, T, C)
        return self.out_proj(out)


class FeedForward(nn.Sequential):
    def __init__(self, dim):
        super().__init__(nn.Linear(dim, 2 * dim), nn.ReLU(), nn.Linear(2 * dim, dim))


class EncoderLayer(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.attn, self.ff = MultiHeadAttention(dim, heads), FeedForward(dim)
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)

    def forward(self, x):
        h = self.norm1(x)
        x = x + self.attn(h, h)
        return x + self.ff(self.norm2(x))


class DecoderLayer(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.self_attn, self.cross_attn = (MultiHeadAttention(dim, heads) for _ in range(2))
        self.ff = FeedForward(dim)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(dim) for _ in range(3))

    def forward(self, x, memory, mask):
        h = self.norm1(x)
        x = x + self.self_attn(h, h, mask)
        x = x + self.cross_attn(self.norm2(x), memory)
        return x + self.ff(self.norm3(x))


class Seq2Seq(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(VOCAB + 1, DIM)
        self.pos = nn.Parameter(torch.randn(1, LENGTH, DIM) * 0.1)
        self.encoder = nn.ModuleList([EncoderLayer(DIM, HEADS)])
        self.decoder = nn.ModuleList([DecoderLayer(DIM, HEADS)])
        self.head = nn.Linear(DIM, VOCAB)

    def encode(self, src):
        x = self.embed(src) + self.pos[:, : src.size(1)]
        for layer in self.encoder:
            x = layer(x)
        return x

    def decode(self, tgt, memory):
        T = tgt.size(1)
        mask = torch.tril(torch.ones(T, T, dtype=torch.bool))
        x = self.embed(tgt) + self.pos[:, :T]
        for layer in self.decoder:
            x = layer(x, memory, mask)
        return self.head(x)

    def forward(self, src, tgt):
        return self.decode(tgt, self.encode(src))


def main():
    torch.manual_seed(0)
    model = Seq2Seq()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=300)
    criterion = nn.CrossEntropyLoss()
    losses = []
    for _ in range(300):
        src = torch.randint(0, VOCAB, (32, LENGTH))
        tgt = src.flip(1)
        bos = torch.full((32, 1), BOS, dtype=torch.long)
        logits = model(src, torch.cat([bos, tgt[:, :-1]], dim=1))
        loss = criterion(logits.reshape(-1, VOCAB), tgt.reshape(-1))
        optimizer.zero_grad()
        loss.backward()
        torch.optim.clip_grad_norm_(model.parameters(), max_norm=1.0)
        optimizer.step()
        scheduler.step()
        losses.append(loss.item())

    model.eval()
    with torch.no_grad():
        src = torch.randint(0, VOCAB, (50, LENGTH))
        memory = model.encode(src)
        out = torch.full((50, 1), BOS, dtype=torch.long)
        for _ in range(LENGTH):
            next_token = model.decode(out, memory)[:, -1].argmax(dim=-1, keepdim=True)
            out = torch.cat([out, next_token], dim=1)
        accuracy = (out[:, 1:] == src.flip(1)).float().mean().item()
    print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}  accuracy {accuracy:.1%}")
    return losses, accuracy


if __name__ == "__main__":
    main()
