// Vocabularies, splits, batches of sentences, joined pairs.

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <set>

#include <doctest/doctest.h>

#include <capsfw/data/split.hpp>
#include <capsfw/data/text.hpp>
#include <capsfw/data/text_loader.hpp>

#include "data_common.hpp"

using namespace capsfw;
using namespace data_test;

namespace {

using Ids = std::vector<std::int64_t>;
const std::vector<Words> kSentences = {{"b", "a", "c"}, {"a", "b", "a"}, {"d", "c"}, {}};

/// `n` sentences of different lengths; sentence i has i + 2 as its first word, so that a batch says
/// which ones it holds.
EncodedText sentences(std::int64_t n) {
  EncodedText text;
  for (std::int64_t i = 0; i < n; ++i) {
    text.ids.emplace_back(static_cast<std::size_t>(1 + i * 7 % 23), i + 2);
    text.labels.push_back(i % 3);
  }
  return text;
}

struct Epoch {
  Ids order;
  std::vector<Ids> batches;
  std::int64_t padding = 0;
};

Epoch epoch_of(TextLoader& loader) {
  Epoch epoch;
  for (const TextBatch& batch : loader) {
    const auto ids = batch.ids.to_vector<std::int64_t>();
    epoch.batches.emplace_back();
    for (std::int64_t r = 0; r < batch.size(); ++r)
      epoch.batches.back().push_back(ids[static_cast<std::size_t>(r * batch.ids.size(1))] - 2);
    epoch.order.insert(epoch.order.end(), epoch.batches.back().begin(), epoch.batches.back().end());
    epoch.padding += std::count(ids.begin(), ids.end(), Vocabulary::kPad);
  }
  return epoch;
}

Ids sorted(Ids ids) {
  std::sort(ids.begin(), ids.end());
  return ids;
}

Ids first(std::int64_t n) { return arange(n).to_vector<std::int64_t>(); }

}  // namespace

TEST_CASE("vocabulary: by frequency, then by bytes, from a least count on") {
  const Vocabulary v(kSentences);
  REQUIRE(v.size() == 6);
  CHECK(v.word(0) == "<pad>");
  CHECK(v.word(1) == "<unk>");
  CHECK(v.word(2) == "a");
  CHECK(v.word(3) == "b");
  CHECK(v.word(4) == "c");
  CHECK(v.word(5) == "d");
  CHECK(v.id("c") == 4);
  CHECK(v.id("e") == Vocabulary::kUnknown);
  CHECK(v.ids({"d", "x", "a"}) == Ids{5, 1, 2});
  CHECK(v.ids({}) == Ids{1});
  CHECK(Vocabulary(kSentences, 2).size() == 5);
  CHECK(Vocabulary(kSentences, 9).size() == 2);
  CHECK(Vocabulary().size() == 2);
  CHECK_THROWS_AS(Vocabulary(kSentences, 0), ValueError);
  // No UTF-8, a control character of two bytes, longer than a line: load() would refuse the file.
  const std::string long_word((1 << 20) + 1, 'x');
  for (const char* bad :
       {"", "a b", "<pad>", "<unk>", "a\n", "\xE9", "\xC2\x85", long_word.c_str()})
    CHECK(contains(message_of<ValueError>([&] { Vocabulary({{bad}}); }), "words must not be"));
  CHECK(message_of<ValueError>([&] { v.word(6); }) == "Vocabulary: numbers lie in [0, 6); got 6");
  CHECK_THROWS_AS(v.word(-1), ValueError);
}

