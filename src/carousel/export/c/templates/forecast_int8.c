
#define NONE ${NAME}_NONE

/* Level and spread of the latest rows up to the origin; the latest value, scaled, with 16 fraction bits. */
typedef struct {
    int32_t level[TARGETS];
    int64_t spread[TARGETS];
    reciprocal by[TARGETS];
    int32_t latest[TARGETS];
} scale;

typedef struct {
    layer stack[LAYERS];
    matrix state, hidden, out, gate, linear;
//@ if ahead
    matrix ahead;
//@ end
    const int8_t *step;          /* [HORIZON][WIDTH], with a factor for each step ahead */
    const uint16_t *step_factor;
    const int16_t *gate_step;    /* [HORIZON][TARGETS * BASES] */
    int8_t step_shift, gate_step_shift;
//@ if categories
    const int16_t *embed[${embedded}]; /* 12 fraction bits */
//@ end
} member;

${member_table}

/* The target [TARGETS] `back` rows before the latest, null before the first. */
static APART const int32_t *row_at(const ${name}_state *s, int back)
{
    return back < s->rows ? s->target[(s->at + REACH - back) % REACH] : 0;
}

/* (raw - level) / spread, 16 fraction bits. */
static int32_t scaled(const scale *by, int k, int32_t raw)
{
    return quotient((int64_t)raw - by->level[k], by->by[k], 16);
}

/* The same of a row, NONE where it was not observed. */
static APART int32_t scaled_at(const ${name}_state *s, const scale *by, int back, int k)
{
    const int32_t *row = row_at(s, back);
    return row && row[k] != NONE ? scaled(by, k, row[k]) : NONE;
}

/* From 16 fraction bits to those of a 16-bit input, within the bound of 100. */
static APART int16_t input16(int64_t x, int bits)
{
    int32_t limit = bits < 9 ? 100 << bits : 32767;
    return (int16_t)sat(rounded(x, 16 - bits), limit);
}
//@ if any_numbers

/* A covariate: (raw - mean) / scale with 16 fraction bits. */
typedef struct {
    int32_t mean, factor;
    int8_t shift;
} column;

${column_tables}

static int16_t *encode(int16_t *x, int32_t raw, const column *by, int bits)
{
    *x++ = raw == NONE ? 0 : to16(sat(rounded(((int64_t)raw - by->mean) * by->factor, by->shift), WIDE), 16 - bits);
    *x++ = (int16_t)(raw == NONE ? 0 : 1 << bits);
    return x;
}
//@ end
//@ if categories

static int16_t *embed(int16_t *x, const int16_t *table, int32_t code, int width, int bits)
{
    int k;
    for (k = 0; k < width; k++) *x++ = to16(table[code * width + k], 12 - bits);
    return x;
}
//@ end
//@ if checked

static int too_large(const int32_t *raw, int n)
{
    int k;
    for (k = 0; k < n; k++)
        if (raw[k] != NONE && (raw[k] > WIDE || raw[k] < -WIDE)) return 1;
    return 0;
}
//@ end
${calendar}
${codes}
//@ if uneven
/* A time between rows in steps of the clock, 16 fraction bits. */
static int32_t steps_of(int64_t ticks)
{
    return (int32_t)sat(rounded(sat(ticks, 2147483647) * TICK_FACTOR, TICK_SHIFT), 2147483647);
}

//@ end
/* log(x) / divisor of x with 16 fraction bits, x >= 1; the factor is log(2) / divisor with 20. */
static int32_t log16(uint64_t x, int32_t factor)
{
    return (int32_t)rounded((int64_t)(log2_of(x) - 16 * 65536) * factor, 20);
}

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
    if (too_large(fixed->number, ${fixed_numbers})) return ${NAME}_RANGE;
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
        s->last[k] = NONE;
//@ if seasons
        for (i = 0; i < SEASONS; i++) s->before[i][k] = NONE;
//@ end
    }
    return ${NAME}_OK;
}

