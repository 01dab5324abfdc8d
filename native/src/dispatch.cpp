#include "dispatch.h"

#include <cstdlib>
#include <stdexcept>
#include <string>

namespace carousel {

namespace portable {
extern const Kernels kernels[3];
}
#ifdef CAROUSEL_X86
namespace avx2 {
extern const Kernels kernels[3];
}
namespace avx512 {
extern const Kernels kernels[3];
}
#endif

namespace {

struct Isa {
    const char* name;
    const Kernels* kernels;
    bool runs;
};

struct Isas {
    Isa list[8];
    int count;
};

Isas known() {
    Isas found{};
    const auto add = [&](const char* name, const Kernels* kernels, bool runs) {
        found.list[found.count++] = {name, kernels, runs};
    };
#ifdef CAROUSEL_X86
    __builtin_cpu_init();
    add("avx512", avx512::kernels,
        __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
            __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("fma"));
    add("avx2", avx2::kernels, __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"));
#endif
    add("portable", portable::kernels, true);
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

const Kernels& kernels_for(Type type) { return chosen().kernels[static_cast<int>(type)]; }

const char* instruction_set() { return chosen().name; }

}  // namespace carousel