TEST_CASE("vocabulary: what is saved comes back, and other files are refused") {
  const TempDir dir;
  const auto path = dir / "vocabulary.txt";
  const Vocabulary v({{"caf\xC3\xA9", "b", "b", "'s", std::string(1 << 20, 'x')}});
  v.save(path);
  const Vocabulary w = Vocabulary::load(path);
  REQUIRE(w.size() == v.size());
  for (std::int64_t i = 0; i < v.size(); ++i) CHECK(w.word(i) == v.word(i));
  const auto complaint = [&](const std::string& text) {
    write_bytes(path, {text.begin(), text.end()});
    return message_of<IoError>([&] { Vocabulary::load(path); });
  };
  CHECK(contains(complaint(""), "line 1: must be <pad>"));
  CHECK(contains(complaint("<pad>\nx\n"), "line 2: must be <unk>"));
  CHECK(contains(complaint("<pad>\n<unk>\na\nb\na\n"), "line 5: 'a' is there twice"));
  CHECK(contains(complaint("<pad>\n<unk>\na\n\n"), "line 4: must be one word"));
  CHECK(contains(complaint("<pad>\n<unk>\na b\n"), "line 3: must be one word"));
  CHECK(contains(complaint("<pad>\n<unk>\n<pad>\n"), "line 3: '<pad>' is there twice"));
  CHECK(contains(complaint("<pad>\n<unk>\n\xE9\n"), "line 3: must be UTF-8"));
  CHECK(contains(complaint("<pad>\n<unk>\n\xC2\x85\n"), "line 3: must be one word"));
  CHECK(contains(message_of<IoError>([&] { Vocabulary::load(dir / "none"); }), "none"));
}

TEST_CASE("lengths of sentences") {
  const LengthStatistics s = length_statistics(kSentences);
  CHECK(s.sentences == 4);
  CHECK(s.mean == doctest::Approx(2));
  CHECK(s.min == 0);
  CHECK(s.median == 2);
  CHECK(s.p90 == 3);
  CHECK(s.p99 == 3);
  CHECK(s.max == 3);
  std::vector<Words> ten;
  for (std::size_t n = 1; n <= 10; ++n) ten.emplace_back(n, "x");
  CHECK(length_statistics(ten).median == 5);
  CHECK(length_statistics(ten).p90 == 9);
  CHECK(length_statistics(ten).p99 == 10);
  CHECK(length_statistics({}).max == 0);
}

TEST_CASE("folds: each sample is tested once, classes are dealt out evenly") {
  for (const std::int64_t n : {10, 11, 57, 203})
    for (const std::int64_t k : {2, 3, 10}) {
      Ids labels;
      for (std::int64_t i = 0; i < n; ++i)
        labels.push_back(i * i % 7 == 1 ? 1 : i % 5 == 0 ? 2 : 0);
      const auto folds = stratified_folds(labels, k, 4);
      REQUIRE(static_cast<std::int64_t>(folds.size()) == k);
      Ids all;
      std::map<std::int64_t, std::set<std::int64_t>> counts;  // class -> counts in the test parts
      for (const SplitParts& fold : folds) {
        CHECK(std::is_sorted(fold.test.begin(), fold.test.end()));
        Ids both = fold.train;
        both.insert(both.end(), fold.test.begin(), fold.test.end());
        CHECK(sorted(both) == first(n));
        all.insert(all.end(), fold.test.begin(), fold.test.end());
        counts[-1].insert(static_cast<std::int64_t>(fold.test.size()));
        const Ids tested = at_positions(labels, fold.test);
        for (std::int64_t c = 0; c < 3; ++c)
          counts[c].insert(std::count(tested.begin(), tested.end(), c));
      }
      CHECK(sorted(all) == first(n));
      for (const auto& [label, values] : counts) CHECK(*values.rbegin() - *values.begin() <= 1);
      CHECK(stratified_folds(labels, k, 4)[0].test == folds[0].test);
      if (n > 50) CHECK(stratified_folds(labels, k, 5)[0].test != folds[0].test);
    }
  CHECK_THROWS_AS(stratified_folds({0, 1}, 1), ValueError);
  CHECK(message_of<ValueError>([] {
          stratified_folds({0, 1}, 3);
        }) == "stratified_folds: folds must be at least 2 and at most the 2 samples; got 3");
}

