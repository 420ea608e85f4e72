#pragma once
// The processes that train one network together, as the training loop sees them. What carries the
// messages is elsewhere (optim/mpi_ranks.hpp), so that the library links no transport.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include <capsfw/core/error.hpp>
#include <capsfw/core/state_dict.hpp>

namespace capsfw {

/// Another process has died, does not answer, or differs in what must be equal.
struct RankError : Error {
  using Error::Error;
};

/// What has been sent so far.
struct RankTraffic {
  std::int64_t bytes = 0;  ///< by exchange(), and those handed to start_sum()
  double waited = 0;       ///< seconds in which nothing else was done
};

/// `size()` processes, numbered from 0, each with the same program. All of them make the same calls
/// in the same order. Every call that waits for others has a deadline, and throws RankError, with
/// the number of the rank that is missing, when it has passed.
class Ranks {
 public:
  virtual ~Ranks() = default;
  Ranks() = default;
  Ranks(const Ranks&) = delete;
  Ranks& operator=(const Ranks&) = delete;

  virtual int rank() const = 0;  ///< of this process
  virtual int size() const = 0;  ///< of all

  /// Sends `out_bytes` to rank `other` and receives `in_bytes` from it, which calls it as well.
  virtual void exchange(
      int other, const void* out, std::size_t out_bytes, void* in, std::size_t in_bytes) = 0;
  /// What rank 0 has at `data` reaches all others.
  virtual void broadcast(void* data, std::size_t bytes) = 0;
  /// The texts of all ranks by rank.
  virtual std::vector<std::string> gather(const std::string& mine) = 0;

  /// Begins to replace the numbers by their sums over all ranks, in an order of the transport's
  /// own, while the program goes on; several may run at once. They must stay where they are until
  /// finish_sums().
  virtual void start_sum(float* numbers, std::int64_t n) = 0;
  /// See above.
  virtual void start_sum(double* numbers, std::int64_t n) = 0;
  /// Keeps sums moving, and tells those who wait and ask that this rank is at work; cheap, called
  /// now and then while the program computes.
  virtual void progress() = 0;
  /// Waits for all sums.
  virtual void finish_sums() = 0;

  /// A meeting for which the others may be hours late, as long as they call progress() more often
  /// than the deadline.
  virtual void wait_for_all() = 0;
  /// A last meeting: all ranks are done, and none may need another any more.
  virtual void finish() = 0;
  /// Ends all processes at once with this exit code, where there is something to end.
  virtual void abort(int code) = 0;
  virtual RankTraffic traffic() const = 0;  ///< of this process
};

/// One of `world` that works by itself: of size 1, and all that it does for `world` is to say, in
/// progress(), that it is alive.
class LoneRank final : public Ranks {
 public:
  explicit LoneRank(Ranks& world) : world_(world) {}
  int rank() const override { return 0; }
  int size() const override { return 1; }
  void exchange(int, const void*, std::size_t, void*, std::size_t) override {}
  void broadcast(void*, std::size_t) override {}
  std::vector<std::string> gather(const std::string& mine) override { return {mine}; }
  void start_sum(float*, std::int64_t) override {}
  void start_sum(double*, std::int64_t) override {}
  void progress() override { world_.progress(); }
  void finish_sums() override {}
  void wait_for_all() override {}
  void finish() override {}
  void abort(int code) override { world_.abort(code); }
  RankTraffic traffic() const override { return {}; }

 private:
  Ranks& world_;
};

/// numbers[i] = Σ over ranks, by a binary tree over the ranks in their order: ((0 + 1) + (2 + 3)) +
/// ..., with the same bits on every rank. Halves of halves are exchanged (Rabenseifner 2004), so a
/// rank sends 2 (R - 1) / R of them. ValueError unless size() is a power of two.
void tree_sum(Ranks& ranks, float* numbers, std::int64_t n);
/// See above.
void tree_sum(Ranks& ranks, double* numbers, std::int64_t n);

/// Rank 0's entries reach all others, which had better have none.
void broadcast(Ranks& ranks, StateDict& state);
/// Rank 0's text reaches all others.
void broadcast(Ranks& ranks, std::string& text);

/// Every rank has done its turn of a list: its k-th tensor is number k · size() + rank(). The whole
/// list, on all ranks.
TensorList gather_turns(Ranks& ranks, const TensorList& mine);

/// Deals `count` turns to the ranks: this one calls turn(k) for each of its own k, in order, and
/// gets what all ranks have made, in order of k: the same as one process alone, which null stands
/// for. Fewer than `count` if one of them was interrupted; then all are, from here on.
TensorList in_turns(Ranks* ranks,
                    std::int64_t count,
                    const std::function<Tensor(std::int64_t)>& turn);

/// Compares what must be equal on all ranks. RankError with the name, both values and the rank of
/// the first that differs from rank 0's; with the rank alone, if that one calls something else.
void require_equal(Ranks& ranks, const std::map<std::string, std::string>& facts);

}  // namespace capsfw
