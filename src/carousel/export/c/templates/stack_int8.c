/* y = W x + b: 8-bit weights with a factor for each row; x and y have the fraction bits that `shift` allows for. */
typedef struct {
    const int8_t *w;         /* [rows][n] */
    const uint16_t *factor;  /* [rows] */
    const int16_t *bias;     /* [rows], null: none */
    int8_t shift, bias_shift;
} matrix;

typedef struct {
    int inputs;
    matrix ih, hh; /* [GATES * HIDDEN][inputs] and [GATES * HIDDEN][OUTPUT], gates in the order ${gate_names} */
    int8_t cell_bits, out_bits; /* fraction bits of c and h */
//@ if projection
    matrix hr;
//@ end
//@ if peephole
    const int16_t *ch; /* [GATES - 1][HIDDEN] */
    int8_t peephole_shift;
//@ end
//@ if layer_norm
    const int16_t *norm_ih, *norm_hh, *norm_c; /* 12 fraction bits */
    const int16_t *bias, *norm_bias_c;         /* of 10 fraction bits, null: none */
//@ end
//@ if decay
    const uint32_t *rate; /* [HIDDEN], in powers of one half for a unit of elapsed time; 24 fraction bits */
//@ end
} layer;

/* Of row r; the result is held at 2^30. */
static int32_t row_of(const matrix *a, int r, const int16_t *x, int n)
{
    const int8_t *w = a->w + r * n;
    sum_of_products sum = 0;
    int64_t y;
    int i;
    for (i = 0; i < n; i++) sum += w[i] * x[i];
    y = rounded((int64_t)sum * a->factor[r], a->shift);
    if (a->bias) y += (int64_t)a->bias[r] * ((int64_t)1 << a->bias_shift);
    return (int32_t)sat(y, WIDE);
}
//@ if layer_norm

/* z [n] to mean 0 and variance 1, 13 fraction bits; `bits` are those of z. */
static void normalise(int32_t *z, int n, int bits)
{
    int64_t sum = 0, square = 0, mean;
    reciprocal by;
    int i;
    for (i = 0; i < n; i++) sum += z[i];
    mean = divide(sum, n);
    for (i = 0; i < n; i++) {
        z[i] = (int32_t)sat(z[i] - mean, 1 << 22);
        square += (int64_t)z[i] * z[i];
    }
    square = divide(square, n) + (((int64_t)1 << (2 * bits)) * 10 + 500000) / 1000000;
    by = reciprocal_of(root_of(square * 65536) + 1); /* with 8 more fraction bits than z */
    for (i = 0; i < n; i++) z[i] = quotient(z[i], by, 21);
}
//@ end
//@ if requantises

/* A change of fraction bits. */
static int32_t requantised(int32_t x, int from, int to)
{
    return from >= to ? (int32_t)rounded(x, from - to) : x * ((int32_t)1 << (to - from));
}
//@ end
//@ if decay

static int16_t faded(int16_t c, uint32_t rate, int32_t elapsed)
{
    return to16((int64_t)c * exp2_minus(rounded((int64_t)rate * elapsed, 24)), 15);
}
//@ end

