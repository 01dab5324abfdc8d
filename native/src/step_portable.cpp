#define CAROUSEL_NS portable
#include "step.inc"
