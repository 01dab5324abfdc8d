#define CAROUSEL_NS avx2
#include "step.inc"
