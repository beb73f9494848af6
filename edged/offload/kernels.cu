/*
 * kernels.cu - masked products on a GPU: convolutions along time in Z mod 2^32.
 *
 *   y[m, t', v, r] = sum_{tap, c} w[r, tap, c] * x[m, t' * stride + tap - pad, v, c] - u[m, t', v, r]   (mod 2^32)
 *
 * x is 0 outside its frames; u may be absent. All arrays are as product.py's masked_convolution has them, row-major,
 * and none is rearranged in memory: a block gathers the input of a tile of output pixels (m, t', v), a tap at a time.
 *
 * Four kernels give the same words; which is fastest depends on chip and shape, and is measured (cuda.py):
 *   direct   32-bit multiply-adds
 *   dots     words cut into bytes, four products at a time (dp4a)
 *   tensor   words cut into bytes, 16 x 16 x 16 at a time (integer tensor cores)
 *   deep     likewise, 16 x 8 x 32 at a time, which the tensor cores from sm_80 on are made for
 * Of the sixteen products of a word's bytes with another's, ten reach below 2^32: those of places i + j <= 3. Sums of
 * one i + j are kept apart until the end: each is below 2^31 where taps * channels <= SUM_MAX, which cuda.py sees to.
 *
 * One source for sm_72, sm_87, sm_90 and sm_110, for nvcc from 10.2 and for NVRTC from 11.8;
 * tests/kernels/cuda_on_cpu.h runs it on a CPU, unchanged.
 */
#ifndef ON_CPU
typedef unsigned int u32;
typedef unsigned char u8;

static __device__ __forceinline__ u32 bytes_of(u32 one, u32 other, u32 which) { return __byte_perm(one, other, which); }

/* sum of the products of four bytes, and sum. NVRTC 11.8 has no __dp4a. */
static __device__ __forceinline__ u32 dot4(u32 one, u32 other, u32 sum) {
    u32 made;
    asm("dp4a.u32.u32 %0, %1, %2, %3;" : "=r"(made) : "r"(one), "r"(other), "r"(sum));
    return made;
}

/* Where in shared memory; CUDA 10.2 has no __cvta_generic_to_shared. */
static __device__ __forceinline__ u32 shared_at(const void *address) {
    u32 made;
    asm("{ .reg .u64 at; cvta.to.shared.u64 at, %1; cvt.u32.u64 %0, at; }" : "=r"(made) : "l"(address));
    return made;
}

/* A warp's share of a 16 x 16 tile. Which elements a lane holds is the chip's secret; it is the same for all sums. */
struct Left16 { u32 part[2]; };
struct Right16 { u32 part[2]; };
struct Sum16 { u32 part[8]; };

static __device__ __forceinline__ void load_left(Left16 &left, const u8 *tile) {
    asm volatile("wmma.load.a.sync.aligned.row.m16n16k16.shared.u8 {%0, %1}, [%2], 16;"
                 : "=r"(left.part[0]), "=r"(left.part[1]) : "r"(shared_at(tile)) : "memory");
}

static __device__ __forceinline__ void load_right(Right16 &right, const u8 *tile) {
    asm volatile("wmma.load.b.sync.aligned.col.m16n16k16.shared.u8 {%0, %1}, [%2], 16;"
                 : "=r"(right.part[0]), "=r"(right.part[1]) : "r"(shared_at(tile)) : "memory");
}

static __device__ __forceinline__ void multiply_add(Sum16 &sum, const Left16 &left, const Right16 &right) {
    asm volatile("wmma.mma.sync.aligned.row.col.m16n16k16.s32.u8.u8.s32 "
                 "{%0, %1, %2, %3, %4, %5, %6, %7}, {%8, %9}, {%10, %11}, {%0, %1, %2, %3, %4, %5, %6, %7};"
                 : "+r"(sum.part[0]), "+r"(sum.part[1]), "+r"(sum.part[2]), "+r"(sum.part[3]), "+r"(sum.part[4]),
                   "+r"(sum.part[5]), "+r"(sum.part[6]), "+r"(sum.part[7])
                 : "r"(left.part[0]), "r"(left.part[1]), "r"(right.part[0]), "r"(right.part[1]));
}

