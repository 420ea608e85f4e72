// Word vectors: three formats, only the words asked for, every damage named.

#include <cmath>
#include <cstring>

#include <doctest/doctest.h>

#include <capsfw/data/word_vectors.hpp>

#include "data_common.hpp"

using namespace capsfw;
using namespace data_test;

namespace {

using Floats = std::vector<float>;

const Vocabulary kVocabulary({{"a", "a", "a", "b", "b", "caf\xC3\xA9"}});  // 2, 3, 4

class File {
 public:
  WordVectors load(const std::string& text, VectorFormat format = VectorFormat::detect) const {
    write_bytes(path_, {text.begin(), text.end()});
    Rng rng(7);
    return load_word_vectors(path_, kVocabulary, rng, format);
  }
  /// What it says about a file, behind its name.
  std::string complaint(const std::string& text, VectorFormat format = VectorFormat::detect) const {
    const std::string message = message_of<IoError>([&] { load(text, format); });
    const std::string start = "word vectors '" + path_.string() + "': ";
    if (message.empty()) return message;
    REQUIRE_MESSAGE(message.starts_with(start), message);
    return message.substr(start.size());
  }

 private:
  TempDir dir_;
  std::filesystem::path path_ = dir_ / "x.vec";
};

Floats row(const WordVectors& v, std::int64_t i) {
  const auto all = v.table.to_vector<float>();
  const auto begin = all.begin() + i * v.table.size(1);
  return {begin, begin + v.table.size(1)};
}

/// A record of word2vec's binary format.
std::string record(const std::string& word, const Floats& v, const std::string& end = "\n") {
  std::string out = word + ' ' + std::string(v.size() * sizeof(float), '\0') + end;
  std::memcpy(out.data() + word.size() + 1, v.data(), v.size() * sizeof(float));
  return out;
}

}  // namespace

TEST_CASE("word vectors: random ones are uniform, padding is zero, the seed decides") {
  Rng rng(1), again(1), other(2);
  const WordVectors v = random_vectors(kVocabulary, 1000, rng);
  CHECK(v.table.shape() == Shape{5, 1000});
  CHECK(row(v, 0) == Floats(1000, 0.0f));
  double largest = 0, sum = 0, squares = 0;
  for (const float x : v.table.to_vector<float>()) {
    largest = std::max(largest, std::abs(static_cast<double>(x)));
    sum += x;
    squares += static_cast<double>(x) * x;
  }
  CHECK(largest <= 0.25);
  CHECK(largest > 0.24);
  CHECK(std::abs(sum / 4000) < 0.01);
  CHECK(squares / 4000 == doctest::Approx(0.25 * 0.25 / 3).epsilon(0.05));
  CHECK(v.found == 0);
  CHECK(v.share() == 0);
  CHECK(random_vectors(kVocabulary, 1000, again).table.to_vector<float>() ==
        v.table.to_vector<float>());
  CHECK(random_vectors(kVocabulary, 1000, other).table.to_vector<float>() !=
        v.table.to_vector<float>());
  CHECK_THROWS_AS(random_vectors(kVocabulary, 0, rng), ValueError);
  CHECK_THROWS_AS(random_vectors(kVocabulary, 2, rng, -1), ValueError);
  CHECK_THROWS_AS(random_vectors(kVocabulary, 2, rng, INFINITY), ValueError);
  CHECK(random_vectors(Vocabulary(), 2, rng).share() == 0);
}

TEST_CASE("word vectors: GloVe and the two formats of word2vec give the same table") {
  const File f;
  const std::string glove = "zebra 9 9\nb 0.5 -2e-1\ncaf\xC3\xA9 1 +3\n";
  const std::string text = "3 2\n" + glove;
  const std::string binary = "3 2\n" + record("zebra", {9, 9}) + record("b", {0.5f, -0.2f}) +
                             record("caf\xC3\xA9", {1, 3});
  for (const std::string& file :
       {glove, text, binary,
        "3 2\n" + record("zebra", {9, 9}, "") + record("b", {0.5f, -0.2f}, "") +
            record("caf\xC3\xA9", {1, 3}, ""),
        std::string("zebra 9 9 \r\nb 0.5 -2e-1 \r\n\r\ncaf\xC3\xA9\t1\t3")}) {
    const WordVectors v = f.load(file);
    CHECK(v.table.shape() == Shape{5, 2});
    CHECK(v.found == 2);
    CHECK(v.share() == doctest::Approx(2.0 / 3));
    CHECK(row(v, 0) == Floats{0, 0});
    CHECK(row(v, 3) == Floats{0.5f, -0.2f});
    CHECK(row(v, 4) == Floats{1, 3});
    // Words without a vector get the random one that they would have without the file.
    Rng rng(7);
    const WordVectors without = random_vectors(kVocabulary, 2, rng);
    CHECK(row(v, 1) == row(without, 1));
    CHECK(row(v, 2) == row(without, 2));
  }
  // The first of two counts; the words that stand for none are never taken from a file.
  CHECK(row(f.load("a 1 2\na 3 4\n<unk> 5 6\n<pad> 7 8\n"), 2) == Floats{1, 2});
  CHECK(row(f.load("a 1 2\n<pad> 7 8\n"), 0) == Floats{0, 0});
  CHECK(f.load("<unk> 7 8\n").found == 0);
  // Names of some words in the large files have spaces.
  CHECK(row(f.load("x 1 2\n. . . 1 2\nat a@b.c 3 4\nb 5 6\n"), 3) == Floats{5, 6});
  // Below the smallest float there is 0.
  CHECK(row(f.load("a 1e-60 1e-400\n"), 2) == Floats{0, 0});
  // A format that is said is not guessed.
  CHECK(f.load("7 2\n", VectorFormat::glove).table.size(1) == 1);
}

