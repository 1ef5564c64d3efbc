
/* --- row-wise ops: norms, rotary positions, cross-entropy; and reductions along one axis, of rows and of strips of columns */

/* The larger of two, lane by lane; a NaN wins. Spelled with masks, as loops over max_f do not become vectors where the result is carried along. */
#define LARGER(type, choice, name) typedef int32_t choice __attribute__((vector_size(sizeof(type)))); static inline type name(type a, type b) { \
        choice first = (a > b) | (a != a); return (type)(((choice)a & first) | ((choice)b & ~first)); }
LARGER(four_t, choice_t, larger) LARGER(vector_t, choices_t, larger_vector)

static inline float row_max(const float *x, int64_t n) {
    float top = -INFINITY;
    if (n < 4) { for (int64_t i = 0; i < n; i++) top = max_f(top, x[i]); return top; }
    four_t m = *(const four_t *)(x + n - 4);  /* some a second time */
    int64_t i = 0;
    if (n >= 4 * LANES) {
        vector_t all = *(const vector_t *)x, more = all;
        for (; i + 2 * LANES <= n; i += 2 * LANES) all = larger_vector(all, *(const vector_t *)(x + i)), more = larger_vector(more, *(const vector_t *)(x + i + LANES));
        all = larger_vector(all, more);
        for (int k = 0; k < LANES; k += 4) m = larger(m, *(const four_t *)((const float *)&all + k));
    }
    for (; i + 4 <= n; i += 4) m = larger(m, *(const four_t *)(x + i));
    return max_f(max_f(m[0], m[1]), max_f(m[2], m[3]));
}

/* op layer_norm: rows of x; weight, bias may be NULL; 8 flops; cheap */
BODY layer_norm_rows(const float *RESTRICT x, const float *RESTRICT weight, const float *RESTRICT bias, float *RESTRICT y, float *RESTRICT means,
                     float *RESTRICT scale, int64_t C, float eps, int64_t lo, int64_t hi) {
    for (int64_t r = lo; r < hi; r++) {
        const float *RESTRICT a = x + r * C;
        float *RESTRICT out = y + r * C, sum, squares;
        SUM(sum, i, C, a[i]);
        float m = sum / C;
        SUM(squares, i, C, (a[i] - m) * (a[i] - m));
        float s = 1.f / sqrtf(squares / C + eps);
        means[r] = m, scale[r] = s;
        for (int64_t i = 0; i < C; i++) {
            float h = (a[i] - m) * s;
            if (weight) h *= weight[i];
            if (bias) h += bias[i];
            out[i] = h;
        }
    }
}

/* Each block of BLOCK rows leaves its own sums for gw and gb, which `column_sums` adds up in a fixed order. */
/* op layer_norm_grad: blocks of x, g, means, scale, residual; weight, residual may be NULL; 14 flops */
BODY layer_norm_grad_blocks(const float *RESTRICT g, const float *RESTRICT x, const float *RESTRICT weight, const float *RESTRICT means,
                            const float *RESTRICT scale, const float *RESTRICT residual, float *RESTRICT gx, float *RESTRICT part_w, float *RESTRICT part_b,
                            int64_t rows, int64_t C, int64_t lo, int64_t hi) {
    for (int64_t block = lo; block < hi; block++) {
        float *RESTRICT gw = part_w + block * C, *RESTRICT gb = part_b + block * C;
        memset(gw, 0, C * sizeof(float)), memset(gb, 0, C * sizeof(float));
        for (int64_t r = block * BLOCK; r < MIN(rows, (block + 1) * BLOCK); r++) {
            const float *RESTRICT d = g + r * C, *RESTRICT a = x + r * C, *RESTRICT e = residual + r * C;
            float *RESTRICT out = gx + r * C, m = means[r], s = scale[r], u_sum, uh_sum;
            SUM2(u_sum, uh_sum, i, C, weight ? d[i] * weight[i] : d[i], (weight ? d[i] * weight[i] : d[i]) * ((a[i] - m) * s));
            u_sum /= C, uh_sum /= C;
            for (int64_t i = 0; i < C; i++) {
                float h = (a[i] - m) * s, u = weight ? d[i] * weight[i] : d[i];
                gw[i] += d[i] * h, gb[i] += d[i];
                float v = (u - h * uh_sum - u_sum) * s;
                out[i] = residual ? e[i] + v : v;
            }
        }
    }
}

