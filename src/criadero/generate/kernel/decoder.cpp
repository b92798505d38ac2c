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
#include <cmath>
#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>

#include "interface.h"
#include "lanes.h"
#include "products.h"
#include "threads.h"

namespace {

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
