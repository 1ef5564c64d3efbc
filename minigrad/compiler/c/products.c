
/* --- matrix products: y[M,N] = op(a) op(b) (+ bias of each column) (+ residual), row-major; residual may be y

   A tile of y, ROWS x WIDE, stays in registers while k runs (after Goto and van de Geijn 2008, ACM TOMS 34). op(b) is first packed into panels WIDE columns
   wide, in which k runs through memory. Each number of y is a sum over k in ascending order, in blocks of the same depth, whatever tile it falls into: results
   do not depend on how the work is cut. The sizes fit the vector registers; panels of DEEP x BROAD fit the second-level cache.

   With BFLOAT16, operands are rounded to bfloat16 while they are packed, op(a) too. Where float32 has a number of a row or a panel, there is then a pair: of k in
   the lower half, of k + 1 in the upper one; zeros fill up to a multiple of 16 pairs. A tile takes a pair in one step, so that one instruction does two
   multiplications and sums them in float32. `pairs` says which of the two it is: products of an optimizer, and with weights in blocks, are always in float32. */

#ifndef BFLOAT16
#define BFLOAT16 0
#endif
#if BFLOAT16 && defined(__AVX512BF16__)
#include <immintrin.h>
#endif
#if BFLOAT16 && defined(__AMX_BF16__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#define AMX 1
#else
#define AMX 0
#endif

#if defined(__AVX512F__)
enum { LANES = 16, VECTORS = 2, ROWS = 12 };
#define FOR_ROWS(X) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12)
#elif defined(__AVX2__) && defined(__FMA__)
enum { LANES = 8, VECTORS = 2, ROWS = 6 };
#define FOR_ROWS(X) X(1) X(2) X(3) X(4) X(5) X(6)
#else  /* right anywhere; a BLAS is faster: see native.has_tiles */
enum { LANES = 4, VECTORS = 4, ROWS = 4 };
#define FOR_ROWS(X) X(1) X(2) X(3) X(4)
#endif
enum { WIDE = LANES * VECTORS, DEEP = 512, GROUPS = 8, PANEL_FLOATS = 3 << (15 + AMX) };
typedef float vector_t __attribute__((vector_size(LANES * 4), aligned(4), may_alias));

#define GRAIN(pairs) ((pairs) ? 32 : 1)  /* of K, where a panel is cut */
#define SLOTS(pairs, K) ((pairs) ? ((K) + 31) / 32 * 16 : (K))  /* numbers or pairs of a panel that has K rows */

/* x as the upper half of 32 bits: rounded to nearest, ties to even. Numbers below 2^-126 become 0, as which AVX512-BF16 counts them. */
static inline uint32_t bfloat16_bits(float x) {
    union { float f; uint32_t i; } u = {x};
    uint32_t rounded = (u.i + 0x7fffu + (u.i >> 16 & 1)) & 0xffff0000u, sign = u.i & 0x80000000u;
    rounded = x != x ? (u.i | 0x400000u) & 0xffff0000u : rounded;
    return u.i & 0x7f800000u ? rounded : sign;
}

/* x as an operand of a product that is not packed. */
static inline float operand(float x) {
    union { uint32_t i; float f; } u = {BFLOAT16 ? bfloat16_bits(x) : 0};
    return BFLOAT16 ? u.f : x;
}

static inline float pair_of(float x, float y) {
    union { uint32_t i; float f; } u = {bfloat16_bits(x) >> 16 | bfloat16_bits(y)};
    return u.f;
}

