
/* --- the step: phases[first .. last) in order, on up to `threads` threads; 2 + the number of a phase in which an index was out of its range, else 0 */

static progress_t all_progress[sizeof phases / sizeof *phases];

static int run_phases(void *const *p, int first, int last, int threads) {
    int blas_threads = blas_get_threads ? blas_get_threads() : 0;
    if (blas_set_threads && blas_threads != 1) blas_set_threads(1);
    pthread_mutex_lock(&run_lock);
    static int watching;
    if (!watching) watching = 1, pthread_atfork(NULL, NULL, after_fork);
    atomic_store(&status, 0);
    threads = MAX(1, MIN(threads, MAX_THREADS));
    if (threads > 1) start_workers(threads);
    uint32_t number = atomic_load(&run_number) + 1;
    progress = all_progress, all_phases = phases, run_first = first, run_last = last, run_p = p, run_threads = threads;
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

/* Steps one after the other, the first in any case, until `left`, which a phase counts down, is 0; one step where there is none. */
int repeat(void *const *p, int first, int last, int threads, const int64_t *left) {
    int failed = run_phases(p, first, last, threads);
    while (!failed && left && *left > 0) failed = run_phases(p, first, last, threads);
    return failed;
}
