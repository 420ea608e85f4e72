#include "flags.hpp"

#include <algorithm>
#include <charconv>

#include <fmt/format.h>

#include <capsfw/layers/loss.hpp>
#include <capsfw/layers/routing_table.hpp>
#include <capsfw/ops/index.hpp>

#include "common/classifier_loss.hpp"
#include "common/text.hpp"

namespace capsfw::apps {
namespace {

/// What a network without capsules cannot have.
constexpr std::initializer_list<const char*> kCapsuleFlags = {
    "--types",        "--capsule-dim", "--window",      "--squash-c",
    "--window-types", "--routing",     "--noise-class", "--keep"};

std::vector<std::int64_t> ngram_list(const std::string& text) {
  std::vector<std::int64_t> out;
  for (const std::string& item : split_list(text)) {
    std::int64_t n = 0;
    const auto [end, code] = std::from_chars(item.data(), item.data() + item.size(), n);
    if (code != std::errc() || end != item.data() + item.size() || n < 1 || n > 100)
      throw ValueError(fmt::format("must be whole numbers from 1 to 100; got '{}'", item));
    out.push_back(n);
  }
  return out;
}

void check_set(const std::string& name) {
  const auto& names = text_set_names();
  if (!name.ends_with(".tsv") && std::find(names.begin(), names.end(), name) == names.end())
    throw ValueError(
        fmt::format("must be one of {}, or a FILE.tsv; got '{}'", fmt::join(names, ", "), name));
}

}  // namespace

void TextFlags::add_to(Args& args) {
  args.section("Data")
      .add("--data NAME", data,
           "mr, subj, trec, cr, mpqa, sst2, or a FILE.tsv of lines CLASS<TAB>TEXT", check_set)
      .add("--test FILE", test, "test part of a FILE.tsv, in the same form")
      .choice("--encoding", encoding, {"detect", "utf8"},
              "of the files; detect: Latin-1 where they are no UTF-8")
      .add("--folds N", folds, "sets without a test part: parts of the cross-validation",
           {.min = 2, .max = 1000})
      .add("--run-folds N", run_folds, "of these parts, test on the first N", {.min = 1})
      .add("--dev X", dev,
           "share of the training part held out to choose the epoch, of sets without a part for it",
           {.min = 0, .below = 1})
      .add("--min-count N", min_count, "rarer words are unknown", {.min = 1})
      .choice("--edges", edges, {"mark", "none"},
              "mark: a word of its own in front of each sentence, and one behind it")
      .add("--max-length N", max_length, "words that are read of a sentence (0: all)", {.min = 0})
      .add("--bucket N", bucket, "batches that share sentences by length; 1: none do", {.min = 1});
  args.section("Words")
      .add("--vectors FILE", vectors, "word vectors of word2vec (text, binary) or GloVe")
      .add("--dim N", dim, "size of random word vectors", {.min = 1, .max = 10000})
      .add("--range X", range, "random word vectors are uniform in -X to X", {.above = 0})
      .add("--word-dropout X", word_dropout,
           "share of the numbers of word vectors that are dropped in training",
           {.min = 0, .below = 1})
      .choice("--channels", channels, {"static", "tuned", "both"},
              "word vectors stay as they are, are trained, or both side by side");
  args.section("Network")
      .choice("--arch", arch, {"a", "b", "cnn", "lstm", "gru", "static"},
              "a, b: capsules over n-grams of 3, or of 3, 4 and 5 words; static: a with learned "
              "couplings instead of routing; cnn, lstm, gru: networks without capsules")
      .add("--ngrams LIST", ngrams, "other n-grams, as 2,3,4",
           [](const std::string& text) { ngram_list(text); })
      .add("--filters N", filters, "filters for each n-gram (0: 200, of cnn 100)", {.min = 0})
      .add("--types N", types, "primary capsules at every n-gram", {.min = 1})
      .add("--capsule-dim N", capsule_dim, "numbers of every capsule", {.min = 1})
      .add("--window N", window, "n-grams that a capsule above sees (Zhao et al.: 3)", {.min = 1})
      .add("--window-types N", window_types, "capsules at every window", {.min = 1})
      .add("--routing NAME[:OPTIONS]", routing,
           "of both layers, as dynamic:iterations=3,leaky,activation or kmeans:iterations=2",
           [](const std::string& text) { const RoutingSpec spec(text); })
      .add("--squash-c X", squash_c, "constant c of the squash of the primary capsules",
           {.above = 0})
      .add("--noise-class", noise_class, "one more class takes part in the routing and is dropped")
      .add("--keep X", keep, "share of the capsules of a window that takes part in training",
           {.above = 0, .max = 1})
      .add("--hidden N", hidden, "states of lstm and gru, in each direction", {.min = 1})
      .add("--dropout X", dropout, "in front of the classes of cnn, lstm and gru",
           {.min = 0, .below = 1});
  train.add_training(args);
  args.choice("--loss", loss, {"auto", "margin", "margin50", "spread", "ce"},
              "margin: absent classes weigh 0.25, margin50: 0.5; ce: cross-entropy; auto: margin "
              "with capsules, else ce")
      .add("--patience N", patience, "stop after N epochs without a better one (0: never)",
           {.min = 0})
      .add("--seeds N", seeds, "runs of each part, with seeds from --seed on", {.min = 1});
  args.section("Questions to what was trained")
      .add("--transfer", transfer,
           "test on pairs of test sentences as well: are both classes found?")
      .add("--threshold X", threshold,
           "of --transfer: score above which a class of a pair counts as found",
           {.min = 0, .max = 1})
      .add("--predict TEXT", predict, "the class of a text, by a saved network; nothing is trained")
      .add("--explain TEXT", explain, "which words voted for which class; nothing is trained")
      .add("--model DIR", model, "folder of the saved network (default: that of --out)");
}

bool TextFlags::capsules() const { return arch == "a" || arch == "b" || arch == "static"; }

void TextFlags::check(const Args& args) const {
  const bool recurrent = arch == "lstm" || arch == "gru";
  const bool asks = args.given("--predict") || args.given("--explain");
  const auto refuse = [&](bool idle, const char* why, std::initializer_list<const char*> flags) {
    args.refuse_idle(idle, fmt::format("--arch {} {}", arch, why), flags);
  };
  if (asks)
    for (const auto& [flag, value] : args.values())
      args.refuse_idle(
          flag != "--predict" && flag != "--explain" && flag != "--model" && flag != "--out",
          "of training, and --predict and --explain train nothing. Hint: first one, then the other",
          {flag.c_str()});
  args.refuse_idle(!asks, "of --predict and --explain, which are not given. Hint: --predict TEXT",
                   {"--model"});
  refuse(!capsules(), "has no capsules. Hint: --arch a", kCapsuleFlags);
  refuse(capsules(), "has no dropout. Hint: --word-dropout X", {"--dropout"});
  refuse(arch == "static", "has learned couplings, no routing. Hint: --arch a", {"--routing"});
  refuse(!recurrent, "has no states. Hint: --arch lstm", {"--hidden"});
  refuse(recurrent, "has no n-grams. Hint: --arch cnn", {"--ngrams", "--filters"});
  args.refuse_idle(!vectors.empty(), "--vectors has vectors of a size of their own. Hint: no --dim",
                   {"--dim"});
  args.refuse_idle(!vectors.empty(), "of random word vectors; --vectors is given. Hint: no --range",
                   {"--range"});
  args.refuse_idle(!transfer, "of --transfer, which is not given. Hint: --transfer",
                   {"--threshold"});
  if (!test.empty() && !data.ends_with(".tsv"))
    throw UsageError(fmt::format("--test: the set '{}' has parts of its own", data));
  if (run_folds > folds)
    throw UsageError(
        fmt::format("--run-folds: must be at most --folds {}; got {}", folds, run_folds));
}

TextOptions TextFlags::text_options() const {
  return {.test = test, .encoding = encoding == "utf8" ? Encoding::utf8 : Encoding::detect};
}

std::unique_ptr<TextClassifier> TextFlags::make(const Tensor& table,
                                                std::int64_t classes,
                                                std::int64_t length,
                                                Rng& rng) const {
  const WordTable kind = word_table(channels);
  if (arch == "lstm" || arch == "gru")
    return std::make_unique<TextRnn>(
        table, classes,
        TextRnnOptions{
            .cell = recurrent_kind(arch), .hidden = hidden, .dropout = dropout, .words = kind},
        rng);
  if (arch == "cnn") {
    TextCnnOptions o{.dropout = dropout, .words = kind};
    if (!ngrams.empty()) o.ngrams = ngram_list(ngrams);
    if (filters > 0) o.filters = filters;
    return std::make_unique<TextCnn>(table, classes, o, rng);
  }
  TextCapsNetOptions o = arch == "b" ? TextCapsNetOptions::b() : TextCapsNetOptions::a();
  if (!ngrams.empty()) o.ngrams = ngram_list(ngrams);
  o.filters = filters > 0 ? filters : 200;
  o.types = types;
  o.dim = capsule_dim;
  o.window = window;
  o.window_types = window_types;
  o.squash_c = squash_c;
  o.noise_class = noise_class;
  o.keep = keep;
  o.words = kind;
  o.routing = RoutingSpec(routing);
  if (arch == "static") {
    o.routing = RoutingSpec("dynamic:iterations=1,prior");
    o.length = length;
    for (const std::int64_t n : o.ngrams) o.length = std::max(o.length, n + o.window - 1);
  }
  return std::make_unique<TextCapsNet>(table, classes, o, rng);
}

std::string TextFlags::loss_name() const {
  if (loss != "auto") return loss;
  return capsules() ? "margin" : "ce";
}

Tensor text_loss(const std::string& name,
                 const ClassifierOutput& out,
                 const Tensor& labels,
                 double progress) {
  if (name == "ce") return cross_entropy(class_scores(out), labels);
  if (name == "spread") return spread_loss(out.lengths, labels, spread_margin_linear(progress, 1));
  return margin_loss(out.lengths, one_hot(labels, out.lengths.size(1), out.lengths.dtype()),
                     {.lambda = name == "margin50" ? 0.5 : 0.25});
}

}  // namespace capsfw::apps
