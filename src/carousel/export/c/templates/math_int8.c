/* Functions that are called from many places and are not copied into them: a KB of flash. */
#if defined(__GNUC__)
#define APART __attribute__((noinline))
#else
#define APART
#endif

/* Numbers of f fraction bits: x stands for x / 2^f. Shifts round to the nearest; what does not fit is held at the limit. */
static APART int64_t sat(int64_t x, int64_t limit)
{
    return x > limit ? limit : x < -limit ? -limit : x;
}

/* Whether a shift to the right keeps the sign is left to compilers; all that are known do. */
static int64_t down(int64_t x, int shift)
{
#if (-1 >> 1) == -1
    return x >> shift;
#else
    return x >= 0 ? x >> shift : ~(~x >> shift);
#endif
}

static APART int64_t rounded(int64_t x, int shift)
{
    return shift ? down(x + ((int64_t)1 << (shift - 1)), shift) : x;
}

static int16_t to16(int64_t x, int shift)
{
    return (int16_t)sat(rounded(x, shift), 32767);
}
//@ if tables

/* Linear interpolation in a table; `at` has `bits` fraction bits. */
static int32_t between(const uint16_t *table, uint32_t at, int bits)
{
    int32_t low = table[at >> bits], high = table[(at >> bits) + 1];
    return low + (int32_t)rounded((int64_t)(high - low) * (int32_t)(at & (((uint32_t)1 << bits) - 1)), bits);
}
//@ end

/* Of z with 13 fraction bits, 16 of its own: 0 to 65536; largest error 5e-5. */
static int32_t sigmoid16(int32_t z)
{
    uint32_t a = (uint32_t)(z < 0 ? -z : z);
    int32_t v = a >= 12u << 13 ? SIGMOID[192] : between(SIGMOID, a, 9);
    return z < 0 ? 65536 - v : v;
}

/* Of z with 13 fraction bits, 15 of its own; largest error 1e-4. */
static int32_t tanh15(int32_t z)
{
    return sigmoid16(2 * z) - 32768;
}
//@ if division

/* a / b to the nearest, b > 0. */
static int64_t divide(int64_t a, int64_t b)
{
    int64_t twice = 2 * a + b, found = twice / (2 * b);
    return found - (found * 2 * b > twice);
}
//@ end
//@ if reciprocals

static int bit_length(uint64_t x)
{
    int n = 0;
    while (x) {
        x >>= 1;
        n++;
    }
    return n;
}

/* Division by x, 1 <= x < 2^32, made a product. */
typedef struct {
    int64_t factor;
    int bits;
} reciprocal;

static reciprocal reciprocal_of(int64_t x)
{
    reciprocal by;
    by.bits = bit_length((uint64_t)x);
    by.factor = ((int64_t)1 << 62) / (x << (32 - by.bits));
    return by;
}

/* d / x with `bits` fraction bits, |d| <= 2^31. */
static int32_t quotient(int64_t d, reciprocal by, int bits)
{
    return (int32_t)sat(rounded(d * by.factor, 30 + by.bits - bits), WIDE);
}
//@ end
//@ if root

/* The whole part of the square root. */
static int64_t root_of(int64_t x)
{
    int64_t found = 0;
    int bit;
    for (bit = 30; bit >= 0; bit--) {
        int64_t more = found + ((int64_t)1 << bit);
        if (more * more <= x) found = more;
    }
    return found;
}
//@ end
//@ if exponential

/* 2^-y of y with 16 fraction bits, 15 of its own. */
static int32_t exp2_minus(int64_t y)
{
    return y >= (int64_t)16 << 16 ? 0 : between(EXP2, (uint32_t)y & 65535u, 10) >> (int)(y >> 16);
}
//@ end
//@ if logarithm

/* Base 2, of x >= 1, 16 fraction bits of its own. */
static int32_t log2_of(uint64_t x)
{
    int n = bit_length(x) - 1;
    uint32_t f = (uint32_t)(n >= 16 ? x >> (n - 16) : x << (16 - n)) & 65535u;
    return n * 65536 + between(LOG2, f, 10);
}
//@ end
//@ if softplus

/* log(1 + exp(x)) of x with 16 fraction bits, 16 of its own. */
static int32_t softplus16(int32_t x)
{
    uint32_t a = (uint32_t)(x < 0 ? -x : x);
    return (x > 0 ? x : 0) + (a >= 12u << 16 ? 0 : between(LOG1P_EXP, a, 12));
}
//@ end