static void remember(${name}_state *s, int k, int32_t raw)
{
//@ if seasons
    int i;
    for (i = 0; i < SEASONS; i++) {
        const int32_t *row = row_at(s, SEASON[i]);
        s->before[i][k] = row ? row[k] : NONE;
    }
//@ end
    if (s->last[k] != NONE) {
        int64_t change = (int64_t)raw - s->last[k];
        s->change[k] += change < 0 ? -change : change;
        s->changes[k]++;
    }
    s->sum[k] += raw;
    s->count[k]++;
    s->last[k] = raw;
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
    int16_t *x;
//@ end
//@ if uneven
    int32_t gap;
//@ end
    if (too_large(row->target, TARGETS)) return ${NAME}_RANGE;
//@ if row_numbers
    if (too_large(row->number, ${row_numbers})) return ${NAME}_RANGE;
//@ end
//@ if row_categories
    if (!codes_fit(row->category, ROW_CODES, ${row_categories})) return ${NAME}_CATEGORY;
//@ end
//@ if time
    if (s->rows && row->time < s->time) return ${NAME}_TIME;
//@ end
//@ if uneven
    gap = s->rows ? steps_of(row->time - s->time) : 65536;
//@ end
//@ if time
    s->time = row->time;
//@ end
//@ if calendar_features
    s->wall = row->wall;
//@ end
    s->at = (uint16_t)((s->at + 1) % REACH);
    s->context_at = (uint16_t)((s->context_at + 1) % CONTEXT);
    if (s->rows < REACH) s->rows++;
    memcpy(s->target[s->at], row->target, sizeof row->target);
    for (k = 0; k < TARGETS; k++) {
        uint64_t steps;
//@ if not uneven
        if (s->since[k] < 65535) s->since[k]++;
//@ end
        if (row->target[k] != NONE) remember(s, k, row->target[k]);
//@ if uneven
        steps = (uint64_t)steps_of(s->time - s->seen[k]);
//@ else
        steps = (uint64_t)s->since[k] * 65536;
//@ end
        s->age[s->context_at][k] =
            s->last[k] == NONE ? (int16_t)-(1 << STEP_BITS) : input16(log16(65536 + steps, LOG_THIRD), STEP_BITS);
    }
//@ if row_categories
    memcpy(s->category[s->context_at], row->category, sizeof row->category);
//@ end
//@ if numbers
    x = s->number[s->context_at];
//@ if row_numbers
    for (k = 0; k < ${row_numbers}; k++) x = encode(x, row->number[k], &ROW_COLUMN[k], STEP_BITS);
//@ end
//@ if calendar_features
    x = calendar_of(x, row->wall, STEP_BITS);
//@ end
//@ if uneven
    *x++ = input16(log16(65536 + (uint64_t)gap, LOG_WHOLE), STEP_BITS);
//@ end
    (void)x;
//@ end
//@ if uneven
    s->elapsed[s->context_at] = gap;
//@ end
    return ${NAME}_OK;
}

static int64_t size_of(int64_t x)
{
    return x < 0 ? -x : x;
}

/* Level and spread of the context, as training measured them. */
static void measure(const ${name}_state *s, scale *by)
{
    int back, k;
    for (k = 0; k < TARGETS; k++) {
        int64_t sum = 0, size = 0, away = 0, n = 0, some, spread, running;
        int32_t last = s->last[k] == NONE ? 0 : s->last[k];
        for (back = 0; back < CONTEXT; back++) {
            const int32_t *row = row_at(s, back);
            if (!row || row[k] == NONE) continue;
            sum += row[k];
            size += size_of(row[k]);
            n++;
        }
        some = n ? n : 1;
//@ if level_last
        (void)sum;
        by->level[k] = last;
//@ else
        by->level[k] = n ? (int32_t)divide(sum, n) : last;
//@ end
        for (back = 0; back < CONTEXT; back++) {
            const int32_t *row = row_at(s, back);
            if (row && row[k] != NONE) away += size_of((int64_t)row[k] - by->level[k]);
        }
        spread = n > 1 ? away / some : 0;
        running = s->change[k] / (s->changes[k] ? s->changes[k] : 1) / 10;
        spread = running > spread ? running : spread;
        size /= some;
        size = (size > size_of(last) ? size : size_of(last)) / 10000 + 1;
        by->spread[k] = size > spread ? size : spread;
        by->by[k] = reciprocal_of(by->spread[k]);
        by->latest[k] = scaled(by, k, last);
    }
}

