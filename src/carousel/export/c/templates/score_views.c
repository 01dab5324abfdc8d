
/* One way to look at rows: the mean over the last `rows` of them, of the forecast's errors or of the values. */
typedef struct {
    int rows, of_values;
    double limit, largest;
    const double *centre, *spread, *low, *high; /* [SCORED] */
    const double *correlation;                  /* [SCORED][SCORED] */
} view;

${view_table}
