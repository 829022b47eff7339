// Operations of the hardware beyond C++: on the device thin wrappers of PTX, on the processor the
// same functions by emulate/intrinsics.h. Nothing else in a kernel may differ between the two.
#pragma once

#ifndef __CUDACC__
#include "emulate/intrinsics.h"
#else

#define DEVICE __device__ __forceinline__
#define UNROLL _Pragma("unroll")

// A kernel by the name that the host asks for. It takes one struct, `Args`, which the host mirrors.
#define KERNEL(name, threads, body, Args) \
    extern "C" __global__ void __launch_bounds__(threads) name(const __grid_constant__ Args args) { body(args); }

DEVICE unsigned pack_f16(float low, float high) {
    unsigned pair;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}

DEVICE unsigned pack_bf16(float low, float high) {
    unsigned pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}

DEVICE float f16_to_float(unsigned bits) {
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(static_cast<unsigned short>(bits)));
    return value;
}

DEVICE float bits_to_float(unsigned bits) { return __uint_as_float(bits); }

// 2 to the power of x, to 2 units in the last place; 0 far below, NaN for NaN.
DEVICE float exp2_fast(float x) {
    float value;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(value) : "f"(x));
    return value;
}

DEVICE float rsqrt_of(float x) { return 1.0f / sqrtf(x); }

DEVICE float shuffle_xor(float value, int mask) { return __shfl_xor_sync(0xffffffffu, value, mask); }
DEVICE float shuffle(float value, int lane) { return __shfl_sync(0xffffffffu, value, lane); }

DEVICE void block_barrier() { __syncthreads(); }

// The shared memory that the launch asked for.
template <typename T>
DEVICE T* block_memory() {
    extern __shared__ __align__(16) unsigned char memory[];
    return reinterpret_cast<T*>(memory);
}

DEVICE unsigned shared_address(const void* shared) {
    return static_cast<unsigned>(__cvta_generic_to_shared(shared));
}

// Starts copying 16 bytes into shared memory; where `wanted` is false they become zeros.
DEVICE void copy_start(void* shared, const void* global, bool wanted) {
    const int bytes = wanted ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global),
                 "r"(bytes)
                 : "memory");
}

// Closes a group of the copies started so far by this thread.
DEVICE void copy_group() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until at most the `LEFT` latest groups of this thread are on their way.
template <int LEFT>
DEVICE void copy_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory");
}

// Four 8x8 matrices of 16-bit values from shared memory. Lane l names row l % 8 of matrix l / 8 and gets of
// each matrix the pair of columns 2 * (l % 4) in row l / 4.
DEVICE void load_matrices(unsigned (&parts)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(parts[0]), "=r"(parts[1]), "=r"(parts[2]), "=r"(parts[3])
                 : "r"(shared_address(row))
                 : "memory");
}

// The same, each matrix transposed on the way.
DEVICE void load_matrices_transposed(unsigned (&parts)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(parts[0]), "=r"(parts[1]), "=r"(parts[2]), "=r"(parts[3])
                 : "r"(shared_address(row))
                 : "memory");
}

struct f16;
struct bf16;

// sum += a * b on the tensor cores: a is 16x16 by rows, b 16x8 by columns, sum 16x8 in float, each spread
// over the warp as PTX lays mma.m16n8k16 out.
template <typename T>
DEVICE void mma_m16n8k16(float (&sum)[4], const unsigned (&a)[4], unsigned b0, unsigned b1);

template <>
DEVICE void mma_m16n8k16<f16>(float (&sum)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

template <>
DEVICE void mma_m16n8k16<bf16>(float (&sum)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

#endif