/* Row-major, 16 words a row. */
static __device__ __forceinline__ void store(u32 *tile, const Sum16 &sum) {
    asm volatile("wmma.store.d.sync.aligned.row.m16n16k16.shared.s32 [%0], {%1, %2, %3, %4, %5, %6, %7, %8}, 16;"
                 : : "r"(shared_at(tile)), "r"(sum.part[0]), "r"(sum.part[1]), "r"(sum.part[2]),
                     "r"(sum.part[3]), "r"(sum.part[4]), "r"(sum.part[5]), "r"(sum.part[6]), "r"(sum.part[7])
                 : "memory");
}

/* Four matrices of 8 rows of 16 bytes: lane 8 m + r gives the address of row r of matrix m; of each row, and so of part m,
 * lane l gets bytes 4 (l % 4) and on of row l / 4. */
static __device__ __forceinline__ void load_rows(u32 part[4], const u8 *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(part[0]), "=r"(part[1]), "=r"(part[2]), "=r"(part[3]) : "r"(shared_at(row)) : "memory");
}

/* 16 x 32 bytes by 32 x 8: left parts are rows 0.. and 8.., then those of bytes 16..; right parts bytes 0.. and 16..;
 * of the sum, lane l holds columns 2 (l % 4) and the next of rows l / 4 and l / 4 + 8. */
static __device__ __forceinline__ void multiply_add_rows(u32 sum[4], const u32 left[4], const u32 right[2]) {
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.u8.u8.s32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+r"(sum[0]), "+r"(sum[1]), "+r"(sum[2]), "+r"(sum[3])
                 : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "r"(right[0]), "r"(right[1]));
}
#endif

/* begin, end: of the output pixels (m, t', v), counted through, those that this launch computes. */
struct Shape {
    u32 persons, frames_in, frames_out, joints, channels, rows, taps, stride, pad, begin, end;
};

/* One by one: a structure by value is more than every binding can pass. */
#define ARGUMENTS                                                                                                     \
    const u32 *__restrict__ w, const u32 *__restrict__ x, const u32 *__restrict__ u, u32 *__restrict__ y, u32 persons, \
    u32 frames_in, u32 frames_out, u32 joints, u32 channels, u32 rows, u32 taps, u32 stride, u32 pad, u32 begin,       \
    u32 end
#define SHAPE {persons, frames_in, frames_out, joints, channels, rows, taps, stride, pad, begin, end}

/* Where the input of an output pixel begins: its first frame may lie before the clip, or all of it behind the last. */
struct Pixel {
    int frame;  /* of tap 0 */
    int offset; /* of that frame's words, in x */
};

static __device__ __forceinline__ Pixel pixel_of(const Shape &shape, u32 index) {
    Pixel found;
    u32 joint = index % shape.joints, rest = index / shape.joints;
    u32 frame = rest % shape.frames_out, person = rest / shape.frames_out;
    found.frame = person < shape.persons ? (int)(frame * shape.stride) - (int)shape.pad : (int)shape.frames_in;
    found.offset = (int)((((int)(person * shape.frames_in) + found.frame) * (int)shape.joints + (int)joint) *
                         (int)shape.channels);
    return found;
}

/* Four words from `channel` on, 0 beyond the last; `words` points to the first channel's. */
static __device__ __forceinline__ uint4 four(const u32 *words, u32 channel, u32 channels) {
    uint4 found = make_uint4(0, 0, 0, 0);
    if (channels % 4 == 0) {
        if (channel < channels)
            found = *reinterpret_cast<const uint4 *>(words + channel);
    } else {
        if (channel < channels)
            found.x = words[channel];
        if (channel + 1 < channels)
            found.y = words[channel + 1];
        if (channel + 2 < channels)
            found.z = words[channel + 2];
        if (channel + 3 < channels)
            found.w = words[channel + 3];
    }
    return found;
}

static __device__ __forceinline__ uint4 four_of_x(const u32 *x, const Shape &shape, const Pixel &pixel, u32 tap,
                                                  u32 channel) {
    if ((u32)(pixel.frame + (int)tap) >= shape.frames_in)
        return make_uint4(0, 0, 0, 0);
    return four(x + pixel.offset + (int)(tap * shape.joints * shape.channels), channel, shape.channels);
}

static __device__ __forceinline__ uint4 four_of_w(const u32 *w, const Shape &shape, u32 row, u32 tap, u32 channel) {
    if (row >= shape.rows)
        return make_uint4(0, 0, 0, 0);
    return four(w + (row * shape.taps + tap) * shape.channels, channel, shape.channels);
}

