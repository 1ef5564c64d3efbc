
/* --- attention, a pair of batch and head at a time: matrices of a few dozen rows, so that products and rows alternate while all is in the cache */

/* The strides of a (..., T, D) operand with up to three leading axes, in elements; a pair is one place on these. */
typedef struct { int64_t a, b, c, t; } strides_t;
#define AT(x, s, pair) ((x) + (pair) / (a.n1 * a.n2) * (s).a + (pair) / a.n2 % a.n1 * (s).b + (pair) % a.n2 * (s).c)

/* Of a mask that broadcasts to (..., T, S): bool, true where a query may look, or float, added to the scores. */
typedef struct { int64_t a, b, c, t, s; } mask_t;
enum { NO_MASK, BOOL_MASK, FLOAT_MASK };

/* What is the same for all pairs: sizes (pairs are n1 n2 per place on the first axis), how scores are made, and what dropout keeps, if it is there. */
typedef struct {
    int64_t n1, n2, T, S, D, E;
    float scale;
    int causal;  /* query i sees the keys j <= i + offset */
    int64_t offset, window;  /* and, with a window, only the keys j > i + offset - window */
    const float *slopes;  /* ALiBi: -slope |i + center - j| is added, head by head, or NULL */
    int64_t heads, center;
    int kind;
    const void *mask;
    mask_t sm;
    const uint8_t *kept;  /* laid out as the probabilities */
    float factor;
} attention_t;
#define SEEN(r) (a.causal ? MAX(0, MIN(a.S, (r) + 1 + a.offset)) : a.S)  /* how many keys query r sees, the masked ones among them */
#define FIRST(r) (a.window ? MAX(0, MIN(SEEN(r), (r) + a.offset - a.window + 1)) : 0)  /* the first of them */

static int all_finite(const float *x, int64_t rows, int64_t columns, int64_t stride) {
    for (int64_t r = 0; r < rows; r++) {
        float sum;
        SUM(sum, j, columns, x[r * stride + j] * 0.f);
        if (sum != 0) return 0;
    }
    return 1;
}

/* The scores of n queries from t on, which see no more than `keys` keys, row by row at s; with a float mask or slopes in them they are scaled. */
BODY score_rows(attention_t a, int64_t pair, const float *Q, int64_t step, const float *keys_across, int64_t t, int64_t n, int64_t keys, float *s) {
    tiles(BFLOAT16, 0, n, keys, a.D, Q + t * step, step, keys_across, a.D, NULL, NULL, 0, s, a.S);
    for (int64_t r = t; r < t + n; r++, s += a.S) {
        int64_t seen = SEEN(r), place = AT(0, a.sm, pair) + r * a.sm.t;
        if (a.kind == BOOL_MASK) for (int64_t j = 0; j < seen; j++) {
            float x = s[j];
            s[j] = ((const uint8_t *)a.mask)[place + j * a.sm.s] ? x : -INFINITY;
        }
        if (a.kind == FLOAT_MASK) for (int64_t j = 0; j < seen; j++) {
            float x = s[j], m = ((const float *)a.mask)[place + j * a.sm.s];
            s[j] = m == -INFINITY ? m : x * a.scale + m;
        }
        if (a.slopes) {
            float slope = a.slopes[pair % a.heads], scale = a.kind == FLOAT_MASK ? 1.f : a.scale, at = r + a.center;
            for (int64_t j = 0; j < seen; j++) s[j] = s[j] * scale - slope * fabsf(at - j);
        }
        for (int64_t j = 0; j < FIRST(r); j++) s[j] = -INFINITY;
    }
}
enum { GROUP = AMX ? 32 : ROWS };  /* queries at a time */
#define LEFT_SCALE (a.kind == FLOAT_MASK || a.slopes ? 1.f : a.scale)

