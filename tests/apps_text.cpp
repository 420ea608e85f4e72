// Networks for sentences in folders, votes of words for people, heat maps.

#include <cmath>

#include <fmt/format.h>

#include <capsfw/core/error.hpp>
#include <capsfw/core/grad.hpp>
#include <capsfw/data/safetensors.hpp>
#include <capsfw/data/word_vectors.hpp>
#include <capsfw/layers/text_nets.hpp>
#include <capsfw/ops/layout.hpp>

#include "apps_support.hpp"
#include "common/heat.hpp"
#include "common/text.hpp"
#include "common/text_model.hpp"
#include "common/text_votes.hpp"
#include "support.hpp"

using namespace apps_test;
using namespace capsfw;
using namespace capsfw::apps;
using capsfw::testing::message_of;
using capsfw::testing::same_bits;

namespace {

const Words kSentence = {"how", "far", "is", "the", "moon", "?"};

TextModel model_of(const std::string& kind) {
  TextModel m{.vocabulary = Vocabulary({kSentence}),
              .tokenizer = {.split_clitics = false, .lower = true, .edges = true},
              .class_names = {"LOC", "NUM <&> \"x\"", "caf\xC3\xA9"}};
  Rng rng(3);
  const Tensor table = random_vectors(m.vocabulary, 6, rng).table;
  if (kind == "cnn")
    m.net = std::make_unique<TextCnn>(
        table, 3, TextCnnOptions{.ngrams = {2}, .filters = 5, .words = WordTable::both}, rng);
  else if (kind == "rnn")
    m.net = std::make_unique<TextRnn>(
        table, 3, TextRnnOptions{.cell = RecurrentKind::gru, .hidden = 4, .pool = StatePool::max},
        rng);
  else
    m.net = std::make_unique<TextCapsNet>(
        table, 3,
        TextCapsNetOptions{.ngrams = {2, 3},
                           .filters = 4,
                           .types = 3,
                           .dim = 4,
                           .window = 2,
                           .window_types = 2,
                           .routing = RoutingSpec("dynamic:iterations=2,leaky"),
                           .length = kind == "fixed" ? 8 : 0,
                           .words = WordTable::tuned},
        rng);
  m.net->eval();
  return m;
}

Tensor scores(TextModel& m) {
  const NoGradGuard no_grad;
  return (*m.net)(unsqueeze(from_vector(m.vocabulary.ids(kSentence)), 0)).lengths;
}

/// Two words, two classes, one n-gram of both and one of each.
TextExplanation explanation() {
  NGramVotes pair{.width = 2,
                  .stride = 1,
                  .couplings = from_vector<float>({0.75f, 0.25f}, {1, 1, 2}),
                  .lengths = ones({1, 1, 2}),
                  .shares = from_vector<float>({0.4f, -0.2f}, {1, 2})};
  NGramVotes single{.width = 1,
                    .stride = 1,
                    .couplings = from_vector<float>({0.5f, 0.5f, 0.9f, 0.1f}, {2, 1, 2}),
                    .lengths = ones({2, 1, 2}),
                    .shares = from_vector<float>({0.1f, 0.3f, 0.6f, -0.1f}, {2, 2})};
  return {from_vector<float>({0.9f, 0.2f}), {pair, single}};
}

}  // namespace

TEST_CASE("text model: what is saved answers with the same bits") {
  for (const char* kind : {"capsules", "fixed", "cnn", "rnn"}) {
    const Folder dir;
    TextModel m = model_of(kind);
    save_text_model(dir.path, m);
    TextModel n = load_text_model(dir.path);
    CHECK(same_bits(scores(m), scores(n)));
    CHECK(n.class_names == m.class_names);
    CHECK_FALSE(n.tokenizer.split_clitics);
    CHECK(n.tokenizer.split_punctuation);
    CHECK(n.vocabulary.size() == m.vocabulary.size());
    CHECK_FALSE(n.net->training());
    CHECK(n.words("How FAR?") == Words{"<s>", "how", "far", "?", "</s>"});
    CHECK(message_of<ValueError>([&] { n.words(" -- "); }) == "no words in the text ' -- '");
    const std::string longer = "a b c d e f g h i j";
    CHECK(n.words(longer).size() == (std::string(kind) == "fixed" ? 8 : 12));  // with the marks
    m.max_length = 5;  // all that it has read in training
    save_text_model(dir.path, m);
    CHECK(load_text_model(dir.path).words(longer) == Words{"<s>", "a", "b", "c", "d"});
  }
}

