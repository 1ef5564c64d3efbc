
/* --- products with weights of 4 to 8 bits per number

   quantised.py packs a weight (N, K) into panels of 16 rows. In a panel, blocks of 32 columns follow one another, each in vectors of 64 bytes that hold 4 columns
   of the 16 rows: 4 bytes of row 0, of row 1, ... So a vector times 4 numbers of x that are repeated 16 times gives a term of 16 numbers of y. Codes are unsigned.
   The lowest 4 bits of the vectors i and i + 4 share a vector; a fifth bit is bit i of a vector for all 8; the fifth and sixth are bits
   2 (i % 4) of one for each half. A header with the scales of the 16 rows comes before each block, or before each 8 of them (K-quants).

   Numbers of 16 bits have 16 rows side by side, column by column.

   Either x is rounded to integers of 16 bits, block by block, and products are summed up as integers within a block; or columns of w become float32, for the tiles
   of products.c or, where x has few rows, in registers. Where registers have 32 bytes, a panel is computed in two halves. */

#if defined(__AVX2__) || defined(__FMA__)
#include <immintrin.h>
#endif
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VNNI__)
#define WIDE_CODES 1
enum { BYTES = 64, INT8_ROWS = 4 };
#else
#define WIDE_CODES 0
enum { BYTES = 32, INT8_ROWS = 2 };
#endif

enum { PANEL = 16, HALVES = 64 / BYTES, NUMBERS = BYTES / 4, CODES = 32, INT8_ROOM = 1 << 18, FLOAT_ROWS = 4 };
typedef uint8_t codes_t __attribute__((vector_size(BYTES), aligned(1), may_alias));
typedef uint16_t shorts_t __attribute__((vector_size(BYTES), aligned(1), may_alias));
typedef int32_t ints_t __attribute__((vector_size(BYTES), aligned(4), may_alias));
typedef float numbers_t __attribute__((vector_size(BYTES), aligned(4), may_alias));
typedef uint8_t bytes_t __attribute__((vector_size(NUMBERS), aligned(1), may_alias));
typedef int8_t signed_bytes_t __attribute__((vector_size(NUMBERS), aligned(1), may_alias));

/* group: blocks after one header; where there are several, it has integer scales, too, `parts` for each block.   zero: the code of the value 0, or -1 where
   minima are stored: value = scale (code - zero), or scale code + minimum (- minimum in K-quants). */
typedef struct { int bits, group, parts, zero; } format_t;
static const format_t F16 = {16, 1, 1, 0}, BF16 = {16, 1, 1, 1};  /* zero: 1 for bfloat16 */
static const format_t Q8_0 = {8, 1, 1, 128}, Q4_0 = {4, 1, 1, 8}, Q4_1 = {4, 1, 1, -1}, Q5_0 = {5, 1, 1, 16}, Q5_1 = {5, 1, 1, -1};
static const format_t Q4_K = {4, 8, 1, -1}, Q5_K = {5, 8, 1, -1}, Q6_K = {6, 8, 2, 32};
#define PLANE(f) ((f).bits * 64)  /* bytes of a block of codes */
#define HEADER(f) ((f).bits == 16 ? 0 : (1 + ((f).zero < 0)) * (32 + ((f).group > 1 ? PANEL * (f).group * (f).parts : 0)))
#define PANEL_BYTES(f, K) ((f).bits == 16 ? (K) * 32 : (K) / CODES / (f).group * (HEADER(f) + (f).group * PLANE(f)))

/* sum + the products of the 4 codes and numbers of each row, and 2^shift times such a sum as an int32 for each row. */
#if defined(__AVX2__) && !WIDE_CODES && !defined(__AVXVNNI__) && !(defined(__AVX512VNNI__) && defined(__AVX512VL__))
#define SHORT_SUMS 1
typedef shorts_t dots_t;
static inline dots_t int8_dot(dots_t sum, codes_t w, codes_t x) {
    __m256i y = _mm256_add_epi16((__m256i)sum, _mm256_maddubs_epi16((__m256i)w, (__m256i)x));
    __asm__("" : "+x"(y));  /* GCC would put additions off, and keep the products of all vectors in memory */
    return (dots_t)y;
}
static inline ints_t whole_dot(dots_t sum, int shift) { return (ints_t)_mm256_madd_epi16((__m256i)sum, _mm256_set1_epi16((int16_t)(1 << shift))); }
static inline ints_t short_dot(shorts_t w, ints_t x) { return (ints_t)_mm256_madd_epi16((__m256i)w, (__m256i)x); }
#else
#define SHORT_SUMS 0
typedef ints_t dots_t;
static inline dots_t int8_dot(dots_t sum, codes_t w, codes_t x) {
#if WIDE_CODES
    return (dots_t)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)w, (__m512i)x);
