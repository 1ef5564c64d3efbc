
/* --- attention, a pair of batch and head at a time: matrices of a few dozen rows, so that products and rows alternate while all is in the cache */

/* The strides of a (..., T, D) operand with up to three leading axes, in elements; a pair is one place on these. */
typedef struct { int64_t a, b, c, t; } strides_t;
#define AT(x, s, pair) ((x) + (pair) / ((n1) * (n2)) * (s).a + (pair) / (n2) % (n1) * (s).b + (pair) % (n2) * (s).c)

/* Of a mask that broadcasts to (..., T, S): bool, true where a query may look, or float, added to the scores. */
typedef struct { int64_t a, b, c, t, s; } mask_t;
enum { NO_MASK, BOOL_MASK, FLOAT_MASK };
static inline int hides(int kind, const void *mask, int64_t at) {
    return kind == BOOL_MASK ? !((const uint8_t *)mask)[at] : kind == FLOAT_MASK && ((const float *)mask)[at] == -INFINITY;
}

static int all_finite(const float *x, int64_t rows, int64_t columns, int64_t stride) {
    for (int64_t r = 0; r < rows; r++) {
        float sum;
        SUM(sum, j, columns, x[r * stride + j] * 0.f);
        if (sum != 0) return 0;
    }
    return 1;
}

/* A row of P V over the keys that it may see, for values that are not finite: what stands behind the mask counts nothing, not even 0 * NaN. */
static __attribute__((noinline)) void attention_row(const float *p, const float *V, int64_t step, float *o, int64_t keys, int64_t E, int kind, const void *mask,
                                                    int64_t place, int64_t along) {
    for (int64_t e = 0; e < E; e++) {
        float sum = 0;
        for (int64_t j = 0; j < keys; j++) if (!hides(kind, mask, place + j * along)) sum += p[j] * V[j * step + e];
        o[e] = sum;
    }
}

/* The cotangents of one pair query by query, for values that are not finite: a query that nobody asks for and a key without weight add nothing. */
static __attribute__((noinline)) void attention_grad_rows(const float *G, int64_t sg, const float *Q, int64_t sq, const float *K, int64_t sk, const float *V,
        int64_t sv, const uint8_t *kept, float factor, const float *P, float *GQ, int64_t tq, float *GK, int64_t tk, float *GV, int64_t tv, float *d, int64_t T, int64_t S, int64_t D, int64_t E,
        float scale) {
    for (int64_t r = 0; r < T; r++) memset(GQ + r * tq, 0, D * sizeof(float));
    for (int64_t j = 0; j < S; j++) memset(GK + j * tk, 0, D * sizeof(float)), memset(GV + j * tv, 0, E * sizeof(float));
    for (int64_t r = 0; r < T; r++) {
        const float *g = G + r * sg, *p = P + r * S;
        const uint8_t *stays = kept ? kept + r * S : NULL;
        float asked = 0, dot = 0;
        for (int64_t e = 0; e < E; e++) asked = g[e] != 0 ? 1 : asked;
        if (asked == 0) continue;
        for (int64_t j = 0; j < S; j++) {
            if (p[j] == 0) continue;
            d[j] = 0;
            for (int64_t e = 0; e < E; e++) d[j] += V[j * sv + e] * g[e];
            if (stays) d[j] *= stays[j] * factor;
            dot += p[j] * d[j];
        }
        for (int64_t j = 0; j < S; j++) {
            if (p[j] == 0) continue;
            float ds = scale * (p[j] * (d[j] - dot)), w = stays ? p[j] * (stays[j] * factor) : p[j];
            for (int64_t i = 0; i < D; i++) GQ[r * tq + i] += ds * K[j * sk + i], GK[j * tk + i] += ds * Q[r * sq + i];
            for (int64_t e = 0; e < E; e++) GV[j * tv + e] += w * g[e];
        }
    }
}

/* Dropout of probabilities, whose bools lie as they do: d = p * kept * factor for n rows of `seen` numbers. Multiplied, not selected: GCC 12 may read memory
   under a condition with another row's condition. */
