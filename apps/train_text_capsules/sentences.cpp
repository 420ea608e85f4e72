#include "sentences.hpp"

#include <algorithm>

#include <fmt/format.h>

namespace capsfw::apps {
namespace {

Part tokenized(const TextSet& set, const TokenizerOptions& options) {
  Part part{{}, set.labels};
  for (const std::string& text : set.texts) part.words.push_back(tokenize(text, options));
  return part;
}

}  // namespace

Part Part::at(const std::vector<std::int64_t>& positions) const {
  return {at_positions(words, positions), at_positions(labels, positions)};
}

Sentences::Sentences(const TextFlags& flags, const Args& args)
    : flags_(flags), data_(load_text(flags.data, flags.text_options())) {
  args.refuse_idle(data_.test.size() > 0,
                   fmt::format("of sets without a test part; {} has one. Hint: --seeds N trains "
                               "several networks",
                               flags.data),
                   {"--folds", "--run-folds"});
  args.refuse_idle(
      data_.validation.size() > 0,
      fmt::format("of sets without a part to choose the epoch; {} has one. Hint: no --dev",
                  flags.data),
      {"--dev"});
  args.refuse_idle(data_.validation.size() == 0 && flags.dev == 0 && flags.patience > 0,
                   "of an epoch chosen by sentences held out; --dev is 0. Hint: --dev 0.1",
                   {"--patience"});
  data_.tokenizer.edges = flags.edges == "mark";
  train_ = tokenized(data_.train, data_.tokenizer);
  dev_ = tokenized(data_.validation, data_.tokenizer);
  test_ = tokenized(data_.test, data_.tokenizer);
  if (test_.size() == 0) folds_ = stratified_folds(train_.labels, flags.folds, flags.train.seed);
}

SentenceSplit Sentences::split(std::int64_t fold, std::uint64_t seed) const {
  SentenceSplit s{train_, dev_, test_};
  if (!folds_.empty()) {
    const SplitParts& positions = folds_[static_cast<std::size_t>(fold)];
    s.train = train_.at(positions.train);
    s.test = train_.at(positions.test);
  }
  if (s.dev.size() == 0 && flags_.dev > 0) {
    const SplitParts positions = stratified_hold_out(s.train.labels, flags_.dev, seed);
    s.dev = s.train.at(positions.test);
    s.train = s.train.at(positions.train);
  }
  return s;
}

void Sentences::describe() const {
  TokenizerOptions plain = data_.tokenizer;
  plain.edges = false;
  const LengthStatistics s = length_statistics(tokenized(data_.train, plain).words);
  fmt::print("{}: {} sentences, {} to develop on, {} to test on; {} classes\n", flags_.data,
             train_.size(), dev_.size(),
             has_test() ? std::to_string(test_.size())
                        : fmt::format("folds of {}", train_.size() / flags_.folds),
             class_names().size());
  fmt::print("words a sentence: mean {:.1f}, median {}, 90 % {}, 99 % {}, longest {}\n", s.mean,
             s.median, s.p90, s.p99, s.max);
  for (std::size_t k = 0; k < class_names().size() && class_names().size() <= 20; ++k)
    fmt::print(
        "  {:<12} {}\n", class_names()[k],
        std::count(train_.labels.begin(), train_.labels.end(), static_cast<std::int64_t>(k)));
}

std::string Sentences::example() const {
  const std::string& text = data_.train.texts.front();
  return text.size() < 60 && text.find_first_of("\"\\$`") == std::string::npos
             ? text
             : std::string("how far is it ?");
}

}  // namespace capsfw::apps