#elif defined(__AVX512VNNI__) && defined(__AVX512VL__)
    return (dots_t)_mm256_dpbusd_epi32((__m256i)sum, (__m256i)w, (__m256i)x);
#elif defined(__AVXVNNI__)
    return (dots_t)_mm256_dpbusd_avx_epi32((__m256i)sum, (__m256i)w, (__m256i)x);
#else
    for (int j = 0; j < 32; j += 8) sum += ((ints_t)w >> j & 255) * ((ints_t)x << (24 - j) >> 24);
    return sum;
#endif
}
static inline ints_t whole_dot(dots_t sum, int shift) { return sum << shift; }
#define short_dot(w, x) (x)
#endif
/* Sums of products of such codes soon overflow 16 bits: codes become numbers of 16 bits instead, and x is one. */
#define WHOLE_X(f) (SHORT_SUMS && (f).bits > 5)

/* sum + a b, rounded once: GCC alone would round twice for some numbers of rows and once for others. */
static inline numbers_t add_product(numbers_t sum, numbers_t a, numbers_t b) {
#if WIDE_CODES
    return (numbers_t)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)sum);
#elif defined(__FMA__)
    return (numbers_t)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)sum);
#else
    return sum + a * b;
#endif
}

static inline numbers_t halves_of(const uint8_t *p) {
#if WIDE_CODES
    return (numbers_t)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
#elif defined(__F16C__)
    return (numbers_t)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
#else
    numbers_t y;
    for (int i = 0; i < NUMBERS; i++) y[i] = float16_to_float((uint16_t)(p[2 * i] | p[2 * i + 1] << 8));
    return y;
#endif
}

/* Vector i of a block, half h of its rows. */
static inline codes_t codes_of(format_t f, const uint8_t *block, int i, int h) {
    block += h * BYTES;
    if (f.bits == 8) return *(const codes_t *)(block + 64 * i);
    codes_t low = *(const codes_t *)(block + 64 * (i % 4));
    low = i < 4 ? low & 15 : (codes_t)((shorts_t)low >> 4) & 15;
    if (f.bits == 4) return low;
    shorts_t high = *(const shorts_t *)(block + 256 + (f.bits == 6 ? i / 4 * 64 : 0));
    int at = f.bits == 6 ? 2 * (i % 4) : i;
    high = at < 4 ? high << (4 - at) : high >> (at - 4);
    return low | ((codes_t)high & (uint8_t)(f.bits == 6 ? 48 : 16));
}

/* The scales, or what is added, of part p of block b. */
static inline numbers_t scales_of(format_t f, const uint8_t *header, int64_t b, int p, int h, int minima) {
    numbers_t d = halves_of(header + 32 * minima + 2 * NUMBERS * h);
    if (f.group == 1) return d;
    const uint8_t *at = header + 32 * (1 + (f.zero < 0)) + PANEL * ((minima * f.group + b % f.group) * f.parts + p) + NUMBERS * h;
    ints_t s = f.zero < 0 ? __builtin_convertvector(*(const bytes_t *)at, ints_t) : __builtin_convertvector(*(const signed_bytes_t *)at, ints_t);
    return d * __builtin_convertvector(s, numbers_t) * (minima ? -1.f : 1.f);
}

/* Numbers j of the 4 codes of each row. */
static inline numbers_t numbers_of(format_t f, codes_t four, int j, numbers_t d, numbers_t m) {
    return d * __builtin_convertvector(((ints_t)four >> 8 * j & 255) - MAX(f.zero, 0), numbers_t) + m;
}

