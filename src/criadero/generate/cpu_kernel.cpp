// One decode step of a LLaMA on the CPU: a plain C interface, loaded with ctypes by cpu_kernel.py.
//
// Entry points: criadero_create, criadero_step, criadero_destroy. A step is a list of phases (a norm, some rows
// of some matrices, attention), each cut into chunks that threads take one after the other. A phase ends when its
// chunks are done, not when all threads have come by: a thread that the machine takes away holds nobody up unless
// it is inside a chunk. Every number is made by one thread in one fixed order, so results depend neither on the
// number of threads nor on what else is in the batch.
//
// Weights are float32, bfloat16, or 4- or 8-bit codes with a scale and a minimum per group of columns; for the
// last two, activations are rounded to int8 in groups of 32 columns. AVX-512 VNNI and AVX2 where the compiler has
// them, plain loops elsewhere. Letters as in docs/notation.md.

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <new>
#include <thread>
#include <vector>
#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#endif
#if defined(__AVX512VNNI__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512DQ__)
#define WITH_AVX512 1
#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#define WITH_AVX2 1
#endif
#define INLINE inline __attribute__((always_inline))

namespace {

// ---------------------------------------------------------------- sixteen lanes

constexpr int LANES = 16;
typedef float Floats __attribute__((vector_size(64)));
typedef int32_t Ints __attribute__((vector_size(64)));
typedef uint16_t Shorts __attribute__((vector_size(32)));
typedef int8_t Bytes __attribute__((vector_size(16)));
typedef uint32_t Words __attribute__((vector_size(64)));

INLINE Floats multiply_add(Floats a, Floats b, Floats c) {
#if WITH_AVX512
    return (Floats)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif WITH_AVX2
    union Both { Floats all; __m256 half[2]; } x{a}, y{b}, z{c};
    for (int i = 0; i < 2; ++i) z.half[i] = _mm256_fmadd_ps(x.half[i], y.half[i], z.half[i]);
    return z.all;
#else
    return a * b + c;
#endif
}

INLINE float sum_of_lanes(Floats a) {
#if WITH_AVX512
    return _mm512_reduce_add_ps((__m512)a);
#else
    for (int width = LANES / 2; width; width /= 2)
        for (int i = 0; i < width; ++i) a[i] += a[i + width];
    return a[0];
#endif
}

// Lane i is the sum of a[i]'s lanes.
INLINE Floats sums_of_lanes(const Floats* a) {
#if WITH_AVX512
    __m512 pairs[8], fours[4], halves[2];
    for (int i = 0; i < 8; ++i) {
        __m512 x = (__m512)a[2 * i], y = (__m512)a[2 * i + 1];
        pairs[i] = _mm512_add_ps(_mm512_unpacklo_ps(x, y), _mm512_unpackhi_ps(x, y));
    }
    for (int i = 0; i < 4; ++i) {
        __m512d x = _mm512_castps_pd(pairs[2 * i]), y = _mm512_castps_pd(pairs[2 * i + 1]);
        fours[i] = _mm512_add_ps(
            _mm512_castpd_ps(_mm512_unpacklo_pd(x, y)), _mm512_castpd_ps(_mm512_unpackhi_pd(x, y)));
    }
    auto join = [](__m512 x, __m512 y) {
        return _mm512_add_ps(_mm512_shuffle_f32x4(x, y, 0x88), _mm512_shuffle_f32x4(x, y, 0xDD));
    };
    for (int i = 0; i < 2; ++i) halves[i] = join(fours[2 * i], fours[2 * i + 1]);
    return (Floats)join(halves[0], halves[1]);
#else
    Floats sums;
    for (int i = 0; i < LANES; ++i) sums[i] = sum_of_lanes(a[i]);
    return sums;
#endif
}

INLINE Floats larger(Floats a, Floats b) { return a > b ? a : b; }

INLINE float largest_lane(Floats a) {
#if WITH_AVX512
    return _mm512_reduce_max_ps((__m512)a);
#else
    float largest = a[0];
    for (int i = 1; i < LANES; ++i) largest = a[i] > largest ? a[i] : largest;
    return largest;
#endif
}

INLINE Floats all_lanes(float x) { return x - Floats{}; }

INLINE Floats load(const float* p) {
    Floats a;
    memcpy(&a, p, sizeof a);
    return a;
}

INLINE void store(float* p, Floats a) { memcpy(p, &a, sizeof a); }

struct BFloat16 { uint16_t bits; };

INLINE Floats load(const BFloat16* p) {
    Shorts a;
    memcpy(&a, p, sizeof a);
    return (Floats)(__builtin_convertvector(a, Words) << 16);
}

INLINE float to_float(float x) { return x; }

INLINE float to_float(BFloat16 x) {
    uint32_t word = (uint32_t)x.bits << 16;
    float value;
    memcpy(&value, &word, 4);
    return value;
}

INLINE void from_float(float x, float* out) { *out = x; }

INLINE void from_float(float x, BFloat16* out) {  // to nearest even, as torch rounds
    uint32_t word;
    memcpy(&word, &x, 4);
    out->bits = std::isnan(x) ? 0x7FC0 : (word + 0x7FFF + ((word >> 16) & 1)) >> 16;
}

struct Half { uint16_t bits; };

INLINE float to_float(Half x) {
#if defined(__F16C__)
    return _cvtsh_ss(x.bits);
#else
    uint32_t sign = (uint32_t)(x.bits & 0x8000) << 16, exponent = x.bits >> 10 & 31, mantissa = x.bits & 1023;
    if (exponent == 0) {
        float value = mantissa * 0x1p-24f;
        return sign ? -value : value;
    }
    uint32_t word = sign | (exponent == 31 ? 255 : exponent + 112) << 23 | mantissa << 13;
    float value;
    memcpy(&value, &word, 4);
    return value;
#endif
}

INLINE Floats load(const Half* p) {
#if WITH_AVX512
    return (Floats)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p));
#else
    Floats a;
    for (int i = 0; i < LANES; ++i) a[i] = to_float(p[i]);
    return a;
#endif
}