/* Scores become the probabilities that they became before, by the row's largest score and its sum of exponentials. */
BODY weights_row(float *RESTRICT s, int64_t n, float scale, float top, float total) {
    float inverse = total == 0 ? 0.f : 1.f / total;
    if (top == -INFINITY) memset(s, 0, n * sizeof(float));
    else if (top == INFINITY) for (int64_t j = 0; j < n; j++) { float x = s[j]; s[j] = x == INFINITY ? inverse : 0.f; }
    else for (int64_t j = 0; j < n; j++) s[j] = exp_beside_1(s[j] * scale - top) * inverse;
}

/* A row of P V for values that are not finite: what has no weight counts nothing, not even 0 * NaN. */
static ONCE void attention_row(const float *p, const float *V, int64_t step, float *o, int64_t keys, int64_t E) {
    for (int64_t e = 0; e < E; e++) {
        float sum = 0;
        for (int64_t j = 0; j < keys; j++) if (p[j] != 0) sum += operand(p[j]) * operand(V[j * step + e]);
        o[e] = sum;
    }
}

/* What one query adds to the cotangents, for values that are not finite: a cotangent of 0 and a key without weight add nothing. d: (S). */
BODY attention_grad_row(attention_t a, const float *g, const float *q, const float *K, int64_t sk, const float *V, int64_t sv, const uint8_t *stays,
                        const float *p, float *gq, float *GK, int64_t tk, float *GV, int64_t tv, float *d) {
    float asked = 0, dot = 0;
    for (int64_t e = 0; e < a.E; e++) asked = g[e] != 0 ? 1 : asked;
    if (asked == 0) return;
    for (int64_t j = 0; j < a.S; j++) {
        if (p[j] == 0) continue;
        d[j] = 0;
        for (int64_t e = 0; e < a.E; e++) d[j] += operand(V[j * sv + e]) * operand(g[e]);
        if (stays) d[j] *= stays[j] * a.factor;
        dot += p[j] * d[j];
    }
    for (int64_t j = 0; j < a.S; j++) {
        if (p[j] == 0) continue;
        float ds = operand(a.scale * (p[j] * (d[j] - dot))), w = operand(stays ? p[j] * (stays[j] * a.factor) : p[j]);
        for (int64_t i = 0; i < a.D; i++) gq[i] += ds * operand(K[j * sk + i]), GK[j * tk + i] += ds * operand(q[i]);
        for (int64_t e = 0; e < a.E; e++) GV[j * tv + e] += w * operand(g[e]);
    }
}

/* Dropout of n rows of `seen` probabilities: d = p * kept * factor. Multiplied, not selected: GCC 12 may read memory under a condition with another row's
   condition. */
BODY drop_rows(const float *RESTRICT p, const uint8_t *RESTRICT kept, float factor, float *RESTRICT d, int64_t n, int64_t seen, int64_t S) {
    for (int64_t r = 0; r < n; r++) for (int64_t j = 0; j < seen; j++) d[r * S + j] = p[r * S + j] * (kept[r * S + j] * factor);
}

/* softmax(scale q k^T) v. Queries go in groups of GROUP, whose keys end at the last one's causal edge. The probabilities are kept in p, (pairs, T, S); or p is
   NULL, and the largest score and the sum of exponentials of each query are kept, in stats, (pairs, T, 2). Dropped ones, which are multiplied with v, are in
   `rows`, (GROUP, S), and so are those that are not kept. scratch: PANELS(S, D) + PANELS(E, S). across: keys are stored feature by feature, sk.t apart. */
