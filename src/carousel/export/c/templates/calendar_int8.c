
/* sin(2 pi turn / 65536), 15 fraction bits. */
static int32_t sine15(uint32_t turn)
{
    uint32_t half = turn & 32767u, at = half > 16384u ? 32768u - half : half;
    int32_t low = SINE[at >> 8], high = SINE[(at >> 8) + (at < 16384u)];
    int32_t v = low + (int32_t)rounded((high - low) * (int32_t)(at & 255u), 8);
    return turn & 32768u ? -v : v;
}

/* Days since 1970-01-01 of the first day of a month counted from January 1970 (proleptic Gregorian calendar). */
static int64_t month_start(int64_t months)
{
    int64_t year = 1970 + (months >= 0 ? months / 12 : -((11 - months) / 12)), month = months - (year - 1970) * 12;
    int64_t y = month < 2 ? year - 1 : year, era = (y >= 0 ? y : y - 399) / 400, of_era = y - era * 400;
    int64_t day = (153 * ((month + 10) % 12) + 2) / 5;
    return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + day - 719468;
}

static int64_t day_of(int64_t time)
{
    return time >= 0 ? time / 86400 : -((86399 - time) / 86400);
}

/* Months since January 1970 of a day. */
static int64_t month_of(int64_t day)
{
    int64_t guess = day * 12 / 365 + 3;
    while (month_start(guess) > day) guess--;
    return guess;
}

static int16_t *turn(int16_t *x, int64_t at, int64_t period, int bits)
{
    int64_t inside = at % period;
    uint32_t share = (uint32_t)((inside < 0 ? inside + period : inside) * 65536 / period);
    *x++ = to16(sine15(share), 15 - bits);
    *x++ = to16(sine15((share + 16384u) & 65535u), 15 - bits);
    return x;
}

static int16_t *calendar_of(int16_t *x, int64_t time, int bits)
{
    int64_t month = month_of(day_of(time));
    (void)month;
${calendar_lines}
    return x;
}
//@ if ahead_times

/* The time of a step ahead, where the clock of the wall is not changed in between. */
static int64_t time_ahead(int64_t time, int steps)
{
//@ if grid_even
    return time + (int64_t)steps * ${grid_seconds};
//@ end
//@ if grid_business
    int64_t day = day_of(time), later = day;
    for (steps *= ${grid_step}; steps > 0; steps--) {
        int64_t weekday = ((later + 3) % 7 + 7) % 7; /* 0 is Monday */
        later += weekday == 4 ? 3 : weekday == 5 ? 2 : 1;
    }
    return time + (later - day) * 86400;
//@ end
//@ if grid_month
    int64_t month = month_of(day_of(time)), later = month + steps * ${grid_step};
//@ if grid_month_end
    month++;
    later++;
//@ end
    return time + (month_start(later) - month_start(month)) * 86400;
//@ end
}
//@ end