BODY drop_rows(const float *RESTRICT p, const uint8_t *RESTRICT kept, float factor, float *RESTRICT d, int64_t n, int64_t seen, int64_t S) {
    for (int64_t r = 0; r < n; r++) for (int64_t j = 0; j < seen; j++) d[r * S + j] = p[r * S + j] * (kept[r * S + j] * factor);
}

/* softmax(scale q k^T) v, the probabilities kept in p: (pairs, T, S). Queries go in groups of ROWS, whose keys end at the last one's causal edge. With
   dropout (`kept` is not NULL) the dropped ones, which meet v, stand in `dropped`, (ROWS, S). room: PANELS(S, D) + PANELS(E, S). */
BODY attention_pairs(const float *q, strides_t sq, const float *k, strides_t sk, const float *v, strides_t sv, int kind, const void *mask, mask_t sm,
                     const uint8_t *kept, float factor, float *dropped, float *o, strides_t so, float *p, float *room, int64_t n1, int64_t n2, int64_t T,
                     int64_t S, int64_t D, int64_t E, float scale, int causal, int64_t offset, int64_t lo, int64_t hi) {
    float *keys_across = room, *values = room + PANELS(S, D);
    for (int64_t pair = lo; pair < hi; pair++) {
        const float *Q = AT(q, sq, pair), *V = AT(v, sv, pair);
        float *O = AT(o, so, pair), *P = p + pair * T * S;
        int64_t first = AT(0, sm, pair);
        pack(1, S, D, AT(k, sk, pair), sk.t, keys_across), pack(0, E, S, V, sv.t, values);
        for (int64_t t = 0; t < T; t += ROWS) {
            int64_t n = MIN(ROWS, T - t), keys = causal ? MAX(0, MIN(S, t + n + offset)) : S;
            tiles(0, n, keys, D, Q + t * sq.t, sq.t, keys_across, D, NULL, NULL, 0, P + t * S, S);
            for (int64_t r = t; r < t + n; r++) {
                int64_t seen = causal ? MAX(0, MIN(S, r + 1 + offset)) : S, place = first + r * sm.t;
                float *RESTRICT s = P + r * S;
                if (kind == BOOL_MASK) for (int64_t j = 0; j < seen; j++) {
                    float x = s[j];
                    s[j] = ((const uint8_t *)mask)[place + j * sm.s] ? x : -INFINITY;
                }
                if (kind == FLOAT_MASK) for (int64_t j = 0; j < seen; j++) {
                    float x = s[j], m = ((const float *)mask)[place + j * sm.s];
                    s[j] = m == -INFINITY ? m : x * scale + m;
                }
                softmax_row(s, seen, kind == FLOAT_MASK ? 1.f : scale);
                memset(s + seen, 0, (S - seen) * sizeof(float));
            }
            const float *W = P + t * S;
            if (kept) drop_rows(W, kept + (pair * T + t) * S, factor, dropped, n, keys, S), W = dropped;
            tiles(0, n, E, keys, W, S, values, S, NULL, NULL, 0, O + t * so.t, so.t);
            if (all_finite(O + t * so.t, n, E, so.t)) continue;
            for (int64_t r = t; r < t + n; r++)
                attention_row(W + (r - t) * S, V, sv.t, O + r * so.t, causal ? MAX(0, MIN(S, r + 1 + offset)) : S, E, kind, mask, first + r * sm.t, sm.s);
        }
    }
}

/* Backward goes through tiles of queries: dS and dq row group by row group, then dk and dv key group by key group, each from the first query that sees it.
   d: (TILE, S), with dropout twice that. room: PANELS(S, E) + PANELS(D, S) + PANELS(D, T) + PANELS(E, T). */