/* op rms_norm: rows of x; weight may be NULL; 5 flops */
BODY rms_norm_rows(const float *RESTRICT x, const float *RESTRICT weight, float *RESTRICT y, float *RESTRICT scale, int64_t C, float eps, int64_t lo, int64_t hi) {
    for (int64_t r = lo; r < hi; r++) {
        const float *RESTRICT a = x + r * C;
        float squares;
        SUM(squares, i, C, a[i] * a[i]);
        float s = scale[r] = 1.f / sqrtf(squares / C + eps);
        for (int64_t i = 0; i < C; i++) y[r * C + i] = weight ? a[i] * s * weight[i] : a[i] * s;
    }
}

/* op rms_norm_grad: blocks of x, g, scale; weight may be NULL; 10 flops */
BODY rms_norm_grad_blocks(const float *RESTRICT g, const float *RESTRICT x, const float *RESTRICT weight, const float *RESTRICT scale, float *RESTRICT gx,
                          float *RESTRICT part_w, int64_t rows, int64_t C, int64_t lo, int64_t hi) {
    for (int64_t block = lo; block < hi; block++) {
        float *RESTRICT gw = part_w + block * C;
        memset(gw, 0, C * sizeof(float));
        for (int64_t r = block * BLOCK; r < MIN(rows, (block + 1) * BLOCK); r++) {
            const float *RESTRICT d = g + r * C, *RESTRICT a = x + r * C;
            float s = scale[r], dot;
            SUM(dot, i, C, (weight ? d[i] * weight[i] : d[i]) * (a[i] * s));
            dot /= C;
            for (int64_t i = 0; i < C; i++) {
                float h = a[i] * s, u = weight ? d[i] * weight[i] : d[i];
                gw[i] += d[i] * h;
                gx[r * C + i] = (u - h * dot) * s;
            }
        }
    }
}

/* Pairs of features turned by their angles: features i and i + half, or, interleaved, 2 i and 2 i + 1. The rest stays. */
/* op rope: rows of x; 3 flops */
BODY rope_rows(const float *RESTRICT x, rows_t x_at, const float *RESTRICT cos, rows_t cos_at, const float *RESTRICT sin, rows_t sin_at, float *RESTRICT y,
               int64_t C, int64_t cos_width, int interleaved, int64_t lo, int64_t hi) {
    int64_t half = cos_width;
    for (int64_t r = lo; r < hi; r++) {
        const float *RESTRICT a = x + row_at(x_at, r), *RESTRICT cosine = cos + row_at(cos_at, r), *RESTRICT sine = sin + row_at(sin_at, r);
        float *RESTRICT out = y + r * C;
        for (int64_t i = 0; i < half; i++) {
            int64_t first = interleaved ? 2 * i : i, second = interleaved ? 2 * i + 1 : i + half;
            float u = a[first], v = a[second];
            out[first] = u * cosine[i] - v * sine[i], out[second] = v * cosine[i] + u * sine[i];
        }
        for (int64_t i = 2 * half; i < C; i++) out[i] = a[i];
    }
}

/* The largest scaled score and the sum of exponentials are put where `largest` and `sum` point, unless they are NULL. */
BODY softmax_row(float *RESTRICT s, int64_t n, float scale, float *largest, float *sum) {
    float top = row_max(s, n) * scale, total = 0;
    if (largest) *largest = top, *sum = 0;
    if (top == -INFINITY) { memset(s, 0, n * sizeof(float)); return; }
    if (top == INFINITY) {  /* +inf takes all, shared evenly */
        for (int64_t j = 0; j < n; j++) s[j] = s[j] == INFINITY ? 0.f : -INFINITY;
        top = 0, scale = 1;
    }
    for (int64_t j = 0; j < n; j++) s[j] = exp_beside_1(s[j] * scale - top);
    SUM(total, j, n, s[j]);
    if (sum) *sum = total;
    float inverse = 1.f / total;
    for (int64_t j = 0; j < n; j++) s[j] *= inverse;
}

