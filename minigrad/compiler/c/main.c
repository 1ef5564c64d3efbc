/* Reads the values a step begins with, makes steps, prints the results of each.
   ./run values.bin [steps] [threads] */
#include "step.h"
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

static const int64_t slots[STEP_SLOTS][2] = {STEP_PLACES}; /* 0: values.bin, 1: arena; and the offset */
static const struct { int64_t memory, offset, count; } results[] = {STEP_RESULTS};

int main(int count, char **words) {
    int steps = count > 2 ? atoi(words[2]) : 1, threads = count > 3 ? atoi(words[3]) : 1;
    char *memory[2] = {aligned_alloc(STEP_ALIGNMENT, STEP_VALUES), aligned_alloc(STEP_ALIGNMENT, STEP_ARENA)};
    FILE *file = count > 1 ? fopen(words[1], "rb") : NULL;
    if (!file || fread(memory[0], 1, STEP_VALUES, file) != STEP_VALUES)
        return fprintf(stderr, "usage: run values.bin [steps] [threads]\n"), 1;
    fclose(file);
    void *p[STEP_SLOTS];
    for (int i = 0; i < STEP_SLOTS; i++) p[i] = memory[slots[i][0]] + slots[i][1];
    for (; steps > 0; steps--) {
        if (step(p, 0, STEP_PHASES, threads)) return fprintf(stderr, "an index is out of its range\n"), 1;
        for (unsigned r = 0; r < sizeof results / sizeof *results; r++) {
            const float *y = (float *)(memory[results[r].memory] + results[r].offset);
            for (int64_t i = 0; i < results[r].count; i++) printf("%.9g\n", y[i]);
        }
    }
    return 0;
}
