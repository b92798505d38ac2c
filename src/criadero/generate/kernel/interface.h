// What Python hands over, field by field as cpu_kernel.py has it.

#pragma once

#include <cstdint>

extern "C" {

struct Matrix {
    const void* values;  // float32, bfloat16 or codes, row after row
    const void* scales;
    const void* mins;
    int64_t rows, columns;
    int32_t bits;  // 32, 16 (bfloat16), 8 or 4
    int32_t group;
    int32_t half_scales, half_mins;
};

struct Layer {
    const float* attention_norm;
    const float* feed_forward_norm;
    Matrix q, k, v, o, gate, up, down;
};

struct Model {
    int64_t dim, hidden_dim, num_heads, num_kv_heads, head_dim, vocab_size, num_layers;
    double norm_eps;
    const float* inverse_frequencies;
    const float* norm;
    const Layer* layers;
    Matrix embedding, output;
    int64_t block_tokens;
    int64_t threads;
};

struct Step {
    int64_t batch, table_columns, num_blocks;
    int64_t cache_bits;  // 32 or 16 (bfloat16)
    const int64_t* tokens;
    const int64_t* positions;
    const int32_t* tables;
    void* keys;
    void* values;
    int64_t scored;  // how many of the last vectors get logits: all, one or none
    float* logits;
};
}