/* op cross_entropy: rows of logits, target; 15 flops */
BODY cross_entropy_rows(const float *RESTRICT logits, const void *target, int target_kind, float *RESTRICT loss, float *RESTRICT total, int64_t C, int64_t ignore_index,
                        float label_smoothing, int64_t lo, int64_t hi) {
    for (int64_t r = lo; r < hi; r++) {
        const float *RESTRICT a = logits + r * C;
        int64_t t = index_at(target, r, target_kind);
        if (t != ignore_index && (t < 0 || t >= C)) { atomic_store(&status, 1); return; }
        float top = row_max(a, C), sum, all = 0;
        if (isinf(top)) top = 0;
        SUM(sum, i, C, exp_f(a[i] - top));
        total[r] = logf(sum) + top;
        if (label_smoothing != 0) SUM(all, i, C, a[i]);
        loss[r] = t == ignore_index ? 0 : (1 - label_smoothing) * (logf(sum) - (a[t] - top)) + (label_smoothing != 0 ? label_smoothing * (logf(sum) - (all / C - top)) : 0);
    }
}

/* op cross_entropy_grad: rows of logits, g, target, total; 15 flops */
BODY cross_entropy_grad_rows(const float *g, int64_t g_step, const float *RESTRICT logits, const void *target, int target_kind, const float *RESTRICT total,
                             float *RESTRICT y, int64_t C, int64_t ignore_index, float label_smoothing, int64_t lo, int64_t hi) {
    for (int64_t r = lo; r < hi; r++) {
        const float *RESTRICT a = logits + r * C;
        float *RESTRICT out = y + r * C, w = g[r * g_step];
        int64_t t = index_at(target, r, target_kind);
        if (t == ignore_index) { memset(out, 0, C * sizeof(float)); continue; }
        if (t < 0 || t >= C) { atomic_store(&status, 1); return; }
        float whole = 1;
        if (fabsf(total[r]) > 256 && !isinf(total[r])) {  /* log(sum) has lost digits next to the maximum: a factor of the whole row */
            SUM(whole, i, C, exp_f(a[i] - total[r]));
        }
        for (int64_t i = 0; i < C; i++) out[i] = (exp_f(a[i] - total[r]) / whole - label_smoothing / C) * w;
        out[t] -= (1 - label_smoothing) * w;
    }
}

/* op softmax: rows of x; 15 flops */
BODY softmax_rows(const float *RESTRICT x, float *RESTRICT y, int64_t C, int64_t lo, int64_t hi) {
    for (int64_t r = lo; r < hi; r++) memcpy(y + r * C, x + r * C, C * sizeof(float)), softmax_row(y + r * C, C, 1.f, NULL, NULL);
}

/* op logsumexp: rows of x; 15 flops */
BODY logsumexp_rows(const float *RESTRICT x, float *RESTRICT y, int64_t C, int64_t lo, int64_t hi) {
    for (int64_t r = lo; r < hi; r++) {
        const float *RESTRICT a = x + r * C;
        float top = row_max(a, C), sum;
        if (isinf(top)) top = 0;
        SUM(sum, i, C, exp_f(a[i] - top));
        y[r] = logf(sum) + top;
    }
}

/* op max: rows of x; 1 flops */
BODY max_rows(const float *RESTRICT x, float *RESTRICT y, int64_t C, int64_t lo, int64_t hi) {
    for (int64_t r = lo; r < hi; r++) y[r] = row_max(x + r * C, C);
}

/* The largest of sign * x: with sign -1 the smallest, negated. */
static inline float row_extreme(const float *x, int64_t n, float sign) {
    float m[16], top;
    for (int k = 0; k < 16; k++) m[k] = -INFINITY;
    int64_t w = n - n % 16;
    for (int64_t b = 0; b < w; b += 16) for (int k = 0; k < 16; k++) m[k] = max_f(m[k], sign * x[b + k]);
    for (int64_t i = w; i < n; i++) m[i - w] = max_f(m[i - w], sign * x[i]);
    top = m[0];
    for (int k = 1; k < 16; k++) top = max_f(top, m[k]);
    return top;
}

/* op min: rows of x; 1 flops */
BODY min_rows(const float *RESTRICT x, float *RESTRICT y, int64_t C, int64_t lo, int64_t hi) {
    for (int64_t r = lo; r < hi; r++) y[r] = -row_extreme(x + r * C, C, -1.f);
}