TEST_CASE("word vectors: files of several windows, for any place of the cuts") {
  const File f;
  std::string text, binary = "60000 20\n";
  const Floats ones(20, 1.0f);
  for (int i = 0; i < 60000; ++i) {
    const std::string word = i == 59999 ? "a" : i == 31234 ? "b" : "w" + std::to_string(i);
    const Floats v = i == 59999 ? Floats(20, 2.0f) : ones;
    text += word;
    for (const float x : v) text += x == 1.0f ? " 1" : " 2.000000";
    text += '\n';
    binary += record(word, v, i % 2 ? "\n" : "");
  }
  REQUIRE(text.size() > 2'500'000);
  REQUIRE(binary.size() > 5'000'000);
  for (const std::string& file : {text, binary}) {
    const WordVectors v = f.load(file);
    CHECK(v.found == 2);
    CHECK(row(v, 2) == Floats(20, 2.0f));
    CHECK(row(v, 3) == ones);
  }
}

TEST_CASE("word vectors: damaged text") {
  const File f;
  CHECK(f.complaint("") == "must not be empty");
  CHECK(f.complaint("\n \r\n") == "must hold a vector; its lines are empty");
  CHECK(f.complaint("x 1 2\ny 1\n") == "line 2: must be a word and 2 numbers; got 1 numbers");
  CHECK(f.complaint("x 1 2\ny 1 2 3\n") == "line 2: must be a word and 2 numbers; got 3 numbers");
  CHECK(f.complaint("x 1 2\na 1 b\n") ==
        "line 2: must be a word and 2 numbers; got 'b' among them");
  CHECK(f.complaint("x 1 2\na 1 \n").starts_with("line 2: must be a word and 2 numbers"));
  CHECK(f.complaint("hello world\n") ==
        "line 1: must be a word and 1 numbers; got 'world' among them");
  CHECK(f.complaint("x 1 2\na nan 1\n") == "line 2: the numbers must be finite; got nan for 'a'");
  CHECK(f.complaint("x 1 2\na 1 -inf\n") == "line 2: the numbers must be finite; got -inf for 'a'");
  CHECK(contains(f.complaint("a 1 1e39\n"), "must be finite"));
  CHECK(contains(f.complaint("a 1 1e999\n"), "must be finite"));
  CHECK(f.complaint("word\n") == "line 1: the dimension must lie in [1, 10000]; got 0");
  CHECK(f.complaint("3 2\nx 1 2\ny 1 2\n") ==
        "must hold 3 vectors, as its first line says; it ends after 2");
  CHECK(f.complaint("1 2\nx 1 2\ny 1 2\n") ==
        "line 3: must be the end: the first line says 1 vectors");
  CHECK(f.complaint("1 3\nx 1 2\n") == "line 2: must be a word and 3 numbers; got 2 numbers");
  CHECK(f.complaint("1 1\nx y 2\n") == "line 2: must be a word and 1 numbers; got 2 numbers");
  CHECK(f.complaint("0 2\n") == "line 1: the count must be at least 1; got 0");
  CHECK(f.complaint("5 -2\n") == "line 1: the dimension must lie in [1, 10000]; got -2");
  CHECK(f.complaint("5 10001\n") == "line 1: the dimension must lie in [1, 10000]; got 10001");
  CHECK(contains(f.complaint("9000000000000000000 300\nx 1\n"), "do not fit into the"));
  CHECK(f.complaint("x y\n", VectorFormat::word2vec_text) ==
        "line 1: must be the count and the dimension of the vectors");
  CHECK(f.complaint("x 1\n" + std::string(10'000'000, 'y')) ==
        "line 2: must not be longer than 1048576 bytes");
  CHECK(contains(message_of<IoError>([] {
                   Rng rng;
                   load_word_vectors("/no/such.vec", kVocabulary, rng);
                 }),
                 "/no/such.vec"));
}

TEST_CASE("word vectors: damaged binary files") {
  const File f;
  const std::string good = "2 3\n" + record("a", {1, 2, 3}) + record("b", {4, 5, 6}, "");
  CHECK(f.load(good).found == 2);
  // Cut anywhere: an error, never a crash, never half a table.
  for (std::size_t n = 0; n < good.size(); ++n)
    CHECK_FALSE(f.complaint(good.substr(0, n), VectorFormat::word2vec_binary).empty());
  CHECK(f.complaint(good.substr(0, good.size() - 1)) ==
        "must hold 2 vectors of size 3; it ends in record 2");
  CHECK(f.complaint(good + "x") == "must end after 2 vectors of size 3; more bytes follow");
  CHECK(f.complaint("1 3\n" + record("a", {1, NAN, 3})) ==
        "record 1: the numbers must be finite; got nan for 'a'");
  // A word that nobody asks for is not looked at.
  CHECK(f.complaint("1 3\n" + record("zebra", {1, NAN, 3})).empty());
  CHECK(contains(f.complaint("1 3\n" + record(std::string(2'000'000, 'w'), {1, 2, 3}),
                             VectorFormat::word2vec_binary),
                 "record 1: a word must not be longer"));
  CHECK(contains(f.complaint("100 3\n" + record("a", {1, 2, 3})), "do not fit"));
}
