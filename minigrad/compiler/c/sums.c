
/* --- sums in a fixed order */

/* Of n numbers: parts of 1024 in float, added up in double. */
static inline float sum_all(const float *RESTRICT x, int64_t n) {
    double total = 0;
    for (int64_t b = 0; b < n; b += 1024) { float s; const float *z = x + b; SUM(s, i, MIN(1024, n - b), z[i]); total += s; }
    return (float)total;
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

BODY sum_strip(const float *RESTRICT x, float *RESTRICT y, int64_t C, int64_t inner, int64_t n) {
    float total[STRIP];
    STRIP_SUM(total, c, i, x[c * inner + i]);
    for (int64_t i = 0; i < n; i++) y[i] = total[i];
}