// The first `count` of sixteen, zeros after them; reads nothing behind them.
#if WITH_AVX512
INLINE __mmask16 first_lanes(int64_t count) { return (__mmask16)((1u << count) - 1); }
INLINE Floats load_first(const float* p, int64_t count) {
    return (Floats)_mm512_maskz_loadu_ps(first_lanes(count), p);
}
INLINE Floats load_first(const Half* p, int64_t count) {
    return (Floats)_mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first_lanes(count), p));
}
INLINE Floats load_first(const BFloat16* p, int64_t count) {
    __m256i bits = _mm256_maskz_loadu_epi16(first_lanes(count), p);
    return (Floats)_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16);
}
#else
template <class T> INLINE Floats load_first(const T* p, int64_t count) {
    T some[LANES] = {};
    memcpy(some, p, count * sizeof(T));
    return load(some);
}
#endif
template <class T> INLINE Floats load_some(const T* p, int64_t count) {
    return count >= LANES ? load(p) : load_first(p, count);
}

// e^x for x <= 0, to about one unit in the last place; below e^-87 that.
INLINE Floats exponential(Floats x) {
    x = x < -87.0f ? all_lanes(-87.0f) : x;
    Ints power = __builtin_convertvector(x * 1.44269504f - 0.5f, Ints);  // towards zero, so to nearest
    Floats n = __builtin_convertvector(power, Floats);
    x = multiply_add(n, all_lanes(-0.693359375f), x);
    x = multiply_add(n, all_lanes(2.12194440e-4f), x);
    Floats y = all_lanes(1.9875691500e-4f);
    for (float c : {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f})
        y = multiply_add(y, x, all_lanes(c));
    y = multiply_add(y, x * x, x) + 1.0f;
    return y * (Floats)((power + 127) << 23);
}

INLINE Floats silu(Floats x) {
    Floats e = exponential(x < 0.0f ? x : -x);
    return (x < 0.0f ? x * e : x) / (1.0f + e);
}

// ---------------------------------------------------------------- what Python hands over

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

// ---------------------------------------------------------------- activations

constexpr int64_t INT8_COLUMNS = 32;  // that share a scale

// Columns with the zeros behind them: whole vectors of any kind.
int64_t padded(int64_t columns) { return (columns + 255) / 256 * 256; }

// One vector as the matrices want it. Its int8 codes lie in units of what 64 bytes of weights are multiplied by; the
// units of up to eight vectors that are used together (`count`) take turns, so that one address leads to all.
struct Activation {
    static constexpr int64_t UNIT4 = 192;  // 64 even columns, 64 odd ones (the order of 4-bit codes), 16 scales
    static constexpr int64_t UNIT8 = 128;  // 64 columns, 16 scales

    float* x;
    char *units4, *units8;
    int64_t count;
    float* sums[3];  // over groups of 16, 32 and 64 columns

    static int64_t bytes(int64_t columns) { return columns * (4 + 3) + columns * 3 / 2 + columns + 3 * LANES * 4; }

    // The place `index` among `count` vectors that share `memory`.
    void place(char* memory, int64_t columns, int64_t index, int64_t all) {
        auto take = [&](int64_t size) { char* start = memory; memory += all * size; return start; };
        count = all;
        x = (float*)take(columns * 4) + index * columns;
        units4 = take(columns / 128 * UNIT4) + index * UNIT4;
        units8 = take(columns / 64 * UNIT8) + index * UNIT8;
        for (int i = 0; i < 3; ++i) {
            int64_t size = (columns / 16 >> i) + LANES;
            sums[i] = (float*)take(size * 4) + index * size;
        }
    }
};

// How many of the vectors that are left are used together.
int64_t together(int64_t left) { return left >= 8 ? 8 : left >= 4 ? 4 : left >= 2 ? 2 : 1; }

// Rounds x, whose padding is zero, to int8 in groups of 32 columns. What is not finite makes a scale that is not.
void round_to_int8(Activation& a, int64_t columns) {
    const int64_t all = padded(columns);
    int8_t codes[INT8_COLUMNS];
    for (int64_t c = 0; c < all; c += INT8_COLUMNS) {
        Floats x[2] = {load(a.x + c), load(a.x + c + LANES)};
        float largest = largest_lane(larger(x[0] < 0.0f ? -x[0] : x[0], x[1] < 0.0f ? -x[1] : x[1]));
        float scale = largest / 127.0f + sum_of_lanes((x[0] + x[1]) * 0.0f);
        Floats inverse = all_lanes(largest > 0.0f ? 127.0f / largest : 0.0f);
        for (int i = 0; i < 2; ++i) {
            Floats scaled = x[i] * inverse;
            Ints whole = __builtin_convertvector(scaled + (scaled < 0.0f ? all_lanes(-0.5f) : all_lanes(0.5f)), Ints);
            Bytes bytes = __builtin_convertvector(whole, Bytes);
            memcpy(codes + i * LANES, &bytes, sizeof bytes);
            a.sums[0][c / 16 + i] = scale * sum_of_lanes(__builtin_convertvector(whole, Floats));
        }
        a.sums[1][c / 32] = a.sums[0][c / 16] + a.sums[0][c / 16 + 1];
        char* unit4 = a.units4 + c / 128 * a.count * Activation::UNIT4;
        char* unit8 = a.units8 + c / 64 * a.count * Activation::UNIT8;
        for (int64_t i = 0; i < 16; ++i) {
            unit4[c % 128 / 2 + i] = codes[2 * i];
            unit4[64 + c % 128 / 2 + i] = codes[2 * i + 1];
        }
        for (int i = 0; i < 4; ++i) ((float*)(unit4 + 128))[c % 128 / 8 + i] = scale;
        memcpy(unit8 + c % 64, codes, INT8_COLUMNS);
        for (int i = 0; i < 8; ++i) ((float*)(unit8 + 64))[c % 64 / 4 + i] = scale;
    }
    for (int64_t g = 0; g < all / 64; ++g) a.sums[2][g] = a.sums[1][2 * g] + a.sums[1][2 * g + 1];
    for (int i = 0; i < 3; ++i) memset(a.sums[i] + (all / 16 >> i), 0, LANES * sizeof(float));
}

// ---------------------------------------------------------------- rows of a matrix times some vectors

