/* The bits of a float as an integer and back, without breaking the aliasing rules. */
static float from_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* exp(x) = 2^n (1 + p) with p = exp(r) - 1, |r| <= ln(2) / 2. */
static float split_exp(float x, float *p)
{
    int32_t n;
    float r, r2;
    x = x > 88.0f ? 88.0f : x < -87.0f ? -87.0f : x;
    n = (int32_t)(x * 1.44269504f + (x < 0.0f ? -0.5f : 0.5f));
    r = (x - (float)n * 0.693145752f) + (float)n * -1.42860677e-6f;
    r2 = r * r;
    *p = r + r2 * (((r * 1.9875691500e-4f + 1.3981999507e-3f) * r2 + (r * 8.3334519073e-3f + 4.1665795894e-2f)) * r2
                   + (r * 1.6666665459e-1f + 5.0000001201e-1f));
    return from_bits((uint32_t)(n + 127) << 23);
}

/* Largest error, relative, between -87 and 88 (clamped beyond): ${error_exp}. */
static float exp_of(float x)
{
    float p, power = split_exp(x, &p);
    return power + power * p;
}

/* Largest error, absolute: ${error_sigmoid}. */
static float sigmoid_of(float x)
{
    return 1.0f / (1.0f + exp_of(-x));
}

/* expm1(2x) / (expm1(2x) + 2), which stays accurate near zero. Largest error, absolute: ${error_tanh}. */
static float tanh_of(float x)
{
    float p, power, m;
    x = x > 10.0f ? 10.0f : x < -10.0f ? -10.0f : x;
    power = split_exp(x + x, &p);
    m = power * p + (power - 1.0f);
    return m / (m + 2.0f);
}
//@ if logarithm

/* Natural logarithm of a positive, normal number; largest error, relative: 1e-15. */
static double log_of(double x)
{
    uint64_t bits;
    int32_t n;
    double f, s, sum = 0.0;
    int k;
    memcpy(&bits, &x, sizeof bits);
    n = (int32_t)(bits >> 52) - 1023;
    bits = (bits & 0xfffffffffffffULL) | 0x3ff0000000000000ULL;
    memcpy(&x, &bits, sizeof x);
    if (x > 1.4142135623730951) {
        x *= 0.5;
        n++;
    }
    f = (x - 1.0) / (x + 1.0);
    s = f * f;
    for (k = 21; k > 0; k -= 2) sum = sum * s + 2.0 / k;
    return (double)n * 0.69314718055994531 + f * sum;
}
//@ end
//@ if softplus

/* log(1 + exp(x)) */
static float softplus_of(float x)
{
    return (x > 0.0f ? x : 0.0f) + (float)log_of(1.0 + (double)exp_of(x > 0.0f ? -x : x));
}
//@ end
//@ if square_root

/* Newton's method from above; the argument is positive. */
static float root_of(float x)
{
    double root = (double)x > 1.0 ? (double)x : 1.0, next;
    for (;;) {
        next = 0.5 * (root + (double)x / root);
        if (next >= root) return (float)root;
        root = next;
    }
}
//@ end
