
#define BOUND 10.0    /* of scaled numbers */
#define LARGEST 1e140 /* of what goes in */

/* A number column: x, or x / (|x| + squash), less its mean, over its scale. */
typedef struct {
    double mean, scale, squash;
    int gaps; /* whether training saw rows without it */
} column;

typedef struct {
    layer stack[LAYERS];
//@ if fixed
    const float *initial, *initial_bias; /* [LAYERS * (OUTPUT + HIDDEN)][STATIC]: h, then c of all layers */
//@ end
//@ if attention
    const float *attention; /* [OUTPUT] */
//@ end
//@ if wide
    const float *hidden, *hidden_bias; /* [WIDTH][OUTPUT], [WIDTH] */
//@ end
    const float *out, *out_bias; /* [OUTPUTS][WIDTH], [OUTPUTS] */
//@ if categories
    const float *embed[${embedded}];
//@ end
} member;

${member_table}
//@ if detect
${score_views}
//@ end

static int is_nan(double x)
{
    return x != x;
}
//@ if any_numbers

${column_tables}

/* Within +-BOUND, NaN where x is. */
static double scaled(double x, const column *by)
{
    if (by->squash > 0.0) x = x / ((x < 0.0 ? -x : x) + by->squash);
    x = (x - by->mean) / by->scale;
    return x > BOUND ? BOUND : x < -BOUND ? -BOUND : x;
}

/* Infinite, or missing where that is not known from training. */
static int refused(const double *x, const column *by, int n)
{
    int k;
    for (k = 0; k < n; k++)
        if (is_nan(x[k]) ? !by[k].gaps : x[k] > LARGEST || x[k] < -LARGEST) return 1;
    return 0;
}
//@ end
//@ if fades

/* 0 now, one half after one unit of time, towards 1 as time goes by. */
static double fade(double age)
{
    return age / (1.0 + age);
}
//@ end
//@ if categories

static float *embed(float *x, const float *table, int32_t code, int width)
{
    memcpy(x, table + code * width, (size_t)width * sizeof *x);
    return x + width;
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
//@ else
//@ if history
    int m;
//@ end
//@ end
//@ if fixed
//@ if fixed_numbers
    if (refused(fixed->number, FIXED_COLUMN, ${fixed_numbers})) return ${NAME}_VALUE;
//@ end
//@ if fixed_categories
    if (!codes_fit(fixed->category, FIXED_CODES, ${fixed_categories})) return ${NAME}_CATEGORY;
//@ end
//@ end
    memset(s, 0, sizeof *s);
//@ if history
    for (m = 0; m < VIEWS; m++) {
        s->largest[m] = VIEW[m].largest;
        memcpy(s->low[m], VIEW[m].low, sizeof s->low[m]);
        memcpy(s->high[m], VIEW[m].high, sizeof s->high[m]);
    }
//@ end
//@ if rest
    s->held = 1.0;
//@ end
//@ if fixed
    for (m = 0; m < MEMBERS; m++) {
        float *x = s->fixed[m];
        const float *w = MODEL[m].initial, *b = MODEL[m].initial_bias;
//@ if fixed_numbers
        for (k = 0; k < ${fixed_numbers}; k++) {
            double value = scaled(fixed->number[k], &FIXED_COLUMN[k]);
            *x++ = is_nan(value) ? 0.0f : (float)value;
            if (FIXED_COLUMN[k].gaps) *x++ = is_nan(value) ? 0.0f : 1.0f;
        }
//@ end
//@ if fixed_categories
        for (k = 0; k < ${fixed_categories}; k++)
            x = embed(x, MODEL[m].embed[FIXED_TABLES + k], fixed->category[k], FIXED_WIDTHS[k]);
//@ end
        x = s->fixed[m];
        for (l = 0; l < LAYERS; l++)
            for (k = 0; k < OUTPUT; k++, w += STATIC) s->h[m][l][k] = dot(w, x, STATIC) + *b++;
        for (l = 0; l < LAYERS; l++)
            for (k = 0; k < HIDDEN; k++, w += STATIC) s->c[m][l][k] = dot(w, x, STATIC) + *b++;
    }
//@ end
    return ${NAME}_OK;
}
//@ if pooled

/* What the rows so far make of the head's input [OUTPUT]. */
static void pool(${name}_state *s, int m, const float *h, float *x)
{
    float *p = s->pool[m];
    int j;
//@ if attention
    float score = dot(MODEL[m].attention, h, OUTPUT), old = 1.0f, fresh = 1.0f;
    if (s->rows == 1) {
        s->top[m] = score;
    } else if (score > s->top[m]) {
        old = exp_of(s->top[m] - score);
        s->top[m] = score;
    } else {
        fresh = exp_of(score - s->top[m]);
    }
    s->weight[m] = s->weight[m] * old + fresh;
    for (j = 0; j < OUTPUT; j++) {
        p[j] = p[j] * old + fresh * h[j];
        x[j] = p[j] / s->weight[m];
    }
//@ end
//@ if pool_mean
    for (j = 0; j < OUTPUT; j++) {
        p[j] += h[j];
        x[j] = p[j] / (float)s->rows;
    }
//@ end
//@ if pool_max
    for (j = 0; j < OUTPUT; j++) {
        if (s->rows == 1 || h[j] > p[j]) p[j] = h[j];
        x[j] = p[j];
    }
//@ end
}
//@ end

