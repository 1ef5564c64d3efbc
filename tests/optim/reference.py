"""The optimizers written down once more, from their papers, in 50 digits and one number at a time: the judge of the fast ones."""

from mpmath import mp, mpf

mp.dps = 50


def adam(p, gradients, lr, betas, eps, weight_decay, decoupled):
    """The parameter after one step per gradient."""
    p, m, v = mpf(float(p)), mpf(0), mpf(0)
    lr, b1, b2, eps, decay = mpf(lr), mpf(betas[0]), mpf(betas[1]), mpf(eps), mpf(weight_decay)
    for t, g in enumerate(gradients, start=1):
        g = mpf(float(g))
        if decoupled:
            p = p * (1 - lr * decay)
        else:
            g = g + decay * p
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g * g
        p = p - lr * (m / (1 - b1**t)) / (mp.sqrt(v / (1 - b2**t)) + eps)
    return p


def sgd(p, gradients, lr, momentum, dampening, weight_decay, nesterov):
    """The parameter after one step per gradient."""
    p, buffer = mpf(float(p)), None
    lr, momentum, dampening, decay = mpf(lr), mpf(momentum), mpf(dampening), mpf(weight_decay)
    for g in gradients:
        g = mpf(float(g)) + decay * p
        buffer = g if buffer is None else momentum * buffer + (1 - dampening) * g
        if not momentum:
            step = g
        elif nesterov:
            step = g + momentum * buffer
        else:
            step = buffer
        p = p - lr * step
    return p
