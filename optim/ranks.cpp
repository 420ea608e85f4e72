#include <capsfw/optim/ranks.hpp>

#include <charconv>
#include <cstring>
#include <optional>
#include <sstream>
#include <string_view>
#include <utility>

#include <fmt/format.h>

#include <capsfw/core/parallel.hpp>
#include <capsfw/optim/interrupt.hpp>

namespace capsfw {
namespace {

template <class T>
void add_to(T* sum, const T* other, std::int64_t n) {
  parallel_for(n, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) sum[i] += other[i];
  });
}

/// Recursive halving: after the step of distance d a rank has the sums of its group of 2d ranks for
/// one part of the numbers; then the way back. The two operands of each addition are the sums of
/// the two halves of the group, whichever rank adds them, and addition is commutative.
template <class T>
void tree_sum_of(Ranks& ranks, T* x, std::int64_t n) {
  const int size = ranks.size(), rank = ranks.rank();
  if ((size & (size - 1)) != 0)
    throw ValueError(fmt::format(
        "tree_sum: the number of ranks must be a power of two; got {}. Hint: without --shards any "
        "number will do",
        size));
  std::vector<T> received(static_cast<std::size_t>(n / 2 + 1));
  std::vector<std::pair<std::int64_t, std::int64_t>> parts;  // before each halving
  std::int64_t lo = 0, hi = n;
  const auto bytes = [](std::int64_t count) { return static_cast<std::size_t>(count) * sizeof(T); };
  for (int distance = 1; distance < size; distance *= 2) {
    parts.emplace_back(lo, hi);
    const std::int64_t mid = lo + (hi - lo) / 2;
    const bool lower = (rank & distance) == 0;
    const std::int64_t keep = lower ? lo : mid, give = lower ? mid : lo;
    const std::int64_t kept = lower ? mid - lo : hi - mid, given = hi - lo - kept;
    ranks.exchange(rank ^ distance, x + give, bytes(given), received.data(), bytes(kept));
    add_to(x + keep, received.data(), kept);
    lo = keep;
    hi = keep + kept;
  }
  for (int distance = size / 2; distance > 0; distance /= 2) {
    const auto [begin, end] = parts.back();
    parts.pop_back();
    const std::int64_t other = lo == begin ? hi : begin, count = end - begin - (hi - lo);
    ranks.exchange(rank ^ distance, x + lo, bytes(hi - lo), x + other, bytes(count));
    lo = begin;
    hi = end;
  }
}

/// The number that a text begins with, which a space must follow; both are taken away. Nothing
/// without one.
std::optional<std::size_t> take_number(std::string_view& text) {
  std::size_t n = 0;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), n);
  if (code != std::errc() || end == text.data() + text.size() || *end != ' ') return std::nullopt;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()) + 1);
  return n;
}

/// What require_equal() sends: names and values, their lengths in front, since both may hold
/// anything.
std::string packed(const std::map<std::string, std::string>& facts) {
  std::string text;
  for (const auto& [name, value] : facts)
    text += fmt::format("{} {} {}{}", name.size(), value.size(), name, value);
  return text;
}
/// Nothing for a text that is none of these.
std::optional<std::map<std::string, std::string>> unpacked(std::string_view text) {
  std::map<std::string, std::string> facts;
  while (!text.empty()) {
    const auto name = take_number(text);
    const auto value = name ? take_number(text) : std::nullopt;
    if (!value || *name > text.size() || *value > text.size() - *name) return std::nullopt;
    facts.emplace(text.substr(0, *name), text.substr(*name, *value));
    text.remove_prefix(*name + *value);
  }
  return facts;
}

/// Type, rank and lengths.
std::string outline(const Tensor& t) {
  std::string text = fmt::format("{} {}", static_cast<int>(t.dtype()), t.dim());
  for (int axis = 0; axis < t.dim(); ++axis) text += fmt::format(" {}", t.size(axis));
  return text;
}
Tensor with_outline(std::istream& words) {
  int type = 0, rank = 0;
  words >> type >> rank;
  std::vector<std::int64_t> lengths(static_cast<std::size_t>(rank));
  for (auto& length : lengths) words >> length;
  return empty(Shape(lengths), static_cast<DType>(type));
}

}  // namespace

void tree_sum(Ranks& ranks, float* numbers, std::int64_t n) { tree_sum_of(ranks, numbers, n); }
void tree_sum(Ranks& ranks, double* numbers, std::int64_t n) { tree_sum_of(ranks, numbers, n); }

