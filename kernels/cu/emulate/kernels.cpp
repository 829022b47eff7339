// The kernels, compiled for the processor as they stand.

#include "../activation.cu"
#include "../attention.cu"
#include "../embedding.cu"
#include "../layer_norm.cu"
#include "../pool.cu"