// Sixty-four bytes of codes.
#if WITH_AVX512
typedef __m512i Codes;
INLINE Codes load_codes(const uint8_t* p, int64_t count) {
    return count >= 64 ? _mm512_loadu_si512(p) : _mm512_maskz_loadu_epi8(~0ull >> (64 - count), p);
}
INLINE Codes low(Codes c) { return _mm512_and_si512(c, _mm512_set1_epi8(15)); }
INLINE Codes high(Codes c) { return low(_mm512_srli_epi16(c, 4)); }
// The sums of four products each.
INLINE Ints products(Ints sum, Codes c, const char* x) {
    return (Ints)_mm512_dpbusd_epi32((__m512i)sum, c, _mm512_loadu_si512(x));
}
INLINE Ints products4(Codes c, const char* even, const char* odd) {
    return products(products(Ints{}, low(c), even), high(c), odd);
}
INLINE Ints products8(Codes c, const char* x) { return products(Ints{}, c, x); }
#elif WITH_AVX2
struct Codes { __m256i half[2]; };
INLINE Codes load_codes(const uint8_t* p, int64_t count) {
    Codes c;
    if (count >= 64) {
        memcpy(&c, p, 64);
    } else {
        memset(&c, 0, 64);
        memcpy(&c, p, count);
    }
    return c;
}
INLINE __m256i load256(const char* p) { return _mm256_loadu_si256((const __m256i*)p); }
INLINE Ints products4(Codes c, const char* even, const char* odd) {
    union { Ints all; __m256i half[2]; } sum;
    const __m256i fifteen = _mm256_set1_epi8(15);
    for (int i = 0; i < 2; ++i) {  // 2 * 2 * 15 * 127 fits 16 bits
        __m256i low = _mm256_and_si256(c.half[i], fifteen);
        __m256i high = _mm256_and_si256(_mm256_srli_epi16(c.half[i], 4), fifteen);
        __m256i pairs = _mm256_add_epi16(
            _mm256_maddubs_epi16(low, load256(even + 32 * i)), _mm256_maddubs_epi16(high, load256(odd + 32 * i)));
        sum.half[i] = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
    }
    return sum.all;
}
INLINE Ints products8(Codes c, const char* x) {
    union { Ints all; __m256i half[2]; } sum;
    for (int i = 0; i < 2; ++i) {  // 2 * 255 * 127 does not fit 16 bits
        __m256i v = load256(x + 32 * i), pairs[2];
        for (int j = 0; j < 2; ++j) {
            __m128i codes = j ? _mm256_extracti128_si256(c.half[i], 1) : _mm256_castsi256_si128(c.half[i]);
            __m128i values = j ? _mm256_extracti128_si256(v, 1) : _mm256_castsi256_si128(v);
            pairs[j] = _mm256_madd_epi16(_mm256_cvtepu8_epi16(codes), _mm256_cvtepi8_epi16(values));
        }
        sum.half[i] = _mm256_permute4x64_epi64(_mm256_hadd_epi32(pairs[0], pairs[1]), 0xD8);
    }
    return sum.all;
}
#else
struct Codes { uint8_t byte[64]; };
INLINE Codes load_codes(const uint8_t* p, int64_t count) {
    Codes c = {};
    memcpy(&c, p, count >= 64 ? 64 : count);
    return c;
}
INLINE Ints products4(Codes c, const char* even, const char* odd) {
    int32_t sum[LANES];
    for (int lane = 0; lane < LANES; ++lane) {
        sum[lane] = 0;
        for (int i = 4 * lane; i < 4 * lane + 4; ++i)
            sum[lane] += (c.byte[i] & 15) * (int8_t)even[i] + (c.byte[i] >> 4) * (int8_t)odd[i];
    }
    Ints result;
    memcpy(&result, sum, sizeof result);
    return result;
}
INLINE Ints products8(Codes c, const char* x) {
    int32_t sum[LANES];
    for (int lane = 0; lane < LANES; ++lane) {
        sum[lane] = 0;
        for (int i = 4 * lane; i < 4 * lane + 4; ++i) sum[lane] += c.byte[i] * (int8_t)x[i];
    }
    Ints result;
    memcpy(&result, sum, sizeof result);
    return result;
}
#endif

// Spreads the scales of one unit of codes over the lanes that belong to each.
struct Spread {
    int count;  // scales in a unit, 1 to 8
#if WITH_AVX512
    __m512i index;
    Spread(int lanes_each) : count(LANES / lanes_each) {
        Ints lanes;
        for (int i = 0; i < LANES; ++i) lanes[i] = i / lanes_each;
        index = (__m512i)lanes;
    }
    static INLINE __mmask8 first(int64_t count) { return (__mmask8)((1u << count) - 1); }
    INLINE Floats operator()(const Half* p, __mmask8 mask) const {
        __m256 values = _mm256_cvtph_ps(_mm_maskz_loadu_epi16(mask, p));
        return (Floats)_mm512_permutexvar_ps(index, _mm512_castps256_ps512(values));
    }
    INLINE Floats operator()(const float* p, __mmask8 mask) const {
        return (Floats)_mm512_permutexvar_ps(index, _mm512_castps256_ps512(_mm256_maskz_loadu_ps(mask, p)));
    }
#else
    int lanes_each;
    Spread(int lanes) : count(LANES / lanes), lanes_each(lanes) {}
    static INLINE int64_t first(int64_t count) { return count; }
    template <class S> INLINE Floats operator()(const S* p, int64_t left) const {
        float values[LANES];
        for (int i = 0; i < count; ++i) {
            float value = i < left ? to_float(p[i]) : 0.0f;
            for (int lane = i * lanes_each; lane < (i + 1) * lanes_each; ++lane) values[lane] = value;
        }
        return load(values);
    }
#endif
};

template <int N, class S> INLINE void add_mins(const S* mins, int64_t groups, float* const* sums, Floats* total) {
    for (int64_t g = 0; g < groups; g += LANES) {
        Floats some = load_some(mins + g, groups - g);
        for (int n = 0; n < N; ++n) total[n] = multiply_add(some, load(sums[n] + g), total[n]);
    }
}

// Asks for weights before their turn: processors do not foresee across the end of a memory page.
INLINE void prefetch(const void* p) { __builtin_prefetch(p); }

