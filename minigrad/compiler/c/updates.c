
/* --- clipping, and optimizers: a piece of a parameter at a time. NAME_scalars works out, once per step, the few numbers c that all pieces share from the
   number of the step and the settings, `set`. */

static inline double sum_of_squares(const float *x, int64_t n) {
    double s[8] = {0};
    int64_t w = n - n % 8;
    for (int64_t b = 0; b < w; b += 8) for (int k = 0; k < 8; k++) s[k] += (double)x[b + k] * x[b + k];
    for (int64_t i = w; i < n; i++) s[i - w] += (double)x[i] * x[i];
    return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
}

/* The norm, and the factor that brings it to max_norm at most. */
static void clip_norm(const double *part, float *scale, float *norm, int64_t parts, double max_norm, int refuse) {
    double s = 0;
    for (int64_t i = 0; i < parts; i++) s += part[i];
    double n = sqrt(s), f = max_norm / (n + 1e-6);
    if (refuse && !isfinite(n)) atomic_store(&status, 1);
    *norm = (float)n, *scale = f >= 1 ? 1 : (float)f;
}

/* The corrections for starting at 0 are in eps and rate. */
static void adam_scalars(int64_t *step, const double *set, float *c) {
    *step += 1;
    double lr = set[0], b1 = set[1], b2 = set[2], eps = set[3], decay = set[4], t = (double)*step, root = sqrt(1 - pow(b2, t));
    c[0] = b1, c[1] = 1 - b1, c[2] = b2, c[3] = 1 - b2, c[4] = eps * root, c[5] = lr * root / (1 - pow(b1, t));
    c[6] = 1 - lr * decay, c[7] = decay;
}

/* op adam_: pieces of p; 12 flops */
BODY adam_piece(float *RESTRICT p, const float *RESTRICT g, float *RESTRICT m, float *RESTRICT v, int64_t n, const float *RESTRICT c, int decoupled) {
    float b1 = c[0], a1 = c[1], b2 = c[2], a2 = c[3], eps = c[4], rate = c[5], keep = decoupled ? c[6] : 1.f, decay = decoupled ? 0.f : c[7];
    for (int64_t i = 0; i < n; i++) {
        float w = p[i] * keep, q = decay == 0 ? g[i] : g[i] + decay * p[i];
        float mi = m[i] * b1 + q * a1, vi = v[i] * b2 + q * q * a2;
        m[i] = mi, v[i] = vi;
        p[i] = w - mi / (sqrtf(vi) + eps) * rate;
    }
}

static void sgd_scalars(int64_t *step, const double *set, float *c) {
    *step += 1;
    c[0] = set[0], c[1] = set[1], c[2] = *step == 1 ? 1 : 1 - set[2], c[3] = set[3];
}

/* c[2]: the gradient's share in the momentum. */
/* op sgd_: pieces of p; 12 flops */
BODY sgd_piece(float *RESTRICT p, const float *RESTRICT g, float *RESTRICT m, int64_t n, const float *RESTRICT c, int nesterov) {
    float lr = c[0], momentum = c[1], share = c[2], decay = c[3];
    if (momentum == 0) {
        for (int64_t i = 0; i < n; i++) p[i] -= lr * (decay == 0 ? g[i] : g[i] + decay * p[i]);
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        float q = decay == 0 ? g[i] : g[i] + decay * p[i], v = m[i] * momentum + q * share;
        m[i] = v;
        p[i] -= lr * (nesterov ? q + momentum * v : v);
    }
}

static void lion_scalars(int64_t *step, const double *set, float *c) {
    *step += 1;
    double lr = set[0], b1 = set[1], b2 = set[2], decay = set[3];
    c[0] = b1, c[1] = 1 - b1, c[2] = b2, c[3] = 1 - b2, c[4] = lr, c[5] = 1 - lr * decay;
}

/* op lion_: pieces of p; 12 flops */
BODY lion_piece(float *RESTRICT p, const float *RESTRICT g, float *RESTRICT m, int64_t n, const float *RESTRICT c) {
    float b1 = c[0], a1 = c[1], b2 = c[2], a2 = c[3], lr = c[4], keep = c[5];
    for (int64_t i = 0; i < n; i++) {
        float mi = m[i], q = g[i], u = mi * b1 + q * a1;
        float sign = u > 0 ? 1.f : u < 0 ? -1.f : u;  /* of NaN, NaN */
        p[i] = p[i] * keep - sign * lr;
        m[i] = mi * b2 + q * a2;
    }
}

static void adafactor_scalars(int64_t *step, const double *set, float *c) {
    *step += 1;
    double share = pow((double)*step, set[1]), lr = set[0];
    c[0] = share, c[1] = 1 - share, c[2] = set[2], c[3] = fmin(lr, 1 / sqrt((double)*step)), c[4] = set[3], c[5] = set[4], c[6] = 1 - lr * set[5];
}

static float root_mean_square(const float *x, int64_t n) { return (float)sqrt(sum_of_squares(x, n) / n); }

/* The running averages of the squares' means along the rows and along the columns of a matrix. sums: scratch for as many numbers as there are columns. */
static void adafactor_averages(const float *RESTRICT g, float *RESTRICT row, float *RESTRICT column, double *RESTRICT sums, int64_t R, int64_t C, const float *c) {
    float share = c[0], keep = c[1], eps = c[2];
    for (int64_t j = 0; j < C; j++) sums[j] = 0;
    for (int64_t i = 0; i < R; i++) {
        const float *RESTRICT a = g + i * C;
        float total;
        SUM(total, j, C, a[j] * a[j] + eps);
        row[i] = row[i] * keep + total / C * share;
        for (int64_t j = 0; j < C; j++) sums[j] += a[j] * a[j] + eps;
    }
    for (int64_t j = 0; j < C; j++) column[j] = column[j] * keep + (float)(sums[j] / R) * share;
}

