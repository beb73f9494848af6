/* kernels.cu as a library for the CPU: see cuda_on_cpu.h. */
#include "cuda_on_cpu.h"

#include "../../edged/offload/kernels.cu"

typedef void Kernel(const u32 *, const u32 *, const u32 *, u32 *, u32, u32, u32, u32, u32, u32, u32, u32, u32, u32,
                    u32);

/* 0, or 1 where there is no such kernel. shape: the eleven numbers, as the kernels take them. */
extern "C" int run_kernel(const char *name, u32 threads, u32 wide, u32 high, u32 processors, const u32 *w, const u32 *x,
                          const u32 *u, u32 *y, const u32 *shape) {
    static const struct { const char *name; Kernel *kernel; } known[] = {
        {"direct", direct}, {"dots", dots}, {"tensor", tensor}, {"deep", deep}};
    const u32 *s = shape;
    for (const auto &one : known)
        if (strcmp(one.name, name) == 0) {
            Kernel *kernel = one.kernel;
            cpu::launch(wide, high, threads, processors, [=] {
                kernel(w, x, u, y, s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7], s[8], s[9], s[10]);
            });
            return 0;
        }
    return 1;
}