static __device__ __forceinline__ void put(u32 *y, const u32 *u, const Shape &shape, u32 pixel, u32 row, u32 value) {
    if (pixel < shape.end && row < shape.rows) {
        u32 at = pixel * shape.rows + row;
        y[at] = u == 0 ? value : value - u[at];
    }
}

/* Four rows of one pixel. */
static __device__ __forceinline__ void put4(u32 *y, const u32 *u, const Shape &shape, u32 pixel, u32 row,
                                            uint4 value) {
    if (shape.rows % 4 == 0) {
        if (pixel < shape.end && row < shape.rows) {
            u32 at = pixel * shape.rows + row;
            if (u != 0) {
                uint4 less = *reinterpret_cast<const uint4 *>(u + at);
                value = make_uint4(value.x - less.x, value.y - less.y, value.z - less.z, value.w - less.w);
            }
            *reinterpret_cast<uint4 *>(y + at) = value;
        }
    } else {
        put(y, u, shape, pixel, row, value.x);
        put(y, u, shape, pixel, row + 1, value.y);
        put(y, u, shape, pixel, row + 2, value.z);
        put(y, u, shape, pixel, row + 3, value.w);
    }
}

/* Byte i of each of four words, as the four bytes of part[i]. */
struct Bytes { u32 part[4]; };

static __device__ __forceinline__ Bytes bytes(uint4 words) {
    Bytes made;
    u32 low01 = bytes_of(words.x, words.y, 0x5140), high01 = bytes_of(words.x, words.y, 0x7362);
    u32 low23 = bytes_of(words.z, words.w, 0x5140), high23 = bytes_of(words.z, words.w, 0x7362);
    made.part[0] = bytes_of(low01, low23, 0x5410);
    made.part[1] = bytes_of(low01, low23, 0x7632);
    made.part[2] = bytes_of(high01, high23, 0x5410);
    made.part[3] = bytes_of(high01, high23, 0x7632);
    return made;
}

/* ---- direct: 128 pixels x 64 rows, 128 threads, 8 x 8 each; 8 channels at a time ---- */

#define DIRECT_PIXELS 128
#define DIRECT_ROWS 64
#define DIRECT_DEEP 8

extern "C" __global__ void __launch_bounds__(128)
direct(ARGUMENTS) {
    const Shape shape = SHAPE;
    __shared__ __align__(16) u32 pixels_of[2][DIRECT_DEEP][DIRECT_PIXELS];
    __shared__ __align__(16) u32 rows_of[2][DIRECT_DEEP][DIRECT_ROWS];
    const u32 thread = threadIdx.x;
    const u32 first_pixel = shape.begin + blockIdx.x * DIRECT_PIXELS, first_row = blockIdx.y * DIRECT_ROWS;
    const u32 pixel_at = thread / 8 * 4, row_at = thread % 8 * 4;
    const u32 deep = (shape.channels + DIRECT_DEEP - 1) / DIRECT_DEEP, steps = shape.taps * deep;
    const u32 row = thread / 2, half = thread % 2 * 4; /* of w, that this thread fetches */
    const Pixel pixel = pixel_of(shape, first_pixel + thread);
    u32 sum[8][8];
    uint4 next_x[2], next_w;

#pragma unroll
    for (int i = 0; i < 8; i++)
#pragma unroll
        for (int j = 0; j < 8; j++)
            sum[i][j] = 0;
    for (u32 step = 0; step <= steps; step++) {
        if (step < steps) {
            u32 tap = step / deep, channel = step % deep * DIRECT_DEEP;
            next_x[0] = four_of_x(x, shape, pixel, tap, channel);
            next_x[1] = four_of_x(x, shape, pixel, tap, channel + 4);
            next_w = four_of_w(w, shape, first_row + row, tap, channel + half);
        }
        if (step > 0) {
            const u32 from = (step - 1) % 2;
#pragma unroll
            for (int k = 0; k < DIRECT_DEEP; k++) {
                uint4 a[2], b[2];
                a[0] = *reinterpret_cast<const uint4 *>(&pixels_of[from][k][pixel_at]);
                a[1] = *reinterpret_cast<const uint4 *>(&pixels_of[from][k][pixel_at + DIRECT_PIXELS / 2]);
                b[0] = *reinterpret_cast<const uint4 *>(&rows_of[from][k][row_at]);
                b[1] = *reinterpret_cast<const uint4 *>(&rows_of[from][k][row_at + DIRECT_ROWS / 2]);
                const u32 one[8] = {a[0].x, a[0].y, a[0].z, a[0].w, a[1].x, a[1].y, a[1].z, a[1].w};
                const u32 other[8] = {b[0].x, b[0].y, b[0].z, b[0].w, b[1].x, b[1].y, b[1].z, b[1].w};
#pragma unroll
                for (int i = 0; i < 8; i++)
#pragma unroll
                    for (int j = 0; j < 8; j++)
                        sum[i][j] += one[i] * other[j];
            }
        }
        if (step < steps) {
            const u32 to = step % 2;
#pragma unroll
            for (int q = 0; q < 2; q++) {
                pixels_of[to][4 * q + 0][thread] = next_x[q].x;
                pixels_of[to][4 * q + 1][thread] = next_x[q].y;
                pixels_of[to][4 * q + 2][thread] = next_x[q].z;
                pixels_of[to][4 * q + 3][thread] = next_x[q].w;
            }
            rows_of[to][half + 0][row] = next_w.x;
            rows_of[to][half + 1][row] = next_w.y;
            rows_of[to][half + 2][row] = next_w.z;
            rows_of[to][half + 3][row] = next_w.w;
        }
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < 8; i++)
#pragma unroll
        for (int j = 0; j < 8; j += 4)
            put4(y, u, shape, first_pixel + pixel_at + i % 4 + i / 4 * (DIRECT_PIXELS / 2),
                 first_row + row_at + j / 4 * (DIRECT_ROWS / 2),
                 make_uint4(sum[i][j], sum[i][j + 1], sum[i][j + 2], sum[i][j + 3]));
}

