// Where the threads of a step are, and memory that is kept from one step to the next.

#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <new>
#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#endif

namespace {

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

}  // namespace
