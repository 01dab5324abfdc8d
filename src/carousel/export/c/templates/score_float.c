static double not_observed(void)
{
    uint64_t bits = 0x7ff8000000000000ULL;
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Newton's method from above. */
static double square_root(double x)
{
    double root = x > 1.0 ? x : 1.0, next;
    if (!(x > 0.0)) return 0.0;
    for (;;) {
        next = 0.5 * (root + x / root);
        if (next >= root) return root;
        root = next;
    }
}

/* Means of what is observed in the last rows [SCORED], NaN without any, and how many. */
static void means_of(const ${name}_state *s, const view *v, double *mean, int *known)
{
    int k, back;
    for (k = 0; k < SCORED; k++) {
        double sum = 0.0;
        known[k] = 0;
        for (back = v->rows - 1; back >= 0; back--) {
            uint32_t gone = (uint32_t)back;
            double x = v->of_values ? s->value[(s->value_at + VALUE_ROWS - gone) % VALUE_ROWS][k]
                                    : s->error[(s->error_at + ERROR_ROWS - gone) % ERROR_ROWS][k];
            if (s->rows <= gone || is_nan(x)) continue;
            sum += x;
            known[k]++;
        }
        mean[k] = known[k] ? sum / known[k] : not_observed();
    }
}

/* Mahalanobis' distance of the means by the correlations of what is observed, and the columns' parts in it; NaN where
 * nothing is. A mean of fewer rows counts less. */
static double distance_of(const view *v, const double *mean, const int *known, double *part)
{
    double factor[SCORED][SCORED], d[SCORED], x[SCORED], total = 0.0;
    int seen[SCORED], n = 0, i, j, k;
    for (k = 0; k < SCORED; k++) {
        part[k] = 0.0;
        if (!known[k]) continue;
        d[n] = (mean[k] - v->centre[k]) / v->spread[k] * square_root((double)known[k] / v->rows);
        seen[n++] = k;
    }
    if (!n) return not_observed();
    for (i = 0; i < n; i++) { /* the correlations as L D L', then x = their inverse times d */
        for (j = 0; j <= i; j++) {
            double sum = v->correlation[seen[i] * SCORED + seen[j]];
            for (k = 0; k < j; k++) sum -= factor[i][k] * factor[j][k] * factor[k][k];
            factor[i][j] = i == j ? sum : sum / factor[j][j];
        }
        x[i] = d[i];
        for (k = 0; k < i; k++) x[i] -= factor[i][k] * x[k];
    }
    for (i = 0; i < n; i++) x[i] /= factor[i][i];
    for (i = n - 1; i >= 0; i--)
        for (k = i + 1; k < n; k++) x[i] -= factor[k][i] * x[k];
    for (i = 0; i < n; i++) {
        double own = d[i] * x[i];
        total += own;
        part[seen[i]] = own > 0.0 ? own : 0.0;
    }
    return square_root(total / n);
}
//@ if history

/* How far means of full windows lie from the middle of the range so far, in units of half of it. */
static double beyond_range(${name}_state *s, int i, const double *mean, const int *known, double *part)
{
    double score = 0.0;
    int k;
    for (k = 0; k < SCORED; k++) {
        double half = (s->high[i][k] - s->low[i][k]) / 2.0, away;
        part[k] = 0.0;
        if (known[k] != VIEW[i].rows) continue;
        away = mean[k] - (s->low[i][k] + half);
        away = away < 0.0 ? -away : away;
        away = half > 0.0 ? away / half : mean[k] < s->low[i][k] || mean[k] > s->low[i][k] ? 2.0 : 0.0;
        if (away > score) score = away;
        if (away > 1.0) part[k] = away - 1.0;
        if (mean[k] < s->low[i][k]) s->low[i][k] = mean[k];
        if (mean[k] > s->high[i][k]) s->high[i][k] = mean[k];
    }
    return score;
}
//@ end
//@ if rest

/* After a score only higher ones stand for REST rows; the others count as 1 at most. */
static double rested(${name}_state *s, double score)
{
    if (score > s->held) {
        s->held = score;
        s->left = REST;
        return score;
    }
    if (s->left > 0) s->left--;
    if (!s->left) s->held = 1.0;
    return score < 1.0 ? score : 1.0;
}
//@ end

/* The score of the row by the forecast of the row before, then the forecast of the next from the outputs y. */
static void read_out(${name}_state *s, const ${name}_row *row, const double *y, double *answer)
{
    double best = 0.0, mean[SCORED], part[SCORED];
    int known[SCORED], any = 0, i, k;
    s->error_at = (s->error_at + 1) % ERROR_ROWS;
    s->value_at = (s->value_at + 1) % VALUE_ROWS;
    for (k = 0; k < SCORED; k++) {
        double raw = row->number[SCORED_COLUMN[k]], now = scaled(raw, &ROW_COLUMN[SCORED_COLUMN[k]]);
        s->error[s->error_at][k] = s->rows > 1 ? (now - s->mean[k]) / s->scale[k] : not_observed();
        s->value[s->value_at][k] = raw;
        any |= !is_nan(raw);
        answer[2 + k] = 0.0;
    }
    for (i = 0; i < VIEWS; i++) {
        double score;
        means_of(s, &VIEW[i], mean, known);
//@ if history
        if (VIEW[i].of_values) {
            score = beyond_range(s, i, mean, known, part);
        } else {
            double distance = distance_of(&VIEW[i], mean, known, part);
            score = distance / s->largest[i];
            if (distance > s->largest[i]) s->largest[i] = distance;
        }
//@ else
        score = distance_of(&VIEW[i], mean, known, part) / VIEW[i].limit;
//@ end
        if (score > best) {
            best = score;
            memcpy(answer + 2, part, sizeof part);
        }
    }
//@ if rest
    best = rested(s, best);
//@ end
    answer[0] = any ? best : not_observed();
    answer[1] = any && best >= ${NAME}_THRESHOLD ? 1.0 : 0.0;
    for (k = 0; k < SCORED; k++) {
        float raw = (float)y[SCORED + k];
        double size = (double)softplus_of(raw) + 0.01;
        s->mean[k] = s->last[SCORED_COLUMN[k]] * KEPT[k] + y[k];
        s->scale[k] = size > FLOOR[k] ? size : FLOOR[k];
    }
}
