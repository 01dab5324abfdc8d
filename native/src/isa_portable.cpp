#define CAROUSEL_NS portable
#include "kernels.inc"
