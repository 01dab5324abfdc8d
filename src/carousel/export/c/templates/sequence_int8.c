
#define NONE ${NAME}_NONE

/* A number column: x, or x / (|x| + squash) with 16 fraction bits; less its mean, over its scale. */
typedef struct {
    int32_t mean, factor, squash;
    int8_t shift, gaps; /* gaps: whether training saw rows without it */
} column;

typedef struct {
    layer stack[LAYERS];
//@ if fixed
    matrix initial; /* [LAYERS * (OUTPUT + HIDDEN)][STATIC]: h, then c of all layers */
//@ end
//@ if attention
    matrix attention; /* [1][OUTPUT] */
//@ end
//@ if wide
    matrix hidden; /* [WIDTH][OUTPUT] */
//@ end
    matrix out; /* [OUTPUTS][WIDTH] */
//@ if categories
    const int16_t *embed[${embedded}]; /* 12 fraction bits */
//@ end
} member;

${member_table}
//@ if any_numbers

${column_tables}

/* Scaled, within +-10, with the fraction bits of the inputs. */
static int16_t scaled(int32_t raw, const column *by)
{
    int64_t x = raw;
//@ if squashes
    if (by->squash) x = divide(x * 65536, (x < 0 ? -x : x) + by->squash);
//@ end
    x = sat(rounded((x - by->mean) * by->factor, by->shift), (int64_t)10 * 65536);
    return to16(x, 16 - STEP_BITS);
}

/* Too large, or missing where that is not known from training. */
static int refused(const int32_t *raw, const column *by, int n)
{
    int k;
    for (k = 0; k < n; k++)
        if (raw[k] == NONE ? !by[k].gaps : raw[k] > WIDE || raw[k] < -WIDE) return 1;
    return 0;
}
//@ end
//@ if categories

static int16_t *embed(int16_t *x, const int16_t *table, int32_t code, int width)
{
    int k;
    for (k = 0; k < width; k++) *x++ = to16(table[code * width + k], 12 - STEP_BITS);
    return x;
}
//@ end
//@ if clock

/* A time between rows in the unit of the clock, 16 fraction bits. */
static int32_t units_of(int64_t ticks)
{
    return (int32_t)sat(rounded(sat(ticks, 2147483647) * TICK_FACTOR, TICK_SHIFT), 2147483647);
}
//@ end
//@ if fades

/* 0 now, one half after one unit of time, towards 1 as time goes by. */
static int16_t fade(int64_t age)
{
    return to16(divide(age * 32768, 65536 + age), 15 - STEP_BITS);
}
//@ end
${calendar}
${codes}
//@ if fixed
int ${name}_reset(${name}_state *s, const ${name}_static *fixed)
//@ else
int ${name}_reset(${name}_state *s)
//@ end
{
//@ if fixed
    int m, l, k;
//@ if fixed_numbers
    if (refused(fixed->number, FIXED_COLUMN, ${fixed_numbers})) return ${NAME}_VALUE;
//@ end
//@ if fixed_categories
    if (!codes_fit(fixed->category, FIXED_CODES, ${fixed_categories})) return ${NAME}_CATEGORY;
//@ end
//@ end
    memset(s, 0, sizeof *s);
//@ if fixed
    for (m = 0; m < MEMBERS; m++) {
        int16_t *x = s->fixed[m];
        int r = 0;
//@ if fixed_numbers
        for (k = 0; k < ${fixed_numbers}; k++) {
            int missing = fixed->number[k] == NONE;
            *x++ = missing ? 0 : scaled(fixed->number[k], &FIXED_COLUMN[k]);
            if (FIXED_COLUMN[k].gaps) *x++ = (int16_t)(missing ? 0 : 1 << STEP_BITS);
        }
//@ end
//@ if fixed_categories
        for (k = 0; k < ${fixed_categories}; k++)
            x = embed(x, MODEL[m].embed[FIXED_TABLES + k], fixed->category[k], FIXED_WIDTHS[k]);
//@ end
        x = s->fixed[m];
        for (l = 0; l < LAYERS; l++)
            for (k = 0; k < OUTPUT; k++)
                s->h[m][l][k] = to16(row_of(&MODEL[m].initial, r++, x, STATIC), 16 - MODEL[m].stack[l].out_bits);
        for (l = 0; l < LAYERS; l++)
            for (k = 0; k < HIDDEN; k++)
                s->c[m][l][k] = to16(row_of(&MODEL[m].initial, r++, x, STATIC), 16 - MODEL[m].stack[l].cell_bits);
    }
//@ end
    return ${NAME}_OK;
}
//@ if pooled

/* What the rows so far make of the head's input [OUTPUT]. */
static void pool(${name}_state *s, int m, const int16_t *h, int16_t *x)
{
    int j;
//@ if attention
    int32_t score = row_of(&MODEL[m].attention, 0, h, OUTPUT), old = 32768, fresh = 32768;
    if (s->rows == 1) {
        s->top[m] = score;
    } else if (score > s->top[m]) {
        old = exp2_minus(rounded(((int64_t)score - s->top[m]) * 94548, 16)); /* log2(e) */
        s->top[m] = score;
    } else {
        fresh = exp2_minus(rounded(((int64_t)s->top[m] - score) * 94548, 16));
    }
    s->weight[m] = rounded(s->weight[m] * old, 15) + fresh;
    for (j = 0; j < OUTPUT; j++) {
        s->pool[m][j] = rounded(s->pool[m][j] * old, 15) + (int64_t)fresh * h[j];
        x[j] = (int16_t)divide(s->pool[m][j], s->weight[m]);
    }
    if (s->weight[m] > WIDE) { /* after 32768 rows that count alike, what is older counts half */
        s->weight[m] = rounded(s->weight[m], 1);
        for (j = 0; j < OUTPUT; j++) s->pool[m][j] = rounded(s->pool[m][j], 1);
    }
//@ end
//@ if pool_mean
    for (j = 0; j < OUTPUT; j++) {
        s->pool[m][j] += h[j];
        x[j] = (int16_t)divide(s->pool[m][j], s->rows);
    }
//@ end
//@ if pool_max
    for (j = 0; j < OUTPUT; j++) {
        if (s->rows == 1 || h[j] > s->pool[m][j]) s->pool[m][j] = h[j];
        x[j] = s->pool[m][j];
    }
//@ end
}
//@ end