/* One step of one layer: x [inputs], h [OUTPUT] and c [HIDDEN] are replaced; elapsed has 16 fraction bits. */
static void layer_step(const layer *w, const int16_t *x, int16_t *h, int16_t *c, int32_t elapsed)
{
    int16_t wide[HIDDEN];
    int bits = w->cell_bits, j;
//@ if layer_norm
    int32_t z[GATES * HIDDEN], r[GATES * HIDDEN], exposed[HIDDEN];
    for (j = 0; j < GATES * HIDDEN; j++) {
        z[j] = row_of(&w->ih, j, x, w->inputs);
        r[j] = row_of(&w->hh, j, h, OUTPUT);
    }
    normalise(z, GATES * HIDDEN, 13);
    normalise(r, GATES * HIDDEN, 13);
    for (j = 0; j < GATES * HIDDEN; j++) {
        int64_t sum = rounded((int64_t)z[j] * w->norm_ih[j], 12) + rounded((int64_t)r[j] * w->norm_hh[j], 12);
        if (w->bias) sum += w->bias[j] * 8;
        z[j] = (int32_t)sat(sum, 1 << 20);
    }
//@ end
//@ if not decay
    (void)elapsed;
//@ end
    for (j = 0; j < HIDDEN; j++) {
        int32_t old = c[j], forget, input, fresh, z_forget, z_candidate;
//@ if not coupled
        int32_t z_input;
//@ end
//@ if not layer_norm
        int32_t z_out;
//@ end
//@ if decay
        old = c[j] = faded(c[j], w->rate[j], elapsed);
//@ end
//@ if layer_norm
        z_forget = z[FORGET * HIDDEN + j];
        z_candidate = z[CANDIDATE * HIDDEN + j];
//@ if not coupled
        z_input = z[j];
//@ end
//@ else
        z_forget = GATE(FORGET);
        z_candidate = GATE(CANDIDATE);
        z_out = GATE(OUT);
//@ if not coupled
        z_input = GATE(0);
//@ end
//@ end
//@ if peephole
        z_forget += (int32_t)rounded(w->ch[FORGET * HIDDEN + j] * old, w->peephole_shift);
//@ if not coupled
        z_input += (int32_t)rounded(w->ch[j] * old, w->peephole_shift);
//@ end
//@ end
        forget = (sigmoid16(z_forget) + 1) >> 1;
//@ if coupled
        input = 32768 - forget;
//@ else
        input = (sigmoid16(z_input) + 1) >> 1;
//@ end
        fresh = to16((int64_t)forget * old + rounded((int64_t)input * tanh15(z_candidate), 15 - bits), 15);
//@ if cell_clip
        fresh = (int32_t)sat(fresh, CELL_CLIP >> (15 - bits));
//@ end
//@ if layer_norm
        exposed[j] = fresh;
        z[FORGET * HIDDEN + j] = old;
        z[CANDIDATE * HIDDEN + j] = fresh;
    }
    normalise(exposed, HIDDEN, bits);
    for (j = 0; j < HIDDEN; j++) {
        int32_t old = z[FORGET * HIDDEN + j], fresh = z[CANDIDATE * HIDDEN + j], z_out = z[OUT * HIDDEN + j], shown;
        shown = (int32_t)rounded((int64_t)exposed[j] * w->norm_c[j], 12);
        if (w->norm_bias_c) shown += w->norm_bias_c[j] * 8;
        shown = (int32_t)sat(shown, 1 << 20);
//@ end
//@ if peephole
        z_out += (int32_t)rounded(w->ch[(OUT - 1) * HIDDEN + j] * fresh, w->peephole_shift);
//@ end
//@ if layer_norm
        wide[j] = to16((int64_t)((sigmoid16(z_out) + 1) >> 1) * tanh15(shown), 15);
//@ else
        wide[j] = to16((int64_t)((sigmoid16(z_out) + 1) >> 1) * tanh15(requantised(fresh, bits, 13)), 15);
//@ end
//@ if zoneout_c
        fresh = (int32_t)rounded(ZONEOUT_C * old + (32768 - ZONEOUT_C) * fresh, 15);
//@ end
        (void)old;
        c[j] = (int16_t)fresh;
    }
    for (j = 0; j < OUTPUT; j++) {
//@ if projection
        int32_t out = to16(row_of(&w->hr, j, wide, HIDDEN), 0);
//@ else
        int32_t out = requantised(wide[j], 15, w->out_bits);
//@ end
//@ if zoneout_h
        out = (int32_t)rounded(ZONEOUT_H * h[j] + (32768 - ZONEOUT_H) * out, 15);
//@ end
        h[j] = (int16_t)out;
    }
}
