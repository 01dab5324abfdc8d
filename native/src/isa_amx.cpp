#define CAROUSEL_NS amx
#include "kernels.inc"
