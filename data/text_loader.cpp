#include <capsfw/data/text_loader.hpp>

#include <algorithm>
#include <numeric>
#include <utility>

#include <fmt/format.h>

#include <capsfw/core/error.hpp>
#include <capsfw/core/random.hpp>
#include <capsfw/data/split.hpp>

#include "detail/loader_place.hpp"

namespace capsfw {
namespace {

/// Far from the small stream numbers that programs use with the same seed.
constexpr std::uint64_t kStreams = 0x7e87'0000'0000'0000;
constexpr std::uint64_t kPairs = 0x7e88'0000'0000'0000;

std::int64_t length(const std::vector<std::int64_t>& ids, std::int64_t max_length) {
  const auto n = static_cast<std::int64_t>(ids.size());
  return max_length > 0 ? std::min(n, max_length) : n;
}

void require(bool good, const char* rule, std::int64_t got, const char* who = "TextLoader") {
  if (!good) throw ValueError(fmt::format("{}: {}; got {}", who, rule, got));
}

void require_labels(const EncodedText& text, const char* who) {
  if (text.labels.size() != text.ids.size())
    throw ValueError(
        fmt::format("{}: every sentence must have a label; got {} labels of {} "
                    "sentences",
                    who, text.labels.size(), text.ids.size()));
}

}  // namespace

EncodedText encode(const std::vector<Words>& sentences,
                   const std::vector<std::int64_t>& labels,
                   const Vocabulary& vocabulary) {
  if (sentences.size() != labels.size())
    throw ValueError(
        fmt::format("encode: {} sentences with {} labels", sentences.size(), labels.size()));
  EncodedText out{.ids = {}, .labels = labels};
  for (const Words& words : sentences) out.ids.push_back(vocabulary.ids(words));
  return out;
}

TextBatch pad_batch(const EncodedText& text,
                    const std::vector<std::int64_t>& positions,
                    std::int64_t min_length,
                    std::int64_t max_length) {
  constexpr const char* kWho = "pad_batch";
  require_labels(text, kWho);
  require(min_length >= 0, "min_length must not be negative", min_length, kWho);
  require(max_length >= 0, "max_length must not be negative", max_length, kWho);
  for (const std::int64_t i : positions)
    if (i < 0 || i >= text.size())
      throw ValueError(
          fmt::format("{}: positions must lie in [0, {}); got {}", kWho, text.size(), i));
  const auto rows = static_cast<std::int64_t>(positions.size());
  std::int64_t width = min_length;
  for (const std::int64_t i : positions)
    width = std::max(width, length(text.ids[static_cast<std::size_t>(i)], max_length));
  TextBatch batch{full({rows, width}, Vocabulary::kPad, DType::i64),
                  zeros({rows, width}, DType::b8), empty({rows}, DType::i64)};
  auto* ids = batch.ids.mutable_data<std::int64_t>();
  bool* mask = batch.mask.mutable_data<bool>();
  auto* labels = batch.labels.mutable_data<std::int64_t>();
  for (std::int64_t r = 0; r < rows; ++r, ids += width, mask += width) {
    const auto at = static_cast<std::size_t>(positions[static_cast<std::size_t>(r)]);
    const std::int64_t n = length(text.ids[at], max_length);
    std::copy_n(text.ids[at].begin(), n, ids);
    std::fill_n(mask, n, true);
    labels[r] = text.labels[at];
  }
  return batch;
}

TextLoader::TextLoader(EncodedText text, TextLoaderOptions options)
    : text_(std::move(text)), options_(options) {
  require(text_.size() > 0, "the set must hold at least one sentence", text_.size());
  require_labels(text_, "TextLoader");
  require(options.batch_size > 0, "batch_size must be at least 1", options.batch_size);
  require(options.bucket > 0, "bucket must be at least 1", options.bucket);
  require(options.min_length > 0, "min_length must be at least 1", options.min_length);
  require(options.max_length >= 0, "max_length must not be negative", options.max_length);
  for (std::int64_t i = 0; i < text_.size(); ++i)
    require(!text_.ids[static_cast<std::size_t>(i)].empty(), "no sentence may be without words", i);
  // Not (size + batch_size - 1) / batch_size, which overflows for "all in one batch".
  starts_.resize(static_cast<std::size_t>(1 + (text_.size() - 1) / options_.batch_size));
}

void TextLoader::plan() {
  const std::int64_t n = text_.size(), size = options_.batch_size;
  for (std::size_t b = 0; b < starts_.size(); ++b) starts_[b] = static_cast<std::int64_t>(b) * size;
  planned_ = true;
  if (!options_.shuffle) {
    order_.resize(static_cast<std::size_t>(n));
    std::iota(order_.begin(), order_.end(), 0);
    return;
  }
  Rng rng(options_.seed, kStreams + static_cast<std::uint64_t>(epoch_));
  order_ = rng.permutation(n).to_vector<std::int64_t>();
  if (options_.bucket > 1) {
    const std::int64_t stretch = options_.bucket > n / size ? n : options_.bucket * size;
    for (std::int64_t begin = 0; begin < n; begin += stretch)
      std::stable_sort(order_.begin() + begin, order_.begin() + std::min(begin + stretch, n),
                       [&](std::int64_t a, std::int64_t b) {
                         return text_.ids[static_cast<std::size_t>(a)].size() <
                                text_.ids[static_cast<std::size_t>(b)].size();
                       });
    starts_ = at_positions(starts_, rng.permutation(this->size()).to_vector<std::int64_t>());
  }
}

bool TextLoader::next(TextBatch& batch) {
  if (shards_.count > 1 || shards_.end == 0)
    throw ValueError(
        "TextLoader::next: its batches are cut into shards. Hint: next(std::vector<TextBatch>&)");
  std::vector<TextBatch> only;
  const bool more = next(only);
  batch = more ? std::move(only.front()) : TextBatch{};
  return more;
}

bool TextLoader::next(std::vector<TextBatch>& shards) {
  if (!planned_) plan();
  shards.clear();
  drawn_ = 0;
  if (batch_ >= size()) {  // above it: moved from
    start_epoch(epoch_ + 1);
    return false;
  }
  const std::int64_t begin = starts_[static_cast<std::size_t>(batch_++)];
  drawn_ = std::min(options_.batch_size, text_.size() - begin);
  for (std::int64_t k = shards_.begin; k < shards_.end; ++k) {
    const std::int64_t n = shards_.size(k, drawn_);
    if (n == 0) continue;
    const auto first = order_.begin() + begin + shards_.start(k, drawn_);
    shards.push_back(
        pad_batch(text_, {first, first + n}, options_.min_length, options_.max_length));
  }
  return true;
}

void TextLoader::shard(const Shards& shards) {
  detail::check_shards("TextLoader", shards);
  shards_ = shards;
}

void TextLoader::start_epoch(std::int64_t epoch) {
  detail::check_epoch("TextLoader", epoch);
  epoch_ = epoch;
  batch_ = 0;
  planned_ = false;
}

void TextLoader::save(StateDict& state, const std::string& prefix) const {
  detail::LoaderPlace{options_.seed, epoch_, batch_}.save(state, prefix);
}

void TextLoader::load(const StateDict& state, const std::string& prefix) {
  const auto place = detail::LoaderPlace::load("TextLoader", state, prefix, size());
  options_.seed = place.seed;
  start_epoch(place.epoch);
  batch_ = place.position;
}

TextPairs join_pairs(const EncodedText& text, std::uint64_t seed) {
  require_labels(text, "join_pairs");
  TextPairs pairs;
  std::vector<std::int64_t> labels;
  Rng rng(seed, kPairs);
  const auto partner = rng.permutation(text.size()).to_vector<std::int64_t>();
  for (std::size_t i = 0; i < partner.size(); ++i) {
    const auto k = static_cast<std::size_t>(partner[i]);
    if (text.labels[i] == text.labels[k]) continue;
    std::vector<std::int64_t> both = text.ids[i];
    both.insert(both.end(), text.ids[k].begin(), text.ids[k].end());
    pairs.text.ids.push_back(std::move(both));
    pairs.text.labels.push_back(text.labels[i]);
    labels.insert(labels.end(), {text.labels[i], text.labels[k]});
  }
  pairs.labels = from_vector(labels, {pairs.text.size(), 2});
  return pairs;
}

}  // namespace capsfw