/* Column k of a panel of numbers of 16 bits. */
static inline numbers_t column_of(format_t f, const uint8_t *panel, int64_t k, int h) {
    const uint8_t *at = panel + 32 * k + 2 * NUMBERS * h;
    if (!f.zero) return halves_of(at);
    numbers_t y;
    for (int r = 0; r < NUMBERS; r++) y[r] = bfloat16_to_float(((const uint16_t *)at)[r]);
    return y;
}

/* A row of x in blocks of 32: q = round(x / d) for d = max |x| / 32512, as 256 high + low, two int8; for each part of a block the sum of q, and d times it. Roughly:
   d is at least a 127th of the largest number beside the 4 neighbours that hold the largest of all, so that these alone have a high part. Less than 1e-30 is 0, infinity
   makes NaN. WHOLE_X: instead of them q itself, of even columns and of odd ones. A group is as many rows as have 2 INT8_ROWS int8 side by side; in it blocks follow one another, each
   row by row. */
typedef uint32_t word_t __attribute__((may_alias));
typedef struct { float d, sums[2]; int32_t whole[2], high, at; } rounded_t;
#define GROUP_ROWS(f, rough) (rough && !WHOLE_X(f) ? 2 * INT8_ROWS : INT8_ROWS)
static ONCE void to_integers(format_t f, const int rough, const float *RESTRICT x, int64_t n, int8_t *RESTRICT codes, rounded_t *RESTRICT rounded) {
    static _Thread_local uint32_t most_of[INT8_ROOM / 8 / INT8_ROWS];
    uint32_t *RESTRICT fours = most_of;
    const word_t *RESTRICT bits = (const word_t *)x;
    for (int64_t i = 0; i < n / 4; i++)
        fours[i] = MAX(MAX(bits[4 * i] & 0x7fffffffu, bits[4 * i + 1] & 0x7fffffffu), MAX(bits[4 * i + 2] & 0x7fffffffu, bits[4 * i + 3] & 0x7fffffffu));
    for (int64_t k = 0; k < n; k += CODES, codes += 2 * INT8_ROWS * CODES, rounded += GROUP_ROWS(f, rough)) {
        uint32_t top = 0, next = 0;
        int32_t q[CODES], at = 0;
        int8_t high[4];
        for (int i = 0; i < 8; i++) {
            uint32_t four = fours[k / 4 + i], less = MIN(top, four), above = -(uint32_t)(four > top);
            next = MAX(next, less), at ^= (at ^ i) & (int32_t)above, top = MAX(top, four);
        }
        float most = float_of(top), other = rough ? 256.f * float_of(next) : 0.f, scale = MAX(most, other);
        float inverse = most > 1e-30f && top < 0x7f800000u ? 32512.f / scale : 0.f;
        for (int i = 0; i < CODES; i++) q[i] = inverse ? (int32_t)rintf(x[k + i] * inverse) : 0;
        for (int i = 0; i < CODES; i++) {
            int16_t whole = (int16_t)q[i];
            if (WHOLE_X(f)) memcpy(codes + i % 2 * CODES + (i & ~3) + (i & 2), &whole, 2);
            else if (rough) codes[i] = (int8_t)q[i];
            else codes[i] = (int8_t)((q[i] + 128) >> 8), codes[CODES + i] = (int8_t)q[i];
        }
        rounded->d = top >= 0x7f800000u ? NAN : most > 1e-30f ? scale / 32512.f : 0.f;
        rounded->at = at;
        for (int i = 0; i < 4; i++) high[i] = inverse ? (int8_t)(((int32_t)rintf(x[k + 4 * at + i] * inverse) + 128) >> 8) : 0;
        memcpy(&rounded->high, high, 4);
        for (int p = 0; p < f.parts; p++) {
            int32_t sum = 0;
            for (int i = 0; i < CODES / f.parts; i++) sum += q[p * CODES / f.parts + i];
            rounded->whole[p] = sum, rounded->sums[p] = rounded->d * (float)sum;
        }
    }
}