/* The channels of the row `back` rows before the latest. */
static void channels(const ${name}_state *s, const member *m, const scale *by, int back, int16_t *x)
{
    int k;
//@ if seasons
    int i;
//@ end
    const int32_t *row = row_at(s, back);
    int place = (s->context_at + CONTEXT - back) % CONTEXT;
    for (k = 0; k < TARGETS; k++) {
        int32_t value = scaled_at(s, by, back, k), earlier = NONE;
        if (back + 1 < CONTEXT) earlier = scaled_at(s, by, back + 1, k);
        x[k] = value == NONE ? 0 : input16(value, STEP_BITS);
        x[TARGETS + k] = (int16_t)(value == NONE ? 0 : 1 << STEP_BITS);
        x[2 * TARGETS + k] = (int16_t)(row ? s->age[place][k] : -(1 << STEP_BITS));
        x[3 * TARGETS + k] = value == NONE || earlier == NONE ? 0 : input16((int64_t)value - earlier, STEP_BITS);
//@ if seasons
        for (i = 0; i < SEASONS; i++) {
            int32_t before = scaled_at(s, by, back + SEASON[i], k);
            x[(4 + i) * TARGETS + k] = before == NONE ? 0 : input16(before, STEP_BITS);
        }
//@ end
    }
    x += (4 + SEASONS) * TARGETS;
//@ if numbers
    for (k = 0; k < ${numbers}; k++) x[k] = row ? s->number[place][k] : 0;
    x += ${numbers};
//@ end
//@ if row_categories
    for (k = 0; k < ${row_categories}; k++)
        x = embed(x, m->embed[k], row ? s->category[place][k] : ${NAME}_MISSING, ROW_WIDTHS[k], STEP_BITS);
//@ end
    (void)m;
    (void)place;
    (void)x;
}

/* The context of target k without gaps: on a line between neighbours, at the ends by the nearest value. */
static void without_gaps(const ${name}_state *s, const scale *by, int k, int16_t *x)
{
    int i, j, left = -1;
    int64_t mean = s->count[k] ? divide(s->sum[k], s->count[k]) : 0;
    for (i = 0; i < CONTEXT; i++) {
        int32_t value = scaled_at(s, by, CONTEXT - 1 - i, k);
        if (value == NONE) continue;
        x[i] = input16(value, LINEAR_BITS);
        for (j = left < 0 ? 0 : left + 1; j < i; j++)
            x[j] = left < 0 ? x[i] : (int16_t)(x[left] + divide((int64_t)(j - left) * (x[i] - x[left]), i - left));
        left = i;
    }
    for (j = left + 1; j < CONTEXT; j++) x[j] = left < 0 ? input16(by->latest[k], LINEAR_BITS) : x[left];
    mean = sat(divide(quotient(by->level[k] - mean, by->by[k], 16), 10), 65536);
    x[CONTEXT] = input16(mean, LINEAR_BITS);
}

/* What the last seasons say of the step `ahead` (from 1): channels x and the naive forecasts base [TARGETS][BASES]. */
static void lags(const ${name}_state *s, const scale *by, int ahead, int16_t *x, int32_t *base)
{
    int k;
//@ if seasons
    int i;
//@ end
    for (k = 0; k < TARGETS; k++) {
        int32_t now = by->latest[k], *b = base + k * BASES;
        b[0] = now;
        b[1] = 0;
//@ if seasons
        for (i = 0; i < SEASONS; i++) {
            int gone = (ahead + SEASON[i] - 1) / SEASON[i]; /* seasons from the value to its step */
            int32_t value = scaled_at(s, by, SEASON[i] * gone - ahead, k);
            int missing = value == NONE, sure = !missing && s->before[i][k] != NONE;
            int32_t anchor = sure ? scaled(by, k, s->before[i][k]) : 0;
            int16_t *own = x + 4 * i * TARGETS + k;
            if (missing) value = now;
            own[0] = input16(value, AHEAD_BITS);
            own[TARGETS] = input16((int64_t)value - now, AHEAD_BITS);
            own[2 * TARGETS] = (int16_t)(missing ? 1 << AHEAD_BITS : 0);
            own[3 * TARGETS] = sure ? input16((int64_t)value - anchor, AHEAD_BITS) : 0;
            b[2 + 2 * i] = value;
            b[3 + 2 * i] = sure ? (int32_t)sat(value + (int64_t)gone * ((int64_t)now - anchor), WIDE) : now;
        }
//@ end
    }
    (void)s;
    (void)ahead;
    (void)x;
}

/* z sigmoid(z) of z with 13 fraction bits. */
static int16_t silu(int64_t z, int bits)
{
    int32_t some = (int32_t)sat(z, 1 << 20);
    return to16((int64_t)some * sigmoid16(some), 29 - bits);
}

/* Scaled quantiles of one target and step, 16 fraction bits, added to `sum`: a gated mean of the naive forecasts, a
 * linear map of the context, and what the decoder says; the other quantiles lie at positive distances. */
