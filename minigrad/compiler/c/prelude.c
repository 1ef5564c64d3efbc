/* A step compiled by minigrad: a fixed prelude (threads, matrix products, functions of calculus), the kernels of this program, and its phases. */

#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define RESTRICT __restrict__
#define KERNEL static __attribute__((noinline)) void
#if defined(__clang__)
#define ONCE __attribute__((noinline))  /* one copy in the object, whoever calls: time of compiling */
#else
#define ONCE __attribute__((noinline, noclone))
#endif
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))

/* --- phases and threads

   A phase is a kernel over `units` (rows, columns, heads), cut into at most 32 chunks. Threads claim chunks; a phase is over when all its chunks are
   done. So a thread that the system has descheduled delays the others only if it is in the middle of a chunk, and what is computed
   depends on the chunks alone, not on the number of threads. A claim carries the number of the run: a thread that comes late finds the run gone. */

typedef void (*kernel_t)(void *const *p, int64_t lo, int64_t hi, int thread);
typedef struct { kernel_t kernel; int64_t units; int32_t chunks; } phase_t;
typedef struct { _Alignas(64) _Atomic uint64_t claimed; _Atomic uint32_t done; } progress_t;

#define MAX_THREADS 32
#define PATIENCE 16384  /* pauses, 0.2 ms or so, that a thread waits awake for the next step: about what Python takes between two */
static progress_t *progress;       /* one for each phase of the program */
static const phase_t *all_phases;
static void *const *_Atomic run_p;
static _Atomic int run_first, run_last, run_threads;
static _Atomic uint32_t run_number;
static _Atomic int status, sleepers;
static int workers;
static _Thread_local int this_thread;  /* its number in the run */
/* Room for a part of a matrix, for each thread its own. Pages that a program does not touch take no memory, as they would in the threads' own storage. */
#define ROOM(name, n) static _Alignas(64) float name##_of[MAX_THREADS][n]; float *const name = name##_of[this_thread]
static pthread_mutex_t run_lock = PTHREAD_MUTEX_INITIALIZER, sleep_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t wake = PTHREAD_COND_INITIALIZER;

static inline void relax(unsigned tries) {
#if defined(__x86_64__)
    if (tries & 1023) { __builtin_ia32_pause(); return; }
#elif defined(__aarch64__)
    if (tries & 1023) { __asm__ volatile("yield"); return; }
#endif
    sched_yield();
}

/* Work on run `number` as `thread` until its last phase is over. */
static void work(uint32_t number, int thread, int threads, int first, int last, void *const *p) {
    this_thread = thread;
    for (int i = first; i < last; i++) {
        const phase_t *f = &all_phases[i];
        uint32_t all = f->chunks == 32 ? ~0u : (1u << f->chunks) - 1;
        uint32_t mine = ~0u << (thread * f->chunks / threads);
        uint64_t seen = atomic_load_explicit(&progress[i].claimed, memory_order_relaxed);
        for (;;) {
            uint32_t left = all & ~(uint32_t)seen;
            if (seen >> 32 != number) return;
            if (!left) break;
            int c = __builtin_ctz(left & mine ? left & mine : left);
            if (!atomic_compare_exchange_weak_explicit(&progress[i].claimed, &seen, seen | 1u << c, memory_order_acquire, memory_order_relaxed)) continue;
            if (!atomic_load_explicit(&status, memory_order_relaxed)) f->kernel(p, f->units * c / f->chunks, f->units * (c + 1) / f->chunks, thread);
            if (atomic_load_explicit(&status, memory_order_relaxed) == 1) atomic_store(&status, i + 2);  /* this phase has refused an index */
            atomic_fetch_add_explicit(&progress[i].done, 1, memory_order_release);
            seen = atomic_load_explicit(&progress[i].claimed, memory_order_relaxed);
        }
        for (unsigned tries = 1; atomic_load_explicit(&progress[i].done, memory_order_acquire) != (uint32_t)f->chunks; tries++) {
            if (atomic_load_explicit(&run_number, memory_order_acquire) != number) return;
            relax(tries);
        }
    }
}

static void *worker(void *argument) {
    int thread = (int)(intptr_t)argument;
    uint32_t last = 0;
    for (unsigned tries = 1;; tries++) {  /* since a run that had work for it */
        uint32_t number = atomic_load_explicit(&run_number, memory_order_acquire);
        if (number != last) {
            last = number;
            if (thread < run_threads) work(number, thread, run_threads, run_first, run_last, run_p), tries = 0;
        } else if (tries < PATIENCE) relax(tries);
        else {
            pthread_mutex_lock(&sleep_lock);
            atomic_fetch_add(&sleepers, 1);
            while (atomic_load(&run_number) == last) pthread_cond_wait(&wake, &sleep_lock);
            atomic_fetch_sub(&sleepers, 1);
            pthread_mutex_unlock(&sleep_lock);
        }
    }
    return NULL;
}

/* After a fork the child has no workers, its locks are free, and the run that the parent was in is gone: a new worker would take chunks of it. */
static void after_fork(void) {
    workers = 0;
    atomic_store(&sleepers, 0), atomic_fetch_add(&run_number, 1);
    pthread_mutex_init(&run_lock, NULL), pthread_mutex_init(&sleep_lock, NULL), pthread_cond_init(&wake, NULL);
}

