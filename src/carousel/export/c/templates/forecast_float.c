
#define BOUND 100.0f     /* of scaled inputs */
#define LARGEST 1e140    /* of what goes in */
#define NEVER (-1.0f)    /* the age before a first observation */

/* The latest rows up to the origin, and what scales them. */
typedef struct {
    double level[TARGETS], spread[TARGETS];
    float latest[TARGETS];
} scale;

typedef struct {
    layer stack[LAYERS];
    const float *step;        /* [HORIZON][WIDTH] */
    const float *gate_step;   /* [HORIZON][TARGETS * BASES] */
    const float *state, *state_bias;   /* [WIDTH][OUTPUT + STATIC], [WIDTH] */
//@ if ahead
    const float *ahead;       /* [WIDTH][AHEAD] */
//@ end
    const float *hidden, *hidden_bias; /* [WIDTH][WIDTH], [WIDTH] */
    const float *out, *out_bias;       /* [TARGETS * QUANTILES][WIDTH], [TARGETS * QUANTILES] */
    const float *gate, *gate_bias;     /* [TARGETS * BASES][WIDTH], [TARGETS * BASES] */
    const float *linear, *linear_bias; /* [HORIZON][CONTEXT + 1], [HORIZON] */
//@ if categories
    const float *embed[${embedded}];
//@ end
} member;

${member_table}

