#include "study.hpp"

#include <cmath>
#include <filesystem>
#include <optional>
#include <utility>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <capsfw/data/text_loader.hpp>
#include <capsfw/data/word_vectors.hpp>
#include <capsfw/layers/loss.hpp>
#include <capsfw/layers/metrics.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/index.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/unary.hpp>
#include <capsfw/optim/interrupt.hpp>
#include <capsfw/optim/memory.hpp>

#include "common/report_sections.hpp"
#include "common/text.hpp"
#include "common/text_model.hpp"

#include "findings.hpp"
#include "sentences.hpp"
#include "train.hpp"

namespace capsfw::apps {
namespace {

namespace fs = std::filesystem;

class Study {
 public:
  Study(const TextFlags& flags, const Args& args)
      : flags_(flags), sentences_(flags, args), findings_(flags, sentences_.class_names()) {
    sentences_.describe();
    // Whatever does not fit is found now, and leaves an earlier run in this folder as it is.
    first_setup_ = set_up(flags.train.seed, 0);
    open(*first_setup_, args);
  }

  int run() {
    const std::int64_t parts = sentences_.has_test() ? 1 : flags_.run_folds;
    for (std::int64_t k = 0; k < flags_.seeds; ++k)
      for (std::int64_t fold = 0; fold < parts; ++fold)
        if (!interrupted()) run_one(flags_.train.seed + static_cast<std::uint64_t>(k), fold);
    if (folder_->takes()) return 0;
    if (!findings_.empty()) finish();
    report_->finish();
    if (!interrupted()) return 0;
    fmt::print("Interrupted: {}\n", saved_ ? "the weights of the first run so far are in " +
                                                 (folder_->path() / kTextWeights).string()
                                           : "nothing was trained");
    return kInterruptedExit;
  }

 private:
  const std::vector<std::string>& names() const { return sentences_.class_names(); }

  WordVectors word_vectors(const Vocabulary& vocabulary, Rng& rng) const {
    return flags_.vectors.empty() ? random_vectors(vocabulary, flags_.dim, rng, flags_.range)
                                  : load_word_vectors(flags_.vectors, vocabulary, rng);
  }

  /// What one network is made of, and learns from.
  struct SetUp {
    SentenceSplit split;
    EncodedText train = {}, dev = {}, test = {};  // the same in numbers
    WordVectors vectors = {};
    TextModel model = {};
  };

  SetUp set_up(std::uint64_t seed, std::int64_t fold) const {
    SetUp s{.split = sentences_.split(fold, seed)};
    s.model.vocabulary = Vocabulary(s.split.train.words, flags_.min_count);
    s.model.tokenizer = sentences_.tokenizer();
    s.model.class_names = names();
    s.model.max_length = flags_.max_length;
    const auto encoded = [&](const Part& part) {
      return encode(part.words, part.labels, s.model.vocabulary);
    };
    s.train = encoded(s.split.train);
    s.dev = encoded(s.split.dev);
    s.test = encoded(s.split.test);
    Rng rng(seed);
    s.vectors = word_vectors(s.model.vocabulary, rng);
    std::int64_t length = length_statistics(s.split.train.words).max;
    if (flags_.max_length > 0) length = std::min(length, flags_.max_length);
    s.model.net = flags_.make(s.vectors.table, sentences_.classes(), length, rng);
    return s;
  }

  void open(const SetUp& s, const Args& args) {
    fmt::print("{} words; {}\n\n{}\n", s.model.vocabulary.size() - 2,
               flags_.vectors.empty() ? fmt::format("random vectors of size {}", flags_.dim)
                                      : fmt::format("vectors of {} of them ({:.1f} %) found",
                                                    s.vectors.found, 100 * s.vectors.share()),
               s.model.net->summary());
    folder_ = flags_.train.safety.open(
        flags_.train.out, args,
        fmt::format("{}; {}; {}; vectors {}", fingerprint(s.train), fingerprint(s.dev),
                    fingerprint(s.test), fingerprint(s.vectors.table)));
    report_.emplace(*folder_, fmt::format("{} on {}", flags_.arch, flags_.data), args);
    report_->fact("sentences",
                  fmt::format("{} to train on, {} held out, {} to test on; {} classes",
                              s.train.size(), s.dev.size(), s.test.size(), names().size()));
    report_->fact("fingerprint", fingerprint(s.train));
    add_layers(*report_, *s.model.net);
    report_->write();
  }