// Adds what 64 bytes of codes give with N vectors.
template <int BITS, int N> INLINE void add_unit(Codes c, Floats scale, const char* units, Floats* total) {
    for (int n = 0; n < N; ++n) {
        const char* x = units + n * (BITS == 4 ? Activation::UNIT4 : Activation::UNIT8);
        Ints sum = BITS == 4 ? products4(c, x, x + 64) : products8(c, x);
        Floats lanes = load((const float*)(x + (BITS == 4 ? 128 : 64)));
        total[n] = multiply_add(__builtin_convertvector(sum, Floats) * lanes, scale, total[n]);
    }
}

// Gives the sums of some rows with N vectors: `totals` has a vector's rows side by side, as many as fit.
template <int N> INLINE void write_sums(const Floats* totals, int64_t rows, float* out, int64_t stride) {
    constexpr int64_t all = LANES / N;
    Floats sums = sums_of_lanes(totals);
    for (int n = 0; n < N; ++n)
        for (int64_t r = 0; r < all; ++r)
            if (r < rows) out[n * stride + r] = sums[n * all + r];
}

// Row `first` is written to out[n * stride], the others behind it, for each of N vectors.
template <int BITS, class S, int N>
void quantised_rows(const Matrix& m, int64_t first, int64_t last, const Activation* a, float* out, int64_t stride) {
    constexpr int64_t unit_bytes = N * (BITS == 4 ? Activation::UNIT4 : Activation::UNIT8), rows = LANES / N;
    const int64_t groups = m.columns / m.group, row_bytes = m.columns * BITS / 8, whole = row_bytes / 64;
    const Spread spread(m.group * BITS / 32);
    const auto every = Spread::first(spread.count), rest = Spread::first(groups - whole * spread.count);
    float* sums[N];
    Floats totals[LANES] = {};
    for (int n = 0; n < N; ++n) sums[n] = a[n].sums[m.group / 32];  // 16, 32, 64: 0, 1, 2
    for (int64_t row = first; row < last; ++row) {
        const uint8_t* codes = (const uint8_t*)m.values + row * row_bytes;
        const S* scales = (const S*)m.scales + row * groups;
        const char* units = BITS == 4 ? a->units4 : a->units8;
        Floats total[N] = {};
        prefetch(scales + groups * 8);
        prefetch((const char*)m.mins + (row + 8) * groups * (m.half_mins ? 2 : 4));
        for (int64_t u = 0; u < whole; ++u, units += unit_bytes) {
            prefetch(codes + u * 64 + 2048);
            add_unit<BITS, N>(load_codes(codes + u * 64, 64), spread(scales + u * spread.count, every), units, total);
        }
        if (row_bytes % 64) {
            Floats scale = spread(scales + whole * spread.count, rest);
            add_unit<BITS, N>(load_codes(codes + whole * 64, row_bytes % 64), scale, units, total);
        }
        if (m.half_mins)
            add_mins<N>((const Half*)m.mins + row * groups, groups, sums, total);
        else
            add_mins<N>((const float*)m.mins + row * groups, groups, sums, total);
        const int64_t r = (row - first) % rows;
        for (int n = 0; n < N; ++n) totals[n * rows + r] = total[n];
        if (r == rows - 1 || row == last - 1) write_sums<N>(totals, r + 1, out + row - first - r, stride);
    }
}

template <class T, int N>
void plain_rows(const Matrix& m, int64_t first, int64_t last, const Activation* a, float* out, int64_t stride) {
    constexpr int64_t rows = LANES / N;
    Floats totals[LANES] = {};
    for (int64_t row = first; row < last; ++row) {
        const T* weights = (const T*)m.values + row * m.columns;
        Floats total[N] = {};
        for (int64_t c = 0; c < m.columns; c += LANES) {
            Floats some = load_some(weights + c, m.columns - c);
            for (int n = 0; n < N; ++n) total[n] = multiply_add(some, load(a[n].x + c), total[n]);
        }
        const int64_t r = (row - first) % rows;
        for (int n = 0; n < N; ++n) totals[n * rows + r] = total[n];
        if (r == rows - 1 || row == last - 1) write_sums<N>(totals, r + 1, out + row - first - r, stride);
    }
}

template <int N>
void some_vectors(const Matrix& m, int64_t first, int64_t last, const Activation* a, float* out, int64_t stride) {
    if (m.bits == 32) return plain_rows<float, N>(m, first, last, a, out, stride);
    if (m.bits == 16) return plain_rows<BFloat16, N>(m, first, last, a, out, stride);
    if (m.bits == 8 && m.half_scales) return quantised_rows<8, Half, N>(m, first, last, a, out, stride);
    if (m.bits == 8) return quantised_rows<8, float, N>(m, first, last, a, out, stride);
    if (m.half_scales) return quantised_rows<4, Half, N>(m, first, last, a, out, stride);
    return quantised_rows<4, float, N>(m, first, last, a, out, stride);
}

void multiply(
    const Matrix& m, int64_t first, int64_t last, const Activation* a, int64_t batch, float* out, int64_t stride) {
    for (int64_t n = 0; n < batch; n += together(batch - n)) {
        switch (together(batch - n)) {
            case 8: some_vectors<8>(m, first, last, a + n, out + n * stride, stride); break;
            case 4: some_vectors<4>(m, first, last, a + n, out + n * stride, stride); break;
            case 2: some_vectors<2>(m, first, last, a + n, out + n * stride, stride); break;
            default: some_vectors<1>(m, first, last, a + n, out + n * stride, stride);
        }
    }
}

float element(const Matrix& m, int64_t row, int64_t column) {
    int64_t i = row * m.columns + column;
    if (m.bits == 32) return ((const float*)m.values)[i];
    if (m.bits == 16) return to_float(((const BFloat16*)m.values)[i]);
    int64_t g = row * (m.columns / m.group) + column / m.group;
    uint8_t byte = ((const uint8_t*)m.values)[m.bits == 8 ? i : i / 2];
    float code = m.bits == 8 ? byte : column % 2 ? byte >> 4 : byte & 15;
    float scale = m.half_scales ? to_float(((const Half*)m.scales)[g]) : ((const float*)m.scales)[g];
    return scale * code + (m.half_mins ? to_float(((const Half*)m.mins)[g]) : ((const float*)m.mins)[g]);
}

// ---------------------------------------------------------------- threads

