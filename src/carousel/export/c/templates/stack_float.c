/* One layer: rows of the gates in the order ${gate_names}; every pointer is a constant in flash. */
typedef struct {
    int inputs;
    const float *ih;     /* [GATES * HIDDEN][inputs] */
    const float *hh;     /* [GATES * HIDDEN][OUTPUT] */
//@ if bias
    const float *bias;   /* [GATES * HIDDEN] */
//@ end
//@ if projection
    const float *hr;     /* [OUTPUT][HIDDEN] */
//@ end
//@ if peephole
    const float *ch;     /* [GATES - 1][HIDDEN], the candidate has none */
//@ end
//@ if layer_norm
    const float *norm_ih, *norm_hh; /* [GATES * HIDDEN] */
    const float *norm_c; /* [HIDDEN] */
//@ if bias
    const float *norm_bias_c; /* [HIDDEN] */
//@ end
//@ end
//@ if decay
    const float *rate;   /* [HIDDEN], 1 / unit of elapsed time */
//@ end
} layer;

/* Four sums, in this order on every machine: less rounding than one, and no waiting for the sum before. */
static float dot(const float *a, const float *b, int n)
{
    float s0 = 0.0f, s1 = 0.0f, s2 = 0.0f, s3 = 0.0f;
    int i;
    for (i = 0; i + 3 < n; i += 4) {
        s0 += a[i] * b[i];
        s1 += a[i + 1] * b[i + 1];
        s2 += a[i + 2] * b[i + 2];
        s3 += a[i + 3] * b[i + 3];
    }
    for (; i < n; i++) s0 += a[i] * b[i];
    return (s0 + s1) + (s2 + s3);
}

/* y = W x + b of W [rows][n]; b may be absent. */
static void affine(const float *w, const float *b, const float *x, int rows, int n, float *y)
{
    int r;
    for (r = 0; r < rows; r++) y[r] = dot(w + r * n, x, n) + (b ? b[r] : 0.0f);
}
//@ if layer_norm

static void normalise(float *z, int n)
{
    float mean = 0.0f, square = 0.0f, scale;
    int i;
    for (i = 0; i < n; i++) mean += z[i];
    mean /= (float)n;
    for (i = 0; i < n; i++) {
        z[i] -= mean;
        square += z[i] * z[i];
    }
    scale = 1.0f / root_of(square / (float)n + 1e-5f);
    for (i = 0; i < n; i++) z[i] *= scale;
}
//@ end

/* One step of one layer; x is [inputs], h [OUTPUT] and c [HIDDEN] are replaced. */
static void layer_step(const layer *w, const float *x, float *h, float *c, float elapsed)
{
    float z[GATES * HIDDEN], r[GATES * HIDDEN];
//@ if projection
    float wide[HIDDEN];
//@ end
//@ if layer_norm
    float exposed[HIDDEN];
//@ end
    int j;
//@ if not decay
    (void)elapsed;
//@ end
    affine(w->ih, 0, x, GATES * HIDDEN, w->inputs, z);
    affine(w->hh, 0, h, GATES * HIDDEN, OUTPUT, r);
//@ if layer_norm
    normalise(z, GATES * HIDDEN);
    normalise(r, GATES * HIDDEN);
    for (j = 0; j < GATES * HIDDEN; j++) z[j] = z[j] * w->norm_ih[j] + r[j] * w->norm_hh[j];
//@ else
    for (j = 0; j < GATES * HIDDEN; j++) z[j] += r[j];
//@ end
//@ if bias
    for (j = 0; j < GATES * HIDDEN; j++) z[j] += w->bias[j];
//@ end
    for (j = 0; j < HIDDEN; j++) {
        float old = c[j], forget, input, fresh;
//@ if decay
        old *= exp_of(-elapsed * w->rate[j]);
//@ end
//@ if peephole
        forget = sigmoid_of(z[FORGET * HIDDEN + j] + w->ch[FORGET * HIDDEN + j] * old);
//@ else
        forget = sigmoid_of(z[FORGET * HIDDEN + j]);
//@ end
//@ if coupled
        input = 1.0f - forget;
//@ else
//@ if peephole
        input = sigmoid_of(z[j] + w->ch[j] * old);
//@ else
        input = sigmoid_of(z[j]);
//@ end
//@ end
        fresh = forget * old + input * tanh_of(z[CANDIDATE * HIDDEN + j]);
//@ if cell_clip
        fresh = fresh > CELL_CLIP ? CELL_CLIP : fresh < -CELL_CLIP ? -CELL_CLIP : fresh;
//@ end
        /* the place of the candidate now holds the new cell state, that of the forget gate the old one */
        z[CANDIDATE * HIDDEN + j] = fresh;
        z[FORGET * HIDDEN + j] = old;
    }
//@ if layer_norm
    for (j = 0; j < HIDDEN; j++) exposed[j] = z[CANDIDATE * HIDDEN + j];
    normalise(exposed, HIDDEN);
//@ if bias
    for (j = 0; j < HIDDEN; j++) exposed[j] = exposed[j] * w->norm_c[j] + w->norm_bias_c[j];
//@ else
    for (j = 0; j < HIDDEN; j++) exposed[j] *= w->norm_c[j];
//@ end
//@ end
    for (j = 0; j < HIDDEN; j++) {
        float fresh = z[CANDIDATE * HIDDEN + j], out;
//@ if peephole
        out = sigmoid_of(z[OUT * HIDDEN + j] + w->ch[(OUT - 1) * HIDDEN + j] * fresh);
//@ else
        out = sigmoid_of(z[OUT * HIDDEN + j]);
//@ end
//@ if layer_norm
        out *= tanh_of(exposed[j]);
//@ else
        out *= tanh_of(fresh);
//@ end
//@ if zoneout_c
        fresh = ZONEOUT_C * z[FORGET * HIDDEN + j] + (1.0f - ZONEOUT_C) * fresh;
//@ end
        c[j] = fresh;
//@ if projection
        wide[j] = out;
//@ else
//@ if zoneout_h
        h[j] = ZONEOUT_H * h[j] + (1.0f - ZONEOUT_H) * out;
//@ else
        h[j] = out;
//@ end
//@ end
    }
//@ if projection
    for (j = 0; j < OUTPUT; j++) {
        float out = dot(w->hr + j * HIDDEN, wide, HIDDEN);
//@ if zoneout_h
        h[j] = ZONEOUT_H * h[j] + (1.0f - ZONEOUT_H) * out;
//@ else
        h[j] = out;
//@ end
    }
//@ end
}
