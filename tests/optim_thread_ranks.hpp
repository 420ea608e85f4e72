#pragma once
// Ranks that are threads of this process: what trains on several of them needs no MPI to be tested.

#include <chrono>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <exception>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <capsfw/optim/ranks.hpp>

namespace optim_test {

/// The post between ranks.
struct World {
  explicit World(int n) : size(n) {}
  int size;
  std::mutex mutex;
  std::condition_variable changed;
  std::map<std::pair<int, int>, std::deque<std::string>> boxes;  // from, to
};

class ThreadRanks : public capsfw::Ranks {
 public:
  ThreadRanks(World& world, int rank) : world_(world), rank_(rank) {}
  int rank() const override { return rank_; }
  int size() const override { return world_.size; }

  void exchange(
      int other, const void* out, std::size_t out_bytes, void* in, std::size_t in_bytes) override {
    send(other, 'x', {static_cast<const char*>(out), out_bytes});
    const std::string got = receive(other, 'x');
    if (got.size() != in_bytes) throw capsfw::RankError("exchange: other lengths");
    if (in_bytes > 0) std::memcpy(in, got.data(), in_bytes);
    bytes_ += static_cast<std::int64_t>(out_bytes);
  }
  void broadcast(void* data, std::size_t bytes) override {
    if (rank_ == 0)
      for (int r = 1; r < size(); ++r) send(r, 'b', {static_cast<const char*>(data), bytes});
    else
      std::memcpy(data, receive(0, 'b').data(), bytes);
  }
  std::vector<std::string> gather(const std::string& mine) override { return meet('g', mine); }
  void start_sum(float* x, std::int64_t n) override { sum(x, n); }
  void start_sum(double* x, std::int64_t n) override { sum(x, n); }
  void progress() override {}
  void finish_sums() override {}
  void wait_for_all() override { gather(""); }
  void finish() override { gather(""); }
  void abort(int) override {}
  capsfw::RankTraffic traffic() const override { return {bytes_, 0}; }

 private:
  std::vector<std::string> meet(char call, const std::string& mine) {
    for (int r = 0; r < size(); ++r) send(r, call, mine);
    std::vector<std::string> all;
    for (int r = 0; r < size(); ++r) all.push_back(receive(r, call));
    return all;
  }
  /// With the call that it belongs to: MPI does not forgive another order of calls, either.
  void send(int to, char call, const std::string& text) {
    const std::scoped_lock lock(world_.mutex);
    world_.boxes[{rank_, to}].push_back(call + text);
    world_.changed.notify_all();
  }
  std::string receive(int from, char call) {
    std::unique_lock lock(world_.mutex);
    auto& box = world_.boxes[{from, rank_}];
    if (!world_.changed.wait_for(lock, std::chrono::seconds(20), [&] { return !box.empty(); }))
      throw capsfw::RankError("rank " + std::to_string(from) + " does not answer");
    std::string text = std::move(box.front());
    box.pop_front();
    if (text[0] != call) throw capsfw::RankError("rank " + std::to_string(from) + " calls another");
    return text.substr(1);
  }
  template <class T>
  void sum(T* x, std::int64_t n) {
    const auto all =
        meet('s', {reinterpret_cast<const char*>(x), static_cast<std::size_t>(n) * sizeof(T)});
    for (const std::string& text : all)
      if (text.size() != all[0].size()) throw capsfw::RankError("a sum of other lengths");
    for (std::int64_t i = 0; i < n; ++i) {
      T total = 0;
      for (const std::string& text : all) {
        T v;
        std::memcpy(&v, text.data() + static_cast<std::size_t>(i) * sizeof(T), sizeof(T));
        total += v;
      }
      x[i] = total;
    }
  }

  World& world_;
  int rank_;
  std::int64_t bytes_ = 0;
};

/// Runs `body` on so many ranks at once. What they threw, by rank; "" for nothing.
inline std::vector<std::string> on_ranks(int n, const std::function<void(ThreadRanks&)>& body) {
  World world(n);
  std::vector<std::string> errors(static_cast<std::size_t>(n));
  std::vector<std::thread> threads;
  for (int r = 0; r < n; ++r)
    threads.emplace_back([&, r] {
      try {
        ThreadRanks ranks(world, r);
        body(ranks);
      } catch (const std::exception& e) {
        errors[static_cast<std::size_t>(r)] = e.what();
      }
    });
  for (std::thread& t : threads) t.join();
  return errors;
}

}  // namespace optim_test