// Where the threads are: the phase, how many chunks it has, and the next to take, in one word.
class Ticket {
public:
    static constexpr int BITS = 20;
    static uint64_t phase(uint64_t t) { return t >> (2 * BITS); }
    static uint64_t chunks(uint64_t t) { return t >> BITS & ((1 << BITS) - 1); }
    static uint64_t chunk(uint64_t t) { return t & ((1 << BITS) - 1); }

    uint64_t now() const { return word_.load(std::memory_order_acquire); }
    bool closed() const { return closed_.load(std::memory_order_acquire); }

    // Ends all waiting.
    void close() {
        closed_.store(true, std::memory_order_seq_cst);
        std::lock_guard<std::mutex> lock(mutex_);
        changed_.notify_all();
    }

    uint64_t take() { return word_.fetch_add(1, std::memory_order_acq_rel); }

    // Opens the next phase.
    void open(uint64_t chunks) {
        uint64_t next = phase(word_.load(std::memory_order_relaxed)) + 1;
        word_.store(next << (2 * BITS) | chunks << BITS, std::memory_order_seq_cst);
        if (sleepers_.load(std::memory_order_seq_cst)) {
            std::lock_guard<std::mutex> lock(mutex_);
            changed_.notify_all();
        }
    }

    // Waits until the phase is another one: awake for a moment, as most waits are short, then asleep, so that
    // whoever else wants the processor has it.
    void wait(uint64_t from) {
        auto until = std::chrono::steady_clock::now() + std::chrono::microseconds(50);
        do {
            for (int i = 0; i < 16; ++i) {
                if (phase(now()) != from || closed()) return;
                relax();
            }
        } while (std::chrono::steady_clock::now() < until);
        std::unique_lock<std::mutex> lock(mutex_);
        sleepers_.fetch_add(1, std::memory_order_seq_cst);
        changed_.wait(lock, [&] { return phase(word_.load(std::memory_order_seq_cst)) != from || closed(); });
        sleepers_.fetch_sub(1, std::memory_order_seq_cst);
    }

private:
    static void relax() {
#if defined(__x86_64__) || defined(__i386__)
        _mm_pause();
#elif defined(__aarch64__)
        __asm__ __volatile__("yield");
#endif
    }

    alignas(64) std::atomic<uint64_t> word_{0};
    alignas(64) std::atomic<int> sleepers_{0};
    std::atomic<bool> closed_{false};
    std::mutex mutex_;
    std::condition_variable changed_;
};

class Memory {
public:
    ~Memory() { free(start_); }
    Memory() = default;
    Memory(const Memory&) = delete;
    Memory& operator=(const Memory&) = delete;

    // Zeroed; keeps what it has if that is enough.
    char* at_least(int64_t bytes) {
        if (bytes > size_) {
            free(start_);
            size_ = (bytes + 63) / 64 * 64;
            start_ = (char*)aligned_alloc(64, size_);
            if (!start_) throw std::bad_alloc();
            memset(start_, 0, size_);
        }
        return start_;
    }

private:
    char* start_ = nullptr;
    int64_t size_ = 0;
};

// ---------------------------------------------------------------- a step

enum class Kind { EMBED, QKV, ATTEND, O, GATE_UP, DOWN, OUTPUT };

struct Phase {
    Kind kind;
    int64_t layer, chunks;
    int64_t rows;  // of the matrices in a chunk; 0 where the chunks make the vectors that the rows are for
};

// What attention does at once: one key/value head of one sequence over some of its tokens.
struct Item {
    int64_t sequence, kv_head, first_token;
};

constexpr int64_t ITEM_TOKENS = 256;
constexpr int64_t MOST_ROWS = 512;         // of a chunk
constexpr int64_t MOST_BYTES = 256 << 10;  // of a chunk's weights

class Decoder {
public:
    explicit Decoder(const Model& model)
        : m_(model), layers_(model.layers, model.layers + model.num_layers), group_(m_.num_heads / m_.num_kv_heads) {
        widest_ = padded(std::max({m_.dim, m_.hidden_dim, m_.num_heads * m_.head_dim}));
        rounds_ = m_.output.bits < 16;
        for (const Layer& layer : layers_)
            for (const Matrix* w : {&layer.q, &layer.k, &layer.v, &layer.o, &layer.gate, &layer.up, &layer.down})
                rounds_ = rounds_ || w->bits < 16;
        workers_ = std::vector<Worker>(m_.threads);
        for (Worker& worker : workers_) {
            place(worker.prepared, worker.memory, 1);
            worker.queries.at_least(group_ * (padded(m_.head_dim) + ITEM_TOKENS) * 4);
        }
        for (size_t i = 1; i < workers_.size(); ++i)
            threads_.emplace_back([this, i] { while (!ticket_.closed()) take_one(workers_[i]); });
    }

    ~Decoder() {
        ticket_.close();
        for (std::thread& thread : threads_) thread.join();
    }

    // Returns 0, or what is wrong: 1 a token, 2 a position or the table's width, 3 a block, 5 how many are scored.
    int step(const Step& step) {
        if (int fault = fault_of(step)) return fault;
        step_ = step;
        make_items();
        reserve();
        make_phases();
        done_.store(0, std::memory_order_relaxed);
        first_ = Ticket::phase(ticket_.now()) + 1;
        ticket_.open(phases_[0].chunks);
        while (take_one(workers_[0]) < phases_.size()) {}
        return 0;
    }

private:
    struct Worker {
        Memory memory, rows, queries;
        std::vector<Activation> prepared;
        uint64_t prepared_for = ~0ull;
    };

    void place(std::vector<Activation>& activations, Memory& memory, int64_t count) {
        int64_t bytes = (Activation::bytes(widest_) + 63) / 64 * 64;
        char* start = memory.at_least(count * bytes);
        activations.resize(count);
        for (int64_t i = 0, some; i < count; i += some) {
            some = together(count - i);
            for (int64_t n = 0; n < some; ++n) activations[i + n].place(start + i * bytes, widest_, n, some);
        }
    }

