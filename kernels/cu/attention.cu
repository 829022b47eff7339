// Attention of each text over itself: one block for a tile of queries of one head, on the tensor cores,
// with keys and values copied block by block and the softmax carried on (online softmax).
//
// A text of up to 16 or 32 tokens is one tile of one or two warps; a longer one is cut into tiles of 64
// queries, four warps, and the next block of keys is on its way while one is computed. The host cuts
// (attention.rs) by a text's own length alone, so a text's result does not depend on its neighbours.

#include "attention.cuh"

constexpr float LOG2_E = 1.44269504f;
constexpr float MINUS_INFINITY = -__builtin_inff();

// Queries of a warp: the height of the tensor cores' tile.
constexpr int WARP_QUERIES = 16;

// A block of keys or values in shared memory. Rows are 16 bytes longer than they need be, an odd number of
// 16-byte cells for each head size, so that the eight rows of a matrix lie in different banks.
template <typename T, int D, int KEYS>
struct Block {
    static constexpr int STRIDE = D + 8;
    static constexpr int VALUES = KEYS * STRIDE;

    // Starts copying keys `first..first + KEYS`; those behind `len` become zeros, because a weight of zero
    // times a neighbour's leftover could still be NaN.
    template <int THREADS>
    static DEVICE void fetch(T* block, const T* from, size_t row, int first, int len) {
        constexpr int CELLS = D / 8;
        UNROLL for (int i = 0; i < KEYS * CELLS / THREADS; i++) {
            const int cell = i * THREADS + static_cast<int>(threadIdx.x);
            const int key = cell / CELLS, column = cell % CELLS * 8;
            const bool wanted = first + key < len;
            const T* source = from + (wanted ? static_cast<size_t>(first + key) * row : 0) + column;
            copy_start(block + key * STRIDE + column, source, wanted);
        }
    }
};

// The sums of two neighbouring rows of queries, as this lane holds them.
struct Rows {
    float most[2];  // of the scores so far, in powers of two
    float sum[2];   // of the weights so far, this lane's keys alone
};

// The pairs of a warp's queries, laid out for the tensor cores; rows behind the text's end are zero.
template <typename T, int D>
DEVICE void load_queries(unsigned (&parts)[D / 16][4], const T* queries, size_t row, int first, int len) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    UNROLL for (int half = 0; half < 2; half++) {
        const int query = first + lane / 4 + 8 * half;
        const T* from = queries + static_cast<size_t>(query) * row + lane % 4 * 2;
        UNROLL for (int k = 0; k < D / 16; k++) {
            UNROLL for (int side = 0; side < 2; side++) {
                parts[k][half + 2 * side] =
                    query < len ? *reinterpret_cast<const unsigned*>(from + k * 16 + side * 8) : 0u;
            }
        }
    }
}

// scores = queries * keys, 16 by KEYS.
template <typename T, int D, int KEYS>
DEVICE void multiply_keys(float (&scores)[KEYS / 8][4], const unsigned (&queries)[D / 16][4], const T* keys) {
    constexpr int STRIDE = Block<T, D, KEYS>::STRIDE;
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int key = lane / 16 * 8 + lane % 8, column = lane / 8 % 2 * 8;
    UNROLL for (int n = 0; n < KEYS / 16; n++) {
        UNROLL for (int i = 0; i < 4; i++) scores[2 * n][i] = scores[2 * n + 1][i] = 0.0f;
        UNROLL for (int k = 0; k < D / 16; k++) {
            unsigned parts[4];
            load_matrices(parts, keys + (n * 16 + key) * STRIDE + k * 16 + column);
            mma_m16n8k16<T>(scores[2 * n], queries[k], parts[0], parts[1]);
            mma_m16n8k16<T>(scores[2 * n + 1], queries[k], parts[2], parts[3]);
        }
    }
}

