#define CAROUSEL_NS avx512
#include "step.inc"