/* The pairs of two rows, x[i] and y[i], or x[i] and 0 without a y; and those of the neighbours in a row of K numbers, every 16 of them `step` apart. */
#if BFLOAT16 && defined(__AVX512BF16__)
#define MASK(n) ((__mmask16)((n) >= 16 ? 0xffff : (n) <= 0 ? 0 : (1 << (n)) - 1))
static inline void pair_rows(const float *x, const float *y, int64_t n, float *to) {
    static const uint16_t woven[32] = {0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    for (int64_t i = 0; i < n; i += 16) {
        __m512 low = _mm512_maskz_loadu_ps(MASK(n - i), x + i), high = _mm512_maskz_loadu_ps(y ? MASK(n - i) : 0, (y ? y : x) + i);
        _mm512_mask_storeu_epi32(to + i, MASK(n - i), _mm512_permutexvar_epi16(_mm512_loadu_si512(woven), (__m512i)_mm512_cvtne2ps_pbh(high, low)));
    }
}

static inline void pair_row(const float *x, int64_t K, float *to, int64_t step) {
    for (int64_t k = 0; k < K; k += 32, to += step) {
        __m512 low = _mm512_maskz_loadu_ps(MASK(K - k), x + k), high = _mm512_maskz_loadu_ps(MASK(K - k - 16), x + k + 16);
        _mm512_storeu_si512(to, (__m512i)_mm512_cvtne2ps_pbh(high, low));
    }
}

static inline vector_t add_pair(vector_t sum, float a, vector_t b) {
    __asm__("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(_mm512_set1_ps(a)), "v"(b));  /* GCC 12 keeps the sums in memory around its own function for this */
    return sum;
}
#else
static inline void pair_rows(const float *x, const float *y, int64_t n, float *to) {
    for (int64_t i = 0; i < n; i++) to[i] = pair_of(x[i], y ? y[i] : 0.f);
}

static inline void pair_row(const float *x, int64_t K, float *to, int64_t step) {
    for (int64_t k = 0; k < K; k += 32, to += step)
        for (int64_t i = k; i < k + 32; i += 2) to[(i - k) / 2] = pair_of(i < K ? x[i] : 0.f, i + 1 < K ? x[i + 1] : 0.f);
}

typedef uint32_t bits_t __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
static inline vector_t add_pair(vector_t sum, float a, vector_t b) {
    union { float f; uint32_t i; } u = {a};
    bits_t x = (bits_t){0} + u.i, y = (bits_t)b;
    sum += (vector_t)(x << 16) * (vector_t)(y << 16);
    return sum + (vector_t)(x & 0xffff0000u) * (vector_t)(y & 0xffff0000u);
}
#endif
static inline vector_t add_number(vector_t sum, float a, vector_t b) { return sum + a * b; }

/* Unrolled, so that the sums of a tile are in registers from its first loop to its last. */
#define EACH_SUM(R) _Pragma("GCC unroll 12") for (int r = 0; r < R; r++) _Pragma("GCC unroll 4") for (int v = 0; v < VECTORS; v++)
/* Of R rows of op(a), with steps rs from row to row and ks along k, and a whole panel. ADD: add_number, or add_pair, and K is a number of pairs. */
#define TILE(name, R, ADD) static ONCE void name##R(const float *RESTRICT a, int64_t rs, int64_t ks, const float *RESTRICT panel, int64_t K, \
        const float *bias, const float *residual, int64_t ldm, float *y, int64_t ldc) { \
    vector_t sum[R][VECTORS]; \
    EACH_SUM(R) sum[r][v] = (vector_t){0}; \
    for (int r = 0; r < R; r++) __builtin_prefetch(y + r * ldc, 1), __builtin_prefetch(y + r * ldc + WIDE - 1, 1);  /* to be written at the end */ \
    for (int64_t k = 0; k < K; k++) { \
        vector_t b[VECTORS]; \
        for (int v = 0; v < VECTORS; v++) b[v] = *(const vector_t *)(panel + k * WIDE + v * LANES); \
        EACH_SUM(R) sum[r][v] = ADD(sum[r][v], a[r * rs + k * ks], b[v]); \
    } \
    if (residual) EACH_SUM(R) sum[r][v] += *(const vector_t *)(residual + r * ldm + v * LANES); \
    if (bias) EACH_SUM(R) sum[r][v] += *(const vector_t *)(bias + v * LANES); \
    EACH_SUM(R) *(vector_t *)(y + r * ldc + v * LANES) = sum[r][v]; \
}
#define TILE_OF(R) TILE(tile_, R, add_number)
#define PAIR_TILE_OF(R) TILE(pair_tile_, R, add_pair)
FOR_ROWS(TILE_OF)
#if BFLOAT16
FOR_ROWS(PAIR_TILE_OF)
#endif

typedef void (*tile_t)(const float *, int64_t, int64_t, const float *, int64_t, const float *, const float *, int64_t, float *, int64_t);
#define TILE_NAME(R) tile_##R,
#define PAIR_TILE_NAME(R) pair_tile_##R,
static const tile_t tile_of[1 + BFLOAT16][ROWS + 1] = {
    {NULL, FOR_ROWS(TILE_NAME)},
#if BFLOAT16
    {NULL, FOR_ROWS(PAIR_TILE_NAME)},
#endif
};

#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define SHUFFLES 1
#endif
#endif

/* Sixteen rows become columns, in four rounds: each lays the first half of the rows and the second half into one another. */
typedef float sixteen_t __attribute__((vector_size(64), aligned(4), may_alias));
static inline void transpose(const float *RESTRICT from, int64_t step, float *RESTRICT to, int64_t pitch) {
#if defined(SHUFFLES) && defined(__AVX512F__)
    sixteen_t x[16], y[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) x[i] = *(const sixteen_t *)(from + i * step);
#pragma GCC unroll 4
    for (int round = 0; round < 4; round++) {
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++) {
            y[2 * i] = __builtin_shufflevector(x[i], x[i + 8], 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
            y[2 * i + 1] = __builtin_shufflevector(x[i], x[i + 8], 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
        }
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) x[i] = y[i];
    }
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) *(sixteen_t *)(to + i * pitch) = x[i];
#else
    for (int i = 0; i < 16; i++) for (int j = 0; j < 16; j++) to[j * pitch + i] = from[i * step + j];
#endif
}

