#define CAROUSEL_NS avx2
#include "forecast_loss.inc"
