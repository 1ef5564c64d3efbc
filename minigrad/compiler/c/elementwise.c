
/* --- elementwise ops: float_NAME for floats, bool_NAME for what gives bools, integer_NAME for integers. Operands have one dtype; what comes before a ? may
   be a bool. LIBM picks libm's function by type, OURS one that the prelude has for float and libm for double, PICK one of two, NAME_f and NAME_d. */

#define LIBM(name, x) _Generic((x), float: name##f, default: name)
#define OURS(name, x) _Generic((x), float: name##_f, default: name)
#define PICK(name, x) _Generic((x), float: name##_f, default: name##_d)

#define LOG_OF(a) PICK(max, a)(LIBM(log, a)(a), -100)
#define float_add(a, b) (a + b)
#define float_sub(a, b) (a - b)
#define float_mul(a, b) (a * b)
#define float_div(a, b) (a / b)
#define float_neg(a) (-a)
#define float_square(a) (a * a)
#define float_maximum(a, b) PICK(max, a)(a, b)
#define float_minimum(a, b) PICK(min, a)(a, b)
#define float_where(c, a, b) (c ? a : b)
#define float_zeros_like(a) 0
#define float_mask_cotangent(x, g) ({ __typeof__(x) y_ = x == x ? x : 0; g == 0 ? y_ : x; })
#define float_clamp(x, low, high) PICK(min, x)(PICK(max, x)(x, low), high)
#define float_abs(a) LIBM(fabs, a)(a)
#define float_sign(a) (a > 0 ? 1 : a < 0 ? -1 : a)
#define float_round(a) LIBM(rint, a)(a)
#define float_relu(a) PICK(max, a)(a, 0)
#define float_rsqrt(a) (1 / LIBM(sqrt, a)(a))
#define float_reciprocal(a) (1 / a)
#define float_bernoulli_loss(p, y) -(y * LOG_OF(p) + (1 - y) * LOG_OF(1 - p))
#define float_exp(a) OURS(exp, a)(a)
#define float_tanh(a) OURS(tanh, a)(a)
#define float_sigmoid(a) PICK(sigmoid, a)(a)
#define float_share(wins, ties) (ties ? 0.5f : wins ? 1 : 0)
#define float_erf(a) OURS(erf, a)(a)
#define float_erfc(a) OURS(erfc, a)(a)
#define float_gauss(a) PICK(gauss, a)(a)
#define float_logaddexp(a, b) PICK(logaddexp, a)(a, b)
#define float_mod(a, b) PICK(mod, a)(a, b)
#define float_exp2(a) LIBM(exp2, a)(a)
#define float_expm1(a) LIBM(expm1, a)(a)
#define float_log(a) LIBM(log, a)(a)
#define float_log2(a) LIBM(log2, a)(a)
#define float_log10(a) LIBM(log10, a)(a)
#define float_log1p(a) LIBM(log1p, a)(a)
#define float_sin(a) LIBM(sin, a)(a)
#define float_cos(a) LIBM(cos, a)(a)
#define float_tan(a) LIBM(tan, a)(a)
#define float_asin(a) LIBM(asin, a)(a)
#define float_acos(a) LIBM(acos, a)(a)
#define float_atan(a) LIBM(atan, a)(a)
#define float_sinh(a) LIBM(sinh, a)(a)
#define float_cosh(a) LIBM(cosh, a)(a)
#define float_asinh(a) LIBM(asinh, a)(a)
#define float_acosh(a) LIBM(acosh, a)(a)
#define float_atanh(a) LIBM(atanh, a)(a)
#define float_floor(a) LIBM(floor, a)(a)
#define float_ceil(a) LIBM(ceil, a)(a)
#define float_trunc(a) LIBM(trunc, a)(a)
#define float_sqrt(a) LIBM(sqrt, a)(a)
#define float_pow(a, b) LIBM(pow, a)(a, b)
#define float_atan2(a, b) LIBM(atan2, a)(a, b)
#define float_hypot(a, b) LIBM(hypot, a)(a, b)
#define float_copysign(a, b) LIBM(copysign, a)(a, b)
#define float_fmod(a, b) LIBM(fmod, a)(a, b)
#define bool_equal(a, b) (a == b)
#define bool_not_equal(a, b) (a != b)
#define bool_less(a, b) (a < b)
#define bool_less_equal(a, b) (a <= b)
#define bool_greater(a, b) (a > b)
#define bool_greater_equal(a, b) (a >= b)
#define bool_logical_and(a, b) ((a != 0) & (b != 0))
#define bool_logical_or(a, b) ((a != 0) | (b != 0))
#define bool_logical_xor(a, b) ((a != 0) ^ (b != 0))
#define bool_logical_not(a) (a == 0)
#define bool_isnan(a) (a != a)
#define bool_isinf(a) (isinf(a) != 0)
#define bool_isfinite(a) (isfinite(a) != 0)
#define bool_bitwise_and(a, b) (a & b)
#define bool_bitwise_or(a, b) (a | b)
#define bool_bitwise_xor(a, b) (a ^ b)
#define bool_bitwise_not(a) (a == 0)
/* Integers wrap around, which C promises of unsigned ones alone; what is more than their width is cut off. */
#define integer_add(a, b) ((uint64_t)(a) + (uint64_t)(b))
#define integer_sub(a, b) ((uint64_t)(a) - (uint64_t)(b))
#define integer_mul(a, b) ((uint64_t)(a) * (uint64_t)(b))
#define integer_where(c, a, b) (c ? a : b)
#define integer_zeros_like(a) 0
#define integer_maximum(a, b) (a > b ? a : b)
#define integer_minimum(a, b) (a < b ? a : b)

