/* Pushes recorded rows through ${name}.c and compares its forecasts with recorded ones: exit status 0 or 1. The last
 * line it prints is a fingerprint of all forecasts, the same on every machine that computes the same bits. */
#include <stdio.h>
#include <string.h>

#include "${name}.h"

enum { ROWS = ${rows}, CHECKS = ${checks} };

${arrays}
//@ if float
#define GONE 1e300 /* stands for a value that was not observed */

static double value_of(double x)
{
    static volatile double zero = 0.0;
    return x < GONE ? x : zero / zero;
}
//@ else
static int32_t value_of(int32_t x)
{
    return x;
}
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
    static ${number} forecast[${NAME}_HORIZON][${NAME}_TARGETS][${NAME}_QUANTILES];
    const ${number} *expected = EXPECTED;
    uint64_t found = 14695981039346656037ULL;
    int i, k, check = 0, wrong = 0;
//@ if float
    double worst = 0.0;
//@ end
//@ if fixed
    ${name}_static fixed;
//@ if fixed_numbers
    for (k = 0; k < ${fixed_numbers}; k++) fixed.number[k] = value_of(FIXED_NUMBER[k]);
//@ end
//@ if fixed_categories
    for (k = 0; k < ${fixed_categories}; k++) fixed.category[k] = FIXED_CATEGORY[k];
//@ end
    wrong |= ${name}_reset(&state, &fixed) != ${NAME}_OK;
//@ else
    wrong |= ${name}_reset(&state) != ${NAME}_OK;
//@ end
    for (i = 0; i < ROWS && check < CHECKS; i++) {
        ${name}_row row;
//@ if time
        row.time = TIME[i];
//@ end
//@ if calendar_features
        row.wall = WALL[i];
//@ end
        for (k = 0; k < ${targets}; k++) row.target[k] = value_of(TARGET[i * ${targets} + k]);
//@ if row_numbers
        for (k = 0; k < ${row_numbers}; k++) row.number[k] = value_of(NUMBER[i * ${row_numbers} + k]);
//@ end
//@ if row_categories
        for (k = 0; k < ${row_categories}; k++) row.category[k] = CATEGORY[i * ${row_categories} + k];
//@ end
        wrong |= ${name}_push(&state, &row) != ${NAME}_OK;
        if (i != CHECK[check]) continue;
        check++;
//@ if known
        {
            ${name}_known ahead[${NAME}_HORIZON];
            int h;
            for (h = 0; h < ${NAME}_HORIZON; h++) {
//@ if known_numbers
                for (k = 0; k < ${known_numbers}; k++)
                    ahead[h].number[k] = value_of(NUMBER[(i + 1 + h) * ${row_numbers} + ${feature_numbers} + k]);
//@ end
//@ if known_categories
                for (k = 0; k < ${known_categories}; k++)
                    ahead[h].category[k] = CATEGORY[(i + 1 + h) * ${row_categories} + ${feature_categories} + k];
//@ end
            }
            wrong |= ${name}_forecast(&state, ahead, forecast) != ${NAME}_OK;
        }
//@ else
        wrong |= ${name}_forecast(&state, forecast) != ${NAME}_OK;
//@ end
        for (k = 0; k < ${NAME}_HORIZON * ${NAME}_TARGETS * ${NAME}_QUANTILES; k++, expected++) {
//@ if float
            double away = (&forecast[0][0][0])[k] - *expected, size = *expected < 0.0 ? -*expected : *expected;
            away = (away < 0.0 ? -away : away) / (size > SMALL ? size : SMALL);
            if (!(away <= worst)) worst = away;
//@ else
            wrong |= (&forecast[0][0][0])[k] != *expected;
//@ end
        }
        found = mix(found, forecast, sizeof forecast);
    }
    wrong |= check != CHECKS;
//@ if float
    wrong |= !(worst <= 1e-6);
    printf("${name}: %d forecasts, largest relative error %ld e-10\n", check, (long)(worst * 1e10));
//@ else
    printf("${name}: %d forecasts compared\n", check);
//@ end
    printf("%s %08lx%08lx\n", wrong ? "WRONG" : "ok", (unsigned long)(found >> 32), (unsigned long)(found & 0xffffffffUL));
    return wrong ? 1 : 0;
}
