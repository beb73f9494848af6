/*
 * cuda_on_cpu.h - runs a CUDA kernel on a CPU, unchanged: include this, then the kernel's source.
 *
 * Each thread of a block is a fiber with a stack of its own, switched by hand at barriers; blocks are spread over the
 * machine's threads. It proves the arithmetic, the indices and the barriers' places, not a GPU's memory ordering:
 * between two barriers the fibers run one after the other. A barrier that not all of its threads reach ends the
 * process.
 */
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <thread>
#include <vector>
#ifndef __x86_64__
#include <ucontext.h>
#endif

#define ON_CPU
#define __device__
#define __global__
#define __forceinline__ inline
#define __shared__ static thread_local
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __launch_bounds__(threads)

typedef uint32_t u32;
typedef uint8_t u8;

struct uint4 { u32 x, y, z, w; };
struct dim3 { u32 x, y, z; };

static inline uint4 make_uint4(u32 x, u32 y, u32 z, u32 w) { return uint4{x, y, z, w}; }

namespace cpu {

const u32 WARP = 32, THREADS_MAX = 1024;
const size_t STACK_BYTES = 128 << 10;

/* One lane's fragments, and the row that it names, seen by its warp. */
struct Fragments { u8 left[16], right[8]; const u8 *row; };

struct Barrier { u32 size, waiting, passed; };

struct Block {
    u32 threads, running, live;
    dim3 block;
    std::function<void()> kernel;
    Barrier all, warps[THREADS_MAX / WARP];
    Fragments lanes[THREADS_MAX];
    bool ended[THREADS_MAX];
#ifdef __x86_64__
    void *fibers[THREADS_MAX], *home;
#else
    ucontext_t fibers[THREADS_MAX], home;
#endif
};

static thread_local Block *here;

#ifdef __x86_64__
extern "C" void cpu_switch(void **from, void *to);
asm(".text\n.globl cpu_switch\n.type cpu_switch,@function\ncpu_switch:\n"
    "push %rbx\npush %rbp\npush %r12\npush %r13\npush %r14\npush %r15\n"
    "mov %rsp,(%rdi)\nmov %rsi,%rsp\n"
    "pop %r15\npop %r14\npop %r13\npop %r12\npop %rbp\npop %rbx\nret\n.size cpu_switch,.-cpu_switch\n");
#endif

static void switch_to(u32 next) {
    u32 from = here->running;
    here->running = next;
    if (from == next)
        return;
#ifdef __x86_64__
    cpu_switch(&here->fibers[from], here->fibers[next]);
#else
    swapcontext(&here->fibers[from], &here->fibers[next]);
#endif
}

/* Round and round, among `count` from `first` on. */
static u32 next_live(u32 first, u32 count) {
    u32 next = here->running;
    do
        next = next + 1 == first + count ? first : next + 1;
    while (here->ended[next]);
    return next;
}

/* Of a warp's barrier only the warp is waited for: so warps run as far ahead of each other as they ever may. */
static void wait(Barrier &barrier, u32 first, u32 count) {
    u32 passed = barrier.passed;
    if (++barrier.waiting == barrier.size) {
        barrier.waiting = 0;
        barrier.passed++;
        return;
    }
    for (u32 rounds = 0; barrier.passed == passed; rounds++) {
        if (rounds > 100000) {
            fprintf(stderr, "block %u, %u: a barrier is reached by %u of %u threads\n", here->block.x, here->block.y,
                    barrier.waiting, barrier.size);
            abort();
        }
        switch_to(next_live(first, count));
    }
}

static void fiber() {
    here->kernel();
    u32 self = here->running;
    here->ended[self] = true;
    if (--here->live == 0) {
#ifdef __x86_64__
        cpu_switch(&here->fibers[self], here->home);
#else
        setcontext(&here->home);
#endif
    }
    switch_to(next_live(0, here->threads));
    abort(); /* nobody comes back */
}

static void run_block(Block &block, u8 *stacks) {
    here = &block;
    block.running = 0;
    block.live = block.threads;
    block.all = Barrier{block.threads, 0, 0};
    for (u32 i = 0; i < block.threads; i++) {
        block.ended[i] = false;
        if (i % WARP == 0)
            block.warps[i / WARP] = Barrier{block.threads - i < WARP ? block.threads - i : WARP, 0, 0};
#ifdef __x86_64__
        void **top = reinterpret_cast<void **>(stacks + (i + 1) * STACK_BYTES) - 2;
        *top = reinterpret_cast<void *>(&fiber);
        block.fibers[i] = top - 6;
#else
        getcontext(&block.fibers[i]);
        block.fibers[i].uc_stack.ss_sp = stacks + i * STACK_BYTES;
        block.fibers[i].uc_stack.ss_size = STACK_BYTES;
        makecontext(&block.fibers[i], &fiber, 0);
#endif
    }
#ifdef __x86_64__
    cpu_switch(&block.home, block.fibers[0]);
#else
    swapcontext(&block.home, &block.fibers[0]);
#endif
}

/* All blocks of a grid; `kernel` calls the kernel with its arguments. */
static void launch(u32 wide, u32 high, u32 threads, u32 processors, const std::function<void()> &kernel) {
    std::vector<std::thread> workers;
    for (u32 worker = 0; worker < processors; worker++)
        workers.emplace_back([=] {
            Block *block = new Block();
            u8 *stacks = static_cast<u8 *>(aligned_alloc(64, threads * STACK_BYTES));
            block->threads = threads;
            block->kernel = kernel;
            for (u32 index = worker; index < wide * high; index += processors) {
                block->block = dim3{index % wide, index / wide, 0};
                run_block(*block, stacks);
            }
            free(stacks);
            delete block;
        });
    for (std::thread &worker : workers)
        worker.join();
}

} // namespace cpu

