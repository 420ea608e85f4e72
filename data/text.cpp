#include <capsfw/data/text.hpp>

#include <algorithm>
#include <optional>
#include <set>

#include <fmt/format.h>

#include <capsfw/core/error.hpp>
#include <capsfw/data/resolve.hpp>

namespace capsfw {
namespace {

namespace fs = std::filesystem;
using Names = std::vector<std::string>;

constexpr std::size_t kMaxClasses = 1000;

[[noreturn]] void fail(const fs::path& path, const std::string& rule) {
  throw IoError(fmt::format("text '{}': {}", path.string(), rule));
}
[[noreturn]] void fail(const fs::path& path, std::size_t line, const std::string& rule) {
  fail(path, fmt::format("line {}: {}", line, rule));
}

bool blank(std::string_view line) { return line.find_first_not_of(" \t") == std::string::npos; }

/// A line in two: what stands before and behind the first `separator`.
struct Row {
  std::string label, text;
  std::size_t line = 0;
};

std::vector<Row> rows_of(const fs::path& path, Encoding encoding, char separator) {
  const std::vector<std::string> lines = read_lines(path, encoding);
  std::vector<Row> rows;
  for (std::size_t i = 0; i < lines.size(); ++i) {
    if (blank(lines[i])) continue;
    const std::size_t cut = lines[i].find(separator);
    if (cut == std::string::npos)
      fail(path, i + 1,
           fmt::format("must be a class, a {} and a text; got one column, '{}'",
                       separator == '\t' ? "tab" : "space", shown(lines[i])));
    rows.push_back({lines[i].substr(0, cut), lines[i].substr(cut + 1), i + 1});
    if (blank(rows.back().label)) fail(path, i + 1, "the class is missing");
    if (!is_printable(rows.back().label))
      fail(path, i + 1,
           fmt::format("a class must not have control characters; got '{}'",
                       shown(rows.back().label)));
    if (blank(rows.back().text)) fail(path, i + 1, "the text is missing");
  }
  if (rows.empty()) fail(path, "must have a line of text");
  return rows;
}

/// Rows whose classes are among `classes`.
TextSet labelled(const fs::path& path, std::vector<Row> rows, const Names& classes) {
  TextSet set;
  set.class_names = classes;
  for (Row& row : rows) {
    const auto found = std::find(classes.begin(), classes.end(), row.label);
    if (found == classes.end()) {
      const std::size_t n = std::min<std::size_t>(classes.size(), 10);
      std::vector<std::string> some;
      for (std::size_t k = 0; k < n; ++k) some.push_back(shown(classes[k]));
      fail(path, row.line,
           fmt::format("the class must be one of {}{}; got '{}'", fmt::join(some, ", "),
                       n < classes.size() ? ", ..." : "", shown(row.label)));
    }
    set.texts.push_back(std::move(row.text));
    set.labels.push_back(found - classes.begin());
  }
  return set;
}

/// A file of sentences that all have class `label`.
void append_class(TextSet& set, const fs::path& path, Encoding encoding, std::int64_t label) {
  const std::size_t before = set.texts.size();
  for (std::string& line : read_lines(path, encoding))
    if (!blank(line)) set.texts.push_back(std::move(line));
  if (set.texts.size() == before) fail(path, "must have a line of text");
  set.labels.resize(set.texts.size(), label);
}

TextData load_tsv(const fs::path& path, const TextOptions& options) {
  std::vector<Row> rows = rows_of(path, options.encoding, '\t');
  std::set<std::string> classes;
  for (const Row& row : rows) {
    classes.insert(row.label);
    if (classes.size() > kMaxClasses)
      fail(path, row.line,
           fmt::format("must not have more than {} classes. Hint: is the class the first column?",
                       kMaxClasses));
  }
  if (classes.size() < 2)
    fail(path,
         fmt::format("must have at least two classes; got '{}' alone", shown(*classes.begin())));
  TextData data;
  data.train = labelled(path, std::move(rows), Names(classes.begin(), classes.end()));
  if (!options.test.empty())
    data.test = labelled(options.test, rows_of(options.test, options.encoding, '\t'),
                         data.train.class_names);
  return data;
}

/// A published set of two files, one for each class.
struct TwoFiles {
  const char* name;
  const char* files[2];
  const char* classes[2];
};
constexpr TwoFiles kTwoFiles[] = {
    {"mr", {"rt-polarity.neg", "rt-polarity.pos"}, {"negative", "positive"}},
    {"subj", {"subj.objective", "subj.subjective"}, {"objective", "subjective"}},
    {"cr", {"custrev.neg", "custrev.pos"}, {"negative", "positive"}},
    {"mpqa", {"mpqa.neg", "mpqa.pos"}, {"negative", "positive"}}};

/// The folder of the files, none of which may be packed.
fs::path folder_of(const Names& files) {
  fs::path folder = resolve_dataset("text", files);
  for (const std::string& file : files)
    if (find_file(folder, file).extension() == ".gz")
      fail(folder / file, "must be unpacked. Hint: gunzip it");
  return folder;
}

TextData load_trec(Encoding encoding) {
  const fs::path folder = folder_of({"TREC.train", "TREC.test"});
  const auto part = [&](const char* file) {
    const fs::path path = folder / file;
    std::vector<Row> rows = rows_of(path, encoding, ' ');
    for (Row& row : rows) {
      const std::size_t colon = row.label.find(':');
      if (colon == std::string::npos)
        fail(path, row.line, fmt::format("must begin with CLASS:KIND; got '{}'", shown(row.label)));
      row.label.resize(colon);
    }
    return labelled(path, std::move(rows), {"ABBR", "DESC", "ENTY", "HUM", "LOC", "NUM"});
  };
  TextData data;
  data.train = part("TREC.train");
  data.test = part("TREC.test");
  return data;
}

TextData load_sst2(Encoding encoding) {
  const fs::path folder = folder_of({"stsa.binary.train", "stsa.binary.dev", "stsa.binary.test"});
  const auto part = [&](const char* file) {
    TextSet set = labelled(folder / file, rows_of(folder / file, encoding, ' '), {"0", "1"});
    set.class_names = {"negative", "positive"};
    return set;
  };
  TextData data;
  data.train = part("stsa.binary.train");
  data.validation = part("stsa.binary.dev");
  data.test = part("stsa.binary.test");
  data.tokenizer = {.split_clitics = false, .split_punctuation = false};
  return data;
}

}  // namespace

const Names& text_set_names() {
  static const Names names = {"mr", "subj", "trec", "cr", "mpqa", "sst2"};
  return names;
}

TextData load_text(const std::string& name, const TextOptions& options) {
  if (name.ends_with(".tsv")) return load_tsv(name, options);
  if (!options.test.empty())
    throw ValueError(fmt::format("text '{}': only a FILE.tsv takes a file of its test part", name));
  for (const TwoFiles& set : kTwoFiles) {
    if (name != set.name) continue;
    const fs::path folder = folder_of({set.files[0], set.files[1]});
    TextData data;
    data.train.class_names = {set.classes[0], set.classes[1]};
    for (std::size_t k = 0; k < 2; ++k)
      append_class(data.train, folder / set.files[k], options.encoding,
                   static_cast<std::int64_t>(k));
    return data;
  }
  if (name == "trec") return load_trec(options.encoding);
  if (name == "sst2") return load_sst2(options.encoding);
  throw ValueError(fmt::format("text '{}': must be one of {}, or a FILE.tsv", name,
                               fmt::join(text_set_names(), ", ")));
}

}  // namespace capsfw
