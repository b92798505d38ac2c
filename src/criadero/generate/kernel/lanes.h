// Sixteen lanes and what is done with them: AVX-512 VNNI or AVX2 where the compiler has them, else plain loops.

#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
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

}  // namespace
