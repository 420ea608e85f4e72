#pragma once
// What several tests need: comparing tensors, and catching an error to look at its text.

#include <cmath>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include <capsfw/core/allocator.hpp>
#include <capsfw/core/parallel.hpp>
#include <capsfw/core/tensor.hpp>

namespace capsfw::testing {

/// Built with a sanitizer, which makes it 3 to 30 times slower, keeps what was freed, and looks at
/// memory and threads: fewer repetitions of numbers will do.
#if defined(CAPSFW_SANITIZED)
inline constexpr bool kSanitized = true;
#else
inline constexpr bool kSanitized = false;
#endif

/// The text of the exception of type E that `f` throws; "nothing was thrown" otherwise. Any other
/// exception passes through.
template <class E, class F>
std::string message_of(const F& f) {
  try {
    f();
  } catch (const E& e) {
    return e.what();
  }
  return "nothing was thrown";
}

inline bool contains(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

inline std::vector<double> values(const Tensor& x) { return x.to_vector<double>(); }

/// Largest |a − b|, infinite where shapes differ or one of the two is a NaN.
inline double max_difference(const Tensor& a, const Tensor& b) {
  if (!a.defined() || !b.defined()) return a.defined() == b.defined() ? 0.0 : INFINITY;
  if (a.shape() != b.shape()) return INFINITY;
  const auto p = values(a), q = values(b);
  double worst = 0;
  for (std::size_t i = 0; i < p.size(); ++i) {
    if (std::isnan(p[i]) || std::isnan(q[i])) return INFINITY;
    if (p[i] == q[i]) continue;  // of infinities, too
    worst = std::fmax(worst, std::abs(p[i] - q[i]));
  }
  return worst;
}

/// Largest |x|; a NaN if there is one.
inline double largest(const Tensor& x) {
  double m = 0;
  for (double v : values(x)) {
    if (std::isnan(v)) return v;
    m = std::fmax(m, std::abs(v));
  }
  return m;
}

/// The largest of all max_difference(a, b), each relative to the largest element of b or to
/// `floor`; infinite for NaN and where only one of the two is defined.
inline double worst_relative_difference(const TensorList& a,
                                        const TensorList& b,
                                        double floor = 1e-30) {
  if (a.size() != b.size()) return INFINITY;
  double worst = 0;
  for (std::size_t k = 0; k < a.size(); ++k) {
    if (a[k].defined() != b[k].defined()) return INFINITY;
    if (!a[k].defined()) continue;
    const double r = max_difference(a[k], b[k]) / std::fmax(largest(b[k]), floor);
    if (std::isnan(r)) return INFINITY;  // of infinities
    worst = std::fmax(worst, r);
  }
  return worst;
}

/// The elements as bytes, in row-major order.
inline std::string bytes_of(const Tensor& x) {
  const Tensor c = contiguous_data(x);
  return visit_any(c.dtype(), [&]<class T>() {
    return std::string(reinterpret_cast<const char*>(c.data<T>()),
                       static_cast<std::size_t>(c.numel()) * sizeof(T));
  });
}

/// Same type, shape and bits.
inline bool same_bits(const Tensor& a, const Tensor& b) {
  return a.dtype() == b.dtype() && a.shape() == b.shape() && bytes_of(a) == bytes_of(b);
}

/// Sets the number of threads for its lifetime.
class Threads {
 public:
  explicit Threads(int n) : previous_(num_threads()) { set_num_threads(n); }
  ~Threads() { set_num_threads(previous_); }
  Threads(const Threads&) = delete;
  Threads& operator=(const Threads&) = delete;

 private:
  int previous_;
};

/// Sets the memory limit for its lifetime.
class MemoryLimit {
 public:
  explicit MemoryLimit(std::size_t bytes) : previous_(memory_limit()) { set_memory_limit(bytes); }
  ~MemoryLimit() { set_memory_limit(previous_); }
  MemoryLimit(const MemoryLimit&) = delete;
  MemoryLimit& operator=(const MemoryLimit&) = delete;

 private:
  std::size_t previous_;
};

}  // namespace capsfw::testing
