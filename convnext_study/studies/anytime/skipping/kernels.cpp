// The kernels of skipping, for the computed positions of maps in channels-last layout. Plain functions of
// one signature, without torch's headers: any C++ compiler builds them in seconds (compiled.py).
#include <algorithm>
#include <cstdint>

#ifdef __AVX512F__
constexpr int BYTES = 64, MANY = 8;  // per vector; positions computed together
#else
constexpr int BYTES = 32, MANY = 4;
#endif
enum State : uint8_t { FAR, NEAR, COMPUTED };  // of a position; near: within the fill's radius of a computed one

// `rows` are per image; `c_packed` is c_out rounded up to whole vectors, as in weights and bias.
struct Shape {
    int64_t rows_in, cols_in, c_in, rows, cols, c_out, c_packed, kernel, stride, padding, depthwise, add, relu;
};

// `left` channels of P positions of a row, in V vectors: `length` inputs in each of `taps` kernel rows.
template <class T, int P, int V>
static void block(const T* x, int64_t step, int64_t row, int64_t taps, int64_t length, const T* w,
                  int64_t w_row, const T* bias, T* out, const Shape& s, int64_t left) {
    constexpr int L = BYTES / sizeof(T);
    typedef T Vector __attribute__((vector_size(BYTES), aligned(sizeof(T)), may_alias));
    Vector sum[P][V];
    for (int p = 0; p < P; p++)
        for (int v = 0; v < V; v++) sum[p][v] = *(const Vector*)(bias + v * L);
    for (int64_t k = 0; k < taps; k++, x += row, w += w_row)
        for (int64_t i = 0; i < length; i++) {
            Vector weight[V];
            for (int v = 0; v < V; v++) weight[v] = *(const Vector*)(w + i * s.c_packed + v * L);
            for (int p = 0; p < P; p++)
                for (int v = 0; v < V; v++) sum[p][v] += x[p * step + i] * weight[v];
        }
    for (int p = 0; p < P; p++, out += s.c_out)
        for (int v = 0; v < V; v++) {
            const int64_t count = std::min<int64_t>(L, left - v * L);
            if (s.add && count == L) sum[p][v] += *(const Vector*)(out + v * L);
            else if (s.add) for (int i = 0; i < count; i++) sum[p][v][i] += out[v * L + i];
            if (s.relu) sum[p][v] = sum[p][v] <= 0 ? Vector{} : sum[p][v];  // NaN stays
            if (count == L) *(Vector*)(out + v * L) = sum[p][v];
            else for (int i = 0; i < count; i++) out[v * L + i] = sum[p][v][i];
        }
}

template <class T, int P>
static void positions(const T* x, int64_t step, int64_t row, int64_t taps, int64_t length, const T* w,
                      int64_t w_row, const T* bias, T* out, const Shape& s) {
    constexpr int L = BYTES / sizeof(T);
    for (int64_t c = 0; c < s.c_packed;) {
        const int64_t remaining = (s.c_packed - c) / L;
        const int vectors = remaining == 4 ? 2 : std::min<int64_t>(remaining, 3);
        (vectors == 3 ? block<T, P, 3> : vectors == 2 ? block<T, P, 2> : block<T, P, 1>)(
            x, step, row, taps, length, w + c, w_row, bias + c, out + c, s, s.c_out - c);
        c += vectors * L;
    }
}

// One position of a depthwise convolution.
template <class T>
static void depthwise(const T* x, int64_t row, int64_t taps, int64_t across, const T* w, int64_t w_row,
                      const T* bias, T* out, const Shape& s) {
    constexpr int L = 4 * BYTES / sizeof(T);
    for (int64_t c = 0; c < s.c_out; c += L) {
        const int64_t left = std::min<int64_t>(L, s.c_out - c);
        T sum[L];
        std::copy_n(bias + c, left, sum);
        for (int64_t k = 0; k < taps; k++)
            for (int64_t j = 0; j < across; j++) {
                const T *from = x + k * row + j * s.c_in + c, *weight = w + k * w_row + j * s.c_packed + c;
                for (int64_t i = 0; i < left; i++) sum[i] += from[i] * weight[i];
            }
        std::copy_n(sum, left, out + c);
    }
}