/* A panel of a transposed b: WIDE of its rows side by side, 16 x 16 or 4 x 4 numbers at a time. The rows of the next panel are on their way meanwhile. */
typedef float four_t __attribute__((vector_size(16), aligned(4), may_alias));
static ONCE void pack_across(int64_t K, const float *RESTRICT b, int64_t ldb, float *RESTRICT panel) {
    int64_t k = 0;
#if defined(SHUFFLES) && defined(__AVX512F__)
    for (; k + 16 <= K; k += 16) for (int i = 0; i < WIDE; i += 16) {
        for (int r = i; r < i + 16; r++) __builtin_prefetch(b + (WIDE + r) * ldb + k);
        transpose(b + i * ldb + k, ldb, panel + k * WIDE + i, WIDE);
    }
#elif defined(SHUFFLES)
#define PUT(row, x, y, i, j, k, l) *(four_t *)(to + row * WIDE) = __builtin_shufflevector(x, y, i, j, k, l)
    for (; k + 4 <= K; k += 4) {
        if (k % 16 == 0) for (int i = 0; i < WIDE; i++) __builtin_prefetch(b + (WIDE + i) * ldb + k);
        for (int i = 0; i < WIDE; i += 4) {
            const float *x = b + i * ldb + k;
            float *to = panel + k * WIDE + i;
            four_t r0 = *(const four_t *)x, r1 = *(const four_t *)(x + ldb), r2 = *(const four_t *)(x + 2 * ldb), r3 = *(const four_t *)(x + 3 * ldb);
            four_t low01 = __builtin_shufflevector(r0, r1, 0, 4, 1, 5), high01 = __builtin_shufflevector(r0, r1, 2, 6, 3, 7);
            four_t low23 = __builtin_shufflevector(r2, r3, 0, 4, 1, 5), high23 = __builtin_shufflevector(r2, r3, 2, 6, 3, 7);
            PUT(0, low01, low23, 0, 1, 4, 5), PUT(1, low01, low23, 2, 3, 6, 7), PUT(2, high01, high23, 0, 1, 4, 5), PUT(3, high01, high23, 2, 3, 6, 7);
        }
    }
#endif
    for (; k < K; k++) for (int i = 0; i < WIDE; i++) panel[k * WIDE + i] = b[i * ldb + k];
}

static ONCE void pack_pairs(int tb, int64_t N, int64_t K, const float *RESTRICT b, int64_t ldb, float *RESTRICT panels) {
    int64_t slots = SLOTS(1, K), broad = (N + WIDE - 1) / WIDE * WIDE;
    float made[16 * 16];
    if (tb) for (int64_t j = 0; j < broad; j += 16) for (int64_t k = 0; k < slots; k += 16) {
        for (int64_t i = 0; i < 16; i++)
            if (j + i < N) pair_row(b + (j + i) * ldb + 2 * k, MIN(32, K - 2 * k), made + i * 16, 0);
            else memset(made + i * 16, 0, 16 * sizeof(float));
        transpose(made, 16, panels + j / WIDE * WIDE * slots + k * WIDE + j % WIDE, WIDE);
    }
    else for (int64_t first = 0; first < slots; first += 16) for (int64_t j = 0; j < N; j += WIDE) for (int64_t k = first; k < first + 16; k++) {
        const float *row = b + 2 * k * ldb + j;
        for (int64_t i = 0; i < 2 * WIDE; i += 16) __builtin_prefetch(row + (32 + i / WIDE) * ldb + i % WIDE);
        float *to = panels + j * slots + k * WIDE;
        if (N - j < WIDE || 2 * k >= K) memset(to, 0, WIDE * sizeof(float));
        if (2 * k < K) pair_rows(row, 2 * k + 1 < K ? row + ldb : NULL, MIN(WIDE, N - j), to);
    }
}

