
/* --- products with weights of 4 to 8 bits per number

   quantised.py packs a weight (N, K) into panels of 8 rows. In a panel, blocks of 32 columns follow one another, each in vectors of 32 bytes that hold 4 columns
   of the 8 rows: 4 bytes of row 0, of row 1, ... So a vector times 4 numbers of x that are repeated 8 times gives a term of 8 numbers of y. Codes are unsigned
   but those of 8 bits. The lowest 4 bits of the vectors i and i + 4 share a vector; a fifth bit is bit i of a vector for all 8; the fifth and sixth are bits
   2 (i % 4) of one for each half. A header with the scales of the 8 rows comes before each block, or before each 8 of them (K-quants).

   Numbers of 16 bits have 8 rows side by side, column by column.

   Either x is rounded to int8, block by block, and products are summed up as integers within a block; or columns of w become float32 for the tiles of
   products.c. */

#if defined(__AVX2__) || defined(__FMA__)
#include <immintrin.h>
#endif

enum { PANEL = 8, CODES = 32, INT8_ROOM = 1 << 18, INT8_ROWS = 4 };
typedef uint8_t codes_t __attribute__((vector_size(32), aligned(1), may_alias));
typedef uint16_t shorts_t __attribute__((vector_size(32), aligned(1), may_alias));
typedef int32_t ints_t __attribute__((vector_size(32), aligned(4), may_alias));
typedef uint8_t eight_t __attribute__((vector_size(8), aligned(1), may_alias));
typedef int8_t signed_eight_t __attribute__((vector_size(8), aligned(1), may_alias));

/* group: blocks after one header; where there are several, it has integer scales, too, `parts` for each block.   zero: the code of the value 0, or -1 where
   minima are stored: value = scale (code - zero), or scale code + minimum (- minimum in K-quants). */
typedef struct { int bits, group, parts, zero; } format_t;
static const format_t F16 = {16, 1, 1, 0}, BF16 = {16, 1, 1, 1};  /* zero: 1 for bfloat16 */
static const format_t Q8_0 = {8, 1, 1, 0}, Q4_0 = {4, 1, 1, 8}, Q4_1 = {4, 1, 1, -1}, Q5_0 = {5, 1, 1, 16}, Q5_1 = {5, 1, 1, -1};
static const format_t Q4_K = {4, 8, 1, -1}, Q5_K = {5, 8, 1, -1}, Q6_K = {6, 8, 2, 32};
#define PLANE(f) ((f).bits * CODES)  /* bytes of a block of codes */
#define HEADER(f) ((f).bits == 16 ? 0 : (1 + ((f).zero < 0)) * (16 + ((f).group > 1 ? 8 * (f).group * (f).parts : 0)))
#define PANEL_BYTES(f, K) ((f).bits == 16 ? (K) * 16 : (K) / CODES / (f).group * (HEADER(f) + (f).group * PLANE(f)))

/* sum + the products of the 4 codes and numbers of each row, and such a sum as an int32 for each row. */
#if defined(__AVX512VNNI__) && defined(__AVX512VL__)
typedef ints_t dots_t;
static inline dots_t int8_dot(dots_t sum, codes_t w, codes_t x) { return (dots_t)_mm256_dpbusd_epi32((__m256i)sum, (__m256i)w, (__m256i)x); }
static inline ints_t whole_dot(dots_t sum) { return sum; }
#elif defined(__AVXVNNI__)
typedef ints_t dots_t;
static inline dots_t int8_dot(dots_t sum, codes_t w, codes_t x) { return (dots_t)_mm256_dpbusd_avx_epi32((__m256i)sum, (__m256i)w, (__m256i)x); }
static inline ints_t whole_dot(dots_t sum) { return sum; }
#elif defined(__AVX2__)
typedef shorts_t dots_t;
static inline dots_t int8_dot(dots_t sum, codes_t w, codes_t x) {
    __m256i y = _mm256_add_epi16((__m256i)sum, _mm256_maddubs_epi16((__m256i)w, (__m256i)x));
    __asm__("" : "+x"(y));  /* GCC would put additions off, and keep the products of all vectors in memory */
    return (dots_t)y;
}
static inline ints_t whole_dot(dots_t sum) { return (ints_t)_mm256_madd_epi16((__m256i)sum, _mm256_set1_epi16(1)); }
#else
typedef ints_t dots_t;
static inline dots_t int8_dot(dots_t sum, codes_t w, codes_t x) {
    for (int j = 0; j < 32; j += 8) sum += ((ints_t)w >> j & 255) * ((ints_t)x << (24 - j) >> 24);
    return sum;
}
static inline ints_t whole_dot(dots_t sum) { return sum; }
#endif