static double mean_of(const float *x, int64_t n) {
    double s = 0;
    for (int64_t i = 0; i < n; i++) s += x[i];
    return s / n;
}

/* All of a parameter: B matrices of R x C, or, where B is 0, C numbers. c[0]: the share of the new. */
static void adafactor_whole(float *RESTRICT p, const float *RESTRICT g, float *RESTRICT row, float *RESTRICT column, float *RESTRICT square,
                            double *RESTRICT sums, int64_t B, int64_t R, int64_t C, const float *RESTRICT c) {
    int64_t matrices = B ? B : 1, rows = B ? R : 1, n = matrices * rows * C;
    double squares = 0;
    for (int64_t b = 0; b < B; b++) adafactor_averages(g + b * R * C, row + b * R, column + b * C, sums, R, C, c);
    if (!B) for (int64_t j = 0; j < C; j++) square[j] = square[j] * c[1] + (g[j] * g[j] + c[2]) * c[0];
    float size = root_mean_square(p, n), alpha = 0;
    for (int pass = 0; pass < 2; pass++) {  /* how large the step would be, then the step */
        for (int64_t b = 0; b < matrices; b++) {
            float mean = B ? (float)mean_of(row + b * R, R) : 1.f;
            for (int64_t i = 0; i < rows; i++) {
                const float *RESTRICT a = g + (b * rows + i) * C, *RESTRICT v = B ? column + b * C : square;
                float *RESTRICT w = p + (b * rows + i) * C, part = B ? sqrtf(row[b * R + i] / mean) : 1.f, sum;
                if (pass) for (int64_t j = 0; j < C; j++) w[j] = w[j] * c[6] - a[j] / part / sqrtf(v[j]) * alpha;
                else { SUM(sum, j, C, a[j] / part / sqrtf(v[j]) * (a[j] / part / sqrtf(v[j]))); squares += sum; }
            }
        }
        float much = (float)sqrt(squares / n) / c[5];
        alpha = MAX(size, c[4]) * c[3] / MAX(much, 1.f);  /* a NaN gives way, as in eager */
    }
}

static void muon_scalars(int64_t *step, const double *set, float *c) {
    *step += 1;
    c[0] = set[1], c[1] = 1 - set[1], c[2] = 1 - set[0] * set[2], c[3] = set[0];
}

/* The Newton-Schulz iterations of x, (M, N), with as many numbers at `other` and 4 R^2 at `squares`, R = min(M, N); returns where the result is.

   All matrices of an iteration are polynomials of A = x x^T (x^T x if x is tall): symmetric, and any two commute. With Q = a + b A + c A A, x becomes Q x
   and A becomes Q A Q; so x itself is needed once in three iterations, which for a wide x takes 0.4 of the operations. From A, small singular values are
   known less well than from x: an error of eps in A grows by a^2 with each iteration, hence not more than three from one A. */
static float *newton_schulz(float *x, float *other, float *squares, int64_t M, int64_t N, int steps) {
    int tall = M > N;
    int64_t R = MIN(M, N), area = R * R;
    float *A = squares, *Q = A + area, *all = Q + area, *t = all + area, *was;
    for (int left = steps; left > 0; left -= 3) {
        symmetric_product(tall, !tall, R, MAX(M, N), x, x, N, A);
        for (int i = 0; i < MIN(3, left); i++) {
            symmetric_product(0, 0, R, R, A, A, R, Q);
            for (int64_t n = 0; n < area; n++) Q[n] = -4.7750f * A[n] + 2.0315f * Q[n];
            for (int64_t n = 0; n < R; n++) Q[n * R + n] += 3.4445f;
            if (i + 1 < MIN(3, left)) symmetric_product(0, 0, R, R, Q, A, R, t), symmetric_product(0, 0, R, R, t, Q, R, A);
            if (i) symmetric_product(0, 0, R, R, Q, all, R, t), was = all, all = t, t = was;
            else was = all, all = Q, Q = was;
        }
        if (tall) product_of(0, 0, 0, 0, M, N, N, x, N, all, N, NULL, NULL, 0, other, N);
        else product_of(0, 0, 0, 0, M, N, M, all, M, x, N, NULL, NULL, 0, other, N);
        was = x, x = other, other = was;
    }
    return x;
}

/* All of a matrix p, (M, N). */
static void muon_whole(float *RESTRICT p, const float *RESTRICT g, float *RESTRICT m, int64_t M, int64_t N, const float *RESTRICT c, int nesterov, int steps, int match_rms) {
    int64_t n = M * N, R = MIN(M, N);
    float b = c[0], share = c[1], *x = malloc((2 * n + 4 * R * R) * sizeof(float));
    if (!x) { atomic_store(&status, 1); return; }
    for (int64_t i = 0; i < n; i++) {
        float mi = m[i] * b + g[i] * share;
        m[i] = mi, x[i] = nesterov ? mi * b + g[i] * share : mi;
    }
    float one = 1 / ((float)sqrt(sum_of_squares(x, n)) + 1e-7f), rate = c[3] * (float)(match_rms ? 0.2 * sqrt(MAX(M, N)) : sqrt(MAX(1., (double)M / N)));
    for (int64_t i = 0; i < n; i++) x[i] *= one;
    const float *u = newton_schulz(x, x + n, x + 2 * n, M, N, steps);
    for (int64_t i = 0; i < n; i++) p[i] = p[i] * c[2] - u[i] * rate;
    free(x);
}
