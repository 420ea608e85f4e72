// Targets: files of text.

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

#include <capsfw/data/csv.hpp>
#include <capsfw/data/text.hpp>
#include <capsfw/data/tokenizer.hpp>
#include <capsfw/data/vocabulary.hpp>
#include <capsfw/data/word_vectors.hpp>

#include "targets.hpp"

namespace capsfw::fuzz {
namespace {

void require(bool ok, const char* what) {
  if (!ok) throw std::runtime_error(what);
}

void look_at(const TextSet& set) {
  require(set.labels.size() == set.texts.size(), "a label for each text");
  for (const std::int64_t label : set.labels)
    require(label >= 0 && label < set.classes(), "labels are classes");
  for (const std::string& t : set.texts) {
    require(is_utf8(t), "texts are UTF-8");
    for (const std::string& word : tokenize(t)) require(!word.empty(), "words have letters");
  }
}

}  // namespace

bool csv(Bytes file) {
  return with_file(file, [&](const std::filesystem::path& path) {
    const bool semicolons = std::find(file.begin(), file.end(), ';') != file.end();
    const CsvTable table = load_csv(path, semicolons ? ';' : ',');
    require(table.values.dim() == 2 && table.values.numel() > 0, "a table has numbers");
    require(table.names.empty() ||
                static_cast<std::int64_t>(table.names.size()) == table.values.size(1),
            "a name for each column");
  });
}

bool text(Bytes file) {
  if (file.empty()) return false;
  const int kind = file[0] % 4;
  return with_file(file.subspan(1), [&](const std::filesystem::path& path) {
    if (kind == 0) {
      look_at(load_text(path.string()).train);
    } else if (kind == 1) {
      for (const std::string& line : read_lines(path)) require(is_utf8(line), "lines are UTF-8");
    } else if (kind == 2) {
      const Vocabulary v = Vocabulary::load(path);
      for (std::int64_t i = 0; i < v.size(); ++i)
        require(v.id(v.word(i)) == i, "words and numbers correspond");
    } else {
      for (const std::string& line : read_lines(path, Encoding::utf8))
        require(is_utf8(line), "lines are UTF-8");
    }
  });
}

bool textset(Bytes file) {
  if (file.empty()) return false;
  static constexpr struct {
    const char *name, *files[3];
  } kSets[] = {{"mr", {"rt-polarity.neg", "rt-polarity.pos"}},
               {"trec", {"TREC.train", "TREC.test"}},
               {"sst2", {"stsa.binary.train", "stsa.binary.dev", "stsa.binary.test"}},
               {nullptr, {"train.tsv", "test.tsv"}}};
  const auto& set = kSets[file[0] % std::size(kSets)];
  const std::vector<Bytes> p = parts(file.subspan(1));
  std::vector<NamedBytes> files;
  for (std::size_t i = 0; i < 3 && set.files[i] != nullptr; ++i) {
    if (i >= p.size()) return false;
    files.emplace_back(std::filesystem::path("text") / set.files[i], p[i]);
  }
  return with_folder(files, [&](const std::filesystem::path& at) {
    ::setenv("CAPSFW_DATA_DIR", at.c_str(), 1);
    const std::filesystem::path folder = at / "text";
    const TextData data = set.name != nullptr ? load_text(set.name)
                                              : load_text((folder / set.files[0]).string(),
                                                          {.test = folder / set.files[1]});
    for (const TextSet* part : {&data.train, &data.validation, &data.test}) look_at(*part);
    require(!data.train.texts.empty(), "a text to train with");
  });
}

bool vectors(Bytes file) {
  if (file.empty()) return false;
  static const Vocabulary vocabulary(std::vector<Words>{{"the", "film", "of"}});
  return with_file(file.subspan(1), [&](const std::filesystem::path& path) {
    Rng rng(1);
    const WordVectors v =
        load_word_vectors(path, vocabulary, rng, static_cast<VectorFormat>(file[0] % 4));
    require(v.table.size(0) == vocabulary.size(), "a row for each word");
    require(v.found <= vocabulary.size() - 2, "words found are words wanted");
    for (const double x : v.table.to_vector<double>()) require(std::isfinite(x), "finite numbers");
  });
}

}  // namespace capsfw::fuzz
