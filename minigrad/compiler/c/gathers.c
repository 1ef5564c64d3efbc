
/* --- rows of tables by index */

/* An index outside the table stops the step. */
/* op embedding: rows of index */
BODY embedding_rows(const char *weight, const void *index, int index_kind, char *y, int64_t weight_rows, int64_t weight_bytes, int64_t lo, int64_t hi) {
    for (int64_t r = lo; r < hi; r++) {
        int64_t i = index_at(index, r, index_kind);
        if (i < 0 || i >= weight_rows) { atomic_store(&status, 1); return; }
        memcpy(y + r * weight_bytes, weight + i * weight_bytes, weight_bytes);
    }
}

/* The columns [lo, hi) of a table's gradient: rows in their order, so that no two threads meet and the sum is always the same. */
/* op embedding_grad: columns of g, index; 1 flops */
BODY embedding_grad_columns(const float *g, const void *index, int index_kind, float *y, int64_t size, int64_t rows, int64_t C, int64_t lo, int64_t hi) {
    for (int64_t i = 0; i < size; i++) memset(y + i * C + lo, 0, (hi - lo) * sizeof(float));
    for (int64_t r = 0; r < rows; r++) {
        int64_t i = index_at(index, r, index_kind);
        if (i < 0 || i >= size) { atomic_store(&status, 1); return; }
        for (int64_t j = lo; j < hi; j++) y[i * C + j] += g[r * C + j];
    }
}

/* op one_hot: rows of y, index; 1 flops */
BODY one_hot_rows(const void *index, int index_kind, int64_t *RESTRICT y, int64_t num_classes, int64_t lo, int64_t hi) {
    for (int64_t r = lo; r < hi; r++) {
        int64_t j = index_at(index, r, index_kind);
        if (j < 0 || j >= num_classes) { atomic_store(&status, 1); return; }
        for (int64_t c = 0; c < num_classes; c++) y[r * num_classes + c] = c == j;
    }
}