  void run_one(std::uint64_t seed, std::int64_t fold) {
    const std::string name = fmt::format("seed-{}-fold-{}", seed, fold + 1);
    std::optional<SetUp> ready = std::exchange(first_setup_, std::nullopt);
    if (!begins(name)) return;
    TextFlags flags = flags_;
    flags.train.seed = seed;
    first_ = seed == flags_.train.seed && fold == 0;
    SetUp s = first_ && ready ? std::move(*ready) : set_up(seed, fold);
    std::string label;
    if (flags.seeds > 1) label += fmt::format("seed {}, ", seed);
    if (!sentences_.has_test()) label += fmt::format("fold {}/{}, ", fold + 1, flags.folds);
    const JsonFields tags{{"seed", seed}, {"fold", fold}};
    const auto after_epoch = [&](const Run& run) {
      if (first_ && run.best_epoch() > 0)
        report_->headline(fmt::format("of the sentences held out, epoch {}", run.best_epoch()),
                          percent({run.best_score()}));
      report_->write();
    };
    const TrainResult result =
        train_text(*s.model.net, s.train, s.dev, flags, {name, label, tags, after_epoch}, *folder_);
    if (first_) {
      save_text_model(folder_->path(), s.model);
      saved_ = true;
      history_ = result.history;
    }
    if (interrupted()) return;
    const auto outcome =
        test_once(s.model, s.split.test, s.test, flags, label, tags, result, s.vectors.share());
    if (!outcome) return;
    add(*outcome);
    // What a program that goes on needs of this run.
    StateDict results;
    outcome->save(results);
    result.history.save(results, "history");
    report_->save(results, "report");
    folder_->finish(name, results);
  }

  void report_mistakes(const Part& test, const Tensor& scores, const Tensor& labels) {
    const std::vector<Mistake> mistakes = worst_mistakes(scores, labels);
    std::vector<std::vector<std::string>> rows;
    for (const Mistake& m : mistakes) {
      if (rows.size() == kMistakesShown) break;
      const Words& sentence = test.words[static_cast<std::size_t>(m.sample)];
      rows.push_back({fmt::format("{}", fmt::join(sentence, " ")),
                      names()[static_cast<std::size_t>(m.said)], fmt::format("{:.2f}", m.score),
                      names()[static_cast<std::size_t>(m.right)],
                      fmt::format("{:.2f}", m.right_score)});
    }
    report_->table(
        {"Worst mistakes",
         fmt::format("First run: {} of {} wrong answers to {} test sentences, the widest "
                     "gaps between the two scores first.",
                     rows.size(), mistakes.size(), test.size())},
        {"sentence", "said", "score", "right", "its score"}, rows);
  }

  /// False for a part that another process has taken, or that had been finished.
  bool begins(const std::string& part) {
    if (!folder_->take(part)) return false;
    const auto known = folder_->results(part);
    if (known) again(*known);
    return !known;
  }
  void again(const StateDict& known) {
    report_->load(known, "report");
    add(Outcome::load(known));
    if (!saved_) history_.load(known, "history");
    saved_ = true;
  }

  void add(const Outcome& outcome) {
    findings_.add(outcome);
    findings_.add_to(*report_);
  }