/* op attention: p may be NULL; tiled; any strides */
BODY attention_pairs(attention_t a, int across, const float *q, strides_t sq, const float *k, strides_t sk, const float *v, strides_t sv, float *o, strides_t so,
                     float *p, float *stats, float *rows, float *scratch, int64_t lo, int64_t hi) {
    float *keys_across = scratch, *values = scratch + PANELS(a.S, a.D);
    for (int64_t pair = lo; pair < hi; pair++) {
        const float *Q = AT(q, sq, pair), *K = AT(k, sk, pair), *V = AT(v, sv, pair);
        float *O = AT(o, so, pair);
        if (pair == lo || K != AT(k, sk, pair - 1)) pack(BFLOAT16, !across, a.S, a.D, K, sk.t, keys_across);  /* heads may share them */
        if (pair == lo || V != AT(v, sv, pair - 1)) pack(BFLOAT16, 0, a.E, a.S, V, sv.t, values);
        for (int64_t t = 0; t < a.T; t += GROUP) {
            int64_t n = MIN(GROUP, a.T - t), keys = SEEN(t + n - 1);
            float *P = p ? p + (pair * a.T + t) * a.S : rows, *W = P;
            score_rows(a, pair, Q, sq.t, keys_across, t, n, keys, P);
            for (int64_t r = 0; r < n; r++) {
                int64_t seen = SEEN(t + r);
                float *two = stats ? stats + 2 * (pair * a.T + t + r) : NULL;
                softmax_row(P + r * a.S, seen, LEFT_SCALE, two, two ? two + 1 : NULL);
                memset(P + r * a.S + seen, 0, ((p ? a.S : keys) - seen) * sizeof(float));
            }
            if (a.kept) drop_rows(P, a.kept + (pair * a.T + t) * a.S, a.factor, rows, n, keys, a.S), W = rows;
            tiles(BFLOAT16, 0, n, a.E, keys, W, a.S, values, a.S, NULL, NULL, 0, O + t * so.t, so.t);
            if (all_finite(O + t * so.t, n, a.E, so.t)) continue;
            for (int64_t r = t; r < t + n; r++)
                attention_row(W + (r - t) * a.S, V, sv.t, O + r * so.t, SEEN(r), a.E);
        }
    }
}

/* Backward goes through tiles of queries: dS and dq row group by row group, then dk and dv key group by key group, each from the first query that sees it.
   Where p is NULL, probabilities are made again from stats. d: (2 QUERIES, S), half of that if p is there and dropout not; dS is in the first half,
   the weights for dv in the second. scratch: PANELS(S, D) + PANELS(S, E) + PANELS(D, S) + PANELS(D, T) + PANELS(E, T). */