/* --- the error function and its kin, and log(exp(a) + exp(b)), a few ulp in float32, without branches */

/* exp(-x^2): x is split after 4 binary digits, so that the square of the head is exact. */
static inline float gauss_f(float x) {
    float a = fabsf(x), c = a > 30.f ? 30.f : a, head = truncf(c * 16.f) * 0.0625f;
    return exp_f(-(c - head) * (c + head)) * exp_f(-head * head);
}

/* erfc(x) for x >= 0: t R(t) exp(-x^2) with t = 1 / (1 + 3 x / 8); the polynomial is that of ops/calculus.py. */
static inline float erfc_tail_f(float x) {
    float t = 1.f / (1.f + 0.375f * x), p = -0.01465743611f;
    p = p * t + 0.05907695048f, p = p * t - 0.06002933764f, p = p * t - 0.03422119442f, p = p * t + 0.04570267676f, p = p * t + 0.004815015686f;
    p = p * t + 0.08899198024f, p = p * t + 0.1233109047f, p = p * t + 0.1671867917f, p = p * t + 0.1966811609f, p = p * t + 0.2115713929f;
    p = p * t + 0.2115710928f;
    return p * t * gauss_f(x);
}

static inline float erfc_f(float x) {
    float a = fabsf(x), y = erfc_tail_f(a > 30.f ? 30.f : a);
    return x < 0 ? 2.f - y : y;
}

/* Near 0 a polynomial fitted to 1e-9 of erf(x) / x - 1 in x^2. */
static inline float erf_f(float x) {
    float a = fabsf(x), z = x * x, p = 0.004777207970619202f;
    p = p * z - 0.02678164839744568f, p = p * z + 0.11283133178949356f, p = p * z - 0.3761261999607086f, p = p * z + 0.12837916612625122f;
    float small = x + x * p, large = copysignf(1.f - erfc_tail_f(a > 30.f ? 30.f : a), x);
    return a < 0.46875f ? small : large;
}

/* log(1 + e) for e in 0 .. 1: 2 artanh(s) with s = e / (2 + e), by a polynomial fitted to 4e-10 in s^2. */
static inline float log_of_1_and(float e) {
    float s = e / (2.f + e), z = s * s, p = 0.11612164974212646f;
    p = p * z + 0.1085328757762909f, p = p * z + 0.142961785197258f, p = p * z + 0.19999852776527405f, p = p * z + 0.3333333432674408f;
    return 2.f * s + 2.f * s * (z * p);
}

/* The smaller one's share of the sum is added to the larger one; two equal infinities are no difference. */
static inline float logaddexp_f(float a, float b) {
    float d = a - b;
    return max_f(a, b) + log_of_1_and(exp_f(-fabsf(a == b ? 0.f : d)));
}

static inline double sigmoid_d(double x) { return 1 / (1 + exp(-x)); }

