#include <unistd.h>

#include <cstdlib>
#include <filesystem>

#include <fmt/format.h>

#include <capsfw/core/grad.hpp>
#include <capsfw/data/image.hpp>
#include <capsfw/ops/layout.hpp>

#include "common/classifier_io.hpp"
#include "common/text.hpp"
#include "common/text_model.hpp"
#include "common/text_votes.hpp"

#include "study.hpp"

namespace capsfw::apps {
namespace {

namespace fs = std::filesystem;

/// The text as the command line has it, in UTF-8.
std::string to_text(const std::string& argument) {
  return is_utf8(argument) ? argument : latin1_to_utf8(argument);
}

void predict(TextModel& model, const std::string& text, const fs::path& folder) {
  const NoGradGuard no_grad;
  const Tensor ids = from_vector(model.vocabulary.ids(model.words(text)));
  const Tensor scores = (*model.net)(unsqueeze(ids, 0)).lengths;
  check_scores(scores, folder.string());
  fmt::print("{}", ranked_scores(model.class_names, scores.to_vector<double>()));
}

void explain(TextModel& model, const std::string& text, const fs::path& out) {
  if (!model.net->explains())
    throw ValueError("--explain: this network has no capsules whose votes could be shown");
  const Words words = model.words(text);
  std::vector<bool> known;
  for (const std::string& word : words) known.push_back(model.vocabulary.contains(word));
  const TextVotes votes(words, known, model.class_names,
                        model.net->explain(from_vector(model.vocabulary.ids(words))));
  const char* plain = std::getenv("NO_COLOR");  // no-color.org
  const bool color = ::isatty(STDOUT_FILENO) == 1 && (plain == nullptr || *plain == '\0');
  fmt::print("{}", votes.terminal(color));
  fs::create_directories(out);
  save_text(out / "explain.html", votes.html());
  save_png(out / "explain.png", votes.picture());
  fmt::print("\nMade in {}: explain.html, explain.png\n", out.string());
}

}  // namespace

int answer(const TextFlags& flags, const Args& args) {
  const fs::path folder = flags.model.empty() ? flags.train.out : flags.model;
  TextModel model = load_text_model(folder);
  if (args.given("--predict")) predict(model, to_text(flags.predict), folder);
  if (args.given("--explain")) explain(model, to_text(flags.explain), flags.train.out);
  return 0;
}

}  // namespace capsfw::apps