/* y, R rows of 16: a panel times R rows of a group of x as integers. */
BODY int8_panel(format_t f, const int rough, const int R, const uint8_t *RESTRICT panel, int64_t K, const int8_t *RESTRICT q, const rounded_t *RESTRICT rounded,
                float *RESTRICT y) {
    const int every = SHORT_SUMS ? MIN(8 / f.parts, MAX(1, 128 >> f.bits)) : 8 / f.parts;  /* dots that a sum has room for */
    const int high = rough && !WHOLE_X(f), dot_rows = high ? R : 2 * R;
    numbers_t sum[2 * INT8_ROWS][HALVES] = {0};
    for (int64_t b = 0; b < K / CODES; b++, q += 2 * INT8_ROWS * CODES, rounded += GROUP_ROWS(f, rough)) {
        const uint8_t *header = panel + b / f.group * (HEADER(f) + f.group * PLANE(f)), *block = header + HEADER(f) + b % f.group * PLANE(f);
        for (int i = 0; i < PLANE(f); i += 64) __builtin_prefetch(block + 3072 + i);
        for (int p = 0; p < f.parts; p++) {
            ints_t total[2 * INT8_ROWS][HALVES] = {0};
            dots_t dots[2 * INT8_ROWS][HALVES] = {0};
            codes_t w[HALVES], kept[8][HALVES];
#pragma GCC unroll 8
            for (int n = 0; n < 8 / f.parts; n++) {
                int i = f.parts > 1 ? 4 * p + n : n / 2 + n % 2 * 4;  /* i and i + 4 are read together */
                for (int h = 0; h < HALVES; h++) kept[i][h] = w[h] = codes_of(f, block, i, h);
#pragma GCC unroll 8
                for (int r = 0; r < dot_rows; r++) {
                    ints_t four = (ints_t){0} + *(const int32_t *)(q + r * CODES + 4 * i);
                    int shift = high || r % 2 ? 0 : 8;
                    for (int h = 0; h < HALVES; h++) {
                        if (WHOLE_X(f)) total[r][h] += short_dot((shorts_t)w[h] >> r % 2 * 8 & 255, four);
                        else dots[r][h] = int8_dot(dots[r][h], w[h], (codes_t)four);
                        if (!WHOLE_X(f) && (n + 1) % every == 0) total[r][h] += whole_dot(dots[r][h], shift), dots[r][h] = (dots_t){0};
                    }
                }
            }
            numbers_t d[HALVES], m[HALVES];
            for (int h = 0; h < HALVES; h++) d[h] = scales_of(f, header, b, p, h, 0), m[h] = f.zero < 0 ? scales_of(f, header, b, p, h, 1) : (numbers_t){0};
#pragma GCC unroll 8
            for (int r = 0; r < R; r++) for (int h = 0; h < HALVES; h++) {
                const rounded_t *x = rounded + r;
                ints_t whole = total[high ? r : 2 * r][h];
                if (!high) whole += total[2 * r + 1][h];
                else if ((f.parts == 1 || x->at / 4 == p)) whole += whole_dot(int8_dot((dots_t){0}, kept[x->at][h], (codes_t)((ints_t){0} + x->high)), 8);
                whole -= MAX(f.zero, 0) * x->whole[p];
                sum[r][h] = add_product(sum[r][h], d[h] * x->d, __builtin_convertvector(whole, numbers_t));
                if (f.zero < 0) sum[r][h] = add_product(sum[r][h], m[h], x->sums[p] - (numbers_t){0});
            }
        }
    }
    for (int r = 0; r < R; r++) for (int h = 0; h < HALVES; h++) *(numbers_t *)(y + r * PANEL + h * NUMBERS) = sum[r][h];
}