/* The same for signed codes. */
static inline dots_t signed_dot(dots_t sum, codes_t w, codes_t x) {
#if defined(__AVX2__)
    return int8_dot(sum, (codes_t)_mm256_abs_epi8((__m256i)w), (codes_t)_mm256_sign_epi8((__m256i)x, (__m256i)w));
#else
    for (int j = 0; j < 32; j += 8) sum += ((ints_t)w << (24 - j) >> 24) * ((ints_t)x << (24 - j) >> 24);
    return sum;
#endif
}

/* sum + a b, rounded once: GCC alone would round twice for some numbers of rows and once for others. */
static inline lanes_t add_product(lanes_t sum, lanes_t a, lanes_t b) {
#if defined(__FMA__)
    return (lanes_t)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)sum);
#else
    return sum + a * b;
#endif
}

static inline lanes_t halves_of(const uint8_t *p) {
#if defined(__F16C__)
    return (lanes_t)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
#else
    lanes_t y;
    for (int i = 0; i < PANEL; i++) y[i] = float16_to_float((uint16_t)(p[2 * i] | p[2 * i + 1] << 8));
    return y;
#endif
}

/* Vector i of a block. */
static inline codes_t codes_of(format_t f, const uint8_t *block, int i) {
    if (f.bits == 8) return *(const codes_t *)(block + 32 * i);
    codes_t low = *(const codes_t *)(block + 32 * (i % 4));
    low = i < 4 ? low & 15 : (codes_t)((shorts_t)low >> 4) & 15;
    if (f.bits == 4) return low;
    shorts_t high = *(const shorts_t *)(block + 128 + (f.bits == 6 ? i / 4 * 32 : 0));
    int at = f.bits == 6 ? 2 * (i % 4) : i;
    high = at < 4 ? high << (4 - at) : high >> (at - 4);
    return low | ((codes_t)high & (uint8_t)(f.bits == 6 ? 48 : 16));
}

/* The scales, or the minima, of part p of block b. */
static inline lanes_t scales_of(format_t f, const uint8_t *header, int64_t b, int p, int minima) {
    lanes_t d = halves_of(header + 16 * minima);
    if (f.group == 1) return d;
    const uint8_t *at = header + 16 * (1 + (f.zero < 0)) + 8 * ((minima * f.group + b % f.group) * f.parts + p);
    ints_t s = f.zero < 0 ? __builtin_convertvector(*(const eight_t *)at, ints_t) : __builtin_convertvector(*(const signed_eight_t *)at, ints_t);
    return d * __builtin_convertvector(s, lanes_t);
}

/* A row of x in blocks of 32, as two rows: codes q = round(x / d) for d = max |x| / 127, and those of what is left, x - d q; for each part of a block d and
   d sum(q). Less than 1e-30 is 0, infinity makes NaN. */
static ONCE void to_int8(const float *RESTRICT x, int64_t n, int parts, int8_t *RESTRICT codes, float *RESTRICT factors) {
    float left[CODES];
    for (int64_t b = 0; b < 2 * (n / CODES); b++) {
        uint32_t bits[CODES], top = 0;
        int8_t *q = codes + b % 2 * n + b / 2 * CODES;
        float *scales = factors + (b % 2 * (n / CODES) + b / 2) * (1 + parts);
        if (b % 2 == 0) memcpy(left, x + b / 2 * CODES, sizeof left);
        memcpy(bits, left, sizeof bits);
        for (int i = 0; i < CODES; i++) top = MAX(top, bits[i] & 0x7fffffffu);
        float most = float_of(top), inverse = most > 1e-30f && top < 0x7f800000u ? 127.f / most : 0.f;
        if (inverse == 0) memset(q, 0, CODES);
        else for (int i = 0; i < CODES; i++) q[i] = (int8_t)(int32_t)rintf(left[i] * inverse);
        float d = top >= 0x7f800000u ? NAN : most > 1e-30f ? most / 127.f : 0.f;
        for (int i = 0; i < CODES; i++) left[i] = (float)(left[i] - (double)d * q[i]);  /* in double, so that every compiler rounds alike */
        *scales++ = d;
        for (int p = 0; p < parts; p++) {
            int32_t sum = 0;
            for (int i = 0; i < CODES / parts; i++) sum += q[p * CODES / parts + i];
            *scales++ = d * (float)sum;
        }
    }
}