/* op(b), (K, N), as panels: columns j .. j + WIDE at panels + j SLOTS(K), zeros after the last. */
static ONCE void pack(int pairs, int tb, int64_t N, int64_t K, const float *RESTRICT b, int64_t ldb, float *RESTRICT panels) {
    if (BFLOAT16 && pairs) { pack_pairs(tb, N, K, b, ldb, panels); return; }
    int64_t whole = N / WIDE * WIDE, rest = N - whole;
    float *RESTRICT last = panels + whole * K;
    if (rest) memset(last, 0, K * WIDE * sizeof(float));
    if (tb) {
        for (int64_t j = 0; j < whole; j += WIDE) pack_across(K, b + j * ldb, ldb, panels + j * K);
        for (int64_t i = 0; i < rest; i++) for (int64_t k = 0; k < K; k++) last[k * WIDE + i] = b[(whole + i) * ldb + k];
    }
    else for (int64_t first = 0, end; first < K; first = end) {  /* a few rows at a time: the panels that are written share sets of the cache */
        end = MIN(K, first + 16);
        for (int64_t j = 0; j < whole; j += WIDE) for (int64_t k = first; k < end; k++) memcpy(panels + j * K + k * WIDE, b + k * ldb + j, WIDE * sizeof(float));
        for (int64_t k = first; k < end; k++) for (int64_t i = 0; i < rest; i++) last[k * WIDE + i] = b[k * ldb + whole + i];
    }
}

/* Columns of a transposed a as they are read, ROWS side by side, several such groups at a time: whole lines of memory. */
static ONCE void gather_rows(int pairs, int64_t M, int64_t K, const float *RESTRICT a, int64_t lda, float *RESTRICT groups) {
    int64_t slots = (K + pairs) / (1 + pairs);
    for (int64_t k = 0; k < slots; k++) {
        const float *row = a + k * (1 + pairs) * lda;
        for (int64_t r = 16; r <= 16 + pairs; r++) for (int64_t i = 0; i < M; i += 16) __builtin_prefetch(row + r * lda + i);
        for (int64_t i = 0; i < M; i += ROWS) {
            float *to = groups + i * slots + k * ROWS;
            if (BFLOAT16 && pairs) pair_rows(row + i, 2 * k + 1 < K ? row + lda + i : NULL, MIN(ROWS, M - i), to);
            else if (M - i >= ROWS) memcpy(to, row + i, ROWS * sizeof(float));
            else for (int64_t r = 0; r < M - i; r++) to[r] = row[i + r];
        }
    }
}

#if AMX
/* --- AMX: a tile of y is 32 x 32, in four registers of 16 x 16 numbers. Of each 32 numbers of k, even ones and odd ones are summed apart, then added. */

static int may_use_amx;  /* the system has to be asked, once in a process */
__attribute__((constructor)) static void ask_for_amx(void) { may_use_amx = syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18 /* the tiles' data */) == 0; }

#define AMX_LOAD(tile, from, step) __asm__ volatile("tileloadd (%0,%1,1), %%tmm" #tile : : "r"(from), "r"((int64_t)(step) * 4) : "memory")
#define AMX_STORE(tile, to, step) __asm__ volatile("tilestored %%tmm" #tile ", (%0,%1,1)" : : "r"(to), "r"((int64_t)(step) * 4) : "memory")
#define AMX_ZERO(tile) __asm__ volatile("tilezero %%tmm" #tile : : : "memory")
#define AMX_ADD(sum, a, b) __asm__ volatile("tdpbf16ps %%tmm" #b ", %%tmm" #a ", %%tmm" #sum : : : "memory")

/* Up to 32 rows of op(a): 16 pairs of each row, then the next 16. */
static ONCE void amx_rows(int ta, int64_t rows, int64_t K, const float *RESTRICT a, int64_t lda, float *RESTRICT to) {
    float made[16 * 32];
    if (!ta) for (int64_t r = 0; r < rows; r++) pair_row(a + r * lda, K, to + r * 16, 16 * 32);
    else for (int64_t k = 0; k < K; k += 32, to += 16 * 32) {
        for (int64_t i = 0; i < 16; i++) {
            const float *row = a + (k + 2 * i) * lda;
            if (k + 2 * i < K) pair_rows(row, k + 2 * i + 1 < K ? row + lda : NULL, rows, made + i * 32);
            else memset(made + i * 32, 0, 32 * sizeof(float));
        }
        transpose(made, 32, to, 16);
        if (rows > 16) transpose(made + 16, 32, to + 16 * 16, 16);
    }
}

/* 32 x 32 of y, or less than 17 rows or columns of it, from what is at `begun`, or from 0. */
static ONCE void amx_tile(int tall, int broad, int64_t slots, const float *rows, const float *panel, const float *begun, int64_t step, float *y, int64_t ldc) {
    if (begun) {
        AMX_LOAD(0, begun, step);
        if (broad) AMX_LOAD(1, begun + 16, step);
        if (tall) AMX_LOAD(2, begun + 16 * step, step);
        if (tall && broad) AMX_LOAD(3, begun + 16 * step + 16, step);
    }
    else { AMX_ZERO(0); AMX_ZERO(1); AMX_ZERO(2); AMX_ZERO(3); }
    for (int64_t k = 0; k < slots; k += 16) {
        AMX_LOAD(4, rows + k * 32, 16);
        AMX_LOAD(6, panel + k * WIDE, WIDE);
        AMX_ADD(0, 4, 6);
        if (broad) { AMX_LOAD(7, panel + k * WIDE + 16, WIDE); AMX_ADD(1, 4, 7); }
        if (tall) { AMX_LOAD(5, rows + k * 32 + 256, 16); AMX_ADD(2, 5, 6); }
        if (tall && broad) AMX_ADD(3, 5, 7);
    }
    AMX_STORE(0, y, ldc);
    if (broad) AMX_STORE(1, y + 16, ldc);
    if (tall) AMX_STORE(2, y + 16 * ldc, ldc);
    if (tall && broad) AMX_STORE(3, y + 16 * ldc + 16, ldc);
}

