// Two images in one: the mistakes of a network, and its pictures in a report.

#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include <capsfw/data/dataset.hpp>
#include <capsfw/layers/capsnet.hpp>
#include <capsfw/layers/conv_net.hpp>
#include <capsfw/optim/run_folder.hpp>

#include "apps_support.hpp"
#include "common/digit_pairs.hpp"

using namespace capsfw;
using namespace capsfw::apps;
using namespace apps_test;

namespace {

using Json = nlohmann::json;

/// What the page of a run draws.
Json sections_of(ImageClassifier& net,
                 const OverlappedPairs& pairs,
                 const std::vector<std::string>& names) {
  const Folder folder;
  const RunFolder run(folder.path / "run");
  const Args args("demo", "A program.");
  Report report(run, "a run", args);
  add_pair_pictures(report, net, pairs, names);
  report.finish();
  const std::string text = content(run.path() / "report.html"),
                    before = R"(<script id="data" type="application/json">)";
  const std::size_t begin = text.find(before) + before.size();
  return Json::parse(text.substr(begin, text.find("</script>", begin) - begin))["sections"];
}

}  // namespace

TEST_CASE("pairs: the widest gap between a wrong class and a missed one first") {
  const Tensor scores = from_vector<float>(
      {
          .9f, .8f, .1f, .2f,  // 0 and 1, as they are
          .9f, .6f, .1f, .2f,  // 0 and 2: 1 in place of 2, by 0.5
          .9f, .8f, .0f, .2f,  // 2 and 3: neither; 0 in place of 2, by 0.9
      },
      {3, 4});
  const Tensor labels = from_vector<std::int64_t>({1, 0, 0, 2, 3, 2}, {3, 2});
  const std::vector<PairMistake> mistakes = worst_pair_mistakes(scores, labels);
  REQUIRE(mistakes.size() == 2);
  CHECK(mistakes[0].sample == 2);
  CHECK(mistakes[0].said == std::array<std::int64_t, 2>{0, 1});
  CHECK(mistakes[0].right == std::array<std::int64_t, 2>{3, 2});
  CHECK(mistakes[0].wrong_score - mistakes[0].missed_score == doctest::Approx(0.9));
  CHECK(mistakes[1].sample == 1);
  CHECK(mistakes[1].wrong_score == doctest::Approx(0.6));
  CHECK(mistakes[1].missed_score == doctest::Approx(0.1));
}

TEST_CASE("pairs: pictures in a report, of networks with and without a decoder") {
  Rng rng(1);
  const ImageSet set({1, 20, 20}, std::vector<std::uint8_t>(12 * 400, 9),
                     {0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2}, {"a", "b", "c"});
  const OverlappedPairs pairs(set, {.max_shift = 2});
  CapsNet capsnet(CapsNetOptions::compact({1, 24, 24}, 3), rng);
  Json sections = sections_of(capsnet, pairs, set.class_names());
  REQUIRE(sections.size() == 2);
  const double exact = score_pairs(capsnet, pairs, "pairs").exact;
  CHECK(static_cast<double>(sections[0]["items"].size()) == doctest::Approx(12 * (1 - exact)));
  CHECK(
      contains(sections[0]["note"].get<std::string>(), "wrong answers to the first 12 test pairs"));
  REQUIRE(sections[1]["items"].size() == 10);
  CHECK(sections[1]["title"] == "Reconstructions");
  CHECK(sections[1]["items"][0]["images"].size() == 5);
  CHECK(contains(sections[1]["items"][0]["text"][0].get<std::string>(), "a and "));
  CHECK(capsnet.training());
  // Without a decoder there are mistakes only.
  ConvNet plain(ConvNetOptions::beside(CapsNetOptions::compact({1, 24, 24}, 3)), rng);
  sections = sections_of(plain, pairs, set.class_names());
  REQUIRE(sections.size() == 1);
  CHECK(sections[0]["title"] == "Worst mistakes");
}