#define QUERIES 96
/* op attention_grad: tiled; any strides */
BODY attention_grad_pairs(attention_t a, const float *g, strides_t sg, const float *q, strides_t sq, const float *k, strides_t sk, const float *v, strides_t sv,
                          const float *p, const float *stats, float *gq, strides_t tq, float *gk, strides_t tk, float *gv, strides_t tv,
                          float *d, float *scratch, int64_t lo, int64_t hi) {
    int64_t T = a.T, S = a.S, D = a.D, E = a.E;
    float *keys_across = scratch, *values_across = keys_across + PANELS(S, D), *keys_down = values_across + PANELS(S, E), *queries = keys_down + PANELS(D, S);
    float *cotangents = queries + PANELS(D, T), *second = d + QUERIES * S;
    for (int64_t pair = lo; pair < hi; pair++) {
        int64_t last = SEEN(T - 1);
        const float *G = AT(g, sg, pair), *Q = AT(q, sq, pair), *K = AT(k, sk, pair), *V = AT(v, sv, pair);
        float *GQ = AT(gq, tq, pair), *GK = AT(gk, tk, pair), *GV = AT(gv, tv, pair);
        const uint8_t *kept = a.kept ? a.kept + pair * T * S : NULL;
        pack(BFLOAT16, 1, S, E, V, sv.t, values_across), pack(BFLOAT16, 0, D, S, K, sk.t, keys_down), pack(BFLOAT16, 0, D, T, Q, sq.t, queries), pack(BFLOAT16, 0, E, T, G, sg.t, cotangents);
        if (!p) pack(BFLOAT16, 1, S, D, K, sk.t, keys_across);
        for (int64_t r = last; r < S; r++) memset(GK + r * tk.t, 0, D * sizeof(float)), memset(GV + r * tv.t, 0, E * sizeof(float));
        /* The last tile sees the most keys: it writes, the others add. */
        for (int64_t t = (T - 1) / QUERIES * QUERIES; t >= 0; t -= QUERIES) {
            int64_t n = MIN(QUERIES, T - t), most = SEEN(t + n - 1);
            for (int64_t r = t; r < t + n; r += GROUP) {
                int64_t rows = MIN(GROUP, t + n - r), keys = SEEN(r + rows - 1);
                float *e = d + (r - t) * S, *w = second + (r - t) * S;
                const float *P = p ? p + (pair * T + r) * S : w;
                tiles(BFLOAT16, 0, rows, keys, E, G + r * sg.t, sg.t, values_across, E, NULL, NULL, 0, e, S);
                if (!p) score_rows(a, pair, Q, sq.t, keys_across, r, rows, keys, w);
                if (kept) drop_rows(e, kept + r * S, a.factor, e, rows, keys, S);
                for (int64_t i = 0; i < rows; i++) {
                    int64_t seen = SEEN(r + i);
                    const float *two = p ? NULL : stats + 2 * (pair * T + r + i);
                    if (!p) weights_row(w + i * S, seen, LEFT_SCALE, two[0], two[1]), memset(w + i * S + seen, 0, (most - seen) * sizeof(float));
                    const float *RESTRICT b = P + i * S;
                    float *RESTRICT x = e + i * S, dot;
                    SUM(dot, j, seen, b[j] * x[j]);
                    for (int64_t j = 0; j < seen; j++) x[j] = b[j] * (x[j] - dot) * a.scale;
                    memset(x + seen, 0, (most - seen) * sizeof(float));
                }
                /* Not before: where p is NULL, w holds the scores until then, and dS is made of all probabilities. */
                if (kept) drop_rows(P, kept + r * S, a.factor, w, rows, most, S);
                tiles(BFLOAT16, 0, rows, D, keys, e, S, keys_down, S, NULL, NULL, 0, GQ + r * tq.t, tq.t);
            }
            const float *W = p && !kept ? p + (pair * T + t) * S : second;
            for (int64_t j = 0; j < most; j += GROUP) {
                int64_t rows = MIN(GROUP, most - j), from = a.causal ? MAX(0, MIN(n, j - t - a.offset)) / GRAIN(BFLOAT16) * GRAIN(BFLOAT16) : 0;
                float *dk = GK + j * tk.t, *dv = GV + j * tv.t;
                const float *dk0 = t + n < T ? dk : NULL, *dv0 = t + n < T ? dv : NULL;
                tiles(BFLOAT16, 1, rows, D, n - from, d + from * S + j, S, queries + SLOTS(BFLOAT16, t + from) * WIDE, T, NULL, dk0, tk.t, dk, tk.t);
                tiles(BFLOAT16, 1, rows, E, n - from, W + from * S + j, S, cotangents + SLOTS(BFLOAT16, t + from) * WIDE, T, NULL, dv0, tv.t, dv, tv.t);
            }
        }
        if (all_finite(GQ, T, D, tq.t) && all_finite(GK, S, D, tk.t) && all_finite(GV, S, E, tv.t)) continue;
        for (int64_t r = 0; r < T; r++) memset(GQ + r * tq.t, 0, D * sizeof(float));
        for (int64_t j = 0; j < S; j++) memset(GK + j * tk.t, 0, D * sizeof(float)), memset(GV + j * tv.t, 0, E * sizeof(float));
        for (int64_t r = 0; r < T; r++) {
            if (!p) {
                score_rows(a, pair, Q, sq.t, keys_across, r, 1, SEEN(r), second);
                weights_row(second, SEEN(r), LEFT_SCALE, stats[2 * (pair * T + r)], stats[2 * (pair * T + r) + 1]);
                memset(second + SEEN(r), 0, (S - SEEN(r)) * sizeof(float));
            }
            attention_grad_row(a, G + r * sg.t, Q + r * sq.t, K, sk.t, V, sv.t, kept ? kept + r * S : NULL, p ? p + (pair * T + r) * S : second, GQ + r * tq.t,
                               GK, tk.t, GV, tv.t, d);
        }
    }
}