/* y, R rows of 8: a panel times R rows of x as int8. */
BODY panel_rows(format_t f, const int R, const uint8_t *RESTRICT panel, int64_t K, const int8_t *RESTRICT q, const float *RESTRICT scales, lanes_t *RESTRICT y) {
    const int every = MIN(8 / f.parts, f.bits == 8 ? 1 : 128 >> f.bits);  /* dots that a sum of int16 has room for */
    const int step = 1 + f.parts;
    lanes_t sum[INT8_ROWS] = {0};
    for (int64_t b = 0; b < K / CODES; b++) {
        const uint8_t *header = panel + b / f.group * (HEADER(f) + f.group * PLANE(f)), *block = header + HEADER(f) + b % f.group * PLANE(f);
        for (int i = 0; i < PLANE(f); i += 64) __builtin_prefetch(block + 3072 + i);
        for (int p = 0; p < f.parts; p++) {
            ints_t total[INT8_ROWS] = {0};
            dots_t dots[INT8_ROWS] = {0};
#pragma GCC unroll 8
            for (int n = 0; n < 8 / f.parts; n++) {
                int i = f.parts > 1 ? 4 * p + n : n / 2 + n % 2 * 4;  /* i and i + 4 are read together */
                codes_t w = codes_of(f, block, i);
#pragma GCC unroll 4
                for (int r = 0; r < R; r++) {
                    ints_t four = (ints_t){0} + *(const int32_t *)(q + r * K + b * CODES + 4 * i);
                    dots[r] = f.bits == 8 ? signed_dot(dots[r], w, (codes_t)four) : int8_dot(dots[r], w, (codes_t)four);
                    if ((n + 1) % every == 0) total[r] += whole_dot(dots[r]), dots[r] = (dots_t){0};
                }
            }
            lanes_t d = scales_of(f, header, b, p, 0), m = d * -(float)f.zero;
            if (f.zero < 0) m = scales_of(f, header, b, p, 1) * (f.group > 1 ? -1.f : 1.f);
#pragma GCC unroll 4
            for (int r = 0; r < R; r++) {
                const float *s = scales + (r * (K / CODES) + b) * step;
                sum[r] = add_product(sum[r], d * s[0], __builtin_convertvector(total[r], lanes_t));
                if (f.zero) sum[r] = add_product(sum[r], m, s[1 + p] - (lanes_t){0});
            }
        }
    }
    for (int r = 0; r < R; r++) y[r] = sum[r];
}

/* y = x w^T (+ bias) (+ residual), M rows of x, panels [lo, hi) of w; x as int8. */
BODY int8_rows(format_t f, int64_t M, int64_t N, int64_t K, const float *x, const uint8_t *weight, const float *bias, const float *residual, float *y,
               int64_t lo, int64_t hi) {
    static _Thread_local int8_t q[INT8_ROOM];
    static _Thread_local float scales[INT8_ROOM / CODES * 3];
    int64_t most = MAX(INT8_ROWS, INT8_ROOM / K / INT8_ROWS * INT8_ROWS), rows;
    for (; M > 0; M -= rows, x += rows * K, y += rows * N, residual = residual ? residual + rows * N : NULL) {
        rows = MIN(M, most / 2);
        for (int64_t r = 0; r < rows; r++) to_int8(x + r * K, K, f.parts, q + 2 * r * K, scales + 2 * r * (K / CODES) * (1 + f.parts));
        for (int64_t n = lo; n < hi; n++) for (int64_t r = 0; r < rows; r += INT8_ROWS / 2) {
            const uint8_t *panel = weight + n * PANEL_BYTES(f, K);
            const int8_t *some = q + 2 * r * K;
            const float *s = scales + 2 * r * (K / CODES) * (1 + f.parts);
            lanes_t sums[INT8_ROWS];
            int64_t count = MIN(INT8_ROWS / 2, rows - r), width = MIN(PANEL, N - n * PANEL);
            if (count == 1) panel_rows(f, 2, panel, K, some, s, sums);
            else panel_rows(f, 4, panel, K, some, s, sums);
            for (int64_t i = 0; i < count; i++) for (int64_t j = 0, at = (r + i) * N + n * PANEL; j < width; j++)
                y[at + j] = sums[2 * i][j] + sums[2 * i + 1][j] + (residual ? residual[at + j] : 0.f) + (bias ? bias[n * PANEL + j] : 0.f);
        }
    }
}

