/* Pushes recorded sequences through ${name}.c and compares its answers with recorded ones: exit status 0 or 1. The last
 * line it prints is a fingerprint of all answers, the same on every machine that computes the same bits. */
#include <stdio.h>
#include <string.h>

#include "${name}.h"

enum { SEQUENCES = ${sequences} };

${arrays}
//@ if float
#define GONE 1e300 /* stands for a value that was not observed */
//@ if any_numbers

static double value_of(double x)
{
    static volatile double zero = 0.0;
    return x < GONE ? x : zero / zero;
}
//@ end
//@ else
//@ if any_numbers
static int32_t value_of(int32_t x)
{
    return x;
}
//@ end
//@ end

/* FNV-1a */
static uint64_t mix(uint64_t found, const void *data, size_t size)
{
    const unsigned char *bytes = (const unsigned char *)data;
    while (size--) found = (found ^ *bytes++) * 1099511628211ULL;
    return found;
}

int main(void)
{
    static ${name}_state state;
    ${number} answer[${NAME}_ANSWER];
    const ${number} *expected = EXPECTED;
    uint64_t found = 14695981039346656037ULL;
    int i, k, b, wrong = 0;
//@ if float
    double worst = 0.0;
//@ end
    for (b = 0; b < SEQUENCES; b++) {
//@ if fixed
        ${name}_static fixed;
//@ if fixed_numbers
        for (k = 0; k < ${fixed_numbers}; k++) fixed.number[k] = value_of(FIXED_NUMBER[b * ${fixed_numbers} + k]);
//@ end
//@ if fixed_categories
        for (k = 0; k < ${fixed_categories}; k++) fixed.category[k] = FIXED_CATEGORY[b * ${fixed_categories} + k];
//@ end
        wrong |= ${name}_reset(&state, &fixed) != ${NAME}_OK;
//@ else
        wrong |= ${name}_reset(&state) != ${NAME}_OK;
//@ end
        for (i = BEGIN[b]; i < BEGIN[b + 1]; i++) {
            ${name}_row row;
//@ if time
            row.time = TIME[i];
//@ end
//@ if calendar_features
            row.wall = WALL[i];
//@ end
//@ if row_numbers
            for (k = 0; k < ${row_numbers}; k++) row.number[k] = value_of(NUMBER[i * ${row_numbers} + k]);
//@ end
//@ if row_categories
            for (k = 0; k < ${row_categories}; k++) row.category[k] = CATEGORY[i * ${row_categories} + k];
//@ end
//@ if empty_row
            row.none = 0;
//@ end
            wrong |= ${name}_push(&state, &row, answer) != ${NAME}_OK;
            for (k = 0; k < ${NAME}_ANSWER; k++, expected++) {
//@ if float
                double away = *expected < GONE ? answer[k] - *expected : answer[k] < 0.0 || answer[k] >= 0.0;
                away = (away < 0.0 ? -away : away) / SIZE;
                if (!(away <= worst)) worst = away;
//@ else
                wrong |= answer[k] != *expected;
//@ end
            }
            found = mix(found, answer, sizeof answer);
        }
    }
//@ if float
    wrong |= !(worst <= 1e-6);
    printf("${name}: %d sequences, largest error %ld e-10\n", SEQUENCES, (long)(worst * 1e10));
//@ else
    printf("${name}: %d sequences compared\n", SEQUENCES);
//@ end
    printf("%s %08lx%08lx\n", wrong ? "WRONG" : "ok", (unsigned long)(found >> 32), (unsigned long)(found & 0xffffffffUL));
    return wrong ? 1 : 0;
}
