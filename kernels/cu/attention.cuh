// The operands of attention, and attention in float for checking: no tensor cores, a warp for each query.
#pragma once

#include "number.cuh"

// Queries of one text that one block takes. 16 bytes, read at once.
struct Tile {
    unsigned start;  // the text's first row
    unsigned len;    // its tokens
    unsigned query;  // the tile's first query in the text
    unsigned unused;
};

struct AttentionArgs {
    const void* qkv;    // rows of query, key, value side by side
    void* out;          // rows of `hidden`
    const Tile* tiles;  // one for each block of the grid's x; y is the head
    const float* bias;  // [heads, 2 * reach - 1], or null
    unsigned hidden;
    unsigned reach;
    float scale;
    unsigned head_dim;
};

constexpr int F32_WARPS = 4;
constexpr int F32_TILE_QUERIES = 64;
constexpr int F32_HEAD_DIM_MAX = 128;

DEVICE float warp_most(float value) {
    UNROLL for (int mask = 16; mask > 0; mask /= 2) value = fmaxf(value, shuffle_xor(value, mask));
    return value;
}

DEVICE float warp_total(float value) {
    UNROLL for (int mask = 16; mask > 0; mask /= 2) value += shuffle_xor(value, mask);
    return value;
}

// Each lane scores one key of 32 at a time, then takes its columns of the 32 weighted values.
DEVICE void attention_f32_body(const AttentionArgs& args) {
    const Tile tile = args.tiles[blockIdx.x];
    const int len = static_cast<int>(tile.len), head_dim = static_cast<int>(args.head_dim);
    const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
    const size_t hidden = args.hidden, row = 3 * hidden;
    const float* queries = static_cast<const float*>(args.qkv) + tile.start * row + blockIdx.y * head_dim;
    const float* keys = queries + hidden;
    const float* values = keys + hidden;
    float* to = static_cast<float*>(args.out) + tile.start * hidden + blockIdx.y * head_dim;
    const float* bias = args.bias ? args.bias + blockIdx.y * (2 * args.reach - 1) + args.reach - 1 : nullptr;
    const int end = min(static_cast<int>(tile.query) + F32_TILE_QUERIES, len);
    for (int query = static_cast<int>(tile.query) + warp; query < end; query += F32_WARPS) {
        float most = -__builtin_inff(), sum = 0.0f;
        float out[F32_HEAD_DIM_MAX / 32] = {};
        for (int first = 0; first < len; first += 32) {
            const int key = first + lane;
            float score = -__builtin_inff();
            if (key < len) {
                score = 0.0f;
                for (int i = 0; i < head_dim; i++) score += queries[query * row + i] * keys[key * row + i];
                score = score * args.scale + (bias ? bias[key - query] : 0.0f);
            }
            const float next = fmaxf(most, warp_most(score));
            const float weight = expf(score - next), shrink = expf(most - next);
            most = next;
            sum = sum * shrink + warp_total(weight);
            UNROLL for (int i = 0; i < F32_HEAD_DIM_MAX / 32; i++) out[i] *= shrink;
            const int here = min(32, len - first);
            for (int other = 0; other < here; other++) {
                const float share = shuffle(weight, other);
                UNROLL for (int i = 0; i < F32_HEAD_DIM_MAX / 32; i++) {
                    const int column = i * 32 + lane;
                    if (column < head_dim) out[i] += share * values[(first + other) * row + column];
                }
            }
        }
        UNROLL for (int i = 0; i < F32_HEAD_DIM_MAX / 32; i++) {
            const int column = i * 32 + lane;
            if (column < head_dim) {
                to[query * hidden + column] = out[i] / sum;
            }
        }
    }
}
