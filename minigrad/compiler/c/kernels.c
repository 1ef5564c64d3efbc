
/* --- kernels of the fused ops: inlined into small functions that know their sizes, so that each is compiled for its shape */

#define BODY static inline __attribute__((always_inline)) void

static inline int64_t index_at(const void *index, int64_t i, int wide) { return wide ? ((const int64_t *)index)[i] : ((const int32_t *)index)[i]; }

/* The larger of two, lane by lane; a NaN wins. Spelled with masks, as loops over max_f do not become vectors where the result is carried along. */
typedef int32_t choice_t __attribute__((vector_size(16)));
static inline four_t larger(four_t a, four_t b) {
    choice_t first = (a > b) | (a != a);
    return (four_t)(((choice_t)a & first) | ((choice_t)b & ~first));
}

static inline float row_max(const float *x, int64_t n) {
    float top = -INFINITY;
    if (n < 4) { for (int64_t i = 0; i < n; i++) top = max_f(top, x[i]); return top; }
    four_t m[4];
    for (int k = 0; k < 4; k++) m[k] = *(const four_t *)x;
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) for (int k = 0; k < 4; k++) m[k] = larger(m[k], *(const four_t *)(x + i + 4 * k));
    for (; i + 4 <= n; i += 4) m[0] = larger(m[0], *(const four_t *)(x + i));
    m[1] = larger(m[1], *(const four_t *)(x + n - 4));  /* some a second time */
    m[0] = larger(larger(m[0], m[1]), larger(m[2], m[3]));
    return max_f(max_f(m[0][0], m[0][1]), max_f(m[0][2], m[0][3]));
}

/* Rows of a table; an index outside it stops the step. */
BODY embedding_rows(const char *table, const void *index, int wide, char *y, int64_t size, int64_t bytes, int64_t lo, int64_t hi) {
    for (int64_t r = lo; r < hi; r++) {
        int64_t i = index_at(index, r, wide);
        if (i < 0 || i >= size) { atomic_store(&status, 1); return; }
        memcpy(y + r * bytes, table + i * bytes, bytes);
    }
}

/* The columns [lo, hi) of a table's gradient: rows in their order, so that no two threads meet and the sum is always the same. */
BODY embedding_grad_columns(const float *g, const void *index, int wide, float *y, int64_t size, int64_t rows, int64_t C, int64_t lo, int64_t hi) {
    for (int64_t i = 0; i < size; i++) memset(y + i * C + lo, 0, (hi - lo) * sizeof(float));
    for (int64_t r = 0; r < rows; r++) {
        int64_t i = index_at(index, r, wide);
        if (i < 0 || i >= size) { atomic_store(&status, 1); return; }
        for (int64_t j = lo; j < hi; j++) y[i * C + j] += g[r * C + j];
    }
}

BODY layer_norm_rows(const float *RESTRICT x, const float *RESTRICT weight, const float *RESTRICT bias, float *RESTRICT y, float *RESTRICT middle,
                     float *RESTRICT scale, int64_t C, float eps, int64_t lo, int64_t hi) {
    for (int64_t r = lo; r < hi; r++) {
        const float *RESTRICT a = x + r * C;
        float *RESTRICT out = y + r * C, sum, squares;
        SUM(sum, i, C, a[i]);
        float m = sum / C;
        SUM(squares, i, C, (a[i] - m) * (a[i] - m));
        float s = 1.f / sqrtf(squares / C + eps);
        middle[r] = m, scale[r] = s;
        for (int64_t i = 0; i < C; i++) {
            float h = (a[i] - m) * s;
            if (weight) h *= weight[i];
            if (bias) h += bias[i];
            out[i] = h;
        }
    }
}

/* Units are blocks of BLOCK rows: each leaves its own sums of gw and gb, which `column_sums` adds up in a fixed order. */
#define BLOCK 32
BODY layer_norm_grad_blocks(const float *RESTRICT g, const float *RESTRICT x, const float *RESTRICT weight, const float *RESTRICT middle,
                            const float *RESTRICT scale, const float *RESTRICT more, float *RESTRICT gx, float *RESTRICT part_w, float *RESTRICT part_b,
                            int64_t rows, int64_t C, int64_t lo, int64_t hi) {
    for (int64_t block = lo; block < hi; block++) {
        float *RESTRICT gw = part_w + block * C, *RESTRICT gb = part_b + block * C;
        memset(gw, 0, C * sizeof(float)), memset(gb, 0, C * sizeof(float));
        for (int64_t r = block * BLOCK; r < MIN(rows, (block + 1) * BLOCK); r++) {
            const float *RESTRICT d = g + r * C, *RESTRICT a = x + r * C, *RESTRICT e = more + r * C;
            float *RESTRICT out = gx + r * C, m = middle[r], s = scale[r], u_sum, uh_sum;
            SUM2(u_sum, uh_sum, i, C, weight ? d[i] * weight[i] : d[i], (weight ? d[i] * weight[i] : d[i]) * ((a[i] - m) * s));
            u_sum /= C, uh_sum /= C;
            for (int64_t i = 0; i < C; i++) {
                float h = (a[i] - m) * s, u = weight ? d[i] * weight[i] : d[i];
                gw[i] += d[i] * h, gb[i] += d[i];
                float v = (u - h * uh_sum - u_sum) * s;
                out[i] = more ? e[i] + v : v;
            }
        }
    }
}

