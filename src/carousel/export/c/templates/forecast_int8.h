/*
${about}
 *
 * Integer arithmetic only: 8-bit weights, 16-bit activations and cell states. A number goes in as
 * value * SCALE, rounded (the SCALEs stand below), at most ${NAME}_LARGEST in size, and comes out likewise.
 * Rows go in at ${spacing}, one call each; a value that was not observed
 * is ${NAME}_NONE, and so are all values of a row that did not come. A forecast may be asked for after any row:
 *
 *     static ${name}_state state;
 *     ${name}_reset(&state${reset_example});
 *     ${name}_push(&state, &row);            for each row
 *     ${name}_forecast(&state, ${forecast_example}forecast);
 *
 * No memory is allocated, nothing is kept outside the state, and states do not know of each other.
 */
#ifndef ${NAME}_H
#define ${NAME}_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum {
    ${NAME}_TARGETS = ${targets},   /* ${target_names} */
    ${NAME}_HORIZON = ${horizon},   /* steps ahead */
    ${NAME}_QUANTILES = ${quantiles}, /* ${quantile_names} */
    ${NAME}_MEDIAN = ${median},
    ${NAME}_LARGEST = 1073741824
};

#define ${NAME}_NONE (-2147483647 - 1) /* a value that was not observed */
${scales}
/* What the functions return; after anything but OK the state is as it was before. */
enum {
    ${NAME}_OK = 0,
    ${NAME}_RANGE = -1,    /* a value is too large, or missing where it must not be */
    ${NAME}_TIME = -2,     /* the time is before that of the previous row */
    ${NAME}_CATEGORY = -3, /* a code is out of range */
    ${NAME}_EMPTY = -4     /* no target was observed yet */
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
    int32_t target[${targets}]; /* ${target_names} */
//@ if row_numbers
    int32_t number[${row_numbers}]; /* ${row_number_names} */
//@ end
//@ if row_categories
    int32_t category[${row_categories}]; /* ${row_category_names} */
//@ end
} ${name}_row;
//@ if known

/* Of one step ahead. */
typedef struct {
//@ if known_numbers
    int32_t number[${known_numbers}]; /* ${known_number_names} */
//@ end
//@ if known_categories
    int32_t category[${known_categories}]; /* ${known_category_names} */
//@ end
} ${name}_known;
//@ end
//@ if fixed

/* Of a series. */
typedef struct {
//@ if fixed_numbers
    int32_t number[${fixed_numbers}]; /* ${fixed_number_names} */
//@ end
//@ if fixed_categories
    int32_t category[${fixed_categories}]; /* ${fixed_category_names} */
//@ end
} ${name}_static;
//@ end

/* Everything that is remembered of a series; the fields are no business of the caller. */
typedef struct {
    int64_t change[${targets}], sum[${targets}]; /* sums of absolute changes, and of observed values */
//@ if time
    int64_t time;
//@ end
//@ if calendar_features
    int64_t wall;
//@ end
//@ if uneven
    int64_t seen[${targets}]; /* time of the latest observed value */
//@ end
    int32_t target[${reach}][${targets}]; /* the last rows, a ring */
    int32_t last[${targets}];        /* the latest observed value */
//@ if seasons
    int32_t before[${seasons}][${targets}]; /* the value one season before it */
//@ end
    uint32_t changes[${targets}], count[${targets}];
//@ if not uneven
    uint32_t since[${targets}]; /* rows since the latest observed value */
//@ end
//@ if fixed
    ${name}_static fixed;
//@ end
//@ if row_categories
    int32_t category[${context}][${row_categories}];
//@ end
//@ if uneven
    int32_t elapsed[${context}];
//@ end
//@ if numbers
    int16_t number[${context}][${numbers}]; /* covariates, scaled */
//@ end
    int16_t age[${context}][${targets}];
    uint16_t rows, at, context_at;
} ${name}_state;

//@ if fixed
int ${name}_reset(${name}_state *state, const ${name}_static *fixed);
//@ else
int ${name}_reset(${name}_state *state);
//@ end
int ${name}_push(${name}_state *state, const ${name}_row *row);
/* Quantiles of the next steps, ascending, in the scales of the targets. */
//@ if known
int ${name}_forecast(const ${name}_state *state, const ${name}_known ahead[${horizon}],
                     int32_t forecast[${horizon}][${targets}][${quantiles}]);
//@ else
int ${name}_forecast(const ${name}_state *state, int32_t forecast[${horizon}][${targets}][${quantiles}]);
//@ end

#ifdef __cplusplus
}
#endif

#endif
