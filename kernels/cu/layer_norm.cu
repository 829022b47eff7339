// sum = norm(sum + x), a warp for each row. The bias of x is in it already, from the product's epilogue.

#include "rows.cuh"

struct LayerNormArgs {
    const void* x;
    void* sum;
    const float* gamma;
    const float* beta;
    unsigned rows;
    unsigned cols;
    float eps;
    unsigned unused;
};

template <typename T>
DEVICE void layer_norm(const LayerNormArgs& args) {
    const unsigned row = blockIdx.x * ROWS_PER_BLOCK + threadIdx.x / 32;
    if (row >= args.rows) return;
    const int cols = static_cast<int>(args.cols);
    const T* x = static_cast<const T*>(args.x) + static_cast<size_t>(row) * cols;
    T* sum = static_cast<T*>(args.sum) + static_cast<size_t>(row) * cols;
    Row<T> values = {};
    UNROLL for (int i = 0; i < Row<T>::PARTS; i++) {
        if (Row<T>::column(i) < cols) {
            float other[Row<T>::WIDTH];
            Wide<T>::load(sum + Row<T>::column(i), values.parts[i]);
            Wide<T>::load(x + Row<T>::column(i), other);
            UNROLL for (int j = 0; j < Row<T>::WIDTH; j++) values.parts[i][j] += other[j];
        }
    }
    values.normalise_into(sum, args.gamma, args.beta, args.eps, cols);
}

KERNEL(layer_norm_f32, ROW_THREADS, layer_norm<f32>, LayerNormArgs)
KERNEL(layer_norm_f16, ROW_THREADS, layer_norm<f16>, LayerNormArgs)
KERNEL(layer_norm_bf16, ROW_THREADS, layer_norm<bf16>, LayerNormArgs)