BODY rms_norm_rows(const float *RESTRICT x, const float *RESTRICT weight, float *RESTRICT y, float *RESTRICT scale, int64_t C, float eps, int64_t lo, int64_t hi) {
    for (int64_t r = lo; r < hi; r++) {
        const float *RESTRICT a = x + r * C;
        float squares;
        SUM(squares, i, C, a[i] * a[i]);
        float s = scale[r] = 1.f / sqrtf(squares / C + eps);
        for (int64_t i = 0; i < C; i++) y[r * C + i] = weight ? a[i] * s * weight[i] : a[i] * s;
    }
}

/* Units are blocks of BLOCK rows, each of which leaves its own sum of gw. */
BODY rms_norm_grad_blocks(const float *RESTRICT g, const float *RESTRICT x, const float *RESTRICT weight, const float *RESTRICT scale, float *RESTRICT gx,
                          float *RESTRICT part, int64_t rows, int64_t C, int64_t lo, int64_t hi) {
    for (int64_t block = lo; block < hi; block++) {
        float *RESTRICT gw = part + block * C;
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

/* Pairs of features turned by their angles: features i and i + half, or, where they stand side by side, 2 i and 2 i + 1. The rest stays. */
BODY rope_row(const float *RESTRICT x, const float *RESTRICT cosine, const float *RESTRICT sine, float *RESTRICT y, int64_t D, int64_t half, int side_by_side) {
    for (int64_t i = 0; i < half; i++) {
        int64_t first = side_by_side ? 2 * i : i, second = side_by_side ? 2 * i + 1 : i + half;
        float a = x[first], b = x[second];
        y[first] = a * cosine[i] - b * sine[i], y[second] = b * cosine[i] + a * sine[i];
    }
    for (int64_t i = 2 * half; i < D; i++) y[i] = x[i];
}

/* Sums of BLOCK rows each: units are blocks. */
BODY block_sums(const float *RESTRICT x, int64_t stride, float *RESTRICT part, int64_t rows, int64_t C, int64_t lo, int64_t hi) {
    for (int64_t block = lo; block < hi; block++) {
        float *RESTRICT out = part + block * C;
        memset(out, 0, C * sizeof(float));
        for (int64_t r = block * BLOCK; r < MIN(rows, (block + 1) * BLOCK); r++) for (int64_t i = 0; i < C; i++) out[i] += x[r * stride + i];
    }
}

/* The columns [lo, hi) of the sum of `blocks` rows. */
BODY column_sums(const float *RESTRICT part, float *RESTRICT y, int64_t blocks, int64_t C, int64_t lo, int64_t hi) {
    for (int64_t i = lo; i < hi; i++) y[i] = part[i];
    for (int64_t b = 1; b < blocks; b++) for (int64_t i = lo; i < hi; i++) y[i] += part[b * C + i];
}

/* GELU by the logistic function: (1 + tanh(u)) / 2 = 1 / (1 + exp(-2 u)), which keeps its digits where tanh(u) is near -1. */
static inline float gelu_slope(float x) { return 0.7978845608028654f * x * (1.f + 0.044715f * (x * x)); }

BODY gelu_tanh_range(const float *RESTRICT x, float *RESTRICT y, int64_t lo, int64_t hi) {
    for (int64_t i = lo; i < hi; i++) y[i] = x[i] / (1.f + exp_beside_1(-2.f * gelu_slope(x[i])));
}

BODY gelu_tanh_grad_range(const float *RESTRICT g, const float *RESTRICT x, float *RESTRICT y, int64_t lo, int64_t hi) {
    for (int64_t i = lo; i < hi; i++) {
        float u = -10.f > x[i] ? -10.f : x[i];  /* beyond 10 the slope is 0 or 1 to the last bit, and the cube may overflow; a NaN stays */
        u = 10.f < u ? 10.f : u;
        int32_t n;
        float p = exp_parts(-2.f * gelu_slope(u), &n), e = p * power_of_two(n), s = 1.f / (1.f + e);
        float d = g[i], slope = s * (1.f + u * (e * s) * (2 * 0.7978845608028654f * (1.f + 3 * 0.044715f * u * u)));
        y[i] = d == 0 ? 0.f : d * slope;  /* a cotangent of 0 asks for nothing, not for 0 * NaN */
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
    for (int64_t j = 0; j < n; j++) s[j] = exp_f(s[j] * scale - top);
    SUM(total, j, n, s[j]);
    if (sum) *sum = total;
    float inverse = 1.f / total;
    for (int64_t j = 0; j < n; j++) s[j] *= inverse;
}

BODY cross_entropy_rows(const float *RESTRICT logits, const void *target, int wide, float *RESTRICT loss, float *RESTRICT total, int64_t V, int64_t ignore,
                        float smoothing, int64_t lo, int64_t hi) {
    for (int64_t r = lo; r < hi; r++) {
        const float *RESTRICT a = logits + r * V;
        int64_t t = index_at(target, r, wide);
        if (t != ignore && (t < 0 || t >= V)) { atomic_store(&status, 1); return; }
        float top = row_max(a, V), sum, all = 0;
        if (isinf(top)) top = 0;
        SUM(sum, i, V, exp_f(a[i] - top));
        total[r] = logf(sum) + top;
        if (smoothing != 0) SUM(all, i, V, a[i]);
        loss[r] = t == ignore ? 0 : (1 - smoothing) * (logf(sum) - (a[t] - top)) + (smoothing != 0 ? smoothing * (logf(sum) - (all / V - top)) : 0);
    }
}

BODY cross_entropy_grad_rows(const float *g, int64_t step, const float *RESTRICT logits, const void *target, int wide, const float *RESTRICT total,
                             float *RESTRICT y, int64_t V, int64_t ignore, float smoothing, int64_t lo, int64_t hi) {
    for (int64_t r = lo; r < hi; r++) {
        const float *RESTRICT a = logits + r * V;
        float *RESTRICT out = y + r * V, w = g[r * step];
        int64_t t = index_at(target, r, wide);
        if (t == ignore) { memset(out, 0, V * sizeof(float)); continue; }
        if (t < 0 || t >= V) { atomic_store(&status, 1); return; }
        float whole = 1;
        if (fabsf(total[r]) > 256 && !isinf(total[r])) {  /* log(sum) has lost digits beside the maximum: a factor of the whole row */
            SUM(whole, i, V, exp_f(a[i] - total[r]));
        }
        for (int64_t i = 0; i < V; i++) out[i] = (exp_f(a[i] - total[r]) / whole - smoothing / V) * w;
        out[t] -= (1 - smoothing) * w;
    }
}

static inline double sum_of_squares(const float *x, int64_t n) {
    double s[8] = {0};
    int64_t w = n - n % 8;
    for (int64_t b = 0; b < w; b += 8) for (int k = 0; k < 8; k++) s[k] += (double)x[b + k] * x[b + k];
    for (int64_t i = w; i < n; i++) s[i - w] += (double)x[i] * x[i];
    return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
}

/* c: b1, 1 - b1, b2, 1 - b2, eps, rate, 1 - lr decay, decay; the corrections for starting at 0 are in eps and rate. */
BODY adam_piece(float *RESTRICT p, const float *RESTRICT g, float *RESTRICT m, float *RESTRICT v, int64_t n, const float *RESTRICT c, int decoupled) {
    float b1 = c[0], a1 = c[1], b2 = c[2], a2 = c[3], eps = c[4], rate = c[5], keep = decoupled ? c[6] : 1.f, decay = decoupled ? 0.f : c[7];
    for (int64_t i = 0; i < n; i++) {
        float w = p[i] * keep, q = decay == 0 ? g[i] : g[i] + decay * p[i];
        float mi = m[i] * b1 + q * a1, vi = v[i] * b2 + q * q * a2;
        m[i] = mi, v[i] = vi;
        p[i] = w - mi / (sqrtf(vi) + eps) * rate;
    }
}

/* c: lr, momentum, the gradient's share in the momentum, decay. */
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

/* Dropout of the elements [lo, hi): word i of Philox 4x32-10 (Salmon et al. 2011) decides on element i; four words come of one counter. */
enum { WAYS = 16 };
static void philox_blocks(uint64_t seed, uint64_t counter, uint32_t words[4][WAYS]) {
    uint32_t x0[WAYS], x1[WAYS], x2[WAYS] = {0}, x3[WAYS] = {0}, k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    for (int i = 0; i < WAYS; i++) x0[i] = (uint32_t)(counter + i), x1[i] = (uint32_t)((counter + i) >> 32);
    for (int round = 0; round < 10; round++, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) for (int i = 0; i < WAYS; i++) {
        uint64_t p0 = (uint64_t)x0[i] * 0xD2511F53u, p1 = (uint64_t)x2[i] * 0xCD9E8D57u;
        uint32_t y0 = (uint32_t)(p1 >> 32) ^ x1[i] ^ k0, y2 = (uint32_t)(p0 >> 32) ^ x3[i] ^ k1;
        x1[i] = (uint32_t)p1, x3[i] = (uint32_t)p0, x0[i] = y0, x2[i] = y2;
    }
    memcpy(words[0], x0, sizeof x0), memcpy(words[1], x1, sizeof x1), memcpy(words[2], x2, sizeof x2), memcpy(words[3], x3, sizeof x3);
}

/* y = x * mask, mask 0 or factor; or, with kept, the decisions alone as bools. */
BODY dropout_range(const float *RESTRICT x, const uint64_t *state, uint64_t before, float *RESTRICT y, float *RESTRICT mask, uint8_t *RESTRICT kept,
                   uint32_t threshold, float factor, int64_t lo, int64_t hi) {
    uint32_t words[4][WAYS];
    for (int64_t block = lo / 4; block * 4 < hi; block += WAYS) {
        philox_blocks(state[0], state[1] + before + block, words);
        for (int64_t i = MAX(lo, block * 4); i < MIN(hi, (block + WAYS) * 4); i++) {
            int keep = words[i & 3][i / 4 - block] >= threshold;
            float m = keep ? factor : 0.f;
            if (kept) kept[i] = keep;
            else mask[i] = m, y[i] = x[i] * m;
        }
    }
}

BODY softmax_rows(const float *RESTRICT x, float *RESTRICT y, int64_t C, int64_t lo, int64_t hi) {
    for (int64_t r = lo; r < hi; r++) memcpy(y + r * C, x + r * C, C * sizeof(float)), softmax_row(y + r * C, C, 1.f, NULL, NULL);
}

BODY logsumexp_rows(const float *RESTRICT x, float *RESTRICT y, int64_t C, int64_t lo, int64_t hi) {
    for (int64_t r = lo; r < hi; r++) {
        const float *RESTRICT a = x + r * C;
        float top = row_max(a, C), sum;
        if (isinf(top)) top = 0;
        SUM(sum, i, C, exp_f(a[i] - top));
        y[r] = logf(sum) + top;
    }
}

BODY max_rows(const float *RESTRICT x, float *RESTRICT y, int64_t C, int64_t lo, int64_t hi) {
    for (int64_t r = lo; r < hi; r++) y[r] = row_max(x + r * C, C);
}

/* --- one position at a time */

typedef float lanes_t __attribute__((vector_size(32), aligned(4), may_alias));

/* y = a b^T (+ bias) (+ more) for a few rows of a, the rows [lo, hi) of b one after the other: a single stream is what the CPU fetches ahead best (38 GB/s
   measured, where four rows side by side came at 15). */
BODY few_rows(const float *RESTRICT a, int64_t lda, const float *RESTRICT b, int64_t ldb, const float *bias, const float *more, float *RESTRICT y, int64_t ldc,
              int64_t M, int64_t N, int64_t K, int64_t lo, int64_t hi) {
    int64_t whole = K - K % 16;
    for (int64_t n = lo; n < hi; n++) {
        const float *RESTRICT w = b + n * ldb;
        float constant = bias ? bias[n] : 0.f;
        int64_t m = 0;
        for (; m + 4 <= M; m += 4) {
            const float *RESTRICT x = a + m * lda;
            lanes_t sums[4][2] = {0};
            for (int64_t k = 0; k < whole; k += 16) {
                lanes_t w0 = *(const lanes_t *)(w + k), w1 = *(const lanes_t *)(w + k + 8);
                for (int r = 0; r < 4; r++) sums[r][0] += w0 * *(const lanes_t *)(x + r * lda + k), sums[r][1] += w1 * *(const lanes_t *)(x + r * lda + k + 8);
            }
            for (int r = 0; r < 4; r++) {
                float sum = tree16((const float *)sums[r]);
                for (int64_t k = whole; k < K; k++) sum += x[r * lda + k] * w[k];
                y[(m + r) * ldc + n] = sum + constant + (more ? more[(m + r) * N + n] : 0.f);
            }
        }
        for (; m < M; m++) {
            const float *RESTRICT x = a + m * lda;
            float sum;
            SUM(sum, i, K, x[i] * w[i]);
            y[m * ldc + n] = sum + constant + (more ? more[m * N + n] : 0.f);
        }
    }
}