#define TILE 96
BODY attention_grad_pairs(const float *g, strides_t sg, const float *q, strides_t sq, const float *k, strides_t sk, const float *v, strides_t sv,
                          const uint8_t *kept, float factor, const float *p, float *gq, strides_t tq, float *gk, strides_t tk, float *gv, strides_t tv,
                          float *d, float *room, int64_t n1, int64_t n2, int64_t T, int64_t S, int64_t D, int64_t E, float scale, int causal, int64_t offset,
                          int64_t lo, int64_t hi) {
    float *values_across = room, *keys_down = values_across + PANELS(S, E), *queries = keys_down + PANELS(D, S), *cotangents = queries + PANELS(D, T);
    for (int64_t pair = lo; pair < hi; pair++) {
        int64_t last = causal ? MAX(0, MIN(S, T + offset)) : S;
        const float *G = AT(g, sg, pair), *Q = AT(q, sq, pair), *K = AT(k, sk, pair), *V = AT(v, sv, pair), *P = p + pair * T * S;
        float *GQ = AT(gq, tq, pair), *GK = AT(gk, tk, pair), *GV = AT(gv, tv, pair);
        pack(1, S, E, V, sv.t, values_across), pack(0, D, S, K, sk.t, keys_down), pack(0, D, T, Q, sq.t, queries), pack(0, E, T, G, sg.t, cotangents);
        for (int64_t r = last; r < S; r++) memset(GK + r * tk.t, 0, D * sizeof(float)), memset(GV + r * tv.t, 0, E * sizeof(float));
        /* The last tile sees the most keys: it writes, the others add. */
        for (int64_t t = (T - 1) / TILE * TILE; t >= 0; t -= TILE) {
            int64_t n = MIN(TILE, T - t), most = causal ? MAX(0, MIN(S, t + n + offset)) : S;
            const float *W = kept ? d + TILE * S : P + t * S;
            for (int64_t r = t; r < t + n; r += ROWS) {
                int64_t rows = MIN(ROWS, t + n - r), keys = causal ? MAX(0, MIN(S, r + rows + offset)) : S;
                float *e = d + (r - t) * S;
                tiles(0, rows, keys, E, G + r * sg.t, sg.t, values_across, E, NULL, NULL, 0, e, S);
                if (kept) {
                    const uint8_t *stays = kept + (pair * T + r) * S;
                    drop_rows(e, stays, factor, e, rows, keys, S), drop_rows(P + r * S, stays, factor, d + (TILE + r - t) * S, rows, most, S);
                }
                for (int64_t i = 0; i < rows; i++) {
                    int64_t seen = causal ? MAX(0, MIN(S, r + i + 1 + offset)) : S;
                    const float *RESTRICT a = P + (r + i) * S;
                    float *RESTRICT x = e + i * S, dot;
                    SUM(dot, j, seen, a[j] * x[j]);
                    for (int64_t j = 0; j < seen; j++) x[j] = a[j] * (x[j] - dot) * scale;
                    memset(x + seen, 0, (most - seen) * sizeof(float));
                }
                tiles(0, rows, D, keys, e, S, keys_down, S, NULL, NULL, 0, GQ + r * tq.t, tq.t);
            }
            for (int64_t j = 0; j < most; j += ROWS) {
                int64_t rows = MIN(ROWS, most - j), from = causal ? MAX(0, MIN(n, j - t - offset)) : 0;
                float *dk = GK + j * tk.t, *dv = GV + j * tv.t;
                const float *dk0 = t + n < T ? dk : NULL, *dv0 = t + n < T ? dv : NULL;
                tiles(1, rows, D, n - from, d + from * S + j, S, queries + (t + from) * WIDE, T, NULL, dk0, tk.t, dk, tk.t);
                tiles(1, rows, E, n - from, W + from * S + j, S, cotangents + (t + from) * WIDE, T, NULL, dv0, tv.t, dv, tv.t);
            }
        }
        if (!all_finite(GQ, T, D, tq.t) || !all_finite(GK, S, D, tk.t) || !all_finite(GV, S, E, tv.t))
            attention_grad_rows(G, sg.t, Q, sq.t, K, sk.t, V, sv.t, kept ? kept + pair * T * S : NULL, factor, P, GQ, tq.t, GK, tk.t, GV, tv.t, d, T, S, D, E,
                                scale);
    }
}