/* The first place of the extreme, a NaN where there is one: found among STRIP numbers at a time, then among those. */
BODY extreme_places(const float *RESTRICT x, int64_t *RESTRICT y, int64_t C, float sign, int64_t lo, int64_t hi) {
    for (int64_t r = lo; r < hi; r++) {
        const float *RESTRICT a = x + r * C, top = sign * row_extreme(a, C, sign);
        int64_t first = 0;
        for (int found = 0; first + STRIP <= C; first += STRIP) {
            for (int k = 0; k < STRIP; k++) found |= (a[first + k] == top) | (a[first + k] != a[first + k]);
            if (found) break;
        }
        while (first < C - 1 && a[first] != top && a[first] == a[first]) first++;
        y[r] = first;
    }
}
/* op argmax: rows of x; 2 flops */
BODY argmax_rows(const float *RESTRICT x, int64_t *RESTRICT y, int64_t C, int64_t lo, int64_t hi) { extreme_places(x, y, C, 1.f, lo, hi); }
/* op argmin: rows of x; 2 flops */
BODY argmin_rows(const float *RESTRICT x, int64_t *RESTRICT y, int64_t C, int64_t lo, int64_t hi) { extreme_places(x, y, C, -1.f, lo, hi); }

/* In double, as the op promises; from -0, to which any first number adds up to itself. */
/* op cumsum: rows of x; 1 flops */
BODY cumsum_rows(const float *RESTRICT x, float *RESTRICT y, int64_t C, int64_t lo, int64_t hi) {
    for (int64_t r = lo; r < hi; r++) {
        double sum = -0.0;
        for (int64_t i = 0; i < C; i++) y[r * C + i] = (float)(sum += x[r * C + i]);
    }
}

/* x - log(sum exp x) of one number: `rest` is x without the maximum, `log_sum` the logarithm of the sum of exp(rest). Rows of -inf stay what they are;
   +inf is 0, and the rest of its row -inf. */
static inline float minus_log_sum(float x, float rest, float log_sum) {
    float infinite = x == INFINITY ? 0.f : -INFINITY, usual = rest - log_sum;
    float y = log_sum == INFINITY ? infinite : usual;
    return x == -INFINITY ? x : y;
}

/* op log_softmax: rows of x; 15 flops */
BODY log_softmax_rows(const float *RESTRICT x, float *RESTRICT y, int64_t C, int64_t lo, int64_t hi) {
    for (int64_t r = lo; r < hi; r++) {
        const float *RESTRICT a = x + r * C;
        float top = row_max(a, C), sum;
        if (!isfinite(top)) top = 0;
        SUM(sum, i, C, exp_f(a[i] - top));
        float log_sum = logf(sum);
        for (int64_t i = 0; i < C; i++) y[r * C + i] = minus_log_sum(a[i], a[i] - top, log_sum);
    }
}

/* 1 / count at each of the `count` places where x is y. */
/* op tie_shares: rows of x, y; 3 flops */
BODY tie_shares_rows(const float *RESTRICT x, const float *RESTRICT y, float *RESTRICT shares, int64_t C, int64_t lo, int64_t hi) {
    for (int64_t r = lo; r < hi; r++) {
        const float *RESTRICT a = x + r * C, top = y[r];
        int32_t count = 0;
        for (int64_t i = 0; i < C; i++) count += a[i] == top;
        float share = (float)(1.0 / MAX(count, 1));
        for (int64_t i = 0; i < C; i++) shares[r * C + i] = a[i] == top ? share : 0.f;
    }
}

/* Strips: n columns from x on, in C rows that are `inner` apart. */

BODY strip_extreme(const float *RESTRICT x, int64_t C, int64_t inner, int64_t n, float sign, float *RESTRICT top) {
    for (int64_t i = 0; i < n; i++) top[i] = sign * x[i];
    for (int64_t c = 1; c < C; c++) for (int64_t i = 0; i < n; i++) top[i] = max_f(top[i], sign * x[c * inner + i]);
}

/* op max: strips of x; 1 flops */
BODY max_strip(const float *RESTRICT x, float *RESTRICT y, int64_t C, int64_t inner, int64_t n) { strip_extreme(x, C, inner, n, 1.f, y); }

/* op min: strips of x; 1 flops */
BODY min_strip(const float *RESTRICT x, float *RESTRICT y, int64_t C, int64_t inner, int64_t n) {
    strip_extreme(x, C, inner, n, -1.f, y);
    for (int64_t i = 0; i < n; i++) y[i] = -y[i];
}

