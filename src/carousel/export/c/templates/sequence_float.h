/*
${about}
 *
 * Rows go in one call each, and every row gives an answer${answer_note}:
 *
 *     static ${name}_state state;
 *     ${name}_reset(&state${reset_example});   before each sequence
 *     ${name}_push(&state, &row, answer);      for each row
 *
 * No memory is allocated, nothing is kept outside the state, and states do not know of each other.
 * Compile with -ffp-contract=off for the same bits on every machine; never with -ffast-math, which breaks NaN.
 */
#ifndef ${NAME}_H
#define ${NAME}_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What an answer holds, in this order:
${answer_names}
 */
enum { ${NAME}_ANSWER = ${answers} };
//@ if threshold

#define ${NAME}_THRESHOLD ${threshold}
//@ end

/* What the functions return; after anything but OK the state is as it was before. */
enum {
    ${NAME}_OK = 0,
    ${NAME}_VALUE = -1,   /* a value is infinite or beyond 1e140, or missing (NaN) where training saw no gaps */
    ${NAME}_TIME = -2,    /* the time is before that of the previous row */
    ${NAME}_CATEGORY = -3 /* a code is out of range */
};
//@ if categories

/* Codes of categories: ${NAME}_MISSING, ${NAME}_UNSEEN for a value that training never saw, or
${category_names}
 */
enum { ${NAME}_MISSING = 0, ${NAME}_UNSEEN = 1 };
//@ end

typedef struct {
//@ if time
    double time; /* ${time_unit} */
//@ end
//@ if calendar_features
    double wall; /* seconds since 1970 on the clock of the wall${zone} */
//@ end
//@ if row_numbers
    double number[${row_numbers}]; /* ${row_number_names} */
//@ end
//@ if row_categories
    int32_t category[${row_categories}]; /* ${row_category_names} */
//@ end
//@ if empty_row
    char none;
//@ end
} ${name}_row;
//@ if fixed

/* Of a sequence. */
typedef struct {
//@ if fixed_numbers
    double number[${fixed_numbers}]; /* ${fixed_number_names} */
//@ end
//@ if fixed_categories
    int32_t category[${fixed_categories}]; /* ${fixed_category_names} */
//@ end
} ${name}_static;
//@ end

/* Everything that is remembered of a sequence; the fields are no business of the caller. */
typedef struct {
    double time;
//@ if row_numbers
    double seen[${row_numbers}], last[${row_numbers}]; /* when a number was observed last, and what it was, scaled */
//@ end
//@ if detect
    double mean[${scored}], scale[${scored}]; /* the forecast of the next row */
    double error[${error_rows}][${scored}], value[${value_rows}][${scored}]; /* of the last rows, rings */
//@ if history
    double largest[${views}], low[${views}][${scored}], high[${views}][${scored}]; /* so far */
//@ end
//@ if rest
    double held;
    int32_t left;
//@ end
    uint32_t error_at, value_at; /* the latest place of the rings */
//@ end
    float h[${members}][${layers}][${output}], c[${members}][${layers}][${hidden}];
//@ if pooled
    float pool[${members}][${output}];
//@ if attention
    float top[${members}], weight[${members}];
//@ end
//@ end
//@ if fixed
    float fixed[${members}][${static_size}];
//@ end
    uint32_t rows;
//@ if row_numbers
    uint8_t observed[${row_numbers}]; /* whether a number ever was */
//@ end
} ${name}_state;

//@ if fixed
int ${name}_reset(${name}_state *state, const ${name}_static *fixed);
//@ else
int ${name}_reset(${name}_state *state);
//@ end
int ${name}_push(${name}_state *state, const ${name}_row *row, double answer[${answers}]);

#ifdef __cplusplus
}
#endif

#endif
