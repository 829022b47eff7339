// out = norm(word[id] + position[position] + kind[kind]), a warp for each token.

#include "rows.cuh"

struct EmbeddingArgs {
    const unsigned* ids;
    const unsigned* positions;  // null: the family has no position table
    const unsigned* kinds;      // null: every token is of type 0
    const float* word;
    const float* position;  // null as `positions`
    const float* kind;      // null: the family has no types
    const float* gamma;
    const float* beta;
    void* out;
    unsigned rows;
    unsigned cols;
    float eps;
    unsigned unused;
};

template <typename T>
DEVICE void add_row(Row<T>& sum, const float* table, unsigned row, int cols) {
    const float* from = table + static_cast<size_t>(row) * cols;
    UNROLL for (int i = 0; i < Row<T>::PARTS; i++) {
        if (Row<T>::column(i) < cols) {
            float values[Row<T>::WIDTH];
            load_floats(from + Row<T>::column(i), values);
            UNROLL for (int j = 0; j < Row<T>::WIDTH; j++) sum.parts[i][j] += values[j];
        }
    }
}

template <typename T>
DEVICE void embedding(const EmbeddingArgs& args) {
    const unsigned token = blockIdx.x * ROWS_PER_BLOCK + threadIdx.x / 32;
    if (token >= args.rows) return;
    const int cols = static_cast<int>(args.cols);
    Row<T> sum = {};
    add_row(sum, args.word, args.ids[token], cols);
    if (args.position) add_row(sum, args.position, args.positions[token], cols);
    if (args.kind) add_row(sum, args.kind, args.kinds ? args.kinds[token] : 0, cols);
    T* out = static_cast<T*>(args.out) + static_cast<size_t>(token) * cols;
    sum.normalise_into(out, args.gamma, args.beta, args.eps, cols);
}

KERNEL(embedding_f32, ROW_THREADS, embedding<f32>, EmbeddingArgs)
KERNEL(embedding_f16, ROW_THREADS, embedding<f16>, EmbeddingArgs)
KERNEL(embedding_bf16, ROW_THREADS, embedding<bf16>, EmbeddingArgs)