static void quantiles(const member *m, const int16_t *z, int h, int k, const int32_t *base, int32_t linear, int32_t *sum)
{
    int32_t gate[BASES], top = 0;
    int64_t total = 0, mixed = 0, median, at;
    int i;
    for (i = 0; i < BASES; i++) {
        int r = k * BASES + i;
        gate[i] = (int32_t)sat((int64_t)row_of(&m->gate, r, z, WIDTH)
                                   + m->gate_step[h * TARGETS * BASES + r] * ((int64_t)1 << m->gate_step_shift),
                               WIDE);
        if (i == 0 || gate[i] > top) top = gate[i];
    }
    for (i = 0; i < BASES; i++) {
        int32_t share = exp2_minus(rounded(((int64_t)top - gate[i]) * 94548, 16)); /* log2(e) */
        total += share;
        mixed += (int64_t)share * base[k * BASES + i];
    }
    median = divide(mixed, total) + linear + row_of(&m->out, k * QUANTILES + MEDIAN, z, WIDTH);
    median = sat(median, LIMIT);
    sum[MEDIAN] += (int32_t)median;
    for (at = median, i = MEDIAN + 1; i < QUANTILES; i++) {
        at = sat(at + softplus16(row_of(&m->out, k * QUANTILES + i, z, WIDTH) - 65536), LIMIT);
        sum[i] += (int32_t)at;
    }
    for (at = median, i = MEDIAN - 1; i >= 0; i--) {
        at = sat(at - softplus16(row_of(&m->out, k * QUANTILES + i, z, WIDTH) - 65536), LIMIT);
        sum[i] += (int32_t)at;
    }
}

/* The stack over the context; its last output goes to `out` [OUTPUT], with STATE_BITS. */
static void read_context(const ${name}_state *s, const member *m, const scale *by, int16_t *out)
{
    int16_t h[LAYERS][OUTPUT], c[LAYERS][HIDDEN], x[CHANNELS];
    int32_t elapsed = 65536;
    int back, j, l;
    memset(h, 0, sizeof h);
    memset(c, 0, sizeof c);
    for (back = CONTEXT - 1; back >= 0; back--) {
        channels(s, m, by, back, x);
//@ if uneven
        elapsed = back < s->rows ? s->elapsed[(s->context_at + CONTEXT - back) % CONTEXT] : 65536;
//@ end
        for (l = 0; l < LAYERS; l++) layer_step(&m->stack[l], l ? h[l - 1] : x, h[l], c[l], elapsed);
    }
    for (j = 0; j < OUTPUT; j++)
        out[j] = (int16_t)sat(requantised(h[LAYERS - 1][j], m->stack[LAYERS - 1].out_bits, STATE_BITS), 32767);
}

/* What the head reads besides: place and size of the targets, and the static columns. */
static void fixed_channels(const ${name}_state *s, const member *m, const scale *by, int16_t *x)
{
    int k;
    for (k = 0; k < TARGETS; k++) {
        int64_t whole = size_of(by->level[k]) + by->spread[k];
        int32_t share = log2_of((uint64_t)by->spread[k]) - log2_of((uint64_t)whole);
        share = (int32_t)rounded((int64_t)share * LOG_THIRD, 20);
        x[k] = to16(by->latest[k], 16 - STATE_BITS);
        x[TARGETS + k] = to16(share > -301804 ? share : -301804, 16 - STATE_BITS); /* log(1e-6) / 3 */
    }
    x += 2 * TARGETS;
//@ if fixed_numbers
    for (k = 0; k < ${fixed_numbers}; k++) x = encode(x, s->fixed.number[k], &FIXED_COLUMN[k], STATE_BITS);
//@ end
//@ if fixed_categories
    for (k = 0; k < ${fixed_categories}; k++)
        x = embed(x, m->embed[FIXED_TABLES + k], s->fixed.category[k], FIXED_WIDTHS[k], STATE_BITS);
//@ end
    (void)s;
    (void)m;
    (void)x;
}