/* What `tiles` does, for a `pitch` in pairs. */
static ONCE void amx_tiles(int ta, int64_t M, int64_t N, int64_t K, const float *a, int64_t lda, const float *panels, int64_t pitch, const float *bias,
                           const float *residual, int64_t ldm, float *y, int64_t ldc) {
    static const struct { uint8_t palette, start, none[14]; uint16_t bytes[16]; uint8_t rows[16]; } sizes = {
        1, 0, {0}, {64, 64, 64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16, 16, 16}};
    ROOM(rows_of_a, 32 * DEEP);
    _Alignas(64) float edge[32 * 32];
    __asm__ volatile("ldtilecfg %0" : : "m"(sizes));
    for (int64_t k = 0; k < K; k += 2 * DEEP) {
        int64_t depth = MIN(2 * DEEP, K - k);
        for (int64_t i = 0; i < M; i += 32) {
            int64_t tall = MIN(32, M - i);
            amx_rows(ta, tall, depth, ta ? a + k * lda + i : a + i * lda + k, lda, rows_of_a);
            for (int64_t j = 0; j < N; j += 32) {
                int64_t broad = MIN(32, N - j), step = k ? ldc : ldm, to_step = ldc;
                float *to = y + i * ldc + j;
                const float *begun = k ? to : residual ? residual + i * ldm + j : NULL, *columns = bias && !k ? bias + j : NULL;
                int whole = tall == 32 && broad == 32;
                if (!begun && columns && whole) begun = columns, step = 0;
                else if (columns || !whole) {
                    for (int64_t r = 0; r < tall; r++) for (int64_t c = 0; c < broad; c++)
                        edge[r * 32 + c] = (begun ? begun[r * step + c] : 0.f) + (columns ? columns[c] : 0.f);
                    begun = edge, step = 32;
                }
                if (!whole) to = edge, to_step = 32;
                amx_tile(tall > 16, broad > 16, SLOTS(1, depth), rows_of_a, panels + j * pitch + k / 2 * WIDE, begun, step, to, to_step);
                if (!whole) for (int64_t r = 0; r < tall; r++) memcpy(y + (i + r) * ldc + j, edge + r * 32, broad * sizeof(float));
            }
        }
    }
    __asm__ volatile("tilerelease");
}
#endif

/* A product whose op(b) is packed, with `pitch` rows in each panel, of which K are used. In float32, K is at most DEEP where a is transposed. */
static ONCE void tiles(int pairs, int ta, int64_t M, int64_t N, int64_t K, const float *a, int64_t lda, const float *panels, int64_t pitch, const float *bias,
                  const float *residual, int64_t ldm, float *y, int64_t ldc) {
    ROOM(gathered, GROUPS * ROWS * DEEP);
    pairs &= BFLOAT16;
#if AMX
    if (pairs && may_use_amx) { amx_tiles(ta, M, N, K, a, lda, panels, SLOTS(1, pitch), bias, residual, ldm, y, ldc); return; }
#endif
    if (pairs && K > 2 * DEEP) {
        for (int64_t k = 0; k < K; k += 2 * DEEP)
            tiles(pairs, ta, M, N, MIN(2 * DEEP, K - k), a + (ta ? k * lda : k), lda, panels + k / 2 * WIDE, pitch, k ? NULL : bias, k ? y : residual, k ? ldc : ldm, y, ldc);
        return;
    }
    int gathers = ta && (pairs || N > 2 * WIDE);  /* what is read often is laid side by side first */
    int64_t depth = (K + pairs) / (1 + pairs), padded = SLOTS(pairs, K), rs = ta ? 1 : pairs ? padded : lda, ks = gathers ? ROWS : ta ? lda : 1;
    pitch = SLOTS(pairs, pitch);
    for (int64_t i = 0, rows; i < M; i += rows) {
        rows = M - i < ROWS * 3 / 2 && M - i > ROWS && !gathers ? (M - i + 1) / 2 : MIN(ROWS, M - i);  /* a tile of a row or two takes as long as one of half */
        int64_t group = i % (GROUPS * ROWS);
        if (gathers && group == 0) gather_rows(pairs, MIN(GROUPS * ROWS, M - i), K, a + i, lda, gathered);
        if (pairs && !ta) for (int64_t r = 0; r < rows; r++) pair_row(a + (i + r) * lda, K, gathered + r * padded, 16);
        const float *x = gathers ? gathered + group * depth : pairs ? gathered : a + i * rs;
        for (int64_t j = 0; j < N; j += WIDE) {
            const float *added = residual ? residual + i * ldm + j : NULL, *columns = bias ? bias + j : NULL;
            float *to = y + i * ldc + j, ragged[ROWS * WIDE];
            if (N - j >= WIDE) { tile_of[pairs][rows](x, rs, ks, panels + j * pitch, depth, columns, added, ldm, to, ldc); continue; }
            tile_of[pairs][rows](x, rs, ks, panels + j * pitch, depth, NULL, NULL, 0, ragged, WIDE);
            for (int64_t r = 0; r < rows; r++) for (int64_t c = 0; c < N - j; c++)
                to[r * ldc + c] = ragged[r * WIDE + c] + (added ? added[r * ldm + c] : 0.f) + (columns ? columns[c] : 0.f);
        }
    }
}