// out += weights * values, 16 by D; the weights leave the scores' registers as pairs.
template <typename T, int D, int KEYS>
DEVICE void multiply_values(float (&out)[D / 8][4], const float (&weights)[KEYS / 8][4], const T* values) {
    constexpr int STRIDE = Block<T, D, KEYS>::STRIDE;
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int key = lane / 8 % 2 * 8 + lane % 8, column = lane / 16 * 8;
    UNROLL for (int k = 0; k < KEYS / 16; k++) {
        const unsigned pairs[4] = {
            Pair<T>::pack(weights[2 * k][0], weights[2 * k][1]),
            Pair<T>::pack(weights[2 * k][2], weights[2 * k][3]),
            Pair<T>::pack(weights[2 * k + 1][0], weights[2 * k + 1][1]),
            Pair<T>::pack(weights[2 * k + 1][2], weights[2 * k + 1][3]),
        };
        UNROLL for (int n = 0; n < D / 16; n++) {
            unsigned parts[4];
            load_matrices_transposed(parts, values + (k * 16 + key) * STRIDE + n * 16 + column);
            mma_m16n8k16<T>(out[2 * n], pairs, parts[0], parts[1]);
            mma_m16n8k16<T>(out[2 * n + 1], pairs, parts[2], parts[3]);
        }
    }
}

// Scores to weights relative to the largest score so far; `out` and `rows` are rescaled to it.
// `query` and `key` are the positions of the first score of this lane.
template <int D, int KEYS>
DEVICE void soften(float (&scores)[KEYS / 8][4], float (&out)[D / 8][4], Rows& rows, const AttentionArgs& args,
                   const float* bias, int query, int key, int len) {
    const bool ends = key / KEYS * KEYS + KEYS > len;
    UNROLL for (int n = 0; n < KEYS / 8; n++) {
        UNROLL for (int i = 0; i < 4; i++) {
            const int at = key + n * 8 + i % 2;
            float score = scores[n][i] * (args.scale * LOG2_E);
            // Queries behind the end have no bias: they are computed and thrown away.
            const int of = query + i / 2 * 8;
            if (bias && at < len && of < len) score += bias[at - of] * LOG2_E;
            scores[n][i] = ends && at >= len ? MINUS_INFINITY : score;
        }
    }
    UNROLL for (int half = 0; half < 2; half++) {
        float most = rows.most[half];
        UNROLL for (int n = 0; n < KEYS / 8; n++) {
            most = fmaxf(most, fmaxf(scores[n][2 * half], scores[n][2 * half + 1]));
        }
        most = fmaxf(most, shuffle_xor(most, 1));
        most = fmaxf(most, shuffle_xor(most, 2));
        const float shrink = exp2_fast(rows.most[half] - most);
        rows.most[half] = most;
        float sum = rows.sum[half] * shrink;
        UNROLL for (int n = 0; n < KEYS / 8; n++) {
            UNROLL for (int i = 2 * half; i < 2 * half + 2; i++) {
                scores[n][i] = exp2_fast(scores[n][i] - most);
                sum += scores[n][i];
            }
        }
        rows.sum[half] = sum;
        UNROLL for (int n = 0; n < D / 8; n++) {
            out[n][2 * half] *= shrink;
            out[n][2 * half + 1] *= shrink;
        }
    }
}

template <typename T, int D>
DEVICE void store_rows(T* to, size_t hidden, const float (&out)[D / 8][4], const Rows& rows, int first, int len) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    UNROLL for (int half = 0; half < 2; half++) {
        float sum = rows.sum[half];
        sum += shuffle_xor(sum, 1);
        sum += shuffle_xor(sum, 2);
        const float scale = 1.0f / sum;
        const int query = first + lane / 4 + 8 * half;
        if (query >= len) continue;
        T* row = to + static_cast<size_t>(query) * hidden + lane % 4 * 2;
        UNROLL for (int n = 0; n < D / 8; n++) {
            *reinterpret_cast<unsigned*>(row + n * 8) =
                Pair<T>::pack(out[n][2 * half] * scale, out[n][2 * half + 1] * scale);
        }
    }
}

