/*
${about}
 *
 * Integer arithmetic only: 8-bit weights, 16-bit activations and cell states. A number goes in as
 * value * SCALE, rounded (the SCALEs stand below), at most ${NAME}_LARGEST in size; ${NAME}_NONE is a missing one.
 * Rows go in one call each, and every row gives an answer${answer_note}:
 *
 *     static ${name}_state state;
 *     ${name}_reset(&state${reset_example});   before each sequence
 *     ${name}_push(&state, &row, answer);      for each row
 *
 * No memory is allocated, nothing is kept outside the state, and states do not know of each other.
 */
#ifndef ${NAME}_H
#define ${NAME}_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What an answer holds, in this order, ${answer_unit}:
${answer_names}
 */
enum { ${NAME}_ANSWER = ${answers}, ${NAME}_LARGEST = 1073741824 };
//@ if threshold

#define ${NAME}_THRESHOLD ${threshold} /* of 65536 */
//@ end

#define ${NAME}_NONE (-2147483647 - 1) /* a value that was not observed */
${scales}
/* What the functions return; after anything but OK the state is as it was before. */
enum {
    ${NAME}_OK = 0,
    ${NAME}_VALUE = -1,   /* a value is too large, or missing where training saw no gaps */
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
    int64_t time; /* ${time_unit} */
//@ end
//@ if calendar_features
    int64_t wall; /* seconds since 1970 on the clock of the wall${zone} */
//@ end
//@ if row_numbers
    int32_t number[${row_numbers}]; /* ${row_number_names} */
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
    int32_t number[${fixed_numbers}]; /* ${fixed_number_names} */
//@ end
//@ if fixed_categories
    int32_t category[${fixed_categories}]; /* ${fixed_category_names} */
//@ end
} ${name}_static;
//@ end

/* Everything that is remembered of a sequence; the fields are no business of the caller. */
typedef struct {
//@ if clock
    int64_t time;
//@ end
//@ if gaps
    int64_t seen[${row_numbers}]; /* when a number was observed last */
//@ end
//@ if sums
    int64_t pool[${members}][${output}];
//@ end
//@ if attention
    int64_t weight[${members}];
    int32_t top[${members}];
//@ end
    uint32_t rows;
//@ if pool_max
    int16_t pool[${members}][${output}];
//@ end
//@ if row_numbers
    int16_t last[${row_numbers}]; /* what it was, scaled */
//@ end
    int16_t h[${members}][${layers}][${output}], c[${members}][${layers}][${hidden}];
//@ if fixed
    int16_t fixed[${members}][${static_size}];
//@ end
//@ if gaps
    uint8_t observed[${row_numbers}]; /* whether a number ever was */
//@ end
} ${name}_state;

//@ if fixed
int ${name}_reset(${name}_state *state, const ${name}_static *fixed);
//@ else
int ${name}_reset(${name}_state *state);
//@ end
int ${name}_push(${name}_state *state, const ${name}_row *row, int32_t answer[${answers}]);

#ifdef __cplusplus
}
#endif

#endif