// Computed positions, in runs; all where `state` is null. `w` are kernel x kernel x c_in x c_packed, or without c_in where depthwise.
template <class T>
static void convolve(const T* x, const T* w, const T* bias, const uint8_t* state, T* out, const Shape& s,
                     int64_t first, int64_t last) {
    const int64_t row = s.cols_in * s.c_in, step = s.stride * s.c_in;
    const int64_t tap = (s.depthwise ? 1 : s.c_in) * s.c_packed, w_row = s.kernel * tap;
    const int64_t inside = (s.cols_in - s.kernel + s.padding) / s.stride + 1;  // windows that end inside
    for (int64_t r = first; r < last; r++) {
        const int64_t top = r % s.rows * s.stride - s.padding, above = std::max<int64_t>(0, -top);
        const int64_t taps = std::min(s.kernel, s.rows_in - top) - above;
        const T *x_row = x + (r / s.rows * s.rows_in + top + above) * row, *w_top = w + above * w_row;
        auto computed = [&](int64_t c) { return !state || state[r * s.cols + c] == COMPUTED; };
        for (int64_t c = 0, n; c < s.cols; c += n) {
            n = 1;
            if (!computed(c)) continue;
            const int64_t at = c * s.stride - s.padding, before = std::max<int64_t>(0, -at);
            const int64_t across = std::min(s.kernel, s.cols_in - at) - before;
            const T *from = x_row + (at + before) * s.c_in, *weights = w_top + before * tap;
            T* y = out + (r * s.cols + c) * s.c_out;
            if (s.depthwise) { depthwise(from, row, taps, across, weights, w_row, bias, y, s); continue; }
            auto run = positions<T, 1>;
            if (across == s.kernel) {
                while (n < MANY && c + n < std::min(s.cols, inside) && computed(c + n)) n++;
                n = n < MANY ? n & -n : MANY;
                run = n == MANY ? positions<T, MANY> : n == 4 ? positions<T, 4> : n == 2 ? positions<T, 2> : run;
            }
            run(from, step, row, taps, across * s.c_in, weights, w_row, bias, y, s);
        }
    }
}

// Skipped positions get `bias`, and near computed ones also their mean, by kernel x kernel weights `w`.
template <class T>
static void fill(const T*, const T* w, const T* bias, const uint8_t* state, T* out, const Shape& s,
                 int64_t first, int64_t last) {
    const int64_t radius = s.kernel / 2;
    for (int64_t r = first; r < last; r++)
        for (int64_t c = 0; c < s.cols; c++) {
            const uint8_t here = state[r * s.cols + c];
            if (here == COMPUTED) continue;
            T* y = out + (r * s.cols + c) * s.c_out;
            std::copy_n(bias, s.c_out, y);
            if (here == FAR) continue;
            const int64_t up = std::min(radius, r % s.rows), down = std::min(radius, s.rows - 1 - r % s.rows);
            for (int64_t i = -up; i <= down; i++)
                for (int64_t j = -std::min(radius, c); j <= std::min(radius, s.cols - 1 - c); j++) {
                    const int64_t other = (r + i) * s.cols + c + j;
                    if (state[other] != COMPUTED) continue;
                    const T weight = w[(i + radius) * s.kernel + j + radius], *near = out + other * s.c_out;
                    for (int64_t k = 0; k < s.c_out; k++) y[k] += weight * (near[k] - bias[k]);
                }
        }
}

// relu(x), or relu(out + x), of whole rows.
template <class T>
static void finish(const T* x, const T*, const T*, const uint8_t*, T* out, const Shape& s, int64_t first,
                   int64_t last) {
    for (int64_t i = first * s.cols * s.c_out; i < last * s.cols * s.c_out; i++) {
        const T sum = s.add ? out[i] + x[i] : x[i];
        out[i] = sum <= 0 ? T(0) : sum;
    }
}

// A map resized bilinearly, at computed positions, as means of kernel x kernel positions each, into c_in
// of the c_out channels.
template <class T>
static void join(const T* x, const T*, const T*, const uint8_t* state, T* out, const Shape& s, int64_t first,
                 int64_t last) {
    const T down = T(s.rows_in) / (s.rows * s.kernel), right = T(s.cols_in) / (s.cols * s.kernel);
    for (int64_t position = first * s.cols; position < last * s.cols; position++) {
        if (state[position] != COMPUTED) continue;
        const int64_t r = position / s.cols, c = position % s.cols;
        const T* image = x + r / s.rows * s.rows_in * s.cols_in * s.c_in;
        T* y = out + position * s.c_out;
        std::fill_n(y, s.c_in, T(0));
        for (int64_t at = 0; at < s.kernel * s.kernel; at++) {
            const T row = std::max(T(0), (r % s.rows * s.kernel + at / s.kernel + T(0.5)) * down - T(0.5));
            const T col = std::max(T(0), (c * s.kernel + at % s.kernel + T(0.5)) * right - T(0.5));
            for (int corner = 0; corner < 4; corner++) {
                const int64_t i = int64_t(row) + corner / 2, j = int64_t(col) + corner % 2;
                const T part_row = corner / 2 ? row - int64_t(row) : 1 - (row - int64_t(row));
                const T part_col = corner % 2 ? col - int64_t(col) : 1 - (col - int64_t(col));
                const T weight = part_row * part_col / (s.kernel * s.kernel);
                if (weight == 0) continue;
                const T* from = image + (std::min(i, s.rows_in - 1) * s.cols_in + std::min(j, s.cols_in - 1)) * s.c_in;
                for (int64_t k = 0; k < s.c_in; k++) y[k] += weight * from[k];
            }
        }
    }
}

#define BOTH(NAME) BOTH_AS(NAME, float, float32) BOTH_AS(NAME, double, float64)
#define BOTH_AS(NAME, T, TYPE)                                                                               \
    void NAME##_##TYPE(const T* x, const T* w, const T* bias, const uint8_t* state, T* out, const Shape* s,  \
                       int64_t first, int64_t last) { NAME(x, w, bias, state, out, *s, first, last); }
extern "C" { BOTH(convolve) BOTH(fill) BOTH(finish) BOTH(join) }