// Shared memory: keys, then values, each as many blocks as there are stages. WARPS of 1 and 2 see all keys
// in their first block, so they have one stage.
template <typename T, int D, int WARPS>
DEVICE void attention(const AttentionArgs& args) {
    constexpr int KEYS = WARPS * WARP_QUERIES;
    constexpr int STAGES = WARPS == 4 ? 2 : 1;
    using Keys = Block<T, D, KEYS>;
    T* keys = block_memory<T>();
    T* values = keys + STAGES * Keys::VALUES;

    const Tile tile = args.tiles[blockIdx.x];
    const int len = static_cast<int>(tile.len);
    // A place that this batch leaves empty.
    if (len == 0) return;
    const size_t hidden = args.hidden, row = 3 * hidden;
    const T* from = static_cast<const T*>(args.qkv) + tile.start * row + blockIdx.y * D;
    const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
    const int first = static_cast<int>(tile.query) + warp * WARP_QUERIES;
    // Address of the bias of offset 0 for this head.
    const float* bias = args.bias ? args.bias + blockIdx.y * (2 * args.reach - 1) + args.reach - 1 : nullptr;

    unsigned queries[D / 16][4];
    load_queries<T, D>(queries, from, row, first, len);
    float out[D / 8][4] = {};
    Rows rows = {{MINUS_INFINITY, MINUS_INFINITY}, {0.0f, 0.0f}};

    auto fetch = [&](int block) {
        const int stage = block % STAGES;
        Keys::template fetch<32 * WARPS>(keys + stage * Keys::VALUES, from + hidden, row, block * KEYS, len);
        Keys::template fetch<32 * WARPS>(values + stage * Keys::VALUES, from + 2 * hidden, row, block * KEYS, len);
    };
    fetch(0);
    copy_group();
    for (int block = 0; block * KEYS < len; block++) {
        if (STAGES > 1 && (block + 1) * KEYS < len) fetch(block + 1);
        // Empty at the end, so that the same number may be left on its way each time.
        copy_group();
        copy_wait<1>();
        block_barrier();
        // A warp without a query of this text only helps to fetch.
        if (first < len) {
            float scores[KEYS / 8][4];
            multiply_keys<T, D, KEYS>(scores, queries, keys + block % STAGES * Keys::VALUES);
            soften<D, KEYS>(scores, out, rows, args, bias, first + lane / 4, block * KEYS + lane % 4 * 2, len);
            multiply_values<T, D, KEYS>(out, scores, values + block % STAGES * Keys::VALUES);
        }
        // The next round's fetches overwrite the values that this round has read.
        block_barrier();
    }
    if (first < len) {
        T* to = static_cast<T*>(args.out) + tile.start * hidden + blockIdx.y * D;
        store_rows<T, D>(to, hidden, out, rows, first, len);
    }
}

#define ATTENTION_OF(T, D, WARPS)                                                                          \
    DEVICE void attention_##T##_##D##_body_##WARPS(const AttentionArgs& args) { attention<T, D, WARPS>(args); } \
    KERNEL(attention_##T##_##D##_x##WARPS, 32 * WARPS, attention_##T##_##D##_body_##WARPS, AttentionArgs)

#define ATTENTION(T, D)   \
    ATTENTION_OF(T, D, 1) \
    ATTENTION_OF(T, D, 2) \
    ATTENTION_OF(T, D, 4)

#define ATTENTION_HEADS(T) \
    ATTENTION(T, 32)       \
    ATTENTION(T, 64)       \
    ATTENTION(T, 80)       \
    ATTENTION(T, 96)       \
    ATTENTION(T, 128)

ATTENTION_HEADS(f16)
ATTENTION_HEADS(bf16)

KERNEL(attention_f32, 32 * F32_WARPS, attention_f32_body, AttentionArgs)