/* The size of the parts that n is cut into, as few as possible, none above `most`, all a multiple of `grain` long and about equal. */
static ONCE int64_t even_part(int64_t n, int64_t most, int64_t grain) {
    int64_t parts = MAX(1, (n + most - 1) / MAX(1, most / grain * grain));
    return MAX(grain, ((n + parts - 1) / parts + grain - 1) / grain * grain);
}

#define PANELS(N, K) (((N) + WIDE - 1) / WIDE * WIDE * SLOTS(BFLOAT16, K))  /* numbers in the panels of a matrix (K, N) */

/* --- the BLAS that numpy uses, where it is bound */

#ifndef BLAS_INT
#define BLAS_INT int64_t
#endif
typedef void (*sgemm_t)(int, int, int, BLAS_INT, BLAS_INT, BLAS_INT, float, const float *, BLAS_INT, const float *, BLAS_INT, float, float *, BLAS_INT);
static sgemm_t blas_sgemm;
static void (*blas_set_threads)(int);
static int (*blas_get_threads)(void);

void bind_blas(void *sgemm, void *set_threads, void *get_threads) {
    blas_sgemm = (sgemm_t)sgemm, blas_set_threads = (void (*)(int))set_threads, blas_get_threads = (int (*)(void))get_threads;
}

static ONCE void blas_product(int ta, int tb, int64_t M, int64_t N, int64_t K, const float *a, int64_t lda, const float *b, int64_t ldb, const float *bias,
                         const float *residual, int64_t ldm, float *y, int64_t ldc) {
    int begun = bias || residual;
    if (begun) for (int64_t i = 0; i < M; i++) for (int64_t j = 0; j < N; j++) y[i * ldc + j] = (residual ? residual[i * ldm + j] : 0.f) + (bias ? bias[j] : 0.f);
    blas_sgemm(101, ta ? 112 : 111, tb ? 112 : 111, M, N, K, 1.f, a, lda, b, ldb, begun ? 1.f : 0.f, y, ldc);
}

/* The product for matrices of any size: panels of a part of op(b), all tiles with these, the next part. upper: only what the upper triangle of y needs. */
static ONCE void product_of(int pairs, int upper, int ta, int tb, int64_t M, int64_t N, int64_t K, const float *a, int64_t lda, const float *b, int64_t ldb,
                            const float *bias, const float *residual, int64_t ldm, float *y, int64_t ldc) {
    ROOM(panels, PANEL_FLOATS);
    if (M <= 0 || N <= 0) return;
    pairs &= BFLOAT16;
    if (blas_sgemm && !pairs && K > 0) { blas_product(ta, tb, M, N, K, a, lda, b, ldb, bias, residual, ldm, y, ldc); return; }
    int64_t deep = even_part(K, (ta ? DEEP / 2 : DEEP) * (1 + pairs), GRAIN(pairs)), broad = even_part(N, PANEL_FLOATS / MAX(1, SLOTS(pairs, deep)), WIDE);
    int64_t tall = upper ? 4 * ROWS : M, k = 0;
    do {
        int64_t depth = MIN(deep, K - k);
        for (int64_t j = 0; j < N; j += broad) {
            int64_t n = MIN(broad, N - j), last = upper ? MIN(M, j + n) : M;
            pack(pairs, tb, n, depth, tb ? b + j * ldb + k : b + k * ldb + j, ldb, panels);
            for (int64_t i = 0; i < last; i += tall) {
                int64_t skipped = upper ? MAX(0, i - j) / WIDE * WIDE : 0, at = j + skipped;
                const float *begun = k ? y + i * ldc + at : residual ? residual + i * ldm + at : NULL;
                tiles(pairs, ta, MIN(tall, last - i), n - skipped, depth, ta ? a + k * lda + i : a + i * lda + k, lda, panels + skipped * SLOTS(pairs, depth), depth,
                      bias && !k ? bias + at : NULL, begun, k ? ldc : ldm, y + i * ldc + at, ldc);
            }
        }
    } while ((k += deep) < K);
}

