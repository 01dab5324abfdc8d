#define CAROUSEL_NS amx
#include "step.inc"
