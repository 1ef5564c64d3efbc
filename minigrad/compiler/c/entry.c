
/* --- the step: phases[first .. last) in order, on up to `threads` threads; 2 + the number of a phase in which an index was out of its range, else 0 */

static progress_t all_progress[sizeof phases / sizeof *phases];

static int run_phases(void *const *p, int first, int last, int threads) {
    int blas_threads = blas_get_threads ? blas_get_threads() : 0;
    if (blas_set_threads && blas_threads != 1) blas_set_threads(1);
    pthread_mutex_lock(&run_lock);
    static int watching;
    if (!watching) watching = 1, progress = all_progress, all_phases = phases, pthread_atfork(NULL, NULL, after_fork);
    atomic_store(&status, 0);
    threads = MAX(1, MIN(threads, MAX_THREADS));
    if (threads > 1) start_workers(threads);
    uint32_t number = atomic_load(&run_number) + 1;
    run_first = first, run_last = last, run_p = p, run_threads = threads;
    for (int i = first; i < last; i++) {
        atomic_store_explicit(&progress[i].done, 0, memory_order_relaxed);
        atomic_store_explicit(&progress[i].claimed, (uint64_t)number << 32, memory_order_relaxed);
    }
    atomic_store(&run_number, number);
    if (threads > 1 && atomic_load(&sleepers)) {
        pthread_mutex_lock(&sleep_lock);
        pthread_cond_broadcast(&wake);
        pthread_mutex_unlock(&sleep_lock);
    }
    work(number, 0, threads, first, last, p);
    int failed = atomic_load(&status);
    pthread_mutex_unlock(&run_lock);
    if (blas_set_threads && blas_threads > 1) blas_set_threads(blas_threads);
    return failed;
}

int step(void *const *p, int first, int last, int threads) { return run_phases(p, first, last, threads); }

static double now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec + 1e-9 * t.tv_nsec; }

/* Steps one after the other, the first in any case, until `left`, which a phase counts down, is 0; one step where there is none. Whether one thread or all
   are faster depends on the machine and on what else runs on it: what took less on average is used, and the other is tried again after 32, 64, 128 ... steps,
   for 8 steps, of which the first 4 do not count: threads have to wake. */
int repeat(void *const *p, int first, int last, int threads, const int64_t *left) {
    static double average[2];  /* seconds on all threads, and on one */
    static uint32_t steps;
    static int better;
    int failed;
    if (!left || threads < 2) do failed = run_phases(p, first, last, threads); while (!failed && left && *left > 0);
    else do {
        uint32_t past = steps < 16 ? steps % 8 : steps - (1u << (31 - __builtin_clz(steps)));
        int trial = steps < 16 || past < 8, alone = steps < 16 ? steps < 8 : better ^ trial;
        double *of = &average[alone], began = now();
        failed = run_phases(p, first, last, alone ? 1 : threads);
        double change = now() - began - *of;
        if (!trial || past >= 4) *of += *of ? MIN(change, 3 * *of) / (trial ? 2 : 8) : change;  /* now and then a thread is suspended */
        steps++;
        if (!trial && better != (average[1] < average[0])) better = !better, steps = 16;
    } while (!failed && *left > 0);
    return failed;
}
