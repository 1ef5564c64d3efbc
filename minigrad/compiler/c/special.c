
/* --- functions that few programs have: the error function and its kin, and log(exp(a) + exp(b)), a few ulp in float32, without branches */

/* exp(-x^2): x is split after 4 binary digits, so that the square of the head is exact. */
static inline float gauss_f(float x) {
    float a = fabsf(x), c = a > 30.f ? 30.f : a, head = truncf(c * 16.f) * 0.0625f;
    return exp_f(-(c - head) * (c + head)) * exp_f(-head * head);
}

/* erfc(x) for x >= 0: t R(t) exp(-x^2) with t = 1 / (1 + 3 x / 8); the polynomial is that of ops/special.py. */
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
