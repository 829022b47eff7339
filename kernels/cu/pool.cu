// One row for each text of the batch, in one launch: its first row, or the mean of its rows. A text without
// tokens is a place that this batch leaves empty, and its row is left as it is.

#include "number.cuh"

struct PoolArgs {
    const void* x;
    const unsigned* cu_seqlens;
    void* out;
    unsigned cols;
    unsigned unused;
};

// A block takes 32 runs of columns of one text; its warps share the text's rows.
constexpr int POOL_WARPS = 8;
constexpr int POOL_THREADS = 32 * POOL_WARPS;

template <typename T>
DEVICE void pool_mean(const PoolArgs& args) {
    constexpr int WIDTH = Wide<T>::COUNT;
    const unsigned text = blockIdx.x;
    const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const unsigned column = (blockIdx.y * 32 + lane) * WIDTH;
    const unsigned start = args.cu_seqlens[text], end = args.cu_seqlens[text + 1];
    if (start == end) return;
    float sum[WIDTH] = {};
    if (column < args.cols) {
        const T* x = static_cast<const T*>(args.x) + column;
        for (unsigned row = start + warp; row < end; row += POOL_WARPS) {
            float values[WIDTH];
            Wide<T>::load(x + static_cast<size_t>(row) * args.cols, values);
            UNROLL for (int i = 0; i < WIDTH; i++) sum[i] += values[i];
        }
    }
    // Neighbouring threads write neighbouring words: [warp][value][lane].
    float* sums = block_memory<float>();
    UNROLL for (int i = 0; i < WIDTH; i++) sums[(warp * WIDTH + i) * 32 + lane] = sum[i];
    block_barrier();
    if (warp == 0 && column < args.cols) {
        UNROLL for (int i = 0; i < WIDTH; i++) {
            float total = 0.0f;
            UNROLL for (int w = 0; w < POOL_WARPS; w++) total += sums[(w * WIDTH + i) * 32 + lane];
            sum[i] = total / static_cast<float>(end - start);
        }
        Wide<T>::store(static_cast<T*>(args.out) + static_cast<size_t>(text) * args.cols + column, sum);
    }
}

template <typename T>
DEVICE void pool_cls(const PoolArgs& args) {
    constexpr int WIDTH = Wide<T>::COUNT;
    const unsigned text = blockIdx.x;
    const unsigned column = (blockIdx.y * POOL_THREADS + threadIdx.x) * WIDTH;
    const unsigned start = args.cu_seqlens[text], end = args.cu_seqlens[text + 1];
    if (column >= args.cols || start == end) return;
    const size_t from = static_cast<size_t>(start) * args.cols + column;
    const size_t to = static_cast<size_t>(text) * args.cols + column;
    *reinterpret_cast<uint4*>(static_cast<T*>(args.out) + to) =
        *reinterpret_cast<const uint4*>(static_cast<const T*>(args.x) + from);
}

KERNEL(pool_mean_f32, POOL_THREADS, pool_mean<f32>, PoolArgs)
KERNEL(pool_mean_f16, POOL_THREADS, pool_mean<f16>, PoolArgs)
KERNEL(pool_mean_bf16, POOL_THREADS, pool_mean<bf16>, PoolArgs)
KERNEL(pool_cls_f32, POOL_THREADS, pool_cls<f32>, PoolArgs)
KERNEL(pool_cls_f16, POOL_THREADS, pool_cls<f16>, PoolArgs)
KERNEL(pool_cls_bf16, POOL_THREADS, pool_cls<bf16>, PoolArgs)
