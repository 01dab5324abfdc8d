#pragma once

#include <nanobind/nanobind.h>

void bind_forecasts(nanobind::module_& m);