    int fault_of(const Step& s) const {
        if (s.scored > 1 && s.scored != s.batch) return 5;
        for (int64_t b = 0; b < s.batch; ++b) {
            if (s.tokens[b] < 0 || s.tokens[b] >= m_.vocab_size) return 1;
            if (s.positions[b] < 0 || s.positions[b] / m_.block_tokens >= s.table_columns) return 2;
            for (int64_t i = 0; i <= s.positions[b] / m_.block_tokens; ++i) {
                int32_t block = s.tables[b * s.table_columns + i];
                if (block < 0 || block >= s.num_blocks) return 3;
            }
        }
        return 0;
    }

    void make_items() {
        items_.clear();
        first_item_.clear();
        for (int64_t b = 0; b < step_.batch; ++b) {
            first_item_.push_back(items_.size());
            for (int64_t k = 0; k < m_.num_kv_heads; ++k)
                for (int64_t t = 0; t <= step_.positions[b]; t += ITEM_TOKENS) items_.push_back({b, k, t});
        }
    }

    int64_t qkv_width() const { return (m_.num_heads + 2 * m_.num_kv_heads) * m_.head_dim; }
    int64_t partial_width() const { return padded(m_.head_dim) + 2; }  // values, largest score, sum of weights

    void reserve() {
        int64_t batch = step_.batch;
        x_ = (float*)x_memory_.at_least(batch * m_.dim * 4);
        qkv_ = (float*)qkv_memory_.at_least(batch * qkv_width() * 4);
        hidden_ = (float*)hidden_memory_.at_least(batch * m_.hidden_dim * 4);
        turns_ = (float*)turns_memory_.at_least(batch * m_.head_dim * 4);
        partials_ = (float*)partials_memory_.at_least((int64_t)items_.size() * group_ * partial_width() * 4);
        if (batch > 1) place(shared_, shared_memory_, batch);
        for (Worker& worker : workers_) {
            worker.prepared_for = ~0ull;
            worker.rows.at_least(2 * batch * MOST_ROWS * 4);
        }
    }

    void make_phases() {
        phases_.assign(1, {Kind::EMBED, 0, step_.batch, 0});
        for (int64_t i = 0; i < m_.num_layers; ++i) {
            add_rows(Kind::QKV, i, layers_[i].q, qkv_width());
            phases_.push_back({Kind::ATTEND, i, (int64_t)items_.size(), 0});
            add_rows(Kind::O, i, layers_[i].o, m_.dim);
            add_rows(Kind::GATE_UP, i, layers_[i].gate, m_.hidden_dim);
            add_rows(Kind::DOWN, i, layers_[i].down, m_.dim);
        }
        if (step_.scored) add_rows(Kind::OUTPUT, 0, m_.output, m_.vocab_size);
    }

    // Of how many vectors a phase makes rows: the last ones.
    int64_t vectors_of(Kind kind) const { return kind == Kind::OUTPUT ? step_.scored : step_.batch; }

    // The vectors come first, one a chunk. A single one each thread makes for itself, quicker than waiting.
    void add_rows(Kind kind, int64_t layer, const Matrix& like, int64_t rows) {
        if (vectors_of(kind) > 1) phases_.push_back({kind, layer, step_.batch, 0});
        int64_t parts = 4 * (int64_t)workers_.size(), row_bytes = like.columns * like.bits / 8 + 1;
        int64_t each = std::min((rows + parts - 1) / parts, MOST_BYTES / row_bytes);
        each = std::min((each + LANES - 1) / LANES * LANES, MOST_ROWS);
        each = std::max<int64_t>(each, LANES);
        phases_.push_back({kind, layer, (rows + each - 1) / each, each});
    }

    // Takes a chunk, or waits for the next phase; returns the number of the phase it found.
    uint64_t take_one(Worker& worker) {
        uint64_t ticket = ticket_.take(), number = Ticket::phase(ticket - (first_ << (2 * Ticket::BITS)));
        if (Ticket::chunk(ticket) < Ticket::chunks(ticket)) {
            run(worker, number, Ticket::chunk(ticket));
            if (done_.fetch_add(1, std::memory_order_acq_rel) + 1 == Ticket::chunks(ticket)) {
                done_.store(0, std::memory_order_relaxed);
                ticket_.open(number + 1 < phases_.size() ? phases_[number + 1].chunks : 0);
            }
        } else if (&worker != &workers_[0] || number < phases_.size()) {
            ticket_.wait(Ticket::phase(ticket));
        }
        return number;
    }

    void run(Worker& worker, uint64_t number, int64_t chunk) {
        const Phase& phase = phases_[number];
        if (phase.kind == Kind::EMBED) return embed(chunk);
        if (phase.kind == Kind::ATTEND) {
            if (step_.cache_bits == 16) return attend<BFloat16>(worker, phase.layer, chunk);
            return attend<float>(worker, phase.layer, chunk);
        }
        if (!phase.rows) return prepare(phase, chunk, shared_[chunk]);
        const Activation* vectors = shared_.data();
        if (vectors_of(phase.kind) == 1) {
            if (worker.prepared_for != number) prepare(phase, step_.batch - 1, worker.prepared[0]);
            worker.prepared_for = number;
            vectors = worker.prepared.data();
        }
        multiply_chunk(worker, phase, chunk, vectors);
    }

    // The residual stream starts as the embedding's row; the turns of RoPE serve all layers.
    void embed(int64_t b) {
        for (int64_t i = 0; i < m_.dim; ++i) x_[b * m_.dim + i] = element(m_.embedding, step_.tokens[b], i);
        const int64_t half = m_.head_dim / 2;
        float* turns = turns_ + b * m_.head_dim;
        for (int64_t i = 0; i < half; ++i) {
            float angle = (float)step_.positions[b] * m_.inverse_frequencies[i];
            turns[i] = std::cos(angle);
            turns[half + i] = std::sin(angle);
        }
    }

    // Makes the vector that the matrices of `phase` are multiplied by.
    void prepare(const Phase& phase, int64_t b, Activation& a) {
        const Layer& layer = layers_[phase.layer];
        int64_t columns = m_.dim;
        if (phase.kind == Kind::QKV) normalise(b, layer.attention_norm, a.x);
        if (phase.kind == Kind::GATE_UP) normalise(b, layer.feed_forward_norm, a.x);
        if (phase.kind == Kind::OUTPUT) normalise(b, m_.norm, a.x);
        if (phase.kind == Kind::O) {
            columns = m_.num_heads * m_.head_dim;
            merge(b, a.x);
        }
        if (phase.kind == Kind::DOWN) {
            columns = m_.hidden_dim;
            memcpy(a.x, hidden_ + b * columns, columns * 4);
        }
        memset(a.x + columns, 0, (padded(columns) - columns) * 4);
        if (rounds_) round_to_int8(a, columns);
    }