/* The same in float32, of rows of x at x + r step: even columns and odd ones are summed apart. */
BODY float_panel(format_t f, const int R, const uint8_t *RESTRICT panel, int64_t K, const float *RESTRICT x, int64_t step, float *RESTRICT y) {
    numbers_t sum[FLOAT_ROWS][HALVES][2] = {0};
#define ADD_COLUMN(k, w) { numbers_t column = w; for (int r = 0; r < R; r++) sum[r][h][(k) % 2] = add_product(sum[r][h][(k) % 2], column, x[r * step + (k)] - (numbers_t){0}); }
    if (f.bits == 16) for (int64_t k = 0; k < K; k += 2) for (int h = 0; h < HALVES; h++) {
        ADD_COLUMN(k, column_of(f, panel, k, h))
        if (k + 1 < K) ADD_COLUMN(k + 1, column_of(f, panel, k + 1, h))
    }
    else for (int64_t b = 0; b < K / CODES; b++) {
        const uint8_t *header = panel + b / f.group * (HEADER(f) + f.group * PLANE(f)), *block = header + HEADER(f) + b % f.group * PLANE(f);
        for (int i = 0; i < PLANE(f); i += 64) __builtin_prefetch(block + 3072 + i);
        for (int h = 0; h < HALVES; h++) for (int p = 0; p < f.parts; p++) {
            numbers_t d = scales_of(f, header, b, p, h, 0), m = {0};
            if (f.zero < 0) m = scales_of(f, header, b, p, h, 1);
#pragma GCC unroll 8
            for (int i = p * 8 / f.parts; i < (p + 1) * 8 / f.parts; i++) {
                codes_t four = codes_of(f, block, i, h);
#pragma GCC unroll 4
                for (int j = 0; j < 4; j++) ADD_COLUMN(b * CODES + 4 * i + j, numbers_of(f, four, j, d, m))
            }
        }
    }
    for (int r = 0; r < R; r++) for (int h = 0; h < HALVES; h++) *(numbers_t *)(y + r * PANEL + h * NUMBERS) = sum[r][h][0] + sum[r][h][1];
}

/* y = sums (+ bias) (+ residual) for some rows of a panel. */
static inline void store_panel(const float *sums, int64_t rows, int64_t N, int64_t column, const float *bias, const float *residual, float *y) {
#define STORE(width) for (int64_t j = 0; j < width; j++) y[at + j] = sums[i * PANEL + j] + (residual ? residual[at + j] : 0.f) + (bias ? bias[column + j] : 0.f)
    for (int64_t i = 0, at = column; i < rows; i++, at += N) {
        if (N - column < PANEL) STORE(N - column);
        else STORE(PANEL);
    }
}

/* y = x w^T (+ bias) (+ residual), M rows of x, panels [lo, hi) of w; x as integers. */
BODY int8_rows(format_t f, const int rough, int64_t M, int64_t N, int64_t K, const float *x, const uint8_t *weight, const float *bias, const float *residual, float *y,
               int64_t lo, int64_t hi) {
    static _Thread_local int8_t q[INT8_ROOM];
    static _Thread_local rounded_t rounded[INT8_ROOM / CODES];
    const int64_t group = GROUP_ROWS(f, rough), bytes = 2 * INT8_ROWS / group;
    float sums[2 * INT8_ROWS * PANEL];
    int64_t most = INT8_ROOM / bytes / K / group * group, rows;
    for (; M > 0; M -= rows, x += rows * K, y += rows * N, residual = residual ? residual + rows * N : NULL) {
        rows = MIN(M, most);
        for (int64_t r = 0; r < rows; r++) {
            int64_t in = r % group, first = r - in;
            to_integers(f, rough, x + r * K, K, q + bytes * (first * K + in * CODES), rounded + first * (K / CODES) + in);
        }
        for (int64_t n = lo; n < hi; n++) for (int64_t r = 0; r < rows; r += group) {
            const uint8_t *panel = weight + n * PANEL_BYTES(f, K);
            const rounded_t *some = rounded + r * (K / CODES);
            int64_t count = MIN(group, rows - r);
            if (count == 1) int8_panel(f, rough, 1, panel, K, q + bytes * r * K, some, sums);
            else int8_panel(f, rough, (int)group, panel, K, q + bytes * r * K, some, sums);
            store_panel(sums, count, N, n * PANEL, bias, residual ? residual + r * N : NULL, y + r * N);
        }
    }
}

