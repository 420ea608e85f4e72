// Readers of sentences: encodings, ends of lines, the published sets, tables, every mistake.

#include <doctest/doctest.h>

#include <capsfw/data/text.hpp>

#include "data_common.hpp"

using namespace capsfw;
using namespace data_test;

namespace {

using Lines = std::vector<std::string>;
using Labels = std::vector<std::int64_t>;

void write_text(const std::filesystem::path& path, const std::string& text) {
  write_bytes(path, {text.begin(), text.end()});
}

class Files {
 public:
  std::filesystem::path file(const std::string& name, const std::string& text) const {
    write_text(dir_ / name, text);
    return dir_ / name;
  }
  Lines lines(const std::string& text, Encoding encoding = Encoding::detect) const {
    return read_lines(file("x.txt", text), encoding);
  }
  /// What read_lines says about a file, behind its name.
  std::string complaint(const std::string& text, Encoding encoding = Encoding::detect) const {
    return behind_name("x.txt", message_of<IoError>([&] { lines(text, encoding); }));
  }
  /// What load_text says about a table, behind its name.
  std::string table_complaint(const std::string& text, const std::string& test = {}) const {
    TextOptions options;
    if (!test.empty()) options.test = file("test.tsv", test);
    const std::string path = file("x.tsv", text).string();
    return behind_name(test.empty() ? "x.tsv" : "test.tsv",
                       message_of<IoError>([&] { load_text(path, options); }));
  }
  const TempDir& dir() const { return dir_; }

 private:
  std::string behind_name(const std::string& name, const std::string& message) const {
    const std::string start = "text '" + (dir_ / name).string() + "': ";
    if (message.empty()) return message;
    REQUIRE_MESSAGE(message.starts_with(start), message);
    return message.substr(start.size());
  }
  TempDir dir_;
};

}  // namespace

TEST_CASE("text lines: every end of line, with and without a byte order mark") {
  const Files f;
  for (const char* text : {"a b\n\nc\n", "a b\r\n\r\nc", "a b\r\rc\r", "a b\n\r\nc\r",
                           "\xEF\xBB\xBF"
                           "a b\n\nc"})
    CHECK(f.lines(text) == Lines{"a b", "", "c"});
  CHECK(f.lines("").empty());
  CHECK(f.lines("\n") == Lines{""});
  CHECK(f.lines("x") == Lines{"x"});
}

TEST_CASE("text lines: UTF-8 where the whole file is, else Latin-1") {
  const Files f;
  CHECK(f.lines("caf\xC3\xA9\n") == Lines{"caf\xC3\xA9"});
  CHECK(f.lines("caf\xE9\n\xFF\x85\n") == Lines{"caf\xC3\xA9", "\xC3\xBF\xC2\x85"});
  // One bad byte and the file is Latin-1, with two letters for what looked like one.
  CHECK(f.lines("\xC3\xA9\n\xE9") == Lines{"\xC3\x83\xC2\xA9", "\xC3\xA9"});
  CHECK(f.lines("\xF0\x9F\x98\x80", Encoding::utf8) == Lines{"\xF0\x9F\x98\x80"});
  CHECK(f.complaint("a\ncaf\xE9\n", Encoding::utf8) ==
        "line 2: must be UTF-8. Hint: is the file in Latin-1? Encoding::detect takes both");
  // Overlong, a surrogate, beyond the last code point, cut off, a stray continuation.
  for (const char* bad : {"\xC0\x80", "\xE0\x80\xAF", "\xED\xA0\x80", "\xF4\x90\x80\x80",
                          "\xE2\x82", "\x80", "\xFE", "\xF0\x80\x80\x80"}) {
    CHECK_FALSE(is_utf8(bad));
    CHECK(f.complaint(bad, Encoding::utf8).starts_with("line 1: must be UTF-8"));
  }
  for (const char* good : {"", "\x7F", "\xC2\x80", "\xDF\xBF", "\xE0\xA0\x80", "\xED\x9F\xBF",
                           "\xEE\x80\x80", "\xF4\x8F\xBF\xBF"})
    CHECK(is_utf8(good));
}

TEST_CASE("text lines: lines without end and NUL bytes are errors") {
  const Files f;
  const std::string limit(1 << 20, 'x');
  CHECK(f.lines(limit + "\n" + limit).size() == 2);
  CHECK(f.complaint("a\n" + std::string(10'000'000, 'x')) ==
        "line 2: must not be longer than 1048576 bytes; got 10000000");
  // As many empty lines as are too many: refused before they take memory.
  const std::string_view many = "must not have more than 16777216 lines; got 16777217";
  CHECK(f.complaint(std::string((1 << 24) + 1, '\r')) == many);
  CHECK(f.complaint(std::string("a\nb\0c\n", 6)).starts_with("line 2: must not hold a NUL byte"));
  CHECK(contains(message_of<IoError>([] { read_lines("/no/such/file"); }), "/no/such/file"));
  CHECK(contains(message_of<IoError>([&] { read_lines(f.dir().path()); }), "regular file"));
}

