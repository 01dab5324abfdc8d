#define CAROUSEL_NS portable
#include "forecast_loss.inc"