TEST_CASE("text model: files that are missing, damaged or of two trainings") {
  const Folder dir;
  const auto complaint = [&] { return message_of<IoError>([&] { load_text_model(dir.path); }); };
  CHECK(contains(complaint(), kTextWeights));
  save_text_model(dir.path, model_of("capsules"));
  const std::string vocabulary = content(dir.path / kTextVocabulary);
  save_text(dir.path / kTextVocabulary, vocabulary + "sun\n");
  CHECK(contains(complaint(), "the vocabulary beside it has 9 words"));
  fs::remove(dir.path / kTextVocabulary);
  CHECK(contains(complaint(), kTextVocabulary));
  save_text(dir.path / kTextVocabulary, vocabulary);
  const SafetensorsFile file = load_safetensors(dir.path / kTextWeights);
  const auto with = [&](const std::string& from, const std::string& to) {
    SafetensorsFile changed = file;
    std::string& about = changed.metadata["about"];
    const auto at = about.find(from);
    REQUIRE_MESSAGE(at != std::string::npos, about);
    about.replace(at, from.size(), to);
    save_safetensors(dir.path / kTextWeights, changed.state, changed.metadata);
    return complaint();
  };
  CHECK(contains(with("text-capsules", "text-magic"), "unknown kind 'text-magic'"));
  CHECK(contains(with("\"words\":1", "\"words\":7"), "unknown kind 7"));
  CHECK(contains(with("\"dim\":4", "\"dim\":5"), "damaged description"));
  CHECK(contains(with("\"filters\":4", "\"filters\":-4"), "damaged description"));
  CHECK(contains(with("\"table\":[8,6]", "\"table\":[8,600000000]"), "damaged description"));
  CHECK(contains(with("\"table\":[8,6]", "\"table\":[8]"), "damaged description"));
  CHECK(contains(with("{", "["), "damaged description"));
  for (const char* most : {"1.5", "-1", "true", "\"5\"", "null"}) {
    const std::string error = with("\"max_length\":0", fmt::format("\"max_length\":{}", most));
    CHECK_MESSAGE(contains(error, fmt::format("max_length {}, not a number of words", most)),
                  error);
  }
  save_safetensors(dir.path / kTextWeights, file.state, {});
  CHECK(contains(complaint(), "no network for sentences"));
  StateDict bad;
  for (const auto& [name, value] : file.state) bad.set(name, full_like(value, NAN));
  save_safetensors(dir.path / kTextWeights, bad, file.metadata);
  CHECK(contains(complaint(), "holds a NaN"));
}

TEST_CASE("votes of words: shares of n-grams, spread over their words") {
  const TextVotes v({"far", "moon"}, {true, false}, {"NUM", "LOC"}, explanation());
  CHECK(v.ranking() == std::vector<std::int64_t>{0, 1});
  CHECK(v.score(1) == doctest::Approx(0.2));
  // Half of the share of the pair and all of that of the word, averaged over the two widths.
  CHECK(v.heat(0, 0) == doctest::Approx((0.2 + 0.1) / 2));
  CHECK(v.heat(1, 0) == doctest::Approx((0.2 + 0.6) / 2));
  CHECK(v.heat(0, 1) == doctest::Approx((-0.1 + 0.3) / 2));
  const auto top = v.top(0, 2);
  REQUIRE(top.size() == 2);
  CHECK(top[0].share == doctest::Approx(0.6));
  CHECK(top[0].begin == 1);
  CHECK(top[0].end == 2);
  CHECK(top[0].coupling == doctest::Approx(0.9));
  CHECK(top[1].coupling == doctest::Approx(0.75));
  CHECK(v.top(0, 99).size() == 3);

  const std::string plain = v.terminal(false), colored = v.terminal(true);
  CHECK(contains(plain, "NUM  0.900  far(0.15) moon?(0.40) \n"));
  CHECK_FALSE(contains(plain, "\x1b"));
  CHECK(contains(colored, "\x1b[30;48;2;"));
  CHECK(contains(colored, " moon? \x1b[0m"));
  CHECK(contains(plain, "0.600     0.900  moon\n"));
  const Tensor picture = v.picture();
  CHECK(picture.size(0) == 3);
  CHECK(TextVotes({"x", "y"}, {true, true}, {"A", "B"}, explanation()).picture(1).size(1) <
        picture.size(1));

  TextExplanation other = explanation();
  CHECK_THROWS_AS(TextVotes({"x"}, {true, true}, {"A", "B"}, other), ShapeError);
  CHECK_THROWS_AS(TextVotes({"x", "y"}, {true, true}, {"A"}, other), ShapeError);
  other.grams.clear();
  CHECK_THROWS_AS(TextVotes({"x", "y"}, {true, true}, {"A", "B"}, other), ShapeError);
}

