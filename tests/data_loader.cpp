#include <map>
#include <set>

#include <doctest/doctest.h>

#include "data_common.hpp"
#include "data_dots.hpp"

using namespace capsfw;
using namespace data_test;

TEST_CASE("loader: without shuffling the batches follow the set") {
  DataLoader loader(dots(10), {.batch_size = 4});
  CHECK(loader.size() == 3);
  Batch batch;
  for (int epoch = 0; epoch < 2; ++epoch) {
    std::vector<std::int64_t> sizes;
    std::vector<int> order;
    CHECK(loader.epoch() == epoch);
    while (loader.next(batch)) {
      sizes.push_back(batch.size());
      for (const Seen& s : seen(batch)) {
        CHECK((s.y == 2 && s.x == 2));
        order.push_back(s.image);
      }
      CHECK(loader.position() == static_cast<std::int64_t>(order.size()));
    }
    CHECK(sizes == std::vector<std::int64_t>{4, 4, 2});
    CHECK(order == first(10));
    CHECK_FALSE(batch.images.defined());
  }
  CHECK(loader.epoch() == 2);
  CHECK(loader.position() == 0);
}

TEST_CASE("loader: one that was moved from says so, until another one takes its place") {
  DataLoader from(dots(10), {.batch_size = 4});
  Batch batch;
  REQUIRE(from.next(batch));
  DataLoader to = std::move(from);
  CHECK(to.position() == 4);
  // NOLINTBEGIN(bugprone-use-after-move)
  StateDict state;
  const std::function<void()> uses[] = {
      [&] { from.next(batch); },
      [&] { from.size(); },
      [&] { from.set(); },
      [&] { from.begin(); },
      [&] { from.start_epoch(1); },
      [&] { from.shard({}); },
      [&] { from.save(state, "loader"); },
  };
  for (const auto& use : uses)
    CHECK(message_of<ValueError>(use).starts_with("DataLoader: it was moved from. Hint: "));
  from = std::move(to);
  CHECK(from.position() == 4);
  // NOLINTEND(bugprone-use-after-move)
}

TEST_CASE("loader: pixels become byte / 255 exactly") {
  Bytes all;
  for (int i = 0; i < 256; ++i) all.push_back(static_cast<std::uint8_t>(i));
  DataLoader loader(ImageSet({1, 16, 16}, all, {0}, {"a"}));
  Batch batch;
  REQUIRE(loader.next(batch));
  const auto v = batch.images.to_vector<float>();
  for (int i = 0; i < 256; ++i)
    CHECK(v[static_cast<std::size_t>(i)] == static_cast<float>(i) / 255.0f);
}

TEST_CASE("loader: shuffling gives every image once, a new order each epoch, the same per seed") {
  const LoaderOptions options{.batch_size = 8, .shuffle = true, .seed = 5};
  DataLoader a(dots(100), options), b(dots(100), options);
  DataLoader other(dots(100), {.batch_size = 8, .shuffle = true, .seed = 6});
  std::set<std::vector<int>> orders{first(100)};
  for (int epoch = 0; epoch < 4; ++epoch) {
    const auto order = images_of(epoch_of(a));
    CHECK(sorted(order) == first(100));
    CHECK(order == images_of(epoch_of(b)));
    CHECK(order != images_of(epoch_of(other)));
    orders.insert(order);
  }
  CHECK(orders.size() == 5);
}

TEST_CASE("loader: the order does not depend on the batch size") {
  DataLoader a(dots(50), {.batch_size = 7, .shuffle = true, .max_shift = 1});
  DataLoader b(dots(50), {.batch_size = 16, .shuffle = true, .max_shift = 1});
  for (int epoch = 0; epoch < 2; ++epoch) CHECK(epoch_of(a) == epoch_of(b));
}

