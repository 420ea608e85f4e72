#include "common/text_model.hpp"

#include <fmt/format.h>

#include <capsfw/core/error.hpp>
#include <capsfw/data/safetensors.hpp>
#include <capsfw/data/text.hpp>
#include <capsfw/layers/text_nets.hpp>
#include <capsfw/ops/arithmetic.hpp>

#include "common/description.hpp"

namespace capsfw::apps {
namespace {

constexpr const char* kFormat = "capsfw-text-1";

WordTable words_of(const Json& j) { return choice(j.at("words"), WordTable::both); }

Json describe(const TextCapsNetOptions& o) {
  return {{"ngrams", o.ngrams},
          {"filters", o.filters},
          {"stride", o.stride},
          {"types", o.types},
          {"dim", o.dim},
          {"window", o.window},
          {"window_types", o.window_types},
          {"squash_c", o.squash_c},
          {"routing", o.routing.text()},
          {"shared_windows", o.shared_windows},
          {"shared_classes", o.shared_classes},
          {"length", o.length},
          {"noise_class", o.noise_class},
          {"keep", o.keep},
          {"words", static_cast<int>(o.words)}};
}

std::unique_ptr<TextClassifier> make_capsules(const Tensor& table,
                                              std::int64_t classes,
                                              const Json& j,
                                              Rng& rng) {
  const TextCapsNetOptions o{.ngrams = j.at("ngrams").get<std::vector<std::int64_t>>(),
                             .filters = j.at("filters"),
                             .stride = j.at("stride"),
                             .types = j.at("types"),
                             .dim = j.at("dim"),
                             .window = j.at("window"),
                             .window_types = j.at("window_types"),
                             .squash_c = j.at("squash_c"),
                             .routing = RoutingSpec(j.at("routing").get<std::string>()),
                             .shared_windows = j.at("shared_windows"),
                             .shared_classes = j.at("shared_classes"),
                             .length = j.at("length"),
                             .noise_class = j.at("noise_class"),
                             .keep = j.at("keep"),
                             .words = words_of(j)};
  return std::make_unique<TextCapsNet>(table, classes, o, rng);
}

Json describe(const TextCnnOptions& o) {
  return {{"ngrams", o.ngrams},
          {"filters", o.filters},
          {"dropout", o.dropout},
          {"words", static_cast<int>(o.words)}};
}

std::unique_ptr<TextClassifier> make_cnn(const Tensor& table,
                                         std::int64_t classes,
                                         const Json& j,
                                         Rng& rng) {
  return std::make_unique<TextCnn>(
      table, classes,
      TextCnnOptions{.ngrams = j.at("ngrams").get<std::vector<std::int64_t>>(),
                     .filters = j.at("filters"),
                     .dropout = j.at("dropout"),
                     .words = words_of(j)},
      rng);
}

Json describe(const TextRnnOptions& o) {
  return {{"cell", static_cast<int>(o.cell)},
          {"hidden", o.hidden},
          {"bidirectional", o.bidirectional},
          {"pool", static_cast<int>(o.pool)},
          {"dropout", o.dropout},
          {"words", static_cast<int>(o.words)}};
}

std::unique_ptr<TextClassifier> make_rnn(const Tensor& table,
                                         std::int64_t classes,
                                         const Json& j,
                                         Rng& rng) {
  return std::make_unique<TextRnn>(table, classes,
                                   TextRnnOptions{.cell = choice(j.at("cell"), RecurrentKind::gru),
                                                  .hidden = j.at("hidden"),
                                                  .bidirectional = j.at("bidirectional"),
                                                  .pool = choice(j.at("pool"), StatePool::mean),
                                                  .dropout = j.at("dropout"),
                                                  .words = words_of(j)},
                                   rng);
}

/// Every kind of network that can be saved: its name, and how it is made of its description.
struct Kind {
  const char* name;
  std::unique_ptr<TextClassifier> (*make)(const Tensor&, std::int64_t, const Json&, Rng&);
};
constexpr Kind kKinds[] = {
    {"text-capsules", make_capsules}, {"text-cnn", make_cnn}, {"text-rnn", make_rnn}};

std::pair<std::string, Json> describe(const TextClassifier& net) {
  if (const auto* n = dynamic_cast<const TextCapsNet*>(&net))
    return {"text-capsules", describe(n->options())};
  if (const auto* n = dynamic_cast<const TextCnn*>(&net))
    return {"text-cnn", describe(n->options())};
  if (const auto* n = dynamic_cast<const TextRnn*>(&net))
    return {"text-rnn", describe(n->options())};
  throw ValueError("save_text_model: no description for this class of networks");
}

/// The rest of load_text_model, once both files are read.
void fill(TextModel& model, const SafetensorsFile& file, const Json& about) {
  model.class_names = parse_class_names(about.at("class_names"));
  const Json& cleaning = about.at("tokenizer");
  model.tokenizer = {.split_clitics = cleaning.at(0),
                     .split_punctuation = cleaning.at(1),
                     .lower = cleaning.at(2),
                     .edges = cleaning.size() > 3 && cleaning.at(3)};  // older files have three
  const Json most = about.value("max_length", Json(0));
  if (!most.is_number_integer() || most.get<std::int64_t>() < 0)
    throw std::out_of_range(fmt::format("max_length {}, not a number of words", most.dump()));
  model.max_length = most;
  const auto table = about.at("table").get<std::vector<std::int64_t>>();
  if (table.size() != 2 || table[0] != model.vocabulary.size())
    throw std::out_of_range(fmt::format(
        "the vocabulary beside it has {} words, the weights another number. Hint: both must be of "
        "one training",
        model.vocabulary.size()));
  // Weights of another size are found by load_state_dict; this guards the memory until then.
  if (table[1] < 1 || table[1] > 10'000)
    throw std::out_of_range(fmt::format("vectors of size {}", table[1]));
  if (model.class_names.empty()) throw std::out_of_range("no classes");
  Rng rng;
  const std::string kind = about.at("kind");
  for (const Kind& k : kKinds)
    if (kind == k.name)
      model.net =
          k.make(zeros({table[0], table[1]}), static_cast<std::int64_t>(model.class_names.size()),
                 about.at("options"), rng);
  if (!model.net) throw std::out_of_range(fmt::format("unknown kind '{}'", kind));
  check_iterations(*model.net);
  model.net->load_state_dict(file.state);
  model.net->eval();
}

}  // namespace

Words TextModel::words(std::string_view text) const {
  Words words = tokenize(text, tokenizer);
  if (words.empty()) throw ValueError(fmt::format("no words in the text '{}'", text));
  for (const std::int64_t most : {net->longest(), max_length})
    if (most > 0 && static_cast<std::int64_t>(words.size()) > most)
      words.resize(static_cast<std::size_t>(most));
  return words;
}

void save_text_model(const std::filesystem::path& folder, const TextModel& model) {
  const auto [kind, options] = describe(*model.net);
  const Tensor& table = model.net->words().weight;
  const TokenizerOptions& t = model.tokenizer;
  const Json about = {{"kind", kind},
                      {"options", options},
                      {"table", {table.size(0), table.size(1)}},
                      {"tokenizer", {t.split_clitics, t.split_punctuation, t.lower, t.edges}},
                      {"class_names", model.class_names},
                      {"max_length", model.max_length}};
  model.vocabulary.save(folder / kTextVocabulary);
  save_safetensors(folder / kTextWeights, model.net->state_dict(),
                   {{"format", kFormat}, {"about", about.dump()}});
}

TextModel load_text_model(const std::filesystem::path& folder) {
  const std::filesystem::path path = folder / kTextWeights;
  const SafetensorsFile file = load_safetensors(path);
  const auto fail = [&](const std::string& rule) {
    throw IoError(fmt::format("{}: {}", path.string(), rule));
  };
  const auto format = file.metadata.find("format"), about = file.metadata.find("about");
  if (format == file.metadata.end() || format->second != kFormat || about == file.metadata.end())
    fail(
        fmt::format("no network for sentences (metadata 'format' must be {}). Hint: "
                    "train_text_capsules writes one",
                    kFormat));
  for (const auto& [name, value] : file.state)
    if (value.dtype() == DType::f32 && !all(isfinite(value)))
      fail(fmt::format("{} holds a NaN or an infinity", name));
  TextModel model;
  model.vocabulary = Vocabulary::load(folder / kTextVocabulary);
  try {
    const GrantedByFile granted(std::filesystem::file_size(path));
    fill(model, file, parse_description(about->second));
  } catch (const std::exception& e) {
    fail(fmt::format("damaged description of the network: {}", shown(e.what(), 300)));
  }
  return model;
}

}  // namespace capsfw::apps