#define threadIdx (dim3{cpu::here->running, 0, 0})
#define blockIdx (cpu::here->block)

static inline void __syncthreads() { cpu::wait(cpu::here->all, 0, cpu::here->threads); }

static inline void __syncwarp() {
    cpu::Barrier &barrier = cpu::here->warps[cpu::here->running / cpu::WARP];
    cpu::wait(barrier, cpu::here->running / cpu::WARP * cpu::WARP, barrier.size);
}

/* The byte of (other, one) that each nibble of `which` names. */
static inline u32 bytes_of(u32 one, u32 other, u32 which) {
    uint64_t both = (uint64_t)other << 32 | one;
    u32 made = 0;
    for (int i = 0; i < 4; i++)
        made |= (u32)(u8)(both >> 8 * (which >> 4 * i & 7)) << 8 * i;
    return made;
}

static inline u32 dot4(u32 one, u32 other, u32 sum) {
    for (int i = 0; i < 32; i += 8)
        sum += (one >> i & 255) * (other >> i & 255);
    return sum;
}

/* Lane l holds half a row of 16: row l / 2, from 8 * (l % 2) on. */
struct Left16 { u8 part[8]; };
struct Right16 { u8 part[8]; };
struct Sum16 { u32 part[8]; };

static inline const u8 *share_of(const u8 *tile) {
    if (reinterpret_cast<uintptr_t>(tile) % 32 != 0) {
        fprintf(stderr, "a fragment that is not aligned to 32 bytes\n");
        abort();
    }
    return tile + 8 * (cpu::here->running % cpu::WARP);
}

static inline void load_left(Left16 &left, const u8 *tile) { memcpy(left.part, share_of(tile), 8); }
static inline void load_right(Right16 &right, const u8 *tile) { memcpy(right.part, share_of(tile), 8); }

static inline void multiply_add(Sum16 &sum, const Left16 &left, const Right16 &right) {
    u32 self = cpu::here->running, lane = self % cpu::WARP;
    cpu::Fragments *warp = cpu::here->lanes + (self - lane);
    memcpy(warp[lane].left, left.part, 8);
    memcpy(warp[lane].right, right.part, 8);
    __syncwarp();
    const cpu::Fragments *row = warp + lane / 2 * 2, *column = warp + lane % 2 * 16;
    for (int i = 0; i < 8; i++) {
        u32 more = 0;
        for (int k = 0; k < 8; k++)
            more += row[0].left[k] * column[2 * i].right[k] + row[1].left[k] * column[2 * i + 1].right[k];
        sum.part[i] += more;
    }
    __syncwarp();
}

static inline void store(u32 *tile, const Sum16 &sum) {
    memcpy(tile + 8 * (cpu::here->running % cpu::WARP), sum.part, sizeof(sum.part));
}

/* As the PTX ISA has ldmatrix .x4 and mma .m16n8k32. */
static inline void load_rows(u32 part[4], const u8 *row) {
    u32 self = cpu::here->running, lane = self % cpu::WARP;
    cpu::Fragments *warp = cpu::here->lanes + (self - lane);
    if (reinterpret_cast<uintptr_t>(row) % 16 != 0) {
        fprintf(stderr, "a row that is not aligned to 16 bytes\n");
        abort();
    }
    warp[lane].row = row;
    __syncwarp();
    for (u32 matrix = 0; matrix < 4; matrix++)
        memcpy(&part[matrix], warp[8 * matrix + lane / 4].row + 4 * (lane % 4), 4);
    __syncwarp();
}

static inline void multiply_add_rows(u32 sum[4], const u32 left[4], const u32 right[2]) {
    u32 self = cpu::here->running, lane = self % cpu::WARP;
    cpu::Fragments *warp = cpu::here->lanes + (self - lane);
    memcpy(warp[lane].left, left, 16);
    memcpy(warp[lane].right, right, 8);
    __syncwarp();
    for (u32 i = 0; i < 4; i++) {
        const cpu::Fragments *row = warp + lane / 4 * 4, *column = warp + (lane % 4 * 2 + i % 2) * 4;
        for (u32 k = 0; k < 32; k++) /* byte k lies with lane k / 4 % 4, in its part k / 16 */
            sum[i] += (u32)row[k / 4 % 4].left[4 * (i / 2 + k / 16 * 2) + k % 4] *
                      column[k / 4 % 4].right[4 * (k / 16) + k % 4];
    }
    __syncwarp();
}
