#include <capsfw/data/loader.hpp>

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <numeric>
#include <stop_token>
#include <thread>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include <capsfw/core/error.hpp>

#include "detail/loader_place.hpp"

namespace capsfw {
namespace {

/// What the random numbers of an epoch are for; each purpose has its own stream.
enum class Purpose : std::uint64_t { order, shifts, transform };

/// Far from the small stream numbers that programs use with the same seed.
constexpr std::uint64_t kStreams = 0x10ad000000000000;

Rng epoch_rng(std::uint64_t seed, std::int64_t epoch, Purpose purpose) {
  return Rng(
      seed, kStreams + static_cast<std::uint64_t>(epoch) * 4 + static_cast<std::uint64_t>(purpose));
}

/// The shards of a batch, or the end of an epoch, or what went wrong.
struct Item {
  std::vector<Batch> shards;
  std::int64_t position = 0;  // images of the epoch given out, this batch included
  bool end = false;
  std::exception_ptr error;
};

/// Makes any batch of any epoch: a pure function of set, options, epoch and position. Plain loops
/// only, so that it never competes for the threads of core/parallel.hpp.
class Maker {
 public:
  Maker(const ImageSet& set, const LoaderOptions& options) : set_(set), options_(options) {}

  Item make(std::int64_t epoch, std::int64_t position) {
    const std::int64_t count = std::min(options_.batch_size, set_.size() - position);
    if (count == 0 || (options_.drop_last && count < options_.batch_size))
      return {.shards = {}, .position = position, .end = true, .error = nullptr};
    plan(epoch);
    Item item{.shards = {}, .position = position + count, .end = false, .error = nullptr};
    for (std::int64_t k = shards_.begin; k < shards_.end; ++k)
      if (const std::int64_t n = shards_.size(k, count); n > 0)
        item.shards.push_back(part(epoch, position + shards_.start(k, count), n));
    return item;
  }

  /// Makes the order of the epoch anew: the seed has changed.
  void forget() { planned_ = -1; }
  void shard(const Shards& shards) { shards_ = shards; }
  bool whole() const { return shards_.count == 1 && shards_.end == 1; }

 private:
  Batch part(std::int64_t epoch, std::int64_t position, std::int64_t count) {
    const Shape& image = set_.image_shape();
    Batch batch{empty({count, image[0], image[1], image[2]}), empty({count}, DType::i64)};
    float* out = batch.images.mutable_data<float>();
    auto* labels = batch.labels.mutable_data<std::int64_t>();
    for (std::int64_t k = 0; k < count; ++k, out += image.numel()) {
      const auto slot = static_cast<std::size_t>(position + k);
      write(order_[slot], shifts_.empty() ? Shift{} : shifts_[slot], out);
      labels[k] = set_.label(order_[slot]);
    }
    if (options_.transform) {
      Rng base = epoch_rng(options_.seed, epoch, Purpose::transform);
      Rng rng(base.next() + static_cast<std::uint64_t>(position));
      options_.transform(batch, rng);
    }
    return batch;
  }

  struct Shift {
    std::int64_t dy = 0, dx = 0;
  };

  /// Order and shifts of one epoch.
  void plan(std::int64_t epoch) {
    if (planned_ == epoch) return;
    planned_ = -1;
    if (options_.shuffle) {
      Rng rng = epoch_rng(options_.seed, epoch, Purpose::order);
      order_ = rng.permutation(set_.size()).to_vector<std::int64_t>();
    } else {
      order_.resize(static_cast<std::size_t>(set_.size()));
      std::iota(order_.begin(), order_.end(), 0);
    }
    if (options_.max_shift > 0) {
      Rng rng = epoch_rng(options_.seed, epoch, Purpose::shifts);
      const auto draw = [&] { return rng.below(2 * options_.max_shift + 1) - options_.max_shift; };
      shifts_.resize(order_.size());
      for (Shift& s : shifts_) {
        s.dy = draw();
        s.dx = draw();
      }
    }
    planned_ = epoch;
  }

  /// out[c, y, x] = image[c, y - dy, x - dx], or 0 where that lies outside.
  void write(std::int64_t i, Shift s, float* out) const {
    const Shape& image = set_.image_shape();
    const std::int64_t height = image[1], width = image[2];
    const std::uint8_t* in = set_.pixels(i);
    if (s.dy == 0 && s.dx == 0) return detail::to_unit(in, image.numel(), out);
    std::fill_n(out, image.numel(), 0.0f);
    const std::int64_t top = std::max<std::int64_t>(s.dy, 0),
                       left = std::max<std::int64_t>(s.dx, 0);
    const std::int64_t bottom = height + std::min<std::int64_t>(s.dy, 0);
    const std::int64_t columns = width - std::abs(s.dx);
    for (std::int64_t c = 0; c < image[0]; ++c, in += height * width, out += height * width)
      for (std::int64_t y = top; y < bottom; ++y)
        detail::to_unit(in + (y - s.dy) * width + left - s.dx, columns, out + y * width + left);
  }

  const ImageSet& set_;
  const LoaderOptions& options_;
  Shards shards_;
  std::int64_t planned_ = -1;
  std::vector<std::int64_t> order_;
  std::vector<Shift> shifts_;
};

}  // namespace

struct DataLoader::Impl {
  Impl(ImageSet s, LoaderOptions o)
      : set(std::move(s)), options(std::move(o)), maker(set, options) {}