TEST_CASE("holding out: a share of every class, at least one sample stays") {
  Ids labels(1000);
  for (std::size_t i = 0; i < labels.size(); ++i) labels[i] = i < 700 ? 4 : i < 999 ? 7 : 9;
  const SplitParts parts = stratified_hold_out(labels, 0.1, 3);
  const Ids held = at_positions(labels, parts.test);
  CHECK(std::abs(std::count(held.begin(), held.end(), 4) - 70) <= 1);
  CHECK(std::abs(std::count(held.begin(), held.end(), 7) - 30) <= 1);
  CHECK(std::count(held.begin(), held.end(), 9) == 0);
  Ids both = parts.train;
  both.insert(both.end(), parts.test.begin(), parts.test.end());
  CHECK(sorted(both) == first(1000));
  CHECK(stratified_hold_out(labels, 0.1, 3).test == parts.test);
  CHECK(stratified_hold_out(labels, 0.1, 4).test != parts.test);
  CHECK(stratified_hold_out(labels, 0).test.empty());
  const Ids kept = at_positions(labels, stratified_hold_out(labels, 0.999999).train);
  CHECK(kept == Ids{4, 7, 9});
  // Classes of one image give none, and the next class does not pay for them.
  Ids many(10);
  std::iota(many.begin(), many.end(), 0);
  many.insert(many.end(), 20, 10);
  const auto given = stratified_hold_out(many, 0.5).test.size();
  CHECK((given >= 10 && given <= 11));
  for (const double bad : {-0.1, 1.0, static_cast<double>(NAN)})
    CHECK_THROWS_AS(stratified_hold_out(labels, bad), ValueError);
}

TEST_CASE("text loader: padding, masks, least and largest length") {
  EncodedText text{.ids = {{5, 6, 7}, {8}}, .labels = {1, 0}};
  TextLoader loader(text, {.batch_size = 2});
  TextBatch batch;
  REQUIRE(loader.next(batch));
  CHECK(batch.ids.shape() == Shape{2, 3});
  CHECK(batch.ids.to_vector<std::int64_t>() == Ids{5, 6, 7, 8, 0, 0});
  CHECK(batch.mask.dtype() == DType::b8);
  CHECK(batch.mask.to_vector<bool>() == std::vector<bool>{true, true, true, true, false, false});
  CHECK(batch.labels.to_vector<std::int64_t>() == Ids{1, 0});
  CHECK_FALSE(loader.next(batch));
  CHECK_FALSE(batch.ids.defined());
  CHECK(loader.epoch() == 1);
  CHECK(pad_batch(text, {1}, 4).ids.to_vector<std::int64_t>() == Ids{8, 0, 0, 0});
  CHECK(pad_batch(text, {0}, 1, 2).ids.to_vector<std::int64_t>() == Ids{5, 6});
  CHECK(pad_batch(text, {1, 1}, 1, 2).ids.to_vector<std::int64_t>() == Ids{8, 8});
}

TEST_CASE("pad_batch and join_pairs: positions, lengths and labels are checked") {
  const EncodedText text{.ids = {{5, 6, 7}, {8}}, .labels = {1, 0}};
  const EncodedText bare{.ids = {{5, 6, 7}, {8}}, .labels = {1}};
  const auto message = [](const EncodedText& t, const Ids& positions, std::int64_t min_length = 1,
                          std::int64_t max_length = 0) {
    return message_of<ValueError>([&] { pad_batch(t, positions, min_length, max_length); });
  };
  CHECK(message(text, {5}) == "pad_batch: positions must lie in [0, 2); got 5");
  CHECK(message(text, {0, -1}) == "pad_batch: positions must lie in [0, 2); got -1");
  CHECK(message({}, {0}) == "pad_batch: positions must lie in [0, 0); got 0");
  CHECK(message(text, {0}, -1) == "pad_batch: min_length must not be negative; got -1");
  CHECK(message(text, {0}, 1, -2) == "pad_batch: max_length must not be negative; got -2");
  CHECK(message(bare, {0}) ==
        "pad_batch: every sentence must have a label; got 1 labels of 2 sentences");
  CHECK(message_of<ValueError>([&] { join_pairs(bare); }) ==
        "join_pairs: every sentence must have a label; got 1 labels of 2 sentences");
  CHECK(pad_batch(text, {}).ids.shape() == Shape{0, 1});
}

