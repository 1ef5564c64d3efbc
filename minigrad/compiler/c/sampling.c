
/* --- the next token: see models/sampling.py, whose steps these are, in the same order */

/* A heap of places of x: on top the largest, of equals the first. */
static int goes_first(const double *x, int64_t a, int64_t b) { return x[a] > x[b] || (x[a] == x[b] && a < b); }
static void sift(const double *x, int64_t *heap, int64_t n, int64_t at) {
    int64_t moved = heap[at];
    for (int64_t j; (j = 2 * at + 1) < n; at = j) {
        j += j + 1 < n && goes_first(x, heap[j + 1], heap[j]);
        if (!goes_first(x, heap[j], moved)) break;
        heap[at] = heap[j];
    }
    heap[at] = moved;
}
static void make_heap(const double *x, int64_t *heap, int64_t n) {
    for (int64_t i = 0; i < n; i++) heap[i] = i;
    for (int64_t i = n / 2; i-- > 0;) sift(x, heap, n, i);
}
static int64_t pop(const double *x, int64_t *heap, int64_t n) {
    int64_t first = heap[0];
    heap[0] = heap[n - 1];
    sift(x, heap, n - 1, 0);
    return first;
}

/* One of V tokens by their logits x less the largest, which become the distribution. set: temperature, top_k (0: all), top_p, min_p. unit: in [0, 1). */
static int64_t draw_token(double *RESTRICT x, int64_t *RESTRICT heap, int64_t V, const double *set, double unit) {
    double total = 0, kept = 0, edge = 0, largest = 0;
    int64_t k = (int64_t)set[1], y = 0, v;
    for (v = 0; v < V; v++) x[v] /= set[0];
    if (k && k < V) {
        make_heap(x, heap, V);
        for (int64_t n = V; n > V - k; n--) v = pop(x, heap, n);
        double least = x[v];
        for (v = 0; v < V; v++) if (x[v] < least) x[v] = -INFINITY;
    }
    for (v = 0; v < V; v++) total += x[v] = exp(x[v]);
    for (v = 0; v < V; v++) x[v] /= total, largest = MAX(largest, x[v]);
    if (set[2] < 1) {
        double reached = 0;
        int64_t n = V;
        make_heap(x, heap, V);
        for (; n && (reached += x[heap[0]]) - x[heap[0]] < set[2]; n--) pop(x, heap, n);
        for (; n; n--) x[heap[n - 1]] = 0;
    }
    for (v = 0; v < V; v++) kept += x[v] = x[v] < set[3] * largest ? 0 : x[v];
    for (v = 0; v < V; v++) x[v] = edge += x[v] / kept;
    while (y < V - 1 && x[y] <= unit * edge) y++;
    return y;
}

/* op sample_: lowered by sampling.py */
static void sample_rows(int64_t *tokens, int64_t *length, int64_t *left, uint64_t *state, int64_t *seen, uint8_t *ended, int64_t *drawn, double *scores,
                        const float *logits, const double *set, const uint8_t *stops, double *x, int64_t *heap, int64_t B, int64_t V, int64_t capacity) {
    uint32_t words[4][WAYS];
    float penalty = (float)set[4];
    int going = 0;
    for (int64_t b = 0; b < B; b++, logits += V, seen += V) {
        int64_t y = 0;
        float top = -INFINITY;
        for (int64_t v = 0; v < V; v++) {
            float logit = logits[v];
            if (seen[v] && penalty != 1) logit = logit > 0 ? logit / penalty : logit * penalty;
            if (logit > top || logit != logit) top = logit, y = v;
            x[v] = logit;
        }
        if (!isfinite(top)) { atomic_store(&status, 1); return; }
        if (set[0] != 0) {
            for (int64_t v = 0; v < V; v++) x[v] -= top;
            if (b % (4 * WAYS) == 0) philox_blocks(state[0], state[1] + b / 4, words);
            y = draw_token(x, heap, V, set, (words[b % 4][b / 4 % WAYS] >> 8) * 0x1p-24);
        }
        if (set[5] != 0) {
            double largest = logits[0], total = 0;
            for (int64_t v = 1; v < V; v++) largest = MAX(largest, logits[v]);
            for (int64_t v = 0; v < V; v++) total += exp(logits[v] - largest);
            scores[b * capacity + *length] = logits[y] - largest - log(total);
        }
        tokens[b] = drawn[b * capacity + *length] = y, seen[y]++;
        going += !(ended[b] |= stops[y]);
    }
    if (set[0] != 0) state[1] += (B + 3) / 4;
    ++*length, *left = going ? *left - 1 : 0;
}