TEST_CASE("text tables: classes in order, texts with tabs, a test part") {
  const Files f;
  const auto train = f.file("train.tsv", "good\tso\tnice\n\nbad\toh  no\r\ngood\tyes\n");
  const auto test = f.file("test.tsv", "bad\tno\n");
  const TextData data = load_text(train.string(), {.test = test});
  CHECK(data.train.class_names == Lines{"bad", "good"});
  CHECK(data.train.texts == Lines{"so\tnice", "oh  no", "yes"});
  CHECK(data.train.labels == Labels{1, 0, 1});
  CHECK(data.test.class_names == data.train.class_names);
  CHECK(data.test.texts == Lines{"no"});
  CHECK(data.test.labels == Labels{0});
  CHECK(data.validation.size() == 0);
  CHECK(load_text(train.string()).test.size() == 0);
}

TEST_CASE("text tables: mistakes are named with file and line") {
  const Files f;
  const std::string good = "a\tx\nb\ty\n";
  CHECK(f.table_complaint("") == "must have a line of text");
  CHECK(f.table_complaint("\n \n\t\n") == "must have a line of text");
  CHECK(f.table_complaint("a\tx\n\nb y\n") ==
        "line 3: must be a class, a tab and a text; got one column, 'b y'");
  CHECK(f.table_complaint("a\tx\n\ty\n") == "line 2: the class is missing");
  CHECK(f.table_complaint("a\tx\nb\x1b[2J\ty\n") ==
        "line 2: a class must not have control characters; got 'b\\x1b[2J'");
  CHECK(f.table_complaint("a\tx\nb\t \n") == "line 2: the text is missing");
  CHECK(f.table_complaint("a\tx\na\ty\n") == "must have at least two classes; got 'a' alone");
  CHECK(f.table_complaint(good, "a\tx\nc\ty\n") ==
        "line 2: the class must be one of a, b; got 'c'");
  CHECK(f.table_complaint(good).empty());
  std::string many;
  for (int i = 0; i < 1200; ++i) many += "class " + std::to_string(i) + "\tx\n";
  CHECK(f.table_complaint(many) ==
        "line 1001: must not have more than 1000 classes. Hint: is the class the first column?");
  CHECK(f.table_complaint(good, many).starts_with("line 1: the class must be one of a, b; got"));
  // The text of a message is never cut within a letter.
  CHECK(is_utf8(f.table_complaint("a\tx\n" + std::string(59, 'y') + "\xC3\xA9\n")));
  CHECK(message_of<IoError>([] { load_text("/no/such.tsv"); }).find("/no/such.tsv") !=
        std::string::npos);
}

TEST_CASE("text sets: what is published is read from the folder text of the data folder") {
  const Files f;
  const Environment data("CAPSFW_DATA_DIR", f.dir().path().string());
  std::filesystem::create_directory(f.dir() / "text");
  const auto file = [&](const std::string& name, const std::string& text) {
    f.file("text/" + name, text);
  };
  file("rt-polarity.neg", "dull .\nna\xEFve .\n");
  file("rt-polarity.pos", "fine .\n");
  const TextData mr = load_text("mr");
  CHECK(mr.train.texts == Lines{"dull .", "na\xC3\xAFve .", "fine ."});
  CHECK(mr.train.labels == Labels{0, 0, 1});
  CHECK(mr.train.class_names == Lines{"negative", "positive"});
  CHECK(mr.test.size() == 0);
  CHECK(mr.tokenizer.split_clitics);
  CHECK_THROWS_AS(load_text("mr", {.encoding = Encoding::utf8}), IoError);

  file("subj.objective", "it is\n");
  file("subj.subjective", "i feel\n");
  CHECK(load_text("subj").train.class_names == Lines{"objective", "subjective"});
  file("custrev.neg", "broken\n");
  file("custrev.pos", "works\n\nwell\n");
  CHECK(load_text("cr").train.labels == Labels{0, 1, 1});
  file("mpqa.neg", "no\n");
  file("mpqa.pos", "\n");
  CHECK(message_of<IoError>([] { load_text("mpqa"); }).ends_with("must have a line of text"));

  file("TREC.train", "NUM:dist How far is it ?\nLOC:city Which town ?\n");
  file("TREC.test", "HUM:ind Who ?\n");
  const TextData trec = load_text("trec");
  CHECK(trec.train.class_names == Lines{"ABBR", "DESC", "ENTY", "HUM", "LOC", "NUM"});
  CHECK(trec.train.labels == Labels{5, 4});
  CHECK(trec.train.texts[0] == "How far is it ?");
  CHECK(trec.test.labels == Labels{3});
  file("TREC.test", "HUM Who ?\n");
  CHECK(message_of<IoError>([] {
          load_text("trec");
        }).ends_with("line 1: must begin with CLASS:KIND; got 'HUM'"));
  file("TREC.test", "HUM:ind Who ?\nFOO:x Who ?\n");
  CHECK(message_of<IoError>([] { load_text("trec"); })
            .ends_with("line 2: the class must be one of ABBR, DESC, ENTY, HUM, LOC, NUM; got "
                       "'FOO'"));
  file("TREC.test", "HUM:ind\n");
  CHECK(contains(message_of<IoError>([] { load_text("trec"); }), "got one column"));

  file("stsa.binary.train", "1 it 's good\n0 bad\n");
  file("stsa.binary.dev", "0 oh\n");
  file("stsa.binary.test", "1 ah\n");
  const TextData sst = load_text("sst2");
  CHECK(sst.train.labels == Labels{1, 0});
  CHECK(sst.train.texts[0] == "it 's good");
  CHECK(sst.validation.labels == Labels{0});
  CHECK(sst.test.labels == Labels{1});
  CHECK_FALSE(sst.tokenizer.split_clitics);
  file("stsa.binary.dev", "2 oh\n");
  CHECK(message_of<IoError>([] {
          load_text("sst2");
        }).ends_with("line 1: the class must be one of 0, 1; got '2'"));

  file("custrev.neg.gz", "x");
  std::filesystem::remove(f.dir() / "text/custrev.neg");
  CHECK(contains(message_of<IoError>([] { load_text("cr"); }), "must be unpacked"));
}

