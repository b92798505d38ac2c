// Rows of a matrix times some vectors, and the vectors as the matrices want them.

#pragma once

#include "interface.h"
#include "lanes.h"

namespace {

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

// Keeps the totals of row `row` of `count` with N vectors in `totals`, a vector's rows side by side; writes the sums
// of their lanes when there are sixteen or no more rows.
template <int N>
INLINE void keep_row(Floats* totals, const Floats* total, int64_t row, int64_t count, float* out, int64_t stride) {
    constexpr int64_t rows = LANES / N;
    const int64_t at = row % rows;
    for (int n = 0; n < N; ++n) totals[n * rows + at] = total[n];
    if (at < rows - 1 && row < count - 1) return;
    Floats sums = sums_of_lanes(totals);
    for (int n = 0; n < N; ++n)
        for (int64_t r = 0; r < rows; ++r)
            if (r <= at) out[n * stride + row - at + r] = sums[n * rows + r];
}

// Row `first` is written to out[n * stride], the others behind it, for each of N vectors.
template <int BITS, class S, int N>
void quantised_rows(const Matrix& m, int64_t first, int64_t last, const Activation* a, float* out, int64_t stride) {
    constexpr int64_t unit_bytes = N * (BITS == 4 ? Activation::UNIT4 : Activation::UNIT8);
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
        keep_row<N>(totals, total, row - first, last - first, out, stride);
    }
}

template <class T, int N>
void plain_rows(const Matrix& m, int64_t first, int64_t last, const Activation* a, float* out, int64_t stride) {
    Floats totals[LANES] = {};
    for (int64_t row = first; row < last; ++row) {
        const T* weights = (const T*)m.values + row * m.columns;
        Floats total[N] = {};
        for (int64_t c = 0; c < m.columns; c += LANES) {
            Floats some = load_some(weights + c, m.columns - c);
            for (int n = 0; n < N; ++n) total[n] = multiply_add(some, load(a[n].x + c), total[n]);
        }
        keep_row<N>(totals, total, row - first, last - first, out, stride);
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

}  // namespace