static void start_workers(int wanted) {
    for (; workers < wanted - 1; workers++) {
        pthread_t id;
        pthread_attr_t attributes;
        pthread_attr_init(&attributes);
        pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
        int failed = pthread_create(&id, &attributes, worker, (void *)(intptr_t)(workers + 1));
        pthread_attr_destroy(&attributes);
        if (failed) return;
    }
}

/* --- functions of calculus, about 1 ulp in float32; without branches, so that loops over them run in vector registers; NaN and inf as in libm */

static inline float power_of_two(int32_t n) { union { uint32_t i; float f; } u = {(uint32_t)(n + 127) << 23}; return u.f; }

/* exp(c) = result * 2^n for c in -104 .. 89. */
static inline float exp_parts(float c, int32_t *n) {
    float whole = rintf(c * 1.44269504088896341f);
    float r = c - whole * 0.693359375f;
    r = r + whole * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f, p = p * r + 8.3334519073e-3f, p = p * r + 4.1665795894e-2f, p = p * r + 1.6666665459e-1f, p = p * r + 5.0000001201e-1f;
    *n = (int32_t)whole;
    return p * (r * r) + r + 1.f;
}

static inline float exp_f(float x) {
    float c = x < -104.f ? -104.f : x;
    c = c > 89.f ? 89.f : c;
    int32_t n, half;
    float p = exp_parts(c, &n);
    half = n >> 1;  /* in two factors, so that the smallest and the largest results are reached */
    return p * power_of_two(half) * power_of_two(n - half);
}

/* exp(x) beside 1, in a sum or as a share of one, where nothing below 2^-126 counts: it becomes 0. For x up to 88. */
static inline float exp_beside_1(float x) {
    float c = x < -88.f ? -88.f : x;  /* where the power of two is 0 */
    c = c > 89.f ? 89.f : c;
    int32_t n;
    float p = exp_parts(c, &n);
    return p * power_of_two(n);
}

static inline float tanh_f(float x) {
    float a = fabsf(x), z = x * x;
    float p = -5.70498872745e-3f;
    p = p * z + 2.06390887954e-2f, p = p * z - 5.37397155531e-2f, p = p * z + 1.33314422036e-1f, p = p * z - 3.33332819422e-1f;
    float small = x + x * z * p;
    float large = copysignf(1.f - 2.f / (exp_beside_1(2.f * a) + 1.f), x);
    float y = a < 0.625f ? small : large;
    return x != x ? x : y;
}

static inline float sigmoid_f(float x) {
    float e = exp_f(-fabsf(x));
    return (x >= 0 ? 1.f : e) / (1.f + e);
}

static inline float max_f(float a, float b) { return a > b || a != a ? a : b; }  /* a NaN wins */
static inline float min_f(float a, float b) { return a < b || a != a ? a : b; }
static inline double max_d(double a, double b) { return a > b || a != a ? a : b; }
static inline double min_d(double a, double b) { return a < b || a != a ? a : b; }

/* A sum of n numbers with 16 running sums, added as a tree: fixed order, vector registers, short chains. */
static inline float tree16(const float *s) {
    float a[8];
    for (int j = 0; j < 8; j++) a[j] = s[j] + s[j + 8];
    for (int j = 0; j < 4; j++) a[j] += a[j + 4];
    return (a[0] + a[2]) + (a[1] + a[3]);
}
#define SUM(result, i, n, term) do { \
    float s_[16] = {0}; int64_t i, n_ = (n), w_ = n_ - n_ % 16; \
    for (int64_t b_ = 0; b_ < w_; b_ += 16) for (int k_ = 0; k_ < 16; k_++) { i = b_ + k_; s_[k_] += (term); } \
    for (i = w_; i < n_; i++) s_[i - w_] += (term); \
    result = tree16(s_); } while (0)
#define SUM2(first, second, i, n, term1, term2) do { \
    float s_[16] = {0}, t_[16] = {0}; int64_t i, n_ = (n), w_ = n_ - n_ % 16; \
    for (int64_t b_ = 0; b_ < w_; b_ += 16) for (int k_ = 0; k_ < 16; k_++) { i = b_ + k_; s_[k_] += (term1), t_[k_] += (term2); } \
    for (i = w_; i < n_; i++) s_[i - w_] += (term1), t_[i - w_] += (term2); \
    first = tree16(s_), second = tree16(t_); } while (0)

/* --- what the bodies of kernels share: they are inlined into small functions that know their sizes, so that each is compiled for its shape */

#define BODY static inline __attribute__((always_inline)) void
#define BLOCK 32  /* rows of one partial sum */
#define STRIP 64  /* columns side by side that are reduced at a time */

/* An index of `kind` bytes, unsigned where it is negative. */
static inline int64_t index_at(const void *index, int64_t i, int kind) {
#define INDEX(bytes, type) if (kind == bytes) return (int64_t)((const type *)index)[i]
    INDEX(1, int8_t); INDEX(2, int16_t); INDEX(4, int32_t); INDEX(-1, uint8_t); INDEX(-2, uint16_t); INDEX(-4, uint32_t);
    return ((const int64_t *)index)[i];
}

/* Where row r begins in a value of any strides: the sizes of its last three leading axes, and the strides of its last four. */
typedef struct { int64_t n1, n2, n3, s0, s1, s2, s3; } rows_t;
static inline int64_t row_at(rows_t a, int64_t r) {
    return r / (a.n1 * a.n2 * a.n3) * a.s0 + r / (a.n2 * a.n3) % a.n1 * a.s1 + r / a.n3 % a.n2 * a.s2 + r % a.n3 * a.s3;
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
