#pragma once
// A range-for over the batches of a loader.

#include <cstddef>
#include <iterator>

namespace capsfw {

/// Reads what is left of an epoch of a loader with `bool next(Batch&)`, a batch at a time. Its end
/// is std::default_sentinel.
template <class Loader, class Batch>
class BatchIterator {
 public:
  using iterator_category = std::input_iterator_tag;
  using value_type = Batch;
  using difference_type = std::ptrdiff_t;
  using pointer = const Batch*;
  using reference = const Batch&;

  explicit BatchIterator(Loader& loader) : loader_(&loader) { ++*this; }
  const Batch& operator*() const { return batch_; }
  const Batch* operator->() const { return &batch_; }
  BatchIterator& operator++() {
    if (!loader_->next(batch_)) loader_ = nullptr;
    return *this;
  }
  void operator++(int) { ++*this; }
  /// At the end of the epoch.
  friend bool operator==(const BatchIterator& i, std::default_sentinel_t) { return !i.loader_; }

 private:
  Loader* loader_;
  Batch batch_;
};

}  // namespace capsfw