BODY strip_places(const float *RESTRICT x, int64_t *RESTRICT y, int64_t C, int64_t inner, int64_t n, float sign) {
    float top[STRIP];
    int32_t first[STRIP];
    strip_extreme(x, C, inner, n, sign, top);
    for (int64_t i = 0; i < n; i++) first[i] = (int32_t)C;
    for (int32_t c = 0; c < (int32_t)C; c++) for (int64_t i = 0; i < n; i++) {
        float v = sign * x[c * inner + i];
        int32_t at = (v == top[i]) | (v != v) ? c : (int32_t)C;
        first[i] = at < first[i] ? at : first[i];
    }
    for (int64_t i = 0; i < n; i++) y[i] = first[i];
}
/* op argmax: strips of x; 2 flops */
BODY argmax_strip(const float *RESTRICT x, int64_t *RESTRICT y, int64_t C, int64_t inner, int64_t n) { strip_places(x, y, C, inner, n, 1.f); }
/* op argmin: strips of x; 2 flops */
BODY argmin_strip(const float *RESTRICT x, int64_t *RESTRICT y, int64_t C, int64_t inner, int64_t n) { strip_places(x, y, C, inner, n, -1.f); }

/* The maximum, 0 where it is not finite, and log(sum(exp(x - top))). */
BODY strip_log_sum(const float *RESTRICT x, int64_t C, int64_t inner, int64_t n, float *RESTRICT top, float *RESTRICT log_sum) {
    strip_extreme(x, C, inner, n, 1.f, top);
    for (int64_t i = 0; i < n; i++) {
        float m = top[i];
        top[i] = isfinite(m) ? m : 0.f;
    }
    STRIP_SUM(log_sum, c, i, exp_f(x[c * inner + i] - top[i]));
    for (int64_t i = 0; i < n; i++) log_sum[i] = logf(log_sum[i]);
}

/* op logsumexp: strips of x; 15 flops */
BODY logsumexp_strip(const float *RESTRICT x, float *RESTRICT y, int64_t C, int64_t inner, int64_t n) {
    float top[STRIP], log_sum[STRIP];
    strip_log_sum(x, C, inner, n, top, log_sum);
    for (int64_t i = 0; i < n; i++) y[i] = log_sum[i] + top[i];
}

/* op log_softmax: strips of x, y; 15 flops */
BODY log_softmax_strip(const float *RESTRICT x, float *RESTRICT y, int64_t C, int64_t inner, int64_t n) {
    float top[STRIP], log_sum[STRIP];
    strip_log_sum(x, C, inner, n, top, log_sum);
    for (int64_t c = 0; c < C; c++) for (int64_t i = 0; i < n; i++)
        y[c * inner + i] = minus_log_sum(x[c * inner + i], x[c * inner + i] - top[i], log_sum[i]);
}

/* op softmax: strips of x, y; 15 flops */
BODY softmax_strip(const float *RESTRICT x, float *RESTRICT y, int64_t C, int64_t inner, int64_t n) {
    float top[STRIP], total[STRIP];
    strip_extreme(x, C, inner, n, 1.f, top);
    for (int64_t c = 0; c < C; c++) for (int64_t i = 0; i < n; i++) {
        float v = x[c * inner + i], m = top[i], shared = v == INFINITY ? 0.f : -INFINITY;  /* +inf takes all, shared evenly */
        float rest = v - (m == -INFINITY ? 0.f : m);
        y[c * inner + i] = exp_f(m == INFINITY ? shared : rest);
    }
    STRIP_SUM(total, c, i, y[c * inner + i]);
    for (int64_t i = 0; i < n; i++) {
        float sum = total[i];
        total[i] = 1.f / (sum == 0 ? 1.f : sum);
    }
    for (int64_t c = 0; c < C; c++) for (int64_t i = 0; i < n; i++) y[c * inner + i] *= total[i];
}

/* op tie_shares: strips of x, shares; 3 flops */
BODY tie_shares_strip(const float *RESTRICT x, const float *RESTRICT y, float *RESTRICT shares, int64_t C, int64_t inner, int64_t n) {
    int32_t count[STRIP];
    float share[STRIP];
    for (int64_t i = 0; i < n; i++) count[i] = 0;
    for (int64_t c = 0; c < C; c++) for (int64_t i = 0; i < n; i++) count[i] += x[c * inner + i] == y[i];
    for (int64_t i = 0; i < n; i++) share[i] = (float)(1.0 / MAX(count[i], 1));
    for (int64_t c = 0; c < C; c++) for (int64_t i = 0; i < n; i++) {
        float s = share[i];
        shares[c * inner + i] = x[c * inner + i] == y[i] ? s : 0.f;
    }
}