//@ if detect
${score}
//@ else
/* Head outputs [OUTPUTS] to the answer. */
static void read_out(const double *y, double *answer)
{
//@ if label
    double top = y[0], total = 0.0;
    int k;
    for (k = 1; k < OUTPUTS; k++)
        if (y[k] > top) top = y[k];
    for (k = 0; k < OUTPUTS; k++) total += answer[k] = (double)exp_of((float)((y[k] - top) / TEMPERATURE));
    for (k = 0; k < OUTPUTS; k++) answer[k] /= total;
//@ end
//@ if event
    answer[0] = (double)sigmoid_of((float)(y[0] / TEMPERATURE));
    answer[1] = answer[0] >= ${NAME}_THRESHOLD ? 1.0 : 0.0;
//@ end
//@ if regression
    int k;
    answer[0] = y[0] * TARGET_SCALE + TARGET_MEAN;
    for (k = 1; k < ${NAME}_ANSWER; k++) answer[k] = answer[0] + ERRORS[k - 1];
//@ end
}
//@ end

int ${name}_push(${name}_state *s, const ${name}_row *row, double answer[${answers}])
{
    float numeric[NUMERIC + 1], *end = numeric;
    double y[OUTPUTS], elapsed, time;
    int m, l, k;
//@ if row_numbers
    if (refused(row->number, ROW_COLUMN, ${row_numbers})) return ${NAME}_VALUE;
//@ end
//@ if row_categories
    if (!codes_fit(row->category, ROW_CODES, ${row_categories})) return ${NAME}_CATEGORY;
//@ end
//@ if calendar_features
    if (is_nan(row->wall - row->wall)) return ${NAME}_VALUE;
//@ end
//@ if time
    time = row->time;
    if (is_nan(time - time)) return ${NAME}_VALUE;
    if (s->rows && time < s->time) return ${NAME}_TIME;
//@ else
    time = s->rows ? s->time + 1.0 : 0.0;
    (void)row;
//@ end
    elapsed = s->rows ? (time - s->time) / UNIT : 0.0;
    s->time = time;
    if (s->rows < UINT32_MAX) s->rows++;
//@ if row_numbers
    for (k = 0; k < ${row_numbers}; k++) {
        double value = scaled(row->number[k], &ROW_COLUMN[k]);
        if (!is_nan(value)) {
            s->last[k] = value;
            s->seen[k] = time;
            s->observed[k] = 1;
        }
//@ if gaps
        if (ROW_COLUMN[k].gaps) {
            *end++ = is_nan(value) ? 0.0f : (float)value;
            *end++ = is_nan(value) ? 0.0f : 1.0f;
            *end++ = s->observed[k] ? (float)fade((time - s->seen[k]) / UNIT) : 1.0f;
        }
//@ end
        *end++ = (float)s->last[k];
    }
//@ end
//@ if uneven
    *end++ = (float)fade(elapsed);
//@ end
//@ if calendar_features
    end = calendar_of(end, row->wall);
//@ end
    (void)end;
    memset(y, 0, sizeof y);
    for (m = 0; m < MEMBERS; m++) {
        float x[CHANNELS], pooled[OUTPUT], z[OUTPUTS];
//@ if wide
        float wide[WIDTH];
//@ end
//@ if after_numbers
        float *next = x + NUMERIC;
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
            layer_step(&MODEL[m].stack[l], l ? s->h[m][l - 1] : x, s->h[m][l], s->c[m][l], (float)elapsed);
//@ if pooled
        pool(s, m, s->h[m][LAYERS - 1], pooled);
//@ else
        memcpy(pooled, s->h[m][LAYERS - 1], sizeof pooled);
//@ end
//@ if wide
        affine(MODEL[m].hidden, MODEL[m].hidden_bias, pooled, WIDTH, OUTPUT, wide);
        for (k = 0; k < WIDTH; k++) wide[k] = wide[k] > 0.0f ? wide[k] : 0.0f;
        affine(MODEL[m].out, MODEL[m].out_bias, wide, OUTPUTS, WIDTH, z);
//@ else
        affine(MODEL[m].out, MODEL[m].out_bias, pooled, OUTPUTS, OUTPUT, z);
//@ end
        for (k = 0; k < OUTPUTS; k++) y[k] += (double)z[k];
    }
    for (k = 0; k < OUTPUTS; k++) y[k] /= MEMBERS;
//@ if detect
    read_out(s, row, y, answer);
//@ else
    read_out(y, answer);
//@ end
    return ${NAME}_OK;
}