  /// Nothing if it was interrupted.
  std::optional<Outcome> test_once(TextModel& model,
                                   const Part& words,
                                   const EncodedText& test,
                                   const TextFlags& flags,
                                   const std::string& label,
                                   const JsonFields& tags,
                                   const TrainResult& result,
                                   double found) {
    TextClassifier& net = *model.net;
    const Tensor scores = score_all(net, test, flags, label + "test");
    if (interrupted()) return std::nullopt;
    const Tensor labels = from_vector(test.labels);
    Outcome o{.test = accuracy(scores, labels),
              .dev = result.val_accuracy,
              .seconds = result.seconds,
              .confusion = confusion_matrix(argmax(scores, 1), labels, sentences_.classes())};
    if (first_) report_mistakes(words, scores, labels);
    if (const int none = net.uniform_iterations(); none >= 0) {
      const int iterations = net.routing_iterations();
      net.set_routing_iterations(none);
      const Tensor uniform = score_all(net, test, flags, label + "test, uniform couplings");
      net.set_routing_iterations(iterations);
      if (interrupted()) return std::nullopt;
      o.uniform = accuracy(uniform, labels);
    }
    JsonFields line{{"event", "test"}};
    line.insert(line.end(), tags.begin(), tags.end());
    const JsonFields rest{{"parameters", net.parameter_count(true)},
                          {"vocabulary", model.vocabulary.size()},
                          {"vectors_found", found},
                          {"best_epoch", result.best_epoch},
                          {"dev_accuracy", o.dev},
                          {"test_accuracy", o.test},
                          {"test_accuracy_uniform_couplings", o.uniform},
                          {"train_seconds", result.seconds},
                          {"peak_memory_mb", peak_memory_mb()}};
    line.insert(line.end(), rest.begin(), rest.end());
    folder_->write(line);
    fmt::print("{}test accuracy {:.2f} %{} ({})\n", label, 100 * o.test,
               std::isnan(o.uniform)
                   ? ""
                   : fmt::format(", {:.2f} % with uniform couplings", 100 * o.uniform),
               result.text());
    if (flags.transfer && !transfer(net, test, flags, label, tags, o)) return std::nullopt;
    return o;
  }

  /// False if it was interrupted.
  bool transfer(TextClassifier& net,
                const EncodedText& test,
                const TextFlags& flags,
                const std::string& label,
                const JsonFields& tags,
                Outcome& o) {
    const TextPairs pairs = join_pairs(test, flags.train.seed);
    if (pairs.text.size() == 0) throw ValueError("--transfer: no test pair has two classes");
    Tensor scores = score_all(net, pairs.text, flags, label + "pairs");
    if (interrupted()) return false;
    const TwoDigitAccuracy two = two_digit_accuracy(scores, pairs.labels);
    // class_scores are logits where there are any.
    if (!flags.capsules()) scores = sigmoid(scores);
    const MultiLabelScores m = multi_label_scores(
        gt(scores, flags.threshold), multi_hot(pairs.labels, net.classes(), DType::b8));
    o.pairs_exact = m.exact;
    o.pairs_f1 = m.f1;
    JsonFields line{{"event", "transfer"}};
    line.insert(line.end(), tags.begin(), tags.end());
    const JsonFields rest{{"pairs", pairs.text.size()}, {"threshold", flags.threshold},
                          {"exact", m.exact},           {"precision", m.precision},
                          {"recall", m.recall},         {"f1", m.f1},
                          {"two_largest", two.exact}};
    line.insert(line.end(), rest.begin(), rest.end());
    folder_->write(line);
    fmt::print(
        "{}{} pairs of two classes, scores above {}: exact match {:.2f} %, precision {:.2f} "
        "%, recall {:.2f} %, F1 {:.2f} %; the two largest are the pair in {:.2f} %\n",
        label, pairs.text.size(), flags.threshold, 100 * m.exact, 100 * m.precision, 100 * m.recall,
        100 * m.f1, 100 * two.exact);
    return true;
  }

  void finish() {
    const fs::path& dir = folder_->path();
    const std::string text = findings_.text();
    save_text(dir / "report.txt", text);
    folder_->write(findings_.result());
    history_.draw(fmt::format("{} on {}", flags_.arch, flags_.data), dir / "curves.png");
    const bool picture = findings_.draw(dir / "confusion.png");
    fmt::print(
        "\n{}\nMade in {}:\n  report.html        all of it on one page, for a browser\n  "
        "report.txt         this report\n  metrics.jsonl      the runs, a "
        "JSON object per line\n  curves.png         loss and accuracy of the first run\n",
        text, dir.string());
    if (picture) fmt::print("  confusion.png      the matrix\n");
    fmt::print("  {}, {}: the first run; try: train_text_capsules --model {} --predict \"{}\"\n",
               kTextWeights, kTextVocabulary, dir.string(), sentences_.example());
  }

  const TextFlags& flags_;
  const Sentences sentences_;
  std::unique_ptr<RunFolder> folder_;
  std::optional<Report> report_;
  Findings findings_;
  History history_;
  std::optional<SetUp> first_setup_;
  bool saved_ = false;
  bool first_ = true;  // the run at hand is the first one of all
};

}  // namespace

int run_study(const TextFlags& flags, const Args& args) { return Study(flags, args).run(); }

}  // namespace capsfw::apps
