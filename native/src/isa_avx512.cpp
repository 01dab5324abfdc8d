#define CAROUSEL_NS avx512
#include "kernels.inc"
