#define CAROUSEL_NS avx2
#include "kernels.inc"
