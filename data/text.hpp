#pragma once
// Labelled sentences in memory, and the readers of the usual sets.

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include <capsfw/data/tokenizer.hpp>

namespace capsfw {

/// How the bytes of a text file are taken.
enum class Encoding : std::uint8_t {
  detect,  ///< as UTF-8 if the whole file is valid UTF-8, else as ISO 8859-1 (Latin-1)
  utf8     ///< as UTF-8; anything else is an error
};

/// The lines of a text file as UTF-8, without their ends (LF, CR LF or CR) and without a byte order
/// mark. IoError naming file and line for a NUL byte, for a line above 1 MiB, and with
/// Encoding::utf8 for what is no UTF-8 (surrogates and overlong forms too); for a file above 1 GiB
/// or of more than 2^24 lines.
std::vector<std::string> read_lines(const std::filesystem::path& path,
                                    Encoding encoding = Encoding::detect);

/// True if the bytes are well-formed UTF-8 (RFC 3629).
bool is_utf8(std::string_view bytes);
/// True for UTF-8 without control characters (below U+0020, U+007F to U+009F): a name from a file
/// that may go to a terminal as it is.
bool is_printable(std::string_view bytes);
/// What a file says, for a message: at most `most` bytes of it, with control characters and bytes
/// that are no UTF-8 as hexadecimal escapes, so that no file talks to a terminal.
std::string shown(std::string_view text, std::size_t most = 60);
/// Latin-1 as UTF-8.
std::string latin1_to_utf8(std::string_view bytes);

/// Sentences with a class each.
struct TextSet {
  std::vector<std::string> texts;        ///< one a sentence
  std::vector<std::int64_t> labels;      ///< class of each
  std::vector<std::string> class_names;  ///< by number

  /// Number of sentences.
  std::int64_t size() const { return static_cast<std::int64_t>(texts.size()); }
  /// Number of classes.
  std::int64_t classes() const { return static_cast<std::int64_t>(class_names.size()); }
};

/// A set as it is published: what it has no part for is empty, to be split by data/split.hpp.
struct TextData {
  TextSet train;               ///< to learn from
  TextSet validation;          ///< to choose by
  TextSet test;                ///< to report
  TokenizerOptions tokenizer;  ///< the cleaning that the field uses for this set
};

/// Options of load_text.
struct TextOptions {
  std::filesystem::path test = {};       ///< for a FILE.tsv: the file of its test part
  Encoding encoding = Encoding::detect;  ///< of the files
};

/// Reads a set by name, from the files of resolve_dataset("text", ...), or a table of our own:
///
///   mr        rt-polarity.neg, .pos          movie reviews (Pang, Lee 2005)
///   subj      subj.objective, .subjective    subjectivity (Pang, Lee 2004)
///   cr        custrev.neg, .pos              customer reviews (Hu, Liu 2004)
///   mpqa      mpqa.neg, .pos                 opinions (Wiebe et al. 2005)
///   trec      TREC.train, TREC.test          six kinds of questions (Li, Roth 2002): the class is
///                                            what stands before the colon
///   sst2      stsa.binary.train, .dev, .test Stanford sentiment, two classes (Socher et al. 2013)
///   FILE.tsv  a class, a tab and a text on each line; classes in alphabetical order
///
/// Empty lines are skipped. IoError if a file is missing (with the places where it was looked for),
/// as read_lines, and naming file and line: no sentence at all, a line of one column, a class that
/// is missing, has control characters or is unknown (in a test part: one that the training part
/// lacks), no text, fewer than two classes, more than 1000; ValueError for another name, or options
/// that the set cannot have.
TextData load_text(const std::string& name, const TextOptions& options = {});

/// The names that load_text knows: "mr", "subj", ...
const std::vector<std::string>& text_set_names();

}  // namespace capsfw