/* The columns [from, to) of a panel, blocks of them, as float32: column k at y + (k - from) step. */
BODY panel_values(format_t f, const uint8_t *RESTRICT panel, int64_t from, int64_t to, float *RESTRICT y, int64_t step) {
    if (f.bits == 16) for (int64_t k = from; k < to; k++, y += step) {
        if (!f.zero) *(lanes_t *)y = halves_of(panel + 16 * k);
        else for (int r = 0; r < PANEL; r++) y[r] = bfloat16_to_float(((const uint16_t *)panel)[PANEL * k + r]);
    }
    else for (int64_t b = from / CODES; b < to / CODES; b++) {
        const uint8_t *header = panel + b / f.group * (HEADER(f) + f.group * PLANE(f)), *block = header + HEADER(f) + b % f.group * PLANE(f);
        for (int p = 0; p < f.parts; p++) {
            lanes_t d = scales_of(f, header, b, p, 0), m = {0};
            if (f.zero < 0) m = scales_of(f, header, b, p, 1) * (f.group > 1 ? -1.f : 1.f);
#pragma GCC unroll 8
            for (int i = p * 8 / f.parts; i < (p + 1) * 8 / f.parts; i++) {
                ints_t four = (ints_t)codes_of(f, block, i);
                for (int j = 0; j < 4; j++, y += step) {
                    ints_t code = four << (24 - 8 * j) >> 24;  /* right for the others, too, which are below 64 */
                    code -= MAX(f.zero, 0);
                    *(lanes_t *)y = d * __builtin_convertvector(code, lanes_t) + m;
                }
            }
        }
    }
}

/* The same product in float32: sums over k in ascending order, in blocks of the same depth. */
BODY float_rows(format_t f, int64_t M, int64_t N, int64_t K, const float *x, const uint8_t *weight, const float *bias, const float *residual, float *y,
                int64_t lo, int64_t hi) {
    static _Thread_local float columns[DEEP * WIDE];
    for (int64_t n = lo, j = lo * PANEL; n < hi; n += WIDE / PANEL, j += WIDE) for (int64_t k = 0; k < K; k += DEEP) {
        int64_t depth = MIN(DEEP, K - k);
        for (int64_t at = 0; at < depth; at += 128) for (int64_t i = 0; i < MIN(WIDE / PANEL, hi - n); i++)  /* line by line: columns are larger than the first cache */
            panel_values(f, weight + (n + i) * PANEL_BYTES(f, K), k + at, k + MIN(depth, at + 128), columns + at * WIDE + i * PANEL, WIDE);
        const float *begun = k ? y + j : residual ? residual + j : NULL;
        tiles(0, 0, M, MIN(WIDE, MIN(hi * PANEL, N) - j), depth, x + k, K, columns, depth, bias && !k ? bias + j : NULL, begun, N, y + j, N);
    }
}

/* op quantised_linear: lowered by quantised.py */
BODY quantised_rows(format_t f, int int8, int64_t M, int64_t N, int64_t K, const float *x, const uint8_t *weight, const float *bias, const float *residual,
                    float *y, int64_t lo, int64_t hi) {
    if (int8 && f.bits < 16) int8_rows(f, M, N, K, x, weight, bias, residual, y, lo, hi);
    else float_rows(f, M, N, K, x, weight, bias, residual, y, lo, hi);
}

#define LINEAR(format) linear_##format
#define LINEAR_OF(format) static ONCE void linear_##format(int int8, int64_t M, int64_t N, int64_t K, const float *x, const uint8_t *weight, const float *bias, \
        const float *residual, float *y, int64_t lo, int64_t hi) { quantised_rows(format, int8, M, N, K, x, weight, bias, residual, y, lo, hi); }
LINEAR_OF(Q8_0) LINEAR_OF(Q4_0) LINEAR_OF(Q4_1) LINEAR_OF(Q5_0) LINEAR_OF(Q5_1) LINEAR_OF(Q4_K) LINEAR_OF(Q5_K) LINEAR_OF(Q6_K) LINEAR_OF(F16) LINEAR_OF(BF16)

/* op quantised_embedding: lowered by quantised.py */
BODY quantised_embedding_rows(format_t f, const uint8_t *weight, int64_t N, int64_t K, const void *index, int kind, float *y, int64_t lo, int64_t hi) {
    float values[256 * PANEL];
    for (int64_t r = lo; r < hi; r++) {
        int64_t i = index_at(index, r, kind);
        if (i < 0 || i >= N) { atomic_store(&status, 1); return; }
        for (int64_t k = 0; k < K; k += 256) {
            panel_values(f, weight + i / PANEL * PANEL_BYTES(f, K), k, MIN(K, k + 256), values, PANEL);
            for (int64_t c = k; c < MIN(K, k + 256); c++) y[r * K + c] = values[(c - k) * PANEL + i % PANEL];
        }
    }
}
