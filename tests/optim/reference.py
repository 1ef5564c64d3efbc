"""The optimizers written down once more, from their papers, in 50 digits and one number at a time:
the judge of the fast ones.
"""

from mpmath import mp, mpf

mp.dps = 50


def adam(p, gradients, lr, betas, eps, weight_decay, decoupled, amsgrad=False):
    """The parameter after one step per gradient."""
    p, m, v, top = mpf(float(p)), mpf(0), mpf(0), mpf(0)
    lr, b1, b2, eps, decay = mpf(lr), mpf(betas[0]), mpf(betas[1]), mpf(eps), mpf(weight_decay)
    for t, g in enumerate(gradients, start=1):
        g = mpf(float(g))
        if decoupled:
            p = p * (1 - lr * decay)
        else:
            g = g + decay * p
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g * g
        top = max(top, v)
        seen = top if amsgrad else v
        p = p - lr * (m / (1 - b1**t)) / (mp.sqrt(seen / (1 - b2**t)) + eps)
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


def rmsprop(p, gradients, lr, alpha, eps, weight_decay, momentum, centered):
    """The parameter after one step per gradient."""
    p, v, m, mean = mpf(float(p)), mpf(0), mpf(0), mpf(0)
    lr, alpha, eps, decay, mu = map(mpf, (lr, alpha, eps, weight_decay, momentum))
    for g in gradients:
        g = mpf(float(g)) + decay * p
        v = alpha * v + (1 - alpha) * g * g
        mean = alpha * mean + (1 - alpha) * g
        u = g / (mp.sqrt(v - mean * mean if centered else v) + eps)
        m = mu * m + u
        p = p - lr * m
    return p


def lion(p, gradients, lr, betas, weight_decay):
    """The parameter after one step per gradient."""
    p, m = mpf(float(p)), mpf(0)
    lr, b1, b2, decay = mpf(lr), mpf(betas[0]), mpf(betas[1]), mpf(weight_decay)
    for g in gradients:
        g = mpf(float(g))
        c = b1 * m + (1 - b1) * g
        p = p * (1 - lr * decay) - lr * mp.sign(c)
        m = b2 * m + (1 - b2) * g
    return p


def zeroth_power(g, steps):
    """Newton and Schulz's polynomial of fifth degree, `steps` times, on a matrix that is no taller
    than wide.
    """
    a, b, c = mpf("3.4445"), mpf("-4.7750"), mpf("2.0315")
    x = g / (mp.norm(g, 2) + mpf("1e-7"))
    for _ in range(steps):
        gram = x * x.T
        x = a * x + (b * gram + c * gram * gram) * x
    return x


def muon(p, gradients, lr, momentum, weight_decay, nesterov, ns_steps, adjust_lr):
    """The matrix after one step per gradient."""
    rows, columns = p.shape
    p, m = mp.matrix(p.tolist()), mp.zeros(rows, columns)
    lr, mu, decay = mpf(lr), mpf(momentum), mpf(weight_decay)
    scale = (
        mp.sqrt(max(1, mpf(rows) / columns))
        if adjust_lr == "original"
        else mpf("0.2") * mp.sqrt(max(rows, columns))
    )
    for g in gradients:
        g = mp.matrix(g.tolist())
        m = mu * m + (1 - mu) * g
        wanted = mu * m + (1 - mu) * g if nesterov else m
        u = zeroth_power(wanted.T, ns_steps).T if rows > columns else zeroth_power(wanted, ns_steps)
        p = (1 - lr * decay) * p - lr * scale * u
    return p


def adafactor(p, gradients, lr, beta2_decay, eps, clip, weight_decay):
    """The matrix (a vector if there is one column and `p` is 1-d) after one step per gradient."""
    vector = p.ndim == 1
    rows, columns = (len(p), 1) if vector else p.shape
    cells = [(i, j) for i in range(rows) for j in range(columns)]
    x = mp.matrix(p.reshape(rows, columns).tolist())
    r, c, v = mp.zeros(rows, 1), mp.zeros(1, columns), mp.zeros(rows, columns)
    for t, g in enumerate(gradients, start=1):
        g = mp.matrix(g.reshape(rows, columns).tolist())
        b = 1 - mpf(t) ** mpf(beta2_decay)
        s = g.apply(lambda y: y * y + mpf(eps[0]))
        for i in range(rows):
            r[i] = b * r[i] + (1 - b) * sum(s[i, j] for j in range(columns)) / columns
        for j in range(columns):
            c[j] = b * c[j] + (1 - b) * sum(s[i, j] for i in range(rows)) / rows
        v = b * v + (1 - b) * s
        mean = sum(r[i] for i in range(rows)) / rows
        u = mp.zeros(rows, columns)
        for i, j in cells:
            u[i, j] = g[i, j] / mp.sqrt(v[i, j] if vector else r[i] * c[j] / mean)
        rms_x, rms_u = (mp.sqrt(sum(y[i, j] ** 2 for i, j in cells) / len(cells)) for y in (x, u))
        alpha = max(mpf(eps[1]), rms_x) * min(mpf(lr), 1 / mp.sqrt(t))
        x = (1 - mpf(lr) * mpf(weight_decay)) * x - alpha / max(1, rms_u / mpf(clip)) * u
    return x