/* op linear: lowered by products.py */
static void product(int ta, int tb, int64_t M, int64_t N, int64_t K, const float *a, int64_t lda, const float *b, int64_t ldb, const float *bias,
                    const float *residual, int64_t ldm, float *y, int64_t ldc) {
    product_of(BFLOAT16, 0, ta, tb, M, N, K, a, lda, b, ldb, bias, residual, ldm, y, ldc);
}

/* A product that is symmetric, (R, R) without gaps: its upper triangle, and the mirror image of it. */
static void symmetric_product(int ta, int tb, int64_t R, int64_t K, const float *a, const float *b, int64_t ld, float *y) {
    product_of(0, 1, ta, tb, R, R, K, a, ld, b, ld, NULL, NULL, 0, y, R);
    for (int64_t i = 0; i < R; i += 16) for (int64_t j = 0; j <= i; j += 16)
        for (int64_t r = i; r < MIN(R, i + 16); r++) for (int64_t c = j; c < MIN(r, j + 16); c++) y[r * R + c] = y[c * R + r];
}

/* --- a few rows of a */

typedef float lanes_t __attribute__((vector_size(32), aligned(4), may_alias));

static inline lanes_t operands(const float *x) {
    if (!BFLOAT16) return *(const lanes_t *)x;
    float y[8];
    for (int i = 0; i < 8; i++) y[i] = operand(x[i]);
    return *(lanes_t *)y;
}

/* y = a b^T (+ bias) (+ residual) for a few rows of a, the rows [lo, hi) of b one after the other: a single stream is what the CPU fetches ahead best (38 GB/s
   measured, where four rows side by side came at 15). */
BODY few_rows(const float *RESTRICT a, int64_t lda, const float *RESTRICT b, int64_t ldb, const float *bias, const float *residual, float *RESTRICT y, int64_t ldc,
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
                lanes_t w0 = operands(w + k), w1 = operands(w + k + 8);
                for (int r = 0; r < 4; r++) sums[r][0] += w0 * operands(x + r * lda + k), sums[r][1] += w1 * operands(x + r * lda + k + 8);
            }
            for (int r = 0; r < 4; r++) {
                float sum = tree16((const float *)sums[r]);
                for (int64_t k = whole; k < K; k++) sum += operand(x[r * lda + k]) * operand(w[k]);
                y[(m + r) * ldc + n] = sum + constant + (residual ? residual[(m + r) * N + n] : 0.f);
            }
        }
        for (; m < M; m++) {
            const float *RESTRICT x = a + m * lda;
            lanes_t sums[8] = {0};  /* as many as additions are on their way at a time */
            int64_t k = 0;
            if (LANES == 16 && !BFLOAT16) {
                vector_t many[4] = {0};
                for (; k + 64 <= whole; k += 64) for (int v = 0; v < 4; v++) many[v] += *(const vector_t *)(w + k + 16 * v) * *(const vector_t *)(x + k + 16 * v);
                memcpy(sums, many, sizeof many);  /* the same sums */
            }
            for (; k + 64 <= whole; k += 64) for (int v = 0; v < 8; v++) sums[v] += operands(w + k + 8 * v) * operands(x + k + 8 * v);
            for (; k < whole; k += 16) for (int v = 0; v < 2; v++) sums[v] += operands(w + k + 8 * v) * operands(x + k + 8 * v);
            for (int v = 0; v < 4; v++) sums[v] += sums[v + 4];
            sums[0] += sums[2], sums[1] += sums[3];
            float sum = tree16((const float *)sums);
            for (; k < K; k++) sum += operand(x[k]) * operand(w[k]);
            y[m * ldc + n] = sum + constant + (residual ? residual[m * N + n] : 0.f);
        }
    }
}

/* --- some rows of a */

enum { MOST_ROWS = 64 };

