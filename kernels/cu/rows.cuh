// One row for each warp, held in registers; shared by embedding and layer_norm.
#pragma once

#include "number.cuh"

// Rows that one block of 128 threads takes.
constexpr int ROWS_PER_BLOCK = 4;
constexpr int ROW_THREADS = 32 * ROWS_PER_BLOCK;
// Columns of a row at most; the host refuses more.
constexpr int ROW_COLS_MAX = 1024;

// The same order for every lane, so that all get the same sum to the last bit.
DEVICE float warp_sum(float value) {
    UNROLL for (int mask = 16; mask > 0; mask /= 2) value += shuffle_xor(value, mask);
    return value;
}

template <typename T>
struct Row {
    static constexpr int WIDTH = Wide<T>::COUNT;
    static constexpr int PARTS = ROW_COLS_MAX / (32 * WIDTH);

    float parts[PARTS][WIDTH];

    // Column where part `i` of this lane begins.
    static DEVICE int column(int i) { return (i * 32 + static_cast<int>(threadIdx.x) % 32) * WIDTH; }

    // gamma * (x - mean) / sqrt(variance + eps) + beta, written to `out`.
    DEVICE void normalise_into(T* out, const float* gamma, const float* beta, float eps, int cols) {
        float sum = 0.0f;
        UNROLL for (int i = 0; i < PARTS; i++) {
            if (column(i) < cols) {
                UNROLL for (int j = 0; j < WIDTH; j++) sum += parts[i][j];
            }
        }
        const float mean = warp_sum(sum) / static_cast<float>(cols);
        float squares = 0.0f;
        UNROLL for (int i = 0; i < PARTS; i++) {
            if (column(i) < cols) {
                UNROLL for (int j = 0; j < WIDTH; j++) {
                    const float off = parts[i][j] - mean;
                    squares += off * off;
                }
            }
        }
        const float scale = rsqrt_of(warp_sum(squares) / static_cast<float>(cols) + eps);
        UNROLL for (int i = 0; i < PARTS; i++) {
            if (column(i) < cols) {
                float g[WIDTH], b[WIDTH];
                load_floats(gamma + column(i), g);
                load_floats(beta + column(i), b);
                UNROLL for (int j = 0; j < WIDTH; j++) {
                    parts[i][j] = (parts[i][j] - mean) * scale * g[j] + b[j];
                }
                Wide<T>::store(out + column(i), parts[i]);
            }
        }
    }
};
