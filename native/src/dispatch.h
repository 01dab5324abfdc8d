#pragma once

#include "plan.h"

namespace carousel {

// The kernels of the best instruction set that this machine has, or of the one that CAROUSEL_ISA names.
const Kernels& kernels_for(Type type);

}  // namespace carousel