TEST_CASE("text loader: the largest batch size is one batch, a moved-from loader has none") {
  constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max();
  for (const bool shuffle : {false, true}) {
    TextLoader loader(sentences(10),
                      {.batch_size = kMost, .shuffle = shuffle, .bucket = kMost, .seed = 1});
    CHECK(loader.size() == 1);
    CHECK(sorted(epoch_of(loader).order) == first(10));
  }
  TextLoader from(sentences(10), {.batch_size = 3});
  TextBatch batch;
  for (int i = 0; i < 2; ++i) REQUIRE(from.next(batch));
  TextLoader to = std::move(from);
  REQUIRE(to.next(batch));
  CHECK(batch.ids.size(0) == 3);
  CHECK_FALSE(from.next(batch));  // NOLINT(bugprone-use-after-move)
}

TEST_CASE("text loader: without shuffling the batches follow the set") {
  TextLoader loader(sentences(10), {.batch_size = 4});
  CHECK(loader.size() == 3);
  CHECK(loader.sentences() == 10);
  for (int i = 0; i < 2; ++i) CHECK(epoch_of(loader).order == first(10));
}

TEST_CASE("text loader: shuffled, every sentence once, a new order each epoch, the same per seed") {
  const TextLoaderOptions options{.batch_size = 8, .shuffle = true, .bucket = 4, .seed = 5};
  TextLoader a(sentences(203), options), b(sentences(203), options);
  TextLoader other(sentences(203), {.batch_size = 8, .shuffle = true, .bucket = 4, .seed = 6});
  std::set<Ids> orders{first(203)};
  for (int i = 0; i < 4; ++i) {
    const Ids order = epoch_of(a).order;
    CHECK(sorted(order) == first(203));
    CHECK(order == epoch_of(b).order);
    CHECK(order != epoch_of(other).order);
    orders.insert(order);
  }
  CHECK(orders.size() == 5);
  // Any epoch, in any order.
  TextLoader c(sentences(203), options);
  c.start_epoch(3);
  CHECK(orders.contains(epoch_of(c).order));
  CHECK(c.epoch() == 4);
}