/* R rows of b times a panel of V vectors of rows of a side by side, STEP columns of each row at a time: there are more rows than registers for their addresses. */
enum { STEP = LANES == 16 ? 4 : 1, SIDE = LANES == 16 ? 16 : 12 };  /* SIDE: rows of b at a time, as many sums as the registers hold */
#define SOME_TILE(name, type, R, V) static ONCE void name(const float *RESTRICT b, int64_t ldb, const float *RESTRICT panel, int64_t K, float *RESTRICT out) { \
    enum { NUMBERS = sizeof(type) / sizeof(float) }; \
    type sum[R][V] = {0}, x[STEP][V]; \
    int64_t k = 0; \
    for (; k + STEP <= K; k += STEP) { \
        if (k % 16 == 0) for (int r = 0; r < R; r++) __builtin_prefetch(b + (SIDE + r) * ldb + k, 0, 2);  /* the next SIDE rows */ \
        for (int i = 0; i < STEP; i++) for (int v = 0; v < V; v++) x[i][v] = *(const type *)(panel + ((k + i) * V + v) * NUMBERS); \
        _Pragma("GCC unroll 16") for (int r = 0; r < R; r++) for (int i = 0; i < STEP; i++) for (int v = 0; v < V; v++) sum[r][v] += b[r * ldb + k + i] * x[i][v]; \
    } \
    for (; k < K; k++) for (int r = 0; r < R; r++) for (int v = 0; v < V; v++) sum[r][v] += b[r * ldb + k] * *(const type *)(panel + (k * V + v) * NUMBERS); \
    for (int r = 0; r < R; r++) for (int v = 0; v < V; v++) *(type *)(out + (r * V + v) * NUMBERS) = sum[r][v]; \
}
SOME_TILE(tile_of_8, lanes_t, SIDE, 1)
SOME_TILE(narrow_tile, vector_t, SIDE, 1)
SOME_TILE(broad_tile, vector_t, SIDE / 2, 2)

/* The product of `few_rows` for up to MOST_ROWS rows of a: these are packed, and the rows [lo, hi) of b, of which there are more, are read as they are, SIDE
   at a time. Sums as in `tiles`. Where operands become bfloat16, they are packed. */
static ONCE void some_rows(const float *a, int64_t lda, const float *b, int64_t ldb, const float *bias, const float *residual, float *y, int64_t ldc, int64_t M,
                           int64_t N, int64_t K, int64_t lo, int64_t hi) {
    ROOM(panels, (MOST_ROWS + SIDE) * DEEP);
    float *const last = panels + MOST_ROWS * DEEP;
    if (blas_sgemm || BFLOAT16) { product(0, 1, M, hi - lo, K, a, lda, b + lo * ldb, ldb, bias ? bias + lo : NULL, residual ? residual + lo : NULL, N, y + lo, ldc); return; }
#define ACROSS(m) (M - (m) > (LANES == 16 ? 24 : LANES) ? 2 * LANES : M - (m) > 8 ? LANES : 8)  /* rows of a in a panel: 24 are 16 and 8 */
    for (int64_t deep = even_part(K, DEEP, 1), k = 0; k < K; k += deep) {
        int64_t depth = MIN(deep, K - k);
        for (int64_t m = 0, wide; m < M; m += wide) {
            wide = ACROSS(m);
            for (int64_t i = 0; i < depth; i++) for (int64_t r = 0; r < wide; r++) panels[m * depth + i * wide + r] = a[MIN(m + r, M - 1) * lda + k + i];
        }
        for (int64_t n = lo, rows; n < hi; n += rows) {
            const float *w = b + n * ldb + k;
            int64_t ldw = ldb;
            rows = MIN(SIDE, hi - n);
            if (rows < SIDE) {  /* in a tile like any other: GCC takes other instructions for smaller ones, which round otherwise */
                for (int64_t r = 0; r < rows; r++) memcpy(last + r * depth, w + r * ldb, depth * sizeof(float));
                w = last, ldw = depth;
            }
            for (int64_t m = 0, wide; m < M; m += wide) {
                const float *panel = panels + m * depth;
                float out[SIDE * MAX(8, 2 * LANES)], across[MAX(8, 2 * LANES) * SIDE];
                wide = ACROSS(m);
                if (wide == 8) tile_of_8(w, ldw, panel, depth, out);
                else if (wide == LANES) narrow_tile(w, ldw, panel, depth, out);
                else broad_tile(w, ldw, panel, depth, out), broad_tile(w + SIDE / 2 * ldw, ldw, panel, depth, out + SIDE / 2 * wide);
                if (SIDE == 16 && wide > 8) for (int64_t c = 0; c < wide; c += 16) transpose(out + c, wide, across + c * SIDE, SIDE);
                else for (int64_t r = 0; r < SIDE; r++) for (int64_t c = 0; c < wide; c++) across[c * SIDE + r] = out[r * wide + c];
                for (int64_t c = 0; c < MIN(wide, M - m); c++) {
                    float *to = y + (m + c) * ldc + n;
                    const float *begun = k ? to : residual ? residual + (m + c) * N + n : NULL;
                    for (int64_t r = 0; r < rows; r++) to[r] = across[c * SIDE + r] + (begun ? begun[r] : 0.f) + (bias && !k ? bias[n + r] : 0.f);
                }
            }
        }
    }
}