void broadcast(Ranks& ranks, std::string& text) {
  std::uint64_t length = text.size();
  ranks.broadcast(&length, sizeof length);
  text.resize(length);
  if (length > 0) ranks.broadcast(text.data(), length);
}

void broadcast(Ranks& ranks, StateDict& state) {
  std::string list;
  for (const auto& [name, t] : state) list += fmt::format("{} {}\n", outline(t), name);
  broadcast(ranks, list);
  const auto send = [&](Tensor& t) {
    visit_any(t.dtype(), [&]<class T>() {
      if (t.numel() > 0)
        ranks.broadcast(t.mutable_data<T>(), static_cast<std::size_t>(t.numel()) * sizeof(T));
    });
  };
  if (ranks.rank() == 0) {
    for (const auto& [name, t] : state) {
      Tensor copy = empty_like(t).copy_(t);
      send(copy);
    }
    return;
  }
  std::istringstream lines(list);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    Tensor t = with_outline(words);
    words.get();
    std::string name;
    std::getline(words, name);
    send(t);
    state.set(name, t);
  }
}

TensorList gather_turns(Ranks& ranks, const TensorList& mine) {
  std::string text;
  for (const Tensor& t : mine) {
    const Tensor data = contiguous_data(t.detach());
    text += outline(data) + '\n';
    visit_any(data.dtype(), [&]<class T>() {
      text.append(reinterpret_cast<const char*>(data.data<T>()),
                  static_cast<std::size_t>(data.numel()) * sizeof(T));
    });
  }
  std::vector<TensorList> all;
  std::size_t count = 0;
  for (const std::string& got : ranks.gather(text)) {
    TensorList& list = all.emplace_back();
    for (std::istringstream in(got); in.peek() != std::istringstream::traits_type::eof();) {
      Tensor t = with_outline(in);
      in.get();
      visit_any(t.dtype(), [&]<class T>() {
        in.read(reinterpret_cast<char*>(t.mutable_data<T>()),
                static_cast<std::streamsize>(static_cast<std::size_t>(t.numel()) * sizeof(T)));
      });
      list.push_back(t);
    }
    count += list.size();
  }
  TensorList out;
  for (std::size_t k = 0; out.size() < count; ++k)
    for (const TensorList& list : all)
      if (k < list.size()) out.push_back(list[k]);
  return out;
}

TensorList in_turns(Ranks* ranks,
                    std::int64_t count,
                    const std::function<Tensor(std::int64_t)>& turn) {
  const std::int64_t size = ranks != nullptr ? ranks->size() : 1,
                     first = ranks != nullptr ? ranks->rank() : 0;
  TensorList done;
  for (std::int64_t k = first; k < count; k += size) {
    // One of several ranks may leave by itself, since all meet behind the loop.
    if (ranks != nullptr ? interrupt_pending() : interrupted()) break;
    if (ranks != nullptr) ranks->progress();
    done.push_back(turn(k));
  }
  if (ranks == nullptr) return done;
  done = gather_turns(*ranks, done);
  if (static_cast<std::int64_t>(done.size()) < count) request_interrupt();
  return done;
}

void require_equal(Ranks& ranks, const std::map<std::string, std::string>& facts) {
  const std::vector<std::string> all = ranks.gather(packed(facts));
  const auto facts_of = [&](int rank) {
    auto of = unpacked(all[static_cast<std::size_t>(rank)]);
    if (!of)
      throw RankError(
          fmt::format("ranks differ: rank {} is at another place of the program than rank {}, and "
                      "sent no values to compare. Hint: all ranks must make the same calls; what "
                      "is theirs alone, as a signal, must not decide which",
                      rank, ranks.rank()));
    return *std::move(of);
  };
  const auto first = facts_of(0);
  for (int r = 1; r < ranks.size(); ++r) {
    const auto other = facts_of(r);
    const auto value = [](const auto& m, const std::string& name) {
      const auto found = m.find(name);
      return found == m.end() ? std::string() : found->second;
    };
    auto names = first;
    names.insert(other.begin(), other.end());
    for (const auto& [name, ignored] : names)
      if (const std::string a = value(first, name), b = value(other, name); a != b)
        throw RankError(fmt::format(
            "ranks differ: {} is '{}' on rank 0 and '{}' on rank {}. Hint: start all ranks with "
            "one build of the program, the same flags and the same data",
            name, a, b, r));
  }
}

}  // namespace capsfw