/* Head outputs [OUTPUTS] with 16 fraction bits to the answer. */
static void read_out(const int32_t *y, int32_t *answer)
{
//@ if label
    int32_t top = y[0];
    int64_t total = 0;
    int k;
    for (k = 1; k < OUTPUTS; k++)
        if (y[k] > top) top = y[k];
    for (k = 0; k < OUTPUTS; k++)
        total += answer[k] = exp2_minus(rounded(((int64_t)top - y[k]) * SHARPNESS, 16));
    for (k = 0; k < OUTPUTS; k++) answer[k] = (int32_t)divide((int64_t)answer[k] * 65536, total);
//@ end
//@ if event
    answer[0] = sigmoid16((int32_t)sat(rounded((int64_t)y[0] * SHARPNESS, 19), 1 << 20));
    answer[1] = answer[0] >= ${NAME}_THRESHOLD;
//@ end
//@ if regression
    int k;
    int64_t value = TARGET_MEAN + rounded((int64_t)y[0] * TARGET_FACTOR, TARGET_SHIFT);
    answer[0] = (int32_t)sat(value, 2147483647);
    for (k = 1; k < ${NAME}_ANSWER; k++) answer[k] = (int32_t)sat(value + ERRORS[k - 1], 2147483647);
//@ end
}

int ${name}_push(${name}_state *s, const ${name}_row *row, int32_t answer[${answers}])
{
    int16_t numeric[NUMERIC + 1], *end = numeric;
    int64_t y[OUTPUTS];
    int32_t shown[OUTPUTS], elapsed = 0;
    int m, l, k;
//@ if clock
    int64_t time;
//@ end
//@ if row_numbers
    if (refused(row->number, ROW_COLUMN, ${row_numbers})) return ${NAME}_VALUE;
//@ end
//@ if row_categories
    if (!codes_fit(row->category, ROW_CODES, ${row_categories})) return ${NAME}_CATEGORY;
//@ end
//@ if time
    if (s->rows && row->time < s->time) return ${NAME}_TIME;
    time = row->time;
//@ else
//@ if clock
    time = s->rows ? s->time + 1 : 0;
//@ end
    (void)row;
//@ end
//@ if clock
    elapsed = s->rows ? units_of(time - s->time) : 0;
    s->time = time;
//@ end
    if (s->rows < UINT32_MAX) s->rows++;
//@ if row_numbers
    for (k = 0; k < ${row_numbers}; k++) {
        int missing = row->number[k] == NONE;
        int16_t value = 0;
        if (!missing) value = s->last[k] = scaled(row->number[k], &ROW_COLUMN[k]);
//@ if gaps
        if (!missing) {
            s->seen[k] = time;
            s->observed[k] = 1;
        }
        if (ROW_COLUMN[k].gaps) {
            *end++ = value;
            *end++ = (int16_t)(missing ? 0 : 1 << STEP_BITS);
            *end++ = (int16_t)(s->observed[k] ? fade(units_of(time - s->seen[k])) : 1 << STEP_BITS);
        }
//@ end
        (void)value;
        *end++ = s->last[k];
    }
//@ end
//@ if uneven
    *end++ = fade(elapsed);
//@ end
//@ if calendar_features
    end = calendar_of(end, row->wall, STEP_BITS);
//@ end
    (void)end;
    memset(y, 0, sizeof y);
    for (m = 0; m < MEMBERS; m++) {
        int16_t x[CHANNELS], pooled[OUTPUT];
//@ if wide
        int16_t wide[WIDTH];
//@ end
//@ if after_numbers
        int16_t *next = x + NUMERIC;
//@ end
        memcpy(x, numeric, NUMERIC * sizeof *x);
//@ if row_categories
        for (k = 0; k < ${row_categories}; k++)
            next = embed(next, MODEL[m].embed[k], row->category[k], ROW_WIDTHS[k]);
//@ end
//@ if fixed
        memcpy(next, s->fixed[m], sizeof s->fixed[m]);
//@ end
        for (l = 0; l < LAYERS; l++)
            layer_step(&MODEL[m].stack[l], l ? s->h[m][l - 1] : x, s->h[m][l], s->c[m][l], elapsed);
//@ if pooled
        pool(s, m, s->h[m][LAYERS - 1], pooled);
//@ else
        memcpy(pooled, s->h[m][LAYERS - 1], sizeof pooled);
//@ end
//@ if wide
        for (k = 0; k < WIDTH; k++) {
            int32_t z = row_of(&MODEL[m].hidden, k, pooled, OUTPUT);
            wide[k] = to16(z > 0 ? z : 0, 16 - WIDE_BITS);
        }
        for (k = 0; k < OUTPUTS; k++) y[k] += row_of(&MODEL[m].out, k, wide, WIDTH);
//@ else
        for (k = 0; k < OUTPUTS; k++) y[k] += row_of(&MODEL[m].out, k, pooled, OUTPUT);
//@ end
    }
    for (k = 0; k < OUTPUTS; k++) shown[k] = (int32_t)divide(y[k], MEMBERS);
    read_out(shown, answer);
    return ${NAME}_OK;
}
