#include "dispatch.h"

#include "step.h"

#ifdef CAROUSEL_X86
#include <cpuid.h>
#endif
#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <cstdlib>
#include <stdexcept>
#include <string>

namespace carousel {

namespace portable {
extern const Kernels kernels[3];
extern const StepKernels step_table;
}  // namespace portable
#ifdef CAROUSEL_X86
namespace avx2 {
extern const Kernels kernels[3];
extern const StepKernels step_table;
}  // namespace avx2
namespace avx512 {
extern const Kernels kernels[3];
extern const StepKernels step_table;
}  // namespace avx512
namespace vnni {
extern const StepKernels step_table;
}
namespace amx {
extern const Kernels kernels[1];
extern const StepKernels step_table;
}  // namespace amx
#endif

namespace {

struct Isa {
    const char* name;
    const Kernels* kernels;  // of float, double and bfloat16
    const Kernels* bf16;     // where these come from elsewhere
    const StepKernels* steps;
    bool runs;
};

#ifdef CAROUSEL_X86
// The tiles' state is large, so Linux gives it only to processes that ask.
bool has_amx() {
#ifdef __linux__
    unsigned a = 0, b = 0, c = 0, d = 0, leaf = 0;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
    const bool tiles = d >> 24 & 1, in_bf16 = d >> 22 & 1, in_int8 = d >> 25 & 1;
    if (!__get_cpuid_count(7, 1, &leaf, &b, &c, &d)) return false;
    const bool avx512_bf16 = leaf >> 5 & 1;
    constexpr long request_permission = 0x1023, tile_data = 18;
    return tiles && in_bf16 && in_int8 && avx512_bf16 && syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
#else
    return false;
#endif
}
#endif

struct Isas {
    Isa list[8];
    int count;
};

Isas known() {
    Isas found{};
    const auto add = [&](const char* name, const Kernels* kernels, const Kernels* bf16, const StepKernels* steps,
                         bool runs) { found.list[found.count++] = {name, kernels, bf16, steps, runs}; };
#ifdef CAROUSEL_X86
    __builtin_cpu_init();
    const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                        __builtin_cpu_supports("fma");
    const StepKernels* steps = __builtin_cpu_supports("avx512vnni") ? &vnni::step_table : &avx512::step_table;
    add("amx", avx512::kernels, amx::kernels, &amx::step_table, avx512 && has_amx());
    add("avx512", avx512::kernels, nullptr, steps, avx512);
    add("avx2", avx2::kernels, nullptr, &avx2::step_table,
        __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"));
#endif
    add("portable", portable::kernels, nullptr, &portable::step_table, true);
    return found;
}

Isa choose() {
    const Isas isas = known();
    const char* forced = std::getenv("CAROUSEL_ISA");
    std::string names;
    for (int k = 0; k < isas.count; ++k) {
        const Isa& isa = isas.list[k];
        if (isa.runs && (!forced || !*forced || forced == std::string(isa.name))) return isa;
        if (isa.runs) names += (names.empty() ? "" : ", ") + std::string(isa.name);
    }
    throw std::invalid_argument("CAROUSEL_ISA=" + std::string(forced) + " is not an instruction set of this machine; " +
                                "choose one of: " + names + ", or unset it");
}

const Isa& chosen() {
    static const Isa isa = choose();
    return isa;
}

}  // namespace

const Kernels& kernels_for(Type type) {
    const Isa& isa = chosen();
    return type == Type::bf16 && isa.bf16 ? *isa.bf16 : isa.kernels[static_cast<int>(type)];
}

const StepKernels& step_kernels() { return *chosen().steps; }

const char* instruction_set() { return chosen().name; }

}  // namespace carousel