/* ---- dots: 64 pixels x 64 rows, 256 threads, 4 x 4 each; 32 channels at a time ---- */

#define DOTS_SIDE 64
#define DOTS_QUADS 8

extern "C" __global__ void __launch_bounds__(256)
dots(ARGUMENTS) {
    const Shape shape = SHAPE;
    __shared__ __align__(16) u32 pixels_of[DOTS_QUADS][4][DOTS_SIDE];
    __shared__ __align__(16) u32 rows_of[DOTS_QUADS][4][DOTS_SIDE];
    const u32 thread = threadIdx.x;
    const u32 first_pixel = shape.begin + blockIdx.x * DOTS_SIDE, first_row = blockIdx.y * DOTS_SIDE;
    const u32 pixel_at = thread / 16 * 4, row_at = thread % 16 * 4;
    const u32 deep = (shape.channels + 4 * DOTS_QUADS - 1) / (4 * DOTS_QUADS), steps = shape.taps * deep;
    const u32 own = thread % DOTS_SIDE, quad = thread / DOTS_SIDE; /* this thread fetches quads quad and quad + 4 */
    const Pixel pixel = pixel_of(shape, first_pixel + own);
    u32 sum[4][4][4]; /* of places i + j = 0 .. 3 */
    uint4 next_x[2], next_w[2];

#pragma unroll
    for (int place = 0; place < 4; place++)
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
            for (int j = 0; j < 4; j++)
                sum[place][i][j] = 0;
    for (u32 step = 0; step <= steps; step++) {
        if (step < steps) {
            u32 tap = step / deep, channel = step % deep * 4 * DOTS_QUADS + 4 * quad;
#pragma unroll
            for (int q = 0; q < 2; q++) {
                next_x[q] = four_of_x(x, shape, pixel, tap, channel + 16 * q);
                next_w[q] = four_of_w(w, shape, first_row + own, tap, channel + 16 * q);
            }
        }
        if (step > 0) {
#pragma unroll 2
            for (int k = 0; k < DOTS_QUADS; k++) {
                uint4 a[4], b[4];
#pragma unroll
                for (int place = 0; place < 4; place++) {
                    a[place] = *reinterpret_cast<const uint4 *>(&pixels_of[k][place][pixel_at]);
                    b[place] = *reinterpret_cast<const uint4 *>(&rows_of[k][place][row_at]);
                }
#pragma unroll
                for (int one = 0; one < 4; one++)
#pragma unroll
                    for (int other = 0; other < 4 - one; other++) {
                        const u32 p[4] = {a[one].x, a[one].y, a[one].z, a[one].w};
                        const u32 r[4] = {b[other].x, b[other].y, b[other].z, b[other].w};
#pragma unroll
                        for (int i = 0; i < 4; i++)
#pragma unroll
                            for (int j = 0; j < 4; j++)
                                sum[one + other][i][j] = dot4(p[i], r[j], sum[one + other][i][j]);
                    }
            }
        }
        __syncthreads();
        if (step < steps) {
#pragma unroll
            for (int q = 0; q < 2; q++) {
                Bytes of_x = bytes(next_x[q]), of_w = bytes(next_w[q]);
#pragma unroll
                for (int place = 0; place < 4; place++) {
                    pixels_of[quad + 4 * q][place][own] = of_x.part[place];
                    rows_of[quad + 4 * q][place][own] = of_w.part[place];
                }
            }
        }
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {
        u32 made[4];
#pragma unroll
        for (int j = 0; j < 4; j++)
            made[j] = sum[0][i][j] + (sum[1][i][j] << 8) + (sum[2][i][j] << 16) + (sum[3][i][j] << 24);
        put4(y, u, shape, first_pixel + pixel_at + i, first_row + row_at,
             make_uint4(made[0], made[1], made[2], made[3]));
    }
}

/* ---- tensor and deep: 128 pixels x 64 rows, 8 warps of 32 x 32; 32 channels at a time ---- */

#define TENSOR_PIXELS 128
#define TENSOR_ROWS 64

/* What multiplies 16 pixels' 32 channels by 16 rows' of a warp. pixels, rows: the first one's, in the first 16 channels;
 * other: how far the other 16 channels are from there. */
struct Wmma {
    struct Left { Left16 half[2]; };
    struct Right { Right16 half[2]; };
    typedef Sum16 Sum;

    static __device__ __forceinline__ void left(Left &made, const u8 *pixels, u32 other) {
        load_left(made.half[0], pixels);
        load_left(made.half[1], pixels + other);
    }
    static __device__ __forceinline__ void right(Right &made, const u8 *rows, u32 other) {
        load_right(made.half[0], rows);
        load_right(made.half[1], rows + other);
    }
    static __device__ __forceinline__ void add(Sum &sum, const Left &one, const Right &two) {
        multiply_add(sum, one.half[0], two.half[0]);
        multiply_add(sum, one.half[1], two.half[1]);
    }
    static __device__ __forceinline__ void put(u32 *tile, const Sum &sum) { store(tile, sum); }
};

struct Mma {
    struct Left { u32 part[4]; };
    struct Right { u32 part[4]; }; /* of rows 0..7, then of rows 8..15 */
    struct Sum { u32 part[8]; };   /* likewise */

    static __device__ __forceinline__ void left(Left &made, const u8 *pixels, u32 other) {
        const u32 lane = threadIdx.x % 32;
        load_rows(made.part, pixels + lane / 16 * other + lane % 16 * 16);
    }
    static __device__ __forceinline__ void right(Right &made, const u8 *rows, u32 other) {
        const u32 lane = threadIdx.x % 32;
        load_rows(made.part, rows + lane / 8 % 2 * other + (lane / 16 * 8 + lane % 8) * 16);
    }
    static __device__ __forceinline__ void add(Sum &sum, const Left &one, const Right &two) {
        multiply_add_rows(sum.part, one.part, two.part);
        multiply_add_rows(sum.part + 4, one.part, two.part + 2);
    }
    static __device__ __forceinline__ void put(u32 *tile, const Sum &sum) {
        const u32 lane = threadIdx.x % 32;
#pragma unroll
        for (int k = 0; k < 8; k++)
            tile[(lane / 4 + k / 2 % 2 * 8) * 16 + k / 4 * 8 + lane % 4 * 2 + k % 2] = sum.part[k];
    }
};

template <class Unit>
static __device__ __forceinline__ void by_tensor_cores(ARGUMENTS) {
    const Shape shape = SHAPE;
    /* [byte's place][which 16 channels][pixel or row][channel]: 16 rows of it are 256 bytes without a gap, which a
     * warp reads without a conflict. */
    __shared__ __align__(32) u8 pixels_of[4][2][TENSOR_PIXELS][16];
    __shared__ __align__(32) u8 rows_of[4][2][TENSOR_ROWS][16];
    const u32 thread = threadIdx.x, warp = thread / 32, lane = thread % 32;
    const u32 first_pixel = shape.begin + blockIdx.x * TENSOR_PIXELS, first_row = blockIdx.y * TENSOR_ROWS;
    const u32 pixel_at = warp % 4 * 32, row_at = warp / 4 * 32;
    const u32 deep = (shape.channels + 31) / 32, steps = shape.taps * deep;
    /* Four lanes fetch 16 channels of a pixel or row: pixels own, own + 64, row own, each for both halves. */
    const u32 own = thread / 4, part = thread % 4 * 4;
    Pixel pixel[2];
    typename Unit::Sum sum[4][2][2];
    uint4 next_x[2][2], next_w[2];

    pixel[0] = pixel_of(shape, first_pixel + own);
    pixel[1] = pixel_of(shape, first_pixel + own + 64);
#pragma unroll
    for (int place = 0; place < 4; place++)
#pragma unroll
        for (int i = 0; i < 2; i++)
#pragma unroll
            for (int j = 0; j < 2; j++)
#pragma unroll
                for (int k = 0; k < 8; k++)
                    sum[place][i][j].part[k] = 0;
    for (u32 step = 0; step <= steps; step++) {
        if (step < steps) {
            u32 tap = step / deep, channel = step % deep * 32 + part;
#pragma unroll
            for (int half = 0; half < 2; half++) {
                next_x[0][half] = four_of_x(x, shape, pixel[0], tap, channel + 16 * half);
                next_x[1][half] = four_of_x(x, shape, pixel[1], tap, channel + 16 * half);
                next_w[half] = four_of_w(w, shape, first_row + own, tap, channel + 16 * half);
            }
        }
        if (step > 0) {
            typename Unit::Right right[4][2];
#pragma unroll
            for (int place = 0; place < 4; place++)
#pragma unroll
                for (int j = 0; j < 2; j++)
                    Unit::right(right[place][j], &rows_of[place][0][row_at + 16 * j][0], TENSOR_ROWS * 16);
#pragma unroll
            for (int one = 0; one < 4; one++)
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    typename Unit::Left left;
                    Unit::left(left, &pixels_of[one][0][pixel_at + 16 * i][0], TENSOR_PIXELS * 16);
#pragma unroll
                    for (int other = 0; other < 4 - one; other++)
#pragma unroll
                        for (int j = 0; j < 2; j++)
                            Unit::add(sum[one + other][i][j], left, right[other][j]);
                }
        }
        __syncthreads();
        if (step < steps) {
#pragma unroll
            for (int half = 0; half < 2; half++) {
                Bytes of_one = bytes(next_x[0][half]), of_other = bytes(next_x[1][half]), of_w = bytes(next_w[half]);
#pragma unroll
                for (int place = 0; place < 4; place++) {
                    *reinterpret_cast<u32 *>(&pixels_of[place][half][own][part]) = of_one.part[place];
                    *reinterpret_cast<u32 *>(&pixels_of[place][half][own + 64][part]) = of_other.part[place];
                    *reinterpret_cast<u32 *>(&rows_of[place][half][own][part]) = of_w.part[place];
                }
            }
        }
        __syncthreads();
    }
    /* Each warp's own 256 words, in what was the pixels' place. */
    u32 *tile = reinterpret_cast<u32 *>(&pixels_of[0][0][0][0]) + 256 * warp;
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
        for (int j = 0; j < 2; j++) {
            typename Unit::Sum made;
#pragma unroll
            for (int k = 0; k < 8; k++)
                made.part[k] = sum[0][i][j].part[k] + (sum[1][i][j].part[k] << 8) + (sum[2][i][j].part[k] << 16) +
                               (sum[3][i][j].part[k] << 24);
            Unit::put(tile, made);
            __syncwarp();
#pragma unroll
            for (int k = 0; k < 2; k++) { /* lanes 0 .. 3 write 16 rows of the first pixel */
                u32 of = lane / 4 + 8 * k, at = lane % 4 * 4;
                put4(y, u, shape, first_pixel + pixel_at + 16 * i + of, first_row + row_at + 16 * j + at,
                     *reinterpret_cast<const uint4 *>(tile + 16 * of + at));
            }
            __syncwarp();
        }
}

extern "C" __global__ void __launch_bounds__(256)
tensor(ARGUMENTS) {
    by_tensor_cores<Wmma>(w, x, u, y, persons, frames_in, frames_out, joints, channels, rows, taps, stride, pad, begin,
                          end);
}

extern "C" __global__ void __launch_bounds__(256)
deep(ARGUMENTS) {
#if defined(ON_CPU) || __CUDA_ARCH__ >= 800 /* cubins.py offers it nowhere else */
    by_tensor_cores<Mma>(w, x, u, y, persons, frames_in, frames_out, joints, channels, rows, taps, stride, pad, begin,
                         end);
#endif
}
