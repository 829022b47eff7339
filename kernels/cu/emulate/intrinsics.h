// intrinsics.cuh on the processor: every thread of a block is a fiber (device.cpp), and an operation of a
// warp is done when the last of its 32 fibers has come.
//
// Stricter than a device where that finds faults: lanes that disagree, barriers that not all threads reach,
// addresses that are not aligned and copies without a wait end the program; shared memory starts as NaN;
// asynchronous copies arrive at once or only when their thread waits, alternately.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#define DEVICE inline
#define UNROLL

#define KERNEL(name, threads, body, Args)                                                              \
    static const emulate::Kernel kernel_##name(#name, threads, sizeof(Args), [](const void* args) {    \
        body(*static_cast<const Args*>(args));                                                         \
    });

struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct dim3 {
    unsigned x, y, z;
};

// Thread and block index of the fiber that runs.
extern dim3 threadIdx, blockIdx;

template <typename T>
T min(T a, T b) {
    return b < a ? b : a;
}

namespace emulate {

// Enters a kernel into the table by its name.
struct Kernel {
    Kernel(const char* name, unsigned threads, size_t args, void (*body)(const void*));
};

[[noreturn]] void fail(const char* what);
void barrier();
unsigned char* shared();
void copy_start(void* to, const void* from, bool wanted);
void copy_group();
void copy_wait(unsigned left);

// Operands of one lane in an operation of its warp, and its results.
struct Operands {
    unsigned bits[12];
    const void* row;
};
using Together = void (*)(Operands (&lanes)[32]);
// Runs `together` over the operands of all lanes once the last has come.
Operands warp(Together together, const Operands& mine);

inline unsigned bits_of(float value) {
    unsigned bits;
    std::memcpy(&bits, &value, 4);
    return bits;
}

inline float float_of(unsigned bits) {
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}

}  // namespace emulate

inline float bits_to_float(unsigned bits) { return emulate::float_of(bits); }