    void normalise(int64_t b, const float* weight, float* out) {
        const float* x = x_ + b * m_.dim;
        const int64_t whole = m_.dim / LANES * LANES;
        Floats squares = {};
        for (int64_t i = 0; i < m_.dim; i += LANES) {
            Floats some = load_some(x + i, m_.dim - i);
            squares = multiply_add(some, some, squares);
        }
        float scale = 1.0f / std::sqrt(sum_of_lanes(squares) / (float)m_.dim + (float)m_.norm_eps);
        for (int64_t i = 0; i < whole; i += LANES) store(out + i, load(x + i) * scale * load(weight + i));
        for (int64_t i = whole; i < m_.dim; ++i) out[i] = x[i] * scale * weight[i];
    }

    void multiply_chunk(Worker& worker, const Phase& phase, int64_t chunk, const Activation* vectors) {
        const Layer& layer = layers_[phase.layer];
        const int64_t first = chunk * phase.rows;
        float* rows = (float*)worker.rows.at_least(0);
        switch (phase.kind) {
            case Kind::QKV: {
                int64_t last = std::min(first + phase.rows, qkv_width()), start = 0;
                for (const Matrix* w : {&layer.q, &layer.k, &layer.v}) {
                    int64_t from = std::max(first, start), to = std::min(last, start + w->rows);
                    if (from < to)
                        multiply(*w, from - start, to - start, vectors, step_.batch, qkv_ + from, qkv_width());
                    start += w->rows;
                }
                break;
            }
            case Kind::GATE_UP: {
                int64_t last = std::min(first + phase.rows, m_.hidden_dim);
                float* up = rows + step_.batch * MOST_ROWS;
                multiply(layer.gate, first, last, vectors, step_.batch, rows, MOST_ROWS);
                multiply(layer.up, first, last, vectors, step_.batch, up, MOST_ROWS);
                for (int64_t b = 0; b < step_.batch; ++b)
                    for (int64_t i = 0; i < last - first; i += LANES) {
                        Floats some = silu(load(rows + b * MOST_ROWS + i)) * load(up + b * MOST_ROWS + i);
                        int64_t count = std::min<int64_t>(LANES, last - first - i);
                        memcpy(hidden_ + b * m_.hidden_dim + first + i, &some, count * 4);
                    }
                break;
            }
            case Kind::OUTPUT: {
                int64_t last = std::min(first + phase.rows, m_.vocab_size);
                multiply(m_.output, first, last, vectors, step_.scored, step_.logits + first, m_.vocab_size);
                break;
            }
            default: {  // O and DOWN, added to the residual stream
                int64_t last = std::min(first + phase.rows, m_.dim);
                const Matrix& w = phase.kind == Kind::O ? layer.o : layer.down;
                multiply(w, first, last, vectors, step_.batch, rows, MOST_ROWS);
                for (int64_t b = 0; b < step_.batch; ++b)
                    for (int64_t i = first; i < last; ++i)
                        x_[b * m_.dim + i] += rows[b * MOST_ROWS + i - first];
            }
        }
    }

    // Turns a head by its position, pairs split in halves.
    void turn(const float* x, int64_t b, float scale, float* out) const {
        const int64_t half = m_.head_dim / 2;
        const float *cos = turns_ + b * m_.head_dim, *sin = cos + half;
        for (int64_t i = 0; i < half; ++i) {
            float first = x[i], second = x[half + i];
            out[i] = (first * cos[i] - second * sin[i]) * scale;
            out[half + i] = (second * cos[i] + first * sin[i]) * scale;
        }
    }

    template <class T> T* in_cache(void* cache, int64_t layer, const Item& item, int64_t token) const {
        int64_t block = step_.tables[item.sequence * step_.table_columns + token / m_.block_tokens];
        int64_t head = (layer * step_.num_blocks + block) * m_.num_kv_heads + item.kv_head;
        return (T*)cache + (head * m_.block_tokens + token % m_.block_tokens) * m_.head_dim;
    }

    template <class T> void append(int64_t layer, const Item& item, float* turned) {
        const float* k = qkv_ + item.sequence * qkv_width() + (m_.num_heads + item.kv_head) * m_.head_dim;
        const float* v = k + m_.num_kv_heads * m_.head_dim;
        const int64_t position = step_.positions[item.sequence];
        T* key = in_cache<T>(step_.keys, layer, item, position);
        T* value = in_cache<T>(step_.values, layer, item, position);
        turn(k, item.sequence, 1.0f, turned);
        for (int64_t i = 0; i < m_.head_dim; ++i) {
            from_float(turned[i], key + i);
            from_float(v[i], value + i);
        }
    }

    template <class T> void attend(Worker& worker, int64_t layer, int64_t number) {
        const Item& item = items_[number];
        const int64_t width = padded(m_.head_dim), position = step_.positions[item.sequence];
        const int64_t last = std::min(item.first_token + ITEM_TOKENS, position + 1);
        float* queries = (float*)worker.queries.at_least(0);
        float* weights = queries + group_ * width;
        if (last > position) append<T>(layer, item, queries);
        for (int64_t g = 0; g < group_; ++g) {
            const float* q = qkv_ + item.sequence * qkv_width() + (item.kv_head * group_ + g) * m_.head_dim;
            turn(q, item.sequence, 1.0f / std::sqrt((float)m_.head_dim), queries + g * width);
            memset(queries + g * width + m_.head_dim, 0, (width - m_.head_dim) * 4);
        }
        for (int64_t t = item.first_token; t < last; t += m_.block_tokens) {
            const T* keys = in_cache<T>(step_.keys, layer, item, t);
            int64_t count = std::min(m_.block_tokens, last - t);
            score(keys, count, queries, weights + t - item.first_token);
        }
        float* partials = partials_ + number * group_ * partial_width();
        memset(partials, 0, group_ * partial_width() * 4);
        for (int64_t g = 0; g < group_; ++g) {
            float* end = partials + g * partial_width() + width;
            soften(weights + g * ITEM_TOKENS, last - item.first_token, end, end + 1);
        }
        for (int64_t t = item.first_token; t < last; t += m_.block_tokens) {
            const T* values = in_cache<T>(step_.values, layer, item, t);
            int64_t count = std::min(m_.block_tokens, last - t);
            add_values(values, count, weights + t - item.first_token, partials);
        }
    }

