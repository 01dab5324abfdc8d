/*
${about}
 *
 * Rows go in at ${spacing}, one call each; a value that was not observed is NaN, and so are all
 * values of a row that did not come. A forecast may be asked for after any row:
 *
 *     static ${name}_state state;
 *     ${name}_reset(&state${reset_example});
 *     ${name}_push(&state, &row);            for each row
 *     ${name}_forecast(&state, ${forecast_example}forecast);
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

enum {
    ${NAME}_TARGETS = ${targets},   /* ${target_names} */
    ${NAME}_HORIZON = ${horizon},   /* steps ahead */
    ${NAME}_QUANTILES = ${quantiles}, /* ${quantile_names} */
    ${NAME}_MEDIAN = ${median}
};

/* What the functions return; after anything but OK the state is as it was before. */
enum {
    ${NAME}_OK = 0,
    ${NAME}_INFINITE = -1, /* a value is infinite or beyond 1e140, or missing where it must not be */
    ${NAME}_TIME = -2,     /* the time is not later than that of the row before */
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
    double time; /* ${time_unit} */
//@ end
//@ if calendar_features
    double wall; /* seconds since 1970 on the clock of the wall${zone} */
//@ end
    double target[${targets}]; /* ${target_names} */
//@ if row_numbers
    double number[${row_numbers}]; /* ${row_number_names} */
//@ end
//@ if row_categories
    int32_t category[${row_categories}]; /* ${row_category_names} */
//@ end
} ${name}_row;
//@ if known

/* Of one step ahead. */
typedef struct {
//@ if known_numbers
    double number[${known_numbers}]; /* ${known_number_names} */
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
    double number[${fixed_numbers}]; /* ${fixed_number_names} */
//@ end
//@ if fixed_categories
    int32_t category[${fixed_categories}]; /* ${fixed_category_names} */
//@ end
} ${name}_static;
//@ end

/* Everything that is remembered of a series; the fields are no business of the caller. */
typedef struct {
    double target[${reach}][${targets}]; /* the last rows, a ring */
//@ if numbers
    float number[${context}][${numbers}]; /* covariates, scaled */
//@ end
//@ if row_categories
    int32_t category[${context}][${row_categories}];
//@ end
//@ if uneven
    float elapsed[${context}];
//@ end
    float age[${context}][${targets}];
//@ if fixed
    ${name}_static fixed;
//@ end
    double change[${targets}], changes[${targets}]; /* sum and number of absolute changes */
    double sum[${targets}], count[${targets}];      /* of observed values */
    double last[${targets}];                  /* the latest observed value, NaN: none */
//@ if seasons
    double before[${seasons}][${targets}];          /* the value one season before it, NaN: not observed */
//@ end
//@ if time
    double time;
//@ end
//@ if calendar_features
    double wall;
//@ end
//@ if uneven
    double seen[${targets}]; /* time of the latest observed value */
//@ else
    uint32_t since[${targets}]; /* rows since then */
//@ end
    uint32_t rows, at, context_at;
} ${name}_state;

//@ if fixed
int ${name}_reset(${name}_state *state, const ${name}_static *fixed);
//@ else
int ${name}_reset(${name}_state *state);
//@ end
int ${name}_push(${name}_state *state, const ${name}_row *row);
/* Quantiles of the next steps, ascending, in the units of the targets. */
//@ if known
int ${name}_forecast(const ${name}_state *state, const ${name}_known ahead[${horizon}],
                     double forecast[${horizon}][${targets}][${quantiles}]);
//@ else
int ${name}_forecast(const ${name}_state *state, double forecast[${horizon}][${targets}][${quantiles}]);
//@ end

#ifdef __cplusplus
}
#endif

#endif
