
/* sin(2 pi x) for 0 <= x < 1; largest error 1e-15. */
static double sine_of_turn(double x)
{
    double sign = 1.0, s, sum = 0.0;
    int k;
    if (x >= 0.5) {
        x -= 0.5;
        sign = -1.0;
    }
    if (x > 0.25) x = 0.5 - x;
    x *= 6.283185307179586;
    s = x * x;
    for (k = 22; k > 1; k -= 2) sum = (1.0 - sum) * s / (double)(k * (k + 1));
    return sign * x * (1.0 - sum);
}

/* Days since 1970-01-01 of the first day of a month counted from January 1970 (proleptic Gregorian calendar). */
static int64_t month_start(int64_t months)
{
    int64_t year = 1970 + (months >= 0 ? months / 12 : -((11 - months) / 12)), month = months - (year - 1970) * 12;
    int64_t y = month < 2 ? year - 1 : year, era = (y >= 0 ? y : y - 399) / 400, of_era = y - era * 400;
    int64_t day = (153 * ((month + 10) % 12) + 2) / 5;
    return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + day - 719468;
}

static int64_t floor_of(double x)
{
    int64_t whole = (int64_t)x;
    return whole - ((double)whole > x);
}

/* Months since January 1970 of a day. */
static int64_t month_of(int64_t day)
{
    int64_t guess = day * 12 / 365 + 3;
    while (month_start(guess) > day) guess--;
    return guess;
}

static float *turn(float *x, double at, double period)
{
    double share = at / period, quarter;
    share -= (double)floor_of(share);
    if (share >= 1.0) share = 0.0;
    quarter = share + 0.25;
    *x++ = (float)sine_of_turn(share);
    *x++ = (float)sine_of_turn(quarter >= 1.0 ? quarter - 1.0 : quarter);
    return x;
}

static float *calendar_of(float *x, double time)
{
    int64_t month = month_of(floor_of(time / 86400.0));
    (void)month;
${calendar_lines}
    return x;
}
//@ if ahead_times

/* The time of a step ahead, where the clock of the wall is not changed in between. */
static double time_ahead(double time, int steps)
{
//@ if grid_even
    return time + steps * STEP_OF_CLOCK;
//@ end
//@ if grid_business
    int64_t day = floor_of(time / 86400.0), later = day;
    for (steps *= ${grid_step}; steps > 0; steps--) {
        int64_t weekday = ((later + 3) % 7 + 7) % 7; /* 0 is Monday */
        later += weekday == 4 ? 3 : weekday == 5 ? 2 : 1;
    }
    return time + (double)(later - day) * 86400.0;
//@ end
//@ if grid_month
    int64_t month = month_of(floor_of(time / 86400.0)), later = month + steps * ${grid_step};
//@ if grid_month_end
    month++;
    later++;
//@ end
    return time + (double)(month_start(later) - month_start(month)) * 86400.0;
//@ end
}
//@ end
