#pragma once

#include <nanobind/nanobind.h>

void bind_conv(nanobind::module_& m);