/* --- a cache whose length the kernels read when they run */

typedef struct { int64_t b, h, t, d; } places_t;  /* strides of a (B, H, T, D) operand, in elements */

/* Write the T positions of `new` into the cache, after those that it holds, for the pairs [lo, hi). */
BODY append_pairs(float *RESTRICT cache, places_t to, const float *RESTRICT new, places_t from, const int64_t *length, int64_t H, int64_t T, int64_t capacity,
                  int64_t D, int64_t lo, int64_t hi) {
    if (*length < 0 || *length + T > capacity) { atomic_store(&status, 1); return; }
    for (int64_t pair = lo; pair < hi; pair++) for (int64_t t = 0; t < T; t++) for (int64_t d = 0; d < D; d++)
        cache[pair / H * to.b + pair % H * to.h + (*length + t) * to.t + d * to.d] = new[pair / H * from.b + pair % H * from.h + t * from.t + d * from.d];
}

/* Attention of a few queries to the *length positions before them and to themselves. Keys are stored feature by feature, sk.t apart, values position by
   position. The scores of a pair are in its row of s. */
BODY cached_attention_pairs(attention_t a, const int64_t *length, const float *RESTRICT q, strides_t sq, const float *RESTRICT keys, strides_t sk,
                            const float *RESTRICT values, strides_t sv, float *RESTRICT o, strides_t so, float *RESTRICT s, int64_t lo, int64_t hi) {
    for (int64_t pair = lo; pair < hi; pair++) for (int64_t t = 0; t < a.T; t++) {
        int64_t n = MAX(0, MIN(a.S, *length + t + 1)), place = AT(0, a.sm, pair) + t * a.sm.t, d = 0, j = 0;
        const float *RESTRICT x = AT(q, sq, pair) + t * sq.t, *RESTRICT k = AT(keys, sk, pair), *RESTRICT v = AT(values, sv, pair);
        float *RESTRICT p = s + pair * a.S, *RESTRICT y = AT(o, so, pair) + t * so.t;
        for (int64_t i = 0; i < n; i++) p[i] = 0;
        for (; d + 4 <= a.D; d += 4) {
            const float *RESTRICT k0 = k + d * sk.t, *RESTRICT k1 = k0 + sk.t, *RESTRICT k2 = k1 + sk.t, *RESTRICT k3 = k2 + sk.t;
            for (int64_t i = 0; i < n; i++) p[i] += (operand(x[d]) * operand(k0[i]) + operand(x[d + 1]) * operand(k1[i])) + (operand(x[d + 2]) * operand(k2[i]) + operand(x[d + 3]) * operand(k3[i]));
        }
        for (; d < a.D; d++) for (int64_t i = 0; i < n; i++) p[i] += operand(x[d]) * operand(k[d * sk.t + i]);
        if (a.kind == BOOL_MASK) for (int64_t i = 0; i < n; i++) {
            float score = p[i];
            p[i] = ((const uint8_t *)a.mask)[place + i * a.sm.s] ? score : -INFINITY;
        }
        softmax_row(p, n, a.scale, NULL, NULL);
        for (int64_t e = 0; e < a.E; e++) y[e] = 0;
        for (int64_t i = 0; i < n; i++) p[i] = operand(p[i]);
        for (; j + 4 <= n; j += 4) {
            const float *RESTRICT v0 = v + j * sv.t, *RESTRICT v1 = v0 + sv.t, *RESTRICT v2 = v1 + sv.t, *RESTRICT v3 = v2 + sv.t;
            for (int64_t e = 0; e < a.E; e++) y[e] += (p[j] * operand(v0[e]) + p[j + 1] * operand(v1[e])) + (p[j + 2] * operand(v2[e]) + p[j + 3] * operand(v3[e]));
        }
        for (; j < n; j++) for (int64_t e = 0; e < a.E; e++) y[e] += p[j] * operand(v[j * sv.t + e]);
        if (!all_finite(y, 1, a.E, a.E)) attention_row(p, v, sv.t, y, n, a.E);
    }
}
