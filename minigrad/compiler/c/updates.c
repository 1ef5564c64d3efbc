
/* --- updates of optimizers that kernels.c does not have */

/* c: b1, 1 - b1, b2, 1 - b2, lr, 1 - lr decay. */
BODY lion_piece(float *RESTRICT p, const float *RESTRICT g, float *RESTRICT m, int64_t n, const float *RESTRICT c) {
    float b1 = c[0], a1 = c[1], b2 = c[2], a2 = c[3], lr = c[4], keep = c[5];
    for (int64_t i = 0; i < n; i++) {
        float mi = m[i], q = g[i], u = mi * b1 + q * a1;
        float sign = u > 0 ? 1.f : u < 0 ? -1.f : u;  /* of NaN, NaN */
        p[i] = p[i] * keep - sign * lr;
        m[i] = mi * b2 + q * a2;
    }
}

static float root_mean_square(const float *x, int64_t n) { return (float)sqrt(sum_of_squares(x, n) / n); }

/* The running averages of the squares' means along the rows and along the columns of a matrix. sums: room for as many numbers as there are columns. */
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

/* All of a parameter: B matrices of R x C, or, where B is 0, C numbers. c: share of the new, 1 - share, eps1, rate, eps2, clip, 1 - lr decay. */
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