    template <class T> void score(const T* keys, int64_t count, const float* queries, float* scores) const {
        const int64_t width = padded(m_.head_dim);
        for (int64_t t = 0; t < count; t += LANES)
            for (int64_t g = 0; g < group_; g += 4) {
                const T* some = keys + t * m_.head_dim;
                const float* of = queries + g * width;
                float* out = scores + g * ITEM_TOKENS + t;
                switch (std::min<int64_t>(group_ - g, 4)) {
                    case 4: score_some<4>(some, count - t, of, out); break;
                    case 3: score_some<3>(some, count - t, of, out); break;
                    case 2: score_some<2>(some, count - t, of, out); break;
                    default: score_some<1>(some, count - t, of, out);
                }
            }
    }

    // Of up to sixteen keys with N queries; what is written behind the keys means nothing.
    template <int N, class T> void score_some(const T* keys, int64_t count, const float* queries, float* scores) const {
        const int64_t width = padded(m_.head_dim);
        Floats sums[N][LANES] = {};
        for (int64_t t = 0; t < std::min<int64_t>(count, LANES); ++t) {
            Floats sum[N] = {};
            for (int64_t e = 0; e < m_.head_dim; e += LANES) {
                Floats some = load_some(keys + t * m_.head_dim + e, m_.head_dim - e);
                for (int n = 0; n < N; ++n) sum[n] = multiply_add(some, load(queries + n * width + e), sum[n]);
            }
            for (int n = 0; n < N; ++n) sums[n][t] = sum[n];
        }
        for (int n = 0; n < N; ++n) store(scores + n * ITEM_TOKENS, sums_of_lanes(sums[n]));
    }

    // Scores become e^(score - largest); those behind them, up to a whole vector, zero.
    static void soften(float* scores, int64_t count, float* largest, float* total) {
        const int64_t whole = (count + LANES - 1) / LANES * LANES;
        *largest = *std::max_element(scores, scores + count);
        for (int64_t t = 0; t < whole; t += LANES) store(scores + t, exponential(load(scores + t) - *largest));
        for (int64_t t = count; t < whole; ++t) scores[t] = 0;
        Floats sum = {};
        for (int64_t t = 0; t < whole; t += LANES) sum += load(scores + t);
        *total = sum_of_lanes(sum);
    }

    template <class T> void add_values(const T* values, int64_t count, const float* weights, float* partials) const {
        for (int64_t g = 0; g < group_; ++g, weights += ITEM_TOKENS, partials += partial_width()) {
            int64_t e = 0;
            for (; e + 4 * LANES <= m_.head_dim; e += 4 * LANES) add_some<4>(values, count, weights, partials, e);
            for (; e < m_.head_dim; e += LANES) add_some<1>(values, count, weights, partials, e);
        }
    }

    // Columns from e on, N vectors of lanes side by side so that none waits for itself.
    template <int N, class T>
    void add_some(const T* values, int64_t count, const float* weights, float* partials, int64_t e) const {
        Floats sum[N];
        for (int n = 0; n < N; ++n) sum[n] = load(partials + e + n * LANES);
        for (int64_t t = 0; t < count; ++t)
            for (int n = 0; n < N; ++n) {
                int64_t from = e + n * LANES;
                Floats some = load_some(values + t * m_.head_dim + from, m_.head_dim - from);
                sum[n] = multiply_add(all_lanes(weights[t]), some, sum[n]);
            }
        for (int n = 0; n < N; ++n) store(partials + e + n * LANES, sum[n]);
    }

    // Joins the parts of a sequence's tokens; out is (H * E).
    void merge(int64_t b, float* out) const {
        const int64_t width = padded(m_.head_dim), parts = step_.positions[b] / ITEM_TOKENS + 1;
        for (int64_t h = 0; h < m_.num_heads; ++h) {
            int64_t item = first_item_[b] + h / group_ * parts;
            const float* part = partials_ + (item * group_ + h % group_) * partial_width();
            const int64_t next = group_ * partial_width();
            float most = part[width], total = 0;
            for (int64_t i = 1; i < parts; ++i) most = std::max(most, part[i * next + width]);
            for (int64_t i = 0; i < parts; ++i)
                total += part[i * next + width + 1] * std::exp(part[i * next + width] - most);
            for (int64_t e = 0; e < m_.head_dim; ++e) out[h * m_.head_dim + e] = 0;
            for (int64_t i = 0; i < parts; ++i) {
                float share = std::exp(part[i * next + width] - most) / total;
                for (int64_t e = 0; e < m_.head_dim; ++e) out[h * m_.head_dim + e] += share * part[i * next + e];
            }
        }
    }

    const Model m_;
    const std::vector<Layer> layers_;
    const int64_t group_;  // query heads that share a key/value head
    int64_t widest_;
    bool rounds_;  // whether any weight is quantised
    Ticket ticket_;
    std::atomic<uint64_t> done_{0};
    std::atomic<uint64_t> first_{1};  // the ticket's number of the step's first phase
    Step step_{};
    std::vector<Phase> phases_;
    std::vector<Item> items_;
    std::vector<int64_t> first_item_;
    Memory x_memory_, qkv_memory_, hidden_memory_, turns_memory_, partials_memory_, shared_memory_;
    float *x_, *qkv_, *hidden_, *turns_, *partials_;
    std::vector<Activation> shared_;
    std::vector<Worker> workers_;
    std::vector<std::thread> threads_;
};

}  // namespace

extern "C" {

// Returns null where memory or threads do not suffice.
void* criadero_create(const Model* model) {
    try {
        return new Decoder(*model);
    } catch (...) {
        return nullptr;
    }
}

// As Decoder::step; 4 where memory does not suffice.
int criadero_step(void* decoder, const Step* step) {
    try {
        return ((Decoder*)decoder)->step(*step);
    } catch (...) {
        return 4;
    }
}

void criadero_destroy(void* decoder) { delete (Decoder*)decoder; }
}
