
/* --- reductions along one axis, where kernels.c does not have them: of rows, and of strips of up to STRIP columns side by side */

#define STRIP 64

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
BODY argmax_rows(const float *RESTRICT x, int64_t *RESTRICT y, int64_t C, int64_t lo, int64_t hi) { extreme_places(x, y, C, 1.f, lo, hi); }
BODY argmin_rows(const float *RESTRICT x, int64_t *RESTRICT y, int64_t C, int64_t lo, int64_t hi) { extreme_places(x, y, C, -1.f, lo, hi); }

/* x - log(sum exp x) of one number: `rest` is x without the maximum, `log_sum` the logarithm of the sum of exp(rest). Rows of -inf stay what they are;
   +inf is 0, and what stands beside it -inf. */
static inline float without_log_sum(float x, float rest, float log_sum) {
    float beside = x == INFINITY ? 0.f : -INFINITY, usual = rest - log_sum;
    float y = log_sum == INFINITY ? beside : usual;
    return x == -INFINITY ? x : y;
}

BODY log_softmax_rows(const float *RESTRICT x, float *RESTRICT y, int64_t C, int64_t lo, int64_t hi) {
    for (int64_t r = lo; r < hi; r++) {
        const float *RESTRICT a = x + r * C;
        float top = row_max(a, C), sum;
        if (!isfinite(top)) top = 0;
        SUM(sum, i, C, exp_f(a[i] - top));
        float log_sum = logf(sum);
        for (int64_t i = 0; i < C; i++) y[r * C + i] = without_log_sum(a[i], a[i] - top, log_sum);
    }
}

/* 1 / count at each of the `count` places where x is y. */
BODY tie_shares_rows(const float *RESTRICT x, const float *RESTRICT y, float *RESTRICT shares, int64_t C, int64_t lo, int64_t hi) {
    for (int64_t r = lo; r < hi; r++) {
        const float *RESTRICT a = x + r * C, top = y[r];
        int32_t count = 0;
        for (int64_t i = 0; i < C; i++) count += a[i] == top;
        float share = (float)(1.0 / MAX(count, 1));
        for (int64_t i = 0; i < C; i++) shares[r * C + i] = a[i] == top ? share : 0.f;
    }
}

/* Strips: n columns from x on, in C rows that lie `inner` apart. */

BODY strip_extreme(const float *RESTRICT x, int64_t C, int64_t inner, int64_t n, float sign, float *RESTRICT top) {
    for (int64_t i = 0; i < n; i++) top[i] = sign * x[i];
    for (int64_t c = 1; c < C; c++) for (int64_t i = 0; i < n; i++) top[i] = max_f(top[i], sign * x[c * inner + i]);
}

/* total[i]: the sum of `term` over the rows c, in blocks of BLOCK. */
#define STRIP_SUM(total, c, i, term) do { \
    float part_[STRIP]; \
    for (int64_t i = 0; i < n; i++) total[i] = 0; \
    for (int64_t first_ = 0; first_ < C; first_ += BLOCK) { \
        for (int64_t i = 0; i < n; i++) part_[i] = 0; \
        for (int64_t c = first_; c < MIN(C, first_ + BLOCK); c++) for (int64_t i = 0; i < n; i++) part_[i] += (term); \
        for (int64_t i = 0; i < n; i++) total[i] += part_[i]; \
    } } while (0)

BODY sum_strip(const float *RESTRICT x, float *RESTRICT y, int64_t C, int64_t inner, int64_t n) {
    float total[STRIP];
    STRIP_SUM(total, c, i, x[c * inner + i]);
    for (int64_t i = 0; i < n; i++) y[i] = total[i];
}

BODY max_strip(const float *RESTRICT x, float *RESTRICT y, int64_t C, int64_t inner, int64_t n) { strip_extreme(x, C, inner, n, 1.f, y); }

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
BODY argmax_strip(const float *RESTRICT x, int64_t *RESTRICT y, int64_t C, int64_t inner, int64_t n) { strip_places(x, y, C, inner, n, 1.f); }
BODY argmin_strip(const float *RESTRICT x, int64_t *RESTRICT y, int64_t C, int64_t inner, int64_t n) { strip_places(x, y, C, inner, n, -1.f); }

/* The maximum, 0 where it is not finite, and log(sum(exp(x - top))). */
BODY strip_without_top(const float *RESTRICT x, int64_t C, int64_t inner, int64_t n, float *RESTRICT top, float *RESTRICT log_sum) {
    strip_extreme(x, C, inner, n, 1.f, top);
    for (int64_t i = 0; i < n; i++) {
        float m = top[i];
        top[i] = isfinite(m) ? m : 0.f;
    }
    STRIP_SUM(log_sum, c, i, exp_f(x[c * inner + i] - top[i]));
    for (int64_t i = 0; i < n; i++) log_sum[i] = logf(log_sum[i]);
}

BODY logsumexp_strip(const float *RESTRICT x, float *RESTRICT y, int64_t C, int64_t inner, int64_t n) {
    float top[STRIP], log_sum[STRIP];
    strip_without_top(x, C, inner, n, top, log_sum);
    for (int64_t i = 0; i < n; i++) y[i] = log_sum[i] + top[i];
}

BODY log_softmax_strip(const float *RESTRICT x, float *RESTRICT y, int64_t C, int64_t inner, int64_t n) {
    float top[STRIP], log_sum[STRIP];
    strip_without_top(x, C, inner, n, top, log_sum);
    for (int64_t c = 0; c < C; c++) for (int64_t i = 0; i < n; i++)
        y[c * inner + i] = without_log_sum(x[c * inner + i], x[c * inner + i] - top[i], log_sum[i]);
}

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
