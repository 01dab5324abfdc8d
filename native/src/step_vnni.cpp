#define CAROUSEL_NS vnni
#include "step.inc"