  /// Fills the queue from (`e`, `p`) on, epoch after epoch, until it is told to stop.
  void work(const std::stop_token& stop, std::int64_t e, std::int64_t p) {
    for (bool good = true; good && !stop.stop_requested();) {
      Item item;
      try {
        item = maker.make(e, p);
      } catch (...) {
        item.error = std::current_exception();
        good = false;
      }
      e += item.end ? 1 : 0;
      p = item.end ? 0 : item.position;
      std::unique_lock lock(mutex);
      const auto room = [&] { return static_cast<std::int64_t>(queue.size()) < options.prefetch; };
      if (!changed.wait(lock, stop, room) || stop.stop_requested()) return;
      queue.push_back(std::move(item));
      changed.notify_all();
    }
  }

  Item take() {
    if (options.prefetch == 0) return maker.make(epoch, position);
    if (!worker.joinable())
      worker = std::jthread(
          [this, e = epoch, p = position](const std::stop_token& stop) { work(stop, e, p); });
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return !queue.empty(); });
    Item item = std::move(queue.front());
    queue.pop_front();
    changed.notify_all();
    return item;
  }

  /// Ends the thread; what it had made is thrown away.
  void stop() {
    worker = {};
    queue.clear();
  }

  ImageSet set;
  LoaderOptions options;
  Maker maker;             // used by the thread while there is one
  std::int64_t epoch = 0;  // of the next batch that next() gives, like position
  std::int64_t position = 0;
  std::int64_t drawn = 0;  // samples in the last batch
  std::mutex mutex;        // guards the queue
  std::condition_variable_any changed;
  std::deque<Item> queue;
  std::jthread worker;  // last: ended before anything that it uses goes away
};

DataLoader::DataLoader(ImageSet set, LoaderOptions options) {
  const auto check = [](bool good, const char* rule, std::int64_t got) {
    if (!good) throw ValueError(fmt::format("DataLoader: {}; got {}", rule, got));
  };
  check(set.size() > 0, "the set must hold at least one image", set.size());
  check(options.batch_size > 0, "batch_size must be at least 1", options.batch_size);
  check(options.prefetch >= 0, "prefetch must not be negative", options.prefetch);
  check(!options.drop_last || options.batch_size <= set.size(),
        "with drop_last, batch_size must not exceed the size of the set, or no batch is left",
        options.batch_size);
  check(options.max_shift >= 0 &&
            options.max_shift < std::min(set.image_shape()[1], set.image_shape()[2]),
        "max_shift must not be negative and must be smaller than the image", options.max_shift);
  impl_ = std::make_unique<Impl>(std::move(set), std::move(options));
}

DataLoader::~DataLoader() = default;
DataLoader::DataLoader(DataLoader&&) noexcept = default;
DataLoader& DataLoader::operator=(DataLoader&&) noexcept = default;

DataLoader::Impl& DataLoader::impl() const {
  if (!impl_)
    throw ValueError(
        "DataLoader: it was moved from. Hint: use the loader that took its place, or assign "
        "another one to it");
  return *impl_;
}

bool DataLoader::next(Batch& batch) {
  if (!impl().maker.whole())
    throw ValueError(
        "DataLoader::next: its batches are cut into shards. Hint: next(std::vector<Batch>&)");
  std::vector<Batch> only;
  const bool more = next(only);
  batch = more ? std::move(only.front()) : Batch{};
  return more;
}

bool DataLoader::next(std::vector<Batch>& shards) {
  Item item = impl().take();
  if (item.error) {
    impl().stop();  // the next call starts again at this batch
    std::rethrow_exception(item.error);
  }
  shards = std::move(item.shards);
  impl().drawn = item.end ? 0 : item.position - impl().position;
  impl().epoch += item.end ? 1 : 0;
  impl().position = item.end ? 0 : item.position;
  return !item.end;
}

void DataLoader::shard(const Shards& shards) {
  detail::check_shards("DataLoader", shards);
  impl().stop();
  impl().maker.shard(shards);
}

std::int64_t DataLoader::drawn() const { return impl().drawn; }

std::int64_t DataLoader::size() const {
  const std::int64_t n = images(), b = impl().options.batch_size;
  return n / b + (!impl().options.drop_last && n % b != 0 ? 1 : 0);
}

std::int64_t DataLoader::images() const { return impl().set.size(); }
const ImageSet& DataLoader::set() const { return impl().set; }
const LoaderOptions& DataLoader::options() const { return impl().options; }
std::int64_t DataLoader::epoch() const { return impl().epoch; }
std::int64_t DataLoader::position() const { return impl().position; }

void DataLoader::start_epoch(std::int64_t epoch) {
  detail::check_epoch("DataLoader", epoch);
  impl().stop();
  impl().epoch = epoch;
  impl().position = 0;
}

void DataLoader::save(StateDict& state, const std::string& prefix) const {
  detail::LoaderPlace{impl().options.seed, epoch(), position()}.save(state, prefix);
}

void DataLoader::load(const StateDict& state, const std::string& prefix) {
  const auto place = detail::LoaderPlace::load("DataLoader", state, prefix, images());
  impl().stop();
  impl().options.seed = place.seed;
  impl().maker.forget();
  impl().epoch = place.epoch;
  impl().position = place.position;
}

}  // namespace capsfw