static inline double gauss_d(double x) {
    double c = fmin(fabs(x), 30), head = trunc(c * 16) / 16;
    return x != x ? x : exp(-(c - head) * (c + head)) * exp(-head * head);
}

static inline double logaddexp_d(double a, double b) {
    double d = a - b;
    return max_d(a, b) + log1p(exp(-fabs(a == b ? 0 : d)));
}

/* The remainder with the sign of b, and the quotient that belongs to it, as in Python. */
static inline float mod_f(float a, float b) {
    float m = fmodf(a, b), moved = (b < 0) != (m < 0) ? m + b : m;
    return m == 0 ? copysignf(0.f, b) : moved;
}

static inline double mod_d(double a, double b) {
    double m = fmod(a, b), moved = (b < 0) != (m < 0) ? m + b : m;
    return m == 0 ? copysign(0, b) : moved;
}

/* --- 16-bit floats, as their bits; to nearest, ties to even, as in numpy */

static inline uint32_t bits_of(float x) { union { float f; uint32_t i; } u = {x}; return u.i; }
static inline float float_of(uint32_t bits) { union { uint32_t i; float f; } u = {bits}; return u.f; }

static inline float bfloat16_to_float(uint16_t x) { return float_of((uint32_t)x << 16); }

static inline uint16_t float_to_bfloat16(float x) {
    uint32_t bits = bits_of(x), rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    return (uint16_t)(x != x ? (bits >> 16) | 0x40u : rounded);
}

/* The bits moved to where a float32 has them are the number times 2^-112, also where it is subnormal. */
static inline float float16_to_float(uint16_t x) {
    uint32_t size = x & 0x7fffu, finite = bits_of(float_of(size << 13) * 0x1p112f), beyond = size << 13 | 0x7f800000u;
    return float_of((size < 0x7c00u ? finite : beyond) | (uint32_t)(x & 0x8000u) << 16);
}

/* Below 2^-14 a sum with 1/2 rounds to multiples of 2^-24. */
static inline uint16_t float_to_float16(float x) {
    uint32_t bits = bits_of(x), size = bits & 0x7fffffffu, small = bits_of(float_of(size) + 0.5f) - 0x3f000000u;
    uint32_t normal = (size + 0xfffu + ((size >> 13) & 1u) - (112u << 23)) >> 13, beyond = size > 0x7f800000u ? 0x7e00u : 0x7c00u;
    uint32_t y = size < (113u << 23) ? small : normal;
    return (uint16_t)((size < 0x47800000u ? y : beyond) | (bits >> 16 & 0x8000u));
}

/* --- GELU, and dropout */

/* GELU by the logistic function: (1 + tanh(u)) / 2 = 1 / (1 + exp(-2 u)), which keeps its digits where tanh(u) is near -1. */
static inline float gelu_slope(float x) { return 0.7978845608028654f * x * (1.f + 0.044715f * (x * x)); }

/* e: the slope here, all that the gradient needs; the exponential is worked out once. Beyond 10 the slope is 0 or 1 to the last bit, and the cube may
   overflow; a NaN stays. */
/* op gelu_tanh: rows of x; e may be NULL; 30 flops; cheap */
BODY gelu_tanh_rows(const float *RESTRICT x, float *RESTRICT y, float *RESTRICT e, int64_t C, int64_t lo, int64_t hi) {
    for (int64_t i = lo * C; i < hi * C; i++) {
        int32_t n;
        float v = x[i], u = 10.f < v ? 10.f : v < -10.f ? -10.f : v;
        float p = exp_parts(-2.f * gelu_slope(u), &n), t = p * power_of_two(n), s = 1.f / (1.f + t);
        y[i] = v < -10.f ? 0.f * v : v * s;
        if (e) e[i] = s * (1.f + u * (t * s) * (2 * 0.7978845608028654f * (1.f + 3 * 0.044715f * u * u)));
    }
}

/* op gelu_tanh_grad: rows of g, e; 2 flops */
BODY gelu_tanh_grad_rows(const float *RESTRICT g, const float *RESTRICT e, float *RESTRICT y, int64_t C, int64_t lo, int64_t hi) {
    for (int64_t i = lo * C; i < hi * C; i++) { float d = g[i], slope = e[i]; y[i] = d == 0 ? 0.f : d * slope; }  /* not 0 * NaN */
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
/* op dropout, kept: draws */
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