TEST_CASE("text loader: buckets bring like lengths together, in every stretch alike") {
  const auto padding = [](std::int64_t bucket) {
    TextLoader loader(sentences(400), {.batch_size = 10, .shuffle = true, .bucket = bucket});
    return epoch_of(loader).padding;
  };
  CHECK(padding(40) * 10 < padding(1));
  CHECK(padding(1'000'000'000) == padding(40));
  CHECK(padding(4) < padding(1));
  // The last, smaller batch is not always the last one of the epoch.
  std::set<std::size_t> places;
  TextLoader loader(sentences(43), {.batch_size = 10, .shuffle = true});
  for (int i = 0; i < 20; ++i) {
    const auto batches = epoch_of(loader).batches;
    places.insert(static_cast<std::size_t>(
        std::find_if(batches.begin(), batches.end(), [](const Ids& x) { return x.size() == 3; }) -
        batches.begin()));
  }
  CHECK(places.size() > 1);
}

TEST_CASE("text loader: a saved state resumes in the middle of an epoch, a wrong one is refused") {
  const TextLoaderOptions options{.batch_size = 8, .shuffle = true, .bucket = 4, .seed = 5};
  TextLoader a(sentences(203), options);
  TextBatch batch;
  for (int i = 0; i < 30; ++i) a.next(batch);  // into the second epoch of 26 batches
  StateDict state;
  a.save(state, "loader");
  const Ids rest = epoch_of(a).order, next = epoch_of(a).order;
  TextLoader b(sentences(203), {.batch_size = 8, .shuffle = true, .bucket = 4, .seed = 9});
  b.load(state, "loader");
  CHECK(b.epoch() == 1);
  CHECK(epoch_of(b).order == rest);
  CHECK(epoch_of(b).order == next);
  TextLoader small(sentences(10), options);
  StateDict bad;
  bad.set("loader", from_vector<std::int64_t>({5, 0, 3}));
  CHECK_THROWS_AS(small.load(bad, "loader"), ValueError);
  bad.set("loader", from_vector<std::int64_t>({5, 0}));
  CHECK_THROWS_AS(small.load(bad, "loader"), ValueError);
  CHECK_THROWS_AS(small.load(bad, "none"), ValueError);
  CHECK(small.epoch() == 0);
}

TEST_CASE("text loader: mistakes") {
  const auto message = [](EncodedText text, TextLoaderOptions options) {
    return message_of<ValueError>([&] { TextLoader(text, options); });
  };
  CHECK(message({}, {}) == "TextLoader: the set must hold at least one sentence; got 0");
  CHECK(message({.ids = {{1}, {}}, .labels = {0, 0}}, {}) ==
        "TextLoader: no sentence may be without words; got 1");
  CHECK(contains(message({.ids = {{1}}, .labels = {}}, {}), "every sentence must have a label"));
  CHECK(contains(message(sentences(3), {.batch_size = 0}), "batch_size must be at least 1"));
  CHECK(contains(message(sentences(3), {.bucket = 0}), "bucket must be at least 1"));
  CHECK(contains(message(sentences(3), {.min_length = 0}), "min_length must be at least 1"));
  CHECK(contains(message(sentences(3), {.max_length = -1}), "max_length must not be negative"));
  TextLoader loader(sentences(3));
  CHECK_THROWS_AS(loader.start_epoch(-1), ValueError);
  CHECK_THROWS_AS(encode(kSentences, {0}, Vocabulary()), ValueError);
  CHECK(encode(kSentences, {0, 0, 0, 1}, Vocabulary()).ids[3] == Ids{1});
}

TEST_CASE("joined pairs: two classes each, the words of both") {
  const EncodedText text = sentences(60);
  const TextPairs pairs = join_pairs(text, 2);
  REQUIRE(pairs.text.size() > 20);
  REQUIRE(pairs.labels.shape() == Shape{pairs.text.size(), 2});
  const Ids classes = pairs.labels.to_vector<std::int64_t>();
  std::set<std::int64_t> firsts, seconds;
  for (std::size_t i = 0; i < pairs.text.ids.size(); ++i) {
    const Ids& ids = pairs.text.ids[i];
    const auto a = static_cast<std::size_t>(ids.front() - 2),
               b = static_cast<std::size_t>(ids.back() - 2);
    Ids both = text.ids[a];
    both.insert(both.end(), text.ids[b].begin(), text.ids[b].end());
    CHECK(ids == both);
    CHECK(pairs.text.labels[i] == text.labels[a]);
    CHECK(classes[2 * i] == text.labels[a]);
    CHECK(classes[2 * i + 1] == text.labels[b]);
    CHECK(text.labels[a] != text.labels[b]);
    CHECK(firsts.insert(ids.front()).second);
    CHECK(seconds.insert(ids.back()).second);
  }
  CHECK(join_pairs(text, 2).text.ids == pairs.text.ids);
  CHECK(join_pairs(text, 3).text.ids != pairs.text.ids);
  CHECK(join_pairs({}).text.size() == 0);
  CHECK(join_pairs({}).labels.shape() == Shape{0, 2});
}

TEST_CASE("text data: the whole way from a file to batches") {
  const TempDir dir;
  std::string table;
  for (int i = 0; i < 40; ++i)
    table += (i % 2 ? "good\tA fine, fine film no. " : "bad\tIt isn't ") + std::to_string(i) + "\n";
  const std::string path = (dir / "films.tsv").string();
  write_bytes(path, {table.begin(), table.end()});
  std::int64_t seen = 0;
  // [batches]
  const TextData data = load_text(path);
  std::vector<Words> words;
  for (const std::string& text : data.train.texts) words.push_back(tokenize(text, data.tokenizer));
  for (const SplitParts& fold : stratified_folds(data.train.labels, 10, 1)) {
    const std::vector<Words> train = at_positions(words, fold.train);
    const Vocabulary vocabulary(train);
    TextLoader loader(encode(train, at_positions(data.train.labels, fold.train), vocabulary),
                      {.batch_size = 16, .shuffle = true, .min_length = 3, .seed = 1});
    for (const TextBatch& batch : loader)  // i64 [B, L], b8 [B, L], i64 [B]
      seen += batch.size();
  }
  // [batches]
  CHECK(seen == 9 * 40);
}
