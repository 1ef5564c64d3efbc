"""A training loop: batches, schedules, evaluation, the best weights, resuming by state_dict."""

import copy
import os
import tempfile

import minigrad as torch
from minigrad import nn
from minigrad.nn import functional as F
from minigrad.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR


class MLP(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(8, 32), nn.LayerNorm(32), nn.SiLU(), nn.Dropout(0.1), nn.Linear(32, 1)
        )

    def forward(self, x):
        return self.net(x).squeeze(-1)


def train_one_epoch(model, optimizer, scheduler, x, y):
    model.train()
    total = 0.0
    for xb, yb in zip(x.split(32), y.split(32)):
        loss = F.mse_loss(model(xb), yb)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.optim.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        total += loss.item() * len(xb)
    return total / len(x)


@torch.no_grad()
def evaluate(model, x, y):
    model.eval()
    return F.mse_loss(model(x), y).item()


def make():
    model = MLP()
    decay = [p for n, p in model.named_parameters() if n.endswith("weight") and p.ndim == 2]
    rest = [p for n, p in model.named_parameters() if not (n.endswith("weight") and p.ndim == 2)]
    optimizer = torch.optim.AdamW(
        [{"params": decay, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}], lr=1e-2
    )
    warmup = LinearLR(optimizer, start_factor=0.1, total_iters=10)
    cosine = CosineAnnealingLR(optimizer, T_max=70, eta_min=1e-4)
    return model, optimizer, SequentialLR(optimizer, [warmup, cosine], milestones=[10])


def main():
    torch.manual_seed(0)
    w = torch.randn(8)
    x = torch.randn(320, 8)
    y = torch.sin(x @ w) + 0.1 * torch.randn(320)
    x_train, y_train, x_val, y_val = x[:256], y[:256], x[256:], y[256:]
    model, optimizer, scheduler = make()
    first = evaluate(model, x_val, y_val)
    best, best_state, history = float("inf"), None, []
    for epoch in range(10):
        train_loss = train_one_epoch(model, optimizer, scheduler, x_train, y_train)
        val_loss = evaluate(model, x_val, y_val)
        history.append(val_loss)
        if val_loss < best:
            best, best_state = val_loss, copy.deepcopy(model.state_dict())
        lr = optimizer.param_groups[0]["lr"]
        print(f"epoch {epoch} train {train_loss:.4f} val {val_loss:.4f} lr {lr:.5f}")

    model.load_state_dict(best_state)
    assert abs(evaluate(model, x_val, y_val) - best) < 1e-6

    # To disk and back, into a fresh model.
    path = os.path.join(tempfile.mkdtemp(), "best.mgrd")
    torch.save(path, model.state_dict())
    other, other_optimizer, other_scheduler = make()
    missing, unexpected = other.load_state_dict(torch.load(path))
    assert not missing and not unexpected
    other_optimizer.load_state_dict(optimizer.state_dict())
    other_scheduler.load_state_dict(scheduler.state_dict())
    assert evaluate(other, x_val, y_val) == evaluate(model, x_val, y_val)
    assert other_scheduler.get_last_lr() == scheduler.get_last_lr()
    return first, best, history


if __name__ == "__main__":
    main()