TEST_CASE("votes of words: the heat of a capsule network adds up to its length") {
  TextModel m = model_of("capsules");
  const TextExplanation e = m.net->explain(from_vector(m.vocabulary.ids(kSentence)));
  const TextVotes v(kSentence, std::vector<bool>(6, true), m.class_names, e);
  for (std::int64_t k = 0; k < 3; ++k) {
    double sum = 0, shares = 0;
    for (std::int64_t i = 0; i < 6; ++i) sum += v.heat(i, k);
    for (const GramVote& g : v.top(k, 999)) shares += g.share;
    CHECK(sum == doctest::Approx(shares / 2).epsilon(1e-4));
    CHECK(shares > 0);
  }
  // Shorter than its windows: what lies behind the end is nobody's word.
  const Words two = {"far", "moon"};
  const TextVotes w(two, {true, true}, m.class_names,
                    m.net->explain(from_vector(m.vocabulary.ids(two))));
  for (const GramVote& g : w.top(0, 999)) CHECK(g.end <= 2);
}

TEST_CASE("votes of words: a page of its own, with everything escaped") {
  const TextVotes v({"<script>", "a&b"}, {true, false}, {"\"N\" 'x'", "<b>"}, explanation());
  const std::string page = v.html();
  CHECK(page.starts_with("<!DOCTYPE html>"));
  CHECK(page.ends_with("</html>\n"));
  CHECK_FALSE(contains(page, "<script>"));
  CHECK_FALSE(contains(page, "<b>"));
  CHECK(contains(page, "&lt;script&gt; a&amp;b"));
  CHECK(contains(page, "&quot;N&quot; &#39;x&#39;"));
  CHECK(contains(page, "class=\"unknown\""));
  for (const char* link : {"http", "src=", "href"}) CHECK_FALSE(contains(page, link));
  CHECK(html_escaped("") == "");
}

TEST_CASE("heat maps: colours, cells, and tables that do not fit") {
  CHECK(heat_color(0).r == 1);
  CHECK(heat_color(NAN).g == 1);
  CHECK(heat_color(5).b == heat_color(1).b);
  CHECK(heat_color(1).b > heat_color(1).r);
  CHECK(heat_color(-1).r > heat_color(-1).b);
  const Tensor x = from_vector<double>({1, 0, -2, NAN}, {2, 2});
  const Tensor picture = heat_map(x, {.rows = {"a", "b"}, .columns = {"c", "d"}});
  CHECK(picture.dim() == 3);
  const Tensor words = heat_map(x, {.title = "t",
                                    .note = "n",
                                    .rows = {"a", "b"},
                                    .columns = {"c", "d"},
                                    .cells = {"1", "0", "-2", ""}});
  CHECK(words.size(1) > picture.size(1));
  CHECK_THROWS_AS(heat_map(x, {.rows = {"a"}, .columns = {"c", "d"}}), ShapeError);
  CHECK_THROWS_AS(heat_map(x, {.rows = {"a", "b"}, .columns = {"c", "d"}, .cells = {"1"}}),
                  ShapeError);
  CHECK_THROWS_AS(heat_map(zeros({0, 2}), {.columns = {"c", "d"}}), ShapeError);
}