/* The columns [from, to) of a panel, blocks of them, as float32: column k at y + (k - from) step. */
BODY panel_values(format_t f, const uint8_t *RESTRICT panel, int64_t from, int64_t to, float *RESTRICT y, int64_t step) {
    if (f.bits == 16) for (int64_t k = from; k < to; k++, y += step) for (int h = 0; h < HALVES; h++) *(numbers_t *)(y + h * NUMBERS) = column_of(f, panel, k, h);
    else for (int64_t b = from / CODES; b < to / CODES; b++, y += CODES * step) {
        const uint8_t *header = panel + b / f.group * (HEADER(f) + f.group * PLANE(f)), *block = header + HEADER(f) + b % f.group * PLANE(f);
        for (int h = 0; h < HALVES; h++) for (int p = 0; p < f.parts; p++) {
            numbers_t d = scales_of(f, header, b, p, h, 0), m = {0};
            if (f.zero < 0) m = scales_of(f, header, b, p, h, 1);
#pragma GCC unroll 8
            for (int i = p * 8 / f.parts; i < (p + 1) * 8 / f.parts; i++) {
                codes_t four = codes_of(f, block, i, h);
                for (int j = 0; j < 4; j++) *(numbers_t *)(y + (4 * i + j) * step + h * NUMBERS) = numbers_of(f, four, j, d, m);
            }
        }
    }
}

/* The same product in float32: a few rows in registers; others by tiles, sums over k in ascending order, in blocks of the same depth. */
BODY float_rows(format_t f, int64_t M, int64_t N, int64_t K, const float *x, const uint8_t *weight, const float *bias, const float *residual, float *y,
                int64_t lo, int64_t hi) {
    static _Thread_local float columns[DEEP * WIDE];
    float sums[FLOAT_ROWS * PANEL];
    if (M <= 2 * FLOAT_ROWS) {
        for (int64_t n = lo; n < hi; n++) for (int64_t r = 0, count; r < M; r += count) {
            const uint8_t *panel = weight + n * PANEL_BYTES(f, K);
            count = M - r < FLOAT_ROWS ? 1 : FLOAT_ROWS;
            if (count == 1) float_panel(f, 1, panel, K, x + r * K, K, sums);
            else float_panel(f, FLOAT_ROWS, panel, K, x + r * K, K, sums);
            store_panel(sums, count, N, n * PANEL, bias, residual ? residual + r * N : NULL, y + r * N);
        }
        return;
    }
    for (int64_t n = lo, j = lo * PANEL; n < hi; n += WIDE / PANEL, j += WIDE) for (int64_t k = 0; k < K; k += DEEP) {
        int64_t depth = MIN(DEEP, K - k);
        for (int64_t at = 0; at < depth; at += 128) for (int64_t i = 0; i < MIN(WIDE / PANEL, hi - n); i++)  /* line by line: columns are larger than the first cache */
            panel_values(f, weight + (n + i) * PANEL_BYTES(f, K), k + at, k + MIN(depth, at + 128), columns + at * WIDE + i * PANEL, WIDE);
        const float *begun = k ? y + j : residual ? residual + j : NULL;
        tiles(0, 0, M, MIN(WIDE, MIN(hi * PANEL, N) - j), depth, x + k, K, columns, depth, bias && !k ? bias + j : NULL, begun, N, y + j, N);
    }
}

/* int8: except rows too long for the buffer, and numbers of 16 bits; the first `rough` rows roughly. */
/* op quantised_linear: lowered by quantised.py */
BODY quantised_rows(format_t f, int int8, int64_t rough, int64_t M, int64_t N, int64_t K, const float *x, const uint8_t *weight, const float *bias,
                    const float *residual, float *y, int64_t lo, int64_t hi) {
    if (!int8 || f.bits == 16 || 2 * INT8_ROWS * K > INT8_ROOM) { float_rows(f, M, N, K, x, weight, bias, residual, y, lo, hi); return; }
    rough = MAX(0, MIN(rough, M));
    int8_rows(f, 1, rough, N, K, x, weight, bias, residual, y, lo, hi);
    int8_rows(f, 0, M - rough, N, K, x + rough * K, weight, bias, residual ? residual + rough * N : NULL, y + rough * N, lo, hi);
}

#define LINEAR(format) linear_##format
#define LINEAR_OF(format) static ONCE void linear_##format(int int8, int64_t rough, int64_t M, int64_t N, int64_t K, const float *x, const uint8_t *weight, \
        const float *bias, const float *residual, float *y, int64_t lo, int64_t hi) { quantised_rows(format, int8, rough, M, N, K, x, weight, bias, residual, y, lo, hi); }
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