// To the nearest, ties to even, as the device's cvt.rn.
inline unsigned round_bf16(float value) {
    const unsigned bits = emulate::bits_of(value);
    if (std::isnan(value)) return 0x7fff;
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

inline unsigned round_f16(float value) {
    const unsigned sign = emulate::bits_of(value) >> 16 & 0x8000;
    const float size = std::fabs(value);
    if (std::isnan(value)) return 0x7fff;
    if (size >= 65520.0f) return sign | 0x7c00;
    // Below 2^-14 the steps are all 2^-24; nearbyint rounds ties to even.
    if (size < 0x1p-14f) return sign | static_cast<unsigned>(std::nearbyint(size * 0x1p24f));
    int exponent;
    const float share = std::frexp(size, &exponent);  // 0.5 to 1
    // A share that rounds up to 2048 carries into the exponent, which is right.
    const unsigned steps = static_cast<unsigned>(std::nearbyint(share * 2048.0f));
    return sign | ((static_cast<unsigned>(exponent + 13) << 10) + steps);
}

inline float f16_to_float(unsigned bits) {
    const float sign = bits & 0x8000 ? -1.0f : 1.0f;
    const int exponent = static_cast<int>(bits >> 10 & 31);
    const float share = static_cast<float>(bits & 1023);
    if (exponent == 31) return share == 0.0f ? sign * INFINITY : NAN;
    if (exponent == 0) return sign * share * 0x1p-24f;
    return sign * std::ldexp(1024.0f + share, exponent - 25);
}

inline unsigned pack_f16(float low, float high) { return round_f16(low) | round_f16(high) << 16; }
inline unsigned pack_bf16(float low, float high) { return round_bf16(low) | round_bf16(high) << 16; }
inline float exp2_fast(float x) { return std::exp2(x); }
inline float rsqrt_of(float x) { return 1.0f / std::sqrt(x); }

inline void block_barrier() { emulate::barrier(); }

template <typename T>
T* block_memory() {
    return reinterpret_cast<T*>(emulate::shared());
}

inline void copy_start(void* to, const void* from, bool wanted) { emulate::copy_start(to, from, wanted); }
inline void copy_group() { emulate::copy_group(); }

template <int LEFT>
void copy_wait() {
    emulate::copy_wait(LEFT);
}

inline float shuffle(float value, int lane) {
    emulate::Operands mine = {};
    mine.bits[0] = emulate::bits_of(value);
    mine.bits[1] = static_cast<unsigned>(lane) % 32;
    const auto together = [](emulate::Operands(&lanes)[32]) {
        for (auto& lane : lanes) lane.bits[2] = lanes[lane.bits[1]].bits[0];
    };
    return emulate::float_of(emulate::warp(together, mine).bits[2]);
}

inline float shuffle_xor(float value, int mask) {
    return shuffle(value, static_cast<int>(threadIdx.x) % 32 ^ mask);
}

// Lane l gets of each matrix the values (row, 2c) and (row, 2c + 1), or (2c, row) and (2c + 1, row).
template <bool TRANSPOSED>
void deal_matrices(emulate::Operands (&lanes)[32]) {
    for (unsigned matrix = 0; matrix < 4; matrix++) {
        uint16_t values[8][8];
        for (unsigned row = 0; row < 8; row++) {
            const void* from = lanes[matrix * 8 + row].row;
            if (reinterpret_cast<uintptr_t>(from) % 16) emulate::fail("a matrix row is not aligned to 16 bytes");
            // Read as the kernels write it, so that the sanitizer sees a row that leaves the memory.
            std::memcpy(values[row], from, 16);
        }
        for (unsigned lane = 0; lane < 32; lane++) {
            const unsigned row = lane / 4, column = lane % 4 * 2;
            const uint16_t low = TRANSPOSED ? values[column][row] : values[row][column];
            const uint16_t high = TRANSPOSED ? values[column + 1][row] : values[row][column + 1];
            lanes[lane].bits[matrix] = low | static_cast<unsigned>(high) << 16;
        }
    }
}

template <bool TRANSPOSED>
void load_matrices_as(unsigned (&parts)[4], const void* row) {
    emulate::Operands mine = {};
    mine.row = row;
    const emulate::Operands dealt = emulate::warp(deal_matrices<TRANSPOSED>, mine);
    std::memcpy(parts, dealt.bits, 16);
}

inline void load_matrices(unsigned (&parts)[4], const void* row) { load_matrices_as<false>(parts, row); }
inline void load_matrices_transposed(unsigned (&parts)[4], const void* row) { load_matrices_as<true>(parts, row); }

struct f16;
struct bf16;

template <typename T>
double half_of(unsigned pair, bool high) {
    const unsigned bits = high ? pair >> 16 : pair & 0xffff;
    return static_cast<double>(std::is_same<T, f16>::value ? f16_to_float(bits) : bits_to_float(bits << 16));
}

// The layout of mma.m16n8k16 in the PTX manual: lane l holds rows l / 4 and l / 4 + 8 of a and of the sum,
// and column l / 4 of b.
template <typename T>
void multiply_together(emulate::Operands (&lanes)[32]) {
    double a[16][16], b[16][8];
    for (unsigned lane = 0; lane < 32; lane++) {
        const unsigned group = lane / 4, pair = lane % 4 * 2;
        for (unsigned i = 0; i < 8; i++) {
            a[group + i / 2 % 2 * 8][pair + i / 4 * 8 + i % 2] = half_of<T>(lanes[lane].bits[i / 2], i % 2);
        }
        for (unsigned i = 0; i < 4; i++) {
            b[pair + i / 2 * 8 + i % 2][group] = half_of<T>(lanes[lane].bits[4 + i / 2], i % 2);
        }
    }
    for (unsigned lane = 0; lane < 32; lane++) {
        for (unsigned i = 0; i < 4; i++) {
            const unsigned row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
            double sum = static_cast<double>(emulate::float_of(lanes[lane].bits[6 + i]));
            for (unsigned k = 0; k < 16; k++) sum += a[row][k] * b[k][column];
            lanes[lane].bits[6 + i] = emulate::bits_of(static_cast<float>(sum));
        }
    }
}

template <typename T>
void mma_m16n8k16(float (&sum)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    emulate::Operands mine = {};
    std::memcpy(mine.bits, a, 16);
    mine.bits[4] = b0;
    mine.bits[5] = b1;
    std::memcpy(mine.bits + 6, sum, 16);
    const emulate::Operands result = emulate::warp(multiply_together<T>, mine);
    std::memcpy(sum, result.bits + 6, 16);
}
