#include <capsfw/optim/mpi_ranks.hpp>

#include <mpi.h>
#include <sched.h>

#include <algorithm>
#include <chrono>
#include <climits>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <string>
#include <thread>
#include <utility>

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace capsfw {
namespace {

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point t) {
  return std::chrono::duration<double>(Clock::now() - t).count();
}

/// Counts of MPI are ints.
constexpr std::size_t kPiece = std::size_t{1} << 30;
/// For answers to the question who is there.
constexpr double kAnswerSeconds = 2;
constexpr int kData = 1, kAsk = 2, kWaiting = 3, kWorking = 4;

void check(int code, const char* what) {
  if (code == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING];
  int length = 0;
  MPI_Error_string(code, text, &length);
  throw RankError(fmt::format("MPI, {}: {}", what, std::string(text, static_cast<size_t>(length))));
}

/// Ends the process if it still lives after so many seconds: for calls that nobody can poll.
class Deadline {
 public:
  Deadline(double seconds, std::string what)
      : thread_([this, seconds, what = std::move(what)] {
          std::unique_lock lock(mutex_);
          const std::chrono::duration<double> left(std::min(seconds, kNever));
          if (over_.wait_for(lock, left, [this] { return done_; })) return;
          fmt::print(stderr,
                     "error: rank {} waited {} s for {}: another rank hangs or has died. Hint: "
                     "--rank-timeout, if it needs more time\n",
                     number_, seconds, what);
          std::_Exit(1);
        }) {}
  ~Deadline() {
    {
      const std::scoped_lock lock(mutex_);
      done_ = true;
    }
    over_.notify_all();
    thread_.join();
  }
  Deadline(const Deadline&) = delete;
  Deadline& operator=(const Deadline&) = delete;

 private:
  static constexpr double kNever = 1e8;  // three years; clocks count nanoseconds
  static std::string number() {
    const char* text = std::getenv("OMPI_COMM_WORLD_RANK");
    if (text == nullptr) text = std::getenv("PMI_RANK");
    return text != nullptr ? text : "?";
  }

  std::mutex mutex_;
  std::condition_variable over_;
  bool done_ = false;
  const std::string number_ = number();
  std::thread thread_;
};

MPI_Datatype type_of(const float*) { return MPI_FLOAT; }
MPI_Datatype type_of(const double*) { return MPI_DOUBLE; }

class MpiRanks : public Ranks {
 public:
  explicit MpiRanks(const MpiOptions& options) : timeout_(options.timeout) {
    if (!(timeout_ > 0))
      throw ValueError(fmt::format("mpi_ranks: timeout must be positive; got {}", timeout_));
    // OpenMPI sums of fewer than four ranks at one of them, and sends the result back: twice the
    // time of halves of halves, for which it has to be asked. Whoever has set it has decided.
    ::setenv("OMPI_MCA_coll_libnbc_iallreduce_algorithm", "3", 0);
    const Deadline deadline(timeout_, "MPI to start");
    int provided = 0;
    check(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided), "start");
    for (MPI_Comm* comm : {&data_, &talk_}) {
      check(MPI_Comm_dup(MPI_COMM_WORLD, comm), "start");
      MPI_Comm_set_errhandler(*comm, MPI_ERRORS_RETURN);
    }
    MPI_Comm_rank(data_, &rank_);
    MPI_Comm_size(data_, &size_);
  }
  ~MpiRanks() override {
    if (!finished_) MPI_Abort(MPI_COMM_WORLD, 1);
  }

  int rank() const override { return rank_; }
  int size() const override { return size_; }

  void exchange(
      int other, const void* out, std::size_t out_bytes, void* in, std::size_t in_bytes) override {
    const auto* from = static_cast<const char*>(out);
    auto* to = static_cast<char*>(in);
    Requests requests;
    pieces(in_bytes, [&](std::size_t at, int n) {
      check(MPI_Irecv(to + at, n, MPI_BYTE, other, kData, data_, &requests.emplace_back()),
            kExchange);
    });
    pieces(out_bytes, [&](std::size_t at, int n) {
      check(MPI_Isend(from + at, n, MPI_BYTE, other, kData, data_, &requests.emplace_back()),
            kExchange);
    });
    wait(requests, kExchange);
    traffic_.bytes += static_cast<std::int64_t>(out_bytes);
  }

  void broadcast(void* data, std::size_t bytes) override {
    Requests requests;
    pieces(bytes, [&](std::size_t at, int n) {
      check(MPI_Ibcast(static_cast<char*>(data) + at, n, MPI_BYTE, 0, data_,
                       &requests.emplace_back()),
            kBroadcast);
    });
    wait(requests, kBroadcast);
  }

  std::vector<std::string> gather(const std::string& mine) override {
    const auto ranks = static_cast<std::size_t>(size_);
    std::vector<int> lengths(ranks), starts(ranks);
    const auto length = static_cast<int>(mine.size());
    Requests requests(1);
    check(MPI_Iallgather(&length, 1, MPI_INT, lengths.data(), 1, MPI_INT, data_, requests.data()),
          kGather);
    wait(requests, kGather);
    std::size_t total = 0;
    for (std::size_t r = 0; r < ranks; ++r) {
      starts[r] = static_cast<int>(total);
      total += static_cast<std::size_t>(lengths[r]);
    }
    if (total > INT_MAX) throw RankError("MPI: texts of more than 2 GB");
    std::string all(total, '\0');
    check(MPI_Iallgatherv(mine.data(), length, MPI_CHAR, all.data(), lengths.data(), starts.data(),
                          MPI_CHAR, data_, requests.data()),
          kGather);
    wait(requests, kGather);
    std::vector<std::string> out;
    for (std::size_t r = 0; r < ranks; ++r)
      out.push_back(
          all.substr(static_cast<std::size_t>(starts[r]), static_cast<std::size_t>(lengths[r])));
    return out;
  }

  void start_sum(float* numbers, std::int64_t n) override { start(numbers, n); }
  void start_sum(double* numbers, std::int64_t n) override { start(numbers, n); }

  // MPI moves messages inside of its own calls only.
  void progress() override {
    answer(kWorking);
    if (sums_.empty()) return;
    int done = 0;
    check(MPI_Testall(static_cast<int>(sums_.size()), sums_.data(), &done, MPI_STATUSES_IGNORE),
          kSum);
  }
  void finish_sums() override {
    wait(sums_, kSum);
    sums_.clear();
  }

  void wait_for_all() override {
    Requests requests(1);
    check(MPI_Ibarrier(data_, requests.data()), kAll);
    wait(requests, kAll, timeout_);
  }
  void finish() override {
    if (finished_) return;
    Requests requests(1);
    check(MPI_Ibarrier(data_, requests.data()), kEnd);
    wait(requests, kEnd);
    finished_ = true;
    const Deadline deadline(timeout_, "MPI to end");
    for (MPI_Comm* comm : {&data_, &talk_}) MPI_Comm_free(comm);
    MPI_Finalize();
  }
  void abort(int code) override {
    if (!finished_) MPI_Abort(MPI_COMM_WORLD, code);
  }
  RankTraffic traffic() const override { return traffic_; }

 private:
  using Requests = std::vector<MPI_Request>;
  static constexpr const char *kExchange = "the exact sum of a step", *kSum = "the sum of a step",
                              *kBroadcast = "what rank 0 sends to all",
                              *kGather = "a meeting of all ranks",
                              *kAll = "the others to end their work", *kEnd = "the end of the run";

  template <class F>
  static void pieces(std::size_t bytes, const F& f) {
    for (std::size_t at = 0; at < bytes; at += kPiece)
      f(at, static_cast<int>(std::min(kPiece, bytes - at)));
  }

  template <class T>
  void start(T* numbers, std::int64_t n) {
    pieces(static_cast<std::size_t>(n), [&](std::size_t at, int count) {
      check(MPI_Iallreduce(MPI_IN_PLACE, numbers + at, count, type_of(numbers), MPI_SUM, data_,
                           &sums_.emplace_back()),
            kSum);
    });
    traffic_.bytes += n * static_cast<std::int64_t>(sizeof(T)) * 2 * (size_ - 1) / size_;
  }

  /// Polls, so that a rank that never comes is noticed, and others get their answers. Those at work
  /// may take `patience` seconds to answer.
  void wait(Requests& requests, const char* what, double patience = kAnswerSeconds) {
    const auto begin = Clock::now();
    auto asked = begin;
    for (int round = 0;; ++round) {
      if (complete(requests, what)) break;
      if (round < 500) {
        sched_yield();
        continue;
      }
      answer(kWaiting);
      if (seconds_since(asked) > timeout_) {
        if (ask(requests, what, patience)) break;
        asked = Clock::now();
      }
      std::this_thread::sleep_for(std::chrono::microseconds(round < 2000 ? 50 : 500));
    }
    traffic_.waited += seconds_since(begin);
  }

  static bool complete(Requests& requests, const char* what) {
    int done = 0;
    check(
        MPI_Testall(static_cast<int>(requests.size()), requests.data(), &done, MPI_STATUSES_IGNORE),
        what);
    return done != 0;
  }

  /// To whoever asks: what this one does.
  void answer(int state) {
    for (;;) {
      int asked = 0;
      MPI_Status status;
      check(MPI_Iprobe(MPI_ANY_SOURCE, kAsk, talk_, &asked, &status), "a question");
      if (asked == 0) return;
      check(MPI_Recv(nullptr, 0, MPI_BYTE, status.MPI_SOURCE, kAsk, talk_, MPI_STATUS_IGNORE),
            "a question");
      check(MPI_Send(nullptr, 0, MPI_BYTE, status.MPI_SOURCE, state, talk_), "an answer");
    }
  }

  /// The rank that has answered with `state`; -1 for none.
  int answered(int state) {
    int found = 0;
    MPI_Status status;
    check(MPI_Iprobe(MPI_ANY_SOURCE, state, talk_, &found, &status), "an answer");
    if (found == 0) return -1;
    check(MPI_Recv(nullptr, 0, MPI_BYTE, status.MPI_SOURCE, state, talk_, MPI_STATUS_IGNORE),
          "an answer");
    return status.MPI_SOURCE;
  }

  /// What is waited for has come meanwhile; somebody is at work; nobody is.
  enum class Others { came, work, wait };

  /// Asks who is there: those who wait as well answer at once, those at work soon, those who are
  /// lost do not. RankError with their numbers.
  Others question(Requests& requests, const char* what, double patience) {
    for (const int state : {kWaiting, kWorking})
      while (answered(state) >= 0) continue;  // to an earlier question
    std::vector<int> lost;
    for (int r = 0; r < size_; ++r) {
      if (r == rank_) continue;
      lost.push_back(r);
      MPI_Request sent = MPI_REQUEST_NULL;
      check(MPI_Isend(nullptr, 0, MPI_BYTE, r, kAsk, talk_, &sent), "a question");
      check(MPI_Request_free(&sent), "a question");  // there is nothing to wait for
    }
    bool working = false;
    for (const auto begin = Clock::now(); !lost.empty() && seconds_since(begin) < patience;) {
      if (complete(requests, what)) return Others::came;
      answer(kWaiting);
      bool heard = false;
      for (const int state : {kWaiting, kWorking})
        if (const int r = answered(state); r >= 0) {
          heard = true;
          working = working || state == kWorking;
          std::erase(lost, r);
        }
      if (!heard) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    if (complete(requests, what)) return Others::came;
    if (!lost.empty())
      throw RankError(fmt::format(
          "rank {} does not answer: rank {} waited {} s for {}. Hint: it hangs, has died, or needs "
          "more time (--rank-timeout)",
          fmt::join(lost, ", "), rank_, timeout_, what));
    return working ? Others::work : Others::wait;
  }

  /// True if what was waited for has come meanwhile. Twice nobody at work: the last one may have
  /// been on its way from one meeting to the next.
  bool ask(Requests& requests, const char* what, double patience) {
    for (int time = 0; time < 2; ++time) {
      if (const Others now = question(requests, what, patience); now != Others::wait)
        return now == Others::came;
      for (const auto begin = Clock::now(); seconds_since(begin) < kAnswerSeconds / 4;) {
        if (complete(requests, what)) return true;
        answer(kWaiting);
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      }
    }
    throw RankError(fmt::format(
        "rank {} waited {} s for {}, and all others wait, too: they do not make the same calls",
        rank_, timeout_, what));
  }

  double timeout_;
  MPI_Comm data_ = MPI_COMM_NULL, talk_ = MPI_COMM_NULL;
  int rank_ = 0, size_ = 1;
  bool finished_ = false;
  Requests sums_;
  RankTraffic traffic_;
};

}  // namespace

std::unique_ptr<Ranks> mpi_ranks(MpiOptions options) { return std::make_unique<MpiRanks>(options); }

}  // namespace capsfw
