#define CAROUSEL_NS avx512
#include "forecast_loss.inc"
