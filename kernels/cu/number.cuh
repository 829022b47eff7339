// The formats that activations are kept in, as plain bits, and their way to float and back.
//
// Everything is computed in float. The 16-bit formats are structs of our own, so that the same source is
// compiled for the device and, by emulate/, for the processor.
#pragma once

#include "intrinsics.cuh"

struct f16 {
    unsigned short bits;
};
struct bf16 {
    unsigned short bits;
};
using f32 = float;

// Two neighbours in one register, the lower one first in memory.
template <typename T>
struct Pair;

template <>
struct Pair<f16> {
    static DEVICE unsigned pack(float low, float high) { return pack_f16(low, high); }
    static DEVICE float low(unsigned pair) { return f16_to_float(pair & 0xffff); }
    static DEVICE float high(unsigned pair) { return f16_to_float(pair >> 16); }
};

template <>
struct Pair<bf16> {
    static DEVICE unsigned pack(float low, float high) { return pack_bf16(low, high); }
    static DEVICE float low(unsigned pair) { return bits_to_float(pair << 16); }
    static DEVICE float high(unsigned pair) { return bits_to_float(pair & 0xffff0000u); }
};

// Neighbours that fill 16 bytes, which one thread loads or stores at once.
template <typename T>
struct Wide {
    static constexpr int COUNT = 8;

    static DEVICE void load(const T* from, float (&values)[COUNT]) {
        const uint4 raw = *reinterpret_cast<const uint4*>(from);
        const unsigned pairs[4] = {raw.x, raw.y, raw.z, raw.w};
        UNROLL for (int i = 0; i < 4; i++) {
            values[2 * i] = Pair<T>::low(pairs[i]);
            values[2 * i + 1] = Pair<T>::high(pairs[i]);
        }
    }

    static DEVICE void store(T* to, const float (&values)[COUNT]) {
        unsigned pairs[4];
        UNROLL for (int i = 0; i < 4; i++) pairs[i] = Pair<T>::pack(values[2 * i], values[2 * i + 1]);
        *reinterpret_cast<uint4*>(to) = uint4{pairs[0], pairs[1], pairs[2], pairs[3]};
    }
};

template <>
struct Wide<f32> {
    static constexpr int COUNT = 4;

    static DEVICE void load(const f32* from, float (&values)[COUNT]) {
        const float4 raw = *reinterpret_cast<const float4*>(from);
        values[0] = raw.x, values[1] = raw.y, values[2] = raw.z, values[3] = raw.w;
    }

    static DEVICE void store(f32* to, const float (&values)[COUNT]) {
        *reinterpret_cast<float4*>(to) = float4{values[0], values[1], values[2], values[3]};
    }
};

// `count` neighbours of a float table.
template <int COUNT>
DEVICE void load_floats(const float* from, float (&values)[COUNT]) {
    UNROLL for (int i = 0; i < COUNT; i += 4) {
        const float4 raw = *reinterpret_cast<const float4*>(from + i);
        values[i] = raw.x, values[i + 1] = raw.y, values[i + 2] = raw.z, values[i + 3] = raw.w;
    }
}