TEST_CASE("text sets: what is missing, and names that are none") {
  const Files f;
  const Environment data("CAPSFW_DATA_DIR", f.dir().path().string());
  const std::string message = message_of<IoError>([] { load_text("trec"); });
  CHECK(contains(message, "data set 'text': not found; looked in"));
  CHECK(contains(message, (f.dir() / "text").string()));
  CHECK(contains(message, "TREC.train"));
  CHECK(message_of<ValueError>([] { load_text("imdb"); }) ==
        "text 'imdb': must be one of mr, subj, trec, cr, mpqa, sst2, or a FILE.tsv");
  CHECK(message_of<ValueError>([] { load_text("mr", {.test = "t.tsv"}); }) ==
        "text 'mr': only a FILE.tsv takes a file of its test part");
}

TEST_CASE("tokenizer: the cleaning of Kim 2014") {
  CHECK(tokenize("It's (really) GOOD, isn't it?") ==
        Words{"it", "'s", "(", "really", ")", "good", ",", "is", "n't", "it", "?"});
  CHECK(tokenize("I've we're he'd they'll !!") ==
        Words{"i", "'ve", "we", "'re", "he", "'d", "they", "'ll", "!", "!"});
  CHECK(tokenize("co-writer/director; $5.00 \"x\" & `y'") ==
        Words{"co", "writer", "director", "5", "00", "x", "`y'"});
  CHECK(tokenize("DON'T O'Shea's") == Words{"do", "n't", "o", "'shea", "'s"});
  CHECK(tokenize("").empty());
  CHECK(tokenize(" ... -- ;").empty());
}

TEST_CASE("tokenizer: words as they are, case kept") {
  const TokenizerOptions sst{.split_clitics = false, .split_punctuation = false};
  CHECK(tokenize("it's GOOD, ( not ) can't", sst) ==
        Words{"it's", "good,", "(", "not", ")", "can't"});
  CHECK(tokenize("Who is IT ?", {.lower = false}) == Words{"Who", "is", "IT", "?"});
}

TEST_CASE("tokenizer: the edges of a sentence") {
  CHECK(tokenize("Is it?", {.edges = true}) == Words{"<s>", "is", "it", "?", "</s>"});
  CHECK(tokenize(" ... ", {.edges = true}).empty());
  CHECK(tokenize("<s> a </s>") == Words{"s", "a", "s"});  // no text has the marks
}

TEST_CASE("tokenizer: letters beyond ASCII, and bytes that are no UTF-8") {
  CHECK(tokenize("CR\xC3\x88ME br\xC3\xBBl\xC3\xA9"
                 "e") == Words{"cr\xC3\xA8me",
                               "br\xC3\xBBl\xC3\xA9"
                               "e"});
  CHECK(tokenize("\xC5\xBB\xC3\x93\xC5\x81W \xCE\x91\xCE\xA9 \xD0\x96\xD0\x81") ==
        Words{"\xC5\xBC\xC3\xB3\xC5\x82w", "\xCE\xB1\xCF\x89", "\xD0\xB6\xD1\x91"});
  CHECK(tokenize("it\xE2\x80\x99s \xE2\x80\x9Cso\xE2\x80\x9D a\xE2\x80\x94"
                 "b \xC2\xA3"
                 "5") == Words{"it", "'s", "so", "a", "b", "5"});
  CHECK(tokenize("\xE6\x97\xA5\xE6\x9C\xAC") == Words{"\xE6\x97\xA5\xE6\x9C\xAC"});
  CHECK(tokenize("a\xFF"
                 "b\xC3 c\xE2\x82") == Words{"a", "b", "c"});
  CHECK(tokenize(std::string("a\0b", 3)) == Words{"a", "b"});
}
