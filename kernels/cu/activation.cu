// x = activation(x) over a whole matrix, in place; the bias is in it already.

#include "number.cuh"

struct ActivationArgs {
    void* x;
    unsigned long long count;  // a multiple of 8
};

constexpr int ACTIVATION_THREADS = 256;

struct Gelu {
    static DEVICE float of(float x) { return 0.5f * x * (1.0f + erff(x * 0.70710678f)); }
};
struct GeluTanh {
    static DEVICE float of(float x) {
        return 0.5f * x * (1.0f + tanhf(0.79788456f * (x + 0.044715f * x * x * x)));
    }
};
struct Relu {
    // Written so that NaN stays NaN.
    static DEVICE float of(float x) { return x < 0.0f ? 0.0f : x; }
};
struct Tanh {
    static DEVICE float of(float x) { return tanhf(x); }
};

template <typename T, typename F>
DEVICE void activation(const ActivationArgs& args) {
    constexpr int WIDTH = Wide<T>::COUNT;
    const unsigned long long thread = static_cast<unsigned long long>(blockIdx.x) * ACTIVATION_THREADS + threadIdx.x;
    const unsigned long long at = thread * WIDTH;
    if (at >= args.count) return;
    T* x = static_cast<T*>(args.x) + at;
    float values[WIDTH];
    Wide<T>::load(x, values);
    UNROLL for (int i = 0; i < WIDTH; i++) values[i] = F::of(values[i]);
    Wide<T>::store(x, values);
}

#define ACTIVATION(name, F)                                                                   \
    DEVICE void name##_in_f32(const ActivationArgs& args) { activation<f32, F>(args); }       \
    DEVICE void name##_in_f16(const ActivationArgs& args) { activation<f16, F>(args); }       \
    DEVICE void name##_in_bf16(const ActivationArgs& args) { activation<bf16, F>(args); }     \
    KERNEL(name##_f32, ACTIVATION_THREADS, name##_in_f32, ActivationArgs)                     \
    KERNEL(name##_f16, ACTIVATION_THREADS, name##_in_f16, ActivationArgs)                     \
    KERNEL(name##_bf16, ACTIVATION_THREADS, name##_in_bf16, ActivationArgs)

ACTIVATION(gelu, Gelu)
ACTIVATION(gelu_tanh, GeluTanh)
ACTIVATION(relu, Relu)
ACTIVATION(tanh, Tanh)