static double not_observed(void)
{
    uint64_t bits = 0x7ff8000000000000ULL;
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static int is_nan(double x)
{
    return x != x;
}

static double absolute(double x)
{
    return x < 0.0 ? -x : x;
}

/* Infinite, or so large that its square would be. */
static int too_large(double x)
{
    return absolute(x) > LARGEST;
}

static double larger(double a, double b)
{
    return a > b ? a : b;
}

static float within(float x, float bound)
{
    return x > bound ? bound : x < -bound ? -bound : x;
}

/* The target [TARGETS] `back` rows before the latest, null before the first. */
static const double *row_at(const ${name}_state *s, uint32_t back)
{
    return back < s->rows ? s->target[(s->at + REACH - back) % REACH] : 0;
}

static float scaled(const scale *by, int k, double value)
{
    return (float)((value - by->level[k]) / by->spread[k]);
}

static float scaled_at(const ${name}_state *s, const scale *by, uint32_t back, int k)
{
    const double *row = row_at(s, back);
    return row ? scaled(by, k, row[k]) : (float)not_observed();
}
//@ if any_numbers

/* A covariate is scaled, and beside it stands whether it was observed. */
static float *encode(float *x, double value, double mean, double deviation)
{
    int seen = !is_nan(value);
    *x++ = seen ? (float)((value - mean) / deviation) : 0.0f;
    *x++ = seen ? 1.0f : 0.0f;
    return x;
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
    int k;
//@ if seasons
    int i;
//@ end
//@ if fixed_numbers
    for (k = 0; k < ${fixed_numbers}; k++)
        if (too_large(fixed->number[k])) return ${NAME}_INFINITE;
//@ end
//@ if fixed_categories
    if (!codes_fit(fixed->category, FIXED_CODES, ${fixed_categories})) return ${NAME}_CATEGORY;
//@ end
    memset(s, 0, sizeof *s);
//@ if fixed
    s->fixed = *fixed;
//@ end
    s->at = REACH - 1;
    s->context_at = CONTEXT - 1;
    for (k = 0; k < TARGETS; k++) {
        s->last[k] = not_observed();
//@ if seasons
        for (i = 0; i < SEASONS; i++) s->before[i][k] = not_observed();
//@ end
    }
    return ${NAME}_OK;
}

static void remember(${name}_state *s, int k, double value)
{
//@ if seasons
    int i;
    for (i = 0; i < SEASONS; i++) {
        const double *row = row_at(s, SEASON[i]);
        s->before[i][k] = row ? row[k] : not_observed();
    }
//@ end
    if (!is_nan(s->last[k])) {
        s->change[k] += absolute(value - s->last[k]);
        s->changes[k] += 1.0;
    }
    s->sum[k] += value;
    s->count[k] += 1.0;
    s->last[k] = value;
//@ if uneven
    s->seen[k] = s->time;
//@ else
    s->since[k] = 0;
//@ end
}

int ${name}_push(${name}_state *s, const ${name}_row *row)
{
    int k;
//@ if numbers
    float *x;
//@ end
//@ if uneven
    double gap;
//@ end
    for (k = 0; k < TARGETS; k++)
        if (too_large(row->target[k])) return ${NAME}_INFINITE;
//@ if row_numbers
    for (k = 0; k < ${row_numbers}; k++)
        if (too_large(row->number[k])) return ${NAME}_INFINITE;
//@ end
//@ if row_categories
    if (!codes_fit(row->category, ROW_CODES, ${row_categories})) return ${NAME}_CATEGORY;
//@ end
//@ if time
    if (is_nan(row->time - row->time)) return ${NAME}_INFINITE;
    if (s->rows && !(row->time > s->time)) return ${NAME}_TIME;
//@ end
//@ if calendar_features
    if (is_nan(row->wall - row->wall)) return ${NAME}_INFINITE;
//@ end
//@ if uneven
    gap = s->rows ? (row->time - s->time) / STEP_OF_CLOCK : 1.0;
//@ end
//@ if time
    s->time = row->time;
//@ end
//@ if calendar_features
    s->wall = row->wall;
//@ end
    s->at = (s->at + 1) % REACH;
    s->context_at = (s->context_at + 1) % CONTEXT;
    if (s->rows < REACH) s->rows++;
    memcpy(s->target[s->at], row->target, sizeof row->target);
    for (k = 0; k < TARGETS; k++) {
        double steps;
//@ if not uneven
        s->since[k] += s->since[k] < UINT32_MAX;
//@ end
        if (!is_nan(row->target[k])) remember(s, k, row->target[k]);
//@ if uneven
        steps = (s->time - s->seen[k]) / STEP_OF_CLOCK;
//@ else
        steps = (double)s->since[k];
//@ end
        s->age[s->context_at][k] = is_nan(s->last[k]) ? NEVER : (float)(log_of(1.0 + steps) / 3.0);
    }
//@ if row_categories
    memcpy(s->category[s->context_at], row->category, sizeof row->category);
//@ end
//@ if numbers
    x = s->number[s->context_at];
//@ if row_numbers
    for (k = 0; k < ${row_numbers}; k++) x = encode(x, row->number[k], ROW_MEAN[k], ROW_SCALE[k]);
//@ end
//@ if calendar_features
    x = calendar_of(x, row->wall);
//@ end
//@ if uneven
    *x++ = (float)log_of(1.0 + (double)(float)gap);
//@ end
    (void)x;
//@ end
//@ if uneven
    s->elapsed[s->context_at] = (float)gap;
//@ end
    return ${NAME}_OK;
}

/* Level and spread of the context, as training measured them. */
static void measure(const ${name}_state *s, scale *by)
{
    uint32_t back;
    int k;
    for (k = 0; k < TARGETS; k++) {
        double sum = 0.0, size = 0.0, away = 0.0, n = 0.0, some, last, level, running, floor, least;
        for (back = CONTEXT; back-- > 0;) {
            const double *row = row_at(s, back);
            if (!row || is_nan(row[k])) continue;
            sum += row[k];
            size += absolute(row[k]);
            n += 1.0;
        }
        some = larger(n, 1.0);
        last = is_nan(s->last[k]) ? 0.0 : s->last[k];
//@ if level_last
        (void)sum;
        level = last;
//@ else
        level = n > 0.0 ? sum / some : last;
//@ end
        for (back = CONTEXT; back-- > 0;) {
            const double *row = row_at(s, back);
            if (row && !is_nan(row[k])) away += absolute(row[k] - level);
        }
        running = s->change[k] / larger(s->changes[k], 1.0);
        size = larger(size / some, absolute(last));
        least = larger(size, running);
        floor = 1e-5 * least < 1e-9 && least > 0.0 ? 1e-5 * least : 1e-9;
        by->level[k] = level;
        by->spread[k] = larger(larger(n > 1.0 ? away / some : 0.0, 0.1 * running), 1e-4 * size + floor);
        by->latest[k] = scaled(by, k, last);
    }
}

/* The channels of the row `back` rows before the latest. */
static void channels(const ${name}_state *s, const member *m, const scale *by, uint32_t back, float *x)
{
    int k;
//@ if seasons
    int i;
//@ end
    const double *row = row_at(s, back);
    uint32_t place = (s->context_at + CONTEXT - back) % CONTEXT;
    for (k = 0; k < TARGETS; k++) {
        float value = scaled_at(s, by, back, k), earlier = (float)not_observed();
        int seen = !is_nan((double)value);
        if (back + 1 < CONTEXT) earlier = scaled_at(s, by, back + 1, k);
        x[k] = seen ? within(value, BOUND) : 0.0f;
        x[TARGETS + k] = seen ? 1.0f : 0.0f;
        x[2 * TARGETS + k] = row ? s->age[place][k] : NEVER;
        x[3 * TARGETS + k] = seen && !is_nan((double)earlier) ? within(value - earlier, BOUND) : 0.0f;
//@ if seasons
        for (i = 0; i < SEASONS; i++) {
            float before = scaled_at(s, by, back + SEASON[i], k);
            x[(4 + i) * TARGETS + k] = is_nan((double)before) ? 0.0f : within(before, BOUND);
        }
//@ end
    }
    x += (4 + SEASONS) * TARGETS;
//@ if numbers
    for (k = 0; k < ${numbers}; k++) x[k] = row ? s->number[place][k] : 0.0f;
    x += ${numbers};
//@ end
//@ if row_categories
    for (k = 0; k < ${row_categories}; k++)
        x = embed(x, m->embed[k], row ? s->category[place][k] : ${NAME}_MISSING, ROW_WIDTHS[k]);
//@ end
    (void)m;
    (void)place;
    (void)x;
}

/* The context of target k without gaps: on a line between neighbours, at the ends by the nearest value. */
static void without_gaps(const ${name}_state *s, const scale *by, int k, float *x)
{
    int i, left = -1;
    for (i = 0; i < CONTEXT; i++) x[i] = scaled_at(s, by, (uint32_t)(CONTEXT - 1 - i), k);
    for (i = 0; i < CONTEXT; i++) {
        int j, right = i;
        if (!is_nan((double)x[i])) {
            left = i;
            continue;
        }
        while (right < CONTEXT && is_nan((double)x[right])) right++;
        for (j = i; j < right; j++) {
            if (left < 0 && right == CONTEXT)
                x[j] = by->latest[k];
            else if (left < 0)
                x[j] = x[right];
            else if (right == CONTEXT)
                x[j] = x[left];
            else
                x[j] = x[left] + (float)((double)(j - left) / (right - left)) * (x[right] - x[left]);
        }
        i = right - 1;
    }
    for (i = 0; i < CONTEXT; i++) x[i] = within(x[i], BOUND);
    {
        double mean = s->sum[k] / larger(s->count[k], 1.0), away = (by->level[k] - mean) / (10.0 * by->spread[k]);
        x[CONTEXT] = (float)(away > 1.0 ? 1.0 : away < -1.0 ? -1.0 : away);
    }
}

/* What the last seasons say of the step `ahead` (from 1): channels x and the naive forecasts base [TARGETS][BASES]. */
static void lags(const ${name}_state *s, const scale *by, int ahead, float *x, float *base)
{
    int k;
//@ if seasons
    int i;
//@ end
    for (k = 0; k < TARGETS; k++) {
        float now = by->latest[k], *b = base + k * BASES;
        b[0] = now;
        b[1] = 0.0f;
//@ if seasons
        for (i = 0; i < SEASONS; i++) {
            int gone = (ahead + (int)SEASON[i] - 1) / (int)SEASON[i]; /* seasons from the value to its step */
            float value = scaled_at(s, by, (uint32_t)((int)SEASON[i] * gone - ahead), k);
            float anchor = scaled(by, k, s->before[i][k]);
            int missing = is_nan((double)value), sure = !missing && !is_nan((double)anchor);
            float *own = x + 4 * i * TARGETS + k;
            if (missing) value = now;
            own[0] = within(value, BOUND);
            own[TARGETS] = within(value - now, BOUND);
            own[2 * TARGETS] = missing ? 1.0f : 0.0f;
            own[3 * TARGETS] = sure ? within(value - anchor, BOUND) : 0.0f;
            b[2 + 2 * i] = value;
            b[3 + 2 * i] = sure ? value + (float)gone * (now - anchor) : now;
        }
//@ end
    }
    (void)s;
    (void)ahead;
    (void)x;
}

static float silu_of(float x)
{
    return x * sigmoid_of(x);
}

/* Scaled quantiles of one target and step, added to `sum`: a gated mean of the naive forecasts, a linear map of the
 * context, and what the decoder says; the other quantiles lie at positive distances from the median. */
static void quantiles(const member *m, const float *z, int h, int k, const float *base, float linear, double *sum)
{
    float gate[BASES], top = 0.0f, total = 0.0f, median = linear, raw[QUANTILES];
    double at;
    int i;
    for (i = 0; i < BASES; i++) {
        int r = k * BASES + i;
        gate[i] = dot(m->gate + r * WIDTH, z, WIDTH) + m->gate_bias[r] + m->gate_step[h * TARGETS * BASES + r];
        if (i == 0 || gate[i] > top) top = gate[i];
    }
    for (i = 0; i < BASES; i++) total += gate[i] = exp_of(gate[i] - top);
    for (i = 0; i < BASES; i++) median += gate[i] / total * base[k * BASES + i];
    affine(m->out + k * QUANTILES * WIDTH, m->out_bias + k * QUANTILES, z, QUANTILES, WIDTH, raw);
    median += raw[MEDIAN];
    sum[MEDIAN] += (double)median;
    for (at = (double)median, i = MEDIAN + 1; i < QUANTILES; i++) sum[i] += at += (double)softplus_of(raw[i] - 1.0f);
    for (at = (double)median, i = MEDIAN - 1; i >= 0; i--) sum[i] += at -= (double)softplus_of(raw[i] - 1.0f);
}

/* The stack over the context; its last output goes to `h` [OUTPUT]. */
static void read_context(const ${name}_state *s, const member *m, const scale *by, float *out)
{
    float h[LAYERS][OUTPUT], c[LAYERS][HIDDEN], x[CHANNELS], elapsed = 1.0f;
    uint32_t back;
    int l;
    memset(h, 0, sizeof h);
    memset(c, 0, sizeof c);
    for (back = CONTEXT; back-- > 0;) {
        channels(s, m, by, back, x);
//@ if uneven
        elapsed = back < s->rows ? s->elapsed[(s->context_at + CONTEXT - back) % CONTEXT] : 1.0f;
//@ end
        for (l = 0; l < LAYERS; l++) layer_step(&m->stack[l], l ? h[l - 1] : x, h[l], c[l], elapsed);
    }
    memcpy(out, h[LAYERS - 1], sizeof h[0]);
}

/* What the head reads besides: size and place of the targets, and the static columns. */
static void fixed_channels(const ${name}_state *s, const member *m, const scale *by, float *x)
{
    int k;
    for (k = 0; k < TARGETS; k++) {
        double share = by->spread[k] / (absolute(by->level[k]) + by->spread[k]);
        x[k] = by->latest[k];
        x[TARGETS + k] = (float)(log_of(larger(share, 1e-6)) / 3.0);
    }
    x += 2 * TARGETS;
//@ if fixed_numbers
    for (k = 0; k < ${fixed_numbers}; k++) x = encode(x, s->fixed.number[k], FIXED_MEAN[k], FIXED_SCALE[k]);
//@ end
//@ if fixed_categories
    for (k = 0; k < ${fixed_categories}; k++)
        x = embed(x, m->embed[FIXED_TABLES + k], s->fixed.category[k], FIXED_WIDTHS[k]);
//@ end
    (void)s;
    (void)m;
    (void)x;
}

//@ if known
static void run(const ${name}_state *s, const member *m, const scale *by, const ${name}_known *known, double *sum)
//@ else
static void run(const ${name}_state *s, const member *m, const scale *by, double *sum)
//@ end
{
    float state[OUTPUT + STATIC], start[WIDTH], z[WIDTH], y[WIDTH], base[TARGETS * BASES];
    float context[TARGETS][CONTEXT + 1];
    float ahead[AHEAD + 1];
    int h, j, k;
    read_context(s, m, by, state);
    fixed_channels(s, m, by, state + OUTPUT);
    affine(m->state, m->state_bias, state, WIDTH, OUTPUT + STATIC, start);
    for (k = 0; k < TARGETS; k++) without_gaps(s, by, k, context[k]);
    for (h = 0; h < HORIZON; h++) {
//@ if ahead
        float *x = ahead + 4 * SEASONS * TARGETS;
//@ end
        lags(s, by, h + 1, ahead, base);
//@ if known_numbers
        for (k = 0; k < ${known_numbers}; k++)
            x = encode(x, known[h].number[k], ROW_MEAN[FEATURES + k], ROW_SCALE[FEATURES + k]);
//@ end
//@ if calendar_features
        x = calendar_of(x, time_ahead(s->wall, h + 1));
//@ end
//@ if uneven
        *x++ = (float)log_of(1.0 + (double)(h + 1));
//@ end
//@ if known_categories
        for (k = 0; k < ${known_categories}; k++)
            x = embed(x, m->embed[KNOWN_TABLES + k], known[h].category[k], ROW_WIDTHS[KNOWN_TABLES + k]);
//@ end
//@ if ahead
        (void)x;
        affine(m->ahead, 0, ahead, WIDTH, AHEAD, y);
//@ end
        for (j = 0; j < WIDTH; j++) {
            float sum_of = start[j] + m->step[h * WIDTH + j];
//@ if ahead
            sum_of += y[j];
//@ end
            y[j] = silu_of(sum_of);
        }
        affine(m->hidden, m->hidden_bias, y, WIDTH, WIDTH, z);
        for (j = 0; j < WIDTH; j++) z[j] = silu_of(z[j]);
        for (k = 0; k < TARGETS; k++) {
            float linear = dot(m->linear + h * (CONTEXT + 1), context[k], CONTEXT + 1) + m->linear_bias[h];
            quantiles(m, z, h, k, base, linear, sum + (h * TARGETS + k) * QUANTILES);
        }
    }
}

/* From the scaled quantiles to the target's own units: stretched from the median, sorted, scaled back. */
static void read_out(double *q, double level, double spread)
{
    double middle = q[MEDIAN];
    int i, j;
    for (i = 0; i < QUANTILES; i++) q[i] = middle + (q[i] - middle) * FACTOR[i];
    for (i = 1; i < QUANTILES; i++) {
        double value = q[i];
        for (j = i; j > 0 && q[j - 1] > value; j--) q[j] = q[j - 1];
        q[j] = value;
    }
    for (i = 0; i < QUANTILES; i++) q[i] = q[i] * spread + level;
}

//@ if known
int ${name}_forecast(const ${name}_state *s, const ${name}_known ahead[HORIZON],
                     double forecast[HORIZON][TARGETS][QUANTILES])
//@ else
int ${name}_forecast(const ${name}_state *s, double forecast[HORIZON][TARGETS][QUANTILES])
//@ end
{
    scale by;
    int h, k, i, any = 0;
    for (k = 0; k < TARGETS; k++) any |= !is_nan(s->last[k]);
    if (!any) return ${NAME}_EMPTY;
//@ if known
    for (h = 0; h < HORIZON; h++) {
//@ if known_numbers
        for (k = 0; k < ${known_numbers}; k++)
            if (!(absolute(ahead[h].number[k]) <= LARGEST)) return ${NAME}_INFINITE;
//@ end
//@ if known_categories
        if (!codes_fit(ahead[h].category, KNOWN_CODES, ${known_categories})) return ${NAME}_CATEGORY;
        for (k = 0; k < ${known_categories}; k++)
            if (ahead[h].category[k] == ${NAME}_MISSING) return ${NAME}_INFINITE;
//@ end
    }
//@ end
    measure(s, &by);
    memset(forecast, 0, sizeof(double) * HORIZON * TARGETS * QUANTILES);
//@ if known
    for (i = 0; i < MEMBERS; i++) run(s, &MODEL[i], &by, ahead, &forecast[0][0][0]);
//@ else
    for (i = 0; i < MEMBERS; i++) run(s, &MODEL[i], &by, &forecast[0][0][0]);
//@ end
    for (h = 0; h < HORIZON; h++) {
        for (k = 0; k < TARGETS; k++) {
            for (i = 0; i < QUANTILES; i++) forecast[h][k][i] /= MEMBERS;
            read_out(forecast[h][k], by.level[k], by.spread[k]);
        }
    }
    return ${NAME}_OK;
}
