/*
 * kernel_select.c - which set of kernels this machine runs. A port that links a
 * faster set adds it here; kernel_portable is exact everywhere and stays last.
 */
#include <stddef.h>

#include "kernel.h"

extern const struct kernel kernel_portable;
#ifdef EDGED_KERNEL_X86
extern const struct kernel kernel_avx2, kernel_avx512;
#endif

const struct kernel *kernel_at(uint32_t index) {
    const struct kernel *sets[3];
    uint32_t n = 0;

#ifdef EDGED_KERNEL_X86
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        sets[n++] = &kernel_avx512;
    if (__builtin_cpu_supports("avx2"))
        sets[n++] = &kernel_avx2;
#endif
    sets[n++] = &kernel_portable;
    return index < n ? sets[index] : NULL;
}

const struct kernel *kernel_select(void) {
    return kernel_at(0);
}
