#pragma once
// The one owner of threads (oneTBB). Work is cut into chunks whose boundaries depend on the size of
// the problem alone, and partial results are combined in order of index: every result is bitwise
// the same for any number of threads. Inside a body: pointers and arithmetic only, no tensors, no
// exceptions.

#include <cstdint>
#include <memory>
#include <type_traits>

namespace capsfw {

/// Threads in use. Default: CAPSFW_NUM_THREADS, else the processors that affinity and the CPU quota
/// of the control group allow. ValueError unless that variable is a whole number from 1 to 1024.
int num_threads();

/// Sets the number of threads; not while another thread computes. ValueError below 1 and above
/// 1024.
void set_num_threads(int n);

namespace detail {

/// A reference to a callable, without its ownership: what crosses into parallel.cpp.
template <class Signature>
class FunctionRef;
template <class R, class... A>
class FunctionRef<R(A...)> {
 public:
  template <class F>
  requires(!std::is_same_v<std::remove_cvref_t<F>, FunctionRef>) FunctionRef(F&& f)
      : object_(const_cast<void*>(static_cast<const void*>(std::addressof(f)))),
        call_([](void* o, A... a) -> R {
          return (*static_cast<std::remove_reference_t<F>*>(o))(a...);
        }) {}
  R operator()(A... a) const { return call_(object_, a...); }

 private:
  void* object_;
  R (*call_)(void*, A...);
};

}  // namespace detail

/// Calls body(begin, end) on consecutive chunks of [0, n). `cost` is the work of one item in units
/// of about a nanosecond; chunks are made worth 32 microseconds, and a problem below one chunk runs
/// inline.
void parallel_for(std::int64_t n,
                  std::int64_t cost,
                  detail::FunctionRef<void(std::int64_t, std::int64_t)> body);

/// Of the calling thread, inside a body: a number below num_threads(). Threads that run bodies of
/// one parallel_for at the same time have different ones; a body that runs inline, and any other
/// thread, has 0. For what a core should find in its own cache again, never for results.
int thread_place();

/// The length of the chunks that parallel_for(n, cost) uses.
std::int64_t parallel_chunk(std::int64_t n, std::int64_t cost);

}  // namespace capsfw