//@ if known
static void run(const ${name}_state *s, const member *m, const scale *by, const ${name}_known *known, int32_t *sum)
//@ else
static void run(const ${name}_state *s, const member *m, const scale *by, int32_t *sum)
//@ end
{
    int32_t begin[WIDTH], base[TARGETS * BASES];
    int16_t state[OUTPUT + STATIC], y[WIDTH], z[WIDTH], context[TARGETS][CONTEXT + 1], ahead[AHEAD + 1];
    int h, j, k;
    read_context(s, m, by, state);
    fixed_channels(s, m, by, state + OUTPUT);
    for (j = 0; j < WIDTH; j++) begin[j] = row_of(&m->state, j, state, OUTPUT + STATIC);
    for (k = 0; k < TARGETS; k++) without_gaps(s, by, k, context[k]);
    for (h = 0; h < HORIZON; h++) {
//@ if ahead
        int16_t *x = ahead + 4 * SEASONS * TARGETS;
//@ end
        lags(s, by, h + 1, ahead, base);
//@ if known_numbers
        for (k = 0; k < ${known_numbers}; k++)
            x = encode(x, known[h].number[k], &ROW_COLUMN[FEATURES + k], AHEAD_BITS);
//@ end
//@ if calendar_features
        x = calendar_of(x, time_ahead(s->wall, h + 1), AHEAD_BITS);
//@ end
//@ if uneven
        *x++ = to16(log16((uint64_t)(h + 2) * 65536, LOG_WHOLE), 16 - AHEAD_BITS);
//@ end
//@ if known_categories
        for (k = 0; k < ${known_categories}; k++)
            x = embed(x, m->embed[KNOWN_TABLES + k], known[h].category[k], ROW_WIDTHS[KNOWN_TABLES + k], AHEAD_BITS);
//@ end
        for (j = 0; j < WIDTH; j++) {
            int64_t first = begin[j] + rounded((int64_t)m->step[h * WIDTH + j] * m->step_factor[h], m->step_shift);
//@ if ahead
            first += row_of(&m->ahead, j, ahead, AHEAD);
//@ end
            y[j] = silu(first, FIRST_BITS);
        }
//@ if ahead
        (void)x;
//@ end
        for (j = 0; j < WIDTH; j++) z[j] = silu(row_of(&m->hidden, j, y, WIDTH), SECOND_BITS);
        for (k = 0; k < TARGETS; k++)
            quantiles(m, z, h, k, base, row_of(&m->linear, h, context[k], CONTEXT + 1),
                      sum + (h * TARGETS + k) * QUANTILES);
    }
}

/* From scaled quantiles to those of the target: stretched from the median, sorted, scaled back. */
static void read_out(int32_t *q, int32_t level, int64_t spread)
{
    int32_t middle = q[MEDIAN];
    int i, j;
    for (i = 0; i < QUANTILES; i++)
        q[i] = (int32_t)sat(middle + rounded(((int64_t)q[i] - middle) * FACTOR[i], 14), WIDE);
    for (i = 1; i < QUANTILES; i++) {
        int32_t value = q[i];
        for (j = i; j > 0 && q[j - 1] > value; j--) q[j] = q[j - 1];
        q[j] = value;
    }
    for (i = 0; i < QUANTILES; i++) q[i] = (int32_t)sat(level + rounded(q[i] * spread, 16), 2147483647);
}

//@ if known
int ${name}_forecast(const ${name}_state *s, const ${name}_known ahead[HORIZON],
                     int32_t forecast[HORIZON][TARGETS][QUANTILES])
//@ else
int ${name}_forecast(const ${name}_state *s, int32_t forecast[HORIZON][TARGETS][QUANTILES])
//@ end
{
    scale by;
    int h, k, i, any = 0;
    for (k = 0; k < TARGETS; k++) any |= s->last[k] != NONE;
    if (!any) return ${NAME}_EMPTY;
//@ if known
    for (h = 0; h < HORIZON; h++) {
//@ if known_numbers
        if (too_large(ahead[h].number, ${known_numbers})) return ${NAME}_RANGE;
        for (k = 0; k < ${known_numbers}; k++)
            if (ahead[h].number[k] == NONE) return ${NAME}_RANGE;
//@ end
//@ if known_categories
        if (!codes_fit(ahead[h].category, KNOWN_CODES, ${known_categories})) return ${NAME}_CATEGORY;
        for (k = 0; k < ${known_categories}; k++)
            if (ahead[h].category[k] == ${NAME}_MISSING) return ${NAME}_RANGE;
//@ end
    }
//@ end
    measure(s, &by);
    memset(forecast, 0, sizeof(int32_t) * HORIZON * TARGETS * QUANTILES);
//@ if known
    for (i = 0; i < MEMBERS; i++) run(s, &MODEL[i], &by, ahead, &forecast[0][0][0]);
//@ else
    for (i = 0; i < MEMBERS; i++) run(s, &MODEL[i], &by, &forecast[0][0][0]);
//@ end
    for (h = 0; h < HORIZON; h++) {
        for (k = 0; k < TARGETS; k++) {
            for (i = 0; i < QUANTILES; i++) forecast[h][k][i] = (int32_t)divide(forecast[h][k][i], MEMBERS);
            read_out(forecast[h][k], by.level[k], by.spread[k]);
        }
    }
    return ${NAME}_OK;
}
