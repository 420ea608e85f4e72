#include <limits>
#include <stdexcept>

#include <doctest/doctest.h>

#include "data_common.hpp"
#include "data_dots.hpp"

using namespace capsfw;
using namespace data_test;

TEST_CASE("loader: a saved state resumes in the middle of an epoch, bit for bit") {
  for (std::int64_t prefetch : {0, 2})
    for (int batches = 0; batches <= 12; ++batches) {
      LoaderOptions options{
          .batch_size = 7, .shuffle = true, .max_shift = 2, .seed = 9, .prefetch = prefetch};
      DataLoader a(dots(33), options);
      Batch batch;
      for (int k = 0; k < batches; ++k) a.next(batch);  // ends of epochs included
      StateDict state;
      a.save(state, "loader");
      options.seed = 1;
      DataLoader b(dots(33), options);
      for (int k = 0; k < 3; ++k) b.next(batch);
      b.load(state, "loader");
      CHECK(b.epoch() == a.epoch());
      CHECK(b.position() == a.position());
      for (int epoch = 0; epoch < 3; ++epoch) CHECK(epoch_of(b) == epoch_of(a));
    }
}

TEST_CASE("loader: a state survives a file") {
  const TempDir dir;
  DataLoader a(dots(20), {.batch_size = 3, .shuffle = true, .seed = ~std::uint64_t{0}});
  Batch batch;
  for (int k = 0; k < 4; ++k) a.next(batch);
  StateDict state;
  a.save(state, "train.loader");
  save_safetensors(dir / "s", state);
  DataLoader b(dots(20), {.batch_size = 3, .shuffle = true});
  b.load(load_safetensors(dir / "s").state, "train.loader");
  CHECK(epoch_of(a) == epoch_of(b));
}

TEST_CASE("loader: a state that does not fit is refused and changes nothing") {
  DataLoader loader(dots(10), {.batch_size = 4});
  Batch batch;
  loader.next(batch);
  StateDict state;
  const auto refused = [&](const Tensor& value) {
    state.set("x", value);
    CHECK_THROWS_AS(loader.load(state, "x"), ValueError);
    CHECK(loader.position() == 4);
  };
  CHECK_THROWS_AS(loader.load(state, "x"), ValueError);
  refused(zeros({3}));
  refused(zeros({2}, DType::i64));
  refused(from_vector<std::int64_t>({0, -1, 0}));
  refused(from_vector<std::int64_t>({0, 0, -1}));
  refused(from_vector<std::int64_t>({0, 0, 11}));
  refused(from_vector<std::int64_t>({0, std::numeric_limits<std::int64_t>::max(), 0}));
  REQUIRE(loader.next(batch));
  CHECK(images_of(seen(batch)) == std::vector<int>{4, 5, 6, 7});
}

TEST_CASE("loader: a loop left early goes on, start_epoch begins anew") {
  DataLoader loader(dots(10), {.batch_size = 4, .shuffle = true});
  std::vector<Seen> parts;
  for (const Batch& batch : loader) {
    parts = seen(batch);
    break;
  }
  for (const Seen& s : epoch_of(loader)) parts.push_back(s);
  const auto second = epoch_of(loader);
  loader.start_epoch(0);
  CHECK(epoch_of(loader) == parts);
  Batch batch;
  loader.next(batch);
  loader.start_epoch(1);
  CHECK(epoch_of(loader) == second);
  CHECK_THROWS_AS(loader.start_epoch(-1), ValueError);
}

TEST_CASE("loader: an exception of the thread reaches the caller, and the loader goes on") {
  for (std::int64_t prefetch : {0, 1, 2, 4}) {
    bool broken = true;  // read by the thread only after the changes below: it has ended by then
    DataLoader loader(dots(10),
                      {.batch_size = 4, .prefetch = prefetch, .transform = [&](Batch& batch, Rng&) {
                         if (batch.size() == 2 && broken) throw std::runtime_error("no");
                       }});
    Batch batch;
    CHECK(loader.next(batch));
    CHECK(loader.next(batch));
    for (int k = 0; k < 2; ++k) {
      CHECK(message_of<std::runtime_error>([&] { loader.next(batch); }) == "no");
      CHECK(loader.position() == 8);
    }
    broken = false;
    CHECK(loader.next(batch));
    CHECK(images_of(seen(batch)) == std::vector<int>{8, 9});
    CHECK_FALSE(loader.next(batch));
  }
}

TEST_CASE("loader: destruction and moves in the middle of an epoch, with full and empty queues") {
  Batch batch;
  for (int k = 0; k < 100; ++k) {
    DataLoader loader(dots(50), {.batch_size = 3, .shuffle = true, .prefetch = k % 5});
    for (int n = 0; n < k % 7; ++n) loader.next(batch);
    DataLoader moved = std::move(loader);
    if (k % 2 == 0) moved.next(batch);
    if (k % 3 == 0) moved = DataLoader(dots(5));
    CHECK(moved.epoch() == 0);
  }
}

TEST_CASE("loader: batches outlive their loader") {
  Batch batch;
  {
    DataLoader loader(dots(10), {.batch_size = 10});
    loader.next(batch);
  }
  CHECK(images_of(seen(batch)) == first(10));
}