TEST_CASE("loader: the same batches for any prefetching and any number of threads") {
  const auto run = [](std::int64_t prefetch) {
    DataLoader loader(dots(40), {.batch_size = 6,
                                 .shuffle = true,
                                 .max_shift = 2,
                                 .seed = 3,
                                 .prefetch = prefetch,
                                 .transform = [](Batch& batch, Rng& rng) {
                                   auto* y = batch.labels.mutable_data<std::int64_t>();
                                   for (std::int64_t k = 0; k < batch.size(); ++k)
                                     y[k] = rng.below(1000000);
                                 }});
    std::vector<float> pixels;
    std::vector<std::int64_t> draws;
    for (int epoch = 0; epoch < 3; ++epoch)
      for (const Batch& batch : loader) {
        for (float v : batch.images.to_vector<float>()) pixels.push_back(v);
        for (std::int64_t v : batch.labels.to_vector<std::int64_t>()) draws.push_back(v);
      }
    CHECK(std::set<std::int64_t>(draws.begin(), draws.end()).size() > 100);
    return std::pair(pixels, draws);
  };
  const auto expected = run(0);
  for (std::int64_t prefetch : {1, 2, 5}) CHECK(run(prefetch) == expected);
  const int before = num_threads();
  for (int threads : {1, 2, 3, 7}) {
    set_num_threads(threads);
    CHECK(run(2) == expected);
  }
  set_num_threads(before);
}

TEST_CASE("loader: drop_last leaves out the short batch") {
  DataLoader loader(dots(10), {.batch_size = 4, .drop_last = true});
  CHECK(loader.size() == 2);
  CHECK(images_of(epoch_of(loader)) == first(8));
  CHECK(loader.epoch() == 1);
  CHECK(DataLoader(dots(8), {.batch_size = 4}).size() == 2);
}

TEST_CASE("loader: shifts reach every offset of the square about equally, and nothing else") {
  DataLoader loader(dots(250), {.batch_size = 50, .max_shift = 2});
  std::map<std::pair<int, int>, int> count;
  for (int epoch = 0; epoch < 10; ++epoch)
    for (const Seen& s : epoch_of(loader)) ++count[{s.y - 2, s.x - 2}];
  CHECK(count.size() == 25);
  for (const auto& [shift, n] : count) {
    CHECK(std::abs(shift.first) <= 2);
    CHECK(std::abs(shift.second) <= 2);
    CHECK((n > 50 && n < 150));  // 100 expected of 2500, standard deviation 10
  }
}

TEST_CASE("loader: a shifted image is the old one moved, with zeros behind it, in every channel") {
  Bytes pixels;
  for (int i = 0; i < 2 * 4 * 5; ++i) pixels.push_back(static_cast<std::uint8_t>(i + 1));
  const ImageSet set({2, 4, 5}, pixels, {0}, {"a"});
  DataLoader loader(set, {.max_shift = 3});
  std::set<std::pair<int, int>> found;
  Batch batch;
  for (int epoch = 0; epoch < 300; ++epoch) {
    REQUIRE(loader.next(batch));
    const auto v = batch.images.to_vector<float>();
    int matches = 0;
    for (int dy = -3; dy <= 3; ++dy)
      for (int dx = -3; dx <= 3; ++dx) {
        bool same = true;
        for (int c = 0; c < 2; ++c)
          for (int y = 0; y < 4; ++y)
            for (int x = 0; x < 5; ++x) {
              const int sy = y - dy, sx = x - dx;
              const bool inside = sy >= 0 && sy < 4 && sx >= 0 && sx < 5;
              const int expected =
                  inside ? pixels[static_cast<std::size_t>((c * 4 + sy) * 5 + sx)] : 0;
              same = same && v[static_cast<std::size_t>((c * 4 + y) * 5 + x)] ==
                                 static_cast<float>(expected) / 255.0f;
            }
        if (same) found.insert({dy, dx});
        matches += same;
      }
    CHECK(matches == 1);
    CHECK_FALSE(loader.next(batch));
  }
  CHECK(found.size() == 49);
}

TEST_CASE("loader: options outside their range are refused") {
  const ImageSet set = dots(10);
  CHECK_THROWS_AS(DataLoader(ImageSet{}), ValueError);
  CHECK_THROWS_AS(DataLoader(set, {.batch_size = 0}), ValueError);
  CHECK_THROWS_AS(DataLoader(set, {.batch_size = 11, .drop_last = true}), ValueError);
  CHECK_THROWS_AS(DataLoader(set, {.max_shift = -1}), ValueError);
  CHECK_THROWS_AS(DataLoader(set, {.max_shift = 5}), ValueError);
  CHECK_THROWS_AS(DataLoader(set, {.prefetch = -1}), ValueError);
  CHECK(DataLoader(set, {.batch_size = 11}).size() == 1);
}
